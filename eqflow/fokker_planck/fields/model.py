"""Equations of fields: which terms may stand in which of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from eqflow.fokker_planck.fields.grid import Grid
from eqflow.fokker_planck.fields.terms import FieldLibrary
from eqflow.fokker_planck.layout import Layout


@dataclass(frozen=True, eq=False)
class FieldModel:
    """du/dt = sum of theta_k b_k + sqrt(2 D) dW/dt for every channel u, the noise white in space and time.

    Args:
        library: the terms, of all equations.
        entries: (channel, term) of every unknown coefficient.
        noise: D of each channel where it is known, in units of the field^2 / time in every cell; None where it is not.
    """

    library: FieldLibrary
    entries: tuple[tuple[int, int], ...]
    noise: tuple[float | None, ...]

    @property
    def variables(self) -> tuple[str, ...]:
        return self.library.variables

    @property
    def left(self) -> tuple[str, ...]:
        """The left sides."""
        return tuple(f"d{variable}/dt" for variable in self.variables)

    @property
    def noisy(self) -> tuple[int, ...]:
        """The channels whose noise is unknown."""
        return tuple(channel for channel, strength in enumerate(self.noise) if strength is None)

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Of the unknowns: the coefficients, then the noise."""
        drift = tuple(f"{self.library.names[term]} in {self.left[channel]}" for channel, term in self.entries)
        return drift + tuple(f"noise of {self.variables[channel]}" for channel in self.noisy)

    @functools.cached_property
    def layout(self) -> Layout:
        """How the equations are written."""
        inline = {
            name: (self.left[channel], self.library.names[term])
            for name, (channel, term) in zip(self.names, self.entries, strict=False)
        }
        return Layout(self.left, {}, inline, {name: {} for name in self.names[len(inline) :]}, "pictures")

    def drift(
        self,
        state: Tensor,  # [batch, channels, height, width]
        coefficients: Tensor,  # [unknowns]
        grid: Grid,
    ) -> Tensor:
        """The sum of the terms, [batch, channels, height, width]."""
        matrix = torch.zeros(len(self.variables), len(self.library), dtype=torch.float64)
        for (channel, term), value in zip(self.entries, coefficients.tolist(), strict=False):
            matrix[channel, term] = value
        used = matrix.any(0).nonzero()[:, 0].tolist()
        if not used:
            return torch.zeros_like(state)
        terms = self.library.only([self.library.names[place] for place in used])(state, grid)
        return torch.einsum("ck,bkhw->bchw", matrix[:, used].to(terms), terms)


def field_model(
    library: FieldLibrary | Mapping[str, FieldLibrary],
    *,
    noise: float | Sequence[float | None] | None = 0.0,
) -> FieldModel:
    """The model with an unknown coefficient before every term.

    Args:
        library: for every equation, or {channel: its own}.
        noise: D of the white noise sqrt(2 D) dW that acts in every cell, one for all channels or one for each; None for
            an unknown one.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> from eqflow.fokker_planck.fields import laplacian, polynomial
        >>> field_model({"u": polynomial("u", 1) + laplacian("u")}, noise=None).names
        ('1 in du/dt', 'u in du/dt', 'Δu in du/dt', 'noise of u')
    """
    rows = dict.fromkeys(library.variables, library) if isinstance(library, FieldLibrary) else dict(library)
    if not rows:
        raise ValueError("expected a library, or one for at least one channel, got none")
    variables = next(iter(rows.values())).variables
    wrong = [row for row in rows if row not in variables]
    if wrong or any(part.variables != variables for part in rows.values()):
        raise ValueError(f"expected libraries of {', '.join(variables)} for these channels, got {', '.join(rows)}")
    terms = {name: term for part in rows.values() for name, term in zip(part.names, part.terms, strict=True)}
    whole = FieldLibrary(variables, tuple(terms), tuple(terms.values()))
    entries = [(variables.index(row), whole.names.index(name)) for row, part in rows.items() for name in part.names]
    strengths = tuple(noise) if isinstance(noise, Sequence) else (noise,) * len(variables)
    good = all(strength is None or 0 <= strength < math.inf for strength in strengths)
    if len(strengths) != len(variables) or not good:
        raise ValueError(f"expected a noise from 0 up, or None, for each of {', '.join(variables)}, got {noise}")
    return FieldModel(whole, tuple(sorted(entries)), strengths)
