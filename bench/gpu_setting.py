"""How bench.gpu measures: the device, its clock, and rows that survive a failure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch

from eqflow import ops

_LEAST_TURN = 4e-3  # seconds


class Setting(NamedTuple):
    """Where to run, and whether only to show that the code runs."""

    device: torch.device
    dry: bool

    def times(self, run: Callable[[], object], turns: int = 7) -> list[float]:
        """Seconds of a call in each turn, after two to warm up: CUDA events, or the wall clock on a CPU.

        A turn has as many calls as fill some milliseconds, so that the GPU works while Python prepares the next one.
        """
        run(), run()
        if self.device.type == "cpu":
            return [_wall(run) for _ in range(2)]
        calls = max(1, math.ceil(_LEAST_TURN / _on_device(run, 1)))
        return [_on_device(run, calls) for _ in range(turns)]

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def backends(self) -> list[str]:
        """The kernels that run here."""
        return [name for name in ("native", "triton") if ops.backends(self.device)[name] is None]


def _on_device(run: Callable[[], object], calls: int) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    for _ in range(calls):
        run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / calls


def _wall(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def rate(name: str, amount: float, taken: list[float]) -> dict:
    """The median rate of some turns, and their range."""
    return {name: amount / median(taken), "least": amount / max(taken), "most": amount / min(taken)}


def attempt(case: dict, measure: Callable[[], dict]) -> dict:
    """The row of a case: what was measured, or the error."""
    try:
        return case | measure()
    except Exception as error:
        return case | {"error": f"{type(error).__name__}: {error}"[:300]}
