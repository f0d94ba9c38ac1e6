"""How well flows keep a density, and which closed-form mode each of them is."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from eqflow.dynamics.learned import LearnedFlow
from eqflow.dynamics.modes import Modes
from eqflow.metrics import residual, similarity
from eqflow.ops import Divergence


class Diagnosis(NamedTuple):
    """What `diagnose` gives, for each model."""

    residual: Tensor  # [models]: d E[(div v + v . s)^2] / E|v|^2, 0 for a flow that keeps the density
    residual_error: Tensor  # [models]: its standard error
    strain: Tensor  # [models]: d E[strain] / E|v|^2
    objective: Tensor  # [models]: residual + (2 / probes) strain
    r_squared: Tensor  # [models]: 1 - E[(div v + v . s)^2] / (E[(div v)^2] + E[(v . s)^2])
    cosines: Tensor | None  # [models, modes]: |cos| with each mode


def derivatives(
    flow: Any,
    points: Tensor,  # [rows, dimension]
    law: str = "gaussian",
) -> Divergence:
    """Velocity, divergence and strain of every model of a flow, whatever it is made of.

    Args:
        flow: a `LearnedFlow`, `Modes`, or anything with `jacobian(points)` and `velocity(points)`.
        points: x.
        law: whose strain, "gaussian" or "rademacher".
    """
    if isinstance(flow, LearnedFlow):
        return flow.derivatives(points, law=law)
    fields = [flow[index] for index in range(len(flow))] if isinstance(flow, Modes) else [flow]
    jacobian = torch.stack([field.jacobian(points) for field in fields])
    diagonal = jacobian.diagonal(dim1=-2, dim2=-1)
    strain = ((jacobian + jacobian.mT) / 2).square().sum((-2, -1))
    if law == "rademacher":
        strain = strain - diagonal.square().sum(-1)
    return Divergence(torch.stack([field.velocity(points) for field in fields]), diagonal.sum(-1), strain)


def diagnose(
    flow: Any,
    points: Tensor,  # [rows, dimension]
    scores: Tensor,  # [rows, dimension]
    *,
    probes: float = 8,
    law: str = "gaussian",
    modes: Modes | None = None,
) -> Diagnosis:
    """How well each model of a flow keeps the density, on pairs that it was not trained on.

    Args:
        flow: a `LearnedFlow`, `Modes`, or anything with `jacobian(points)` and `velocity(points)`.
        points: y, held out.
        scores: s at each of them.
        probes: weight of the strain in the objective; math.inf for none.
        law: whose strain.
        modes: of `closed_form`, to compare with.

    Example:
        >>> from eqflow.dynamics import PolynomialField
        >>> points = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> turn = PolynomialField(torch.eye(2, dtype=torch.int64), torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        >>> diagnose(turn, points, -points).residual
        tensor([0.], dtype=torch.float64)
    """
    velocity, divergence, strain = derivatives(flow, points, law)
    found = residual(velocity, divergence, scores, strain=strain)
    cosines = None if modes is None else similarity(velocity.double(), modes.velocities(points.double()))
    objective = found.residual + 2 / probes * found.strain
    return Diagnosis(found.residual, found.residual_error, found.strain, objective, found.r_squared, cosines)
