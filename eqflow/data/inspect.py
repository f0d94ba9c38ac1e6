"""What is in a dataset, is it complete, and is it still what was written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from eqflow.data.files import DatasetError, explained
from eqflow.data.folder import Folder, read_json, stored_recipe
from eqflow.data.recipe import Recipe
from eqflow.data.shard import sha256


class Report(NamedTuple):
    """The state of a dataset on disk."""

    folder: Path
    complete: bool  # everything is there, and nothing is wrong as far as it was checked
    problems: list[str]  # one line each
    recipe: Recipe
    samples: int  # in finished shards
    shards: int  # finished
    shards_total: int
    shape: tuple[int, int, int, int, int]  # [samples, frames, 2, height, width] when complete
    bytes: int
    dead: int
    redrawn: int
    rejected: int
    environment: dict  # versions, device and command of the run that finished; empty before
    checksums: bool  # whether the contents of the files were compared


def inspect(folder: str | os.PathLike, *, checksums: bool = True) -> Report:
    """Look at a dataset without changing it.

    Args:
        folder: the folder of the dataset.
        checksums: read every file and compare its SHA-256; else only the sizes are compared.

    Raises:
        DatasetError: there is no eqflow dataset, or it cannot be read.
    """
    path = Path(folder)
    recipe = stored_recipe(path)
    if recipe is None:
        what = "no such folder" if not path.exists() else "it has no manifest.json and no .shards/recipe.json"
        raise DatasetError(f"{path} is not an eqflow dataset: {what}. `eqflow generate` makes one")
    place = Folder(path, recipe)
    manifest = read_json(place.manifest)
    problems, rows = [], []
    missing = [shard for shard in range(recipe.shards) if not place.shard_path(shard).exists()]
    if missing:
        first = place.shard_path(missing[0]).relative_to(path)
        problems.append(f"{len(missing)} of {recipe.shards} shards are missing, first {first}; generate makes them")
    for shard in sorted(set(range(recipe.shards)) - set(missing)):
        facts, problem = _check_shard(place, shard, checksums)
        if problem:
            problems.append(problem)
        else:
            rows.append(facts)
    problems += _check_rest(place)
    return Report(
        folder=path,
        complete=not problems,
        problems=problems,
        recipe=recipe,
        samples=sum(row["samples"] for row in rows),
        shards=len(rows),
        shards_total=recipe.shards,
        shape=(recipe.samples, recipe.frames, 2, recipe.height, recipe.width),
        bytes=sum(row["bytes"] for row in rows),
        dead=sum(row["dead"] for row in rows),
        redrawn=sum(row["redrawn"] for row in rows),
        rejected=sum(row["rejected"] for row in rows),
        environment=(manifest or {}).get("environment", {}),
        checksums=checksums,
    )


def _check_shard(place: Folder, shard: int, checksums: bool) -> tuple[dict | None, str | None]:
    path = place.shard_path(shard)
    name = path.relative_to(place.path)
    facts = place.facts(shard)
    size = path.stat().st_size
    if facts is None:
        return facts, f"{name}: nothing is known about it; delete it and generate again"
    if size != facts["bytes"]:
        how = "truncated" if size < facts["bytes"] else "longer than it was"
        return facts, f"{name}: {how}, {size:,} bytes of {facts['bytes']:,}; delete it and generate again"
    if checksums:
        with explained("read", path):
            if sha256(path) != facts["sha256"]:
                return facts, f"{name}: altered, its SHA-256 is not what was written; delete it and generate again"
    return facts, None


def _check_rest(place: Folder) -> list[str]:
    problems = []
    shards = {place.shard_path(shard).name for shard in range(place.recipe.shards)}
    for entry in sorted(place.train.glob("*")):
        if entry.suffix in (".hdf5", ".h5") and entry.name not in shards:
            problems.append(
                f"{entry.relative_to(place.path)}: not of this dataset, but The Well's reader would take it"
            )
    missing = [file.name for file in (place.stats, place.manifest) if not file.exists()]
    if missing:
        problems.append(f"{' and '.join(missing)}: missing, the dataset is not finished; generate writes them last")
    return problems
