"""Gray-Scott in continuous time, with noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from eqflow.systems.gray_scott import initial_state
from eqflow.systems.patterns.pattern import Pattern
from eqflow.systems.patterns.terms import Equations, laplacian, nonzero, value


@dataclass(frozen=True)
class NoisyGrayScott(Pattern):
    """u_t = D_u Lap u - u v^2 + feed (1 - u), v_t = D_v Lap v + u v^2 - (feed + kill) v, each with noise.

    Pearson, Science 261, 189 (1993). The defaults are those of the preset "wave", which moves and is stationary with
    noise and without. `eqflow.ops.gray_scott` is the fast kernel for Euler steps without noise;
    here 64 pictures of 64 x 64 take two minutes on one core.

    Example:
        >>> NoisyGrayScott().simulate(2, 32, 32, seed=0, steps=10).shape
        torch.Size([2, 2, 32, 32])
    """

    feed: float = 0.018
    kill: float = 0.049
    diffusion_u: float = 0.16
    diffusion_v: float = 0.08
    diffusion: float = 1e-5

    source: ClassVar[str] = "Pearson, Science 261, 189 (1993)"
    character: ClassVar[str] = "moving"
    settling: ClassVar[float] = 2000.0
    longest_step: ClassVar[float] = 1.0

    def equations(self) -> Equations:
        feed, loss = self.feed, self.feed + self.kill
        return (
            nonzero({laplacian(1, 0): self.diffusion_u, value(0, 0): feed, value(1, 0): -feed, value(1, 2): -1.0}),
            nonzero({laplacian(0, 1): self.diffusion_v, value(0, 1): -loss, value(1, 2): 1.0}),
        )

    def fixed_point(self) -> tuple[float, ...]:
        return 1.0, 0.0

    def start(
        self,
        batch: int,
        height: int,
        width: int,
        *,
        seed: int,
        first_sample: int = 0,
        device: str | torch.device = "cpu",
    ) -> Tensor:
        """The discs of `eqflow.systems.gray_scott.initial_state`, on 15 x 15 cells or more."""
        samples = torch.arange(first_sample, first_sample + batch, device=device)
        return initial_state("discs", samples, height, width, seed=seed)
