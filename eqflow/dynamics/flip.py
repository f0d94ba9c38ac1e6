"""Which symmetry of a density to build into its flow: flips of signs found in the points, admitted by the closed form.

A density that is unchanged by P = diag(signs) has flows of both kinds, v(Px) = P v(x) and v(Px) = -P v(x): turning is
even under a rotation by 180 degrees and odd under a reflection. A symmetry is built in where the best even flow is
nearly as good as the best odd one, so that it only decides what the points leave open.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.dynamics.closed_form import PolynomialSums
from eqflow.metrics import sign_symmetries

_RATIO = 1.5  # of objectives, up to which two flows count as equally good
_MOST_UNKNOWNS = 700
_MOST_COORDINATES = 8


class Flip(NamedTuple):
    """What `choose_flip` found."""

    signs: Tensor | None  # [dimension], float32: the symmetry to build in; None: none
    reason: str
    found: Tensor  # [flips, dimension]: all symmetries of the points
    even: Tensor  # [flips]: lowest objective of the flows with v(Px) = P v(x)
    odd: Tensor  # [flips]: of those with v(Px) = -P v(x)


def choose_flip(
    points: Tensor,  # [rows, dimension]
    scores: Tensor,  # [rows, dimension]
    *,
    degree: int | None = None,
    probes: float = 8,
    law: str = "gaussian",
    seed: int = 0,
) -> Flip:
    """The flip of signs to build into a flow, from the points alone.

    First the flips that leave the points unchanged, by the test of `eqflow.metrics.sign_symmetries`; of these the ones
    whose best even flow in closed form has an objective below 1.5 times that of the best odd flow; of these the one
    with the lowest objective. It is a prior: a flow that breaks a symmetry of its own density would be missed.

    Args:
        points: y, standardised, as for `fit_flow`.
        scores: s at each of them.
        degree: of the polynomials; None: the highest up to 5 with at most 700 unknowns.
        probes, law: of the objective; see `closed_form`.
        seed: of the test's permutations.

    Returns:
        Flip(signs, reason, found, even, odd).

    Raises:
        ValueError: the points do not fit the test or the closed form.

    Example:
        >>> from eqflow.score import Gaussian
        >>> density = Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]]))
        >>> points = density.sample(4000, seed=0)
        >>> choose_flip(points, density(points), degree=1).signs  # not the reflections
        tensor([-1., -1.])
    """
    dimension, nothing = points.shape[1], torch.zeros(0, dtype=torch.float64)
    if dimension > _MOST_COORDINATES:
        reason = f"not looked for: {dimension} coordinates have 2^{dimension} flips of signs"
        return Flip(None, reason, nothing.view(0, dimension), nothing, nothing)
    found = sign_symmetries(points, seed=seed).found.cpu()
    if not len(found):
        return Flip(None, "no flip of signs leaves the points unchanged", found, nothing, nothing)
    sums = PolynomialSums(dimension, degree or _degree(dimension))
    sums.add(points, scores)
    lowest = {
        parity: torch.stack(
            [sums.solve(probes=probes, law=law, signs=p, parity=parity, modes=2).objective[0] for p in found]
        )
        for parity in ("even", "odd")
    }
    even, odd = lowest["even"], lowest["odd"]
    admitted = even < _RATIO * odd
    if not admitted.any():
        best = int((even / odd).argmin())
        reason = (
            f"the points are unchanged by {_text(found[best])}, but the best flow that shares it is worse than one "
            f"that breaks it: objective {float(even[best]):.3g} against {float(odd[best]):.3g}"
        )
        return Flip(None, reason, found, even, odd)
    best = int(torch.where(admitted, even, math.inf).argmin())
    reason = (
        f"the points are unchanged by {_text(found[best])}, and flows that share it have objective "
        f"{float(even[best]):.3g}, those that break it {float(odd[best]):.3g}"
    )
    return Flip(found[best].float(), reason, found, even, odd)


def _degree(dimension: int) -> int:
    degrees = (q for q in range(5, 1, -1) if dimension * math.comb(q + dimension, dimension) <= _MOST_UNKNOWNS)
    return next(degrees, 1)


def _text(signs: Tensor) -> str:
    return "(" + ", ".join(f"{int(sign):+d}" for sign in signs) + ")"
