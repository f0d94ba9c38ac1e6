"""Paths that are known: lifetimes, speeds and mean square displacements, over borders and gaps."""

import math

import pytest
import torch

from eqflow import ops
from eqflow.metrics import Tracks

SIZE = (16, 24)


def tracks(frame, track, path, *, frames, interval=1.0):
    """From paths without borders."""
    frame, track, path = torch.as_tensor(frame), torch.as_tensor(track), torch.as_tensor(path, dtype=torch.float64)
    position = torch.remainder(path, torch.tensor(SIZE, dtype=torch.float64))
    return Tracks.make(frame, track, position, torch.ones_like(frame), frames=frames, size=SIZE, interval=interval)


def test_a_straight_path_has_its_speed_and_the_square_of_its_length():
    times, velocity = torch.arange(50), torch.tensor([1.5, -2.0], dtype=torch.float64)
    start = torch.tensor([3.0, 4.0], dtype=torch.float64)
    found = tracks(
        times, torch.zeros(50, dtype=torch.long), start + times[:, None] * velocity, frames=50, interval=0.25
    )
    torch.testing.assert_close(found.path, start + times[:, None] * velocity)
    assert found.speed.item() == pytest.approx(2.5 / 0.25) and found.lifetime.item() == 12.5
    moved = found.mean_square_displacement(20)
    torch.testing.assert_close(moved.value, (found.speed * moved.time).square())
    assert moved.pairs.tolist() == [50 - lag for lag in range(1, 21)] and moved.time[-1] == 5


def test_random_walks_spread_in_proportion_to_time():
    steps = 0.8 * ops.normal(40, 200, seed=1).view(40, 100, 2).double()
    frame, track = torch.arange(100).repeat(40), torch.arange(40).repeat_interleave(100)
    found = tracks(frame, track, steps.cumsum(1).flatten(0, 1), frames=100)
    moved = found.mean_square_displacement(5)
    torch.testing.assert_close(moved.value, 2 * 0.64 * moved.time, rtol=0.1, atol=0)
    assert (found.speed - 0.8 * math.sqrt(math.pi / 2)).abs().max() < 0.2


def test_tracks_do_not_run_into_one_another():
    # 0: whole life, 1: cut by the first frame, 2: cut by the last one, and seen once.
    found = tracks([1, 2, 3, 0, 1, 4], [0, 0, 0, 1, 1, 2], [[0, 0], [0, 1], [0, 2], [9, 9], [9, 9], [3, 3]], frames=5)
    assert found.born.tolist() == [1, 0, 4] and found.last.tolist() == [3, 1, 4]
    assert found.lifetime.tolist() == [3, 2, 1] and found.whole.tolist() == [True, False, False]
    assert found.count.tolist() == [1, 2, 1, 1, 1]
    assert found.speed.tolist()[:2] == [1, 0] and found.speed[2].isnan()
    moved = found.mean_square_displacement(4)
    assert moved.pairs.tolist() == [3, 1, 0, 0]
    assert moved.value.tolist()[:2] == [pytest.approx(2 / 3), 4] and moved.value[2:].isnan().all()


def test_a_gap_is_bridged_in_the_time_it_takes():
    found = tracks([0, 1, 4], [0, 0, 0], [[0, 0], [0, 2], [0, 8]], frames=5)
    assert found.speed.item() == 2 and found.lifetime.item() == 5
    assert found.mean_square_displacement(4).pairs.tolist() == [1, 0, 1, 1]


def test_spots_come_in_any_order():
    order = torch.tensor([3, 0, 2, 1, 5, 4])
    frame, track = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0, 0, 0, 1, 1, 1])
    path = ops.normal(6, 2, seed=3)
    for one, other in zip(
        tracks(frame, track, path, frames=3), tracks(frame[order], track[order], path[order], frames=3), strict=True
    ):
        torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other))


def test_no_spots_at_all():
    none = torch.zeros(0, dtype=torch.long)
    found = tracks(none, none, torch.zeros(0, 2), frames=3)
    assert found.count.tolist() == [0, 0, 0] and len(found.speed) == len(found.lifetime) == 0
    assert found.mean_square_displacement(2).pairs.tolist() == [0, 0]
