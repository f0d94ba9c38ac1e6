import math

import pytest
import torch

from eqflow.score import DenoiserShape, DenoiserTraining, Mixture, train_denoiser

MEANS, VARIANCE = torch.tensor([[-0.9, 0.0], [0.9, 0.3]]), 0.25
SMALL = DenoiserTraining(steps=40, batch=64, every=10, seed=5)


def normals(count, dimension=2):
    return torch.randn(count, dimension, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("predicts, alpha", [("v", None), ("v", 0.95), ("epsilon", 0.95), ("x0", 0.95)])
def test_the_score_of_a_mixture_is_learned(predicts, alpha):
    shape = DenoiserShape(2, (32, 32), predicts=predicts, alpha=alpha, frequencies=1)
    points = Mixture(MEANS, VARIANCE).sample(20_000, seed=1)
    fit = train_denoiser(points, shape, DenoiserTraining(steps=250, batch=256, rate=2e-2))
    exact = Mixture(math.sqrt(0.95) * MEANS, 0.95 * VARIANCE + 0.05)
    state = exact.sample(4000, seed=2)
    expected, found = exact(state), fit.denoiser.at(0.95)(state)
    cosine = float((expected * found).sum() / expected.norm() / found.norm())
    assert cosine > 0.95


@pytest.mark.parametrize("predicts, least", [("epsilon", 0.9), ("x0", 0.1), ("v", 1.0)])
def test_the_held_out_loss_comes_down_to_the_conditional_variance(predicts, least):
    # Of data N(0, I): Var(epsilon | y) = alpha, Var(x0 | y) = 1 - alpha, and v and y are independent.
    shape = DenoiserShape(2, (32,), predicts=predicts, alpha=0.9, frequencies=0)
    fit = train_denoiser(normals(40_000), shape, DenoiserTraining(steps=250, batch=256, rate=2e-2))
    step, training, held_out = fit.history[-1].tolist()
    assert step == 250
    assert held_out == pytest.approx(least, rel=4 * math.sqrt(2 / 8192) + 0.01)  # 4096 rows of two numbers
    assert training == pytest.approx(held_out, rel=0.08)


def test_points_kept_apart_are_not_learned():
    training = DenoiserTraining(steps=400, batch=32, rate=1e-2, held_out=0.5)
    history = train_denoiser(normals(10), DenoiserShape(2, (32, 32), alpha=0.99), training).history
    assert history[-1, 2] > 3 * history[-1, 1]


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_resumed_training_has_the_bits_of_the_undisturbed_one(average):
    points, shape = normals(300), DenoiserShape(2, (16, 16))
    training = DenoiserTraining(steps=40, batch=32, every=10, seed=5, average=average, weight_decay=1e-3)
    saved = []
    whole = train_denoiser(points, shape, training, save=saved.append)
    assert [int(state["step"]) for state in saved] == [10, 20, 30, 40]
    for state in saved:
        torch.manual_seed(int(state["step"]))  # the state of other generators does not count
        resumed = train_denoiser(points, shape, training, state=state)
        assert resumed.state.keys() == whole.state.keys()
        assert all(torch.equal(resumed.state[name], whole.state[name]) for name in whole.state)
        assert torch.equal(resumed.history, whole.history)
        assert torch.equal(resumed.denoiser.at(0.9)(points), whole.denoiser.at(0.9)(points))


def test_training_leaves_the_generator_of_torch_alone():
    before = torch.random.get_rng_state()
    train_denoiser(normals(100), DenoiserShape(2, (8,)), SMALL)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_seed_decides():
    first, again, other = (
        train_denoiser(normals(100), DenoiserShape(2, (8,)), DenoiserTraining(steps=5, batch=16, seed=seed)).history
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_average_of_the_parameters_is_kept():
    saved = []
    training = DenoiserTraining(steps=3, batch=32, every=1, average=0.8)
    fit = train_denoiser(normals(100), DenoiserShape(2, (8,)), training, save=saved.append)
    one, two, three = (state["denoiser.layers.0.weight"] for state in saved)
    expected = 0.8 * (0.8 * one + 0.2 * two) + 0.2 * three
    torch.testing.assert_close(fit.denoiser.layers[0].weight, expected, rtol=1e-6, atol=1e-7)


def test_progress_and_history_tell_the_same():
    told = []
    fit = train_denoiser(normals(100), DenoiserShape(2, (8,)), SMALL, progress=lambda *row: told.append(row))
    assert torch.equal(torch.tensor(told, dtype=torch.float64), fit.history)
    silent = train_denoiser(normals(100), DenoiserShape(2, (8,)), DenoiserTraining(steps=5, held_out=0.0))
    assert silent.history[:, 0].tolist() == [5.0] and silent.history[0, 2].isnan()
    few = train_denoiser(normals(2), DenoiserShape(2, (8,)), DenoiserTraining(steps=5, held_out=0.9))
    assert few.history.isfinite().all()  # one point is left to learn from


def test_the_released_protocol():
    training = DenoiserTraining.released(50_000)
    assert (training.steps, training.batch, training.rate, training.anneal) == (12_800, 2048, 1e-2, False)


def test_a_trained_denoiser_is_differentiable_in_the_state_only():
    fit = train_denoiser(normals(100), DenoiserShape(2, (8,)), SMALL)
    state = normals(4).requires_grad_()
    assert fit.denoiser.at(0.9)(state).requires_grad
    assert not fit.denoiser.at(0.9)(state.detach()).requires_grad


@pytest.mark.parametrize("change", ["points", "shape", "training"])
def test_the_checkpoint_of_another_training_is_refused(change):
    state = train_denoiser(normals(100), DenoiserShape(2, (8,)), SMALL).state
    points = normals(100) * (1.001 if change == "points" else 1)
    shape = DenoiserShape(2, (8,), predicts="x0" if change == "shape" else "v")
    training = DenoiserTraining(steps=40, batch=64, every=10, seed=6) if change == "training" else SMALL
    with pytest.raises(ValueError, match="expected the checkpoint of this training, got one of other points"):
        train_denoiser(points, shape, training, state=state)


def test_points_that_are_not_standardised_draw_a_warning():
    with pytest.warns(UserWarning, match=r"standard deviations from 0\.\d+ to 104: subtract the mean"):
        train_denoiser(normals(100) * torch.tensor([1.0, 100.0]), DenoiserShape(2, (8,)), SMALL)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: train_denoiser(normals(1), DenoiserShape(2)), r"expected points \[2 or more, 2\], got \[1, 2\]"),
        (lambda: train_denoiser(normals(9), DenoiserShape(3)), r"expected points \[2 or more, 3\], got \[9, 2\]"),
        (lambda: train_denoiser(normals(9) / 0, DenoiserShape(2)), "row 0 has NaN or infinite numbers"),
        (lambda: DenoiserTraining(steps=0), "expected steps in"),
        (lambda: DenoiserTraining(held_out=1.0), "expected held_out in"),
        (lambda: DenoiserTraining(average=1.0), r"expected average in \(0, 1\)"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrong_types_and_divergence_are_refused():
    with pytest.raises(TypeError, match=r"expected float32 points, got torch\.float64"):
        train_denoiser(normals(9).double(), DenoiserShape(2))
    with pytest.raises(FloatingPointError, match="take a smaller rate"):
        train_denoiser(normals(99), DenoiserShape(2, (8,)), DenoiserTraining(steps=40, rate=1e30, every=10))
