"""Figure 5 of Lu, Kusmierz and Mihalas: the density of a noisy limit cycle from its equation, without a sample.

The system of the paper is not stated; here it is x' = x (1 - |x|^2) + (-y, x) with D = 0.2, whose density is known. The
paper's loss, the mean of |r| at uniform probes, beside the residual weighted by the density with the gradient through
it; smaller noise with an annealed D; and the equation together with 300 points. About 5 minutes on one core.
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure

from bench.paper import densities
from bench.paper.densities import BOX, Gap, cast, gap, shown
from bench.paper.report import Report, number
from bench.paper.study import Study, run
from eqflow.fokker_planck import DynamicsFit, DynamicsTraining, density_from_dynamics
from eqflow.score import Density, DensityShape, DensityTraining, train_density
from eqflow.systems import LimitCycle

COMPONENTS, FEW = 100, 300
_EARLIER = {"unweighted": "0.20 to 0.27", "absolute": "0.001 to 0.005", "squared": "0.00007 to 0.026"}
_TITLES = {
    "unweighted": "mean |r|, unweighted (the paper)",
    "absolute": "integral of q |r|",
    "squared": "integral of q r²",
}


def solve(report: Report, study: Study, system: LimitCycle, objective: str, starts: int, **options) -> DynamicsFit:
    """A density from the equation alone."""
    training = DynamicsTraining(objective, study.steps(600), study.count(448), starts=starts, **options)
    report.progress(f"D {system.diffusion:g}, {objective}: {starts} runs, {report.seconds:.0f} s so far")
    shape = DensityShape(2, 20 if study.quick else COMPONENTS)
    return density_from_dynamics(system.drift, system.diffusion, BOX, shape, training)


def objectives(report: Report, study: Study, system: LimitCycle) -> dict[str, Density]:
    """Three losses on one equation."""
    rows, found = [], {}
    for name, starts in (("unweighted", 1), ("absolute", 1), ("squared", study.models)):
        fit = solve(report, study, system, name, starts)
        each = gap(system, fit.density)
        rows.append([_TITLES[name], starts, _EARLIER[name], *shown(each), number(fit.objective), f"{fit.mass:.4f}"])
        report.keep(**{name: {**each._asdict(), "objectives": fit.objectives, "mass_in_box": fit.mass}})
        found[_TITLES[name]] = fit.density
        if name == "squared":
            report.check("D = 0.2, q r², best start by its loss: KL", each.divergence, "< 0.005", high=0.005)
            report.check("D = 0.2, q r², best start by its loss: TV", each.variation, "< 0.03", high=0.03)
        elif name == "unweighted":
            report.check("D = 0.2, the paper's loss: KL", each.divergence, "> 0.1", low=0.1)
    drawn = train_density(
        system.sample(study.count(50_000), seed=1).float(), DensityShape(2, 20 if study.quick else COMPONENTS),
        DensityTraining(study.steps(800), rate=0.02),
    ).density  # fmt: skip
    rows.append(["maximum likelihood on 50,000 samples", 1, "0.0015", *shown(gap(system, drawn)), "–", "–"])
    columns = densities.columns("minimised, D = 0.2", "starts", "KL, earlier")
    report.table("A density from the equation alone", [*columns, "loss", "mass in the box"], rows)
    return found


def small_noise(report: Report, study: Study) -> tuple[LimitCycle, Density]:
    """D = 0.1, with D falling from 0.5."""
    system = LimitCycle(diffusion=0.1)
    fit = solve(report, study, system, "squared", study.models, anneal=0.5)
    each = gap(system, fit.density)
    report.table("Small noise, D = 0.1, annealed from 0.5", densities.columns("minimised", "KL, earlier"),
                 [[_TITLES["squared"], "0.0035 to 0.0042", *shown(each)]])  # fmt: skip
    report.check("D = 0.1, annealed: KL", each.divergence, "< 0.015", high=0.015)
    report.check("D = 0.1, annealed: TV", each.variation, "< 0.06", high=0.06)
    report.keep(annealed={**each._asdict(), "objectives": fit.objectives})
    return system, fit.density


def with_few_points(report: Report, study: Study, system: LimitCycle) -> None:
    """300 points alone, and then the equation."""
    points = system.sample(study.count(FEW), seed=3).float()
    shape = DensityShape(2, 50)
    start = train_density(points, shape, DensityTraining(study.steps(300), held_out=0.2)).density
    training = DynamicsTraining(steps=study.steps(400), probes=study.count(448))
    fit = density_from_dynamics(system.drift, system.diffusion, BOX, shape, training, start=start)
    before, after = gap(system, start), gap(system, fit.density)
    rows: list[tuple[str, str, Gap]] = [("300 points, maximum likelihood", "0.098", before)]
    rows += [("then the equation", "0.0004", after)]
    report.table("A few points, then the equation, D = 0.2", densities.columns("", "KL, earlier"),
                 [[title, earlier, *shown(each)] for title, earlier, each in rows])  # fmt: skip
    report.keep(few={"points": before._asdict(), "equation": after._asdict()})


def work(study: Study) -> int:
    report = Report(study, "limit_cycle_density", "Figure 5: the density of a noisy limit cycle from its equation")
    system, found = LimitCycle(diffusion=0.2), {}
    panels = [(system, "true, D = 0.2", system.log_density)]
    with report.part("the losses"):
        found = objectives(report, study, system)
        panels += [(system, title, cast(density)) for title, density in found.items()]
    with report.part("small noise"):
        other, density = small_noise(report, study)
        panels += [(other, "true, D = 0.1", other.log_density), (other, "q r², D from 0.5 to 0.1", cast(density))]
    with report.part("a few points"):
        with_few_points(report, study, system)
    with report.part("the picture"):
        sheet = Figure(figsize=(10.5, 7.2), layout="constrained")
        for axes, (of, title, log_density) in zip(sheet.subplots(2, 3).flat, panels, strict=False):
            highest = float(of.log_density(torch.tensor([[1.0, 0.0]], dtype=torch.float64)).exp())
            densities.panel(axes, log_density, title, 1.1 * highest)
        report.draw(sheet)
    return report.finish()


def main(argv: list[str] | None = None) -> None:
    run(work, __doc__, argv, models=3)


if __name__ == "__main__":
    main()
