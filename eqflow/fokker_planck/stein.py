"""The Stein discrepancy of a generator: a fit and a test of goodness that need neither a score nor test functions.

With a Gaussian kernel k, every function of its space is a test function at once: p is steady under L exactly where

    S = E[u(X, Y)] = 0,    u(x, y) = L_x L_y k(x, y)

for independent X and Y from p (Barbour 1988; the kernel discrepancy of Liu, Lee and Jordan 2016 for a drift known only
up to theta). S is a quadratic in the unknowns, so its minimum is a linear solve. All pairs of points are visited, tile
by tile: use it for thousands of points, and `weak_form` for more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.fokker_planck import stream
from eqflow.fokker_planck.layout import Layout
from eqflow.fokker_planck.model import Model
from eqflow.fokker_planck.solve import solve
from eqflow.ops import philox

_TILE = 2**21  # numbers in a temporary


class SteinFit(NamedTuple):
    """Coefficients of least Stein discrepancy."""

    names: tuple[str, ...]
    coefficients: Tensor  # [unknowns]
    standard_errors: Tensor  # [unknowns]
    covariance: Tensor  # [unknowns, unknowns]
    discrepancy: float  # S at the coefficients, without bias: about 0 where the model is right
    layout: Layout

    def __str__(self) -> str:
        return self.layout.write(self.names, self.coefficients, self.standard_errors)


class SteinTest(NamedTuple):
    """How well points fit a model whose coefficients are given."""

    discrepancy: float
    p_value: float


class _Operators(NamedTuple):
    """Some generators at some points, in coordinates where the kernel has the width 1."""

    points: Tensor  # [n, dimension]
    drift: Tensor  # [n, operators, dimension]
    diffusion: Tensor  # [operators, dimension, dimension]

    def rows(self, part: slice) -> _Operators:
        return _Operators(self.points[part], self.drift[part], self.diffusion)

    def combined(self, weights: Tensor) -> _Operators:
        """One operator, the weighted sum of all."""
        drift = torch.einsum("k,nkc->nc", weights, self.drift)[:, None]
        return _Operators(self.points, drift, torch.einsum("k,kcd->cd", weights, self.diffusion)[None])


def pairs(
    left: _Operators,
    right: _Operators,
) -> Tensor:
    """L_k at x on the left and L_l at y on the right, applied to k(x, y) = exp(-|x - y|^2 / 2): [x, y, k, l].

    With a = x - y, g_k = b_k(x) . a, h_l = b_l(y) . a and q_k = a D_k a - tr D_k, this is k(x, y) times

        (q_k - g_k)(q_l + h_l) + b_k . b_l + 2 b_k D_l a - 2 b_l D_k a + 2 tr(D_k D_l) - 4 a D_k D_l a
    """
    away = left.points[:, None] - right.points
    kernel = (away.square().sum(-1) / -2).exp()
    along = torch.einsum("akc,abc->abk", left.drift, away)
    against = torch.einsum("blc,abc->abl", right.drift, away)
    spread = [
        torch.einsum("abc,kcd,abd->abk", away, side.diffusion, away) - side.diffusion.diagonal(dim1=1, dim2=2).sum(1)
        for side in (left, right)
    ]
    total = (spread[0] - along)[..., :, None] * (spread[1] + against)[..., None, :]
    total += torch.einsum("akc,blc->abkl", left.drift, right.drift)
    total += 2 * torch.einsum("akc,lcd,abd->abkl", left.drift, right.diffusion, away)
    total -= 2 * torch.einsum("blc,kcd,abd->abkl", right.drift, left.diffusion, away)
    product = torch.einsum("kcd,lde->klce", left.diffusion, right.diffusion)
    total += 2 * product.diagonal(dim1=2, dim2=3).sum(2) - 4 * torch.einsum("abc,klcd,abd->abkl", away, product, away)
    return kernel[..., None, None] * total


def _tiles(left: _Operators, right: _Operators) -> Iterator[tuple[slice, slice, Tensor]]:
    """All pairs of different points, by rows and columns."""
    count, numbers = len(left.points), len(left.diffusion) * len(right.diffusion) + 4 * left.points.shape[1]
    size = max(16, int((_TILE / numbers) ** 0.5))
    parts = [slice(first, min(first + size, count)) for first in range(0, count, size)]
    for rows in parts:
        for columns in parts:
            values = pairs(left.rows(rows), right.rows(columns))
            if rows == columns:
                values.diagonal(dim1=0, dim2=1).zero_()
            yield rows, columns, values


def _operators(points: Tensor, model: Model, bandwidth: float | Tensor | None) -> tuple[_Operators, bool]:
    """One operator for each unknown, and one for what is known, if anything is."""
    stream.check(points, model.dimension)
    if len(points) < 3:
        raise ValueError(f"expected three points or more, got {len(points)}")
    (data,) = stream.chunks(points, len(points))
    if model.growth is not None or model.known_growth is not None:
        raise ValueError("expected a model without births and deaths: use weak_form for those")
    width = data.std(0) if bandwidth is None else torch.as_tensor(bandwidth, dtype=torch.float64).to(data)
    if not (width > 0).all():
        raise ValueError(f"expected a positive bandwidth, and points that vary, got {width.tolist()}")
    scales, d = width.expand(model.dimension), model.dimension
    drift, diffusion = [], []
    if model.features is not None:
        features = model.features(data, 0.0)
        drift += list(torch.einsum("kcl,nl->knc", model.placement.to(features), features))
    diffusion += [data.new_zeros(d, d)] * len(drift)
    parts = [part(data) for part in model.unknown_diffusion]
    drift += [torch.zeros_like(data)] * len(parts)
    diffusion += parts
    known = model.known is not None or model.diffusion is not None
    if known:
        drift.append(torch.zeros_like(data) if model.known is None else model.known(data, 0.0))
        diffusion.append(data.new_zeros(d, d) if model.diffusion is None else model.diffusion(data))
    if any(matrix.ndim != 2 for matrix in diffusion):
        raise ValueError("expected a diffusion that is the same everywhere: use weak_form for others")
    fields = torch.stack(drift, 1) / scales
    return _Operators(data / scales, fields, torch.stack(diffusion) / (scales[:, None] * scales)), known


def stein_fit(
    points: Tensor,  # [n, dimension]
    model: Model,
    *,
    bandwidth: float | Tensor | None = None,
) -> SteinFit:
    """The coefficients whose generator keeps the points best, in the sense of the kernel.

    Args:
        points: a few thousand.
        model: with a diffusion that is the same everywhere.
        bandwidth: of the kernel, a number or one for each coordinate; None: the standard deviations.

    Raises:
        ValueError: an argument is wrong, nothing sets the scale, or unknowns depend on each other.

    Example:
        >>> from eqflow.fokker_planck import parametric
        >>> points = torch.randn(800, 1, generator=torch.Generator().manual_seed(0))
        >>> print(stein_fit(points, parametric("x", {"k": {"x": "-x"}}, diffusion=1.0)))
        x' = k (-x)
        k = 1.04(8)
    """
    operators, known = _operators(points, model, bandwidth)
    if not known:
        raise ValueError("not identifiable: give the diffusion, or one term of the drift, as known")
    count, unknowns = len(points), len(model.names)
    square = sum(values.sum((0, 1)) for *_, values in _tiles(operators, operators)) / (count * (count - 1))
    square = (square + square.T) / 2
    coefficients = solve(square[:unknowns, :unknowns], -square[:unknowns, unknowns], model.names).coefficients
    weights = torch.cat([coefficients, coefficients.new_ones(1)])
    whole = operators.combined(weights)
    slopes = coefficients.new_zeros(count, unknowns + 1)  # what each point adds to half the gradient of S
    for rows, _, values in _tiles(operators, whole):
        slopes[rows] += values[..., 0].sum(1) / 2
    for rows, _, values in _tiles(whole, operators):
        slopes[rows] += values[:, :, 0].sum(1) / 2
    spread = (slopes[:, :unknowns] / (count - 1)).T.cov()
    inverse = torch.linalg.inv(square[:unknowns, :unknowns])
    covariance = 4 * inverse @ spread.reshape(unknowns, unknowns) @ inverse / count
    discrepancy = float(weights @ square @ weights)
    errors = covariance.diagonal().sqrt()
    return SteinFit(model.names, coefficients, errors, covariance, discrepancy, model.layout)


def stein_test(
    points: Tensor,  # [n, dimension]
    model: Model,
    coefficients: Tensor,  # [unknowns]
    *,
    bandwidth: float | Tensor | None = None,
    replicates: int = 500,
    seed: int = 0,
) -> SteinTest:
    """Whether points are in the steady state of a model whose coefficients are given: a test by wild bootstrap.

    The distribution of S where the model is right is that of the sum of e_i e_j u(x_i, x_j) with random signs e. Points
    that the coefficients were fitted to make the p value too large: test with others.

    Args:
        points: a few thousand independent ones.
        model: with a diffusion that is the same everywhere.
        coefficients: of the unknowns.
        bandwidth: as in `stein_fit`.
        replicates: of the bootstrap; the p value is not below 1 / (1 + replicates).
        seed: key of the signs.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> from eqflow.fokker_planck import parametric
        >>> points = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
        >>> model = parametric("x", {"k": {"x": "-x"}}, diffusion=1.0)
        >>> stein_test(points, model, torch.tensor([1.0])).p_value > 0.05
        True
        >>> stein_test(points, model, torch.tensor([2.0])).p_value < 0.01
        True
    """
    operators, known = _operators(points, model, bandwidth)
    if coefficients.shape != (len(model.names),) or replicates < 1:
        raise ValueError(f"expected {len(model.names)} coefficients and replicates from 1 up, got {coefficients.shape}")
    weights = torch.cat([coefficients.to(operators.points), operators.points.new_ones(int(known))])
    whole, count = operators.combined(weights), len(points)
    words = philox.words(torch.arange(count), replicates, seed=seed, step=2, stream=philox.STREAMS["test-functions"])
    signs = torch.where(words >> 31 == 1, 1.0, -1.0).to(operators.points)
    total, copies = signs.new_zeros(()), signs.new_zeros(replicates)
    for rows, columns, values in _tiles(whole, whole):
        tile = values[..., 0, 0]
        total += tile.sum()
        copies += (signs[rows] * (tile @ signs[columns])).sum(0)
    larger = int((copies >= total).sum())
    return SteinTest(float(total) / (count * (count - 1)), (1 + larger) / (1 + replicates))
