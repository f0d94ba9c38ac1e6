"""Make a dataset, or finish one that was begun."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import torch

import eqflow
from eqflow.data import simulate
from eqflow.data.files import explained
from eqflow.data.folder import Folder, claim, stored_recipe
from eqflow.data.pipeline import Pipeline, Progress
from eqflow.data.recipe import Recipe
from eqflow.data.shard import sha256
from eqflow.data.statistics import statistics_yaml
from eqflow.data.wait import wait
from eqflow.ops import _backend


class Summary(NamedTuple):
    """What `generate` did. With several ranks, counts are of the whole dataset where it is complete."""

    folder: Path
    complete: bool
    already_complete: bool  # nothing was left to do
    samples: int
    shards: int
    shards_made: int  # in this run, by this rank
    bytes: int
    dead: int  # stored although dead
    redrawn: int  # samples whose first start died
    rejected: int  # starts that died and were replaced
    cell_updates: int  # in this run, by this rank
    seconds: float


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("eqflow")
    except PackageNotFoundError:
        return getattr(eqflow, "__version__", "unknown")


def _environment(device: torch.device, backend: str, command: str | None) -> dict:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": command,
        "eqflow": _version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device.type}: {name}",
        "backend": backend,
    }


def _counts(rows: list[dict]) -> dict:
    names = ("samples", "bytes", "dead", "redrawn", "rejected")
    return {name: sum(row[name] for row in rows) for name in names}


def _finish(folder: Folder, environment: dict) -> list[dict] | None:
    """Write stats.yaml and manifest.json if every shard is there; the facts of all shards."""
    if not all(folder.shard_path(shard).exists() for shard in range(folder.recipe.shards)):
        return None
    rows = [folder.finished(shard) for shard in range(folder.recipe.shards)]
    if any(row is None for row in rows):
        return None
    recipe = folder.recipe
    manifest = {
        "recipe": recipe.to_json(),
        "layout": {
            "format": "The Well (HDF5)",
            "A": "u",
            "B": "v",
            "shape": [recipe.samples, recipe.frames, recipe.height, recipe.width],
            "x": "row index",
            "y": "column index",
        },
        "dead_rule": simulate.RULE,
        "counts": {**_counts(rows), "shards": len(rows), "frames": recipe.samples * recipe.frames},
        "shards": rows,
        "environment": environment,
    }
    folder.write(folder.stats, statistics_yaml(row["sums"] for row in rows))
    folder.write(folder.manifest, json.dumps(manifest, indent=2) + "\n")
    return rows


def _already_complete(folder: Folder) -> list[dict] | None:
    """The facts of all shards if nothing is left to do; the folder may be read-only."""
    found = stored_recipe(folder.path)
    if found is None or found.to_json() != folder.recipe.to_json():
        return None
    rows = [folder.finished(shard) for shard in range(folder.recipe.shards)]
    there = folder.manifest.exists() and folder.stats.exists() and all(rows)
    return rows if there else None


def _open(recipe: Recipe, path: str | os.PathLike, rank: int, overwrite: bool) -> Folder:
    if rank and overwrite:  # rank 0 alone removes another dataset
        folder = Folder(path, recipe)
        wait(
            lambda: (found := stored_recipe(folder.path)) and found.to_json() == recipe.to_json(),
            folder,
            lambda: "rank 0 to make the folder",
        )
    return claim(path, recipe, overwrite=overwrite and not rank)


def _drop_damaged(folder: Folder) -> None:
    for shard in range(folder.recipe.shards):
        path, lock = folder.shard_path(shard), folder.lock(shard)
        if lock is None:  # being made just now
            continue
        try:
            with explained("replace", path):
                facts = folder.facts(shard)
                if path.exists() and (facts is None or sha256(path) != facts["sha256"]):
                    path.unlink()
        finally:
            lock.release()


def generate(
    recipe: Recipe,
    folder: str | os.PathLike,
    *,
    device: str | torch.device = "cpu",
    backend: str = "auto",
    rank: int = 0,
    ranks: int = 1,
    observer: Callable[[Progress], object] | None = None,
    overwrite: bool = False,
    command: str | None = None,
) -> Summary:
    """Make the dataset of a recipe in a folder, or the part of it that is still missing.

    The files depend on the recipe alone: not on the batch, the number of threads or ranks, the device, or how often the
    work was interrupted. Shards are written under a temporary name, synced and renamed; what is finished is kept.
    Computing, and writing and hashing, run in two threads.

    A sample is dead when the standard deviation of v over the grid of its last frame is at most 1e-3. With
    `recipe.redraw_dead` it is replaced by the run from its next start, at most 20 times, and counted.

    Args:
        recipe: what to make.
        folder: new, or holding the same dataset in any state of completion.
        device, backend: where to compute; see `eqflow.ops.gray_scott`.
        rank, ranks: this process makes the shards s with s % ranks == rank; rank 0 waits for the others, and the last
            to finish writes stats.yaml and manifest.json.
        observer: called with a `Progress` in this thread, at each step forward.
        overwrite: replace the eqflow dataset of another recipe. With the same recipe, which gives the same bytes,
            only the shards whose checksum fails are made again.
        command: kept in the manifest.

    Returns:
        What was done. If nothing was left to do, `already_complete` is true.

    Raises:
        DatasetError: the folder holds something else, a file was changed, the disk refuses, or a sample always dies.
        BackendError: the device or the backend is not available.
        KeyboardInterrupt: at once; finished shards are kept, and the same call goes on.

    Example:
        >>> import tempfile
        >>> recipe = Recipe.from_preset("wave", samples=2, size=32, steps=50)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     generate(recipe, folder + "/wave").complete
        True
    """
    if not 0 <= rank < ranks:
        raise ValueError(f"expected rank in [0, ranks), got rank {rank} of {ranks}")
    device = _backend.check_device(device)
    environment = _environment(device, _backend.choose(backend, device), command)
    begin = time.monotonic()
    place, made, updates = Folder(folder, recipe), 0, 0
    rows = None if overwrite else _already_complete(place)
    if rows is None:
        place = _open(recipe, folder, rank, overwrite)
        if overwrite:
            _drop_damaged(place)
            rows = _already_complete(place)
    already = rows is not None
    if not already:
        own = range(rank, recipe.shards, ranks)
        made, updates = Pipeline(place, own, device, backend, observer).run()
        rows = _finish(place, environment)
        if rows is None and rank == 0:
            rows = wait(lambda: _finish(place, environment), place, lambda: _missing(place, ranks))
    known = rows if rows is not None else [r for s in range(rank, recipe.shards, ranks) if (r := place.finished(s))]
    counts = _counts(known)
    return Summary(
        folder=place.path,
        complete=rows is not None,
        already_complete=already,
        shards=recipe.shards,
        shards_made=made,
        cell_updates=updates,
        seconds=time.monotonic() - begin,
        **counts,
    )


def _missing(folder: Folder, ranks: int) -> str:
    missing = [shard for shard in range(folder.recipe.shards) if folder.finished(shard) is None]
    owners = sorted({shard % ranks for shard in missing})
    return f"shards {', '.join(map(str, missing[:8]))} of ranks {', '.join(map(str, owners))}"
