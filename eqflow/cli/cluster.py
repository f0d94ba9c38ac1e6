"""`eqflow cluster`: points by the peaks of a hotter density that they climb to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eqflow.cli import _density_use
from eqflow.cli._density_use import Points, Run
from eqflow.cli._options import Columns, Dataset, Json, option, real_option, whole_option
from eqflow.cli._run_folder import write_json
from eqflow.cli._words import count, number

_CLUSTERS, _FILES = "Clusters", "Files"
_TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
_TRIED, _SHOWN = 1000, 12  # points that every temperature is tried on; clusters that are printed


def cluster(
    run: Run = None,
    points: Points = None,
    temperature: Annotated[
        float, real_option("--temperature", "-t", help="Of the density: hotter, fewer clusters.", panel=_CLUSTERS)
    ] = 16.0,
    radius: Annotated[
        float,
        real_option("--radius", help="Peaks this near are one, in standard deviations.", panel=_CLUSTERS),
    ] = 0.1,
    steps: Annotated[int, whole_option("--steps", help="Towards the peaks, at most.", panel=_CLUSTERS)] = 200,
    columns: Columns = None,
    dataset: Dataset = None,
    out: Annotated[
        Path | None, option("--out", "-o", help="The points with their cluster, .csv or .npy.", panel=_FILES)
    ] = None,
    show: Annotated[Path | None, option("--show", help="A picture (.png).", panel=_FILES)] = None,
    as_json: Json = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace files of these names.", panel=_FILES)] = False,
) -> None:
    """Sort points into clusters: those that climb to one peak of the density with its covariance times a temperature.

    How many clusters other temperatures find is printed too: a number that stays over several is worth a look.

    \b
    eqflow density nine-arcs --samples 4500 --components 450
    eqflow cluster nine-arcs-density --show clusters.png --out clusters.csv
    eqflow cluster nine-arcs-density new.csv --temperature 32
    """
    given = {"columns": columns, "dataset": dataset}
    _density_use.check("cluster", run, points, given, temperature, steps, out, show, overwrite)
    number("--radius", radius, above=0)
    from eqflow.cli import _density_kept
    from eqflow.score import cluster as sort

    kept = _density_kept.load(run, points, dataset, columns)
    few = kept.points[:: -(-len(kept.points) // _TRIED)]
    tried = {
        each: len(sort(kept.density, few, temperature=each, steps=steps, radius=radius).sizes) for each in _TEMPERATURES
    }
    found = sort(kept.density, kept.points, temperature=temperature, steps=steps, radius=radius)
    found = found._replace(centres=kept.outward(found.centres))
    for line in _lines(kept, found, temperature, tried):
        typer.echo(line)
    values = kept.outward(kept.points).numpy()
    if out is not None:
        import numpy

        table = numpy.concatenate([values, found.labels.numpy()[:, None] + 1], 1)
        _density_use.write(out, [*kept.names, "cluster"], table)
        typer.echo(f"wrote {out}")
    if show is not None:
        from eqflow.cli import _density_picture

        title = f"{kept.name}: {count(len(found.sizes))} clusters of {count(len(values))} points, T {temperature:g}"
        _density_picture.clusters(show, title, kept.names, values, found)
        typer.echo(f"wrote {show}")
    if as_json is not None:
        write_json(as_json, _facts(kept, found, temperature, tried))
        typer.echo(f"wrote {as_json}")


def _lines(kept: Any, found: Any, temperature: float, tried: dict[float, int]) -> list[str]:
    points, sizes = len(found.labels), found.sizes.tolist()
    rows = [[str(n + 1), count(size), f"{size / points:.1%}", *(f"{value:.4g}" for value in centre)]
            for n, (size, centre) in enumerate(zip(sizes, found.centres.tolist(), strict=True))][:_SHOWN]  # fmt: skip
    head = ["cluster", "points", "share", *kept.names]
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows]]
    more = [f"and {count(len(sizes) - _SHOWN)} smaller ones: see --json"] if len(sizes) > _SHOWN else []
    size = f"{count(len(sizes))} {'cluster' if len(sizes) == 1 else 'clusters'} at temperature {temperature:g}"
    others = ", ".join(f"{number_} at {each:g}" for each, number_ in tried.items())
    return [
        f"{count(points)} points of {', '.join(kept.names)}: {size}",
        f"clusters by temperature: {others}",
        "",
        *table,
        *more,
    ]


def _facts(kept: Any, found: Any, temperature: float, tried: dict[float, int]) -> dict[str, Any]:
    return {
        "points": len(found.labels),
        "temperature": temperature,
        "clusters": [
            {"points": size, "centre": dict(zip(kept.names, centre, strict=True))}
            for size, centre in zip(found.sizes.tolist(), found.centres.tolist(), strict=True)
        ],
        "clusters_by_temperature": {f"{each:g}": number_ for each, number_ in tried.items()},
    }
