"""One step after another: what every integrator of a rollout does with the fused operator.

All noisy integrators are passes x' = b base + A * x + B * f(x) + c xi of `ops.langevin_update`, with f the output of a
network or a drift and xi the noise of (seed, step, sample, site):

    one pass, one evaluation     Euler-Maruyama, exact Ornstein-Uhlenbeck
    two passes, two evaluations  Heun: x^ as Euler, then x' = x/2 + A' * x^ + B' * f(x^) + c/2 xi, the same xi twice
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops.langevin import Update


class Stepper:
    """Advances a batch; made by a dynamics for one rollout.

    Attributes:
        name: of the integrator.
        dt: time step.
        block: steps between the points at which the trajectory can be cut and continued without changing a bit.
        cause: what to suspect when the state diverges.
    """

    block = 1

    def __init__(self, name: str, dt: float, cause: str):
        self.name, self.dt, self.cause = name, dt, cause

    def check(self, state: Tensor) -> None:
        """Raise a ValueError if the first step cannot be right."""

    def step(self, state: Tensor, step: int | Tensor) -> Tensor:
        """The state one step later, in new memory."""
        raise NotImplementedError

    def advance(self, state: Tensor, step: int, stops: Sequence[int]) -> Iterator[Tensor]:
        """The state, which stands at `step`, at each of the rising step numbers `stops`."""
        for stop in stops:
            for number in range(step, stop):
                state = self.step(state, number)
            step = stop
            yield state


class Fused(Stepper):
    """One or two passes of the fused operator a step.

    Args:
        passes: one, or the predictor and the corrector of Heun.
        output: f(x).
        seed, first_sample, backend: see `ops.langevin_update`.
    """

    def __init__(
        self,
        name: str,
        dt: float,
        cause: str,
        passes: Sequence[Update],
        output: Callable[[Tensor], Tensor],
        *,
        seed: int,
        first_sample: int,
        backend: str,
    ):
        super().__init__(name, dt, cause)
        self._passes, self._output = passes, output
        self._noise = {"seed": seed, "first_sample": first_sample, "backend": backend}

    def check(self, state: Tensor) -> None:
        if not state.numel():
            return
        with torch.no_grad():
            output = self._output(state)
        if output.shape != state.shape:
            raise ValueError(
                f"expected an output shaped as the state, {list(state.shape)}, got {list(output.shape)}: "
                "does the score belong to this state?"
            )
        bad = ~output.isfinite().flatten(1).all(1)
        if bad.any():
            raise ValueError(
                f"expected finite numbers from the score or drift, but at the start it gives NaN or infinity for "
                f"sample {int(bad.nonzero()[0]) + self._noise['first_sample']}, whose state is finite: mend it"
            )

    @torch.no_grad()
    def step(self, state: Tensor, step: int | Tensor) -> Tensor:
        first = self._passes[0]
        moved = self._pass(first, state, self._output(state), step)
        for later in self._passes[1:]:
            moved = self._pass(later, moved, self._output(moved), step, base=state)
        return moved

    def _pass(self, constants: Update, state: Tensor, output: Tensor, step: int | Tensor, base: Tensor | None = None):
        return ops.langevin_update(
            state,
            output,
            *constants[:3],
            step=step,
            base=base,
            base_scale=constants.base_scale,
            **self._noise,
        )


class RungeKutta(Stepper):
    """The classical fourth-order scheme for dx/dt = f(x)."""

    def __init__(self, dt: float, cause: str, drift: Callable[[Tensor], Tensor]):
        super().__init__("rk4", dt, cause)
        self._drift = drift

    def check(self, state: Tensor) -> None:
        if state.numel() and not self._drift(state).isfinite().all():
            raise ValueError("expected finite numbers from the drift, but at the start it gives NaN or infinity")

    @torch.no_grad()
    def step(self, state: Tensor, step: int | Tensor) -> Tensor:
        h = self.dt
        first = self._drift(state)
        second = self._drift(torch.add(state, first, alpha=h / 2))
        third = self._drift(torch.add(state, second, alpha=h / 2))
        fourth = self._drift(torch.add(state, third, alpha=h))
        slope = (first + fourth).add_(second, alpha=2).add_(third, alpha=2)
        return torch.add(state, slope, alpha=h / 6)
