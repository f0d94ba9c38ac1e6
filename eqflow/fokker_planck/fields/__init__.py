"""Equations of fields from still pictures: which partial differential equation keeps an ensemble as it is?

`discover` does it all; `field_model` says what may stand in the equation, `field_form` makes moment conditions of the
pictures, and `estimate`, `sparsest` and `sensitivity` of `eqflow.fokker_planck` work on them.
"""

from eqflow.fokker_planck.fields.discover import Discovery, discover
from eqflow.fokker_planck.fields.functionals import enough
from eqflow.fokker_planck.fields.grid import Grid
from eqflow.fokker_planck.fields.identifiable import Identifiable
from eqflow.fokker_planck.fields.model import FieldModel, field_model
from eqflow.fokker_planck.fields.moments import FieldForm, field_form
from eqflow.fokker_planck.fields.pictures import living
from eqflow.fokker_planck.fields.terms import (
    FieldLibrary,
    advection,
    bilaplacian,
    expressed,
    laplacian,
    polynomial,
    squared_gradient,
)

__all__ = [
    "Discovery",
    "FieldForm",
    "FieldLibrary",
    "FieldModel",
    "Grid",
    "Identifiable",
    "advection",
    "bilaplacian",
    "discover",
    "enough",
    "expressed",
    "field_form",
    "field_model",
    "laplacian",
    "living",
    "polynomial",
    "squared_gradient",
]
