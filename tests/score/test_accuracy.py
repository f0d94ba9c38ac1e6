"""How near the scores of points come to the true ones."""

import pytest
import torch

from eqflow.score import DenoiserShape, DenoiserTraining, Points, make_pool, train_denoiser
from eqflow.systems import Lorenz, TwoGaussians

ALPHA = 0.95


def error(found, exact):
    """Relative root mean square."""
    return float((found - exact).norm() / exact.norm())


def cosine(found, exact):
    return float((found * exact).sum() / found.norm() / exact.norm())


@pytest.mark.parametrize("count, most", [(1000, 0.2), (10_000, 0.07), (100_000, 0.02)])
def test_the_kernel_score_of_two_gaussians(count, most):
    system = TwoGaussians(deviation=0.3)
    points = system.sample(count, seed=0).float()
    exact, state = system.at(ALPHA), system.sample(2000, seed=1).float()
    state = ALPHA**0.5 * state + (1 - ALPHA) ** 0.5 * torch.randn(
        state.shape, generator=torch.Generator().manual_seed(2)
    )
    assert error(Points(points).at(ALPHA)(state), exact(state)) <= most


@pytest.fixture(scope="module")
def lorenz():
    """A million standardised points in random order, states at the noise level, and the score there."""
    points = Lorenz().sample(1_000_000, seed=0)
    points = ((points - points.mean(0)) / points.std(0)).float()
    points = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))]
    return points, make_pool(points, ALPHA, 2000, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("count, most", [(1000, 0.27), (10_000, 0.08), (100_000, 0.025)])
def test_the_kernel_score_of_lorenz(lorenz, count, most):
    points, pool = lorenz
    assert error(Points(points[:count]).at(ALPHA)(pool.points), pool.scores) <= most


@pytest.mark.slow
def test_float32_is_enough_for_the_kernel_score(lorenz):
    points, pool = lorenz
    some, state = points[:10_000], pool.points[:500]
    exact = Points(some.double()).at(ALPHA)(state.double())
    assert (Points(some).at(ALPHA)(state).double() - exact).abs().max() <= 2e-4 * exact.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape, steps, least",
    [
        (DenoiserShape(3), 5000, 0.985),
        (DenoiserShape(3, predicts="epsilon"), 5000, 0.985),
        (DenoiserShape(3, alpha=ALPHA), 2500, 0.985),
    ],
)
def test_a_network_learns_the_score_of_lorenz(lorenz, shape, steps, least):
    points, pool = lorenz
    score = train_denoiser(points[:10_000], shape, DenoiserTraining(steps=steps)).denoiser.at(ALPHA)
    found = score(pool.points)
    print(f"\n{shape.predicts}, alpha={shape.alpha}: {cosine(found, pool.scores):.4f}, {error(found, pool.scores):.4f}")
    assert cosine(found, pool.scores) >= least
    products = pool.points[:, :, None] * found[:, None, :]  # Stein: E[y s] = -I
    standard_error = products.std(0) / len(products) ** 0.5
    assert ((products.mean(0) + torch.eye(3)).abs() < 4 * standard_error + 0.05).all()
