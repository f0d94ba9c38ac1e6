"""What a score is to the rest: two numbers and an output, so that a step can fold it into its weights."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

PREDICTIONS = ("score", "epsilon", "x0", "v")


@runtime_checkable
class Score(Protocol):
    """What dynamics need of a score:

        score(state) = state_scale * state + output_scale * output(state)

    so that a step can fold the two numbers into its weights and never write the score out. Closed forms have 0, 1 and
    output = score. A denoiser has `alpha` and `predicts` (one of PREDICTIONS) besides, and takes its two numbers from
    `folding`. Where an attribute `lipschitz` exists, no eigenvalue of the Jacobian of the score lies below -lipschitz:
    for noised points it is 1 / (1 - alpha). A network, which may be steeper, has none.
    """

    state_scale: float
    output_scale: float

    def output(self, state: Tensor) -> Tensor:
        """The raw output, of the shape of the state."""
        ...

    def __call__(self, state: Tensor) -> Tensor:
        """The score, of the shape of the state."""
        ...


class Folding(NamedTuple):
    """A score as state_scale * state + output_scale * output."""

    state_scale: float
    output_scale: float


def folding(predicts: str, alpha: float) -> Folding:
    """How a denoiser's output becomes the score of the noised density.

        score    s = output
        epsilon  s = -epsilon / sqrt(1 - alpha)
        x0       s = (sqrt(alpha) x0 - state) / (1 - alpha)
        v        s = -state - sqrt(alpha / (1 - alpha)) v        with v = sqrt(alpha) epsilon - sqrt(1 - alpha) x0

    Args:
        predicts: what the output estimates, one of PREDICTIONS.
        alpha: squared coefficient of the signal, in (0, 1).

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> folding("x0", 0.75)
        Folding(state_scale=-4.0, output_scale=3.4641016151377544)
    """
    if predicts not in PREDICTIONS:
        raise ValueError(f"expected predicts {', '.join(map(repr, PREDICTIONS))}, got {predicts!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"expected alpha in (0, 1), the squared coefficient of the signal, got {alpha}")
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    return {
        "score": Folding(0.0, 1.0),
        "epsilon": Folding(0.0, -1 / noise),
        "x0": Folding(-1 / (1 - alpha), signal / (1 - alpha)),
        "v": Folding(-1.0, -signal / noise),
    }[predicts]
