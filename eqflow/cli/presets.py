"""`eqflow presets`: the parameter sets that have a name."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Annotated, Any

import typer

from eqflow.cli._shell import usage


def presets(
    word: Annotated[
        str | None, typer.Argument(help="Only those with this word in the name, source or character.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same for programs.")] = False,
) -> None:
    """The parameter sets that have a name, and where each comes from.

    \b
    eqflow presets
    eqflow presets moving
    eqflow presets pearson --json
    """
    from eqflow.systems.gray_scott import PRESETS

    rows = [_row(name, preset) for name, preset in PRESETS.items()]
    if word:
        rows = [row for row in rows if any(word.lower() in str(row[key]).lower() for key in _SEARCHED)]
    if not rows:
        raise usage(f"expected a word of a preset's name, source or character, got {word!r}: see `eqflow presets`")
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        _show(rows)


_SEARCHED = ("name", "source", "character", "note")


def _row(name: str, preset: Any) -> dict[str, Any]:
    system = preset.parameters
    return {
        "name": name,
        "feed": system.feed,
        "kill": system.kill,
        "diffusion_u": system.diffusion_u,
        "diffusion_v": system.diffusion_v,
        "character": preset.character,
        "source": preset.source,
        "note": preset.note,
    }


def _show(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    width = max(len(row["name"]) for row in rows)
    console.print(f"[bold]{'preset':<{width}}{'feed':>9}{'kill':>9}{'D_u':>9}{'D_v':>9}[/bold]", soft_wrap=True)
    for source, group in groupby(rows, key=lambda row: row["source"]):
        console.print(f"\n[dim]{escape(source)}[/dim]", soft_wrap=True)
        for row in group:
            numbers = "".join(f"{row[key]:>9g}" for key in ("feed", "kill", "diffusion_u", "diffusion_v"))
            note = f"{row['character']}, {row['note']}" if row["note"] else row["character"]
            line = escape(f"{row['name']:<{width}}{numbers}  {note}")
            console.print(f"[dim]{line}[/dim]" if row["character"] == "dead" else line, soft_wrap=True)
