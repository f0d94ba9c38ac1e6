"""What a world looked like: its film with the trails of its creatures, and pictures of the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from eqflow.cli import _colour, _films

_MOST = 160  # frames of a film
_RATE = 16.0  # frames a second
TRAIL = 24  # frames
_GREEN = (20, 150, 60)


def film(out: Path, frames: NDArray[np.uint8], tracks: Any) -> None:
    """The frames [frames, 3, height, width] with the last stretch of each track behind its creature."""
    _colour.save_film(out, _drawn(frames, tracks), _RATE)


def _drawn(frames: NDArray[np.uint8], tracks: Any) -> Iterator[Image.Image]:
    shown = np.unique(np.linspace(0, len(frames) - 1, min(_MOST, len(frames))).round().astype(int))
    for frame in shown:
        yield trails(frames[frame], tracks, range(max(0, frame - TRAIL), frame + 1))


def trails(
    frame: NDArray[np.uint8],  # [3, height, width]
    tracks: Any,
    span: range,
) -> Image.Image:
    """A frame with the tracks over a span of frames as green lines, faint where they are old."""
    factor = _colour.zoom(*frame.shape[1:])
    picture = _colour.enlarged(frame.transpose(1, 2, 0), factor).convert("RGB")
    if tracks is None or len(span) < 2:
        return picture
    veil = Image.new("RGBA", picture.size, (*_GREEN, 0))
    pen = ImageDraw.Draw(veil)
    when, track = tracks.frame.numpy(), tracks.track.numpy()
    place, path = tracks.position.numpy(), tracks.path.numpy()
    here = (when[1:] > span.start) & (when[1:] < span.stop) & (track[1:] == track[:-1])
    height, width = frame.shape[1:]
    for row in np.nonzero(here)[0] + 1:
        age = (span.stop - 1 - when[row]) / len(span)
        step = path[row] - path[row - 1]
        for end in (place[row], place[row - 1] + step):  # twice where it crosses a border, which cuts each
            points = [((spot[1] + 0.5) * factor, (spot[0] + 0.5) * factor) for spot in (end - step, end)]
            pen.line(points, (*_GREEN, round(220 * (1 - 0.8 * age))), 2)
            if ((end >= 0) & (end < (height, width))).all() and (
                (end - step >= 0) & (end - step < (height, width))
            ).all():
                break
    return Image.alpha_composite(picture.convert("RGBA"), veil).convert("RGB")


def average(
    frames: NDArray[np.uint8],  # [frames, 3, height, width]
    decay: float = 0.95,
) -> Image.Image:
    """The exponential moving average of the frames at the last: what moves leaves a streak."""
    weights = decay ** np.arange(len(frames))[::-1].astype(np.float32)
    mean = np.zeros(frames.shape[1:], np.float32)
    for frame, weight in zip(frames, weights / weights.sum(), strict=True):
        if weight > 1e-4:
            mean += weight * frame
    return _colour.enlarged(mean.round().astype(np.uint8).transpose(1, 2, 0), _colour.zoom(*frames.shape[2:]))


def rule(out: Path, kernel: Any, name: str) -> None:
    """The kernel as a matrix of colours, and for 1x1 and three colours the axis about which the score turns."""
    from matplotlib.figure import Figure

    weights = kernel.float().numpy()
    channels, side = weights.shape[0], weights.shape[-1]
    figure = Figure(figsize=(3.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    whole = weights.transpose(0, 2, 1, 3).reshape(channels * side, channels * side)
    bound = max(float(np.abs(whole).max()), 1e-12)
    axes.imshow(whole, cmap="PuOr", vmin=-bound, vmax=bound)
    for (row, column), value in np.ndenumerate(whole if side == 1 else np.zeros((0, 0))):
        ink = "white" if abs(value) > 0.6 * bound else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=ink)
    colours = ["red", "green", "blue"]
    places = np.arange(channels) * side + (side - 1) / 2
    axes.set_xticks(places, [f"s {colour}" for colour in colours], fontsize=8)
    axes.set_yticks(places, [f"d{colour}/dt" for colour in colours], fontsize=8)
    for edge in np.arange(1, channels) * side - 0.5:
        axes.axhline(edge, color="0.5", linewidth=0.6)
        axes.axvline(edge, color="0.5", linewidth=0.6)
    axes.set_title(f"K, {name}", fontsize=9, loc="left")
    with _films._whole(out) as part:
        figure.savefig(part, dpi=120)
