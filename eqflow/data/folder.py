"""One dataset, one folder: its paths, who owns it, which shards are done, and the locks that keep writers apart."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from eqflow.data.files import DatasetError, explained, write_whole
from eqflow.data.lock import Lock
from eqflow.data.recipe import Recipe


def read_json(path: Path) -> dict | None:
    """The object in a JSON file, or None if there is no such file."""
    with explained("read", path):
        try:
            text = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DatasetError(f"{path} is damaged: it should hold a JSON object. Delete it and run the same command again")
    return value


_FACTS = {"shard", "file", "samples", "bytes", "sha256", "dead", "redrawn", "rejected", "sums"}


class Folder:
    """The layout of one dataset.

    data/train/<name>_NNNNN.hdf5   the shards
    stats.yaml                     statistics of the fields, for The Well's normalisation
    manifest.json                  recipe, counts, checksums; written last: its presence says that all is there
    .shards/recipe.json, NNNNN.json, NNNNN.lock   what a restart needs
    """

    def __init__(self, path: str | os.PathLike, recipe: Recipe):
        self.path, self.recipe = Path(path), recipe
        self.train = self.path / "data" / "train"
        self.private = self.path / ".shards"
        self.manifest = self.path / "manifest.json"
        self.stats = self.path / "stats.yaml"

    def shard_path(self, shard: int) -> Path:
        return self.train / f"{self.recipe.name}_{shard:05d}.hdf5"

    def part_path(self, shard: int) -> Path:
        """Where a shard grows; no reader takes this name for a dataset."""
        return self.train / f".{self.recipe.name}_{shard:05d}.{os.uname().nodename}.{os.getpid()}.part"

    def facts_path(self, shard: int) -> Path:
        return self.private / f"{shard:05d}.json"

    def write(self, path: Path, text: str) -> None:
        """Give `path` this content, whole or not at all."""
        write_whole(path, text.encode(), self.private)

    def lock(self, shard: int) -> Lock | None:
        """The right to make a shard, or None if another process has it."""
        with explained("lock", self.private):
            lock = Lock.take(self.private / f"{shard:05d}.lock")
            if lock and lock.exclusive:
                for leftover in self.train.glob(f".{self.recipe.name}_{shard:05d}.*.part"):
                    leftover.unlink(missing_ok=True)
        return lock

    def facts(self, shard: int) -> dict | None:
        """What is known of a shard that was finished, or None."""
        found = read_json(self.facts_path(shard))
        if found is None:
            manifest = read_json(self.manifest) or {}
            found = next((row for row in manifest.get("shards", []) if row.get("shard") == shard), None)
        if found is not None and not found.keys() >= _FACTS:
            raise DatasetError(
                f"{self.facts_path(shard)} is damaged: delete it and {self.shard_path(shard)}, run again"
            )
        return found

    def finished(self, shard: int) -> dict | None:
        """The facts of a shard that is in place and as long as it was, None if it is still to be made.

        Raises:
            DatasetError: the file was changed.
        """
        facts, path = self.facts(shard), self.shard_path(shard)
        with explained("read", path):
            size = path.stat().st_size if path.exists() else None
        if size is None:
            return None
        if facts is None or facts["bytes"] != size:
            was = "eqflow did not finish it" if facts is None else f"eqflow wrote {facts['bytes']:,} bytes"
            raise DatasetError(f"{path} has {size:,} bytes, but {was}: delete it and run the same command again")
        return facts


def stored_recipe(path: Path) -> Recipe | None:
    """The recipe of the dataset in a folder, or None if there is no dataset."""
    for file in (path / ".shards" / "recipe.json", path / "manifest.json"):
        values = read_json(file)
        if values is not None:
            try:
                return Recipe.from_json(values.get("recipe", values))
            except (ValueError, TypeError) as error:
                raise DatasetError(f"{file} is not a recipe that this eqflow can read: {error}") from None
    return None


def _difference(found: Recipe, wanted: Recipe) -> str:
    there, here = found.to_json(), wanted.to_json()
    name = next(key for key in here if here[key] != there[key])
    return f"{name} is {there[name]} there and {here[name]} here"


def _check_strangers(path: Path) -> None:
    strangers = sorted(entry.name for entry in path.iterdir() if entry.name != ".shards") if path.exists() else []
    if strangers:
        raise DatasetError(f"{path} holds files that are not an eqflow dataset ({strangers[0]}): choose a new folder")


def claim(path: str | os.PathLike, recipe: Recipe, *, overwrite: bool = False) -> Folder:
    """The folder for this recipe: made, found with the same recipe, or with `overwrite` emptied of another dataset.

    Raises:
        DatasetError: the folder holds another dataset or other files, or cannot be written.
    """
    folder = Folder(path, recipe)
    with explained("create", folder.path):
        if stored_recipe(folder.path) is None:
            _check_strangers(folder.path)
        folder.private.mkdir(parents=True, exist_ok=True)
        while (lock := Lock.take(folder.private / "claim.lock")) is None:
            time.sleep(0.05)
    try:
        found = stored_recipe(folder.path)
        if found is not None and found.to_json() != recipe.to_json():
            if not overwrite:
                raise DatasetError(
                    f"{folder.path} holds another dataset: {_difference(found, recipe)}. Choose another folder, "
                    "or replace the dataset with overwrite"
                )
            _remove(Folder(path, found))
            found = None
        recipe_path = folder.private / "recipe.json"
        if found is None or not recipe_path.exists():
            folder.write(recipe_path, json.dumps(recipe.to_json(), indent=2) + "\n")
    finally:
        lock.release()
    with explained("create", folder.train):
        folder.train.mkdir(parents=True, exist_ok=True)
    return folder


def _remove(folder: Folder) -> None:
    """Delete what eqflow wrote for a dataset and nothing else, what says that it is one last."""
    with explained("replace", folder.path):
        folder.manifest.unlink(missing_ok=True)
        folder.stats.unlink(missing_ok=True)
        for shard in range(folder.recipe.shards):
            folder.shard_path(shard).unlink(missing_ok=True)
        for leftover in folder.train.glob(f".{folder.recipe.name}_*.part"):
            leftover.unlink(missing_ok=True)
        for facts in folder.private.glob("*.json"):
            if facts.name != "recipe.json":
                facts.unlink(missing_ok=True)
        for empty in (folder.train, folder.train.parent):
            with contextlib.suppress(OSError):
                empty.rmdir()
        (folder.private / "recipe.json").unlink(missing_ok=True)
