"""Swift-Hohenberg: stripes and hexagons, the descent of an energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from eqflow.ops.gray_scott import laplacian as unit_laplacian
from eqflow.systems.patterns.pattern import Pattern
from eqflow.systems.patterns.terms import Equations, bilaplacian, laplacian, nonzero, value


@dataclass(frozen=True)
class SwiftHohenberg(Pattern):
    """u_t = growth u - (1 + Lap)^2 u + quadratic u^2 - u^3: the pattern has the wavelength 2 pi.

    Swift and Hohenberg, Phys. Rev. A 15, 319 (1977). It descends `energy`, so without noise the pattern comes to rest
    (stripes; hexagons with a quadratic term of about 1) and its equation is known up to a factor. With noise the
    pictures are stationary, exp(-energy / D) is their density, and nothing in it has a direction in time.
    64 pictures of 64 x 64 take about a minute on one core.

    Example:
        >>> system = SwiftHohenberg()
        >>> start = system.start(1, 32, 32, seed=0)
        >>> bool(system.energy(system.run(start, 100)) < system.energy(start))
        True
    """

    growth: float = 0.3
    quadratic: float = 0.0

    channels: ClassVar[tuple[str, ...]] = ("u",)
    source: ClassVar[str] = "Swift and Hohenberg, Phys. Rev. A 15, 319 (1977)"
    character: ClassVar[str] = "static"
    settling: ClassVar[float] = 50.0
    longest_step: ClassVar[float] = 0.1

    def equations(self) -> Equations:
        linear = {value(1): self.growth - 1, laplacian(1): -2.0, bilaplacian(1): -1.0}
        return (nonzero({**linear, value(2): self.quadratic, value(3): -1.0}),)

    def fixed_point(self) -> tuple[float, ...]:
        return (0.0,)

    def energy(
        self,
        state: Tensor,  # [batch, 1, height, width]
    ) -> Tensor:
        """Sum over the cells of ((1 + Lap) u)^2 / 2 - growth u^2 / 2 - quadratic u^3 / 3 + u^4 / 4, [batch]."""
        bent = state + unit_laplacian(state, self.stencil) / self.dx**2
        local = state.square() * (state.square() / 4 - self.quadratic * state / 3 - self.growth / 2)
        return (bent.square() / 2 + local).sum((1, 2, 3))
