"""Six chaotic systems of three coordinates, each with the parameters at which the literature knows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from eqflow.systems.chains import Chains
from eqflow.systems.chaotic import ChaoticSystem, Slopes


@dataclass(frozen=True)
class Lorenz(ChaoticSystem):
    """x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z, each with noise sqrt(2 D) dW.

    Lorenz, J. Atmos. Sci. 20, 130 (1963). Unchanged by (x, y, z) -> (-x, -y, z).

    Args:
        sigma, rho, beta: the parameters.
        diffusion: D, 0 for the deterministic system.

    Example:
        >>> Lorenz().velocity(torch.tensor([1.0, 2.0, 3.0]))
        tensor([10., 23., -6.])
    """

    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8 / 3
    diffusion: float = 0.0

    source: ClassVar[str] = "Lorenz, J. Atmos. Sci. 20, 130 (1963)"
    lyapunov: ClassVar[float] = 0.9056

    def __post_init__(self) -> None:
        if self.diffusion < 0:
            raise ValueError(f"expected diffusion from 0 up, got {self.diffusion}")

    @property
    def chains(self) -> Chains:
        if self.diffusion:
            return Chains(0.002, 10.0, 0.5, (0.0, 0.0, 25.0), (8.0, 8.0, 8.0))
        return Chains(0.01, 20.0, 0.1, (0.0, 0.0, 24.0), (8.0, 9.0, 8.0))

    def equations(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return self.sigma * (y - x), x * (self.rho - z) - y, x * y - self.beta * z

    def slopes(self, x: Tensor, y: Tensor, z: Tensor) -> Slopes:
        return (-self.sigma, self.sigma, 0.0), (self.rho - z, -1.0, -x), (y, x, -self.beta)


@dataclass(frozen=True)
class Chen(ChaoticSystem):
    """x' = a (y - x), y' = (c - a) x - x z + c y, z' = x y - b z.

    Chen and Ueta, Int. J. Bifurcation Chaos 9, 1465 (1999). Unchanged by (x, y, z) -> (-x, -y, z).
    """

    a: float = 35.0
    b: float = 3.0
    c: float = 28.0

    source: ClassVar[str] = "Chen and Ueta, Int. J. Bifurcation Chaos 9, 1465 (1999)"
    lyapunov: ClassVar[float] = 2.027
    chains: ClassVar[Chains] = Chains(0.004, 10.0, 0.1, (0.0, 0.0, 24.0), (8.0, 9.0, 6.0))

    def equations(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return self.a * (y - x), (self.c - self.a - z) * x + self.c * y, x * y - self.b * z

    def slopes(self, x: Tensor, y: Tensor, z: Tensor) -> Slopes:
        return (-self.a, self.a, 0.0), (self.c - self.a - z, self.c, -x), (y, x, -self.b)


@dataclass(frozen=True)
class SprottB(ChaoticSystem):
    """x' = y z, y' = x - y, z' = 1 - x y: case B of Sprott, Phys. Rev. E 50, R647 (1994).

    Unchanged by (x, y, z) -> (-x, -y, z).
    """

    source: ClassVar[str] = "case B of Sprott, Phys. Rev. E 50, R647 (1994)"
    lyapunov: ClassVar[float] = 0.210
    chains: ClassVar[Chains] = Chains(0.04, 60.0, 1.0, (0.0, 0.0, 0.0), (0.5, 0.5, 0.5))

    def equations(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return y * z, x - y, 1 - x * y

    def slopes(self, x: Tensor, y: Tensor, z: Tensor) -> Slopes:
        return (0.0, z, y), (1.0, -1.0, 0.0), (-y, -x, 0.0)


@dataclass(frozen=True)
class Rossler(ChaoticSystem):
    """x' = -y - z, y' = x + a y, z' = b + z (x - c): Roessler, Phys. Lett. A 57, 397 (1976)."""

    a: float = 0.2
    b: float = 0.2
    c: float = 5.7

    source: ClassVar[str] = "Roessler, Phys. Lett. A 57, 397 (1976)"
    lyapunov: ClassVar[float] = 0.0714
    chains: ClassVar[Chains] = Chains(0.04, 100.0, 1.0, (0.0, 0.0, 0.1), (2.0, 2.0, 0.01))

    def equations(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return -y - z, x + self.a * y, self.b + z * (x - self.c)

    def slopes(self, x: Tensor, y: Tensor, z: Tensor) -> Slopes:
        return (0.0, -1.0, -1.0), (1.0, self.a, 0.0), (z, 0.0, x - self.c)


@dataclass(frozen=True)
class Halvorsen(ChaoticSystem):
    """x' = -a x - 4 y - 4 z - y^2 and its cyclic permutations.

    Sprott, Chaos and Time-Series Analysis (2003), with his a = 1.27. The 1.89 that circulates gives a limit cycle; at
    1.4, which circulates too, the largest exponent is 0.68.
    """

    a: float = 1.27

    source: ClassVar[str] = "Sprott, Chaos and Time-Series Analysis (Oxford, 2003)"
    lyapunov: ClassVar[float] = 0.7899
    chains: ClassVar[Chains] = Chains(0.01, 20.0, 0.1, (-5.0, 0.0, 0.0), (0.1, 0.1, 0.1))

    def equations(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return tuple(-self.a * p - 4 * (q + r) - q * q for p, q, r in ((x, y, z), (y, z, x), (z, x, y)))

    def slopes(self, x: Tensor, y: Tensor, z: Tensor) -> Slopes:
        return (-self.a, -4 - 2 * y, -4.0), (-4.0, -self.a, -4 - 2 * z), (-4 - 2 * x, -4.0, -self.a)


@dataclass(frozen=True)
class Thomas(ChaoticSystem):
    """x' = sin y - b x and its cyclic permutations: Thomas, Int. J. Bifurcation Chaos 9, 1889 (1999).

    Unchanged by x -> -x. At b = 0.208186, the onset of chaos, several attractors coexist, and the points are a mixture
    of them that depends on the starts; at b = 0.18 there is one, with a largest exponent of 0.035.
    `lyapunov` is measured here, over all of them.
    """

    b: float = 0.208186

    source: ClassVar[str] = "Thomas, Int. J. Bifurcation Chaos 9, 1889 (1999)"
    lyapunov: ClassVar[float] = 0.006
    chains: ClassVar[Chains] = Chains(0.1, 200.0, 2.0, (0.0, 0.0, 0.0), (2.0, 2.0, 2.0))

    def equations(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        return y.sin() - self.b * x, z.sin() - self.b * y, x.sin() - self.b * z

    def slopes(self, x: Tensor, y: Tensor, z: Tensor) -> Slopes:
        return (-self.b, y.cos(), 0.0), (0.0, -self.b, z.cos()), (x.cos(), 0.0, -self.b)
