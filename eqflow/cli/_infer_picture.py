"""What `eqflow infer --show` draws: coefficients with their errors, and J against the law it has under the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from eqflow.cli import _films

_FOUND, _KNOWN, _LAW = "#d1495b", "#00798c", "0.75"


class Known(NamedTuple):
    """The standard coefficients of a known system, and where they stand."""

    values: Mapping[str, float]
    source: str


def known(system: str | None) -> Known | None:
    """Those of a system, by the names that the command gives to its unknowns."""
    if system is None:
        return None
    from eqflow.systems import GeneNetwork, Lorenz

    if system == "lorenz":
        standard = Lorenz()
        return Known({name: getattr(standard, name) for name in ("sigma", "rho", "beta")}, standard.source)
    network = GeneNetwork()
    rows = zip(network.variables[4:], network.coefficients.tolist(), strict=True)
    values = {
        f"{gene}: {term}": value for gene, row in rows for term, value in zip(network.influences, row, strict=True)
    }
    return Known(values, network.source)


def draw(out: Path, title: str, fits: Sequence[Any], truth: Known | None) -> None:
    """Write the picture: coefficients on the left, a test for each fit on the right."""
    from matplotlib.figure import Figure

    rows = _rows(fits, truth)
    sheet = Figure(figsize=(11, max(3.6, 1.4 + 0.3 * len(rows))), layout="constrained")
    grid = sheet.add_gridspec(len(fits), 2, width_ratios=(3, 2))
    sheet.suptitle(title, fontsize=11, x=0.01, ha="left")
    _coefficients(sheet.add_subplot(grid[:, 0]), rows, truth)
    for place, fit in enumerate(fits):
        _test(sheet.add_subplot(grid[place, 1]), fit)
    with _films._whole(out) as part:
        sheet.savefig(part, dpi=140)


def _rows(fits: Sequence[Any], truth: Known | None) -> list[tuple[str, float, float]]:
    """Name, value and error of every unknown, with those that are in the truth alone at zero."""
    rows = [
        row
        for fit in fits
        for row in zip(fit.names, fit.coefficients.tolist(), fit.standard_errors.tolist(), strict=True)
    ]
    named = {name for name, _, _ in rows}
    missed = [name for name, value in truth.values.items() if value and name not in named] if truth else []
    return rows + [(name, 0.0, 0.0) for name in missed]


def _coefficients(axes: Any, rows: Sequence[tuple[str, float, float]], truth: Known | None) -> None:
    from eqflow.fokker_planck.layout import with_error

    names, values, errors = zip(*rows, strict=True)
    places = numpy.arange(len(rows))
    scale = numpy.ones(len(rows))
    if truth and len(set(truth.values.values()) - {0.0}) > 1:  # different sizes: each in units of its own
        scale = numpy.array([truth.values.get(name) or value or 1.0 for name, value, _ in rows])
        axes.set_xlabel("value over known value")
    else:
        axes.set_xlabel("value")
        if not truth:
            _stretch(axes, numpy.abs([value for value in values if value]))
    axes.errorbar(
        numpy.divide(values, scale), places, xerr=2 * numpy.abs(numpy.divide(errors, scale)), fmt="o", color=_FOUND,
        markersize=4, capsize=3, label="found, with two standard errors",
    )  # fmt: skip
    if truth:
        at = [
            (truth.values[name] / size, place)
            for name, size, place in zip(names, scale, places, strict=True)
            if name in truth.values
        ]
        axes.plot(*zip(*at, strict=True), "D", color=_KNOWN, fillstyle="none", markersize=9, label=truth.source)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8, borderaxespad=0.2)
    axes.set_yticks(places, names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(places, [with_error(value, error) if error else "–" for _, value, error in rows])
    beside.tick_params(length=0)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    beside.spines["right"].set_visible(False)


def _stretch(axes: Any, sizes: numpy.ndarray) -> None:
    """A logarithmic scale on both sides of zero, where the sizes are too different for an even one."""
    if not len(sizes) or sizes.max() < 30 * sizes.min():
        return
    low, high = numpy.log10([sizes.min(), sizes.max()])
    powers = 10.0 ** numpy.arange(numpy.ceil(low), numpy.floor(high) + 1)
    axes.set_xscale("symlog", linthresh=float(sizes.min()))
    axes.set_xticks([*-powers[::-1], 0.0, *powers], labels=[f"{x:g}" for x in (*-powers[::-1], 0.0, *powers)])
    axes.minorticks_off()


def _test(axes: Any, fit: Any) -> None:
    freedom = fit.degrees_of_freedom
    axes.set_yticks([])
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    if freedom < 1:
        axes.set_title("as many unknowns as conditions: no test", fontsize=9)
        return
    end = max(freedom + 5 * math.sqrt(2 * freedom) + 3, 1.1 * fit.j_statistic)
    start = 0.0
    values = numpy.linspace(0, end, 801)[1:]
    if fit.j_statistic > 10 * freedom:  # on an even scale the law would be a line at zero
        start = freedom / 5
        values = numpy.geomspace(start, end, 800)
        axes.set_xscale("log")
    log_density = (freedom / 2 - 1) * numpy.log(values / 2) - values / 2 - math.lgamma(freedom / 2) - math.log(2)
    axes.fill_between(values, numpy.exp(log_density), color=_LAW, linewidth=0)
    axes.axvline(fit.j_statistic, color=_FOUND)
    axes.set_xlim(start, end)
    axes.set_ylim(0)
    axes.set_xlabel("J")
    axes.set_title(
        f"J = {fit.j_statistic:.4g}, p = {fit.p_value:.2g}\n"
        f"grey: its law if the model is right, {freedom} degrees of freedom",
        fontsize=9,
    )
