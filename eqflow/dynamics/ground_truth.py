"""Simulators as dynamics: many steps in one call, cut at the same places whatever happens."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from eqflow.dynamics.integrators import Stepper


@dataclass(frozen=True)
class GroundTruth:
    """A simulator that makes many steps in one call, such as `eqflow.systems.gray_scott.GrayScott`.

    Two calls of a kernel do not equal one to the bit, so a trajectory is always cut at the same places: at the
    multiples of `segment`, whatever is observed and however often it is interrupted. States in between come from the
    same call. Another `segment` gives another rounding.

    Args:
        system: has `dt`, and `run(state, steps, every=..., backend=...)` that gives [batch, frames, ...].
        segment: steps in a call.
        backend: of the system's kernel.
    """

    system: Any
    segment: int = field(default=100, kw_only=True)
    backend: str = field(default="auto", kw_only=True)

    def __post_init__(self):
        if self.segment < 1:
            raise ValueError(f"expected segment from 1 up, got {self.segment}")

    def stepper(
        self, state: Tensor, *, integrator: str | None, dt: float | None, seed: int, first_sample: int
    ) -> Stepper:
        """What advances states like `state`: there is one integrator and no noise."""
        if integrator is not None:
            raise ValueError(f"expected no integrator, since a ground truth has its own, got {integrator!r}")
        if dt is not None and dt != self.system.dt:
            raise ValueError(f"expected no dt, or {self.system.dt:g} as the system has, got {dt:g}")
        return _Segments(self)


class _Segments(Stepper):
    def __init__(self, truth: GroundTruth):
        dt = truth.system.dt
        super().__init__("simulator", dt, f"dt={dt:g} is too large for this system")
        self._truth, self.block = truth, truth.segment

    def advance(self, state: Tensor, step: int, stops: Sequence[int]) -> Iterator[Tensor]:
        every = math.gcd(*(stop - step for stop in stops))
        try:
            frames = self._truth.system.run(state, stops[-1] - step, every=every, backend=self._truth.backend)
        except FloatingPointError as error:
            raise FloatingPointError(f"between the steps {step} and {stops[-1]}: {error}") from None
        for stop in stops:
            yield frames[:, (stop - step) // every - 1].contiguous()
