"""What a fit looks like: streamlines over the points in the plane, paths through them in more dimensions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch

from eqflow.cli import _films, _portraits
from eqflow.cli._fit_report import ANSWERS, held_out
from eqflow.cli._words import count

_GRID, _RARE = 90, 2.3  # nodes a side; e-folds of density below the highest tenth at which streamlines end
_PATHS, _TIME, _STEP, _FAR = 3, 60.0, 0.02, 1.1


def draw(out: Path, cloud: Any, fitted: Any) -> None:
    """Write the picture of a fit."""
    from matplotlib.figure import Figure

    dimension, points = cloud.values.shape[1], cloud.values.numpy()
    sheet = Figure(figsize=_size(points), layout="constrained") if dimension == 2 else _portraits.figure(dimension)
    _title(sheet, cloud, fitted.report)
    if dimension == 2:
        _streams(sheet, cloud, fitted, points[:: -(-len(points) // _portraits.POINTS)])
    else:
        _portraits.draw(sheet, cloud.names, points, _paths(cloud, fitted))
    with _films._whole(out) as part:
        sheet.savefig(part, dpi=140)


def _window(points: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Corners of what is shown of the plane: nearly all points, and some room."""
    low, high = numpy.quantile(points, [0.002, 0.998], axis=0)
    margin = 0.12 * (high - low)
    return low - margin, high + margin


def _size(points: numpy.ndarray) -> tuple[float, float]:
    """Of the sheet, so that both axes have one scale where that leaves something to see."""
    width, height = numpy.subtract(*_window(points)[::-1])
    return 7.2, 1.0 + min(max(5.6 * height / width, 2.8), 8.0)


def _title(figure: Any, cloud: Any, report: dict[str, Any]) -> None:
    held, (kind, number) = held_out(report), report["chosen"]
    figure.suptitle(
        f"{cloud.name}: the flow that keeps {count(report['points'])} points best, {kind} {number}\n"
        f"residual {held['residual']:.2g}, leak {held['leak']:.2%}; "
        f"unique? {ANSWERS[report['unique']['answer']][0].lower()}",
        fontsize=11, x=0.01, ha="left",
    )  # fmt: skip


def _coordinates(cloud: Any, fitted: Any) -> tuple[Callable, Callable]:
    """From the units of the points to those of the flow, and back."""
    mean, sd, signal = cloud.values.mean(0), cloud.values.std(0), fitted.report["alpha"] ** 0.5
    like = fitted.points

    def inward(points: Any) -> torch.Tensor:
        return ((torch.as_tensor(points) - mean) / sd * signal).to(like)

    return inward, lambda state: (mean + sd * state.double().cpu() / signal).numpy()


def _streams(figure: Any, cloud: Any, fitted: Any, shown: numpy.ndarray) -> None:
    from eqflow.score import Points

    axes, (inward, _) = figure.add_subplot(), _coordinates(cloud, fitted)
    low, high = _window(cloud.values.numpy())
    x, y = (numpy.linspace(first, last, _GRID) for first, last in zip(low, high, strict=True))
    nodes = inward(numpy.stack(numpy.meshgrid(x, y), -1).reshape(-1, 2))
    velocity = (fitted.flow.velocity(nodes).cpu().double() * cloud.values.std(0)).numpy().reshape(_GRID, _GRID, 2)
    few = fitted.points[:: max(1, len(fitted.points) // 20_000)]
    density = Points(few).at(fitted.report["alpha"]).log_density(nodes).cpu().numpy().reshape(_GRID, _GRID)
    velocity[density < numpy.quantile(density, 0.9) - _RARE] = numpy.nan
    axes.plot(*shown.T, ".", color="0.6", markersize=2.4, markeredgewidth=0, rasterized=True, zorder=1)
    speed = numpy.linalg.norm(velocity, axis=-1)
    lines = axes.streamplot(
        x, y, velocity[..., 0], velocity[..., 1], color=speed, cmap="plasma", density=1.6, linewidth=1.3, arrowsize=1.1,
        zorder=2, norm=_scale(speed),
    )  # fmt: skip
    figure.colorbar(lines.lines, ax=axes, shrink=0.7, pad=0.02, label="speed").outline.set_visible(False)
    if 0.5 < (high - low)[1] / (high - low)[0] < 1.4:
        axes.set_aspect("equal", adjustable="box")
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    _portraits.label(axes, *cloud.names)


def _scale(speed: numpy.ndarray) -> Any:
    from matplotlib.colors import Normalize

    return Normalize(0, float(numpy.nanquantile(speed, 0.98)) * 1.15)  # yellow on white is hard to see


def _paths(cloud: Any, fitted: Any) -> list[numpy.ndarray]:
    """Paths of the flow from points of the noised density, each [frames, dimension], until it leaves the points."""
    from eqflow.dynamics import rollout
    from eqflow.score import Points

    bound = _FAR * float(fitted.points.abs().max())
    start = Points(fitted.points).at(fitted.report["alpha"]).sample(_PATHS, seed=fitted.report["seed"])
    frames: list[torch.Tensor] = []

    def drift(state: torch.Tensor) -> torch.Tensor:
        """The flow, at rest far from the points, where a polynomial would take all others with it."""
        far = state.abs().amax(1, keepdim=True) > bound
        return fitted.flow.velocity(state.clamp(-bound, bound)).masked_fill(far, 0.0)

    class Keeper:
        every = 2

        def observe(self, step: int, time: float, state: torch.Tensor) -> None:
            frames.append(state)

        def state_dict(self) -> dict:
            return {}

    rollout(start, drift, round(_TIME / _STEP), dt=_STEP, observers=[Keeper()])
    _, outward = _coordinates(cloud, fitted)
    paths = torch.stack(frames, 1)
    inside = (paths.abs().amax(2) < bound).long().cumprod(1).sum(1)
    return [outward(path[:length]) for path, length in zip(paths, inside.tolist(), strict=True)]
