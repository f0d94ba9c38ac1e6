"""The measuring stages of bench.gpu, each run as `python -m bench.gpu_stages STAGE [--dry-run] [--rows FILE]`.

A stage is a generator of rows; each row is printed and written at once, so that a stage that is stopped keeps what it
measured. What fails becomes a row with an error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch

from bench import gpu_dynamics, gpu_limits, machine
from bench.gpu_bits import bits, sanitized
from bench.gpu_dataset import dataset, disk
from bench.gpu_networks import derivatives, network_values, training
from bench.gpu_setting import Setting, attempt, rate
from bench.gpu_speed import gray_scott, peers_of_gray_scott, triton
from eqflow import ops


def environment(setting: Setting) -> Iterator[dict]:
    """Device, driver, versions, commit."""
    yield machine.describe() | ({} if setting.device.type == "cpu" else {"gpu": machine.describe_gpu()})


def limits(setting: Setting) -> Iterator[dict]:
    """Bandwidth of a copy (read and write) and of a fill; issue rates."""
    source = torch.rand(2**16 if setting.dry else 2**29, device=setting.device)
    target, size = torch.empty_like(source), source.numel() * 4
    yield {
        "limit": "bytes copied (read and written)",
        **rate("per_second", 2 * size, setting.times(lambda: target.copy_(source))),
    }
    yield {"limit": "bytes filled", **rate("per_second", size, setting.times(lambda: target.fill_(1.0)))}
    if setting.device.type == "cuda":
        capability = torch.cuda.get_device_capability()
        try:
            yield from gpu_limits.issue_rates("{}.{}".format(*capability))
        except (RuntimeError, OSError) as error:
            yield {"limit": "issue rates", "error": str(error)[-300:]}


def normals(setting: Setting) -> Iterator[dict]:
    """Numbers per second, as a part of the bandwidth of writing them."""
    for batch, sites in ((8192, 32_768), (64, 2**22), (2**26, 3)):
        if setting.dry:
            batch, sites = 64, 33
        count, output = batch * sites, torch.empty(batch, sites, device=setting.device)
        fill = count / median(setting.times(lambda output=output: output.fill_(1.0)))
        makers = {"torch.randn": lambda shape=(batch, sites): torch.randn(shape, device=setting.device)}
        for backend in setting.backends():
            makers[backend] = lambda shape=(batch, sites), backend=backend: ops.normal(
                *shape, seed=1, device=setting.device, backend=backend
            )
        for name, make in makers.items():

            def measure(make=make, count=count, fill=fill) -> dict:
                row = rate("normals_per_second", count, setting.times(make))
                return row | {"part_of_write_bandwidth": row["normals_per_second"] / fill}

            yield attempt({"shape": f"{batch} x {sites}", "by": name}, measure)


STAGES = {
    "environment": environment,
    "bits": bits,
    "limits": limits,
    "gray-scott": gray_scott,
    "normals": normals,
    "langevin": gpu_dynamics.langevin,
    "kernel-score": gpu_dynamics.kernel_score,
    "field-moments": gpu_dynamics.field_moments,
    "rollout": gpu_dynamics.rollout,
    "dataset": dataset,
    "disk": disk,
    "triton": triton,
    "peers": peers_of_gray_scott,
    "sanitized": sanitized,
    "networks": network_values,
    "training": training,
    "derivatives": derivatives,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--rows", type=Path, metavar="FILE", help="JSON lines to write")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, at tiny sizes")
    options = parser.parse_args()
    setting = Setting(torch.device("cpu" if options.dry_run else "cuda"), options.dry_run)
    with open(options.rows or "/dev/null", "w") as file:
        errors = 0
        for row in STAGES[options.stage](setting):
            line = json.dumps(row)
            print(line, file=file, flush=True)
            print(line, flush=True)
            errors += isinstance(row.get("error"), str)
    return int(errors > 0)


if __name__ == "__main__":
    sys.exit(main())
