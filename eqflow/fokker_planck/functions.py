"""Test functions phi_j: cosines, Gaussian bumps, and any function that PyTorch can differentiate.

Each family gives, at some points, the values, the generator D : grad grad phi + f . grad phi, and the sums of
(d phi_j / d x_c) u_l that make the columns of the unknowns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from eqflow import ops
from eqflow.fokker_planck.derivatives import along, unit
from eqflow.ops import philox

_STREAM = philox.STREAMS["test-functions"]


class Local(Protocol):
    """Test functions at some points, m of them at n points."""

    def values(self) -> Tensor:
        """phi_j(x_i), [n, m]."""
        ...

    def generator(
        self,
        drift: Tensor | None,  # [n, dimension]
        diffusion: Tensor | None,  # [dimension, dimension] or [n, dimension, dimension]
    ) -> Tensor:
        """drift . grad phi_j + diffusion : grad grad phi_j, [n, m]."""
        ...

    def gradient_sums(
        self,
        features: Tensor,  # [n, terms]
        rows: list[int],
    ) -> Tensor:
        """The sum over the points of (d phi_j / d x_c) u_l for the coordinates c in `rows`, [m, rows, terms]."""
        ...


class Functions(Protocol):
    """A family of test functions; `at` gives them at points [n, dimension]."""

    count: int

    def at(self, points: Tensor) -> Local: ...


class _ByRow:
    """Sums made coordinate by coordinate."""

    def gradient_sums(self, features: Tensor, rows: list[int]) -> Tensor:
        slopes = [self.generator(unit(self.points, row), None) for row in rows]
        return torch.stack([slope.T @ features for slope in slopes], 1)


@dataclass(frozen=True, eq=False)
class Cosines:
    """phi_j = cos(w_j . (x - centre) + phase_j).

    Args:
        frequencies: w_j, [m, dimension], in radians per unit of x.
        phases: [m].
        centre: [dimension].
    """

    frequencies: Tensor
    phases: Tensor
    centre: Tensor

    @property
    def count(self) -> int:
        return len(self.frequencies)

    def at(self, points: Tensor) -> _CosinesAt:
        return _CosinesAt(self.frequencies.to(points), self.phases.to(points), points - self.centre.to(points))


class _CosinesAt:
    def __init__(self, frequencies: Tensor, phases: Tensor, away: Tensor):
        self.frequencies = frequencies
        angles = torch.addmm(phases, away, frequencies.T)
        self.cos, self.sin = angles.cos(), angles.sin_()

    def values(self) -> Tensor:
        return self.cos

    def generator(self, drift: Tensor | None, diffusion: Tensor | None) -> Tensor:
        total = torch.zeros_like(self.cos) if drift is None else self.sin * (drift @ -self.frequencies.T)
        if diffusion is None:
            return total
        if diffusion.ndim == 2:
            return total.addcmul_(self.cos, ((self.frequencies @ diffusion) * self.frequencies).sum(1), value=-1)
        return total.addcmul_(
            self.cos, torch.einsum("mc,ncd,md->nm", self.frequencies, diffusion, self.frequencies), value=-1
        )

    def gradient_sums(self, features: Tensor, rows: list[int]) -> Tensor:
        return -self.frequencies[:, rows, None] * (self.sin.T @ features)[:, None, :]


def random_cosines(
    centre: Tensor,  # [dimension]
    spread: Tensor,  # [dimension]
    count: int = 40,
    *,
    scale: float = 0.8,
    seed: int = 0,
) -> Cosines:
    """Cosines with normal frequencies, w_j = scale n_j / spread, and uniform phases.

    Args:
        centre: of the data.
        spread: the standard deviation of each coordinate.
        count: how many; 25 to 50 for a few unknowns, 3 for each of many, and at most a fiftieth of the points.
        scale: 0.6 to 1; higher is finer.
        seed: key of the draws.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> random_cosines(torch.zeros(2), torch.ones(2), 10).frequencies.shape
        torch.Size([10, 2])
    """
    if count < 1 or not 0 < scale < math.inf:
        raise ValueError(f"expected count from 1 up and a positive scale, got {count} and {scale}")
    if not (spread > 0).all():
        raise ValueError(f"expected points that vary in every coordinate, got standard deviations {spread.tolist()}")
    normals = ops.normal(count, len(spread), seed=seed, stream=_STREAM).double()
    words = philox.words(torch.arange(count), 1, seed=seed, step=1, stream=_STREAM)[:, 0]
    spread = spread.double().cpu()
    return Cosines(scale * normals / spread, 2 * math.pi * philox.unit_interval(words), centre.double().cpu())


@dataclass(frozen=True, eq=False)
class Bumps:
    """phi_j = exp(-sum over c of (x_c - centre_jc)^2 / (2 h_c^2)), which vanish at the edge of a window.

    Args:
        centres: [m, dimension], best held-out points of the data.
        bandwidth: h, a number or [dimension].

    Raises:
        ValueError: a bandwidth is not positive.
    """

    centres: Tensor
    bandwidth: float | Tensor

    def __post_init__(self) -> None:
        if not (torch.as_tensor(self.bandwidth) > 0).all():
            raise ValueError(f"expected a positive bandwidth, got {self.bandwidth}")

    @property
    def count(self) -> int:
        return len(self.centres)

    def at(self, points: Tensor) -> _BumpsAt:
        bandwidth = torch.as_tensor(self.bandwidth, dtype=torch.float64)
        return _BumpsAt(points, self.centres.to(points), bandwidth.to(points))


class _BumpsAt(_ByRow):
    def __init__(self, points: Tensor, centres: Tensor, bandwidth: Tensor):
        self.points, self.centres = points, centres
        self.precision = bandwidth.square().reciprocal().expand(points.shape[1])
        root = self.precision.sqrt()
        distance = torch.cdist(points * root, centres * root, compute_mode="donot_use_mm_for_euclid_dist")
        self.bumps = distance.square_().mul_(-0.5).exp_()

    def values(self) -> Tensor:
        return self.bumps

    def generator(self, drift: Tensor | None, diffusion: Tensor | None) -> Tensor:
        centres = self.centres * self.precision
        total = 0.0
        if drift is not None:  # grad phi = phi (C - x) / h^2
            total = drift @ centres.T - (drift * self.points * self.precision).sum(1, keepdim=True)
        if diffusion is not None:
            away = centres - (self.points * self.precision)[:, None, :]
            form = "nmc,cd,nmd->nm" if diffusion.ndim == 2 else "nmc,ncd,nmd->nm"
            trace = (diffusion.diagonal(dim1=-2, dim2=-1) * self.precision).sum(-1)
            total = total + torch.einsum(form, away, diffusion, away) - trace.reshape(-1, 1)
        return self.bumps * total


@dataclass(frozen=True, eq=False)
class Custom:
    """Test functions of your own, differentiated by PyTorch.

    Args:
        function: points [n, dimension] -> [n, m], each row from its own point alone.
        count: m.

    Example:
        >>> squares = Custom(lambda points: points.square() / 2, 3)
        >>> squares.at(torch.ones(1, 3)).generator(torch.ones(1, 3), 10 * torch.eye(3))
        tensor([[11., 11., 11.]])
    """

    function: Callable[[Tensor], Tensor]
    count: int

    def at(self, points: Tensor) -> _CustomAt:
        return _CustomAt(self.function, points)


class _CustomAt(_ByRow):
    def __init__(self, function: Callable[[Tensor], Tensor], points: Tensor):
        self.points = points.detach().requires_grad_()
        with torch.enable_grad():
            self.phi = function(self.points)

    def values(self) -> Tensor:
        return self.phi.detach()

    @torch.enable_grad()
    def generator(self, drift: Tensor | None, diffusion: Tensor | None) -> Tensor:
        total = torch.zeros_like(self.phi) if drift is None else along(self.phi, self.points, drift)
        if diffusion is not None:  # D : grad grad = sum over c of d_c (D_c . grad), D held fixed
            rows = diffusion.expand(len(self.points), -1, -1)
            for c in range(self.points.shape[1]):
                slope = along(self.phi, self.points, unit(self.points, c))
                total = total + along(slope, self.points, rows[:, c])
        return total.detach()
