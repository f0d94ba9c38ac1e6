"""Maximum mean discrepancy of two sets of points with a Gaussian kernel, without a matrix of all pairs.

    MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y),   k(a, b) = exp(-|a - b|^2 / (2 sigma^2))

Gretton et al., J. Mach. Learn. Res. 13, 723 (2012).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.metrics.nulls import shuffles

_TILE = 1024  # points on a side of the largest temporary


class MMD(NamedTuple):
    """Squared discrepancies of two sets."""

    biased: float  # the mean over all pairs, a point with itself included: never negative
    unbiased: float  # without those: 0 on average where the distributions are equal
    standard_error: float  # of the unbiased one

    @property
    def root(self) -> float:
        """The square root of the biased one: what is plotted along a rollout."""
        return math.sqrt(max(self.biased, 0.0))


class MMDTest(NamedTuple):
    """The unbiased squared discrepancy, and where it lies among those of randomly exchanged points."""

    unbiased: float
    p_value: float  # share of the exchanged ones, the sets themselves included, that are at least as far apart
    null_mean: float
    null_deviation: float


def kernel_tiles(
    x: Tensor,  # [points, dimension], float64
    y: Tensor,  # [others, dimension], float64
    sigma: float,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """k(x_i, y_j) a tile at a time, with the rows and the columns it covers."""
    squares_x, squares_y = (points.square().sum(1) for points in (x, y))
    for row in range(0, len(x), _TILE):
        rows = slice(row, row + _TILE)
        for column in range(0, len(y), _TILE):
            columns = slice(column, column + _TILE)
            square = squares_x[rows, None] + squares_y[columns] - 2 * x[rows] @ y[columns].T
            yield rows, columns, (square.clamp_min_(0) * (-1 / (2 * sigma**2))).exp_()


def check_sets(x: Tensor, y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Both sets in float64 about their common mean, or the error that says what is wrong with them."""
    for name, points in (("x", x), ("y", y)):
        if points.ndim != 2 or len(points) < 2:
            raise ValueError(f"expected {name} [points, dimension] with two points or more, got {list(points.shape)}")
        if not points.isfinite().all():
            raise ValueError(f"expected finite {name}, got NaN or infinite numbers: mend the input")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"expected two sets of one dimension, got {x.shape[1]} and {y.shape[1]}")
    if not 0 < sigma < math.inf:
        raise ValueError(f"expected sigma above 0, the width of the kernel, got {sigma}")
    centre = (x.double().mean(0) + y.double().mean(0)) / 2
    return x.double() - centre, y.double() - centre


def _sums(x: Tensor, y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Sum over y of k(x_i, y) and of its square, [points] each."""
    total, square = x.new_zeros(2, len(x))
    for rows, _, tile in kernel_tiles(x, y, sigma):
        total[rows] += tile.sum(1)
        square[rows] += tile.square().sum(1)
    return total, square


def mmd(
    x: Tensor,  # [points, dimension]
    y: Tensor,  # [others, dimension]
    *,
    sigma: float = 0.5,
) -> MMD:
    """The squared discrepancy of two sets, biased and unbiased, with the standard error of the unbiased one.

    Sums are float64; memory is linear in the number of points. The error has the term of first order, which vanishes
    where the distributions are equal, and that of second order, which is left there.

    Args:
        x, y: independent points; standardised ones for the default sigma.
        sigma: width of the kernel, in the units of the points.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> points = torch.linspace(0, 1, 10).view(-1, 1)
        >>> mmd(points, points).biased
        0.0
    """
    x, y = check_sets(x, y, sigma)
    n, m = len(x), len(y)
    (within_x, square_x), (within_y, square_y) = _sums(x, x, sigma), _sums(y, y, sigma)
    (across_x, square_xy), (across_y, _) = _sums(x, y, sigma), _sums(y, x, sigma)
    total_x, total_y, across = within_x.sum(), within_y.sum(), across_x.sum() / (n * m)
    biased = total_x / n**2 + total_y / m**2 - 2 * across
    unbiased = (total_x - n) / (n * (n - 1)) + (total_y - m) / (m * (m - 1)) - 2 * across
    # Influence of each point, and the mean square of the kernel centred over the pool.
    influence_x = (within_x - 1) / (n - 1) - across_x / m
    influence_y = (within_y - 1) / (m - 1) - across_y / n
    pool = n + m
    rows = torch.cat([within_x + across_x, within_y + across_y])
    mean = rows.sum() / pool**2
    squares = (
        square_x.sum() + square_y.sum() + 2 * square_xy.sum() - 2 * rows.square().sum() / pool + (pool * mean) ** 2
    )
    centred = (squares - (1 - 2 * rows / pool + mean).square().sum()) / (pool * (pool - 1))
    second = 2 * (1 / n + 1 / m) ** 2 * centred
    # The influences are means over finitely many points: twice the second term is what their own noise adds.
    first = (4 * influence_x.var() / n + 4 * influence_y.var() / m - 2 * second).clamp_min(0)
    return MMD(float(biased.clamp_min(0)), float(unbiased), float((first + second).sqrt()))


def mmd_test(
    x: Tensor,  # [points, dimension]
    y: Tensor,  # [others, dimension]
    *,
    sigma: float = 0.5,
    permutations: int = 199,
    seed: int = 0,
) -> MMDTest:
    """Whether two sets of independent points come from one distribution: a permutation test, exact for any size.

    If they do, the p-value is at most p with probability p, for p a multiple of 1 / (permutations + 1). Memory is one
    byte for each point and permutation, and one tile of the kernel.

    Args:
        x, y: independent points. Points of one trajectory are not: thin them first.
        sigma: width of the kernel, in the units of the points.
        permutations: number of random exchanges.
        seed: of the exchanges.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> x, y = torch.randn(2, 50, 2, generator=torch.Generator().manual_seed(0))
        >>> mmd_test(x, y + 1).p_value
        0.005
    """
    x, y = check_sets(x, y, sigma)
    n, m = len(x), len(y)
    pool = torch.cat([x, y])
    first = torch.zeros(n + m, 1 + permutations, dtype=torch.bool, device=x.device)
    first[:n, 0] = True
    for number, order in enumerate(shuffles(n + m, permutations, seed=seed, device=x.device), 1):
        first[order[:n], number] = True
    inside, touching, total = pool.new_zeros(1 + permutations), pool.new_zeros(1 + permutations), pool.new_zeros(())
    for rows, columns, tile in kernel_tiles(pool, pool, sigma):
        chosen = first[rows].double()
        inside += (chosen * (tile @ first[columns].double())).sum(0)
        sums = tile.sum(1)
        touching += sums @ chosen
        total += sums.sum()
    across = touching - inside
    outside = total - 2 * across - inside
    values = (inside - n) / (n * (n - 1)) + (outside - m) / (m * (m - 1)) - 2 * across / (n * m)
    null = values[1:]
    p_value = (1 + int((null >= values[0] - 1e-12).sum())) / (1 + permutations)
    return MMDTest(float(values[0]), p_value, float(null.mean()), float(null.std()))
