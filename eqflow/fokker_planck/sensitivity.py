"""Which combinations of the unknowns the data can see."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.fokker_planck.estimate import Conditions, Fit
from eqflow.fokker_planck.solve import chance, whitening

_SURE = 1e-3  # a direction whose effect could be chance more often than this is not identifiable


class Direction(NamedTuple):
    """A combination of unknowns, and whether moving along it changes anything."""

    weights: dict[str, float]  # the unknowns that take part, in units of their standard errors, the largest 1
    statistic: float
    degrees_of_freedom: int
    p_value: float  # the chance of an effect this large where there is none


class Sensitivity(NamedTuple):
    """The directions that the data hardly see, weakest first."""

    directions: tuple[Direction, ...]  # all that are not identifiable, and the weakest that is

    @property
    def blind(self) -> tuple[Direction, ...]:
        """The directions along which the unknowns may move freely."""
        return tuple(direction for direction in self.directions if direction.p_value > _SURE)

    def __str__(self) -> str:
        if not self.blind:
            return "every unknown is identifiable"
        lines = []
        for direction in self.blind:
            terms = " ".join(f"{weight:+.2g} [{name}]" for name, weight in direction.weights.items())
            lines.append(
                f"not identifiable: {terms} could be anything (without any effect, one as large as seen has "
                f"p = {direction.p_value:.2g}): fix one of them, or take snapshots at several times"
            )
        return "\n".join(lines)


def _effect(conditions: Conditions, direction: Tensor, others: Tensor, cut: float) -> tuple[float, int]:
    """What no other direction explains of matrix direction, squared, in units of its error; and its number of parts."""
    root = whitening(conditions.covariance(direction, homogeneous=True), cut=cut)
    matrix = root @ conditions.means.matrix
    images = matrix @ others
    basis, _ = torch.linalg.qr(images / images.norm(dim=0))
    effect = matrix @ direction
    return float((effect - basis @ (basis.T @ effect)).square().sum()), len(root) - others.shape[1]


def sensitivity(conditions: Conditions, fit: Fit, *, cut: float = 1e-2) -> Sensitivity:
    """Test, from the weakest on, whether combinations of the unknowns have an effect at all.

    A standard error says how far an unknown may move if the fit is right; it says nothing where the conditions do not
    depend on a combination beyond the noise of the points. The combination v of least effect is tested for E[A] v = 0,
    apart from what the others explain, with the covariance of A v itself (the rank test of Kleibergen and Paap 2006;
    one pass over the points), then the next; the first one with an effect ends the search.

    Args:
        conditions: those of the fit.
        fit: from `estimate`.
        cut: of small eigenvalues of that covariance, relative to the largest; a harder cut than that of a fit makes the
            test say what it claims.

    Raises:
        ValueError: the fit has other unknowns than the conditions.

    Example:
        >>> from eqflow.fokker_planck import estimate, from_library, polynomial, weak_form
        >>> points = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
        >>> conditions = weak_form(points, from_library(polynomial("x y", 1), diffusion=1.0), count=20)
        >>> len(sensitivity(conditions, estimate(conditions)).blind)  # a rotation leaves a Gaussian as it is
        1
    """
    if fit.names != conditions.names:
        raise ValueError("expected the fit of these conditions, got one with other unknowns")
    errors = fit.covariance.diagonal().sqrt()
    spectrum, vectors = torch.linalg.eigh(fit.covariance / torch.outer(errors, errors))
    found: list[Direction] = []
    for k in range(len(spectrum) - 1, -1, -1):
        direction, others = vectors[:, k] * errors, vectors[:, :k] * errors[:, None]
        statistic, freedom = _effect(conditions, direction, others, cut)
        p_value = chance(statistic, freedom, conditions.means.count) if freedom > 0 else 0.0
        share = direction / errors
        share = share / share[share.abs().argmax()]
        weights = {name: w for name, w in zip(fit.names, share.tolist(), strict=True) if abs(w) > 0.1}
        found.append(Direction(weights, statistic, freedom, p_value))
        if p_value <= _SURE:
            break
    return Sensitivity(tuple(found))
