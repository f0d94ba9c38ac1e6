import math

import pytest
import torch

from eqflow.score import Gaussian, KernelScore, Points, make_pool, sample_pool


def cloud(count, dimension=2, dtype=torch.float32, seed=0):
    return torch.randn(count, dimension, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def test_rows_are_their_points_with_gaussian_noise():
    points, alpha = cloud(500), 0.9
    noised, origin = sample_pool(points, alpha, 40_000, seed=1)
    noise = (noised - math.sqrt(alpha) * points[origin]) / math.sqrt(1 - alpha)
    assert noise.mean().abs() < 4 / math.sqrt(noise.numel())
    assert (noise.square().mean() - 1).abs() < 4 * math.sqrt(2 / noise.numel())
    counts = torch.bincount(origin, minlength=500).double()  # 80 expected of each
    chi_square = float(((counts - 80).square() / 80).sum())
    assert abs(chi_square - 499) < 4 * math.sqrt(2 * 499)


def test_a_row_depends_on_seed_and_number_alone():
    points = cloud(50)
    long, short = sample_pool(points, 0.95, 100, seed=3), sample_pool(points, 0.95, 30, seed=3)
    assert all(torch.equal(a[:30], b) for a, b in zip(long, short, strict=True))
    assert not torch.equal(sample_pool(points, 0.95, 30, seed=4)[0], short[0])


@pytest.mark.parametrize("self_term", ["include", "exclude"])
def test_the_pool_is_the_kernel_score_whatever_the_chunk(self_term):
    points, done = cloud(300), []
    pool = make_pool(points, 0.95, 100, seed=2, self_term=self_term, chunk=33, progress=done.append)
    noised, origin = sample_pool(points, 0.95, 100, seed=2)
    assert torch.equal(pool.points, noised) and done == [33, 66, 99, 100]
    score = KernelScore(points, 0.95, self_term=self_term)
    torch.testing.assert_close(pool.scores, score(noised, own=origin), rtol=0, atol=0)
    given = make_pool(points, 0.95, 100, seed=2, score=Points(points, self_term=self_term).at(0.95))
    assert torch.equal(given.scores, pool.scores)


def test_steins_identities_hold_for_the_pool():
    points = torch.cat([cloud(400) - 2, 0.3 * cloud(400, seed=1) + 1])
    points = (points - points.mean(0)) / points.std(0)
    pool = make_pool(points, 0.95, 40_000, seed=0)
    products = pool.points[:, :, None] * pool.scores[:, None, :]
    error = products.std(0) / math.sqrt(len(products))
    assert ((products.mean(0) + torch.eye(2)).abs() < 4 * error).all()
    assert (pool.scores.mean(0).abs() < 4 * pool.scores.std(0) / math.sqrt(len(products))).all()


def test_any_score_serves():
    points, exact = cloud(100, dtype=torch.float64), Gaussian(torch.zeros(2, dtype=torch.float64), 1.0)
    pool = make_pool(points, 0.9, 64, seed=0, score=exact)
    torch.testing.assert_close(pool.scores, -pool.points, rtol=0, atol=0)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: sample_pool(torch.zeros(3), 0.5, 1, seed=0), r"expected points \[points, dimension\].*got \[3\]"),
        (lambda: sample_pool(cloud(3), 1.0, 1, seed=0), r"expected alpha in \(0, 1\).*got 1\.0"),
        (lambda: make_pool(cloud(3), 0.5, 0, seed=0), "expected a count from 1 up, got 0"),
        (lambda: make_pool(cloud(3), 0.5, 4, seed=0, score=KernelScore(cloud(3), 0.6)), r"use model\.at\(0\.5\)"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
