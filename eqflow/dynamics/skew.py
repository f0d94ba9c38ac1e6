"""Skew-symmetric convolution kernels: with one of them, K * score is a flow that keeps the density.

    (K * s)[o, p] = sum over i, u of K[o, i, u] s[i, p + u]        (periodic grid, the orientation of conv2d)

is skew-symmetric exactly if K[o, i, u, v] = -K[i, o, -u, -v], where u and v count from the centre of the kernel. Then
div(p K * grad log p) = 0 for every density p. Free numbers of `channels` channels and radius r:
(channels^2 (2 r + 1)^2 - channels) / 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox


def _check(kernel: Tensor) -> None:
    if kernel.ndim != 4 or kernel.shape[0] != kernel.shape[1] or kernel.shape[2] != kernel.shape[3]:
        raise ValueError(f"expected a kernel [channels, channels, 2r + 1, 2r + 1], got {list(kernel.shape)}")
    if kernel.shape[-1] % 2 == 0:
        raise ValueError(f"expected a kernel of odd size 2r + 1, got {list(kernel.shape)}: pad it with zeros")


def _negative_adjoint(kernel: Tensor) -> Tensor:
    return -kernel.transpose(0, 1).flip(2, 3)


def project(
    kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1]
) -> Tensor:
    """The skew-symmetric kernel nearest to `kernel`: (K[o, i, u, v] - K[i, o, -u, -v]) / 2.

    Example:
        >>> violation(project(torch.randn(2, 2, 3, 3)))
        0.0
    """
    _check(kernel)
    return (kernel + _negative_adjoint(kernel)) / 2


def violation(
    kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1]
) -> float:
    """The largest |K[o, i, u, v] + K[i, o, -u, -v]|: 0 for a skew-symmetric kernel, NaN if the kernel has one."""
    _check(kernel)
    return float((kernel - _negative_adjoint(kernel)).abs().max())


def rotation(gamma: float, channels: int = 2) -> Tensor:
    """The 1x1 kernel that turns each pair of channels: gamma [[0, -1], [1, 0]] (Eq. 13).

    Channels 0 and 1 make a pair, 2 and 3, and so on; of an odd number the last one rests.

    Args:
        gamma: angular speed per unit of score; the spectral norm of the kernel.
        channels: at least 2.
    """
    if channels < 2:
        raise ValueError(f"expected 2 channels or more, got {channels}: one channel cannot turn")
    first = torch.arange(0, channels - 1, 2)
    kernel = torch.zeros(channels, channels, 1, 1)
    kernel[first + 1, first], kernel[first, first + 1] = gamma, -gamma
    return kernel


def from_angles(
    omega: Sequence[float] | Tensor,  # [3]
) -> Tensor:
    """The 1x1 kernel of three channels that maps a score s to omega x s: an axis and, as its length, a speed."""
    omega = torch.as_tensor(omega) * 1.0  # whole numbers become floating
    if omega.shape != (3,):
        raise ValueError(f"expected the three numbers of omega, got shape {list(omega.shape)}")
    return torch.linalg.cross(omega.expand(3, 3), torch.eye(3).to(omega), dim=1).T[..., None, None].contiguous()


def random(channels: int, radius: int, seed: int, norm: float = 1.0) -> Tensor:
    """A random skew-symmetric kernel: normals of the stream "weights", projected and scaled.

    Args:
        channels: number of channels.
        radius: r, from 0 up; the kernel is [channels, channels, 2r + 1, 2r + 1].
        seed: the same seed gives the same kernel everywhere.
        norm: Frobenius norm of the result.
    """
    if channels < 1 or radius < 0 or (channels == 1 and radius == 0):
        raise ValueError(
            f"expected radius from 0 up and 2 channels, or radius from 1 up and 1 channel, got channels = {channels}, "
            f"radius = {radius}: one number is skew-symmetric only if it is 0"
        )
    size = 2 * radius + 1
    numbers = ops.normal(1, channels**2 * size**2, seed=seed, stream=philox.STREAMS["weights"])
    kernel = project(numbers.view(channels, channels, size, size))
    return kernel * (norm / kernel.norm())


def nearest(
    velocities: Tensor,  # [points, channels]
    scores: Tensor,  # [points, channels]
) -> Tensor:
    """The 1x1 kernel whose flow K * s is nearest to given velocities in the mean square, in float64.

    S C + C S = B - B^T with C = E[s s^T] and B = E[v s^T], solved among the eigenvectors of C.

    Example:
        >>> scores = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> nearest(convolve(rotation(3.0), scores), scores)[:, :, 0, 0]
        tensor([[ 0., -3.],
                [ 3.,  0.]], dtype=torch.float64)
    """
    if velocities.ndim != 2 or velocities.shape != scores.shape:
        raise ValueError(
            f"expected velocities and scores [points, channels], got {list(velocities.shape)} and {list(scores.shape)}"
        )
    velocities, scores = velocities.double(), scores.double()
    weights, basis = torch.linalg.eigh(scores.T @ scores)
    product = basis.T @ velocities.T @ scores @ basis
    turned = (product - product.T) / (weights[:, None] + weights)
    return project((basis @ turned @ basis.T)[..., None, None])


def isotropic(
    channels: int,
    numbers: Sequence[Sequence[float]] | Tensor,  # [channels (channels - 1) / 2, 3]: centre, edge, corner
) -> Tensor:
    """The 3x3 skew-symmetric kernel that prefers no direction: equal under the eight symmetries of the square.

    Each pair of channels has a centre, an edge and a corner weight; K_ii = 0 and K[first, second] = -K[second, first].

    Args:
        channels: number of channels, at least 2.
        numbers: one row for each pair, in the order (0, 1), (0, 2), ..., (1, 2), ...; a row fills K[second, first].
    """
    numbers = torch.as_tensor(numbers) * 1.0
    first, second = torch.triu_indices(channels, channels, 1)
    if channels < 2 or numbers.shape != (len(first), 3):
        raise ValueError(
            f"expected 2 channels or more and numbers [{len(first)}, 3] (centre, edge, corner of each pair of "
            f"{channels} channels), got {list(numbers.shape)}"
        )
    distance = torch.tensor([[2, 1, 2], [1, 0, 1], [2, 1, 2]])  # squared, from the centre
    patterns = numbers[:, distance]
    kernel = numbers.new_zeros(channels, channels, 3, 3)
    kernel[second, first], kernel[first, second] = patterns, -patterns
    return kernel


def convolve(
    kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1]
    field: Tensor,  # [batch, channels, height, width], or [batch, channels] for a 1x1 kernel
) -> Tensor:
    """K * field on the periodic grid, in the orientation of torch.nn.functional.conv2d."""
    _check(kernel)
    if field.ndim == 2 and kernel.shape[-1] == 1:
        return field @ kernel[:, :, 0, 0].T
    radius = kernel.shape[-1] // 2
    return F.conv2d(F.pad(field, [radius] * 4, mode="circular"), kernel)


def _on_grid(kernel: Tensor, height: int, width: int) -> Tensor:
    """K[o, i, u, v] at row u mod height and column v mod width: [channels, channels, height, width]."""
    _check(kernel)
    radius = kernel.shape[-1] // 2
    grid = kernel.new_zeros(*kernel.shape[:2], height, width)
    for u in range(-radius, radius + 1):
        for v in range(-radius, radius + 1):
            grid[:, :, u % height, v % width] += kernel[:, :, u + radius, v + radius]
    return grid


def dense_matrix(
    kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1]
    height: int,
    width: int,
) -> Tensor:
    """K * as a matrix on flattened fields, [channels height width, channels height width]: for tests on small grids."""
    grid = _on_grid(kernel, height, width)
    rows = [grid.roll((y, x), (2, 3)) for y in range(height) for x in range(width)]  # of site (y, x)
    sites = torch.stack(rows, 1)  # [out, site, in, height, width]
    return sites.reshape(len(kernel) * height * width, -1)


def spectral_norm(
    kernel: Tensor,  # [channels, channels, 2r + 1, 2r + 1]
    height: int,
    width: int,
) -> float:
    """The operator norm of K * on a grid: the largest singular value of its symbol over all wave vectors.

    ||K|| = max over k of || sum over u of K[:, :, u] exp(i k u) ||, in float64; |gamma| for `rotation(gamma)`.
    """
    if kernel.shape[-1] == 1:  # one symbol for all wave vectors
        return float(torch.linalg.matrix_norm(kernel[:, :, 0, 0].double(), ord=2))
    symbols = torch.fft.rfft2(_on_grid(kernel.double(), height, width)).movedim((0, 1), (2, 3))
    return float(torch.linalg.matrix_norm(symbols, ord=2).max())
