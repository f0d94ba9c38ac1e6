"""Residuals that are linear in the unknowns, and the coefficients that make them small."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.fokker_planck.solve import solve
from eqflow.ops import philox

_BLOCK = 256  # steps of a descent whose probes are drawn at once


class LinearResidual(NamedTuple):
    """r = matrix theta + offset at some probes."""

    names: tuple[str, ...]
    matrix: Tensor  # [probes, unknowns]
    offset: Tensor  # [probes]

    def at(
        self,
        coefficients: Tensor,  # [unknowns]
    ) -> Tensor:
        """r, [probes]."""
        return self.matrix @ coefficients.to(self.matrix) + self.offset


def least_squares(residual: LinearResidual) -> Tensor:
    """argmin of the sum of r^2, -A^+ c for r = A theta + c.

    Raises:
        ValueError: fewer probes than unknowns, or dependent columns, which are named.

    Example:
        >>> values = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0], dtype=torch.float64)
        >>> residual = LinearResidual(("level",), torch.ones(5, 1, dtype=torch.float64), -values)
        >>> least_squares(residual).item(), round(least_absolute(residual).item(), 3)
        (4.0, 3.0)
    """
    return solve(residual.matrix, -residual.offset, residual.names).coefficients


def least_absolute(residual: LinearResidual, *, rounds: int = 100) -> Tensor:
    """argmin of the sum of |r|, by least squares reweighted with 1 / sqrt(r^2 + e^2), e = 1e-4 of the median |r|.

    Args:
        residual: at the probes.
        rounds: at most; it stops earlier where nothing changes any more.

    Raises:
        ValueError: as `least_squares`.
    """
    coefficients = least_squares(residual)
    for _ in range(rounds):
        size = residual.at(coefficients).abs()
        weights = (size.square() + (1e-4 * size.median()).square()).clamp_min(1e-300).pow(-0.25)[:, None]
        before = coefficients
        weighted = (residual.matrix * weights, -residual.offset * weights[:, 0])
        coefficients = solve(*weighted, residual.names).coefficients
        if (coefficients - before).norm() <= 1e-10 * before.norm():
            break
    return coefficients


def descend(
    residual: LinearResidual,
    start: Tensor,  # [runs, unknowns]
    *,
    rate: float = 0.1,
    batch: int = 2,
    epochs: int = 2,
    seed: int = 0,
) -> Tensor:
    """Stochastic descent on the mean of |r| by Adam with a rate that decays as a cosine, several runs at once.

    Args:
        residual: at the probes.
        start: where each run begins.
        rate: of the first step, in units of the coefficients.
        batch: probes of a step.
        epochs: how often each probe is used on average.
        seed: key of the choice of the probes, another one for each run.

    Returns:
        [runs, unknowns].

    Raises:
        ValueError: an argument is wrong.

    Example:
        >>> line = LinearResidual(("slope",), torch.ones(500, 1), -3 * torch.ones(500))
        >>> descend(line, torch.zeros(2, 1), epochs=1).round(decimals=1).flatten().tolist()
        [3.0, 3.0]
    """
    if start.ndim != 2 or start.shape[1] != residual.matrix.shape[1]:
        raise ValueError(f"expected starts [runs, {residual.matrix.shape[1]}], got {list(start.shape)}")
    if not rate > 0 or batch < 1 or epochs < 1:
        raise ValueError(f"expected a positive rate, batch and epochs from 1 up, got {rate}, {batch}, {epochs}")
    runs, probes = torch.arange(len(start)), len(residual.offset)
    steps = max(1, probes * epochs // batch)
    parameters = start.detach().to(residual.matrix).clone().requires_grad_()
    optimiser = torch.optim.Adam([parameters], lr=rate)
    for step in range(steps):
        block, place = divmod(step, _BLOCK)
        if not place:
            words = philox.words(runs, batch * _BLOCK, seed=seed, step=block, stream=philox.STREAMS["minibatch"])
            draws = philox.integers(words, probes).view(len(runs), _BLOCK, batch).to(residual.matrix.device)
        chosen = draws[:, place]  # [runs, batch]
        values = torch.einsum("rbp,rp->rb", residual.matrix[chosen], parameters) + residual.offset[chosen]
        optimiser.param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
        optimiser.zero_grad()
        values.abs().mean(1).sum().backward()
        optimiser.step()
    return parameters.detach()
