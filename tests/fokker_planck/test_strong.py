import math

import pytest
import torch

from eqflow.fokker_planck import (
    Bumps,
    LinearResidual,
    averaged_form,
    descend,
    from_library,
    kernel_score,
    least_absolute,
    least_squares,
    parametric,
    polynomial,
    strong_form,
)

DOUBLE = torch.float64


def gaussian(points, mean, spread, mean_rate, spread_rate):
    """Score, its Jacobian and d(log p)/dt of a moving Gaussian."""
    precision = torch.linalg.inv(spread)
    away = points - mean
    pulled = away @ precision
    rate = pulled @ mean_rate + ((pulled @ spread_rate) * pulled).sum(1) / 2 - (precision @ spread_rate).trace() / 2
    return -pulled, -precision.expand(len(points), -1, -1), rate


def test_an_ornstein_uhlenbeck_process_in_time(ornstein_uhlenbeck):
    times = [0.3 * k for k in range(6)]
    stacks = []
    for time, state in zip(times, ornstein_uhlenbeck.moments(times), strict=True):
        points = state[0] + torch.randn(20, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(int(10 * time)))
        rates = ornstein_uhlenbeck.rates(state, time)
        score, jacobian, rate = gaussian(points, state[0], state[1:], rates[0], rates[1:])
        arguments = {"score": score, "jacobian": jacobian, "rate": rate, "time": time}
        stacks.append(strong_form(ornstein_uhlenbeck.model, points, **arguments))
    whole = LinearResidual(
        stacks[0].names, torch.cat([s.matrix for s in stacks]), torch.cat([s.offset for s in stacks])
    )
    truth = ornstein_uhlenbeck.truth
    assert whole.at(truth).abs().max() < 1e-10
    assert whole.at(truth * torch.tensor([1.1] * 6 + [1.0] * 3)).abs().mean() > 0.1
    torch.testing.assert_close(least_squares(whole), truth, rtol=1e-5, atol=1e-5)
    assert torch.linalg.matrix_rank(stacks[2].matrix, rtol=1e-9) == 5
    with pytest.raises(ValueError, match="not identifiable"):
        least_squares(stacks[2])


@pytest.mark.parametrize("normalised", [False, True])
def test_births_and_deaths(birth_death, normalised):
    times = [0.25 * k for k in range(5)]
    stacks = []
    for time, (mean, spread, _), state in zip(
        times, birth_death.moments(times), birth_death.moments(times), strict=True
    ):
        points = mean + torch.linspace(-2, 2, 15, dtype=DOUBLE)[:, None]
        rates = birth_death.rates(state, time)
        score, jacobian, rate = gaussian(points, mean[None], spread[None, None], rates[:1], rates[1][None, None])
        if not normalised:
            rate = rate + rates[2]  # of the log of the number
        population = mean + spread.sqrt() * torch.tensor([[-1.0], [1.0]], dtype=DOUBLE) if normalised else None
        stacks.append(
            strong_form(birth_death.model, points, score=score, jacobian=jacobian, rate=rate, population=population)
        )
    whole = LinearResidual(
        stacks[0].names, torch.cat([s.matrix for s in stacks]), torch.cat([s.offset for s in stacks])
    )
    truth = birth_death.truth
    assert whole.at(truth).abs().max() < 1e-10
    wrong = truth * torch.tensor([1.0, 1.0, -1.0, -1.0])  # + g
    assert whole.at(wrong).abs().max() > 1
    if not normalised:
        torch.testing.assert_close(least_squares(whole), truth, rtol=1e-8, atol=1e-10)


def test_noise_in_the_sense_of_ito():
    diffusion = 0.3
    x = torch.linspace(-3, 3, 41, dtype=DOUBLE)[:, None]
    factor = -2 * (1 + 1 / (2 * diffusion))
    score, jacobian = factor * x / (1 + x**2), (factor * (1 - x**2) / (1 + x**2) ** 2)[:, :, None]

    def local(points):
        return diffusion * (1 + points[:, :, None] ** 2)

    form = strong_form(parametric("x", {"k": {"x": "-x"}}, diffusion=local), x, score=score, jacobian=jacobian)
    assert form.at(torch.ones(1)).abs().max() < 1e-10
    parts = {"a": 1.0, "b": lambda p: p[:, :, None] ** 2}
    unknown = parametric("x", {}, known={"x": "-x"}, unknown_diffusion=parts)
    form = strong_form(unknown, x, score=score, jacobian=jacobian)
    torch.testing.assert_close(least_squares(form), torch.full((2,), 0.3, dtype=DOUBLE))


def test_matrix_noise_with_cross_derivatives():
    """D(x) = A(x) A(x)^T with every entry varying, and the drift div D + D s that keeps p without a current."""
    points = torch.randn(7, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))

    def local(p):
        x, y = p.unbind(1)
        root = torch.stack([torch.stack([1 + x * x, x * y], 1), torch.stack([y.sin(), 1 + y * y], 1)], 1)
        return root @ root.mT

    def balanced(p):  # for p = N(0, 1)
        with torch.enable_grad():
            p = p if p.requires_grad else p.detach().requires_grad_()
            matrix = local(p)
            flow = [
                sum(torch.autograd.grad(matrix[:, c, k].sum(), p, create_graph=True)[0][:, k] for k in range(2))
                for c in range(2)
            ]
            return torch.stack(flow, 1) - (matrix @ p[:, :, None])[:, :, 0]

    model = parametric("x y", {"turn": {"x": "-y", "y": "x"}}, known=balanced, diffusion=local)
    minus = -torch.eye(2, dtype=DOUBLE).expand(7, 2, 2)
    residual = strong_form(model, points, score=-points, jacobian=minus)
    assert residual.at(torch.tensor([3.0])).abs().max() < 1e-10


def test_kernel_scores_are_those_of_the_formula():
    points = torch.randn(50, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    probes = points[:5].clone().requires_grad_()
    square = (probes[:, None] - points).square().sum(-1) + torch.diag(torch.full((50,), math.inf, dtype=DOUBLE))[:5]
    (gradient,) = torch.autograd.grad((-square / (2 * 0.8**2)).logsumexp(1).sum(), probes, create_graph=True)
    trace = sum(torch.autograd.grad(gradient[:, c].sum(), probes, retain_graph=True)[0][:, c] for c in range(3))
    score, divergence = kernel_score(probes.detach(), points, 0.8, own=torch.arange(5))
    torch.testing.assert_close(score, gradient.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(divergence, trace, rtol=1e-9, atol=1e-10)


def test_the_averaged_form_is_the_weak_form_with_bumps(lorenz):
    points, probes = lorenz.points[:2000], lorenz.points[2000:2040]
    truth = lorenz.truth
    bumps = Bumps(probes, 2.0).at(points)
    weak = bumps.generator(lorenz.model.drift(points, truth), 10 * torch.eye(3, dtype=DOUBLE)).sum(0)
    expected = -weak / bumps.values().sum(0)
    found = averaged_form(lorenz.model, probes, points, 2.0).at(truth)
    assert (found - expected).abs().max() < 1e-10 * (1 + expected.abs().max())

    def local(p):
        return 1 + 0.01 * p[:, :1, None] ** 2 * torch.eye(3, dtype=DOUBLE)

    model = parametric("x y z", {"a": {"x": "y"}}, unknown_diffusion={"b": local}, growth={"c": "x^2"})
    theta = torch.tensor([2.0, 3.0, 0.1], dtype=DOUBLE)
    drift = torch.stack([2 * points[:, 1], 0 * points[:, 1], 0 * points[:, 1]], 1)
    growth = 0.1 * (points[:, 0] ** 2 - (points[:, 0] ** 2).mean())
    weak = (bumps.generator(drift, 3 * local(points)) + growth[:, None] * bumps.values()).sum(0)
    expected = -weak / bumps.values().sum(0)
    found = averaged_form(model, probes, points, 2.0).at(theta)
    assert (found - expected).abs().max() < 1e-10 * (1 + expected.abs().max())


def test_averaging_mends_the_bias_of_smoothing():
    """A Gaussian of variance 1 smoothed by h has variance 1 + h^2: the strong form finds k = D / (1 + h^2)."""
    points = torch.randn(100_000, 1, generator=torch.Generator().manual_seed(0))
    probes = torch.randn(500, 1, generator=torch.Generator().manual_seed(1))
    model = parametric("x", {"k": {"x": "-x"}}, diffusion=1.0)
    score, divergence = kernel_score(probes, points, 0.7)
    strong = least_absolute(strong_form(model, probes.double(), score=score.double(), divergence=divergence.double()))
    averaged = least_absolute(averaged_form(model, probes, points, 0.7))
    assert strong.item() == pytest.approx(1 / 1.49, abs=0.03)
    assert averaged.item() == pytest.approx(1.0, abs=0.03)


@pytest.mark.slow
def test_lorenz_by_the_strong_form_and_its_mended_form(lorenz):
    points = lorenz.sample(105_000, diffusion=10.0, seed=7).float()
    probes, points = points[:5000], points[5000:]

    def strong(bandwidth):
        score, divergence = kernel_score(probes, points, bandwidth)
        form = strong_form(lorenz.model, probes.double(), score=score.double(), divergence=divergence.double())
        return least_absolute(form), form

    averaged = least_absolute(averaged_form(lorenz.model, probes, points, 2.0))
    assert ((averaged / lorenz.truth - 1).abs() < 0.02).all()
    half, _ = strong(0.5)
    assert 7 < half[0] < 9.5 and 27 < half[1] < 29 and 2.0 < half[2] < 2.65
    wide, form = strong(0.8)
    mended = least_absolute(averaged_form(lorenz.model, probes, points, 0.8))
    assert abs(wide[0] - 10) > 3 * abs(mended[0] - 10)
    starts = torch.rand(8, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [20.0, 50.0, 6.0]
    )
    runs = descend(form, starts, rate=0.1)
    assert ((runs - wide).abs() < torch.tensor([0.5, 0.5, 0.15])).all()


def test_least_absolute_is_a_minimum():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(201, 2, dtype=DOUBLE, generator=generator)
    noise = torch.randn(201, dtype=DOUBLE, generator=generator) ** 3
    residual = LinearResidual(("a", "b"), matrix, matrix @ torch.tensor([1.0, -2.0], dtype=DOUBLE) + noise)
    best = least_absolute(residual)
    value = residual.at(best).abs().sum()
    for angle in torch.linspace(0, 2 * math.pi, 17):
        move = 0.01 * torch.tensor([angle.cos(), angle.sin()], dtype=DOUBLE)
        assert residual.at(best + move).abs().sum() > value
    assert residual.at(least_squares(residual)).abs().sum() > value
    assert residual.at(least_squares(residual)).square().sum() < residual.at(best).square().sum()
    runs = descend(residual, torch.zeros(3, 2), rate=0.1, epochs=8)
    assert (runs - best).abs().max() < 0.2


def test_bad_input_is_refused(lorenz):
    x = torch.zeros(4, 2, dtype=DOUBLE)
    model = from_library(polynomial("x y", 1), unknown_diffusion="diagonal")
    for call, message in (
        (lambda: strong_form(model, x, score=x[:, :1], divergence=x[:, 0]), r"a score \[4, 2\], got \[4, 1\]"),
        (lambda: strong_form(model, x, score=x), "the divergence or the jacobian"),
        (lambda: strong_form(model, x, score=x, divergence=x[:, 0]), "the diffusion is a matrix or varies"),
        (lambda: kernel_score(x, x, 0.0), "positive bandwidth"),
        (lambda: descend(LinearResidual(("a",), x[:, :1], x[:, 0]), torch.zeros(3, 2)), r"starts \[runs, 1\]"),
        (lambda: descend(LinearResidual(("a",), x[:, :1], x[:, 0]), torch.zeros(3, 1), rate=0), "positive rate"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
