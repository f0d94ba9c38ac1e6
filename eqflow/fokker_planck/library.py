"""Libraries: the terms that an equation may be made of."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqflow.fokker_planck import expressions
from eqflow.fokker_planck.monomials import evaluate, written
from eqflow.ops import monomials_up_to


def variable_names(variables: str | Sequence[str]) -> tuple[str, ...]:
    """The names of the coordinates; a string is split at its spaces.

    Raises:
        ValueError: a name cannot stand in a formula, or stands twice.
    """
    names = tuple(variables.split()) if isinstance(variables, str) else tuple(variables)
    for name in names:
        if not name.isidentifier() or name == expressions.TIME or name in expressions.FUNCTIONS:
            raise ValueError(f"expected a plain name such as 'x' (not '{expressions.TIME}', the time), got {name!r}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected different names, at least one, such as 'x y z', got {list(names)}")
    return names


@dataclass(frozen=True, eq=False)
class Library:
    """Terms u_l(x, t), to be put into any row of an equation.

    Args:
        variables: names of the coordinates.
        names: of the terms, as they are printed.
        function: function(points [n, dimension], time) -> [n, terms].

    Example:
        >>> both = polynomial("x y", 1) + expressed("x y", ["sin(t)"])
        >>> both.names
        ('1', 'x', 'y', 'sin(t)')
    """

    variables: tuple[str, ...]
    names: tuple[str, ...]
    function: Callable[[Tensor, float], Tensor]

    def __call__(
        self,
        points: Tensor,  # [n, dimension]
        time: float = 0.0,
    ) -> Tensor:
        """The terms at some points, [n, terms]."""
        return self.function(points, time)

    def __len__(self) -> int:
        return len(self.names)

    def __add__(self, other: Library) -> Library:
        if self.variables != other.variables:
            raise ValueError(f"expected libraries of the same variables, got {self.variables} and {other.variables}")
        twice = set(self.names) & set(other.names)
        if twice:
            raise ValueError(f"expected different terms in the two libraries, but both have {', '.join(sorted(twice))}")

        def function(points, time):
            return torch.cat([self(points, time), other(points, time)], 1)

        return Library(self.variables, self.names + other.names, function)

    def products(self, factors: int) -> Library:
        """The terms, and the products of 2 to `factors` different ones.

        Example:
            >>> hill("p b", power=2, repress=True).products(2).names
            ('1/(1 + p^2)', '1/(1 + b^2)', '1/(1 + p^2) 1/(1 + b^2)')
        """
        groups = [g for k in range(1, factors + 1) for g in itertools.combinations(range(len(self)), k)]

        def function(points, time):
            terms = self(points, time)
            return torch.stack([terms[:, list(group)].prod(1) for group in groups], 1)

        return Library(self.variables, tuple(" ".join(self.names[i] for i in group) for group in groups), function)


def polynomial(variables: str | Sequence[str], degree: int, *, constant: bool = True) -> Library:
    """All monomials up to a degree, by degree.

    Args:
        variables: names of the coordinates, such as "x y z".
        degree: the highest one, from 1 up.
        constant: begin with the term 1.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> polynomial("x y", 2).names
        ('1', 'x', 'y', 'x^2', 'x y', 'y^2')
    """
    names = variable_names(variables)
    if degree < 1:
        raise ValueError(f"expected a degree from 1 up, got {degree}")
    monomials = monomials_up_to(len(names), degree, lowest=0 if constant else 1)

    def function(points, time):
        return torch.stack(evaluate(points.unbind(1), monomials), 1)

    return Library(names, tuple(written(names, powers) for powers in monomials), function)


def trigonometric(variables: str | Sequence[str], harmonics: int = 1, *, period: float = 2 * math.pi) -> Library:
    """sin and cos of every coordinate and its harmonics.

    Args:
        variables: names of the coordinates.
        harmonics: how many, from 1 up.
        period: of the first harmonic, in units of the coordinates.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> trigonometric("x", 2).names
        ('sin(x)', 'cos(x)', 'sin(2 x)', 'cos(2 x)')
    """
    names = variable_names(variables)
    if harmonics < 1 or not 0 < period < math.inf:
        raise ValueError(f"expected harmonics from 1 up and a positive period, got {harmonics} and {period}")
    unit = 2 * math.pi / period
    texts = []
    for name in names:
        for k in range(1, harmonics + 1):
            angle = name if k * unit == 1 else f"{k * unit:.6g} {name}"
            texts += [f"sin({angle})", f"cos({angle})"]

    def function(points, time):
        angles = points[:, :, None] * unit * torch.arange(1, harmonics + 1, device=points.device)
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)

    return Library(names, tuple(texts), function)


def hill(
    variables: str | Sequence[str], *, power: float = 1, constant: float = 1.0, repress: bool = False, among: str = ""
) -> Library:
    """Saturation x^n / (K^n + x^n), or repression K^n / (K^n + x^n), of every coordinate.

    Hill functions; n = 1 is the law of Michaelis and Menten.

    Args:
        variables: names of the coordinates, which shall be positive.
        power: n.
        constant: K, in units of the coordinates.
        repress: the falling form.
        among: the coordinates that get a term, such as "p b"; empty for all.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> hill("s", constant=2.0)(torch.tensor([[2.0]]))
        tensor([[0.5000]])
    """
    names = variable_names(variables)
    chosen = variable_names(among) if among else names
    if not (power > 0 and constant > 0) or not set(chosen) <= set(names):
        raise ValueError(
            f"expected a positive power and constant, and variables of {names}, got {power}, {constant}, {chosen}"
        )
    places, level = [names.index(name) for name in chosen], f"{constant**power:.6g}"
    raised = [name if power == 1 else f"{name}^{power:g}" for name in chosen]
    texts = [f"{level if repress else text}/({level} + {text})" for text in raised]

    def function(points, time):
        chosen = points[:, places].pow(power)
        rising = chosen / (constant**power + chosen)
        return 1 - rising if repress else rising

    return Library(names, tuple(texts), function)


def expressed(variables: str | Sequence[str], terms: Sequence[str] | Mapping[str, str]) -> Library:
    """Terms written as formulas, see `eqflow.fokker_planck.expressions`.

    Args:
        variables: names of the coordinates.
        terms: formulas, or names to print and their formulas.

    Example:
        >>> expressed("x y", {"gate": "1/(1 + exp(-x))"})(torch.zeros(1, 2))
        tensor([[0.5000]])
    """
    names = variable_names(variables)
    table = dict(terms) if isinstance(terms, Mapping) else {term: term for term in terms}
    if not table:
        raise ValueError("expected at least one term")
    return Library(names, tuple(table), expressions.parse(list(table.values()), names))
