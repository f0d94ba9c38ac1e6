"""Monomials of several variables: their values, and how they are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from eqflow.ops.field_terms import Exponents


def written(names: Sequence[str], powers: Exponents) -> str:
    """A monomial in words.

    Example:
        >>> written(("u", "v"), (1, 2)), written(("u", "v"), (0, 0))
        ('u v^2', '1')
    """
    factors = [name if power == 1 else f"{name}^{power}" for name, power in zip(names, powers, strict=True) if power]
    return " ".join(factors) or "1"


def evaluate(variables: Sequence[Tensor], monomials: Iterable[Exponents]) -> list[Tensor]:
    """Monomials of variables of one shape, one product each where those of a lower degree are among them.

    Example:
        >>> evaluate([torch.tensor(2.0), torch.tensor(3.0)], [(1, 1), (2, 1)])
        [tensor(6.), tensor(12.)]
    """
    known = {(0,) * len(variables): torch.ones_like(variables[0])}

    def value(powers: Exponents) -> Tensor:
        if powers not in known:
            last = max(place for place, power in enumerate(powers) if power)
            lower = tuple(power - (place == last) for place, power in enumerate(powers))
            known[powers] = value(lower) * variables[last]
        return known[powers]

    return [value(powers) for powers in monomials]
