"""`eqflow compare`: recovered dynamics beside the true ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqflow.cli import _compare_work, _fit_request, _place
from eqflow.cli._options import Device, Json, option, real_option, whole_option
from eqflow.cli._shell import rank, usage

_DYNAMICS, _RUN, _FILES = "Dynamics", "Run", "Files"


def compare(
    score: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="The folder of `eqflow train`, or pretrained:NAME.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, option("--out", "-o", help="Folder of the comparison. Default: NAME-compare.", panel=_FILES)
    ] = None,
    samples: Annotated[int, whole_option("--samples", "-n", help="Starts.", panel=_RUN)] = 64,
    times: Annotated[
        str, option("--times", help="Of the recovered dynamics; the middle one is reported first.", panel=_DYNAMICS)
    ] = "0.5,1,2,3",
    lags: Annotated[str, option("--lags", help="Steps of the system to compare with.", panel=_DYNAMICS)] = "1,20,100",
    dt: Annotated[float, real_option("--dt", help="Time step.", panel=_DYNAMICS)] = 0.02,
    integrator: Annotated[
        str | None, option("--integrator", help="exact-ou, heun or euler-maruyama. Default: the best.", panel=_DYNAMICS)
    ] = None,
    eta: Annotated[float | None, real_option("--eta", help="Pull to the data. Default: 0.1.", panel=_DYNAMICS)] = None,
    kernel: Annotated[
        str | None,
        option("--kernel", help="As in `eqflow rollout`. Default: rotation:-0.707.", panel=_DYNAMICS),
    ] = None,
    alpha: Annotated[
        float | None, real_option("--alpha", help="Squared signal. Default: the score's own.", panel=_DYNAMICS)
    ] = None,
    clip: Annotated[
        bool | None, option("--clip", help="Clamp the clean field, as the paper's code did.", panel=_DYNAMICS)
    ] = None,
    precision: Annotated[
        str | None, option("--precision", help="float32, or bfloat16, the default on a GPU.", panel=_RUN)
    ] = None,
    released: Annotated[
        int,
        whole_option(
            "--as-released", help="Samples by the paper's released protocol too, for parity.", panel=_DYNAMICS
        ),
    ] = 0,
    size: Annotated[str | None, option("--size", help="Grid, N or HxW. Default: the score's.", panel=_RUN)] = None,
    seed: Annotated[int, whole_option("--seed", help="Same seed, same numbers.", panel=_RUN)] = 0,
    device: Device = "auto",
    backend: Annotated[str, option("--backend", help="auto, or one from `eqflow backends`.", panel=_RUN)] = "auto",
    show: Annotated[
        Path | None, option("--show", help="The picture here too (.png), not in the folder alone.", panel=_FILES)
    ] = None,
    as_json: Json = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace another comparison.", panel=_FILES)] = False,
) -> None:
    """How much of the true motion the dynamics K * s of a score have, with standard errors and nulls.

    From each start the dynamics run along K, along -K and without K, with one noise. Half the difference of the two is
    the recovered motion; half the sum is relaxation. Both are compared with what the system does from the same start;
    so are the truth of another sample and what other systems would do. A film shows truth and recovered side by side.
    The same command goes on where it was stopped.

    \b
    eqflow compare pretrained:wave --samples 16
    eqflow compare wave-score --times 1,2,4 --lags 1,20,50,100 --out wave-fidelity
    """
    own = ("out", "device", "show", "overwrite", "as_json")
    given = {name: value for name, value in locals().items() if name not in (*own, "own")}
    if rank()[1] > 1:
        raise usage("expected one process, since a comparison is not split over ranks: run it without torchrun")
    _compare_work.check(given)
    name = str(score).rpartition(":")[2].rstrip("/").removesuffix("-score")
    place = _place.folder(out or Path(f"{Path(name).name}-compare"))
    if show:
        _fit_request.check_show(show, overwrite)
    where = _place.device(device, backend)
    _compare_work.go(given, place, where, show, as_json, overwrite)
