"""`eqflow density`: a density of points that can be evaluated, drawn from, and used to denoise and to cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from eqflow.cli import _density_work, _fit_request, _fit_source, _place
from eqflow.cli._options import (
    Cloud,
    Columns,
    Dataset,
    Device,
    Json,
    Repeats,
    Samples,
    option,
    real_option,
    whole_option,
)
from eqflow.cli._shell import rank, usage

_DENSITY, _RUN, _FILES = "Density", "Run", "Files"


def density(
    points: Cloud = None,
    out: Annotated[
        Path | None, option("--out", "-o", help="Folder of the density. Default: NAME-density.", panel=_FILES)
    ] = None,
    samples: Samples = None,
    columns: Columns = None,
    dataset: Dataset = None,
    repeats: Repeats = "refuse",
    components: Annotated[
        int | None,
        whole_option("--components", help="Gaussians. Default: one for 10 points, at most 200.", panel=_DENSITY),
    ] = None,
    couplings: Annotated[
        int, whole_option("--couplings", help="Layers of an invertible network that bends the mixture.", panel=_DENSITY)
    ] = 0,
    hidden: Annotated[
        str | None, option("--hidden", help="Widths of a coupling's hidden layers. Default: 64,64.", panel=_DENSITY)
    ] = None,
    objective: Annotated[
        str, option("--objective", help="likelihood, matching (of the score) or both.", panel=_DENSITY)
    ] = "likelihood",
    steps: Annotated[int, whole_option("--steps", help="Of training.", panel=_DENSITY)] = 800,
    batch: Annotated[int, whole_option("--batch", help="Points a step.", panel=_DENSITY)] = 256,
    rate: Annotated[float, real_option("--rate", help="Learning rate.", panel=_DENSITY)] = 0.003,
    seed: Annotated[int, whole_option("--seed", help="Same seed, same density.", panel=_RUN)] = 0,
    device: Device = "auto",
    show: Annotated[
        Path | None, option("--show", help="The picture here too (.png), not in the folder alone.", panel=_FILES)
    ] = None,
    as_json: Json = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace another density.", panel=_FILES)] = False,
) -> None:
    """Fit a density to points: a mixture of Gaussians of one shape, seen through an invertible network if asked for.

    A tenth of the points is kept apart and says when to stop. The same command goes on where it was stopped, to the
    same bits.

    \b
    eqflow density nine-arcs --samples 4500 --components 450
    eqflow density cells.csv --columns gene1,gene2 --out cells
    eqflow cluster nine-arcs-density --show clusters.png
    eqflow denoise nine-arcs-density --out clean.csv
    """
    own = ("out", "device", "show", "overwrite", "as_json")
    given = {name: value for name, value in locals().items() if name not in (*own, "own")}
    if rank()[1] > 1:
        raise usage("expected one process, since a density is not split over ranks: run it without torchrun")
    _density_work.check(given)
    place = _place.folder(out or _fit_source.default_folder(points, "density"))
    if show:
        _fit_request.check_show(show, overwrite)
    where = _place.device(device, "auto")
    cloud = _fit_source.load(given, command="density", coordinates=1)
    request = _density_work.resolve(given, cloud)
    _density_work.go(cloud, request, place, where, show, as_json, overwrite)
