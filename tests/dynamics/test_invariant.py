import math

import pytest
import torch

from eqflow.dynamics import InvariantFlow, rollout, skew
from eqflow.dynamics.polynomials import monomials
from eqflow.score import KernelScore

ALPHA = 0.9


def normals(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def explicit_score(points):
    """The kernel score as autograd can differentiate it."""

    def score(state):
        square = (state[:, None] - math.sqrt(ALPHA) * points).square().sum(-1)
        weights = (-square / (2 * (1 - ALPHA))).softmax(1)
        return (math.sqrt(ALPHA) * weights @ points - state) / (1 - ALPHA)

    return score


@pytest.mark.parametrize("dimension, degree", [(2, 0), (2, 4), (3, 0), (3, 3), (4, 2)])
def test_the_residual_vanishes_everywhere(dimension, degree):
    points, exponents = normals(30, dimension), monomials(dimension, degree)
    coefficients = normals(dimension * (dimension - 1) // 2, len(exponents), seed=1)
    score = explicit_score(points)
    flow = InvariantFlow(score, exponents, coefficients)
    state = KernelScore(points, ALPHA).sample(50, seed=2)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: flow.velocity(x[None])[0]))(state)
    velocity = flow.velocity(state)
    residual = jacobian.diagonal(dim1=1, dim2=2).sum(1) + (velocity * score(state)).sum(1)
    assert residual.square().mean() < 1e-20 * velocity.square().mean().clamp_min(1)
    assert (velocity * score(state)).sum(1).square().mean() > (0 if degree == 0 else 0.01)


def test_a_constant_matrix_is_the_skew_flow():
    points = normals(40, 3)
    score = KernelScore(points, ALPHA)
    flow = InvariantFlow(score, monomials(3, 0), torch.tensor([[-3.0], [2.0], [-1.0]]))
    expected = skew.convolve(skew.from_angles([1.0, 2.0, 3.0]).double(), score(points))
    torch.testing.assert_close(flow.velocity(points), expected)


def test_it_is_followed_by_a_rollout():
    flow = InvariantFlow(lambda x: -x, monomials(2, 0), torch.ones(1, 1))
    start = normals(6, 2)
    end = rollout(start, flow, 100, dt=0.02).state
    torch.testing.assert_close(end.norm(dim=1), start.norm(dim=1), rtol=1e-8, atol=0)


def test_wrong_coefficients_are_refused():
    with pytest.raises(ValueError, match=r"expected coefficients \[3, 4\].*got \[1, 4\]"):
        InvariantFlow(lambda x: -x, monomials(3, 1), torch.zeros(1, 4))
