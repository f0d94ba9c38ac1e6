"""The paper's data set at full size: two stages of bench.gpu."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.gpu_setting import Setting, attempt
from eqflow import ops
from eqflow.systems.gray_scott import GOLDEN, initial_state, is_dead, preset


def dataset(setting: Setting) -> Iterator[dict]:
    """The paper's data set on the device: its four presets, 8,192 samples of 128 x 128 cells, 10,000 steps each."""
    samples, size, steps = (2, 32, 40) if setting.dry else (8192, 128, 10_000)

    def make(name: str) -> dict:
        parameters, golden = preset(name).parameters, GOLDEN[name]
        indices = torch.arange(samples, device=setting.device)
        begin = time.perf_counter()
        start = initial_state("discs", indices, size, size, seed=0)
        setting.synchronize()
        middle = time.perf_counter()
        last = ops.gray_scott(start, steps, feed=parameters.feed, kill=parameters.kill, backend="native")
        setting.synchronize()
        end = time.perf_counter()
        living = last[~is_dead(last)]
        means = living.double().mean((0, 2, 3)).tolist() if len(living) else [0.0, 0.0]
        errors = [spread * (1 / max(1, len(living)) + 1 / 512) ** 0.5 for spread in (golden.spread_u, golden.spread_v)]
        return {
            "start_seconds": middle - begin,
            "seconds": end - middle,
            "updates_per_second": samples * size * size * steps / (end - middle),
            "alive": f"{len(living)} of {samples}",
            "mean_u": means[0],
            "mean_v": means[1],
            "standard_errors_from_golden": [
                (mean - want) / error
                for mean, want, error in zip(means, (golden.mean_u, golden.mean_v), errors, strict=True)
            ],
        }

    for name in GOLDEN:
        yield attempt({"preset": name}, lambda name=name: make(name))


def disk(setting: Setting) -> Iterator[dict]:
    """The same, from nothing to complete folders on disk."""
    from eqflow.data import Recipe, generate

    size = {"samples": 4, "size": 32, "steps": 40} if setting.dry else {"samples": 8192}

    def make(name: str) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            recipe = Recipe.from_preset(name, **size)
            summary = generate(recipe, Path(folder, name), device=setting.device)
            seconds, megabytes = summary.seconds, summary.bytes / 1e6
        return {"seconds": seconds, "megabytes": megabytes, "dead": summary.dead, "redrawn": summary.redrawn}

    for name in GOLDEN:
        yield attempt({"preset": name}, lambda name=name: make(name))
