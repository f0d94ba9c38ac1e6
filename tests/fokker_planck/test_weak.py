import math
import threading
import weakref

import pytest
import torch

from eqflow.fokker_planck import (
    Custom,
    FewPointsWarning,
    eliminate,
    estimate,
    from_library,
    parametric,
    polynomial,
    random_cosines,
    weak_form,
)
from eqflow.fokker_planck.stream import spread

DOUBLE = torch.float64
VALUES = {
    "x in x'": -10,
    "y in x'": 10,
    "x in y'": 28,
    "y in y'": -1,
    "x z in y'": -1,
    "z in z'": -8 / 3,
    "x y in z'": 1,
}


def test_lorenz_from_twenty_thousand_points(lorenz):
    for k in range(5):
        fit = estimate(weak_form(lorenz.points[20_000 * k : 20_000 * (k + 1)], lorenz.model, seed=k))
        assert ((fit.coefficients - lorenz.truth).abs() < torch.tensor([0.2, 0.2, 0.06])).all()
        assert 0.3 < fit.j_statistic / fit.degrees_of_freedom < 1.7 and fit.p_value > 0.01
        assert ((fit.coefficients - lorenz.truth) / fit.standard_errors).abs().max() < 4


def test_errors_from_two_thousand_points(lorenz):
    fits = [
        estimate(weak_form(lorenz.points[2000 * k : 2000 * (k + 1)], lorenz.model, count=25, scale=0.6, seed=k))
        for k in range(50)
    ]
    errors = torch.stack([fit.coefficients - lorenz.truth for fit in fits])
    assert (errors[:10].abs() < 0.1 * lorenz.truth).all()
    assert (errors.square().mean(0).sqrt() < 0.04 * lorenz.truth).all()
    covered = (errors.abs() < 1.96 * torch.stack([fit.standard_errors for fit in fits])).double().mean(0)
    assert (covered >= 0.8).all()


def test_the_diffusion_is_found_too(lorenz):
    model = lorenz.make(None, unknown_diffusion="isotropic")
    fit = estimate(weak_form(lorenz.points[:20_000], model, count=100))
    assert fit.value("D") == pytest.approx(10, abs=0.5)
    assert ((fit.coefficients[:3] - lorenz.truth) / fit.standard_errors[:3]).abs().max() < 4


def test_wrong_models_are_rejected(lorenz):
    points = lorenz.points[:20_000]
    for diffusion in (8.0, 12.0):
        assert estimate(weak_form(points, lorenz.make(diffusion))).p_value < 1e-4
    unknown = {"sigma": {"x": "y - x"}, "rho": {"y": "x"}, "beta": {"z": "-z"}}
    missing = parametric("x y z", unknown, known={"y": "-x*z", "z": "x*y"}, diffusion=10.0)
    assert estimate(weak_form(points, missing, count=100)).p_value < 1e-6


def test_half_of_space_through_bumps(lorenz):
    half = lorenz.points[lorenz.points[:, 0] > 0][:40_000]
    window = ((0.0, -math.inf, -math.inf), (math.inf,) * 3)
    fit = estimate(weak_form(half, lorenz.model, functions="bumps", window=window, bandwidth=3.0, count=150))
    assert ((fit.coefficients / lorenz.truth - 1).abs() < 0.03).all()
    assert fit.j_statistic / fit.degrees_of_freedom < 1.7
    blind = estimate(weak_form(half, lorenz.model))
    assert blind.j_statistic / blind.degrees_of_freedom > 10


@pytest.mark.slow
@pytest.mark.parametrize("diffusion", [0.1, 1.0, 50.0, 200.0])
def test_other_strengths_of_the_noise(lorenz, diffusion):
    points = lorenz.sample(40_000, diffusion=diffusion, seed=2)
    for k, part in enumerate(points.split(20_000)):
        fit = estimate(weak_form(part, lorenz.make(diffusion), seed=k))
        assert ((fit.coefficients - lorenz.truth).abs() < torch.tensor([0.25, 0.25, 0.1])).all()
        assert fit.p_value > 0.005


def check_thirty_terms(points, seed, *, count, tolerance):
    library = from_library(polynomial("x y z", 2), diffusion=10.0)
    assert len(library.names) == 30
    fit = eliminate(weak_form(points, library, count=count, scale=0.7, seed=seed))
    for name, value in VALUES.items():
        assert fit.value(name) == pytest.approx(value, rel=tolerance)
    assert fit.j_statistic / fit.degrees_of_freedom < 1.3
    return fit


def test_the_equations_out_of_thirty_terms(lorenz):
    fit = check_thirty_terms(lorenz.points, 0, count=150, tolerance=0.08)
    assert set(fit.names) == set(VALUES)
    first, second, third, verdict = str(fit).splitlines()
    assert first.startswith("x' = -") and first.endswith(" y")
    assert " x z" in second and second.startswith("y' = 2") and third.endswith(" x y")
    assert "the points agree with the model" in verdict


@pytest.mark.slow
def test_the_equations_of_four_data_sets(lorenz):
    exact = 0
    for seed in range(4):
        points = lorenz.points if seed == 0 else lorenz.sample(100_000, diffusion=10.0, seed=10 + seed)
        exact += set(check_thirty_terms(points, seed, count=150, tolerance=0.08).names) == set(VALUES)
    assert exact >= 3


@pytest.mark.slow
def test_the_equations_of_many_points(lorenz):
    points = lorenz.sample(390_000, diffusion=10.0, seed=20)
    assert set(check_thirty_terms(points, 5, count=300, tolerance=0.04).names) == set(VALUES)


def identities(points):
    """sigma, rho and beta from phi = x^2/2, y^2/2, z, for D = 10."""
    x, y, z = points.T
    xy = (x * y).mean()
    return torch.stack([10 / ((x * x).mean() - xy), ((x * y * z).mean() + (y * y).mean() - 10) / xy, xy / z.mean()])


def test_moments_of_second_degree_are_the_textbook_identities(lorenz):
    points = lorenz.points[:20_000]
    moments = Custom(lambda p: torch.stack([p[:, 0] ** 2 / 2, p[:, 1] ** 2 / 2, p[:, 2]], 1), 3)
    fit = estimate(weak_form(points, lorenz.model, functions=moments))
    torch.testing.assert_close(fit.coefficients, identities(points), rtol=1e-9, atol=0)


def test_matrix_noise_in_the_sense_of_ito():
    """dx = -x dt + sqrt(2 D (1 + x^2)) dW has the density (1 + x^2)^(-1 - 1/(2D)): Student's t."""
    diffusion, count = 0.3, 40_000
    freedom = 1 + 1 / diffusion
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(count, dtype=DOUBLE, generator=generator)
    grid = torch.linspace(-60, 60, 400_001, dtype=DOUBLE)
    density = (1 + grid**2) ** (-1 - 1 / (2 * diffusion))
    cumulated = density.cumsum(0) / density.sum()
    points = grid[torch.searchsorted(cumulated, uniform).clamp_max(len(grid) - 1)][:, None]
    assert points.std().item() == pytest.approx(freedom**-0.5 * (freedom / (freedom - 2)) ** 0.5, rel=0.05)

    def local(points):
        return (1 + points[:, :, None] ** 2) * diffusion

    fit = estimate(weak_form(points, parametric("x", {"k": {"x": "-x"}}, diffusion=local), functions="bumps", count=20))
    assert abs(fit.coefficients[0] - 1) < 4 * fit.standard_errors[0] < 0.1 and fit.p_value > 0.01
    parts = {"a": lambda p: torch.ones_like(p)[:, :, None], "b": lambda p: p[:, :, None] ** 2}
    unknown = parametric("x", {}, known={"x": "-x"}, unknown_diffusion=parts)
    fit = estimate(weak_form(points, unknown, functions="bumps", count=20))
    assert ((fit.coefficients - 0.3) / fit.standard_errors).abs().max() < 4 and fit.standard_errors.max() < 0.1


def test_a_steady_state_with_births_and_deaths():
    """Growth g = -a x^2 about its mean, drift -k x: a Gaussian of variance S with k S + a S^2 = D."""
    k, a, variance = 1.0, 0.4, 0.5
    points = variance**0.5 * torch.randn(40_000, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    drift = {"k": {"x": "-x"}}
    model = parametric("x", drift, diffusion=k * variance + a * variance**2, known_growth="-0.4*x^2")
    fit = estimate(weak_form(points, model, count=12))
    assert abs(fit.coefficients[0] - k) < 4 * fit.standard_errors[0] < 0.1 and fit.p_value > 0.01
    blind = parametric("x", drift, diffusion=k * variance + a * variance**2)
    assert estimate(weak_form(points, blind, count=12)).coefficients[0] == pytest.approx(k + a * variance, abs=0.05)


def test_chunks_and_precision_do_not_matter(lorenz):
    points = lorenz.points[:20_000]
    whole = estimate(weak_form(points, lorenz.model))
    parts = estimate(weak_form(list(points.split(777)), lorenz.model))
    torch.testing.assert_close(parts.coefficients, whole.coefficients, rtol=1e-11, atol=0)
    torch.testing.assert_close(parts.covariance, whole.covariance, rtol=1e-9, atol=0)
    single = estimate(weak_form(points.float(), lorenz.model))
    torch.testing.assert_close(single.coefficients, whole.coefficients, rtol=1e-4, atol=0)


class Lazy:
    """Parts that exist only while they are read."""

    def __init__(self, points, size):
        self.points, self.size, self.alive, self.most = points, size, weakref.WeakSet(), 0

    def __iter__(self):
        for first in range(0, len(self.points), self.size):
            part = self.points[first : first + self.size].clone()
            self.alive.add(part)
            self.most = max(self.most, len(self.alive))
            yield part


def test_points_stream_through_in_constant_memory(lorenz):
    lazy = Lazy(lorenz.points[:20_000], 500)
    fit = estimate(weak_form(lazy, lorenz.model))
    assert lazy.most <= 2  # one that is read, one that is being made
    whole = estimate(weak_form(lorenz.points[:20_000], lorenz.model))
    torch.testing.assert_close(fit.coefficients, whole.coefficients, rtol=1e-11, atol=0)


def in_ranks(ranks, work):
    """What work(rank, combine) returns in each of some threads that add up together."""
    barrier, board, made = threading.Barrier(ranks, timeout=30), [None] * ranks, [None] * ranks

    def run(rank):
        def combine(flat):
            board[rank] = flat.clone()
            barrier.wait()
            flat.copy_(sum(board))
            barrier.wait()

        made[rank] = work(rank, combine)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made


def test_ranks_add_up_to_one(lorenz):
    points = lorenz.points[:20_000]
    whole = estimate(weak_form(points, lorenz.model))
    fits = in_ranks(3, lambda rank, combine: estimate(weak_form(points[rank::3], lorenz.model, combine=combine)))
    for fit in fits:
        torch.testing.assert_close(fit.coefficients, whole.coefficients, rtol=1e-12, atol=1e-12)
        assert torch.equal(fit.coefficients, fits[0].coefficients)


@pytest.mark.parametrize("count", [40, 150])
def test_two_ranks_with_streams_make_the_moments_of_one_call(lorenz, count):
    """A library of 30 terms, parts of any size: the sums themselves, before a condition number spoils their digits."""
    points = lorenz.points[:20_000]
    model = from_library(polynomial("x y z", 2), diffusion=10.0)
    cosines = random_cosines(points.mean(0), points.std(0), count)
    theta = torch.tensor([VALUES.get(name, 0.0) for name in model.names], dtype=DOUBLE)

    def sums(points, combine=None):
        conditions = weak_form(points, model, functions=cosines, combine=combine)
        return *conditions.means[:3], conditions.covariance(theta)

    streams = Lazy(points[:13_000], 37), Lazy(points[13_000:], 4001)
    for rank in in_ranks(2, lambda rank, combine: sums(streams[rank], combine)):
        for one, other in zip(sums(points), rank, strict=True):
            assert (one - other).abs().max() <= 1e-12 * one.abs().max()


def test_weights_of_the_other_half(lorenz):
    points = lorenz.points[:20_000]
    fit = estimate(weak_form(points, lorenz.model), halves=True)
    whole = estimate(weak_form(points, lorenz.model))
    assert fit.degrees_of_freedom == 2 * 40 - 3
    assert ((fit.coefficients - whole.coefficients).abs() < 2 * whole.standard_errors).all()
    assert not torch.equal(fit.coefficients, whole.coefficients)
    torch.testing.assert_close(fit.standard_errors, whole.standard_errors, rtol=0.1, atol=0)


def test_the_spread_of_points():
    points = torch.randn(1000, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * 3 + 1e6
    found = spread([points[:300], [points[300:500], points[500:]]])
    assert found.count == 1000
    torch.testing.assert_close(found.centre, points.mean(0))
    torch.testing.assert_close(found.deviation, points.std(0, correction=0), rtol=1e-9, atol=0)


def test_bad_input_is_refused(lorenz):
    points, model = lorenz.points[:2000], lorenz.model
    broken = points.clone()
    broken[1234, 1] = math.nan
    for call, message in (
        (lambda: weak_form(points[:, :2], model), r"expected points \[n, 3\].*got \[2000, 2\]"),
        (lambda: weak_form(broken, model), "row 1234 has NaN"),
        (lambda: weak_form(points, model, window=((0.0,) * 3, (9.0,) * 3)), "'bumps' with a window, got 'cosines'"),
        (lambda: weak_form(points, model, functions="sines"), "'cosines', 'bumps' or your own, got 'sines'"),
        (lambda: weak_form([points], model, functions="bumps"), "one tensor of points"),
        (lambda: weak_form(points, model, counts=[1.0]), "expected times with counts"),
        (lambda: weak_form(points * torch.tensor([1.0, 0.0, 1.0]), model), "vary in every coordinate"),
        (lambda: estimate(weak_form(points, model, count=2)), "got 2 for 3"),
        (lambda: estimate(weak_form(points, from_library(polynomial("x y z", 1)))), "give the diffusion, or one term"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    twice = parametric("x y z", {"a": {"x": "y"}, "b": {"x": "2*y"}, "c": {"x": "x"}}, diffusion=10.0)
    with pytest.raises(ValueError, match="a, b depend on each other"):
        estimate(weak_form(points, twice))
    with pytest.raises(TypeError, match="can be read several times, got generator"):
        weak_form((part for part in points.split(100)), model)
    with pytest.warns(FewPointsWarning, match="41 test functions for 2000 points"):
        weak_form(points, model, count=41)
