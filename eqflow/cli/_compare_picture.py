"""A comparison as a picture and a film: truth and recovered motion, and their cosines with standard errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eqflow.cli import _films, _pictures
from eqflow.cli._words import count

_PART = {"odd": ("#00798c", "odd part: recovered motion"), "even": ("#e08e0b", "even part: relaxation"),
         "none": ("0.6", "without K"), "other_sample": ("#d1495b", "odd part, another sample's truth")}  # fmt: skip
_PIXELS = 640


def draw(out: Path, film: Path, stored: Any, compared: Any) -> None:
    """Write the picture and the film of a comparison."""
    _film(film, stored, compared)
    from matplotlib.figure import Figure

    report = compared.report
    sheet = Figure(figsize=(13.6, 7.4), layout="constrained")
    (at, lag), found = report["main"], report["fidelity"]
    mean, error = (_number(found["odd"][key][at][lag]) for key in ("mean", "error"))
    sheet.suptitle(
        f"{report['name']}: cosine {mean:+.3f} ± {error:.3f} of recovered and true motion, {count(report['samples'])} "
        f"starts\nmodel time {report['times'][at]:g}, {report['lags'][lag]} steps of the system",
        fontsize=11,
        x=0.01,
        ha="left",
    )
    grid = sheet.add_gridspec(2, 6)
    shown = [("start", compared.start), ("true change", compared.change), ("recovered, odd part", compared.recovered)]
    for column, (title, values) in enumerate(shown):
        axes = sheet.add_subplot(grid[0, 2 * column : 2 * column + 2])
        field = values[-1].float().cpu().numpy()
        bound = float(abs(field).max()) or 1.0
        how = {"cmap": "magma"} if column == 0 else {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound}
        axes.imshow(field, interpolation="nearest", **how)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{title}, {report['channels'][-1]}", fontsize=9)
    _curves(sheet.add_subplot(grid[1, :3]), report)
    _surface(sheet, sheet.add_subplot(grid[1, 3:]), report)
    with _films._whole(out) as part:
        sheet.savefig(part, dpi=120)


def _curves(axes: Any, report: dict[str, Any]) -> None:
    lag = report["main"][1]
    for name, (colour, label) in _PART.items():
        cosines = report["fidelity"][name]
        if cosines is None:
            continue
        mean, error = ([_number(row[lag]) for row in cosines[key]] for key in ("mean", "error"))
        axes.errorbar(report["times"], mean, error, color=colour, marker="o", markersize=4, capsize=2, label=label)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.set_xlabel("model time")
    axes.set_title(f"cosine with the true change over {report['lags'][lag]} steps", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _surface(sheet: Any, axes: Any, report: dict[str, Any]) -> None:
    odd = report["fidelity"]["odd"]
    means, errors = ([[_number(value) for value in row] for row in odd[key]] for key in ("mean", "error"))
    bound = max((abs(value) for row in means for value in row if value == value), default=0.0) or 1.0
    image = axes.imshow(means, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto", origin="lower")
    for at, row in enumerate(means):
        for lag, value in enumerate(row):
            shade = "white" if abs(value) > 0.6 * bound else "0.15"
            text = f"{value:+.2f}\n± {errors[at][lag]:.2f}"
            axes.text(lag, at, text, ha="center", va="center", fontsize=8, color=shade)
    axes.set_xticks(range(len(report["lags"])), report["lags"])
    axes.set_yticks(range(len(report["times"])), [f"{time:g}" for time in report["times"]])
    axes.set_xlabel("steps of the system")
    axes.set_ylabel("model time")
    axes.set_title("odd part", fontsize=9)
    sheet.colorbar(image, ax=axes, shrink=0.8).outline.set_visible(False)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _film(out: Path, stored: Any, compared: Any) -> None:
    frames = compared.film.float().numpy()
    words = _pictures.Words(
        title=stored.name,
        details=["from the same start"],
        field=stored.channels[-1],
        limits=_pictures.limits(frames[:, :1]),
        tiles=("truth", "recovered"),
        stamp=f"frame {count(len(frames))}",
    )
    sheet = _pictures.Sheet(2, *frames.shape[2:], words, 2, _PIXELS)
    drawings = (sheet.draw(tiles, f"frame {at}") for at, tiles in enumerate(frames))
    _films.save_film(out, drawings, _pictures.palette("magma"), 15.0)
