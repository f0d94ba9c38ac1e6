"""Palette drawings to PNG, GIF and MP4; a file appears under its name only when it is whole."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from eqflow.cli._shell import Problem, usage

STILL, FILMS = (".png",), (".gif", ".mp4")


def check_target(out: Path, overwrite: bool) -> None:
    """Everything about the file that can be wrong before the first pixel.

    Raises:
        Problem: its ending, its folder, a file of that name, or a codec that is not installed.
    """
    if out.suffix.lower() not in STILL + FILMS:
        raise usage(f"expected --out to end in .png, .gif or .mp4, got {str(out)!r}")
    check_codec(out)
    if out.is_dir():
        raise usage(f"expected --out to be a file, but {out} is a folder: write {out / 'picture.png'}")
    if not out.parent.is_dir():
        raise Problem(f"expected the folder {out.parent} to exist: make it, or choose another --out")
    if not os.access(out.parent, os.W_OK):
        raise Problem(f"expected to be allowed to write in {out.parent}: choose another --out")
    if out.exists() and not overwrite:
        raise Problem(f"{out} exists already: add --overwrite to replace it, or choose another --out")


def check_codec(out: Path) -> None:
    """Whether a film of this ending can be written.

    Raises:
        Problem: a codec is not installed.
    """
    if out.suffix.lower() == ".mp4" and not importlib.util.find_spec("imageio_ffmpeg"):
        raise Problem("an MP4 needs ffmpeg, which is not installed: pip install 'eqflow[video]', or write a .gif")


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    part = out.with_name(f".{out.stem}.part{out.suffix.lower()}")
    try:
        yield part
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)


def _image(drawing: NDArray[np.uint8], palette: NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(drawing).convert("P")
    image.putpalette(palette.tobytes())
    return image


def save_still(out: Path, drawing: NDArray[np.uint8], palette: NDArray[np.uint8], title: str) -> None:
    """A PNG that says in its metadata what it shows."""
    text = PngInfo()
    text.add_text("Title", title)
    text.add_text("Software", "eqflow")
    with _whole(out) as part:
        _image(drawing, palette).save(part, pnginfo=text, optimize=True)


def save_film(out: Path, drawings: Iterable[NDArray[np.uint8]], palette: NDArray[np.uint8], rate: float) -> None:
    """A GIF that loops, in the colours of the palette without dithering, or an MP4."""
    with _whole(out) as part:
        if out.suffix.lower() == ".gif":
            images = (_image(drawing, palette) for drawing in drawings)
            first = next(images)
            first.save(part, save_all=True, append_images=images, duration=1000 / rate, loop=0, optimize=False)
            return
        import imageio_ffmpeg

        drawings = iter(drawings)
        drawing = next(drawings)
        film = imageio_ffmpeg.write_frames(
            str(part), drawing.shape[::-1], fps=rate, quality=8, macro_block_size=2, ffmpeg_log_level="error"
        )
        film.send(None)
        try:
            while True:
                film.send(np.ascontiguousarray(palette[drawing]))
                drawing = next(drawings)
        except StopIteration:
            pass
        finally:
            film.close()
