"""The Gray-Scott equation from 256 final states: its seven terms out of 24, and its coefficients."""

import pytest
import torch

from eqflow.fokker_planck import fields
from eqflow.fokker_planck.fields import discover, field_model
from eqflow.systems import gray_scott

LIBRARY = fields.polynomial("u v", 3) + fields.laplacian("u v")


def final_states(name, samples, seed):
    start = gray_scott.initial_state("discs", torch.arange(samples), 128, 128, seed=seed)
    states = gray_scott.preset(name).parameters.run(start, 10_000)
    return states[~gray_scott.is_dead(states)]


def truth(name):
    system = gray_scott.preset(name).parameters
    return {
        "1 in du/dt": system.feed,
        "u in du/dt": -system.feed,
        "u v^2 in du/dt": -1.0,
        "Δu in du/dt": system.diffusion_u,
        "v in dv/dt": -(system.feed + system.kill),
        "u v^2 in dv/dt": 1.0,
        "Δv in dv/dt": system.diffusion_v,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name, tolerance", [("wave", 0.005), ("life", 0.005), ("spirals", 0.02)])
def test_the_equation_of_a_moving_pattern(name, tolerance):
    found = discover(final_states(name, 256, seed=0), field_model(LIBRARY), dt=1.0)
    (fit,) = found.fits
    expected = truth(name)
    assert found.identifiable.unit == {"u v^2 in du/dt": -1.0}
    assert set(fit.names) == set(expected) - set(found.identifiable.unit)
    for place, key in enumerate(fit.names):
        error = float(fit.coefficients[place]) - expected[key]
        assert abs(error) < tolerance * abs(expected[key]), key
        assert abs(error) < 5 * float(fit.standard_errors[place]), key
    assert fit.p_value > 1e-3
    assert "one time unit is free" in str(found) and not found.identifiable.still
    states = final_states(name, 4, seed=1)
    step = gray_scott.preset(name).parameters.run(states, 1).double() - states.double()
    drift = found.drift(states.double())
    cosine = float((step * drift).sum() / (step.norm() * drift.norm()))
    assert cosine > 0.99999


@pytest.mark.slow
def test_a_maze_stands_still():
    """Nothing is told of the equation; with the terms of each given, all are right up to the scale of each."""
    pictures = final_states("maze", 256, seed=0)
    found = discover(pictures, field_model(LIBRARY), dt=1.0)
    assert found.identifiable.relations == (2, 2) and not found.fits
    rows = {"u": LIBRARY.only(["1", "u", "u v^2", "Δu"]), "v": LIBRARY.only(["v", "u v^2", "Δv"])}
    found = discover(pictures, field_model(rows), dt=1.0)
    assert found.identifiable.relations == (1, 1) and len(found.fits) == 2
    expected = torch.tensor([truth("maze")[name] for name in found.model.names], dtype=torch.float64)
    torch.testing.assert_close(found.coefficients, expected, rtol=2e-3, atol=0)
