import importlib.util
import warnings

import pytest
import torch
from torch.distributions import AffineTransform
from torch.distributions import IndependentTransform as Independent

from eqflow.dynamics import SkewFlow, rollout, skew
from eqflow.metrics import mmd
from eqflow.score import Density, DensityScore, DensityShape, Mixture, Score
from eqflow.systems import GaussianMixture

DOUBLE = torch.float64


def normals(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def made(dimension=2, components=5, couplings=0, seed=0, dtype=DOUBLE):
    """A density away from its start: all parameters are moved."""
    shape = DensityShape(dimension, components, couplings, (16, 16))
    density = Density(shape, normals(components, dimension, seed=seed, dtype=dtype), 0.5, seed=seed)
    with torch.no_grad():
        for number, parameter in enumerate(density.parameters()):
            parameter += 0.2 * normals(*parameter.shape, seed=100 + number, dtype=dtype)
    return density


def flat(density):
    """The mixture of a density without couplings, made of its parameters by hand."""
    factor = density.root.detach().tril(-1) + density.root.detach().diagonal().exp().diag()
    weights = density.logits.detach().exp()
    return density.centroids.detach(), factor @ factor.T, weights / weights.sum()


@pytest.mark.parametrize("dimension", [1, 3])
def test_without_couplings_it_is_the_mixture(dimension):
    density, state = made(dimension), normals(9, dimension, seed=4)
    means, covariance, weights = flat(density)
    for other in (Mixture(means, covariance, weights), GaussianMixture(means, covariance[None], weights)):
        torch.testing.assert_close(density.log_density(state), other.log_density(state), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(density.score(state), other(state), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(density.divergence(state), other.divergence(state), rtol=1e-10, atol=1e-10)
    assert torch.equal(density.energy(state), -density.log_density(state))
    assert torch.equal(density.sample(20, seed=3), Mixture(means, covariance, weights).sample(20, seed=3))


def test_it_begins_as_the_mixture_exactly():
    centroids, state = normals(7, 3), normals(20, 3, seed=1)
    plain = Density(DensityShape(3, 7), centroids, 0.4)
    coupled = Density(DensityShape(3, 7, couplings=4), centroids, 0.4, seed=5)
    assert torch.equal(coupled(state), state) and torch.equal(coupled.log_density(state), plain.log_density(state))


@pytest.mark.parametrize(("dtype", "most"), [(DOUBLE, 1e-13), (torch.float32, 1e-5)])
def test_there_and_back(dtype, most):
    density, latent = made(3, couplings=4, dtype=dtype), normals(200, 3, seed=1, dtype=dtype)
    points = density(latent)
    assert (points - latent).abs().max() > 0.1
    back, log_det = density.inverse(points)
    assert (back - latent).abs().max() < most
    jacobian = torch.stack([torch.autograd.functional.jacobian(density, row[None])[0, :, 0] for row in latent[:5]])
    torch.testing.assert_close(log_det[:5], -torch.linalg.slogdet(jacobian)[1], rtol=1e3 * most, atol=1e3 * most)


@pytest.mark.parametrize("couplings", [0, 2, 3])
def test_score_and_divergence_are_derivatives_of_the_log_density(couplings):
    density, state = made(3, couplings=couplings), normals(6, 3, seed=2)
    local = density.local(state)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)
        hessian = torch.func.vmap(torch.func.hessian(lambda row: density.log_density(row[None])[0]))(state)
        gradient = torch.func.vmap(torch.func.grad(lambda row: density.log_density(row[None])[0]))(state)
    torch.testing.assert_close(local.log_density, density.log_density(state), rtol=1e-12, atol=1e-12)
    for score in (local.score, density.score(state), density.at()(state)):
        torch.testing.assert_close(score, gradient, rtol=1e-9, atol=1e-9)
    trace = hessian.diagonal(dim1=1, dim2=2).sum(1)
    for divergence in (local.divergence, density.divergence(state), density.at().divergence(state)):
        torch.testing.assert_close(divergence, trace, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("couplings", [0, 2])
def test_derivatives_in_the_parameters(couplings):
    density, state = made(2, 3, couplings), normals(5, 2, seed=2)

    def loss():
        local = density.local(state)
        return (local.log_density.exp() * (local.score.square().sum(1) + local.divergence).square()).sum()

    gradients = torch.autograd.grad(loss(), list(density.parameters()))
    for parameter, gradient in zip(density.parameters(), gradients, strict=True):
        index, step = int(gradient.abs().argmax()), 1e-5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.view(-1)[index] += sign * step
                values.append(float(loss()))
                parameter.view(-1)[index] -= sign * step
        assert float(gradient.view(-1)[index]) == pytest.approx(
            (values[0] - values[1]) / (2 * step), rel=1e-5, abs=1e-7
        )


@pytest.mark.parametrize("couplings", [0, 2, 4])
def test_the_mass_is_one(couplings):
    density = made(2, couplings=couplings)
    axis = torch.linspace(-9, 9, 241, dtype=DOUBLE)
    with torch.no_grad():
        mass = density.log_density(torch.cartesian_prod(axis, axis)).exp().sum() * float(axis[1] - axis[0]) ** 2
    assert float(mass) == pytest.approx(1, abs=1e-5)


def test_samples_have_the_density():
    density = made(2, couplings=2)
    points = density.sample(20_000, seed=1)
    score = density.score(points)
    products = points[:, :, None] * score[:, None]  # Stein: E[s] = 0, E[x s] = -1
    assert (score.mean(0).abs() < 5 * score.std(0) / 20_000**0.5).all()
    assert ((products.mean(0) + torch.eye(2)).abs() < 5 * products.std(0) / 20_000**0.5).all()
    parts = [density.sample(count, seed=1, first_sample=first) for count, first in ((30, 0), (70, 30))]
    torch.testing.assert_close(torch.cat(parts), points[:100], rtol=1e-12, atol=1e-12)
    assert not points.requires_grad


def test_under_noise():
    density, alpha = made(2), 0.7
    means, covariance, weights = flat(density)
    noised = density.at(alpha)
    assert isinstance(noised, Mixture) and isinstance(noised, Score)
    expected = Mixture(alpha**0.5 * means, alpha * covariance + (1 - alpha) * torch.eye(2, dtype=DOUBLE), weights)
    state = normals(5, 2)
    torch.testing.assert_close(noised(state), expected(state), rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="expected alpha=1 for a density with couplings"):
        made(couplings=2).at(0.9)


@pytest.mark.parametrize("couplings", [0, 2])
def test_dynamics_keep_the_density(couplings):
    density = made(2, couplings=couplings, dtype=torch.float32)
    score = density.at()
    assert isinstance(score, Score) and isinstance(score, DensityScore if couplings else Mixture)
    start, fresh = density.sample(1500, seed=1), density.sample(1500, seed=2)
    flow = SkewFlow(score, skew.rotation(1.0), 0.5)
    end = rollout(start, flow, 60, dt=0.02, seed=3).state
    assert (end - start).norm(dim=1).mean() > 0.5
    assert mmd(end, fresh).root < 0.06 < mmd(1.3 * end, fresh).root


def test_a_score_is_of_one_precision():
    score = made(couplings=2).at()
    with pytest.raises(TypeError, match=r"expected a torch\.float64 state.*use score\.to"):
        score(torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"expected a state \[batch, 2\], got \[3, 3\]"):
        score(torch.zeros(3, 3, dtype=DOUBLE))
    lower = score.to(torch.float32)
    state = normals(4, 2)
    torch.testing.assert_close(lower(state.float()), score(state).float(), rtol=1e-4, atol=1e-4)
    assert not lower(state.float()).requires_grad and lower(state.float().requires_grad_()).requires_grad


def test_the_modern_hopfield_energy_is_a_special_case():
    """Sigma = 1 / beta and weights as exp(beta |Xi|^2 / 2): E = |xi|^2 / 2 - log sum exp(beta Xi.xi) / beta + const."""
    beta, patterns, state = 2.5, normals(6, 3), normals(8, 3, seed=1)
    density = Density(DensityShape(3, 6), patterns, beta**-0.5)
    with torch.no_grad():
        density.logits.copy_(beta / 2 * patterns.square().sum(1))
        found = density.energy(state) / beta
    hopfield = state.square().sum(1) / 2 - (beta * state @ patterns.T).logsumexp(1) / beta
    torch.testing.assert_close(found - hopfield, (found - hopfield)[:1].expand(8), rtol=0, atol=1e-12)


def test_against_zuko():
    """Mixture, couplings and their order as an independent library composes them, away from the start."""
    if not importlib.util.find_spec("zuko"):
        pytest.skip("zuko, which composes such densities independently, is not installed: pip install 'eqflow[oracle]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from zuko.distributions import Mixture as Components
        from zuko.distributions import NormalizingFlow
        from zuko.transforms import ComposedTransform, CouplingTransform
    density, state = made(3, 6, couplings=3), normals(40, 3, seed=5)

    def transform(coupling):
        mask = coupling.kept.bool()

        def moved(kept):
            whole = torch.zeros(*kept.shape[:-1], 3, dtype=DOUBLE)
            whole[..., mask] = kept
            scale, shift = (part[..., ~mask] for part in coupling._parts(whole))
            return Independent(AffineTransform(-shift * (-scale).exp(), (-scale).exp()), 1)

        return CouplingTransform(moved, mask)

    factor = density.root.tril(-1) + density.root.diagonal().exp().diag()
    normal = torch.distributions.MultivariateNormal(density.centroids, scale_tril=factor)
    chain = ComposedTransform(*[transform(coupling) for coupling in reversed(density.couplings)])
    other = NormalizingFlow(chain, Components(normal, density.logits))
    torch.testing.assert_close(density.log_density(state), other.log_prob(state), rtol=1e-10, atol=1e-10)
    latent, _ = density.inverse(state)
    torch.testing.assert_close(latent, chain(state), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DensityShape(0), "expected dimension from 1 up, got 0"),
        (lambda: DensityShape(2, 0), "expected components from 1 up, got 0"),
        (lambda: DensityShape(2, 1, 1, ()), "expected hidden widths from 1 up"),
        (lambda: DensityShape(1, couplings=2), "expected couplings=0 for one coordinate"),
        (lambda: Density(DensityShape(2, 3), torch.zeros(2, 2), 1.0), r"expected centroids \[3, 2\], got \[2, 2\]"),
        (lambda: Density(DensityShape(2, 1), torch.zeros(1, 2), 0.0), "positive deviations"),
        (lambda: made().at(0.0), r"expected alpha in \(0, 1\]"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
