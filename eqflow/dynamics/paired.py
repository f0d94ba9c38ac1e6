"""Rollouts along +K, -K and without K from one noised start with one noise: what they share is not the dynamics.

With D the expected clean field, e(t) = D(x_t) - D(x_start) is the denoised displacement. Half the difference of the two
signs is what the skew part does; half their sum is relaxation, which a score alone would do too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqflow.dynamics.flows import SkewFlow
from eqflow.dynamics.observers import Seen
from eqflow.dynamics.rollout import rollout
from eqflow.score.pattern import PatternScore

SIGNS = (1, -1, 0)


class Paired(NamedTuple):
    """Displacements of the expected clean field, and the health of the noise."""

    times: tuple[float, ...]
    start: Tensor  # the expected clean field at the start, [samples, channels, height, width]
    displacement: dict[int, Tensor]  # sign of K -> [times, samples, channels, height, width]
    residual: dict[int, Tensor]  # sign of K -> |x - sqrt(alpha) D|^2 / ((1 - alpha) d), float64 [times, samples]

    @property
    def odd(self) -> Tensor:
        """(e_+ - e_-) / 2, of the shape of a displacement."""
        return (self.displacement[1] - self.displacement[-1]) / 2

    @property
    def even(self) -> Tensor:
        """(e_+ + e_-) / 2."""
        return (self.displacement[1] + self.displacement[-1]) / 2


@torch.no_grad()
def denoised(
    flow: SkewFlow,
    state: Tensor,  # [batch, channels, height, width]
) -> tuple[Tensor, Tensor]:
    """D = (x + (1 - alpha) s) / sqrt(alpha) of a flow's score, and |x - sqrt(alpha) D|^2 / ((1 - alpha) d) [batch].

    The second number is 1 - E|D - x_0|^2 / (sigma^2 d) for the true posterior mean, near 1 while the noise is right.
    """
    alpha = flow.score.alpha
    score = flow.score.state_scale * state + flow.score.output_scale * flow.output(state).to(state)
    residual = (1 - alpha) * score.double().square().flatten(1).mean(1)
    return (state + (1 - alpha) * score) / math.sqrt(alpha), residual


def paired_rollout(
    clean: Tensor,  # [samples, channels, height, width]
    score: Any,
    kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1], skew-symmetric
    *,
    eta: float = 0.1,
    dt: float = 0.02,
    times: Sequence[float] = (0.5, 1.0, 2.0, 3.0),
    signs: Sequence[int] = SIGNS,
    integrator: str | None = None,
    seed: int = 0,
    first_sample: int = 0,
    batch: int = 8,
    autocast: torch.dtype | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Paired:
    """The same noised start and the same noise along every sign of K.

    Args:
        clean: x_0.
        score: a `Score` of the noised fields, whatever it predicts, with `alpha`: a `PatternScore`, or the exact one
            of a Gaussian field.
        kernel: K, for the sign +1.
        eta: strength of the gradient part and its noise.
        dt: time step.
        times: of the displacements, multiples of dt.
        signs: which to follow, of 1, -1 and 0; `odd` and `even` need the first two.
        integrator: see `rollout`.
        seed: of start and noise.
        first_sample: index of the first sample, for both.
        batch: samples that move at once; it changes no bit where the score is the same for a part of a batch.
        autocast: precision of the score; see `SkewFlow`.
        progress: called with (sample-steps done, all).

    Returns:
        Paired(times, start, displacement, residual), on the device of the fields.

    Raises:
        ValueError: a time is no multiple of dt, or an argument does not suit the flow.

    Example:
        >>> from eqflow.dynamics import skew
        >>> from eqflow.metrics import GaussianField
        >>> field = GaussianField.radial(lambda q: (-q.square()).exp(), torch.eye(2), (8, 8))
        >>> clean, score = field.sample(4, seed=0), field.score(0.95)
        >>> found = paired_rollout(clean, score, skew.rotation(-1.0), times=(0.1, 0.2))
        >>> found.odd.shape, found.residual[0].shape
        (torch.Size([2, 4, 2, 8, 8]), torch.Size([2, 4]))
    """
    _check(clean, score, signs, batch)
    steps = [round(time / dt) for time in times]
    if not times or min(steps) < 1 or any(
        not math.isclose(step * dt, time, rel_tol=1e-6) for step, time in zip(steps, times, strict=True)
    ):  # fmt: skip
        raise ValueError(f"expected times that are multiples of dt={dt:g}, from one step up, got {list(times)}")
    if steps != sorted(set(steps)):
        raise ValueError(f"expected rising times, got {list(times)}")
    every, done, total = math.gcd(*steps), 0, len(clean) * len(signs) * steps[-1]
    found: dict[int, list[tuple[Tensor, Tensor]]] = {sign: [] for sign in signs}
    starts, wanted = [], {0, *steps}
    noised = getattr(score, "noised", functools.partial(PatternScore.noised, score))  # which needs its alpha alone
    for first in range(0, len(clean), batch):
        part, sample = clean[first : first + batch], first_sample + first
        start = noised(part, seed=seed, first_sample=sample)
        for sign in signs:
            flow = SkewFlow(score, sign * kernel, eta, autocast=autocast)
            seen: list[tuple[Tensor, Tensor]] = []

            def look(step: int, _time: float, state: Tensor, flow=flow, seen=seen) -> None:
                if step in wanted:
                    seen.append(denoised(flow, state))

            options = {"dt": dt, "integrator": integrator, "seed": seed, "first_sample": sample}
            rollout(start, flow, steps[-1], observers=[Seen(look, every)], **options)
            moved, residual = (torch.stack(parts) for parts in zip(*seen, strict=True))
            found[sign].append((moved[1:] - moved[0], residual[1:]))
            starts += [moved[0]] if sign == signs[0] else []
            done += len(part) * steps[-1]
            if progress is not None:
                progress(done, total)
    displacement = {sign: torch.cat([part for part, _ in parts], 1) for sign, parts in found.items()}
    residual = {sign: torch.cat([part for _, part in parts], 1) for sign, parts in found.items()}
    return Paired(tuple(times), torch.cat(starts), displacement, residual)


def _check(clean: Tensor, score: Any, signs: Sequence[int], batch: int) -> None:
    if clean.ndim != 4 or not len(clean):
        raise ValueError(f"expected clean fields [samples, channels, height, width], got {list(clean.shape)}")
    if getattr(score, "alpha", None) is None:
        raise ValueError(
            f"expected a score of noised fields, which has alpha, got {type(score).__name__}: without noise there is "
            "no expected clean field"
        )
    if not signs or len(set(signs)) < len(signs) or not set(signs) <= set(SIGNS):
        raise ValueError(f"expected signs among 1, -1 and 0, each once, got {list(signs)}")
    if batch < 1:
        raise ValueError(f"expected batch from 1 up, got {batch}")
