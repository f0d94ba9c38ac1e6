"""A noisy limit cycle in the plane whose steady density is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from eqflow.ops import philox


@dataclass(frozen=True)
class LimitCycle:
    """dx = (x (1 - |x|^2) + rotation (-x_2, x_1)) dt + sqrt(2 D) dW, with p proportional to exp(-(r^4/4 - r^2/2) / D).

    The rotation leaves the density as it is, so a steady state does not show it.

    Args:
        rotation: angular velocity.
        diffusion: D, above 0.

    Raises:
        ValueError: the diffusion is not positive.

    Example:
        >>> LimitCycle(diffusion=0.2).drift(torch.tensor([[2.0, 0.0]]))
        tensor([[-6.,  2.]])
    """

    rotation: float = 1.0
    diffusion: float = 0.2

    dimension: ClassVar[int] = 2
    source: ClassVar[str] = "the normal form of a Hopf bifurcation, with noise"

    def __post_init__(self) -> None:
        if not 0 < self.diffusion < math.inf:
            raise ValueError(f"expected diffusion above 0, got {self.diffusion}")

    def drift(
        self,
        points: Tensor,  # [..., 2]
    ) -> Tensor:
        """f(x), [..., 2]."""
        return points * (1 - points.square().sum(-1, keepdim=True)) + self.velocity(points)

    def velocity(
        self,
        points: Tensor,  # [..., 2]
    ) -> Tensor:
        """The field that carries the density, f - D grad log p: the rotation alone, [..., 2]."""
        x, y = points.unbind(-1)
        return self.rotation * torch.stack([-y, x], -1)

    def score(
        self,
        points: Tensor,  # [..., 2]
    ) -> Tensor:
        """grad log p, [..., 2]."""
        return points * (1 - points.square().sum(-1, keepdim=True)) / self.diffusion

    def score_divergence(
        self,
        points: Tensor,  # [..., 2]
    ) -> Tensor:
        """Laplacian of log p, [...]."""
        return (2 - 4 * points.square().sum(-1)) / self.diffusion

    def log_density(
        self,
        points: Tensor,  # [..., 2]
    ) -> Tensor:
        """log p, normalised, [...]."""
        square = points.square().sum(-1)
        return (square / 2 - square.square() / 4) / self.diffusion - self._log_normaliser

    @cached_property
    def _log_normaliser(self) -> float:
        """Log of 2 pi times the integral of r exp(-(r^4/4 - r^2/2) / D), an error function in r^2."""
        root = 2 * math.sqrt(self.diffusion)
        return math.log(math.pi * math.sqrt(math.pi) / 2 * root * (1 + math.erf(1 / root))) + 1 / (4 * self.diffusion)

    def sample(self, batch: int, *, seed: int, first_sample: int = 0, device: str | torch.device = "cpu") -> Tensor:
        """Independent points of the steady state, float64 [batch, 2], functions of (seed, index) alone.

        r^2 is a normal of mean 1 and variance 2 D above 0, drawn by the inverse of its distribution function.

        Args:
            batch: number of points.
            seed: in [0, 2^64).
            first_sample: index of the first point.
            device: where they are made.
        """
        samples = torch.arange(first_sample, first_sample + batch, device=device)
        words = philox.words(samples, 2, seed=seed, stream=philox.STREAMS["initial"])
        uniform, turn = philox.unit_interval(words).unbind(1)
        deviation = math.sqrt(2 * self.diffusion)
        below = 0.5 * math.erfc(1 / (deviation * math.sqrt(2)))
        square = (1 + deviation * torch.special.ndtri(below + uniform * (1 - below))).clamp_min(0)
        angle = 2 * math.pi * turn
        return square.sqrt()[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
