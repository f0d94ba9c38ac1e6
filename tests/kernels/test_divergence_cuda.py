"""kernels/divergence.cu run on the CPU (csrc/emu/cuda_runtime.h), against the specification in float64."""

import math

import pytest
import torch

from eqflow.ops.divergence import LAWS, METHODS, draw_probes, reference
from eqflow.ops.flow_loss import BETAS, NORMS, OBJECTIVES, reference_loss, reference_train
from eqflow.ops.mlp import MLP

_emu = pytest.importorskip("eqflow._emu", reason="eqflow._emu was not built: configure with EQFLOW_EMU=ON")

TOLERANCE = 2e-5  # of the largest number
COUNTER = {"seed": 2**63 + 5, "step": 2**32 + 7, "first_model": 3}
MODELS = 2
NETWORKS = [  # and a number of rows
    (MLP(3, (8,)), 5),
    (MLP(2, (17, 8), 2), 67),
    (MLP(1, (8, 17, 8), 4, output_bias=False), 1),
    (MLP(7, (17,), output_bias=False), 5),
    (MLP(3, (64, 64), 4, output_bias=False), 67),
    (MLP(3, (8, 17, 8, 9), 2), 67),
]
LARGE = [  # the weights, or the tile too, do not fit into shared memory
    (MLP(3, (128, 128, 128), 2), 9),
    (MLP(16, (256, 128, 256)), 2),
]
EXPECTED = [("exact", 1, "gaussian"), ("expected", 8, "gaussian"), ("expected", 2, "rademacher")]
RANDOM = [  # fewer probes than coordinates, and more
    ("sampled", 1, "gaussian"),
    ("sampled", 5, "rademacher"),
    ("product", 2, "rademacher"),
    ("product", 9, "gaussian"),
]


def params(kind, network: MLP, **options):
    shape = _emu.MlpShape(network.dimension, network.frequencies, list(network.hidden), network.output_bias)
    return kind(network=shape, **({"models": MODELS, "shared_points": False} | COUNTER | options))


def batch(network: MLP, rows: int):
    """Points, scores and parameters."""
    numbers = torch.randn(2, MODELS, rows, network.dimension, generator=torch.Generator().manual_seed(rows))
    return *numbers, network.initial(MODELS, seed=1)


def workspace(count: int) -> torch.Tensor:
    return torch.full((count,), math.nan)


def assert_close(ours, theirs) -> None:
    for mine, right in zip(ours, theirs, strict=True):
        assert (mine - right).abs().max() <= TOLERANCE * right.abs().max().clamp_min(1e-3)


def check_values(network: MLP, rows: int, method: str, probes: int, law: str) -> None:
    points, of_velocity, weights = batch(network, rows)
    of_divergence, of_strain = torch.randn(2, MODELS, rows, generator=torch.Generator().manual_seed(2))
    options = {"method": METHODS.index(method), "law": LAWS.index(law), "probes": probes}
    call = params(_emu.DivergenceParams, network, rows=rows, **options)
    results = torch.empty_like(points), torch.empty(MODELS, rows), torch.empty(MODELS, rows)
    _emu.divergence(call, points, weights, *results, workspace(_emu.divergence_workspace(call, weights)), threads=1)
    gradient = torch.empty_like(weights)
    space = workspace(_emu.divergence_gradient_workspace(call, weights))
    _emu.divergence_gradient(call, points, weights, of_velocity, of_divergence, of_strain, gradient, space, threads=1)

    directions = None
    if method == "probes":
        directions = draw_probes(MODELS, rows, probes, network.dimension, law=law, **COUNTER).double()
    exact = weights.double().requires_grad_()
    expected = reference(points.double(), exact, network, directions, law)
    total = sum((a * b).sum() for a, b in zip((of_velocity, of_divergence, of_strain), expected, strict=True))
    assert_close((*results, gradient), (*expected, *torch.autograd.grad(total, exact)))


@pytest.mark.parametrize("method, probes, law", [
    ("tangents", 1, "gaussian"), ("tangents", 1, "rademacher"), ("bilinear", 1, "gaussian"),
    ("probes", 1, "gaussian"), ("probes", 2, "rademacher"), ("probes", 8, "gaussian"),
])  # fmt: skip
@pytest.mark.parametrize("network, rows", NETWORKS)
def test_values_and_their_gradient(network, rows, method, probes, law):
    check_values(network, rows, method, probes, law)


@pytest.mark.parametrize("method, probes", [("tangents", 1), ("probes", 3)])
@pytest.mark.parametrize("network, rows", LARGE)
def test_values_of_large_networks(network, rows, method, probes):
    check_values(network, rows, method, probes, "gaussian")


def run_loss(network: MLP, points, scores, weights, first_model: int, **options):
    shared = points.ndim == 2
    call = params(
        _emu.FlowParams, network, models=len(weights), rows=points.shape[-2], shared_points=shared, method=0,
        **options | {"first_model": first_model},
    )  # fmt: skip
    results = torch.empty(len(weights)), torch.empty_like(weights), *torch.empty(2, len(weights), network.dimension)
    _emu.flow_loss(
        call, points, scores, weights, *results, workspace(_emu.flow_loss_workspace(call, weights)), threads=1
    )
    return results


def check_loss(network: MLP, rows: int, objective: str, probes: int, law: str, norm: str, shared: bool = False) -> None:
    points, scores, weights = batch(network, rows)
    if shared:
        points, scores = points[0], scores[0]
    options = {"objective": OBJECTIVES.index(objective), "law": LAWS.index(law), "norm": NORMS.index(norm)}
    results = run_loss(network, points, scores, weights, COUNTER["first_model"], probes=probes, **options)
    exact = weights.double().requires_grad_()
    loss, mean, scale = reference_loss(
        points.double(), scores.double(), exact, network, objective, probes, law, norm, *COUNTER.values()
    )
    (gradient,) = torch.autograd.grad(loss.sum(), exact)
    assert_close(results, (loss, gradient, mean, scale))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("objective, probes, law", EXPECTED + RANDOM)
@pytest.mark.parametrize("network, rows", [case for case in NETWORKS if case[1] > 1])
def test_loss_and_gradient(network, rows, objective, probes, law, norm):
    check_loss(network, rows, objective, probes, law, norm, shared=network.dimension == 2)


def test_loss_of_one_row():
    check_loss(*NETWORKS[2], "expected", 3, "gaussian", "none")


@pytest.mark.parametrize("objective, norm", [("expected", "scalar"), ("sampled", "per-coordinate")])
@pytest.mark.parametrize("network, rows", LARGE)
def test_loss_of_large_networks(network, rows, objective, norm):
    check_loss(network, rows, objective, 2, "gaussian", norm)


def test_a_loss_does_not_depend_on_the_company():
    network, rows = NETWORKS[4]
    points, scores, weights = batch(network, rows)
    options = {"objective": 2, "law": 0, "norm": 0, "probes": 2}
    both = run_loss(network, points, scores, weights, 3, **options)
    alone = run_loss(network, points[1:], scores[1:], weights[1:], 4, **options)
    assert all(torch.equal(one[0], two[1]) for one, two in zip(alone, both, strict=True))


@pytest.mark.parametrize("norm", ["scalar", pytest.param("none", marks=pytest.mark.slow)])
def test_the_bits_do_not_depend_on_the_number_of_models(norm):
    """Few models are trained by a block a tile, many by a block a part: FlowParts in csrc/mlp_plan.h."""
    network, rows, models = MLP(7, (8,), output_bias=False), 67, 4096 // 9 + 1  # of nine tiles
    points, scores = torch.randn(2, rows, 7, generator=torch.Generator().manual_seed(1))
    weights = network.initial(models, seed=1)
    options = {"objective": 1, "law": 0, "norm": NORMS.index(norm), "probes": 2}
    many = run_loss(network, points, scores, weights, 3, **options)
    few = run_loss(network, points, scores, weights[-1:], 3 + models - 1, **options)
    assert all(torch.equal(one[0], all_of_them[-1]) for one, all_of_them in zip(few, many, strict=True))


@pytest.mark.parametrize("order", ["1", "2"])  # descending, a shuffle
def test_the_order_of_the_threads_does_not_matter(monkeypatch, order):
    network, rows = NETWORKS[1]
    inputs = batch(network, rows)
    options = {"objective": 2, "law": 0, "norm": 0, "probes": 5}
    expected = run_loss(network, *inputs, 3, **options)
    monkeypatch.setenv("EQFLOW_EMU_ORDER", order)
    assert all(map(torch.equal, run_loss(network, *inputs, 3, **options), expected))


POOL, STEPS, FIRST_STEP, DECAY = 300, 20, 2, 1e-3
RATES = torch.linspace(1e-2, 1e-3, STEPS, dtype=torch.float64)


def run_training(
    network: MLP, points, scores, weights, moments, first_model: int, steps=(0, STEPS), mirror=None, **options
):
    count = torch.arange(FIRST_STEP + 1 + steps[0], FIRST_STEP + 1 + steps[1], dtype=torch.float64)
    adam = torch.stack([RATES[slice(*steps)] / (1 - BETAS[0] ** count), 1 - BETAS[1] ** count], -1)
    call = params(
        _emu.FlowParams, network, models=len(weights), method=0, pool=POOL, steps=len(adam), weight_decay=DECAY,
        **options | {"first_model": first_model, "step": FIRST_STEP + steps[0]},
    )  # fmt: skip
    weights, moments, losses = weights.clone(), moments.clone(), torch.empty(len(weights), len(adam))
    space = workspace(_emu.flow_train_workspace(call, losses))
    _emu.flow_train(call, points, scores, adam, mirror, weights, moments, losses, space, threads=1)
    return weights, moments, losses


@pytest.mark.parametrize(
    "network, rows, objective, probes, law, norm",
    [
        (MLP(2, (17, 8), 1, output_bias=False), 21, "expected", 2, "gaussian", "scalar"),
        (MLP(3, (8, 17, 8), 2), 67, "sampled", 5, "rademacher", "per-coordinate"),
        (MLP(3, (16, 16), 4, output_bias=False), 40, "product", 2, "gaussian", "none"),
        (MLP(7, (17,), output_bias=False), 9, "exact", 1, "gaussian", "scalar"),
    ],
)
def test_training(network, rows, objective, probes, law, norm):
    generator = torch.Generator().manual_seed(1)
    points, noise = torch.randn(2, POOL, network.dimension, generator=generator)
    scores, weights = 0.1 * noise - points, network.initial(MODELS, seed=1)
    moments = 1e-3 * torch.rand(2, MODELS, network.size, generator=generator)
    options = {"objective": OBJECTIVES.index(objective), "law": LAWS.index(law), "norm": NORMS.index(norm)}
    options |= {"rows": rows, "probes": probes}
    ours = run_training(network, points, scores, weights, moments, 3, **options)
    theirs = reference_train(
        points.double(), scores.double(), weights.double(), moments.double(), network, RATES, FIRST_STEP, rows,
        objective, probes, law, norm, DECAY, None, COUNTER["seed"], 3,
    )  # fmt: skip
    assert_close(ours, theirs)

    alone = run_training(network, points, scores, weights[1:], moments[:, 1:].contiguous(), 4, **options)
    assert torch.equal(alone[0], ours[0][1:])
    assert torch.equal(alone[1], ours[1][:, 1:])
    assert torch.equal(alone[2], ours[2][1:])

    half = run_training(network, points, scores, weights, moments, 3, (0, 7), **options)
    rest = run_training(network, points, scores, *half[:2], 3, (7, STEPS), **options)
    assert torch.equal(rest[0], ours[0])
    assert torch.equal(rest[1], ours[1])
    assert torch.equal(torch.cat([half[2], rest[2]], 1), ours[2])


def test_training_with_tied_parameters():
    network, rows = MLP(2, (8, 8), 1, output_bias=False), 21
    points, scores = torch.randn(2, POOL, 2, generator=torch.Generator().manual_seed(1))
    weights, moments = network.initial(MODELS, seed=1), torch.zeros(2, MODELS, network.size)
    partner = torch.arange(network.size) ^ 1  # 0 and 1, 2 and 3, ...
    partner[partner == network.size] -= 1
    mirror = ((partner + 1) * torch.where(torch.arange(network.size) // 2 % 2 == 0, 1, -1)).int()
    options = {"objective": 1, "law": 0, "norm": 0, "rows": rows, "probes": 2}
    ours = run_training(network, points, scores, weights, moments, 3, mirror=mirror, **options)
    theirs = reference_train(
        points.double(), scores.double(), weights.double(), moments.double(), network, RATES, FIRST_STEP, rows,
        "expected", 2, "gaussian", "scalar", DECAY, mirror, COUNTER["seed"], 3,
    )  # fmt: skip
    assert_close(ours, theirs)
