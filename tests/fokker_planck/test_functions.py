import math

import pytest
import torch

from eqflow.fokker_planck import Bumps, Custom, bumps_inside, random_cosines
from eqflow.fokker_planck.derivatives import along, unit

DOUBLE = torch.float64


def normals(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


COSINES = random_cosines(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 2.0, 0.5]), 7, seed=3)
FAMILIES = {
    "cosines": COSINES,
    "bumps": Bumps(normals(6, 3, seed=1), 0.8),
    "bumps of three widths": Bumps(normals(6, 3, seed=1), torch.tensor([0.5, 1.0, 2.0])),
    "custom": Custom(lambda p: torch.stack([p[:, 0] ** 2 * p[:, 1], p[:, 2].sin(), p.prod(1), 3 * p[:, 0]], 1), 4),
}


def formula(name, points):
    """The definition of each family, written again."""
    family = FAMILIES[name]
    if name == "cosines":
        away = points[:, None] - family.centre
        return ((away * family.frequencies).sum(-1) + family.phases).cos()
    if name.startswith("bumps"):
        width = torch.as_tensor(family.bandwidth, dtype=DOUBLE)
        return (-((points[:, None] - family.centres) / width).square().sum(-1) / 2).exp()
    return family.function(points)


def derivatives(name, points):
    """Gradient [n, m, d] and Hessian [n, m, d, d] by reverse-mode automatic differentiation, function by function."""
    points = points.clone().requires_grad_()
    values = formula(name, points)
    gradients, hessians = [], []
    for column in values.unbind(1):
        (gradient,) = torch.autograd.grad(column.sum(), points, create_graph=True)
        rows = [
            torch.autograd.grad(g.sum(), points, retain_graph=True, materialize_grads=True)[0]
            if g.requires_grad
            else torch.zeros_like(points)
            for g in gradient.unbind(1)
        ]
        gradients.append(gradient.detach())
        hessians.append(torch.stack(rows, 1))
    return torch.stack(gradients, 1), torch.stack(hessians, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_generator_is_that_of_the_definition(name):
    points, drift = normals(9, 3, seed=5), normals(9, 3, seed=6)
    gradient, hessian = derivatives(name, points)
    local = FAMILIES[name].at(points)
    close = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(local.values(), formula(name, points), **close)
    transport = torch.einsum("nmc,nc->nm", gradient, drift)
    torch.testing.assert_close(local.generator(drift, None), transport, **close)
    roots = normals(9, 3, 3, seed=7)
    for matrix in (2.5 * torch.eye(3, dtype=DOUBLE), roots[0] @ roots[0].T, roots @ roots.mT):
        second = torch.einsum("nmcd,ncd->nm", hessian, matrix.expand(9, 3, 3))
        torch.testing.assert_close(local.generator(None, matrix), second, **close)
        torch.testing.assert_close(local.generator(drift, matrix), transport + second, **close)


@pytest.mark.parametrize("name", FAMILIES)
def test_sums_of_gradients(name):
    points, features = normals(9, 3, seed=5), normals(9, 4, seed=8)
    gradient, _ = derivatives(name, points)
    sums = FAMILIES[name].at(points).gradient_sums(features, [0, 2])
    torch.testing.assert_close(sums, torch.einsum("nmc,nl->mcl", gradient, features)[:, [0, 2]], rtol=1e-10, atol=1e-12)


def test_cosines_are_functions_of_the_seed():
    again = random_cosines(torch.tensor([0.5, -1.0, 2.0]), torch.tensor([1.0, 2.0, 0.5]), 20, seed=3)
    assert torch.equal(again.frequencies[:7], COSINES.frequencies) and torch.equal(again.phases[:7], COSINES.phases)
    other = random_cosines(torch.zeros(3), torch.ones(3), 20_000, seed=4, scale=0.5)
    assert not torch.equal(other.phases[:20], again.phases)
    assert other.frequencies.std(0).tolist() == pytest.approx([0.5] * 3, rel=0.02)
    assert other.phases.exp().log().mean().item() == pytest.approx(math.pi, rel=0.02)


def test_bumps_keep_inside_a_window_and_leave_their_points_out():
    points = normals(2000, 2)
    window = ((0.0, -math.inf), (math.inf, 1.0))
    bumps, rest = bumps_inside(points, 30, bandwidth=torch.tensor([0.1, 0.2]), window=window, seed=1)
    assert (bumps.centres[:, 0] > 0.35).all() and (bumps.centres[:, 1] < 0.3).all()
    assert len(rest) == 1970 and not (rest[:, None] == bumps.centres).all(-1).any()
    again, _ = bumps_inside(points, 30, bandwidth=torch.tensor([0.1, 0.2]), window=window, seed=1)
    assert torch.equal(again.centres, bumps.centres)


def test_derivatives_of_what_does_not_vary():
    points = normals(4, 2).requires_grad_()
    assert not along(torch.ones(4, 3, dtype=DOUBLE), points, unit(points, 0)).any()
    linear = points @ torch.tensor([[2.0], [3.0]], dtype=DOUBLE)
    slope = along(linear, points, unit(points, 1))
    assert (slope == 3).all() and not along(slope, points, unit(points, 1)).any()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: random_cosines(torch.zeros(2), torch.tensor([1.0, 0.0])), "vary in every coordinate"),
        (lambda: random_cosines(torch.zeros(2), torch.ones(2), 0), "expected count from 1 up"),
        (lambda: Bumps(torch.zeros(2, 2), 0.0), "positive bandwidth, got 0.0"),
        (lambda: bumps_inside(normals(100, 2), 101), "expected 101 points .* got 100: take a smaller bandwidth"),
        (lambda: bumps_inside(normals(9, 2), 1, window=((0.0,), (1.0,))), "of 2 numbers each"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
