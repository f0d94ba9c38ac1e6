"""Fields whose equation is known exactly."""

import math
from types import SimpleNamespace

import pytest
import torch

from eqflow import ops

DOUBLE = torch.float64


def _symbol(size):
    """The eigenvalues of the five-point Laplacian, [size, size]."""
    wave = 2 * torch.cos(2 * math.pi * torch.arange(size, dtype=DOUBLE) / size) - 2
    return wave[:, None] + wave


def linear_pictures(count, *, seed, size=16, decay=0.3, diffusion=0.5, noise=0.2, dt=None):
    """Exact samples of du/dt = -decay u + diffusion Lap u + sqrt(2 noise) dW/dt, or of its Euler map.

    Every wave is an Ornstein-Uhlenbeck process of its own, dx = -r x dt + noise: its variance is noise / r, and that of
    the map x -> (1 - r dt) x + noise is 2 noise dt / (1 - (1 - r dt)^2).
    """
    rate = decay - diffusion * _symbol(size)
    variance = noise / rate if dt is None else 2 * noise * dt / (1 - (1 - rate * dt) ** 2)
    white = ops.normal(count, size * size, seed=seed).double().view(count, size, size)
    return torch.fft.ifft2(torch.fft.fft2(white) * variance.sqrt()).real[:, None].contiguous()


@pytest.fixture(scope="session")
def linear():
    return SimpleNamespace(sample=linear_pictures, decay=0.3, diffusion=0.5, noise=0.2)


@pytest.fixture
def noise_pictures():
    """Two channels without any structure, [3, 2, 6, 7]."""
    return 0.5 + 0.3 * torch.randn(3, 2, 6, 7, dtype=DOUBLE, generator=torch.Generator().manual_seed(5))
