"""Rollouts against the exact solution of their own recursion, split, restarted, and stopped."""

import math

import pytest
import torch

from eqflow.data.checkpoint import Checkpoint
from eqflow.dynamics import Drift, GroundTruth, ResumeError, SkewFlow, rollout, skew
from eqflow.dynamics.observers import Moments, MovingAverage, RunningMean, StopRule
from eqflow.score import Gaussian, KernelScore, Mixture
from eqflow.systems.gray_scott import initial_state, preset


@pytest.fixture(autouse=True)
def one_thread():
    """torch's softmax opens a parallel region for seven numbers, which costs 15 ms where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SIGMA = torch.tensor([[2.0, 0.5], [0.5, 0.7]], dtype=torch.float64)


def discrete_covariance(integrator, sigma, kernel, eta, h):
    """C = M C M' + 2 eta h N N', the stationary covariance of the linear recursion."""
    size = len(sigma)
    one = torch.eye(size, dtype=torch.float64)
    a = -(kernel + eta * one) @ torch.linalg.inv(sigma)
    m, n = (
        (one + h * a, one) if integrator == "euler-maruyama" else (one + h * a + (h * a) @ (h * a) / 2, one + h * a / 2)
    )
    noise = 2 * eta * h * n @ n.T
    return torch.linalg.solve(torch.eye(size**2) - torch.kron(m, m), noise.reshape(-1)).reshape(size, size)


def flow(eta=0.4, gamma=1.3):
    return SkewFlow(Gaussian(torch.zeros(2), SIGMA.float()), skew.rotation(gamma), eta)


@pytest.mark.filterwarnings("ignore:.*variance of the stiffest:eqflow.dynamics.StepWarning")
@pytest.mark.parametrize("integrator", ["heun", "euler-maruyama"])
def test_the_stationary_covariance_is_that_of_the_discrete_step(integrator):
    dynamics, h, chains = flow(), 0.1, 40_000
    start = dynamics.score.sample(chains, seed=1)
    end = rollout(start, dynamics, 100, dt=h, integrator=integrator, seed=2).state.double()
    exact = discrete_covariance(integrator, SIGMA, dynamics.kernel[:, :, 0, 0].double(), 0.4, h)
    found = end.T @ end / chains
    error = ((exact.diagonal()[:, None] * exact.diagonal() + exact**2) / chains).sqrt()
    assert ((found - exact).abs() < 4 * error).all(), (found, exact)
    shifted = (exact - SIGMA).abs() / error
    assert integrator == "heun" or shifted.max() > 8  # the test could tell it from the continuous one


def test_a_symmetric_part_in_the_kernel_is_refused():
    kernel = skew.rotation(1.0)
    kernel[0, 1] += 0.1
    with pytest.raises(ValueError, match=r"largest violation is 0\.1"):
        SkewFlow(Gaussian(torch.zeros(2), 1.0), kernel, 0.1)


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_a_mixture_keeps_its_weights(gamma):
    score = Mixture(torch.tensor([[-1.5, 0.0], [1.5, 0.5]]), 0.4, torch.tensor([0.3, 0.7]))
    start = score.sample(6000, seed=3)
    end = rollout(start, SkewFlow(score, skew.rotation(gamma), 0.5), 150, dt=0.02, seed=4).state
    assert abs(float((end[:, 0] > 0).double().mean() - (start[:, 0] > 0).double().mean())) < 4 * math.sqrt(
        0.42 / 20_000
    )
    crossed = ((end[:, 0] > 0) != (start[:, 0] > 0)).double().mean()
    assert crossed > 0.02  # they did move over


def test_the_exact_step_keeps_the_noise_of_a_single_point():
    # For one point the denoiser is constant, so the step is exact: N(sqrt(alpha) x, (1 - alpha) I) at any dt.
    alpha, chains = 0.9, 40_000
    score = KernelScore(torch.tensor([[1.0, -2.0]]), alpha)
    start = torch.zeros(chains, 2)
    end = rollout(start, SkewFlow(score, skew.rotation(1.0), 0.3), 60, dt=0.05, seed=5).state.double()
    assert (end.mean(0) - math.sqrt(alpha) * torch.tensor([1.0, -2.0])).abs().max() < 4 * math.sqrt(0.1 / chains)
    assert (end.var(0) - 0.1).abs().max() < 4 * 0.1 * math.sqrt(2 / chains)


def test_runge_kutta_has_order_four():
    matrix = torch.tensor([[-0.3, -2.0], [2.0, -0.1]], dtype=torch.float64)
    start = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    exact = start @ torch.linalg.matrix_exp(matrix).T
    errors = [float((rollout(start, lambda x: x @ matrix.T, n, dt=1 / n).state - exact).norm()) for n in (10, 20, 40)]
    orders = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert all(3.8 < order < 4.2 for order in orders), orders


def test_runge_kutta_keeps_the_density_of_a_skew_flow_without_noise():
    start = flow().score.sample(2000, seed=1)
    dynamics = flow(eta=0.0)
    before = dynamics.score.log_density(start)
    end = rollout(start, dynamics, 200, dt=0.02)
    # K grad log p is orthogonal to the gradient: each point stays on its level.
    torch.testing.assert_close(dynamics.score.log_density(end.state), before, atol=2e-4, rtol=0)
    assert (end.state - start).norm(dim=1).mean() > 0.3


def test_heun_has_weak_order_two_and_euler_one():
    kernel = skew.rotation(1.3)[:, :, 0, 0].double()
    for integrator, order in (("euler-maruyama", 1), ("heun", 2)):
        errors = [
            (discrete_covariance(integrator, SIGMA, kernel, 0.4, h) - SIGMA).abs().max() for h in (0.02, 0.01, 0.005)
        ]
        found = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
        assert all(abs(value - order) < 0.15 for value in found), (integrator, found)


@pytest.mark.filterwarnings("ignore:.*variance of the stiffest:eqflow.dynamics.StepWarning")
@pytest.mark.parametrize("integrator", ["heun", "euler-maruyama"])
def test_a_step_is_the_linear_map_of_the_closed_form(integrator):
    # The same noise acts on both starts, so their difference is M: that of the recursion whose order was found above.
    h, dynamics = 0.05, flow()
    state = torch.eye(2)
    matrix = -(dynamics.kernel[:, :, 0, 0] + 0.4 * torch.eye(2)).double() @ torch.linalg.inv(SIGMA)
    moved = rollout(state, dynamics, 1, dt=h, integrator=integrator, seed=1).state
    zero = rollout(0 * state, dynamics, 1, dt=h, integrator=integrator, seed=1).state
    one = torch.eye(2, dtype=torch.float64)
    expected = one + h * matrix + (0 if integrator == "euler-maruyama" else (h * matrix) @ (h * matrix) / 2)
    torch.testing.assert_close((moved - zero).T.double(), expected, atol=1e-6, rtol=0)


def drifting(state):
    return torch.sin(state) - 0.5 * state


FLOWS = {
    "drift": (Drift(drifting, 0.2), None),
    "rk4": (drifting, None),
    "heun": (SkewFlow(Mixture(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), 0.5), skew.rotation(0.7), 0.2), "heun"),
    "exact-ou": (SkewFlow(KernelScore(torch.randn(20, 2), 0.9), skew.rotation(0.7), 0.2), None),
}


@pytest.mark.parametrize("name", FLOWS)
def test_parts_of_the_batch_and_of_the_time_are_the_whole(name):
    dynamics, integrator = FLOWS[name]
    start = torch.linspace(-2, 2, 14).view(7, 2)
    options = {"dt": 0.02, "integrator": integrator, "seed": 2**63 + 5}
    whole = rollout(start, dynamics, 1000, **options)
    first = rollout(start, dynamics, 400, **options)
    later = rollout(first.state, dynamics, 600, first_step=first.step, **options)
    assert torch.equal(later.state, whole.state) and later.step == 1000 and later.time == pytest.approx(20.0)
    halves = [
        rollout(part, dynamics, 100, first_sample=at, **options).state for at, part in ((0, start[:3]), (3, start[3:]))
    ]
    torch.testing.assert_close(torch.cat(halves), rollout(start, dynamics, 100, **options).state, rtol=0, atol=0)


def test_fields_of_any_size_with_a_larger_kernel():
    score = Gaussian(torch.zeros(3, 5, 7), 0.5)
    dynamics = SkewFlow(score, skew.random(3, 1, seed=2), 0.2)
    start = score.sample(4, seed=1)
    whole = rollout(start, dynamics, 20, dt=0.05)
    part = rollout(start[2:], dynamics, 20, dt=0.05, first_sample=2)
    assert whole.state.shape == start.shape and torch.equal(part.state, whole.state[2:])


def test_a_ground_truth_is_cut_at_the_same_places_whatever_is_observed(tmp_path):
    truth = GroundTruth(preset("wave").parameters, segment=40)
    start = initial_state("discs", torch.arange(2), 24, 24, seed=0)
    plain = rollout(start, truth, 250)
    seen = []
    watched = rollout(start, truth, 250, observers=[StopRule(lambda *a: seen.append(a[0]), every=7)], guard_every=9)
    assert torch.equal(plain.state, watched.state) and seen == list(range(0, 250, 7))
    store = Checkpoint(tmp_path / "run.pt", every=10)
    rollout(start, truth, 130, checkpoint=store)
    assert store.load()["step"] == 120  # the last place where it can be cut
    assert torch.equal(rollout(start, truth, 250, checkpoint=store).state, plain.state)
    with pytest.raises(ValueError, match="expected first_step at a multiple of 40"):
        rollout(start, truth, 10, first_step=50)


@pytest.mark.parametrize("stop", [1, 57, 99, 100, 130])
def test_a_resumed_rollout_is_the_undisturbed_one(tmp_path, stop):
    dynamics, start = FLOWS["heun"][0], torch.linspace(-1, 1, 6).view(3, 2)

    def run(steps, name):
        observers = [RunningMean(3), Moments(7), MovingAverage(0.9, 2)]
        result = rollout(
            start, dynamics, steps, dt=0.02, observers=observers, checkpoint=Checkpoint(tmp_path / name, every=25)
        )
        return result, observers

    whole, watched = run(200, "whole.pt")
    run(stop, "part.pt")
    resumed, rewatched = run(200, "part.pt")
    assert torch.equal(resumed.state, whole.state) and resumed.step == 200
    assert torch.equal(rewatched[0].mean, watched[0].mean) and rewatched[0].count == 67
    assert torch.equal(rewatched[1].powers, watched[1].powers)
    assert torch.equal(rewatched[2].mean, watched[2].mean)
    again, _ = run(200, "part.pt")
    assert torch.equal(again.state, whole.state)


OTHER = {
    "dt": ({"dt": 0.03}, "dt is 0.02 there and 0.03 here"),
    "seed": ({"seed": 1}, "seed is 0 there and 1 here"),
    "integrator": ({"integrator": "euler-maruyama"}, "integrator is heun there"),
    "eta": ({"eta": 0.3}, "dynamics.eta is 0.2 there and 0.3 here"),
    "start": ({"scale": 2.0}, "start is float32"),
    "observers": ({"observers": [RunningMean(4)]}, "observers.0.every is 3 there and 4 here"),
    "fewer steps": ({"steps": 10}, "stands at step 50, beyond the last step 10"),
}


@pytest.mark.filterwarnings("ignore:.*variance of the stiffest:eqflow.dynamics.StepWarning")
@pytest.mark.parametrize("name", OTHER)
def test_resuming_with_other_options_is_refused(tmp_path, name):
    changed, message = OTHER[name]
    store = Checkpoint(tmp_path / "run.pt", every=20)

    def run(steps=50, dt=0.02, seed=0, integrator=None, eta=0.2, scale=1.0, observers=None):
        dynamics = SkewFlow(Gaussian(torch.zeros(2), 1.0), skew.rotation(0.7), eta)
        observers = observers or [RunningMean(3)]
        options = {"dt": dt, "seed": seed, "integrator": integrator, "observers": observers, "checkpoint": store}
        rollout(scale * torch.ones(2, 2), dynamics, steps, **options)

    run()
    before = store.path.read_bytes()
    with pytest.raises(ResumeError, match=message):
        run(**changed)
    assert store.path.read_bytes() == before


def test_a_stopped_rollout_stays_stopped(tmp_path):
    rules = [StopRule(lambda step, time, state: bool(state.min() > 2), every=5) for _ in range(2)]
    for rule in rules:
        store = Checkpoint(tmp_path / "run.pt")
        result = rollout(torch.ones(2, 2), torch.ones_like, 1000, dt=0.125, observers=[rule], checkpoint=store)
        assert result.stopped and result.step == rule.stopped == 10 and result.time == 1.25


def test_no_steps_and_no_samples():
    start = torch.ones(2, 2)
    result = rollout(start, drifting, 0, dt=0.1)
    assert torch.equal(result.state, start) and result.step == 0
    assert rollout(torch.zeros(0, 2), Drift(drifting, 0.1), 5, dt=0.1).state.shape == (0, 2)
