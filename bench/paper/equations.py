"""The equation behind still pictures: which terms, which coefficients, from how few pictures, and what spoils it.

Not in the paper, but the answer to its question: how much of the dynamics does a distribution of patterns fix? Its
flows reach a similarity of 0.25 to 0.59 with the truth. Here the equation itself is looked for, out of 24 candidate
terms, from final states of 128 x 128 in no order. `--models` is the number of independent data sets. About an hour on
one core.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench.paper.files import digest
from bench.paper.report import Report
from bench.paper.study import Study, run
from eqflow.fokker_planck import fields
from eqflow.fokker_planck.fields import Discovery, Grid
from eqflow.metrics import similarity
from eqflow.systems import gray_scott, patterns

PRESETS = ("wave", "life", "spirals")
COUNTS = (16, 32, 64, 128, 256, 512, 1024)
SYSTEMS = {
    "FitzHugh-Nagumo": patterns.FitzHughNagumo(),
    "Brusselator": patterns.Brusselator(),
    "Schnakenberg": patterns.Schnakenberg(),
    "Gray-Scott with noise": patterns.NoisyGrayScott(),
    "Swift-Hohenberg with noise": patterns.SwiftHohenberg(diffusion=0.05),
}
_PICTURES, _SIDE = 256, 64  # of a data set; of the pictures of the systems above
Truth = dict[str, float]


class Found(NamedTuple):
    """A fit beside the truth."""

    exact: bool  # whether the terms are the true ones
    error: float  # the largest relative error of a true coefficient that was kept
    score: float  # the largest, in standard errors
    fit: Any
    discovery: Discovery | None

    @property
    def j(self) -> str:
        return f"{self.fit.j_statistic:.0f} / {self.fit.degrees_of_freedom}" if self.fit else "–"

    @property
    def words(self) -> list[str]:
        if self.fit is None:
            return ["refused", "–", "–", "–", "–"]
        error = f"{100 * self.error:.3g} %"
        return ["yes" if self.exact else "no", error, f"{self.score:.1f}", self.j, f"{self.fit.p_value:.2g}"]


COLUMNS = ["terms exact", "largest error", "in standard errors", "J / dof", "p"]


def final_states(study: Study, name: str, seed: int, samples: int) -> Tensor:
    """Living final states of the protocol, [pictures, 2, 128, 128]."""
    size, steps = (32, 500) if study.quick else (128, 10_000)

    def make() -> dict[str, Tensor]:
        start = gray_scott.initial_state("discs", torch.arange(samples), size, size, seed=seed)
        system = gray_scott.preset(name).parameters
        return {"states": torch.cat([system.run(part, steps) for part in start.split(16)])}

    states = study.cache.get(f"pictures-{name}", digest(name, seed, samples, size, steps), make)["states"]
    return states[~gray_scott.is_dead(states)]


def true_gray_scott(name: str) -> Truth:
    """The coefficients by name."""
    system = gray_scott.preset(name).parameters
    first = {"1": system.feed, "u": -system.feed, "u v^2": -1.0, "Δu": system.diffusion_u}
    second = {"v": -(system.feed + system.kill), "u v^2": 1.0, "Δv": system.diffusion_v}
    return {f"{t} in du/dt": x for t, x in first.items()} | {f"{t} in dv/dt": x for t, x in second.items()}


def true_pattern(system: patterns.Pattern, library: fields.FieldLibrary) -> Truth:
    """The coefficients of a system by the names of a library."""
    names = {(term.operator, term.exponents): name for name, term in zip(library.names, library.terms, strict=True)}
    rows = zip(system.channels, system.equations(), strict=True)
    return {f"{names[tuple(term)]} in d{row}/dt": x for row, terms in rows for term, x in terms.items()}


def look(pictures: Tensor, truth: Truth, library: fields.FieldLibrary, **options: Any) -> Found:
    """Discover, and compare up to the unit of time."""
    noise = options.pop("noise", 0.0)
    try:
        found = fields.discover(pictures, fields.field_model(library, noise=noise), **options)
    except ValueError:
        return Found(False, float("nan"), float("nan"), None, None)
    if not found.fits:
        return Found(False, float("nan"), float("nan"), None, found)
    (fit,), unit = found.fits, found.identifiable.unit
    scale = next((value / truth[name] for name, value in unit.items() if name in truth), 1.0)
    kept = set(fit.names) | set(unit)
    both = [name for name in fit.names if name in truth]
    gaps = {name: fit.value(name) / scale - truth[name] for name in both}
    errors = dict(zip(fit.names, (fit.standard_errors / abs(scale)).tolist(), strict=True))
    worst = max((abs(gaps[name] / truth[name]) for name in both), default=float("nan"))
    score = max((abs(gaps[name]) / errors[name] for name in both), default=float("nan"))
    return Found(kept == set(truth), worst, score, fit, found)


def two_channels() -> fields.FieldLibrary:
    return fields.polynomial("u v", 3) + fields.laplacian("u v")


def data_sets(report: Report, study: Study) -> None:
    """Every moving pattern on independent data sets, and the cosine of the field found with the true one."""
    rows = []
    for name in PRESETS:
        cosines, found = [], []
        for seed in range(study.models):
            pictures = final_states(study, name, seed, study.count(_PICTURES))
            report.progress(f"{name}, data set {seed}")
            found.append(one := look(pictures, true_gray_scott(name), two_channels(), dt=1.0))
            rows.append([name, seed, len(pictures), *one.words])
            if one.discovery is not None:
                held_out = final_states(study, name, 1000, 32).double()
                truth = gray_scott.preset(name).parameters.run(held_out, 1) - held_out
                flat = [field.flatten()[None, None] for field in (one.discovery.drift(held_out), truth)]
                cosines.append(float(similarity(*flat)[0, 0]))
        limit = 0.005 if name == "wave" else 0.02
        exact = sum(one.exact for one in found) / len(found)
        report.check(f"{name}: share of data sets with exactly the true terms", exact, ">= 3/4", low=0.75)
        report.check(f"{name}: largest error", [one.error for one in found], f"<= {limit}", high=limit)
        report.check(f"{name}: cosine with the true field", cosines, ">= 0.9999", low=0.9999)
        report.keep(**{name: {"equations": [str(one.discovery) for one in found], "cosines": cosines}})
    report.table("Gray-Scott, nothing known but 24 terms", ["pattern", "set", "pictures", *COLUMNS], rows)


def few_pictures(report: Report, study: Study) -> dict[int, Found]:
    """From how few pictures."""
    pictures = final_states(study, "wave", 0, study.count(max(COUNTS)))
    curve = {n: look(pictures[:n], true_gray_scott("wave"), two_channels(), dt=1.0) for n in COUNTS}
    report.table("Wave, from fewer pictures", ["pictures", *COLUMNS], [[n, *one.words] for n, one in curve.items()])
    return curve


def spoiled(report: Report, study: Study) -> None:
    """What rounding, crops, another stencil and observation noise cost, and whether the test notices."""
    pictures = final_states(study, "wave", 0, study.count(_PICTURES))
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    crop = pictures[..., 16:112, 16:112]
    cases: dict[str, tuple[Callable[[], Tensor], dict[str, Any]]] = {
        "as made": (lambda: pictures, {}),
        "float16": (lambda: pictures.half(), {}),
        "8 bits": (lambda: (pictures * 255).round() / 255, {}),
        "crop, said so": (lambda: crop, {"grid": Grid(periodic=False)}),
        "crop, taken as periodic": (lambda: crop, {}),
        "9-point stencil": (lambda: pictures, {"grid": Grid("9-point")}),
        "continuous time": (lambda: pictures, {"dt": None}),
        **{
            f"noise of deviation {size:g}": (lambda size=size: pictures + size * noise, {})
            for size in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
        },
    }
    rows = []
    for name, (make, options) in cases.items():
        report.progress(name)
        found = look(make(), true_gray_scott("wave"), two_channels(), **({"dt": 1.0} | options))
        rows.append([name, *found.words])
    report.table("Wave, spoiled", ["what", *COLUMNS], rows)


def systems(report: Report, study: Study) -> None:
    """Other equations, in continuous time."""
    rows = []
    for name, system in SYSTEMS.items():
        report.progress(name)
        count, side = study.count(_PICTURES) if not study.quick else 40, 16 if study.quick else _SIDE

        def make(system: patterns.Pattern = system, count: int = count, side: int = side) -> dict[str, Tensor]:
            return {"states": system.simulate(count, side, side, seed=0, steps=50 if study.quick else None)}

        key = digest(repr(system), count, side, study.quick)
        pictures = study.cache.get(f"pictures-{name.replace(' ', '-')}", key, make)["states"]
        library = fields.polynomial(system.channels, 3) + fields.laplacian(system.channels)
        if len(system.channels) == 1:
            library = library + fields.bilaplacian(system.channels)
        found = look(pictures, true_pattern(system, library), library, noise=system.diffusion)
        rows.append([name, len(pictures), *found.words])
        report.keep(**{name: str(found.discovery)})
    report.table("Other systems, pictures of 64 x 64", ["system", "pictures", *COLUMNS], rows)


def static(report: Report, study: Study) -> None:
    """The maze: what can be said, and each equation with its terms given."""
    pictures = final_states(study, "maze", 0, study.count(_PICTURES))
    library = two_channels()
    blind = fields.discover(pictures, fields.field_model(library), dt=1.0)
    report.note(f"Maze, nothing known: {blind}")
    rows = {"u": library.only(["1", "u", "u v^2", "Δu"]), "v": library.only(["v", "u v^2", "Δv"])}
    given = fields.discover(pictures, fields.field_model(rows), dt=1.0)
    report.note(f"Maze, the terms of each equation given: {given.equations}")
    truth = torch.tensor([true_gray_scott("maze")[name] for name in given.model.names], dtype=torch.float64)
    error = ((given.coefficients - truth) / truth).abs().max()
    report.check("maze: static", float(blind.identifiable.still), "named so", low=1)
    report.check("maze: largest error of an equation with its terms given", error, "<= 0.002", high=0.002)


def picture(curve: dict[int, Found]) -> Figure:
    """Error against the number of pictures."""
    sheet = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = sheet.subplots()
    for exact, marker, label in ((True, "o", "the true terms"), (False, "x", "other terms")):
        points = [(n, 100 * one.error) for n, one in curve.items() if one.fit is not None and one.exact == exact]
        if points:
            axes.loglog(*zip(*points, strict=True), marker, label=label)
    axes.set_xlabel("pictures")
    axes.set_ylabel("largest error of a coefficient, %")
    axes.legend(frameon=False)
    return sheet


def work(study: Study) -> int:
    report = Report(study, "equations", "The equation behind still pictures")
    with report.part("few pictures"):
        report.draw(picture(few_pictures(report, study)))
    with report.part("data sets"):
        data_sets(report, study)
    with report.part("maze"):
        static(report, study)
    with report.part("spoiled"):
        spoiled(report, study)
    with report.part("systems"):
        systems(report, study)
    return report.finish()


def main(argv: list[str] | None = None) -> None:
    run(work, __doc__, argv, models=4)


if __name__ == "__main__":
    main()
