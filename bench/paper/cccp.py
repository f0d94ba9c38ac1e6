"""Figures 7 and 8 of Lu, Kusmierz and Mihalas: noise taken out of clusters, and clusters found, by one procedure.

Nine half circles with 500 points each and noise of 0.08, 450 components, maximum likelihood with 0.02 of score
matching. One step at temperature 1 denoises; hotter fixed points are the clusters. About 2 minutes on one core.
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper.report import Report, number
from bench.paper.study import Study, run
from eqflow.score import Density, DensityShape, DensityTraining, cluster, denoise, train_density
from eqflow.systems import NineArcs

POINTS, COMPONENTS, RADIUS = 4500, 450, 0.15
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)


def rand_index(one: Tensor, other: Tensor) -> float:
    """The Rand index of two labellings, 1 where they agree and 0 on average by chance (Hubert and Arabie 1985)."""
    table = torch.zeros(int(one.max()) + 1, int(other.max()) + 1, dtype=torch.float64)
    table.index_put_((one, other), torch.ones(len(one), dtype=torch.float64), accumulate=True)
    pairs, rows, columns = ((part * (part - 1) / 2).sum() for part in (table, table.sum(1), table.sum(0)))
    chance = rows * columns / (len(one) * (len(one) - 1) / 2)
    return float((pairs - chance) / ((rows + columns) / 2 - chance)) if rows + columns > 2 * chance else 1.0


def arcs() -> tuple[Tensor, Tensor]:
    """Points without noise along the nine arcs, densely, and which arc each is of."""
    position = torch.linspace(0, 1, 400, dtype=torch.float64).repeat(9)
    branch = torch.arange(9).repeat_interleave(400)
    return NineArcs().place(branch, position)[0], branch


def distance(points: Tensor) -> float:
    """Mean distance to the nearest place of an arc."""
    return float(torch.cdist(points, arcs()[0]).amin(1).mean())


def cleaned(report: Report, density: Density, points: Tensor) -> Tensor:
    """One step, and that the energy falls."""
    after = denoise(density, points)
    before, now = distance(points), distance(after)
    centroids = density(density.centroids)
    weights = density.logits.softmax(0)
    apart = float((torch.cdist(centroids, arcs()[0]).amin(1) * weights).sum())
    report.table("Distance to the arcs without noise", ["", "earlier", "now"],
                 [["points", "0.064", number(before)], ["after one step, T = 1", "0.012", number(now)],
                  ["centroids, by weight", "0.014 to 0.016", number(apart)]])  # fmt: skip
    report.check("one step at T = 1: times nearer to the arcs", before / now, ">= 3", low=3.0)
    rises = []
    for temperature in (1.0, 16.0):
        state, rise = points[:500], 0.0
        energy = -density.mixture(temperature).log_density(density.inverse(state)[0])
        for _ in range(30):
            state = denoise(density, state, temperature=temperature)
            last, energy = energy, -density.mixture(temperature).log_density(density.inverse(state)[0])
            rise = max(rise, float((energy - last).max()))
        rises.append(rise)
    report.check("largest rise of the energy of the same temperature, 30 steps", rises, "< 1e-10", high=1e-10)
    report.keep(distance={"points": before, "denoised": now, "centroids": apart}, largest_rise=rises)
    return after


def sorted_by_heat(report: Report, density: Density, points: Tensor, truth: Tensor) -> Tensor:
    """Clusters at several temperatures; the labels of T = 16."""
    rows, kept, labels = [], {}, truth
    earlier = {1.0: "46 to 48", 8.0: "11 to 12, 0.94 to 0.97", 16.0: "9, 1.000", 32.0: "9, 1.000", 64.0: "9, 1.000"}
    for temperature in TEMPERATURES:
        found = cluster(density, points, temperature=temperature, steps=50, radius=RADIUS)
        index = rand_index(found.labels, truth)
        rows.append([f"{temperature:g}", earlier.get(temperature, "–"), len(found.sizes), f"{index:.4f}"])
        kept[f"{temperature:g}"] = {"clusters": len(found.sizes), "rand_index": index}
        if temperature >= 16:
            report.check(f"T = {temperature:g}: clusters", len(found.sizes), "9", low=9, high=9)
            report.check(f"T = {temperature:g}: adjusted Rand index", index, "> 0.99", low=0.99)
        labels = found.labels if temperature == 16 else labels
    report.table("Clusters by temperature", ["T", "earlier: clusters, index", "clusters", "adjusted Rand index"], rows)
    report.keep(clusters=kept)
    return labels


def picture(points: Tensor, after: Tensor, labels: Tensor) -> Figure:
    """Points, denoised points, clusters."""
    sheet = Figure(figsize=(12, 4.2), layout="constrained")
    left, middle, right = sheet.subplots(1, 3)
    left.plot(*points.T.numpy(), ".", color="0.5", markersize=1.5, markeredgewidth=0)
    middle.plot(*after.T.numpy(), ".", color="#00798c", markersize=1.5, markeredgewidth=0)
    right.scatter(*points.T.numpy(), c=labels.numpy() % 20, cmap="tab20", s=1.5, linewidths=0)
    for axes, title in ((left, "points"), (middle, "after one step, T = 1"), (right, "fixed points, T = 16")):
        axes.set(xticks=[], yticks=[], aspect="equal", title=title)
    return sheet


def work(study: Study) -> int:
    report = Report(study, "cccp", "Figures 7 and 8: denoising and clusters by the concave-convex procedure")
    system = NineArcs()
    points = system.sample(study.count(POINTS), seed=0)
    clean, branch = arcs()
    truth = branch[torch.cdist(NineArcs(noise=1e-12).sample(len(points), seed=0), clean).argmin(1)]
    shape = DensityShape(2, 90 if study.quick else COMPONENTS)
    training = DensityTraining(study.steps(700), 256, 3e-3, 1.0, 0.02, jitter=0.1, held_out=0.0)
    report.progress("training")
    density = train_density(points.float(), shape, training).density.double()
    after, labels = points, truth
    with report.part("denoising"):
        after = cleaned(report, density, points)
    with report.part("clusters"):
        labels = sorted_by_heat(report, density, points, truth)
    with report.part("the picture"):
        report.draw(picture(points, after, labels))
    return report.finish()


def main(argv: list[str] | None = None) -> None:
    run(work, __doc__, argv, models=1)


if __name__ == "__main__":
    main()
