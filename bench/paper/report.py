"""What a script found: tables, checks, notes and a picture; printed as it comes, kept as Markdown, JSON and PNG."""

from __future__ import annotations

import math
import shlex
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bench import machine
from bench.paper.files import write_json, write_whole
from bench.paper.study import Study
from bench.paper.training import clock


def _without_places(words: list[str]) -> list[str]:
    """The options of a command, but for the folders of the machine."""
    places = [index for index, word in enumerate(words) if word in ("--out", "--cache")]
    return [word for index, word in enumerate(words) if index not in places and index - 1 not in places]


class Report:
    """Collects and prints; `write` may be called at any time and again.

    Args:
        study: sizes and places.
        name: of the files.
        title: of the report.
    """

    def __init__(self, study: Study, name: str, title: str):
        self.study, self.name, self.title = study, name, title
        self.begin, self.machine = time.monotonic(), machine.describe()
        self.lines: list[str] = []
        self.figures: dict[str, Any] = {}
        self.checks: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self._say(f"# {title}", "", f"{machine.sentence(self.machine)}; {torch.get_num_threads()} threads.")
        if study.quick:
            self._say("", "A quick look at tiny sizes: the numbers mean nothing.")

    def _say(self, *lines: str) -> None:
        for line in lines:
            print(line, flush=True)
        self.lines += lines

    def note(self, text: str) -> None:
        """A paragraph."""
        self._say("", text)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self.begin

    def progress(self, text: str) -> None:
        """A word to whoever waits, on standard error."""
        print(text, file=sys.stderr, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A Markdown table whose columns line up."""
        self._say(*_table(title, columns, rows))

    def keep(self, **figures: Any) -> None:
        """Numbers for the JSON."""
        self.figures.update(figures)

    def check(self, what: str, value: Any, asked: str, *, low: float = -math.inf, high: float = math.inf) -> None:
        """A row of the acceptance table: all of the value, a number or several, within the limits."""
        numbers = [float(number) for number in (value if isinstance(value, list | tuple) else [value])]
        met = all(low <= number <= high for number in numbers) and bool(numbers)
        measured = _range(numbers) if numbers else "nothing"
        self.checks.append({"what": what, "asked": asked, "measured": measured, "values": numbers, "met": met})

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part whose failure is reported and does not take the others along."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.failed.append(name)
            self.note(f"**{name} failed: {type(error).__name__}: {error}**")
        self.write()

    def _acceptance(self) -> list[str]:
        """The checks as a table."""
        said = {True: "yes", False: "**no**"}
        rows = [
            [row["what"], row["asked"], row["measured"], "(quick)" if self.study.quick else said[row["met"]]]
            for row in self.checks
        ]
        return _table("Asked and met", ["what", "asked", "measured", "met"], rows) if rows else []

    def draw(self, sheet: Figure) -> None:
        """Keep the picture."""
        path = self.study.out / f"{self.name}.png"
        write_whole(path, lambda part: sheet.savefig(part, dpi=110, metadata={"Software": None}))

    def write(self) -> None:
        """Markdown and JSON of all so far."""
        values = {
            "what": self.title,
            "machine": self.machine,
            "gpu": None if self.study.device == "cpu" else machine.describe_gpu(),
            "command": f"python -m bench.paper.{self.name} {shlex.join(_without_places(sys.argv[1:]))}",
            "quick": self.study.quick,
            "device_of_training": self.study.device,
            "models": {"main": self.study.models, "variants": self.study.variants},
            "seeds": {"points": 0, "pool": 0, "held_out": 1, "training": 0, "model": "its index"},
            "seconds": round(self.seconds),
            "acceptance": self.checks,
            "failed": self.failed,
            "figures": self.figures,
        }
        write_json(self.study.out / f"{self.name}.json", values)
        text = "\n".join([*self.lines, *self._acceptance()]) + "\n"
        write_whole(self.study.out / f"{self.name}.md", lambda part: part.write_text(text, encoding="utf-8"))

    def finish(self) -> int:
        """The last words and the exit status."""
        self.note(f"{clock(self.seconds)} in all.")
        self.write()
        print("\n".join(self._acceptance()), flush=True)
        places = ", ".join(str(self.study.out / f"{self.name}.{kind}") for kind in ("md", "json", "png"))
        print(f"\nwrote {places}", flush=True)
        return 1 if self.failed else 0


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in [columns, *rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    head, *body = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells]
    return ["", f"## {title}", "", head, "|" + "|".join("-" * (w + 2) for w in widths) + "|", *body]


def _digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = abs(value)
    return f"{value:.4f}" if 0.99 <= size <= 1 else f"{value:.3f}" if 0.01 <= size < 10 else f"{value:.3g}"


def _range(numbers: Sequence[float]) -> str:
    low, high = min(numbers), max(numbers)
    return _digits(low) if low == high else f"{_digits(low)} to {_digits(high)}"


def spread(values: Tensor | Sequence[float]) -> str:
    """Mean ± standard deviation of the numbers that are finite; the number itself if it is one."""
    values = torch.as_tensor(values, dtype=torch.float64).flatten()
    finite = values[values.isfinite()]
    if not len(finite):
        return "–"
    left_out = "" if len(finite) == len(values) else f" ({len(finite)} of {len(values)})"
    deviation = f" ± {float(finite.std(correction=0)):.2g}" if len(finite) > 1 else ""
    return f"{_digits(float(finite.mean()))}{deviation}{left_out}"


def number(value: float) -> str:
    """One number with the digits that matter."""
    return _digits(float(value))


def span(values: Tensor | Sequence[float]) -> str:
    """Smallest to largest."""
    numbers = torch.as_tensor(values, dtype=torch.float64).flatten().tolist()
    return _range(numbers) if numbers else "–"
