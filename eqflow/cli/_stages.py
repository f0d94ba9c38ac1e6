"""How far a computation of several stages is: the stage, what is done of it, how fast, and its time left."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from eqflow.cli import _progress, _steps
from eqflow.cli._words import count


class Progress(NamedTuple):
    """Where a stage stands."""

    stage: str
    samples_done: int
    samples_total: int
    unit: str  # what is counted: steps, points


class Meter(_steps.Meter):
    """Rate and time left of the stage at hand."""

    def __init__(self) -> None:
        super().__init__(1)

    def observe(self, progress: Progress) -> None:
        """Take note of a `Progress`; each stage has its own clock, which starts at its first."""
        if self._latest is None or progress.stage != self._latest.stage:
            self._first = None
        super().observe(progress)

    def words(self) -> str:
        return f"{_steps.rate(self.rate)} {self._latest.unit}/s" if self.rate else "starting"


class Lines(_progress.Lines):
    """A line every few seconds, on stderr."""

    def done(self, progress: Progress) -> str:
        return f"{progress.stage}: {count(progress.samples_done)} of {count(progress.samples_total)} {progress.unit}"


class Bar(_progress.Bar):
    """A bar that begins again at each stage."""

    def refresh(self) -> None:
        progress: Any = self.meter.latest
        if progress is not None:
            self._bar.update(self._task, description=progress.stage, total=progress.samples_total)
        super().refresh()


def display(meter: Meter, name: str) -> _progress.Silent:
    """What suits this process: a bar, or lines."""
    return Bar(meter, name, 1) if sys.stderr.isatty() else Lines(meter)
