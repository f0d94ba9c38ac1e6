import math

import pytest
import torch

from eqflow.systems.gene_network import GeneNetwork

DOUBLE = torch.float64


def test_the_drift_is_that_of_the_paper():
    x1, y1, x2, y2, p, b, r = 0.6, 0.8, -1.0, 0.5, 5.0, 1.5, 2.0
    pi, beta, rho = 1 / 26, 1 / 3.25, 1 / 5
    first, second = 0.64**15, (0.25 / 1.25) ** 15
    one, two = math.pi / 100, math.sqrt(2) * math.pi / 100
    expected = [
        one * y1,
        -one * x1,
        two * y2 - x2 * 0.25,
        -two * x2 - y2 * 0.25,
        1e-6 - p + 9 * (beta + rho),
        2 - (1 + 10 * first * beta) * b + 100 * pi * beta * rho,
        0.1 - r + 5 * second * beta + 2.6 * rho,
    ]
    point = torch.tensor([[x1, y1, x2, y2, p, b, r]], dtype=DOUBLE)
    torch.testing.assert_close(GeneNetwork().drift(point)[0], torch.tensor(expected, dtype=DOUBLE))
    influence = GeneNetwork().drift(point) - GeneNetwork().background(point)
    torch.testing.assert_close(
        influence[0, 4:], torch.tensor([9 * (beta + rho), 100 * pi * beta * rho, 2.6 * rho], dtype=DOUBLE)
    )


@pytest.mark.slow
def test_the_ranges_of_the_genes():
    points = GeneNetwork().sample(4000, seed=1)
    radii = points[:, :4].view(-1, 2, 2).norm(dim=-1)
    assert radii.min() > 0.95 and radii.max() < 1.05
    low, high = points[:, 4:].aminmax(dim=0)
    torch.testing.assert_close(low, torch.tensor([3.9, 0.19, 1.15], dtype=DOUBLE), rtol=0.05, atol=0.02)
    torch.testing.assert_close(high, torch.tensor([12.4, 2.3, 5.0], dtype=DOUBLE), rtol=0.05, atol=0)


def test_networks_compare_by_value():
    theta = GeneNetwork().coefficients
    assert GeneNetwork(theta) == GeneNetwork(theta.tolist()) != GeneNetwork(2 * theta)
    assert torch.equal(GeneNetwork(theta).coefficients, theta) and hash(GeneNetwork(theta)) == hash(GeneNetwork(theta))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"expected theta \[3, 7\], got \[7, 3\]"):
        GeneNetwork(torch.zeros(7, 3))
    with pytest.raises(ValueError, match="diffusion from 0 up"):
        GeneNetwork(diffusion=-1.0)
