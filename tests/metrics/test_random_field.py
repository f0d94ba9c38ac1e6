"""Gaussian fields: their samples have the spectrum, their denoiser and score are exact, and so is the local bound."""

import math

import pytest
import torch

from eqflow import ops
from eqflow.metrics import GaussianField, denoising_error, stein_identity

DOUBLE = torch.float64
MIXING = [[1.0, 0.3], [-0.4, 0.8]]


def two_sources(wave):
    """A stripe pattern of six pixels, and a cloud."""
    return torch.stack([8 * (-30 * (wave - 1).square()).exp() + 0.02, 6 / (1 + 4 * wave.square()) ** 2])


def field(size=(24, 20), mean=(0.5, -0.7)):
    return GaussianField.radial(two_sources, MIXING, size, mean=mean)


def shifted(size=(16, 15)):
    """The second channel is the first one 2 rows down and 1 column on, and noise: S(q) is not real."""
    rows, columns = torch.fft.fftfreq(size[0], dtype=DOUBLE)[:, None], torch.fft.rfftfreq(size[1], dtype=DOUBLE)
    power = 30 * (-8 * (2 * math.pi * torch.hypot(rows, columns)).square()).exp() + 0.1
    turn = torch.polar(torch.ones_like(power), -2 * math.pi * (2 * rows + columns))
    mixed = torch.stack([torch.stack([power + 0j, power * turn.conj()]), torch.stack([power * turn, power + 0.5 + 0j])])
    return GaussianField(torch.zeros(2, dtype=DOUBLE), mixed, size[1])


def normals(*shape, seed=3):
    return ops.normal(shape[0], math.prod(shape[1:]), seed=seed).view(shape)


@pytest.mark.parametrize("size", [(24, 20), (15, 9)])
def test_samples_have_the_mean_and_the_covariance(size):
    known = field(size)
    found = GaussianField.fit(known.sample(4000, seed=1))
    torch.testing.assert_close(found.mean, known.mean, rtol=0, atol=0.05)
    inverse = torch.linalg.inv(known.spectrum.permute(2, 3, 0, 1)).permute(2, 3, 0, 1)
    trace = torch.einsum("ijhw,jihw->hw", found.spectrum, inverse)
    assert float((trace / 2 - 1).abs().square().mean()) == pytest.approx(1 / (2 * 4000), rel=0.3)  # as of 4000 fields
    # Pixels a distance apart, without the transform of the spectrum.
    sample = known.sample(4000, seed=2).double() - known.mean.view(-1, 1, 1)
    apart = (sample[:, 0].roll((-2, -1), (1, 2)) * sample[:, 1]).mean((1, 2))
    covariance = torch.fft.irfft2(known.spectrum, s=size)[0, 1, 2, 1]
    assert abs(apart.mean() - covariance) < 4 * apart.std() / math.sqrt(4000)


def test_a_channel_that_is_the_other_one_shifted():
    sample = shifted().sample(4, seed=0).double()
    away = sample[:, 1] - sample[:, 0].roll((2, 1), (1, 2))
    assert away.var() == pytest.approx(0.5, rel=0.1)  # white noise is left


def test_samples_do_not_depend_on_how_they_are_asked_for():
    parts = [field().sample(2, seed=4, first_sample=first) for first in (0, 2)]
    torch.testing.assert_close(torch.cat(parts), field().sample(4, seed=4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", [field, shifted])
def test_the_exact_denoiser_has_the_error_that_theory_foretells(make):
    known, sigma = make(), 0.6
    found = denoising_error(known.denoiser(sigma), known.sample(400, seed=5), sigma)
    assert ((found.error - known.error(sigma)).abs() < 4 * found.standard_error).all()
    assert (found.standard_error < 0.02 * found.error).all()


@pytest.mark.parametrize("make", [field, shifted])
def test_the_denoiser_is_the_conditional_mean_of_all_pixels(make):
    """Against the normal equations of one small grid, written out pixel by pixel."""
    known, sigma = make((4, 5)), 0.6
    height, width = 4, 5
    covariance = torch.fft.irfft2(known.spectrum, s=(height, width))
    rows, columns = (part.flatten() for part in torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij"))
    whole = covariance[:, :, (rows[:, None] - rows) % 4, (columns[:, None] - columns) % 5]
    whole = whole.transpose(1, 2).reshape(40, 40)
    torch.testing.assert_close(whole, whole.T)
    gain = whole @ torch.linalg.inv(whole + sigma**2 * torch.eye(40, dtype=DOUBLE))
    noised = normals(3, 2, 4, 5).double()
    mean = known.mean.view(-1, 1, 1)
    expected = mean + ((noised - mean).flatten(1) @ gain.T).view_as(noised)
    torch.testing.assert_close(known.denoiser(sigma)(noised), expected)
    left = (whole - gain @ whole).diagonal().view(2, 20).mean(1)
    torch.testing.assert_close(known.error(sigma), left)


def test_the_score_is_that_of_the_denoiser_and_the_gradient_of_the_density():
    known, alpha = field(), 0.9
    state = normals(2, 2, 24, 20).double().requires_grad_()
    score = known.score(alpha)
    clean = known.denoiser(math.sqrt((1 - alpha) / alpha))(state / math.sqrt(alpha))
    torch.testing.assert_close(score(state), (math.sqrt(alpha) * clean - state) / (1 - alpha))
    half = 0.5 * ((state - math.sqrt(alpha) * known.mean.view(-1, 1, 1)) * score(state)).sum()  # log density
    torch.testing.assert_close(torch.autograd.grad(half, state)[0], score(state))
    torch.testing.assert_close(score.state_scale * state + score.output_scale * score.output(state), score(state))
    steepest = (score(state + 1e-3) - score(state)) / 1e-3
    assert score.lipschitz == pytest.approx(10) and steepest.abs().max() < 10


@pytest.mark.parametrize("make", [field, shifted])
def test_the_best_local_denoiser_sees_all_at_last(make):
    known, sigma = make((16, 15)), 0.6
    errors = torch.stack([known.best_local_error(sigma, radius) for radius in range(9)])
    assert (errors[1:] <= errors[:-1] * (1 + 1e-12)).all() and (errors[0] > 1.1 * errors[-1]).all()
    torch.testing.assert_close(errors[8], known.error(sigma))  # 17 x 17 pixels hold the grid
    assert (errors >= known.error(sigma) * (1 - 1e-12)).all()


def test_the_best_denoiser_of_one_pixel_in_closed_form():
    known, sigma = field(), 0.6
    variance = torch.fft.irfft2(known.spectrum, s=(24, 20))[..., 0, 0]
    left = variance - variance @ torch.linalg.inv(variance + sigma**2 * torch.eye(2, dtype=DOUBLE)) @ variance
    torch.testing.assert_close(known.best_local_error(sigma, 0), left.diagonal())


def test_the_best_local_error_is_reached_by_least_squares():
    known, sigma = field(), 0.6
    clean = known.sample(300, seed=8)
    noised = clean + sigma * normals(*clean.shape)
    seen = torch.stack([noised.roll((a, b), (2, 3)) for a in (-1, 0, 1) for b in (-1, 0, 1)], 2).flatten(1, 2)
    seen = seen.double().transpose(0, 1).flatten(1)
    seen = torch.cat([seen, torch.ones_like(seen[:1])])
    target = clean.double().transpose(0, 1).flatten(1)
    weights = torch.linalg.solve(seen @ seen.T, seen @ target.T)
    errors = (target - weights.T @ seen).square().mean(1)
    torch.testing.assert_close(errors, known.best_local_error(sigma, 1), rtol=0.02, atol=0)


def test_stein_holds_for_the_exact_score_and_fails_for_one_a_tenth_too_large():
    known, alpha = field(), 0.9
    clean = known.sample(200, seed=9)
    states = math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * normals(*clean.shape)
    score = known.score(alpha)
    exact = stein_identity(score, states)
    assert abs(exact.product + 1) < 3 * exact.product_error and exact.worst < 4
    large = stein_identity(lambda x: 1.1 * score(x), states)
    assert large.product == pytest.approx(1.1 * float(exact.product), rel=1e-6)
    assert abs(large.product + 1) > 10 * large.product_error


def test_spectra_of_no_real_field_are_refused():
    known = field()
    with pytest.raises(ValueError, match=r"expected a spectrum \[2, 2, height, 12\]"):
        GaussianField(known.mean, known.spectrum, 22)
    with pytest.raises(ValueError, match="Hermitian"):
        GaussianField(known.mean, known.spectrum + torch.tensor([[0, 0.1], [0, 0]]).view(2, 2, 1, 1), 20)
    lame = known.spectrum.clone()
    lame[:, :, 3, 0] *= 2
    with pytest.raises(ValueError, match="columns 0 and width / 2"):
        GaussianField(known.mean, lame, 20)
    with pytest.raises(ValueError, match="eigenvalue -"):
        GaussianField.radial(lambda wave: wave - 1, [[1.0]], (8, 8))
    with pytest.raises(ValueError, match="unknowns"):
        GaussianField.radial(torch.ones_like, [[1.0]], (256, 256)).best_local_error(0.3, 60)
    with pytest.raises(ValueError, match="expected alpha"):
        known.score(1.0)
