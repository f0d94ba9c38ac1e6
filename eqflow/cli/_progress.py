"""How far a simulation is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from eqflow.cli._words import bytes_, count, duration

EVERY = 5.0  # seconds between the lines where there is no terminal


class Meter:
    """Rates and time left, from what has been observed of this run.

    Args:
        cells: cell updates of one sample.
        ranks: processes that share the work; each observes its own part.
        clock: seconds, never going back.
    """

    def __init__(self, cells: float, ranks: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._cells, self._ranks, self._clock = cells, ranks, clock
        self._start = self._seen = clock()
        self._latest: Any = None  # set by the thread that computes, read by the one that shows

    def observe(self, progress: Any) -> None:
        """Take note of an `eqflow.data.Progress`."""
        self._latest, self._seen = progress, self._clock()

    @property
    def latest(self) -> Any:
        """What was observed last, or None."""
        return self._latest

    @property
    def rate(self) -> float:
        """Cell updates per second, 0 before the first are done."""
        seconds = self._seen - self._start
        return self._latest.cell_updates / seconds if self._latest and seconds > 0 else 0.0

    @property
    def left(self) -> float | None:
        """Seconds to go, or None while nobody can know."""
        if not self.rate:
            return None
        cells = (self._latest.samples_total - self._latest.samples_done) * self._cells
        return max(0.0, cells / self.rate - (self._clock() - self._seen))

    def words(self) -> str:
        """Throughput, bytes on disk, redrawn samples: what stands beside the bar."""
        if not self.rate:
            return "starting"
        each = f" in each of {self._ranks} ranks" if self._ranks > 1 else ""
        parts = [f"{self.rate / 1e9:.3g} Gcell-updates/s{each}", bytes_(self._latest.bytes_written)]
        if self._latest.redrawn:
            parts.append(f"{count(self._latest.redrawn)} redrawn")
        return "  ".join(parts)


class Silent:
    """Shows nothing: every rank but the first."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._closed = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Silent:
        self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Show no more; twice does no harm."""
        self._closed.set()
        if self._ticker.is_alive():
            self._ticker.join()

    def refresh(self) -> None:
        """Show how far it is now."""

    def _tick(self) -> None:
        while not self._closed.wait(0.1):
            self.refresh()


class Lines(Silent):
    """A line every few seconds, on stderr."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(meter)
        self._last = time.monotonic()

    def refresh(self) -> None:
        now, progress = time.monotonic(), self.meter.latest
        if progress is None or now - self._last < EVERY:
            return
        self._last = now
        tail = f"  {words}" if (words := _left(self.meter)) else ""
        print(f"{self.done(progress)}  {self.meter.words()}{tail}", file=sys.stderr, flush=True)

    def done(self, progress: Any) -> str:
        """How much of the work is done."""
        return f"{count(progress.samples_done)} of {count(progress.samples_total)} samples"


class Bar(Silent):
    """A bar that rewrites itself, on a terminal."""

    def __init__(self, meter: Meter, name: str, samples: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        super().__init__(meter)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None, complete_style="magenta", finished_style="magenta"),
            TextColumn("{task.fields[done]}"),
            TextColumn("[dim]{task.fields[rates]}"),
            TextColumn("{task.fields[left]}"),
            console=Console(stderr=True),
            transient=True,
            expand=True,
            auto_refresh=False,
        )
        self._task = self._bar.add_task(name, total=samples, done=f"0/{count(samples)}", rates="starting", left="")

    def __enter__(self) -> Bar:
        self._bar.start()
        super().__enter__()
        return self

    def close(self) -> None:
        super().close()
        self._bar.stop()

    def refresh(self) -> None:
        progress = self.meter.latest
        if progress is not None:
            self._bar.update(
                self._task,
                completed=progress.samples_done,
                total=progress.samples_total,
                done=f"{count(progress.samples_done)}/{count(progress.samples_total)}",
                rates=self.meter.words(),
                left=_left(self.meter),
            )
        self._bar.refresh()


def _left(meter: Meter) -> str:
    if meter.latest.samples_done == meter.latest.samples_total:
        return "finishing"
    return "" if meter.left is None else f"{duration(meter.left)} left"


def display(meter: Meter, name: str, samples: int, rank: int) -> Silent:
    """What suits this process: a bar, lines, or silence."""
    if rank:
        return Silent(meter)
    return Bar(meter, name, samples) if sys.stderr.isatty() else Lines(meter)
