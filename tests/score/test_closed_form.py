import math

import pytest
import torch

from eqflow.score import PREDICTIONS, Gaussian, KernelScore, Mixture, Score, folding

DOUBLE = torch.float64
SAMPLES = 40_000


def normals(*shape, seed=0, dtype=DOUBLE):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def covariances(count, dimension, seed=1):
    roots = normals(count, dimension, dimension, seed=seed) / dimension**0.5
    return roots @ roots.mT + 0.3 * torch.eye(dimension, dtype=DOUBLE)


SCORES = {
    "gaussian": Gaussian(normals(3), covariances(1, 3)[0]),
    "gaussian of one variance": Gaussian(normals(4), 0.6),
    "gaussian field": Gaussian(normals(2, 2, 1), covariances(1, 4)[0]),
    "mixture": Mixture(3 * normals(3, 2), covariances(3, 2), torch.tensor([1.0, 2.0, 5.0], dtype=DOUBLE)),
    "mixture of one covariance": Mixture(3 * normals(2, 3), covariances(1, 3)[0]),
    "mixture of one variance": Mixture(2 * normals(5, 2), 0.09),
    "points": KernelScore(normals(40, 3), 0.7),
    "points of fields": KernelScore(normals(9, 1, 2, 2), 0.5),
    "points without the own": KernelScore(normals(40, 2), 0.8, self_term="exclude"),
}
WITHOUT_EXCLUDE = [name for name in SCORES if name != "points without the own"]


def states(score, batch=6):
    return score.sample(batch, seed=3)


@pytest.mark.parametrize("name", SCORES)
def test_the_score_is_the_gradient_of_the_log_density(name):
    score = SCORES[name]
    state = states(score).requires_grad_()
    log_density = explicit_log_density(score, state) if isinstance(score, KernelScore) else score.log_density(state)
    (gradient,) = torch.autograd.grad(log_density.sum(), state)
    torch.testing.assert_close(score.log_density(state.detach()), log_density.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(score(state.detach()), gradient, rtol=1e-10, atol=1e-10)


def explicit_log_density(score, state):
    points, rows = score.points.flatten(1), state.flatten(1)
    square = (rows[:, None] - math.sqrt(score.alpha) * points).square().sum(-1)
    if score.self_term == "exclude":
        square = square + torch.diag(torch.full((len(points),), math.inf, dtype=DOUBLE))[: len(rows)]
    count = len(points) - (score.self_term == "exclude")
    normaliser = points.shape[1] / 2 * math.log(2 * math.pi * (1 - score.alpha)) + math.log(count)
    return (-square / (2 * (1 - score.alpha))).logsumexp(1) - normaliser


@pytest.mark.parametrize("name", SCORES)
def test_the_divergence_is_the_trace_of_the_jacobian(name):
    score, step = SCORES[name], 1e-5
    state = states(score)
    trace = torch.zeros(len(state), dtype=DOUBLE)
    for direction in torch.eye(score.dimension, dtype=DOUBLE):
        move = step * direction.view_as(state[0])
        trace += (((score(state + move) - score(state - move)) * move).flatten(1).sum(1)) / (2 * step**2)
    torch.testing.assert_close(score.divergence(state), trace, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", WITHOUT_EXCLUDE)
def test_stein_identities(name):
    score = SCORES[name]
    state = score.sample(SAMPLES, seed=7)
    x, s = state.flatten(1), score(state).flatten(1)
    away = x - x.mean(0)
    product = away[:, :, None] * s[:, None, :]
    for mean, spread, expected in (
        (s.mean(0), s.std(0), torch.zeros(score.dimension, dtype=DOUBLE)),
        (product.mean(0), product.std(0), -torch.eye(score.dimension, dtype=DOUBLE)),
    ):
        assert ((mean - expected).abs() <= 5 * spread / math.sqrt(SAMPLES)).all()


@pytest.mark.parametrize("name", SCORES)
def test_the_curvature_is_bounded(name):
    score = SCORES[name]
    state, step = states(score, 20), 1e-5
    columns = []
    for direction in torch.eye(score.dimension, dtype=DOUBLE):
        move = step * direction.view_as(state[0])
        columns.append((score(state + move) - score(state - move)).flatten(1) / (2 * step))
    lowest = torch.linalg.eigvalsh(torch.stack(columns, 2)).min()
    assert -score.lipschitz * (1 + 1e-6) <= lowest < 0
    if isinstance(score, Gaussian):
        assert lowest.item() == pytest.approx(-score.lipschitz, rel=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_samples_do_not_depend_on_the_split(name):
    score = SCORES[name]
    whole = score.sample(37, seed=5, first_sample=100)
    parts = [score.sample(count, seed=5, first_sample=first) for count, first in ((1, 100), (20, 101), (16, 121))]
    assert torch.equal(torch.cat(parts), whole)
    assert whole.dtype == DOUBLE and not torch.equal(whole, score.sample(37, seed=6, first_sample=100))


def test_samples_have_the_moments_of_the_density():
    gaussian = SCORES["gaussian"]
    sample = gaussian.sample(SAMPLES, seed=2)
    torch.testing.assert_close(sample.mean(0), gaussian.mean, rtol=0, atol=5 / SAMPLES**0.5)
    torch.testing.assert_close(sample.T.cov(), gaussian.covariance, rtol=0, atol=10 / SAMPLES**0.5)
    mixture = Mixture(torch.tensor([[-50.0], [0.0], [50.0]]), 1.0, torch.tensor([1.0, 2.0, 5.0]))
    sample = mixture.sample(SAMPLES, seed=2)
    shares = torch.tensor([(sample < -25).double().mean(), (sample > 25).double().mean()])
    torch.testing.assert_close(shares.float(), torch.tensor([0.125, 0.625]), rtol=0, atol=0.01)


@pytest.mark.parametrize("name", SCORES)
def test_all_are_scores_that_fold(name):
    score = SCORES[name]
    state = states(score)
    assert isinstance(score, Score)
    folded = score.state_scale * state + score.output_scale * score.output(state)
    assert folded.shape == state.shape and torch.equal(folded, score(state))


def test_all_predictions_fold_to_one_score():
    noised = KernelScore(normals(50, 3), 0.9)
    state, alpha = noised.sample(20, seed=1), 0.9
    origin = noised.smooth(state, noised.points)
    noise = (state - math.sqrt(alpha) * origin) / math.sqrt(1 - alpha)
    velocity = math.sqrt(alpha) * noise - math.sqrt(1 - alpha) * origin
    outputs = {"score": noised(state), "epsilon": noise, "x0": origin, "v": velocity}
    for predicts in PREDICTIONS:
        state_scale, output_scale = folding(predicts, alpha)
        folded = state_scale * state + output_scale * outputs[predicts]
        torch.testing.assert_close(folded, noised(state), rtol=1e-12, atol=1e-12)


def test_smoothing_is_the_posterior_mean():
    score = KernelScore(normals(30, 2), 0.6)
    state = score.sample(7, seed=1)
    posterior = (-(state[:, None] - math.sqrt(0.6) * score.points).square().sum(-1) / 0.8).softmax(1)
    values = normals(30, 4, seed=2)
    torch.testing.assert_close(score.smooth(state, values), posterior @ values, rtol=1e-12, atol=1e-12)


def test_many_points_approach_the_density_they_come_from():
    clean = Mixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), 0.09)
    noised = Mixture(math.sqrt(0.95) * clean.means, 0.95 * 0.09 + 0.05)
    state = noised.sample(2000, seed=1)
    exact = noised(state)
    errors = []
    for count in (1000, 10_000):
        estimate = KernelScore(clean.sample(count, seed=2), 0.95)(state)
        errors.append(float((estimate - exact).norm() / exact.norm()))
    assert errors[0] < 0.2 and errors[1] < errors[0] / 2


def test_leaving_out_the_own_point():
    points = normals(25, 2)
    score = KernelScore(points, 0.8, self_term="exclude")
    state = score.sample(25, seed=0)
    for i in (0, 7, 24):
        others = KernelScore(torch.cat([points[:i], points[i + 1 :]]), 0.8)
        torch.testing.assert_close(score(state)[i : i + 1], others(state[i : i + 1]), rtol=1e-12, atol=1e-12)
        own = score(state[i : i + 1], own=torch.tensor([i]))
        torch.testing.assert_close(own, score(state)[i : i + 1], rtol=1e-12, atol=1e-12)


def test_scores_move_between_precisions():
    for score in SCORES.values():
        state = states(score).float()
        with pytest.raises(TypeError, match=r"expected a torch\.float64 state.*use score\.to"):
            score(state)
        lower = score.to(state)
        torch.testing.assert_close(lower(state), score(state.double()).float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Gaussian(torch.zeros(2), torch.eye(3)), r"expected a covariance \[2, 2\].*got \[3, 3\]"),
        (lambda: Gaussian(torch.zeros(2), torch.ones(2, 2)), "positive definite covariance, got a smallest eigenvalue"),
        (lambda: Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.0, 1.0]])), "not symmetric"),
        (lambda: Gaussian(torch.zeros(2), -1.0), r"positive variance, got -1\.0"),
        (lambda: Gaussian(torch.tensor([math.nan]), 1.0), "expected finite mean"),
        (lambda: Mixture(torch.zeros(3), 1.0), r"expected means \[components, dimension\], got \[3\]"),
        (lambda: Mixture(torch.zeros(3, 2), torch.eye(2).expand(2, 2, 2)), "each of the 3 means, got 2"),
        (lambda: Mixture(torch.zeros(2, 2), 1.0, torch.tensor([1.0, -1.0])), "expected 2 weights from 0 up"),
        (lambda: KernelScore(torch.zeros(0, 2), 0.5), r"at least one, got \[0, 2\]"),
        (lambda: KernelScore(torch.zeros(2, 2), 1.0), r"expected alpha in \(0, 1\).*got 1\.0"),
        (lambda: KernelScore(torch.full((2, 2), math.nan), 0.5), "expected finite points"),
        (lambda: KernelScore(torch.zeros(2, 2), 0.5, self_term="no"), "'include' or 'exclude', got 'no'"),
        (lambda: KernelScore(torch.zeros(2, 2), 0.5)(torch.zeros(1, 3)), r"of 2 numbers a sample, got \[1, 3\]"),
        (lambda: KernelScore(torch.zeros(2, 2), 0.5, self_term="exclude")(torch.zeros(3, 2)), "at most 2 states"),
        (lambda: folding("noise", 0.5), "expected predicts 'score', 'epsilon', 'x0', 'v', got 'noise'"),
        (lambda: folding("v", 0.0), r"expected alpha in \(0, 1\)"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
