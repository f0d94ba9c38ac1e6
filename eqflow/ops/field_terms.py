"""The local expressions of a field: test functionals of a picture and terms of an equation, all made of monomials."""

from __future__ import annotations

import collections
import itertools
from dataclasses import dataclass

Exponents = tuple[int, ...]  # of a monomial: one power for each channel

OPERATORS = ("value", "laplacian", "bilaplacian", "squared-gradient", "x-derivative", "y-derivative")


def checked_exponents(exponents: object, name: str) -> Exponents:
    """`exponents` as a tuple of whole numbers from 0 up."""
    try:
        numbers = tuple(exponents)
    except TypeError:
        numbers = ()
    if not numbers or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(
            f"expected {name} as a tuple of whole numbers from 0 up, one for each channel, got {exponents!r}: "
            "write (2, 1) for u^2 v"
        )
    return numbers


def _require_one_length(rows: list[Exponents], owner: str) -> None:
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise ValueError(f"expected {owner} of one number of channels, got exponents of {lengths} channels")


@dataclass(frozen=True)
class FieldTerm:
    """One term of a field equation: b(x) = factor(x) O[m](x), with monomials m and factor, and an operator O.

    The operators are m, Lap m, Lap Lap m, |grad m|^2, dm/dx (along a row) and dm/dy; derivatives of first order are
    central differences.

    Args:
        exponents: of the monomial m, one for each channel.
        operator: "value", "laplacian", "bilaplacian", "squared-gradient", "x-derivative" or "y-derivative".
        factor: exponents of the monomial in front; None: 1.

    Raises:
        ValueError: the exponents are wrong, the operator is unknown, or it makes zero of a constant.

    Example:
        >>> FieldTerm((1, 2)), FieldTerm((1, 0), "laplacian")  # u v^2, Lap u
        (FieldTerm(exponents=(1, 2), operator='value', factor=None), FieldTerm(exponents=(1, 0), ...))
    """

    exponents: Exponents
    operator: str = "value"
    factor: Exponents | None = None

    def __post_init__(self) -> None:
        exponents = checked_exponents(self.exponents, "exponents")
        factor = None if self.factor is None else checked_exponents(self.factor, "factor")
        if self.operator not in OPERATORS:
            raise ValueError(f"expected operator {', '.join(map(repr, OPERATORS))}, got {self.operator!r}")
        _require_one_length([exponents, factor or exponents], "monomials")
        if self.operator != "value" and not any(exponents):
            raise ValueError(f"the {self.operator} of a constant is zero: give a monomial with an exponent above 0")
        if factor is not None and not any(factor):
            factor = None
        if self.operator == "value" and factor is not None:  # one spelling, so that equal terms are equal
            exponents, factor = tuple(a + b for a, b in zip(exponents, factor, strict=True)), None
        object.__setattr__(self, "exponents", exponents)
        object.__setattr__(self, "factor", factor)


@dataclass(frozen=True)
class Functionals:
    """Numbers made from a whole picture: the mean of each monomial m, then the mean of g Lap h for each pair (g, h).

    Args:
        monomials: exponents of m, one tuple for each functional.
        pairs: (exponents of g, exponents of h). Lap is self-adjoint, so (g, h) and (h, g) are one functional.

    Raises:
        ValueError: exponents are wrong, a functional is constant, occurs twice, or there is none.

    Example:
        >>> Functionals(monomials=((1, 0), (0, 2)), pairs=(((1, 0), (1, 0)),)).count
        3
        >>> Functionals.up_to(channels=2, degree=6, pair_degree=3).count
        72
    """

    monomials: tuple[Exponents, ...] = ()
    pairs: tuple[tuple[Exponents, Exponents], ...] = ()

    def __post_init__(self) -> None:
        monomials = tuple(checked_exponents(m, f"monomials[{i}]") for i, m in enumerate(self.monomials))
        pairs = []
        for i, pair in enumerate(self.pairs):
            try:
                g, h = pair
            except (TypeError, ValueError):
                raise ValueError(f"expected pairs[{i}] as (exponents of g, exponents of h), got {pair!r}") from None
            pairs.append((checked_exponents(g, f"pairs[{i}][0]"), checked_exponents(h, f"pairs[{i}][1]")))
        rows = [*monomials, *itertools.chain.from_iterable(pairs)]
        if not rows:
            raise ValueError("expected at least one functional, got none: see Functionals.up_to")
        _require_one_length(rows, "functionals")
        if not all(map(any, rows)):
            raise ValueError(
                "the mean of a constant never changes and that of 1 Lap h is zero: take monomials with an exponent "
                "above 0"
            )
        every = [*monomials, *(tuple(sorted(pair)) for pair in pairs)]
        twice = [functional for functional, count in collections.Counter(every).items() if count > 1]
        if twice:
            raise ValueError(f"expected every functional once, got {twice[0]} twice: leave one out")
        object.__setattr__(self, "monomials", monomials)
        object.__setattr__(self, "pairs", tuple(pairs))

    @property
    def channels(self) -> int:
        """How many channels a picture has."""
        return len(self.monomials[0] if self.monomials else self.pairs[0][0])

    @property
    def count(self) -> int:
        """How many functionals these are."""
        return len(self.monomials) + len(self.pairs)

    @classmethod
    def up_to(cls, channels: int, degree: int, pair_degree: int = 0) -> Functionals:
        """All monomials of degree 1 to `degree`, and all pairs of monomials of degree 1 to `pair_degree`."""
        pairs = itertools.combinations_with_replacement(monomials_up_to(channels, pair_degree), 2)
        return cls(monomials_up_to(channels, degree), tuple(pairs))


def monomials_up_to(channels: int, degree: int, lowest: int = 1) -> tuple[Exponents, ...]:
    """The exponents of all monomials of degree `lowest` to `degree`, by degree.

    Example:
        >>> monomials_up_to(2, 2)
        ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    """
    factors = (itertools.combinations_with_replacement(range(channels), total) for total in range(lowest, degree + 1))
    return tuple(tuple(map(row.count, range(channels))) for row in itertools.chain.from_iterable(factors))
