"""`eqflow discover --simulate`: the found equation run from the pictures, beside the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from eqflow.cli import _films, _pictures, _progress, _steps
from eqflow.cli._words import count

_MOST = 16  # pictures that are followed
_ALIKE = 3.0  # standard errors
_SHOWN, _FRAMES, _PIXELS, _RATE = 6, 100, 400, 25.0  # of the film: pictures, most frames, its width, frames a second
_STABLE = 0.25  # of the largest stable step, where the pictures come from no map


class Simulated(NamedTuple):
    """Where the pictures went, and how alike they stayed."""

    lines: list[str]
    facts: dict
    states: Any  # Tensor [pictures, channels, height, width], or None where they left all bounds
    time: float
    frames: list[Any]  # of the film, Tensor [pictures, height, width] of the last channel
    every: int  # steps between them


class _Meter(_steps.Meter):
    def words(self) -> str:
        return f"{_steps.rate(self.rate)} steps/s" if self.rate else "starting"


def stable_step(found: Any, grid: Any, largest: float) -> float:
    """A step that an explicit scheme can take: a share of 2 over a bound of the rate of the fastest mode."""
    stiffness = -2 * grid.laplacian_centre
    rates = [1e-12] * len(found.model.variables)
    for (channel, place), value in zip(found.model.entries, found.coefficients.tolist(), strict=False):
        term = found.model.library.terms[place]
        # A formula may hold a Laplacian.
        operator, degree = getattr(term, "operator", "laplacian"), sum(getattr(term, "exponents", (1,)))
        order = {"laplacian": 1, "bilaplacian": 2}.get(operator, 0)
        rates[channel] += abs(value) * degree * max(largest, 1.0) ** max(degree - 1, 0) * stiffness**order
    return _STABLE * 2 / max(rates)


def run(data: Any, answer: Any, steps: int, seed: int) -> Simulated:
    """Follow some of the pictures for so many steps of the equation."""
    import torch

    from eqflow import ops
    from eqflow.metrics import radial_spectrum

    if not answer.found.fits or answer.found.identifiable.still:
        raise ValueError("expected an equation to simulate, but these pictures determine none: leave --simulate out")
    pictures, found = data.stills.values, answer.found
    dt = answer.dt or stable_step(found, answer.grid, float(pictures.abs().max()))
    strengths = [strength or 0.0 for strength in found.model.noise]
    for channel, value in zip(found.model.noisy, found.coefficients[len(found.model.entries) :].tolist(), strict=True):
        strengths[channel] = max(value, 0.0)
    spread = (2 * dt * torch.tensor(strengths, dtype=pictures.dtype)).sqrt()[:, None, None]
    state = pictures[:_MOST].clone()
    meter, every = _Meter(len(state)), -(-steps // _FRAMES)
    frames = [state[:_SHOWN, -1].clone()]  # a view would keep every whole state
    with _progress.display(meter, "simulate", steps, 0):
        for step in range(steps):
            state = state + dt * found.drift(state, answer.grid)
            if spread.any():
                state = state + spread * ops.normal(len(state), state[0].numel(), seed=seed, step=step).view_as(state)
            meter.observe(_steps.Progress(step + 1, steps))
            if (step + 1) % every == 0 and state[:_SHOWN].isfinite().all():
                frames.append(state[:_SHOWN, -1].clone())
            if (step % 100 == 99 or step + 1 == steps) and not state.isfinite().all():
                said = f"simulated: left all bounds within {count(step + 1)} steps of {dt:g}"
                return Simulated(
                    [said], {"steps": step + 1, "dt": dt, "finite": False}, None, dt * (step + 1), frames, every
                )
    lines, facts = [f"simulated: {len(state)} pictures for {count(steps)} steps of {dt:g}"], {"steps": steps, "dt": dt}
    before, after = radial_spectrum(pictures), radial_spectrum(state)
    for channel, name in enumerate(data.stills.names):
        row = {}
        for what, of in {"mean": lambda x: x.mean((1, 2)), "deviation": lambda x: x.flatten(1).std(1)}.items():
            there, here = of(pictures[:, channel].double()), of(state[:, channel].double())
            error = float((there.std() * (1 / len(there) + 1 / len(here)) ** 0.5).clamp_min(1e-12))
            row[what] = [float(there.mean()), float(here.mean()), float(here.mean() - there.mean()) / error]
        whole, left = before[:, channel].mean(0), after[:, channel].mean(0)
        row["spectrum"] = 1 - float((whole - left).abs().sum() / (whole + left).sum())
        facts[name] = row
        words = "; ".join(
            f"{what} {values[1]:.4g} for {values[0]:.4g} ({values[2]:+.1f} standard errors)"
            for what, values in row.items()
            if what != "spectrum"
        )
        lines.append(f"  {name}: {words}; spectra overlap by {row['spectrum']:.1%}")
    kept = all(abs(facts[n][w][2]) < _ALIKE for n in data.stills.names for w in ("mean", "deviation"))
    lines.append(
        f"  over a time of {dt * steps:g} means and deviations stay within {_ALIKE:g} standard errors"
        if kept
        else "  the pictures change under the equation"
    )
    return Simulated(lines, facts | {"kept": kept}, state, dt * steps, frames, every)


def save_film(out: Path, data: Any, simulated: Simulated) -> None:
    """The last channel of some pictures as the found equation moves them, a GIF or MP4."""
    fields = [frame.float().numpy() for frame in simulated.frames]
    words = _pictures.Words(
        title="found equation",
        details=["from the pictures", f"{count(len(fields[0]))} of {count(len(data.stills.values))}"],
        field=data.stills.names[-1],
        limits=_pictures.limits(fields[0]),
        stamp=f"step {count(simulated.every * (len(fields) - 1))}",
    )
    sheet = _pictures.Sheet(*fields[0].shape, words, None, _PIXELS)
    drawings = (sheet.draw(tiles, f"step {count(at * simulated.every)}") for at, tiles in enumerate(fields))
    _films.save_film(out, drawings, _pictures.palette("magma"), _RATE)
