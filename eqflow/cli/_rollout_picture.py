"""What a rollout looked like: points as a density with trajectories, fields as a sheet, both as films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy

from eqflow.cli import _colour, _films, _pictures, _portraits
from eqflow.cli._words import count
from eqflow.cli.show import GIF_WIDTH, TILES

_TRAJECTORIES, _SEGMENTS, _LONG, _BINS = 4, 80, 600, 160


def draw(out: Path, frames: Path, source: Any, every: int, dt: float) -> None:
    """Write the picture or film of a finished file of frames."""
    from eqflow.data.frames import read_frames

    states = read_frames(frames).numpy()  # [samples, frames, ...]
    film = out.suffix.lower() in _films.FILMS
    if source.names == _colour.NAMES and states.ndim == 5:
        _coloured(out, states[0], source, film)
        return
    if states.ndim == 3 and not film:
        (_portrait if source.names and states.shape[2] > 2 else _points)(out, states, source, every * dt)
        return
    if states.ndim == 3:
        fields, limits = _densities(states), None
    else:
        shown = states[: 1 if film else TILES, :, min(1, states.shape[2] - 1)]  # v of Gray-Scott
        fields, limits = shown.swapaxes(0, 1), _pictures.limits(shown)
    number = states.shape[1] - 1
    words = _pictures.Words(
        title=source.name,
        details=[f"{count(len(states))} samples", f"dt {dt:g}"],
        field="density" if states.ndim == 3 else "v",
        limits=limits or (0.0, float(fields.max())),
        stamp=f"step {count(number * every)}",
    )
    pixels = _pictures.WIDTH if not film else GIF_WIDTH
    sheet = _pictures.Sheet(fields.shape[1], *fields.shape[2:], words, None, pixels)
    palette = _pictures.palette("magma")
    if film:
        drawings = (sheet.draw(tiles, f"step {count(at * every)}") for at, tiles in enumerate(fields))
        _films.save_film(out, drawings, palette, 25.0)
    else:
        stamp = f"step {count(number * every)}"
        _films.save_still(out, sheet.draw(fields[-1], stamp), palette, f"{source.name} {stamp}")


def _coloured(out: Path, frames: numpy.ndarray, source: Any, film: bool) -> None:
    """The first sample in its colours, [frames, 3, height, width] in [0, 1]."""
    pictures = (_colour.image(2 * frame - 1) for frame in (frames if film else frames[-1:]))
    shown = (_colour.enlarged(picture, _colour.zoom(*picture.shape[:2])) for picture in pictures)
    if film:
        _colour.save_film(out, shown, 25.0)
    else:
        _colour.save_still(out, next(shown), source.name)


def _plane(states: numpy.ndarray, step: float) -> tuple[numpy.ndarray, tuple[str, str]]:
    """Two coordinates to draw, [samples, frames, 2]: the first two, or time and the only one."""
    if states.shape[2] > 1:
        return states[..., :2], ("x₁", "x₂")
    time = numpy.broadcast_to(numpy.arange(states.shape[1]) * step, states.shape[:2])
    return numpy.stack([time, states[..., 0]], -1), ("time", "x")


def _densities(states: numpy.ndarray) -> numpy.ndarray:
    """[frames, 1, bins, bins]: where the samples are, the same window for all, smoothed by a pixel or two."""
    plane, _ = _plane(states, 1.0)
    if states.shape[2] == 1:  # a film has its own time: spread the line over the height
        plane = numpy.stack([states[..., 0], numpy.random.default_rng(0).uniform(size=states.shape[:2])], -1)
    low, high = plane.min((0, 1)), plane.max((0, 1))
    side = max(float((high - low).max()), 1e-6) * 0.525
    edges = [numpy.linspace(middle - side, middle + side, _BINS + 1) for middle in (low + high) / 2]
    blur = numpy.array([1, 4, 6, 4, 1]) / 16
    fields = []
    for points in plane.swapaxes(0, 1):
        counts, *_ = numpy.histogram2d(points[:, 1], points[:, 0], bins=(edges[1], edges[0]))
        for axis in (0, 1):
            counts = numpy.apply_along_axis(numpy.convolve, axis, counts, blur, mode="same")
        fields.append(numpy.sqrt(counts[::-1]))
    return numpy.stack(fields)[:, None].astype("float32")


def _points(out: Path, states: numpy.ndarray, source: Any, step: float) -> None:
    from matplotlib.figure import Figure

    plane, labels = _plane(states, step)
    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    axes = figure.add_subplot()
    every = plane.reshape(-1, 2)
    few = len(every) < 20_000
    if few:
        axes.plot(*every.T, ".", color="0.78", markersize=3, markeredgewidth=0, rasterized=True)
    else:
        axes.hexbin(*every.T, gridsize=70, cmap="Greys", bins="log", mincnt=1, linewidths=0, alpha=0.55)
    for path, colour in zip(plane[:_TRAJECTORIES, -_SEGMENTS - 1 :], _portraits.COLOURS, strict=False):
        axes.plot(*path.T, "-", color=colour, linewidth=1.4, alpha=0.9)
        axes.plot(*path[0], "o", color="white", markeredgecolor=colour, markersize=6)
        axes.plot(*path[-1], "o", color=colour, markersize=6)
    if states.shape[2] > 1:
        axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(_words(states, source, step, _SEGMENTS), fontsize=10, loc="left")
    _portraits.label(axes, *(source.names[:2] if source.names and states.shape[2] > 1 else labels))
    with _films._whole(out) as part:
        figure.savefig(part, dpi=150)


def _portrait(out: Path, states: numpy.ndarray, source: Any, step: float) -> None:
    """Named coordinates, three or more: all the planes, and longer paths."""
    sheet = _portraits.figure(states.shape[2])
    sheet.suptitle(_words(states, source, step, _LONG), fontsize=10, x=0.01, ha="left")
    _portraits.draw(sheet, source.names, states.reshape(-1, states.shape[2]), states[:_TRAJECTORIES, -_LONG - 1 :])
    with _films._whole(out) as part:
        sheet.savefig(part, dpi=140)


def _words(states: numpy.ndarray, source: Any, step: float, segments: int) -> str:
    samples, frames = states.shape[:2]
    return (
        f"{source.name}: {count(samples)} samples, {count(frames)} frames over time {step * (frames - 1):g}\n"
        f"the end of {min(_TRAJECTORIES, samples)} trajectories, {count(min(segments, frames - 1))} frames from open "
        "to filled circle"
    )
