import itertools
import math

import pytest
import torch

from eqflow import ops
from eqflow.ops import MLP
from eqflow.ops.divergence import LAWS, draw_probes
from eqflow.ops.flow_loss import NORMS, OBJECTIVES, minibatch, reference_loss

NETWORKS = [
    MLP(3, (64, 64), output_bias=False),
    MLP(2, (5,)),
    MLP(3, (32, 20, 17), frequencies=2, output_bias=False),
    MLP(5, (9, 30), frequencies=1),
]
OPTIONS = list(itertools.product(OBJECTIVES, NORMS, LAWS))


def problem(network, rows, models=2, dtype=torch.float32):
    """Points and scores [models, rows, dimension], and parameters."""
    generator = torch.Generator().manual_seed(rows)
    points, scores = torch.randn(2, models, rows, network.dimension, generator=generator)
    return points.to(dtype), scores.to(dtype), network.initial(models, seed=1).to(dtype)


def doubles(*tensors):
    return [tensor.double() for tensor in tensors]


def require_close(ours, exact, tolerance):
    assert ours.shape == exact.shape and ours.dtype == torch.float32
    assert (ours - exact).abs().max() <= tolerance * exact.abs().max()


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_every_instruction_set_agrees_with_the_reference(isa, network):
    for rows, (objective, norm, law) in zip(itertools.cycle([49, 131, 2]), OPTIONS, strict=False):
        if rows == 2 and norm != "none":  # the two velocities are opposite, and nearly all cancels
            continue
        tensors = problem(network, rows)
        options = dict(objective=objective, norm=norm, law=law, probes=3, seed=2**63 + 5, step=2**33, first_model=7)
        ours = ops.flow_loss(*tensors, network, **options)
        exact = ops.flow_loss(*doubles(*tensors), network, **options)
        for part, truth in zip(ours, exact, strict=True):
            require_close(part, truth, 2e-5) if truth.any() else torch.testing.assert_close(part, truth.float())
        shared = ops.flow_loss(tensors[0][0], tensors[1][0], tensors[2], network, **options)
        assert torch.equal(shared.gradient[0], ours.gradient[0]) and torch.equal(shared.loss[0], ours.loss[0])


@pytest.mark.parametrize("objective, norm, law", OPTIONS[::5])
def test_gradients_of_the_reference(objective, norm, law):
    network = MLP(2, (4, 3))
    points, scores, parameters = problem(network, 4, dtype=torch.float64)

    def loss(weights):
        return reference_loss(points, scores, weights, network, objective, 2, law, norm, 0, 0, 0)

    assert torch.autograd.gradcheck(loss, parameters.requires_grad_())


def test_a_normalised_loss_knows_neither_shift_nor_scale_of_the_output():
    network = MLP(3, (30, 20), frequencies=1)
    points, scores, parameters = problem(network, 200)
    last, bias = network.layers(parameters)[-1]
    last.mul_(10.0)  # what is added to the variance is little beside it
    changed = parameters.clone()
    new_last, new_bias = network.layers(changed)[-1]
    new_last.mul_(torch.tensor([3.0, 5.0, 40.0])[:, None])
    new_bias.add_(2.0)
    for objective in OBJECTIVES:
        options = dict(objective=objective, probes=4, norm="per-coordinate")
        ours = ops.flow_loss(points, scores, parameters, network, **options)
        torch.testing.assert_close(
            ops.flow_loss(points, scores, changed, network, **options).loss, ours.loss, rtol=2e-3, atol=0
        )
        gradient, by_bias = network.layers(ours.gradient)[-1]
        assert by_bias.abs().max() < 1e-4 * gradient.abs().max()
        assert ((gradient * last).sum(2).abs() < 2e-3 * gradient.norm(dim=2) * last.norm(dim=2)).all()
    assert bias.shape == (2, 3)


def test_outputs_that_hardly_differ_are_normalised_too(isa):
    network = MLP(1, (8, 8, 8, 8), frequencies=3)  # its output varies by 0.002 about -0.3
    tensors = problem(network, 101, models=3)
    ours, exact = ops.flow_loss(*tensors, network), ops.flow_loss(*doubles(*tensors), network)
    require_close(ours.gradient, exact.gradient, 2e-5)


def test_the_divergence_takes_the_statistics_as_constants_where_naive_differentiation_loses_it():
    network = MLP(3, (16, 16))
    points, scores, parameters = problem(network, 256, models=1, dtype=torch.float64)
    points = points[0].requires_grad_()
    output = network.velocity(points, parameters)[0]
    scale = (output.var(0, correction=0) + 1e-5).sqrt()

    def trace(velocity):  # the sum over the batch, differentiated: right only where rows do not see each other
        columns = [torch.autograd.grad(velocity[:, i].sum(), points, retain_graph=True)[0][:, i] for i in range(3)]
        return torch.stack(columns, 1).sum(1)

    frozen = trace(output / scale.detach())
    naive = trace((output - output.mean(0)) / scale)
    assert naive.square().mean().sqrt() < 1e-4 < 0.05 < frozen.square().mean().sqrt()
    velocity = ((output - output.mean(0)) / scale).detach()
    expected = (frozen + (velocity * scores[0]).sum(1)).square().mean()
    for dtype in (torch.float32, torch.float64):
        tensors = [tensor.detach().to(dtype) for tensor in (points, scores[0], parameters)]
        result = ops.flow_loss(*tensors, network, objective="exact", norm="per-coordinate")
        assert result.loss.item() == pytest.approx(expected.item(), rel=1e-5)
        torch.testing.assert_close(result.scale[0].double(), scale.detach(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("probes", [1, 2, 4])
def test_probes_inside_a_square_add_the_strain(law, probes):
    network, count = MLP(3, (16, 16)), 50_000
    point, score = torch.tensor([[0.3, -0.7, 1.1]]), torch.tensor([[1.0, 0.5, -2.0]])
    parameters = 3 * network.initial(1, seed=8)
    options = dict(law=law, probes=probes, norm="none")
    expected = ops.flow_loss(point, score, parameters, network, objective="expected", **options).loss.item()
    exact = ops.flow_loss(point, score, parameters, network, objective="exact", **options).loss.item()
    rows = point.expand(count, 3), score.expand(count, 3)
    sampled = ops.flow_loss(*rows, parameters, network, objective="sampled", seed=3, **options).loss.item()
    single = ops.mlp_divergence(point, parameters, network, method="tangents", strain=True, law=law)
    along = (single.velocity[0] * score).sum().item()
    assert exact == pytest.approx((single.divergence.item() + along) ** 2, rel=1e-4)
    assert expected == pytest.approx(exact + 2 / probes * single.strain.item(), rel=1e-4)
    estimates = ops.mlp_divergence(
        rows[0], parameters, network, method="probes", probes=probes, law=law, seed=3
    ).divergence[0].double()  # fmt: skip
    squares = (estimates + along).square()
    assert sampled == pytest.approx(squares.mean().item(), rel=1e-4)
    assert abs(sampled - expected) < 4 * squares.std().item() / math.sqrt(count)
    assert abs(sampled - exact) > 8 * squares.std().item() / math.sqrt(count)
    if probes > 1:
        product = ops.flow_loss(*rows, parameters, network, objective="product", seed=3, **options).loss.item()
        assert abs(product - exact) < 8 * squares.std().item() / math.sqrt(count)


def test_a_flow_that_keeps_the_density_has_no_loss():
    # SiLU(z) - SiLU(-z) = z, so a network can be the rotation, which keeps N(0, I) exactly.
    network = MLP(2, (4,), output_bias=False)
    hidden = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    last = torch.tensor([[0.0, 0, -1, 1], [1, -1, 0, 0]])
    parameters = torch.cat([hidden.flatten(), torch.zeros(4), last.flatten()])[None]
    points = torch.randn(500, 2, generator=torch.Generator().manual_seed(1))
    velocity = torch.stack([-points[:, 1], points[:, 0]], 1)
    torch.testing.assert_close(ops.mlp_divergence(points, parameters, network).velocity[0], velocity)
    for objective in OBJECTIVES:
        result = ops.flow_loss(points, -points, parameters, network, objective=objective, norm="none")
        assert objective == "sampled" or result.loss.abs() < 1e-10
        if objective in ("exact", "expected"):
            assert result.gradient.abs().max() < 1e-5


def pool(network, count=500):
    generator = torch.Generator().manual_seed(9)
    points = torch.randn(count, network.dimension, generator=generator)
    return points, -points + 0.3 * points.roll(1, 1)


@pytest.mark.parametrize("objective, norm, law", OPTIONS[::7])
@pytest.mark.parametrize("network", [NETWORKS[0], NETWORKS[2]], ids=str)
def test_training_agrees_with_the_reference(isa, network, objective, norm, law):
    points, scores = pool(network)
    parameters, rates = network.initial(2, seed=4), torch.linspace(1e-3, 2e-4, 12, dtype=torch.float64)
    options = dict(rates=rates, rows=100, first_step=3, objective=objective, norm=norm, law=law, probes=3, seed=6)
    options |= dict(weight_decay=1e-2, first_model=5)
    ours = ops.flow_train(points, scores, parameters, None, network, **options)
    exact = ops.flow_train(*doubles(points, scores, parameters), None, network, **options)
    torch.testing.assert_close(ours.losses, exact.losses.float(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours.losses[:, :3], exact.losses[:, :3].float(), rtol=1e-4, atol=1e-4)
    moved = (exact.parameters - parameters).norm()
    assert (ours.parameters - exact.parameters).norm() < 2e-2 * moved  # Adam turns small numbers into whole steps
    for a, b in zip(ours.moments, exact.moments, strict=True):
        assert (a - b).norm() < 2e-2 * b.norm()
    assert moved > 0.03 and torch.equal(parameters, network.initial(2, seed=4))


def test_the_reference_is_pytorchs_adam():
    network = MLP(2, (6, 5), frequencies=1)
    points, scores, parameters = doubles(*pool(network), network.initial(1, seed=4))
    rates = [1e-2 * 0.9**step for step in range(12)]
    ours = ops.flow_train(points, scores, parameters, None, network, rates=rates, rows=50, weight_decay=0.1, seed=2)
    weights = parameters.clone().requires_grad_()
    optimiser = torch.optim.Adam([weights], weight_decay=0.1)
    for step, rate in enumerate(rates):
        chosen = minibatch(50, 500, 1, seed=2, step=step, first_model=0, device="cpu")[0]
        loss, *_ = reference_loss(
            points[chosen], scores[chosen], weights, network, "expected", 8, "gaussian", "scalar", 2, step, 0
        )
        optimiser.param_groups[0]["lr"] = rate
        (weights.grad,) = torch.autograd.grad(loss.sum(), weights)
        optimiser.step()
    torch.testing.assert_close(ours.parameters, weights.detach(), rtol=1e-10, atol=1e-10)


def test_tied_parameters_stay_tied(isa):
    network = MLP(2, (8, 6), output_bias=False)
    points, scores = pool(network)
    order = torch.randperm(network.size, generator=torch.Generator().manual_seed(2))
    signs = 2 * torch.randint(2, (network.size,), generator=torch.Generator().manual_seed(3)) - 1
    mirror = torch.empty(network.size, dtype=torch.int32)
    pairs = order[: network.size // 2 * 2].view(-1, 2)
    signs[pairs[:, 1]] = signs[pairs[:, 0]]
    mirror[order] = (order + 1).int()  # the odd one out is its own partner
    mirror[pairs] = (signs[pairs] * (pairs.flip(1) + 1)).int()
    partner = mirror.abs().long() - 1
    free = network.initial(2, seed=4)
    tied = (free + mirror.sign() * free[:, partner]) / 2
    options = dict(rates=[3e-3] * 8, rows=100, weight_decay=1e-2, seed=6, mirror=mirror)
    ours = ops.flow_train(points, scores, tied, None, network, **options)
    assert torch.equal(ours.parameters, mirror.sign() * ours.parameters[:, partner])
    exact = ops.flow_train(*doubles(points, scores, tied), None, network, **options)
    assert (ours.parameters - exact.parameters).norm() < 1e-2 * (exact.parameters - tied).norm()
    torch.testing.assert_close(ours.losses, exact.losses.float(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_takes_the_loss_of_its_minibatch(isa, objective):
    network = MLP(3, (20, 20), output_bias=False)
    points, scores = pool(network)
    parameters = network.initial(2, seed=4)
    options = dict(objective=objective, probes=3, seed=6, first_model=4)
    trained = ops.flow_train(points, scores, parameters, None, network, rates=[1e-3], first_step=9, rows=150, **options)
    chosen = minibatch(150, len(points), 2, seed=6, step=9, first_model=4, device="cpu")
    batch = ops.flow_loss(points[chosen], scores[chosen], parameters, network, step=9, **options)
    assert torch.equal(trained.losses[:, 0], batch.loss)
    torch.testing.assert_close(trained.moments[0], 0.1 * batch.gradient, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(trained.moments[1], 1e-3 * batch.gradient.square(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bits_depend_neither_on_company_nor_on_threads_nor_on_the_split_of_the_steps(isa, objective, threads):
    network = MLP(3, (20, 20), output_bias=False)
    points, scores = pool(network)
    parameters = network.initial(3, seed=4, first_model=10)
    options = dict(objective=objective, probes=2, seed=6, rows=1000, weight_decay=1e-3)
    rates = torch.linspace(1e-2, 1e-3, 6, dtype=torch.float64)
    threads(1)
    whole = ops.flow_train(points, scores, parameters, None, network, rates=rates, first_model=10, **options)
    for count in (2, 3, 5):
        threads(count)
        again = ops.flow_train(points, scores, parameters, None, network, rates=rates, first_model=10, **options)
        assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
    for model in range(3):
        begin = network.initial(1, seed=4, first_model=10 + model)
        alone = ops.flow_train(points, scores, begin, None, network, rates=rates, first_model=10 + model, **options)
        assert torch.equal(alone.parameters[0], whole.parameters[model])
        assert torch.equal(alone.losses[0], whole.losses[model])
        assert torch.equal(alone.moments[:, 0], whole.moments[:, model])
    first = ops.flow_train(points, scores, parameters, None, network, rates=rates[:2], first_model=10, **options)
    second = ops.flow_train(
        points, scores, first.parameters, first.moments, network, rates=rates[2:], first_step=2, first_model=10,
        **options,
    )  # fmt: skip
    assert torch.equal(second.parameters, whole.parameters) and torch.equal(second.moments, whole.moments)
    assert torch.equal(torch.cat([first.losses, second.losses], 1), whole.losses)


def test_training_finds_the_flow_that_keeps_a_correlated_normal():
    # Among flows with one scale for all, the least strained one of a normal density is S s with S antisymmetric.
    generator = torch.Generator().manual_seed(0)
    mixing = torch.tensor([[1.2, 0.5], [0.0, 0.6]])
    points = torch.randn(4000, 2, generator=generator) @ mixing.T
    scores = -points @ torch.linalg.inv(mixing @ mixing.T)
    network = MLP(2, (32, 32), output_bias=False)
    rates = 5e-3 * (1 + torch.cos(torch.linspace(0, math.pi, 300))) / 2
    trained = ops.flow_train(points, scores, network.initial(2, seed=0), None, network, rates=rates, rows=256, seed=1)
    velocity = ops.mlp_divergence(points, trained.parameters, network).velocity
    velocity = velocity - velocity.mean(1, keepdim=True)
    truth = torch.stack([-scores[:, 1], scores[:, 0]], 1)
    cosines = (velocity * truth).sum((1, 2)) / (velocity.square().sum((1, 2)).sqrt() * truth.norm())
    assert (cosines.abs() > 0.98).all()
    assert (trained.losses[:, -20:].mean(1) < 0.2 * trained.losses[:, :5].mean(1)).all()


@pytest.mark.parametrize("objective", ["expected", "sampled"])
def test_the_operators_are_registered_properly(objective):
    network = MLP(3, (4, 5))
    points, scores, parameters = problem(network, 6)
    loss = [4, 5], 0, True, objective, 2, "gaussian", "scalar", 1, 0, 0
    torch.library.opcheck(torch.ops.eqflow.flow_loss.default, (points, scores, parameters, *loss))
    moments, rates = torch.zeros(2, *parameters.shape), torch.full((3,), 1e-3, dtype=torch.float64)
    arguments = points[0], scores[0], parameters, moments, rates, None, *loss, 4, 0.0
    torch.library.opcheck(torch.ops.eqflow.flow_train.default, arguments)


def test_no_steps_and_no_models():
    network = MLP(2, (4,))
    points, scores = pool(network)
    parameters = network.initial(2, seed=0)
    trained = ops.flow_train(points, scores, parameters, None, network, rates=[], rows=10)
    assert torch.equal(trained.parameters, parameters) and trained.losses.shape == (2, 0)
    assert ops.flow_loss(points, scores, parameters[:0], network).gradient.shape == (0, network.size)


network = MLP(2, (4, 4))
x, weights = torch.zeros(3, 2), torch.zeros(1, network.size)
WRONG = [
    (dict(objective="product", probes=1), ValueError, "expected probes from 2 up for objective='product', got 1"),
    (dict(objective="sampled", probes=0), ValueError, "expected probes from 1 up"),
    (dict(objective="mean"), ValueError, "expected objective 'exact', 'expected'.*got 'mean'"),
    (dict(norm="batch"), ValueError, "expected norm 'scalar', 'per-coordinate', 'none', got 'batch'"),
    (dict(law="uniform"), ValueError, "expected law"),
    (dict(scores=torch.zeros(2, 2)), ValueError, r"points.*\[3, 2\].*\[2, 2\]"),
    (dict(scores=x.double()), TypeError, "both in float32 or both in float64"),
    (dict(parameters=torch.zeros(1, 5)), ValueError, "expected parameters"),
    (dict(parameters=weights.clone().requires_grad_()), NotImplementedError, r"pass parameters\.detach\(\)"),
    (dict(points=x.clone().requires_grad_()), NotImplementedError, r"pass points\.detach\(\)"),
    (dict(backend="triton"), ops.BackendError, "'triton' serves mlp_divergence"),
    (dict(seed=2**64), ValueError, "expected seed in"),
]


@pytest.mark.parametrize("arguments, error, message", WRONG)
def test_wrong_arguments_are_refused(arguments, error, message):
    common = dict(points=x, scores=x, parameters=weights, network=network) | arguments
    with pytest.raises(error, match=message):
        ops.flow_loss(**common)
    with pytest.raises(error, match=message):
        ops.flow_train(**common, moments=None, rates=[1e-3], rows=2)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(rows=1), ValueError, "expected a batch of 2 rows or more for norm='scalar', got 1"),
        (dict(rows=0, norm="none"), ValueError, "expected a batch of 1 rows or more for norm='none', got 0"),
        (dict(points=x[None], scores=x[None]), ValueError, r"expected points and scores \[pool, 2\]"),
        (dict(moments=torch.zeros(2, 2, network.size)), ValueError, r"expected moments \[2, 1,"),
        (dict(rates=1e-3), ValueError, r"expected rates \[steps\]"),
        (dict(weight_decay=-1.0), ValueError, "expected weight_decay from 0 up"),
        (dict(mirror=torch.arange(network.size)), ValueError, "expected mirror .* in torch.int32.*got .* torch.int64"),
        (dict(mirror=torch.zeros(network.size).int()), ValueError, r"expected mirror to hold partner \+ 1"),
        (dict(mirror=torch.ones(network.size).int()), ValueError, "that name each other"),
        (dict(first_step=-1), ValueError, "expected first_step from 0 up"),
    ],
)
def test_wrong_arguments_of_training_are_refused(arguments, error, message):
    common = dict(points=x, scores=x, parameters=weights, moments=None, network=network, rates=[1e-3], rows=2)
    with pytest.raises(error, match=message):
        ops.flow_train(**(common | arguments))


def test_a_batch_of_one_row_cannot_be_normalised():
    with pytest.raises(ValueError, match="a batch of 2 rows or more"):
        ops.flow_loss(x[:1], x[:1], weights, network)
    assert ops.flow_loss(x[:1], x[:1], weights, network, norm="none").loss.shape == (1,)


def test_minibatches_are_uniform():
    chosen = minibatch(20_000, 7, 2, seed=1, step=0, first_model=0, device="cpu")
    counts = torch.stack([row.bincount(minlength=7) for row in chosen]).double()
    expected = 20_000 / 7
    assert ((counts - expected).abs() < 5 * math.sqrt(expected)).all() and not torch.equal(*chosen)
    assert draw_probes(1, 3, 2, 5, law="rademacher", seed=0, step=0).abs().eq(1).all()


@pytest.mark.gpu
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_gpu_agrees_with_the_reference(network):
    points, scores, parameters = problem(network, 131)
    for objective, norm, law in OPTIONS:
        options = dict(objective=objective, norm=norm, law=law, probes=3, seed=5, step=2, first_model=7)
        ours = ops.flow_loss(points.cuda(), scores.cuda(), parameters.cuda(), network, **options)
        exact = ops.flow_loss(*doubles(points, scores, parameters), network, **options)
        for part, truth in zip(ours, exact, strict=True):
            require_close(part.cpu(), truth, 2e-5) if truth.any() else None
    rates = torch.full((10,), 1e-3, dtype=torch.float64)
    cpu = ops.flow_train(points[0], scores[0], parameters, None, network, rates=rates, rows=100)
    gpu = ops.flow_train(points[0].cuda(), scores[0].cuda(), parameters.cuda(), None, network, rates=rates, rows=100)
    torch.testing.assert_close(gpu.losses.cpu(), cpu.losses, rtol=1e-3, atol=1e-3)
