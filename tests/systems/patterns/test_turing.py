"""Linear theory of the two reactions that form Turing patterns: u' = f(u, v), v' = g(u, v) with diffusion."""

import math

import pytest
import torch

from eqflow import ops
from eqflow.systems.patterns import Brusselator, FitzHughNagumo, Schnakenberg

DOUBLE = torch.float64
SIZE = 40
TURING = (Brusselator(2.0, 3.2, 1.0, 10.0), Schnakenberg(0.1, 0.9, 0.5, 10.0))


def jacobian(system):
    """By hand, at the homogeneous state."""
    u, v = system.fixed_point()
    match system:
        case Brusselator(b=b):
            return [[2 * u * v - b - 1, u * u], [b - 2 * u * v, -u * u]]
        case Schnakenberg():
            return [[2 * u * v - 1, u * u], [-2 * u * v, -u * u]]
        case FitzHughNagumo(rate=rate, b=b):
            return [[1 - u * u, -1.0], [rate, -rate * b]]


def modes():
    """Wave numbers [SIZE, SIZE] and eigenvalues of minus the 5-point Laplacian."""
    angle = 2 * math.pi * torch.fft.fftfreq(SIZE, dtype=DOUBLE)
    turn = 2 - 2 * angle.cos()
    return (angle[:, None].square() + angle.square()).sqrt(), turn[:, None] + turn


def growth(system, eigenvalue):
    """The largest real part of the rates of each mode."""
    spread = torch.tensor([system.diffusion_u, system.diffusion_v], dtype=DOUBLE)
    matrices = torch.tensor(jacobian(system), dtype=DOUBLE) - eigenvalue[..., None, None] * torch.diag(spread)
    return torch.linalg.eigvals(matrices).real.amax(-1)


def near_rest(system, amplitude):
    """Two states near the homogeneous one."""
    normals = ops.normal(2, 2 * SIZE * SIZE, seed=5).double().view(2, 2, SIZE, SIZE)
    return torch.tensor(system.fixed_point(), dtype=DOUBLE)[:, None, None] + amplitude * normals


def power(system, state):
    away = state[:, 0] - system.fixed_point()[0]
    return torch.fft.fft2(away).abs().square().mean(0)


@pytest.mark.parametrize("system", TURING, ids=lambda system: type(system).__name__)
def test_every_unstable_mode_grows_as_linear_theory_says(system):
    _, eigenvalue = modes()
    rate = growth(system, eigenvalue)
    assert rate[0, 0] < 0 < rate.max()
    steps = round(6 / system.dt)
    middle = system.run(near_rest(system, 1e-9), steps)
    later = system.run(middle, steps)
    measured = (power(system, later) / power(system, middle)).log() / (2 * steps * system.dt)
    unstable = rate > 0.7 * rate.max()
    torch.testing.assert_close(measured[unstable], rate[unstable], rtol=0.01, atol=0)


@pytest.mark.parametrize("system", TURING, ids=lambda system: type(system).__name__)
def test_the_wavelength_of_the_pattern_is_that_of_the_fastest_mode(system):
    wave, eigenvalue = modes()
    fastest = wave.flatten()[growth(system, eigenvalue).argmax()]
    state = system.run(near_rest(system, 0.1), round(25 / system.dt))
    assert state[:, 0].std() > 0.3
    spectrum = power(system, state)
    spectrum[(wave == 0) | (wave > 1.4 * fastest)] = 0  # the mean and the harmonics
    centre = (spectrum * wave).sum() / spectrum.sum()
    assert centre.item() == pytest.approx(fastest.item(), rel=0.15)


def test_the_defaults_oscillate():
    """Without diffusion each default is beyond its Hopf point, but for the excitable medium, which rests."""
    still = torch.zeros((), dtype=DOUBLE)
    assert growth(Brusselator(), still) == pytest.approx((5.4 - 5) / 2)
    assert growth(Schnakenberg(), still) > 0
    assert growth(FitzHughNagumo(), still) < 0
