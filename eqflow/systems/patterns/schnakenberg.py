"""Schnakenberg's reaction: spiral waves, or Turing spots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from eqflow.systems.patterns.pattern import Pattern
from eqflow.systems.patterns.terms import Equations, laplacian, nonzero, value


@dataclass(frozen=True)
class Schnakenberg(Pattern):
    """u_t = D_u Lap u + a - u + u^2 v, v_t = D_v Lap v + b - u^2 v.

    Schnakenberg, J. Theor. Biol. 81, 389 (1979). The homogeneous state (a + b, b / (a + b)^2) oscillates where
    b - a > (a + b)^3; the defaults lie there and give spiral waves. `Schnakenberg(0.1, 0.9, 0.5, 10.0)` gives static
    Turing spots instead, of which each equation is known up to a factor only. 64 pictures of
    64 x 64 take about a minute on one core with the defaults.

    Example:
        >>> Schnakenberg(0.1, 0.9, 0.5, 10.0).fixed_point()
        (1.0, 0.9)
    """

    a: float = 0.1
    b: float = 0.5
    diffusion_u: float = 0.4
    diffusion_v: float = 0.04

    source: ClassVar[str] = "Schnakenberg, J. Theor. Biol. 81, 389 (1979)"
    character: ClassVar[str] = "moving"
    settling: ClassVar[float] = 150.0
    longest_step: ClassVar[float] = 0.1

    def equations(self) -> Equations:
        return (
            nonzero({laplacian(1, 0): self.diffusion_u, value(0, 0): self.a, value(1, 0): -1.0, value(2, 1): 1.0}),
            nonzero({laplacian(0, 1): self.diffusion_v, value(0, 0): self.b, value(2, 1): -1.0}),
        )

    def fixed_point(self) -> tuple[float, ...]:
        whole = self.a + self.b
        return whole, self.b / whole**2
