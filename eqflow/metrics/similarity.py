"""How alike velocity fields are: the cosine of their values at common points, taken as one long vector each."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


def _unit(fields: Tensor) -> Tensor:
    vectors = fields.flatten(1).double()
    length = vectors.norm(dim=1, keepdim=True)
    if not (length > 0).all():
        row = int((~(length > 0)).nonzero()[0, 0])
        raise ValueError(
            f"expected fields of finite, positive length, but field {row} is zero or has NaN: leave it out"
        )
    return vectors / length


def cosines(
    fields: Tensor,  # [fields, points, dimension]
    others: Tensor | None = None,  # [others, points, dimension]
) -> Tensor:
    """cos(a, b) = <e_a, e_b> / (|e_a| |e_b|) with e the velocities at all points, concatenated.

    Args:
        fields: velocities at common points; a single field is fields[None].
        others: the fields to compare with, at the same points; None: with each other.

    Returns:
        float64 [fields, others].

    Raises:
        ValueError: the shapes differ, or a field is zero.

    Example:
        >>> cosines(torch.tensor([[[1.0, 0.0]], [[-2.0, 0.0]], [[0.0, 1.0]]]))[0]
        tensor([ 1., -1.,  0.], dtype=torch.float64)
    """
    if others is not None and others.shape[1:] != fields.shape[1:]:
        raise ValueError(
            f"expected fields at the same points, got {list(fields.shape[1:])} and {list(others.shape[1:])} numbers"
        )
    left = _unit(fields)
    return (left @ (left if others is None else _unit(others)).T).clamp(-1, 1)


def similarity(fields: Tensor, others: Tensor | None = None) -> Tensor:
    """|cos| of every field with every other one, float64 [fields, others]: snapshots cannot tell v from -v."""
    return cosines(fields, others).abs()


def align(
    fields: Tensor,  # [fields, points, dimension]
    reference: Tensor,  # [points, dimension]
) -> Tensor:
    """The fields with the sign for which <field, reference> is not negative.

    Example:
        >>> align(torch.tensor([[[-2.0, 1.0]]]), torch.tensor([[1.0, 0.0]]))
        tensor([[[ 2., -1.]]])
    """
    sign = torch.where(cosines(fields, reference[None])[:, 0] < 0, -1.0, 1.0).to(fields)
    return fields * sign.view(-1, *[1] * (fields.ndim - 1))


class MeanSimilarity(NamedTuple):
    """Mean and deviation over pairs; the pairs share fields, so deviation / sqrt(pairs) is no standard error."""

    mean: float
    deviation: float
    pairs: int


def mean_similarity(
    matrix: Tensor,  # [fields, others]
    *,
    diagonal: bool | None = None,
) -> MeanSimilarity:
    """The average of a matrix of similarities over ordered pairs.

    Args:
        matrix: as `similarity` gives it.
        diagonal: whether the pairs (a, a) count. False is the honest mean of a square matrix of fields with each
            other; True adds the ones of the diagonal, as the published table does. None: all pairs of a matrix that is
            not square, and an error otherwise.

    Raises:
        ValueError: it must be said whether the diagonal counts, or nothing is left.

    Example:
        >>> mean_similarity(torch.tensor([[1.0, 0.5], [0.5, 1.0]]), diagonal=False).mean
        0.5
    """
    square = matrix.shape[0] == matrix.shape[1]
    if diagonal is None and square:
        raise ValueError("expected diagonal=True or False, since a square matrix may hold each field with itself")
    keep = torch.ones_like(matrix, dtype=torch.bool)
    if diagonal is False:
        if not square:
            raise ValueError(f"expected a square matrix to leave out the diagonal of, got {list(matrix.shape)}")
        keep.fill_diagonal_(False)
    values = matrix.double()[keep]
    if not len(values):
        raise ValueError("expected at least two fields, so that a pair is left beside the diagonal, got one")
    deviation = float(values.std(correction=0)) if len(values) > 1 else math.nan
    return MeanSimilarity(float(values.mean()), deviation, len(values))
