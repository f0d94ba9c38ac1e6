import pytest
import torch

from eqflow.fokker_planck import from_library, parametric, polynomial, stein_fit, stein_test
from eqflow.fokker_planck.stein import _Operators, pairs

DOUBLE = torch.float64


def normals(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def test_two_generators_on_a_kernel():
    """Against automatic differentiation of exp(-|x - y|^2 / 2), first in y, then in x."""

    def operators(n, count, seed):
        root = normals(count, 3, 3, seed=seed)
        return _Operators(normals(n, 3, seed=seed + 1), normals(n, count, 3, seed=seed + 2), root @ root.mT)

    left, right = operators(2, 2, 0), operators(3, 3, 10)
    found = pairs(left, right)
    assert found.shape == (2, 3, 2, 3)

    def generator(value, point, drift, diffusion):
        (gradient,) = torch.autograd.grad(value, point, create_graph=True)
        hessian = torch.stack([torch.autograd.grad(g, point, create_graph=True)[0] for g in gradient])
        return drift @ gradient + (diffusion * hessian).sum()

    for i, j, k, m in torch.cartesian_prod(*map(torch.arange, found.shape)).tolist():
        x, y = left.points[i].clone().requires_grad_(), right.points[j].clone().requires_grad_()
        kernel = (-(x - y).square().sum() / 2).exp()
        inner = generator(kernel, y, right.drift[j, m], right.diffusion[m])
        torch.testing.assert_close(found[i, j, k, m], generator(inner, x, left.drift[i, k], left.diffusion[k]))


def test_the_fit_is_the_minimum_of_the_discrepancy():
    points = normals(150, 2) @ torch.tensor([[1.0, 0.3], [0.0, 0.7]], dtype=DOUBLE)
    model = from_library({"x": polynomial("x y", 1)}, known={"y": "-y"}, diffusion=1.0)
    fit = stein_fit(points, model)
    for shift in 0.1 * torch.eye(3, dtype=DOUBLE):
        for sign in (-1, 1):
            moved = stein_test(points, model, fit.coefficients + sign * shift, replicates=1)
            assert moved.discrepancy > fit.discrepancy
    again = stein_test(points, model, fit.coefficients, replicates=1)
    assert again.discrepancy == pytest.approx(fit.discrepancy, rel=1e-8, abs=1e-12)


def test_errors_are_calibrated():
    model = parametric("x", {"k": {"x": "-x"}, "c": {"x": "1"}}, diffusion=1.0)
    fits = [stein_fit(1 + normals(250, 1, seed=seed), model) for seed in range(40)]
    z = torch.stack([(fit.coefficients - 1) / fit.standard_errors for fit in fits])
    assert z.std(0).tolist() == pytest.approx([1.0, 1.0], abs=0.35)
    assert z.mean(0).abs().max() < 0.5


def test_lorenz(lorenz):
    points = lorenz.points[:1000]
    fit = stein_fit(points, lorenz.model, bandwidth=0.7 * points.std(0))
    assert ((fit.coefficients - lorenz.truth) / fit.standard_errors).abs().max() < 3.5
    assert (fit.standard_errors < 0.12 * lorenz.truth).all()
    assert "sigma = " in str(fit)
    others = lorenz.points[1500:2300]
    assert stein_test(others, lorenz.model, lorenz.truth).p_value > 0.02
    assert stein_test(others, lorenz.model, lorenz.truth * 1.2).p_value < 0.01


def test_the_level_of_the_test():
    model = parametric("x", {"k": {"x": "-x"}}, diffusion=1.0)
    values = [
        stein_test(normals(200, 1, seed=seed), model, torch.ones(1), replicates=199, seed=seed).p_value
        for seed in range(100)
    ]
    assert 0.01 <= sum(p <= 0.05 for p in values) / 100 <= 0.12
    assert 0.35 < sum(values) / 100 < 0.65


def test_the_diffusion_can_be_unknown():
    model = parametric("x", {}, known={"x": "-x"}, unknown_diffusion="isotropic")
    fit = stein_fit(1.5**0.5 * normals(1500, 1), model)
    assert fit.names == ("D",) and abs(fit.coefficients[0] - 1.5) < 4 * fit.standard_errors[0] < 0.4


def test_bad_input_is_refused():
    model = parametric("x", {"k": {"x": "-x"}}, diffusion=1.0)
    for call, message in (
        (lambda: stein_fit(normals(50, 1), parametric("x", {"k": {"x": "-x"}})), "give the diffusion, or one term"),
        (lambda: stein_fit(normals(2, 1), model), "three points or more"),
        (lambda: stein_fit(normals(50, 2), model), r"points \[n, 1\]"),
        (lambda: stein_fit(normals(50, 1), model, bandwidth=0.0), "positive bandwidth"),
        (lambda: stein_test(normals(50, 1), model, torch.ones(2)), "expected 1 coefficients"),
        (
            lambda: stein_fit(normals(50, 1), parametric("x", {"k": {"x": "-x"}}, diffusion=lambda p: p[:, :, None])),
            "the same everywhere",
        ),
        (
            lambda: stein_fit(normals(50, 1), parametric("x", {"k": {"x": "-x"}}, diffusion=1.0, growth={"a": "x"})),
            "without births and deaths",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
