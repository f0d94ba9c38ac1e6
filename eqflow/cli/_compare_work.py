"""A comparison with the truth from its options to its last word."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import typer

from eqflow.cli import _compare_measure, _fit_work, _score_source
from eqflow.cli._run_folder import CompareFolder
from eqflow.cli._shell import Problem, choice, in_options, usage
from eqflow.cli._words import duration, number, numbers


def check(given: dict[str, Any]) -> None:
    """The options by themselves."""
    if given["score"] is None:
        known = f"the folder of `eqflow train`, or {_score_source.PRETRAINED}:NAME"
        raise usage(f"expected RUN, {known}; see `eqflow compare --help`")
    if given["samples"] < 2:
        raise usage(f"expected --samples from 2 up, since one has no standard error, got {given['samples']}")
    if not 0 <= given["released"] <= given["samples"]:
        raise usage(f"expected --as-released from 0 up to --samples {given['samples']}, got {given['released']}")
    if not 0 <= given["seed"] < 2**64:
        raise usage(f"expected --seed in [0, 2^64), got {given['seed']}")
    number("--dt", given["dt"], above=0)
    if given["eta"] is not None:
        number("--eta", given["eta"], least=0)
    if given["precision"] is not None:
        choice("--precision", given["precision"], ("bfloat16", "float32"))
    times, lags = numbers("--times", given["times"], float), numbers("--lags", given["lags"], int)
    for values, option in ((times, "--times"), (lags, "--lags")):
        if values != sorted(set(values)) or values[0] <= 0:
            raise usage(f"expected {option} rising and above 0, got {given[option[2:]]!r}")


def go(
    given: dict[str, Any], place: Path, where: str, show: Path | None, as_json: Path | None, overwrite: bool
) -> None:
    """Compare, or find it done; report, draw."""
    from eqflow.cli import _compare_picture, _compare_report
    from eqflow.data import DatasetError
    from eqflow.dynamics import Diverged
    from eqflow.dynamics.fingerprint import describe

    stored = _score_source.load(given["score"])
    if stored.system is None:
        raise Problem(
            f"expected a score whose system is known, got {stored.name}, learned from fields alone: there is no truth "
            "to compare with; `eqflow rollout` follows it"
        )
    weights = {"weights": describe(stored.denoiser.state_dict()), "system": dataclasses.asdict(stored.system)}
    request = {name: value for name, value in given.items() if name not in ("score", "backend")} | weights
    folder, begin = CompareFolder(place), time.monotonic()
    try:
        cells = stored.size[0] * stored.size[1] * len(stored.channels)
        folder.claim(request, 16 * given["samples"] * cells * len(given["times"].split(",")), overwrite)
        before = _fit_work.complete(folder)
        report = before or _fit_work.staged(
            folder,
            stored.name,
            where,
            lambda observer: _compare_measure.compare(stored, given, folder.stages, where, observer),
            lambda out, compared: _compare_picture.draw(out, folder.tensors, stored, compared),
        )
    except ValueError as error:
        raise usage(in_options(error)) from None
    except (DatasetError, Diverged, FloatingPointError, MemoryError) as error:
        raise Problem(in_options(error)) from error
    typer.echo("\n".join(_compare_report.lines(report)))
    said = "was complete already" if before else f"compared in {duration(time.monotonic() - begin)}"
    typer.echo(f"\n{place} {said}: {folder.picture.name}, {folder.tensors.name}, {folder.report.name}")
    _fit_work.copies(folder, report, show, as_json)
