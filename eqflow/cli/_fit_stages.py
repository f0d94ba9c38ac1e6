"""The stages of a fit: standardise, score, pool, symmetry, closed form, learned flow. Each goes on after a stop.

What a stage makes is a function of the request alone, so a fit that was killed ends with the bytes of the undisturbed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqflow.cli import _fit_kept, _fit_measures, _fit_report, _fit_request
from eqflow.cli._stages import Progress
from eqflow.data.checkpoint import Checkpoint

_SHOWN = ("alpha", "score", "pool", "method", "seed", "objective", "norm", "probes", "law")  # of the request
_SECONDS = 5.0  # at most so much is lost
_HELD_OUT = 10_000
_MOST_FLIPPED = 8  # coordinates; there are 2^d flips of signs
_BLOCKS = 20  # of neighbouring rows, dealt to the two halves in turn: rows of a trajectory stay together


class Fitted(NamedTuple):
    """What all stages together give."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]  # how to read the tensors
    report: dict[str, Any]
    points: Tensor  # standardised, [points, dimension]
    flow: Any  # the field to draw, with `velocity`


class Pools(NamedTuple):
    """Noised points with their scores: to fit on, and held out."""

    points: Tensor
    scores: Tensor
    held_points: Tensor
    held_scores: Tensor


def run(cloud: Any, request: dict[str, Any], folder: Path, where: str, observer: Callable[[Progress], None]) -> Fitted:
    """All stages, those that are done already from their files."""
    mean, sd = cloud.values.mean(0), cloud.values.std(0)
    points = ((cloud.values - mean) / sd).float().to(where)
    seconds = _Clock()
    score = _score(points, request, folder, observer)
    pool = _pool(points, score, request, folder, observer)
    seconds.took("score")
    from eqflow.dynamics import diagnose

    # Two independent estimates and exact ones leave the strain free.
    free = request["objective"] in ("exact", "product")
    probing = {"probes": math.inf if free else request["probes"], "law": request["law"]}
    symmetry = _symmetry(pool, request, probing, observer)
    signs = symmetry["signs"]
    seconds.took("symmetry")
    modes, closed = _closed_form(points, pool, signs, request, probing, observer)
    seconds.took("closed form")
    flow = _learned(pool, signs, request, folder, observer)
    seconds.took("learned flow")
    held = pool.held_points, pool.held_scores
    report = {
        "points": len(points),
        "coordinates": list(cloud.names),
        "system": cloud.system,
        "mean": mean.tolist(),
        "sd": sd.tolist(),
        **{name: request[name] for name in _SHOWN},
        "stein": _fit_measures.identities(*held),
        "symmetry": symmetry,
        "closed_form": closed,
        "learned": None,
        "seconds": seconds.all,
    }
    if closed:
        found = diagnose(modes, *held, **probing)
        report["closed_form"] |= {"held_out": _plain(found, pool.held_scores)}
    if flow is not None:
        found = diagnose(flow, *held, modes=modes, **probing)
        velocities = flow.velocities(pool.held_points)
        report["learned"] = {
            "models": len(flow),
            "held_out": _plain(found, pool.held_scores),
            "agreement": _fit_measures.agreement(velocities),
            "cosines": None if modes is None else found.cosines.abs().tolist(),
        }
    report["chosen"] = _fit_report.best(report)
    kind, number = report["chosen"]
    chosen = (flow if kind == "network" else modes)[number - 1]
    velocity = chosen.velocity(pool.held_points).cpu() / request["alpha"] ** 0.5
    report["speed"], report["speed_standardised"] = (float((velocity * unit).norm(dim=1).mean()) for unit in (sd, 1.0))
    report["truth"] = _fit_measures.truth(cloud, points, mean, sd, flow, modes)
    report["unique"] = _fit_report.verdict(report)
    tensors, about = _fit_kept.kept(points, mean, sd, score, modes, flow, cloud, request)
    about["chosen"] = report["chosen"]
    return Fitted(tensors, about, report, points, chosen)


class _Clock:
    def __init__(self) -> None:
        self._last, self.all = time.monotonic(), {}

    def took(self, stage: str) -> None:
        now = time.monotonic()
        self._last, self.all[stage] = now, round(now - self._last, 2)


def _plain(found: Any, scores: Tensor) -> dict[str, list[float]]:
    """The numbers of a diagnosis. leak: the residual over that of a field of random directions and the same speed."""
    numbers = {name: getattr(found, name) for name in ("objective", "residual", "strain", "r_squared")}
    numbers["leak"] = found.residual / scores.to(found.residual).square().sum(1).mean()
    return {name: value.tolist() for name, value in numbers.items()}


def _score(points: Tensor, request: dict[str, Any], folder: Path, observer: Callable) -> Any:
    from eqflow.score import DenoiserShape, DenoiserTraining, Points, train_denoiser

    if request["score"] == "kernel":
        return Points(points).at(request["alpha"])
    store = Checkpoint(folder / "score.pt", seconds=_SECONDS)
    training = DenoiserTraining(steps=request["score_steps"], seed=request["seed"])
    fit = train_denoiser(
        points,
        DenoiserShape(points.shape[1]),
        training,
        state=_on(store.load(), points.device),
        save=_saver(store),
        progress=lambda step, *_: observer(Progress("score", step, training.steps, "steps")),
    )
    return fit.denoiser.at(request["alpha"])


def _saver(store: Checkpoint) -> Callable[[dict], None]:
    return lambda state: store.save(state) if store.due() else None


def _on(state: dict[str, Tensor] | None, device: torch.device) -> dict[str, Tensor] | None:
    return state and {name: tensor.to(device) for name, tensor in state.items()}


def _pool(points: Tensor, score: Any, request: dict[str, Any], folder: Path, observer: Callable) -> Pools:
    from eqflow.score import make_pool

    store = Checkpoint(folder / "pool.pt")
    if (found := store.load()) is not None:
        return Pools(**_on(found, points.device))
    sizes = request["pool"], min(request["pool"] // 4, _HELD_OUT)
    parts, done = [], 0
    for number, size in enumerate(sizes):
        parts += make_pool(
            points, request["alpha"], size, seed=(request["seed"] + number) % 2**64, score=score, chunk=2048,
            progress=lambda rows, done=done: observer(Progress("pool", done + rows, sum(sizes), "points")),
        )  # fmt: skip
        done += size
    pools = Pools(*parts)
    store.save(pools._asdict())
    return pools


def _symmetry(pool: Pools, request: dict[str, Any], probing: dict, observer: Callable) -> dict[str, Any]:
    """The flip of signs to build in, why that one or none, and what flows cost that share it or break it."""
    from eqflow.dynamics import choose_flip

    dimension = pool.points.shape[1]
    if request["equivariance"] == "none":
        return {"signs": None, "reason": "none was asked for"}
    if dimension > _MOST_FLIPPED:
        return {"signs": None, "reason": f"there are too many flips of {dimension} coordinates to try"}
    observer(Progress("symmetry", 0, 1, "tests"))
    flip = choose_flip(pool.points, pool.scores, seed=request["seed"], **probing)
    observer(Progress("symmetry", 1, 1, "tests"))
    if flip.signs is None:
        return {"signs": None, "reason": flip.reason}
    row = int((flip.found == flip.signs.to(flip.found)).all(1).nonzero()[0])
    costs = {"even": float(flip.even[row]), "odd": float(flip.odd[row])}
    return {"signs": flip.signs.int().tolist(), "reason": flip.reason, **costs}


def _closed_form(points: Tensor, pool: Pools, signs: Any, request: dict[str, Any], probing: dict, observer) -> tuple:
    """The modes within the symmetry, and what is known of them: those of all fields, those of two halves."""
    from eqflow.dynamics import closed_form
    from eqflow.score import Points, make_pool

    if request["method"] == "learned":
        return None, None
    symmetric = {"signs": signs, "parity": "even"} if signs else {}
    options = {"degree": request["degree"], "norm": request["norm"], **probing}
    halves = 2 if request["score"] == "kernel" else 0
    total, done = 1 + bool(signs) + halves, 0

    def solve(points: Tensor, scores: Tensor, **more: Any) -> Any:
        nonlocal done
        observer(Progress("closed form", done, total, "solutions"))
        found = closed_form(points, scores, **options, **more)
        done += 1
        observer(Progress("closed form", done, total, "solutions"))
        return found

    modes = solve(pool.points, pool.scores, **symmetric)
    every = solve(pool.points, pool.scores) if signs else modes
    fields = []
    for half in range(halves):
        rows = (torch.arange(len(points), device=points.device) * _BLOCKS // len(points)) % 2 == half
        part = Points(points[rows]).at(request["alpha"])
        size = max(request["pool"] // 4, 4 * int(modes[0].coefficients.numel()))
        own = make_pool(points[rows], request["alpha"], size, seed=request["seed"], score=part)
        fields.append(solve(*own, **symmetric)[0].velocity(pool.held_points))
    return modes, {
        "degree": request["degree"],
        "unknowns": int(modes[0].coefficients.numel()),
        "objective": modes.objective.tolist(),
        "near": modes.near(),
        "all_fields": {"objective": every.objective.tolist(), "near": every.near()},
        "halves": _fit_measures.agreement(torch.stack(fields)) if fields else None,
    }


def _learned(pool: Pools, signs: Any, request: dict[str, Any], folder: Path, observer: Callable) -> Any:
    from eqflow.dynamics import FlowSettings, fit_flow

    if request["method"] == "closed-form":
        return None
    settings = FlowSettings(**{name: request[name] for name in _fit_request.SETTINGS})
    store = Checkpoint(folder / "flow.pt", seconds=_SECONDS)
    return fit_flow(
        pool.points, pool.scores, settings, models=request["models"], seed=request["seed"], signs=signs, every=10,
        state=_on(store.load(), pool.points.device), save=_saver(store),
        progress=lambda step, losses: observer(Progress("learned flow", step, settings.steps, "steps")),
    )  # fmt: skip
