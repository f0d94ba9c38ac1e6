"""Discs that move as told on a torus are found where they are, and keep who they are across the borders."""

import logging
import math
import sys

import pytest
import torch

from eqflow.metrics import track_solitons

SIZE = (48, 64)


@pytest.fixture
def trackpy():
    return pytest.importorskip("trackpy", reason="tracking solitons needs trackpy")


def film(frames, *movers, size=SIZE):
    """Smooth discs of radius 5 at threshold 0.5: each (start, velocity, first frame, frame after the last)."""
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in size)
    pictures = torch.zeros(frames, *size, dtype=torch.float64)
    for start, velocity, first, end in movers:
        for frame in range(first, end):
            places = [at + step * frame for at, step in zip(start, velocity, strict=True)]
            away = [
                torch.remainder(axis - place + side / 2, side) - side / 2
                for axis, place, side in zip((rows, columns), places, size, strict=True)
            ]
            distance = torch.hypot(away[0][:, None], away[1])
            pictures[frame] += torch.sigmoid(1.5 * (5 - distance))
    return pictures


def test_a_disc_keeps_its_identity_and_speed_across_the_borders(trackpy):
    pictures = film(60, ((10, 20), (1.2, -1.6), 0, 60))
    found = track_solitons(pictures, threshold=0.5, reach=4, interval=0.5)
    assert found.track.tolist() == [0] * 60 and found.count.tolist() == [1] * 60
    torch.testing.assert_close(found.speed, torch.tensor([4.0], dtype=torch.float64), rtol=2e-3, atol=0)
    steps = torch.arange(60, dtype=torch.float64)[:, None] * torch.tensor([1.2, -1.6], dtype=torch.float64)
    torch.testing.assert_close(found.path - found.path[0], steps, rtol=0, atol=0.03)
    assert found.path[-1, 0] > SIZE[0] and found.path[-1, 1] < 0  # it did cross them
    assert (found.position >= 0).all() and (found.position < torch.tensor(SIZE)).all()
    moved = found.mean_square_displacement(20)
    torch.testing.assert_close(moved.value, (4 * moved.time).square(), rtol=2e-3, atol=0)


def test_a_shift_of_the_film_shifts_the_paths_only(trackpy):
    pictures = film(20, ((10, 20), (0.5, -2.5), 0, 20), ((30, 40), (1, 1), 0, 20))
    found = track_solitons(pictures, threshold=0.5, reach=4)
    for shift in ((24, 32), (40, 11)):
        moved = track_solitons(pictures.roll(shift, (1, 2)), threshold=0.5, reach=4)
        torch.testing.assert_close(moved.speed.sort().values, found.speed.sort().values)
        torch.testing.assert_close(moved.count, found.count)
        one, other = (part.mean_square_displacement(10).value for part in (moved, found))
        torch.testing.assert_close(one, other)


def test_births_deaths_and_lifetimes(trackpy):
    pictures = film(30, ((10, 10), (0, 1), 0, 30), ((30, 40), (0, 0), 5, 21), ((30, 10), (1, 0), 12, 30))
    found = track_solitons(pictures, threshold=0.5, reach=3)
    assert found.count.tolist() == [1] * 5 + [2] * 7 + [3] * 9 + [2] * 9
    assert found.born.tolist() == [0, 5, 12] and found.last.tolist() == [29, 20, 29]
    assert found.lifetime.tolist() == [30, 16, 18] and found.whole.tolist() == [False, True, False]
    torch.testing.assert_close(found.speed, torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64), rtol=0, atol=0.01)


def test_two_that_pass_near_a_border_are_not_mistaken(trackpy):
    """In opposite directions, on either side of the border of the rows, and both over that of the columns."""
    pictures = film(40, ((42, 50), (0.0, 1.5), 0, 40), ((6, 20), (0.0, -1.5), 0, 40))
    found = track_solitons(pictures, threshold=0.5, reach=5)
    assert found.track.bincount().tolist() == [40, 40]
    ends = torch.stack([found.path[found.track == name][-1] - found.path[found.track == name][0] for name in (1, 0)])
    expected = torch.tensor([[0, 1.5 * 39], [0, -1.5 * 39]], dtype=torch.float64)
    torch.testing.assert_close(ends, expected, rtol=0, atol=0.05)


def test_reach_bounds_a_step_and_memory_bridges_a_gap(trackpy):
    pictures = film(10, ((10, 60), (0, 6), 0, 10))
    assert len(track_solitons(pictures, threshold=0.5, reach=6.2).speed) == 1
    assert len(track_solitons(pictures, threshold=0.5, reach=5.8).speed) == 10
    gap = film(10, ((10, 10), (0, 0.5), 0, 4), ((10, 10), (0, 0.5), 6, 10))
    assert track_solitons(gap, threshold=0.5, reach=3).lifetime.tolist() == [4, 4]
    bridged = track_solitons(gap, threshold=0.5, reach=3, memory=2)
    assert bridged.lifetime.tolist() == [10] and bridged.speed.item() == pytest.approx(0.5, rel=0.02)


def test_a_spot_over_the_corner_is_one_and_stands_at_its_mean(trackpy):
    picture = torch.zeros(1, 12, 15)
    picture[0, [10, 11, 0, 0, 0], [14, 14, 14, 0, 1]] = 2  # an L across both borders
    picture[0, 5:7, 6] = torch.tensor([2.0, 4.0])  # weights 1 and 3
    picture[0, 8, 8] = picture[0, 9, 9] = 2  # they touch at a corner only
    found = track_solitons(picture, threshold=1.0, reach=2)
    spots = {
        (round(float(row), 6), round(float(column), 6)): int(area)
        for (row, column), area in zip(found.position, found.area, strict=True)
    }
    assert spots == {(11.4, 14.6): 5, (5.75, 6.0): 2, (8.0, 8.0): 1, (9.0, 9.0): 1}
    assert track_solitons(picture, threshold=1.0, reach=2, least=2, most=4).area.tolist() == [2]


def test_films_with_nothing_in_them(trackpy):
    found = track_solitons(film(5, ((10, 10), (0, 1), 2, 4)), threshold=0.5, reach=3)
    assert found.count.tolist() == [0, 0, 1, 1, 0] and found.lifetime.tolist() == [2]
    assert track_solitons(torch.zeros(3, 8, 8), threshold=0.5, reach=3).count.tolist() == [0, 0, 0]


def test_it_is_silent(trackpy, capfd, caplog):
    with caplog.at_level(logging.WARNING):
        track_solitons(film(4, ((10, 10), (0, 1), 0, 4)), threshold=0.5, reach=3)
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_wrong_arguments_are_refused(trackpy):
    pictures = film(2, ((10, 10), (0, 1), 0, 2))
    with pytest.raises(ValueError, match="expected finite pictures"):
        track_solitons(pictures[0], threshold=0.5, reach=3)
    with pytest.raises(ValueError, match="expected finite pictures"):
        track_solitons(pictures / 0, threshold=0.5, reach=3)
    with pytest.raises(ValueError, match=r"expected reach in \(0, 24\)"):
        track_solitons(pictures, threshold=0.5, reach=24)
    crowd = torch.zeros(2, 24, 24)
    crowd[:, ::2, ::2] = 1
    with pytest.raises(ValueError, match="a reach below the distance of neighbours, got 4"):
        track_solitons(crowd, threshold=0.5, reach=4)


def test_without_trackpy_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackpy", None)
    with pytest.raises(ImportError, match=r"pip install 'eqflow\[tracking\]'"):
        track_solitons(torch.zeros(2, 8, 8), threshold=0.5, reach=math.pi)
