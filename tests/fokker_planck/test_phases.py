import math

import pytest
import torch

from eqflow.fokker_planck import PhaseConditioned, eliminate, parametric, phase_conditioned, weak_form
from eqflow.fokker_planck.functions import Custom
from eqflow.fokker_planck.phases import Fourier
from eqflow.systems.gene_network import GeneNetwork

DOUBLE = torch.float64
PAIRS = ((0, 1), (3, 4))


def normals(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def test_against_automatic_differentiation():
    psi, mean = Fourier(2, 2, 2), Fourier(2, 3)
    functions = PhaseConditioned(PAIRS, 2, psi, mean, normals(mean.count, seed=1))

    def formula(points):
        angles = torch.stack([torch.atan2(points[:, y], points[:, x]) for x, y in PAIRS], 1)
        series = []
        for family in (psi, mean):
            phase = angles @ family.waves.T
            series.append(torch.cat([torch.ones_like(phase[:, :1]), phase.cos(), phase.sin()], 1))
        return series[0] * (points[:, 2] - series[1] @ functions.coefficients)[:, None]

    points, drift = normals(6, 5, seed=2), normals(6, 5, seed=3)
    local, other = functions.at(points), Custom(formula, psi.count).at(points)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(local.values(), other.values(), **close)
    diffusion = 0.3 * torch.eye(5, dtype=DOUBLE)
    torch.testing.assert_close(local.generator(drift, None), other.generator(drift, None), **close)
    torch.testing.assert_close(local.generator(drift, diffusion), other.generator(drift, diffusion), **close)
    features = normals(6, 3, seed=4)
    rows = [0, 2, 4]
    torch.testing.assert_close(local.gradient_sums(features, rows), other.gradient_sums(features, rows), **close)
    with pytest.raises(ValueError, match="one number for the diffusion"):
        local.generator(None, torch.diag(torch.arange(5.0, dtype=DOUBLE)))


def test_a_variable_driven_by_an_oscillator():
    """q' = -a q + b cos(t)^2 on a noisy circle, followed by Euler steps of many chains."""
    dt, chains = 0.005, 10_000
    generator = torch.Generator().manual_seed(0)
    angle = 2 * math.pi * torch.rand(chains, dtype=DOUBLE, generator=generator)
    state = torch.stack([angle.cos(), angle.sin(), torch.full_like(angle, 0.3)])
    amplitude = math.sqrt(2 * 0.002 * dt)
    for _ in range(2000):
        x, y, q = state
        pull = 1 - x * x - y * y
        slope = torch.stack([0.5 * y + x * pull, -0.5 * x + y * pull, -2 * q + 3 * x * x / (x * x + y * y)])
        state = state + dt * slope + amplitude * torch.randn(3, chains, dtype=DOUBLE, generator=generator)
    sources = phase_conditioned(state.T, 2, pairs=[(0, 1)], harmonics=3, mean_harmonics=5, step=2)
    known = {"x": "0.5*y + x*(1 - x^2 - y^2)", "y": "-0.5*x + y*(1 - x^2 - y^2)"}
    unknown = {"a": {"q": "-q"}, "b": {"q": "x^2/(x^2 + y^2)"}, "c": {"q": "1"}, "d": {"q": "q^2"}}
    fit = eliminate(weak_form(sources, parametric("x y q", unknown, known=known, diffusion=0.002)))
    assert fit.names == ("a", "b")
    assert fit.value("a") == pytest.approx(2, rel=0.04) and fit.value("b") == pytest.approx(3, rel=0.04)


def gene_row(points, row):
    """The equation of one gene found among the seven influences, as a row of Theta."""
    network = GeneNetwork()
    gates = {"pi": "1/(1 + p^2)", "beta": "1/(1 + b^2)", "rho": "1/(1 + r^2)"}
    terms = {name: "*".join(gates[part] for part in name.split()) for name in network.influences}
    name, scale = network.variables[4 + row], network.scales[row]
    unknown = {influence: {name: f"{scale}*{term}"} for influence, term in terms.items()}
    model = parametric(network.variables, unknown, known=network.background, diffusion=network.diffusion)
    sources = phase_conditioned(points, 4 + row, pairs=[(0, 1), (2, 3)], step=2)
    fit = eliminate(weak_form(sources, model), threshold=3.0)
    return torch.tensor([fit.value(influence) for influence in network.influences], dtype=DOUBLE), fit


@pytest.mark.slow
@pytest.mark.parametrize("row", [0, 1, 2])
def test_the_gene_network(genes, row):
    found, fit = gene_row(genes, row)
    truth = GeneNetwork().coefficients[row]
    assert ((found != 0) == (truth != 0)).all()
    assert ((found - truth).abs() < 5e-3).all()
    assert fit.j_statistic / fit.degrees_of_freedom < 1.6


@pytest.fixture(scope="module")
def genes():
    return GeneNetwork().sample(60_000, seed=3)


def test_wrong_arguments_are_refused():
    for arguments, message in (
        ({"target": 0, "pairs": [(0, 1)]}, "expected different coordinates below 3"),
        ({"target": 2, "pairs": [(0, 3)]}, "expected different coordinates below 3"),
        ({"target": 2, "pairs": [(0, 1)], "harmonics": 0}, "harmonics, mean_harmonics and step from 1 up"),
        ({"target": 2, "pairs": [(0, 1)], "mean_harmonics": 20}, "164 points or more .* got 100"),
    ):
        with pytest.raises(ValueError, match=message):
            phase_conditioned(normals(100, 3), **arguments)
