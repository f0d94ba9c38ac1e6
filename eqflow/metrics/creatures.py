"""Creatures found in coloured worlds: where each stands, how it is turned, how much of it is there.

With J = I - b the world over its background b, U a picture over the same background, turned by an angle, and w a weight
that is 1 on the picture and falls to 0 around it,

    match = 1 - sum of w (J - U)^2 / sum of w U^2

is 1 for the picture itself, 0 for an empty place, and below 0 for what is less like the picture than nothing is. Sums
over all places of a periodic world are correlations, taken by FFT.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

_AROUND = 1.5  # standard deviation in pixels of the blur that makes the weight
_ALIKE = 0.9  # match from which a picture counts as the same as its turned self
_FINE = 360  # turns at which symmetry is looked for


class Sightings(NamedTuple):
    """What was found, sorted by frame."""

    frame: Tensor  # [n], int64
    species: Tensor  # [n], int64
    position: Tensor  # [n, 2], float64: row and column of the picture's centre
    heading: Tensor  # [n], float64, radians: turned counterclockwise by so much, within half a turn of the symmetry
    match: Tensor  # [n], float64


def turned(
    pictures: Tensor,  # [species, channels + 1, side, side], straight alpha last
    angles: Tensor,  # [turns], radians, counterclockwise as the eye sees rows going down
) -> Tensor:
    """Pictures turned about their centres, with premultiplied colours: [species, turns, channels + 1, side, side]."""
    colours, alpha = pictures[:, :-1], pictures[:, -1:]
    layers = torch.cat([colours * alpha, alpha], 1)
    cosine, sine = angles.cos().to(layers), angles.sin().to(layers)
    zero = torch.zeros_like(sine)
    matrix = torch.stack([torch.stack([cosine, -sine, zero], -1), torch.stack([sine, cosine, zero], -1)], -2)
    grid = F.affine_grid(matrix, [len(angles), *layers.shape[1:]], align_corners=False)
    return torch.stack(
        [F.grid_sample(layer.expand(len(angles), -1, -1, -1), grid, align_corners=False) for layer in layers]
    )


def rotational_order(
    picture: Tensor,  # [channels + 1, side, side]
) -> int:
    """How many turns in a circle leave the picture as it is: 1 for none but the whole one, 0 for a round picture.

    Example:
        >>> bar = torch.zeros(2, 16, 16)
        >>> bar[:, 7:9, 2:14] = 1.0
        >>> rotational_order(bar)
        2
    """
    angles = torch.arange(_FINE, dtype=torch.float64) * (2 * math.pi / _FINE)
    layers = turned(picture[None].double(), angles)[0]
    first = layers[0]
    match = 1 - (layers - first).square().sum((1, 2, 3)) / first.square().sum()
    if match.min() > _ALIKE:
        return 0
    orders = [order for order in (8, 6, 5, 4, 3, 2) if match[_FINE // order] > _ALIKE]
    return max(orders, default=1)


class _Templates(NamedTuple):
    """Pictures over the background, weighted, at the pixels of the world."""

    over: Tensor  # [species * turns, channels, side, side]: U
    weight: Tensor  # [species * turns, side, side]
    scale: Tensor  # [species * turns]: sum of w U^2


def _templates(pictures: Tensor, background: Tensor, turns: Tensor, oversample: int) -> _Templates:
    layers = F.avg_pool2d(turned(pictures, turns).flatten(0, 1), oversample)
    layers = F.pad(layers, [3] * 4)
    alpha = layers[:, -1:]
    over = layers[:, :-1] - alpha * background.view(1, -1, 1, 1)
    reach = torch.arange(-3, 4).to(alpha)
    blur = torch.exp(-(reach[:, None] ** 2 + reach**2) / (2 * _AROUND**2))
    weight = F.conv2d(alpha, (blur / blur.sum())[None, None], padding=3).mul(2).clamp(max=1)[:, 0]
    return _Templates(over, weight, (weight[:, None] * over.square()).sum((1, 2, 3)))


def _spectra(template: Tensor, size: tuple[int, int]) -> Tensor:
    """Conjugate FFT of templates whose centre is brought to the origin."""
    height, width = template.shape[-2:]
    placed = F.pad(template, (0, size[1] - width, 0, size[0] - height))
    return torch.fft.rfft2(placed.roll((-(height // 2), -(width // 2)), (-2, -1))).conj()


def find_creatures(
    worlds: Tensor,  # [frames, channels, height, width]
    pictures: Tensor,  # [species, channels + 1, side, side], straight alpha last, in the units of the worlds
    *,
    background: Tensor,  # [channels]
    oversample: int = 1,
    angles: int = 24,
    least: float = 0.5,
    apart: float | None = None,
) -> Sightings:
    """Every creature of a match from `least` up, none closer than `apart` to a better one.

    Args:
        worlds: periodic, clean fields.
        pictures: what to look for.
        background: of the worlds, where there is no creature.
        oversample: pixels of a picture for each of the world along a side.
        angles: turns that are tried; between them the heading is interpolated.
        least: smallest match.
        apart: pixels; None: half of the diameter of the disc that has the area of the smallest picture.

    Raises:
        ValueError: the shapes do not fit, a world is not finite, or a picture is larger than the world.
    """
    _, channels, *size = worlds.shape if worlds.ndim == 4 else (0, 0)
    if worlds.ndim != 4 or pictures.ndim != 4 or pictures.shape[1] != channels + 1 or len(background) != channels:
        raise ValueError(
            f"expected worlds [frames, channels, height, width], pictures [species, channels + 1, side, side] and a "
            f"background [channels], got {list(worlds.shape)}, {list(pictures.shape)} and {list(background.shape)}"
        )
    if not worlds.isfinite().all():
        raise ValueError("expected finite worlds, got NaN or infinite numbers: look at the rollout that made them")
    if angles < 1 or not least <= 1:
        raise ValueError(f"expected angles from 1 up and least up to 1, got {angles} and {least}")
    background = background.to(worlds)
    turns = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
    made = _templates(pictures.to(worlds), background, turns, oversample)
    if max(made.over.shape[-2:]) > min(size):
        raise ValueError(f"expected worlds larger than the pictures, {list(made.over.shape[-2:])}, got {size}")
    if apart is None:
        apart = float((pictures[:, -1].sum((1, 2)).min() / oversample**2 / math.pi).sqrt())
    parts = []
    orders = [rotational_order(picture) for picture in pictures]
    spectra = _spectra(made.over * made.weight[:, None], tuple(size)), _spectra(made.weight, tuple(size))
    for frame, world in enumerate(worlds - background.view(1, -1, 1, 1)):
        best, which = _best(world, made, spectra)
        rows, columns = _peaks(best, least, apart)
        found = _refined(world, made, which[rows, columns], rows, columns, angles, orders)
        parts.append(found._replace(frame=torch.full((len(rows),), frame)))
    return Sightings(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _best(world: Tensor, made: _Templates, spectra: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The best match at every place, and the template that has it."""
    size = world.shape[-2:]
    colours, square = torch.fft.rfft2(world), torch.fft.rfft2(world.square().sum(0))
    best, which = world.new_full(size, -math.inf), torch.zeros(size, dtype=torch.int64)
    for number, (over, weight) in enumerate(zip(*spectra, strict=True)):
        summed = 2 * (colours * over).sum(0) - square * weight
        match = torch.fft.irfft2(summed, s=size) / made.scale[number]
        better = match > best
        best, which = torch.where(better, match, best), torch.where(better, number, which)
    return best, which


def _peaks(best: Tensor, least: float, apart: float) -> tuple[Tensor, Tensor]:
    """Rows and columns of local maxima, the best first, without those too close to a better one."""
    around = F.max_pool2d(F.pad(best[None, None], [1] * 4, mode="circular"), 3, stride=1)[0, 0]
    rows, columns = ((best >= around) & (best >= least)).nonzero(as_tuple=True)
    order = best[rows, columns].argsort(descending=True, stable=True)
    place = torch.stack([rows, columns], 1)[order].double()
    sides = place.new_tensor(best.shape)
    kept: list[int] = []
    for index, spot in enumerate(place):
        away = (place[kept] - spot + sides / 2).remainder(sides) - sides / 2
        if not kept or away.square().sum(1).min() >= apart**2:
            kept.append(index)
    chosen = order[kept]
    return rows[chosen], columns[chosen]


def _vertex(low: Tensor, middle: Tensor, high: Tensor) -> Tensor:
    """Where the parabola through three values at -1, 0, 1 is highest, within half a step."""
    bend = low - 2 * middle + high
    return torch.where(bend < 0, 0.5 * (low - high) / bend, torch.zeros_like(bend)).clamp(-0.5, 0.5)


def _refined(
    world: Tensor, made: _Templates, which: Tensor, rows: Tensor, columns: Tensor, angles: int, orders: list[int]
) -> Sightings:
    """Positions between pixels and headings between turns, from the matches next to the best."""
    side = made.over.shape[-1]
    span = torch.arange(side + 2) - (side // 2 + 1)
    patch = world[
        :,
        (rows[:, None] + span).remainder(world.shape[1])[:, :, None],
        (columns[:, None] + span).remainder(world.shape[2])[:, None, :],
    ].movedim(1, 0)  # [n, channels, side + 2, side + 2]

    def match(template: Tensor, row: int, column: int) -> Tensor:
        seen = patch[:, :, 1 + row : 1 + row + side, 1 + column : 1 + column + side]
        wrong = made.weight[template][:, None] * (seen - made.over[template]).square()
        return (1 - wrong.sum((1, 2, 3)) / made.scale[template]).double()

    species, turn = which // angles, which % angles
    there = match(which, 0, 0)
    down = _vertex(match(which, -1, 0), there, match(which, 1, 0))
    right = _vertex(match(which, 0, -1), there, match(which, 0, 1))
    before, after = (species * angles + (turn + step) % angles for step in (-1, 1))
    step = _vertex(match(before, 0, 0), there, match(after, 0, 0)) if angles > 2 else torch.zeros_like(there)
    heading = (turn + step) * (2 * math.pi / angles)
    order = torch.tensor(orders)[species]
    period = 2 * math.pi / order.clamp(min=1)
    heading = torch.where(order > 0, (heading + period / 2).remainder(period) - period / 2, torch.zeros_like(heading))
    sides = heading.new_tensor(world.shape[1:])
    centre = (side % 2 == 0) * 0.5  # an even picture stands between pixels
    position = torch.stack([rows + down - centre, columns + right - centre], 1).remainder(sides)
    return Sightings(torch.zeros_like(rows), species, position, heading, there)
