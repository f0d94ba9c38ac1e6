"""The Brusselator: chemical turbulence, oscillations, or Turing patterns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eqflow.systems.patterns.pattern import Pattern
from eqflow.systems.patterns.terms import Equations, laplacian, nonzero, value


@dataclass(frozen=True)
class Brusselator(Pattern):
    """u_t = D_u Lap u + a - (b + 1) u + u^2 v, v_t = D_v Lap v + b u - u^2 v.

    Prigogine and Lefever, J. Chem. Phys. 48, 1695 (1968). The homogeneous state (a, b / a) oscillates above
    b = 1 + a^2 and forms static Turing patterns above b = (1 + a sqrt(D_u / D_v))^2. The defaults lie in the first
    range, and since u spreads much faster than v, a uniform oscillation is unstable too: chemical turbulence
    (Kuramoto, Chemical Oscillations, Waves, and Turbulence, 1984), which moves for ever and is stationary.
    64 pictures of 64 x 64 take less than a minute on one core.

    Example:
        >>> Brusselator().simulate(2, 16, 24, seed=0, steps=10).shape
        torch.Size([2, 2, 16, 24])
        >>> Brusselator().equations()[1]["value", (2, 1)]
        -1.0
    """

    a: float = 2.0
    b: float = 5.4
    diffusion_u: float = 1.0
    diffusion_v: float = 0.1

    source: ClassVar[str] = "Prigogine and Lefever, J. Chem. Phys. 48, 1695 (1968)"
    character: ClassVar[str] = "moving"
    settling: ClassVar[float] = 50.0
    longest_step: ClassVar[float] = 0.05

    def equations(self) -> Equations:
        return (
            nonzero(
                {laplacian(1, 0): self.diffusion_u, value(0, 0): self.a, value(1, 0): -(self.b + 1), value(2, 1): 1.0}
            ),
            nonzero({laplacian(0, 1): self.diffusion_v, value(1, 0): self.b, value(2, 1): -1.0}),
        )

    def fixed_point(self) -> tuple[float, ...]:
        return self.a, self.b / self.a
