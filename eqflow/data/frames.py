"""The file of a rollout in The Well's layout: where its frames stand, and how they are read.

Fields are [samples, frames, height, width], one a channel (A, B, ...); points are one field A, [samples, frames,
dimension], whose axis x is the coordinate. Fields are contiguous, so each frame has its place from the beginning.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from eqflow.data.files import DatasetError
from eqflow.data.shard import _LIBVER, Layout, _Image, _no_names, _reserve, _vary


def _fields(shape: Sequence[int]) -> tuple[str, ...]:
    """The names of the fields of a state [channels, height, width] or [dimension]."""
    if len(shape) == 1:
        return ("A",)
    return tuple(chr(ord("A") + index) if index < 26 else f"C{index}" for index in range(shape[0]))


def layout(batch: int, shape: Sequence[int], times: np.ndarray, first_sample: int, about: Mapping) -> Layout:
    """Everything in the file but the frames."""
    grid = tuple(shape[1:]) if len(shape) == 3 else tuple(shape)
    axes = ["x", "y"][: len(grid)]
    image, offsets = _Image(), []
    with h5py.File(image, "w", libver=_LIBVER) as file:
        file.attrs["dataset_name"] = str(about.get("name", "rollout"))
        file.attrs["grid_type"] = "cartesian"
        file.attrs["n_spatial_dims"] = len(grid)
        file.attrs["n_trajectories"] = batch
        file.attrs["rollout"] = json.dumps(about)
        group = file.create_group("dimensions")
        group.attrs["spatial_dims"] = axes
        for name, values in {"time": times, **{a: np.arange(n) for a, n in zip(axes, grid, strict=True)}}.items():
            _vary(group.create_dataset(name, data=np.asarray(values, "<f4")), samples=False, time=name == "time")
        group = file.create_group("boundary_conditions")
        for name, length in zip(axes, grid, strict=True) if len(shape) == 3 else ():
            side = group.create_group(f"{name}_periodic")
            side.attrs["associated_dims"] = [name]
            side.attrs.create("associated_fields", **_no_names())
            side.attrs["bc_type"] = "PERIODIC"
            _vary(side, samples=False, time=False)
            mask = np.zeros(length, bool)
            mask[[0, -1]] = True
            side.create_dataset("mask", data=mask)
        group = file.create_group("scalars")
        group.attrs["field_names"] = ["sample"]
        samples = np.arange(batch, dtype="<i8") + first_sample
        _vary(group.create_dataset("sample", data=samples), samples=True, time=False)
        group = file.create_group("t0_fields")
        group.attrs["field_names"] = list(_fields(shape))
        for order in (1, 2):
            file.create_group(f"t{order}_fields").attrs.create("field_names", **_no_names())
        for name in _fields(shape):
            field = _reserve(group, name, (batch, len(times), *grid))
            field.attrs["dim_varying"] = [True] * len(grid)
            _vary(field, samples=True, time=True)
            offsets.append(field.id.get_offset())
    return Layout(image.pieces, tuple(offsets), image.size)


def read_frames(path: str | os.PathLike) -> Tensor:
    """All frames of a file that a `Recorder` has finished: [samples, frames, ...], as the states were.

    Raises:
        DatasetError: the file is not there, not finished, or cannot be read.
    """
    path = Path(path)
    if not path.exists():
        begun = path.with_name(f".{path.name}.part").exists()
        raise DatasetError(f"{path} is not {'finished: run the same command again' if begun else 'there'}")
    try:
        with h5py.File(path, "r", locking=False) as file:
            names = list(file["t0_fields"].attrs["field_names"])
            parts = [torch.from_numpy(file["t0_fields"][name][:]) for name in names]
            points = int(file.attrs["n_spatial_dims"]) == 1
    except (OSError, KeyError) as error:
        raise DatasetError(f"cannot read {path}: {error}. Delete it and run the same command again") from error
    return parts[0] if points else torch.stack(parts, 2)
