"""Pictures and films in full colour; a file appears under its name only when it is whole."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from eqflow.cli import _films
from eqflow.cli._shell import Problem, usage

NAMES = ("red", "green", "blue")  # channels that are shown as colours
FILMS = (".webp", ".gif", ".mp4")
_LARGEST, _SMALLEST = 1024, 512  # pixels of a side that films are brought between


def check_target(out: Path, option: str) -> None:
    """Everything about the file that can be wrong before the first pixel.

    Raises:
        Problem: its ending, its folder, or a codec that is not installed.
    """
    if out.suffix.lower() not in FILMS:
        raise usage(f"expected {option} to end in {', '.join(FILMS[:-1])} or {FILMS[-1]}, got {str(out)!r}")
    if out.suffix.lower() == ".mp4" and not importlib.util.find_spec("imageio_ffmpeg"):
        raise Problem("an MP4 needs ffmpeg, which is not installed: pip install 'eqflow[video]', or write a .webp")
    if out.is_dir() or not out.parent.is_dir():
        raise Problem(f"expected {option} to be a file in a folder that exists, got {out}: make it, or choose another")


def image(
    field: NDArray[np.floating],  # [3, height, width], in [-1, 1]
) -> NDArray[np.uint8]:
    """The colours of a field, [height, width, 3]."""
    return np.rint((np.clip(field, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)


def zoom(height: int, width: int) -> float:
    """How much larger a picture of this size is shown: by a whole factor, or less than 1 where it is huge."""
    longest = max(height, width)
    return _LARGEST / longest if longest > _LARGEST else max(1, _SMALLEST // longest)


def enlarged(picture: NDArray[np.uint8], factor: float) -> Image.Image:
    """The picture at its shown size."""
    size = tuple(round(side * factor) for side in picture.shape[1::-1])
    how = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
    return Image.fromarray(picture).resize(size, how)


def save_still(out: Path, picture: Image.Image, title: str) -> None:
    """A PNG that says in its metadata what it shows."""
    text = PngInfo()
    text.add_text("Title", title)
    text.add_text("Software", "eqflow")
    with _films._whole(out) as part:
        picture.save(part, pnginfo=text, optimize=True)


def save_film(out: Path, pictures: Iterable[Image.Image], rate: float) -> None:
    """A film that loops (WebP, GIF), or an MP4."""
    pictures = iter(pictures)
    first = next(pictures)
    with _films._whole(out) as part:
        if out.suffix.lower() == ".mp4":
            _movie(part, first, pictures, rate)
            return
        more = {"loop": 0, "duration": round(1000 / rate), "save_all": True}
        if out.suffix.lower() == ".gif":
            palette = first.convert("RGB").quantize(255, dither=Image.Dither.NONE)
            first, pictures = palette, (p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures)
            first.save(part, append_images=pictures, optimize=False, **more)
        else:
            first.save(part, append_images=pictures, quality=80, method=2, **more)


def _movie(part: Path, first: Image.Image, pictures: Iterable[Image.Image], rate: float) -> None:
    import imageio_ffmpeg

    film = imageio_ffmpeg.write_frames(
        str(part), first.size, fps=rate, quality=8, macro_block_size=2, ffmpeg_log_level="error"
    )
    film.send(None)
    try:
        for picture in (first, *pictures):
            film.send(np.ascontiguousarray(picture.convert("RGB")))
    finally:
        film.close()


def sheet(pictures: Sequence[Image.Image], columns: int, gap: int = 8, paper: str = "white") -> Image.Image:
    """Pictures of one size in rows."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    whole = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), paper)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        whole.paste(picture, (column * (width + gap), row * (height + gap)))
    return whole
