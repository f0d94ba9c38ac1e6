"""Pictures of creatures: drawings with alpha, photographs with a mask, and the icons that come with the package."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from eqflow.data.pictures import PicturesError

KINDS = (".png", ".webp", ".tif", ".tiff", ".gif", ".jpg", ".jpeg", ".svg")
_ICONS = Path(__file__).parent / "icons"
_VISIBLE = 8 / 255  # alpha from which a pixel belongs to a creature
_LARGEST = 1024  # pixels of an SVG
_FULL = 65535  # white of a grey picture with more than 8 bits


class Creature(NamedTuple):
    """A picture that can be scattered."""

    name: str
    picture: Tensor  # float32 [4, side, side]: red, green, blue, alpha in [0, 1], with room to be turned
    oversample: int  # its pixels for each of a world

    @property
    def side(self) -> float:
        """Pixels of a world that it takes, however it is turned."""
        return self.picture.shape[-1] / self.oversample


def icons() -> tuple[str, ...]:
    """The names of the icons that come with the package.

    Example:
        >>> icons()
        ('arrow', 'dots', 'firefly', 'fish', 'taiji', 'two-dots')
    """
    return tuple(sorted(path.stem for path in _ICONS.glob("*.png")))


def read_creature(
    source: str | os.PathLike,
    *,
    pixels: float = 18.0,
    mask: str | os.PathLike | None = None,
    oversample: int = 2,
) -> Creature:
    """A creature from an icon's name or a file.

    Args:
        source: the name of an icon, or a PNG, WebP, TIFF, GIF or SVG with alpha, or a photograph with `mask`.
        pixels: longest side of what can be seen of it, in a world.
        mask: a grey picture of the same size, white where the creature is.
        oversample: pixels that are kept for each of a world, a whole number.

    Raises:
        PicturesError: a number is out of range, or there is no such picture, it cannot be read, has no alpha, or
            nothing on it.

    Example:
        >>> firefly = read_creature("firefly", pixels=20)
        >>> firefly.name, firefly.picture.shape[0]
        ('firefly', 4)
    """
    if not 3 <= pixels <= 512:
        raise PicturesError(f"expected pixels in [3, 512], got {pixels:g}: below 3 no shape is left")
    if oversample not in range(1, 65):
        raise PicturesError(f"expected oversample, a whole number in [1, 64], got {oversample}: take 2")
    path = Path(source)
    if str(source) in icons() and not path.is_file():
        path = _ICONS / f"{source}.png"
    layers = _layers(path, Path(mask) if mask is not None else None)
    shown = layers[..., 3] > _VISIBLE
    if not shown.any():
        raise PicturesError(f"expected something to see on {path}, but it is clear everywhere: draw a creature")
    rows, columns = (np.nonzero(shown.any(axis))[0] for axis in (1, 0))
    trimmed = layers[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Creature(path.stem, _fitted(trimmed, pixels * oversample), oversample)


def _fitted(layers: np.ndarray, pixels: float) -> Tensor:
    """Resized in colours times alpha, so that what is clear lends no colour, into a square with room to be turned."""
    height, width = layers.shape[:2]
    factor = pixels / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    weighted = np.concatenate([layers[..., :3] * layers[..., 3:], layers[..., 3:]], -1)
    method = Image.Resampling.BOX if factor <= 1 else Image.Resampling.BILINEAR
    small = np.stack([np.asarray(Image.fromarray(weighted[..., k]).resize(size, method)) for k in range(4)])
    diagonal = math.ceil(math.hypot(*size)) + 2
    side = diagonal + (diagonal - size[0]) % 2
    square = np.zeros((4, side, side), np.float32)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[:, top : top + size[1], left : left + size[0]] = small
    alpha = np.clip(square[3], 0, 1)
    colours = np.clip(square[:3] / np.maximum(alpha, 1e-6), 0, 1) * (alpha > 0)
    return torch.from_numpy(np.concatenate([colours, alpha[None]]).astype(np.float32))


def _layers(path: Path, mask: Path | None) -> np.ndarray:
    """float32 [height, width, 4] in [0, 1]."""
    if not path.is_file():
        raise PicturesError(f"expected {path} to be a picture or one of the icons {', '.join(icons())}: no such file")
    if path.suffix.lower() not in KINDS:
        raise PicturesError(f"expected a picture in {', '.join(KINDS)}, got {str(path)!r}")
    image = _rasterised(path) if path.suffix.lower() == ".svg" else _opened(path)
    clear = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    layers = np.asarray(image.convert("RGBA"), np.float32) / 255
    if mask is not None:
        shown = np.asarray(_opened(mask).convert("L"), np.float32) / 255
        if shown.shape != layers.shape[:2]:
            raise PicturesError(
                f"expected the mask {mask} to have the size of {path}, {layers.shape[1]} x {layers.shape[0]}, got "
                f"{shown.shape[1]} x {shown.shape[0]}: resize it"
            )
        return np.concatenate([layers[..., :3], shown[..., None]], -1)
    if not clear or layers[..., 3].min() > 1 - _VISIBLE:
        raise PicturesError(
            f"expected {path} to be clear around the creature, but it has no alpha: erase the background and save it "
            "as PNG, or give a mask"
        )
    return layers


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return _eight_bits(ImageOps.exif_transpose(image), path)
    except FileNotFoundError:
        raise PicturesError(f"expected {path} to be a picture: no such file") from None
    except PicturesError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise PicturesError(f"cannot read the picture {path}: {' '.join(str(error).split())}") from None


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """As it is, but deep grey ones in 8 bits: Pillow would cut what is above 255."""
    if image.mode == "F":
        raise PicturesError(f"expected whole numbers in {path}, got floating point: save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image, np.float64) * (255 / _FULL)
    return Image.fromarray(levels.round().clip(0, 255).astype(np.uint8))


def _rasterised(path: Path) -> Image.Image:
    import io

    try:
        import cairosvg
    except (ImportError, OSError):
        raise PicturesError(f"reading {path} needs cairosvg: pip install 'eqflow[svg]', or save it as PNG") from None
    try:
        content = cairosvg.svg2png(url=str(path), output_width=_LARGEST)
    except Exception as error:  # whatever the parser of the file raises
        raise PicturesError(f"cannot read the picture {path}: {' '.join(str(error).split())}") from None
    return Image.open(io.BytesIO(content))
