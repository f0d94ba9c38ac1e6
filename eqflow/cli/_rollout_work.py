"""A rollout from its first file to its last word."""

from __future__ import annotations

import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from eqflow.cli import _sources
from eqflow.cli._run_folder import RunFolder
from eqflow.cli._shell import Problem, in_options, usage
from eqflow.cli._words import count, duration


def go(
    source: _sources.Source,
    place: Path,
    given: dict[str, Any],
    samples: range,
    this: int,
    ranks: int,
    where: str,
    show: Path | None,
    overwrite: bool,
) -> None:
    """Follow the dynamics from the start, or from where they were stopped, and say what came of it."""
    from eqflow.cli import _job, _steps
    from eqflow.data import DatasetError
    from eqflow.dynamics import Diverged, ResumeError
    from eqflow.ops import BackendError

    steps, every = given["steps"], given["every"] or given["steps"]
    dt = given["dt"] or source.dt
    plain = {name: value for name, value in given.items() if name not in ("file", "backend")}
    options = {**plain, "dt": dt, "every": every, "source_data": source.about, "ranks": ranks}
    folder = RunFolder(place, source.name, this)
    meter = _steps.Meter(given["batch"], ranks)
    begin = time.monotonic()
    try:
        _check_step(source, given, dt, samples)
        folder.claim(options, source.start.nbytes * (steps // every + 1) * ranks, overwrite)
        before = folder.frames.exists()
        _job.run(
            lambda observer: _work(source, folder, given, dt, every, samples, where, observer, options),
            _steps.display(meter, source.name, steps, this),
            lambda: _part(meter, place, this, ranks),
        )
    except (ValueError, ResumeError) as error:
        raise usage(_as_options(error)) from None
    except (DatasetError, BackendError, Diverged, FloatingPointError, MemoryError) as error:
        advice = source.advice if isinstance(error, Diverged) else ""
        raise Problem((f"rank {this}: " if ranks > 1 else "") + _as_options(error) + advice) from error
    if this:
        return
    seconds = time.monotonic() - begin
    what = f"{count(given['batch'])} samples, {count(steps)} steps, {count(steps // every + 1)} frames"
    if before and not meter.rate:
        typer.echo(f"{place} was complete already: {what}")
    else:
        typer.echo(f"{place}: {what}, {duration(seconds)}" + (f", {meter.words()}" if meter.rate else ""))
    if show:
        from eqflow.cli import _rollout_picture

        _rollout_picture.draw(show, folder.frames, source, every, dt)
        typer.echo(f"wrote {show}")


def _check_step(source: _sources.Source, given: dict[str, Any], dt: float, samples: range) -> None:
    """Everything about the step that can be wrong, before the first file; what is worth a warning is a note."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        source.dynamics.stepper(
            source.start[:1], integrator=given["integrator"], dt=dt, seed=given["seed"], first_sample=samples.start
        )
    if samples.start == 0:
        for warning in found:
            typer.echo(f"note: {_as_options(warning.message)}", err=True)


def _work(
    source: _sources.Source,
    folder: RunFolder,
    given: dict[str, Any],
    dt: float,
    every: int,
    samples: range,
    where: str,
    observer: Any,
    options: dict,
) -> Any:
    from eqflow.cli._steps import Progress
    from eqflow.data.checkpoint import Checkpoint
    from eqflow.data.recorder import Recorder
    from eqflow.dynamics import rollout as run
    from eqflow.dynamics.observers import Watcher

    steps, start = given["steps"], source.start.to(where)
    block = getattr(source.dynamics, "segment", 10)
    recorder = Recorder(
        folder.frames, start, steps=steps, every=every, dt=dt, first_sample=samples.start, about={"options": options}
    )
    with recorder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said already
        return run(
            start,
            source.dynamics,
            steps,
            dt=dt,
            integrator=given["integrator"],
            seed=given["seed"],
            first_sample=samples.start,
            observers=[
                recorder if source.recorded is None else Recorded(recorder, source.recorded),
                Watcher(lambda step, time: observer(Progress(step, steps)), block),
            ],
            checkpoint=Checkpoint(folder.checkpoint, every=block, seconds=5.0),
        )


class Recorded:
    """A recorder of a function of the state: the file has the units of the data, the rollout its own."""

    def __init__(self, recorder: Any, function: Callable[[Any], Any]):
        self._recorder, self._function = recorder, function
        self.every, self.options = recorder.every, recorder.options
        self.state_dict, self.load_state_dict = recorder.state_dict, recorder.load_state_dict

    def observe(self, step: int, time: float, state: Any) -> None:
        self._recorder.observe(step, time, self._function(state))


def _as_options(error: BaseException | Warning) -> str:
    message = in_options(error)
    message = re.sub(r"\bintegrator='([a-z0-9-]+)'", r"--integrator \1", message)
    return re.sub(r"\b(dt|eta)=([0-9.e+-]*[0-9])", r"--\1 \2", message)


def _part(meter: Any, place: Path, this: int, ranks: int) -> None:
    """What is said after Ctrl-C."""
    if this:
        return
    seen = meter.latest
    done = f" at step {count(seen.samples_done)} of {count(seen.samples_total)}" if seen else ""
    command = shlex.join(["eqflow", *(word for word in sys.argv[1:] if word != "--overwrite")])
    again = "give the same torchrun command again" if ranks > 1 else f"run `{command}`"
    typer.echo(f"stopped{done}: at most the last 5 s are lost of {place}; to go on, {again}", err=True)
