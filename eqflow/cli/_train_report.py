"""The words of a training: while it runs, and at its end."""

from __future__ import annotations

from typing import Any

from eqflow.cli import _stages, _steps
from eqflow.cli._words import count


class Meter(_stages.Meter):
    """Fields a second, and the loss and the error at the last look."""

    def __init__(self, batch: int = 1) -> None:
        super().__init__()
        self.batch, self._seen_last = batch, ""
        self.wiener: float | None = None  # error of the Wiener filter

    def look(self, step: int, loss: float, error: float) -> None:
        """Take note of a look."""
        beside = f", {error / self.wiener:.0%} of Wiener's" if self.wiener else ""
        self._seen_last = f"loss {loss:.3g}  error {error:.3g}{beside}"

    def words(self) -> str:
        if self._latest is None or not self.rate:
            return "starting" if self._latest is None else self._latest.stage
        if self._latest.stage != "train":
            return super().words()
        return f"{_steps.rate(self.rate * self.batch)} fields/s  {self._seen_last}"


def lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    rows = [("data", _data(report)), ("network", _network(report)), ("noise", _noise(report))]
    found = report["denoising"]
    if found is None:
        rows.append(("error", "not measured: one field alone was held out"))
    else:
        for index, channel in enumerate(report["channels"]):
            error, spread, wiener, trivial = (
                found[name][index] for name in ("error", "standard_error", "wiener", "trivial")
            )
            rows.append(
                (f"error {channel}", f"{error:.3e} ± {spread:.1e}, {_beside(error / wiener)} the Wiener filter's "
                                     f"{wiener:.2e}, trivial {trivial:.2e}")
            )  # fmt: skip
        curl, stein = report["asymmetry"], report["stein"]
        rows.append(("curl", f"{curl['value']:.3g} ± {curl['standard_error']:.1g} of the Jacobian; 0 for a gradient"))
        rows.append(("score", f"E[s·x]/d {stein['product']:.4f} ± {stein['standard_error']:.1g}; -1 for the true one"))
        shifts = ", ".join(f"{error:.1e}" for error in report["equivariance"].values())
        rows.append(
            ("shifts", f"change the network's answer by {shifts} (by {'; '.join(report['equivariance'])} cells)")
        )
    rows.append(("trained", f"{count(report['steps'])} steps of {report['batch']}, seed {report['seed']}"))
    return [f"{name:<10}{value}" for name, value in rows]


def _beside(ratio: float) -> str:
    return f"{abs(1 - ratio):.0%} {'below' if ratio < 1 else 'above'}"


def _data(report: dict[str, Any]) -> str:
    grid, held = " x ".join(map(str, report["size"])), count(report["held_out"])
    if report["samples"] is None:
        return f"gray-scott:{report['system']['preset']} {grid}, simulated on the fly; {held} held out"
    return f"{count(report['samples'])} fields {grid} of {', '.join(report['channels'])}; {held} held out"


def _network(report: dict[str, Any]) -> str:
    shape = report["shape"]
    sees = f", sees {report['radius']} cells far" if report["radius"] else ""
    kind = "conservative " if shape["conservative"] else ""
    return f"{kind}{shape['network']}, {count(report['parameters'])} parameters{sees}, {shape['precondition']}"


def _noise(report: dict[str, Any]) -> str:
    every = "every level; measured at " if report["shape"]["alpha"] is None else ""
    return f"{every}alpha {report['alpha']:.5f} (sqrt {report['sqrt_alpha']:.5f}), sigma {report['sigma']:.4f}"
