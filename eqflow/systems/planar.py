"""Sets of points in the plane, each as a curve with normal noise around it: so each has an exact score.

A set places a sample at centre + root n, n standard normal, where centre and root depend on a branch and on a position
along it. The noised density at alpha is the integral over the positions of N(sqrt(alpha) centre, alpha root root^T +
(1 - alpha) I): a mixture of Gaussians, here with the nodes of a quadrature that converges exponentially.
"""

from __future__ import annotations

import math
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox
from eqflow.systems.exact import ExactScore, GaussianMixture

_PROBE, _MOST = 512, 2**16  # nodes with which a set is measured; nodes that are still bearable
_STREAM = philox.STREAMS["initial"]  # step 0: the normals of a sample; step 1: its branch and its position


@cache
def legendre_nodes(count: int) -> tuple[Tensor, Tensor]:
    """Positions in (0, 1) and weights of the Gauss-Legendre rule for uniform positions."""
    places, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(count))
    return (places + 1) / 2, weights / 2


def periodic_nodes(count: int) -> tuple[Tensor, Tensor]:
    """The midpoint rule, which converges exponentially on a closed curve."""
    return (torch.arange(count).double() + 0.5) / count, torch.full((count,), 1 / count, dtype=torch.float64)


def check_alpha(alpha: float) -> None:
    """Raise a ValueError unless alpha lies in (0, 1]."""
    if not 0 < alpha <= 1:
        raise ValueError(f"expected alpha in (0, 1], the squared coefficient of the signal, got {alpha}")


class PlanarSet:
    """What the sets share: samples, moments and the exact score, from where a set places its points."""

    dimension: ClassVar[int] = 2
    branches: ClassVar[int] = 1
    source: ClassVar[str]

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Centres [count, 2] and roots [count, 2, 2] of points on the branches [count] at the positions [count]."""
        raise NotImplementedError

    def nodes(self, count: int) -> tuple[Tensor, Tensor]:
        """Positions and weights of the quadrature along a branch; one node where the position does not matter."""
        return legendre_nodes(1)

    def position(self, uniform: Tensor) -> Tensor:
        """The position that belongs to a uniform number in (0, 1)."""
        return uniform

    def sample(self, batch: int, *, seed: int, first_sample: int = 0, device: str | torch.device = "cpu") -> Tensor:
        """Unordered points, float64 [batch, 2], functions of (seed, index) alone.

        Args:
            batch: number of points.
            seed: in [0, 2^64).
            first_sample: index of the first point.
            device: where they are made.
        """
        counter = {"seed": seed, "stream": _STREAM}
        normals = ops.normal(batch, 2, first_sample=first_sample, device=device, **counter).double()
        indices = torch.arange(first_sample, first_sample + batch, device=device)
        words = philox.words(indices, 2, step=1, **counter)
        branch = philox.integers(words[:, 0], self.branches)
        centres, roots = self.place(branch, self.position(philox.unit_interval(words[:, 1])))
        return centres + roots[..., 0] * normals[:, :1] + roots[..., 1] * normals[:, 1:]

    def _components(self, count: int = _PROBE) -> tuple[Tensor, Tensor, Tensor]:
        """Means, covariances and weights of the clean density with some nodes on each branch."""
        positions, weights = self.nodes(count)
        branch = torch.arange(self.branches).repeat_interleave(len(positions))
        centres, roots = self.place(branch, positions.repeat(self.branches))
        return centres, roots @ roots.mT, weights.repeat(self.branches) / self.branches

    def _count(self, alpha: float) -> int:
        """Nodes no farther apart than 0.7 standard deviations: the quadrature is then exact to about 1e-12."""
        centres, covariances, weights = self._components()
        steps = centres.unflatten(0, (self.branches, -1)).diff(dim=1).norm(dim=2)
        heavy = weights[1 : 1 + steps.shape[1]] > 1e-4 * weights.max()
        step = float(steps[:, heavy].max()) if heavy.any() else 0.0
        width = math.sqrt(alpha * float(torch.linalg.eigvalsh(covariances).min().clamp_min(0)) + 1 - alpha)
        count = math.ceil(_PROBE * math.sqrt(alpha) * step / max(0.7 * width, 1e-9))
        if count > _MOST:
            raise ValueError(
                f"expected noise that a quadrature resolves, got a curve {count} times as long as the noise is wide: "
                "take alpha further below 1, or a wider set"
            )
        return max(count, 32)

    @property
    def mean(self) -> Tensor:
        """E[x], float64 [2]."""
        means, _, weights = self._components()
        return weights @ means

    @property
    def covariance(self) -> Tensor:
        """Cov[x], float64 [2, 2]."""
        means, covariances, weights = self._components()
        away = means - weights @ means
        return torch.einsum("k,kij->ij", weights, covariances + away[:, :, None] * away[:, None, :])

    def at(self, alpha: float = 1.0) -> ExactScore:
        """The exact score of sqrt(alpha) x + sqrt(1 - alpha) epsilon, with `log_density`.

        Args:
            alpha: squared coefficient of the signal, in (0, 1]; 1 for the clean density.

        Raises:
            ValueError: alpha is out of range, or the set has no clean density.

        Example:
            >>> from eqflow.systems import TwoGaussians
            >>> TwoGaussians(deviation=0.5).at(1.0)(torch.zeros(1, 2, dtype=torch.float64)).abs().max().item()
            0.0
        """
        check_alpha(alpha)
        means, covariances, weights = self._components(self._count(alpha))
        noise = (1 - alpha) * torch.eye(2, dtype=torch.float64)
        return GaussianMixture(math.sqrt(alpha) * means, alpha * covariances + noise, weights)


def isotropic(
    deviation: float,
    centres: Tensor,  # [count, 2]
) -> Tensor:
    """Roots [count, 2, 2] of noise that is the same in all directions."""
    return (deviation * torch.eye(2).to(centres)).expand(len(centres), 2, 2)


def rotation(
    angle: Tensor,  # [count]
) -> Tensor:
    """Rotation matrices [count, 2, 2]."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def circle(
    turns: Tensor,  # [count]
) -> Tensor:
    """Points of the unit circle [count, 2], one turn being 1."""
    angle = 2 * math.pi * turns
    return torch.stack([angle.cos(), angle.sin()], -1)
