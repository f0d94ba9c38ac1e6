"""Systems with a known truth: parameters, starts, points and closed forms; the kernels are `eqflow.ops`."""

from eqflow.systems.attractors import Chen, Halvorsen, Lorenz, Rossler, SprottB, Thomas
from eqflow.systems.catalogue import SYSTEMS, PointSystem, system
from eqflow.systems.checkerboard import Checkerboard
from eqflow.systems.exact import BoxMixture, ExactScore, GaussianMixture, NormalRadius
from eqflow.systems.gene_network import GeneNetwork
from eqflow.systems.limit_cycle import LimitCycle
from eqflow.systems.ornstein_uhlenbeck import OrnsteinUhlenbeck
from eqflow.systems.planar_sets import (
    CorrelatedGaussian,
    EightGaussians,
    NineArcs,
    Pinwheel,
    Ring,
    SwissRoll,
    TwoCircles,
    TwoGaussians,
    TwoMoons,
    TwoSpirals,
)

__all__ = [
    "SYSTEMS",
    "BoxMixture",
    "Checkerboard",
    "Chen",
    "CorrelatedGaussian",
    "EightGaussians",
    "ExactScore",
    "GaussianMixture",
    "GeneNetwork",
    "Halvorsen",
    "LimitCycle",
    "Lorenz",
    "NineArcs",
    "NormalRadius",
    "OrnsteinUhlenbeck",
    "Pinwheel",
    "PointSystem",
    "Ring",
    "Rossler",
    "SprottB",
    "SwissRoll",
    "Thomas",
    "TwoCircles",
    "TwoGaussians",
    "TwoMoons",
    "TwoSpirals",
    "system",
]
