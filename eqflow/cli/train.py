"""`eqflow train`: the score of patterns, from a dataset or from a simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqflow.cli import _fit_request, _place, _train_source, _train_work
from eqflow.cli._options import Device, Json, option, real_option, whole_option
from eqflow.cli._shell import rank

_DATA, _NETWORK, _TRAINING, _RUN, _FILES = "Data", "Network", "Training", "Run", "Files"


def train(
    data: Annotated[
        Path | None,
        typer.Argument(help="A dataset, or pictures as `eqflow discover` takes them.", show_default=False),
    ] = None,
    system: Annotated[
        str | None,
        option("--system", help="gray-scott:PRESET, simulated on the fly: no field is seen twice.", panel=_DATA),
    ] = None,
    out: Annotated[
        Path | None, option("--out", "-o", help="Folder of the score. Default: NAME-score.", panel=_FILES)
    ] = None,
    size: Annotated[str | None, option("--size", help="System: grid, N or HxW. Default: 128.", panel=_DATA)] = None,
    simulated: Annotated[
        int | None,
        whole_option("--simulated-steps", help="System: steps to a field. Default: 10000.", panel=_DATA),
    ] = None,
    samples: Annotated[
        int | None, whole_option("--samples", "-n", help="Take so many fields of the data.", panel=_DATA)
    ] = None,
    held_out: Annotated[
        int | None,
        whole_option("--held-out", help="Fields kept apart. Default: 128, at most a ninth.", panel=_DATA),
    ] = None,
    network: Annotated[
        str, option("--network", help="local, equivariant and of any grid; or unet, the paper's.", panel=_NETWORK)
    ] = "local",
    width: Annotated[int, whole_option("--width", help="local: channels within.", panel=_NETWORK)] = 24,
    dilations: Annotated[
        str, option("--dilations", help="local: one a block; they widen what it sees.", panel=_NETWORK)
    ] = "1,1,1,1,1,1",
    alpha: Annotated[
        str | None,
        option("--alpha", help="Squared signal, 1 - noise variance, or all. Default: 0.94478.", panel=_NETWORK),
    ] = None,
    precondition: Annotated[
        str, option("--precondition", help="What the network estimates: edm, v or x0.", panel=_NETWORK)
    ] = "edm",
    conservative: Annotated[
        bool, option("--conservative", help="A score that is a gradient, at 2 to 3 times the cost.", panel=_NETWORK)
    ] = False,
    steps: Annotated[int, whole_option("--steps", help="Of AdamW.", panel=_TRAINING)] = 4000,
    batch: Annotated[int, whole_option("--batch", help="Fields a step, over all ranks.", panel=_TRAINING)] = 2,
    rate: Annotated[float, real_option("--rate", help="Learning rate.", panel=_TRAINING)] = 0.003,
    symmetries: Annotated[
        str | None,
        option(
            "--symmetries", help="Of the system: square, flips or none. Default: what the grid allows.", panel=_TRAINING
        ),
    ] = None,
    precision: Annotated[
        str | None,
        option("--precision", help="float32, or bfloat16, the default on a GPU.", panel=_TRAINING),
    ] = None,
    compile: Annotated[bool, option("--compile", help="Let torch.compile work first.", panel=_TRAINING)] = False,
    seed: Annotated[int, whole_option("--seed", help="Same seed, same score.", panel=_RUN)] = 0,
    device: Device = "auto",
    show: Annotated[
        Path | None, option("--show", help="The picture here too (.png), not in the folder alone.", panel=_FILES)
    ] = None,
    as_json: Json = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace another score.", panel=_FILES)] = False,
) -> None:
    """Learn the score of patterns: a network that cleans a noised field, and so knows where the density rises.

    Reports the error beside that of the Wiener filter, the best linear one, and how far the score is from a gradient.
    The same command goes on where it was stopped, to the same bits; under torchrun the ranks share every batch.

    \b
    eqflow train --system gray-scott:wave
    eqflow generate maze --samples 1152 --out maze && eqflow train maze
    eqflow train maze --steps 20000 --width 32 --out maze-better
    eqflow rollout wave-score --steps 1000 --every 10 --out waves --show waves.gif
    """
    own = ("out", "device", "show", "overwrite", "as_json", "data")
    given = {name: value for name, value in locals().items() if name not in (*own, "own")}
    this, ranks = rank()
    _train_work.check(given, data, ranks)
    place = _place.folder(out or _train_source.default_folder(data, system))
    if show:
        _fit_request.check_show(show, overwrite)
    where = _place.device(device, "auto")
    source = _train_source.load(data, given)
    request = _train_work.resolve(given, source)
    _train_work.go(source, request, place, where, this, ranks, show, as_json, overwrite)
