"""Scores held to the large scale of their data: the gradient they say they are, and what it holds."""

import math

import pytest
import torch

from eqflow import ops
from eqflow.data.checkpoint import Checkpoint
from eqflow.dynamics import AnchoredScore, CorrectedFlow, ResumeError, SkewFlow, StepWarning, rollout, skew
from eqflow.metrics import GaussianField, radial_spectrum
from eqflow.score import Gaussian, PatternDenoiser, PatternShape

ALPHA = 0.9


def normals(*shape, seed=3):
    return ops.normal(shape[0], math.prod(shape[1:]), seed=seed).view(shape)


class OfField:
    """The exact score of a Gaussian field, with noised states."""

    def __init__(self, field, alpha=ALPHA):
        self.score, self.alpha = field.score(alpha), alpha
        self.state_scale, self.output_scale = self.score.state_scale, self.score.output_scale
        self.output = self.score.output

    def noised(self, clean, *, seed, first_sample=0):
        return math.sqrt(self.alpha) * clean + math.sqrt(1 - self.alpha) * normals(*clean.shape, seed=seed)

    def __call__(self, state):
        return self.score(state)


def field(size=(24, 20)):
    return GaussianField.radial(lambda wave: 30 * (-4 * wave.square()).exp(), [[1.0], [0.5]], size, mean=[0.3, -0.2])


@pytest.fixture(scope="module")
def data():
    return field().sample(256, seed=1)


@pytest.fixture(scope="module")
def anchored(data):
    return AnchoredScore.fit(OfField(field()), data, waves=6)


def potential(anchored, state):
    """The specification: what stands in the docstring of the module, by the spectra of `metrics`."""
    sites = state[0, 0].numel()
    away = state.mean((2, 3)) - math.sqrt(ALPHA) * anchored.mean
    logs = (sites * radial_spectrum(state)[..., : anchored.power.shape[1]]).log()
    square = sites * away.square().sum() / (4 * (1 - ALPHA))
    return (square + ((logs - anchored.power) / anchored.spread).square().sum()) / 2


@pytest.mark.parametrize("size", [(24, 20), (15, 18)], ids=["even", "odd"])
def test_the_force_is_minus_the_gradient_of_its_potential(anchored, size):
    state = normals(3, 2, *size).double().requires_grad_()
    (slope,) = torch.autograd.grad(potential(anchored, state), state)
    torch.testing.assert_close(anchored.force(state.detach()), -slope)
    if size == (24, 20):
        torch.testing.assert_close(anchored(state.detach()), anchored.score(state.detach()) - slope)


def test_the_anchors_are_those_of_noised_data(data, anchored):
    noised = anchored.score.noised(data, seed=0)
    logs = (480 * radial_spectrum(noised)[..., :6]).log()
    torch.testing.assert_close(anchored.power.double(), logs.mean(0), rtol=1e-4, atol=1e-4)
    softest = (8 * (1 - ALPHA) / logs.mean(0).exp()).sqrt()  # half as stiff as the noise
    torch.testing.assert_close(anchored.spread.double(), (logs.std(0) / 2).maximum(softest), rtol=1e-3, atol=1e-4)
    assert (anchored.spread > 0.51 * logs.std(0)).any() and (anchored.spread < 0.51 * logs.std(0)).any()
    torch.testing.assert_close(anchored.mean, data.mean((0, 2, 3)))


def test_a_wrong_score_is_held_to_the_data(data):
    """The score of a field of a quarter of the power and of another mean, anchored to the data, beside it alone."""
    spectrum, mean = 0.25 * field().spectrum, torch.tensor([0.5, -0.1], dtype=torch.float64)  # as the channels mix
    wrong = OfField(GaussianField(mean, spectrum, 20))
    anchored = AnchoredScore.fit(wrong, data, waves=6, sharpness=4.0)
    start, ends = wrong.noised(data[:64], seed=5), []
    for score in (wrong, anchored):
        ends.append(rollout(start, SkewFlow(score, skew.rotation(0.7), 1.0), 400, dt=0.005, seed=2).state)
    powers = [(480 * radial_spectrum(end)[..., :6]).log().mean(0) for end in (start, *ends)]
    gaps = [(power - powers[0]).abs().mean() for power in powers[1:]]
    assert gaps[0] > 0.2 and gaps[1] < 0.3 * gaps[0]
    means = [(end.mean((0, 2, 3)) - math.sqrt(ALPHA) * anchored.mean).abs().max() for end in ends]
    assert means[0] > 0.02 and means[1] < 0.4 * means[0]


def test_wave_numbers_that_are_noise_alone_do_not_grow():
    """Data without long waves, as in a maze, at the noise and the step of rollouts: all their power is the noise's."""
    still = OfField(GaussianField.radial(lambda wave: 1e-4 * torch.ones_like(wave), torch.eye(2), (24, 24)), 0.9448)
    clean = still.score.field.sample(64, seed=1)
    anchored = AnchoredScore.fit(still, clean, waves=6)
    flow = SkewFlow(anchored, skew.rotation(-(0.5**0.5)), 0.1)
    end = rollout(anchored.noised(clean[:8], seed=0), flow, 1000, dt=0.02, seed=3).state
    assert abs(float(end.var()) / (1 - 0.9448) - 1) < 0.1


def test_every_sample_may_keep_a_mean_of_its_own(data, anchored):
    own = data[:4].mean((2, 3)) + torch.tensor([0.0, 0.1, 0.2, -0.1])[:, None] * torch.tensor([1.0, 0.5])
    each = AnchoredScore(anchored.score, own, anchored.power, anchored.spread)
    start = anchored.score.noised(data[:4], seed=5)
    options = {"dt": 0.01, "seed": 2}
    end = rollout(start, SkewFlow(each, skew.rotation(0.7), 0.5), 200, **options).state
    assert (end.mean((2, 3)) - math.sqrt(ALPHA) * own).abs().max() < 0.08


def test_no_power_held_is_the_mean_alone(data):
    alone = AnchoredScore.fit(OfField(field()), data, waves=0)
    state = normals(2, 2, 24, 20)
    expected = (math.sqrt(ALPHA) * alone.mean.view(2, 1, 1) - state.mean((2, 3), keepdim=True)) / (4 * (1 - ALPHA))
    torch.testing.assert_close(alone.force(state), expected.expand_as(state))


def test_parts_of_a_batch_and_a_resumed_rollout_are_the_whole(tmp_path):
    clean = normals(32, 2, 16, 16)
    denoiser = PatternDenoiser(PatternShape(width=4, dilations=(1,), first=3), [0.1, -0.1], [1.0, 1.0])
    anchored = AnchoredScore.fit(denoiser.at(), clean, waves=3)
    flow, options = CorrectedFlow(SkewFlow(anchored, skew.rotation(-0.7))), {"dt": 0.02, "seed": 2}
    start = anchored.noised(clean[:3], seed=1)
    whole = rollout(start, flow, 12, **options).state
    parts = [rollout(start[:1], flow, 12, **options), rollout(start[1:], flow, 12, first_sample=1, **options)]
    torch.testing.assert_close(torch.cat([part.state for part in parts]), whole, rtol=0, atol=1e-5)
    rollout(start, flow, 7, checkpoint=Checkpoint(tmp_path / "run.pt", every=1), **options)
    assert torch.equal(rollout(start, flow, 12, checkpoint=Checkpoint(tmp_path / "run.pt"), **options).state, whole)
    other = AnchoredScore(anchored.score, anchored.mean, anchored.power, 2 * anchored.spread)
    with pytest.raises(ResumeError, match=r"dynamics\.flow\.score\.spread"):
        rollout(start, CorrectedFlow(SkewFlow(other, skew.rotation(-0.7))), 12,
                checkpoint=Checkpoint(tmp_path / "run.pt"), **options)  # fmt: skip


def test_what_does_not_fit_is_refused(data, anchored):
    with pytest.raises(ValueError, match="got Gaussian without alpha"):
        AnchoredScore(Gaussian(torch.zeros(2), 1.0), anchored.mean, anchored.power, anchored.spread)
    with pytest.raises(ValueError, match=r"expected mean \[channels\] or .* got \[3\], \[2, 6\] and \[2, 6\]"):
        AnchoredScore(anchored.score, torch.zeros(3), anchored.power, anchored.spread)
    with pytest.raises(ValueError, match="expected spread above 0"):
        AnchoredScore(anchored.score, anchored.mean, anchored.power, 0 * anchored.spread)
    with pytest.raises(ValueError, match="expected at most 10 wave numbers on a grid 24 x 20, got 11"):
        AnchoredScore.fit(anchored.score, data, waves=11)
    with pytest.raises(ValueError, match="expected sharpness above 0, got 0: waves=0"):
        AnchoredScore.fit(anchored.score, data, sharpness=0)


def test_a_step_that_spoils_the_noise_of_the_score_is_warned_of_with_an_anchor_too():
    score = PatternDenoiser(PatternShape(width=4, dilations=(1,)), [0.3, -0.6], [0.5, 0.2]).at()
    held = AnchoredScore.fit(score, normals(8, 2, 16, 16), waves=2)
    flow = SkewFlow(held, skew.rotation(0.5**0.5), 0.1)
    with pytest.warns(StepWarning, match=r"1.86 times the right"):
        rollout(normals(2, 2, 16, 16), flow, 1, dt=0.01, integrator="euler-maruyama")
