"""A fit from its first file to its last word; the stages themselves are in `_fit_stages`."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from eqflow.cli import _fit_report
from eqflow.cli._run_folder import FitFolder, Fitted, write_json
from eqflow.cli._shell import Problem, in_options, usage
from eqflow.cli._words import count, duration


def go(cloud: Any, request: dict[str, Any], place: Path, where: str, show: Path | None, overwrite: bool) -> None:
    """Fit, or find the fit complete; report, draw."""
    from eqflow.data import DatasetError
    from eqflow.ops import BackendError

    folder, begin = FitFolder(place), time.monotonic()
    for note in cloud.notes:
        typer.echo(f"note: {in_options(note)}", err=True)
    folder.claim(request, _bytes(request, cloud), overwrite)
    try:
        before = complete(folder)
        report = before or _fit(folder, cloud, request, where)
    except ValueError as error:
        raise usage(in_options(error)) from None
    except (DatasetError, BackendError, FloatingPointError, MemoryError) as error:
        raise Problem(in_options(error)) from error
    for line in _fit_report.lines(report):
        typer.echo(line)
    typer.echo("")
    said = "was complete already" if before else f"fitted in {duration(time.monotonic() - begin)}"
    typer.echo(f"{place} {said}: {folder.picture.name}, {folder.tensors.name}, {folder.report.name}")
    copies(folder, report, show, None)
    path = shlex.quote(str(place))
    typer.echo(f"next: eqflow rollout {path} --steps 5000 --every 5 --out {path}-path --show {path}-path.png")


def complete(folder: Fitted) -> dict[str, Any] | None:
    """The report of what is done, or None."""
    from eqflow.data.folder import read_json

    there = folder.tensors.exists() and folder.picture.exists()
    return read_json(folder.report) if there else None


def copies(folder: Fitted, report: dict[str, Any], show: Path | None, as_json: Path | None) -> None:
    """The picture and the numbers where they were asked for besides."""
    if show:
        shutil.copyfile(folder.picture, show)
        typer.echo(f"wrote {show}")
    if as_json:
        write_json(as_json, report)
        typer.echo(f"wrote {as_json}")


def _bytes(request: dict[str, Any], cloud: Any) -> int:
    """What the folder needs while it works: points, pool, networks with their moments."""
    numbers = cloud.values.numel() + 3 * request["pool"] * cloud.values.shape[1]
    return 4 * (numbers + 8 * request["models"] * sum(width**2 for width in request["hidden"])) + 2**20


def _fit(folder: FitFolder, cloud: Any, request: dict[str, Any], where: str) -> dict[str, Any]:
    from eqflow.cli import _fit_picture, _fit_stages

    def work(observer: Callable) -> Any:
        return _fit_stages.run(cloud, request, folder.stages, where, observer)

    return staged(folder, cloud.name, where, work, lambda out, fitted: _fit_picture.draw(out, cloud, fitted))


def staged(
    folder: Fitted,
    name: str,
    where: str,
    work: Callable[[Callable], Any],
    draw: Callable[[Path, Any], None],
    meter: Any = None,
) -> dict[str, Any]:
    """Work that shows how far it is and can be stopped, alone in its folder; then its files; the report.

    Args:
        folder: where.
        name: of the bar.
        where: the device, for the report.
        work: calls its argument with a `Progress` from time to time; gives tensors, about and report.
        draw: writes the picture of what the work gave.
        meter: rates and words; None: those of any stages.
    """
    from eqflow.cli import _job, _stages
    from eqflow.data.lock import Lock
    from eqflow.data.tensors import save_tensors

    folder.stages.mkdir(exist_ok=True)
    lock = Lock.take(folder.stages / "lock")
    if lock is None:
        raise Problem(f"another process fits in {folder.path}: wait for it, or choose another --out")
    meter = meter or _stages.Meter()
    try:
        fitted = _job.run(work, _stages.display(meter, name), lambda: _part(meter, folder.path))
        if fitted.tensors is not None:
            save_tensors(folder.tensors, fitted.tensors, fitted.about)
        draw(folder.picture, fitted)
        report = {**fitted.report, **_environment(where)}
        write_json(folder.report, report)
        folder.finish()
    finally:
        lock.release()
    return report


def _environment(where: str) -> dict[str, Any]:
    """With what a fit was made."""
    import platform
    from datetime import datetime, timezone
    from importlib.metadata import version

    import torch

    return {
        "made": {
            "command": command(),
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "device": torch.cuda.get_device_name(where) if where.startswith("cuda") else platform.machine(),
            "threads": torch.get_num_threads(),
            **{name: version(name) for name in ("eqflow", "torch", "numpy", "safetensors")},
            "python": platform.python_version(),
        }
    }


def command() -> str:
    """The command line, without what would throw away what is there."""
    return shlex.join(["eqflow", *(word for word in sys.argv[1:] if word != "--overwrite")])


def _part(meter: Any, place: Path) -> None:
    """What is said after Ctrl-C."""
    seen = meter.latest
    done = f" in {seen.stage} at {count(seen.samples_done)} of {count(seen.samples_total)} {seen.unit}" if seen else ""
    typer.echo(f"stopped{done}: at most the last 5 s are lost of {place}; to go on, run `{command()}`", err=True)
