"""Figure 6 of Lu, Kusmierz and Mihalas: a density from points, by maximum likelihood, score matching, or both.

5000 points of the noisy limit cycle at D = 0.2, whose density is known, and 500, which 100 components learn by heart
unless some are kept apart. The paper finds both objectives together best. About 5 minutes on one core.
"""

from __future__ import annotations

import warnings

import torch
from matplotlib.figure import Figure

from bench.paper import densities
from bench.paper.densities import Gap, cast, gap, shown
from bench.paper.report import Report
from bench.paper.study import Study, run
from eqflow.score import Density, DensityShape, DensityTraining, train_density
from eqflow.systems import LimitCycle

POINTS, FEW, COMPONENTS = 5000, 500, 100
LIKELIHOOD, MATCHING, BOTH = (1.0, 0.0), (0.0, 1.0), (1.0, 0.1)
# title: weights, couplings, noise on the first centroids, steps, KL seen earlier
KINDS = {
    "maximum likelihood": (LIKELIHOOD, 0, 0.0, 800, "0.0076"),
    "score matching": (MATCHING, 0, 0.0, 800, "0.012"),
    "both": (BOTH, 0, 0.0, 800, "0.011"),
    "score matching, random centroids": (MATCHING, 0, 1.0, 800, "0.27 to 0.29"),
    "maximum likelihood, 2 couplings": (LIKELIHOOD, 2, 0.0, 800, "0.0071"),
    "both, 2 couplings": (BOTH, 2, 0.0, 600, "0.0098"),
}


def trained(study: Study, points: torch.Tensor, weights, couplings: int, jitter: float, steps: int, **more) -> Density:
    """One density."""
    shape = DensityShape(2, 20 if study.quick else COMPONENTS, 0 if study.quick else couplings)
    training = DensityTraining(study.steps(steps), 256, 3e-3, *weights, jitter=jitter, **more)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*known by heart", UserWarning)  # which is the point here
        return train_density(points, shape, training).density


def work(study: Study) -> int:
    report = Report(study, "density_from_data", "Figure 6: a density from points")
    system, found, panels = LimitCycle(diffusion=0.2), {}, []
    points = system.sample(study.count(POINTS), seed=1).float()
    with report.part("many points"):
        rows = []
        for title, (weights, couplings, jitter, steps, earlier) in KINDS.items():
            report.progress(f"{title}, {report.seconds:.0f} s so far")
            density = trained(study, points, weights, couplings, jitter, steps)
            found[title] = gap(system, density)
            rows.append([title, earlier, *shown(found[title])])
            panels.append((title, density))
        report.table(f"{len(points)} points", densities.columns("objective", "KL, earlier"), rows)
        judge(report, found)
    with report.part("few points"):
        few, rows = system.sample(study.count(FEW), seed=2).float(), []
        for title, apart in (("to the last step", 0.0), ("the best on a fifth kept apart", 0.2)):
            found[title] = gap(system, trained(study, few, LIKELIHOOD, 0, 0.0, 800, held_out=apart))
            rows.append([title, "0.4 to 1.0" if not apart else "–", *shown(found[title])])
        report.table(f"{len(few)} points, maximum likelihood", densities.columns("kept", "KL, earlier"), rows)
        report.check("500 points: KL of the best over that of the last",
                     found[title].divergence / found["to the last step"].divergence, "< 0.5", high=0.5)  # fmt: skip
    report.keep(**{title: each._asdict() for title, each in found.items()})
    with report.part("the picture"):
        sheet = Figure(figsize=(10.5, 7.2), layout="constrained")
        highest = 1.2 * float(system.log_density(torch.tensor([[1.0, 0.0]], dtype=torch.float64)).exp())
        for axes, (title, density) in zip(sheet.subplots(2, 3).flat, panels, strict=True):
            densities.panel(axes, cast(density), title, highest)
        report.draw(sheet)
    return report.finish()


def judge(report: Report, found: dict[str, Gap]) -> None:
    """The paper's claim beside ours, and the mass."""
    one, both = (found[title].divergence for title in ("maximum likelihood", "both"))
    verdict = "better, as it says" if both < one else "not better"
    report.note(
        f"The paper: both objectives together are better than maximum likelihood. Here they are {verdict}: "
        f"KL {both:.2g} against {one:.2g}."
    )
    masses = [each.mass for title, each in found.items() if "random" not in title]  # whose stray ones lie outside
    report.check("mass on the grid, without the stray centroids", masses, "1 ± 1e-3", low=0.999, high=1.001)
    report.check("maximum likelihood, 5000 points: KL", one, "< 0.025", high=0.025)


def main(argv: list[str] | None = None) -> None:
    run(work, __doc__, argv, models=1)


if __name__ == "__main__":
    main()
