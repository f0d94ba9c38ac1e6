"""Planar fields as streamlines over their points, where there are points, coloured by the sense in which they turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import torch
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

from bench.paper.clouds import Cloud

_TURNING = LinearSegmentedColormap.from_list("turning", ["#1f5fa8", "0.35", "#b3242b"])
_GRID, _MARGIN, _DRAWN = 90, 0.08, 3000


def rows_of(place: float, count: int, height: float = 0.5) -> numpy.ndarray:
    """Heights of so many dots in one row of a chart, one above the other."""
    return place + height * (numpy.arange(count) - (count - 1) / 2) / max(count - 1, 1)


def grid(cloud: Cloud) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates of the columns and rows, and all places [rows * columns, 2], a square around the points."""
    low, high = cloud.held_out.points.aminmax(dim=0)
    middle, half = (low + high) / 2, float((high - low).max()) * (0.5 + _MARGIN)
    x, y = (torch.linspace(float(m) - half, float(m) + half, _GRID) for m in middle)
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)
    return x, y, places


def inside(cloud: Cloud, places: Tensor) -> Tensor:
    """Whether a place is among the densest that hold 99.5 % of the noised points, [rows]."""
    level = cloud.score.log_density(cloud.held_out.points).quantile(0.005)
    return cloud.score.log_density(places) >= level


def points(axes: Any, cloud: Cloud) -> None:
    """The points behind everything, and a square without numbers."""
    axes.plot(
        *cloud.points[:_DRAWN].T.numpy(), ".", color="0.7", markersize=2, markeredgewidth=0, zorder=0, rasterized=True
    )
    x, y, _ = grid(cloud)
    axes.set(xlim=(float(x[0]), float(x[-1])), ylim=(float(y[0]), float(y[-1])), xticks=[], yticks=[], aspect="equal")
    axes.spines[:].set_color("0.8")


def streamlines(axes: Any, cloud: Cloud, velocity: Callable[[Tensor], Tensor], colour: str | None = None) -> None:
    """Streamlines of a field; red where it turns counterclockwise, blue where clockwise, unless a colour is given."""
    points(axes, cloud)
    x, y, places = grid(cloud)
    shape = len(y), len(x)
    values = torch.where(inside(cloud, places)[:, None], velocity(places), torch.nan)
    u, v = (values[:, i].view(shape) for i in range(2))
    (du,), (dv,) = torch.gradient(u, spacing=(y,), dim=0), torch.gradient(v, spacing=(x,), dim=1)
    curl = (dv - du).nan_to_num()
    limit = max(float(curl.abs().quantile(0.98)), 1e-9)
    hues = {"color": colour} if colour else {"color": curl.clamp(-limit, limit).numpy(), "cmap": _TURNING}
    lines = axes.streamplot(
        x.numpy(), y.numpy(), u.numpy(), v.numpy(), density=1.1, linewidth=0.9, arrowsize=0.8, **hues
    )
    if not colour:
        lines.lines.set_clim(-limit, limit)


def paths(axes: Any, cloud: Cloud, followed: Tensor, hues: list[str]) -> None:
    """Trajectories [frames, paths, 2] over the points."""
    points(axes, cloud)
    for index, hue in enumerate(hues):
        path = followed[:, index].numpy()
        axes.plot(*path.T, "-", color=hue, linewidth=0.8, alpha=0.9)
        axes.plot(*path[0], "o", color="white", markeredgecolor=hue, markersize=5)
        axes.plot(*path[-1], "o", color=hue, markersize=5)
