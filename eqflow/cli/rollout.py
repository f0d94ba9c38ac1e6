"""`eqflow rollout`: follow dynamics for many steps, from a closed form, from points, a fit, or the ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqflow.cli import _place, _rollout_request, _rollout_work, _sources
from eqflow.cli._options import Columns, Device, option, real_option, whole_option
from eqflow.cli._shell import rank

_SYSTEM, _RUN, _FILES = "System", "Run", "Files"


def rollout(
    source: Annotated[
        str | None,
        typer.Argument(
            help="gaussian, mixture, points FILE, gray-scott:PRESET, pretrained:NAME or RUN.", show_default=False
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Argument(help="With points: a .csv, .npy or .hdf5 file.", show_default=False)
    ] = None,
    out: Annotated[Path | None, option("--out", "-o", help="Folder of the rollout. Required.", panel=_FILES)] = None,
    steps: Annotated[int, whole_option("--steps", help="Time steps.", panel=_RUN)] = 1000,
    dt: Annotated[
        float | None, real_option("--dt", help="Time step. Default: 0.01; run, score 0.02; the preset's.", panel=_RUN)
    ] = None,
    batch: Annotated[int, whole_option("--batch", "-n", help="Samples that move at once.", panel=_RUN)] = 64,
    every: Annotated[
        int | None,
        whole_option("--every", help="Keep each EVERY-th state. Default: the first and the last.", panel=_RUN),
    ] = None,
    integrator: Annotated[
        str | None,
        option("--integrator", help="exact-ou, heun, euler-maruyama or rk4. Default: the best.", panel=_RUN),
    ] = None,
    seed: Annotated[
        int, whole_option("--seed", help="Same seed, same numbers, for any split of the batch.", panel=_RUN)
    ] = 0,
    device: Device = "auto",
    backend: Annotated[str, option("--backend", help="auto, or one from `eqflow backends`.", panel=_RUN)] = "auto",
    eta: Annotated[
        float | None, real_option("--eta", help="Pull to the data. Default: 0.1; run 0.", panel=_SYSTEM)
    ] = None,
    kernel: Annotated[
        str | None,
        option(
            "--kernel",
            help="Skew part: rotation:GAMMA, random:SEED[:RADIUS], matrix:'0,-1;1,0' or none. Default: rotation:1; "
            "of a score rotation:-0.707, as Gray-Scott turns.",
            panel=_SYSTEM,
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        real_option(
            "--alpha", help="Squared signal, 1 - noise variance. Default: points 0.95; score its own.", panel=_SYSTEM
        ),
    ] = None,
    dataset: Annotated[
        str | None, option("--dataset", help="Points: which one of an HDF5 file.", panel=_SYSTEM)
    ] = None,
    columns: Columns = None,
    flow: Annotated[
        str | None,
        option("--flow", help="Run: network[:N] or mode[:N]. Default: the one of lowest objective.", panel=_SYSTEM),
    ] = None,
    means: Annotated[str | None, option("--means", help="Mixture: '-1.5,0;1.5,0', its default.", panel=_SYSTEM)] = None,
    weights: Annotated[
        str | None, option("--weights", help="Mixture: '0.3,0.7'. Default: equal.", panel=_SYSTEM)
    ] = None,
    covariance: Annotated[
        str | None,
        option("--covariance", help="'2,0.5;0.5,0.7', or a variance. Default: 1; mixture 0.25.", panel=_SYSTEM),
    ] = None,
    dimension: Annotated[int | None, whole_option("--dimension", help="Gaussian. Default: 2.", panel=_SYSTEM)] = None,
    size: Annotated[
        str | None, option("--size", help="Gray-Scott, score: N or HxW. Default: 128; the score's.", panel=_SYSTEM)
    ] = None,
    clip: Annotated[
        bool | None, option("--clip", help="Score: clamp the clean field, as the paper's code did.", panel=_SYSTEM)
    ] = None,
    anchor: Annotated[
        float | None,
        real_option(
            "--anchor",
            help="Score: hold mean and large-scale power to the data's, for long runs; 2 is firm, 1 loose.",
            panel=_SYSTEM,
        ),
    ] = None,
    precision: Annotated[
        str | None, option("--precision", help="Score: float32, or bfloat16, the default on a GPU.", panel=_SYSTEM)
    ] = None,
    show: Annotated[
        Path | None, option("--show", help="A picture (.png) or film (.gif, .mp4) at the end.", panel=_FILES)
    ] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace another rollout.", panel=_FILES)] = False,
) -> None:
    """Follow dynamics that keep a density: dx = (v + eta s) dt + sqrt(2 eta) dW, or the ground truth.

    v is K * s with a skew kernel K and the score s, or the flow of a fit: RUN is a folder that `eqflow train` or
    `eqflow fit` made. Of a score the clean fields are kept, in the units of the data.

    The same command goes on where it was stopped, with the same numbers; torchrun splits the samples over ranks.

    \b
    eqflow rollout pretrained:wave --batch 4 --steps 500 --every 5 --out waves --show waves.gif
    eqflow rollout pretrained:life --batch 2 --steps 20000 --every 200 --anchor 2 --out long --show long.gif
    eqflow rollout mixture --steps 2000 --every 20 --out two --show two.png
    eqflow rollout points cloud.csv --alpha 0.98 --kernel rotation:0.7 --out cloud --show cloud.gif --every 10
    eqflow rollout lorenz-flow --steps 5000 --every 5 --out path --show path.png
    eqflow rollout gaussian --covariance '2,0.5;0.5,0.7' --eta 0.4 --dt 0.05 --out gauss
    eqflow rollout gray-scott:wave --steps 5000 --every 50 --out wave --show wave.gif
    """
    given = {name: value for name, value in locals().items() if name not in ("overwrite", "show", "out", "device")}
    this, ranks = rank()
    kind, name = _rollout_request.kind(source, file, given)
    _rollout_request.check(given, ranks)
    place = _place.folder(out)
    if show:
        _rollout_request.check_show(show, steps, every, overwrite)
    where = _place.device(device, backend)
    samples = range(this * batch // ranks, (this + 1) * batch // ranks)
    made = _sources.source(kind, name, samples, given, where)
    _rollout_work.go(made, place, given, samples, this, ranks, where, show, overwrite)
