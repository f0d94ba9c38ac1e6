"""Test functions of phases: for variables that are driven by oscillators and keep close to what the phases say.

Where the state is a thin tube around a torus of phases t, a variable q hardly leaves its mean q(t), and functions of
the whole space see mainly the tube. phi = psi(t) (q - q(t)) sees what moves q: with L_t psi = sum of t_i' d_i psi +
D sum of d_ii psi / R_i and R_i the squared radius of oscillator i,

    L phi = psi (f_q - L_t q) + (q - q(t)) L_t psi - 2 D sum of d_i psi d_i q / R_i
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow.fokker_planck.derivatives import unit
from eqflow.fokker_planck.moments import Source

_CHUNK = 2**14
Pairs = tuple[tuple[int, int], ...]


class _Phases(NamedTuple):
    angles: Tensor  # [n, oscillators]
    radii: Tensor  # [n, oscillators], squared

    @staticmethod
    def of(points: Tensor, pairs: Pairs) -> _Phases:
        x, y = points[:, [x for x, _ in pairs]], points[:, [y for _, y in pairs]]
        return _Phases(torch.atan2(y, x), x.square() + y.square())


@dataclass(frozen=True, eq=False)
class Fourier:
    """1, cos k.t and sin k.t for the wave vectors k = step (k_1, k_2, ...), |k_i| <= harmonics, one of each k and -k.

    Args:
        oscillators: number of phases.
        harmonics: the highest one.
        step: 2 for even harmonics alone.

    Example:
        >>> Fourier(2, 4).count
        81
    """

    oscillators: int
    harmonics: int
    step: int = 1

    @property
    def waves(self) -> Tensor:
        """k, float64 [waves, oscillators]."""
        span = range(-self.harmonics, self.harmonics + 1)
        half = [k for k in itertools.product(span, repeat=self.oscillators) if k > (0,) * self.oscillators]
        return self.step * torch.tensor(half, dtype=torch.float64)

    @property
    def count(self) -> int:
        return (2 * self.harmonics + 1) ** self.oscillators

    def at(self, angles: Tensor) -> _FourierAt:
        return _FourierAt(self.waves.to(angles), angles)


class _FourierAt:
    def __init__(self, waves: Tensor, angles: Tensor):
        self.waves = waves
        phases = angles @ waves.T
        self.cos, self.sin = phases.cos(), phases.sin()

    def values(self) -> Tensor:
        return torch.cat([torch.ones_like(self.cos[:, :1]), self.cos, self.sin], 1)

    def _scaled(self, cos: Tensor, sin: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(self.cos[:, :1]), cos, sin], 1)

    def along(self, rates: Tensor) -> Tensor:
        """The sum of rates_i d_i, [n, count]."""
        speed = rates @ self.waves.T
        return self._scaled(-speed * self.sin, speed * self.cos)

    def second(self, weights: Tensor) -> Tensor:
        """The sum of weights_i d_ii, [n, count]."""
        curvature = -weights @ self.waves.square().T
        return self._scaled(curvature * self.cos, curvature * self.sin)


@dataclass(frozen=True, eq=False)
class PhaseConditioned:
    """phi_j = psi_j(t) (q - q(t)), with psi_j and q(t) Fourier series of the phases t.

    Args:
        pairs: coordinates (x, y) of each oscillator; its phase is atan2(y, x).
        target: coordinate q.
        psi: the series of the test functions.
        mean: the series of q(t).
        coefficients: of q(t), [mean.count].
    """

    pairs: Pairs
    target: int
    psi: Fourier
    mean: Fourier
    coefficients: Tensor

    @property
    def count(self) -> int:
        return self.psi.count

    def at(self, points: Tensor) -> _ConditionedAt:
        return _ConditionedAt(self, points)


class _ConditionedAt:
    def __init__(self, functions: PhaseConditioned, points: Tensor):
        self.functions, self.points = functions, points
        phases = _Phases.of(points, functions.pairs)
        self.inverse = phases.radii.reciprocal()
        self.psi, self.mean = functions.psi.at(phases.angles), functions.mean.at(phases.angles)
        self.coefficients = functions.coefficients.to(points)
        self.away = (points[:, functions.target] - self.mean.values() @ self.coefficients)[:, None]
        self.psi_values = self.psi.values()

    def values(self) -> Tensor:
        return self.psi_values * self.away

    def generator(self, drift: Tensor | None, diffusion: Tensor | None) -> Tensor:
        total = torch.zeros_like(self.psi_values)
        if drift is not None:
            rates = self._rates(drift)
            own = drift[:, self.functions.target] - self.mean.along(rates) @ self.coefficients
            total = self.psi_values * own[:, None] + self.away * self.psi.along(rates)
        if diffusion is not None:
            number = diffusion.flatten()[0]
            if diffusion.ndim != 2 or not torch.equal(diffusion, number * torch.eye(len(diffusion)).to(diffusion)):
                raise ValueError("expected one number for the diffusion of all coordinates with functions of phases")
            curvature = self.mean.second(self.inverse) @ self.coefficients
            second = self.away * self.psi.second(self.inverse) - self.psi_values * curvature[:, None]
            for i in range(len(self.functions.pairs)):
                only = torch.zeros_like(self.inverse)
                only[:, i] = self.inverse[:, i].sqrt()
                second -= 2 * self.psi.along(only) * (self.mean.along(only) @ self.coefficients)[:, None]
            total = total + number * second
        return total

    def _rates(self, drift: Tensor) -> Tensor:
        """How fast the phases move: (x f_y - y f_x) / (x^2 + y^2)."""
        x, y = ([pair[i] for pair in self.functions.pairs] for i in (0, 1))
        return (self.points[:, x] * drift[:, y] - self.points[:, y] * drift[:, x]) * self.inverse

    def gradient_sums(self, features: Tensor, rows: list[int]) -> Tensor:
        slopes = [
            self.psi_values if row == self.functions.target else self.generator(unit(self.points, row), None)
            for row in rows
        ]
        return torch.stack([slope.T @ features for slope in slopes], 1)


def _regress(points: Tensor, pairs: Pairs, target: int, mean: Fourier, ridge: float) -> Tensor:
    """Coefficients of q(t), by ridge regression."""
    square = ridge * torch.eye(mean.count, dtype=torch.float64, device=points.device)
    product = square.new_zeros(mean.count)
    for part in points.double().split(_CHUNK):
        values = mean.at(_Phases.of(part, pairs).angles).values()
        square += values.T @ values
        product += values.T @ part[:, target]
    return torch.linalg.solve(square, product)


def phase_conditioned(
    points: Tensor,  # [n, dimension]
    target: int,
    *,
    pairs: Sequence[tuple[int, int]],
    harmonics: int = 4,
    mean_harmonics: int = 9,
    step: int = 1,
    ridge: float = 1e-2,
) -> tuple[Source, Source]:
    """Points with test functions of phases for one variable; q(t) is fitted on one half and used on the other.

    Args:
        points: the data.
        target: coordinate of the variable q whose equation is sought.
        pairs: coordinates (x, y) of each oscillator.
        harmonics: of the test functions; there are (2 harmonics + 1)^oscillators of them.
        mean_harmonics: of q(t).
        step: 2 where the oscillators act through even functions of theirs alone, so that all has twice their frequency.
        ridge: added to the normal matrix of the fit of q(t).

    Returns:
        Sources that `weak_form` takes in place of points.

    Raises:
        ValueError: an argument is wrong, or there are too few points to fit q(t).

    Example:
        >>> one, two = phase_conditioned(torch.randn(1000, 3), 2, pairs=[(0, 1)])
        >>> one.functions.count, len(two.points)
        (9, 500)
    """
    pairs = tuple((int(x), int(y)) for x, y in pairs)
    places = [target, *(c for pair in pairs for c in pair)]
    if not pairs or len(set(places)) < len(places) or not all(0 <= c < points.shape[1] for c in places):
        raise ValueError(f"expected different coordinates below {points.shape[1]} for target and pairs, got {places}")
    if harmonics < 1 or mean_harmonics < 1 or step < 1 or not ridge >= 0:
        raise ValueError("expected harmonics, mean_harmonics and step from 1 up, and a ridge from 0 up")
    psi, mean = Fourier(len(pairs), harmonics, step), Fourier(len(pairs), mean_harmonics, step)
    if len(points) < 4 * mean.count:
        raise ValueError(
            f"expected {4 * mean.count} points or more for a mean of {mean.count} terms, got {len(points)}: take fewer "
            "mean_harmonics"
        )
    halves = points[::2], points[1::2]
    fits = [_regress(half, pairs, target, mean, ridge) for half in halves]
    return tuple(
        Source(half, PhaseConditioned(pairs, target, psi, mean, fit))
        for half, fit in zip(halves, reversed(fits), strict=True)
    )
