"""FitzHugh-Nagumo: spiral waves in an excitable medium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eqflow.systems.patterns.pattern import Pattern
from eqflow.systems.patterns.terms import Equations, laplacian, nonzero, value


@dataclass(frozen=True)
class FitzHughNagumo(Pattern):
    """u_t = D_u Lap u + u - u^3 / 3 - v + drive, v_t = D_v Lap v + rate (u + a - b v).

    FitzHugh, Biophys. J. 1, 445 (1961), with his a, b and rate. With the default drive the medium rests but can be
    excited: a start in patches breaks into spiral waves that turn, collide and break for ever.
    64 pictures of 64 x 64 take about a minute on one core.

    Example:
        >>> [round(value, 3) for value in FitzHughNagumo().fixed_point()]
        [-1.069, -0.462]
    """

    a: float = 0.7
    b: float = 0.8
    rate: float = 0.08
    drive: float = 0.2
    diffusion_u: float = 0.15
    diffusion_v: float = 0.0

    source: ClassVar[str] = "FitzHugh, Biophys. J. 1, 445 (1961)"
    character: ClassVar[str] = "moving"
    settling: ClassVar[float] = 400.0
    longest_step: ClassVar[float] = 0.25
    patch: ClassVar[int] = 8
    spread: ClassVar[float] = 1.0

    def equations(self) -> Equations:
        rate, third = self.rate, 1 / 3
        first = {laplacian(1, 0): self.diffusion_u, value(1, 0): 1.0, value(3, 0): -third, value(0, 1): -1.0}
        second = {laplacian(0, 1): self.diffusion_v, value(1, 0): rate, value(0, 0): rate * self.a}
        return nonzero({**first, value(0, 0): self.drive}), nonzero({**second, value(0, 1): -rate * self.b})

    def fixed_point(self) -> tuple[float, ...]:
        """The steady state; the middle one where there are three."""
        roots = np.roots([-self.b / 3, 0.0, self.b - 1, self.b * self.drive - self.a])
        real = np.sort(roots[np.isreal(roots)].real)
        u = float(real[len(real) // 2])
        return u, u - u**3 / 3 + self.drive
