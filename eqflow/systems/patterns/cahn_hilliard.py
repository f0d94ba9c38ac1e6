"""Cahn-Hilliard and Cahn-Hilliard-Cook: a mixture that separates and keeps its mass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from eqflow import ops
from eqflow.ops import philox
from eqflow.ops.gray_scott import STENCILS
from eqflow.ops.gray_scott import laplacian as unit_laplacian
from eqflow.systems.patterns.pattern import FASTEST_DECAY, Pattern
from eqflow.systems.patterns.terms import Equations, bilaplacian, laplacian


@dataclass(frozen=True)
class CahnHilliard(Pattern):
    """u_t = Lap (u^3 - u - stiffness Lap u), with noise sqrt(2 D) div dW (Cook) where the diffusion D is not 0.

    Cahn and Hilliard, J. Chem. Phys. 28, 258 (1958); Cook, Acta Metall. 18, 297 (1970). Mass stays, `energy` falls:
    without noise the domains grow for ever, so pictures of one age are not stationary. With noise exp(-energy / D) is
    their density at the given mass; above D of about 0.5 the mixture does not separate and they are soon stationary.
    64 pictures of 64 x 64 take about a minute on one core.

    Args:
        mean: u of the homogeneous start.
        stiffness: of the interface, whose width is about its root.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> picture = CahnHilliard(0.25, diffusion=0.6).simulate(1, 16, 16, seed=0, steps=50)
        >>> round(float(picture.mean()), 1)
        0.3
    """

    mean: float = 0.0
    stiffness: float = 1.0

    channels: ClassVar[tuple[str, ...]] = ("u",)
    source: ClassVar[str] = "Cahn and Hilliard, J. Chem. Phys. 28, 258 (1958); Cook, Acta Metall. 18, 297 (1970)"
    character: ClassVar[str] = "coarsening"
    settling: ClassVar[float] = 30.0
    conserved: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stiffness > 0:
            raise ValueError(f"expected stiffness above 0, got {self.stiffness}")
        if self.diffusion and self.stencil != "5-point":
            raise ValueError(
                f"expected the 5-point stencil with noise, got {self.stencil}: it is the covariance of a divergence"
            )

    def equations(self) -> Equations:
        return ({laplacian(3): 1.0, laplacian(1): -1.0, bilaplacian(1): -self.stiffness},)

    def fixed_point(self) -> tuple[float, ...]:
        return (self.mean,)

    def stability_limit(self) -> float:
        """As for every system, with 3 u^2 - 1 = 2 inside the domains in place of -1."""
        largest = STENCILS[self.stencil].stiffness / self.dx**2
        return FASTEST_DECAY / (largest * (2 + self.stiffness * largest))

    def noise(
        self,
        state: Tensor,  # [batch, 1, height, width]
        **counter: int,
    ) -> Tensor:
        """The divergence of an independent normal for each edge between two cells: its covariance is -Lap."""
        batch, _, height, width = state.shape
        stream = philox.STREAMS["langevin"]
        normals = ops.normal(batch, 2 * height * width, stream=stream, device=state.device, **counter)
        down, right = normals.view(batch, 2, height, width).to(state.dtype).split(1, 1)
        return ((down - down.roll(1, -2)) + (right - right.roll(1, -1))) / self.dx

    def energy(
        self,
        state: Tensor,  # [batch, 1, height, width]
    ) -> Tensor:
        """Sum over the cells of u^4 / 4 - u^2 / 2 - stiffness u Lap u / 2, [batch]."""
        square = state.square()
        bent = state * unit_laplacian(state, self.stencil) * (self.stiffness / self.dx**2)
        return (square * (square / 4 - 0.5) - bent / 2).sum((1, 2, 3))
