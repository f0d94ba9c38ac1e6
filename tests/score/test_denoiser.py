import math

import pytest
import torch

from eqflow.ops.mlp import MLP
from eqflow.score import (
    ContinuousSchedule,
    CosineSchedule,
    Denoiser,
    DenoiserScore,
    DenoiserShape,
    LinearSchedule,
    Score,
)

DOUBLE = torch.float64
PREDICTIONS = ("epsilon", "x0", "v")


def states(count=7, dimension=2, dtype=torch.float32):
    return torch.randn(count, dimension, dtype=dtype, generator=torch.Generator().manual_seed(0))


class ExactGaussian(Denoiser):
    """The conditional mean of its target for data N(0, covariance): what perfect training would give."""

    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=DOUBLE)

    def precision(self, alpha):
        return torch.linalg.inv(alpha * self.covariance + (1 - alpha) * torch.eye(2, dtype=DOUBLE))

    def forward(self, state, tau):
        alpha = self.shape.schedule.alpha(tau.item())
        clean = math.sqrt(alpha) * state @ self.precision(alpha) @ self.covariance
        epsilon = (state - math.sqrt(alpha) * clean) / math.sqrt(1 - alpha)
        v = math.sqrt(alpha) * epsilon - math.sqrt(1 - alpha) * clean
        return {"epsilon": epsilon, "x0": clean, "v": v}[self.shape.predicts]


@pytest.mark.parametrize("alpha", [0.4, 0.95])
@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_every_prediction_folds_to_the_same_score(predicts, alpha):
    denoiser = ExactGaussian(DenoiserShape(2, predicts=predicts)).double()
    score, state = denoiser.at(alpha), states(dtype=DOUBLE)
    torch.testing.assert_close(score(state), -state @ denoiser.precision(alpha), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("predicts", PREDICTIONS)
def test_a_denoiser_keeps_the_contract_of_scores(predicts):
    score, state = Denoiser(DenoiserShape(2, predicts=predicts)).at(0.9), states()
    assert isinstance(score, Score) and isinstance(score, DenoiserScore)
    assert (score.alpha, score.predicts, score.dimension) == (0.9, predicts, 2)
    expected = score.state_scale * state + score.output_scale * score.output(state)
    torch.testing.assert_close(score(state), expected, rtol=0, atol=0)
    field = state.view(7, 2, 1, 1)
    assert torch.equal(score(field), score(state).view_as(field))


def test_the_first_layer_sees_state_encoding_and_time():
    shape = DenoiserShape(1, (3,), frequencies=1, time_frequencies=1)
    denoiser, seen = Denoiser(shape), []
    denoiser.layers[0].register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    denoiser(torch.tensor([[0.3], [0.4]]), torch.tensor([0.2, 0.5]))
    rows = [
        [x, math.sin(x), math.cos(x), t, math.sin(math.pi * t), math.cos(math.pi * t)]
        for x, t in ((0.3, 0.2), (0.4, 0.5))
    ]
    torch.testing.assert_close(seen[0], torch.tensor(rows))
    assert DenoiserShape(3, frequencies=2).inputs == 3 * 5 + 9


def test_the_score_changes_with_alpha_through_the_time():
    denoiser = Denoiser(DenoiserShape(2))
    assert not torch.equal(denoiser.at(0.95).output(states()), denoiser.at(0.5).output(states()))


def test_the_released_network():
    denoiser = Denoiser(DenoiserShape.released(3))
    assert [tuple(p.shape) for p in denoiser.parameters()] == [(64, 4), (64,), (64, 64), (64,), (3, 64), (3,)]
    for parameter in denoiser.parameters():
        parameter.data.zero_()
    score, state = denoiser.at(CosineSchedule().alpha(0.2)), states(dimension=3)
    assert torch.equal(score.output(state), state)  # the skip
    torch.testing.assert_close(score(state), -state / math.sqrt(1 - 0.9110146), rtol=1e-6, atol=0)


def test_initial_weights_are_uniform_and_functions_of_the_seed():
    first, again, other = (Denoiser(DenoiserShape(2), seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)
    weight, bound = first.layers[2].weight, 1 / math.sqrt(128)
    assert 0.99 * bound < weight.abs().max() <= bound
    assert abs(weight.std() / bound - 1 / math.sqrt(3)) < 0.01
    flow = MLP(2, (128,)).initial(1, seed=1)[0, :256] * math.sqrt(2)
    flat = first.layers[0].weight.flatten()[:256] * math.sqrt(first.shape.inputs)
    assert torch.corrcoef(torch.stack([flow, flat.detach()]))[0, 1].abs() < 0.25


@pytest.mark.parametrize(
    "shape",
    [
        DenoiserShape(2),
        DenoiserShape.released(3),
        DenoiserShape(2, (8, 9), predicts="x0", schedule=LinearSchedule(50), skip=True),
        DenoiserShape(1, alpha=0.9, schedule=ContinuousSchedule(0.1, 2.0)),
    ],
)
def test_a_denoiser_comes_back_from_plain_values_and_tensors(shape):
    denoiser = Denoiser(shape, seed=3)
    assert DenoiserShape.from_config(shape.config()) == shape
    copy = Denoiser(DenoiserShape.from_config(shape.config()))
    copy.load_state_dict(denoiser.state_dict())
    state = states(dimension=shape.dimension)
    assert torch.equal(copy.at(0.9)(state), denoiser.at(0.9)(state))


def test_scores_move_between_precisions():
    score, state = Denoiser(DenoiserShape(2)).at(0.95), states()
    higher = score.to(DOUBLE)
    torch.testing.assert_close(higher(state.double()).float(), score(state), rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match=r"expected a torch\.float64 state.*use score\.to"):
        higher(state)
    assert score(state).dtype == torch.float32  # the one it came from did not move


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DenoiserShape(0), "dimension=0"),
        (lambda: DenoiserShape(2, predicts="score"), "expected predicts 'epsilon', 'x0', 'v', got 'score'"),
        (lambda: DenoiserShape(2, activation="gelu"), "expected activation 'silu', 'relu', got 'gelu'"),
        (lambda: DenoiserShape(2, alpha=1.0), r"expected alpha in \(0, 1\)"),
        (lambda: DenoiserShape(2, time_frequencies=-1), "time_frequencies from 0 up, got -1"),
        (lambda: Denoiser(DenoiserShape(2)).at(0.2), r"expected alpha from 0\.3004 up, the end of the schedule"),
        (lambda: Denoiser(DenoiserShape(2)).at(1.0), r"expected alpha in \(0, 1\)"),
        (lambda: Denoiser(DenoiserShape(2, alpha=0.9)).at(0.95), r"expected alpha=0\.9, the one level"),
        (lambda: Denoiser(DenoiserShape(2)).at(0.9)(states(dimension=3)), r"of 2 numbers a sample, got \[7, 3\]"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
