"""Skew flows with corrections by the score alone: the density they keep, and the bits they must not change."""

import math

import pytest
import torch

from eqflow import ops
from eqflow.data.checkpoint import Checkpoint
from eqflow.dynamics import CorrectedFlow, ResumeError, SkewFlow, rollout, skew
from eqflow.metrics import GaussianField
from eqflow.score import Gaussian, KernelScore, folding


class LinearDenoiser:
    """The exact score of N(0, variance) data under noise, as a denoiser gives it."""

    predicts = "x0"

    def __init__(self, variance=1.5, alpha=0.8):
        self.variance, self.alpha = variance, alpha
        self.state_scale, self.output_scale = folding(self.predicts, alpha)

    def output(self, state):
        return math.sqrt(self.alpha) * self.variance / self.noised * state

    @property
    def noised(self):
        return self.alpha * self.variance + 1 - self.alpha

    def __call__(self, state):
        return self.state_scale * state + self.output_scale * self.output(state)


def flow(eta=0.1, gamma=0.7, **options):
    return SkewFlow(LinearDenoiser(), skew.rotation(gamma), eta, **options)


def start(*shape):
    return ops.normal(shape[0], math.prod(shape[1:]), seed=7).view(shape)


def stationary(dt, corrections, pull):
    """The variance that every step gives back, with D = b x held in each of its passes: one pair of channels."""
    score, eta, gamma = LinearDenoiser(), 0.1, 0.7
    held, h = score.alpha * score.variance / score.noised, dt / (1 - score.alpha)
    one = torch.eye(2, dtype=torch.float64)

    def after(covariance, rate, turn):
        decay = torch.linalg.matrix_exp(-h * torch.tensor([[rate, -turn], [turn, rate]], dtype=torch.float64))
        matrix = held * one + (1 - held) * decay
        return matrix @ covariance @ matrix.T - (1 - score.alpha) * math.expm1(-2 * rate * h) * one

    covariance = one
    for _ in range(round(8 / dt)):
        covariance = after(covariance, eta, gamma)
        for _ in range(corrections):
            covariance = after(covariance, pull, 0.0)
    return float(covariance[0, 0])


@pytest.mark.parametrize("corrections, pull", [(1, 1.0), (3, 0.3)])
def test_the_stationary_variance_is_that_of_the_linear_recursion(corrections, pull):
    dynamics = CorrectedFlow(flow(), corrections, eta=pull)
    end = rollout(start(40_000, 2), dynamics, 300, dt=0.02, seed=3).state.double()
    expected = stationary(0.02, corrections, pull)
    assert abs(float(end.square().mean()) - expected) < 4 * math.sqrt(2 / end.numel()) * expected
    wrong = [abs(stationary(dt, corrections, pull) / dynamics.score.noised - 1) for dt in (0.02, 0.01, 0.005)]
    assert wrong[0] < 0.06 and all(0.4 < wrong[i + 1] / wrong[i] < 0.6 for i in range(2))  # only that D is held


def test_noise_on_a_single_point_is_right_at_any_step():
    alpha, chains = 0.9, 40_000
    score = KernelScore(torch.tensor([[1.0, -2.0]]), alpha)  # a constant denoiser, so every pass is exact
    dynamics = CorrectedFlow(SkewFlow(score, skew.rotation(1.0), 0.05), 2, eta=0.7, dt=0.3)
    end = rollout(torch.zeros(chains, 2), dynamics, 20, dt=0.05, seed=5).state.double()
    assert (end.mean(0) - math.sqrt(alpha) * torch.tensor([1.0, -2.0])).abs().max() < 4 * math.sqrt(0.1 / chains)
    assert (end.var(0) - 0.1).abs().max() < 4 * 0.1 * math.sqrt(2 / chains)


def test_a_correction_is_a_step_without_k_with_noise_of_its_own_counter():
    dynamics, state = CorrectedFlow(flow(), 2, eta=0.5, dt=0.04), start(3, 2, 4, 5)
    expected = rollout(state, dynamics.flow, 1, dt=0.01, seed=9, first_step=6).state
    alone = SkewFlow(dynamics.score, torch.zeros(2, 2, 1, 1), 0.5)
    for correction in (1, 2):
        expected = rollout(expected, alone, 1, dt=0.04, seed=9, first_step=6 + correction * 2**40).state
    assert torch.equal(rollout(state, dynamics, 1, dt=0.01, seed=9, first_step=6).state, expected)


def test_no_correction_changes_no_bit():
    state = start(4, 2, 8, 8)
    for integrator in ("exact-ou", "heun"):
        options = {"dt": 0.02, "seed": 1, "integrator": integrator}
        plain = rollout(state, flow(), 20, **options).state
        assert torch.equal(rollout(state, CorrectedFlow(flow(), 0), 20, **options).state, plain)
        assert not torch.equal(rollout(state, CorrectedFlow(flow()), 20, **options).state, plain)


def test_parts_of_a_batch_and_of_the_time_are_the_whole():
    dynamics, state, options = CorrectedFlow(flow(), 2), start(5, 2, 6, 6), {"dt": 0.02, "seed": 2}
    whole = rollout(state, dynamics, 30, **options).state
    parts = [rollout(state[:2], dynamics, 30, **options), rollout(state[2:], dynamics, 30, first_sample=2, **options)]
    assert torch.equal(torch.cat([part.state for part in parts]), whole)
    half = rollout(state, dynamics, 13, **options)
    assert torch.equal(rollout(half.state, dynamics, 17, first_step=half.step, **options).state, whole)


def test_a_rollout_goes_on_from_its_checkpoint_and_refuses_that_of_another(tmp_path):
    state, options = start(2, 2, 6, 6), {"dt": 0.02, "seed": 2}
    whole = rollout(state, CorrectedFlow(flow(), 2), 30, **options).state
    rollout(state, CorrectedFlow(flow(), 2), 17, checkpoint=Checkpoint(tmp_path / "run.pt", every=5), **options)
    again = rollout(state, CorrectedFlow(flow(), 2), 30, checkpoint=Checkpoint(tmp_path / "run.pt"), **options)
    assert torch.equal(again.state, whole)
    for other, words in (
        (CorrectedFlow(flow(), 1), "dynamics.corrections is 2 there and 1 here"),
        (CorrectedFlow(flow(), 2, eta=0.5), "dynamics.eta is 1.0 there and 0.5 here"),
        (CorrectedFlow(flow(eta=0.2), 2), "dynamics.flow.eta is 0.1 there and 0.2 here"),
        (flow(), "dynamics.type is CorrectedFlow there and SkewFlow here"),
    ):
        with pytest.raises(ResumeError, match=words):
            rollout(state, other, 30, checkpoint=Checkpoint(tmp_path / "run.pt"), **options)


def test_a_step_in_memory_is_the_same_step():
    dynamics, state = CorrectedFlow(flow(), 2), start(2, 2, 6, 6)
    stepper = dynamics.stepper(state, integrator=None, dt=0.02, seed=4, first_sample=0)
    assert torch.equal(stepper.step(state, 11), stepper.step(state, torch.tensor(11)))


def test_flows_without_noise_are_corrected_too():
    dynamics, state = CorrectedFlow(flow(eta=0.0)), start(4, 2, 6, 6)
    stepper = dynamics.stepper(state, integrator=None, dt=0.02, seed=4, first_sample=0)
    assert stepper.name == "rk4" and stepper.block == 1
    assert not torch.equal(stepper.step(state, 0), rollout(state, dynamics.flow, 1, dt=0.02).state)


def test_the_score_is_asked_in_the_precision_of_the_flow():
    seen = []

    class Watched(LinearDenoiser):
        def output(self, state):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().output(state)

    inner = SkewFlow(Watched(), skew.rotation(0.7), autocast=torch.bfloat16)
    rollout(start(2, 2, 4, 4), CorrectedFlow(inner, 2), 1, dt=0.02)
    assert len(seen) == 4 and all(seen)  # the look at the start, the flow, two corrections


def test_a_gaussian_field_keeps_the_power_of_every_wave_number():
    known = GaussianField.radial(lambda wave: 8 * (-wave.square()).exp(), [[1.0], [0.5]], (16, 16))
    state = math.sqrt(0.9) * known.sample(400, seed=1) + math.sqrt(0.1) * start(400, 2, 16, 16)
    dynamics = CorrectedFlow(SkewFlow(known.score(0.9), skew.rotation(0.7), 0.1))
    end = rollout(state, dynamics, 60, dt=0.005, seed=2).state
    exact = 0.9 * known.spectrum.real.diagonal().permute(2, 0, 1) + 0.1
    before, after = (torch.fft.rfft2(part.double()).abs().square().mean(0) / 256 / exact for part in (state, end))
    assert after.log().abs().mean() < 1.2 * before.log().abs().mean()


@pytest.mark.parametrize(
    "options, words",
    [
        ({"corrections": -1}, r"expected corrections in \[0, 65534\], got -1"),
        ({"eta": 0.0}, "expected eta finite and above 0, got 0.0: corrections=0 makes none"),
        ({"eta": math.nan}, "expected eta finite and above 0"),
        ({"dt": 0.0}, "expected dt finite and above 0, or None for that of the flow, got 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        CorrectedFlow(flow(), **options)


def test_a_score_without_noise_is_refused():
    inner = SkewFlow(Gaussian(torch.zeros(2), 1.0), skew.rotation(1.0))
    with pytest.raises(ValueError, match=r"score of noised data.* got Gaussian without alpha: take a SkewFlow"):
        CorrectedFlow(inner)


def test_the_most_corrections_have_counters_below_the_end():
    dynamics = CorrectedFlow(flow(), 65534)
    stepper = dynamics.stepper(start(1, 2), integrator=None, dt=0.02, seed=0, first_sample=0)
    assert stepper._counters[-1] + 2**40 - 1 < 2**56
