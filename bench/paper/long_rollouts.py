"""Do long rollouts of patterns stay with the data, and which remedy helps: spectra, pixels, and the motion at the end.

A skew flow of a learned score leaves the data slowly, without ever blowing up: the radial spectrum tells it. Every
variant of `long_variants` starts from the same noised fields; the first score of a pattern is rolled out with all of
them, further scores of it (other fields of view, other noise, a conservative one) with those that --others names. A
killed run goes on where it stopped, and a run of more steps goes on where a shorter one ended.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.paper import long_measures as measures
from bench.paper import long_variants as variants
from bench.paper.files import Cache
from bench.paper.long_picture import picture
from bench.paper.long_variants import Case, Variant
from bench.paper.report import Report, number
from bench.paper.study import RESULTS, Study
from eqflow.score import PatternDenoiser, PatternShape, StoredScore, pretrained, read_score
from eqflow.systems.gray_scott import preset

PATTERNS = ("wave", "life", "maze", "spirals")
ALLOWED = 0.4  # |log ratio| of the spectra


def read(word: str) -> StoredScore:
    """The score of a folder of `eqflow train`, of a file, or the one that comes with the package."""
    path = Path(word)
    if path.is_dir():
        return read_score(path / "score.safetensors")
    return read_score(path) if path.suffix else pretrained(word)


def untrained() -> StoredScore:
    """For a quick look: the best of one number a channel, on waves that have hardly begun."""
    half = torch.full((2, 1, 1), 0.5)
    denoiser = PatternDenoiser(PatternShape(width=4, dilations=(1,)), [0.2, -0.8], [0.5, 0.2])
    wave = preset("wave").parameters
    return StoredScore(denoiser, "wave", ("u", "v"), half, half, (48, 48), wave, 400, None, {})


def cases(given: argparse.Namespace) -> dict[str, list[Case]]:
    """The scores of each pattern, the main one first."""
    words = given.score or ([] if given.quick else PATTERNS)
    parts = [word.split("=", 1) if "=" in word else [word, word] for word in words]
    stored = [(Path(name).name, read(place)) for name, place in parts]
    if given.quick and not stored:
        stored = [("untrained", untrained())]
    found: dict[str, list[Case]] = {}
    data = 8 if given.quick else 256
    for name, one in stored:
        found.setdefault(one.name, []).append(Case(name, one, given.samples, data, given.half))
    return found


def row(name: str, variant: Variant, found: dict[str, Tensor]) -> list[str]:
    """A line of the table, pairs for u and v."""

    def pair(values: Tensor, form: str = ".2f") -> str:
        return " / ".join(f"{one:{form}}" for one in values.tolist())

    last = {key: values[-1] for key, values in found.items()}
    later = found["spectrum"][len(found["spectrum"]) // 2 :].amax(0)
    moved = found["motion"].tolist() if "motion" in found else []
    motion = [f"{own:.3f} ± {error:.3f} ({other:.3f} ± {wide:.3f})" for own, error, other, wide in moved] or ["–"] * 2
    return [
        name, number(variant.evaluations), pair(last["spectrum"]), pair(later),
        pair(last["mean"] - last["data_mean"], "+.3f"), pair(last["deviation"] / last["data_deviation"]),
        pair(last["histogram"], ".3f"), pair(last["correlation"]), f"{float(last['residual'].mean()):.3f}",
        str(int(last["dead"])), *motion,
    ]  # fmt: skip


COLUMNS = ("variant", "evaluations per 0.02", "spectrum", "worst of the later half", "mean - data's",
           "deviation / data's", "histogram", "correlation", "residual", "dead", "motion at the start",
           "at the end")  # fmt: skip


def summary(report: Report, case: Case, done: dict[str, dict[str, Tensor]], names: dict[str, Variant]) -> None:
    """Table, numbers and checks of a score."""
    first = next(iter(done.values()))
    few, spread = measures.floor(case), first["data_mean_spread"][-1]
    rows = [row(name, names[name], found) for name, found in done.items()]
    report.table(f"{case.stored.name}, score {case.name}: after time {float(first['time'][-1]):g}", COLUMNS, rows)
    report.note(
        f"{case.samples} samples beside {case.data} of the data, whose own {case.samples} differ from the rest by "
        f"{few[0, 0]:.2f} ± {few[1, 0]:.2f} in the spectrum of u and {few[0, 1]:.2f} ± {few[1, 1]:.2f} in that of v, "
        f"and in their means by {spread[0]:.3f} and {spread[1]:.3f} (standard deviation)."
    )
    for name, found in done.items():
        kept = {key: value for key, value in found.items() if key not in ("picture", "last", "power")}
        report.keep(**{f"{case.stored.name}, {case.name}, {name}": kept | {"floor": few}})


def over_time(report: Report, case: Case, done: dict[str, dict[str, Tensor]]) -> None:
    """How the spectrum went."""
    times = next(iter(done.values()))["time"].tolist()
    shown = {name: found for name, found in done.items() if found["time"].tolist() == times}
    rows = [[name, *(f"{u:.2f} / {v:.2f}" for u, v in found["spectrum"].tolist())] for name, found in shown.items()]
    title = f"{case.stored.name}, score {case.name}: spectrum of u / v at time"
    report.table(title, ["variant", *(f"{time:g}" for time in times)], rows)


def work(given: argparse.Namespace, study: Study) -> int:
    steps = study.steps(given.steps)
    report = Report(study, given.name, "Long rollouts of patterns and what keeps them with the data")
    precision = "bfloat16" if given.half else "float32"
    report.note(
        f"{steps:,} steps of {variants.STEP:g}, gamma {variants.GAMMA:.4f}, exact Ornstein-Uhlenbeck steps where no "
        f"others are named, D in {precision}. Pairs are of u and v. Spectrum: mean |log ratio| to the data's over the "
        "wave numbers 1 to 24. Histogram: Wasserstein-1 distance of the pixels. Correlation: RMS difference "
        f"of the two-point correlations. Motion: cosine of the odd displacement after {measures.PAIR_TIME:g} with that "
        f"of {measures.TRUE_STEPS} true steps, of clean fields of the data and of those at the end, both noised anew: "
        "mean and standard error over fields and noises, in brackets with the truth of another field. Anchored scores "
        "hold the spectrum up to wave number 10 and the mean: there, look at the rest."
    )
    drawn: list[tuple[Case, dict[str, dict[str, Tensor]]]] = []
    for pattern, scores in cases(given).items():
        for place, case in enumerate(scores):
            names = variants.chosen(given.variant if place == 0 else given.others)
            done: dict[str, dict[str, Tensor]] = {}
            for name, variant in names.items():
                begin = time.monotonic()

                def say(words: str, head: str = f"{pattern}, {case.name}, {name}", begin: float = begin) -> None:
                    report.progress(f"{head}: {words}, {time.monotonic() - begin:.0f} s")

                with report.part(f"{pattern}, {case.name}, {name}"):
                    done[name] = measures.follow(case, variant, steps, given.noises, study.cache, say)
                    spectrum = " / ".join(f"{one:.2f}" for one in done[name]["spectrum"][-1].tolist())
                    say(f"spectrum {spectrum}")
            if done:
                with report.part(f"{pattern}, {case.name}"):
                    summary(report, case, done, names)
                    over_time(report, case, done)
                    checks(report, case, done)
                drawn.append((case, done))
                with report.part("the picture"):
                    report.draw(picture(drawn, ALLOWED))
    return report.finish()


def checks(report: Report, case: Case, done: dict[str, dict[str, Tensor]]) -> None:
    """What was asked of long rollouts."""
    for name, found in done.items():
        what = f"{case.stored.name}, {case.name}, {name}: "
        report.check(what + "spectrum at the end", found["spectrum"][-1].tolist(), f"<= {ALLOWED}", high=ALLOWED)
        if "motion" in found and case.stored.name != "maze":
            mean, error, *_ = found["motion"][1].tolist()
            report.check(what + "motion at the end, in standard errors", mean / error, ">= 3", low=3.0)


def parse(argv: Sequence[str] | None) -> Any:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words, known = "a folder, a file, or a pretrained one", ", ".join(variants.VARIANTS)
    parser.add_argument("--score", action="append", metavar="[NAME=]PLACE", help=words)
    parser.add_argument("--variant", action="append", metavar="NAME", help=f"default all: {known}")
    parser.add_argument("--others", action="append", metavar="NAME", help="of further scores of a pattern, default all")
    parser.add_argument("--samples", type=int, default=3, help="that roll out (default 3)")
    parser.add_argument("--steps", type=int, default=20_000, help=f"of {variants.STEP:g} (default 20,000)")
    parser.add_argument("--noises", type=int, default=2, help="that the motion is seen with (default 2); 0: no motion")
    parser.add_argument("--name", default="long_rollouts", help="of the files")
    parser.add_argument("--quick", action="store_true", help="seconds: tiny sizes, numbers without meaning")
    parser.add_argument("--half", action="store_true", help="D in bfloat16: slower on some processors, see float32")
    parser.add_argument("--threads", type=int, metavar="N", help=f"of torch (default {torch.get_num_threads()})")
    parser.add_argument("--out", type=Path, metavar="DIR", default=RESULTS, help="default bench/results/paper")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="of rollouts (default DIR of --out/.cache)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    given = parse(argv)
    if given.threads:
        torch.set_num_threads(given.threads)
    study = Study(1, 0, 0, given.quick, "cpu", given.out, Cache(given.cache or given.out / ".cache"))
    try:
        status = work(given, study)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)
        status = 130
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
