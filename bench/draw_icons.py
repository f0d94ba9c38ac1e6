"""`python -m bench.draw_icons`: draws the icons of eqflow/data/icons, 256 x 256 with alpha."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

SIDE, FINE = 256, 4  # drawn four times as large
FOLDER = Path(__file__).parents[1] / "eqflow" / "data" / "icons"
INK, RED, YELLOW, BLUE, SKY, GREEN, ORANGE = "#20203c", "#dc2828", "#facd1e", "#2846dc", "#78bef8", "#1ea05a", "#f08214"


class Pen:
    """Shapes in hundredths of the side."""

    def __init__(self) -> None:
        self.image = Image.new("RGBA", (SIDE * FINE, SIDE * FINE), (0, 0, 0, 0))
        self._draw, self._unit = ImageDraw.Draw(self.image), SIDE * FINE / 100

    def oval(self, x: float, y: float, across: float, down: float, colour: str, turn: float = 0.0) -> None:
        """An ellipse by its centre and its half axes, turned counterclockwise by degrees."""
        layer = Image.new("RGBA", self.image.size, (0, 0, 0, 0))
        box = [side * self._unit for side in (x - across, y - down, x + across, y + down)]
        ImageDraw.Draw(layer).ellipse(box, fill=colour)
        centre = (x * self._unit, y * self._unit)
        self.image.alpha_composite(layer.rotate(turn, Image.Resampling.BICUBIC, center=centre))

    def shape(self, points: list[tuple[float, float]], colour: str) -> None:
        """A polygon."""
        self._draw.polygon([(x * self._unit, y * self._unit) for x, y in points], fill=colour)

    def half(self, x: float, y: float, radius: float, colour: str, first: float) -> None:
        """Half a disc, from an angle in degrees on, clockwise from the right."""
        box = [side * self._unit for side in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.pieslice(box, first, first + 180, fill=colour)


def firefly(pen: Pen) -> None:
    pen.oval(27, 52, 13, 27, SKY, -24)
    pen.oval(73, 52, 13, 27, SKY, 24)
    pen.oval(50, 74, 17, 23, YELLOW)
    pen.oval(50, 45, 16, 20, INK)
    pen.oval(50, 19, 15, 14, RED)


def taiji(pen: Pen) -> None:
    pen.half(50, 50, 46, RED, 90)
    pen.half(50, 50, 46, BLUE, 270)
    pen.oval(50, 27, 23, 23, RED)
    pen.oval(50, 73, 23, 23, BLUE)
    pen.oval(50, 27, 8, 8, YELLOW)
    pen.oval(50, 73, 8, 8, YELLOW)


def dots(pen: Pen) -> None:
    pen.oval(50, 50, 42, 42, BLUE)


def two_dots(pen: Pen) -> None:
    pen.oval(50, 28, 26, 26, RED)
    pen.oval(50, 72, 26, 26, BLUE)


def arrow(pen: Pen) -> None:
    pen.shape([(39, 96), (61, 96), (61, 44), (39, 44)], GREEN)
    pen.shape([(50, 3), (88, 50), (12, 50)], ORANGE)


def fish(pen: Pen) -> None:
    pen.shape([(50, 66), (82, 97), (50, 88), (18, 97)], BLUE)
    pen.oval(50, 42, 25, 38, ORANGE)
    pen.oval(50, 44, 25, 7, "#fff0d2")
    pen.oval(40, 20, 5.5, 5.5, INK)
    pen.oval(60, 20, 5.5, 5.5, INK)


def main() -> None:
    """Write them all."""
    FOLDER.mkdir(exist_ok=True)
    for paint in (firefly, taiji, dots, two_dots, arrow, fish):
        pen = Pen()
        paint(pen)
        small = pen.image.resize((SIDE, SIDE), Image.Resampling.BOX)
        small.save(FOLDER / f"{paint.__name__.replace('_', '-')}.png", optimize=True)


if __name__ == "__main__":
    main()
