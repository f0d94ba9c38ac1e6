"""Ensembles of pictures from datasets, arrays and image files, and what is known of how they were made."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eqflow.data.files import DatasetError

IMAGES = (".png", ".tif", ".tiff")
ARRAYS = (".npy", ".npz", ".h5", ".hdf5")
_PLAIN = {"P": "RGB", "LA": "L", "CMYK": "RGB"}  # what a mode of images that is no grey or colour becomes
_FULL = {"uint8": 255.0, "uint16": 65535.0, "int32": 65535.0, "bool": 1.0}  # 16-bit images come as int32 too


class PicturesError(ValueError):
    """Pictures cannot be read or used; the message says which, where and what to do."""


class Stills(NamedTuple):
    """An ensemble of pictures."""

    values: Tensor  # float32 [pictures, channels, height, width]
    names: tuple[str, ...]  # of the channels
    notes: tuple[str, ...] = ()  # what a careful reader would like to know
    dt: float | None = None  # the step of the map that made them, where that is known
    spacing: float | None = None
    stencil: str | None = None


def read_pictures(paths: Sequence[str | os.PathLike]) -> Stills:
    """The pictures in a dataset, in arrays, or in image files.

    * a folder made by `eqflow generate`: the last state of every sample.
    * .npy: an array [pictures, height, width] or [pictures, channels, height, width].
    * .npz: such an array; or an array [pictures, height, width] for each channel, by name.
    * .h5, .hdf5: fields in The Well's layout, of which the last frame is taken; or one array.
    * .png, .tif, .tiff, or a folder of them, in the order of their names: grey, or a channel for each colour; whole
      numbers become shares of the largest one.

    Args:
        paths: files or folders; what is in them is put together.

    Raises:
        PicturesError: a file is not there, holds no pictures, or its pictures have another shape, other channels or
            another origin than the first.
        DatasetError: the dataset is not complete.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(folder + "/u.npy", np.ones((5, 8, 8), "float32"))
        ...     read_pictures([folder + "/u.npy"]).values.shape
        torch.Size([5, 1, 8, 8])
    """
    if not paths:
        raise PicturesError("expected at least one file or folder of pictures, got none")
    files = _listed([Path(path) for path in paths])
    parts = [_read(path) for path in files]
    first = parts[0]
    for path, part in zip(files, parts, strict=True):
        if part.names != first.names:
            raise PicturesError(
                f"expected channels {', '.join(first.names)} as in {files[0]}, got {', '.join(part.names)} in {path}: "
                "give them one order and the same names"
            )
        if part[3:] != first[3:]:
            raise PicturesError(
                f"expected pictures made in one way, but {path} is not made as {files[0]}: leave one out"
            )
        if part.values.shape[1:] != first.values.shape[1:]:
            raise PicturesError(
                f"expected pictures of one shape, but {path} has {_shape(part)} and the first {_shape(first)}: crop "
                "them, or leave it out"
            )
    values = torch.cat([part.values for part in parts])
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return Stills(values, first.names, notes, *first[3:])


def _shape(part: Stills) -> str:
    channels, height, width = part.values.shape[1:]
    return f"{channels} channel{'s' if channels > 1 else ''} of {height} x {width}"


def _listed(paths: Sequence[Path]) -> list[Path]:
    """The paths, folders of images replaced by what is in them."""
    found: list[Path] = []
    for path in paths:
        images = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in IMAGES) if path.is_dir() else []
        found += images or [path]
    return found


def _read(path: Path) -> Stills:
    found = _from_dataset(path) if path.is_dir() else _from_file(path)
    if not found.values.isfinite().all():
        raise PicturesError(
            f"expected finite pictures, but {path} holds NaN, infinite values or numbers beyond float32: leave them out"
        )
    return found


def _from_file(path: Path) -> Stills:
    ending = path.suffix.lower()
    if not path.is_file():
        raise PicturesError(f"expected {path} to be a file or a folder of pictures: no such file")
    if ending not in (*IMAGES, *ARRAYS):
        raise PicturesError(f"expected pictures in {', '.join((*ARRAYS, *IMAGES))} or a dataset, got {str(path)!r}")
    try:
        if ending in IMAGES:
            return _from_image(path)
        if ending == ".npy":
            return _stack(_array(path), path)
        return _from_npz(path) if ending == ".npz" else _from_hdf5(path)
    except PicturesError:
        raise
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise PicturesError(f"cannot read pictures from {path}: {' '.join(str(error).split())}") from None


def _array(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _from_dataset(path: Path) -> Stills:
    from eqflow.data.snapshots import Snapshots

    try:
        data = Snapshots(path)
    except DatasetError as error:
        if "is not an eqflow dataset" in str(error):
            raise PicturesError(
                f"expected {path} to hold a dataset of eqflow or images ({', '.join(IMAGES)}), found neither"
            ) from None
        raise
    recipe = data.recipe
    if len(data.parameters.unique(dim=0)) > 1:
        raise PicturesError(f"expected pictures of one system, but {path} is a sweep: generate one without --sweep")
    return Stills(data.load(), ("u", "v"), (), recipe.dt, recipe.dx, recipe.stencil)


def _names(channels: int) -> tuple[str, ...]:
    return ("u", "v", "w")[:channels] if channels <= 3 else tuple(f"u{k}" for k in range(1, channels + 1))


def _stack(values: np.ndarray, path: Path, notes: tuple[str, ...] = ()) -> Stills:
    if values.dtype.kind not in "fiub" or values.ndim not in (3, 4) or not values.size:
        raise PicturesError(
            f"expected numbers [pictures, height, width] or [pictures, channels, height, width] in {path}, got "
            f"{values.dtype} {list(values.shape)}"
        )
    if values.dtype == np.float16:
        notes += ("float16 keeps 3 digits: its rounding acts like observation noise",)
    whole = values if values.ndim == 4 else values[:, None]
    channels, last = whole.shape[1], whole.shape[-1]
    if channels > last:
        raise PicturesError(
            f"expected channels before height and width in {path}, got {list(values.shape)}, which is "
            f"{channels} channels of a width of {last}: save np.moveaxis(pictures, -1, 1)"
        )
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused
        tensor = torch.from_numpy(np.ascontiguousarray(whole, "float32"))
    return Stills(tensor, _names(tensor.shape[1]), notes)


def _from_npz(path: Path) -> Stills:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if not arrays:
        raise PicturesError(f"expected an array in {path}, got none")
    if len(arrays) == 1:
        return _stack(next(iter(arrays.values())), path)
    shapes = {name: list(values.shape) for name, values in arrays.items()}
    if len({tuple(shape) for shape in shapes.values()}) != 1 or any(len(shape) != 3 for shape in shapes.values()):
        raise PicturesError(
            f"expected channels of one shape [pictures, height, width] in {path}, got "
            + ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        )
    return _stack(np.stack(list(arrays.values()), 1), path)._replace(names=tuple(arrays))


def _from_hdf5(path: Path) -> Stills:
    with h5py.File(path, "r", locking=False) as file:
        if "t0_fields" in file:
            names = [str(name) for name in file["t0_fields"].attrs["field_names"]]
            last = [file["t0_fields"][name][:, -1] for name in names]
            names = ["u", "v"] if names == ["A", "B"] else names
            return _stack(np.stack(last, 1), path)._replace(names=tuple(names))
        arrays = [node for node in file.values() if isinstance(node, h5py.Dataset) and node.ndim in (3, 4)]
        if len(arrays) != 1:
            raise PicturesError(
                f"expected one array [pictures, channels, height, width] in {path}, found {len(arrays)}"
            )
        return _stack(arrays[0][()], path)


def _from_image(path: Path) -> Stills:
    with Image.open(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            frames = []
            for number in range(image.n_frames):
                image.seek(number)
                frames.append(np.asarray(image))
            values = np.stack(frames)
        else:
            values = np.asarray(image.convert(_PLAIN[image.mode]) if image.mode in _PLAIN else image)[None]
    full = _FULL.get(str(values.dtype))
    notes = ()
    if full is not None:
        values = values.astype("float32") / full
        notes = ("whole numbers have rounded levels, which act like observation noise",) if full == 255 else ()
    if values.ndim == 4:
        values = np.moveaxis(values[..., :3], -1, 1)  # without a layer of opacity
        if all(np.array_equal(values[:, 0], values[:, k]) for k in range(1, values.shape[1])):
            values = values[:, 0]
    return _stack(values, path, notes)
