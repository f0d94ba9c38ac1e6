"""Figure 6: score, flow, and flow with score and noise, dx = (v + eta s) dt + sqrt(2 eta) dW with eta = 0.25.

Four planar sets at tau = 0.2 (alpha = 0.95), paths by stochastic Heun. And how good the scores are that everything
rests on: kernel and trained network against the exact score of the planar sets, and against a million points of Lorenz.
About 8 minutes on two cores after figure2_planar, whose models it shares; 2 more without.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper import clouds, drawing
from bench.paper.clouds import ALPHA, Cloud
from bench.paper.denoisers import trained
from bench.paper.families import VORTICES
from bench.paper.report import Report, number, spread
from bench.paper.study import Study, run
from bench.paper.training import Job, clock, train
from eqflow.dynamics import NoisyFlow, rollout
from eqflow.metrics import mmd, stein
from eqflow.score import DenoiserShape, DenoiserTraining, KernelScore, Score, sample_pool
from eqflow.systems import Lorenz, TwoGaussians

SETS = ("two-gaussians", "ring", "two-moons", "swiss-roll")
ETA, DT, FRAMES = 0.25, 0.02, 400
_HUES = ["#d1495b", "#00798c", "#e08e0b", "#66418c"]
_QUERIES, _MILLION, _FOLLOWED = 4096, 1_000_000, 1024


class Error(NamedTuple):
    """Of a score against a better one."""

    relative: float  # root mean square of the difference over that of the truth
    cosine: float


def error(found: Tensor, truth: Tensor) -> Error:
    """Over all points and coordinates together."""
    found, truth = found.double(), truth.double()
    cosine = (found * truth).sum() / (found.norm() * truth.norm())
    return Error(float((found - truth).norm() / truth.norm()), float(cosine))


def network(study: Study, points: Tensor, predicts: str, name: str) -> Score:
    """A trained score at alpha, by the defaults of eqflow."""
    return trained(study, points, DenoiserShape(points.shape[1], predicts=predicts), DenoiserTraining(), name).at(ALPHA)


def planar_scores(report: Report, study: Study, sets: dict[str, Cloud]) -> None:
    """Kernel and network against the exact score."""
    rows = []
    for name, cloud in sets.items():
        at = cloud.held_out.points
        exact = cloud.system.at(cloud.alpha)(at.double())
        learned = network(study, cloud.points, "v", name)(at)
        for title, found in (("kernel", cloud.held_out.scores), ("network, v", learned)):
            relative, cosine = error(found, exact)
            rows.append([name, title, len(cloud.points), number(relative), f"{cosine:.4f}",
                         f"{stein(at, found).worst:.1f}"])  # fmt: skip
    columns = ["set", "score", "points", "relative error", "cosine", "Stein, worst deviation in errors"]
    report.table("Scores of the planar sets against the exact ones", columns, rows)
    points = TwoGaussians(deviation=0.3).sample(study.count(100_000), seed=0)
    at, _ = sample_pool(points.float(), ALPHA, study.count(_QUERIES), seed=1)
    exact = TwoGaussians(deviation=0.3).at(ALPHA)(at.double())
    found = error(KernelScore(points.float(), ALPHA)(at), exact)
    report.check("kernel score, two Gaussians (0.3), 100k points: relative error", found.relative, "<= 0.02", high=0.02)


def lorenz_scores(report: Report, study: Study) -> None:
    """Kernel and networks against the kernel score of a million other points."""
    many = Lorenz().sample(study.count(_MILLION), seed=1)
    mean, sd = many.mean(0), many.std(0)
    many = ((many - mean) / sd).float()
    at, _ = sample_pool(many, ALPHA, study.count(_QUERIES), seed=2)
    truth, rows, found = KernelScore(many, ALPHA)(at), [], {}
    cloud = ((Lorenz().sample(study.count(100_000), seed=0) - mean) / sd).float()
    for count, earlier in ((1_000, "0.248"), (10_000, "0.067"), (100_000, "0.020")):
        found[f"kernel {count}"] = error(KernelScore(cloud[:count], ALPHA)(at), truth)
        rows.append(["kernel", count, earlier, *_shown(found[f"kernel {count}"])])
    for predicts, earlier in (("epsilon", "0.126"), ("v", "0.121")):
        report.progress(f"training a score of Lorenz, {predicts}-prediction, {clock(report.seconds)} so far")
        score = network(study, cloud[:10_000], predicts, f"lorenz-{predicts}")
        found[predicts] = error(score(at), truth)
        rows.append([f"network, {predicts}", 10_000, earlier, *_shown(found[predicts])])
    report.table(f"Scores of Lorenz against the kernel score of {len(many)} points",
                 ["score", "points", "relative error, earlier", "relative error", "cosine"], rows)  # fmt: skip
    some, few = cloud[:10_000], at[:1024]
    single, double = KernelScore(some, ALPHA)(few), KernelScore(some.double(), ALPHA)(few.double())
    report.check("kernel score, Lorenz, 10k points", found["kernel 10000"].relative, "<= 0.08", high=0.08)
    report.check("kernel score, Lorenz, 100k points", found["kernel 100000"].relative, "<= 0.025", high=0.025)
    report.check("kernel score, float32 against float64", error(single, double).relative, "<= 2e-4", high=2e-4)
    report.check("network, Lorenz, 10k points: cosine", [found[p].cosine for p in ("epsilon", "v")], ">= 0.985",
                 low=0.985)  # fmt: skip
    report.keep(lorenz_scores={name: each._asdict() for name, each in found.items()})


def _shown(found: Error) -> list[str]:
    return [number(found.relative), f"{found.cosine:.4f}"]


class _Frames:
    """The first few points of a rollout, at every step; an observer."""

    def __init__(self, paths: int):
        self.every, self.paths, self.frames = 1, paths, []

    def observe(self, step: int, time: float, state: Tensor) -> None:
        self.frames.append(state[: self.paths].clone())

    def state_dict(self) -> dict:
        return {"frames": self.frames}

    def load_state_dict(self, values: dict) -> None:
        self.frames = values["frames"]


def follow(study: Study, cloud: Cloud, dynamics: Any) -> tuple[Tensor, float]:
    """Paths [frames, paths, 2] from noised points, and the root of the biased MMD^2 of all to fresh ones at the end."""
    start, _ = sample_pool(cloud.points, cloud.alpha, min(_FOLLOWED, len(cloud.points)), seed=5)
    fresh, _ = sample_pool(cloud.points, cloud.alpha, len(start), seed=6)
    seen = _Frames(len(_HUES))
    end = rollout(start, dynamics, study.steps(FRAMES), dt=DT, seed=1, observers=[seen]).state
    return torch.stack(seen.frames), mmd(end, fresh).root


def picture(sets: dict[str, Cloud], flows: dict[str, Any], followed: dict[str, Tensor]) -> Figure:
    """A row for each set: score, flow, paths."""
    sheet = Figure(figsize=(9.3, 3.05 * len(sets)), layout="constrained")
    grid = sheet.subplots(len(sets), 3, squeeze=False)
    for axes, title in zip(grid[0], ("score s", "flow v", f"paths of v + {ETA} s with noise"), strict=True):
        axes.set_title(title)
    for line, (name, cloud) in zip(grid, sets.items(), strict=True):
        line[0].set_ylabel(name.replace("-", " "))
        drawing.streamlines(line[0], cloud, cloud.score, colour="0.25")
        drawing.streamlines(line[1], cloud, flows[name][0].velocity)
        drawing.paths(line[2], cloud, followed[name], _HUES)
    return sheet


def work(study: Study) -> int:
    report = Report(study, "figure6_score", "Figure 6: score, flow, and paths with noise")
    sets = {name: clouds.planar(study, name) for name in SETS}
    flows = dict(zip(SETS, train([Job(VORTICES, c, study.models) for c in sets.values()], study), strict=True))
    followed, rows = {}, []
    with report.part("the paths"):
        for name, cloud in sets.items():
            plain, noisy = [], []
            for index in range(study.models):
                flow = flows[name][index]
                plain.append(follow(study, cloud, flow)[1])
                path, distance = follow(study, cloud, NoisyFlow(flow, cloud.score, ETA))
                followed.setdefault(name, path)
                noisy.append(distance)
            fresh = [
                sample_pool(cloud.points, cloud.alpha, min(_FOLLOWED, len(cloud.points)), seed=s)[0] for s in (6, 7)
            ]
            rows.append([name, study.models, spread(plain), spread(noisy), number(mmd(*fresh).root)])
            report.keep(**{name: {"flow": plain, "with_noise": noisy}})
            report.progress(f"{name}: paths followed, {clock(report.seconds)} so far")
        time = study.steps(FRAMES) * DT
        columns = ["set", "M", "v alone", f"v + {ETA} s with noise", "two fresh sets"]
        report.table(
            f"Root of the biased MMD² to fresh points after T = {time:g} (no number in the paper)", columns, rows
        )
    with report.part("the picture"):
        report.draw(picture(sets, flows, followed))
    with report.part("scores of the planar sets"):
        planar_scores(report, study, sets)
    with report.part("scores of Lorenz"):
        lorenz_scores(report, study)
    return report.finish()


def main(argv: list[str] | None = None) -> None:
    run(work, __doc__, argv, models=4)


if __name__ == "__main__":
    main()
