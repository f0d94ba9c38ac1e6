"""Paths in more than two dimensions: in space, and on the planes of pairs of coordinates, over the points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

COLOURS = ("#d1495b", "#00798c", "#e08e0b", "#66418c")
POINTS = 6000  # drawn at most
_GREY = "0.72"
_MOST_AXES = 5


def figure(dimension: int) -> Any:
    """An empty sheet for points of so many coordinates."""
    from matplotlib.figure import Figure

    panels = min(dimension, _MOST_AXES) - 1
    size = (10.8, 9.4) if dimension == 3 else (2.6 * panels + 1, 2.6 * panels + 1.2)
    sheet = Figure(figsize=size, layout="constrained")
    sheet.get_layout_engine().set(w_pad=0.14, h_pad=0.06)
    return sheet


def draw(
    sheet: Any,
    names: Sequence[str],
    points: numpy.ndarray,  # [points, dimension]
    paths: Sequence[numpy.ndarray],  # each [frames, dimension]
) -> None:
    """Three coordinates: in space and on the three planes; more: the planes of the first five."""
    thinned = points[:: -(-len(points) // POINTS)]
    if len(names) == 3:
        _portrait(sheet, names, thinned, paths)
    else:
        _pairs(sheet, names, thinned, paths)


def _portrait(sheet: Any, names: Sequence, shown: numpy.ndarray, paths: Sequence) -> None:
    space = sheet.add_subplot(2, 2, 1, projection="3d")
    space.plot(*shown.T, ".", color=_GREY, markersize=2, markeredgewidth=0, alpha=0.6, rasterized=True)
    for path, colour in zip(paths, COLOURS, strict=False):
        space.plot(*path.T, "-", color=colour, linewidth=0.8, alpha=0.9)
    for axis, name in zip((space.xaxis, space.yaxis, space.zaxis), names, strict=True):
        axis.set_label_text(name)
        axis.pane.fill = False
    space.grid(False)
    space.set_box_aspect(None, zoom=1.12)
    space.tick_params(labelsize=8)
    for place, pair in ((2, (0, 1)), (3, (0, 2)), (4, (1, 2))):
        _projection(sheet.add_subplot(2, 2, place), names, shown, paths, *pair)


def _pairs(sheet: Any, names: Sequence, shown: numpy.ndarray, paths: Sequence) -> None:
    panels = min(len(names), _MOST_AXES) - 1
    for row in range(1, panels + 1):
        for column in range(row):
            axes = sheet.add_subplot(panels, panels, (row - 1) * panels + column + 1)
            _projection(axes, names, shown, paths, column, row)


def _projection(axes: Any, names: Sequence, shown: numpy.ndarray, paths: Sequence, first: int, second: int) -> None:
    axes.plot(shown[:, first], shown[:, second], ".", color=_GREY, markersize=1.8, markeredgewidth=0, rasterized=True)
    for path, colour in zip(paths, COLOURS, strict=False):
        x, y = path[:, first], path[:, second]
        axes.plot(x, y, "-", color=colour, linewidth=0.9, alpha=0.9)
        axes.plot(x[0], y[0], "o", color="white", markeredgecolor=colour, markersize=5)
        axes.plot(x[-1], y[-1], "o", color=colour, markersize=5)
    label(axes, names[first], names[second])


def label(axes: Any, x: str, y: str) -> None:
    """Names at the axes, and no frame."""
    axes.set_xlabel(x)
    axes.set_ylabel(y, rotation=0 if len(y) < 3 else 90, labelpad=8)
    axes.spines[["top", "right"]].set_visible(False)
