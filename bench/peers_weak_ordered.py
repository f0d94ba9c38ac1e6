"""The Lorenz equations from points without an order, beside pysindy, which sees the order and the times.

One set of 2,000 noisy paths. eqflow gets one point of each every 0.5 units of time, shuffled: 100,000 in all; pysindy
gets whole paths, a point every 0.01, as many points or ten times as many, with the differences that are its default
(central) and with forward ones. Of several thresholds the one with the fewest wrong terms stands there.

A central difference of a noisy path is in the mean not the drift f but the current velocity f - D grad log p.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.peers_weak_form import DIFFUSION, TRUTH
from eqflow import ops
from eqflow.fokker_planck import eliminate, from_library, polynomial, weak_form
from eqflow.systems import Lorenz

CHAINS, FRAMES, EVERY, THIN = 2000, 2500, 5, 50
BURN_IN = 2500
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5)
FEW, MANY = 40, 400  # paths of pysindy


def paths() -> tuple[Tensor, float]:
    """[chains, frames, 3] and the time between two frames."""
    system = Lorenz(diffusion=DIFFUSION)
    start = 8 * ops.normal(CHAINS, 3, seed=0).double() + torch.tensor([0.0, 0.0, 25.0], dtype=torch.float64)
    settled = system.run(start, BURN_IN, seed=0)
    return system.run(settled, EVERY * FRAMES, every=EVERY, seed=0, first_step=BURN_IN), EVERY * system.dt


def unordered(path: Tensor) -> tuple[list[str], Tensor]:
    """The coefficients with their errors as eqflow writes them, and all 30."""
    points = path[:, ::THIN].flatten(0, 1)
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))]
    model = from_library(polynomial("x y z", 2), diffusion=DIFFUSION)
    fit = eliminate(weak_form(points, model, count=150, scale=0.7))
    values = torch.tensor([fit.value(name) for name in model.names], dtype=torch.float64).view(3, 10)
    errors = dict(zip(fit.names, fit.standard_errors.tolist(), strict=True))
    return [f"± {errors[name]:.2g}" if name in errors else "" for name in model.names], values


def ordered(path: Tensor, dt: float, order: int) -> Tensor:
    """The coefficients of pysindy at its best threshold, [3, 10]."""
    import pysindy

    best, least = TRUTH, (math.inf, math.inf)
    for threshold in THRESHOLDS:
        model = pysindy.SINDy(
            optimizer=pysindy.STLSQ(threshold=threshold, alpha=0.0),
            feature_library=pysindy.PolynomialLibrary(degree=2),
            differentiation_method=pysindy.FiniteDifference(order=order),
        )
        model.fit([each.numpy() for each in path], t=dt)
        found = torch.as_tensor(model.coefficients(), dtype=torch.float64)
        miss = (int(((found != 0) != (TRUTH != 0)).sum()), float((found - TRUTH).abs().max()))
        if miss < least:
            best, least = found, miss
    return best


def report() -> str:
    """A table: the terms that are there, the worst relative error, the terms that are missing or too many."""
    try:
        import pysindy
    except ImportError as error:
        return f"The comparison is left out: {error}; pip install pysindy"
    path, dt = paths()
    marks, ours = unordered(path)
    found = {"eqflow, 100,000 without order": ours}
    for chains in (FEW, MANY):
        for order, kind in ((2, "central"), (1, "forward")):
            found[f"pysindy, {chains * FRAMES:,} in order, {kind}"] = ordered(path[:chains], dt, order)
    names, true = from_library(polynomial("x y z", 2), diffusion=DIFFUSION).names, TRUTH.flatten()
    rows = [["term", "truth", *found], ["---"] * (2 + len(found))]
    for k in true.nonzero()[:, 0].tolist():
        values = [f"{each.flatten()[k]:.3f}" for each in found.values()]
        values[0] = f"{values[0]} {marks[k]}"
        rows.append([names[k], f"{true[k]:.3f}", *values])
    there = true != 0
    worst = [float((each.flatten()[there] / true[there] - 1).abs().max()) for each in found.values()]
    rows.append(["worst relative error", "", *(f"{100 * each:.1f} %" for each in worst)])
    wrong = [(each.flatten() != 0) != there for each in found.values()]
    rows.append(
        [
            "missing or too many",
            "",
            *(", ".join(n for n, w in zip(names, each, strict=True) if w) or "none" for each in wrong),
        ]
    )
    return f"pysindy {pysindy.__version__}.\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows)
