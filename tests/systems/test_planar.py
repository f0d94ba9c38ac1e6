"""The planar sets: samples against closed forms, and exact scores against their densities and other scores."""

import math

import pytest
import torch

from eqflow.metrics import stein
from eqflow.score import Gaussian, KernelScore, Mixture, Score
from eqflow.systems import (
    SYSTEMS,
    Checkerboard,
    CorrelatedGaussian,
    EightGaussians,
    Pinwheel,
    Ring,
    TwoCircles,
    TwoGaussians,
    TwoMoons,
    TwoSpirals,
)

NAMES = [name for name, system in SYSTEMS.items() if hasattr(system, "at") and name != "ornstein-uhlenbeck"]
WITHOUT_CLEAN = ("pinwheel", "checkerboard")
SAMPLES = 10_000
DOUBLE = torch.float64


def noised(system, alpha, count, seed=0):
    noise = torch.randn(count, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    return math.sqrt(alpha) * system.sample(count, seed=seed) + math.sqrt(1 - alpha) * noise


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_moments(name):
    system = SYSTEMS[name]
    points = system.sample(SAMPLES, seed=1)
    away = points - system.mean
    assert (away.mean(0).abs() < 4.5 * points.std(0) / math.sqrt(SAMPLES)).all()
    product = away[:, :, None] * away[:, None, :]
    assert ((product.mean(0) - system.covariance).abs() < 4.5 * product.std(0) / math.sqrt(SAMPLES)).all()


# On an arc E[cos^2] = E[sin^2] = 1/2, E[sin] = 2/pi; its centre lies (-1/2, 2/pi - 1/4) from that of the whole set.
ACROSS = -0.5 * (2 / math.pi - 0.25) / (0.87 * 0.5)
MOONS = [[(0.75 + 0.0064) / 0.87**2, ACROSS], [ACROSS, (0.5625 - 1 / math.pi + 0.0064) / 0.25]]


@pytest.mark.parametrize(
    ("system", "covariance"),
    [
        (TwoGaussians(1.5, 0.3), [[1.5**2 + 0.09, 0], [0, 0.09]]),
        (EightGaussians(2.0, 0.1), [[2.01, 0], [0, 2.01]]),
        (CorrelatedGaussian(), [[1.69, 0.3], [0.3, 0.36]]),
        (Ring(1.3, 0.1), [[1.69 * 1.01 / 2, 0], [0, 1.69 * 1.01 / 2]]),
        (TwoCircles(0.5, 1.0, 0.1), [[0.3125 + 0.01, 0], [0, 0.3225]]),
        (TwoMoons(0.08), MOONS),
        (Checkerboard(2.0), [[16 / 3, 1], [1, 16 / 3]]),
    ],
)
def test_covariances_in_closed_form(system, covariance):
    expected = torch.tensor(covariance, dtype=DOUBLE)
    torch.testing.assert_close(system.covariance, expected, rtol=1e-9, atol=1e-9)
    assert system.mean.abs().max() < 1e-9


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alpha", [1.0, 0.95, 0.5])
def test_the_score_is_the_gradient_of_the_log_density(name, alpha):
    if alpha == 1 and name in WITHOUT_CLEAN:
        pytest.skip("no clean density")
    score = SYSTEMS[name].at(alpha)
    state = noised(SYSTEMS[name], alpha, 50).requires_grad_()
    (gradient,) = torch.autograd.grad(score.log_density(state).sum(), state)
    torch.testing.assert_close(score(state.detach()), gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_densities_have_the_mass_one(name):
    system, alpha = SYSTEMS[name], 0.5
    edge = 5 + 2.5 * float(system.covariance.diagonal().max().sqrt())
    axis = torch.linspace(-edge, edge, 90, dtype=DOUBLE)
    grid = torch.cartesian_prod(axis, axis)
    density = system.at(alpha).log_density(grid).exp() * float(axis[1] - axis[0]) ** 2
    assert float(density.sum()) == pytest.approx(1, abs=1e-6)
    second = torch.einsum("k,ki,kj->ij", density, grid, grid)
    torch.testing.assert_close(
        second, alpha * system.covariance + (1 - alpha) * torch.eye(2).double(), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_stein_identities(name):
    system = SYSTEMS[name]
    state = noised(system, 0.9, SAMPLES)
    assert stein(state, system.at(0.9)(state)).worst < 4.5


CURVES = ("ring", "two-circles", "two-moons", "swiss-roll", "two-spirals", "pinwheel", "nine-arcs")


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("alpha", [1.0, 0.99, 0.9])
def test_the_quadrature_has_converged(name, alpha, monkeypatch):
    """Half as many nodes again give the same score and density."""
    system = SYSTEMS[name]
    if alpha == 1 and name in ("ring", *WITHOUT_CLEAN):
        pytest.skip("not an integral")
    state, score, count = noised(system, alpha, 200), system.at(alpha), system._count(alpha)
    monkeypatch.setattr(type(system), "_count", lambda self, alpha: count * 3 // 2 + 1)
    finer = system.at(alpha)
    assert len(finer.means) > 1.4 * len(score.means)
    torch.testing.assert_close(score(state), finer(state), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(score.log_density(state), finer.log_density(state), rtol=1e-8, atol=1e-8)


def test_the_scores_agree_with_those_for_dynamics():
    system, alpha = TwoGaussians(), 0.8
    state = noised(system, alpha, 100)
    means = math.sqrt(alpha) * torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=DOUBLE)
    other = Mixture(means, alpha * 0.16 + 1 - alpha)
    torch.testing.assert_close(system.at(alpha)(state), other(state), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(system.at(alpha).log_density(state), other.log_density(state), rtol=1e-12, atol=1e-12)
    gaussian = Gaussian(torch.zeros(2, dtype=DOUBLE), CorrelatedGaussian().covariance)
    torch.testing.assert_close(CorrelatedGaussian().at()(state), gaussian(state), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["two-moons", "checkerboard", "pinwheel", "ring"])
def test_many_points_approach_the_exact_score(name):
    system, alpha = SYSTEMS[name], 0.9
    state = noised(system, alpha, 300)
    exact = system.at(alpha)(state)
    errors = []
    for count in (1000, 10_000):
        estimate = KernelScore(system.sample(count, seed=3), alpha)(state)
        errors.append(float((estimate - exact).norm() / exact.norm()))
    assert errors[0] < 0.3 and errors[1] < 0.5 * errors[0]


def test_the_clean_ring_is_the_limit_of_the_noised_one():
    state = noised(Ring(), 1.0, 50)
    torch.testing.assert_close(Ring().at(1 - 1e-6)(state), Ring().at()(state), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_scores_fold_and_take_the_type_of_the_state(name):
    score = SYSTEMS[name].at(0.9)
    state = noised(SYSTEMS[name], 0.9, 50)
    assert isinstance(score, Score) and score.dimension == 2
    assert torch.equal(score.state_scale * state + score.output_scale * score.output(state), score(state))
    lower = score(state.float())
    assert lower.dtype == torch.float32 and score.log_density(state.float()).dtype == torch.float32
    torch.testing.assert_close(lower, score(state).float(), rtol=1e-4, atol=1e-4)
    assert score(state[:0]).shape == (0, 2) and score.log_density(state[:0]).shape == (0,)


def test_far_away_scores_are_finite():
    far = torch.tensor([[40.0, 0.0], [-30.0, 50.0]], dtype=DOUBLE)
    for name in NAMES:
        score = SYSTEMS[name].at(0.95)
        assert score(far).isfinite().all() and score.log_density(far).isfinite().all()
        assert ((score(far) * far).sum(1) < 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_samples_do_not_depend_on_the_split(name):
    system = SYSTEMS[name]
    whole = system.sample(37, seed=5, first_sample=100)
    parts = [system.sample(count, seed=5, first_sample=first) for count, first in ((1, 100), (20, 101), (16, 121))]
    assert torch.equal(torch.cat(parts), whole) and whole.dtype == DOUBLE
    assert not torch.equal(whole, system.sample(37, seed=6, first_sample=100))


def test_checkerboard_points_lie_on_dark_fields():
    points = Checkerboard().sample(4000, seed=0)
    cells = (points + 2).floor().long()
    assert cells.min() == 0 and cells.max() == 3 and (cells.sum(1) % 2 == 0).all()
    assert (cells[:, 1] * 4 + cells[:, 0]).bincount().count_nonzero() == 8


def test_spirals_are_about_equally_dense_along_the_arms():
    turns = TwoSpirals(noise=1e-6).sample(SAMPLES, seed=0).norm(dim=1) / math.pi
    assert float(turns.square().mean()) == pytest.approx(0.5, abs=0.01)  # radius^2 is uniform


def test_what_has_no_score_is_refused():
    with pytest.raises(ValueError, match="clean pinwheel has no density in closed form"):
        Pinwheel().at()
    with pytest.raises(ValueError, match="clean checkerboard jumps"):
        Checkerboard().at(1.0)
    for alpha in (0.0, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"alpha in \(0, 1\]"):
            Ring().at(alpha)
