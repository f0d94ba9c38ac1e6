"""Exact scores of noised sets: y = sqrt(alpha) x + sqrt(1 - alpha) epsilon.

Each is a function score(y), as `eqflow.score` asks for, with log_density(y); both in the precision and on the device of
y, [batch, dimension].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from eqflow.systems.whitened import WhitenedMixture


class ExactScore:
    """A closed form folds as itself: score = 0 * state + 1 * output."""

    state_scale: ClassVar[float] = 0.0
    output_scale: ClassVar[float] = 1.0

    def __call__(self, state: Tensor) -> Tensor:
        raise NotImplementedError

    def output(self, state: Tensor) -> Tensor:
        return self(state)


def _posterior(joint: Tensor) -> Tensor:
    return joint.softmax(1)[..., None]


@dataclass(frozen=True, eq=False)
class GaussianMixture(ExactScore):
    """grad log of p(y) = sum of w_i N(y; m_i, C_i), for many components at once.

    Args:
        means: [components, dimension], float64.
        covariances: [components, dimension, dimension]; [1, dimension, dimension] for all; or one number, the variance
            of every coordinate.
        weights: [components], with the sum 1.

    Example:
        >>> score = GaussianMixture(torch.zeros(1, 2), 0.25 * torch.eye(2)[None], torch.ones(1))
        >>> score(torch.tensor([[1.0, -2.0]]))
        tensor([[-4.,  8.]])
    """

    means: Tensor
    covariances: Tensor | float
    weights: Tensor

    def __post_init__(self) -> None:
        if isinstance(self.covariances, Tensor):
            roots = torch.linalg.cholesky(self.covariances)
            whiten = torch.linalg.solve_triangular(roots, torch.eye(self.dimension).to(roots), upper=False)
            whiten = whiten[0] if len(whiten) == 1 else whiten
        else:
            whiten = self.means.new_tensor(self.covariances).rsqrt()
        object.__setattr__(self, "_whitened", WhitenedMixture(self.means, whiten, self.weights.log()))

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    @property
    def lipschitz(self) -> float:
        """No eigenvalue of the Jacobian of the score lies below minus this."""
        if not isinstance(self.covariances, Tensor):
            return 1 / self.covariances
        return 1 / float(torch.linalg.eigvalsh(self.covariances).min())

    def __call__(self, state: Tensor) -> Tensor:
        return self._whitened.score(state)

    def log_density(self, state: Tensor) -> Tensor:
        """log p(y), [batch]."""
        return self._whitened.log_density(state)

    def divergence(self, state: Tensor) -> Tensor:
        """Trace of the Jacobian of the score, [batch]."""
        return self._whitened.divergence(state)


@dataclass(frozen=True, eq=False)
class BoxMixture(ExactScore):
    """grad log of equal boxes, uniform inside, under Gaussian noise: a product of differences of normal integrals.

    Args:
        lowest, highest: corners of the boxes, [boxes, dimension].
        deviation: of the noise.
    """

    lowest: Tensor
    highest: Tensor
    deviation: float

    @property
    def dimension(self) -> int:
        return self.lowest.shape[1]

    def _edges(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances to the two edges in units of the noise, and the log of the normal integral between them."""
        above, below = ((state[:, None] - edge.to(state)) / self.deviation for edge in (self.lowest, self.highest))
        # Both tails look alike in log_ndtr's accurate half: the negative one.
        middle, half = -((above + below) / 2).abs(), (above - below) / 2
        larger, smaller = torch.special.log_ndtr(middle + half), torch.special.log_ndtr(middle - half)
        return above, below, larger + torch.log1p(-(smaller - larger).exp())

    def __call__(self, state: Tensor) -> Tensor:
        above, below, mass = self._edges(state)
        slope = (-(above.square()) / 2 - mass).exp() - (-(below.square()) / 2 - mass).exp()
        return (_posterior(mass.sum(2)) * slope).sum(1) / (self.deviation * math.sqrt(2 * math.pi))

    def log_density(self, state: Tensor) -> Tensor:
        """log p(y), [batch]."""
        volume = float((self.highest[0] - self.lowest[0]).prod()) * len(self.lowest)
        return self._edges(state)[2].sum(2).logsumexp(1) - math.log(volume)


@dataclass(frozen=True, eq=False)
class NormalRadius(ExactScore):
    """grad log of p(y) = N(|y|; radius, deviation^2) / (2 pi |y|): a ring in the plane, normal across.

    Args:
        radius, deviation: with radius many deviations, so that no radius is negative.
    """

    radius: float
    deviation: float
    dimension: ClassVar[int] = 2

    def __call__(self, state: Tensor) -> Tensor:
        length = state.norm(dim=1, keepdim=True)
        return ((self.radius - length) / self.deviation**2 - 1 / length) * state / length

    def log_density(self, state: Tensor) -> Tensor:
        """log p(y), [batch]."""
        length = state.norm(dim=1)
        exponent = ((length - self.radius) / self.deviation).square() / 2
        return -exponent - length.log() - math.log(self.deviation * (2 * math.pi) ** 1.5)
