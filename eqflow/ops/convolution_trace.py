"""The exact divergence of three convolutions with two activations between, on a periodic grid of any size.

v = W_3 * a(W_2 * a(K * x + b_1) + b_2) + b_3, where * is a circular convolution as conv2d has it. With d_1, d_2 the
derivatives of the two activations at every pixel,

    div v = sum over p, u of d_2(p)^T M[u] d_1(p + u),    M[u] = W_2[u] o (sum over w of K[-w - u] W_3[w])^T,

where o is the elementwise product: one extra convolution of the size of W_2, whatever the number of pixels. For
3x3, 1x1, 1x1 only the centre of K counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from eqflow.ops.trace import FieldDivergence


def _silu(z: Tensor) -> tuple[Tensor, Tensor]:
    gate = z.sigmoid()
    value = z * gate
    return value, gate + value * (1 - gate)


def _tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    value = z.tanh()
    return value, 1 - value.square()


ACTIVATIONS = {"silu": _silu, "tanh": _tanh}  # each gives the value and its derivative


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    radius = kernel.shape[-1] // 2
    return F.conv2d(F.pad(x, [radius] * 4, mode="circular") if radius else x, kernel, bias)


def trace_kernel(
    first: Tensor,  # K [hidden_1, channels, size, size]
    middle: Tensor,  # W_2 [hidden_2, hidden_1, size, size]
    last: Tensor,  # W_3 [channels, hidden_2, size, size]
) -> Tensor:
    """M of the identity, of the shape of `middle`."""
    reach = middle.shape[-1] // 2 + last.shape[-1] // 2 - first.shape[-1] // 2
    flipped = F.pad(first.flip(2, 3), [reach] * 4)  # negative: cropped to what the others reach
    return middle * F.conv2d(flipped, last.transpose(0, 1)).transpose(0, 1)


def _check(x: Tensor, kernels: Sequence[Tensor], biases: Sequence[Tensor | None], activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"expected activation {', '.join(map(repr, ACTIVATIONS))}, got {activation!r}")
    if x.ndim != 4:
        raise ValueError(f"expected x [batch, channels, height, width], got {list(x.shape)}")
    if len(kernels) != 3 or len(biases) != 3:
        raise ValueError(f"expected three kernels and three biases, got {len(kernels)} and {len(biases)}")
    shapes = [list(kernel.shape) for kernel in kernels]
    if any(len(shape) != 4 or shape[2] != shape[3] or shape[2] % 2 == 0 for shape in shapes):
        raise ValueError(f"expected kernels [out, in, size, size] of odd size, got {shapes}")
    widths = [x.shape[1], *(shape[0] for shape in shapes)]
    if [shape[1] for shape in shapes] != widths[:-1] or widths[-1] != widths[0]:
        raise ValueError(f"expected kernels that lead from {x.shape[1]} channels back to as many, got {shapes}")
    reach = sum(shape[2] // 2 for shape in shapes)
    if min(x.shape[2:]) <= reach:
        raise ValueError(
            f"expected a grid larger than {reach}, the sum of the radii of the kernels, got {list(x.shape[2:])}: a "
            "pixel would see itself round the ring; use field_divergence(..., method='exact')"
        )


def convolution_divergence(
    x: Tensor,  # [batch, channels, height, width]
    kernels: Sequence[Tensor],  # three of [out, in, size, size]
    biases: Sequence[Tensor | None],  # three of [out]
    *,
    activation: str = "silu",
) -> FieldDivergence:
    """v(x) of three circular convolutions with activations between, and its exact divergence in one pass.

    The cost is one convolution more than v itself, where every pixel would need a tangent of its own otherwise.
    Differentiable by autograd in everything. Normalisations between the layers are scalings of kernel rows once their
    statistics are constants: multiply them into the kernels.

    Args:
        x: the states, on a periodic grid.
        kernels: K, W_2, W_3 in the layout of conv2d, of odd sizes.
        biases: b_1, b_2, b_3; None: none.
        activation: "silu" or "tanh".

    Returns:
        FieldDivergence(velocity, divergence).

    Raises:
        ValueError: shapes do not fit, or the grid is not larger than the sum of the radii.

    Example:
        >>> kernels = torch.ones(8, 2, 3, 3), torch.ones(8, 8, 1, 1), torch.ones(2, 8, 1, 1)
        >>> convolution_divergence(torch.zeros(1, 2, 4, 4), kernels, [None] * 3).divergence
        tensor([512.])
    """
    _check(x, kernels, biases, activation)
    activate = ACTIVATIONS[activation]
    first, first_slope = activate(_convolve(x, kernels[0], biases[0]))
    second, second_slope = activate(_convolve(first, kernels[1], biases[1]))
    divergence = (second_slope * _convolve(first_slope, trace_kernel(*kernels))).sum((1, 2, 3))
    return FieldDivergence(_convolve(second, kernels[2], biases[2]), divergence)
