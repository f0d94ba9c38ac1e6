"""The Wiener filter and the trivial denoiser where their errors are known."""

import pytest
import torch

from eqflow import ops
from eqflow.metrics import GaussianField, Trivial, Wiener, denoising_error
from eqflow.score import PatternDenoiser, PatternShape

MIXING = [[1.0, 0.3], [-0.4, 0.8]]
SIGMA = 0.5


def field(size):
    """A stripe pattern of six pixels and a cloud, mixed into two channels."""

    def profile(wave):
        return torch.stack([8 * (-30 * (wave - 1).square()).exp(), 6 / (1 + 4 * wave.square()) ** 2])

    return GaussianField.radial(profile, MIXING, size, mean=[0.5, -0.7])


@pytest.mark.parametrize("size", [(16, 16), (15, 9), (8, 21)])
def test_the_fitted_filter_reaches_the_theory(size):
    known = field(size)
    wiener = Wiener.fit(known.sample(3000, seed=1), SIGMA)
    torch.testing.assert_close(wiener.error, known.error(SIGMA), rtol=0.02, atol=0)
    found = denoising_error(wiener, known.sample(500, seed=1, first_sample=3000), SIGMA)
    assert (found.error > known.error(SIGMA) - 4 * found.standard_error).all()
    assert (found.error < 1.01 * known.error(SIGMA) + 4 * found.standard_error).all()


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (8, 7)])
@pytest.mark.parametrize("channels", [1, 3])
def test_no_linear_filter_is_better_on_its_own_fields(size, channels):
    """The foretold error is that of the fields it was fitted to, averaged over noise; any other filter has more."""
    clean = ops.normal(5, channels * size[0] * size[1], seed=2).view(5, channels, *size).double().cumsum(3)
    wiener = Wiener.fit(clean, SIGMA)

    def expected(response):  # bias and noise of a filter, from its action on every unit of noise
        other = Wiener.fit(clean, SIGMA)
        vars(other)["response"] = response
        bias = (other(clean) - clean).square().mean((0, 2, 3))
        units = torch.eye(channels * size[0] * size[1], dtype=torch.float64).view(-1, channels, *size)
        through = other(units + other.mean.view(-1, 1, 1)) - other.mean.view(-1, 1, 1)
        return bias + SIGMA**2 * through.square().sum(0).mean((1, 2))

    best = expected(wiener.response)
    torch.testing.assert_close(best, wiener.error)
    symmetric = Wiener.fit(clean.flip(0) + clean.roll(1, 3), SIGMA).response - wiener.response
    for away in (0.05 * symmetric, -0.05 * symmetric, 0.01 * wiener.response):
        assert (expected(wiener.response + away) > best).all()


def test_channels_help_one_another():
    known = field((16, 16))
    together = known.error(SIGMA)
    for channel in (0, 1):
        alone = Wiener(known.mean[channel, None], known.spectrum[channel, channel][None, None], 16, SIGMA)
        assert together[channel] < 0.95 * alone.error


def test_the_trivial_denoiser_has_its_error_and_is_an_untrained_network():
    known = field((16, 16))
    clean = known.sample(500, seed=3)
    trivial = Trivial.fit(clean, SIGMA)
    found = denoising_error(trivial, clean, SIGMA)
    assert ((found.error - trivial.error).abs() < 4 * found.standard_error).all()
    assert (trivial.error > 2 * known.error(SIGMA)).all()
    shape = PatternShape(width=4, dilations=(1,), first=3, alpha=1 / (1 + SIGMA**2))
    network = PatternDenoiser(shape, mean=trivial.mean, std=trivial.variance.sqrt())
    torch.testing.assert_close(network(clean[:4]).detach(), trivial(clean[:4]), rtol=1e-5, atol=1e-5)


def test_wrong_fields_are_refused():
    wiener = Wiener.fit(torch.ones(3, 2, 8, 8), SIGMA)
    with pytest.raises(ValueError, match=r"expected fields \[batch, 2, 8, 8\] as this filter"):
        wiener(torch.zeros(3, 2, 8, 9))
    with pytest.raises(ValueError, match="expected sigma above 0"):
        Wiener.fit(torch.ones(3, 2, 8, 8), 0.0)
    with pytest.raises(ValueError, match=r"expected fields \[fields"):
        Wiener.fit(torch.ones(2, 8, 8), SIGMA)
