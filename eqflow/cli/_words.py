"""How the options are written: `128` or `96x160`, `256MB`, `feed=0.01:0.06:11`."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence

import typer

from eqflow.cli._shell import usage

SWEPT = ("feed", "kill", "diffusion-u", "diffusion-v")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def whole(text: str) -> int:
    """A whole number: 10000, 10_000 or 1e4."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise typer.BadParameter(f"expected a whole number, got {text!r}")
    return int(value)


def real(text: str) -> float:
    """A number: 0.018 or 1.8e-2; whether it may be nan is for its user to say."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"expected a number, got {text!r}") from None


def size(text: str) -> tuple[int, int]:
    """Height and width from `N` or `HxW`."""
    found = re.fullmatch(r"(\d+)(?:[x×](\d+))?", text.strip().lower())
    if not found:
        raise usage(f"expected --size as N or HxW, got {text!r}: write 128 or 96x160")
    height = int(found[1])
    width = int(found[2] or height)
    if min(height, width) < 3:
        raise usage(f"expected --size from 3 up on both axes, got {text!r}: the stencil needs three cells")
    return height, width


def shard_samples(text: str | None, sample_bytes: int) -> int | None:
    """Samples per file from a number of samples, or from a size such as `256MB` (at least one)."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kKMGT]i?)?(B))?", text.strip())
    prefix = (found[2] or "").replace("K", "k") if found else ""
    unit = _UNITS.get("Ki" if prefix == "ki" else prefix)
    if not found or unit is None or float(found[1]) <= 0 or (not found[3] and "." in found[1]):
        raise usage(f"expected --shard-size as a number of samples or a size, got {text!r}: write 512 or 256MB")
    amount = float(found[1])
    return max(1, int(amount * unit) // sample_bytes) if found[3] else int(amount)


def number(option: str, value: float, *, above: float = -math.inf, least: float = -math.inf) -> float:
    """`value` if it is finite and within bounds."""
    if not math.isfinite(value) or value <= above or value < least:
        bound = f" above {above:g}" if above > -math.inf else f" from {least:g} up" if least > -math.inf else ""
        raise usage(f"expected {option} to be a finite number{bound}, got {value:g}")
    return value


def numbers(option: str, text: str, kind: type) -> list:
    """A list of numbers from `1,20,100`."""
    try:
        return [kind(word) for word in text.split(",")]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise usage(f"expected {option} as {what} such as 1,20,100, got {text!r}") from None


def sweeps(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """The grid of all sweeps, one tuple a parameter, all of one length: the last sweep runs fastest."""
    axes: dict[str, list[float]] = {}
    for text in texts:
        name, values = _sweep(text)
        if name in axes:
            raise usage(f"expected one --sweep of {name}, got two: give each parameter one range")
        axes[name] = values
    points = list(itertools.product(*axes.values()))
    return {name: tuple(point[axis] for point in points) for axis, name in enumerate(axes)}


def _sweep(text: str) -> tuple[str, list[float]]:
    wrong = usage(
        f"expected --sweep as NAME=FIRST:LAST:COUNT with NAME {', '.join(SWEPT[:-1])} or {SWEPT[-1]}, got {text!r}: "
        "write feed=0.01:0.06:11"
    )
    name, _, range_ = text.partition("=")
    name, parts = name.strip().lower().replace("_", "-"), range_.split(":")
    if name not in SWEPT or len(parts) != 3:
        raise wrong
    try:
        first, last, count = float(parts[0]), float(parts[1]), int(parts[2])
    except ValueError:
        raise wrong from None
    if not (0 <= first < math.inf and 0 <= last < math.inf) or count < 1:
        raise usage(f"expected --sweep between finite numbers from 0 up, in 1 point or more, got {text!r}")
    if count == 1 and first != last:
        raise usage(f"expected 2 points or more between {first:g} and {last:g}, got {text!r}")
    step = (last - first) / max(count - 1, 1)
    # Twelve digits: 0.03 is then 0.03 and not 0.030000000000000002, in the file and in the titles.
    return name.replace("-", "_"), [float(f"{first + step * i:.12g}") for i in range(count)]


def count(value: float) -> str:
    """A whole number with thin groups: 12,345."""
    return f"{value:,.0f}"


def bytes_(value: float) -> str:
    """A size in decimal units: 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """A time for people: 0.8 s, 41 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
