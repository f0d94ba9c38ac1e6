"""The planar sets: those of the paper at the scales used here, and the usual toys of generative models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from eqflow.systems.exact import ExactScore, NormalRadius
from eqflow.systems.planar import PlanarSet, circle, isotropic, legendre_nodes, periodic_nodes, rotation

_PAPER = "named in Zhang and Levin (arXiv 2509.17990), which gives no sizes"
TOYS = "the toy densities of Grathwohl et al. (FFJORD, ICLR 2019)"


@dataclass(frozen=True)
class TwoGaussians(PlanarSet):
    """Equal Gaussians at (+-distance, 0)."""

    distance: float = 1.0
    deviation: float = 0.4

    branches: ClassVar[int] = 2
    source: ClassVar[str] = _PAPER

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        centres = torch.stack([self.distance * (1 - 2 * branch), 0 * branch], -1).double()
        return centres, isotropic(self.deviation, centres)


@dataclass(frozen=True)
class EightGaussians(PlanarSet):
    """Equal Gaussians at the corners of an octagon."""

    radius: float = math.sqrt(8)
    deviation: float = math.sqrt(1 / 8)

    branches: ClassVar[int] = 8
    source: ClassVar[str] = TOYS

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        centres = self.radius * circle(branch.double() / 8)
        return centres, isotropic(self.deviation, centres)


@dataclass(frozen=True)
class CorrelatedGaussian(PlanarSet):
    """(1.2 n + 0.5 n', 0.6 n') with standard normals n, n'."""

    source: ClassVar[str] = "a single wide Gaussian, where the flow of a scalar norm is known"

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        root = torch.tensor([[1.2, 0.5], [0.0, 0.6]], dtype=torch.float64, device=branch.device)
        return root.new_zeros(len(branch), 2), root.expand(len(branch), 2, 2)


@dataclass(frozen=True)
class Ring(PlanarSet):
    """radius (1 + width n) in a uniform direction, n standard normal."""

    radius: float = 1.3
    width: float = 0.1

    source: ClassVar[str] = _PAPER

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        outward = circle(position)
        across = self.radius * self.width * outward
        return self.radius * outward, torch.stack([across, torch.zeros_like(across)], -1)

    def nodes(self, count: int) -> tuple[Tensor, Tensor]:
        return periodic_nodes(count)

    def at(self, alpha: float = 1.0) -> ExactScore:
        return NormalRadius(self.radius, self.radius * self.width) if alpha == 1 else super().at(alpha)


@dataclass(frozen=True)
class TwoCircles(PlanarSet):
    """Two concentric circles with isotropic noise."""

    inner: float = 0.5
    outer: float = 1.0
    noise: float = 0.08

    branches: ClassVar[int] = 2
    source: ClassVar[str] = "the circles of scikit-learn"

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        centres = torch.where(branch == 0, self.inner, self.outer)[:, None] * circle(position)
        return centres, isotropic(self.noise, centres)

    def nodes(self, count: int) -> tuple[Tensor, Tensor]:
        return periodic_nodes(count)


@dataclass(frozen=True)
class TwoMoons(PlanarSet):
    """(cos t, sin t) and (1 - cos t, 1/2 - sin t), t = pi u, with isotropic noise; then centred and scaled."""

    noise: float = 0.08

    branches: ClassVar[int] = 2
    source: ClassVar[str] = f"{_PAPER}; the moons of scikit-learn"

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        arc = circle(position / 2)
        shift, scale = arc.new_tensor([0.5, 0.25]), arc.new_tensor([0.87, 0.5])
        centres = (1 - 2 * branch)[:, None] * (arc - shift)  # the second moon is the first one turned by half a turn
        return centres / scale, (self.noise * torch.diag(1 / scale)).expand(len(arc), 2, 2)

    def nodes(self, count: int) -> tuple[Tensor, Tensor]:
        return legendre_nodes(count)


@dataclass(frozen=True)
class SwissRoll(PlanarSet):
    """t (cos t, sin t), t = 1.5 pi (1 + 2 u), with isotropic noise; then to mean 0 and deviation 1 by coordinate."""

    noise: float = 0.4

    source: ClassVar[str] = f"{_PAPER}; the swiss roll of scikit-learn, seen from the side"

    @staticmethod
    def _spiral(position: Tensor) -> Tensor:
        angle = 0.75 * (1 + 2 * position)  # in turns
        return 2 * math.pi * angle[:, None] * circle(angle)

    @cached_property
    def _standard(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each coordinate before scaling."""
        positions, weights = self.nodes(512)
        spiral = self._spiral(positions)
        mean = weights @ spiral
        return mean, (weights @ (spiral - mean).square() + self.noise**2).sqrt()

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = (values.to(position) for values in self._standard)
        root = self.noise * torch.diag(1 / deviation)
        return (self._spiral(position) - mean) / deviation, root.expand(len(position), 2, 2)

    def nodes(self, count: int) -> tuple[Tensor, Tensor]:
        return legendre_nodes(count)


@dataclass(frozen=True)
class TwoSpirals(PlanarSet):
    """+-t (-cos t, sin t) / 3, t = 3 pi sqrt(u), with isotropic noise: the arms are about equally dense everywhere."""

    noise: float = 0.1

    branches: ClassVar[int] = 2
    source: ClassVar[str] = TOYS

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        arm = math.pi * position[:, None] * circle(1.5 * position) * position.new_tensor([-1.0, 1.0])
        centres = (1 - 2 * branch)[:, None] * arm
        return centres, isotropic(self.noise, centres)

    def position(self, uniform: Tensor) -> Tensor:
        return uniform.sqrt()

    def nodes(self, count: int) -> tuple[Tensor, Tensor]:
        positions, weights = legendre_nodes(count)
        return positions, 2 * positions * weights


@dataclass(frozen=True)
class Pinwheel(PlanarSet):
    """Five arms, 2 R(2 pi k / 5 + rate e^r) (r, tangential n'), r = 1 + radial n. No clean density in closed form."""

    radial: float = 0.3
    tangential: float = 0.1
    rate: float = 0.25

    branches: ClassVar[int] = 5
    source: ClassVar[str] = "the pinwheel of Johnson et al. (NIPS 2016), at the scale of FFJORD"

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        reach = 1 + self.radial * position
        radial, tangential = (2 * rotation(2 * math.pi / 5 * branch + self.rate * reach.exp())).unbind(-1)
        across = self.tangential * tangential
        return reach[:, None] * radial, torch.stack([torch.zeros_like(across), across], -1)

    def position(self, uniform: Tensor) -> Tensor:
        return torch.special.ndtri(uniform)

    def nodes(self, count: int) -> tuple[Tensor, Tensor]:
        positions = torch.linspace(-6.5, 6.5, count, dtype=torch.float64)
        return positions, (-positions.square() / 2).softmax(0)

    def at(self, alpha: float = 1.0) -> ExactScore:
        if alpha == 1:
            raise ValueError("expected alpha below 1, since the clean pinwheel has no density in closed form, got 1")
        return super().at(alpha)


@dataclass(frozen=True)
class NineArcs(PlanarSet):
    """Half circles of radius 1/2 on a 3 x 3 grid, each turned by a ninth more, with isotropic noise: nine clusters."""

    noise: float = 0.08

    branches: ClassVar[int] = 9
    source: ClassVar[str] = "for the clusters of Lu, Kusmierz and Mihalas, who give no sizes"

    def place(self, branch: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        node = 2.0 * torch.stack([branch % 3 - 1, branch // 3 - 1], -1)
        turn = branch.double() / 9
        centres = node + circle(turn + (position - 0.5) / 2) / 2 - 0.3 * circle(turn)
        return centres, isotropic(self.noise, centres)

    def nodes(self, count: int) -> tuple[Tensor, Tensor]:
        return legendre_nodes(count)
