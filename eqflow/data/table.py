"""Numbers in a text file: separator and header are found, and what is wrong is named by its line and column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_SHOWN = 6  # names in a message


class PointsError(ValueError):
    """Points cannot be read or used; the message says which, where and what to do."""


def read_table(path: Path, columns: Sequence[str] | None = None) -> tuple[Tensor, tuple[str, ...], tuple[str, ...]]:
    """The numbers of a text file, float64 [rows, columns], the names of the columns, and notes.

    Raises:
        PointsError: a line does not hold the numbers that it should.
    """
    rows = _fields(path)
    line, first, separator = next(rows, (0, [], None))
    if not first:
        raise PointsError(f"expected numbers in {path}, which is empty")
    header = _is_header(first)
    if header and next(rows, None) is None:
        raise PointsError(f"expected numbers in {path}, which holds a header and nothing else")
    names = tuple(first) if header else tuple(f"x{number}" for number in range(1, len(first) + 1))
    places = chosen(names, columns, path)
    try:
        values = np.loadtxt(
            path, delimiter=separator, skiprows=line if header else line - 1, usecols=places, ndmin=2,
            encoding="utf-8-sig", quotechar='"',
        )  # fmt: skip
    except ValueError as error:
        raise PointsError(_culprit(path, header, names, places) or f"cannot read {path}: {error}") from None
    names, notes = tuple(names[place] for place in places), ()
    if not names[0] and len(names) > 1 and np.array_equal(values[:, 0], np.arange(len(values))):
        values, names = values[:, 1:], names[1:]
        notes = (f"the first column of {path} numbers the rows and is left out",)
    return torch.from_numpy(np.ascontiguousarray(values)), names, notes


def chosen(names: Sequence[str], columns: Sequence[str] | None, where: Path) -> list[int]:
    """The places of some columns, given by name or by number from 1 up; all if none are given.

    Raises:
        PointsError: there is no such column, or one is named twice.
    """
    if columns is None:
        return list(range(len(names)))
    places = []
    for word in columns:
        place = names.index(word) if word in names else int(word) - 1 if word.isdecimal() else -1
        if not 0 <= place < len(names):
            raise PointsError(
                f"expected columns={','.join(columns)} to be columns of {where}, which has {_listed(names)}: "
                f"there is no {word}"
            )
        places.append(place)
    if len(set(places)) < len(places) or not places:
        raise PointsError(f"expected one or more different columns of {where}, got columns={','.join(columns)}")
    return places


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name or "(no name)" for name in names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _fields(path: Path) -> Iterator[tuple[int, list[str], str | None]]:
    """Number, fields and separator of every line that is not empty and no comment."""
    separator, known = None, False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            line = line.partition("#")[0].strip()
            if not line:
                continue
            if not known:
                separator, known = next((mark for mark in ";\t," if mark in line), None), True
            yield number, [field.strip().strip('"').strip() for field in line.split(separator)], separator


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_header(fields: Sequence[str]) -> bool:
    """Whether these are names: a word, or 0, 1, 2, ... as pandas numbers columns."""
    words = [field for field in fields if not _is_number(field)]
    numbered = len(fields) > 1 and list(fields[-2:]) == [str(len(fields) - 2), str(len(fields) - 1)]
    named = any(re.search(r"[^\W\d_]", word) for word in words) or (fields[0] == "" and len(words) == 1)
    return named or (numbered and list(fields) == [str(number) for number in range(len(fields))])


def _culprit(path: Path, header: bool, names: Sequence[str], places: Sequence[int]) -> str | None:
    """The first line that is not as many numbers as the first."""
    rows = _fields(path)
    if header:
        next(rows)
    for line, fields, _ in rows:
        if len(fields) != len(names):
            return f"expected {len(names)} numbers a line in {path}, but line {line} has {len(fields)}: mend that line"
        for place in places:
            if _is_number(fields[place]):
                continue
            others = [names[other] for other in places if other != place]
            advice = "mend it, or drop the row"
            if re.fullmatch(r"[-+]?\d+,\d+(e[-+]?\d+)?", fields[place]):
                advice = "write decimals with a point"
            elif header and len(others) > 1 and len(others) <= _SHOWN:
                advice += f", or take columns={','.join(others)} alone"
            return (
                f"expected numbers in {path}, but line {line} has {fields[place]!r} in column "
                f"{names[place] or place + 1}: {advice}"
            )
    return None
