"""What is in the folder of a fit, a density, a score or a rollout, for `eqflow info` and `eqflow show`."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import typer

from eqflow.cli._run_folder import CompareFolder, DensityFolder, FitFolder, RunFolder, ScoreFolder
from eqflow.cli._shell import Problem, usage
from eqflow.cli._words import bytes_, count

KINDS = {folder.kind: folder for folder in (FitFolder, DensityFolder, ScoreFolder, CompareFolder, RunFolder)}
WORDS = {"train": "score", "compare": "comparison"}  # what a command makes, where it is not its name


def kind(folder: Path) -> str | None:
    """Which command made this folder, one of `KINDS`; None for none of them."""
    return next((word for word in KINDS if (folder / f"{word}.json").is_file()), None)


def tell(folder: Path, kind: str, as_json: bool) -> bool:
    """Print what is there; whether it is complete."""
    facts, lines = _rollout(folder) if kind == "rollout" else _learned(folder, kind)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "kind": kind, **facts}, indent=2, ensure_ascii=False))
        return facts["complete"]
    word, colour = ("complete", "green") if facts["complete"] else ("not complete", "red")
    typer.echo(f"{folder}\n{'state':<10}{typer.style(word, fg=colour, bold=True)}, a {WORDS.get(kind, kind)}")
    for line in lines:
        typer.echo(line)
    if not facts["complete"]:
        typer.echo(f"{'to do':<10}the same `eqflow {kind}` again goes on")
    return facts["complete"]


def _learned(folder: Path, kind: str) -> tuple[dict[str, Any], list[str]]:
    from eqflow.cli import _compare_report, _density_work, _fit_report, _train_report
    from eqflow.cli._fit_work import complete

    files = KINDS[kind](folder)
    options, report = files.begun(), complete(files)
    if report is None:
        about = [f"{'channels':<10}{', '.join(options['names'])}"] if "names" in options else []
        return {"complete": False, "options": options}, about
    words = {"fit": _fit_report, "density": _density_work, "train": _train_report, "compare": _compare_report}
    told = words[kind].lines(report)
    made = report["made"]
    size = bytes_(files.tensors.stat().st_size)
    lines = [
        *told,
        "",
        f"{'files':<10}{files.tensors.name} {size}, {files.report.name}, {files.picture.name}",
        f"{'made by':<10}eqflow {made['eqflow']}, torch {made['torch']} on {made['device']}, {made['time']}",
        f"{'command':<10}{made['command']}",
    ]
    return {"complete": True, "options": options, "report": report}, lines


def frames(folder: Path) -> list[Path]:
    """The files of a rollout that have all their frames."""
    return sorted((folder / "data" / "train").glob("*.hdf5"))


def _rollout(folder: Path) -> tuple[dict[str, Any], list[str]]:
    options, found = RunFolder(folder, "", 0).begun(), frames(folder)
    size = sum(path.stat().st_size for path in found)
    kept = options["steps"] // options["every"] + 1
    facts = {"complete": len(found) == options["ranks"], "options": options, "files": [path.name for path in found]}
    data = options["source_data"]
    fit = f"{data['flow']} of the fit of {data['fit']}" if "fit" in data else options["source"]
    if options["source"] == "score":
        fit = f"the score of {data['score']}, alpha {data['alpha']:.5g}"
    return facts, [
        f"{'source':<10}{fit}",
        f"{'steps':<10}{count(options['steps'])} of {options['dt']:g}, {count(kept)} frames",
        f"{'samples':<10}{count(options['batch'])}, seed {options['seed']}",
        f"{'files':<10}{len(found)} of {options['ranks']}, {bytes_(size)}",
    ]


def show(folder: Path, kind: str, target: Path) -> None:
    """The picture of a fit, a density or a score, or a picture or film of a rollout."""
    path, word = shlex.quote(str(folder)), WORDS.get(kind, kind)
    if kind != "rollout":
        picture = KINDS[kind](folder).picture
        if target.suffix.lower() != ".png":
            advice = "" if kind == "density" else ": roll it out for a film"
            raise usage(f"expected --out to end in .png for a {word}, got {str(target)!r}{advice}")
        if not picture.exists():
            raise Problem(f"expected a finished {word} in {folder}: the same `eqflow {kind}` again goes on")
        shutil.copyfile(picture, target)
        return
    from eqflow.cli import _rollout_picture

    options, found = RunFolder(folder, "", 0).begun(), frames(folder)
    if len(found) < options["ranks"]:
        raise Problem(f"expected a finished rollout in {folder}: `eqflow info {path}` says what is missing")
    source = SimpleNamespace(name=found[0].stem.rsplit("_", 1)[0], names=options["source_data"].get("names"))
    _rollout_picture.draw(target, found[0], source, options["every"], options["dt"])
