"""Sign symmetries found from points: those that are there, no others, and the stated rate of misses."""

import math

import pytest
import torch

from eqflow.metrics import mmd, sign_symmetries
from eqflow.systems import Lorenz, TwoMoons


def normals(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_lorenz_has_the_one_flip_and_no_other():
    found = sign_symmetries(Lorenz().sample(8000, seed=0))
    assert found.found.tolist() == [[-1, -1, 1]] and found.closed
    others = ~found.symmetric
    assert found.mmd[others].min() > 0.05 and found.mmd[others].max() < 0.09
    assert found.mmd[~others].abs().max() < 0.001
    assert found.null_deviation.max() < 0.0005
    assert found.flips[0].tolist() == [1, 1, 1] and found.p_value[0] == 1


@pytest.mark.parametrize("seed", range(3))
def test_few_points_find_the_flip_too(seed):
    assert sign_symmetries(Lorenz().sample(400, seed=seed)).found.tolist() == [[-1, -1, 1]]


def test_two_moons_turn_by_half_a_turn():
    assert sign_symmetries(TwoMoons().sample(2000, seed=0)).found.tolist() == [[-1, -1]]


def test_units_and_shifts_do_not_matter():
    points = Lorenz().sample(1000, seed=0)
    there = sign_symmetries(points)
    scaled = sign_symmetries(points * torch.tensor([1e-3, 50.0, 1.0]) + torch.tensor([7.0, -100.0, 3.0]))
    torch.testing.assert_close(there.mmd, scaled.mmd, rtol=1e-6, atol=1e-9)


def test_the_discrepancy_is_that_of_two_independent_sets():
    """The mean over repeats against unbiased MMD^2 between points and other flipped ones."""
    points = torch.cat([normals(8000, 1), normals(8000, 1, seed=1).exp()], 1)
    found = sign_symmetries(points, count=1000)
    assert found.flips[2].tolist() == [1, -1]
    standard = (points - points.mean(0)) / points.std(0)
    halves = [mmd(part[:1000], part[1000:] * torch.tensor([1.0, -1.0])).unbiased for part in standard.split(2000)]
    assert float(found.mmd[2]) == pytest.approx(sum(halves) / 4, rel=0.05)
    assert found.symmetric.tolist() == [True, True, False, False]


def test_true_symmetries_are_missed_as_often_as_stated():
    """Three flips of a plane Gaussian, all symmetries; the mean is known from many more points than are used."""
    level, repeats = 0.1, 300
    p_values = torch.stack(
        [
            sign_symmetries(normals(2000, 2, seed=n), seed=n, count=100, repeats=1, level=level).p_value[1:]
            for n in range(repeats)
        ]
    )
    missed = float((p_values <= level / 3).any(1).double().mean())
    assert missed < level + 3 * math.sqrt(level * (1 - level) / repeats)
    for threshold in (0.05, 0.2, 0.5):
        rate = float((p_values[:, 0] <= threshold).double().mean())
        assert abs(rate - threshold) < 4 * math.sqrt(threshold * (1 - threshold) / repeats)


def test_a_set_of_symmetries_that_is_no_group_shows():
    found = sign_symmetries(normals(200, 2))
    assert found.closed
    assert not found._replace(p_value=torch.tensor([1.0, 1.0, 1.0, 0.0])).closed


def test_the_result_prints_as_a_table():
    text = str(sign_symmetries(Lorenz().sample(500, seed=0)))
    assert len(text.splitlines()) == 9
    assert text.splitlines()[4].startswith("-1 -1 +1") and text.splitlines()[4].endswith("yes")
    assert text.splitlines()[2].endswith("no")


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match=r"at most 8 coordinates, since there are 2\^d flips, got \[100, 9\]"):
        sign_symmetries(normals(100, 9))
    with pytest.raises(ValueError, match="at least 50 points"):
        sign_symmetries(normals(49, 2))
    with pytest.raises(ValueError, match="but 1 is constant: drop it"):
        sign_symmetries(torch.cat([normals(100, 1), torch.ones(100, 1)], 1))
    with pytest.raises(ValueError, match="NaN or infinite"):
        sign_symmetries(torch.full((100, 2), math.nan))
