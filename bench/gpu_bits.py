"""Is the device right: two stages of bench.gpu, bits against the CPU and a run for compute-sanitizer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from bench import workload
from bench.gpu_setting import Setting, attempt
from eqflow import ops


def _difference(host: Tensor, device: Tensor) -> dict:
    device = device.cpu()
    apart = (host.double() - device.double()).abs()
    differing = int((host.view(torch.int32) != device.view(torch.int32)).sum())
    finite = bool(device.isfinite().all())
    return {"values": host.numel(), "differing": differing, "largest": float(apart.max()), "finite": finite}


def bits(setting: Setting) -> Iterator[dict]:
    """The simulator and the normals on the device and on the CPU: how many values differ, and by how much."""
    shapes = [
        (3, 128, 128),
        (2, 100, 100),
        (2, 96, 160),
        (2, 33, 65),
        (3, 5, 7),
        (1, 64, 64),
        (1, 256, 256),
        (1, 512, 300),
    ]
    cases = [(*shape, stencil, dt, 200) for shape in shapes for stencil, dt in (("5-point", 1.0), ("9-point", 0.5))]
    cases += [(132, 128, 128, "5-point", 1.0, 1000), (4, 128, 128, "5-point", 1.0, 10_000)]
    for batch, height, width, stencil, dt, steps in cases[:2] if setting.dry else cases:
        if setting.dry:
            batch, height, width, steps = 1, 16, 12, 9
        state, arguments = workload.developed(batch, height, width), workload.arguments(stencil, dt)
        host = ops.gray_scott(state, steps, **arguments, backend="native")
        for backend in setting.backends():
            case = {"case": f"{batch} x {height} x {width}, {stencil}, dt {dt}, {steps} steps", "backend": backend}

            def compare(state=state, steps=steps, arguments=arguments, backend=backend, host=host) -> dict:
                return _difference(host, ops.gray_scott(state.to(setting.device), steps, **arguments, backend=backend))

            yield attempt(case, compare)
    for (batch, sites), seed, step in itertools.product(
        ((3, 5), (64, 4096), (513, 1027)), (0, 2**63 + 5), (0, 2**33 + 1)
    ):
        if setting.dry and (seed or batch > 3):
            continue
        counter = {"seed": seed, "step": step, "first_sample": 7}
        host = ops.normal(batch, sites, **counter, backend="native")
        for backend in setting.backends():

            def draw(batch=batch, sites=sites, counter=counter, backend=backend, host=host) -> dict:
                return _difference(host, ops.normal(batch, sites, **counter, device=setting.device, backend=backend))

            yield attempt({"case": f"normals {batch} x {sites}, seed {seed}, step {step}", "backend": backend}, draw)


def sanitized(setting: Setting) -> Iterator[dict]:
    """Every native kernel on small sizes, for compute-sanitizer to watch."""
    for height, width in ((128, 128), (100, 100), (33, 65), (5, 7), (3, 3), (64, 256), (150, 131)):
        state = torch.rand(2, 2, height, width, device=setting.device) / 2
        for stencil, dt in (("5-point", 1.0), ("9-point", 0.5)):
            ops.gray_scott(state, 18, **workload.arguments(stencil, dt), every=9, backend="native")
    for batch, sites in ((1, 1), (3, 5), (300, 3), (5, 1027), (2, 65_536)):
        ops.normal(batch, sites, seed=1, device=setting.device, backend="native")
    setting.synchronize()
    yield {"ran": "all native kernels"}
