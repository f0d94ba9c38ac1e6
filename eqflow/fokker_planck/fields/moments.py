"""Moment conditions of stationary pictures: what every picture says about the coefficients of its equation.

For the mean φ over a picture of a local expression, E[dφ/dt] = 0 says

    sum over k of theta_k E[mean(δφ/δx . b_k)] + D E[sum of δ²φ/δx²] = 0.

Pictures made by the map x -> x + f(x) dt obey E[φ(x + f dt) - φ(x)] = 0 instead. With φ a polynomial,

    φ(x + f dt) - φ(x) = dt integral over s from 0 to 1 of δφ/δx(x + s f dt) . f(x),

which Gauss's rule with two nodes gives without an error up to the fourth degree. It is not linear in theta, but its
derivative is dt δφ/δx(x + f dt) . b_k, which makes linear conditions near the last theta, as in Newton's method.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from eqflow import ops
from eqflow.fokker_planck import stream
from eqflow.fokker_planck.estimate import Means
from eqflow.fokker_planck.fields.functionals import enough, gradients, noise_moments
from eqflow.fokker_planck.fields.grid import Grid
from eqflow.fokker_planck.fields.model import FieldModel
from eqflow.fokker_planck.fields.pictures import Pictures, batches
from eqflow.fokker_planck.fields.terms import FieldLibrary, Written
from eqflow.fokker_planck.layout import Layout

_GAUSS = math.sqrt(1 / 12)
_NODES = (0.5 - _GAUSS, 0.5 + _GAUSS)  # of equal weight; for φ of higher degree the error is of order dt^4


@dataclasses.dataclass(frozen=True, eq=False)
class FieldForm:
    """The moment conditions of pictures; satisfies `Conditions`. Make it with `field_form`.

    Args:
        model: whose unknowns these are.
        matrix: [pictures, conditions, unknowns], of every picture.
        target: [pictures, conditions].
        combine: adds tensors up over ranks.
    """

    model: FieldModel
    matrix: Tensor
    target: Tensor
    combine: stream.Combine | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def names(self) -> tuple[str, ...]:
        return self.model.names

    @property
    def layout(self) -> Layout:
        return self.model.layout

    @functools.cached_property
    def means(self) -> Means:
        ones = torch.tensor(float(len(self)), dtype=torch.float64)
        parts = [(ones, self.matrix.sum(0), self.target.sum(0), self.matrix.square().sum(0))]
        count, matrix, target, square = stream.add_up(parts, self.combine)
        columns = square / square.sum(0).clamp_min(torch.finfo(torch.float64).tiny)
        return Means(matrix / count, target / count, columns.sum(1).sqrt(), float(count))

    def covariance(self, coefficients: Tensor, *, homogeneous: bool = False) -> Tensor:
        rates = self.matrix @ coefficients.to(self.matrix)
        rates = rates if homogeneous else rates - self.target
        count, total, square = stream.add_up(
            [(torch.tensor(float(len(self)), dtype=torch.float64), rates.sum(0), rates.T @ rates)], self.combine
        )
        mean = total / count
        return (square / count - torch.outer(mean, mean)) / count

    def halves(self) -> tuple[FieldForm, FieldForm]:
        first, second = (
            dataclasses.replace(self, matrix=self.matrix[half::2], target=self.target[half::2]) for half in (0, 1)
        )
        return first, second


def field_form(
    pictures: Pictures,
    model: FieldModel,
    functionals: ops.Functionals | None = None,
    *,
    grid: Grid | None = None,
    dt: float | None = None,
    coefficients: Tensor | None = None,  # [unknowns]
    combine: stream.Combine | None = None,
    on_progress: Callable[[int], object] | None = None,
) -> FieldForm:
    """The conditions that stationary pictures put on an equation.

    Args:
        pictures: [batch, channels, height, width], or parts of that which can be read several times.
        model: see `field_model`.
        functionals: None: three for each unknown.
        grid: stencil, spacing and border; None: five points, spacing 1, periodic.
        dt: the step of the map that made the pictures, in units of time; None: continuous time.
        coefficients: of the last estimate, which say where the map leads; None: conditions of the flow.
        combine: adds a tensor up over ranks in place; every rank holds pictures of its own.
        on_progress: told how many pictures are done.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> from eqflow.fokker_planck import estimate
        >>> from eqflow.fokker_planck.fields import field_model, polynomial
        >>> white = torch.randn(64, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> model = field_model(polynomial("u", 3).only(["u", "u^3"]), noise=1.0)
        >>> print(estimate(field_form(white, model, ops.Functionals.up_to(1, 4, 1))).equations)
        du/dt = -0.99(2) u + 0.002(6) u^3
    """
    grid, functionals = grid or Grid(), functionals or enough(len(model.variables), len(model.names))
    matrices, targets, done = [], [], 0
    for state in batches(pictures, len(model.variables)):
        late = state
        if dt is not None and coefficients is not None:
            step = dt * model.drift(state.double(), coefficients, grid)
            reach = model.library.reach
            state, step = grid.inside(state, reach), grid.inside(step, reach)
            late = (state + step).to(state)
        matrix = _drift_columns(state, late, model, functionals, grid)
        target = matrix.new_zeros(matrix.shape[:2])
        if late is not state:
            drift = coefficients[: matrix.shape[2]].to(matrix)
            path = (_drift_columns(state, (state + node * step).to(state), model, functionals, grid) for node in _NODES)
            target = matrix @ drift - sum(path) @ drift / len(_NODES)
        if any(strength != 0 for strength in model.noise):
            spread = noise_moments(late.double(), functionals, grid)
            matrix = torch.cat([matrix, spread[:, :, list(model.noisy)]], 2)
            target = target - spread @ torch.tensor([strength or 0.0 for strength in model.noise]).to(spread)
        _check_finite(matrix, model.names)
        matrices.append(matrix.cpu())
        targets.append(target.cpu())
        done += len(state)
        if on_progress is not None:
            on_progress(done)
    return FieldForm(model, torch.cat(matrices), torch.cat(targets), combine)


def _check_finite(matrix: Tensor, names: tuple[str, ...]) -> None:
    bad = (~matrix.isfinite()).flatten(0, 1).any(0).nonzero()[:, 0].tolist()
    if bad:
        terms = ", ".join(names[place] for place in bad)
        raise ValueError(
            f"expected terms with finite moments, got NaN or infinite ones of {terms}: "
            "leave out formulas without a value in some cell, or give the fields a unit that makes them about 1"
        )


def _drift_columns(state, place, model, functionals, grid) -> Tensor:
    """The rate of each functional at a place that each unknown of the drift makes, [batch, functionals, unknowns]."""
    moments = _moments(state, place, model.library, functionals, grid)
    channels, terms = zip(*model.entries, strict=True)
    return moments[:, :, list(channels), list(terms)]


def _moments(state: Tensor, place: Tensor, library: FieldLibrary, functionals: ops.Functionals, grid: Grid) -> Tensor:
    """The mean of δφ/δx(place) b(state), [batch, functionals, channels, terms]."""
    native = [place for place, term in enumerate(library.terms) if not isinstance(term, Written)]
    others = [place for place, term in enumerate(library.terms) if isinstance(term, Written)]
    parts = []
    if native:
        terms = tuple(library.terms[place] for place in native)
        options = {"stencil": grid.stencil, "spacing": grid.spacing, "periodic": grid.periodic}
        parts.append(ops.field_moments(state, functionals, terms, at=place, **options))
    if others:
        written = library.only([library.names[place] for place in others])
        parts.append(_written_moments(state.double(), place.double(), written, functionals, grid))
    order = torch.tensor([*native, *others]).argsort()
    return torch.cat(parts, 3)[..., order.to(parts[0].device)]


def _written_moments(state, place, library, functionals, grid) -> Tensor:
    margin = max(library.reach, int(bool(functionals.pairs)))
    means = []
    for one, there in zip(state.split(1), place.split(1), strict=True):  # the gradients of many pictures are large
        values = grid.inside(library(one, grid), margin)
        slopes = grid.inside(gradients(there, functionals, grid), margin)
        means.append(torch.einsum("bjchw,bkhw->bjck", slopes, values) / values[0, 0].numel())
    return torch.cat(means)
