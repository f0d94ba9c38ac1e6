"""What is written on a sheet: the preset, its parameters, and the axes of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SYMBOLS = {"feed": "F", "kill": "k", "diffusion_u": "Dᵤ", "diffusion_v": "Dᵥ"}


def swept(recipe: Any) -> dict[str, tuple[float, ...]]:
    """The parameters that differ between samples."""
    axes = {name: getattr(recipe, name) for name in SYMBOLS}
    return {name: values for name, values in axes.items() if len(set(values)) > 1}


def points(recipe: Any) -> int:
    """Points of the sweep; 1 where there is none."""
    return max(len(getattr(recipe, name)) for name in SYMBOLS)


def details(recipe: Any, frame: str) -> list[str]:
    """The parameters in a line, the most important first."""
    axes = swept(recipe)
    words = {
        name: f"{symbol} {min(axes[name]):g} to {max(axes[name]):g}"
        if name in axes
        else f"{symbol} {getattr(recipe, name)[0]:g}"
        for name, symbol in SYMBOLS.items()
    }
    shown = [f"{words['feed']}  {words['kill']}", f"{words['diffusion_u']}  {words['diffusion_v']}"]
    rest = [f"{recipe.height} × {recipe.width}", frame]
    shown[1:1] = [part for part in rest if part]
    if (recipe.dt, recipe.dx) != (1, 1):
        shown.append(f"dt {recipe.dt:g}  dx {recipe.dx:g}")
    return shown


def map_axes(recipe: Any, samples: Sequence[int]) -> tuple[list[str], list[str]] | None:
    """Labels of rows and columns, if the samples fill a grid over two swept parameters row by row."""
    axes, total = swept(recipe), points(recipe)
    if len(axes) != 2 or list(samples) != list(range(total)):
        return None
    (slow, slow_values), (fast, fast_values) = sorted(axes.items(), key=lambda item: _run_length(item[1]), reverse=True)
    width = len(set(fast_values))
    height, remainder = divmod(total, width)
    regular = not remainder and all(
        fast_values[i] == fast_values[i % width] and slow_values[i] == slow_values[i // width * width]
        for i in range(total)
    )
    if not regular or height < 2:
        return None
    rows = [f"{SYMBOLS[slow]} {slow_values[row * width]:.4g}" for row in range(height)]
    return rows, [f"{SYMBOLS[fast]} {value:.4g}" for value in fast_values[:width]]


def tile_labels(recipe: Any, samples: Sequence[int]) -> list[str]:
    """The swept parameters of each sample; nothing if all samples share them."""
    axes = swept(recipe)
    if not axes:
        return []
    return [
        "  ".join(f"{SYMBOLS[name]} {values[i % len(values)]:.4g}" for name, values in axes.items()) for i in samples
    ]


def _run_length(values: tuple[float, ...]) -> int:
    """How many equal values stand at the beginning."""
    return next((i for i, value in enumerate(values) if value != values[0]), len(values))
