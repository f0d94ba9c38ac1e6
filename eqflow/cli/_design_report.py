"""What is said and shown of a world: words, pictures, and the page that holds them all."""

from __future__ import annotations

from typing import Any

import numpy as np

from eqflow.cli import _colour, _films, _sources, _world_curves, _world_film, _world_page
from eqflow.cli._run_folder import DesignFolder
from eqflow.cli._words import count

_SHOWN = 3  # canvases of the scatter


def value(pair: list[float] | None, unit: str = "") -> str:
    """A number with its standard error."""
    if pair is None or pair[0] is None:
        return "–"
    mean, error = pair
    known = error is not None and error > 0
    digits = max(0, 1 - int(np.floor(np.log10(error)))) if known else 3
    text = f"{mean:.{min(digits, 6)}f}" + (f" ± {error:.{min(digits, 6)}f}" if known else "")
    return f"{text} {unit}".rstrip()


def lines(report: dict[str, Any]) -> list[str]:
    """The report for people."""
    found, seen = report["recognition"], report["creatures"]
    height, width = report["size"]
    rows = [
        ("world", f"{report['world']}, {height} x {width}, {count(report['steps'])} steps of {report['dt']:.3g}"),
        ("rule", f"K {report['kernel']}, eta {report['eta']:g}, alpha {report['alpha']:g}"),
        ("score", f"{count(report['training']['steps'])} steps of {report['training']['batch']} canvases, "
                  f"{_error(report)}"),
        ("creatures", f"{seen['start']} at the start, {seen['end']} at the end"),
        ("match", f"{value(found['end'])} at the end; {value(found['scatter'])} in a scatter that no training saw, "
                  f"{value(found['noise'])} in noise; 1 is the picture itself"),
    ]  # fmt: skip
    for row in report["rows"]:
        without = f";  K = 0: {value(row['null'])}" if row["null"] else ""
        note = f"  ({row['note']})" if row["note"] else ""
        rows.append((row["name"], f"{value(row['rule'], row['unit'])}{without}{note}"))
    widest = max(len(name) for name, _ in rows) + 2
    return [f"{name:<{widest}}{text}" for name, text in rows]


def _error(report: dict[str, Any]) -> str:
    found = report["training"]["denoising"]
    return f"its error {max(found['ratio']):.0%} of the Wiener filter's or less" if found else "error not measured"


def draw(folder: DesignFolder, designed: Any) -> None:
    """The film and every picture; what belongs to the folder's own name comes last."""
    from eqflow.score import read_score

    report, (tracks, without) = designed.report, designed.tracks
    frames, null = (np.load(path, mmap_mode="r") for path in (folder.world, folder.null))
    name = report["world"]
    stored = read_score(folder.tensors)
    canvases = [_colour.image(field.numpy()) for field in stored.fields(range(_SHOWN), seed=report["seed"])]
    factor = _colour.zoom(*canvases[0].shape[:2]) / 2
    scatter = _colour.sheet([_colour.enlarged(canvas, max(factor, 1)) for canvas in canvases], _SHOWN)
    _colour.save_still(folder.path / "scatter.png", scatter, f"{name}: scattered pictures")
    _world_film.rule(folder.path / "rule.png", _sources.kernel(report["kernel"], 3), report["kernel"])
    _colour.save_still(folder.path / "average.png", _world_film.average(frames), f"{name}: moving average")
    still = _world_film.trails(null[-1], without, range(len(null)))
    _colour.save_still(folder.path / "null.png", still, f"{name}: without K")
    with _films._whole(folder.path / "curves.png") as part:
        _world_curves.draw(part, report)
    _world_film.film(folder.film, frames, tracks)
    last = _world_film.trails(frames[-1], tracks, range(max(0, len(frames) - 60), len(frames)))
    _colour.save_still(folder.picture, last, f"{name}: the last frame with trails")


def write_page(folder: DesignFolder, report: dict[str, Any]) -> None:
    """index.html."""
    from eqflow.data.files import write_whole

    path, figure = folder.path, _world_page.figure
    height, width = report["size"]
    every, frames = report["every"], report["steps"] // report["every"] + 1
    film = figure(
        folder.film, f"{count(report['steps'])} steps, trails of the last {_world_film.TRAIL} frames", "pixels"
    )
    stills = "".join(
        figure(path / file, words)
        for file, words in (
            ("trails.png", "The last frame, with the trails of the last 60 frames."),
            ("average.png", "Moving average over frames: what moves leaves a streak."),
            ("null.png", f"The same start and noise with K = 0, after {count(report['null'])} steps."),
        )
    )
    seen = [
        ("creatures", str(report["creatures"]["end"]), "", f"{report['creatures']['start']} at the start"),
        ("match with the picture", value(report["recognition"]["end"]), "",
         f"scatter {value(report['recognition']['scatter'])}, noise {value(report['recognition']['noise'])}"),
    ]  # fmt: skip
    rows = [(row["name"], value(row["rule"], row["unit"]), value(row["null"]), row["note"]) for row in report["rows"]]
    table = _world_page.table(("measured", "with K", "K = 0", ""), [*seen, *rows])
    lead = [
        f"dx = (K * s + η s) dt + √(2 η) dW keeps the scatter whose score is s. K = {report['kernel']}, η = "
        f"{report['eta']:g}, α = {report['alpha']:g}, dt = {report['dt']:.3g}.",
        f"A world of {height} × {width}, {count(frames)} frames, one every {every} steps; start: {report['start']}; "
        f"seed {report['seed']}. Trained for {count(report['training']['steps'])} steps, {_error(report)}.",
    ]
    sections = [
        ("The world", film),
        ("At a glance", f'<div class="row">{stills}</div>'),
        ("What was drawn, and the rule", '<div class="row">' + figure(path / "scatter.png", "Canvases to learn from.")
         + figure(path / "rule.png", "How each colour moves with the score of the colours.") + "</div>"),
        ("What they do", table + figure(path / "curves.png", "Curves, with standard errors.")),
    ]  # fmt: skip
    page = _world_page.page(report["world"], lead, sections, report["made"])
    write_whole(folder.page, page)
