"""Six chaotic systems by the same method, good or bad: what snapshots alone say about each."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from bench.paper import clouds, drawing, fields
from bench.paper.clouds import CHAOTIC, TITLES, Cloud
from bench.paper.families import FAMILIES
from bench.paper.report import Report, number, spread
from bench.paper.study import Study
from bench.paper.training import Job, train
from eqflow.dynamics import LearnedFlow
from eqflow.dynamics.diagnosis import diagnose

# Closed form of degree 4, one scale for each coordinate, one data set each: Gaussian then Rademacher, k = 8, 1.
SEEN = {
    "lorenz": "0.10, 0.03; 0.88, 0.87",
    "chen": "0.08, 0.02; 0.72, 0.64",
    "sprott-b": "0.04, 0.01; 0.74, 0.30",
    "rossler": "0.70, 0.48; 0.68, 0.45",
    "halvorsen": "0.975, 0.94; 0.956, 0.92",
    "thomas": "0.01, 0.07; 0.02, 0.03",
}
_HUES = {"constant": "#e08e0b", "closed": "#66418c", "learned": "#d1495b"}


class Row(NamedTuple):
    """What one system gave, |cos| with its true field."""

    name: str
    constant: float  # of the best constant S
    closed: float  # of the lowest mode, with the symmetry that was found
    learned: Tensor  # [models]


def _scaled(study: Study, cloud: Cloud, truth: Tensor) -> str:
    """Closed form with a scale for each coordinate, by probes."""
    found, degree = [], 2 if study.quick else 4
    for law in ("gaussian", "rademacher"):
        modes = [cloud.modes(degree=degree, probes=k, law=law, norm="per-coordinate") for k in (8, 1)]
        cosines = [float(fields.fidelity(each.velocities(cloud.compared), truth)[0]) for each in modes]
        found.append(", ".join(f"{cosine:.2f}" for cosine in cosines))
    return "; ".join(found)


def _signs(signs: Tensor | None) -> str:
    return "none" if signs is None else "(" + " ".join(f"{int(sign):+d}" for sign in signs) + ")"


def table(report: Report, study: Study, lorenz: Cloud, best: LearnedFlow | None) -> list[Row]:
    """Trains the best family on every system and compares."""
    others = {name: clouds.chaotic(study, name) for name in CHAOTIC if name != "lorenz"}
    family = FAMILIES["best"]
    jobs = [Job(family, cloud, study.variants) for cloud in others.values()]
    flows: dict[str, Any] = dict(zip(others, train(jobs, study), strict=True))
    flows["lorenz"] = best if best is not None else train([Job(family, lorenz, study.variants)], study)[0]
    rows, printed, scaled = [], [], []
    for name in CHAOTIC:
        cloud, flow = others.get(name, lorenz), flows[name]
        truth, modes = cloud.truth(cloud.compared), cloud.best_modes
        velocities = flow.velocities(cloud.compared)
        free = cloud.modes()
        row = Row(
            name,
            fields.best_constant(truth, cloud.scores(cloud.compared)),
            float(fields.fidelity(modes.velocities(cloud.compared), truth)[0]),
            fields.fidelity(velocities, truth),
        )
        among = fields.fidelity(free.velocities(cloud.compared), truth)
        rows.append(row)
        printed.append([TITLES[name], number(row.constant), _signs(cloud.flip.signs), number(row.closed), modes.near(),
                        number(among[0]), f"{number(among.max())} (mode {int(among.argmax()) + 1})", len(row.learned),
                        spread(row.learned), spread(fields.pairs(velocities)),
                        spread(diagnose(flow, *cloud.held_out).residual)])  # fmt: skip
        scaled.append([TITLES[name], SEEN[name], _scaled(study, cloud, truth)])
        report.keep(**{f"system {name}": {**row._asdict(), "objectives": modes.objective, "flip": cloud.flip.reason}})
    columns = ["system", "best constant S", "symmetry", "closed form", "modes near", "closed form, none",
               "best of its five", "M", "learned", "each other", "residual"]  # fmt: skip
    report.table("Six systems: |cos| with the true field (symmetry: the one that the points show)", columns, printed)
    columns = ["system", "earlier: Gaussian k=8, 1; Rademacher k=8, 1", "now"]
    report.table("Six systems, closed form of degree 4, one scale for each coordinate", columns, scaled)
    return rows


def draw(axes: Any, rows: list[Row]) -> None:
    """The systems as rows of dots."""
    for place, row in enumerate(rows):
        first, heights = place == 0, drawing.rows_of(place, len(row.learned), 0.4)
        axes.plot(row.learned.numpy(), heights, ".", color=_HUES["learned"], markersize=5, alpha=0.7,
                  label="learned" if first else None)  # fmt: skip
        axes.plot(row.closed, place, "d", color=_HUES["closed"], label="closed form" if first else None)
        axes.plot(row.constant, place, "|", color=_HUES["constant"], markersize=14, markeredgewidth=2,
                  label="best constant S" if first else None)  # fmt: skip
    axes.set_yticks(range(len(rows)), [TITLES[row.name] for row in rows])
    axes.set(xlim=(0, 1.01), ylim=(len(rows) - 0.4, -1), xlabel="|cos| with the true field")
    if rows:
        axes.legend(frameon=False, loc="upper center", ncols=3, fontsize=9)
