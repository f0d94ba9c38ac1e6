"""Averages over a picture and their derivatives: the test functions of fields."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from eqflow.fokker_planck.fields.grid import Grid
from eqflow.fokker_planck.monomials import evaluate
from eqflow.ops import Functionals
from eqflow.ops.field_terms import Exponents

_EACH = 3  # functionals for each unknown: with fewer the conditions are nearly dependent


def enough(channels: int, unknowns: int) -> Functionals:
    """The means of monomials and of products g Δh, of the least even degree that gives three for each unknown.

    Example:
        >>> enough(2, 24).count
        72
    """
    degree = 4
    while (found := Functionals.up_to(channels, degree, degree // 2)).count < _EACH * unknowns:
        degree += 2
    return found


def _derivative(powers: Exponents, channel: int) -> tuple[int, Exponents]:
    """Factor and exponents; the factor is 0 where the channel does not occur."""
    lower = tuple(power - (place == channel) for place, power in enumerate(powers))
    return (powers[channel], lower) if powers[channel] else (0, powers)


def gradients(
    state: Tensor,  # [batch, channels, height, width]
    functionals: Functionals,
    grid: Grid,
) -> Tensor:
    """δφ/δx of every functional, times the number of cells: [batch, functionals, channels, height, width].

    ∂g for the mean of g, and ∂g Δh + ∂h Δg for the mean of g Δh.
    """
    fields = state.unbind(1)

    def derivatives(powers: Exponents) -> Tensor:
        parts = [_derivative(powers, channel) for channel in range(len(fields))]
        values = evaluate(fields, [lower for _, lower in parts])
        return torch.stack([factor * value for (factor, _), value in zip(parts, values, strict=True)], 1)

    factors = sorted({powers for pair in functionals.pairs for powers in pair})
    slopes = {powers: derivatives(powers) for powers in {*factors, *functionals.monomials}}
    curved = {
        powers: grid.laplacian(value)[:, None] for powers, value in zip(factors, evaluate(fields, factors), strict=True)
    }
    rows = [slopes[powers] for powers in functionals.monomials]
    rows += [slopes[g] * curved[h] + slopes[h] * curved[g] for g, h in functionals.pairs]
    return torch.stack(rows, 1)


def noise_moments(
    state: Tensor,  # [batch, channels, height, width]
    functionals: Functionals,
    grid: Grid,
) -> Tensor:
    """What white noise sqrt(2 D) dW in every cell adds to the rate of φ at D = 1: [batch, functionals, channels].

    The sum over cells of δ²φ/δx²: the mean of g'' for the mean of g, and of g'' Δh + h'' Δg + 2 Δ_0 g' h' for that of
    g Δh, with Δ_0 the weight of the cell itself in its Laplacian.
    """
    fields, channels = state.unbind(1), state.shape[1]
    needed = {(0,) * channels}
    for powers in {*functionals.monomials, *itertools.chain.from_iterable(functionals.pairs)}:
        for channel in range(channels):
            _, once = _derivative(powers, channel)
            needed |= {powers, once, _derivative(once, channel)[1]}
    order = {powers: place for place, powers in enumerate(sorted(needed))}
    values = torch.stack(evaluate(fields, order), 1)
    inner = grid.inside(values, 1)
    cells = inner[0, 0].numel()
    flat = inner.flatten(2)
    mean = flat.mean(2)
    product = flat @ flat.mT / cells
    curved = flat @ grid.inside(grid.laplacian(values), 1).flatten(2).mT / cells

    def second(powers: Exponents, channel: int) -> tuple[int, int]:
        first, once = _derivative(powers, channel)
        factor, twice = _derivative(once, channel)
        return first * factor, order[twice]

    def of_pair(g: Exponents, h: Exponents, channel: int) -> Tensor:
        (factor_g, g2), (factor_h, h2) = second(g, channel), second(h, channel)
        (slope_g, g1), (slope_h, h1) = _derivative(g, channel), _derivative(h, channel)
        return (
            factor_g * curved[:, g2, order[h]]
            + factor_h * curved[:, h2, order[g]]
            + 2 * grid.laplacian_centre * slope_g * slope_h * product[:, order[g1], order[h1]]
        )

    columns = []
    for channel in range(channels):
        seconds = (second(powers, channel) for powers in functionals.monomials)
        rows = [factor * mean[:, place] for factor, place in seconds]
        columns.append(torch.stack([*rows, *(of_pair(g, h, channel) for g, h in functionals.pairs)], 1))
    return torch.stack(columns, 2)
