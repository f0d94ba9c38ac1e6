"""What still pictures cannot tell about their equation, and why."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.fokker_planck.estimate import Conditions, Fit, Subset, estimate
from eqflow.fokker_planck.fields.grid import Grid
from eqflow.fokker_planck.fields.model import FieldModel
from eqflow.fokker_planck.fields.pictures import Pictures, batches
from eqflow.fokker_planck.sensitivity import Sensitivity

STILL = (
    1e-3  # of a term's square that the others leave unexplained: moving patterns leave 3e-2 and more, still ones 2e-6
)
_LOOKED_AT = 32  # pictures: a relation that holds in every cell shows in a few
_AS_GOOD = 2.0  # times the least J: of a unit that the pictures ask for


class Identifiable(NamedTuple):
    """What is free and what holds in every cell."""

    unit: dict[str, float]  # the coefficients that set the unit of time; empty where a known noise does
    relations: dict[str, float]  # term with a derivative -> share of its square that the other terms leave unexplained
    blind: Sensitivity | None  # combinations without an effect

    @property
    def still(self) -> bool:
        """Whether a derivative follows from the other terms in every cell, so that no cell moves."""
        return any(share < STILL for share in self.relations.values())

    def __str__(self) -> str:
        lines = []
        if self.still:
            follow = ", ".join(name for name, share in self.relations.items() if share < STILL)
            lines.append(
                f"the pattern is static: in every cell {follow} follows from the other terms, so each equation has its "
                "own free scale, and what is zero in one may be added to another: take snapshots of a moving pattern, "
                "or say which terms stand in which equation"
            )
        if self.unit:
            chosen = ", ".join(f"{name} = {value:g}" for name, value in self.unit.items())
            lines.append(f"one time unit is free: {chosen} sets it")
        if self.blind is not None and self.blind.blind:
            lines.append(str(self.blind))
        return "\n".join(lines)


def relations(pictures: Pictures, model: FieldModel, grid: Grid) -> dict[str, float]:
    """The share of each term with a derivative that the other terms do not explain, cell by cell, in a few pictures.

    In a static pattern du/dt = 0 is a relation between the terms in every cell, and the share is zero. In pictures of a
    moving pattern, terms that are different functions leave a share behind.
    """
    library, gram, seen = model.library, None, 0
    for state in batches(pictures, len(model.variables)):
        state = state[: _LOOKED_AT - seen].double()
        values = grid.inside(library(state, grid), library.reach).movedim(1, 0).flatten(1)
        gram = values @ values.T + (0 if gram is None else gram)
        seen += len(state)
        if seen >= _LOOKED_AT:
            break
    scale = gram.diagonal().sqrt()
    inverse = torch.linalg.pinv(gram / torch.outer(scale, scale), rtol=1e-14, hermitian=True)
    derived = [place for place, term in enumerate(library.terms) if getattr(term, "operator", "") not in ("", "value")]
    return {library.names[place]: min(1.0, float(1 / inverse[place, place])) for place in derived}


def choose_unit(conditions: Conditions, model: FieldModel, *, cut: float, rounds: int) -> dict[str, float]:
    """The coefficient that sets the unit of time, and its sign.

    A theta = 0 has no right-hand side: the equation is known up to a factor. Every coefficient in turn is fixed at 1;
    where the term is not in the equation, the others cannot make up for it and J is large. Of those that fit, the
    monomial of highest degree is taken, as reactions and saturations are commonly written with a coefficient of 1. The
    factor's sign is that of time: time runs so that the strongest derivative smooths.

    Raises:
        ValueError: nothing can be fixed: the terms depend on each other.
    """
    fits: dict[str, Fit] = {}
    problem: ValueError | None = None
    for name in model.names[: len(model.entries)]:
        try:
            fits[name] = estimate(Subset.fixing(conditions, {name: 1.0}), rounds=rounds, cut=cut)
        except ValueError as error:
            problem = error
    if not fits:
        raise problem or ValueError("expected at least two terms, got one: there is nothing to compare it with")
    least = min(fit.j_statistic for fit in fits.values())
    good = [name for name, fit in fits.items() if fit.j_statistic <= _AS_GOOD * least]
    chosen = max(good, key=lambda name: (_degree(model, name), -model.names.index(name)))
    return {chosen: _direction(fits[chosen], model, chosen)}


def _term(model: FieldModel, name: str):
    channel, place = model.entries[model.names.index(name)]
    return channel, model.library.terms[place]


def _degree(model: FieldModel, name: str) -> int:
    term = _term(model, name)[1]
    return sum(term.exponents) if getattr(term, "operator", "") == "value" else -1


def _direction(fit: Fit, model: FieldModel, unit: str) -> float:
    """+1 or -1: which sign of the unit lets noise be positive, or else diffusion smooth."""
    values = {unit: (1.0, float("inf"))}
    values |= {
        name: (value, abs(value) / error)
        for name, value, error in zip(fit.names, fit.coefficients.tolist(), fit.standard_errors.tolist(), strict=True)
    }
    smoothing: list[tuple[float, float, float]] = []
    for name, (value, significance) in values.items():
        if name.startswith("noise of "):
            smoothing.append((3, significance, value))
        elif (operator := getattr(_term(model, name)[1], "operator", "")) in ("laplacian", "bilaplacian"):
            channel, term = _term(model, name)
            if sum(term.exponents) == term.exponents[channel] == 1:
                order, sign = (1, 1) if operator == "laplacian" else (2, -1)
                smoothing.append((order if significance > 5 else 0, significance, sign * value))
    return -1.0 if smoothing and max(smoothing)[2] < 0 else 1.0
