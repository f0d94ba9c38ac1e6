"""Polynomial velocity fields: monomials, their derivatives, and the field that their coefficients make."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from eqflow.dynamics.field import Field


def monomials(dimension: int, degree: int) -> Tensor:
    """Exponents of the monomials of total degree up to `degree`, lowest degree first, int64 [terms, dimension].

    There are (degree + dimension)! / (degree! dimension!) of them.

    Example:
        >>> monomials(2, 1).tolist()
        [[0, 0], [1, 0], [0, 1]]
    """
    if dimension < 1 or degree < 0:
        raise ValueError(f"expected dimension from 1 up and degree from 0 up, got {dimension} and {degree}")
    factors = [c for q in range(degree + 1) for c in itertools.combinations_with_replacement(range(dimension), q)]
    return torch.tensor([[chosen.count(i) for i in range(dimension)] for chosen in factors]).view(-1, dimension)


def evaluate(
    points: Tensor,  # [rows, dimension]
    exponents: Tensor,  # [terms, dimension]
) -> Tensor:
    """The monomials at the points, [rows, terms]."""
    return math.prod(_factors(points, exponents))


def gradients(
    points: Tensor,  # [rows, dimension]
    exponents: Tensor,  # [terms, dimension]
) -> Tensor:
    """The derivatives of the monomials, [rows, dimension, terms]."""
    factors, lowered = _factors(points, exponents), _factors(points, (exponents - 1).clamp_min(0))
    parts = []
    for j, (slope, order) in enumerate(zip(lowered, exponents.to(points).unbind(1), strict=True)):
        parts.append(math.prod([*factors[:j], order * slope, *factors[j + 1 :]]))
    return torch.stack(parts, 1)


def _factors(points: Tensor, exponents: Tensor) -> list[Tensor]:
    """x_i to the power that each monomial has of it, [rows, terms] for each coordinate i."""
    powers = torch.stack([points**order for order in range(int(exponents.max()) + 1)], -1)
    orders = exponents.to(points.device).unbind(1)
    return [power[:, order] for power, order in zip(powers.unbind(1), orders, strict=True)]


@dataclass(frozen=True, eq=False)
class PolynomialField(Field):
    """v_i(x) = sum over m of coefficients[i, m] x^exponents[m].

    Args:
        exponents: whole numbers [terms, dimension].
        coefficients: [dimension, terms].

    Raises:
        ValueError: the shapes do not belong together.

    Example:
        >>> turn = PolynomialField(torch.eye(2, dtype=torch.int64), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> turn.velocity(torch.tensor([[2.0, 3.0]]))
        tensor([[-3.,  2.]])
    """

    exponents: Tensor
    coefficients: Tensor

    def __post_init__(self) -> None:
        if self.exponents.ndim != 2 or self.coefficients.shape != self.exponents.shape[::-1]:
            raise ValueError(
                "expected exponents [terms, dimension] and coefficients [dimension, terms], got "
                f"{list(self.exponents.shape)} and {list(self.coefficients.shape)}"
            )

    @property
    def dimension(self) -> int:
        return self.exponents.shape[1]

    def velocity(self, points: Tensor) -> Tensor:
        return evaluate(points, self.exponents) @ self.coefficients.to(points).T

    def jacobian(
        self,
        points: Tensor,  # [rows, dimension]
    ) -> Tensor:
        """J_ij = dv_i/dx_j, [rows, dimension, dimension]."""
        return self.coefficients.to(points) @ gradients(points, self.exponents).mT

    def divergence(
        self,
        points: Tensor,  # [rows, dimension]
    ) -> Tensor:
        """div v, [rows]."""
        return (gradients(points, self.exponents) * self.coefficients.to(points)).sum((1, 2))

    def reversed(self) -> PolynomialField:
        """The field with time running the other way."""
        return replace(self, coefficients=-self.coefficients)

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors; `PolynomialField(**state)` makes the field again."""
        return {"exponents": self.exponents, "coefficients": self.coefficients}
