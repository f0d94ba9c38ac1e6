import pytest
import torch

from eqflow.fokker_planck import eliminate, estimate, from_library, parametric, polynomial, sensitivity, weak_form

DOUBLE = torch.float64


def gaussian(seed, count=4000):
    root = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=DOUBLE)
    return torch.randn(count, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)) @ root


def test_a_rotation_of_a_steady_gaussian_is_not_seen():
    """K S + S K^T + 2 D = 0 are three equations for four numbers: J S^-1 with J skew leaves the density as it is."""
    rates = []
    for seed in range(10):
        model = from_library(polynomial("x y", 1, constant=False), diffusion=1.0)
        conditions = weak_form(gaussian(seed), model, count=20, seed=seed)
        found = sensitivity(conditions, estimate(conditions))
        assert len(found.directions) == 2 and found.directions[1].p_value < 1e-6
        rates.append(found.directions[0].p_value)
    assert max(rates) > 0.5 and sum(rate > 0.05 for rate in rates) >= 8
    assert len(found.blind) == 1
    precision = torch.linalg.inv(torch.tensor([[1.25, 0.5], [0.5, 1.0]], dtype=DOUBLE))
    rotation = (torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=DOUBLE) @ precision).flatten()
    errors = estimate(conditions).standard_errors
    expected = rotation / errors / (rotation / errors).abs().max()
    seen = torch.tensor([found.blind[0].weights[name] for name in conditions.names], dtype=DOUBLE)
    cosine = (seen * expected).sum() / (seen.norm() * expected.norm())
    assert abs(cosine) == pytest.approx(1.0, abs=0.05)
    assert "not identifiable: " in str(found) and "[x in y']" in str(found)


def test_one_more_fact_mends_it():
    model = from_library({"x": polynomial("x y", 1, constant=False)}, known={"y": "-2*y"}, diffusion=1.0)
    conditions = weak_form(gaussian(0), model, count=20)
    assert str(sensitivity(conditions, estimate(conditions))) == "every unknown is identifiable"


def test_lorenz_is_identifiable(lorenz):
    conditions = weak_form(lorenz.points[:20_000], lorenz.model)
    found = sensitivity(conditions, estimate(conditions))
    assert not found.blind and found.directions[0].statistic > 1e4
    library = from_library(polynomial("x y z", 2), diffusion=10.0)
    conditions = weak_form(lorenz.points[:50_000], library, count=100, scale=0.7)
    assert not sensitivity(conditions, estimate(conditions)).blind


def test_a_fit_of_other_unknowns_is_refused():
    model = parametric("x y", {"a": {"x": "-x"}, "b": {"y": "-y"}, "c": {"x": "x^2"}}, diffusion=1.0)
    conditions = weak_form(gaussian(1), model, count=20)
    with pytest.raises(ValueError, match="got one with other unknowns"):
        sensitivity(conditions, eliminate(conditions))
