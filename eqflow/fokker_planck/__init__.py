"""Equations from snapshots: the parameters and the terms of a stochastic system from points without an order.

`weak_form` makes moment conditions of points and a model, `estimate` solves them, and `eliminate` or, more thoroughly,
`sparsest` finds the terms. `fields` does the same for pictures and their partial differential equations. The other way
round, `density_from_dynamics` makes a density of an equation.
"""

from eqflow.fokker_planck.averaged import averaged_form, kernel_score
from eqflow.fokker_planck.estimate import Conditions, Fit, Means, eliminate, estimate
from eqflow.fokker_planck.from_dynamics import (
    DynamicsFit,
    DynamicsTraining,
    density_from_dynamics,
    stationary_residual,
)
from eqflow.fokker_planck.functions import Bumps, Cosines, Custom, random_cosines
from eqflow.fokker_planck.library import Library, expressed, hill, polynomial, trigonometric
from eqflow.fokker_planck.model import Model, from_library, parametric
from eqflow.fokker_planck.moments import Source
from eqflow.fokker_planck.phases import PhaseConditioned, phase_conditioned
from eqflow.fokker_planck.residual import LinearResidual, descend, least_absolute, least_squares
from eqflow.fokker_planck.sensitivity import Sensitivity, sensitivity
from eqflow.fokker_planck.sparsest import Selection, sparsest
from eqflow.fokker_planck.stein import SteinFit, SteinTest, stein_fit, stein_test
from eqflow.fokker_planck.strong import strong_form
from eqflow.fokker_planck.weak import FewPointsWarning, bumps_inside, weak_form

__all__ = [
    "Bumps",
    "Conditions",
    "Cosines",
    "Custom",
    "DynamicsFit",
    "DynamicsTraining",
    "FewPointsWarning",
    "Fit",
    "Library",
    "LinearResidual",
    "Means",
    "Model",
    "PhaseConditioned",
    "Selection",
    "Sensitivity",
    "Source",
    "SteinFit",
    "SteinTest",
    "averaged_form",
    "bumps_inside",
    "density_from_dynamics",
    "descend",
    "eliminate",
    "estimate",
    "expressed",
    "from_library",
    "hill",
    "kernel_score",
    "least_absolute",
    "least_squares",
    "parametric",
    "phase_conditioned",
    "polynomial",
    "random_cosines",
    "sensitivity",
    "sparsest",
    "stationary_residual",
    "stein_fit",
    "stein_test",
    "strong_form",
    "trigonometric",
    "weak_form",
]
