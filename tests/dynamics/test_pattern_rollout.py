"""Scores of patterns in rollouts: one step against its formula, the noise it keeps, splits, layouts and precisions."""

import cmath
import contextlib
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from eqflow import ops
from eqflow.dynamics import SkewFlow, StepWarning, limits, rollout, skew
from eqflow.ops.philox import STREAMS
from eqflow.score import PatternDenoiser, PatternShape

SMALL = {"width": 8, "dilations": (1, 2), "first": 3}
ETA, GAMMA, MEAN, STD = 0.1, 0.5**0.5, [0.3, -0.6], [0.06, 0.06]


def score(at=None, clip=False, **changes):
    """One whose last layer is not zero."""
    made = PatternDenoiser(PatternShape(**{**SMALL, **changes}), MEAN, [0.5, 0.2], seed=1)
    torch.nn.init.normal_(made.network.leave.weight, std=0.3, generator=torch.Generator().manual_seed(1))
    return made.requires_grad_(False).at(at, clip=clip)


def gaussian():
    """Untrained, the denoiser is exact for fields of independent normals of its mean and deviation."""
    return PatternDenoiser(PatternShape(**SMALL), MEAN, STD).requires_grad_(False).at()


def start(score, count=4, size=12):
    clean = ops.normal(count, 2 * size**2, seed=5, stream=STREAMS["initial"]).view(count, 2, size, size)
    mean, std = (torch.tensor(values).view(2, 1, 1) for values in (MEAN, STD))
    return score.noised(mean + std * clean, seed=6)


def flow(score, gamma=GAMMA, **options):
    return SkewFlow(score, skew.rotation(gamma), ETA, **options)


KINDS = {"edm": {}, "v": {"precondition": "v"}, "conservative": {"conservative": True}, "clip": {"clip": True},
         "every level": {"alpha": None, "at": 0.9}}  # fmt: skip


@pytest.mark.parametrize(
    "dtype, backend, tolerance",
    [(torch.float64, "reference", 1e-12), (torch.float32, "native", 2e-6)],
    ids=["double", "single"],
)
@pytest.mark.parametrize("gamma, dt", [(GAMMA, 0.01), (-GAMMA, 0.02)])
@pytest.mark.parametrize("kind", KINDS)
def test_one_exact_step_is_its_formula(kind, gamma, dt, dtype, backend, tolerance):
    """With r = x - sqrt(alpha) D and h = dt / (1 - alpha):

    x' = sqrt(alpha) D + exp(-eta h) exp(-h gamma J) r + sqrt((1 - alpha) (1 - exp(-2 eta h))) xi
    """
    made = score(**KINDS[kind]).to(dtype)
    state = 2 * start(made).to(dtype)
    moved = rollout(state, flow(made, gamma, backend=backend), 1, dt=dt, integrator="exact-ou", seed=3).state
    clean = made.denoiser(state / math.sqrt(made.alpha), made.sigma)
    assert made.clip == (kind == "clip") and clean.abs().max() > 1
    clean = math.sqrt(made.alpha) * (clean.clamp(-1, 1) if made.clip else clean)
    gamma = float(skew.rotation(gamma)[1, 0])  # which holds it in float32
    h, (u, v) = dt / (1 - made.alpha), (state - clean).unbind(1)
    cosine, sine = math.cos(gamma * h), math.sin(gamma * h)
    turned = torch.stack([cosine * u + sine * v, cosine * v - sine * u], 1)
    xi = ops.normal(len(state), state[0].numel(), seed=3, step=0, stream=STREAMS["langevin"], backend=backend)
    noise = math.sqrt((1 - made.alpha) * (1 - math.exp(-2 * ETA * h))) * xi.view_as(state)  # float32 always
    torch.testing.assert_close(moved, clean + math.exp(-ETA * h) * turned + noise, rtol=tolerance, atol=tolerance)


def stationary(made, integrator, dt):
    """Variance that the linear recursion of `gaussian` ends in, in closed form."""
    variance, h = made.alpha * STD[0] ** 2 + 1 - made.alpha, dt / (1 - made.alpha)
    if integrator != "exact-ou":
        return variance * limits.inflation(integrator, dt, eta=ETA, gamma=GAMMA, lipschitz=1 / variance)
    kept = made.alpha * STD[0] ** 2 / variance  # sqrt(alpha) D = kept x + what is constant
    growth = kept + (1 - kept) * cmath.exp(-complex(ETA, GAMMA) * h)
    return (1 - made.alpha) * (1 - math.exp(-2 * ETA * h)) / (1 - abs(growth) ** 2)


@pytest.mark.parametrize(
    "integrator, low, high", [("exact-ou", 0.95, 1.05), ("heun", 0.95, 1.05), ("euler-maruyama", 1.4, 2.0)]
)
def test_the_residual_noise_of_an_exact_denoiser_and_the_step_that_spoils_it(integrator, low, high):
    """rho = |x - sqrt(alpha) D|^2 / ((1 - alpha) d) is 1 - MSE / sigma^2 = sigma^2 / (std^2 + sigma^2) in the law."""
    made = gaussian()
    state, exact = start(made, 8, 16), made.sigma**2 / (STD[0] ** 2 + made.sigma**2)
    for part in range(3):
        options = {"dt": 0.01, "integrator": integrator, "seed": 3, "first_step": 100 * part}
        euler = integrator == "euler-maruyama"
        with pytest.warns(StepWarning, match="1.86 times the right") if euler else contextlib.nullcontext():
            state = rollout(state, flow(made), 100, **options).state
        if part == 0:
            continue  # explicit Euler takes a time 1 / eta to spoil it
        away = state - math.sqrt(made.alpha) * made.output(state)
        assert low < float(away.square().mean()) / (1 - made.alpha) / exact < high
    assert float(state.var((0, 2, 3)).mean()) == pytest.approx(stationary(made, integrator, 0.01), rel=0.05)
    mean = math.sqrt(made.alpha) * torch.tensor(MEAN)
    torch.testing.assert_close(state.mean((0, 2, 3)), mean, rtol=0, atol=5 * float(state.std()) / math.sqrt(2048))


@pytest.mark.parametrize("integrator", ["exact-ou", "heun"])
def test_splits_of_the_batch_and_of_the_steps_change_no_bit(integrator):
    made = score()
    state, options = start(made), {"dt": 0.01, "integrator": integrator, "seed": 3}
    whole = rollout(state, flow(made), 9, **options).state
    middle = rollout(state, flow(made), 4, **options).state
    assert torch.equal(rollout(middle, flow(made), 5, first_step=4, **options).state, whole)
    parts = [rollout(state[at : at + 2], flow(made), 9, first_sample=at, **options).state for at in (0, 2)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(rollout(state[2:], flow(made), 9, **options).state, whole[2:])


@pytest.mark.parametrize("conservative", [False, True])
def test_channels_last_changes_the_rounding_alone(conservative):
    made = score(conservative=conservative)
    last = made.to(memory_format=torch.channels_last)
    state, options = start(made), {"dt": 0.01, "seed": 3}
    moved = rollout(state, flow(last), 10, **options).state
    torch.testing.assert_close(moved, rollout(state, flow(made), 10, **options).state, rtol=1e-5, atol=1e-5)
    assert moved.is_contiguous() and not moved.requires_grad


def test_bfloat16_moves_the_score_by_a_hundredth_and_keeps_the_noise():
    made = score()
    half = flow(made.to(memory_format=torch.channels_last), autocast=torch.bfloat16)
    state = start(made)
    assert 1e-4 < half.score_error(state) < 1e-2
    moved, exact = (rollout(state, each, 50, dt=0.01, seed=3).state for each in (half, flow(made)))
    assert moved.dtype == torch.float32 and 0 < float((moved - exact).norm() / exact.norm()) < 1e-2


def test_a_step_waits_for_no_number_from_the_host():
    """A CUDA graph refuses copies from the host, and without one they make the GPU wait."""
    seen = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    made = score()
    state = start(made)
    with torch.no_grad(), Watch():
        made.output(state)
    assert "aten.convolution.default" in seen
    assert not {"aten.lift_fresh.default", "aten._to_copy.default", "aten._local_scalar_dense.default"} & {*seen}


@pytest.mark.gpu
@pytest.mark.parametrize("conservative", [False, True])
def test_a_captured_rollout_is_the_one_that_is_not(conservative):
    made = score(conservative=conservative)
    state, there = start(made).cuda(), flow(made.to("cuda"))
    plain = rollout(state, there, 20, dt=0.01, seed=3).state
    torch.testing.assert_close(rollout(state, there, 20, dt=0.01, seed=3, cuda_graph=True).state, plain)
    torch.testing.assert_close(plain.cpu(), rollout(state.cpu(), flow(made), 20, dt=0.01, seed=3).state)
