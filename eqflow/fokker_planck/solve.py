"""Whitened linear equations: the numbers behind the estimates."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

CUT = 1e-8  # smallest eigenvalue kept, relative to the largest; cutting harder throws the best information away
_SILENT = 1e-13  # a column below this fraction of the largest is zero up to rounding
_DEPENDENT = 1e-9  # a singular value below this fraction of the largest is a dependent column


def whitening(
    covariance: Tensor,  # [conditions, conditions]
    *,
    cut: float = CUT,
) -> Tensor:
    """P, [rank, conditions], with P covariance P^T = 1.

    Example:
        >>> whitening(torch.diag(torch.tensor([4.0, 0.25], dtype=torch.float64))).abs().sum(0)
        tensor([0.5000, 2.0000], dtype=torch.float64)
    """
    deviation = covariance.diagonal().clamp_min(0).sqrt()
    alive = deviation > 1e-14 * deviation.max()  # a condition that never varies tells nothing, and has no scale
    inverse = torch.where(alive, 1 / deviation, 0.0)
    values, vectors = torch.linalg.eigh(inverse[:, None] * covariance * inverse)
    kept = values > cut * values[-1]
    return (vectors[:, kept] / values[kept].sqrt()).T * inverse


def chance(statistic: float, freedom: int, count: float) -> float:
    """The chance of a statistic this large or larger, r^T S^-1 r of a residual of `freedom` independent parts.

    With S from infinitely many contributions it is chi squared; with S from N of them (divided by N, not N - 1) it is
    Hotelling's N / (N - 1) T^2, of which (N - d) / (d N) is an F of d and N - d degrees of freedom.

    Example:
        >>> round(chance(9.488, 4, math.inf), 4), round(chance(9.488, 4, 30), 4)
        (0.05, 0.1158)
    """
    if freedom < 1 or count <= freedom:
        return math.nan
    if count == math.inf:
        return float(torch.special.gammaincc(*torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)))
    import mpmath  # comes with sympy

    share = count / (count + statistic)
    return float(mpmath.betainc((count - freedom) / 2, freedom / 2, 0, share, regularized=True))


def inflation(freedom: int, count: float) -> float:
    """By how much weights from `count` contributions make the variance of the coefficients larger than it looks.

    For Gaussian contributions and d superfluous conditions, (A^T S^-1 A)^-1 is (count - 1 - d) / count of what it is
    with the true S on average, and the coefficients vary by (count - 2) / (count - 2 - d) more (Rao 1967).

    Raises:
        ValueError: there are too few contributions for weights at all.
    """
    if count == math.inf:
        return 1.0
    if count - freedom < 3:
        raise ValueError(
            f"expected more pictures or points than superfluous conditions, got {count:.0f} for {freedom}: take more, "
            "or fewer test functions"
        )
    return count / (count - 1 - freedom) * (count - 2) / (count - 2 - freedom)


class Solution(NamedTuple):
    """Least squares of whitened conditions."""

    coefficients: Tensor  # [unknowns]
    covariance: Tensor  # [unknowns, unknowns]
    residual: Tensor  # [rank]
    singular_values: Tensor  # [unknowns]
    condition: float


def check_rank(rank: int, unknowns: int) -> None:
    """Refuse fewer conditions than unknowns.

    Raises:
        ValueError: there are fewer.
    """
    if rank < unknowns:
        raise ValueError(
            f"expected at least as many independent conditions as unknowns, got {rank} for {unknowns}: take more test "
            "functions, or more points"
        )


def solve(matrix: Tensor, target: Tensor, names: tuple[str, ...]) -> Solution:
    """argmin |matrix theta - target|^2, the columns scaled to norm 1.

    Raises:
        ValueError: fewer rows than columns, or dependent columns, which are named.
    """
    rank, unknowns = matrix.shape
    check_rank(rank, unknowns)
    norms = matrix.norm(dim=0)
    silent = norms <= _SILENT * norms.max()
    scales = torch.where(silent, torch.inf, norms)
    left, values, right = torch.linalg.svd(matrix / scales, full_matrices=False)
    if not values[-1] > _DEPENDENT * values[0]:
        direction = silent.double() if silent.any() else right[-1].abs()
        which = [name for name, part in zip(names, direction.tolist(), strict=True) if part > 0.05 * direction.max()]
        raise ValueError(
            f"not identifiable: {', '.join(which)}"
            + (" has no effect" if len(which) == 1 else " have no effect" if silent.any() else " depend on each other")
            + " in these conditions: leave one out, or fix its value as known"
        )
    inverse = right.T / values / scales[:, None]
    coefficients = inverse @ (left.T @ target)
    return Solution(
        coefficients,
        inverse @ inverse.T,
        matrix @ coefficients - target,
        torch.linalg.svdvals(matrix),
        float(values[0] / values[-1]),
    )
