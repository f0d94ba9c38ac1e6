"""What the scripts about densities share: how far one is from the truth, and how it looks."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqflow.score import Density
from eqflow.systems import LimitCycle

EDGE, _SIDE = 2.6, 260  # of the grid
BOX = ([-2.2, -2.2], [2.2, 2.2])
_COLUMNS = ("KL(p || q)", "total variation", "score, mean square", "mass of q")


class Gap(NamedTuple):
    """From the true density p to another, q, on a grid."""

    divergence: float  # KL(p || q)
    variation: float  # total
    fisher: float  # E_p |s_q - s_p|^2
    mass: float  # of q on the grid


def grid(side: int = _SIDE) -> tuple[Tensor, float]:
    """Middles of the cells, float64 [side^2, 2], and the area of one."""
    axis = (torch.arange(side, dtype=torch.float64) + 0.5) * (2 * EDGE / side) - EDGE
    return torch.cartesian_prod(axis, axis), (2 * EDGE / side) ** 2


@torch.no_grad()
def gap(system: LimitCycle, density: Density) -> Gap:
    """How far a density is from that of the limit cycle."""
    at, area = grid()
    true, found = system.log_density(at), density.log_density(at.to(density.centroids)).double()
    p, q = true.exp() * area, found.exp() * area
    away = density.score(at.to(density.centroids)).double() - system.score(at)
    fisher = float((p * away.square().sum(1)).sum())
    return Gap(float((p * (true - found)).sum()), float((p - q).abs().sum()) / 2, fisher, float(q.sum()))


def shown(found: Gap) -> list[str]:
    """The cells of a row."""
    return [f"{found.divergence:.2g}", f"{found.variation:.2g}", f"{found.fisher:.2g}", f"{found.mass:.5f}"]


def columns(*first: str) -> list[str]:
    """The head of a table with such rows."""
    return [*first, *_COLUMNS]


@torch.no_grad()
def panel(axes: Any, log_density: Any, title: str, highest: float) -> None:
    """A density as a picture; the colours end at `highest`."""
    at, _ = grid(160)
    values = log_density(at).double().exp().view(160, 160).T.numpy()
    axes.imshow(values, origin="lower", extent=(-EDGE, EDGE, -EDGE, EDGE), cmap="magma", vmin=0, vmax=highest)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def cast(density: Density) -> Any:
    """Its log density of float64 places."""
    return lambda at: density.log_density(at.to(density.centroids))
