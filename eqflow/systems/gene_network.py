"""A genetic switch of the germinal centre under two oscillating signals: seven variables, 21 possible influences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox
from eqflow.systems.chains import Chains, sample_chains
from eqflow.systems.integrators import heun

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class GeneNetwork:
    """Two signals on circles, x' = w y + x (1 - r^2), y' = -w x + y (1 - r^2), drive the genes p, b and r.

        p' = 1e-6 - p + 9 i_1,   b' = 2 - (1 + BCR) b + 100 i_2,   r' = 0.1 - r + CD40 + 2.6 i_3,   i = Theta u
        u = (pi, beta, rho, pi beta, pi rho, beta rho, pi beta rho),   pi = 1/(1 + p^2), beta = 1/(1 + b^2), ...
        BCR = 10 S_1 beta,   CD40 = 5 S_2 beta,   S_i = (y_i^2 / (x_i^2 + y_i^2))^15

    with noise sqrt(2 D) dW in every equation. Martinez et al., PNAS 109, 2672 (2012), with the signals of Lu, Kusmierz
    and Mihalas, "A Fokker-Planck-based loss function".

    Args:
        theta: 3 rows of 7; None: the network of the paper, where beta and rho act on p, pi beta rho on b, and rho on r.
        diffusion: D.

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> GeneNetwork().drift(torch.ones(1, 7)).shape
        torch.Size([1, 7])
    """

    theta: Rows | None = None
    diffusion: float = 1e-4

    dimension: ClassVar[int] = 7
    variables: ClassVar[tuple[str, ...]] = ("x1", "y1", "x2", "y2", "p", "b", "r")
    influences: ClassVar[tuple[str, ...]] = ("pi", "beta", "rho", "pi beta", "pi rho", "beta rho", "pi beta rho")
    scales: ClassVar[tuple[float, ...]] = (9.0, 100.0, 2.6)
    frequencies: ClassVar[tuple[float, ...]] = (math.pi / 100, math.sqrt(2) * math.pi / 100)
    chains: ClassVar[Chains] = Chains(
        0.02, 60.0, 10.0, (0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 0.5), (1.0, 1.0, 1.0, 1.0, 0.3, 0.6, 0.3)
    )
    source: ClassVar[str] = "Martinez et al., PNAS 109, 2672 (2012)"

    def __post_init__(self) -> None:
        if self.theta is not None:
            theta = torch.as_tensor(self.theta, dtype=torch.float64)
            if theta.shape != (3, 7):
                raise ValueError(f"expected theta [3, 7], got {list(theta.shape)}")
            object.__setattr__(self, "theta", tuple(map(tuple, theta.tolist())))
        if not self.diffusion >= 0:
            raise ValueError(f"expected diffusion from 0 up, got {self.diffusion}")

    @property
    def coefficients(self) -> Tensor:
        """Theta, float64 [3, 7]."""
        if self.theta is not None:
            return torch.tensor(self.theta, dtype=torch.float64)
        theta = torch.zeros(3, 7, dtype=torch.float64)
        theta[0, 1] = theta[0, 2] = theta[1, 6] = theta[2, 2] = 1.0
        return theta

    @property
    def dt(self) -> float:
        """Time step of `sample`."""
        return self.chains.dt

    def drift(
        self,
        points: Tensor,  # [..., 7]
    ) -> Tensor:
        """f(x), of the shape of the points."""
        return torch.stack(self.equations(*points.unbind(-1)), -1)

    def background(
        self,
        points: Tensor,  # [..., 7]
    ) -> Tensor:
        """The drift without influences, Theta = 0: [..., 7]."""
        return torch.stack(self._background(*points.unbind(-1)), -1)

    def _background(self, x1: Tensor, y1: Tensor, x2: Tensor, y2: Tensor, p: Tensor, b: Tensor, r: Tensor):
        rows, gates = [], []
        for x, y, frequency in ((x1, y1, self.frequencies[0]), (x2, y2, self.frequencies[1])):
            square = x * x + y * y
            pull = 1 - square
            rows += [frequency * y + x * pull, -frequency * x + y * pull]
            share = y * y / square
            second = share * share
            fourth = second * second
            gates.append(fourth * fourth * fourth * second * share)
        beta = 1 / (1 + b * b)
        return (*rows, 1e-6 - p, 2 - (1 + 10 * gates[0] * beta) * b, 0.1 - r + 5 * gates[1] * beta)

    def equations(self, *coordinates: Tensor) -> tuple[Tensor, ...]:
        """The drift, coordinate by coordinate."""
        pi, beta, rho = (1 / (1 + gene * gene) for gene in coordinates[4:])
        terms = (pi, beta, rho, pi * beta, pi * rho, beta * rho, pi * beta * rho)
        rows = list(self._background(*coordinates))
        for row, (scale, weights) in enumerate(zip(self.scales, self.coefficients.tolist(), strict=True), 4):
            for weight, term in zip(weights, terms, strict=True):
                if weight:
                    rows[row] = rows[row] + scale * weight * term
        return tuple(rows)

    def advance(
        self, state: Tensor, steps: int, seed: int, first_sample: int, first_step: int, dt: float | Tensor
    ) -> Tensor:
        """The state [7, chains] some steps later; dt may differ from chain to chain."""

        def rates(state: Tensor) -> Tensor:
            return torch.stack(self.equations(*state))

        for step in range(first_step, first_step + steps):
            counter = {"seed": seed, "step": step, "stream": philox.STREAMS["langevin"], "first_sample": first_sample}
            normals = ops.normal(state.shape[1], len(state), device=state.device, **counter)
            state = heun(rates, state, dt, normals.T.to(state) * (2 * self.diffusion * dt) ** 0.5)
        return state

    def sample(self, batch: int, *, seed: int, first_sample: int = 0, device: str | torch.device = "cpu") -> Tensor:
        """Unordered points of the steady state, float64 [batch, 7], functions of (seed, index) alone.

        The first 20,000 come from independent chains, further ones from the same chains, ten time units later each.

        Args:
            batch: number of points.
            seed: in [0, 2^64).
            first_sample: index of the first point.
            device: where they are made.
        """
        return sample_chains(self, batch, seed=seed, first_sample=first_sample, device=device)
