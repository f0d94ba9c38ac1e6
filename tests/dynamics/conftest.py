import functools
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from eqflow.score import KernelScore, Mixture
from eqflow.systems import Lorenz


class Pairs(NamedTuple):
    noised: Tensor
    scores: Tensor
    points: Tensor  # clean
    truth: Tensor  # velocity there


@pytest.fixture(scope="session")
def lorenz_pairs():
    """lorenz_pairs(count, rows): pairs at alpha = 0.95 from `count` standardised points, in whose units all is."""

    @functools.cache
    def make(count, rows):
        chains = count // 50
        generator = torch.Generator().manual_seed(count)
        starts = torch.randn(chains, 3, dtype=torch.float64, generator=generator) * torch.tensor([8.0, 9.0, 8.0])
        raw = Lorenz().run(starts + torch.tensor([0, 0, 24]), 1500, every=10)[:, -50:].flatten(0, 1)
        mean, deviation = raw.mean(0), raw.std(0)
        points = ((raw - mean) / deviation).float()
        density = KernelScore(points, 0.95)
        noised = density.sample(rows, seed=2)
        chosen = slice(0, count, max(count // 4096, 1))
        return Pairs(noised, density(noised), points[chosen], (Lorenz().drift(raw[chosen]) / deviation).float())

    return make


@pytest.fixture(scope="session")
def two_gaussians():
    """two_gaussians(deviation, rows): pairs at alpha = 0.95, with the exact score, of Gaussians at (+-1, 0)."""

    @functools.cache
    def make(deviation, rows=20_000):
        means = 0.95**0.5 * torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        density = Mixture(means, 0.95 * deviation**2 + 0.05)
        points = density.sample(rows, seed=1)
        return points, density(points)

    return make


@pytest.fixture(scope="session")
def ring():
    """Pairs at alpha = 0.95 of 10,000 points near a circle of radius 1.3."""
    generator = torch.Generator().manual_seed(0)
    angle, radius = 2 * torch.pi * torch.rand(10_000, generator=generator), torch.randn(10_000, generator=generator)
    points = 1.3 * (1 + 0.1 * radius)[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    density = KernelScore(points, 0.95)
    noised = density.sample(20_000, seed=1)
    return noised, density(noised)


@pytest.fixture(scope="session")
def cosine():
    """Of two fields at the same points."""
    return lambda a, b: float((a * b).sum() / (a.norm() * b.norm()))


@pytest.fixture(scope="session")
def curl():
    """dv_1/dx_0 - dv_0/dx_1 of a plane field at a point."""

    def curl(field, point):
        jacobian = field.jacobian(torch.tensor([point]))[0]
        return float(jacobian[1, 0] - jacobian[0, 1])

    return curl
