"""How well a flow keeps a density, and how well a score is one, from values at points y of that density.

r = div v + v . s      vanishes everywhere exactly where v keeps the density whose score is s
E = (J + J^T) / 2      the strain of v
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Residual(NamedTuple):
    """Measures of a flow that do not depend on its speed, each with its standard error; [...] as the models."""

    residual: Tensor  # d E[r^2] / E|v|^2
    residual_error: Tensor
    r_squared: Tensor  # 1 - E[r^2] / (E[(div v)^2] + E[(v . s)^2])
    r_squared_error: Tensor
    strain: Tensor | None  # d E|E|_F^2 / E|v|^2
    strain_error: Tensor | None


def _ratio(numerator: Tensor, denominator: Tensor) -> tuple[Tensor, Tensor]:
    """E[a] / E[b] over the last dimension, and its standard error by the delta method."""
    ratio = numerator.mean(-1) / denominator.mean(-1)
    away = numerator - ratio[..., None] * denominator
    return ratio, away.std(-1) / denominator.mean(-1).abs() / math.sqrt(away.shape[-1])


def residual(
    velocity: Tensor,  # [..., rows, dimension]
    divergence: Tensor,  # [..., rows]
    scores: Tensor,  # [rows, dimension], or [..., rows, dimension]
    *,
    strain: Tensor | None = None,  # [..., rows]
) -> Residual:
    """What is left of div v + v . s, as a share of the flow: 0 for a flow that keeps the density.

    The mean of r is 0 for every v, so only squares say something. Use rows that no training has seen.

    Args:
        velocity, divergence: v and div v at independent points of the density.
        scores: s at the points.
        strain: |E|_F^2 at the points, or what the probe law makes of it.

    Returns:
        Residual(residual, residual_error, r_squared, r_squared_error, strain, strain_error), float64.

    Raises:
        ValueError: the shapes do not fit.

    Example:
        >>> y = torch.randn(100, 2)
        >>> turned = torch.stack([-y[:, 1], y[:, 0]], 1)
        >>> residual(turned, torch.zeros(100), -y).residual
        tensor(0., dtype=torch.float64)
    """
    if velocity.shape[:-1] != divergence.shape or velocity.shape[-2:] != scores.shape[-2:]:
        raise ValueError(
            "expected velocity [..., rows, dimension], divergence [..., rows] and scores [rows, dimension], got "
            f"{list(velocity.shape)}, {list(divergence.shape)} and {list(scores.shape)}"
        )
    velocity, divergence, scores = velocity.double(), divergence.double(), scores.double()
    along, speed = (velocity * scores).sum(-1), velocity.square().mean(-1)
    square = (divergence + along).square()
    share, share_error = _ratio(square, divergence.square() + along.square())
    stretched = (None, None) if strain is None else _ratio(strain.double(), speed)
    return Residual(*_ratio(square, speed), 1 - share, share_error, *stretched)


class Stein(NamedTuple):
    """Stein's identities of a score: E[s] = 0 and E[y s^T] = -I, with standard errors."""

    mean: Tensor  # [dimension]: E[s]
    mean_error: Tensor
    product: Tensor  # [dimension, dimension]: E[y s^T]
    product_error: Tensor

    @property
    def worst(self) -> float:
        """The largest deviation from an identity, in standard errors; below 4 or so for an exact score."""
        target = -torch.eye(len(self.mean), dtype=self.product.dtype, device=self.product.device)
        away = torch.cat([self.mean / self.mean_error, ((self.product - target) / self.product_error).flatten()])
        return float(away.abs().max())


def stein(
    points: Tensor,  # [rows, dimension]
    scores: Tensor,  # [rows, dimension]
) -> Stein:
    """Whether scores at independent points of a density can be its score, by two identities that every score obeys.

    Args:
        points: y of the density.
        scores: s at the points.

    Returns:
        Stein(mean, mean_error, product, product_error), float64; `worst` sums it up.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> y = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> stein(y, -y).worst < 4 < stein(y, -1.5 * y).worst
        True
    """
    if points.shape != scores.shape or points.ndim != 2:
        raise ValueError(
            f"expected points and scores [rows, dimension], got {list(points.shape)} and {list(scores.shape)}"
        )
    # About the mean of y: the same expectation, since E[s] = 0, with less noise.
    away, scores = points.double() - points.double().mean(0), scores.double()
    product = away[:, :, None] * scores[:, None, :]
    root = math.sqrt(len(points))
    return Stein(scores.mean(0), scores.std(0) / root, product.mean(0), product.std(0) / root)
