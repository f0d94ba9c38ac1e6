"""The systems by name, with their standard parameters."""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from eqflow.systems import planar_sets
from eqflow.systems.attractors import Chen, Halvorsen, Lorenz, Rossler, SprottB, Thomas
from eqflow.systems.checkerboard import Checkerboard
from eqflow.systems.gene_network import GeneNetwork
from eqflow.systems.limit_cycle import LimitCycle
from eqflow.systems.ornstein_uhlenbeck import OrnsteinUhlenbeck


@runtime_checkable
class PointSystem(Protocol):
    """What every system in `SYSTEMS` has: where its parameters come from, and unordered points by counter.

    Dynamical systems have `drift`, `velocity`, `divergence` and `run` besides; where the density is known, `at(alpha)`
    is the exact score of the noised points.
    """

    dimension: int
    source: str

    def sample(self, batch: int, *, seed: int, first_sample: int = 0, device: str | torch.device = "cpu") -> Tensor:
        """Unordered points, float64 [batch, dimension], functions of (seed, index) alone."""
        ...


SYSTEMS = MappingProxyType(
    {
        "lorenz": Lorenz(),
        "stochastic-lorenz": Lorenz(diffusion=10.0),
        "chen": Chen(),
        "sprott-b": SprottB(),
        "rossler": Rossler(),
        "halvorsen": Halvorsen(),
        "thomas": Thomas(),
        "ornstein-uhlenbeck": OrnsteinUhlenbeck(),
        "limit-cycle": LimitCycle(),
        "gene-network": GeneNetwork(),
        "two-gaussians": planar_sets.TwoGaussians(),
        "eight-gaussians": planar_sets.EightGaussians(),
        "correlated-gaussian": planar_sets.CorrelatedGaussian(),
        "ring": planar_sets.Ring(),
        "two-circles": planar_sets.TwoCircles(),
        "two-moons": planar_sets.TwoMoons(),
        "swiss-roll": planar_sets.SwissRoll(),
        "two-spirals": planar_sets.TwoSpirals(),
        "pinwheel": planar_sets.Pinwheel(),
        "nine-arcs": planar_sets.NineArcs(),
        "checkerboard": Checkerboard(),
    }
)


def system(name: str) -> PointSystem:
    """The system of that name, with its standard parameters.

    Raises:
        ValueError: there is none; the message lists the names that come close.

    Example:
        >>> system("lorenz").rho
        28.0
    """
    if name in SYSTEMS:
        return SYSTEMS[name]
    close = difflib.get_close_matches(name, SYSTEMS, n=3, cutoff=0.5)
    advice = f"did you mean {', '.join(close)}? " if close else ""
    raise ValueError(f"there is no system {name!r}: {advice}There are {', '.join(SYSTEMS)}")
