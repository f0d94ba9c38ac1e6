import pytest
import torch

from eqflow.dynamics import NoisyFlow, PolynomialField, rollout
from eqflow.dynamics.field import sense
from eqflow.score import Gaussian

TURN = PolynomialField(torch.eye(2, dtype=torch.int64), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
SAMPLES = 20_000


def test_noise_and_score_keep_the_density_that_the_flow_keeps():
    density = Gaussian(torch.zeros(2), 0.5)
    start = density.sample(SAMPLES, seed=0)
    end = rollout(start, NoisyFlow(TURN, density, eta=0.25), 200, dt=0.05, seed=1).state
    torch.testing.assert_close(end.T.cov(), 0.5 * torch.eye(2), rtol=0, atol=5 * 0.5 * (2 / SAMPLES) ** 0.5)
    assert (end * start).mean().abs() < 5 * 0.5 / SAMPLES**0.5  # exp(-eta t / variance) is forgotten


def test_noise_mends_what_the_flow_breaks():
    """From a point, to which a flow alone would hold, the density is reached."""
    density = Gaussian(torch.zeros(2), 0.5)
    end = rollout(torch.zeros(SAMPLES, 2), NoisyFlow(TURN, density, eta=0.5), 200, dt=0.05, seed=1).state
    torch.testing.assert_close(end.var(0), torch.full((2,), 0.5), rtol=0.05, atol=0)


def test_which_way_it_turns():
    points = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    for axis, plane in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
        velocity = torch.zeros_like(points)
        velocity[:, plane[0]], velocity[:, plane[1]] = -points[:, plane[1]], points[:, plane[0]]
        assert sense(points.T @ velocity) == 1 and sense(-points.T @ velocity) == -1, axis
    assert sense(torch.zeros(4, 1, 1)).tolist() == [1, 1, 1, 1]  # nothing turns on a line


def test_noise_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"expected eta above 0, got 0\.0"):
        NoisyFlow(TURN, torch.neg, eta=0.0)
