import json
import math

import pytest
import torch

from eqflow.score import LinearSchedule, PatternDenoiser, PatternScore, PatternShape, Score
from eqflow.score.pattern_shape import ALPHA

SMALL = {"width": 6, "dilations": (1, 1), "first": 3}
MEAN, STD = [0.3, -0.7], [0.5, 0.2]


def denoiser(seed=1, **changes):
    """One whose last layer is not zero."""
    made = PatternDenoiser(PatternShape(**{**SMALL, **changes}), MEAN, STD, seed=seed)
    torch.nn.init.normal_(made.network.leave.weight, std=0.3, generator=torch.Generator().manual_seed(seed))
    return made.requires_grad_(False)


def fields(count=2, size=12, seed=0):
    mean, std = (torch.tensor(values).view(2, 1, 1) for values in (MEAN, STD))
    return mean + std * torch.randn(count, 2, size, size, generator=torch.Generator().manual_seed(seed))


def test_the_level_is_that_at_which_the_paper_rolls_out():
    assert pytest.approx(0.94478, abs=1e-5) == ALPHA == LinearSchedule().alpha(0.1)
    assert denoiser().sigma == pytest.approx(0.24176, abs=1e-5)


def test_untrained_it_is_the_best_of_one_number_a_channel():
    made = PatternDenoiser(PatternShape(**SMALL), MEAN, STD)
    mean, std = (torch.tensor(values).view(2, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close(made(fields()), mean + std**2 / (std**2 + made.sigma**2) * (fields() - mean))


def test_the_constants_are_those_of_karras_et_al_2022():
    """Table 1, channel by channel, with t = std^2 + sigma^2."""
    mean, std, sigma, total = torch.tensor(MEAN), torch.tensor(STD), 0.3, torch.tensor(STD) ** 2 + 0.3**2
    expected = mean, std**2 / total, sigma * std / total.sqrt(), 1 / total.sqrt()
    for found, value in zip(denoiser().constants(sigma), expected, strict=True):
        torch.testing.assert_close(found.flatten(), value)


def test_the_network_sees_and_estimates_numbers_of_unit_variance():
    """Karras et al. 2022, table 1, channel by channel: c_in y and (x_0 - mean - c_skip z) / c_out."""
    made, clean = denoiser(), fields(400)
    noised = clean + made.sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(9))
    mean, skip, out, scale = made.constants(made.sigma)
    for values in (scale * (noised - mean), (clean - mean - skip * (noised - mean)) / out):
        torch.testing.assert_close(values.std((0, 2, 3)), torch.ones(2), rtol=0.02, atol=0)
        torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(2), rtol=0, atol=0.02)


def test_v_is_the_same_with_mean_0_and_deviation_1():
    plain = PatternDenoiser(PatternShape(**SMALL), [0.0, 0.0], [1.0, 1.0])
    v = denoiser(precondition="v")
    for one, other in zip(plain.constants(0.3), v.constants(0.3), strict=True):
        assert torch.equal(one, other)
    # In the coordinates of the paper: x_0 = sqrt(alpha) x - sqrt(1 - alpha) v.
    field, alpha = fields(), v.shape.alpha
    state = math.sqrt(alpha) * field
    paper = math.sqrt(alpha) * state + math.sqrt(1 - alpha) * v.network_output(field, v.sigma)
    torch.testing.assert_close(v(field), paper, rtol=1e-5, atol=1e-5)


def test_x0_is_the_network_itself():
    made = denoiser(precondition="x0")
    torch.testing.assert_close(made(fields()), made.network_output(fields(), made.sigma))
    torch.testing.assert_close(made.constants(2.0)[3].flatten(), torch.full((2,), 5**-0.5))


@pytest.mark.parametrize("precondition", ["edm", "v", "x0"])
def test_the_score_folds_and_is_that_of_the_denoiser_in_both_coordinates(precondition):
    made = denoiser(precondition=precondition).double()
    score, noised = made.at(), fields().double()
    state = math.sqrt(score.alpha) * noised
    assert isinstance(score, Score) and score.predicts == "x0"
    clean = made(noised)
    torch.testing.assert_close(score.output(state), clean)
    torch.testing.assert_close(score(state), (math.sqrt(score.alpha) * clean - state) / (1 - score.alpha))
    torch.testing.assert_close(math.sqrt(score.alpha) * score(state), (clean - noised) / score.sigma**2)


def test_one_level_knows_no_other_and_every_level_wants_one():
    with pytest.raises(ValueError, match=r"expected alpha=0.94478, the one level .* got 0.5"):
        denoiser().at(0.5)
    every = denoiser(alpha=None)
    assert every.sigma is None and every.at(0.5).sigma == 1
    with pytest.raises(ValueError, match="expected sigma, since"):
        every(fields())
    with pytest.raises(ValueError, match="expected alpha, since"):
        every.at()
    two = every(fields(), torch.tensor([0.1, 0.9]))
    one_by_one = torch.cat([every(fields()[:1], 0.1), every(fields()[1:], 0.9)])
    torch.testing.assert_close(two, one_by_one)
    assert not torch.allclose(every(fields(), 0.1), every(fields(), 0.9))


def asymmetry(made, dtype, size=6):
    """The largest |J - J^T| over the largest |J|, of the whole Jacobian."""
    made, field = made.to(dtype), fields(1, size).to(dtype)
    dense = torch.autograd.functional.jacobian(made, field).view(2 * size**2, 2 * size**2)
    return float((dense - dense.T).abs().max() / dense.abs().max())


def test_a_conservative_denoiser_has_a_symmetric_jacobian_and_a_plain_one_has_not():
    assert asymmetry(denoiser(conservative=True), torch.float64) < 1e-10
    assert asymmetry(denoiser(conservative=True), torch.float32) < 1e-4
    assert asymmetry(denoiser(), torch.float64) > 0.05


def test_a_conservative_denoiser_is_trained_through_its_gradient():
    """The slope of a loss along the weights, against differences in float64."""
    made, field = denoiser(conservative=True).double().requires_grad_(), fields().double()
    made(field).square().mean().backward()
    slope, ends = sum(float(weight.grad.square().sum()) for weight in made.parameters()), []
    for step in (1e-6, -1e-6):
        moved = {name: weight.detach() + step * weight.grad for name, weight in made.named_parameters()}
        ends.append(float(torch.func.functional_call(made, moved, field).square().mean()))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-5)


def test_a_conservative_denoiser_in_use_keeps_no_graph():
    trained, field = denoiser(conservative=True).requires_grad_(), fields()
    expected = trained(field)
    assert expected.requires_grad and not denoiser(conservative=True)(field).requires_grad
    for guard in (torch.no_grad, torch.inference_mode):
        with guard():
            found = trained(fields())
        torch.testing.assert_close(found, expected.detach())
        assert not found.requires_grad
    assert not field.requires_grad


def test_weights_are_those_of_the_seed_and_take_nothing_from_the_caller():
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    made = [PatternDenoiser(PatternShape(**SMALL), MEAN, STD, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(2), expected)
    first, same, other = (one.network.enter.weight for one in made)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert made[0].network.leave.weight.abs().max() == 0


def test_noise_belongs_to_the_sample_and_has_its_variance():
    score, clean = denoiser().at(), fields(60)
    noised = score.noised(clean, seed=2)
    assert torch.equal(noised[40:], score.noised(clean[40:], seed=2, first_sample=40))
    rest = (noised - math.sqrt(score.alpha) * clean) / math.sqrt(1 - score.alpha)
    assert abs(float(rest.var()) - 1) < 0.03 and abs(float(rest.mean())) < 4 / math.sqrt(rest.numel())


def test_clipping_clamps_and_its_difference_shows():
    state, clipped, free = 2 * fields(), denoiser().at(clip=True), denoiser().at()
    assert clipped.output(state).abs().max() == 1 and free.output(state).abs().max() > 1
    assert not torch.allclose(clipped(state), free(state))


def test_a_score_moves_to_another_precision_or_layout_and_leaves_the_first_alone():
    score = denoiser().at()
    assert score.to(torch.float64).output(fields().double()).dtype == torch.float64
    assert score.output(fields()).dtype == torch.float32
    last = score.to(memory_format=torch.channels_last)
    assert last.denoiser.network.blocks[0].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last.output(fields()), score.output(fields()))


def test_plain_values_bring_the_shape_back():
    shape = PatternShape(3, dilations=(1, 2), conservative=True, alpha=None)
    assert PatternShape.from_config(json.loads(json.dumps(shape.config()))) == shape


@pytest.mark.parametrize(
    "changes, words",
    [({"channels": 0}, "channels and width from 1 up"), ({"network": "vit"}, "network 'local' or 'unet'"),
     ({"first": 4}, "first odd"), ({"dilations": ()}, "dilations from 1 up"), ({"dilations": (0,)}, "dilations"),
     ({"alpha": 1.0}, r"alpha in \(0, 1\)"), ({"precondition": "epsilon"}, "precondition 'edm' or 'v' or 'x0'")],
)  # fmt: skip
def test_a_shape_out_of_range_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        PatternShape(**changes)


@pytest.mark.parametrize(
    "mean, std, words",
    [([0.0], STD, "mean of 2 finite numbers"), (MEAN, [0.0, 1.0], "a constant channel has nothing to learn"),
     ([math.nan, 0.0], STD, "mean of 2 finite numbers")],
)  # fmt: skip
def test_statistics_that_cannot_be_are_refused(mean, std, words):
    with pytest.raises(ValueError, match=words):
        PatternDenoiser(PatternShape(**SMALL), mean, std)


def test_fields_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"expected fields \[batch, 2, height, width\] .* got \[1, 3, 8, 8\]"):
        denoiser()(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="expected alpha"):
        PatternScore(denoiser(), 1.5)
