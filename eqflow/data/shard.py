"""One shard: an HDF5 file in The Well's layout, written under a temporary name.

The fields are stored in one piece each (contiguous, not compressed), so their place in the file is known before the
first state is computed. HDF5 lays the file out in memory, where only the metadata takes room; the states then go to
their places with plain writes, in any order. So an error of the disk is an ordinary OSError (HDF5 itself can crash when
it closes a file on a full disk), and the bytes depend on the recipe alone.

Layout: `t0_fields/A` is u and `t0_fields/B` is v, float32 [samples, frames, height, width]. The Well calls the first
spatial axis x: here x is the row index, `dimensions/x` has the length height and `dimensions/y` the length width.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from eqflow.data.recipe import COEFFICIENTS, Recipe

FIELDS = ("A", "B")
_SCALARS = dict(zip(("F", "k", "Du", "Dv"), COEFFICIENTS, strict=True))
_LIBVER = ("v108", "v108")  # the format of HDF5 1.8: any reader, and the same bytes from any newer library


class _Image:
    """A file in memory that keeps what was written and not the gaps."""

    def __init__(self):
        self.pieces: list[tuple[int, bytes]] = []
        self.size = self._position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data) -> int:
        data = bytes(data)
        self.pieces.append((self._position, data))
        self._position += len(data)
        self.size = max(self.size, self._position)
        return len(data)

    def read(self, size: int) -> bytes:
        begin, block = self._position, bytearray(size)
        for offset, data in self.pieces:
            low, high = max(offset, begin), min(offset + len(data), begin + size)
            if low < high:
                block[low - begin : high - begin] = data[low - offset : high - offset]
        self._position += size
        return bytes(block)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._position if size is None else size
        return self.size

    def flush(self) -> None:
        pass


class Layout(NamedTuple):
    """The bytes around the fields, and where each field begins."""

    pieces: list[tuple[int, bytes]]
    offsets: tuple[int, ...]
    size: int


def _no_names() -> dict:
    return {"data": [], "shape": (0,), "dtype": h5py.string_dtype()}  # the reader wants an empty list of strings


def _vary(node, *, samples: bool, time: bool) -> None:
    node.attrs["sample_varying"] = samples
    node.attrs["time_varying"] = time


def _reserve(group: h5py.Group, name: str, shape: tuple[int, ...]) -> h5py.Dataset:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return group.create_dataset(name, shape=shape, dtype="<f4", dcpl=properties)


def _write_dimensions(file: h5py.File, recipe: Recipe) -> None:
    group = file.create_group("dimensions")
    group.attrs["spatial_dims"] = ["x", "y"]
    axes = {"time": recipe.times}
    axes |= {name: np.arange(n) * recipe.dx for name, n in (("x", recipe.height), ("y", recipe.width))}
    for name, values in axes.items():
        _vary(group.create_dataset(name, data=np.asarray(values, "<f4")), samples=False, time=name == "time")


def _write_boundaries(file: h5py.File, recipe: Recipe) -> None:
    group = file.create_group("boundary_conditions")
    for name, length in (("x", recipe.height), ("y", recipe.width)):
        side = group.create_group(f"{name}_periodic")
        side.attrs["associated_dims"] = [name]
        side.attrs.create("associated_fields", **_no_names())
        side.attrs["bc_type"] = "PERIODIC"
        _vary(side, samples=False, time=False)
        mask = np.zeros(length, bool)
        mask[[0, -1]] = True  # the reader looks at the two ends
        side.create_dataset("mask", data=mask)


def _write_scalars(file: h5py.File, recipe: Recipe, shard: int, attempts: np.ndarray) -> None:
    samples = np.array(recipe.shard(shard))
    scalars = {}
    for name, field in _SCALARS.items():
        grid = np.array(getattr(recipe, field))
        scalars[name] = grid[samples % len(grid)] if len(set(grid.tolist())) > 1 else grid[0]
        file.attrs[name] = float(np.mean(grid))
    file.attrs["simulation_parameters"] = list(_SCALARS)
    # float32 as The Well has it; the exact seed is in the recipe.
    scalars |= {"seed": recipe.seed, "sample": samples, "attempt": attempts}
    group = file.create_group("scalars")
    group.attrs["field_names"] = list(scalars)
    for name, value in scalars.items():
        value = np.asarray(value, "<f4")
        _vary(group.create_dataset(name, data=value), samples=value.ndim > 0, time=False)


def layout(recipe: Recipe, shard: int, attempts: np.ndarray) -> Layout:
    """Everything in a shard but the fields.

    Args:
        recipe: the dataset.
        shard: index of the shard.
        attempts: [samples]: which start of each sample lived.
    """
    image, samples = _Image(), len(recipe.shard(shard))
    with h5py.File(image, "w", libver=_LIBVER) as file:
        file.attrs["dataset_name"] = f"gray_scott_{recipe.name}"
        file.attrs["grid_type"] = "cartesian"
        file.attrs["n_spatial_dims"] = 2
        file.attrs["n_trajectories"] = samples
        file.attrs["recipe"] = json.dumps(recipe.to_json())
        _write_dimensions(file, recipe)
        _write_boundaries(file, recipe)
        _write_scalars(file, recipe, shard, attempts)
        group = file.create_group("t0_fields")
        group.attrs["field_names"] = list(FIELDS)
        for order in (1, 2):
            file.create_group(f"t{order}_fields").attrs.create("field_names", **_no_names())
        offsets = []
        for name in FIELDS:
            field = _reserve(group, name, (samples, recipe.frames, recipe.height, recipe.width))
            field.attrs["dim_varying"] = [True, True]
            _vary(field, samples=True, time=True)
            offsets.append(field.id.get_offset())
    return Layout(image.pieces, tuple(offsets), image.size)


def _write_at(handle: int, data, offset: int) -> None:
    view = memoryview(data).cast("B")
    while view:
        written = os.pwrite(handle, view, offset)
        view, offset = view[written:], offset + written


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file) -> str:  # Python 3.10
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


class ShardWriter:
    """A shard that grows under a temporary name."""

    def __init__(self, path: Path, recipe: Recipe, shard: int):
        self.path, self._recipe, self._shard = path, recipe, shard
        self.attempts = np.zeros(len(recipe.shard(shard)), np.int64)
        self._layout = layout(recipe, shard, self.attempts)
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            os.ftruncate(self._handle, self._layout.size)
        except OSError:
            self.discard()
            raise

    def write(
        self,
        row: int,
        frames: np.ndarray,  # [frames, 2, height, width] float32
        attempt: int,
    ) -> None:
        """Write one sample to its row."""
        self.attempts[row] = attempt
        for field, offset in enumerate(self._layout.offsets):
            data = np.ascontiguousarray(frames[:, field], "<f4")
            _write_at(self._handle, data, offset + row * data.nbytes)

    def finish(self) -> tuple[int, str]:
        """Write what remains and wait for the disk: size and SHA-256."""
        for offset, data in layout(self._recipe, self._shard, self.attempts).pieces:
            _write_at(self._handle, data, offset)
        os.fsync(self._handle)
        os.close(self._handle)
        self._handle = -1
        return self._layout.size, sha256(self.path)

    def discard(self) -> None:
        """Close and delete what was written so far."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self.path.unlink(missing_ok=True)
