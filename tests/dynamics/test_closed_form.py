import math

import pytest
import torch

from eqflow.dynamics import PolynomialField, PolynomialSums, closed_form
from eqflow.dynamics.constrained import constrained_minima
from eqflow.dynamics.polynomials import monomials
from eqflow.score import Gaussian

DOUBLE = torch.float64
FLIP = torch.tensor([-1.0, -1.0, 1.0])


def gaussian(covariance, rows=4000):
    density = Gaussian(torch.zeros(len(covariance), dtype=DOUBLE), covariance)
    points = density.sample(rows, seed=0)
    return points, density(points)


def test_a_round_gaussian_can_only_turn():
    """Exactly: turning in each of the three planes has objective 0, and nothing else has."""
    modes = closed_form(*gaussian(0.7 * torch.eye(3, dtype=DOUBLE)), degree=3)
    assert modes.objective[:3].abs().max() < 1e-7 and modes.objective[3] > 0.1
    assert modes.near() >= 3 and not modes.unique
    points = torch.randn(50, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(3))
    for index in range(3):
        jacobian = modes[index].jacobian(points)
        assert (jacobian + jacobian.mT).abs().max() < 1e-3


def test_a_correlated_gaussian_keeps_to_the_skew_flow_of_its_score(cosine):
    points, scores = gaussian(torch.tensor([[1.69, 0.3], [0.3, 0.36]], dtype=DOUBLE))
    modes = closed_form(points, scores, degree=1, probes=math.inf)
    assert modes.residual[0] < 1e-8 and modes.unique
    turned = torch.stack([-scores[:, 1], scores[:, 0]], 1)
    assert abs(cosine(modes[0].velocity(points), turned)) > 0.9999


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
@pytest.mark.parametrize("probes", [1, 8, math.inf])
def test_objective_residual_and_strain_are_the_means_over_the_pairs(two_gaussians, probes, law):
    points, scores = (values.double() for values in two_gaussians(0.4, rows=3000))
    modes = closed_form(points, scores, degree=4, probes=probes, law=law)
    for index in range(len(modes)):
        field = modes[index]
        velocity, jacobian = field.velocity(points), field.jacobian(points)
        diagonal = jacobian.diagonal(dim1=1, dim2=2)
        residual = (field.divergence(points) + (velocity * scores).sum(1)).square().mean()
        strain = ((jacobian + jacobian.mT) / 2).square().sum((1, 2)).mean()
        strain = strain - (diagonal.square().sum(1).mean() if law == "rademacher" else 0)
        torch.testing.assert_close(velocity.square().sum(1).mean(), torch.tensor(2.0, dtype=DOUBLE), rtol=1e-6, atol=0)
        torch.testing.assert_close(modes.residual[index], residual, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(modes.strain[index], strain, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(modes.objective[index], residual + 2 / probes * strain, rtol=1e-6, atol=1e-8)
    velocities = modes.velocities(points).flatten(1)
    products = velocities @ velocities.T / (2 * len(points))
    torch.testing.assert_close(products, torch.eye(len(modes), dtype=DOUBLE), rtol=0, atol=1e-6)


def test_no_other_polynomial_does_better(two_gaussians):
    points, scores = (values.double() for values in two_gaussians(0.5, rows=3000))
    modes = closed_form(points, scores, degree=3, probes=2)
    exponents = monomials(2, 3)
    generator = torch.Generator().manual_seed(0)
    for size in (0.001, 0.1, 10.0):
        for _ in range(10):
            other = modes.coefficients[0] + size * torch.randn(2, len(exponents), dtype=DOUBLE, generator=generator)
            field = PolynomialField(exponents, other)
            velocity, jacobian = field.velocity(points), field.jacobian(points)
            residual = (field.divergence(points) + (velocity * scores).sum(1)).square().mean()
            strain = ((jacobian + jacobian.mT) / 2).square().sum((1, 2)).mean()
            assert 2 * (residual + strain) / velocity.square().sum(1).mean() > modes.objective[0] - 1e-9


def test_sums_do_not_depend_on_how_the_pairs_arrive(two_gaussians):
    points, scores = two_gaussians(0.4, rows=2000)
    sums = PolynomialSums(2, 5)
    for part in range(0, 2000, 170):
        sums.add(points[part : part + 170], scores[part : part + 170])
    modes, whole = sums.solve(probes=8), closed_form(points, scores)
    torch.testing.assert_close(modes.objective, whole.objective, rtol=1e-9, atol=0)
    torch.testing.assert_close(modes[0].velocity(points), whole[0].velocity(points), rtol=1e-4, atol=1e-4)


def test_sectors_share_out_the_modes(two_gaussians):
    points, scores = two_gaussians(0.5)
    density = torch.cat([points, -points]), torch.cat([scores, -scores])  # exactly symmetric
    signs = torch.tensor([-1, -1])
    even, odd = (closed_form(*density, degree=4, signs=signs, parity=parity) for parity in ("even", "odd"))
    x = points[:100]
    torch.testing.assert_close(even.velocities(-x), -even.velocities(x))
    torch.testing.assert_close(odd.velocities(-x), odd.velocities(x))
    together = torch.cat([even.objective, odd.objective]).sort().values[:5]
    torch.testing.assert_close(closed_form(*density, degree=4).objective, together, rtol=1e-6, atol=0)


@pytest.mark.parametrize("deviation, lowest, equal_sense", [(0.3, 0.913, 2.12), (0.4, 1.10, 2.02)])
def test_two_gaussians_have_opposite_vortices(two_gaussians, curl, deviation, lowest, equal_sense):
    modes = closed_form(*two_gaussians(deviation), degree=9, probes=1)
    left, right = (curl(modes[0], (x, 0.0)) for x in (-1.0, 1.0))
    assert left * right < 0 and modes.unique
    assert float(modes.objective[0]) == pytest.approx(lowest, rel=0.05)
    assert float(modes.objective[1]) == pytest.approx(equal_sense, rel=0.05)
    assert curl(modes[1], (-1.0, 0.0)) * curl(modes[1], (1.0, 0.0)) > 0
    if deviation == 0.4:
        assert abs(left) == pytest.approx(4.7, abs=0.5) and abs(right) == pytest.approx(4.7, abs=0.5)


@pytest.mark.parametrize("probes", [1, 8])
def test_the_ring_rotates(ring, probes):
    points, scores = ring
    modes = closed_form(points, scores, probes=probes)
    tangent = torch.stack([-points[:, 1], points[:, 0]], 1)
    velocity = modes[0].velocity(points)
    cosines = torch.nn.functional.cosine_similarity(velocity, tangent)
    assert modes.unique and cosines.mean() > 0.99  # counterclockwise, by convention


def test_lorenz_without_its_dynamics(lorenz_pairs, cosine):
    noised, scores, points, truth = lorenz_pairs(50_000, 20_000)
    sums = PolynomialSums(3, 5)
    sums.add(noised, scores)
    even, odd = (sums.solve(signs=FLIP, parity=parity) for parity in ("even", "odd"))
    assert abs(cosine(even[0].velocity(points), truth)) >= 0.97
    assert abs(cosine(odd[0].velocity(points), truth)) < 0.1
    assert even.unique and odd.unique and even.objective[1] > 2 * even.objective[0]
    # Both sectors have a flow, and the points alone do not say which.
    assert sums.solve().near() == 2 and odd.objective[0] < even.objective[0] < 1.5 * odd.objective[0]


def test_lorenz_is_the_lowest_quadratic_flow(lorenz_pairs, cosine):
    noised, scores, points, truth = lorenz_pairs(50_000, 20_000)
    modes = closed_form(noised, scores, degree=2, probes=math.inf)
    assert abs(cosine(modes[0].velocity(points), truth)) >= 0.9
    assert float(modes.objective[0]) == pytest.approx(0.60, abs=0.06)


@pytest.mark.slow
def test_the_law_of_the_probes_decides_with_one_scale_a_coordinate(lorenz_pairs, cosine):
    noised, scores, points, truth = lorenz_pairs(50_000, 20_000)
    found = {}
    for law in ("gaussian", "rademacher"):
        modes = closed_form(noised, scores, degree=4, law=law, norm="per-coordinate")
        assert modes.unique
        found[law] = abs(cosine(modes[0].velocity(points), truth))
    assert found["gaussian"] < 0.4 and found["rademacher"] > 0.7


def test_one_scale_a_coordinate(two_gaussians, cosine):
    points, scores = (values.double() for values in two_gaussians(0.4, rows=4000))
    modes = closed_form(points, scores, degree=5, probes=1, norm="per-coordinate")
    free = closed_form(points, scores, degree=5, probes=1)
    square = modes.velocities(points).square().mean(1)
    torch.testing.assert_close(square, torch.ones_like(square), rtol=1e-6, atol=0)
    assert modes.objective[0] >= free.objective[0] and modes.unique
    assert abs(cosine(modes[0].velocity(points), free[0].velocity(points))) > 0.98


def test_constrained_minima_are_stationary_and_distinct():
    root = torch.randn(30, 30, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    form, parts = root @ root.T, torch.arange(30) // 10
    minima = constrained_minima(form, parts, torch.eye(30, dtype=DOUBLE))
    values = [float(vector @ form @ vector) for vector in minima]
    assert values == sorted(values) and values[0] >= 3 * float(torch.linalg.eigvalsh(form)[0])
    for vector in minima:
        for part in range(3):
            own = vector[parts == part]
            slope = (form @ vector)[parts == part]
            assert own.norm() == pytest.approx(1, abs=1e-9)
            assert (slope - (slope @ own) * own).norm() < 1e-4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"degree": 0}, "expected a degree from 1 up"),
        ({"degree": 100}, r"at most 4096 unknowns.*10302 unknowns: take a lower degree"),
        ({"probes": 0.5}, r"expected probes from 1 up.*got probes=0\.5"),
        ({"law": "uniform"}, "law 'gaussian' or 'rademacher'.*got .*'uniform'"),
        ({"norm": "none"}, "norm 'scalar' or 'per-coordinate'"),
        ({"modes": 1}, "one alone does not show whether it is the only one"),
        ({"degree": 15}, "expected at least 544 pairs for 272 unknowns, got 300: make a larger pool"),
        ({"parity": "even"}, "expected signs for the parity 'even', got none"),
        ({"signs": torch.tensor([-1, 1])}, "expected parity 'even' or 'odd' beside signs, got None"),
        ({"signs": torch.tensor([1, 1]), "parity": "odd"}, r"not all \+1, got \[1\.0, 1\.0\]"),
        ({"signs": torch.tensor([-1, 2]), "parity": "odd"}, r"expected 2 signs \+1 or -1"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    points = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message):
        closed_form(points, -points, **options)


def test_wrong_pairs_are_refused():
    points = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"points and scores \[rows, 2\], got \[300, 2\] and \[300, 3\]"):
        closed_form(points, torch.zeros(300, 3))
    with pytest.raises(ValueError, match="expected finite points and scores"):
        closed_form(points, points / 0)
    with pytest.raises(ValueError, match=r"expected points \[rows, dimension\], got \[300\]"):
        closed_form(points[:, 0], points[:, 0])
