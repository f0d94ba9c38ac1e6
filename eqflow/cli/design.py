"""`eqflow design`: from a drawing to a world in which it lives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from eqflow.cli import _design_request, _place
from eqflow.cli._options import (
    Background,
    Coverage,
    Device,
    Json,
    Mask,
    Overlap,
    Picture,
    Pixels,
    Scale,
    option,
    real_option,
    whole_option,
)

_RULE, _WORLD, _TRAINING, _RUN, _FILES = "Rule", "World", "Training", "Run", "Files"


def design(
    pictures: Picture = None,
    out: Annotated[
        Path | None, option("--out", "-o", help="Folder of everything. Default: NAME-world.", panel=_FILES)
    ] = None,
    mask: Mask = None,
    pixels: Pixels = _design_request.PIXELS,
    scale: Scale = "1:1",
    coverage: Coverage = _design_request.COVERAGE,
    overlap: Overlap = _design_request.OVERLAP,
    background: Background = "white",
    kernel: Annotated[
        str | None,
        option(
            "--kernel",
            help="Skew part: random:SEED[:RADIUS], angles:A,B,C, the axis in colour space and its speed, matrix:ROWS, "
            "or none. Default: random:0.",
            panel=_RULE,
        ),
    ] = None,
    eta: Annotated[float, real_option("--eta", help="Pull to the pictures, and noise.", panel=_RULE)] = 0.1,
    alpha: Annotated[
        float, real_option("--alpha", help="Squared signal: below a half a creature holds as a whole.", panel=_RULE)
    ] = 0.25,
    size: Annotated[str, option("--size", help="World, N or HxW, up to 4096.", panel=_WORLD)] = "256",
    steps: Annotated[int, whole_option("--steps", help="Of the world.", panel=_WORLD)] = 5000,
    every: Annotated[
        int | None, whole_option("--every", help="Steps between frames. Default: 250 frames.", panel=_WORLD)
    ] = None,
    null: Annotated[
        int | None,
        whole_option("--null-steps", help="Of the same world with K = 0. Default: a fifth of --steps.", panel=_WORLD),
    ] = None,
    dt: Annotated[float | None, real_option("--dt", help="Time step. Default: (1 - alpha) / 4.", panel=_WORLD)] = None,
    start: Annotated[str, option("--start", help="scatter, or noise.", panel=_WORLD)] = "scatter",
    minutes: Annotated[float, real_option("--minutes", help="Budget of the training.", panel=_TRAINING)] = 8.0,
    canvas: Annotated[str, option("--canvas", help="Training: N or HxW.", panel=_TRAINING)] = "128",
    width: Annotated[int, whole_option("--width", help="Channels within the network.", panel=_TRAINING)] = 32,
    dilations: Annotated[
        str, option("--dilations", help="One a block; they add up to what it sees.", panel=_TRAINING)
    ] = "1,2,4,4,2,1",
    seed: Annotated[int, whole_option("--seed", help="Same seed and steps, same world.", panel=_RUN)] = 0,
    device: Device = "auto",
    show: Annotated[Path | None, option("--show", help="The film here too: .webp, .gif or .mp4.", panel=_FILES)] = None,
    as_json: Json = None,
    overwrite: Annotated[bool, option("--overwrite", help="Replace another world.", panel=_FILES)] = False,
) -> None:
    """Scatter a picture, learn the score, follow a rule that keeps the scatter, and measure what lives there.

    The rule is dx = (K * s + eta s) dt + sqrt(2 eta) dW with a skew-symmetric K over the three colours. Everything is
    in one folder: score, frames, tracks, film, and index.html, a report that needs no network. The same command goes on
    where it was stopped, at every stage.

    \b
    eqflow design firefly
    eqflow design two-dots --kernel random:3 --minutes 12 --out dancers
    eqflow design firefly fish --size 512 --steps 2000
    eqflow design beetle.png --pixels 24 --kernel angles:0.5,0,-0.5 --show beetle.gif
    eqflow atlas firefly-world
    """
    from eqflow.cli import _design_work

    own = ("out", "device", "show", "overwrite", "as_json", "own", "_design_work")
    given = {name: value for name, value in locals().items() if name not in own}
    _design_request.check(given, show)
    creatures = _design_request.creatures(given)
    place = _place.folder(out or Path(f"{'-'.join(creature.name for creature in creatures)}-world"))
    where = _place.device(device, "auto")
    _design_work.go(creatures, _design_request.resolve(given, creatures), place, where, show, as_json, overwrite)
