"""The error of a denoiser: its noise, its standard error, and the report beside the Wiener filter."""

import math

import pytest
import torch

from eqflow.metrics import GaussianField, Trivial, Wiener, denoising_error, denoising_report
from eqflow.score import PatternDenoiser, PatternShape

MIXING = [[1.0, 0.3], [-0.4, 0.8]]
SIGMA = 0.5


def field(size):
    """A stripe pattern of six pixels and a cloud, mixed into two channels."""

    def profile(wave):
        return torch.stack([8 * (-30 * (wave - 1).square()).exp(), 6 / (1 + 4 * wave.square()) ** 2])

    return GaussianField.radial(profile, MIXING, size, mean=[0.5, -0.7])


def test_a_report_compares_on_one_noise():
    known = field((16, 16))
    train, clean = known.sample(20, seed=4), known.sample(400, seed=5)
    exact = denoising_report(known.denoiser(SIGMA), clean, SIGMA, train=train)
    # On the same noise the exact denoiser beats the fitted filter in sight of the ratio's own error bar alone.
    assert (exact.ratio < 1).all() and (exact.ratio > 0.9).all()
    assert (exact.ratio_standard_error < 0.3 * exact.standard_error / exact.error).all()
    assert ((1 - exact.ratio) > 3 * exact.ratio_standard_error).all()
    torch.testing.assert_close(exact.below_wiener, 100 - 100 * exact.error / exact.wiener)
    for name, denoiser in (("wiener", Wiener.fit(train, SIGMA)), ("trivial", Trivial.fit(train, SIGMA))):
        alone = denoising_error(denoiser, clean, SIGMA)
        torch.testing.assert_close(getattr(exact, name), alone.error)
        torch.testing.assert_close(getattr(exact, f"{name}_standard_error"), alone.standard_error)


def test_errors_are_the_spread_between_fields():
    clean = torch.zeros(300, 1, 6, 6)
    found = denoising_error(lambda noised: noised, clean, 2.0)
    # A mean of 36 squares of variance 2 sigma^4.
    assert float(found.standard_error) == pytest.approx(math.sqrt(2 * 16 / 36 / 300), rel=0.15)
    assert abs(found.error - 4) < 4 * found.standard_error


def test_the_noise_is_that_of_the_scores_and_does_not_depend_on_the_batch():
    clean = field((8, 8)).sample(7, seed=6)
    denoiser = PatternDenoiser(PatternShape(), mean=[0.0, 0.0], std=[1.0, 1.0])
    seen = []
    denoising_error(
        lambda noised: seen.append(noised) or noised, clean, denoiser.sigma, seed=9, first_sample=5, batch=3
    )
    noised = denoiser.at().noised(clean, seed=9, first_sample=5) / math.sqrt(denoiser.shape.alpha)
    torch.testing.assert_close(torch.cat(seen), noised)
    whole = denoising_error(denoiser, clean, denoiser.sigma, batch=7)
    for one, other in zip(whole, denoising_error(denoiser, clean, denoiser.sigma, batch=2), strict=True):
        torch.testing.assert_close(one, other)


def test_wrong_fields_are_refused():
    with pytest.raises(ValueError, match="two or more fields"):
        denoising_error(torch.sin, torch.ones(1, 2, 8, 8), SIGMA)
    with pytest.raises(ValueError, match="keeps the shape"):
        denoising_error(lambda noised: noised[:, :1], torch.ones(3, 2, 8, 8), SIGMA)
