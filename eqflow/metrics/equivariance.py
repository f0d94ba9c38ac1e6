"""Whether a network, denoiser or score treats all places and directions of a periodic grid alike.

|f(T x) - T f(x)| / |f(x)|     0 where f commutes with the shift, flip or turn T
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

FieldFunction = Callable[[Tensor], Tensor]  # keeps the shape [batch, channels, height, width]
SHIFTS = ((1, 0), (0, 1), (1, 1), (2, 3), (7, 5))  # rows and columns
TURNS: dict[str, FieldFunction] = {
    "flip rows": lambda fields: fields.flip(2),
    "flip columns": lambda fields: fields.flip(3),
    "transpose": lambda fields: fields.transpose(2, 3),
    "quarter turn": lambda fields: fields.rot90(1, (2, 3)),
}


@torch.no_grad()
def equivariance_error(
    function: FieldFunction,
    fields: Tensor,  # [batch, channels, height, width]
    *,
    shifts: Sequence[tuple[int, int]] = SHIFTS,
    turns: Sequence[str] = (),
) -> dict[tuple[int, int] | str, float]:
    """|f(T x) - T f(x)| / |f(x)| for periodic shifts, and where asked for the other symmetries of a square grid.

    Args:
        function: f, a network, denoiser or score. A part that is equivariant by itself, as the skip of a denoiser,
            hides what the rest does: give the rest.
        shifts: rows and columns each.
        turns: names of TURNS: "flip rows", "flip columns", "transpose", "quarter turn".

    Returns:
        The error for every shift and name.

    Raises:
        ValueError: a turn has another name.

    Example:
        >>> even = lambda x: x + 2 * (torch.arange(8) % 2)
        >>> equivariance_error(even, -torch.ones(1, 1, 8, 8), shifts=((0, 1), (0, 2)), turns=("flip rows",))
        {(0, 1): 2.0, (0, 2): 0.0, 'flip rows': 0.0}
    """
    unknown = [name for name in turns if name not in TURNS]
    if unknown:
        raise ValueError(f"expected turns among {', '.join(map(repr, TURNS))}, got {unknown[0]!r}")
    before = function(fields)
    length, errors = before.double().norm(), {}
    for shift in shifts:
        away = function(fields.roll(shift, (2, 3))) - before.roll(shift, (2, 3))
        errors[tuple(shift)] = float(away.double().norm() / length)
    for name in turns:
        away = function(TURNS[name](fields)) - TURNS[name](before)
        errors[name] = float(away.double().norm() / length)
    return errors
