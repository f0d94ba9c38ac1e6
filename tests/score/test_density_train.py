import math

import pytest
import torch

from eqflow.score import Density, DensityShape, DensityTraining, Mixture, density_train, train_density

SMALL = DensityTraining(steps=40, batch=64, every=10, seed=5)
SHAPE = DensityShape(2, 6, couplings=2, hidden=(8,))


def normals(count, dimension=2, seed=0):
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(seed))


def kl(p, q, points):
    """KL(p || q) by points of p, and its standard error."""
    away = p.log_density(points) - q.log_density(points)
    return float(away.mean()), float(away.std()) / math.sqrt(len(points))


@pytest.mark.parametrize(
    ("weights", "couplings"), [((1.0, 0.0), 0), ((0.0, 1.0), 0), ((1.0, 0.1), 0), ((1.0, 0.02), 2)]
)
def test_a_mixture_is_learned_by_either_objective(weights, couplings):
    truth = Mixture(torch.tensor([[-1.0, 0.0], [1.0, 0.5]]), torch.tensor([[0.2, 0.1], [0.1, 0.2]]))
    likelihood, matching = weights
    training = DensityTraining(steps=150, rate=3e-2, likelihood=likelihood, matching=matching, seed=1, deviation=0.5)
    fit = train_density(truth.sample(6000, seed=1), DensityShape(2, 4, couplings, (16,)), training)
    divergence, error = kl(truth, fit.density, truth.sample(20_000, seed=2))
    assert -4 * error < divergence < 0.02
    if not couplings:
        torch.testing.assert_close(fit.density.factor @ fit.density.factor.T, truth.covariance, rtol=0.2, atol=0.05)


def test_score_matching_finds_the_variance_of_a_gaussian():
    """E[s^2 / 2 + s'] with s = -x / v is m / 2 v^2 - 1 / v for E[x^2] = m: least, -1 / 2 m, at v = m."""
    training = DensityTraining(steps=150, rate=3e-2, likelihood=0.0, matching=1.0, deviation=2.0)
    fit = train_density(normals(20_000, 1), DensityShape(1, 1), training)
    assert fit.history[-1, 2] == pytest.approx(-0.5, abs=0.05)
    assert float(fit.density.factor) ** 2 == pytest.approx(1, abs=0.1)


def test_the_likelihood_is_the_entropy_at_best():
    fit = train_density(normals(8000), DensityShape(2, 1), DensityTraining(steps=150, rate=1e-1, deviation=1.5))
    assert fit.history[-1, 2] == pytest.approx(1 + math.log(2 * math.pi), abs=4 / math.sqrt(800))


def test_few_points_are_not_learned_by_heart():
    """The parameters of the lowest held-out loss are kept; the last ones are far worse."""
    points, fresh = normals(200), normals(5000, seed=1)
    shape = DensityShape(2, 40)
    kept = train_density(points, shape, DensityTraining(steps=400, rate=1e-2, held_out=0.25))
    assert kept.history[-1, 2] > kept.history[:, 2].min() + 0.3
    best, last = (density.log_density(fresh).mean() for density in (kept.density, at(kept, shape)))
    assert best > last + 0.3


def test_parameters_that_became_no_numbers_are_not_kept(monkeypatch):
    """The last step breaks them, which the loss before it cannot tell."""
    advance = density_train._Run.advance

    def broken(run):
        loss = advance(run)
        if run.step == SMALL.steps:
            run.density.centroids.data.fill_(math.nan)
        return loss

    monkeypatch.setattr(density_train._Run, "advance", broken)
    fit = train_density(normals(300), SHAPE, SMALL)
    assert fit.history[-1, 2].isnan() and fit.density.log_density(normals(3)).isfinite().all()


def test_more_components_than_points_can_tell_draw_a_warning():
    with pytest.warns(UserWarning, match="21 components for 100 points: fewer than five points each"):
        train_density(normals(100), DensityShape(2, 21), SMALL)


def at(fit, shape):
    """The density that a checkpoint holds, the last and not the best one."""
    density = Density(shape, torch.zeros(shape.components, 2), 1.0)
    density.load_state_dict({n.removeprefix("density."): v for n, v in fit.state.items() if n.startswith("density.")})
    return density.requires_grad_(False)


@pytest.mark.parametrize("matching", [0.0, 0.1])
def test_a_resumed_training_has_the_bits_of_the_undisturbed_one(matching):
    points = normals(300)
    training = DensityTraining(steps=40, batch=32, every=10, seed=5, matching=matching, jitter=0.1, sparsity=1e-3)
    saved = []
    whole = train_density(points, SHAPE, training, save=saved.append)
    assert [int(state["step"]) for state in saved] == [10, 20, 30, 40]
    for state in saved:
        torch.manual_seed(int(state["step"]))  # the state of other generators does not count
        resumed = train_density(points, SHAPE, training, state=state)
        assert resumed.state.keys() == whole.state.keys()
        assert all(torch.equal(resumed.state[name], whole.state[name]) for name in whole.state)
        assert torch.equal(resumed.history, whole.history)
        assert torch.equal(resumed.density.log_density(points), whole.density.log_density(points))


def test_precision_is_that_of_the_points():
    single, double = (train_density(normals(300).to(dtype), SHAPE, SMALL) for dtype in (torch.float32, torch.float64))
    assert double.density.centroids.dtype == double.density.log_density(normals(3).double()).dtype == torch.float64
    torch.testing.assert_close(double.history, single.history, rtol=1e-3, atol=1e-3)


def test_training_leaves_the_generator_of_torch_alone():
    before = torch.random.get_rng_state()
    train_density(normals(100), SHAPE, SMALL)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_sparse_couplings_stay_near_the_identity():
    points = normals(2000)
    points[:, 1] += points[:, 0].square()  # what a coupling can undo
    sizes = []
    for sparsity in (0.0, 10.0):
        training = DensityTraining(steps=100, rate=2e-2, sparsity=sparsity)
        sizes.append(float(train_density(points, DensityShape(2, 2, 2, (16,)), training).density.coupling_size()))
    assert sizes[1] < 0.4 * sizes[0]


def test_progress_and_history_tell_the_same():
    told = []
    fit = train_density(normals(100), SHAPE, SMALL, progress=lambda *row: told.append(row))
    assert torch.equal(torch.tensor(told, dtype=torch.float64), fit.history)
    silent = train_density(normals(100), SHAPE, DensityTraining(steps=5, held_out=0.0))
    assert silent.history[:, 0].tolist() == [5.0] and silent.history[0, 2].isnan()
    assert not fit.density.log_density(normals(3)).requires_grad


@pytest.mark.parametrize("change", ["points", "shape", "training"])
def test_the_checkpoint_of_another_training_is_refused(change):
    state = train_density(normals(100), SHAPE, SMALL).state
    points = normals(100) * (1.001 if change == "points" else 1)
    shape = DensityShape(2, 7, 2, (8,)) if change == "shape" else SHAPE
    training = DensityTraining(steps=40, batch=64, every=10, seed=6) if change == "training" else SMALL
    with pytest.raises(ValueError, match="expected the checkpoint of this training, got one of other points"):
        train_density(points, shape, training, state=state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: train_density(normals(1), SHAPE), r"expected points \[2 or more, 2\], got \[1, 2\]"),
        (lambda: train_density(normals(9, 3), SHAPE), r"expected points \[2 or more, 2\], got \[9, 3\]"),
        (lambda: train_density(normals(9) / 0, SHAPE), "row 0 has NaN or infinite numbers"),
        (lambda: DensityTraining(steps=0), "expected steps in"),
        (lambda: DensityTraining(held_out=1.0), "expected held_out in"),
        (lambda: DensityTraining(deviation=0.0), "expected a positive deviation"),
        (lambda: DensityTraining(likelihood=0.0), "expected a weight above 0 for likelihood or matching"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_types_and_divergence_are_refused():
    with pytest.raises(TypeError, match=r"expected float32 or float64 points, got torch\.int64"):
        train_density(torch.zeros(9, 2, dtype=torch.int64), SHAPE)
    with pytest.raises(FloatingPointError, match="take a smaller rate"):
        train_density(normals(99), SHAPE, DensityTraining(steps=40, rate=1e30, every=10))
