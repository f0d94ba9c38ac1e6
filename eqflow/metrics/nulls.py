"""What |cos| looks like without any likeness: random directions, random constant skew fields, shuffled points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from eqflow import ops
from eqflow.metrics.similarity import cosines
from eqflow.ops import philox

_CHUNK = 2**21  # random words in the largest temporary
STREAM = philox.STREAMS["nulls"]  # step 0: shuffles; step 1: skew matrices; from step 2 on: random signs


@cache
def _rule() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(200)


@dataclass(frozen=True)
class DirectionNull:
    """The law of |cos| between random directions in R^n: cos^2 ~ Beta(1/2, (n - 1)/2).

    In three dimensions |cos| is uniform on (0, 1). That is the law of constant skew fields S s(x) = omega x s(x) of a
    three-dimensional score too, as far as E[s s^T] is isotropic; and |cos| of such a random field with any fixed field
    is uniform on (0, that of the best constant S).

    Args:
        dimension: n, from 2 up.

    Example:
        >>> round(DirectionNull(3).p_value(0.9), 6)
        0.1
    """

    dimension: int

    def __post_init__(self) -> None:
        if self.dimension < 2:
            raise ValueError(f"expected at least two dimensions, got {self.dimension}")

    @property
    def mean(self) -> float:
        """Gamma(n/2) / (sqrt(pi) Gamma((n + 1)/2))."""
        half = self.dimension / 2
        return math.exp(math.lgamma(half) - math.lgamma(half + 0.5)) / math.sqrt(math.pi)

    @property
    def deviation(self) -> float:
        """sqrt(1/n - mean^2)."""
        return math.sqrt(1 / self.dimension - self.mean**2)

    def p_value(self, cosine: float) -> float:
        """P(|cos| >= cosine): the share of random directions at least as close.

        The integral of 2 cos(t)^(n - 2) over t from asin(cosine), over the same from 0, by Gauss-Legendre.
        """
        if not 0 <= cosine <= 1:
            raise ValueError(f"expected |cos| in [0, 1], got {cosine}")
        start = math.asin(cosine)
        stop = min(math.pi / 2, start + 40 / math.sqrt(self.dimension))
        places, weights = _rule()
        angle = start + (places + 1) / 2 * (stop - start)
        integral = weights @ np.maximum(np.cos(angle), 0) ** (self.dimension - 2) * (stop - start) / 2
        # The whole integral from 0 to pi/2, in closed form.
        whole = 0.5 * math.sqrt(math.pi) * math.exp(math.lgamma(self._half) - math.lgamma(self._half + 0.5))
        return min(1.0, float(integral / whole))

    @property
    def _half(self) -> float:
        return (self.dimension - 1) / 2

    def cdf(self, cosine: float) -> float:
        """P(|cos| < cosine)."""
        return 1 - self.p_value(cosine)


def random_skew_fields(
    scores: Tensor,  # [points, dimension]
    count: int,
    *,
    seed: int,
    first: int = 0,
) -> Tensor:
    """Fields S s(x) with independent normal entries of the skew matrix S: each keeps the density whose score is s.

    Args:
        scores: s at the points.
        count: number of fields.
        seed: in [0, 2^64).
        first: index of the first field: a field depends on (seed, index) alone.

    Returns:
        [count, points, dimension].

    Example:
        >>> fields = random_skew_fields(torch.randn(10, 3), 4, seed=0)
        >>> fields.shape, bool(((fields * torch.zeros(10, 3)).sum(-1) == 0).all())
        (torch.Size([4, 10, 3]), True)
    """
    dimension = scores.shape[1]
    rows, columns = torch.triu_indices(dimension, dimension, 1)
    counter = {"seed": seed, "step": 1, "stream": STREAM, "first_sample": first}
    entries = ops.normal(count, len(rows), device=scores.device, **counter)
    matrix = scores.new_zeros(count, dimension, dimension)
    matrix[:, rows, columns] = entries.to(scores)
    return scores @ (matrix - matrix.mT).mT


class ShuffleNull(NamedTuple):
    """|cos| of two fields, and what is left of it when the points of one are shuffled."""

    cosine: float
    mean: float  # of the shuffled ones
    deviation: float
    p_value: float  # share of the shuffled ones, the field itself included, that are at least as close


def permutation_null(
    field: Tensor,  # [points, dimension]
    reference: Tensor,  # [points, dimension]
    *,
    permutations: int = 999,
    seed: int = 0,
) -> ShuffleNull:
    """Whether two fields agree point by point more than their values alone explain.

    A constant part that both share survives the shuffling, and so does not count as agreement.

    Args:
        field, reference: velocities at the same independent points.
        permutations: number of shuffles; the smallest p-value is 1 / (permutations + 1).
        seed: of the shuffles.

    Raises:
        ValueError: the shapes differ, or a field is zero.
    """
    cosine = float(cosines(field[None], reference[None]).abs())
    scale = field.double().norm() * reference.double().norm()
    shuffled = []
    for order in shuffles(len(field), permutations, seed=seed, device=field.device):
        shuffled.append((field.double()[order] * reference.double()).sum() / scale)
    null = torch.stack(shuffled).abs()
    p_value = (1 + int((null >= cosine - 1e-12).sum())) / (1 + permutations)
    return ShuffleNull(cosine, float(null.mean()), float(null.std()), p_value)


def shuffles(count: int, number: int, *, seed: int, device: torch.device | str = "cpu") -> Iterator[Tensor]:
    """Random orders of `count` things, int64 [count] each, functions of (seed, index) alone."""
    for indices in torch.arange(number, device=device).split(max(1, _CHUNK // max(count, 1))):
        yield from philox.words(indices, count, seed=seed, stream=STREAM).argsort(dim=1, stable=True)
