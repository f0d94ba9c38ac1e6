"""`eqflow demo`: the whole way once, from a simulation to recovered dynamics and a film."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from eqflow.cli import _place
from eqflow.cli._options import Device, option, whole_option
from eqflow.cli._shell import Problem, rank, usage
from eqflow.cli._words import duration

_FIELDS, _STEPS, _SAMPLES = 384, 1200, 8


def demo(
    preset: Annotated[str, typer.Argument(help="A preset whose patterns move, such as wave.")] = "wave",
    out: Annotated[
        Path | None, option("--out", "-o", help="Folder of everything. Default: demo.", panel="Files")
    ] = None,
    fields: Annotated[int, whole_option("--samples", "-n", help="Snapshots to learn from.", panel="Run")] = _FIELDS,
    size: Annotated[str, option("--size", help="Grid, N or HxW.", panel="Run")] = "128",
    steps: Annotated[int, whole_option("--steps", help="Of training.", panel="Run")] = _STEPS,
    starts: Annotated[int, whole_option("--starts", help="Starts to compare from.", panel="Run")] = _SAMPLES,
    device: Device = "auto",
) -> None:
    """Generate, train, roll out and compare: from unordered snapshots to their dynamics, in minutes on a CPU.

    Says every command that it runs, so that you can run the next one yourself. Stopped, the same command goes on.

    \b
    eqflow demo
    eqflow demo life --out life-demo
    """
    if rank()[1] > 1:
        raise usage("expected one process, got several: run the demo without torchrun")
    folder, begin = _place.folder(out or Path("demo")), time.monotonic()
    data, score, path, compared = (str(folder / f"{preset}{part}") for part in ("", "-score", "-path", "-compare"))
    film = f"{path}.gif"
    on = ["--device", device]
    for line, words in (
        ("snapshots", ["generate", preset, "--samples", str(fields), "--size", size, "--out", data]),
        ("their score", ["train", data, "--steps", str(steps), "--out", score]),
        ("its dynamics", ["rollout", score, "--batch", "1", "--steps", "300", "--every", "5", "--out", path]),
        ("beside the truth", ["compare", score, "--samples", str(starts), "--times", "0.5,1,2", "--out", compared]),
    ):
        typer.echo(typer.style(f"\n{line}: eqflow {shlex.join(words)}", bold=True))
        _run([*words, *on])
    if not Path(film).exists():
        _run(["show", path, "--out", film])
    typer.echo(
        f"\nall in {duration(time.monotonic() - begin)}. Look at {compared}/compare.gif (truth beside recovered), "
        f"{compared}/compare.png, {score}/score.png and {film}"
    )


def _run(words: list[str]) -> None:
    """One command, as if it had been typed."""
    from eqflow.cli import app

    before, sys.argv = sys.argv, ["eqflow", *words]
    try:
        code = app(words, prog_name="eqflow", standalone_mode=False)
    finally:
        sys.argv = before
    if code:
        raise Problem(f"`eqflow {shlex.join(words)}` ended with exit code {code}", int(code))
