"""Curves of a world: how well its creatures hold, how far they get, how they stand to each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_RULE, _NULL, _GREY = "#00798c", "#d1495b", "0.6"


def draw(out: Path, report: dict[str, Any]) -> None:
    """Write all of them as one picture."""
    from matplotlib.figure import Figure

    curves = report["curves"]
    panels = [name for name in _PANELS if curves.get(name)]
    sheet = Figure(figsize=(4.2 * min(3, len(panels)), 3.1 * -(-len(panels) // 3)), layout="constrained")
    grid = sheet.add_gridspec(-(-len(panels) // 3), min(3, len(panels)))
    for number, name in enumerate(panels):
        axes = sheet.add_subplot(grid[number // 3, number % 3])
        title, across, logarithmic = _PANELS[name]
        shown = {label: curve for label, curve in curves[name].items() if curve["x"]}
        logarithmic = logarithmic and any(value > 0 for curve in shown.values() for value in curve["y"])
        for label, colour in (("rule", _RULE), ("null", _NULL), ("shuffled", _GREY)):
            if (curve := shown.get(label)) is not None:
                _band(axes, curve, colour, {"rule": "with K", "null": "K = 0"}.get(label, label))
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xlabel(across, fontsize=9)
        if logarithmic:
            axes.set_xscale("log")
            axes.set_yscale("log")
        axes.spines[["top", "right"]].set_visible(False)
        if shown:
            axes.legend(frameon=False, fontsize=8)
    sheet.savefig(out, dpi=120, format="png")


_PANELS = {
    "match": ("match with the picture", "step", False),
    "count": ("creatures", "step", False),
    "displacement": ("mean square displacement, pixels²", "time", True),
    "pairs": ("pair correlation g(r)", "distance, pixels", False),
    "approach": ("relative speed of pairs, away > 0", "distance, pixels", False),
    "alignment": ("alignment of motion", "distance, pixels", False),
}


def _band(axes: Any, curve: dict[str, list[float]], colour: str, label: str) -> None:
    x, y = (np.array(curve[name], float) for name in ("x", "y"))
    axes.plot(x, y, color=colour, linewidth=1.5, label=label)
    if curve.get("error") is not None:
        error = np.array(curve["error"], float)
        axes.fill_between(x, y - error, y + error, color=colour, alpha=0.2, linewidth=0)
