"""What still pictures cannot tell about their equation, and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch

from eqflow import ops
from eqflow.fokker_planck.estimate import Conditions, Fit, Subset, estimate
from eqflow.fokker_planck.fields.grid import Grid
from eqflow.fokker_planck.fields.model import FieldModel
from eqflow.fokker_planck.fields.pictures import Pictures, batches
from eqflow.fokker_planck.fields.terms import Written
from eqflow.fokker_planck.sensitivity import Sensitivity
from eqflow.fokker_planck.sparsest import score
from eqflow.ops import FieldTerm

# Of the square of a sum of derivatives, unexplained by the other terms: moving patterns leave 5e-2 and more, still ones
# 3e-4 and less.
STILL = 1e-3
_FLAT = 1e-9  # of the square of scaled derivatives: of a sum that is smaller nothing can be told
_SAME = 1e-10  # least singular value of scaled terms: below, one is a sum of the others
_LOOKED_AT = 32  # pictures: a relation that holds in every cell shows in a few
_SHUFFLED = 4  # pictures: an identity needs few numbers
_NAMED = 0.05  # share of a term in a relation, from which it is named
_UNITS = 3  # with which terms are selected
_AS_GOOD = 2.0  # times the least J: the first of the units that do as well is taken


class Identifiable(NamedTuple):
    """What is free and what holds in every cell."""

    unit: dict[str, float]  # the coefficients that set the unit of time; empty where a known noise does
    relations: tuple[int, ...]  # for each equation: how many relations between its terms hold in every cell
    blind: Sensitivity | None = None  # combinations without an effect

    @property
    def still(self) -> bool:
        """Whether a relation between the terms holds in every cell of every picture, so that no cell moves."""
        return any(self.relations)

    def __str__(self) -> str:
        chosen = ", ".join(f"{name} = {value:g}" for name, value in self.unit.items())
        if self.still:
            lines = [
                "the pattern is static: du/dt = 0 holds in every cell, so each equation has its own free scale: take "
                "snapshots of a moving pattern"
            ]
            if chosen:
                lines.append(f"here the scales are set by {chosen}")
            if max(self.relations) > 1:
                lines.append(
                    f"{max(self.relations)} relations hold in every cell, and any sum of them would do as an equation: "
                    "say which terms stand in which equation"
                )
            return "\n".join(lines)
        lines = [f"one time unit is free: {chosen} sets it"] if chosen else []
        if self.blind is not None and self.blind.blind:
            lines.append(str(self.blind))
        return "\n".join(lines)


def relations(pictures: Pictures, model: FieldModel, grid: Grid) -> tuple[int, ...]:
    """How many relations between the terms of each equation hold in every cell, in a few pictures.

    In a static pattern du/dt = 0 is a relation between the terms, and a sum of derivatives follows from the terms
    without. In pictures of a moving pattern a share of it is left behind. Counted are the sums of which nearly nothing
    is left, one minus their squared canonical correlation; so derivatives that resemble each other, such as Lap u and
    Lap u^2 of a field with a large mean, do not look like a relation.
    """
    library, gram, seen = model.library, torch.zeros((), dtype=torch.float64), 0
    for state in batches(pictures, len(model.variables)):
        state = state[: _LOOKED_AT - seen].double()
        values = grid.inside(library(state, grid), library.reach).movedim(1, 0).flatten(1)
        gram = gram + (values @ values.T).cpu()
        seen += len(state)
        if seen >= _LOOKED_AT:
            break
    scale = gram.diagonal().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    gram = gram / torch.outer(scale, scale)
    counts = []
    for channel in range(len(model.variables)):
        places = [term for row, term in model.entries if row == channel]
        derived = [place for place in places if _operator(library.terms[place]) not in ("", "value")]
        plain = [place for place in places if place not in derived]
        if not derived or not plain:
            counts.append(0)
            continue
        across = gram[plain][:, derived]
        explained = across.T @ torch.linalg.pinv(gram[plain][:, plain], rtol=1e-13, hermitian=True) @ across
        squares, sums = torch.linalg.eigh(gram[derived][:, derived])
        sums = sums[:, squares > _FLAT] / squares[squares > _FLAT].sqrt()
        left = 1 - torch.linalg.eigvalsh(sums.T @ explained @ sums)
        counts.append(int((left < STILL).sum()))
    return tuple(counts)


def check_independent(pictures: Pictures, model: FieldModel, grid: Grid) -> None:
    """Refuse terms that are sums of each other whatever the field, such as u^2 and u*u: their difference is always 0.

    The cells are shuffled, so that the numbers are those of the pictures but no relation of a pattern is left.

    Raises:
        ValueError: terms of one equation depend on each other.
    """
    state = next(batches(pictures, len(model.variables)))[:_SHUFFLED].double().cpu()
    cells = state.flatten(2)
    order = ops.normal(cells.shape[0] * cells.shape[1], cells.shape[2], seed=0).view_as(cells).argsort(2)
    shuffled = cells.gather(2, order).view_as(state)
    values = grid.inside(model.library(shuffled, grid), model.library.reach).movedim(1, -1).flatten(0, -2)
    values = values[values.isfinite().all(1)]  # a formula may have gaps between the channels' numbers
    values = values / values.norm(dim=0).clamp_min(torch.finfo(values.dtype).tiny)
    for channel, left in enumerate(model.left):
        places = [term for row, term in model.entries if row == channel]
        if not places or len(values) < len(places):
            continue
        _, sizes, sums = torch.linalg.svd(torch.linalg.qr(values[:, places], mode="r").R)
        if sizes[-1] < _SAME:
            heavy = (sums[-1].abs() > _NAMED).nonzero()[:, 0].tolist()
            names = ", ".join(f"{model.library.names[places[place]]} in {left}" for place in heavy)
            raise ValueError(f"{names} depend on each other, whatever the field: leave one out")


def _operator(term: FieldTerm | Written) -> str:
    return "" if isinstance(term, Written) else term.operator


def choose_unit(
    conditions: Conditions,
    model: FieldModel,
    select: Callable[[Conditions], Fit],
    *,
    threshold: float,
    cut: float,
    rounds: int,
) -> dict[str, float]:
    """The coefficient that sets the unit of time, and its sign.

    A theta = 0 has no right-hand side: the equation is known up to a factor. Every coefficient in turn is fixed at 1;
    where the term is not in the equation, the others cannot make up for it and J is large. With each of the few best
    fixed the terms are selected, and of the best selection the monomial of highest degree is taken, as reactions and
    saturations are commonly written with a coefficient of 1. The factor's sign is that of time: time runs so that the
    strongest derivative smooths.

    Raises:
        ValueError: nothing can be fixed: the terms depend on each other.
    """
    misfit: dict[str, float] = {}
    problem: ValueError | None = None
    for name in (name for name in conditions.names if name in model.names[: len(model.entries)]):
        try:
            misfit[name] = estimate(Subset.fixing(conditions, {name: 1.0}), rounds=rounds, cut=cut).j_statistic
        except ValueError as error:
            problem = error
    if not misfit:
        raise problem or ValueError("expected at least two terms, got one: there is nothing to compare it with")
    starts = sorted(misfit, key=misfit.__getitem__)[:_UNITS]
    fits = {name: select(Subset.fixing(conditions, {name: 1.0})) for name in starts}
    first = min(fits, key=lambda name: score(fits[name], conditions.means.count, threshold))
    kept = [name for name in misfit if name == first or name in fits[first].names]
    degree = max(_degree(model, name) for name in kept)
    highest = [name for name in kept if _degree(model, name) == degree]
    least = min(misfit[name] for name in highest)
    chosen = next(name for name in highest if misfit[name] <= _AS_GOOD * least)
    return {chosen: _direction(fits[first], model, first, chosen)}


def _term(model: FieldModel, name: str) -> tuple[int, FieldTerm | Written]:
    channel, place = model.entries[model.names.index(name)]
    return channel, model.library.terms[place]


def _degree(model: FieldModel, name: str) -> int:
    term = _term(model, name)[1]
    return sum(term.exponents) if _operator(term) == "value" else -1


def _direction(fit: Fit, model: FieldModel, unit: str, chosen: str) -> float:
    """+1 or -1 for a coefficient: the sign that lets noise be positive, or else diffusion smooth, or else +1."""
    values = {unit: (1.0, float("inf"))}
    values |= {
        name: (value, abs(value) / error)
        for name, value, error in zip(fit.names, fit.coefficients.tolist(), fit.standard_errors.tolist(), strict=True)
    }
    smoothing: list[tuple[float, float, float]] = []
    for name, (value, significance) in values.items():
        if name.startswith("noise of "):
            smoothing.append((3, significance, value))
        elif (operator := _operator(_term(model, name)[1])) in ("laplacian", "bilaplacian"):
            channel, term = _term(model, name)
            if sum(term.exponents) == term.exponents[channel] == 1:
                order, sign = (1, 1) if operator == "laplacian" else (2, -1)
                smoothing.append((order if significance > 5 else 0, significance, sign * value))
    return math.copysign(1.0, max(smoothing)[2] * values[chosen][0]) if smoothing else 1.0
