"""Dynamics that keep a distribution: flows made from a score, solved for or learned, and rollouts that follow them."""

from eqflow.dynamics import observers, skew
from eqflow.dynamics.anchored import AnchoredScore
from eqflow.dynamics.as_released import similarity_as_released
from eqflow.dynamics.checkpoint import ResumeError
from eqflow.dynamics.closed_form import PolynomialSums, closed_form
from eqflow.dynamics.corrected import CorrectedFlow
from eqflow.dynamics.diagnosis import Diagnosis, diagnose
from eqflow.dynamics.field import Field, NoisyFlow
from eqflow.dynamics.flip import Flip, choose_flip
from eqflow.dynamics.flow_settings import FlowSettings
from eqflow.dynamics.flows import Drift, SkewFlow
from eqflow.dynamics.ground_truth import GroundTruth
from eqflow.dynamics.guard import Diverged, DivergenceGuard
from eqflow.dynamics.invariant import InvariantFlow
from eqflow.dynamics.learned import LearnedFlow
from eqflow.dynamics.limits import StepWarning
from eqflow.dynamics.modes import Modes
from eqflow.dynamics.paired import Paired, paired_rollout
from eqflow.dynamics.polynomials import PolynomialField
from eqflow.dynamics.rollout import Result, rollout
from eqflow.dynamics.training import fit_flow

__all__ = [
    "AnchoredScore",
    "CorrectedFlow",
    "Diagnosis",
    "Diverged",
    "DivergenceGuard",
    "Drift",
    "Field",
    "Flip",
    "FlowSettings",
    "GroundTruth",
    "InvariantFlow",
    "LearnedFlow",
    "Modes",
    "NoisyFlow",
    "Paired",
    "PolynomialField",
    "PolynomialSums",
    "Result",
    "ResumeError",
    "SkewFlow",
    "StepWarning",
    "choose_flip",
    "closed_form",
    "diagnose",
    "fit_flow",
    "observers",
    "paired_rollout",
    "rollout",
    "similarity_as_released",
    "skew",
]
