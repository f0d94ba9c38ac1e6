"""The end of a rollout that has left all bounds: when, which sample, and why."""

from __future__ import annotations

from torch import Tensor

from eqflow.dynamics.observers import Watch


class Diverged(FloatingPointError):
    """A rollout left all bounds; the message says when, which sample, and the likely cause.

    Attributes:
        step: the step at which it was seen.
        sample: the global index of the first sample concerned.
    """

    def __init__(self, message: str, step: int, sample: int):
        super().__init__(message)
        self.step, self.sample = step, sample


class DivergenceGuard(Watch):
    """Ends a rollout whose state is not finite, or larger than any state should be.

    Args:
        every: look at every `every`-th state; on a GPU each look waits for the device.
        size: largest absolute value allowed.

    Raises:
        Diverged: from `observe`.
    """

    def __init__(self, every: int = 100, size: float = 1e6):
        super().__init__(every)
        if not size > 0:
            raise ValueError(f"expected size above 0, got {size}")
        self.size = size
        self._first_sample, self._cause = 0, "take a smaller dt"

    def arm(self, first_sample: int, cause: str) -> None:
        """Tell it how samples are counted and what to suspect: the rollout does."""
        self._first_sample, self._cause = first_sample, cause

    def observe(self, step: int, time: float, state: Tensor) -> None:
        largest = state.detach().abs().flatten(1).amax(1)  # NaN stays NaN
        bad = ~(largest <= self.size)
        if not bad.any():
            return
        sample = int(bad.nonzero()[0])
        value = float(largest[sample])
        what = f"grew to {value:.3g}" if value == value else "became NaN"
        raise Diverged(
            f"at step {step} (time {time:g}) sample {sample + self._first_sample} {what}, {int(bad.sum())} of "
            f"{len(bad)} samples did: {self._cause}",
            step,
            sample + self._first_sample,
        )
