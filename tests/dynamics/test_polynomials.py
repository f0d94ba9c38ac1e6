import math

import pytest
import torch

from eqflow.dynamics import PolynomialField, rollout
from eqflow.dynamics.polynomials import evaluate, gradients, monomials

DOUBLE = torch.float64


def normals(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def random_field(dimension, degree, seed=1):
    exponents = monomials(dimension, degree)
    return PolynomialField(exponents, normals(dimension, len(exponents), seed=seed))


@pytest.mark.parametrize("dimension, degree", [(1, 4), (2, 9), (3, 5), (8, 2), (2, 0)])
def test_all_monomials_once(dimension, degree):
    exponents = monomials(dimension, degree)
    assert len({tuple(row) for row in exponents.tolist()}) == math.comb(degree + dimension, dimension)
    assert exponents.sum(1).tolist() == sorted(exponents.sum(1).tolist()) and exponents.sum(1).max() == degree
    points = normals(7, dimension)
    torch.testing.assert_close(evaluate(points, exponents), (points[:, None] ** exponents).prod(-1))


@pytest.mark.parametrize("dimension, degree", [(1, 4), (2, 7), (3, 5), (5, 2), (2, 0)])
def test_derivatives_are_those_of_autograd(dimension, degree):
    field, points = random_field(dimension, degree), normals(6, dimension)
    points[0] = 0  # where a power of 0 must not become NaN
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: field.velocity(x[None])[0]))(points)
    torch.testing.assert_close(field.jacobian(points), jacobian, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        field.divergence(points), jacobian.diagonal(dim1=1, dim2=2).sum(1), rtol=1e-12, atol=1e-12
    )
    assert gradients(points, field.exponents).shape == (6, dimension, len(field.exponents))


def test_a_field_is_followed_by_a_rollout_and_comes_back_in_reverse():
    turn = PolynomialField(torch.eye(2, dtype=torch.int64), torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=DOUBLE))
    start = normals(5, 2)
    there = rollout(start, turn, 157, dt=0.01).state
    angle = torch.tensor(1.57, dtype=DOUBLE)
    matrix = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    torch.testing.assert_close(there, start @ matrix.T, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(rollout(there, turn.reversed(), 157, dt=0.01).state, start, rtol=1e-8, atol=1e-8)


def test_fields_are_plain_tensors_when_saved():
    field, points = random_field(3, 3), normals(4, 3)
    assert torch.equal(PolynomialField(**field.state_dict()).velocity(points), field.velocity(points))
    assert field.velocity(points.float()).dtype == torch.float32


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match=r"exponents \[terms, dimension\].*got \[6, 2\] and \[6, 2\]"):
        PolynomialField(monomials(2, 2), torch.zeros(6, 2))
    with pytest.raises(ValueError, match="dimension from 1 up and degree from 0 up"):
        monomials(0, 2)
