"""Clouds of points from CSV, NPY and HDF5 files, and what must hold of them before anything is learned from them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from eqflow.data.table import PointsError, chosen, read_table

ENDINGS = (".csv", ".txt", ".npy", ".h5", ".hdf5")
LEAST = 100  # points: with fewer nothing about their density can be said
_SHOWN = 6  # names in a message


class Cloud(NamedTuple):
    """What a file holds."""

    values: Tensor  # float64 [points, dimension], or fields [points, channels, height, width]
    names: tuple[str, ...]  # of the coordinates; x1, x2, ... where the file has none
    notes: tuple[str, ...]  # what a careful reader would like to know


def read_points(path: str | os.PathLike, *, dataset: str | None = None, columns: Sequence[str] | None = None) -> Cloud:
    """The points in a file.

    CSV: separated by commas, semicolons, tabs or spaces, with or without a header; lines that begin with # are left
    out, and so is the index that pandas writes. NPY and HDF5: an array [points, dimension], or fields.

    Args:
        path: a .csv, .txt, .npy, .h5 or .hdf5 file.
        dataset: which one of an HDF5 file; it need not be named where there is one alone.
        columns: the coordinates to take, by name or by number from 1 up; all where none are given.

    Raises:
        PointsError: the file is not there, or holds no points; the message says where and what to do.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "two.csv").write_text("x,y\\n1,2\\n3,4\\n")
        ...     read_points(folder + "/two.csv").names
        ('x', 'y')
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise PointsError(f"expected points in a {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]} file, got {str(path)!r}")
    if not path.is_file():
        raise PointsError(f"expected {path} to be a file of points: {'a folder' if path.is_dir() else 'no such file'}")
    hdf5 = path.suffix.lower() in (".h5", ".hdf5")
    if dataset is not None and not hdf5:
        raise PointsError(f"expected dataset={dataset} with an HDF5 file only, got {path}: leave it out")
    try:
        if path.suffix.lower() == ".npy":
            found = _array(np.load(path, allow_pickle=False), path, columns)
        elif hdf5:
            found = _array(_from_hdf5(path, dataset), path, columns)
        else:
            found = Cloud(*read_table(path, columns))
    except PointsError:
        raise
    except (ValueError, OSError, EOFError) as error:
        reason = "it holds no array of numbers" if "pickle" in str(error) else " ".join(str(error).split())
        raise PointsError(f"cannot read points from {path}: {reason}") from None
    _check_finite(found, path)
    return found


def _array(values: np.ndarray, where: Path, columns: Sequence[str] | None) -> Cloud:
    if values.dtype.kind not in "fiub":
        raise PointsError(f"cannot read points from {where}: expected real numbers, got {values.dtype}")
    if values.ndim not in (2, 4) or not values.size:
        advice = ": use array[:, None]" if values.ndim == 1 else ""
        raise PointsError(
            f"expected points [points, dimension] or fields [points, channels, height, width] in {where}, got "
            f"{list(values.shape)}{advice}"
        )
    names = tuple(f"x{number}" for number in range(1, values.shape[1] + 1))
    places = chosen(names, columns, where)
    values = np.ascontiguousarray(values[:, places], "float64")
    return Cloud(torch.from_numpy(values), tuple(names[place] for place in places), ())


def _from_hdf5(path: Path, dataset: str | None) -> np.ndarray:
    found: dict[str, tuple[int, ...]] = {}
    with h5py.File(path, "r", locking=False) as file:
        file.visititems(lambda name, node: found.update({name: node.shape} if isinstance(node, h5py.Dataset) else {}))
        listed = ", ".join(f"{name} {list(found[name])}" for name in list(found)[:_SHOWN])
        listed += f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        if not found:
            raise PointsError(f"expected a dataset [points, dimension] in {path}, which holds none")
        if dataset is None:
            fit = [name for name, shape in found.items() if len(shape) in (2, 4)]
            if len(fit) != 1:
                raise PointsError(
                    f"expected one dataset [points, dimension] in {path}, found {listed}: "
                    + (f"say which with dataset={fit[0]}" if fit else "none of these has two axes")
                )
            (dataset,) = fit
        dataset = dataset.strip("/")
        if dataset not in found:
            raise PointsError(f"expected dataset={dataset} in {path}, which holds {listed}: give one of these names")
        return file[dataset][()]


def _rows(more: int) -> str:
    return f"{more:,} more row{'s' if more > 1 else ''}"


def _check_finite(found: Cloud, path: Path) -> None:
    bad = (~found.values.isfinite()).flatten(1)
    if not bad.any():
        return
    rows = bad.any(1).nonzero()[:, 0]
    first = int(rows[0])
    which = f" in {found.names[int(bad[first].nonzero()[0])]}" if found.values.ndim == 2 else ""
    more = f", and {_rows(len(rows) - 1)} too" if len(rows) > 1 else ""
    raise PointsError(
        f"expected finite points, but {path} holds NaN or infinite values: row {first + 1}{which}{more}; drop these "
        "rows, or mend them"
    )


def check_points(found: Cloud, *, repeats: str = "refuse", coordinates: int = 2) -> Cloud:
    """The same points, if a density can be learned from them.

    Args:
        found: points [points, dimension].
        repeats: what is done where 1 % of the rows or more repeat an earlier one: "refuse", "keep" or "drop". Fewer
            are kept with a note.
        coordinates: the fewest; a flow needs 2.

    Raises:
        PointsError: fields, one coordinate, too few points, a coordinate that is constant or says what another says,
            or rows that repeat.

    Example:
        >>> cloud = Cloud(torch.rand(200, 2, dtype=torch.float64), ("x", "y"), ())
        >>> check_points(cloud).notes[0]
        'with 200 points the answer is rough: 1,000 or more are better'
    """
    if found.values.ndim != 2:
        raise PointsError(f"expected points [points, dimension], got fields {list(found.values.shape)}: flatten them")
    found = _without_repeats(found, repeats)
    values, names = found.values, found.names
    if values.shape[1] < coordinates:
        raise PointsError(
            f"expected 2 coordinates or more, got {names[0]} alone: on a line only a flow at rest keeps a density"
        )
    if len(values) < LEAST:
        raise PointsError(f"expected {LEAST} different points or more, got {len(values)}: give more snapshots")
    spread, size = values.std(0), values.abs().amax(0)
    for place in (spread <= 1e-12 * size).nonzero()[:, 0].tolist():
        raise PointsError(
            f"expected coordinates that vary, but {names[place]} is {float(values[0, place]):g} in every row: "
            + _leave_out(names, place)
        )
    correlation = torch.atleast_2d(torch.corrcoef(values.T)).abs().triu(1)
    for first, second in (correlation > 1 - 1e-9).nonzero().tolist()[:1]:
        raise PointsError(
            f"expected coordinates of their own, but {names[second]} follows from {names[first]} on a straight line: "
            + _leave_out(names, second)
        )
    notes = list(found.notes)
    rising = (values.diff(dim=0) > 0).all(0)
    notes += [
        f"{names[place]} rises from row to row, as an index or a time does and no coordinate: "
        + _leave_out(names, place)
        for place in rising.nonzero()[:, 0].tolist()
    ]
    if len(values) < 1000:
        notes.append(f"with {len(values):,} points the answer is rough: 1,000 or more are better")
    return found._replace(notes=tuple(notes))


def _leave_out(names: Sequence[str], place: int) -> str:
    others = [name for index, name in enumerate(names) if index != place]
    return f"leave it out with columns={','.join(others)}" if 1 < len(others) <= _SHOWN else "leave it out"


def _without_repeats(found: Cloud, repeats: str) -> Cloud:
    rows = np.ascontiguousarray(found.values.numpy() + 0.0)  # -0 is 0
    whole = rows.view([("", rows.dtype)] * rows.shape[1])[:, 0]
    _, first, which = np.unique(whole, return_index=True, return_inverse=True)
    again = len(rows) - len(first)
    if not again:
        return found
    row = int(np.setdiff1d(np.arange(len(rows)), first, assume_unique=True)[0])
    what = f"row {row + 1} repeats row {int(first[which[row]]) + 1}" + (
        f", and {_rows(again - 1)} an earlier one" if again > 1 else ""
    )
    if repeats == "drop":
        kept = found.values[torch.from_numpy(np.sort(first))]
        return found._replace(values=kept, notes=(*found.notes, f"{what}: left out"))
    if repeats == "refuse" and again >= 0.01 * len(rows):
        raise PointsError(
            f"expected points that differ, but {what}: leave them out with repeats=drop, or say with repeats=keep that "
            "the system was there so often"
        )
    return found._replace(notes=(*found.notes, f"{what}: kept"))
