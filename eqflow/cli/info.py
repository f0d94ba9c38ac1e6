"""`eqflow info`: what is in a folder, is it complete, is it still what was written."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from eqflow.cli import _run_info
from eqflow.cli._shell import Problem, one_line
from eqflow.cli._words import bytes_, count


def info(
    folder: Annotated[Path, typer.Argument(help="The folder.", show_default=False)],
    checksums: Annotated[
        bool, typer.Option("--checksums/--no-checksums", help="Read every byte, or sizes only.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """What is in a dataset, a fit, a density, a score or a rollout, is it complete, do the checksums of a dataset hold.

    Exit code 1 if not.

    \b
    eqflow info wave
    eqflow info lorenz-flow
    eqflow info wave --no-checksums --json
    """
    if kind := _run_info.kind(folder):
        raise typer.Exit(0 if _run_info.tell(folder, kind, as_json) else 1)
    from eqflow.data import DatasetError, inspect

    try:
        report = inspect(folder, checksums=checksums)
    except DatasetError as error:
        raise Problem(one_line(error)) from None
    if as_json:
        facts = {**report._asdict(), "folder": str(report.folder), "recipe": report.recipe.to_json()}
        typer.echo(json.dumps(facts, indent=2))
    else:
        for name, value in _lines(report):
            typer.echo(f"{name:<10}{value}")
        if report.problems:
            typer.echo(_remedy(report))
    raise typer.Exit(0 if report.complete else 1)


def _lines(report: Any) -> list[tuple[str, str]]:
    from eqflow.cli._captions import details

    recipe, made = report.recipe, report.environment
    held = "checksums hold" if report.checksums else "sizes are right, checksums were not compared"
    files = f"{count(report.shards)} of {count(report.shards_total)}"
    if report.complete:
        state = typer.style("complete", fg="green", bold=True) + f", {held}"
    else:
        state = typer.style("not complete", fg="red", bold=True) + f", {files} files are good"
    frames = f"{count(recipe.frames)} frames, every {count(recipe.every)}" if recipe.every else "the last state"
    lines = [
        (str(report.folder), ""),
        ("state", state),
        ("system", f"{recipe.name}  " + "  ".join(details(recipe, "")) + f"  {recipe.stencil}"),
        ("samples", f"{count(report.samples)} of {count(recipe.samples)}: {frames} of {count(recipe.steps)} steps"),
        ("starts", f"{recipe.initial}, seed {recipe.seed}; {_deaths(report)}"),
        ("files", f"{files}, {bytes_(report.bytes)}, float32 {list(report.shape)}"),
    ]
    if made:
        versions = ", ".join(f"{name} {made[name]}" for name in ("eqflow", "torch") if made.get(name))
        lines.append(("made by", f"{versions} on {made.get('device')}, {made.get('backend')} backend"))
        if made.get("command"):
            lines.append(("command", made["command"]))
    return lines + [("problem" if number == 0 else "", text) for number, text in enumerate(report.problems[:_MOST])]


_MOST = 10  # problems that are printed; --json has all


def _deaths(report: Any) -> str:
    if report.recipe.redraw_dead:
        return f"{count(report.redrawn)} died and were redrawn" if report.redrawn else "none died"
    return f"{count(report.dead)} died and were kept" if report.dead else "none died"


def _remedy(report: Any) -> str:
    more = len(report.problems) - _MOST
    rest = f"{'':<10}and {count(more)} more: see --json\n" if more > 0 else ""
    damaged = any("delete it" in problem for problem in report.problems)
    first = "delete the files named, then " if damaged else ""
    return f"{rest}{'to do':<10}{first}`eqflow generate --out {shlex.quote(str(report.folder))}` makes what is missing"
