"""How well scores and flows agree with each other, and, where it is known, with the truth."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eqflow.metrics import similarity, stein

_COMPARED = 1024  # points at which fields are compared with the truth


def agreement(
    velocities: Tensor,  # [models, rows, dimension]
) -> float | None:
    """The smallest |cos| of two models; None for one alone."""
    return float(similarity(velocities).min()) if len(velocities) > 1 else None


def identities(
    points: Tensor,  # [rows, dimension]
    scores: Tensor,  # [rows, dimension]
) -> dict[str, float]:
    """How far E[s] = 0 and E[y s^T] = -I are missed, at most, and that in standard errors."""
    found = stein(points, scores)
    identity = torch.eye(len(found.product)).to(found.product)
    missed = torch.cat([found.mean.abs().flatten(), (found.product + identity).abs().flatten()])
    return {"missed": float(missed.max()), "standard_errors": float(found.worst)}


def truth(
    cloud: Any,
    points: Tensor,  # standardised
    mean: Tensor,  # of the coordinates
    sd: Tensor,
    flow: Any,
    modes: Any,
) -> dict[str, Any] | None:
    """|cos| with the field of the known system that the points were drawn from; the fit has not seen it."""
    from eqflow.cli import _fit_source

    velocity = _fit_source.truth(cloud.system)
    if velocity is None:
        return None
    at = points[:: -(-len(points) // _COMPARED)]
    field = (velocity(mean + sd * at.cpu().double()) / sd)[None]
    return {
        "closed_form": modes and similarity(modes.velocities(at.double()).cpu(), field)[:, 0].tolist(),
        "learned": flow and similarity(flow.velocities(at).cpu().double(), field)[:, 0].tolist(),
    }
