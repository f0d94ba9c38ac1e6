"""Which reflections of the coordinates leave a distribution unchanged, found from its points."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.metrics.mmd import check_sets, kernel_tiles, mmd
from eqflow.metrics.nulls import STREAM, shuffles
from eqflow.ops import philox

_LARGEST = 8  # dimension: 256 flips
_LEAST = 50  # points
_DRAWS = 200  # random signs, for the skewness of the null


class SignSymmetries(NamedTuple):
    """Every flip P = diag(+-1), and whether the distribution is the same after it; the first is P = I."""

    flips: Tensor  # [2^dimension, dimension], +1 and -1
    mmd: Tensor  # [2^dimension]: unbiased MMD^2 of X and PX, mean over repeats; for I of two halves: what chance makes
    null_deviation: Tensor  # [2^dimension]: of that mean if P is a symmetry
    p_value: Tensor  # [2^dimension]: probability of an MMD^2 as large if P is a symmetry; 1 for I
    level: float  # probability to miss a true symmetry, any of several included

    @property
    def symmetric(self) -> Tensor:
        """Whether each flip is taken for a symmetry: p_value above level / (2^dimension - 1), bool [2^dimension]."""
        return self.p_value > self.level / (len(self.flips) - 1)

    @property
    def found(self) -> Tensor:
        """The symmetries other than I, [count, dimension]."""
        return self.flips[1:][self.symmetric[1:]]

    @property
    def closed(self) -> bool:
        """Whether the product of any two symmetries is one, as it must be; False means too few points to tell."""
        members = {tuple(flip) for flip in self.flips[self.symmetric].tolist()}
        return all(tuple(a * b for a, b in zip(p, q, strict=True)) in members for p in members for q in members)

    def __str__(self) -> str:
        width = max(4, 3 * self.flips.shape[1] - 1)
        lines = [f"{'flip':{width}}     MMD^2  null sd        p  symmetry"]
        for flip, *numbers, symmetric in zip(*self[:4], self.symmetric, strict=True):
            signs = " ".join(f"{int(sign):+d}" for sign in flip)
            value, deviation, p_value = (float(number) for number in numbers)
            word = "yes" if symmetric else "no"
            lines.append(f"{signs:{width}}  {value:+8.5f}  {deviation:.5f}  {p_value:7.2g}  {word}")
        return "\n".join(lines)


def _flips(dimension: int) -> Tensor:
    numbers = torch.arange(2**dimension)
    return 1 - 2 * (numbers[:, None] >> torch.arange(dimension) & 1).double()


def _discrepancy(points: Tensor, flip: Tensor, signs: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Unbiased MMD^2 of X and PX, the exact variance if P is a symmetry, and the values under random signs."""
    count = len(points)
    value, square, drawn = (points.new_zeros(()), points.new_zeros(()), points.new_zeros(signs.shape[1]))
    pairs = zip(kernel_tiles(points, points, sigma), kernel_tiles(points, points * flip, sigma), strict=True)
    for (rows, columns, same), (_, _, flipped) in pairs:
        difference = same - flipped
        if rows == columns:
            difference.fill_diagonal_(0)
        value += difference.sum()
        square += difference.square().sum()
        drawn += (signs[rows] * (difference.float() @ signs[columns])).sum(0)
    scale = 2 / (count * (count - 1))
    return scale * value, 2 * scale**2 * square, scale * drawn


def _tail(value: Tensor, variance: Tensor, skewness: Tensor) -> Tensor:
    """P(X >= value) of the gamma law with mean 0 and that variance and skewness: Pearson's type III."""
    shape = 4 / skewness.clamp_min(0.05).square()
    return torch.special.gammaincc(shape, (shape + value / variance.sqrt() * shape.sqrt()).clamp_min(0))


def sign_symmetries(
    points: Tensor,  # [points, dimension]
    *,
    sigma: float = 0.5,
    count: int = 2000,
    repeats: int = 4,
    level: float = 0.01,
    seed: int = 0,
) -> SignSymmetries:
    """Which of the 2^d sign flips of the standardised coordinates leave the distribution unchanged.

    The unbiased MMD^2 of x and P x is twice the mean over pairs i, j of h_ij = k(x_i, x_j) - k(x_i, P x_j). Where P is
    a symmetry, any x_i may be replaced by P x_i, which multiplies h_ij by a sign of i and one of j. So its law is that
    of random signs: a weighted sum of chi-squares, with variance from the h_ij and skewness from 200 draws, whose tail
    is taken from a gamma law. P is taken for a symmetry unless an MMD^2 as large has a probability below
    level / (2^d - 1): a true one, or any of several, is missed with probability `level` at most. A flip that is none
    passes if its MMD^2 is smaller than a few `null_deviation`: use more points.

    Args:
        points: independent snapshots, in any units: they are standardised by coordinate.
        sigma: width of the kernel, in standard deviations.
        count: points in a repeat.
        repeats: at most; each has points of its own, so there may not be enough for all.
        level: probability to miss a true symmetry.
        seed: of the choice of points and of the signs.

    Returns:
        SignSymmetries(flips, mmd, null_deviation, p_value, level); `found` lists the symmetries, print shows a table.

    Raises:
        ValueError: too many coordinates, too few points, or a coordinate that is constant.

    Example:
        >>> from eqflow.systems import Lorenz
        >>> sign_symmetries(Lorenz().sample(1000, seed=0)).found
        tensor([[-1., -1.,  1.]], dtype=torch.float64)
    """
    standard = _standardised(points, sigma)
    flips = _flips(standard.shape[1]).to(standard)
    count = min(count, len(standard))
    if count < _LEAST:
        raise ValueError(f"expected at least {_LEAST} points to judge a symmetry by, got {count}: use more")
    repeats = max(1, min(repeats, len(standard) // count))
    (order,) = shuffles(len(standard), 1, seed=seed, device=points.device)
    samples = torch.arange(_DRAWS, device=points.device)
    rows = []
    for repeat, chosen in enumerate(order[: repeats * count].view(repeats, count)):
        some = standard[chosen]
        words = philox.words(samples, count, seed=seed, step=2 + repeat, stream=STREAM)
        signs = (1 - 2 * (words >> 31).float()).T.contiguous()
        rows.append([_discrepancy(some, flip, signs, sigma) for flip in flips[1:]])
    value, variance, drawn = (
        torch.stack([torch.stack([cell[part] for cell in row]) for row in rows]).mean(0) for part in range(3)
    )
    p_value = _tail(value, variance / repeats, (drawn / (variance / repeats).sqrt()[:, None]).pow(3).mean(1))
    halves = standard[order].chunk(2)
    floor = mmd(*(half[:count] for half in halves), sigma=sigma)
    first = [standard.new_tensor([number]) for number in (floor.unbiased, floor.standard_error, 1.0)]
    rest = (value, (variance / repeats).sqrt(), p_value)
    return SignSymmetries(flips, *(torch.cat(both) for both in zip(first, rest, strict=True)), level)


def _standardised(points: Tensor, sigma: float) -> Tensor:
    """The points in units of their standard deviations about their mean, float64; or what is wrong with them."""
    dimension = points.shape[1] if points.ndim == 2 else 0
    if not 1 <= dimension <= _LARGEST:
        raise ValueError(
            f"expected points [points, dimension] with at most {_LARGEST} coordinates, since there are 2^d flips, got "
            f"{list(points.shape)}: choose the coordinates that matter"
        )
    check_sets(points, points, sigma)
    deviation, mean = torch.std_mean(points.double(), 0)
    if not (deviation > 0).all():
        raise ValueError(
            f"expected coordinates that vary, but {int((deviation == 0).nonzero()[0])} is constant: drop it"
        )
    return (points.double() - mean) / deviation
