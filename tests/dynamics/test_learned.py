import json
import math

import pytest
import torch

from eqflow.dynamics import FlowSettings, LearnedFlow, fit_flow, rollout
from eqflow.score import Gaussian

FLIP = torch.tensor([-1.0, -1.0, 1.0])
SMALL = FlowSettings(hidden=(16, 16), frequencies=1, steps=12, rows=64)
OBJECTIVES = [("expected", 8), ("sampled", 2), ("exact", 1), ("product", 2)]


def gaussian(dimension=3, rows=2000):
    density = Gaussian(torch.zeros(dimension), 1.0)
    points = density.sample(rows, seed=0)
    return points, density(points)


def cosine(a, b):
    return float((a * b).sum() / (a.norm() * b.norm()))


@pytest.mark.parametrize("norm", ["scalar", "per-coordinate"])
@pytest.mark.parametrize("objective, probes", OBJECTIVES)
def test_mean_and_scale_over_the_pool(objective, probes, norm):
    points, scores = gaussian()
    settings = FlowSettings(objective, probes, norm=norm, hidden=(8,), frequencies=0, steps=3, rows=32)
    velocity = fit_flow(points, scores, settings, models=2).velocities(points).double()
    assert velocity.mean(1).abs().max() < 1e-5
    square = velocity.square().mean(1)
    expected = torch.full((2,), 3.0).double()
    torch.testing.assert_close(square.sum(1), expected, rtol=1e-5, atol=0)
    if norm == "per-coordinate":
        torch.testing.assert_close(square, torch.ones_like(square), rtol=1e-5, atol=0)


def test_derivatives_are_those_of_autograd_on_the_whole_flow():
    points, scores = gaussian(rows=300)
    flow = fit_flow(points, scores, SMALL, models=2)
    state = points[:7].double()
    for model in (flow[0], flow[1]):
        jacobian = torch.func.vmap(torch.func.jacrev(lambda x, model=model: model.velocity(x[None])[0]))(state)
        torch.testing.assert_close(model.jacobian(state), jacobian, rtol=1e-11, atol=1e-11)
        trace = jacobian.diagonal(dim1=1, dim2=2).sum(1)
        torch.testing.assert_close(model.divergence(state), trace, rtol=1e-11, atol=1e-11)
    found = flow.derivatives(state)
    torch.testing.assert_close(found.velocity, flow.velocities(state))
    assert found.divergence.shape == found.strain.shape == (2, 7)


def test_training_lowers_the_loss_and_finds_the_turning_of_a_round_gaussian():
    """On the plane, where that is the only flow."""
    points, scores = gaussian(2)
    flow = fit_flow(points, scores, FlowSettings(hidden=(32, 32), frequencies=0, steps=300, rows=256, rate=1e-2))
    tangent = torch.stack([-points[:, 1], points[:, 0]], 1)
    assert cosine(flow.velocity(points), tangent) > 0.99  # counterclockwise, by convention
    assert flow.losses[0, -20:].mean() < 0.1 * flow.losses[0, :5].mean()


def test_models_do_not_depend_on_their_company():
    points, scores = gaussian()
    together = fit_flow(points, scores, SMALL, models=3, seed=5)
    for index in range(3):
        alone = fit_flow(points, scores, SMALL, first_model=index, seed=5)
        torch.testing.assert_close(alone.velocities(points)[0], together[index].velocity(points), rtol=1e-3, atol=1e-3)
        assert torch.equal(alone.losses[0], together.losses[index])
    assert abs(cosine(*together[:2].velocities(points))) < 0.999


@pytest.mark.parametrize("signs", [None, FLIP])
def test_a_training_goes_on_to_the_same_bits(signs):
    points, scores = gaussian()
    states, seen = [], []
    options = {"models": 2, "signs": signs, "seed": 3}
    whole = fit_flow(points, scores, SMALL, **options)
    parts = fit_flow(
        points, scores, SMALL, **options, every=5, save=states.append, progress=lambda *row: seen.append(row)
    )
    assert [step for step, _ in seen] == [5, 10, 12] and seen[0][1].shape == (2,)
    assert torch.equal(whole.parameters, parts.parameters)
    for state in states:
        again = fit_flow(points, scores, SMALL, **options, state=state)
        assert torch.equal(again.parameters, whole.parameters) and torch.equal(again.losses, whole.losses)
    with pytest.raises(ValueError, match="expected a checkpoint of this training"):
        fit_flow(points, scores, SMALL, **{**options, "seed": 4}, state=states[0])
    with pytest.raises(ValueError, match="expected a checkpoint of this training"):
        fit_flow(points, 2 * scores, SMALL, **options, state=states[0])


@pytest.mark.parametrize("parity", ["even", "odd"])
def test_a_symmetry_is_kept_through_training_and_calibration(parity):
    points, scores = gaussian()
    flow = fit_flow(points, scores, SMALL, models=2, signs=FLIP, parity=parity)
    outward = FLIP if parity == "even" else -FLIP
    state = points[:50].double()
    torch.testing.assert_close(flow.velocities(state * FLIP), outward * flow.velocities(state), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(
        flow.velocities(points).square().mean(1).sum(-1), torch.full((2,), 3.0), rtol=1e-2, atol=0
    )


def test_flows_are_chosen_reversed_moved_and_saved():
    points, _ = gaussian(rows=40)
    flow = LearnedFlow.random(3, SMALL, models=4, seed=2)
    velocities = flow.velocities(points)
    assert len(flow[1:3]) == 2 and torch.equal(flow[-1].velocities(points), velocities[3:])
    torch.testing.assert_close(flow.reversed().velocities(points), -velocities)
    other = LearnedFlow.from_state_dict(json.loads(json.dumps(flow.config())), flow.state_dict())
    assert torch.equal(other.velocities(points), velocities)
    assert torch.equal(flow.to("cpu").parameters, flow.parameters)
    torch.testing.assert_close(flow[2].calibrated(points).velocity(points).square().sum(1).mean(), torch.tensor(3.0))
    part = LearnedFlow.random(3, SMALL, models=2, first_model=2, seed=2)
    assert torch.equal(part.parameters, flow.parameters[2:])
    with pytest.raises(ValueError, match=r"expected one model, got 4: choose one, flow\[0\]"):
        flow.velocity(points)
    with pytest.raises(IndexError, match="expected a model below 4, got 4"):
        flow[4]


def test_a_flow_is_followed_by_a_rollout():
    points, scores = gaussian(2, rows=500)
    settings = FlowSettings(hidden=(32, 32), frequencies=0, steps=200, rows=128, rate=1e-2)
    flow = fit_flow(points, scores, settings)
    end = rollout(points, flow, 50, dt=0.1).state
    back = rollout(end, flow.reversed(), 50, dt=0.1).state
    torch.testing.assert_close(back, points, rtol=1e-3, atol=1e-3)
    assert float(end.square().mean()) == pytest.approx(float(points.square().mean()), rel=0.05)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"objective": "mean"}, "expected objective 'exact', 'expected', 'sampled', 'product', got 'mean'"),
        ({"law": "uniform"}, "expected law 'gaussian', 'rademacher', got 'uniform'"),
        ({"norm": "none"}, "expected norm 'scalar', 'per-coordinate', got 'none'"),
        ({"objective": "product", "probes": 1}, "expected 2 probes or more for 'product'.*got 1"),
        ({"rows": 1}, "expected 2 rows or more, whose mean and scale normalise the output, got 1"),
        ({"steps": 0}, "expected finite steps from 1 up, got 0"),
        ({"rate": math.nan}, "expected finite rate"),
    ],
)
def test_wrong_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FlowSettings(**options)


def test_protocols():
    released = FlowSettings.released()
    assert (released.steps, released.rows, released.probes, released.hidden) == (12_800, 2048, 10, (64, 64))
    assert FlowSettings.paper().norm == "per-coordinate" and FlowSettings.paper().frequencies == 5


def test_wrong_pairs_are_refused():
    points, scores = gaussian()
    for wrong, message in (
        ((points[:, 0], scores[:, 0]), r"expected points and scores \[2 or more, dimension\]"),
        ((points, scores[:5]), r"got \[2000, 3\] and \[5, 3\]"),
        ((points / 0, scores), "expected finite points"),
        ((points * torch.tensor([1.0, 1.0, 0.0]), scores), "coordinate 2 is constant"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_flow(*wrong)
    with pytest.raises(TypeError, match=r"expected float32 scores, got torch\.float64"):
        fit_flow(points, scores.double(), SMALL)
    with pytest.raises(ValueError, match="expected models and every from 1 up, got 0 and 50"):
        fit_flow(points, scores, SMALL, models=0)
    with pytest.raises(FloatingPointError, match="the loss of model 0 is not finite near step 0: take a smaller rate"):
        fit_flow(points, scores, FlowSettings(hidden=(16, 16), steps=30, rows=64, rate=1e30))


@pytest.mark.parametrize("scale", [[1.0, 1.0, 4.0], [9.0, 9.0, 9.0]])
def test_points_that_are_not_standardised_bring_a_warning(scale):
    points, scores = gaussian()
    with pytest.warns(UserWarning, match="expected standardised points"):
        fit_flow(points * torch.tensor(scale), scores / torch.tensor(scale), FlowSettings(hidden=(8,), steps=1, rows=8))


def test_a_flow_at_rest_cannot_be_scaled():
    flow = LearnedFlow.random(2, FlowSettings(hidden=(4,)), seed=0)
    still = LearnedFlow(flow.network, torch.zeros_like(flow.parameters))
    with pytest.raises(ValueError, match="expected a flow that moves, but model 0 is at rest"):
        still.calibrated(torch.randn(10, 2))
    with pytest.raises(ValueError, match=r"expected parameters \[models, \d+\] of a network with an output bias"):
        LearnedFlow(flow.network, torch.zeros(1, 3))
