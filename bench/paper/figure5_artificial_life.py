"""Figure 5: creatures that are scattered at random, and what they do where random rules keep the scatter.

For the pictures of the paper, by the icons of the package, a score is trained on scattered pictures, and worlds start
from one scatter with one noise under K = 0 and under --models random rules of so(3), the same ones for every icon.
Creatures are found by matched filter and followed. The paper says, without numbers, that what is asymmetric moves
smoothly and what is symmetric moves less; here are speeds with errors over rules. Half an hour on one core; scores are
kept.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bench.paper.files import digest
from bench.paper.report import Report
from bench.paper.study import Study, run
from eqflow.cli import _colour, _world_film, _world_measure
from eqflow.data import read_creature
from eqflow.dynamics import SkewFlow, rollout, skew
from eqflow.dynamics.observers import Seen
from eqflow.metrics import Flights, herd, rotational_order
from eqflow.score import PatternDenoiser, PatternShape, PatternTraining, Scattered, StoredScore, train_pattern

ICONS = ("firefly", "two-dots", "taiji", "dots")
ALPHA, ETA, PIXELS = 0.25, 0.1, 18.0
STEPS, EVERY, LAG = 600, 10, 4
TRAINING = 1200
SCATTER = {"background": [1.0, 1.0, 1.0], "coverage": 0.16, "overlap": 0.05, "scale": [1.0, 1.0], "oversample": 2}


class World(NamedTuple):
    """One rule."""

    frames: np.ndarray  # uint8 [frames, 3, height, width]
    flights: Flights


def score_of(study: Study, icon: str) -> StoredScore:
    """Trained on scattered pictures, or found."""
    picture = read_creature(icon, pixels=PIXELS).picture
    pictures = torch.cat([2 * picture[:3] - 1, picture[3:]])[None]
    canvas, width = ((48, 48), 8) if study.quick else ((128, 128), 32)
    steps = study.steps(TRAINING)
    shape = PatternShape(3, width=width, dilations=(1, 2, 4, 4, 2, 1), alpha=ALPHA)

    def train() -> dict[str, Tensor]:
        fields = Scattered(pictures, canvas, held_out=32, seed=0, **SCATTER)
        training = PatternTraining(steps=steps, symmetries="none", every=max(1, steps // 10))
        said = lambda step, loss, error: print(f"{icon}: step {step}, loss {loss:.3g}, error {error:.3g}")  # noqa: E731
        return dict(train_pattern(fields, shape, training, progress=said).denoiser.state_dict())

    key = digest(pictures, SCATTER, canvas, shape, steps)
    denoiser = PatternDenoiser(shape, [0.0] * 3, [1.0] * 3)
    denoiser.load_state_dict(study.cache.get(f"creature-{icon}", key, train))
    half = torch.full((3, 1, 1), 0.5)
    about = {"scatter": SCATTER}
    return StoredScore(
        denoiser.requires_grad_(False), icon, _colour.NAMES, half, half, canvas, None, None, None, about, pictures
    )


def world(study: Study, stored: StoredScore, kernel: Tensor) -> World:
    """From a scatter that no training saw."""
    score = stored.denoiser.at()
    score.denoiser.to(memory_format=torch.channels_last)
    steps, size = (24, (64, 64)) if study.quick else (STEPS, (160, 160))
    every = 4 if study.quick else EVERY
    flow, frames = SkewFlow(score, kernel, ETA), []
    dt = (1 - ALPHA) / 4

    def keep(_step: int, _time: float, state: Tensor) -> None:
        frames.append(_colour.image(flow.output(state)[0].numpy()).transpose(2, 0, 1))

    start = score.noised(stored.fields(range(1), size=size), seed=0)
    rollout(start, flow, steps, dt=dt, observers=[Seen(keep, every)])
    found = np.stack(frames)
    return World(found, _world_measure.follow(stored, found, dt * every, lambda at, all_: None))


def mean(values: list[float]) -> tuple[float, float]:
    """Over rules, with its standard error."""
    known = torch.tensor([value for value in values if math.isfinite(value)], dtype=torch.float64)
    if not len(known):
        return math.nan, math.nan
    return float(known.mean()), float(known.std() / len(known) ** 0.5) if len(known) > 1 else math.nan


def said(found: tuple[float, float]) -> str:
    return f"{found[0]:.3f} ± {found[1]:.3f}"


def _draw(made: dict[str, tuple[StoredScore, World, World]]) -> Any:
    from matplotlib.figure import Figure

    sheet = Figure(figsize=(9.6, 3.3 * len(made)), layout="constrained")
    grid = sheet.subplots(len(made), 3, squeeze=False)
    for row, (icon, (_, still, moving)) in zip(grid, made.items(), strict=True):
        spans = [range(len(each.frames)) for each in (still, moving)]
        pictures = [
            _world_film.trails(still.frames[-1], still.flights.tracks, spans[0]),
            _world_film.trails(moving.frames[-1], moving.flights.tracks, spans[1]),
            _world_film.average(moving.frames),
        ]
        for axes, picture, name in zip(row, pictures, (f"{icon}, K = 0", "fastest rule", "its average"), strict=True):
            axes.imshow(picture)
            axes.set_title(name, fontsize=9, loc="left")
            axes.set_axis_off()
    return sheet


def work(study: Study) -> int:
    report = Report(study, "figure5_artificial_life", "Figure 5: artificial life from scattered pictures")
    rules = [skew.random(3, 0, seed) for seed in range(study.models)]
    made, rows, speeds, turns = {}, [], {}, {}
    for icon in ICONS:
        with report.part(icon):
            stored = score_of(study, icon)
            still, *moving = (world(study, stored, kernel) for kernel in (torch.zeros(3, 3, 1, 1), *rules))
            all_ = [herd.speed(each.flights, LAG) for each in (still, *moving)]
            speeds[icon], none = mean([each.value for each in all_[1:]]), all_[0]
            straight = mean([herd.persistence(each.flights, LAG).value for each in moving])
            body = mean([herd.along_body(each.flights, LAG).value for each in moving])
            turns[icon] = mean([herd.turning(each.flights, LAG, signed=False).value for each in moving])
            order = [herd.polarisation(each.flights, LAG) for each in moving]
            flocking = mean([each.value.value - each.null.value for each in order])
            near = [herd.pairs(each.flights, LAG, farthest=32.0, bins=1) for each in moving]
            approach = mean([float(each.approach.y[0] - each.approach_null.y[0]) for each in near])
            counts = [
                int((each.flights.tracks.frame == at).sum()) for each in moving for at in (0, len(each.frames) - 1)
            ]
            begin, end = sum(counts[::2]) / len(moving), sum(counts[1::2]) / len(moving)
            late = [
                float(each.flights.match[each.flights.tracks.frame >= 0.8 * len(each.frames)].mean()) for each in moving
            ]
            match = mean(late)
            fastest = max(range(len(moving)), key=lambda rule: all_[1 + rule].value)
            made[icon] = (stored, still, moving[fastest])
            order_of = {0: "round", 1: "none"}.get(rotational_order(stored.pictures[0]), "half turn")
            rows.append(
                [icon, order_of, said(speeds[icon]), said(none), said(straight), said(body), said(turns[icon]),
                 f"{begin:.0f} to {end:.0f}", said(match), said(flocking), said(approach)]
            )  # fmt: skip
            report.keep(**{icon: {
                "speeds": [list(each) for each in all_], "straightness": straight, "along_body": body,
                "turning": turns[icon], "match": match, "polarisation_over_chance": flocking,
                "approach_over_shuffled": approach, "creatures": counts,
            }})  # fmt: skip
            report.check(f"{icon}: match with the picture at the end", late, "above 0.8", low=0.8)
    columns = ["icon", "symmetry", "speed, px/time", "K = 0", "straightness", "along the body", "turning, rad/time",
               "creatures", "match", "polarisation over chance", "pairs apart, px/time"]  # fmt: skip
    report.table(f"Means over {len(rules)} random rules, their standard errors", columns, rows)
    if {"firefly", "dots"} <= set(speeds):
        (fast, fast_error), (slow, slow_error) = speeds["firefly"], speeds["dots"]
        sigmas = (fast - slow) / math.hypot(fast_error, slow_error)
        report.check("firefly over dots, standard errors of the speed", sigmas, "above 2", low=2.0)
    report.note("Rules are the same for every icon; errors are over rules and do not know of one start for all.")
    report.note(
        "Polarisation is that of velocities less what random directions give; pairs are those closer than 32 px."
    )
    if made:
        report.draw(_draw(made))
    return report.finish()


def main(argv: list[str] | None = None) -> None:
    run(work, __doc__, argv, models=4)


if __name__ == "__main__":
    main()
