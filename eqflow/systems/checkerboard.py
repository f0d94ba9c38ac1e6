"""A checkerboard in the plane: uniform on its dark fields, with the exact score under noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from eqflow.ops import philox
from eqflow.systems.exact import BoxMixture, ExactScore
from eqflow.systems.planar import check_alpha
from eqflow.systems.planar_sets import TOYS


@dataclass(frozen=True)
class Checkerboard:
    """Uniform on the eight dark fields of a board of four by four around 0.

    The clean density jumps and has no score; the noised one is a sum of products of normal integrals.

    Args:
        side: of a field.

    Example:
        >>> Checkerboard().at(0.95)(torch.zeros(1, 2)).shape
        torch.Size([1, 2])
    """

    side: float = 1.0

    dimension: ClassVar[int] = 2
    source: ClassVar[str] = TOYS

    def _corners(self, field: Tensor) -> Tensor:
        """Lower left corners [count, 2] of the fields numbered 0 .. 7."""
        row = field // 2
        return self.side * (torch.stack([2 * (field % 2) + row % 2, row], -1).double() - 2)

    def sample(self, batch: int, *, seed: int, first_sample: int = 0, device: str | torch.device = "cpu") -> Tensor:
        """Unordered points, float64 [batch, 2], functions of (seed, index) alone."""
        indices = torch.arange(first_sample, first_sample + batch, device=device)
        words = philox.words(indices, 3, seed=seed, stream=philox.STREAMS["initial"])
        return self._corners(philox.integers(words[:, 0], 8)) + self.side * philox.unit_interval(words[:, 1:])

    @property
    def mean(self) -> Tensor:
        """E[x], float64 [2]."""
        return self._corners(torch.arange(8)).mean(0) + self.side / 2

    @property
    def covariance(self) -> Tensor:
        """Cov[x], float64 [2, 2]."""
        return self._corners(torch.arange(8)).T.cov(correction=0) + self.side**2 / 12 * torch.eye(2).double()

    def at(self, alpha: float) -> ExactScore:
        """The exact score of sqrt(alpha) x + sqrt(1 - alpha) epsilon, with `log_density`.

        Args:
            alpha: squared coefficient of the signal, in (0, 1).

        Raises:
            ValueError: alpha is out of range.
        """
        check_alpha(alpha)
        if alpha == 1:
            raise ValueError("expected alpha below 1, since the clean checkerboard jumps and has no score, got 1")
        lowest = math.sqrt(alpha) * self._corners(torch.arange(8))
        return BoxMixture(lowest, lowest + math.sqrt(alpha) * self.side, math.sqrt(1 - alpha))
