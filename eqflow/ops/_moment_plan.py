"""How the kernels of field_moments split their work: few distinct products a pixel instead of every gradient.

(delta phi_j / delta x_c)(y) is a weighted sum of one or two rows, each a product of two fields of y: a monomial, and a
monomial under an operator. Many functionals share their rows: 72 of two channels have 144 gradients, but 75 rows.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.ops.field_terms import OPERATORS, Exponents, FieldTerm, Functionals

_ORDER = {"value": 0, "laplacian": 2, "bilaplacian": 4, "squared-gradient": 2, "x-derivative": 1, "y-derivative": 1}


class Product(NamedTuple):
    """factor(x) O[m](x)."""

    factor: Exponents
    monomial: Exponents
    operator: str

    @property
    def powers(self) -> Exponents:
        """How the product grows with each channel."""
        times = 2 if self.operator == "squared-gradient" else 1
        return tuple(a + times * b for a, b in zip(self.factor, self.monomial, strict=True))


class Side(NamedTuple):
    """The recipe of the products on one side of the moments: see FieldProgram in csrc/kernels.h."""

    monomials: Tensor  # int32 [monomials, 2]: the monomial to multiply and the channel; the first is 1
    fields: Tensor  # int32 [fields, 2]: monomial, operator
    products: Tensor  # int32 [products, 2]: two fields; -1: no second one
    powers: Tensor  # float64 [products, channels]: of each channel
    order: Tensor  # float64 [products]: of its derivatives


class Plan(NamedTuple):
    """Rows are fields of `at`, columns of `state`; a moment is the weighted sum of two entries of a column."""

    rows: Side
    columns: Side
    entries: Tensor  # int64 [2, functionals * channels]: which rows
    weights: Tensor  # float64 [2, functionals * channels, 1]


def _side(products: list[Product]) -> Side:
    channels = len(products[0].factor)
    one = (0,) * channels
    monomials: dict[Exponents, int] = {one: 0}
    chain, fields = [(-1, 0)], {}

    def monomial(exponents: Exponents) -> int:
        if exponents not in monomials:
            channel = next(c for c, power in enumerate(exponents) if power)
            lower = monomial(tuple(power - (c == channel) for c, power in enumerate(exponents)))
            chain.append((lower, channel))
            monomials[exponents] = len(chain) - 1
        return monomials[exponents]

    def field(exponents: Exponents, operator: str) -> int:
        return fields.setdefault((monomial(exponents), OPERATORS.index(operator)), len(fields))

    pairs = [(field(p.monomial, p.operator), field(p.factor, "value") if any(p.factor) else -1) for p in products]
    return Side(
        torch.tensor(chain, dtype=torch.int32),
        torch.tensor(list(fields), dtype=torch.int32),
        torch.tensor(pairs, dtype=torch.int32),
        torch.tensor([p.powers for p in products], dtype=torch.float64),
        torch.tensor([_ORDER[p.operator] for p in products], dtype=torch.float64),
    )


def _gradient(functional: object, channel: int, pair: bool) -> list[tuple[int, Product]]:
    """delta phi / delta x_c as weighted products."""

    def lowered(exponents: Exponents) -> Exponents:
        return tuple(power - (c == channel) for c, power in enumerate(exponents))

    if not pair:
        one = (0,) * len(functional)
        return [(functional[channel], Product(one, lowered(functional), "value"))] if functional[channel] else []
    g, h = functional
    both = [(a[channel], Product(lowered(a), b, "laplacian")) for a, b in ((g, h), (h, g)) if a[channel]]
    return [(2 * both[0][0], both[0][1])] if g == h and both else both


@functools.lru_cache(maxsize=64)
def make(functionals: Functionals, terms: tuple[FieldTerm, ...]) -> Plan:
    """The plan of these functionals and terms, on the CPU."""
    one = (0,) * functionals.channels
    columns = [Product(term.factor or one, term.exponents, term.operator) for term in terms]
    rows: dict[Product, int] = {}
    entries, weights = [], []
    every = [(m, False) for m in functionals.monomials] + [(pair, True) for pair in functionals.pairs]
    for functional, pair in every:
        for channel in range(functionals.channels):
            parts = _gradient(functional, channel, pair)
            parts = [(weight, rows.setdefault(product, len(rows))) for weight, product in parts]
            parts += [(0, 0)] * (2 - len(parts))
            entries.append([row for _, row in parts])
            weights.append([weight for weight, _ in parts])
    return Plan(
        _side(list(rows)),
        _side(columns),
        torch.tensor(entries).T.contiguous(),
        torch.tensor(weights, dtype=torch.float64).T.contiguous()[..., None],
    )


@functools.lru_cache(maxsize=64)
def on_device(functionals: Functionals, terms: tuple[FieldTerm, ...], device: torch.device) -> Plan:
    """The plan in the memory of a device."""
    rows, columns, entries, weights = make(functionals, terms)
    sides = (Side(*(tensor.to(device) for tensor in side)) for side in (rows, columns))
    return Plan(*sides, entries.to(device), weights.to(device))
