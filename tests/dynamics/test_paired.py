import dataclasses
import math

import pytest
import torch

from eqflow import ops
from eqflow.dynamics import StepWarning, paired_rollout, skew
from eqflow.metrics import GaussianField, fidelity
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


def test_after_one_exact_step_the_noise_has_cancelled():
    """r = x - sqrt(alpha) D turns by gamma h, h = dt / (1 - alpha), decays, and gets the same noise with each sign."""
    score, dt, eta = White(), 0.02, 0.1
    start, h = score.noised(clean(), seed=3), dt / (1 - ALPHA)
    found = paired(times=(dt,), dt=dt, eta=eta, integrator="exact-ou")
    residual = start - math.sqrt(ALPHA) * score.output(start)
    turned = torch.stack([residual[:, 1], -residual[:, 0]], 1)
    expected = math.exp(-eta * h) * math.sin(GAMMA * h) * score.output(turned)
    torch.testing.assert_close(found.odd[0], expected, rtol=1e-4, atol=1e-6)
    # What the even part has besides is the noise, and all of it.
    kept = math.sqrt(ALPHA) * score.output(start) + math.exp(-eta * h) * math.cos(GAMMA * h) * residual
    noise = found.even[0] - score.output(kept - start)
    deviation = math.sqrt((1 - ALPHA) * (1 - math.exp(-2 * eta * h)))
    assert float(noise.std()) == pytest.approx(float(score.output(torch.tensor(deviation))), rel=0.05)


def test_plus_and_minus_are_mirror_images_where_the_channels_are_alike():
    class Still(White):
        def noised(self, clean, *, seed, first_sample=0):
            return clean

    options = {"kernel": skew.rotation(GAMMA), "eta": 0.0, "dt": 0.01, "times": (0.1, 0.3), "signs": (1, -1)}
    there = paired_rollout(clean(), Still(), **options)
    swapped = paired_rollout(clean().flip(1), Still(), **options)
    for sign in (1, -1):
        torch.testing.assert_close(there.displacement[sign], swapped.displacement[-sign].flip(2))


def test_a_score_that_predicts_itself_gives_the_same():
    field = GaussianField.radial(lambda q: torch.full_like(q, VARIANCE), torch.eye(2), (16, 16))
    one, other = paired(), paired(field.score(ALPHA))
    for sign in (1, -1, 0):
        torch.testing.assert_close(one.displacement[sign], other.displacement[sign], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one.start, other.start, rtol=1e-4, atol=1e-5)


def test_the_odd_part_goes_the_way_of_the_kernel_that_was_given():
    """K s = -K x / total, so K = -J turns (u, v) to (-v, u)."""
    fields = clean()
    truth = torch.stack([-fields[:, 1], fields[:, 0]], 1)[None]
    for gamma, sign in ((-GAMMA, 1), (GAMMA, -1)):
        found = paired_rollout(fields, White(), skew.rotation(gamma), times=(0.5,), dt=0.02, seed=3)
        cosines = fidelity(found.displacement[1], found.displacement[-1], truth, none=found.displacement[0])
        assert sign * float(cosines.odd.mean) > 0.5 and float(cosines.odd.agreeing) == 1
        for null in (cosines.none, cosines.other_sample):
            assert abs(float(null.mean)) < 4 * float(null.error)


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


def test_the_residual_noise_of_a_known_field_and_the_step_that_spoils_it():
    """rho = 1 - MSE / sigma^2, with the mean square error of the exact denoiser."""
    field, alpha = GaussianField.radial(lambda q: 4 * (-4 * q.square()).exp(), torch.eye(2), (16, 16)), 0.94478
    fields, score = field.sample(48, seed=4), field.score(alpha)
    variance = (1 - alpha) / alpha
    exact = 1 - float(field.error(math.sqrt(variance)).mean()) / variance
    options = {"kernel": skew.rotation(GAMMA), "dt": 0.01, "times": (1.0, 2.0), "signs": (1,), "batch": 48}
    found = paired_rollout(fields, score, **options, integrator="exact-ou").residual[1][-1]
    assert abs(float(found.mean()) - exact) < 4 * float(found.std()) / math.sqrt(48)
    with pytest.warns(StepWarning, match="euler-maruyama makes the variance of the stiffest directions 1.86 times"):
        found = paired_rollout(fields, score, **options, integrator="euler-maruyama").residual[1][-1]
    assert float(found.mean()) > 1.4 * exact
    with pytest.raises(ValueError, match=r"expected dt below 0\.0217"):
        paired_rollout(fields, score, **{**options, "dt": 0.025, "integrator": "euler-maruyama"})


def test_progress_counts_sample_steps():
    seen = []
    paired(batch=4, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (180, 180) and [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("times", [(), (0.015,), (0.1, 0.02), (0.0,)])
def test_times_that_no_step_reaches_are_refused(times):
    with pytest.raises(ValueError, match=r"expected (times that are multiples of dt=0.01|rising times)"):
        paired(times=times)


WRONG = {
    "signs": ({"signs": ()}, "expected signs among 1, -1 and 0"),
    "sign": ({"signs": (1, 2)}, r"each once, got \[1, 2\]"),
    "twice": ({"signs": (1, 1)}, "each once"),
    "batch": ({"batch": 0}, "expected batch from 1 up"),
    "score": ({"score": White(alpha=None)}, "expected a score of noised fields, which has alpha"),
}


@pytest.mark.parametrize("changes, expected", WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_refused(changes, expected):
    with pytest.raises(ValueError, match=expected):
        paired(**changes)
    with pytest.raises(ValueError, match=r"got \[0, 2, 16, 16\]"):
        paired_rollout(clean()[:0], White(), skew.rotation(GAMMA))
