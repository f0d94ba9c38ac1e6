"""How equations with fitted coefficients are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def with_error(value: float, error: float) -> str:
    """A number with its standard error in units of the last digit: one digit of error, two where the first is a 1.

    Example:
        >>> with_error(-10.0123, 0.0312), with_error(1.0111, 0.0151), with_error(123.4, 26.0)
        ('-10.01(3)', '1.011(15)', '120(30)')
    """
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return f"{value:.6g}"
    digits = -math.floor(math.log10(error))
    digits += round(error * 10**digits, 6) < 1.95
    unit = max(digits, 0)
    scaled = round(error * 10**unit) if digits >= 0 else round(round(error, digits))
    return f"{round(value, digits):.{unit}f}({scaled})"


@dataclass(frozen=True)
class Layout:
    """Where each unknown stands in the equations.

    Args:
        left: left sides, such as "x'".
        known: what is known of each right side, as text; may be empty.
        inline: for the unknowns that multiply a single term: name -> (left side, text of the term).
        composed: for the other unknowns: name -> {left side: text}, a symbol in one or more right sides, whose value is
            listed below the equations.
        data: what the equations were found in.
    """

    left: tuple[str, ...]
    known: Mapping[str, str]
    inline: Mapping[str, tuple[str, str]]
    composed: Mapping[str, Mapping[str, str]]
    data: str = "points"

    def fixing(self, values: Mapping[str, float]) -> Layout:
        """The same equations with some of the unknowns known."""
        known = {left: [text] if (text := self.known.get(left)) else [] for left in self.left}
        for name, value in values.items():
            rows = dict([self.inline[name]]) if name in self.inline else self.composed[name]
            for left, term in rows.items():
                number = f"{value:.6g}" if term == "1" or abs(value) != 1 else "-" if value < 0 else ""
                gap = " " if number not in ("", "-") else ""
                shown = "" if term == "1" else term if name in self.inline or term.isidentifier() else f"({term})"
                known[left] += [f"{number}{gap}{shown}".strip()] if value else []
        inline = {name: place for name, place in self.inline.items() if name not in values}
        composed = {name: rows for name, rows in self.composed.items() if name not in values}
        texts = {left: " + ".join(parts).replace("+ -", "- ") for left, parts in known.items()}
        return replace(self, known=texts, inline=inline, composed=composed)

    def only(self, left: str) -> Layout:
        """One of the equations."""
        return replace(self, left=(left,))

    def write(self, names: Sequence[str], coefficients: Tensor, standard_errors: Tensor) -> str:
        """The equations and the values, line by line; unknowns that are not in `names` are zero."""
        values = dict(zip(names, zip(coefficients.tolist(), standard_errors.tolist(), strict=True), strict=True))
        lines = []
        for left in self.left:
            parts = [self.known[left]] if self.known.get(left) else []
            for name, rows in self.composed.items():
                if name in values and left in rows:
                    parts.append(f"{name} {rows[left]}" if rows[left].isidentifier() else f"{name} ({rows[left]})")
            for name, (row, term) in self.inline.items():
                if row == left and name in values:
                    parts.append(f"{with_error(*values[name])} {'' if term == '1' else term}".strip())
            lines.append(f"{left} = " + (" + ".join(parts) or "0").replace("+ -", "- "))
        lines += [f"{name} = {with_error(*values[name])}" for name in values if name not in self.inline]
        return "\n".join(lines)


def empty_layout(names: Sequence[str]) -> Layout:
    """For unknowns that stand in no equation: a plain list of values."""
    return Layout((), {}, {}, {name: {} for name in names})


def table(names: Sequence[str], coefficients: Tensor, standard_errors: Tensor) -> dict[str, dict[str, float]]:
    """The values by name, ready for JSON."""
    pairs = torch.stack([coefficients, standard_errors], 1).tolist()
    return {name: {"value": value, "standard_error": error} for name, (value, error) in zip(names, pairs, strict=True)}
