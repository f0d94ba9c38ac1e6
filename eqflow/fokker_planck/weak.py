"""From points and a model to moment conditions: the choices of the weak form."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from eqflow.fokker_planck import stream
from eqflow.fokker_planck.functions import Bumps, Functions, random_cosines
from eqflow.fokker_planck.model import Model
from eqflow.fokker_planck.moments import Snapshot, Source, WeakForm
from eqflow.ops import philox

_MARGIN = 3.5  # bandwidths between a bump and the edge of the window, where it has fallen to 0.2 %
Window = tuple[Sequence[float], Sequence[float]]


class FewPointsWarning(UserWarning):
    """There are more test functions than the points can weigh."""


def simpson(times: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Differences and integrals over t_k .. t_{k+2}, for all k: coefficients of the values at each time.

    The integral is that of the parabola through the three values: Simpson's rule where they are evenly spaced.

    Returns:
        change and quadrature, both [times - 2, times].

    Raises:
        ValueError: fewer than three times, or not increasing.

    Example:
        >>> simpson([0.0, 1.0, 2.0])[1]
        tensor([[0.3333, 1.3333, 0.3333]], dtype=torch.float64)
    """
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    if len(times) < 3 or not all(gap > 0 for gap in gaps):
        raise ValueError(f"expected three increasing times or more, got {list(times)}")
    change = torch.zeros(len(times) - 2, len(times), dtype=torch.float64)
    quadrature = torch.zeros_like(change)
    for k, (first, second) in enumerate(itertools.pairwise(gaps)):
        whole = first + second
        change[k, k], change[k, k + 2] = -1.0, 1.0
        weights = (2 - second / first, whole**2 / (first * second), 2 - first / second)
        quadrature[k, k : k + 3] = whole / 6 * torch.tensor(weights, dtype=torch.float64)
    return change, quadrature


def bumps_inside(
    points: Tensor,  # [n, dimension]
    count: int,
    *,
    bandwidth: float | Tensor | None = None,
    window: Window | None = None,
    seed: int = 0,
) -> tuple[Bumps, Tensor]:
    """Bumps around points drawn from the data, away from the edge of a window, and the other points.

    Args:
        points: the data.
        count: how many bumps.
        bandwidth: h, a number or one for each coordinate; None: 0.35 standard deviations of each.
        window: (low, high), the box in which points were seen, infinite where it has no edge.
        seed: key of the draws.

    Raises:
        ValueError: there are too few points inside.

    Example:
        >>> bumps, rest = bumps_inside(torch.randn(1000, 2), 20, window=((0.0, -math.inf), (math.inf, math.inf)))
        >>> bumps.count, len(rest)
        (20, 980)
    """
    width = 0.35 * points.double().std(0) if bandwidth is None else torch.as_tensor(bandwidth, dtype=torch.float64)
    inside = torch.ones(len(points), dtype=torch.bool, device=points.device)
    if window is not None:
        low, high = (torch.as_tensor(edge, dtype=torch.float64, device=points.device) for edge in window)
        if low.shape != points.shape[1:] or high.shape != low.shape:
            raise ValueError(f"expected a window (low, high) of {points.shape[1]} numbers each, got {window}")
        margin = _MARGIN * width.to(low)
        inside = ((points - margin > low) & (points + margin < high)).all(1)
    candidates = inside.nonzero()[:, 0]
    if len(candidates) < count:
        raise ValueError(
            f"expected {count} points more than {_MARGIN} bandwidths inside the window, got {len(candidates)}: take a "
            "smaller bandwidth, or fewer functions"
        )
    words = philox.words(torch.arange(len(candidates)), 1, seed=seed, stream=philox.STREAMS["test-functions"])[:, 0]
    chosen = candidates[words.argsort(stable=True)[:count].to(candidates.device)]
    rest = torch.ones_like(inside).index_fill(0, chosen, False)
    return Bumps(points[chosen].double(), width), points[rest]


def _sources(points, model, functions, count, scale, window, bandwidth, seed, combine) -> list[tuple[Source, ...]]:
    """The points of every snapshot with their test functions."""
    if all(isinstance(part, Sequence) and all(isinstance(s, Source) for s in part) for part in points):
        return [tuple(part) for part in points]
    for part in points:
        stream.check(part, model.dimension)
    if not isinstance(functions, str):
        return [(Source(part, functions),) for part in points]
    if functions == "cosines":
        if window is not None:
            raise ValueError(
                "expected functions='bumps' with a window, got 'cosines': points cross its edge, and only functions "
                "that vanish there do not see it"
            )
        spread = stream.spread(points, combine=combine)
        cosines = random_cosines(spread.centre, spread.deviation, count, scale=scale, seed=seed)
        return [(Source(part, cosines),) for part in points]
    if functions == "bumps":
        if len(points) > 1 or not isinstance(points[0], Tensor):
            raise ValueError(
                "expected one tensor of points for functions='bumps'; else make your own Bumps(centres, bandwidth)"
            )
        bumps, rest = bumps_inside(points[0], count, bandwidth=bandwidth, window=window, seed=seed)
        return [(Source(rest, bumps),)]
    raise ValueError(f"expected functions 'cosines', 'bumps' or your own, got {functions!r}")


def weak_form(
    points: stream.Points | Sequence[stream.Points],
    model: Model,
    *,
    times: Sequence[float] | None = None,
    counts: Sequence[float] | None = None,
    functions: str | Functions = "cosines",
    count: int = 40,
    scale: float = 0.8,
    window: Window | None = None,
    bandwidth: float | Tensor | None = None,
    seed: int = 0,
    combine: stream.Combine | None = None,
) -> WeakForm:
    """The conditions that points put on a model: E[L phi] = 0 in a steady state, d/dt E[phi] = E[L phi] between times.

    Needs neither a density nor a score nor an order of the points. The points are read a few times, a chunk at a time,
    in constant memory; with `combine` every rank holds its own points and all get the same conditions.

    Args:
        points: [n, dimension]; a list of such parts, or a collection that can be read several times; or `Source`s,
            points with their own test functions, as `phase_conditioned` gives. With `times`, one of these for each
            time.
        model: see `parametric` and `from_library`.
        times: when the snapshots were taken, three increasing times or more; None: a steady state.
        counts: how many there were in nature at each time, for births and deaths; None: unknown, then a constant rate
            of growth cannot be seen.
        functions: "cosines"; "bumps", for points seen through a window and for heavy tails; or your own `Functions`.
        count: how many: 25 to 50 for a few unknowns, 3 for each term of a library, at most a fiftieth of the points.
        scale: of the frequencies of the cosines, 0.6 to 1.
        window: (low, high), the box outside which nothing was seen; bumps keep away from its edge.
        bandwidth: of the bumps; None: 0.35 standard deviations.
        seed: key of the draws of the functions.
        combine: adds a tensor up over ranks in place, such as torch.distributed.all_reduce.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> from eqflow.fokker_planck import eliminate, from_library, polynomial
        >>> points = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(1))
        >>> model = from_library({"x": polynomial("x y", 3)}, known={"y": "-y"}, diffusion=1.0)
        >>> print(eliminate(weak_form(points, model, count=60)).equations)
        x' = -1.015(10) x
        y' = -y
    """
    if times is None:
        if counts is not None:
            raise ValueError("expected times with counts, got counts alone")
        parts, times, change, quadrature = [points], [0.0], torch.zeros(1, 1), torch.ones(1, 1)
    else:
        parts, times = list(points), [float(time) for time in times]
        change, quadrature = simpson(times)
        if len(parts) != len(times) or (counts is not None and len(counts) != len(times)):
            raise ValueError(
                f"expected points, and counts if any, for each of {len(times)} times, got {len(parts)} sets"
            )
    masses = [1.0] * len(times) if counts is None else [float(c) / max(map(float, counts)) for c in counts]
    if not all(0 < mass < math.inf for mass in masses):
        raise ValueError(f"expected positive counts, got {counts}")
    sources = _sources(parts, model, functions, count, scale, window, bandwidth, seed, combine)
    _warn_of_few(itertools.chain.from_iterable(sources))
    snapshots = [Snapshot(s, time, mass) for s, time, mass in zip(sources, times, masses, strict=True)]
    return WeakForm(model, tuple(snapshots), change.double(), quadrature.double(), counts is None, combine)


def _warn_of_few(sources: Iterable[Source]) -> None:
    for source in sources:
        if isinstance(source.points, Tensor) and source.functions.count > len(source.points) / 50:
            warnings.warn(
                f"{source.functions.count} test functions for {len(source.points)} points: beyond a fiftieth of the "
                "points the errors come out too small and the test too strict",
                FewPointsWarning,
                stacklevel=3,
            )
