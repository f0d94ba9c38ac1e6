"""Langevin updates, kernel scores, moments of pictures and rollouts on the device beside their peers: four stages of
bench.gpu.

The contestants are those of the CPU's benches, each checked against the float64 reference before it is timed.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from functools import partial
from types import ModuleType

import torch

from bench import workload
from bench.gpu_setting import Setting, attempt, rate
from eqflow import ops


def _bench(name: str) -> ModuleType:
    """The CPU's bench, loaded late: importing it holds the process to one core, which the other stages must not be."""
    return importlib.import_module(f"bench.bench_{name}")


def langevin(setting: Setting) -> Iterator[dict]:
    """Numbers per second of one update, and of a step of Heun; a copy of the state is the limit's yardstick."""
    bench = _bench("langevin")
    scale = math.sqrt(2 * bench.ETA * bench.DT)
    cases = [(f"{c} channels, {2 * r + 1}x{2 * r + 1}", c, r, size, batch) for c, r, size, _, batch in bench.CASES]
    for name, channels, radius, size, batch in cases[:1] if setting.dry else cases:
        size, batch = (16, 2) if setting.dry else (size, batch)
        entries = bench.contestants(channels, radius, size, batch, str(setting.device))
        yield from _steps(setting, f"{name}, {size}x{size} x {batch}", entries, scale, batch * channels * size**2)
    size, batch = (16, 2) if setting.dry else (128, 2048)
    entries = bench.heun_contestants(2, size, batch, str(setting.device))
    yield from _steps(setting, f"2 channels, 1x1, Heun, {size}x{size} x {batch}", entries, scale, 2 * batch * size**2)


def _steps(setting: Setting, case: str, entries: dict, scale: float, numbers: int) -> Iterator[dict]:
    for name, step in entries.items():
        if setting.dry and name == "torch.compile":
            continue  # it takes half a minute to compile
        moved = 8 if name == "copy" else 12  # bytes a number: read and written

        def measure(step=step, moved=moved) -> dict:
            row = rate("numbers_per_second", numbers, setting.times(lambda: step(scale)))
            return row | {"bytes_per_second": moved * row["numbers_per_second"]}

        yield attempt({"case": case, "by": name}, measure)


def kernel_score(setting: Setting) -> Iterator[dict]:
    """Pairs of query and point per second."""
    bench = _bench("kernel_score")
    for dimension in (3,) if setting.dry else (1, 2, 3, 8, 16):
        queries, points = (cloud[: 200 if setting.dry else None] for cloud in bench.cloud(dimension))
        queries, points = queries.to(setting.device), points.to(setting.device)
        entries = {name: partial(bench.fused, backend=name) for name in setting.backends()}
        entries |= {f"{peer.__name__} {n}": bench.in_chunks(peer, n) for peer in (bench.matmul, bench.cdist)
                    for n in (1024, 8192)}  # fmt: skip
        for name, score in entries.items():
            tolerance = 4e-6 if name in setting.backends() else bench.TOLERANCE

            def measure(name=name, score=score, queries=queries, points=points, tolerance=tolerance) -> dict:
                error = bench.require_equal(name, score, queries, points, tolerance)
                taken = setting.times(lambda: score(queries, points))
                return {
                    "deviation": error,
                    **rate("pairs_per_second", len(queries) * len(points), taken),
                }

            yield attempt({"d": dimension, "by": name}, measure)


def field_moments(setting: Setting) -> Iterator[dict]:
    """Pictures per second: 72 functionals and 12 terms."""
    bench = _bench("field_moments")
    pictures, size = (2, 16) if setting.dry else (1024, 128)
    state = workload.developed(pictures, size, size).to(setting.device)
    exact = ops.field_moments(state[:4].double(), bench.FUNCTIONALS, bench.TERMS)
    runs = {by: (partial(ops.field_moments, backend=by), pictures) for by in setting.backends()}
    runs = {by: (partial(run, functionals=bench.FUNCTIONALS, terms=bench.TERMS), n) for by, (run, n) in runs.items()}
    runs["PyTorch float32"] = bench.torch_moments, min(pictures, 64)
    for by, (run, count) in runs.items():

        def measure(by=by, run=run, some=state[:count]) -> dict:
            deviation = bench.require_equal(by, run(some)[:4].double(), exact)
            return {"deviation": deviation, **rate("pictures_per_second", len(some), setting.times(lambda: run(some)))}

        yield attempt({"pictures": f"{count} of {size} x {size}", "by": by}, measure)


def rollout(setting: Setting) -> Iterator[dict]:
    """Steps per second, eager and as a CUDA graph, beside the loop of four evaluations."""
    bench = _bench("rollout")
    steps = bench.CHECKED_STEPS if setting.dry else 200
    for case, (score, start) in bench.cases(str(setting.device)).items():
        for name, run in bench.contestants(score, start, str(setting.device)).items():

            def measure(run=run) -> dict:
                with torch.no_grad():
                    return rate("steps_per_second", steps, setting.times(lambda: run(steps), turns=5))

            yield attempt({"case": case, "by": name}, measure)
