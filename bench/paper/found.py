"""An equation found in still pictures beside the true one."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.paper.files import digest
from bench.paper.study import Study
from eqflow.fokker_planck import fields
from eqflow.fokker_planck.fields import Discovery
from eqflow.systems import gray_scott, patterns

BLOCK = 1024  # pictures made at a time, and of a data set
Truth = dict[str, float]
COLUMNS = ["terms exact", "largest error", "in standard errors", "J / dof", "p", "rivals"]


class Found(NamedTuple):
    """A fit beside the truth."""

    missed: tuple[str, ...]  # true terms that were left out
    false: tuple[str, ...]  # terms that are not in the equation
    relative: dict[str, float]  # error of each true coefficient, relative to it; -1 where it was left out
    scores: dict[str, float]  # error of each coefficient that was estimated rightly, in standard errors
    discovery: Discovery | None  # None: refused

    @property
    def exact(self) -> bool:
        """Whether the terms are the true ones."""
        return self.discovery is not None and not self.missed and not self.false

    @property
    def error(self) -> float:
        """The largest relative error of a coefficient."""
        return max((abs(value) for value in self.relative.values()), default=float("nan"))

    @property
    def words(self) -> list[str]:
        if self.discovery is None:
            return ["refused", "–", "–", "–", "–", "–"]
        (fit,) = self.discovery.fits
        terms = "yes" if self.exact else f"{len(self.missed)} missed, {len(self.false)} false"
        worst = max(map(abs, self.scores.values()), default=float("nan"))
        rivals = len(self.discovery.selection.rivals) if self.discovery.selection else 0
        j = f"{fit.j_statistic:.0f} / {fit.degrees_of_freedom}"
        return [terms, f"{100 * self.error:.3g} %", f"{worst:.1f}", j, f"{fit.p_value:.2g}", str(rivals)]


def _block(study: Study, name: str, number: int, size: int, steps: int, samples: int) -> Tensor:
    def make() -> dict[str, Tensor]:
        places = torch.arange(number * samples, (number + 1) * samples)
        start = gray_scott.initial_state("discs", places, size, size, seed=0)
        system = gray_scott.preset(name).parameters
        return {"states": torch.cat([system.run(part, steps) for part in start.split(16)])}

    key = digest(name, number, size, steps, samples)
    return study.cache.get(f"pictures-{name}-{size}-{number}", key, make)["states"]


def final_states(study: Study, name: str, first: int, count: int, *, size: int = 128, block: int = BLOCK) -> Tensor:
    """Living final states of the protocol, some of one endless row of them: [about count, 2, size, size].

    They are made and kept in blocks, which `first` and `count` have to match.
    """
    size, steps, samples = (32, 500, 64) if study.quick else (size, 10_000, block)
    blocks = range(first // block, -(-(first + count) // block))
    states = torch.cat([_block(study, name, number, size, steps, samples) for number in blocks])[
        : min(count, samples * len(blocks))
    ]
    return states[~gray_scott.is_dead(states)]


def true_gray_scott(name: str) -> Truth:
    """The coefficients by name."""
    system = gray_scott.preset(name).parameters
    first = {"1": system.feed, "u": -system.feed, "u v^2": -1.0, "Δu": system.diffusion_u}
    second = {"v": -(system.feed + system.kill), "u v^2": 1.0, "Δv": system.diffusion_v}
    return {f"{t} in du/dt": x for t, x in first.items()} | {f"{t} in dv/dt": x for t, x in second.items()}


def true_pattern(system: patterns.Pattern, library: fields.FieldLibrary) -> Truth:
    """The coefficients of a system by the names of a library."""
    names = {(term.operator, term.exponents): name for name, term in zip(library.names, library.terms, strict=True)}
    rows = zip(system.channels, system.equations(), strict=True)
    return {f"{names[tuple(term)]} in d{row}/dt": x for row, terms in rows for term, x in terms.items()}


def library_of(channels: tuple[str, ...]) -> fields.FieldLibrary:
    """The candidates: 12 for each equation of two channels, 6 of one."""
    library = fields.polynomial(channels, 3) + fields.laplacian(channels)
    return library if len(channels) > 1 else library + fields.bilaplacian(channels)


def look(
    pictures: Tensor, truth: Truth, *, noise: float = 0.0, channels: tuple[str, ...] = ("u", "v"), **options: Any
) -> Found:
    """Discover, and compare up to the unit of time."""
    try:
        found = fields.discover(pictures, fields.field_model(library_of(channels), noise=noise), **options)
    except ValueError:
        return Found((), (), {}, {}, None)
    if len(found.fits) != 1:
        return Found((), (), {}, {}, None)
    (fit,), unit = found.fits, found.identifiable.unit
    scale = next((value / truth[name] for name, value in unit.items() if name in truth), 1.0)
    kept = set(fit.names) | set(unit)
    errors = dict(zip(fit.names, (fit.standard_errors / abs(scale)).tolist(), strict=True))
    gaps = {name: fit.value(name) / scale - value for name, value in truth.items() if name not in unit}
    return Found(
        tuple(sorted(set(truth) - kept)),
        tuple(sorted(kept - set(truth))),
        {name: gap / truth[name] for name, gap in gaps.items()},
        {name: gap / errors[name] for name, gap in gaps.items() if name in errors},
        found,
    )
