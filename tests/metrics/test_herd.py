"""Flights whose speeds, turns and attractions are known."""

import math

import pytest
import torch

from eqflow.metrics import Sightings, follow_creatures, herd

SIZE, INTERVAL = (200, 160), 0.5


def fly(paths: torch.Tensor, headings: torch.Tensor | None = None, reach: float = 8.0, **options):
    """Flights along paths [creatures, frames, 2] that do not know of the borders."""
    creatures, frames, _ = paths.shape
    frame = torch.arange(frames).repeat_interleave(creatures)
    position = paths.transpose(0, 1).reshape(-1, 2).remainder(torch.tensor(SIZE, dtype=torch.float64))
    heading = torch.zeros(creatures, frames) if headings is None else headings
    heading = torch.remainder(heading.double().T.flatten() + math.pi, 2 * math.pi) - math.pi
    some = torch.zeros(len(frame))
    seen = Sightings(frame, some.long(), position, heading, some.double() + 1)
    return follow_creatures(seen, SIZE, frames=frames, reach=reach, interval=INTERVAL, **options)


def scattered(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor(SIZE, dtype=torch.float64)


def walk(count: int, frames: int, step: float, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    moves = step * torch.randn(count, frames, 2, generator=generator, dtype=torch.float64)
    return scattered(count)[:, None] + moves.cumsum(1)


def straight(count: int, frames: int, velocity: torch.Tensor) -> torch.Tensor:
    time = INTERVAL * torch.arange(frames, dtype=torch.float64)
    return scattered(count)[:, None] + time[:, None] * velocity[:, None]


def heading_of(count: int, seed: int = 2) -> torch.Tensor:
    return 2 * math.pi * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_straight_flights_across_borders():
    angle = heading_of(12)
    velocity = 3.0 * torch.stack([-angle.sin(), angle.cos()], 1)
    flights = fly(straight(12, 60, velocity), (angle + 0.7).expand(60, 12).T)
    assert int(flights.tracks.track.max()) == 11
    for lag in (1, 5):
        assert herd.speed(flights, lag).value == pytest.approx(3.0)
    assert herd.persistence(flights, 2).value == pytest.approx(1.0)
    assert herd.along_body(flights, 2).value == pytest.approx(1.0)
    assert math.isnan(herd.lifetime(flights).value) or herd.lifetime(flights).value == math.inf
    curve = herd.displacement(flights, [1, 4])
    torch.testing.assert_close(curve.y, (3.0 * curve.x) ** 2)


def test_turning_is_counted_over_full_circles():
    paths = scattered(9)[:, None].expand(9, 80, 2)
    rate = 0.9
    headings = heading_of(9)[:, None] + rate * INTERVAL * torch.arange(80)
    found = herd.turning(fly(paths, headings), 3)
    assert found.value == pytest.approx(rate)
    assert herd.turning(fly(paths, -headings), 3).value == pytest.approx(-rate)


def test_random_walks_diffuse_and_forget():
    flights = fly(walk(40, 300, 0.6))
    curve = herd.displacement(flights, [1, 2, 8])
    expected = 2 * 0.6**2 * curve.x / INTERVAL
    assert ((curve.y - expected).abs() < 4 * curve.error).all()
    forgotten = herd.persistence(flights, 1)
    assert abs(forgotten.value) < 4 * forgotten.error


def test_creatures_without_an_order():
    places = torch.stack([scattered(40, seed) for seed in range(40)], 1)
    places = places[:, :, None] + torch.tensor([[0.0, 0.0], [0.3, 0.0]])  # two frames of each scatter
    found = [herd.pairs(fly(places[:, k]), 1, farthest=60.0, bins=4).correlation.y for k in range(40)]
    means = torch.stack(found)
    assert ((means.mean(0) - 1).abs() < 4 * means.std(0) / 40**0.5).all()
    angle = heading_of(30)
    order = herd.polarisation(fly(straight(30, 20, torch.stack([-angle.sin(), angle.cos()], 1))), 1)
    assert order.null.value == pytest.approx(math.sqrt(math.pi / 120), rel=0.1)
    assert order.value.value < order.null.value + 6 * order.null.error + 0.2


def test_attraction_is_seen_and_a_shuffle_is_not():
    centres = scattered(14, 3)
    offset = torch.stack([heading_of(14, 4).cos(), heading_of(14, 4).sin()], 1)
    time = torch.arange(40, dtype=torch.float64)
    gap = (12.0 - 0.2 * time)[None, :, None]
    paths = torch.cat([centres[:, None] + sign * gap / 2 * offset[:, None] for sign in (1, -1)])
    found = herd.pairs(fly(paths + 0.02 * walk(28, 40, 1.0, 5), reach=2.5), 2, farthest=15.0, bins=3)
    near = found.approach.y[1]
    assert near < -4 * found.approach.error[1]
    assert abs(found.approach_null.y[1]) < abs(near) / 2


def test_a_flock_is_polarised():
    velocity = torch.tensor([[0.4, 1.0]], dtype=torch.float64).expand(20, 2)
    flights = fly(straight(20, 30, velocity), torch.full((20, 30), 0.3))
    for of in ("motion", "headings"):
        order = herd.polarisation(flights, 1, of=of)
        assert order.value.value == pytest.approx(1.0)
        assert order.null.value < 0.3
    torch.testing.assert_close(herd.pairs(flights, 1, farthest=80.0).alignment.y.nanmean(), torch.tensor(1.0).double())


def test_gaps_are_bridged_and_deaths_are_counted():
    paths = scattered(6)[:, None].expand(6, 30, 2).clone()
    frame = torch.arange(30).repeat_interleave(6)
    creature = torch.arange(6).repeat(30)
    seen = ~((creature == 0) & ((frame == 10) | (frame == 11))) & ~((creature == 1) & (frame >= 15))
    place = paths.transpose(0, 1).reshape(-1, 2)[seen]
    some = torch.zeros(int(seen.sum()))
    sightings = Sightings(frame[seen], some.long(), place, some.double(), some.double())
    flights = follow_creatures(sightings, SIZE, frames=30, reach=4.0, interval=INTERVAL)
    assert int(flights.tracks.track.max()) == 5
    assert herd.lifetime(flights).value == pytest.approx(INTERVAL * int(seen.sum()))  # one death


def test_errors_name_the_remedy():
    paths = scattered(3)[:, None].expand(3, 4, 2)
    with pytest.raises(ValueError, match="half the grid"):
        fly(paths, reach=100.0)
    with pytest.raises(ValueError, match="half the world"):
        herd.pairs(fly(paths), 1, farthest=100.0)
