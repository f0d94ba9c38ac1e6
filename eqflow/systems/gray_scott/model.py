"""The Gray-Scott system: parameters, homogeneous states, linear growth, units, and what counts as dead."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops.gray_scott import STENCILS

DEAD_STD = 1e-3  # a sample is dead when v varies less than this over the grid; living patterns vary by 0.05 and more


@dataclass(frozen=True)
class GrayScott:
    """Parameters of u_t = D_u Lap u - u v^2 + F (1 - u), v_t = D_v Lap v + u v^2 - (F + k) v.

    Args:
        feed, kill: F and k per unit time.
        diffusion_u, diffusion_v: D_u and D_v in units of length^2 per time.
        dt, dx: time step and grid spacing.
        stencil: "5-point" or "9-point".

    Example:
        >>> GrayScott(feed=0.018, kill=0.049).run(torch.rand(1, 2, 32, 32), 10).shape
        torch.Size([1, 2, 32, 32])
    """

    feed: float
    kill: float
    diffusion_u: float = 0.16
    diffusion_v: float = 0.08
    dt: float = 1.0
    dx: float = 1.0
    stencil: str = "5-point"

    def run(
        self,
        state: Tensor,  # [batch, 2, height, width]
        steps: int,
        *,
        every: int | None = None,
        backend: str = "auto",
    ) -> Tensor:
        """Advance `state`: see `eqflow.ops.gray_scott`."""
        return ops.gray_scott(state, steps, every=every, backend=backend, **asdict(self))


def steady_states(feed: float, kill: float) -> Tensor:
    """The homogeneous steady states, the trivial one first.

        U = (A -+ sqrt(A^2 - 4)) / (2 A),   V = sqrt(F) (A +- sqrt(A^2 - 4)) / 2,   A = sqrt(F) / (F + k) >= 2

    Returns:
        float64 tensor [count, 2] of (u, v): (1, 0); then, where A >= 2, the state that can carry patterns and the
        saddle between the two.

    Example:
        >>> steady_states(0.04, 0.04)[1]
        tensor([0.2000, 0.4000], dtype=torch.float64)
    """
    rows = [(1.0, 0.0)]
    loss = feed + kill
    ratio = math.sqrt(feed) / loss if loss > 0 else 0.0
    if ratio >= 2:
        root = math.sqrt(ratio * ratio - 4)
        for sign in (1, -1):
            rows.append(((ratio - sign * root) / (2 * ratio), math.sqrt(feed) * (ratio + sign * root) / 2))
    return torch.tensor(rows, dtype=torch.float64)


def growth_matrix(
    system: GrayScott,
    state: Tensor,  # [2]: a homogeneous steady state (u, v)
    mode: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """What one step makes of a small Fourier mode around a homogeneous state: I + dt (J + diag(D) lambda / dx^2).

    Args:
        system: the parameters.
        state: [2], (u, v).
        mode: wave numbers along the rows and along the columns, in periods per grid.
        size: height and width of the grid.

    Returns:
        float64 tensor [2, 2] that maps the amplitudes of (u, v) to those one step later.
    """
    u, v = (float(value) for value in state)
    vertical, horizontal = (2 * math.pi * m / n for m, n in zip(mode, size, strict=True))
    edge, corner, centre, _ = STENCILS[system.stencil]
    edges = 2 * math.cos(vertical) + 2 * math.cos(horizontal)
    eigenvalue = edge * (edges - centre) + corner * 4 * math.cos(vertical) * math.cos(horizontal)
    loss = system.feed + system.kill
    jacobian = torch.tensor([[-v * v - system.feed, -2 * u * v], [v * v, 2 * u * v - loss]], dtype=torch.float64)
    diffusion = torch.tensor([system.diffusion_u, system.diffusion_v], dtype=torch.float64) / system.dx**2
    return torch.eye(2, dtype=torch.float64) + system.dt * (jacobian + torch.diag(diffusion * eigenvalue))


class Rescaled(NamedTuple):
    """A system at another pixel scale, and how many times larger its patterns are, in pixels."""

    system: GrayScott
    length_factor: float


def rescale(system: GrayScott, diffusion_u: float) -> Rescaled:
    """The same patterns at another size in pixels: only D / dx^2 sets the length, patterns grow with its square root.

    Args:
        system: the parameters.
        diffusion_u: D_u / dx^2 wanted, in pixels^2 per time; D_v follows in proportion, dx becomes 1.

    Example:
        >>> round(rescale(GrayScott(0.029, 0.057, 0.08192, 0.04096), 0.16).length_factor, 2)
        1.4
    """
    if diffusion_u <= 0 or system.diffusion_u <= 0:
        raise ValueError(f"expected diffusion_u above 0, got {diffusion_u} from {system.diffusion_u}")
    ratio = diffusion_u / (system.diffusion_u / system.dx**2)
    diffusion_v = system.diffusion_v / system.dx**2 * ratio
    return Rescaled(replace(system, diffusion_u=diffusion_u, diffusion_v=diffusion_v, dx=1.0), math.sqrt(ratio))


def is_dead(
    state: Tensor,  # [batch, 2, height, width]
) -> Tensor:
    """Whether each sample has become homogeneous: the standard deviation of v over the grid is at most 1e-3.

    Returns:
        bool tensor [batch].
    """
    return state[:, 1].double().flatten(1).std(1, correction=0) <= DEAD_STD
