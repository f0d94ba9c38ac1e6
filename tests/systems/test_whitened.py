import math

import pytest
import torch

from eqflow.systems.whitened import WhitenedMixture

DOUBLE = torch.float64


def normals(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def triangles(*shape):
    lower = normals(*shape, seed=1).tril(-1)
    return lower + torch.diag_embed(0.5 + normals(*shape[:-1], seed=2).abs())


WHITEN = {"one each": triangles(4, 3, 3), "one for all": triangles(3, 3), "a number": torch.tensor(1.7, dtype=DOUBLE)}


def explicit(means, whiten, log_weights, state):
    """By the formula, with matrices for all components."""
    whiten = whiten.expand(len(means), 3, 3) if whiten.ndim else whiten * torch.eye(3, dtype=DOUBLE).expand(4, 3, 3)
    away = torch.einsum("kij,nkj->nki", whiten, state[:, None] - means)
    log_det = torch.linalg.slogdet(whiten)[1]
    return (log_weights + log_det - 1.5 * math.log(2 * math.pi) - away.square().sum(2) / 2).logsumexp(1)


@pytest.mark.parametrize("kind", WHITEN)
def test_everything_follows_from_the_formula(kind):
    parts = [2 * normals(4, 3), WHITEN[kind].clone(), normals(4, seed=3).log_softmax(0)]
    state = 2 * normals(7, 3, seed=4)
    inputs = [part.requires_grad_() for part in (*parts, state)]
    expected = explicit(*inputs)
    mixture = WhitenedMixture(*inputs[:3])
    log_density, score, divergence = mixture.local(inputs[3])
    torch.testing.assert_close(log_density, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixture.log_density(inputs[3]), expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(expected.sum(), inputs[3], create_graph=True)
    torch.testing.assert_close(score, gradient, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(mixture.score(inputs[3]), gradient, rtol=1e-10, atol=1e-10)
    trace = sum(torch.autograd.grad(gradient[:, c].sum(), inputs[3], create_graph=True)[0][:, c] for c in range(3))
    torch.testing.assert_close(divergence, trace, rtol=1e-9, atol=1e-9)
    # ... and so do the gradients in all that it is made of, by which densities are trained.
    for one, other in zip(
        torch.autograd.grad(divergence.square().mean(), inputs, retain_graph=True),
        torch.autograd.grad(trace.square().mean(), inputs),
        strict=True,
    ):
        other = other.tril() if kind != "a number" and other.shape[-2:] == (3, 3) else other
        one = one.tril() if kind != "a number" and one.shape[-2:] == (3, 3) else one
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", WHITEN)
def test_the_posterior_is_that_of_bayes(kind):
    means, whiten, log_weights = normals(4, 3), WHITEN[kind], normals(4, seed=3).log_softmax(0)
    state = normals(5, 3, seed=4)
    only = torch.eye(4, dtype=DOUBLE).log()
    joint = torch.stack([explicit(means, whiten, only[k], state) for k in range(4)], 1).exp() * log_weights.exp()
    posterior = WhitenedMixture(means, whiten, log_weights).posterior(state)
    torch.testing.assert_close(posterior, joint / joint.sum(1, keepdim=True), rtol=1e-10, atol=1e-12)


def test_pieces_do_not_change_the_numbers(monkeypatch):
    mixture, state = WhitenedMixture(normals(4, 3), WHITEN["one for all"], normals(4).log_softmax(0)), normals(50, 3)
    whole = mixture.local(state)
    monkeypatch.setattr("eqflow.systems.whitened._CHUNK", 30)
    for one, other in zip(mixture.local(state), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


def test_far_states_keep_finite_numbers():
    mixture = WhitenedMixture(torch.zeros(2, 1), torch.tensor(10.0), torch.tensor([0.5, 0.5]).log())
    log_density, score, divergence = mixture.local(torch.tensor([[1e4]]))
    assert log_density.item() == pytest.approx(-5e9, rel=1e-4)
    assert score.item() == pytest.approx(-1e6) and divergence.item() == pytest.approx(-100)
