"""Creatures put at known places, found again."""

import math

import pytest
import torch

from eqflow.metrics import find_creatures, rotational_order
from eqflow.metrics.creatures import turned

SIDE = 20


def paint(side: int, *parts: tuple[tuple[float, float], float, tuple[float, ...]]) -> torch.Tensor:
    """Discs (row, column), radius, colour on a transparent square; coordinates in shares of the side."""
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    picture = torch.zeros(4, side, side, dtype=torch.float64)
    for (row, column), radius, colour in parts:
        distance = torch.hypot(axis[:, None] - row, axis - column)
        alpha = ((radius - distance) * side + 0.5).clamp(0, 1)
        total = alpha + picture[3] * (1 - alpha)
        for channel, value in enumerate(colour):
            under = picture[channel] * picture[3] * (1 - alpha)
            picture[channel] = torch.where(total > 0, (value * alpha + under) / total.clamp(min=1e-9), 0.0)
        picture[3] = total
    return picture


BEETLE = paint(4 * SIDE, ((0.62, 0.5), 0.22, (-0.8, -0.5, 0.9)), ((0.3, 0.5), 0.14, (0.9, -0.8, -0.7)))
EGG = paint(4 * SIDE, ((0.5, 0.5), 0.25, (-0.6, 0.8, -0.6)))
PAIR = paint(4 * SIDE, ((0.3, 0.5), 0.17, (-0.9, -0.9, 0.9)), ((0.7, 0.5), 0.17, (-0.9, -0.9, 0.9)))


def world(
    picture: torch.Tensor, places: list[tuple[float, float, float]], size: tuple[int, int] = (72, 96)
) -> torch.Tensor:
    """White, with a picture at rows, columns and turns, across the borders too: [3, height, width]."""
    canvas = torch.ones(3, *size, dtype=torch.float64)
    oversample = picture.shape[-1] // SIDE
    for row, column, angle in places:
        layers = torch.nn.functional.avg_pool2d(turned(picture[None], torch.tensor([angle]))[0], oversample)[0]
        grid = (
            torch.fft.fftfreq(size[0], dtype=torch.float64)[:, None],
            torch.fft.rfftfreq(size[1], dtype=torch.float64),
        )
        shift = torch.exp(-2j * math.pi * (grid[0] * (row - SIDE / 2 + 0.5) + grid[1] * (column - SIDE / 2 + 0.5)))
        placed = torch.zeros(4, *size, dtype=torch.float64)
        placed[:, :SIDE, :SIDE] = layers
        placed = torch.fft.irfft2(torch.fft.rfft2(placed) * shift, s=size)
        canvas = canvas * (1 - placed[3]) + placed[:3]
    return canvas


def find(field: torch.Tensor, *pictures: torch.Tensor, **options):
    white = torch.ones(3, dtype=torch.float64)
    return find_creatures(field[None], torch.stack(pictures), background=white, oversample=4, **options)


PLACES = [(10.3, 20.6, 0.4), (40.0, 50.25, 2.9), (0.4, 80.0, -1.3), (71.8, 1.1, 4.0), (55.5, 21.7, 0.0)]


def matched(found, places):
    sides = torch.tensor([72.0, 96.0], dtype=torch.float64)
    order = []
    for row, column, _ in places:
        away = (found.position - torch.tensor([row, column]) + sides / 2).remainder(sides) - sides / 2
        order.append(int(away.norm(dim=1).argmin()))
        assert away.norm(dim=1).min() < 0.15
    return order


def test_places_and_headings_come_back():
    noise = 0.1 * torch.randn(3, 72, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for field in (world(BEETLE, PLACES), world(BEETLE, PLACES) + noise):
        found = find(field, BEETLE)
        assert len(found.frame) == len(PLACES)
        assert found.match.min() > 0.9
        order = matched(found, PLACES)
        wrong = found.heading[order] - torch.tensor([angle for *_, angle in PLACES], dtype=torch.float64)
        assert (torch.remainder(wrong + math.pi, 2 * math.pi) - math.pi).abs().max() < math.radians(5)


def test_headings_turn_counterclockwise_as_the_eye_sees():
    upright = turned(BEETLE[None], torch.tensor([0.0]))[0, 0]
    quarter = turned(BEETLE[None], torch.tensor([math.pi / 2]))[0, 0]
    torch.testing.assert_close(quarter, upright.rot90(1, (1, 2)), atol=1e-6, rtol=0)


def test_nothing_is_found_where_nothing_is():
    noise = torch.randn(3, 72, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    assert len(find(torch.ones(3, 72, 96, dtype=torch.float64), BEETLE).frame) == 0
    assert len(find(noise, BEETLE).frame) == 0
    assert len(find(-torch.ones(3, 72, 96, dtype=torch.float64), BEETLE).frame) == 0


def test_species_are_told_apart():
    field = torch.minimum(world(BEETLE, PLACES[:2]), world(EGG, PLACES[2:]))
    found = find(field, BEETLE, EGG)
    order = matched(found, PLACES)
    assert found.species[order].tolist() == [0, 0, 1, 1, 1]


def test_symmetry_of_pictures():
    assert [rotational_order(picture) for picture in (BEETLE, PAIR, EGG)] == [1, 2, 0]
    found = find(world(PAIR, [(30.0, 30.0, 2.0)]), PAIR)
    assert found.heading.item() == pytest.approx(2.0 - math.pi, abs=0.09)
    assert find(world(EGG, [(30.0, 30.0, 2.0)]), EGG).heading.item() == 0


def test_a_part_is_a_poorer_match():
    half = paint(4 * SIDE, ((0.62, 0.5), 0.22, (-0.8, -0.5, 0.9)))
    found = find(world(half, [(30.0, 30.0, 0.0)]), BEETLE, least=0.2)
    assert 0.3 < found.match.max() < 0.85


def test_errors_name_the_remedy():
    white = torch.ones(3)
    with pytest.raises(ValueError, match=r"expected worlds \[frames"):
        find_creatures(torch.ones(2, 64, 64), BEETLE[None], background=white)
    with pytest.raises(ValueError, match="finite"):
        find_creatures(torch.full((1, 3, 64, 64), math.nan), BEETLE[None], background=white)
    with pytest.raises(ValueError, match="larger than the pictures"):
        find_creatures(torch.ones(1, 3, 64, 64), BEETLE[None], background=white)
