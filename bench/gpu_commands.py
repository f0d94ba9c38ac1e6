"""The stages of bench.gpu in the order of their worth: what stands last falls to the time limit first."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from bench.machine import ROOT, output_of

_CUDA_TOOLS = ("/usr/local/cuda/bin", "/usr/local/bin")


class Command(NamedTuple):
    """One stage: a process with a time limit in seconds."""

    name: str
    limit: float
    words: list[str]
    allowed: tuple[int, ...] = (0,)
    more: Mapping[str, str] = MappingProxyType({})  # environment
    skipped: str | None = None  # why it cannot run
    has_rows: bool = False  # takes --rows FILE
    beside: bool = False  # no timing, so that it may run beside others


def _tool(name: str) -> str | None:
    found = (shutil.which(name, path=folder) for folder in (None, *_CUDA_TOOLS))
    return next((path for path in found if path), None)


def _design(device: str) -> str:
    """A world of creatures from nothing to its report, timed, in a folder that is thrown away."""
    eqflow = shlex.join([sys.executable, "-m", "eqflow"])
    return (
        f"set -e; place=$(mktemp -d); trap 'rm -rf $place' EXIT; time {eqflow} design firefly --device {device} "
        "--minutes 0.5 --out $place/world"
    )


def _install(options: argparse.Namespace) -> str:
    """A shell line: the wheels, then the package for the architecture of this GPU."""
    pip = f"'{sys.executable}' -m pip install --quiet --no-deps --upgrade --target '{options.site}'"
    wheels = f"{pip} --no-index '{options.wheels}'/*.whl && " if options.wheels else ""
    capability = output_of("nvidia-smi", "--id=0", "--query-gpu=compute_cap", "--format=csv,noheader") or "9.0"
    architecture = capability.replace(".", "") + "-real"
    settings = {
        "build-dir": Path(tempfile.gettempdir(), "eqflow-bench-build"),
        "cmake.define.CMAKE_CUDA_ARCHITECTURES": architecture,
        "cmake.define.EQFLOW_CUDA": "ON",
    }
    words = " ".join(f"-C{name}='{value}'" for name, value in settings.items())
    return f"{wheels}{pip} --no-index --no-build-isolation {words} '{ROOT}' && echo built for sm_{architecture}"


def commands(options: argparse.Namespace) -> list[Command]:
    """All stages for these options."""
    python, gpu = sys.executable, options.device == "cuda"
    dry = ["--dry-run"] if options.dry_run else []

    def measure(name: str, limit: float, *before: str, label: str | None = None, **more) -> Command:
        return Command(
            label or name, limit, [*before, python, "-m", "bench.gpu_stages", name, *dry], has_rows=True, **more
        )

    def tests(name: str, limit: float, *words: str) -> Command:
        processes = str(min(8, os.cpu_count() or 1)) if gpu else "auto"  # each takes memory of the GPU
        # Beside xdist the plugin for benchmarks warns, and warnings are errors.
        parallel = ["-p", "no:benchmark", "-n", processes] if importlib.util.find_spec("xdist") else []
        base = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests"), *parallel, *words]
        # 5: nothing was collected. A dry run only asks whether the tests can be collected.
        return Command(
            name,
            limit,
            [*base, *(["--collect-only"] if options.dry_run else [])],
            allowed=(0, 5),
            more={"OMP_NUM_THREADS": "2"},  # every process would take all cores
            beside=True,
        )

    sanitizer = _tool("compute-sanitizer")
    absent = None if sanitizer and gpu else "compute-sanitizer is not here" if gpu else "a dry run has no GPU"
    sanitize = [sanitizer or "compute-sanitizer", "--error-exitcode", "9", "--tool"]
    there = importlib.util.find_spec("diffusers")
    peer = "a dry run has no GPU" if not gpu else None if there else "its peer needs diffusers, which is not here"
    slow = None if gpu else "a dry run has no GPU"
    score = ["--device", options.device, "--batch", "64", "--seconds", "30"]
    plain = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # every tensor its own allocation, so that its ends are guarded
    build = [Command("build", 150, ["bash", "-c", _install(options)])] if options.build else []
    return [
        *build,
        measure("environment", 60),
        measure("bits", 60, beside=True),
        tests("gpu-tests", 180, "-m", "gpu"),
        measure("networks", 60, beside=True),
        measure("sanitized", 60, *sanitize, "memcheck", label="memcheck", skipped=absent, more=plain, beside=True),
        measure("sanitized", 60, *sanitize, "racecheck", label="racecheck", skipped=absent, more=plain, beside=True),
        measure("limits", 60),
        measure("gray-scott", 70),
        measure("training", 120),
        measure("langevin", 60),
        measure("normals", 40),
        measure("dataset", 60),
        measure("kernel-score", 30),
        measure("field-moments", 30),
        measure("derivatives", 40),
        measure("rollout", 60),
        Command("score", 90, [python, "-m", "bench.bench_score", *score], skipped=peer),
        Command("creatures", 150, ["bash", "-c", _design(options.device)], skipped=slow),
        measure("peers", 90),
        measure("triton", 60),
        measure("disk", 60),
        tests("tests", 240, "-m", "not gpu"),
    ]
