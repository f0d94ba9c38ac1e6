"""What a denoiser does: a clean field, the noised one, its answer, what is left; and how the error fell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from eqflow.cli import _films
from eqflow.cli._words import count

_COLUMNS = ("clean", "noised", "denoised", "denoised - clean")


def draw(out: Path, source: Any, trained: Any) -> None:
    """Write the picture of a score."""
    from matplotlib.figure import Figure

    report, channels = trained.report, len(source.names)
    sheet = Figure(figsize=(13.6, 1.2 + 2.5 * channels), layout="constrained")
    sheet.suptitle(_title(source, report), fontsize=11, x=0.01, ha="left")
    grid = sheet.add_gridspec(channels, 6)
    clean = trained.apart[:1]
    score = trained.denoiser.at(report["alpha"])
    noised = score.noised(clean, seed=report["seed"]) / score.alpha**0.5
    with torch.no_grad():
        cleaned = trained.denoiser(noised, score.sigma)
    shown = [values[0].float().cpu().numpy() for values in (clean, noised, cleaned, cleaned - clean)]
    for row, channel in enumerate(source.names):
        low, high = float(shown[0][row].min()), float(shown[0][row].max())
        spread = 4 * (report["denoising"]["error"][row] ** 0.5 if report["denoising"] else report["sigma"])
        for column, values in enumerate(shown):
            axes = sheet.add_subplot(grid[row, column])
            limits = {"vmin": -spread, "vmax": spread, "cmap": "RdBu_r"} if column == 3 else {"vmin": low, "vmax": high}
            axes.imshow(values[row], interpolation="nearest", **{"cmap": "magma", **limits})
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(_COLUMNS[column], fontsize=9)
            if column == 0:
                axes.set_ylabel(channel)
    _curve(sheet.add_subplot(grid[:, 4:]), report)
    with _films._whole(out) as part:
        sheet.savefig(part, dpi=120)


def _title(source: Any, report: dict[str, Any]) -> str:
    found = report["denoising"]
    below = f", its error {max(found['ratio']):.0%} of the Wiener filter's or less" if found else ""
    return (
        f"{source.name}: a {report['shape']['network']} denoiser of {count(report['parameters'])} parameters{below}\n"
        f"sigma {report['sigma']:.3f}, {count(report['steps'])} steps of {report['batch']} fields"
    )


def _curve(axes: Any, report: dict[str, Any]) -> None:
    steps, _, errors = zip(*report["history"], strict=True)
    axes.plot(steps, errors, ".-", color="#00798c", linewidth=1.6, markersize=4, label="held out")
    if report["denoising"]:
        for name, colour in (("wiener", "#d1495b"), ("trivial", "0.6")):
            mean = sum(report["denoising"][name]) / len(report["denoising"][name])
            axes.axhline(mean, color=colour, linewidth=1.0, linestyle="--", label=name)
    axes.set_yscale("log")
    axes.set_xlabel("steps")
    axes.set_title("squared error, mean over channels", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    axes.yaxis.tick_right()
    axes.spines[["top", "left"]].set_visible(False)
