"""Time-stamped snapshots, against processes whose moments are known in closed form."""

import pytest
import torch

from eqflow.fokker_planck import estimate, parametric, weak_form
from eqflow.fokker_planck.weak import simpson

DOUBLE = torch.float64


def test_simpson_is_exact_for_parabolas_and_for_even_cubics():
    times = [0.0, 0.3, 0.5, 1.1]
    change, quadrature = simpson(times)
    t = torch.tensor(times, dtype=DOUBLE)
    torch.testing.assert_close(quadrature @ (3 * t**2 - 2 * t + 5), change @ (t**3 - t**2 + 5 * t))
    even, cubic = torch.linspace(0, 1, 5, dtype=DOUBLE), torch.linspace(0, 1, 5, dtype=DOUBLE) ** 4
    change, quadrature = simpson(even.tolist())
    torch.testing.assert_close(quadrature @ (4 * even**3), change @ cubic)


def test_an_oscillating_drift_and_a_noise_matrix(ornstein_uhlenbeck):
    times = [k / 8 for k in range(17)]
    points = ornstein_uhlenbeck.snapshots(times, 2000, seed=101)
    fit = estimate(weak_form(points, ornstein_uhlenbeck.model, times=times, count=10, seed=1))
    error = (fit.coefficients - ornstein_uhlenbeck.truth).abs()
    assert (error[:6] < 0.15).all() and (error[6:] < 0.02).all()
    assert fit.degrees_of_freedom == 15 * 10 - 9
    assert 0.6 < fit.j_statistic / fit.degrees_of_freedom < 1.4


def test_births_and_deaths_with_counts(birth_death):
    times = [k / 4 for k in range(9)]
    points, masses = birth_death.snapshots(times, 2000, seed=0)
    counts = [1e6 * mass for mass in masses]
    fit = estimate(weak_form(points, birth_death.model, times=times, counts=counts, count=6), cut=1e-6)
    assert fit.names == ("k", "D", "g0", "a")
    assert ((fit.coefficients - birth_death.truth).abs() < 0.03).all()
    assert "g = 0.2" in fit.equations


def test_without_counts_a_constant_rate_cannot_be_seen(birth_death):
    times = [k / 4 for k in range(9)]
    points, _ = birth_death.snapshots(times, 20_000, seed=0)
    with pytest.raises(ValueError, match="not identifiable: g0 has no effect"):
        estimate(weak_form(points, birth_death.model, times=times, count=6))
    model = parametric("x", {"k": {"x": "-x"}}, unknown_diffusion="isotropic", growth={"a": "-x^2"})
    fit = estimate(weak_form(points, model, times=times, count=6), cut=1e-6)
    truth = birth_death.truth[[0, 1, 3]]
    assert ((fit.coefficients - truth) / fit.standard_errors).abs().max() < 4
    assert ((fit.coefficients - truth).abs() < torch.tensor([0.4, 0.05, 0.7])).all()


def test_known_growth_is_taken_off(birth_death):
    times = [k / 8 for k in range(17)]
    points, masses = birth_death.snapshots(times, 2000, seed=2)
    model = parametric("x", {"k": {"x": "-x"}}, unknown_diffusion="isotropic", known_growth="0.25 - 0.4*x^2")
    for counts in (masses, None):
        fit = estimate(weak_form(points, model, times=times, counts=counts, count=6))
        assert ((fit.coefficients - birth_death.truth[:2]).abs() < 0.05).all()


def test_uneven_times(ornstein_uhlenbeck):
    times = [0.0, 0.1, 0.25, 0.35, 0.5, 0.6, 0.75, 0.9, 1.0, 1.1, 1.25, 1.4, 1.5, 1.6, 1.75, 1.85, 2.0]
    points = ornstein_uhlenbeck.snapshots(times, 2000, seed=103)
    fit = estimate(weak_form(points, ornstein_uhlenbeck.model, times=times, count=10))
    assert ((fit.coefficients - ornstein_uhlenbeck.truth) / fit.standard_errors).abs().max() < 4


def test_bad_times_are_refused(birth_death):
    points, _ = birth_death.snapshots([0.0, 0.5, 1.0], 500, seed=0)
    for times, message in (
        ([0.0, 0.5, 0.5], "three increasing times or more"),
        ([0.0, 0.5], "three increasing times or more"),
        ([0.0, 0.5, 1.0, 1.5], "for each of 4 times, got 3 sets"),
    ):
        with pytest.raises(ValueError, match=message):
            weak_form(points, birth_death.model, times=times, count=6)
    with pytest.raises(ValueError, match="positive counts"):
        weak_form(points, birth_death.model, times=[0.0, 0.5, 1.0], counts=[1.0, 0.0, 1.0], count=6)
