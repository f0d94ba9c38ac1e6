import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from eqflow.ops import field_divergence, kernel_score
from eqflow.ops.mlp import MLP
from eqflow.ops.trace import colours

DOUBLE = torch.float64


def normals(*shape, seed=0):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def jacobians(field, x):
    """Dense [batch, numbers, numbers], row by row, by reverse mode."""
    rows = [torch.autograd.functional.jacobian(lambda y: field(y[None])[0], row) for row in x]
    return torch.stack([row.reshape(x[0].numel(), -1) for row in rows])


def traces(field, x):
    return jacobians(field, x).diagonal(dim1=1, dim2=2).sum(1)


def network(dimension, hidden=(16, 12), seed=0):
    """A random net, and what maps its flat parameters to a field."""
    shape = MLP(dimension, hidden, frequencies=1)
    parameters = shape.initial(1, seed=seed).double() * 2
    return parameters, lambda values: lambda x: shape.velocity(x, values)[0]


def convolutions(*sizes, channels=2, seed=0):
    """Circular convolutions one after another with SiLU between."""
    widths = [channels, *[5] * (len(sizes) - 1), channels]
    kernels = [
        normals(out, into, size, size, seed=seed + size) / 3
        for into, out, size in zip(widths[:-1], widths[1:], sizes, strict=True)
    ]

    def field(x):
        for index, kernel in enumerate(kernels):
            x = F.pad(F.silu(x) if index else x, [kernel.shape[-1] // 2] * 4, mode="circular")
            x = F.conv2d(x, kernel)
        return x

    return field, sum(size // 2 for size in sizes)


@pytest.mark.parametrize("batch, dimension", [(1, 1), (1, 3), (5, 2), (4, 7)])
def test_exact_is_the_trace_of_the_dense_jacobian(batch, dimension):
    parameters, make = network(dimension)
    field, x = make(parameters), normals(batch, dimension)
    result = field_divergence(field, x)
    torch.testing.assert_close(result.divergence, traces(field, x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.velocity, field(x), rtol=1e-14, atol=1e-14)


def test_exact_on_fields_and_through_several_passes(monkeypatch):
    field, _ = convolutions(3, 1)
    x = normals(2, 2, 3, 5)
    whole = field_divergence(field, x).divergence
    torch.testing.assert_close(whole, traces(field, x), rtol=1e-12, atol=1e-12)
    monkeypatch.setattr("eqflow.ops.trace._CHUNK", 7 * x.numel())  # 30 directions by sevens
    torch.testing.assert_close(field_divergence(field, x).divergence, whole, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_probes_have_the_predicted_mean_and_variance(law):
    parameters, make = network(3)
    field, x = make(parameters), normals(1, 3).expand(20_000, 3)
    with torch.no_grad():
        estimates = field_divergence(field, x, method="probes", probes=2, law=law, seed=4).divergence
    jacobian = jacobians(field, x[:1])[0]
    strain = ((jacobian + jacobian.T) / 2).square()
    variance = strain.sum() - (strain.trace() if law == "rademacher" else 0)  # 2 / k of it, k = 2
    count = len(estimates)
    assert abs(estimates.mean() - jacobian.trace()) < 4 * (variance / count).sqrt()
    fourth = (estimates - estimates.mean()).pow(4).mean()
    assert abs(estimates.var() - variance) < 4 * ((fourth - variance.square()) / count).sqrt()


def test_probes_are_functions_of_seed_and_step():
    parameters, make = network(2)
    x = normals(6, 2)

    def estimate(**options):
        return field_divergence(make(parameters), x, method="probes", **options).divergence

    assert torch.equal(estimate(seed=1, step=2), estimate(seed=1, step=2))
    assert not torch.equal(estimate(seed=1, step=2), estimate(seed=1, step=3))
    assert not torch.equal(estimate(seed=1, step=2), estimate(seed=2, step=2))


@pytest.mark.parametrize("method", ["exact", "probes"])
def test_the_divergence_trains(method):
    parameters, make = network(2, hidden=(4, 3))
    x = normals(2, 2)

    def loss(values, states):
        return field_divergence(make(values), states, method=method, probes=2).divergence.square().mean()

    assert torch.autograd.gradcheck(loss, (parameters.requires_grad_(), x.requires_grad_()), atol=1e-6)


@pytest.mark.parametrize("sizes", [(1,), (3,), (3, 1, 1), (3, 3, 1), (5, 3)])
@pytest.mark.parametrize("height, width", [(8, 8), (7, 9), (8, 5), (4, 13)])
def test_coloured_probes_are_exact_on_every_grid(sizes, height, width):
    field, radius = convolutions(*sizes)
    x = normals(2, 2, height, width)
    result = field_divergence(field, x, method="coloured", radius=radius)
    torch.testing.assert_close(result.divergence, traces(field, x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(result.velocity, field(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("radius, probes", [(1, 8), (2, 32), (3, 32)])
def test_the_number_of_coloured_probes_does_not_grow_with_the_grid(radius, probes):
    seen = []

    def field(x):
        seen.append(len(x))
        return x

    x = torch.ones(1, 2, 128, 128)
    assert field_divergence(field, x, method="coloured", radius=radius).divergence == 2 * 128 * 128
    assert sum(seen) == probes + 1  # one more tries the locality


def test_colours_keep_their_distance_and_are_as_few_as_can_be():
    for length in range(1, 30):
        for radius in range(6):
            colour = colours(length, radius)
            away = (torch.arange(length)[:, None] - torch.arange(length)).abs()
            away = torch.minimum(away, length - away)
            same = (colour[:, None] == colour) & (away > 0)
            assert len(colour) == length and (away[same] > radius).all()
            # At most length // (radius + 1) pixels can share a colour.
            assert int(colour.max()) + 1 == math.ceil(length / max(1, length // (radius + 1)))


def test_coloured_divergence_trains():
    scale = torch.tensor([0.7], dtype=DOUBLE, requires_grad=True)
    field, radius = convolutions(3, 1)
    x = normals(1, 2, 4, 6)

    def loss(value):
        return field_divergence(lambda y: field(value * y), x, method="coloured", radius=radius).divergence.sum()

    assert torch.autograd.gradcheck(loss, (scale,))


def test_batch_statistics_are_found_out():
    norm = nn.BatchNorm1d(2, affine=False).double()
    layer = nn.Linear(2, 2).double()
    x = normals(64, 2)

    def field(states):
        return norm(layer(states))

    naive = x.clone().requires_grad_()
    value = field(naive)
    wrong = sum(torch.autograd.grad(value[:, i].sum(), naive, retain_graph=True)[0][:, i] for i in range(2))
    assert wrong.abs().max() < 1e-6  # the trap: the sum over a normalised batch never changes
    with pytest.raises(ValueError):
        field_divergence(field, x)
    mean, deviation = layer(x).mean(0), (layer(x).var(0, unbiased=False) + norm.eps).sqrt()
    frozen = field_divergence(lambda states: (layer(states) - mean) / deviation, x).divergence
    torch.testing.assert_close(frozen, (layer.weight.diagonal() / deviation).sum().expand(64), rtol=1e-12, atol=0)
    norm.momentum = None
    norm.reset_running_stats()
    field(x)
    norm.eval()
    assert field_divergence(field, x).divergence.sub(frozen).abs().max() < 0.02 * frozen.abs().max()  # n / (n - 1)


def test_rows_that_see_one_another_are_found_out():
    with pytest.raises(ValueError, match="expected rows that do not see one another, but row 0 alone differs"):
        field_divergence(lambda x: x - x.mean(0), normals(8, 3))


def test_an_operator_without_a_derivative_refuses():
    points = normals(20, 3).float()
    with pytest.raises(NotImplementedError, match="kernel_score has no derivative"):
        field_divergence(lambda x: kernel_score(x, points, alpha=0.9).score, points)


@pytest.mark.parametrize("grid", [(8, 8), (9, 7)])
def test_a_radius_too_small_is_found_out(grid):
    field, radius = convolutions(3, 3)
    with pytest.raises(ValueError, match=r"as far as radius=1, but it sees 2 pixels far: give the true radius"):
        field_divergence(field, normals(2, 2, *grid), method="coloured", radius=radius - 1)
    with pytest.raises(ValueError, match="but it sees 4 pixels far"):
        field_divergence(
            lambda x: x * x.mean((2, 3), keepdim=True), normals(1, 2, *grid).abs(), method="coloured", radius=2
        )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: field_divergence(lambda x: x[:, :1], torch.ones(2, 3)), r"keeps the shape \[6, 3\], got \[6, 1\]"),
        (lambda: field_divergence(lambda x: x.detach(), torch.ones(2, 3)), "got one without a tangent"),
        (
            lambda: field_divergence(torch.ones_like, torch.ones(2, 3)),
            "got one without a tangent: the field is constant",
        ),
        (lambda: field_divergence(torch.sin, torch.ones(3)), r"expected x \[batch, \.\.\.\].*got \[3\]"),
        (lambda: field_divergence(torch.sin, torch.ones(0, 3)), r"at least one row, got \[0, 3\]"),
        (lambda: field_divergence(torch.sin, torch.ones(2, 3), method="all"), "expected method 'exact', 'probes'"),
        (lambda: field_divergence(torch.sin, torch.ones(2, 3), law="uniform"), "expected law 'gaussian', 'rademacher'"),
        (lambda: field_divergence(torch.sin, torch.ones(2, 3), probes=0), "expected probes from 1 up, got 0"),
        (lambda: field_divergence(torch.sin, torch.ones(2, 3), method="coloured", radius=1), r"got \[2, 3\]"),
        (lambda: field_divergence(torch.sin, torch.ones(2, 1, 4, 4), method="coloured"), "sum of their radii"),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
