"""Lyapunov exponents of a flow: the whole spectrum, from tangents, for many starts and many models at once.

Exponents are per unit time; per unit arc length they do not depend on how fast a learned flow runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow import ops
from eqflow.metrics.nulls import STREAM
from eqflow.systems.integrators import runge_kutta

Velocity = Callable[[Tensor], Tensor]
Pushforward = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Lyapunov(NamedTuple):
    """Exponents by windows of time, averaged over the starts that stayed; [...] are the leading dimensions."""

    exponents: Tensor  # [..., windows, exponents], falling, per unit time
    standard_errors: Tensor  # [..., windows, exponents]: from the spread between starts
    speed: Tensor  # [..., windows]: mean |v| along the trajectories
    stayed: Tensor  # [...]: share of the starts that never left the bound
    divergence: Tensor | None  # [..., windows]: mean div v along the trajectories; None from two trajectories

    @property
    def per_length(self) -> Tensor:
        """Exponents per unit arc length, [..., windows, exponents]."""
        return self.exponents / self.speed[..., None]

    @property
    def sum_error(self) -> Tensor:
        """Sum of the exponents minus the mean divergence, [..., windows]: 0 but for the error of the time step."""
        if self.divergence is None:
            raise ValueError("expected the whole spectrum, got one exponent: use lyapunov_spectrum")
        return self.exponents.sum(-1) - self.divergence


def by_autograd(velocity: Velocity) -> Pushforward:
    """v and J z from any velocity in which each row depends on its own point: one backward pass per coordinate."""

    def pushforward(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            points = points.detach().requires_grad_()
            values = velocity(points)
            rows = [torch.autograd.grad(part.sum(), points, retain_graph=True)[0] for part in values.unbind(-1)]
        return values.detach(), directions @ torch.stack(rows, -2).mT

    return pushforward


def windows_of(time: float, dt: float, windows: int, warm_up: float, bound: float) -> tuple[int, int]:
    """Steps of the warm-up and of a window."""
    if not 0 < dt <= time / windows or warm_up < 0 or not bound > 0:
        raise ValueError(
            f"expected dt in (0, time / windows], warm_up from 0 up and bound above 0, got dt={dt}, time={time}, "
            f"windows={windows}, warm_up={warm_up}, bound={bound}"
        )
    return round(warm_up / dt), max(1, round(time / windows / dt))


def keep_inside(state: Tensor, starts: Tensor, inside: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Which starts [..., starts] are still inside, and the state with the others put back, so that no NaN spreads."""
    inside = inside & (state.abs().amax(-1) < bound)
    return inside, torch.where(inside[..., None], state, starts)


def _averages(values: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the starts that stayed, and its standard error; values [..., starts, k]. NaN where none stayed."""
    weight, values = inside[..., None].to(values), torch.where(inside[..., None], values, 0)
    count = weight.sum(-2)
    mean = (weight * values).sum(-2) / count
    variance = (weight * (values - mean[..., None, :]).square()).sum(-2) / (count - 1)
    return mean, (variance / count).sqrt()


def summary(results: list[Tensor], inside: Tensor, exponents: int) -> Lyapunov:
    means, errors = (torch.stack(part, -2) for part in zip(*(_averages(r, inside) for r in results), strict=True))
    divergence = means[..., exponents] if means.shape[-1] == exponents + 2 else None
    stayed = inside.to(means).mean(-1)
    return Lyapunov(means[..., :exponents], errors[..., :exponents], means[..., -1], stayed, divergence)


@torch.no_grad()
def lyapunov_spectrum(
    velocity: Velocity,
    starts: Tensor,  # [..., starts, dimension], float64
    *,
    dt: float,
    time: float,
    windows: int = 1,
    warm_up: float = 0.0,
    orthogonalise: int = 1,
    bound: float = math.inf,
    pushforward: Pushforward | None = None,
) -> Lyapunov:
    """All Lyapunov exponents of dx = v(x) dt by the QR method (Benettin et al., Meccanica 15, 9 (1980)).

    Tangents T obey T' = J(x) T beside the trajectory, all by RK4; every few steps T = Q R, T <- Q, and the exponents
    are the means of log |R_ii| per time. Their sum is the mean of div v along the trajectory, which is integrated
    beside them: `sum_error` of the result checks the whole.

    Pure shear has an exponent of ln(T) / T: a small positive number from one window proves nothing, compare windows.

    Args:
        velocity: v of points [..., rows, dimension], of the same shape.
        starts: independent points, of the attractor or with a warm-up; leading dimensions are models.
        dt: time step.
        time: of all windows together.
        windows: number of equal spans of time, each with its own exponents.
        warm_up: time followed first and not counted; the tangents settle in it.
        orthogonalise: steps between two QR.
        bound: a start counts as gone when a coordinate exceeds it, and is left out of all means.
        pushforward: (points [..., rows, dimension], directions [..., 1, directions, dimension]) -> v and J z,
            [..., rows, directions, dimension], as `eqflow.ops.divergence.pushforward` does it for networks and
            `Lorenz().pushforward` for a system; None: from the derivatives of `velocity` by autograd.

    Returns:
        Lyapunov(exponents, standard_errors, speed, stayed, divergence).

    Raises:
        ValueError: an argument is out of range.

    Example:
        >>> spectrum = lyapunov_spectrum(lambda x: -2 * x, torch.ones(3, 1, dtype=torch.float64), dt=0.01, time=1.0)
        >>> round(float(spectrum.exponents), 6)
        -2.0
    """
    warm_steps, steps = windows_of(time, dt, windows, warm_up, bound)
    pushforward = pushforward or by_autograd(velocity)
    dimension = starts.shape[-1]
    basis = torch.eye(dimension).to(starts).expand(*[1] * (starts.ndim - 1), dimension, dimension)

    def joint(state: Tensor) -> Tensor:
        """Rates of the point, of the tangents (rows of T^T), and of the two integrals, div v and |v|, packed."""
        points, tangents = state[..., :dimension], state[..., dimension:-2].unflatten(-1, (dimension, dimension))
        values, columns = pushforward(points, basis)
        trace = columns.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
        return torch.cat([values, (tangents @ columns).flatten(-2), trace, values.norm(dim=-1, keepdim=True)], -1)

    def pack(points: Tensor, tangents: Tensor) -> Tensor:
        return torch.cat([points, tangents.flatten(-2), points.new_zeros(*points.shape[:-1], 2)], -1)

    points, inside = starts, torch.ones(starts.shape[:-1], dtype=torch.bool, device=starts.device)
    # Tangents along the axes would never leave an invariant subspace such as an axis: start from a random rotation.
    first = torch.linalg.qr(ops.normal(dimension, dimension, seed=0, step=1, stream=STREAM).to(starts)).Q
    tangents = first.expand(*starts.shape[:-1], dimension, dimension)
    results = []
    for count in [*([warm_steps] if warm_steps else []), *[steps] * windows]:
        growth, integrals = torch.zeros_like(starts), starts.new_zeros(*starts.shape[:-1], 2)
        for begin in range(0, count, orthogonalise):
            state = pack(points, tangents)
            for _ in range(min(orthogonalise, count - begin)):
                state = runge_kutta(joint, state, dt)
            inside, points = keep_inside(state[..., :dimension], starts, inside, bound)
            moved = state[..., dimension:-2].unflatten(-1, (dimension, dimension))
            moved = torch.where(inside[..., None, None], moved, basis)
            tangents, stretch = torch.linalg.qr(moved.mT)
            tangents = tangents.mT
            growth = growth + stretch.diagonal(dim1=-2, dim2=-1).abs().log()
            integrals = integrals + state[..., -2:]
        results.append(torch.cat([growth, integrals], -1) / (count * dt))
    return summary(results[-windows:], inside, dimension)
