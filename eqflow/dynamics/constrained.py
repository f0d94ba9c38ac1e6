"""Minima of a quadratic form over vectors whose parts have length 1 each: one constraint a coordinate of a flow."""

from __future__ import annotations

import torch
from torch import Tensor

from eqflow import ops
from eqflow.ops import philox

_STARTS = 8
_ALIKE = 0.99  # |cosine| from which on two minima are one


def constrained_minima(
    matrix: Tensor,  # [unknowns, unknowns], symmetric
    parts: Tensor,  # [unknowns], int64: the coordinate that each unknown belongs to
    span: Tensor,  # [vectors, unknowns]: where the search begins
) -> Tensor:
    """Distinct local minima of w^T matrix w with |w_i| = 1 for each part i, [minima, unknowns], the lowest first.

    By L-BFGS on vectors normalised part by part, from 8 random starts in a span.

    Raises:
        ValueError: a coordinate has no unknowns.

    Example:
        >>> form = torch.diag(torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=torch.float64))
        >>> constrained_minima(form, torch.tensor([0, 0, 1, 1]), torch.eye(4).double())[0].abs().round()
        tensor([1., 0., 1., 0.], dtype=torch.float64)
    """
    count = int(parts.max()) + 1
    member = torch.nn.functional.one_hot(parts, count).to(matrix)  # [unknowns, parts]
    if not member.any(0).all():
        raise ValueError("expected unknowns for every coordinate: this symmetry leaves one at rest, take norm='scalar'")
    normals = ops.normal(_STARTS, len(span), seed=0, stream=philox.STREAMS["initial"]).to(matrix)
    minima = [_descend(matrix, member, start) for start in normals @ span]
    values = torch.stack([vector @ matrix @ vector for vector in minima])
    found: list[Tensor] = []
    for index in values.argsort():
        candidate = minima[index]
        if all((candidate @ other).abs() < _ALIKE * count for other in found):
            found.append(candidate)
    return torch.stack(found)


def _normalised(vector: Tensor, member: Tensor) -> Tensor:
    return vector * (member @ (vector.square() @ member).rsqrt())


def _descend(matrix: Tensor, member: Tensor, start: Tensor) -> Tensor:
    vector = start.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [vector],
        max_iter=500,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        search.zero_grad()
        point = _normalised(vector, member)
        value = point @ matrix @ point
        value.backward()
        return value

    with torch.enable_grad():
        search.step(objective)
    return _normalised(vector.detach(), member)
