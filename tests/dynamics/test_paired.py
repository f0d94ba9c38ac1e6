import dataclasses
import math

import pytest
import torch

from eqflow import ops
from eqflow.dynamics import paired_rollout, skew
from eqflow.ops import philox
from eqflow.score.contract import folding

ALPHA, VARIANCE, GAMMA = 0.9, 0.5, 1 / math.sqrt(2)


@dataclasses.dataclass(frozen=True)
class White:
    """The exact score of noised white fields of one variance, by way of their denoiser."""

    alpha: float = ALPHA
    variance: float = VARIANCE
    predicts = "x0"

    @property
    def total(self):
        return self.alpha * self.variance + 1 - self.alpha

    @property
    def state_scale(self):
        return folding("x0", self.alpha).state_scale

    @property
    def output_scale(self):
        return folding("x0", self.alpha).output_scale

    def output(self, state):
        return math.sqrt(self.alpha) * self.variance / self.total * state

    def __call__(self, state):
        return -state / self.total

    def noised(self, clean, *, seed, first_sample=0, step=0):
        noise = ops.normal(
            len(clean), clean[0].numel(), seed=seed, step=step, first_sample=first_sample,
            stream=philox.STREAMS["data-noise"],
        )  # fmt: skip
        return math.sqrt(self.alpha) * clean + math.sqrt(1 - self.alpha) * noise.view_as(clean)


def clean(samples=6, size=16):
    return math.sqrt(VARIANCE) * ops.normal(samples, 2 * size * size, seed=9).view(samples, 2, size, size)


def paired(score=None, **changes):
    options = {"times": (0.02, 0.1), "dt": 0.01, "seed": 3, **changes}
    return paired_rollout(clean(), score or White(), skew.rotation(GAMMA), **options)


def test_the_odd_part_is_the_rotation_of_the_start():
    """Of a linear score dx = (K + eta) s dt turns by gamma t / total; the noise, the same for both signs, cancels."""
    score, time = White(), 0.1
    found = paired(times=(time,), dt=0.001, eta=0.0, integrator="rk4")
    start = score.noised(clean(), seed=3)
    turned = torch.stack([start[:, 1], -start[:, 0]], 1)  # -J x, the direction of K s = -K x / total
    angle = GAMMA * time / score.total
    expected = score.output(math.sin(angle) * turned)
    torch.testing.assert_close(found.odd[0], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.even[0], score.output((math.cos(angle) - 1) * start), rtol=1e-3, atol=1e-5)


def test_without_a_kernel_there_is_no_odd_part():
    found = paired_rollout(clean(), White(), torch.zeros(2, 2, 1, 1), times=(0.1,), dt=0.02, seed=3)
    assert torch.equal(found.displacement[1], found.displacement[-1])
    assert torch.equal(found.displacement[1], found.displacement[0])
    assert not torch.equal(found.displacement[1], torch.zeros_like(found.displacement[1]))


def test_the_split_into_batches_changes_no_bit():
    whole, parts = paired(batch=6), paired(batch=2)
    for sign in (1, -1, 0):
        assert torch.equal(whole.displacement[sign], parts.displacement[sign])
    later = paired_rollout(
        clean()[4:], White(), skew.rotation(GAMMA), times=(0.02, 0.1), dt=0.01, seed=3, first_sample=4
    )
    assert torch.equal(later.displacement[1], whole.displacement[1][:, 4:])


@pytest.mark.parametrize("integrator, low, high", [("exact-ou", 0.95, 1.05), ("euler-maruyama", 1.4, 9.0)])
def test_the_residual_noise_shows_a_wrong_integrator(integrator, low, high):
    """1 - E|D - x_0|^2 / (sigma^2 d) for the true posterior mean; explicit Euler inflates the noise."""
    score = White(alpha=0.94478, variance=0.002)
    options = {"times": (4.0,), "dt": 0.01, "signs": (1,), "integrator": integrator, "batch": 40}
    found = paired_rollout(0.06 * clean(40), score, skew.rotation(GAMMA), **options)
    sigma = (1 - score.alpha) / score.alpha
    exact = 1 - score.variance / (score.variance + sigma)
    assert low < float(found.residual[1].mean()) / exact < high


def test_progress_counts_sample_steps():
    seen = []
    paired(batch=4, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (180, 180) and [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("times", [(), (0.015,), (0.1, 0.02), (0.0,)])
def test_times_that_no_step_reaches_are_refused(times):
    with pytest.raises(ValueError, match=r"expected (times that are multiples of dt=0.01|rising times)"):
        paired(times=times)
