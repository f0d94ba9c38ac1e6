"""The linear process, where everything can be compared with a closed form."""

import pytest
import torch

from eqflow.metrics import residual, stein
from eqflow.score import Gaussian, KernelScore, Score
from eqflow.systems import OrnsteinUhlenbeck

PROCESS = OrnsteinUhlenbeck()
SPATIAL = OrnsteinUhlenbeck(
    ((-1.0, 2.0, 0.0), (-2.0, -0.5, 0.3), (0.0, 0.1, -2.0)), ((1.0, 0.2, 0.0), (0.2, 0.5, 0.1), (0.0, 0.1, 0.3))
)
DOUBLE = torch.float64


@pytest.mark.parametrize("process", [PROCESS, SPATIAL])
def test_the_covariance_is_stationary(process):
    drift = torch.tensor(process.drift_matrix, dtype=DOUBLE)
    rate = drift @ process.covariance + process.covariance @ drift.T
    torch.testing.assert_close(rate, -2 * torch.tensor(process.diffusion, dtype=DOUBLE), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("process", [PROCESS, SPATIAL])
def test_the_velocity_keeps_the_density(process):
    points = process.sample(200, seed=0)
    scores = process.at()(points)
    diffusion = torch.tensor(process.diffusion, dtype=DOUBLE)
    torch.testing.assert_close(process.velocity(points), process.drift(points) - scores @ diffusion)
    assert residual(process.velocity(points), process.divergence(points), scores).residual < 1e-24
    jacobian = torch.autograd.functional.jacobian(process.velocity, points[0])
    assert abs(float(jacobian.trace())) < 1e-14


@pytest.mark.parametrize("alpha", [0.95, 0.3])
def test_the_smoothed_velocity_keeps_the_noised_density(alpha):
    points = SPATIAL.sample(200, seed=0)
    smoothed = SPATIAL.smoothed_velocity(points, alpha)
    divergence = torch.autograd.functional.jacobian(lambda y: SPATIAL.smoothed_velocity(y, alpha), points[0]).trace()
    kept = residual(smoothed, divergence.expand(200), SPATIAL.at(alpha)(points))
    assert kept.residual < 1e-24
    torch.testing.assert_close(SPATIAL.smoothed_velocity(points, 1.0), SPATIAL.velocity(points))


def test_the_smoothed_velocity_is_a_mean_over_clean_points():
    alpha, points = 0.8, PROCESS.sample(100_000, seed=1)
    queries = alpha**0.5 * PROCESS.sample(20, seed=2)
    estimate = KernelScore(points, alpha).smooth(queries, alpha**0.5 * PROCESS.velocity(points))
    exact = PROCESS.smoothed_velocity(queries, alpha)
    assert float((estimate - exact).norm() / exact.norm()) < 0.02


def test_samples_and_steps_are_stationary():
    """Moments of the samples, of the samples after some steps, and the covariance across time exp(A t) C."""
    count, steps = 40_000, 12
    start = SPATIAL.sample(count, seed=3)
    end = SPATIAL.run(start, steps, seed=4)
    decay = torch.linalg.matrix_exp(steps * SPATIAL.dt * torch.tensor(SPATIAL.drift_matrix, dtype=DOUBLE))
    for left, right, expected in (
        (start, start, SPATIAL.covariance),
        (end, end, SPATIAL.covariance),
        (end, start, decay @ SPATIAL.covariance),
    ):
        product = left[:, :, None] * right[:, None, :]
        assert ((product.mean(0) - expected).abs() < 4.5 * product.std(0) / count**0.5).all()


def test_the_score_is_that_of_a_gaussian():
    points = SPATIAL.sample(50, seed=0)
    for alpha in (1.0, 0.6):
        score = SPATIAL.at(alpha)
        covariance = alpha * SPATIAL.covariance + (1 - alpha) * torch.eye(3, dtype=DOUBLE)
        gaussian = Gaussian(torch.zeros(3, dtype=DOUBLE), covariance)
        assert isinstance(score, Score)
        torch.testing.assert_close(score(points), gaussian(points), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(score.log_density(points), gaussian.log_density(points), rtol=1e-12, atol=1e-12)
        assert score.lipschitz == pytest.approx(gaussian.lipschitz)
    sample = SPATIAL.sample(20_000, seed=1)
    assert stein(sample, SPATIAL.at()(sample)).worst < 4.5


def test_samples_and_noise_depend_on_the_counter_only():
    whole = SPATIAL.sample(30, seed=1, first_sample=4)
    parts = [SPATIAL.sample(count, seed=1, first_sample=first) for count, first in ((10, 4), (20, 14))]
    assert torch.equal(torch.cat(parts), whole)
    frames = SPATIAL.run(whole, 20, every=10, seed=2, first_sample=4)
    assert frames.shape == (30, 2, 3)
    again = SPATIAL.run(frames[:, 0], 10, seed=2, first_sample=4, first_step=10)
    torch.testing.assert_close(again, frames[:, 1], rtol=1e-14, atol=1e-14)


def test_wrong_processes_are_refused():
    with pytest.raises(ValueError, match="negative real parts, got one of 0"):
        OrnsteinUhlenbeck(((0.0, 1.0), (-1.0, 0.0)))
    with pytest.raises(ValueError, match="symmetric positive definite diffusion"):
        OrnsteinUhlenbeck(diffusion=((1.0, 0.0), (0.0, -1.0)))
    with pytest.raises(ValueError, match="two square matrices"):
        OrnsteinUhlenbeck(diffusion=((1.0,),))
    with pytest.raises(ValueError, match="expected a seed"):
        PROCESS.run(torch.zeros(1, 2), 1)
