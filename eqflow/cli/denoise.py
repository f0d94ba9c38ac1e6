"""`eqflow denoise`: points moved to where the density expects them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqflow.cli import _density_use
from eqflow.cli._density_use import Points, Run
from eqflow.cli._options import Columns, Dataset, Json, option, real_option, whole_option
from eqflow.cli._run_folder import write_json
from eqflow.cli._shell import usage
from eqflow.cli._words import count

_STEPS, _FILES = "Steps", "Files"


def denoise(
    run: Run = None,
    points: Points = None,
    temperature: Annotated[
        float, real_option("--temperature", "-t", help="Of the density: hotter, smoother.", panel=_STEPS)
    ] = 1.0,
    steps: Annotated[int, whole_option("--steps", help="One takes most of the noise away.", panel=_STEPS)] = 1,
    columns: Columns = None,
    dataset: Dataset = None,
    out: Annotated[
        Path | None, option("--out", "-o", help="The new points, .csv or .npy. Required.", panel=_FILES)
    ] = None,
    show: Annotated[Path | None, option("--show", help="A picture (.png).", panel=_FILES)] = None,
    as_json: Json = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace files of these names.", panel=_FILES)] = False,
) -> None:
    """Take the noise out of points: each moves to the mean of the components that it may come from.

    \b
    eqflow density nine-arcs --samples 4500 --components 450
    eqflow denoise nine-arcs-density --out clean.csv --show clean.png
    eqflow denoise nine-arcs-density new.csv --steps 3 --out new-clean.npy
    """
    given = {"columns": columns, "dataset": dataset}
    _density_use.check("denoise", run, points, given, temperature, steps, out, show, overwrite)
    if out is None:
        raise usage("expected --out FILE, where the new points go, got none: add for example --out clean.csv")
    from eqflow.cli import _density_kept
    from eqflow.score import denoise as move

    kept = _density_kept.load(run, points, dataset, columns)
    after = move(kept.density, kept.points, temperature=temperature, steps=steps)
    energy = [float(kept.density.energy(each).mean()) + float(kept.sd.log().sum()) for each in (kept.points, after)]
    distance = float((after - kept.points).norm(dim=1).mean())
    before, values = (kept.outward(each).numpy() for each in (kept.points, after))
    typer.echo(
        f"{count(len(values))} points of {', '.join(kept.names)} moved by {distance:.3g} standard deviations on "
        f"average; log density {-energy[0]:.4g} before, {-energy[1]:.4g} after"
    )
    _density_use.write(out, kept.names, values)
    typer.echo(f"wrote {out}")
    if show is not None:
        from eqflow.cli import _density_picture

        title = f"{kept.name}: {count(len(values))} points, denoised at T {temperature:g}\ngrey before, blue after"
        _density_picture.moved(show, title, kept.names, before, values)
        typer.echo(f"wrote {show}")
    if as_json is not None:
        facts = {"points": len(values), "temperature": temperature, "steps": steps, "mean_distance_in_sd": distance}
        write_json(as_json, {**facts, "log_density_before": -energy[0], "log_density_after": -energy[1]})
        typer.echo(f"wrote {as_json}")
