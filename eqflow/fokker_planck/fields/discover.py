"""From still pictures to the equation that keeps them: the whole way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqflow import ops
from eqflow.fokker_planck import stream
from eqflow.fokker_planck.estimate import Conditions, Fit, Subset, eliminate, estimate
from eqflow.fokker_planck.fields.functionals import enough
from eqflow.fokker_planck.fields.grid import Grid
from eqflow.fokker_planck.fields.identifiable import Identifiable, check_independent, choose_unit, relations
from eqflow.fokker_planck.fields.model import FieldModel
from eqflow.fokker_planck.fields.moments import FieldForm, field_form
from eqflow.fokker_planck.fields.pictures import Pictures
from eqflow.fokker_planck.sensitivity import sensitivity
from eqflow.fokker_planck.sparsest import Selection, sparsest

CUT = 1e-10  # of small eigenvalues of the weights: pictures are averages over thousands of cells, and precise
_ROUNDS = 4
_SETTLED = 0.1  # standard errors: a change below that is none


class Discovery(NamedTuple):
    """The equation behind pictures."""

    model: FieldModel
    fits: tuple[Fit, ...]  # one of all equations together; one of each in a static pattern; none if nothing can be told
    selection: Selection | None  # of the terms, with what the pictures hardly tell from it; None in a static pattern
    identifiable: Identifiable
    coefficients: Tensor  # [unknowns of the model], zero for terms that were left out

    @property
    def equations(self) -> str:
        """The equations with errors in units of the last digit."""
        return "\n".join(fit.equations for fit in self.fits)

    @property
    def verdict(self) -> str:
        """The J test in words."""
        return "\n".join(fit.verdict for fit in self.fits)

    def __str__(self) -> str:
        parts = (self.equations, self.verdict, str(self.selection or ""), str(self.identifiable))
        return "\n".join(part for part in parts if part)

    def drift(
        self,
        state: Tensor,  # [batch, channels, height, width]
        grid: Grid | None = None,
    ) -> Tensor:
        """The right-hand sides at a state, without noise."""
        return self.model.drift(state, self.coefficients, grid or Grid())

    def as_dict(self) -> dict:
        """What JSON takes."""
        return {
            "equations": self.equations.splitlines(),
            "fits": [fit.as_dict() for fit in self.fits],
            "rivals": [fit.as_dict() for fit in self.selection.rivals] if self.selection else [],
            "unit": self.identifiable.unit,
            "static": self.identifiable.still,
            "relations": list(self.identifiable.relations),
            "identifiability": str(self.identifiable).splitlines(),
        }


def discover(
    pictures: Pictures,
    model: FieldModel,
    functionals: ops.Functionals | None = None,
    *,
    grid: Grid | None = None,
    dt: float | None = None,
    unit: Mapping[str, float] | None = None,
    threshold: float = 4.0,
    passes: int = 4,
    combine: stream.Combine | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> Discovery:
    """The equation that keeps an ensemble of pictures as it is: its terms, coefficients, errors and a test.

    The pictures need no order and no time stamps, but must come from a stationary state that is the same at every
    place: long runs of a pattern that moves. Of a pattern that stands still, every equation has its own free scale, and
    the answer says so.

    Args:
        pictures: [batch, channels, height, width], or parts of that which can be read several times; some hundred for
            two channels. Leave constant ones out, see `living`.
        model: the terms to choose from, see `field_model`.
        functionals: the test functionals; None: three for each unknown.
        grid: stencil, spacing and border; None: five points, spacing 1, periodic.
        dt: the step, if the pictures were made by x -> x + f(x) dt with a step worth mentioning; None: continuous time.
            It counts in the unit of time that `unit` sets, and a chosen unit is a coefficient of 1 or -1: give the unit
            where that is not so.
        unit: the coefficients that set the unit of time, such as {"u v^2 in du/dt": -1.0}; None: chosen, unless a known
            noise sets it.
        threshold: a term has to lower the J statistic by its square, see `sparsest`.
        passes: over the pictures, at most, from 2 up, until the path of the map is known; with `dt` only.
        combine: adds a tensor up over ranks in place; every rank holds pictures of its own.
        on_progress: told the pass and how many pictures of it are done.

    Raises:
        TypeError, ValueError: an argument is wrong, or the conditions cannot determine the unknowns.

    Example:
        >>> from eqflow.fokker_planck.fields import discover, field_model, polynomial
        >>> white = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)).double()
        >>> print(discover(white, field_model(polynomial("u", 3), noise=1.0)).equations)
        du/dt = -0.993(10) u
    """
    grid, functionals = grid or Grid(), functionals or enough(len(model.variables), len(model.names))

    def form(number: int, coefficients: Tensor | None) -> FieldForm:
        report = None if on_progress is None else lambda done: on_progress(number, done)
        options = {"dt": dt, "coefficients": coefficients, "combine": combine, "on_progress": report}
        return field_form(pictures, model, functionals, grid=grid, **options)

    if dt is not None and passes < 2:
        raise ValueError(f"expected passes from 2 up where the pictures come from a map, got {passes}")
    if not all(map(math.isfinite, (unit or {}).values())):
        raise ValueError(f"expected a finite number for every coefficient of the unit, got {dict(unit)}")
    options = {"threshold": threshold, "rounds": _ROUNDS, "cut": CUT}
    check_independent(pictures, model, grid)
    whole = form(0, None)
    _check_count(whole, functionals)
    held = relations(pictures, model, grid)
    if any(held):
        return _of_static(whole, model, held, unit or {}, **options)
    if unit is None:
        sets_the_scale = any(strength for strength in model.noise)
        with _one_thread():
            unit = {} if sets_the_scale else choose_unit(whole, model, _sparsest(options), **options)
    conditions = _fixing(whole, unit)
    if dt is None:
        with _one_thread():
            selection = sparsest(conditions, **options)
    else:  # of the map's path the whole library knows enough, while a choice of terms would feel its curvature
        fit = estimate(conditions, rounds=_ROUNDS, cut=CUT)
        for number in range(1, passes):
            last, conditions = fit, _fixing(form(number, _everything(model, unit, fit)), unit)
            with _one_thread():
                selection = sparsest(conditions, _in_order(conditions, last) if number > 1 else None, **options)
            fit = selection.fit
            if fit.names == last.names and _change(fit, last) < _SETTLED:
                break
    fit = selection.fit
    kept = Subset(conditions, tuple(conditions.names.index(name) for name in fit.names))
    blind = sensitivity(kept, fit, cut=CUT)
    return Discovery(model, (fit,), selection, Identifiable(dict(unit), held, blind), _everything(model, unit, fit))


@contextmanager
def _one_thread() -> Iterator[None]:
    """For many small matrices: threads that wait for each other made it forty times as slow beside another program."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _sparsest(options: Mapping[str, Any]) -> Callable[[Conditions], Fit]:
    return lambda conditions: sparsest(conditions, **options).fit


def _fixing(whole: FieldForm, unit: Mapping[str, float]) -> Conditions:
    return Subset.fixing(whole, unit) if unit else whole


def _everything(model: FieldModel, unit: Mapping[str, float], *fits: Fit) -> Tensor:
    """The coefficients of all unknowns of the model."""
    values = dict(unit)
    for fit in fits:
        values |= dict(zip(fit.names, fit.coefficients.tolist(), strict=True))
    return torch.tensor([values.get(name, 0.0) for name in model.names], dtype=torch.float64)


def _in_order(conditions: Conditions, fit: Fit) -> Tensor:
    return torch.tensor([fit.value(name) for name in conditions.names], dtype=torch.float64)


def _change(fit: Fit, last: Fit) -> float:
    return float(((fit.coefficients - last.coefficients) / fit.standard_errors).abs().max())


def _check_count(form: FieldForm, functionals: ops.Functionals) -> None:
    (count,) = stream.add_up([(torch.tensor(float(len(form)), dtype=torch.float64),)], form.combine)
    unknowns = len(form.names)
    if count <= unknowns:
        raise ValueError(
            f"expected more pictures than unknowns, got {int(count)} for {unknowns}: take more pictures, or fewer terms"
        )
    if functionals.count < unknowns:
        raise ValueError(
            f"expected as many functionals as unknowns or more, got {functionals.count} for {unknowns}: take a higher "
            "degree, or fewer terms"
        )


def _of_static(
    whole: FieldForm, model: FieldModel, held: tuple[int, ...], given: Mapping[str, float], **options: Any
) -> Discovery:
    """Each equation up to its own scale, where its terms alone determine it.

    By elimination: what nearly vanishes in every cell contradicts every equation, so that J tells none from another.
    """

    def select(rows: Conditions) -> Fit:
        return eliminate(rows, **options)

    _fixing(whole, given)  # refuses what is no unknown
    fits: list[Fit] = []
    units: dict[str, float] = {}
    for channel, left in enumerate(model.left):
        if held[channel] != 1:
            continue
        part = Subset(whole, tuple(place for place, (row, _) in enumerate(model.entries) if row == channel))
        unit = {name: value for name, value in given.items() if name in part.names}
        unit = unit or choose_unit(part, model, select, **options)
        fit = select(Subset.fixing(part, unit))
        units |= unit
        fits.append(fit._replace(layout=fit.layout.only(left)))
    return Discovery(model, tuple(fits), None, Identifiable(units, held), _everything(model, units, *fits))
