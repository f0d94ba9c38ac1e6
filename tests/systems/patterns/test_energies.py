"""The two systems that descend an energy, and what noise makes of them."""

import pytest
import torch

from eqflow import ops
from eqflow.ops.gray_scott import laplacian
from eqflow.systems.patterns import CahnHilliard, SwiftHohenberg

DOUBLE = torch.float64
GRADIENT = (
    SwiftHohenberg(0.3, 0.8, dx=0.9),
    SwiftHohenberg(0.3, stencil="9-point"),
    CahnHilliard(0.2, 0.6, dx=1.1),
    CahnHilliard(stencil="9-point"),
)


@pytest.mark.parametrize("system", GRADIENT, ids=repr)
def test_the_rates_are_the_slope_of_the_energy(system):
    state = (0.5 * ops.normal(2, 90, seed=0).double().view(2, 1, 9, 10)).requires_grad_()
    (slope,) = torch.autograd.grad(system.energy(state).sum(), state)
    expected = -slope if isinstance(system, SwiftHohenberg) else laplacian(slope, system.stencil) / system.dx**2
    torch.testing.assert_close(system.rates(state.detach()), expected)


@pytest.mark.parametrize("system", GRADIENT, ids=repr)
def test_the_energy_falls(system):
    state = system.start(2, 12, 12, seed=1).double()
    energies = [system.energy(state)]
    for _ in range(20):
        state = system.run(state, 20)
        energies.append(system.energy(state))
    energies = torch.stack(energies)
    assert (energies.diff(dim=0) < 1e-12 * energies[0].abs()).all() and (energies[-1] < energies[0] - 1).all()


@pytest.mark.parametrize("diffusion", [0.0, 0.3])
def test_cahn_hilliard_keeps_its_mass(diffusion):
    system = CahnHilliard(0.3, diffusion=diffusion)
    start = system.start(3, 20, 16, seed=2).double()
    state = system.run(start, 500, seed=2)
    assert (state - start).std() > 0.1
    torch.testing.assert_close(state.mean((1, 2, 3)), start.mean((1, 2, 3)), rtol=0, atol=1e-13)


def test_the_covariance_of_conserved_noise():
    """That of the noise of one cell with its neighbours is minus the Laplacian's stencil over dx^2."""
    noise = CahnHilliard(dx=0.5, diffusion=0.1).noise(torch.zeros(4000, 1, 6, 6, dtype=DOUBLE), seed=3)[:, 0]
    covariance = torch.stack([(noise * noise.roll((i, j), (1, 2))).mean() for i in range(3) for j in range(3)])
    expected = torch.tensor([4, -1, 0, -1, 0, 0, 0, 0, 0], dtype=DOUBLE) * 4
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.3)  # 5 standard errors
    torch.testing.assert_close(noise.sum((1, 2)), torch.zeros(4000, dtype=DOUBLE), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("system", "heat"),
    [(SwiftHohenberg(0.1, diffusion=0.02), 0.02), (CahnHilliard(diffusion=0.6), 4 * 0.6)],
    ids=lambda case: type(case).__name__,
)
def test_noise_gives_each_cell_its_heat(system, heat):
    """Stationarity of the mean of u^2: E[u f] + D = 0 with plain noise, + 4 D / dx^2 with conserved."""
    state = system.simulate(64, 12, 12, seed=4, steps=700).double()
    loss = -(state * system.rates(state)).mean((1, 2, 3))
    assert abs(loss.mean() - heat) < 4 * loss.std() / 8 and loss.std() / 8 < 0.03 * heat


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="stiffness above 0, got 0"):
        CahnHilliard(stiffness=0)
    with pytest.raises(ValueError, match="expected the 5-point stencil with noise, got 9-point"):
        CahnHilliard(diffusion=0.1, stencil="9-point")
