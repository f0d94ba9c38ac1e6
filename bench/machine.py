"""What a figure was measured on: device, instruction set, versions, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("eqflow", "torch", "numpy", "triton", "numba", "jax", "jaxlib", "cupy-cuda13x")


def output_of(*command: str) -> str | None:
    """What a command prints, or None if it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> dict:
    """HEAD, and whether files of the operators differ from it; a copy without git has neither."""
    changes = output_of("git", "status", "--porcelain", "--", "csrc", "kernels", "eqflow/ops", "CMakeLists.txt")
    return {
        "commit": output_of("git", "rev-parse", "--short=12", "HEAD"),
        "changed": None if changes is None else [line.split(maxsplit=1)[1] for line in changes.splitlines()],
    }


def _cpu() -> dict:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"name": platform.processor() or platform.machine()}

    def field(name: str) -> str:
        found = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
        return found[1] if found else ""

    name = field("model name") or platform.machine()
    return {"name": name, "family": field("cpu family"), "model": field("model"), "cores": os.cpu_count()}


def describe() -> dict:
    """Processor, instruction set of the kernels, versions, commit, load."""
    from eqflow import _C

    return {
        "cpu": _cpu(),
        "isa": _C.cpu_isa(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {package: version for package in PACKAGES if (version := _version(package))},
        **_commit(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def describe_gpu() -> dict:
    """The first GPU, its driver and the compiler."""
    import torch

    properties = torch.cuda.get_device_properties(0)
    names = "name,driver_version,clocks.max.sm,clocks.max.mem,power.limit"
    found = output_of("nvidia-smi", "--id=0", f"--query-gpu={names}", "--format=csv,noheader") or ""
    compiler = re.findall(r"release ([\d.]+)", output_of("nvcc", "--version") or "")
    return {
        "name": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "cache_bytes": getattr(properties, "L2_cache_size", None),
        "capability": f"{properties.major}.{properties.minor}",
        "nvidia_smi": dict(zip(names.split(","), found.split(", "), strict=False)),
        "cuda_of_torch": torch.version.cuda,
        "nvcc": compiler[0] if compiler else None,
    }


def sentence(facts: dict) -> str:
    """The machine in one line."""
    cpu, versions = facts["cpu"], ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    family = f" (family {cpu['family']}, model {cpu['model']})" if cpu.get("family") else ""
    changed = " with uncommitted changes" if facts["changed"] else ""
    return f"{cpu['name']}{family}, {facts['isa']}; {versions}; commit {facts['commit'] or 'unknown'}{changed}"
