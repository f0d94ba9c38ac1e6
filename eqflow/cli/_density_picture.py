"""What a density looks like, and what it makes of points: on a line, in the plane, or on the planes of coordinates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy

from eqflow.cli import _films, _portraits
from eqflow.cli._words import count

_GRID, _MARGIN = 240, 0.12
_DRAWN = 1500  # points of the density, over its own
_MASSES = (0.99, 0.9, 0.5)  # inside the contours
_GREY, _ACCENT = "0.72", "#00798c"
_SHOWN_CLUSTERS = 20  # with a colour and a number of their own


def _sheet(dimension: int, title: str) -> Any:
    from matplotlib.figure import Figure

    side = min(dimension, 5) - 1
    size = (7.2, 6.6) if dimension == 2 else (7.2, 4.6) if dimension == 1 else (2.6 * side + 1, 2.6 * side + 1.2)
    sheet = Figure(figsize=size, layout="constrained")
    sheet.suptitle(title, fontsize=11, x=0.01, ha="left")
    return sheet


def _planes(sheet: Any, names: Sequence[str]) -> Iterator[tuple[Any, list[int]]]:
    """Axes with the two coordinates that they show: the plane itself, or those of the first five coordinates."""
    panels = min(len(names), 5) - 1
    for row in range(1, panels + 1):
        for column in range(row):
            axes = sheet.add_subplot(panels, panels, (row - 1) * panels + column + 1)
            _portraits.label(axes, names[column], names[row])
            yield axes, [column, row]


def _save(sheet: Any, out: Path) -> None:
    with _films._whole(out) as part:
        sheet.savefig(part, dpi=140)


def _dots(axes: Any, points: numpy.ndarray, colour: str, size: float = 2.4) -> None:
    axes.plot(*points.T, ".", color=colour, markersize=size, markeredgewidth=0, rasterized=True)


def _thinned(points: numpy.ndarray) -> numpy.ndarray:
    return points[:: -(-len(points) // _portraits.POINTS)]


def _window(points: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Corners of what is shown: nearly all points, and some room."""
    low, high = numpy.quantile(points, [0.001, 0.999], axis=0)
    return low - _MARGIN * (high - low), high + _MARGIN * (high - low)


def draw(out: Path, cloud: Any, fitted: Any) -> None:
    """Write the picture of a density."""
    report, points = fitted.report, cloud.values.numpy()
    bent = f", {report['couplings']} couplings" if report["couplings"] else ""
    sheet = _sheet(
        points.shape[1],
        f"{cloud.name}: a density of {count(report['points'])} points, {count(report['components'])} Gaussians{bent}\n"
        f"log density {report['log_density']:.3g} a point where it has not seen it"
        + {1: "", 2: "; lines around 50, 90 and 99 % of it"}.get(
            points.shape[1], "; grey: points, blue: drawn from it"
        ),
    )
    mean, sd = (numpy.array(report[name]) for name in ("mean", "sd"))
    if points.shape[1] < 3:
        (_plane if points.shape[1] == 2 else _line)(sheet, cloud.names, points, _density(fitted, mean, sd))
    else:
        drawn = fitted.density.sample(_DRAWN, seed=report["seed"]).cpu().double().numpy() * sd + mean
        for axes, pair in _planes(sheet, cloud.names):
            _dots(axes, _thinned(points)[:, pair], _GREY, 3.0)
            _dots(axes, drawn[:, pair], _ACCENT)
    _save(sheet, out)


def _density(fitted: Any, mean: numpy.ndarray, sd: numpy.ndarray) -> Any:
    """The density of points in their own units, a function of arrays."""
    import torch

    def values(points: numpy.ndarray) -> numpy.ndarray:
        inward = torch.as_tensor((points - mean) / sd).to(fitted.density.centroids)
        return fitted.density.log_density(inward).exp().cpu().double().numpy() / sd.prod()

    return values


def _line(sheet: Any, names: Sequence[str], points: numpy.ndarray, density: Any) -> None:
    axes = sheet.add_subplot()
    low, high = (float(edge[0]) for edge in _window(points))
    places = numpy.linspace(low, high, 800)
    axes.hist(points[:, 0], bins=80, range=(low, high), density=True, color="0.85")
    axes.plot(places, density(places[:, None]), color=_ACCENT, linewidth=1.6)
    _portraits.label(axes, names[0], "density")


def _plane(sheet: Any, names: Sequence[str], points: numpy.ndarray, density: Any) -> None:
    axes = sheet.add_subplot()
    low, high = _window(points)
    x, y = (numpy.linspace(first, last, _GRID) for first, last in zip(low, high, strict=True))
    values = density(numpy.stack(numpy.meshgrid(x, y), -1).reshape(-1, 2)).reshape(_GRID, _GRID)
    image = axes.imshow(
        values, origin="lower", extent=(x[0], x[-1], y[0], y[-1]), cmap="Blues", aspect="auto", vmax=values.max() * 1.1
    )
    _dots(axes, _thinned(points), "0.25", 1.1)
    ordered = numpy.sort(values.ravel())[::-1]
    inside = numpy.cumsum(ordered) / ordered.sum()
    levels = [ordered[numpy.searchsorted(inside, mass)] for mass in _MASSES]
    axes.contour(x, y, values, levels=levels, colors="#d1495b", linewidths=(0.6, 0.9, 1.2))
    sheet.colorbar(image, ax=axes, shrink=0.7, pad=0.02, label="density").outline.set_visible(False)
    if 0.4 < (high - low)[1] / (high - low)[0] < 2.5:
        axes.set_aspect("equal", adjustable="box")
    _portraits.label(axes, *names)


def clusters(out: Path, title: str, names: Sequence[str], points: numpy.ndarray, found: Any) -> None:
    """Points in the colours of their clusters, with the numbers of the largest at their centres."""
    from matplotlib import colormaps

    labels, centres = found.labels.numpy(), found.centres.numpy()
    palette = colormaps["tab20"]
    order = [*range(0, 20, 2), *range(1, 20, 2)]  # the dark colours first
    step = -(-len(points) // _portraits.POINTS)
    shown, which = points[::step], labels[::step]
    sheet = _sheet(points.shape[1], title)
    if points.shape[1] == 1:
        axes = sheet.add_subplot()
        parts = [points[labels == number, 0] for number in range(min(len(centres), _SHOWN_CLUSTERS))]
        hues = [palette(order[number]) for number in range(len(parts))]
        axes.hist([*parts, points[labels >= _SHOWN_CLUSTERS, 0]], bins=80, stacked=True, color=[*hues, _GREY])
        _portraits.label(axes, names[0], "points")
        _save(sheet, out)
        return
    for axes, pair in _planes(sheet, names):
        _dots(axes, shown[which >= _SHOWN_CLUSTERS][:, pair], _GREY)
        for number in range(min(len(centres), _SHOWN_CLUSTERS)):
            _dots(axes, shown[which == number][:, pair], palette(order[number]), 3.0)
        for number, centre in enumerate(centres[:_SHOWN_CLUSTERS]):
            box = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": "0.3", "linewidth": 0.8}
            axes.text(*centre[pair], str(number + 1), ha="center", va="center", fontsize=8, bbox=box)
        if points.shape[1] == 2:
            axes.set_aspect("equal", adjustable="datalim")
    _save(sheet, out)


def moved(out: Path, title: str, names: Sequence[str], before: numpy.ndarray, after: numpy.ndarray) -> None:
    """Points before, in grey, and after."""
    sheet = _sheet(before.shape[1], title)
    if before.shape[1] == 1:
        axes = sheet.add_subplot()
        span = float(before.min()), float(before.max())
        axes.hist(before[:, 0], bins=120, range=span, color="0.8", label="before")
        axes.hist(after[:, 0], bins=120, range=span, color=_ACCENT, histtype="step", label="after")
        axes.legend(frameon=False)
        _portraits.label(axes, names[0], "points")
    for axes, pair in _planes(sheet, names):
        _dots(axes, _thinned(before)[:, pair], _GREY, 3.0)
        _dots(axes, _thinned(after)[:, pair], _ACCENT, 2.0)
        if before.shape[1] == 2:
            axes.set_aspect("equal", adjustable="datalim")
    _save(sheet, out)
