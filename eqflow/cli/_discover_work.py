"""What `eqflow discover` computes, and its words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eqflow.cli import _progress, _steps
from eqflow.cli._shell import choice, usage
from eqflow.cli._words import count

_FLAW = 3.0  # J per degree of freedom: below, a misfit beyond chance is small change


class Request(NamedTuple):
    """The options."""

    library: str
    equations: tuple[str, ...]
    unit: str | None
    noise: str | None
    step: str | None
    stencil: str | None
    spacing: float | None
    crop: bool
    functionals: str | None
    threshold: float


class Data(NamedTuple):
    """Living pictures, and what is known of them."""

    stills: Any  # eqflow.data.Stills
    left_out: int


class Answer(NamedTuple):
    """What is printed and written, and what a simulation needs."""

    lines: list[str]
    facts: dict
    contradicted: bool
    found: Any  # Discovery
    grid: Any  # Grid
    dt: float | None


def read(paths: Sequence[Path], samples: int | None, names: str | None) -> Data:
    """The pictures that have a pattern."""
    from eqflow.data import read_pictures
    from eqflow.fokker_planck.fields import living
    from eqflow.fokker_planck.library import variable_names

    stills = read_pictures(paths)
    stills = stills._replace(values=stills.values[:samples])
    if names is not None:
        stills = stills._replace(names=tuple(names.split(",")))
        if len(stills.names) != stills.values.shape[1]:
            raise usage(f"expected --names of {stills.values.shape[1]} channels, got {names!r}")
    variable_names(stills.names)
    if len(stills.values) < 2:
        raise ValueError("expected many pictures, got one: a single picture says nothing about what an ensemble keeps")
    alive = living(stills.values)
    if not alive.any():
        raise ValueError(
            "expected pictures with a pattern in every channel, got constant ones only: every equation may keep these"
        )
    return Data(stills._replace(values=stills.values[alive]), int((~alive).sum()))


def _counted(text: str, option: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise usage(f"expected {option} with a whole number from 1 up, got {text!r}")
    return int(text)


def _library(text: str, variables: tuple[str, ...]) -> Any:
    """A library from `polynomial:3+laplacian+u*u_x`."""
    from eqflow.fokker_planck import fields

    makers = {
        "polynomial": fields.polynomial,
        "laplacian": fields.laplacian,
        "bilaplacian": fields.bilaplacian,
        "squared-gradient": fields.squared_gradient,
        "advection": fields.advection,
    }
    total = None
    for part in text.split("+"):
        kind, colon, degree = part.strip().partition(":")
        if kind in makers:
            if kind == "polynomial" and not colon:
                raise usage(f"expected --library polynomial:DEGREE, got {part.strip()!r}: write polynomial:3")
            made = makers[kind](variables, _counted(degree, f"--library {kind}") if colon else 1)
        elif kind.isidentifier() and kind not in variables and not re.search("_[xy]$|^lap_", kind):
            choice("--library", kind, makers)
        else:
            made = fields.expressed(variables, [part.strip()])
        total = made if total is None else total + made
    return total


def _known_terms(variables: tuple[str, ...]) -> Any:
    """All the terms that have a name of their own."""
    from eqflow.fokker_planck import fields

    library = fields.polynomial(variables, 6) + fields.laplacian(variables, 3) + fields.bilaplacian(variables, 3)
    return library + fields.squared_gradient(variables) + fields.advection(variables, 2)


def _plain(term: str) -> str:
    """A term as the libraries print it: `lap u`, `lap(u^2)` and `u*v**2` in their words."""
    term = term.strip().replace("**", "^").replace("*", " ")
    term = re.sub(r"\b(?:lap2|bilap|bilaplacian)\s*", "Δ²", term)
    term = re.sub(r"\b(?:lap|laplacian)\b\s*", "Δ", term)
    return re.sub(r"^(Δ²?)\((\w+)\)$", r"\1\2", " ".join(term.split()))


def _row(text: str, option: str, variables: tuple[str, ...]) -> tuple[str, str]:
    """The channel and the rest of `u: ...` or `du/dt: ...`."""
    row, colon, rest = text.partition(":")
    row = row.strip().removeprefix("d").removesuffix("/dt") if row.strip() not in variables else row.strip()
    if not colon or not rest.strip() or row not in variables:
        raise usage(f"expected {option} as CHANNEL: TERMS with a channel of {', '.join(variables)}, got {text!r}")
    return row, rest


def _rows(request: Request, variables: tuple[str, ...]) -> Any:
    """The libraries by channel."""
    from eqflow.fokker_planck import fields

    whole = _library(request.library, variables)
    if not request.equations:
        return whole
    known, rows = _known_terms(variables), {}
    for text in request.equations:
        row, terms = _row(text, "--equation", variables)
        total = None
        for term in terms.split(","):
            named = _plain(term) in known.names
            made = known.only([_plain(term)]) if named else fields.expressed(variables, [term.strip()])
            total = made if total is None else total + made
        if row in rows:
            raise usage(f"expected one --equation of {row}, got two")
        rows[row] = total
    return rows


def _unit(text: str | None, variables: tuple[str, ...]) -> dict[str, float] | None:
    if text is None:
        return None
    row, rest = _row(text, "--unit", variables)
    term, _, value = rest.rpartition("=")
    try:
        return {f"{_plain(term)} in d{row}/dt": float(value)}
    except ValueError:
        raise usage(f"expected --unit as CHANNEL: TERM = NUMBER, got {text!r}: write 'u: u v^2 = -1'") from None


def _noise(text: str | None, channels: int) -> Any:
    if text is None:
        return 0.0
    try:
        parts = [None if word.strip() == "unknown" else float(word) for word in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) not in (1, channels) or not all(part is None or 0 <= part < float("inf") for part in parts):
        raise usage(f"expected --noise as a number from 0 up or unknown, or {channels} with commas, got {text!r}")
    return parts * channels if len(parts) == 1 else parts


def _functionals(text: str | None, channels: int) -> Any:
    """Those of N or N:M; None: as many as the terms need."""
    from eqflow.ops import Functionals

    if text is None:
        return None
    degrees = text.split(":")
    if len(degrees) > 2:
        raise usage(f"expected --functionals as N or N:M, got {text!r}")
    degree, *pairs = (_counted(word, "--functionals") for word in degrees)
    return Functionals.up_to(channels, degree, pairs[0] if pairs else degree // 2)


def _step(text: str | None, known: float | None) -> float | None:
    """dt, or None for continuous time."""
    if text is None:
        return known
    kind, _, size = text.partition(":")
    choice("--step", kind, ("continuous", "euler"))
    if kind == "continuous":
        if size:
            raise usage(f"expected --step continuous, got {text!r}: only euler has a size")
        return None
    try:
        dt = float(size) if size else known or 1.0
    except ValueError:
        dt = -1.0
    if not 0 < dt < float("inf"):
        raise usage(f"expected --step euler:DT with a positive step, got {text!r}")
    return dt


class _Meter(_steps.Meter):
    """Pictures of all passes."""

    def words(self) -> str:
        return f"{_steps.rate(self.rate)} pictures/s" if self.rate else "starting"


def answer(data: Data, request: Request) -> Answer:
    """Fit, and say what was found."""
    from eqflow.fokker_planck.fields import Grid, discover, field_model

    stills = data.stills
    variables, pictures = stills.names, stills.values
    stencil = choice("--stencil", request.stencil or stills.stencil or "5-point", ("5-point", "9-point"))
    spacing = next(length for length in (request.spacing, stills.spacing, 1.0) if length is not None)
    grid = Grid(stencil, spacing, periodic=not request.crop)
    model = field_model(_rows(request, variables), noise=_noise(request.noise, len(variables)))
    functionals = _functionals(request.functionals, len(variables))
    dt, passes = _step(request.step, stills.dt), 4
    meter = _Meter(1)
    total = len(pictures) * (passes if dt is not None else 1)
    with _progress.display(meter, "discover", total, 0):
        found = discover(
            pictures,
            model,
            functionals,
            grid=grid,
            dt=dt,
            unit=_unit(request.unit, variables),
            threshold=request.threshold,
            passes=passes,
            on_progress=lambda number, done: meter.observe(_steps.Progress(number * len(pictures) + done, total)),
        )
    lines = [f"note: {note}" for note in stills.notes] + [_size(data), *str(found).splitlines()]
    ratios = [fit.j_statistic / max(fit.degrees_of_freedom, 1) for fit in found.fits]
    contradicted = not found.identifiable.still and any(
        fit.p_value < 1e-4 and ratio > _FLAW for fit, ratio in zip(found.fits, ratios, strict=True)
    )
    if contradicted:
        lines.append(_advice(dt))
    facts = {"pictures": len(pictures), "left_out": data.left_out, "channels": list(variables), **found.as_dict()}
    facts |= {"stencil": grid.stencil, "spacing": grid.spacing, "dt": dt}
    return Answer(lines, facts, contradicted, found, grid, dt)


def _advice(dt: float | None) -> str:
    scheme = "" if dt is not None else "; if an explicit scheme made the pictures, say so with --step euler"
    return (
        "the coefficients are not to be trusted: a term may be missing (a larger --library), the stencil be another, "
        f"or the pictures be noisy, cropped (--crop) or not yet stationary{scheme}"
    )


def _size(data: Data) -> str:
    values = data.stills.values
    said = f"{count(len(values))} pictures of {', '.join(data.stills.names)}, {values.shape[2]} x {values.shape[3]}"
    return said + (f"; {count(data.left_out)} without a pattern left out" if data.left_out else "")
