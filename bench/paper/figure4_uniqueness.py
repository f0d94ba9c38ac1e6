"""Figure 4: are independently trained flows one flow? 100 learned, 100 training-free, 100 random, Lorenz, the score.

|cos| of every two fields as a matrix, a map of all of them by UMAP (cosine metric, 15 neighbours), and the fidelity of
the learned ones to Lorenz. The upper row is the paper's protocol as it is described, the lower one the best here. The
map needs `pip install "eqflow[paper]"`; without it the matrix and the histogram are drawn. A map alone is no evidence:
it shows who is near whom, not how near. With the models of table1_lorenz in the cache one minute; without, 20 minutes
on two cores.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy
import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper import clouds, fields
from bench.paper.families import FAMILIES
from bench.paper.report import Report, spread
from bench.paper.study import Study, run
from bench.paper.training import Job, train
from eqflow.metrics import similarity

PROTOCOLS = {"as described": "paper", "best": "best"}
_HUES = {"learned": "#d1495b", "training-free": "#66418c", "random": "#7a9e3b", "truth": "black", "score": "#e08e0b"}
_WORDS = {"truth": "Lorenz"}
_PAPER_BINS, _NEIGHBOURS = 50, 15


def flattened(found: fields.Fields) -> tuple[Tensor, list[str]]:
    """All fields as rows [fields, points * dimension] of length 1, and the kind of each."""
    kinds = [kind for kind in fields.KINDS for _ in found.of(kind)]
    rows = torch.cat([found.of(kind).flatten(1) for kind in fields.KINDS])
    return rows / rows.norm(dim=1, keepdim=True), kinds


def placed(rows: Tensor) -> numpy.ndarray | None:
    """Where UMAP puts each row, or None where it is not installed."""
    try:
        import umap
    except ImportError:
        return None
    neighbours = min(_NEIGHBOURS, len(rows) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that a fixed seed means one thread
        mapping = umap.UMAP(metric="cosine", n_neighbors=neighbours, random_state=0)
        return mapping.fit_transform(rows.numpy())


def _map(axes: Any, place: numpy.ndarray, kinds: list[str]) -> None:
    for kind, hue in _HUES.items():
        chosen = [index for index, each in enumerate(kinds) if each == kind]
        alone = len(chosen) == 1
        axes.plot(*place[chosen].T, "*" if alone else "o", color=hue, markersize=15 if alone else 4,
                  alpha=1 if alone else 0.7, markeredgecolor="white", markeredgewidth=0.6 if alone else 0,
                  label=_WORDS.get(kind, kind), zorder=3 if alone else 2)  # fmt: skip
    axes.set(xticks=[], yticks=[], title="UMAP, cosine")
    axes.legend(frameon=False, fontsize=8)


def _matrix(sheet: Figure, axes: Any, matrix: Tensor, kinds: list[str]) -> None:
    models = kinds.count("learned")
    broad = max(1, models // 6)  # so that the two fields of which there is one are seen
    order = [*range(3 * models), *[3 * models] * broad, *[3 * models + 1] * broad]
    image = axes.imshow(matrix[order][:, order].numpy(), vmin=0, vmax=1, cmap="magma", interpolation="nearest")
    ends = [0, models, 2 * models, 3 * models, 3 * models + broad, 3 * models + 2 * broad]
    for end in ends[1:-1]:
        axes.axhline(end - 0.5, color="white", linewidth=0.6)
        axes.axvline(end - 0.5, color="white", linewidth=0.6)
    middles = [(a + b - 1) / 2 for a, b in itertools.pairwise(ends)]
    words = [_WORDS.get(kind, kind) for kind in fields.KINDS]
    axes.set_yticks(middles, words)
    axes.set_xticks([])
    axes.tick_params(length=0, labelsize=8)
    axes.set_title("|cos| of every two")
    sheet.colorbar(image, ax=axes, shrink=0.75)


def _histogram(axes: Any, found: Tensor, paper_bins: bool) -> None:
    high = 0.5 if paper_bins and float(found.max()) <= 0.5 else 1.0
    axes.hist(found.numpy(), bins=numpy.linspace(0, high, _PAPER_BINS + 1), color=_HUES["learned"])
    axes.axvline(0.25, color="0.3", linestyle="--", linewidth=1)
    axes.text(0.25, 1.0, " paper: 0.25", fontsize=8, va="top", transform=axes.get_xaxis_transform())
    axes.set(xlim=(0, high), xlabel="|cos| of a learned flow with Lorenz", ylabel="models", title="fidelity")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.spines[["top", "right"]].set_visible(False)


def picture(rows: dict[str, tuple[Tensor, list[str], numpy.ndarray | None, Tensor]]) -> Figure:
    """One row of panels for each protocol."""
    mapped = any(place is not None for _, _, place, _ in rows.values())
    columns = 3 if mapped else 2
    sheet = Figure(figsize=(4.9 * columns, 4.6 * len(rows)), layout="constrained")
    parts = sheet.subfigures(len(rows), 1)
    for part, (title, (matrix, kinds, place, found)) in zip(numpy.atleast_1d(parts), rows.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", fontweight="bold")
        axes = part.subplots(1, columns)
        if place is not None:
            _map(axes[0], place, kinds)
        _matrix(part, axes[-2], matrix, kinds)
        _histogram(axes[-1], found, title == next(iter(rows)))
    return sheet


def work(study: Study) -> int:
    report = Report(study, "figure4_uniqueness", "Figure 4: uniqueness of the learned flow")
    cloud = clouds.chaotic(study, "lorenz")
    jobs = [Job(FAMILIES[name], cloud, study.models) for name in PROTOCOLS.values()]
    flows = dict(zip(PROTOCOLS, train(jobs, study), strict=True))
    drawn, rows = {}, []
    for title, name in PROTOCOLS.items():
        with report.part(title):
            found = fields.compare(cloud, flows[title], study.settings(FAMILIES[name].settings))
            own, close = fields.pairs(found.learned), fields.fidelity(found.learned, found.truth[0])
            flat, kinds = flattened(found)
            matrix = similarity(flat)
            drawn[FAMILIES[name].title] = matrix, kinds, placed(flat), close
            null = [fields.pairs(part) for part in (found.training_free, found.random)]
            rows.append([title, study.models, spread(own), spread(close), *map(spread, null)])
            report.keep(**{title: {"pairs": own, "fidelity": close}})
            if title == "best":
                report.check("best: pairs", own.tolist(), ">= 0.995", low=0.995)
                report.check("best: mean of pairs", float(own.mean()), ">= 0.99", low=0.99)
    rows.insert(0, ["paper", 100, "0.99 ± 0.01", "0.25 ± 0.01", "0.50 ± 0.29", "0.38 ± 0.24"])
    columns = ["protocol", "M", "learned, each other", "learned, Lorenz", "training-free", "random"]
    report.table("|cos| of fields", columns, rows)
    if all(place is None for _, _, place, _ in drawn.values()):
        report.note(
            'umap-learn is not installed, so there is no map: pip install "eqflow[paper]". The matrix shows more.'
        )
    with report.part("the picture"):
        report.draw(picture(drawn))
    return report.finish()


def main(argv: list[str] | None = None) -> None:
    run(work, __doc__, argv, models=100)


if __name__ == "__main__":
    main()
