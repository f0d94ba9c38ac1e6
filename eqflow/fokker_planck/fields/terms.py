"""Local terms that the equation of a field may be made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqflow.fokker_planck import expressions
from eqflow.fokker_planck.fields.grid import Grid
from eqflow.fokker_planck.library import variable_names
from eqflow.fokker_planck.monomials import evaluate, written
from eqflow.ops import FieldTerm, monomials_up_to

_SIGNS = {"value": "{}", "laplacian": "Δ{}", "bilaplacian": "Δ²{}", "squared-gradient": "|∇{}|²"}


@dataclass(frozen=True, eq=False)
class Written:
    """A term of the user: function(state [batch, channels, height, width], grid) -> [batch, height, width]."""

    function: Callable[[Tensor, Grid], Tensor]


@dataclass(frozen=True, eq=False)
class FieldLibrary:
    """Terms b_k of fields, the same at every place, to be put into any equation.

    Args:
        variables: names of the channels.
        names: of the terms, as they are printed.
        terms: what they are.

    Example:
        >>> (polynomial("u v", 1) + laplacian("u v")).names
        ('1', 'u', 'v', 'Δu', 'Δv')
    """

    variables: tuple[str, ...]
    names: tuple[str, ...]
    terms: tuple[FieldTerm | Written, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __add__(self, other: FieldLibrary) -> FieldLibrary:
        if self.variables != other.variables:
            raise ValueError(f"expected libraries of the same channels, got {self.variables} and {other.variables}")
        twice = set(self.names) & set(other.names)
        if twice:
            raise ValueError(f"expected different terms in the two libraries, but both have {', '.join(sorted(twice))}")
        return FieldLibrary(self.variables, self.names + other.names, self.terms + other.terms)

    @property
    def reach(self) -> int:
        """How many cells away a term looks."""
        operators = {"laplacian" if isinstance(term, Written) else term.operator for term in self.terms}
        return 2 if "bilaplacian" in operators else int(operators != {"value"})

    def only(self, names: Sequence[str]) -> FieldLibrary:
        """Some of the terms.

        Raises:
            ValueError: there is no such term.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown or not names:
            raise ValueError(f"expected terms among {', '.join(self.names)}, got {', '.join(unknown) or 'none'}")
        places = [self.names.index(name) for name in names]
        return FieldLibrary(self.variables, tuple(names), tuple(self.terms[place] for place in places))

    def __call__(
        self,
        state: Tensor,  # [batch, channels, height, width]
        grid: Grid,
    ) -> Tensor:
        """The terms at every cell, [batch, terms, height, width]; at a border without wrap-around they are wrong."""
        return torch.stack([_value(term, state, grid) for term in self.terms], 1)


def _value(term: FieldTerm | Written, state: Tensor, grid: Grid) -> Tensor:
    if isinstance(term, Written):
        return term.function(state, grid)
    (monomial,) = evaluate(state.unbind(1), [term.exponents])
    match term.operator:
        case "value":
            value = monomial
        case "laplacian":
            value = grid.laplacian(monomial)
        case "bilaplacian":
            value = grid.laplacian(grid.laplacian(monomial))
        case "squared-gradient":
            value = grid.difference(monomial, -1).square() + grid.difference(monomial, -2).square()
        case _:
            value = grid.difference(monomial, -1 if term.operator == "x-derivative" else -2)
    return value if term.factor is None else value * evaluate(state.unbind(1), [term.factor])[0]


def _of_monomials(variables: str | Sequence[str], degree: int, operator: str, least: int = 1) -> FieldLibrary:
    names = variable_names(variables)
    if degree < 1:
        raise ValueError(f"expected a degree from 1 up, got {degree}")
    powers = monomials_up_to(len(names), degree, lowest=least)
    texts = [written(names, power) for power in powers]
    bracketed = [f"({text})" if operator != "value" and text not in names else text for text in texts]
    printed = tuple(_SIGNS[operator].format(text) for text in bracketed)
    return FieldLibrary(names, printed, tuple(FieldTerm(power, operator) for power in powers))


def polynomial(variables: str | Sequence[str], degree: int) -> FieldLibrary:
    """1 and all monomials up to a degree.

    Example:
        >>> polynomial("u v", 2).names
        ('1', 'u', 'v', 'u^2', 'u v', 'v^2')
    """
    return _of_monomials(variables, degree, "value", 0)


def laplacian(variables: str | Sequence[str], degree: int = 1) -> FieldLibrary:
    """The Laplacians of all monomials up to a degree.

    Example:
        >>> laplacian("u", 3).names
        ('Δu', 'Δ(u^2)', 'Δ(u^3)')
    """
    return _of_monomials(variables, degree, "laplacian")


def bilaplacian(variables: str | Sequence[str], degree: int = 1) -> FieldLibrary:
    """The Laplacians of the Laplacians of all monomials up to a degree.

    Example:
        >>> bilaplacian("u v").names
        ('Δ²u', 'Δ²v')
    """
    return _of_monomials(variables, degree, "bilaplacian")


def squared_gradient(variables: str | Sequence[str], degree: int = 1) -> FieldLibrary:
    """The squared gradients of all monomials up to a degree.

    Example:
        >>> squared_gradient("h").names
        ('|∇h|²',)
    """
    return _of_monomials(variables, degree, "squared-gradient")


def advection(variables: str | Sequence[str], degree: int = 1) -> FieldLibrary:
    """The slopes of the channels along both axes, and their products with all monomials up to a degree.

    Example:
        >>> advection("u").names
        ('u_x', 'u_y', 'u u_x', 'u u_y')
    """
    names = variable_names(variables)
    printed, terms = [], []
    for factor in monomials_up_to(len(names), degree, lowest=0):
        for place, name in enumerate(names):
            own = tuple(int(channel == place) for channel in range(len(names)))
            for axis in "xy":
                printed.append(f"{written(names, factor)} {name}_{axis}".removeprefix("1 "))
                terms.append(FieldTerm(own, f"{axis}-derivative", factor))
    return FieldLibrary(names, tuple(printed), tuple(terms))


def expressed(variables: str | Sequence[str], terms: Sequence[str] | Mapping[str, str]) -> FieldLibrary:
    """Terms written as formulas of the channels and their derivatives.

    Beside a channel u there are u_x and u_y, central differences along the last axis and the one before, and lap_u,
    its Laplacian. See `eqflow.fokker_planck.expressions` for what may stand in a formula.

    Args:
        variables: names of the channels.
        terms: formulas, or names to print and their formulas.

    Raises:
        ValueError: no term, or a formula that cannot be read.

    Example:
        >>> terms = expressed("u v", {"advection": "u*u_x", "v/(1 + u^2)": "v/(1 + u^2)"})
        >>> terms(torch.ones(1, 2, 4, 4), Grid())[0, :, 0, 0]
        tensor([0.0000, 0.5000])
    """
    names = variable_names(variables)
    table = dict(terms) if isinstance(terms, Mapping) else {term: term for term in terms}
    if not table:
        raise ValueError("expected at least one term")
    derived = [f"{name}_{axis}" for axis in "xy" for name in names] + [f"lap_{name}" for name in names]
    clash = sorted(set(derived) & set(names))
    if clash:
        raise ValueError(f"expected channels that have no derivative's name, got {', '.join(clash)}")
    return FieldLibrary(names, tuple(table), tuple(_formula(text, (*names, *derived)) for text in table.values()))


def _formula(text: str, symbols: Sequence[str]) -> Written:
    parsed = expressions.parse([text], symbols)

    def function(state: Tensor, grid: Grid) -> Tensor:
        columns = torch.cat([state, grid.difference(state, -1), grid.difference(state, -2), grid.laplacian(state)], 1)
        values = parsed(columns.movedim(1, -1).flatten(0, -2))
        return values[:, 0].view(state[:, 0].shape)

    return Written(function)
