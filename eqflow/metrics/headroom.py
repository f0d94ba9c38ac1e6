"""How near a class of kernels can come to the truth at all: an upper bound, never a method."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from eqflow.metrics.fidelity import Cosines, displacement_cosines


class Headroom(NamedTuple):
    """What `kernel_headroom` finds."""

    cosines: Cosines  # of the samples that were not fitted, [1, 1]
    kernel: Tensor  # fitted, float64 [channels, channels, 2r + 1, 2r + 1]


def kernel_headroom(
    features: Tensor,  # [samples, channels, height, width], such as scores of the clean fields
    truth: Tensor,  # of the same shape
    radius: int = 1,
    *,
    skew: bool = True,
) -> Headroom:
    """How near K * features can come to the truth at once: an upper bound of a class of kernels, never a method.

    K has one weight for every pair of channels and every distance from its centre. The weights are those of least
    squares on the truth of the samples 0, 2, 4, ...; the cosines are those of the samples 1, 3, 5, ...

    Args:
        features: what K works on.
        truth: the true change.
        radius: r, from 0 up.
        skew: only skew-symmetric kernels: K[first, second] = -K[second, first], nothing within a channel.

    Raises:
        ValueError: the shapes do not fit, a number is not finite, or there is no such kernel.

    Example:
        >>> features = torch.randn(8, 2, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> turned = torch.stack([-features[:, 1], features[:, 0]], 1)
        >>> kernel_headroom(features, 3 * turned, 0).kernel[:, :, 0, 0].round(decimals=6)
        tensor([[ 0., -3.],
                [ 3.,  0.]], dtype=torch.float64)
    """
    if features.ndim != 4 or features.shape != truth.shape or len(features) < 2:
        raise ValueError(
            "expected features and true changes of two or more samples, both [samples, channels, height, width], got "
            f"{list(features.shape)} and {list(truth.shape)}"
        )
    basis = _kernels(features.shape[1], radius, skew=skew).to(features.device)

    def moved(sample: Tensor, kernels: Tensor) -> Tensor:
        around = F.pad(sample.double()[None], [radius] * 4, mode="circular")
        return F.conv2d(around, kernels.flatten(0, 1)).view(len(kernels), -1)

    gram, right = basis.new_zeros(len(basis), len(basis)), basis.new_zeros(len(basis))
    for sample, change in zip(features[::2], truth[::2], strict=True):
        each = moved(sample, basis)
        gram, right = gram + each @ each.T, right + each @ change.double().flatten()
    if not (gram.isfinite().all() and right.isfinite().all()):
        raise ValueError("expected finite features and true changes, got NaN or infinite numbers: leave them out")
    weights = torch.linalg.pinv(gram, hermitian=True) @ right
    kernel = torch.einsum("n,noiuv->oiuv", weights, basis)
    left = torch.cat([moved(sample, kernel[None]) for sample in features[1::2]])
    return Headroom(displacement_cosines(left.view_as(truth[1::2])[None], truth[1::2][None]), kernel)


def _kernels(channels: int, radius: int, *, skew: bool) -> Tensor:
    """All radial kernels of a class: [kernels, channels, channels, 2r + 1, 2r + 1]."""
    if radius < 0 or (skew and channels < 2):
        raise ValueError(
            f"expected radius from 0 up and two channels for a skew kernel, got radius={radius} and {channels} channels"
        )
    squares = (torch.arange(2 * radius + 1) - radius).square()
    distance = squares[:, None] + squares
    pairs = itertools.combinations(range(channels), 2) if skew else itertools.product(range(channels), repeat=2)
    found = []
    for (first, second), apart in itertools.product(pairs, distance.unique()):
        kernel = torch.zeros(channels, channels, *distance.shape, dtype=torch.float64)
        if skew:
            kernel[first, second] -= (distance == apart).double()
        kernel[second, first] += (distance == apart).double()
        found.append(kernel)
    return torch.stack(found)
