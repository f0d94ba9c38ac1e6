"""What a rollout refuses, warns of, and ends with; observers against direct computation."""

import math
import warnings

import pytest
import torch

from eqflow.dynamics import Diverged, DivergenceGuard, Drift, GroundTruth, SkewFlow, StepWarning, limits, rollout, skew
from eqflow.dynamics.observers import Histogram, Moments, MovingAverage, RunningMean, Watcher
from eqflow.score import Gaussian, KernelScore
from eqflow.systems.gray_scott import GrayScott


@pytest.fixture(autouse=True)
def one_thread():
    """torch's softmax opens a parallel region for seven numbers, which costs 15 ms where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


STATE = torch.ones(3, 2)
UNIT = Gaussian(torch.zeros(2), 1.0)


@pytest.mark.parametrize("eta, gamma", [(0.1, 0.5**0.5), (0.1, 1.0), (1.0, 0.0), (0.3, 2.0)])
@pytest.mark.parametrize("integrator", ["euler-maruyama", "heun"])
def test_limits_and_inflation_are_those_of_the_lyapunov_equation(integrator, eta, gamma):
    lipschitz = 18.1
    limit = limits.stability_limit(integrator, eta=eta, gamma=gamma, lipschitz=lipschitz)
    for dt in (0.3 * limit, 0.9 * limit):
        matrix = -dt * lipschitz * torch.tensor([[eta, -gamma], [gamma, eta]], dtype=torch.float64)
        one = torch.eye(2, dtype=torch.float64)
        m, n = (one + matrix, one) if integrator[0] == "e" else (one + matrix + matrix @ matrix / 2, one + matrix / 2)
        noise = (2 * eta * dt * n @ n.T).reshape(-1)
        exact = torch.linalg.solve(torch.eye(4) - torch.kron(m, m), noise)[0] * lipschitz
        found = limits.inflation(integrator, dt, eta=eta, gamma=gamma, lipschitz=lipschitz)
        assert found == pytest.approx(float(exact), rel=1e-9)
    assert limits.inflation(integrator, 1.001 * limit, eta=eta, gamma=gamma, lipschitz=lipschitz) == math.inf


def test_the_table_of_the_facts():
    numbers = {"eta": 0.1, "gamma": 0.5**0.5, "lipschitz": 18.1}
    found = [limits.stability_limit(name, **numbers) for name in ("euler-maruyama", "heun", "rk4")]
    assert found == pytest.approx([0.0217, 0.093, 0.229], rel=2e-3)
    assert limits.inflation("euler-maruyama", 0.01, **numbers) == pytest.approx(1.86, abs=0.01)
    assert limits.stability_limit("rk4", eta=0.0, gamma=1.0, lipschitz=1.0) == pytest.approx(2 * math.sqrt(2))


def test_euler_warns_of_its_noise_and_the_step_it_suggests_is_quiet():
    dynamics = SkewFlow(KernelScore(torch.randn(9, 2), 0.9448), skew.rotation(0.5**0.5), 0.1)
    with pytest.warns(StepWarning, match=r"1\.86 times the right one .* take dt=0\.001") as found:
        rollout(STATE, dynamics, 1, dt=0.01, integrator="euler-maruyama")
    assert "integrator='heun'" in str(found[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rollout(STATE, dynamics, 1, dt=0.001, integrator="euler-maruyama")
        rollout(STATE, dynamics, 1, dt=0.01)  # the exact step, the default for a denoiser


def unchanged(state):
    return state


BAD = {
    "no dt": (unchanged, {"dt": None}, "expected dt above 0, got None"),
    "negative dt": (unchanged, {"dt": -0.1}, "expected dt above 0"),
    "nan dt": (unchanged, {"dt": math.nan}, "expected dt above 0"),
    "unstable": (SkewFlow(UNIT, skew.rotation(1.0), 0.1), {"dt": 2.0}, r"expected dt below .*heun.* take dt=0\."),
    "unstable rk4": (SkewFlow(UNIT, skew.rotation(1.0), 0.0), {"dt": 3.0}, r"expected dt below 2\.83.* take dt=1\.4"),
    "unstable drift": (Drift(unchanged, lipschitz=10.0), {"dt": 0.5}, r"expected dt below 0\.279"),
    "noise free heun": (SkewFlow(UNIT, skew.rotation(1.0), 0.0), {"integrator": "heun"}, "Take integrator='rk4'"),
    "noisy rk4": (SkewFlow(UNIT, skew.rotation(1.0), 0.1), {"integrator": "rk4"}, "expected eta = 0 for 'rk4'"),
    "not a denoiser": (SkewFlow(UNIT, skew.rotation(1.0), 0.1), {"integrator": "exact-ou"}, "integrator 'heun'"),
    "channels": (SkewFlow(UNIT, skew.random(3, 0, 1), 0.1), {}, "expected a state of 3 channels"),
    "negative steps": (unchanged, {"steps": -1}, "expected steps from 0 up"),
    "graph on the CPU": (unchanged, {"cuda_graph": True}, "expected a state on a GPU"),
    "its own dt": (GroundTruth(GrayScott(0.02, 0.05)), {"dt": 0.5}, "or 1 as the system has"),
    "its own integrator": (GroundTruth(GrayScott(0.02, 0.05)), {"dt": None, "integrator": "rk4"}, "has its own"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_right_is_refused_before_anything_runs(name):
    dynamics, options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        rollout(STATE, dynamics, **{"steps": 5, "dt": 0.1, **options})


def test_negative_eta_and_wrong_states():
    for make in (lambda: SkewFlow(UNIT, skew.rotation(1.0), -0.1), lambda: Drift(unchanged, -1.0)):
        with pytest.raises(ValueError, match="expected eta finite and from 0 up"):
            make()
    with pytest.raises(ValueError, match="expected a state"):
        rollout(torch.ones(3), unchanged, 1, dt=0.1)
    broken = STATE.clone()
    broken[1, 0] = math.nan
    with pytest.raises(ValueError, match="sample 1 has NaN"):
        rollout(broken, unchanged, 1, dt=0.1)


def test_a_score_that_is_nan_at_the_start_names_the_sample():
    def drift(state):
        return torch.where(state[:, :1] > 1.5, math.nan, -state)

    start = STATE * torch.tensor([[1.0], [1.0], [2.0]])
    with pytest.raises(ValueError, match="NaN or infinity for sample 12, whose state is finite"):
        rollout(start, Drift(drift, 0.1), 1, dt=0.1, first_sample=10)


def test_the_guard_says_when_who_and_why():
    start = torch.tensor([[0.1, 0.1], [3.0, 1.0]])
    said = r"at step 20 \(time 2\) sample 8 .*1 of 2 samples did: the drift .* try dt=0\.025"
    with pytest.raises(Diverged, match=said) as found:
        rollout(start, lambda x: x**3 - x, 100, dt=0.1, guard_every=20, first_sample=7)
    assert (found.value.step, found.value.sample) == (20, 8)


def test_the_guard_suspects_a_score_that_is_steeper_than_it_says():
    class Steep:
        state_scale, output_scale, lipschitz = 0.0, 1.0, 1.0

        def output(self, state):
            return -50 * state

        __call__ = output

    dynamics = SkewFlow(Steep(), skew.rotation(1.0), 0.5)
    with pytest.raises(Diverged, match=r"of the stability limit for the Lipschitz constant 1 .* try dt=0\.05"):
        rollout(STATE, dynamics, 500, dt=0.2)


def test_a_guard_of_ones_own_replaces_the_default():
    with pytest.raises(Diverged, match="at step 1 "):
        rollout(STATE, torch.ones_like, 500, dt=0.5, observers=[DivergenceGuard(1, size=1.2)])
    assert rollout(STATE, torch.ones_like, 50, dt=1e6, guard_every=None).step == 50


def test_observers_equal_direct_computation():
    dynamics = SkewFlow(UNIT, skew.rotation(0.5), 0.5)
    start, frames = UNIT.sample(50, seed=0), []
    mean, average, moments, histogram = RunningMean(2), MovingAverage(0.8, 2), Moments(2), Histogram(-2, 2, 8, 2)
    steps = []
    watcher = Watcher(lambda step, time: steps.append((step, time)), 10)
    rollout(start, dynamics, 40, dt=0.1, observers=[mean, average, moments, histogram, watcher])
    state = start
    for step in range(41):
        if step % 2 == 0:
            frames.append(state.double())
        state = rollout(state, dynamics, 1, dt=0.1, first_step=step).state
    stack = torch.stack(frames)
    torch.testing.assert_close(mean.mean, stack.mean(0))
    expected = frames[0]
    for frame in frames:
        expected = 0.8 * expected + 0.2 * frame
    torch.testing.assert_close(average.mean, expected)
    numbers = stack.reshape(-1, 2)
    torch.testing.assert_close(moments.mean, numbers.mean(0))
    torch.testing.assert_close(moments.covariance, torch.cov(numbers.T, correction=0))
    standard = (numbers - numbers.mean(0)) / numbers.std(0, correction=0)
    torch.testing.assert_close(moments.skewness, (standard**3).mean(0))
    torch.testing.assert_close(moments.kurtosis, (standard**4).mean(0))
    for channel in range(2):
        clamped = numbers[:, channel].clamp(-2, 2 - 1e-9)
        counts = torch.histogram(clamped, histogram.edges).hist
        assert torch.equal(histogram.counts[channel].double(), counts)
    assert [step for step, _ in steps] == [0, 10, 20, 30, 40] and steps[-1][1] == pytest.approx(4.0)


def test_lower_precision_states_its_error():
    class Network(torch.nn.Module):
        state_scale, output_scale, alpha, lipschitz = -1.0, -4.136, 0.9448, 18.1

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.output = torch.nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular")

        def forward(self, state):
            return self.state_scale * state + self.output_scale * self.output(state)

    network, state = Network(), torch.randn(2, 2, 8, 8)
    plain = SkewFlow(network, skew.rotation(0.7), 0.1)
    low = SkewFlow(network, skew.rotation(0.7), 0.1, autocast=torch.bfloat16)
    assert plain.score_error(state) < 1e-6 and 1e-4 < low.score_error(state) < 2e-2
    a, b = (rollout(state, dynamics, 3, dt=0.01).state for dynamics in (plain, low))
    assert 0 < float((a - b).norm() / a.norm()) < 2e-2


@pytest.mark.gpu
def test_a_captured_step_is_the_step():
    dynamics = SkewFlow(UNIT.to("cuda"), skew.rotation(0.5).cuda(), 0.5)
    start = UNIT.sample(64, seed=0).cuda()
    plain = rollout(start, dynamics, 100, dt=0.1)
    assert torch.equal(rollout(start, dynamics, 100, dt=0.1, cuda_graph=True).state, plain.state)
