"""Asymmetry of Jacobians and Stein's identity where they are known, and of the denoisers for patterns."""

import math

import pytest
import torch
from torch import nn

from eqflow import ops
from eqflow.metrics import GaussianField, asymmetry, stein_identity
from eqflow.score import PatternDenoiser, PatternShape


def normals(*shape, seed=0):
    return ops.normal(shape[0], math.prod(shape[1:]), seed=seed).view(shape)


def trained(size=0.2, seed=1, **shape):
    """A denoiser whose last layer is not zero, as after training."""
    denoiser = PatternDenoiser(PatternShape(**shape), mean=[0.2, -0.7], std=[0.5, 0.3])
    last = denoiser.network.leave if denoiser.shape.network == "local" else denoiser.network.model.conv_out
    with torch.no_grad():
        for part, parameter in enumerate(last.parameters()):
            parameter.copy_(size * normals(1, parameter.numel(), seed=seed + part).view_as(parameter))
    return denoiser.eval()


@pytest.mark.parametrize("directions", [None, normals(3, 2, 8, 9, seed=5)])
def test_a_stretched_rotation_has_its_asymmetry_along_every_direction(directions):
    found = asymmetry(
        lambda y: 0.9 * y + 0.3 * torch.stack([-y[:, 1], y[:, 0]], 1), normals(3, 2, 8, 9), directions=directions
    )
    assert found.asymmetry == pytest.approx(2 * 0.3 / math.hypot(0.9, 0.3), rel=1e-6) and found.standard_error < 1e-6


def test_a_linear_map_has_the_share_of_its_matrices():
    matrix = normals(72, 72, seed=2).double()
    found = asymmetry(
        lambda y: (y.flatten(1) @ matrix.T).view_as(y), normals(40, 2, 6, 6).double(), probes=16, batch=16
    )
    share = float((matrix - matrix.T).norm() / matrix.norm())
    assert abs(found.asymmetry - share) < 4 * found.standard_error and 0 < found.standard_error < 0.02


def test_the_direction_decides():
    def shear(y):  # J = [[1, 1], [0, 1]]: J r = (1, 0), (J - J^T) r = (0, -1) for r = (1, 0)
        return torch.stack([y[:, 0] + y[:, 1], y[:, 1]], 1)

    along = torch.zeros(2, 2, 4, 4)
    along[:, 0] = 1
    assert asymmetry(shear, torch.zeros(2, 2, 4, 4), directions=along).asymmetry == pytest.approx(1)
    assert asymmetry(shear, torch.zeros(2, 2, 4, 4), directions=along.flip(1)).asymmetry == pytest.approx(0.5**0.5)


def test_posterior_means_are_gradients():
    def exact(y):  # of a quarter of points at 0, 1, 2 and 3 each, pixel by pixel
        places = torch.arange(4.0, dtype=y.dtype)
        return ((-(y[..., None] - places).square() / 2).softmax(-1) * places).sum(-1)

    assert asymmetry(exact, normals(2, 1, 8, 8).double()).asymmetry < 1e-14
    field = GaussianField.radial(lambda wave: 30 * (-4 * wave.square()).exp(), [[1.0], [0.5]], (12, 9))
    assert asymmetry(field.denoiser(0.4), normals(2, 2, 12, 9).double()).asymmetry < 1e-12


@pytest.mark.parametrize("size", [0.0, 0.05, 0.5])
def test_the_conservative_denoiser_is_a_gradient_in_float32(size):
    noised = normals(3, 2, 33, 20, seed=3)
    found = asymmetry(trained(size, conservative=True), noised, probes=2)
    assert found.asymmetry < 1e-5
    if size:
        assert asymmetry(trained(size), noised, probes=2).asymmetry > 100 * found.asymmetry + 0.01


def test_central_differences_find_the_same():
    denoiser, noised, chosen = (
        trained(0.3).double(),
        normals(2, 2, 16, 16).double(),
        normals(2, 2, 16, 16, seed=7).double(),
    )
    step = 1e-2 * denoiser.sigma
    # The preconditioner's constants are float64 here; the network says float32 only for times.
    with torch.no_grad():
        forward = (denoiser(noised + step * chosen) - denoiser(noised - step * chosen)) / (2 * step)
    inside = noised.clone().requires_grad_()
    (backward,) = torch.autograd.grad(denoiser(inside), inside, chosen)
    expected = float((forward - backward).norm() / forward.norm())
    assert asymmetry(denoiser, noised, directions=chosen).asymmetry == pytest.approx(expected, rel=1e-4)


def test_the_unet_has_an_asymmetry_too():
    pytest.importorskip("diffusers", reason="the network 'unet' needs diffusers")
    found = asymmetry(trained(0.1, network="unet"), normals(2, 2, 16, 16), probes=1)
    assert 0.001 < found.asymmetry < 2


def test_stein_sees_every_wave_number_alone():
    x = normals(300, 2, 15, 12)

    def lame(fields):  # the score of white noise, without waves of the number 3 in channel 1
        waves = torch.fft.fft2(fields.double())
        rows, columns = torch.fft.fftfreq(15), torch.fft.fftfreq(12)
        ring = (torch.hypot(rows[:, None], columns) * 12).round() == 3
        waves[:, 1, ring] = 0
        return -torch.fft.ifft2(waves).real

    exact, found = stein_identity(lambda fields: -fields, x), stein_identity(lame, x)
    assert exact.worst < 4 and exact.spectrum.shape == (2, 7)
    torch.testing.assert_close(exact.product, -x.double().square().mean(), rtol=1e-3, atol=0)
    assert found.spectrum[1, 3].abs() < 1e-12
    torch.testing.assert_close(found.spectrum[0], exact.spectrum[0])
    others = [wave for wave in range(7) if wave != 3]
    torch.testing.assert_close(found.spectrum[1, others], exact.spectrum[1, others])


def test_stein_does_not_mind_a_mean():
    x = normals(50, 1, 8, 8).double() + 100
    about, plain = (
        stein_identity(score, states) for score, states in ((lambda x: 100 - x, x), (lambda x: -x, x - 100))
    )
    for one, other in zip(about, plain, strict=True):
        torch.testing.assert_close(one, other)
    assert about.worst < 4


def test_stein_cannot_tell_the_score_of_the_gaussian_twin():
    alpha, cloud = 0.9, GaussianField.radial(lambda wave: 60 * (-8 * wave.square()).exp(), [[1.0]], (16, 12))
    clean = cloud.sample(400, seed=6).sign()
    states = math.sqrt(alpha) * clean + math.sqrt(1 - alpha) * normals(400, 1, 16, 12, seed=8)
    assert stein_identity(GaussianField.fit(clean).score(alpha), states).worst < 4


def test_the_error_of_stein_is_the_spread_between_repeats():
    values = [stein_identity(lambda x: -x, normals(20, 1, 8, 8, seed=seed)) for seed in range(300)]
    for value, error in (("product", "product_error"), ("spectrum", "spectrum_error")):
        spread = torch.stack([getattr(found, value) for found in values]).std(0)
        stated = torch.stack([getattr(found, error) for found in values]).mean(0)
        torch.testing.assert_close(stated, spread, rtol=0.2, atol=0)
    mean = torch.stack([found.spectrum[0] for found in values])
    assert ((mean.mean(0) + 1).abs() < 4 * mean.std(0) / math.sqrt(300)).all()  # no bias, at wave number 0 either


def test_wrong_arguments_are_refused():
    fields = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match="two or more fields"):
        asymmetry(nn.Identity(), fields[:1])
    with pytest.raises(ValueError, match="without a derivative"):
        asymmetry(torch.zeros_like, fields)
    with pytest.raises(ValueError, match="directions like the fields"):
        asymmetry(nn.Identity(), fields, directions=fields[:1])
    with pytest.raises(ValueError, match="two or more fields"):
        stein_identity(nn.Identity(), fields[0])
    with pytest.raises(ValueError, match="expected a score of the shape"):
        stein_identity(lambda x: x[:, :, 1:], fields)
