"""The poster and the film of an atlas: every world in a tile with its name and what its creatures do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from eqflow.cli import _colour, _world_film
from eqflow.cli._design_report import value
from eqflow.cli._run_folder import AtlasFolder

_TILE, _WORDS, _GAP, _TRAIL = 256, 34, 12, 30
_RATE = 12.0


def draw(folder: AtlasFolder, mapped: Any) -> None:
    """Write both."""
    frames = [np.load(path, mmap_mode="r") for path in mapped.frames]
    worlds, count = mapped.report["worlds"], len(frames[0])
    columns = max(1, round((len(frames) * 1.2) ** 0.5))

    def sheet(at: int) -> Image.Image:
        span = range(max(0, at - _TRAIL), at + 1)
        tiles = [
            _tile(_world_film.trails(film[at], tracks, span), world)
            for film, tracks, world in zip(frames, mapped.tracks, worlds, strict=True)
        ]
        return _colour.sheet(tiles, columns, _GAP)

    def film() -> Iterator[Image.Image]:
        for at in range(count):
            yield sheet(at)

    _colour.save_film(folder.tensors, film(), _RATE)
    _colour.save_still(folder.picture, sheet(count - 1), f"{mapped.report['name']}: an atlas of rules")


def _tile(picture: Image.Image, world: dict[str, Any]) -> Image.Image:
    tile = Image.new("RGB", (_TILE, _TILE + _WORDS), "white")
    tile.paste(picture.resize((_TILE, _TILE), Image.Resampling.LANCZOS), (0, 0))
    pen = ImageDraw.Draw(tile)
    pen.rectangle((0, 0, _TILE - 1, _TILE - 1), outline=(205, 208, 214))
    rule = "K = 0" if world["kernel"] == "none" else world["kernel"]
    match = "–" if world["match"][0] is None else f"{world['match'][0]:.2f}"
    words = f"speed {value(world['speed'])}   {world['start']} → {world['end']}   match {match}"
    pen.text((2, _TILE + 3), rule, (25, 28, 33), _font(12))
    pen.text((2, _TILE + 18), words, (105, 110, 120), _font(11))
    return tile


def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)
