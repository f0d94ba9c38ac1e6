"""Points moved up a density by the concave-convex procedure, which no step size can break: denoising and clustering.

    xi <- sum_i w_i(xi) Xi_i,   w_i = softmax_i(log w_i - (xi - Xi_i)^T (T Sigma)^-1 (xi - Xi_i) / 2)

on the latent points xi = Phi^-1(x), at a temperature T that multiplies the covariance (Lu, Kusmierz and Mihalas, Eq. 40
to 43; mean shift with a shared covariance). The latent energy -log p of the same temperature never rises.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.score.density import Density

_CELLS = 50  # places a radius long that are told apart
_CHUNK = 2**24  # distances at a time
_SETTLED = 1e-6  # of the largest standard deviation of the components, a step that counts as none


class Clusters(NamedTuple):
    """What `cluster` finds; clusters are in the order of their size, the largest first."""

    labels: Tensor  # [batch], int64
    centres: Tensor  # [clusters, dimension]: the mean of the fixed points of a cluster
    sizes: Tensor  # [clusters], int64


def _check(points: Tensor, density: Density, temperature: float, steps: int) -> None:
    if points.ndim != 2 or points.shape[1] != density.dimension:
        raise ValueError(f"expected points [batch, {density.dimension}], got {list(points.shape)}")
    if not len(points):
        raise ValueError("expected at least one point, got none")
    like = density.centroids
    if (points.dtype, points.device) != (like.dtype, like.device):
        raise TypeError(
            f"expected {like.dtype} points on {like.device} as this density is, got {points.dtype} on "
            f"{points.device}: use density.to(points)"
        )
    if not points.isfinite().all():
        raise ValueError("expected finite points, got NaN or infinite values: mend the input")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"expected a positive temperature, got {temperature}")
    if steps < 1:
        raise ValueError(f"expected steps from 1 up, got {steps}")


@torch.no_grad()
def denoise(
    density: Density,
    points: Tensor,  # [batch, dimension]
    *,
    temperature: float = 1.0,
    steps: int = 1,
) -> Tensor:
    """Points after some steps of the procedure, [batch, dimension]: one takes most of the noise away.

    Args:
        density: trained on points like these.
        points: to be denoised, of its precision.
        temperature: T, of the covariance; higher ones smooth over more of the density.
        steps: at most; it stops where nothing moves any more.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> from eqflow.score import Density, DensityShape
        >>> density = Density(DensityShape(1, 2), torch.tensor([[-1.0], [1.0]]), 0.2)
        >>> denoise(density, torch.tensor([[0.8], [-1.3]]))
        tensor([[ 1.],
                [-1.]])
    """
    _check(points, density, temperature, steps)
    mixture, centroids = density.mixture(temperature), density.centroids
    settled = _SETTLED * float(torch.linalg.matrix_norm(density.factor, 2))
    latent, _ = density.inverse(points)
    for _ in range(steps):
        before, latent = latent, mixture.posterior(latent) @ centroids
        if (latent - before).abs().max() <= settled:
            break
    return density(latent)


def cluster(
    density: Density,
    points: Tensor,  # [batch, dimension]
    *,
    temperature: float = 16.0,
    steps: int = 200,
    radius: float = 0.15,
) -> Clusters:
    """Points by the fixed points that the procedure takes them to; high temperatures have few.

    Args:
        density: trained on points like these.
        points: to be sorted, of its precision.
        temperature: T, of the covariance: with 1 about every component is a cluster of its own.
        steps: at most, towards a fixed point.
        radius: within which fixed points are one, in the units of the points.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> from eqflow.score import Density, DensityShape
        >>> density = Density(DensityShape(1, 2), torch.tensor([[-1.0], [1.0]]), 0.1)
        >>> cluster(density, torch.tensor([[0.7], [-1.3], [1.1]])).labels
        tensor([0, 1, 0])
    """
    if not radius > 0:
        raise ValueError(f"expected a positive radius, got {radius}")
    settled = denoise(density, points, temperature=temperature, steps=steps)
    # Points that came together count once: what is left is about as many places as there are fixed points.
    places, of = (settled * (_CELLS / radius)).round().unique(dim=0, return_inverse=True)
    labels = _joined(places, _CELLS)[of]
    sizes = labels.bincount()
    order = sizes.argsort(descending=True, stable=True)
    sums = settled.new_zeros(len(sizes), settled.shape[1]).index_add_(0, labels, settled)
    return Clusters(order.argsort()[labels], (sums / sizes[:, None])[order], sizes[order])


def _joined(places: Tensor, radius: float) -> Tensor:
    """Number of the group of each place, [places]: all that can be reached in steps of a radius are one group."""
    labels = torch.full((len(places),), -1, dtype=torch.int64, device=places.device)
    for number in range(len(places)):
        front = (labels < 0).nonzero()[:1, 0]
        if not len(front):
            break
        while len(front):
            labels[front] = number
            reached = [  # plain differences: squares of far places would cancel
                torch.cdist(places, places[some], compute_mode="donot_use_mm_for_euclid_dist").amin(1) <= radius
                for some in front.split(max(1, _CHUNK // len(places)))
            ]
            front = (torch.stack(reached).any(0) & (labels < 0)).nonzero()[:, 0]
    return labels
