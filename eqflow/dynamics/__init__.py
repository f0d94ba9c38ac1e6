"""Dynamics that keep a distribution: skew-symmetric kernels turn a score into a flow, and rollouts follow it."""

from eqflow.dynamics import observers, skew
from eqflow.dynamics.checkpoint import ResumeError
from eqflow.dynamics.flows import Drift, SkewFlow
from eqflow.dynamics.ground_truth import GroundTruth
from eqflow.dynamics.guard import Diverged, DivergenceGuard
from eqflow.dynamics.limits import StepWarning
from eqflow.dynamics.rollout import Result, rollout

__all__ = [
    "Diverged",
    "DivergenceGuard",
    "Drift",
    "GroundTruth",
    "Result",
    "ResumeError",
    "SkewFlow",
    "StepWarning",
    "observers",
    "rollout",
    "skew",
]
