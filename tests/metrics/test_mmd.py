"""The maximum mean discrepancy against its closed form for Gaussians, all pairs at once, and its own null."""

import importlib
import math

import pytest
import torch

from eqflow.metrics import mmd, mmd_test
from eqflow.systems import Lorenz

DOUBLE = torch.float64


def normals(*shape, seed=0):
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def direct(x, y, sigma):
    """Biased and unbiased, from the whole matrices."""
    xx, yy, xy = ((-torch.cdist(a, b).square() / (2 * sigma**2)).exp() for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    biased = xx.mean() + yy.mean() - 2 * xy.mean()
    unbiased = (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1)) - 2 * xy.mean()
    return float(biased), float(unbiased)


def closed_form(shift, scale, dimension, sigma):
    """MMD^2 of N(0, I) and N(shift e_1, scale^2 I): each mean of the kernel is a Gaussian integral."""

    def mean(variance, distance):
        total = sigma**2 + variance
        return (sigma**2 / total) ** (dimension / 2) * math.exp(-(distance**2) / (2 * total))

    return mean(2, 0) + mean(2 * scale**2, 0) - 2 * mean(1 + scale**2, shift)


@pytest.mark.parametrize("sizes", [(2, 3), (37, 64), (70, 20)])
def test_tiles_give_what_all_pairs_give(sizes, monkeypatch):
    monkeypatch.setattr(importlib.import_module("eqflow.metrics.mmd"), "_TILE", 16)
    x, y = normals(sizes[0], 3), normals(sizes[1], 3, seed=1) + 0.3
    found = mmd(x, y, sigma=0.7)
    assert (found.biased, found.unbiased) == pytest.approx(direct(x, y, 0.7), abs=1e-13)
    assert mmd_test(x, y, sigma=0.7, permutations=3).unbiased == pytest.approx(found.unbiased, abs=1e-13)
    assert found.root == pytest.approx(math.sqrt(found.biased))


def test_far_points_lose_nothing_to_cancellation():
    x, y = normals(50, 2), normals(50, 2, seed=1)
    assert mmd(x + 1e6, y + 1e6).unbiased == pytest.approx(mmd(x, y).unbiased, abs=1e-9)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 1.0), (0.0, 1.5), (1.0, 0.5)])
def test_the_unbiased_one_is_the_closed_form_on_average(shift, scale):
    values = []
    for repeat in range(200):
        x, y = normals(40, 2, seed=repeat), scale * normals(60, 2, seed=1000 + repeat)
        y[:, 0] += shift
        values.append(mmd(x, y, sigma=0.8))
    unbiased = torch.tensor([value.unbiased for value in values])
    error = float(unbiased.std()) / math.sqrt(len(values))
    assert abs(float(unbiased.mean()) - closed_form(shift, scale, 2, 0.8)) < 4 * error
    stated = torch.tensor([value.standard_error for value in values]).square().mean().sqrt()
    assert float(stated) == pytest.approx(float(unbiased.std()), rel=0.2)
    assert min(value.biased for value in values) >= 0


def test_a_set_is_at_distance_zero_from_itself():
    x = normals(30, 3)
    assert mmd(x, x).biased == pytest.approx(0, abs=1e-15) and mmd(x, x.flip(0)).biased == pytest.approx(0, abs=1e-14)


def test_the_permutation_test_keeps_its_level():
    """Equal distributions: p <= 1/10 in one case of ten, p <= 1/2 in one of two."""
    p_values = torch.tensor(
        [
            mmd_test(normals(12, 2, seed=n), normals(18, 2, seed=n + 5000), permutations=19, seed=n).p_value
            for n in range(400)
        ]
    )
    for level in (0.1, 0.5):
        rate = float((p_values <= level + 1e-9).double().mean())
        assert abs(rate - level) < 4 * math.sqrt(level * (1 - level) / 400)


def test_the_permutation_test_sees_a_difference():
    x, y = normals(150, 2), normals(150, 2, seed=1)
    far = mmd_test(x, y + torch.tensor([0.6, 0.0]), permutations=99)
    assert far.p_value == 1 / 100 and far.unbiased > far.null_mean + 3 * far.null_deviation
    assert abs(far.null_mean) < far.null_deviation


def test_the_floor_of_lorenz():
    """Two independent sets of 1024 points in standard units: the root of the biased one is 0.047."""
    points = Lorenz().sample(4096, seed=0)
    points = (points - points.mean(0)) / points.std(0)
    roots = [mmd(*pair).root for pair in zip(points[:2048].split(1024), points[2048:].split(1024), strict=True)]
    assert sum(roots) / 2 == pytest.approx(0.047, abs=0.003)


def test_the_precision_of_the_points_matters_little():
    x, y = normals(100, 3), normals(100, 3, seed=1)
    assert mmd(x.float(), y.float()).unbiased == pytest.approx(mmd(x, y).unbiased, abs=1e-7)


@pytest.mark.parametrize(
    ("x", "y", "sigma", "message"),
    [
        (torch.zeros(3), torch.zeros(3, 1), 1.0, r"x \[points, dimension\] with two points or more, got \[3\]"),
        (torch.zeros(3, 1), torch.zeros(1, 1), 1.0, r"y \[points, dimension\] with two points or more, got \[1, 1\]"),
        (torch.zeros(3, 1), torch.zeros(3, 2), 1.0, "one dimension, got 1 and 2"),
        (torch.full((3, 1), math.nan), torch.zeros(3, 1), 1.0, "finite x"),
        (torch.zeros(3, 1), torch.zeros(3, 1), 0.0, "sigma above 0"),
    ],
)
def test_wrong_arguments_are_refused(x, y, sigma, message):
    for measure in (mmd, mmd_test):
        with pytest.raises(ValueError, match=message):
            measure(x, y, sigma=sigma)
