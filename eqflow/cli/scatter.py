"""`eqflow scatter`: a dataset of pictures at random places."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from eqflow.cli import _design_request
from eqflow.cli._options import (
    Background,
    Coverage,
    Mask,
    Overlap,
    Picture,
    Pixels,
    Scale,
    option,
    whole_option,
)

_RUN, _FILES = "Run", "Files"


def scatter(
    pictures: Picture = None,
    out: Annotated[Path | None, option("--out", "-o", help="The array, .npy. Default: NAME.npy.", panel=_FILES)] = None,
    samples: Annotated[int, whole_option("--samples", "-n", help="Images.", panel=_RUN)] = 1024,
    size: Annotated[str, option("--size", help="Of an image, N or HxW.", panel=_RUN)] = "128",
    mask: Mask = None,
    pixels: Pixels = _design_request.PIXELS,
    scale: Scale = "1:1",
    coverage: Coverage = _design_request.COVERAGE,
    overlap: Overlap = _design_request.OVERLAP,
    background: Background = "white",
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
