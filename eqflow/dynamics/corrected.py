"""A skew flow that the score alone puts right after every step: more pull to the data for the same motion.

Both parts keep the density whose score is s, so their alternation does:

    one step of      dx = (K * s + eta s) dt + sqrt(2 eta) dW                      the flow
    then n steps of  dx = eta' s dt' + sqrt(2 eta') dW                             the corrections

A correction is the exact Ornstein-Uhlenbeck step, x' = sqrt(alpha) D + e (x - sqrt(alpha) D) + sqrt((1 - alpha)
(1 - e^2)) xi with e = exp(-eta' dt' / (1 - alpha)). To first order in the steps it is what eta + n eta' dt' / dt would
do, but the score is asked again in between; as eta' dt' grows it becomes a new noise on the clean field.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eqflow.dynamics import coefficients
from eqflow.dynamics.flows import SkewFlow
from eqflow.dynamics.integrators import Fused, Stepper

_APART = 2**40  # steps between the counters of two corrections: more than a rollout makes
_MOST = 2**16 - 2  # counters end at 2^56


@dataclass(frozen=True)
class CorrectedFlow:
    """A `SkewFlow` whose every step is followed by steps of the score alone.

    Args:
        flow: the skew flow, of the score of a denoiser.
        corrections: steps of the score alone after each of its steps, each one evaluation more; 0: the flow itself.
        eta: strength of a correction.
        dt: time step of a correction, which the clock of the rollout does not count; None: that of the flow.

    Raises:
        ValueError: an argument is out of range, or the score is none of noised data.

    Example:
        >>> from eqflow.dynamics import rollout, skew
        >>> from eqflow.score import KernelScore
        >>> flow = SkewFlow(KernelScore(torch.randn(20, 2), 0.9), skew.rotation(1.0))
        >>> rollout(torch.zeros(4, 2), CorrectedFlow(flow, 2), 10, dt=0.01).step
        10
    """

    flow: SkewFlow
    corrections: int = 1
    eta: float = field(default=1.0, kw_only=True)
    dt: float | None = field(default=None, kw_only=True)

    def __post_init__(self):
        if not 0 <= self.corrections <= _MOST:
            raise ValueError(f"expected corrections in [0, {_MOST}], got {self.corrections}")
        if not 0 < self.eta < math.inf:
            raise ValueError(f"expected eta finite and above 0, got {self.eta}: corrections=0 makes none")
        if self.dt is not None and not 0 < self.dt < math.inf:
            raise ValueError(f"expected dt finite and above 0, or None for that of the flow, got {self.dt}")
        if getattr(self.score, "alpha", None) is None:
            raise ValueError(
                f"expected the score of noised data, whose alpha says how far to correct, got "
                f"{type(self.score).__name__} without alpha: take a SkewFlow of larger eta"
            )

    @property
    def score(self) -> Any:
        """That of the flow."""
        return self.flow.score

    @property
    def output(self) -> Callable[[Tensor], Tensor]:
        """What the score computes of a state, as the flow does."""
        return self.flow.output

    def stepper(
        self, state: Tensor, *, integrator: str | None, dt: float | None, seed: int, first_sample: int
    ) -> Stepper:
        """What advances states like `state`; integrator and dt are those of the flow.

        Raises:
            ValueError: no such integrator, or dt is above its stability limit.
        """
        first = self.flow.stepper(state, integrator=integrator, dt=dt, seed=seed, first_sample=first_sample)
        if not self.corrections:
            return first
        alone, dt = SkewFlow(self.score, torch.zeros(2 * state.shape[1:2] + (1, 1)), self.eta), self.dt or first.dt
        passes = coefficients.of_skew_flow("exact-ou", alone, dt, state)
        options = {"seed": seed, "first_sample": first_sample, "backend": self.flow.backend}
        correction = Fused("exact-ou", dt, first.cause, passes, self.output, **options)
        return _Corrected(first, correction, self.corrections)


class _Corrected(Stepper):
    """A step of one stepper, then some of another with noise of its own."""

    def __init__(self, first: Stepper, correction: Stepper, corrections: int):
        super().__init__(first.name, first.dt, first.cause)
        self.check = first.check
        self._first, self._correction = first, correction
        self._counters = range(_APART, (corrections + 1) * _APART, _APART)

    @torch.no_grad()
    def step(self, state: Tensor, step: int | Tensor) -> Tensor:
        state = self._first.step(state, step)
        for counter in self._counters:
            state = self._correction.step(state, step + counter)
        return state
