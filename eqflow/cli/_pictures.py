"""Contact sheets: tiles of one field in a tight grid, as palette indices that PNG, GIF and MP4 share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

LEVELS = 240  # of the colormap; the other 16 palette entries run from paper to ink, for smooth letters
PAPER, INK, GREY = LEVELS, 255, LEVELS + 9
_PAPER_COLOUR, _INK_COLOUR = (255, 255, 255), (24, 24, 32)
WIDTH = 1100  # a sheet is enlarged, by a whole factor, to about this many pixels


class Words(NamedTuple):
    """What is written on a sheet."""

    title: str
    details: Sequence[str]  # the most important first; what does not fit is left out
    field: str
    limits: tuple[float, float]
    tiles: Sequence[str] = ()  # a label below each tile
    rows: Sequence[str] = ()  # a label beside each row, from the top
    columns: Sequence[str] = ()  # a label below each column
    stamp: str = ""  # the longest text that `Sheet.draw` will be given


def palette(colormap: str) -> NDArray[np.uint8]:
    """[256, 3]: the colormap, then paper to ink."""
    colours = np.rint(colormaps[colormap](np.linspace(0, 1, LEVELS))[:, :3] * 255)
    greys = np.linspace(_PAPER_COLOUR, _INK_COLOUR, 256 - LEVELS)
    return np.concatenate([colours, np.rint(greys)]).astype(np.uint8)


def limits(values: NDArray[np.floating]) -> tuple[float, float]:
    """Where the colours end: all but the outermost two thousandths of the values."""
    low, high = (float(x) for x in np.quantile(values[..., ::2, ::2], [0.001, 0.999]))
    return (low, high) if high - low > 1e-6 else (low - 0.5, low + 0.5)


def columns_for(count: int, height: int, width: int) -> int:
    """Columns of the grid that is fullest and closest to 3:2."""

    def cost(columns: int) -> float:
        rows = math.ceil(count / columns)
        shape = math.log(columns * width / (rows * height) / 1.5)
        return shape * shape + 4 * (columns * rows / count - 1)

    return min(range(1, count + 1), key=cost)


class Sheet:
    """A grid of tiles with a line of text above.

    Args:
        count: number of tiles.
        height, width: of one field, in cells.
        words: what is written on it.
        columns: tiles in a row; by default as full and as close to 3:2 as possible.
        pixels: about how wide it will be.
    """

    def __init__(
        self, count: int, height: int, width: int, words: Words, columns: int | None = None, pixels: int = WIDTH
    ) -> None:
        self.words = words
        self.columns = columns or columns_for(count, height, width)
        self.rows = math.ceil(count / self.columns)
        widest = max(self.columns * width, self.rows * height * 1.2)
        scale = max(1, round(pixels / widest + 0.25)) if widest <= 2 * pixels else 1 / math.ceil(widest / pixels)
        self.tile = (max(1, round(height * scale)), max(1, round(width * scale)))
        self.gap = 2 + min(self.tile) // 64
        grid_width = self.columns * (self.tile[1] + self.gap) - self.gap
        self.font_size = int(min(max(grid_width / 72, 11), 20))
        self.margin = self.font_size
        line = round(self.font_size * 1.7)
        self.line_below_tile = line if words.tiles else 0
        self.top = self.margin + line
        self.left = self.margin + (self._widest(words.rows) + self.gap * 2 if words.rows else 0)
        step = self.tile[0] + self.gap + self.line_below_tile
        bottom = self.top + self.rows * step - self.gap + (line if words.columns else 0) + self.margin
        self.shape = (self._even(bottom), self._even(self.left + grid_width + self.margin))

    def draw(
        self,
        fields: NDArray[np.floating],  # [count, height, width]
        stamp: str = "",
    ) -> NDArray[np.uint8]:
        """The sheet as palette indices, [pixels, pixels]; `stamp` stands behind the title."""
        low, high = self.words.limits
        canvas = self._paper.copy()
        for number, field in enumerate(fields):
            scaled = self._resize(field.astype(np.float32))
            levels = np.clip((scaled - low) * ((LEVELS - 1) / (high - low)), 0, LEVELS - 1)
            top, left = self._corner(number)
            canvas[top : top + self.tile[0], left : left + self.tile[1]] = np.rint(levels)
        if stamp:
            image = Image.fromarray(canvas)
            self._write(image, self._title_end, self._baseline, stamp, INK, "ls")
            canvas = np.array(image)
        return canvas

    @cached_property
    def _paper(self) -> NDArray[np.uint8]:
        """Everything but the tiles."""
        words = self.words
        image = Image.new("L", self.shape[::-1], PAPER)
        baseline, x = self._baseline, self._title_end
        right = self._key(image, baseline)
        self._write(image, self.left, baseline, words.title, INK, "ls", bold=True)
        x += self._font(False).getlength(words.stamp + " ") + self.font_size if words.stamp else 0
        for kept in range(len(words.details), 0, -1):
            details = "   ".join(words.details[:kept])
            if x + self._font(False).getlength(details) <= right:
                self._write(image, x, baseline, details, GREY, "ls")
                break
        for number, label in enumerate(words.tiles):
            top, left = self._corner(number)
            self._write(image, left, top + self.tile[0] + self.font_size * 1.15, label, GREY, "ls")
        for row, label in enumerate(words.rows):
            top, left = self._corner(row * self.columns)
            self._write(image, left - 2 * self.gap, top + self.tile[0] / 2, label, GREY, "rm")
        for column, label in enumerate(words.columns):
            top, left = self._corner((self.rows - 1) * self.columns + column)
            self._write(image, left + self.tile[1] / 2, top + self.tile[0] + self.font_size * 1.25, label, GREY, "ms")
        return np.array(image)

    @property
    def _baseline(self) -> int:
        return self.top - round(self.font_size * 0.75)

    @property
    def _title_end(self) -> float:
        return self.left + self._font(True).getlength(self.words.title) + self.font_size

    def _key(self, image: Image.Image, baseline: int) -> float:
        """The colours and their ends, at the right of the title; returns where it begins."""
        low, high = (f"{value:.2f}" for value in self.words.limits)
        right = self.shape[1] - self.margin
        font, space = self._font(False), self.font_size // 2
        length = min(self.font_size * 8, self.shape[1] // 6)
        self._write(image, right, baseline, high, GREY, "rs")
        right -= font.getlength(high) + space
        bar = np.tile(np.linspace(0, LEVELS - 1, length), (max(4, round(self.font_size * 0.7)), 1)).astype(np.uint8)
        image.paste(Image.fromarray(bar), (int(right - length), baseline - len(bar)))
        left = right - length - space
        text = f"{self.words.field}  {low}"
        self._write(image, left, baseline, text, GREY, "rs")
        return left - font.getlength(text) - 2 * self.font_size

    def _corner(self, number: int) -> tuple[int, int]:
        row, column = divmod(number, self.columns)
        height, width = self.tile
        return self.top + row * (height + self.gap + self.line_below_tile), self.left + column * (width + self.gap)

    def _resize(self, field: NDArray[np.float32]) -> NDArray[np.float32]:
        if field.shape == self.tile:
            return field
        how = Image.Resampling.NEAREST if self.tile[0] > field.shape[0] else Image.Resampling.BOX
        return np.asarray(Image.fromarray(field).resize(self.tile[::-1], how))

    def _write(self, image, x: float, y: float, text: str, shade: int, anchor: str, bold: bool = False) -> None:
        """Write in a shade between paper and ink."""
        font = self._font(bold)
        mask = Image.new("L", image.size, 0)
        ImageDraw.Draw(mask).text((x, y), text, 255, font, anchor)
        levels = np.rint(np.asarray(mask) * ((shade - PAPER) / 255)).astype(np.uint8)
        image.paste(Image.fromarray(PAPER + levels), (0, 0), mask.point(lambda value: 255 if value else 0))

    def _font(self, bold: bool) -> ImageFont.FreeTypeFont:
        name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
        return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), self.font_size)

    def _widest(self, labels: Sequence[str]) -> int:
        return math.ceil(max((self._font(False).getlength(label) for label in labels), default=0))

    @staticmethod
    def _even(pixels: int) -> int:
        return pixels + pixels % 2  # video codecs want it
