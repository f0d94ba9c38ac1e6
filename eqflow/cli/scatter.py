"""`eqflow scatter`: a dataset of pictures at random places."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqflow.cli import _design_request
from eqflow.cli._options import option, real_option, whole_option

_CREATURES, _RUN, _FILES = "Creatures", "Run", "Files"


def scatter(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(help="Icons by name, or files with alpha: .png, .webp, .tif, .svg.", show_default=False),
    ] = None,
    out: Annotated[Path | None, option("--out", "-o", help="The array, .npy. Default: NAME.npy.", panel=_FILES)] = None,
    samples: Annotated[int, whole_option("--samples", "-n", help="Images.", panel=_RUN)] = 1024,
    size: Annotated[str, option("--size", help="Of an image, N or HxW.", panel=_RUN)] = "128",
    mask: Annotated[
        Path | None, option("--mask", help="What of a photograph is the creature: a grey picture.", panel=_CREATURES)
    ] = None,
    pixels: Annotated[
        float, real_option("--pixels", help="Longest side of a creature.", panel=_CREATURES)
    ] = _design_request.PIXELS,
    scale: Annotated[str, option("--scale", help="Range of sizes, such as 0.8:1.25.", panel=_CREATURES)] = "1:1",
    coverage: Annotated[
        float, real_option("--coverage", help="Share of an image that creatures cover, at most.", panel=_CREATURES)
    ] = _design_request.COVERAGE,
    overlap: Annotated[
        float, real_option("--overlap", help="Alpha that two creatures may share at a pixel.", panel=_CREATURES)
    ] = _design_request.OVERLAP,
    background: Annotated[str, option("--background", help="white, black or #rrggbb.", panel=_CREATURES)] = "white",
    seed: Annotated[int, whole_option("--seed", help="Same seed, same images.", panel=_RUN)] = 0,
    first: Annotated[
        int, whole_option("--first", help="Number of the first image: shards may be made anywhere.", panel=_RUN)
    ] = 0,
    show: Annotated[Path | None, option("--show", help="A sheet of the first images (.png).", panel=_FILES)] = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace another array.", panel=_FILES)] = False,
) -> None:
    """Scatter pictures over periodic images: 8-bit colours [images, 3, height, width], to train on or to look at.

    Image i depends on the seed and on i alone. `eqflow design` scatters on the fly and needs no such file.

    \b
    eqflow scatter firefly --samples 8192 --out fireflies.npy --show fireflies.png
    eqflow scatter fish arrow --coverage 0.3 --scale 0.7:1.4 --out pond.npy
    eqflow train fireflies.npy --alpha 0.25 --dilations 1,2,4,4,2,1 --symmetries none
    """
    from eqflow.cli import _scatter_work

    own = ("out", "show", "overwrite", "own", "_scatter_work")
    given = {name: value for name, value in locals().items() if name not in own}
    _design_request.check_scatter(given)
    creatures = _design_request.creatures(given)
    _scatter_work.go(creatures, given, out, show, overwrite)
