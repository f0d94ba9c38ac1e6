"""kernels/divergence.py in the interpreter or on a GPU, against the specification in float64."""

import pytest
import torch

from eqflow import ops
from eqflow.ops.divergence import LAWS, draw_probes, reference

pytest.importorskip("triton")
# The interpreter of triton 3.6 turns arrays of one element into the bounds of a loop.
pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TOLERANCE = 2e-5  # of the largest number
MODELS = 2
NETWORKS = [  # and a number of rows
    (ops.MLP(3, (8,)), 5),
    (ops.MLP(2, (17, 8), 2), 67),
    (ops.MLP(1, (8, 17, 8), 4, output_bias=False), 1),
    (ops.MLP(7, (64, 64), output_bias=False), 5),
    (ops.MLP(3, (8, 17, 8, 9), 2), 40),
]


def inputs(network: ops.MLP, rows: int):
    """Points, parameters, and derivatives with respect to velocity, divergence and strain."""
    generator = torch.Generator().manual_seed(rows)
    points, of_velocity = torch.randn(2, MODELS, rows, network.dimension, generator=generator)
    of_divergence, of_strain = torch.randn(2, MODELS, rows, generator=generator)
    return points, network.initial(MODELS, seed=1), (of_velocity, of_divergence, of_strain)


def assert_close(ours, theirs) -> None:
    for mine, right in zip(ours, theirs, strict=True):
        assert (mine.cpu() - right).abs().max() <= TOLERANCE * right.abs().max().clamp_min(1e-3)


def check(network: ops.MLP, rows: int, law: str, shared: bool = False, **options) -> None:
    points, weights, upstream = inputs(network, rows)
    points = points[0] if shared else points
    on_device = weights.to(DEVICE).requires_grad_()
    strain = options["method"] == "tangents"
    results = ops.mlp_divergence(
        points.to(DEVICE), on_device, network, law=law, strain=strain, backend="triton", **options
    )
    results, upstream = results[: 2 + strain], upstream[: 2 + strain]
    gradient = torch.autograd.grad(results, on_device, [part.to(DEVICE) for part in upstream])

    directions = None
    if options.pop("method") == "probes":
        directions = draw_probes(MODELS, rows, options.pop("probes"), network.dimension, law=law, **options).double()
    exact = weights.double().requires_grad_()
    expected = reference(points.double(), exact, network, directions, law)[: 2 + strain]
    wanted = torch.autograd.grad(expected, exact, [part.double() for part in upstream])
    assert_close((*results, *gradient), (*expected, *wanted))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("network, rows", NETWORKS)
def test_tangents(network, rows, law):
    check(network, rows, law, shared=network.dimension == 2, method="tangents")


@pytest.mark.parametrize("law, probes", [("gaussian", 1), ("rademacher", 3)])
@pytest.mark.parametrize("network, rows", NETWORKS)
def test_probes(network, rows, law, probes):
    counter = {"seed": 2**63 + 5, "step": 2**32 + 7, "first_model": 3}
    check(network, rows, law, method="probes", probes=probes, **counter)


def test_what_triton_does_not_serve_names_the_alternative():
    network = ops.MLP(2, (8, 8), output_bias=False)
    points, weights = torch.randn(4, 2, device=DEVICE), network.initial(1, seed=0, device=DEVICE)
    for call in (
        lambda: ops.mlp_divergence(points, weights, network, method="bilinear", backend="triton"),
        lambda: ops.flow_loss(points, points, weights, network, backend="triton"),
        lambda: ops.flow_train(points, points, weights, None, network, rates=[0.1], rows=2, backend="triton"),
    ):
        with pytest.raises(ops.BackendError, match="backend='native'"):
            call()
