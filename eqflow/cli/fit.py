"""`eqflow fit`: from unordered snapshots to the flow that keeps their density, and how sure that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from eqflow.cli import _fit_request, _fit_source, _fit_work, _place
from eqflow.cli._options import Cloud, Columns, Dataset, Device, Repeats, Samples, option, real_option, whole_option
from eqflow.cli._shell import rank, usage

_SCORE, _FLOW, _RUN, _FILES = "Score", "Flow", "Run", "Files"


def fit(
    points: Cloud = None,
    out: Annotated[
        Path | None, option("--out", "-o", help="Folder of the flow. Default: NAME-flow.", panel=_FILES)
    ] = None,
    samples: Samples = None,
    columns: Columns = None,
    dataset: Dataset = None,
    repeats: Repeats = "refuse",
    alpha: Annotated[
        float, real_option("--alpha", help="Squared signal: the noise added has variance 1 - alpha.", panel=_SCORE)
    ] = 0.95,
    score: Annotated[
        str | None,
        option("--score", help="kernel (exact) or net. Default: kernel up to 1e5 points.", panel=_SCORE),
    ] = None,
    score_steps: Annotated[int, whole_option("--score-steps", help="Of training a score net.", panel=_SCORE)] = 5000,
    pool: Annotated[
        int | None,
        whole_option("--pool", help="Noised points at which the score is taken. Default: 40000.", panel=_SCORE),
    ] = None,
    method: Annotated[str, option("--method", help="closed-form, learned or both.", panel=_FLOW)] = "both",
    degree: Annotated[
        int | None, whole_option("--degree", help="Of the polynomials. Default: 5, or what fits.", panel=_FLOW)
    ] = None,
    models: Annotated[
        int, whole_option("--models", help="Networks from different starts: whether they agree.", panel=_FLOW)
    ] = 2,
    equivariance: Annotated[
        str, option("--equivariance", help="auto: keep a symmetry that the points have; or none.", panel=_FLOW)
    ] = "auto",
    objective: Annotated[
        str | None, option("--objective", help="expected, exact, sampled or product. Default: expected.", panel=_FLOW)
    ] = None,
    probes: Annotated[
        int | None, whole_option("--probes", help="k: the strain counts 2 / k. Default: 8.", panel=_FLOW)
    ] = None,
    law: Annotated[
        str | None, option("--law", help="Of the probes: gaussian or rademacher. Default: gaussian.", panel=_FLOW)
    ] = None,
    norm: Annotated[
        str | None, option("--norm", help="scalar or per-coordinate. Default: scalar.", panel=_FLOW)
    ] = None,
    frequencies: Annotated[
        int | None, whole_option("--frequencies", help="Octaves of sines and cosines. Default: 2.", panel=_FLOW)
    ] = None,
    hidden: Annotated[
        str | None, option("--hidden", help="Widths of the hidden layers. Default: 128,128,128.", panel=_FLOW)
    ] = None,
    steps: Annotated[
        int | None, whole_option("--steps", help="Of training a flow. Default: 1500.", panel=_FLOW)
    ] = None,
    rate: Annotated[float | None, real_option("--rate", help="Learning rate. Default: 0.005.", panel=_FLOW)] = None,
    paper: Annotated[
        bool,
        option(
            "--paper", help="Other defaults: sampled, per-coordinate, 1 probe, 5 octaves, no symmetry.", panel=_FLOW
        ),
    ] = False,
    seed: Annotated[int, whole_option("--seed", help="Same seed, same flow.", panel=_RUN)] = 0,
    device: Device = "auto",
    show: Annotated[
        Path | None, option("--show", help="The picture here too (.png), not in the folder alone.", panel=_FILES)
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace another fit.", panel=_FILES)] = False,
) -> None:
    """Find the flow that keeps the density of unordered snapshots, and say how sure that is.

    The points need no time and no order. The same command goes on where it was stopped, to the same bits.

    \b
    eqflow fit lorenz
    eqflow fit cells.csv --columns gene1,gene2 --out cells
    eqflow fit cloud.npy --method closed-form --alpha 0.98
    eqflow rollout lorenz-flow --steps 5000 --every 5 --out path --show path.png
    """
    given = {name: value for name, value in locals().items() if name not in ("out", "device", "show", "overwrite")}
    if rank()[1] > 1:
        raise usage("expected one process, since a fit is not split over ranks: run it without torchrun")
    _fit_request.check(given)
    place = _place.folder(out or _fit_source.default_folder(points))
    if show:
        _fit_request.check_show(show, overwrite)
    where = _place.device(device, "auto")
    cloud = _fit_source.load(given)
    request = _fit_request.resolve(given, cloud)
    _fit_work.go(cloud, request, place, where, show, overwrite)
