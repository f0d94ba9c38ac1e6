import pytest
import torch
import torch.nn.functional as F

from eqflow.ops import convolution_divergence, field_divergence

DOUBLE = torch.float64
ACTIVATIONS = {"silu": F.silu, "tanh": torch.tanh}


def network(sizes, channels=2, hidden=(5, 4), dtype=DOUBLE, seed=0):
    """Kernels and biases of three convolutions."""
    generator = torch.Generator().manual_seed(seed)
    widths = channels, *hidden, channels
    kernels = [
        torch.randn(out, into, size, size, dtype=dtype, generator=generator) / (into * size * size) ** 0.5
        for into, out, size in zip(widths[:-1], widths[1:], sizes, strict=True)
    ]
    return kernels, [torch.randn(width, dtype=dtype, generator=generator) / 2 for width in widths[1:]]


def states(*shape, dtype=DOUBLE):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(9))


def plain(kernels, biases, activation="silu"):
    """The same field in PyTorch's own words."""

    def field(x):
        for index, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
            x = ACTIVATIONS[activation](x) if index else x
            x = F.conv2d(F.pad(x, [kernel.shape[-1] // 2] * 4, mode="circular"), kernel, bias)
        return x

    return field


def dense_traces(field, x):
    rows = [torch.autograd.functional.jacobian(lambda y: field(y[None])[0], row) for row in x]
    return torch.stack([row.reshape(x[0].numel(), -1).trace() for row in rows])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("sizes", [(3, 1, 1), (3, 3, 1), (3, 3, 3), (1, 1, 1), (1, 3, 5), (5, 1, 1), (5, 3, 1)])
def test_the_identity_is_the_trace_of_the_dense_jacobian(sizes, activation):
    kernels, biases = network(sizes)
    field, x = plain(kernels, biases, activation), states(2, 2, 8, 8)
    result = convolution_divergence(x, kernels, biases, activation=activation)
    torch.testing.assert_close(result.velocity, field(x), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(result.divergence, dense_traces(field, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch, height, width", [(1, 5, 7), (3, 4, 9), (1, 4, 4)])
def test_odd_grids_and_single_rows(batch, height, width):
    kernels, biases = network((3, 3, 3), channels=3)
    x = states(batch, 3, height, width)
    found = convolution_divergence(x, kernels, biases).divergence
    torch.testing.assert_close(found, dense_traces(plain(kernels, biases), x), rtol=0, atol=1e-12)


def test_the_orientation_counts():
    kernels, biases = network((3, 3, 3))
    x = states(1, 2, 6, 6)
    exact = dense_traces(plain(kernels, biases), x)
    mirrored = [kernels[0].flip(2, 3), *kernels[1:]]
    assert (convolution_divergence(x, mirrored, biases).divergence - exact).abs() > 0.01 * exact.abs()


@pytest.mark.parametrize("sizes, radius", [((3, 1, 1), 1), ((3, 3, 1), 2)])
def test_it_agrees_with_coloured_probes_on_images(sizes, radius):
    kernels, biases = network(sizes, hidden=(8, 6))
    x = states(1, 2, 128, 128)
    coloured = field_divergence(plain(kernels, biases), x, method="coloured", radius=radius).divergence
    found = convolution_divergence(x, kernels, biases).divergence
    torch.testing.assert_close(found, coloured, rtol=1e-12, atol=0)


def test_float32_is_as_near_as_float32_can_be():
    kernels, biases = network((3, 1, 1), hidden=(32, 32))
    x = states(2, 2, 128, 128)
    exact = convolution_divergence(x, kernels, biases).divergence
    found = convolution_divergence(x.float(), [k.float() for k in kernels], [b.float() for b in biases]).divergence
    torch.testing.assert_close(found.double(), exact, rtol=2e-5, atol=0)


def test_the_divergence_trains():
    kernels, biases = network((3, 3, 1), channels=1, hidden=(2, 2))
    inputs = [value.requires_grad_() for value in (states(1, 1, 4, 5), *kernels, *biases)]

    def loss(x, *values):
        result = convolution_divergence(x, values[:3], values[3:])
        return (result.divergence + result.velocity.square().sum((1, 2, 3))).square().mean()

    assert torch.autograd.gradcheck(loss, inputs)


def test_biases_may_be_missing():
    kernels, biases = network((3, 1, 1))
    zeros = [torch.zeros_like(bias) for bias in biases]
    x = states(1, 2, 4, 4)
    with_zeros, without = convolution_divergence(x, kernels, zeros), convolution_divergence(x, kernels, [None] * 3)
    assert all(torch.equal(a, b) for a, b in zip(with_zeros, without, strict=True))


KERNELS, BIASES = network((3, 3, 3))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: convolution_divergence(states(1, 2, 3, 8), KERNELS, BIASES),
            r"larger than 3.*got \[3, 8\].*method='exact'",
        ),
        (
            lambda: convolution_divergence(states(2, 8), KERNELS, BIASES),
            r"expected x \[batch, channels, height, width\]",
        ),
        (
            lambda: convolution_divergence(states(1, 2, 8, 8), KERNELS[:2], BIASES),
            "three kernels and three biases, got 2",
        ),
        (lambda: convolution_divergence(states(1, 3, 8, 8), KERNELS, BIASES), "lead from 3 channels back to as many"),
        (
            lambda: convolution_divergence(states(1, 2, 8, 8), [k[..., :2, :2] for k in KERNELS], BIASES),
            r"of odd size, got \[\[5, 2, 2, 2\]",
        ),
        (
            lambda: convolution_divergence(states(1, 2, 8, 8), KERNELS, BIASES, activation="relu"),
            "expected activation 'silu', 'tanh', got 'relu'",
        ),
    ],
)
def test_wrong_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
