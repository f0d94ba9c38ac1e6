"""How far a rollout is: steps a second, samples times steps a second, time left."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

from eqflow.cli import _progress
from eqflow.cli._words import count


class Progress(NamedTuple):
    """The step a rollout stands at; a bar counts steps where that of a dataset counts samples."""

    samples_done: int
    samples_total: int


class Meter(_progress.Meter):
    """Rates and time left, from the steps that this run has seen.

    Args:
        samples: advanced together, by all ranks.
        ranks: processes that share them.
    """

    def __init__(self, samples: int, ranks: int = 1) -> None:
        super().__init__(1.0, ranks)
        self._samples, self._first = samples, None

    def observe(self, progress: Any) -> None:
        """Take note of a `Progress`; the clock starts at the first, after compilation and the like."""
        if self._first is None:
            self._first, self._start = progress.samples_done, self._clock()
        super().observe(progress)

    @property
    def rate(self) -> float:
        """Steps per second, 0 before the first are done."""
        seconds = self._seen - self._start
        return (self._latest.samples_done - self._first) / seconds if self._latest and seconds > 0 else 0.0

    def words(self) -> str:
        if not self.rate:
            return "starting"
        return f"{rate(self.rate)} steps/s  {rate(self.rate * self._samples)} sample-steps/s"


def rate(value: float) -> str:
    """Three digits: 0.52, 47.3, 12,300."""
    return f"{float(f'{value:.3g}'):,.12g}"


class Lines(_progress.Lines):
    """A line every few seconds, on stderr."""

    def done(self, progress: Progress) -> str:
        return f"step {count(progress.samples_done)} of {count(progress.samples_total)}"


def display(meter: Meter, name: str, steps: int, rank: int) -> _progress.Silent:
    """What suits this process: a bar, lines, or silence."""
    if rank:
        return _progress.Silent(meter)
    return _progress.Bar(meter, name, steps) if sys.stderr.isatty() else Lines(meter)
