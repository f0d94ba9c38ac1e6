"""The largest Lyapunov exponent without a derivative: from two trajectories that start close to each other."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from eqflow import ops
from eqflow.metrics.lyapunov import Lyapunov, Velocity, keep_inside, summary, windows_of
from eqflow.metrics.nulls import STREAM
from eqflow.systems.integrators import runge_kutta


@torch.no_grad()
def largest_exponent(
    velocity: Velocity,
    starts: Tensor,  # [..., starts, dimension], float64
    *,
    dt: float,
    time: float,
    windows: int = 1,
    warm_up: float = 0.0,
    separation: float = 1e-6,
    bound: float = math.inf,
    seed: int = 0,
) -> Lyapunov:
    """The largest Lyapunov exponent from two trajectories a small distance apart (Benettin, Galgani, Strelcyn 1976).

    After every step the logarithm of how much the distance grew is counted, and the second trajectory is pulled back to
    the given separation. It needs no derivative; see `lyapunov_spectrum` for the arguments in common.

    Args:
        separation: distance of the two; in float64 about 1e-6 of the size of the attractor.
        seed: of the direction in which the second trajectory starts.

    Example:
        >>> from eqflow.systems import Lorenz
        >>> lorenz = Lorenz()
        >>> largest = largest_exponent(lorenz.velocity, lorenz.sample(8, seed=0), dt=0.01, time=5.0, warm_up=1.0)
        >>> 0.5 < float(largest.exponents) < 1.3
        True
    """
    warm_steps, steps = windows_of(time, dt, windows, warm_up, bound)
    rows, dimension = starts.shape[:-1].numel(), starts.shape[-1]
    offset = ops.normal(rows, dimension, seed=seed, step=1, stream=STREAM, device=starts.device).to(starts)
    offset = offset.view_as(starts)
    offset = separation * offset / offset.norm(dim=-1, keepdim=True)
    points, inside = starts, torch.ones(starts.shape[:-1], dtype=torch.bool, device=starts.device)
    results = []
    for count in [*([warm_steps] if warm_steps else []), *[steps] * windows]:
        totals = starts.new_zeros(*starts.shape[:-1], 2)
        for _ in range(count):
            speed = velocity(points).norm(dim=-1)
            pair = runge_kutta(velocity, torch.cat([points, points + offset], -2), dt)
            moved, beside = pair.chunk(2, -2)
            inside, points = keep_inside(moved, starts, inside, bound)
            apart = torch.where(inside[..., None], beside - moved, offset)
            distance = apart.norm(dim=-1, keepdim=True)
            offset = separation * apart / distance
            totals = totals + torch.stack([(distance[..., 0] / separation).log(), speed * dt], -1)
        results.append(totals / (count * dt))
    return summary(results[-windows:], inside, 1)
