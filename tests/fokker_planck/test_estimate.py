"""The machinery on conditions made of numbers: independent rows, each a noisy linear equation."""

import dataclasses
import math

import pytest
import torch

from eqflow.fokker_planck import Means, eliminate, estimate
from eqflow.fokker_planck.estimate import Subset
from eqflow.fokker_planck.layout import empty_layout
from eqflow.fokker_planck.solve import chance, inflation, solve, whitening

DOUBLE = torch.float64


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """E[A_i] theta = E[b_i] over samples i."""

    matrices: torch.Tensor  # [samples, conditions, unknowns]
    targets: torch.Tensor  # [samples, conditions]
    names: tuple

    @property
    def layout(self):
        return empty_layout(self.names)

    @property
    def means(self):
        return Means(self.matrices.mean(0), self.targets.mean(0), self.targets.square().mean(0).sqrt())

    def covariance(self, coefficients, *, homogeneous=False):
        residuals = self.matrices @ coefficients - self.targets * (not homogeneous)
        return residuals.T.cov(correction=0) / len(residuals)

    def halves(self):
        return Rows(self.matrices[::2], self.targets[::2], self.names), Rows(
            self.matrices[1::2], self.targets[1::2], self.names
        )


TRUTH = torch.tensor([1.0, -2.0, 0.0], dtype=DOUBLE)


def rows(seed, samples=500, conditions=8, truth=TRUTH, wrong=0.0):
    generator = torch.Generator().manual_seed(seed)

    def normals(*shape):
        return torch.randn(*shape, dtype=DOUBLE, generator=generator)

    centre = torch.randn(conditions, len(truth), dtype=DOUBLE, generator=torch.Generator().manual_seed(99))
    root = torch.randn(conditions, conditions, dtype=DOUBLE, generator=torch.Generator().manual_seed(98))
    matrices = centre + 0.3 * normals(samples, conditions, len(truth))
    noise = normals(samples, conditions) @ root.T * torch.logspace(-2, 1, conditions, dtype=DOUBLE)
    targets = matrices @ truth + noise
    targets[:, 0] += wrong
    return Rows(matrices, targets, tuple("abc"[: len(truth)]))


def test_without_noise_the_answer_is_exact():
    conditions = rows(0)
    exact = Rows(conditions.matrices, conditions.matrices @ TRUTH + 1e-9 * conditions.targets, conditions.names)
    torch.testing.assert_close(estimate(exact).coefficients, TRUTH, rtol=0, atol=1e-7)


@pytest.mark.parametrize("halves", [False, True])
def test_errors_and_the_test_are_calibrated(halves):
    fits = [estimate(rows(seed), halves=halves) for seed in range(200)]
    z = torch.stack([(fit.coefficients - TRUTH) / fit.standard_errors for fit in fits])
    assert z.std(0).tolist() == pytest.approx([1.0] * 3, abs=0.17)
    assert z.mean(0).abs().max() < 0.25
    statistics = torch.tensor([fit.j_statistic for fit in fits])
    freedom = fits[0].degrees_of_freedom
    assert freedom == (13 if halves else 5)
    assert statistics.mean().item() == pytest.approx(freedom, rel=0.12)
    assert 0.01 <= sum(fit.p_value < 0.05 for fit in fits) / 200 <= 0.11


def test_weights_are_worth_it():
    errors = torch.stack([estimate(rows(seed)).coefficients - TRUTH for seed in range(50)])
    first = torch.stack([solve(*rows(seed).means[:2], ("a", "b", "c")).coefficients - TRUTH for seed in range(50)])
    assert (errors.std(0) < first.std(0) / 3).all()


def test_a_wrong_model_is_found_out():
    assert estimate(rows(1, wrong=0.3)).p_value < 1e-4
    assert "contradict" in estimate(rows(1, wrong=0.3)).verdict and "agree" in estimate(rows(1)).verdict


def test_whitening():
    root = torch.randn(6, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    matrix = root @ root.T
    matrix = torch.nn.functional.pad(matrix, (0, 1, 0, 1))  # a condition that never varies
    p = whitening(matrix)
    assert p.shape == (4, 7)
    torch.testing.assert_close(p @ matrix @ p.T, torch.eye(4, dtype=DOUBLE), rtol=0, atol=1e-9)
    assert not p[:, 6].any()


def test_elimination_keeps_what_counts():
    for seed in range(5):
        fit = eliminate(rows(seed))
        assert fit.names == ("a", "b") and fit.value("c") == 0.0
        assert fit.degrees_of_freedom == 6
        direct = estimate(rows(seed, truth=TRUTH), rounds=3)
        assert (fit.standard_errors < direct.standard_errors[:2] * 1.05).all()
        assert ((fit.coefficients - TRUTH[:2]) / fit.standard_errors).abs().max() < 4


def test_a_fit_tells_all():
    fit = estimate(rows(0))
    assert str(fit).startswith("a = ") and "degrees of freedom" in str(fit)
    assert fit.as_dict()["coefficients"]["b"] == {
        "value": fit.value("b"),
        "standard_error": float(fit.standard_errors[1]),
    }
    assert fit.conditions == fit.kept_rank == 8 and fit.condition >= 1
    torch.testing.assert_close(fit.singular_values.square().reciprocal().sum(), fit.covariance.trace())
    assert "cannot be tested" in estimate(rows(0, conditions=3)).verdict


def test_what_cannot_be_found_is_named():
    good = rows(0)
    double = good.matrices.clone()
    double[..., 2] = 3 * double[..., 0]
    with pytest.raises(ValueError, match="not identifiable: a, c depend on each other"):
        estimate(Rows(double, good.targets, good.names))
    silent = good.matrices * torch.tensor([1.0, 0.0, 1.0], dtype=DOUBLE)
    with pytest.raises(ValueError, match="not identifiable: b has no effect"):
        estimate(Rows(silent, good.targets, good.names))
    with pytest.raises(ValueError, match="got 2 for 3: take more test functions"):
        estimate(rows(0, conditions=2))
    with pytest.raises(ValueError, match="up to a common factor only"):
        estimate(Rows(good.matrices, 0 * good.targets, good.names))
    with pytest.raises(ValueError, match="no term has an effect of 10000 standard errors"):
        eliminate(good, threshold=10000)
    with pytest.raises(ValueError, match="rounds from 1 up"):
        estimate(good, rounds=0)
    with pytest.raises(ValueError, match="positive threshold"):
        eliminate(good, threshold=0)


def test_the_test_is_exact_for_few_contributions():
    """r = mean of N Gaussians in d dimensions, S their covariance: the p-values are uniform, whatever N above d."""
    generator = torch.Generator().manual_seed(4)
    for count, freedom in [(8, 5), (40, 20), (500, 3)]:
        draws = torch.randn(1500, count, freedom, dtype=DOUBLE, generator=generator)
        mean = draws.mean(1)
        centred = draws - mean[:, None]
        statistic = (mean * torch.linalg.solve(centred.mT @ centred / count**2, mean)).sum(1)
        chances = torch.tensor([chance(value, freedom, count) for value in statistic.tolist()])
        for level in (0.05, 0.3, 0.7):
            assert float((chances < level).double().mean()) == pytest.approx(level, abs=0.04)
    assert chance(3.0, 2, 1e9) == pytest.approx(chance(3.0, 2, math.inf), rel=1e-6)


def test_errors_are_right_with_few_contributions():
    """30 samples for 12 conditions and 3 unknowns: without the inflation the scores would have a deviation of 1.8."""
    scores = []
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        centre = torch.randn(12, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(99))
        targets = centre @ TRUTH + torch.randn(30, 12, dtype=DOUBLE, generator=generator)
        conditions = Counted(centre.expand(30, -1, -1), targets, ("a", "b", "c"))
        fit = estimate(conditions)
        scores.append((fit.coefficients - TRUTH) / fit.standard_errors)
    deviation = float(torch.stack(scores).square().mean().sqrt())
    assert 0.9 < deviation < 1.2 and inflation(9, 30) ** 0.5 > 1.4
    with pytest.raises(ValueError, match="more pictures or points than superfluous conditions, got 12 for 10"):
        inflation(10, 12)


class Counted(Rows):
    """Rows that tell how many they are."""

    @property
    def means(self):
        return super().means._replace(count=float(len(self.targets)))


def test_unknowns_can_be_fixed():
    """With one unknown at a known value the others are those of the problem without it."""
    conditions = rows(3)
    fixed = Subset.fixing(conditions, {"b": -2.0})
    known = conditions.targets - conditions.matrices[:, :, 1] * -2.0
    other = Rows(conditions.matrices[:, :, [0, 2]], known, ("a", "c"))
    values = torch.tensor([1.0, 0.1], dtype=DOUBLE)
    assert fixed.names == ("a", "c")
    torch.testing.assert_close(fixed.means.matrix, other.means.matrix)
    torch.testing.assert_close(fixed.means.target, other.means.target)
    for homogeneous in (False, True):
        one, two = (part.covariance(values, homogeneous=homogeneous) for part in (fixed, other))
        torch.testing.assert_close(one, two)
    half, _ = fixed.halves()
    torch.testing.assert_close(half.means.target, known[::2].mean(0))
    torch.testing.assert_close(fixed.everything(values), torch.tensor([1.0, -2.0, 0.1], dtype=DOUBLE))
    with pytest.raises(ValueError, match="some of the unknowns a, b, c, got z"):
        Subset.fixing(conditions, {"z": 1.0})
