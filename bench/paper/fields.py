"""Fields side by side at the same points: learned, training-free, random, true, and the score."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bench.paper.clouds import Cloud
from eqflow.dynamics import FlowSettings, LearnedFlow, skew
from eqflow.metrics import align, random_skew_fields, similarity

KINDS = ("learned", "training-free", "random", "truth", "score")


class Fields(NamedTuple):
    """Velocities at the same points, each float64 [fields, points, dimension], signs as the truth has them."""

    learned: Tensor
    training_free: Tensor
    random: Tensor
    truth: Tensor
    score: Tensor

    def of(self, kind: str) -> Tensor:
        return self[KINDS.index(kind)]


def compare(
    cloud: Cloud,
    flow: LearnedFlow,
    settings: FlowSettings,
    *,
    points: Tensor | None = None,  # [points, dimension]
    noised: Tensor | None = None,  # [points, dimension]
) -> Fields:
    """All kinds of field, as many of each null as there are models.

    Args:
        cloud: where the score and the truth come from.
        flow: the learned models.
        settings: of the network, for untrained ones of the same shape.
        points: where the truth is evaluated; None: the cloud's own.
        noised: where all else is evaluated; None: at the same points.
    """
    points = cloud.compared if points is None else points
    noised = points if noised is None else noised
    truth, scores = cloud.truth(points)[None], cloud.scores(noised)
    # Another seed than the training's: these are no relatives of the learned models.
    random = LearnedFlow.random(points.shape[1], settings, models=len(flow), seed=1)
    parts = [flow.velocities(noised), random_skew_fields(scores, len(flow), seed=0), random.velocities(noised)]
    aligned = [align(part.double(), truth[0]) for part in (*parts, scores[None])]
    return Fields(*aligned[:3], truth, aligned[3])


def fidelity(
    velocities: Tensor,  # [fields, points, dimension]
    truth: Tensor,  # [points, dimension]
) -> Tensor:
    """|cos| of each field with the true one over all points together, [fields]."""
    return similarity(velocities.double(), truth.double()[None])[:, 0]


def pairs(
    velocities: Tensor,  # [fields, points, dimension]
) -> Tensor:
    """|cos| of every two different fields, [pairs]; empty for one field."""
    matrix = similarity(velocities.double())
    first, second = torch.triu_indices(len(matrix), len(matrix), 1)
    return matrix[first, second]


def best_constant(truth: Tensor, scores: Tensor) -> float:
    """|cos| of the truth with the constant skew flow S s that is nearest to it."""
    nearest = skew.convolve(skew.nearest(truth, scores), scores)
    return float(fidelity(nearest[None], truth)[0])
