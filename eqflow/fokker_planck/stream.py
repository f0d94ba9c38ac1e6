"""Points in chunks: as many as you like in constant memory, added up over chunks and over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

Points = Tensor | Iterable[Tensor]  # [n, dimension], or parts of it that can be read several times
Combine = Callable[[Tensor], object]  # adds a tensor up over the ranks in place, as torch.distributed.all_reduce does


def check(points: Points, dimension: int) -> None:
    """Refuse what cannot be read in several passes, and tensors of another shape.

    Raises:
        TypeError: not a tensor, nor parts that can be read again.
        ValueError: points of another dimension, or none.
    """
    if isinstance(points, Tensor):
        if points.ndim != 2 or points.shape[1] != dimension or not len(points):
            raise ValueError(
                f"expected points [n, {dimension}], one column for each variable, got {list(points.shape)}"
            )
    elif not isinstance(points, Iterable) or isinstance(points, Iterator):
        raise TypeError(
            "expected points as a tensor, or as a list or another collection of tensors that can be read several "
            f"times, got {type(points).__name__}"
        )


def chunks(
    points: Points,
    size: int,
    *,
    keep: Callable[[Tensor], Tensor] | None = None,  # indices in the part [n] -> which to keep
) -> Iterator[Tensor]:
    """The points in float64, at most `size` rows at a time.

    Raises:
        ValueError: a number is not finite.
    """
    for part in [points] if isinstance(points, Tensor) else points:
        first = 0
        for rows in part.split(size):
            if not rows.isfinite().all():
                bad = first + int((~rows.isfinite().all(1)).nonzero()[0])
                raise ValueError(f"expected finite points, but row {bad} has NaN or infinite numbers: mend the input")
            index = torch.arange(first, first + len(rows), device=rows.device)
            first += len(rows)
            chosen = rows if keep is None else rows[keep(index)]
            if len(chosen):
                yield chosen.double()


def add_up(parts: Iterable[tuple[Tensor, ...]], combine: Combine | None) -> tuple[Tensor, ...]:
    """The sum of tuples of tensors, over the parts and then over the ranks."""
    total: list[Tensor] | None = None
    for part in parts:
        if total is None:
            total = [value.clone() for value in part]
        else:
            for value, more in zip(total, part, strict=True):
                value += more
    if total is None:
        raise ValueError("expected at least one point, got none")
    if combine is not None:
        flat = torch.cat([value.double().flatten() for value in total])
        combine(flat)
        pieces = flat.split([value.numel() for value in total])
        total = [piece.view_as(value) for piece, value in zip(pieces, total, strict=True)]
    return tuple(total)


class Spread(NamedTuple):
    """Count, centre and standard deviation of points."""

    count: int
    centre: Tensor  # [dimension]
    deviation: Tensor  # [dimension]


def spread(sources: Iterable[Points], *, size: int = 2**16, combine: Combine | None = None) -> Spread:
    """The mean and the standard deviation of each coordinate, of all sources together.

    Example:
        >>> spread([torch.tensor([[1.0], [3.0]])])
        Spread(count=2, centre=tensor([2.], dtype=torch.float64), deviation=tensor([1.], dtype=torch.float64))
    """
    sources = list(sources)

    def ones(rows):
        return rows.new_tensor(float(len(rows)))

    count, total = add_up(((ones(r), r.sum(0)) for s in sources for r in chunks(s, size)), combine)
    centre = total / count
    (square,) = add_up((((r - centre).square().sum(0),) for s in sources for r in chunks(s, size)), combine)
    return Spread(int(count), centre, (square / count).sqrt())
