"""`eqflow atlas`: the rules that keep one population, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqflow.cli import _place
from eqflow.cli._options import Device, Json, option, real_option, whole_option

_RULES, _WORLDS, _RUN, _FILES = "Rules", "Worlds", "Run", "Files"


def atlas(
    run: Annotated[
        str | None,
        typer.Argument(help="A folder of `eqflow design`, or pretrained:NAME of creatures.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, option("--out", "-o", help="Folder of the atlas. Default: NAME-atlas.", panel=_FILES)
    ] = None,
    rules: Annotated[int, whole_option("--rules", "-n", help="How many.", panel=_RULES)] = 16,
    speed: Annotated[
        float, real_option("--speed", help="Length of omega, or Frobenius norm of a larger kernel.", panel=_RULES)
    ] = 0.7,
    radius: Annotated[
        int,
        whole_option(
            "--radius", help="0: axes spread over the sphere of colours; 1: random 3x3 kernels.", panel=_RULES
        ),
    ] = 0,
    eta: Annotated[float, real_option("--eta", help="Pull to the pictures, and noise.", panel=_RULES)] = 0.1,
    size: Annotated[str, option("--size", help="Of each world, N or HxW.", panel=_WORLDS)] = "128",
    steps: Annotated[int, whole_option("--steps", help="Of each world.", panel=_WORLDS)] = 600,
    every: Annotated[int, whole_option("--every", help="Steps between frames.", panel=_WORLDS)] = 10,
    dt: Annotated[float | None, real_option("--dt", help="Time step. Default: (1 - alpha) / 4.", panel=_WORLDS)] = None,
    seed: Annotated[int, whole_option("--seed", help="Of starts and noise: one for all worlds.", panel=_RUN)] = 0,
    device: Device = "auto",
    as_json: Json = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace another atlas.", panel=_FILES)] = False,
) -> None:
    """Roll out many rules of one score from one start: a poster and a film, the liveliest worlds first.

    Three colours and radius 0 leave three numbers, an axis in colour space and a speed, so a sphere is the whole space.
    Each world has a name, picture/kernel/seed, that `eqflow design --kernel` and `eqflow rollout --kernel` take again.
    Rules that are done are kept: the same command goes on where it was stopped.

    \b
    eqflow atlas firefly-world
    eqflow atlas pretrained:firefly --rules 36 --steps 1200
    eqflow atlas firefly-world --radius 1 --out larger-kernels
    """
    from eqflow.cli import _atlas_work

    own = ("run", "out", "device", "overwrite", "as_json", "own", "_atlas_work")
    given = {name: value for name, value in locals().items() if name not in own}
    _atlas_work.check(run, given)
    place = _place.folder(out or Path(f"{_atlas_work.stem(run)}-atlas"))
    _atlas_work.go(run, given, place, _place.device(device, "auto"), as_json, overwrite)
