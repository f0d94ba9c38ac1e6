"""What holds of every pattern-forming system."""

import dataclasses
import itertools
import math
from typing import ClassVar

import pytest
import torch

from eqflow import ops
from eqflow.systems import patterns
from eqflow.systems.patterns import laplacian, value

DOUBLE = torch.float64
NOISY = (
    patterns.NoisyGrayScott(),
    patterns.CahnHilliard(diffusion=0.6),
    patterns.Brusselator(diffusion=1e-3),
)


def near_fixed_point(system, batch=2, height=12, width=10, seed=0):
    channels = len(system.channels)
    normals = ops.normal(batch, channels * height * width, seed=seed).double().view(batch, channels, height, width)
    return normals.new_tensor(system.fixed_point())[:, None, None] + 0.2 * normals


def test_the_terms_are_those_of_the_literature(case):
    state = near_fixed_point(case.system)
    torch.testing.assert_close(case.system.rates(state), torch.stack(case.by_hand(state), 1))


def test_a_system_says_what_it_is(case):
    system = case.system
    assert system == dataclasses.replace(system) and hash(system) == hash(dataclasses.replace(system))
    assert system.source and system.character in ("moving", "static", "coarsening") and system.settling > 0
    equations = system.equations()
    assert len(equations) == len(system.channels)
    assert all(coefficient for row in equations for coefficient in row.values())
    assert all(len(term.powers) == len(system.channels) for row in equations for term in row)


def test_absent_terms_are_not_named():
    first, second = patterns.FitzHughNagumo(drive=0.0, diffusion_v=0.0).equations()
    assert ("value", (0, 0)) not in first and ("laplacian", (0, 1)) not in second
    assert first[("laplacian", (1, 0))] == 0.15


def test_the_homogeneous_state_rests(case):
    system = case.system
    state = near_fixed_point(system) * 0 + torch.tensor(system.fixed_point(), dtype=DOUBLE)[:, None, None]
    torch.testing.assert_close(system.rates(state), torch.zeros_like(state), rtol=0, atol=1e-13)


def test_three_steady_states_give_the_middle_one():
    assert patterns.FitzHughNagumo(a=0.0, b=3.0, drive=0.0).fixed_point() == pytest.approx((0, 0), abs=1e-12)


def test_a_shift_of_the_grid_shifts_the_bits(case):
    system = case.system
    state = near_fixed_point(system, height=13, width=17).float()
    shifted = system.run(state.roll((3, 5), (2, 3)), 50)
    assert torch.equal(shifted, system.run(state, 50).roll((3, 5), (2, 3)))


@pytest.mark.parametrize("system", [patterns.FitzHughNagumo(), *NOISY], ids=lambda system: type(system).__name__)
def test_a_picture_knows_its_seed_and_index_alone(system, monkeypatch):
    whole = system.simulate(5, 17, 19, seed=3, steps=20)
    assert torch.equal(system.simulate(1, 17, 19, seed=3, steps=20, first_sample=3), whole[3:4])
    monkeypatch.setattr("eqflow.systems.patterns.pattern._CHUNK_CELLS", 2 * 17 * 19)
    assert torch.equal(system.simulate(5, 17, 19, seed=3, steps=20), whole)
    start = system.start(5, 17, 19, seed=3)
    later = system.run(system.run(start, 12, seed=3), 8, seed=3, first_step=12)
    assert torch.equal(later, whole)
    assert not torch.equal(system.simulate(5, 17, 19, seed=4, steps=20), whole)
    assert whole.dtype == torch.float32 and len({float(picture.sum()) for picture in whole}) == 5


def test_steps_converge_with_the_fourth_order(case):
    system, time = case.system, 8 * case.system.stability_limit() / 10
    state = system.run(near_fixed_point(system), 20)
    results = [system.run(state, steps, dt=time / steps) for steps in (8, 16, 32)]
    coarse, fine = ((a - b).norm() for a, b in itertools.pairwise(results))
    assert 3.7 < math.log2(coarse / fine) < 5.2


@dataclasses.dataclass(frozen=True)
class Decay(patterns.Pattern):
    """u_t = Lap u - u + noise: the variance of a mode of eigenvalue -q is D / (1 + q)."""

    channels: ClassVar[tuple[str, ...]] = ("u",)

    def equations(self):
        return ({laplacian(1): 1.0, value(1): -1.0},)

    def fixed_point(self):
        return (0.0,)


def test_pictures_have_ages_of_their_own():
    class Clock(Decay):
        settling = 3.0

        def start(self, batch, height, width, **counter):
            return torch.ones(batch, 1, height, width, dtype=DOUBLE)

    ages = -Clock().simulate(400, 3, 3, seed=0)[:, 0, 0, 0].log()
    assert ages.min() > 3 and ages.max() < 6 and ages.mean().item() == pytest.approx(4.5, abs=0.15)
    assert torch.equal(Clock().simulate(3, 3, 3, seed=0, first_sample=7), Clock().simulate(10, 3, 3, seed=0)[7:])
    same = -Clock().simulate(4, 3, 3, seed=0, steps=10, dt=0.1).log()
    torch.testing.assert_close(same, torch.ones_like(same), rtol=1e-5, atol=0)


class Unit(Decay):
    def noise(self, state, **counter):
        return torch.ones_like(state)


def test_noise_leaves_the_variance_right_to_the_fourth_order():
    """Of a homogeneous mode: the factor and the kick of one step say what its stationary variance is."""
    system, errors = Unit(diffusion=0.5), []
    rest = torch.zeros(1, 1, 3, 3, dtype=DOUBLE)
    for dt in (0.2, 0.1, 0.05):
        kick = system.run(rest, 1, dt=dt, seed=0)[0, 0, 0, 0]
        factor = system.run(rest + 1, 1, dt=dt, seed=0)[0, 0, 0, 0] - kick
        errors.append(float(kick**2 / (1 - factor**2)) - 0.5)
    assert abs(errors[0]) < 1e-5
    assert all(abs(coarse / fine) > 13 for coarse, fine in itertools.pairwise(errors))


def test_the_spectrum_of_a_linear_system():
    system, size = Decay(diffusion=0.2), 16
    state = system.run(torch.zeros(200, 1, size, size), 12, seed=1)
    power = torch.fft.fft2(state[:, 0].double()).abs().square().mean(0) / size**2
    turn = 2 - 2 * (2 * math.pi * torch.arange(size, dtype=DOUBLE) / size).cos()
    eigenvalue = 1 + turn[:, None] + turn
    grown = 1 - (-2 * eigenvalue * 12 * system.dt).exp()
    ratio = power * eigenvalue / (0.2 * grown)
    assert ratio.mean().item() == pytest.approx(1, abs=0.025)  # 4 standard errors of 51,200 normals
    assert ratio[eigenvalue > 6].mean().item() == pytest.approx(1, abs=0.05)


def test_starts_have_patches_and_spread():
    system = patterns.FitzHughNagumo()
    start = system.start(50, 20, 36, seed=2)
    assert (start[:, :, 8:16, 24:32] == start[:, :, 8:9, 24:25]).all() and start.shape == (50, 2, 20, 36)
    away = start[:, :, ::8, ::8] - torch.tensor(system.fixed_point())[:, None, None]
    assert away.mean().abs() < 0.1 and away.std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: patterns.Brusselator(dx=0.0), "dx above 0 and diffusion from 0 up, got 0.0"),
        (lambda: patterns.Brusselator(diffusion=-1.0), "diffusion from 0 up, got 1.0 and -1.0"),
        (lambda: patterns.Brusselator(stencil="7-point"), "'5-point' or '9-point', got '7-point'"),
        (lambda: patterns.Brusselator().run(torch.zeros(1, 1, 8, 8), 1), r"state \[batch, 2, height, width\]"),
        (lambda: patterns.Brusselator().run(torch.zeros(1, 2, 2, 8), 1), "3 x 3 cells or more"),
        (lambda: patterns.Brusselator().run(torch.zeros(1, 2, 8, 8), -1), "steps from 0 up and dt above 0, got -1"),
        (lambda: patterns.Brusselator().run(torch.zeros(1, 2, 8, 8), 1, dt=1.0), "unstable: the limit is 0.1934"),
        (lambda: patterns.NoisyGrayScott().run(torch.zeros(1, 2, 8, 8), 1), "pass seed="),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_state_without_bounds_is_reported():
    with pytest.raises(FloatingPointError, match="Brusselator grew beyond all bounds before step 20"):
        patterns.Brusselator().run(torch.full((1, 2, 4, 4), 1e6), 20)


def test_the_limit_of_stability_is_sharp():
    """A checkerboard, the fastest mode, decays just below it and grows just above."""
    system = Decay()
    checkerboard = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8)).double()[None, None]
    limit = system.stability_limit()
    assert system.run(checkerboard, 100, dt=limit * 0.999).abs().max() < 1
    factor = abs(system.run(checkerboard, 1, dt=limit * 0.9999)[0, 0, 0, 0].item())
    assert factor == pytest.approx(1, abs=2e-3)
