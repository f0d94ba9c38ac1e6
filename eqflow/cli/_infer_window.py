"""`eqflow infer --window`: points seen through a box, and functions that vanish at its edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from eqflow.cli._shell import usage
from eqflow.cli._words import count

if TYPE_CHECKING:
    from eqflow.cli._infer_work import Data

_FORM = "NAME=LOW:HIGH, such as x=0:30,z=10: (no number: no edge)"


class Window(NamedTuple):
    """A box, infinite where it has no edge."""

    low: tuple[float, ...]
    high: tuple[float, ...]


def parse(text: str, names: tuple[str, ...]) -> Window:
    """The box that the option describes."""
    low, high = [float("-inf")] * len(names), [float("inf")] * len(names)
    for part in text.split(","):
        name, equals, edges = (word.strip() for word in part.partition("="))
        first, colon, last = (word.strip() for word in edges.partition(":"))
        if not (equals and colon and (first or last)):
            raise usage(f"expected --window as {_FORM}, got {part!r}")
        if name not in names:
            raise usage(f"expected --window over {', '.join(names)}, got {name!r}")
        place = names.index(name)
        try:
            low[place], high[place] = float(first or "-inf"), float(last or "inf")
        except ValueError:
            raise usage(f"expected --window as {_FORM}, got {part!r}") from None
        if not low[place] < high[place]:
            raise usage(f"expected --window from low to high, got {part!r}")
    return Window(tuple(low), tuple(high))


def restrict(data: Data, window: Window) -> Data:
    """The points inside, with a note where some are not."""
    import torch

    points = data.sets[0]
    low, high = (torch.tensor(edge, dtype=torch.float64) for edge in window)
    inside = ((points > low) & (points < high)).all(1)
    if inside.all():
        return data
    if not inside.any():
        raise usage(f"expected points inside --window, got none of {count(len(points))}")
    note = f"{count(int(inside.sum()))} of {count(len(points))} points lie inside the window; the others were left out"
    return data._replace(sets=[points[inside]], notes=(*data.notes, note))


def options(points: Any, window: Window, bandwidth: float, wanted: int) -> dict[str, Any]:
    """The arguments of `weak_form` for bumps inside the box."""
    most = len(points) // 51  # a bump stands at a point, and 50 others are to weigh it
    width = bandwidth * points.double().std(0)
    return {"functions": "bumps", "window": window, "bandwidth": width, "count": max(min(wanted, most), 1)}
