"""A dataset as tensors: item by item for a DataLoader, or whole in memory."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import h5py
import numpy as np
import torch
import yaml
from torch import Tensor
from torch.utils.data import Dataset

from eqflow.data.files import DatasetError, explained
from eqflow.data.folder import Folder, stored_recipe
from eqflow.data.shard import FIELDS

_MOST_OPEN = 32


class Snapshots(Dataset):
    """The samples of a dataset made by `eqflow.data.generate`.

    Item i is sample i: float32 [2, height, width], or [frames, 2, height, width] with frames="all"; channel 0 is u,
    channel 1 is v. Files are opened when first needed, in each process for itself, so DataLoader workers are safe.

    Args:
        folder: the folder of a complete dataset.
        normalize: subtract the mean and divide by the standard deviation of each field.
        frames: "last", "all", or the index of one frame (negative counts from the end).

    Attributes:
        recipe: the `Recipe` of the dataset.
        mean, std: float32 [2, 1, 1], of all frames.
        parameters: float64 [samples, 4]: F, k, D_u and D_v of each sample.

    Raises:
        DatasetError: no dataset, an incomplete one, or a file that cannot be read.
        ValueError: there is no such frame.

    Example:
        >>> import tempfile
        >>> from eqflow.data import Recipe, generate
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = generate(Recipe.from_preset("wave", samples=2, size=32, steps=50), folder + "/wave")
        ...     Snapshots(folder + "/wave").load().shape
        torch.Size([2, 2, 32, 32])
    """

    def __init__(self, folder: str | os.PathLike, normalize: bool = False, frames: str | int = "last"):
        path = Path(folder)
        recipe = stored_recipe(path)
        if recipe is None:
            raise DatasetError(f"{path} is not an eqflow dataset: `eqflow generate` makes one")
        self.recipe, self.normalize, self._folder = recipe, normalize, Folder(path, recipe)
        missing = [shard for shard in range(recipe.shards) if not self._folder.finished(shard)]
        if missing or not self._folder.stats.exists():
            raise DatasetError(
                f"{path} is not complete, {len(missing)} of {recipe.shards} shards are missing: generate with the same "
                "recipe finishes it"
            )
        self._frames = self._slice(frames)
        with explained("read", self._folder.stats):
            statistics = yaml.safe_load(self._folder.stats.read_text())
        self.mean, self.std = (
            torch.tensor([statistics[key][name] for name in FIELDS]).view(2, 1, 1) for key in ("mean", "std")
        )
        self.parameters = recipe.parameters(torch.arange(recipe.samples))
        self._files: OrderedDict[int, h5py.File] = OrderedDict()
        self._process = os.getpid()

    def _slice(self, frames: str | int) -> int | slice:
        count = self.recipe.frames
        if frames == "all":
            return slice(None)
        index = count - 1 if frames == "last" else frames
        if not isinstance(index, int) or not -count <= index < count:
            raise ValueError(f"expected frames 'last', 'all' or an index below {count}, got {frames!r}")
        return index % count

    def __len__(self) -> int:
        return self.recipe.samples

    def __getitem__(self, index: int) -> Tensor:
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected an index below {len(self)}, got {index}")
        shard, row = divmod(index % len(self), self.recipe.shard_samples)
        return self._read(shard, row)

    def load(self) -> Tensor:
        """All samples in memory: float32 [samples, 2, height, width], or [samples, frames, 2, height, width]."""
        recipe, frames = self.recipe, (self.recipe.frames,) if isinstance(self._frames, slice) else ()
        whole = torch.empty((recipe.samples, *frames, 2, recipe.height, recipe.width))
        for shard in range(recipe.shards):
            samples = recipe.shard(shard)
            whole[samples.start : samples.stop] = self._read(shard, slice(None))
        return whole

    def _read(self, shard: int, rows: int | slice) -> Tensor:
        try:
            fields = self._open(shard)["t0_fields"]
            parts = [fields[name][rows, self._frames] for name in FIELDS]
        except (OSError, KeyError) as error:
            raise DatasetError(
                f"cannot read {self._folder.shard_path(shard)}: {error}. Delete it and generate with the same recipe"
            ) from error
        state = torch.from_numpy(np.stack(parts, -3))
        return (state - self.mean) / self.std if self.normalize else state

    def _open(self, shard: int) -> h5py.File:
        if self._process != os.getpid():  # a forked worker must not share its parent's handles
            self._files, self._process = OrderedDict(), os.getpid()
        if shard not in self._files:
            # The files never change once they have their names, and some shared file systems have no locks.
            self._files[shard] = h5py.File(self._folder.shard_path(shard), "r", locking=False)
            if len(self._files) > _MOST_OPEN:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(shard)
        return self._files[shard]

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_files": OrderedDict(), "_process": -1}
