"""What the found equation makes of a picture: the picture, its rate of change, and spectra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eqflow.cli import _portraits


def draw(out: Path, data: Any, answer: Any, simulated: Any) -> None:
    """Write a PNG: a row for each channel."""
    from matplotlib.figure import Figure

    from eqflow.metrics import radial_spectrum

    stills = data.stills
    rate = answer.found.drift(stills.values[:1].double(), answer.grid)[0]
    rate = answer.grid.inside(rate, answer.found.model.library.reach).numpy()  # a crop's edge has no neighbours
    moved = simulated is not None and simulated.states is not None
    columns, rows = 4 if moved else 3, len(stills.names)
    figure = Figure(figsize=(3.3 * columns, 3.1 * rows), layout="constrained")
    for row, name in enumerate(stills.names):
        panels = iter([figure.add_subplot(rows, columns, row * columns + k + 1) for k in range(columns)])
        picture = stills.values[0, row].numpy()
        _field(figure, next(panels), picture, name, "magma")
        largest = float(abs(rate[row]).max()) or 1.0
        _field(figure, next(panels), rate[row], f"d{name}/dt as found", "RdBu_r", (-largest, largest))
        if moved:
            _field(
                figure, next(panels), simulated.states[0, row].numpy(), f"{name} at time {simulated.time:g}", "magma"
            )
        axes = next(panels)
        whole = radial_spectrum(stills.values[:, row : row + 1])[:, 0].mean(0).numpy()
        axes.loglog(range(1, len(whole) + 1), whole, color="0.6", linewidth=3, label="pictures")
        if moved:
            left = radial_spectrum(simulated.states[:, row : row + 1])[:, 0].mean(0).numpy()
            axes.loglog(range(1, len(left) + 1), left, color=_portraits.COLOURS[0], linewidth=1.2, label="simulated")
            axes.legend(frameon=False, fontsize=8)
        _portraits.label(axes, "waves across", f"power of {name}")
    figure.savefig(out, dpi=110, metadata={"Software": None})


def _field(figure: Any, axes: Any, values: Any, title: str, colours: str, limits: Any = (None, None)) -> None:
    image = axes.imshow(values, cmap=colours, vmin=limits[0], vmax=limits[1], origin="lower")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()
    figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02).outline.set_visible(False)
