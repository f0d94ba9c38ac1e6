"""Lyapunov exponents of Lorenz and of flows learned from its snapshots: are they chaotic, and does the sign hold?

Whole spectra by QR in float64, RK4 with dt = 0.1, starts from the noised distribution, a warm-up of 10, windows up to
T = 400; starts that leave |y| < 6 are dropped and counted. Per time, and per unit arc length, since the speed of a
learned flow is a convention. A single span of T = 250 with two trajectories, the paper's way, stands beside. About 15
minutes on two cores after table1_lorenz, whose models it shares; 10 more without.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper import clouds, drawing
from bench.paper.clouds import Cloud
from bench.paper.families import FAMILIES
from bench.paper.report import Report, spread
from bench.paper.study import Study, run
from bench.paper.training import Job, clock, train
from eqflow.dynamics import LearnedFlow
from eqflow.metrics import largest_exponent, lyapunov_spectrum
from eqflow.metrics.lyapunov import Lyapunov
from eqflow.ops import divergence
from eqflow.systems import Lorenz

DT, TIME, WINDOWS, WARM_UP, BOUND = 0.1, 400.0, 4, 10.0, 6.0
STARTS, TRUE_STARTS, TRUE_TIME, PAPER_TIME = 24, 64, 20.0, 250.0
LITERATURE = (0.9056, 0.0, -14.572)
NAMES = ("best", "exact", "gaussian-8", "gaussian-1", "rademacher-1", "paper")
_AT_ONCE = 5  # models followed together
_HUES = ("#d1495b", "#e08e0b", "#66418c", "#7a9e3b", "#2f6f9f", "#00798c")


class Spectra(NamedTuple):
    """Of every model of a family."""

    exponents: Tensor  # [models, windows, dimension]
    errors: Tensor  # [models, windows, dimension]
    speed: Tensor  # [models, windows]
    stayed: Tensor  # [models]
    sum_error: Tensor  # [models, windows]

    @property
    def mean(self) -> Tensor:
        """Over all windows, [models, dimension]."""
        return self.exponents.mean(1)

    @property
    def per_length(self) -> Tensor:
        """Largest exponent per unit arc length over all windows, [models]."""
        return self.mean[:, 0] / self.speed.mean(1)


def _time(study: Study, time: float) -> float:
    return 2.0 if study.quick else time


def spectra(flow: LearnedFlow, starts: Tensor, time: float, warm_up: float) -> Spectra:
    """Whole spectra, a few models at a time."""
    parts: list[Lyapunov] = []
    for begin in range(0, len(flow), _AT_ONCE):
        part = flow[begin : begin + _AT_ONCE]
        velocity, pushforward = _functions(part)
        rows = starts.expand(len(part), *starts.shape).contiguous()
        parts.append(
            lyapunov_spectrum(
                velocity, rows, dt=DT, time=time, windows=WINDOWS, warm_up=warm_up, bound=BOUND, pushforward=pushforward
            )
        )
    values = [(p.exponents, p.standard_errors, p.speed, p.stayed, p.sum_error) for p in parts]
    return Spectra(*(torch.cat(part) for part in zip(*values, strict=True)))


def _functions(flow: LearnedFlow) -> tuple[Callable, Callable]:
    """Velocity and pushforward of several models at points [models, rows, dimension]."""
    parameters = flow.parameters.double()

    def pushforward(points: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        return divergence.pushforward(points, parameters, flow.network, directions)

    return lambda points: flow.network.velocity(points, parameters), pushforward


def single_span(flow: LearnedFlow, starts: Tensor, time: float) -> Tensor:
    """The paper's measure: two trajectories from one start for each model, no warm-up, [models]."""
    velocity, _ = _functions(flow)
    found = largest_exponent(velocity, starts[: len(flow), None], dt=DT, time=time)
    return found.exponents[:, 0, 0]


def true_lorenz(report: Report, study: Study, cloud: Cloud) -> None:
    """Lorenz in its own units of time, and in those of the learned flows, in which only the clock is another."""
    lorenz, time = Lorenz(), _time(study, TRUE_TIME)
    own = lyapunov_spectrum(
        lorenz.velocity, lorenz.sample(TRUE_STARTS, seed=3), dt=0.005, time=time, warm_up=time / 10, orthogonalise=5
    )
    values, errors = own.exponents[0], own.standard_errors[0]
    speed = cloud.truth(cloud.points.double())
    rms, mean = float(speed.square().mean().sqrt()), float(speed.norm(dim=1).mean())
    rows = [
        [title, *[f"{v / clock_rate:.4f} ± {e / clock_rate:.4f}" for v, e in zip(values, errors, strict=True)], *more]
        for title, clock_rate, *more in (
            ("its own time", 1.0, f"{float(values[0]) / mean:.4f}", f"{float(own.sum_error):.1e}"),
            ("rms speed 1", rms, f"{float(values[0]) / mean:.4f}", "–"),
        )
    ]
    rows += [
        ["literature, its own time", *LITERATURE, "–", "–"],
        ["earlier, rms speed 1", 0.1223, "–", "–", 0.0829, "–"],
    ]
    columns = ["Lorenz", "first", "second", "third", "first per standardised length", "sum - mean divergence"]
    report.table(f"The true Lorenz system, T = {time:g}, {TRUE_STARTS} starts", columns, rows)
    report.check("true Lorenz, T = 20, 64 starts", float(values[0]), "0.905 ± 0.03", low=0.875, high=0.935)
    report.check("true Lorenz: sum of exponents + 13.667", float(values.sum()) + 41 / 3, "|.| < 0.01",
                 low=-0.01, high=0.01)  # fmt: skip
    report.keep(lorenz={"exponents": values, "errors": errors, "rms_speed": rms, "mean_speed": mean})


def learned(report: Report, study: Study, found: dict[str, Spectra], spans: dict[str, Tensor]) -> None:
    """Largest exponents of every family."""
    rows = []
    for name, each in found.items():
        first = each.exponents[..., 0]
        clear = (each.mean[:, 0] > 2 * _error(each)).sum()
        rows.append([_title(name), len(first), spread(spans[name]), f"{int((spans[name] > 0).sum())} of {len(first)}",
                     *[_signed(first[:, window]) for window in range(first.shape[1])],
                     f"{int(clear)} of {len(first)}", spread(each.per_length), f"{float(each.stayed.mean()):.0%}",
                     f"{float(each.sum_error.abs().max()):.1e}"])  # fmt: skip
    time = _time(study, TIME)
    windows = [f"{time * w / WINDOWS:g}-{time * (w + 1) / WINDOWS:g}" for w in range(WINDOWS)]
    span = f"one span of {_time(study, PAPER_TIME):g}"
    columns = ["flow", "M", span, "above 0", *windows, "above 2 errors", "per length", "starts that stay", "sum error"]
    report.table("Largest exponent of learned flows, mean over models", columns, rows)
    rows = [
        [_title(name), *[spread(each.mean[:, i]) for i in range(each.mean.shape[1])]] for name, each in found.items()
    ]
    report.table("Spectra over all windows", ["flow", "first", "second", "third"], rows)
    if "exact" in found:
        early = found["exact"].exponents[:, 0, 0]
        report.check("exact loss, first window of 100: mean", float(early.mean()), "> 0.06", low=0.06)
    shear = math.log(PAPER_TIME) / PAPER_TIME
    report.note(
        "The paper (100 models): 100 of 100 positive, 0.0250 ± 0.0107 (0.0055 to 0.0438) per time, 0.0174 per length, "
        f"from one span of 250. Pure shear gives ln(T) / T = {shear:.3f} there, so values below it prove nothing; "
        "the late windows and their standard errors decide, and no sign is asserted."
    )


def _error(each: Spectra) -> Tensor:
    """Standard error of the first exponent over all windows, [models]."""
    return each.errors[..., 0].square().mean(1).sqrt() / math.sqrt(each.errors.shape[1])


def _title(name: str) -> str:
    return FAMILIES[name].title if name in FAMILIES else name


def _signed(values: Tensor) -> str:
    """Mean over models ± its standard error."""
    values = values[values.isfinite()]
    if not len(values):
        return "none stayed"
    return f"{float(values.mean()):.4f} ± {float(values.std(correction=0)) / math.sqrt(len(values)):.4f}"


def picture(found: dict[str, Spectra], time: float) -> Figure:
    """By window, and every learned model with its error."""
    found = {name: each for name, each in found.items() if name in FAMILIES}
    sheet = Figure(figsize=(13, 5.2), layout="constrained")
    left, right = sheet.subplots(1, 2)
    centres = [time * (window + 0.5) / WINDOWS for window in range(WINDOWS)]
    for place, (hue, (name, each)) in enumerate(zip(_HUES, found.items(), strict=False)):
        first, mean = each.exponents[..., 0].numpy(), each.mean[:, 0].numpy()
        error = first.std(0) / math.sqrt(len(first))
        left.errorbar(centres, first.mean(0), error, color=hue, marker="o", markersize=4, capsize=3, label=_title(name))
        heights, errors = drawing.rows_of(place, len(first), 0.6), 2 * _error(each).numpy()
        right.errorbar(mean, heights, xerr=errors, color=hue, fmt="o", markersize=3, linewidth=1)
    left.axhline(0, color="0.7", linewidth=1)
    left.axhline(0.1223, color="0.2", linewidth=1, linestyle="--")
    left.text(centres[-1], 0.1223, "Lorenz at rms speed 1", fontsize=8, va="bottom", ha="right")
    left.set(xlabel="time, rms speed 1", ylabel="largest exponent in a window")
    right.axvline(0, color="0.7", linewidth=1)
    right.axvline(0.1223, color="0.2", linewidth=1, linestyle="--")
    right.set_yticks(range(len(found)), [""] * len(found))
    right.set(xlabel="largest exponent over all windows, ± 2 standard errors", ylim=(len(found) - 0.4, -0.6))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    sheet.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return sheet


def work(study: Study) -> int:
    report = Report(study, "lyapunov_lorenz", "Lyapunov exponents of Lorenz and of flows learned from its snapshots")
    cloud = clouds.chaotic(study, "lorenz")
    with report.part("the true system"):
        true_lorenz(report, study, cloud)
    flows = dict(zip(NAMES, train([Job(FAMILIES[name], cloud, study.models) for name in NAMES], study), strict=True))
    settings = study.settings(FAMILIES["paper"].settings)
    random = LearnedFlow.random(3, settings, models=study.models, seed=1)
    flows["untrained, normalised"] = random.calibrated(cloud.pool.points, norm="per-coordinate")
    starts = cloud.held_out.points.double()
    found, spans = {}, {}
    for name, flow in flows.items():
        with report.part(f"the spectra of {name}"):
            spans[name] = single_span(flow, starts, _time(study, PAPER_TIME))
            found[name] = spectra(flow, starts[:STARTS], _time(study, TIME), 0.5 if study.quick else WARM_UP)
            report.keep(**{name: {**found[name]._asdict(), "one_span": spans[name]}})
            report.progress(f"{_title(name)}: {len(found)} of {len(flows)} flows, {clock(report.seconds)} so far")
    with report.part("the tables"):
        learned(report, study, found, spans)
        report.draw(picture(found, _time(study, TIME)))
    return report.finish()


def main(argv: list[str] | None = None) -> None:
    run(work, __doc__, argv, models=10)


if __name__ == "__main__":
    main()
