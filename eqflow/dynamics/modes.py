"""The flows that a closed form finds, lowest objective first, and whether one of them stands out."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor

from eqflow.dynamics.polynomials import PolynomialField, evaluate

_ZERO = 1e-6  # an objective that rounding and the ridge cannot be told from


@dataclass(frozen=True, eq=False)
class Modes:
    """The lowest modes, `modes[0]` first; each a `PolynomialField` with mean |v|^2 = dimension over the pairs.

    Attributes:
        exponents: of the monomials, [terms, dimension].
        coefficients: [modes, dimension, terms].
        objective: dimension * lambda = residual + (2 / probes) strain, [modes], rising.
        residual: E[(div v + v . s)^2], [modes]: 0 for a flow that keeps the density.
        strain: E of the strain, [modes].
    """

    exponents: Tensor
    coefficients: Tensor
    objective: Tensor
    residual: Tensor
    strain: Tensor

    def __len__(self) -> int:
        return len(self.objective)

    def __getitem__(self, index: int) -> PolynomialField:
        return PolynomialField(self.exponents, self.coefficients[index])

    def velocities(
        self,
        points: Tensor,  # [rows, dimension]
    ) -> Tensor:
        """v of every mode, [modes, rows, dimension]."""
        return evaluate(points, self.exponents) @ self.coefficients.to(points).mT

    def near(self, ratio: float = 1.5) -> int:
        """How many modes have an objective below `ratio` times the lowest: so many flows explain the points alike."""
        return int((self.objective < ratio * self.objective[0].clamp_min(_ZERO)).sum())

    @property
    def unique(self) -> bool:
        """Whether one flow stands out: no other mode within 1.5 times its objective."""
        return self.near() == 1

    def state_dict(self) -> dict[str, Tensor]:
        """Plain tensors; `Modes(**state)` makes the modes again."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
