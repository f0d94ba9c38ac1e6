"""The flows that keep a density, in closed form: the lowest modes of a generalised eigenproblem over polynomials.

    v_i(y) = sum over m of c_im phi_m(y), phi_m the monomials up to a degree; averages over pairs (y, score s)
    R = E[rho rho^T],  rho_im = d_i phi_m + s_i phi_m          c^T R c = E[(div v + v . s)^2]
    G = E[phi phi^T] for each coordinate                       c^T G c = E|v|^2
    T from E[d_i phi_m d_j phi_n]                              c^T T c = E[strain], as in `eqflow.ops.divergence`
    (R + (2 / probes) T) c = lambda G c

It is the loss of a learned flow ("expected"; "exact" for probes = infinity) with all its minima instead of one, and
answers how many dynamics keep the density: as many as there are modes near the lowest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eqflow.dynamics.constrained import constrained_minima
from eqflow.dynamics.field import sense
from eqflow.dynamics.modes import Modes
from eqflow.dynamics.polynomials import evaluate, gradients, monomials
from eqflow.dynamics.sectors import check_signs, sign_of

_MOST_UNKNOWNS = 4096
_RIDGE = 1e-10  # of the Gram matrix of monomials scaled to mean square 1
_CHUNK = 2**19  # numbers of one matrix of features


class PolynomialSums:
    """The sums over pairs (point, score) that the eigenproblem needs, in float64 and constant memory.

    Args:
        dimension: of the points.
        degree: highest total degree of the polynomials.

    Raises:
        ValueError: the degree is below 1, or there are more unknowns than can be solved for.

    Example:
        >>> sums = PolynomialSums(2, degree=1)
        >>> points = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> for part in points.split(100):  # a Gaussian: its score is -x
        ...     sums.add(part, -part)
        >>> round(float(sums.solve(probes=math.inf).objective[0]), 2)  # rotation
        0.0
    """

    def __init__(self, dimension: int, degree: int):
        terms = math.comb(degree + dimension, dimension) if degree >= 1 else 0
        if not 1 <= dimension * terms <= _MOST_UNKNOWNS:
            raise ValueError(
                f"expected a degree from 1 up with at most {_MOST_UNKNOWNS} unknowns, got degree={degree} for "
                f"{dimension} coordinates, {dimension * terms} unknowns: take a lower degree, or learn the flow"
            )
        self.exponents = monomials(dimension, degree)
        self.pairs = 0
        self._gram = torch.zeros(terms, terms, dtype=torch.float64)  # of phi
        self._residual = torch.zeros(2 * [dimension * terms], dtype=torch.float64)  # of rho
        self._slopes = torch.zeros_like(self._residual)  # of d_j phi

    def add(
        self,
        points: Tensor,  # [rows, dimension]
        scores: Tensor,  # [rows, dimension]
    ) -> None:
        """Adds pairs to the sums.

        Raises:
            ValueError: wrong shapes, or numbers that are not finite.
        """
        terms, dimension = self.exponents.shape
        if points.shape != scores.shape or points.ndim != 2 or points.shape[1] != dimension:
            raise ValueError(
                f"expected points and scores [rows, {dimension}], got {list(points.shape)} and {list(scores.shape)}"
            )
        if not (points.isfinite().all() and scores.isfinite().all()):
            raise ValueError("expected finite points and scores, got NaN or infinite values: mend the input")
        rows = max(_CHUNK // (dimension * terms), 1)
        for point, score in zip(points.double().split(rows), scores.double().split(rows), strict=True):
            value, slope = evaluate(point, self.exponents), gradients(point, self.exponents)
            change = (slope + score[:, :, None] * value[:, None]).flatten(1)
            slope = slope.flatten(1)
            self._gram += (value.T @ value).to(self._gram)
            self._residual += (change.T @ change).to(self._gram)
            self._slopes += (slope.T @ slope).to(self._gram)
        self.pairs += len(points)

    def _matrices(self, law: str) -> tuple[Tensor, Tensor, Tensor]:
        """R, T and G of all unknowns (coordinate, monomial)."""
        terms, dimension = self.exponents.shape
        slopes = (self._slopes / self.pairs).view(dimension, terms, dimension, terms)
        own = slopes.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # E[d_i phi d_i phi^T] of each coordinate i
        strain = (torch.block_diag(*[own.sum(0)] * dimension) + slopes.transpose(0, 2).reshape_as(self._slopes)) / 2
        if law == "rademacher":
            strain = strain - torch.block_diag(*own)
        return self._residual / self.pairs, strain, torch.block_diag(*[self._gram / self.pairs] * dimension)

    def _kept(self, signs: Tensor | None, parity: str | None) -> Tensor:
        """The unknowns of a sector: v(Px) = +P v(x) or -P v(x)."""
        terms, dimension = self.exponents.shape
        if signs is None and parity is None:
            return torch.arange(dimension * terms)
        if signs is None:
            raise ValueError(f"expected signs for the parity {parity!r}, got none")
        signs, outward = check_signs(signs, dimension), sign_of(parity)
        flipped = signs[:, None] * signs.pow(self.exponents).prod(1)
        return (flipped.flatten() == outward).nonzero()[:, 0]

    def solve(
        self,
        *,
        probes: float = 8,
        law: str = "gaussian",
        signs: Tensor | None = None,
        parity: str | None = None,
        modes: int = 5,
        norm: str = "scalar",
    ) -> Modes:
        """The lowest modes; the arguments are those of `closed_form`."""
        if not probes >= 1 or law not in ("gaussian", "rademacher") or norm not in ("scalar", "per-coordinate"):
            raise ValueError(
                "expected probes from 1 up (math.inf: exact), law 'gaussian' or 'rademacher', norm 'scalar' or "
                f"'per-coordinate', got probes={probes}, law={law!r}, norm={norm!r}"
            )
        terms, dimension = self.exponents.shape
        kept = self._kept(signs, parity)
        if modes < 2:
            raise ValueError(
                f"expected modes from 2 up, got {modes}: one alone does not show whether it is the only one"
            )
        if self.pairs < 2 * len(kept):
            raise ValueError(
                f"expected at least {2 * len(kept)} pairs for {len(kept)} unknowns, got {self.pairs}: make a larger "
                "pool, or take a lower degree"
            )
        residual, strain, gram = (matrix[kept][:, kept] for matrix in self._matrices(law))
        # Monomials of mean square 1, then an orthonormal basis of their span.
        size = gram.diagonal().rsqrt()
        scaled = size[:, None] * gram * size + _RIDGE * torch.eye(len(kept), dtype=gram.dtype)
        whiten = torch.linalg.solve_triangular(torch.linalg.cholesky(scaled), size.diag(), upper=False)
        matrix = whiten @ (residual + 2 / probes * strain) @ whiten.T
        vectors = torch.linalg.eigh((matrix + matrix.T) / 2).eigenvectors.T[: max(modes, 12)]
        if norm == "per-coordinate":
            vectors = constrained_minima(matrix, kept // terms, vectors)
        found = vectors[:modes] @ whiten
        found = found * (dimension / (found @ gram * found).sum(1, keepdim=True)).sqrt()

        coefficients = found.new_zeros(len(found), dimension * terms)
        coefficients[:, kept] = found
        coefficients = coefficients.view(-1, dimension, terms)
        turning = sense(self._gram[1 : dimension + 1] @ coefficients.mT)  # the monomials 1 ... dimension are x
        kinds = [(found @ form * found).sum(1) for form in (residual + 2 / probes * strain, residual, strain)]
        return Modes(self.exponents, coefficients * turning[:, None, None], *kinds)


def closed_form(
    points: Tensor,  # [rows, dimension]
    scores: Tensor,  # [rows, dimension]
    *,
    degree: int = 5,
    probes: float = 8,
    law: str = "gaussian",
    signs: Tensor | None = None,  # [dimension]
    parity: str | None = None,
    modes: int = 5,
    norm: str = "scalar",
) -> Modes:
    """The polynomial flows that keep the density of the points best, lowest objective first.

    Minimises E[(div v + v . s)^2 + (2 / probes) strain] over E|v|^2 = dimension: see the head of this file.

    Args:
        points: y, drawn from the noised density, as `eqflow.score.pool.make_pool` gives them.
        scores: s at each of them.
        degree: highest total degree. `degree` 5 of three coordinates: 168 unknowns, a second for 50,000 pairs.
        probes: weight of the strain; math.inf for none, with which high degrees leave many modes near 0.
        law: "gaussian", or "rademacher", whose strain spares the diagonal of J.
        signs: a symmetry P = diag(signs) of the density.
        parity: of the flow under it: "even", v(Px) = P v(x), or "odd", v(Px) = -P v(x). None: all flows.
        modes: how many to give.
        norm: "scalar": E|v|^2 = dimension, an eigenproblem with all its solutions. "per-coordinate": E[v_i^2] = 1 for
            each i, as the paper normalises; no eigenproblem: the distinct minima from 8 starts, perhaps only one.

    Raises:
        ValueError: an argument is out of range, or there are too few pairs or too many unknowns.

    Example:
        >>> points = 0.5 * torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
        >>> modes = closed_form(points, -points / 0.25, degree=2)  # a round Gaussian: it can only turn
        >>> modes.unique, bool(modes.residual[0] < 0.01)
        (True, True)
    """
    if points.ndim != 2:
        raise ValueError(f"expected points [rows, dimension], got {list(points.shape)}")
    sums = PolynomialSums(points.shape[1], degree)
    sums.add(points, scores)
    return sums.solve(probes=probes, law=law, signs=signs, parity=parity, modes=modes, norm=norm)
