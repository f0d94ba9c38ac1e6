"""Flows that keep a density exactly: v_i = sum over j of d_j A_ij + A_ij s_j with an antisymmetric matrix field A.

div(p v) = sum over i, j of d_i d_j (p A_ij) = 0 for every A. A constant A is the skew flow without training; in three
dimensions v = curl a + s x a. Such a flow is as rough as the score it is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eqflow.dynamics.field import Field
from eqflow.dynamics.polynomials import evaluate, gradients


@dataclass(frozen=True, eq=False)
class InvariantFlow(Field):
    """The flow of an antisymmetric polynomial matrix field A and a score.

    Args:
        score: s, any function of the points.
        exponents: of the monomials, [terms, dimension]; see `eqflow.dynamics.polynomials.monomials`.
        coefficients: of A_ij for i < j, [dimension (dimension - 1) / 2, terms], in the order (0, 1), (0, 2), ....

    Raises:
        ValueError: the shapes do not belong together.

    Example:
        >>> from eqflow.dynamics.polynomials import monomials
        >>> flow = InvariantFlow(lambda x: -x, monomials(2, 0), torch.ones(1, 1))
        >>> flow.velocity(torch.tensor([[1.0, 0.0]]))
        tensor([[0., 1.]])
    """

    score: Any
    exponents: Tensor
    coefficients: Tensor

    def __post_init__(self) -> None:
        terms, dimension = self.exponents.shape
        if self.coefficients.shape != (dimension * (dimension - 1) // 2, terms):
            raise ValueError(
                f"expected coefficients [{dimension * (dimension - 1) // 2}, {terms}], one row for each pair of "
                f"{dimension} coordinates, got {list(self.coefficients.shape)}"
            )

    @property
    def dimension(self) -> int:
        return self.exponents.shape[1]

    def velocity(self, points: Tensor) -> Tensor:
        first, second = torch.triu_indices(self.dimension, self.dimension, 1)
        matrix = points.new_zeros(self.dimension, self.dimension, len(self.exponents))
        matrix[first, second] = self.coefficients.to(points)
        matrix = matrix - matrix.transpose(0, 1)
        values, slopes = evaluate(points, self.exponents), gradients(points, self.exponents)
        return torch.einsum("ijm,rjm->ri", matrix, slopes + self.score(points)[:, :, None] * values[:, None])
