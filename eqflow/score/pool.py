"""Noised points with the score there: drawn once, used by everything that needs averages over the noised density."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox
from eqflow.score.closed_form import KernelScore
from eqflow.score.contract import Score

_STREAM = philox.STREAMS["data-noise"]  # step 0: the noise of a row; step 1: which point it comes from


class Pool(NamedTuple):
    """What `make_pool` gives."""

    points: Tensor  # [count, dimension]: y, drawn from the noised density
    scores: Tensor  # [count, dimension]: the score at each of them


def _check(points: Tensor, alpha: float, count: int) -> None:
    if points.ndim != 2 or not points.numel():
        raise ValueError(f"expected points [points, dimension], at least one, got {list(points.shape)}")
    if not 0 < alpha < 1:
        raise ValueError(f"expected alpha in (0, 1), the squared coefficient of the signal, got {alpha}")
    if count < 1:
        raise ValueError(f"expected a count from 1 up, got {count}")


def sample_pool(
    points: Tensor,  # [points, dimension]
    alpha: float,
    count: int,
    *,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Points drawn with replacement and noised: y = sqrt(alpha) x_origin + sqrt(1 - alpha) epsilon.

    Args:
        points: the data x.
        alpha: squared coefficient of the signal, in (0, 1).
        count: rows to draw. Row i depends on (seed, i) and on the data alone.
        seed: of the draw.

    Returns:
        y [count, dimension], and the index of the point each came from, int64 [count].

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> noised, origin = sample_pool(torch.zeros(5, 2), 0.95, 1000, seed=0)
        >>> bool((noised.std() - 0.05**0.5).abs() < 0.01)
        True
    """
    _check(points, alpha, count)
    words = philox.words(torch.arange(count, device=points.device), 1, seed=seed, step=1, stream=_STREAM)
    origin = philox.integers(words[:, 0], len(points))
    noise = ops.normal(count, points.shape[1], seed=seed, stream=_STREAM, device=points.device).to(points)
    return math.sqrt(alpha) * points[origin] + math.sqrt(1 - alpha) * noise, origin


@torch.no_grad()
def make_pool(
    points: Tensor,  # [points, dimension]
    alpha: float,
    count: int,
    *,
    seed: int,
    score: Score | None = None,
    self_term: str = "include",
    chunk: int = 2**14,
    progress: Callable[[int], None] | None = None,
) -> Pool:
    """Draws y from the noised density of the data and evaluates a score at each of them once.

    Args:
        points: the data x.
        alpha: squared coefficient of the signal, in (0, 1).
        count: pairs (y, score) to make; 40,000 to 200,000 serve a flow.
        seed: of the draw, as in `sample_pool`.
        score: of the noised density at `alpha`, such as `denoiser.at(alpha)`. None: the exact score of the noised
            points, a `KernelScore`.
        self_term: of the kernel score, "include" or "exclude": whether a row sees the point it was made from.
        chunk: rows a call of the score.
        progress: called with the number of rows done after each call.

    Returns:
        Pool(points, scores).

    Raises:
        ValueError: an argument is out of range, or the score belongs to another alpha.

    Example:
        >>> pool = make_pool(torch.tensor([[-1.0], [1.0]]), 0.75, 1000, seed=0)
        >>> bool((pool.points * pool.scores).mean() < -0.9)  # Stein: E[y s] = -1
        True
    """
    noised, origin = sample_pool(points, alpha, count, seed=seed)
    if score is None:
        score = KernelScore(points, alpha, self_term=self_term)
    known = getattr(score, "alpha", alpha)
    if not math.isclose(known, alpha, rel_tol=1e-6):
        raise ValueError(f"expected a score at alpha={alpha:g}, got one at alpha={known:g}: use model.at({alpha:g})")
    parts = []
    for begin in range(0, count, chunk):
        rows = slice(begin, begin + chunk)
        parts.append(score(noised[rows], *([origin[rows]] if isinstance(score, KernelScore) else [])))
        if progress is not None:
            progress(min(begin + chunk, count))
    return Pool(noised, torch.cat(parts))
