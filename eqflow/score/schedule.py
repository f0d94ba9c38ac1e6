"""Noise schedules: how much signal is left at the time tau in [0, 1].

y = sqrt(alpha) x + sqrt(1 - alpha) epsilon. `alpha` is always the squared coefficient of the signal; where papers quote
"0.95" they mean alpha in one place and sqrt(alpha) in another, so both stand here by name. Every schedule takes and
returns floats or tensors:

    alpha(tau), sqrt_alpha(tau)    falling in tau
    tau(alpha)                     the inverse
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

Number = TypeVar("Number", float, Tensor)


@runtime_checkable
class Schedule(Protocol):
    """What training and `Denoiser.at` need of a schedule."""

    def alpha(self, tau: Number) -> Number:
        """Squared coefficient of the signal at the time tau in [0, 1]."""
        ...

    def sqrt_alpha(self, tau: Number) -> Number:
        """Coefficient of the signal."""
        ...

    def tau(self, alpha: Number) -> Number:
        """The time at which the squared coefficient is alpha."""
        ...


def _like(result: Tensor, given: Number) -> Number:
    return result.to(given) if isinstance(given, Tensor) else float(result)


def _exact(given: Number) -> Tensor:
    return torch.as_tensor(given, dtype=torch.float64)


@dataclass(frozen=True)
class ContinuousSchedule:
    """alpha(tau) = exp(-b0 tau - growth tau^2 / 2): a rate of noising that rises linearly from b0 to b0 + growth.

    Args:
        b0: rate at tau = 0.
        growth: how much higher the rate is at tau = 1.

    Example:
        >>> round(ContinuousSchedule().alpha(0.2), 4), round(ContinuousSchedule().tau(0.95), 4)
        (0.95, 0.2)
    """

    b0: float = 0.02
    growth: float = 2.365

    def alpha(self, tau: Number) -> Number:
        time = _exact(tau)
        return _like((-self.b0 * time - 0.5 * self.growth * time.square()).exp(), tau)

    def sqrt_alpha(self, tau: Number) -> Number:
        return _like(_exact(self.alpha(tau)).sqrt(), tau)

    def tau(self, alpha: Number) -> Number:
        lost = _exact(alpha).reciprocal().log()
        # The root without cancellation: small times keep their digits.
        return _like(2 * lost / (self.b0 + (self.b0**2 + 2 * self.growth * lost).sqrt()), alpha)


class _Levels:
    """A table of falling alphas, each for a stretch of tau; its level belongs to the middle of the stretch.

    tau(alpha) lies between the middles where alpha lies between two levels, so that a network that saw the times of the
    levels is asked between them, and alpha(tau(level)) is the level.
    """

    table: Tensor  # [levels], float64
    stretches: int  # in [0, 1]

    def alpha(self, tau: Number) -> Number:
        # The time of the beginning of a stretch must not fall below it by rounding, in float32 either.
        index = (_exact(tau) * self.stretches + 1e-4).floor().long().clamp(0, len(self.table) - 1)
        return _like(self.table.to(index.device)[index], tau)

    def sqrt_alpha(self, tau: Number) -> Number:
        return _like(_exact(self.alpha(tau)).sqrt(), tau)

    def tau(self, alpha: Number) -> Number:
        wanted = _exact(alpha)
        table = self.table.to(wanted.device)
        after = torch.searchsorted(-table, -wanted).clamp(1, len(table) - 1)
        high, low = table[after - 1], table[after]
        level = after - 1 + ((high - wanted) / (high - low)).clamp(0, 1)
        return _like(((level + 0.5) / self.stretches).clamp(max=1.0), alpha)


@dataclass(frozen=True)
class CosineSchedule(_Levels):
    """The levels alpha_i = (1 + 0.998 cos(pi i / 99)) / 2, i = floor(99 tau), that the planar sets of the paper had.

    At tau = 0.2 alpha is 0.911 and sqrt(alpha) 0.954 (Zhang & Levin 2025 write 0.95 there).

    Example:
        >>> round(CosineSchedule().alpha(0.2), 3), round(CosineSchedule().sqrt_alpha(0.2), 3)
        (0.911, 0.954)
    """

    levels: int = 100

    @property
    def stretches(self) -> int:
        return self.levels - 1

    @cached_property
    def table(self) -> Tensor:
        return (1 + 0.998 * (math.pi * torch.linspace(0, 1, self.levels, dtype=torch.float64)).cos()) / 2


@dataclass(frozen=True)
class LinearSchedule(_Levels):
    """The levels alpha_i = product over j <= i of (1 - beta_j), i = floor(100 tau), that the images of the paper had.

    beta rises linearly. At tau = 0.1 alpha is 0.9448 and sqrt(alpha) 0.972.

    Args:
        levels: how many.
        first_beta: variance of the noise that the first level adds.
        last_beta: variance of the noise that the last level adds.

    Example:
        >>> round(LinearSchedule().alpha(0.1), 4)
        0.9448
    """

    levels: int = 100
    first_beta: float = 1e-4
    last_beta: float = 0.1

    @property
    def stretches(self) -> int:
        return self.levels

    @cached_property
    def table(self) -> Tensor:
        return (1 - torch.linspace(self.first_beta, self.last_beta, self.levels, dtype=torch.float64)).cumprod(0)
