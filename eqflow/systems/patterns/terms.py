"""Terms of equations of fields, named so that a found equation can be compared with the true one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.ops.gray_scott import laplacian as laplacian_of

OPERATORS = ("value", "laplacian", "bilaplacian")  # the place is the number of Laplacians


class Term(NamedTuple):
    """An operator and the powers of the channels that it acts on.

    A term equals the plain tuple: ("value", (2, 1)) is u^2 v, ("laplacian", (3,)) is Lap u^3, and
    ("bilaplacian", (1,)) is Lap Lap u.
    """

    operator: str
    powers: tuple[int, ...]


Equations = tuple[Mapping[Term, float], ...]  # for each channel the coefficient of each term


def nonzero(terms: Mapping[Term, float]) -> dict[Term, float]:
    """The terms whose coefficient is not 0."""
    return {term: coefficient for term, coefficient in terms.items() if coefficient}


def value(*powers: int) -> Term:
    """The monomial itself."""
    return Term("value", powers)


def laplacian(*powers: int) -> Term:
    """The Laplacian of the monomial."""
    return Term("laplacian", powers)


def bilaplacian(*powers: int) -> Term:
    """The Laplacian of the Laplacian of the monomial."""
    return Term("bilaplacian", powers)


def evaluate(
    equations: Equations,
    state: Tensor,  # [batch, channels, height, width]
    *,
    dx: float = 1.0,
    stencil: str = "5-point",
) -> Tensor:
    """The specification: the sum of the terms of each channel, of the shape of the state.

    Products and sums are separate operations in one order, so that a shift of the grid shifts the bits.

    Example:
        >>> equations = ({laplacian(1): 0.5, value(0): 2.0, value(3): -1.0},)
        >>> evaluate(equations, torch.ones(1, 1, 4, 4))[0, 0, 0]
        tensor([1., 1., 1., 1.])
    """
    channels = state.unbind(1)
    known = {(0,) * len(channels): torch.ones_like(channels[0])}

    def monomial(powers: tuple[int, ...]) -> Tensor:
        if powers not in known:
            place = next(k for k, power in enumerate(powers) if power)
            rest = tuple(power - (k == place) for k, power in enumerate(powers))
            known[powers] = channels[place] * monomial(rest) if any(rest) else channels[place]
        return known[powers]

    rows = []
    for row in equations:
        total = None
        for order in (2, 1, 0):
            if total is not None:
                total = laplacian_of(total, stencil)
            for term, coefficient in row.items():
                if term.operator == OPERATORS[order]:
                    total = _add(total, coefficient / dx ** (2 * order), monomial(term.powers))
        rows.append(torch.zeros_like(channels[0]) if total is None else total)
    return torch.stack(rows, 1)


def _add(total: Tensor | None, coefficient: float, part: Tensor) -> Tensor:
    """Total plus coefficient times part, in place and without a product by 1: most of the time goes into memory."""
    if total is None:
        return coefficient * part
    if coefficient == 1:
        return total.add_(part)
    return total.sub_(part) if coefficient == -1 else total.add_(coefficient * part)
