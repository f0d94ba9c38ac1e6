"""Files that appear whole or not at all, and the cache of everything that took long to compute."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from eqflow.data import DatasetError
from eqflow.data.tensors import read_tensors, save_tensors

_SECONDS_BETWEEN_CHECKPOINTS = 20.0


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let a function write a file beside its place, then move it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.{path.name}")  # keeps the suffix, from which writers know the format
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def digest(*values: Any) -> str:
    """Twelve letters that stand for tensors and plain values."""
    found = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            found.update(value.detach().cpu().contiguous().numpy().tobytes() + b"\0")
        else:
            found.update(repr(value).encode() + b"\0")
    return found.hexdigest()[:12]


class Cache:
    """Named tensors on disk, found again by the digest of what they were made from."""

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, name: str, key: str) -> Path:
        """Where something of that name and digest is kept."""
        return self.folder / f"{name}-{key}.safetensors"

    def load(self, path: Path) -> dict[str, Tensor] | None:
        """What is kept, or None; a damaged file counts as absent."""
        if not path.exists():
            return None
        try:
            return read_tensors(path)[0]
        except DatasetError as error:
            print(f"{error}; it is made again", file=sys.stderr)
            return None

    def save(self, path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep tensors with a note."""
        self.folder.mkdir(parents=True, exist_ok=True)
        ignore = self.folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
        save_tensors(path, tensors, about)

    def get(self, name: str, key: str, make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """What is kept, or else what `make` gives, which is kept from then on."""
        path = self.path(name, key)
        found = self.load(path)
        if found is None:
            found = dict(make())
            self.save(path, found, {"name": name, "key": key})
        return found


class Checkpoint:
    """The state of a training on disk, written now and then, gone when the training is done."""

    def __init__(self, cache: Cache, name: str, key: str):
        self.cache, self.path, self.written = cache, cache.path(f"{name}-unfinished", key), time.monotonic()

    def load(self) -> dict[str, Tensor] | None:
        return self.cache.load(self.path)

    def save(self, state: dict[str, Tensor]) -> None:
        if time.monotonic() - self.written > _SECONDS_BETWEEN_CHECKPOINTS:
            self.cache.save(self.path, state, {})
            self.written = time.monotonic()

    def done(self) -> None:
        self.path.unlink(missing_ok=True)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Plain values; what is not finite becomes null, which JSON lacks."""
    text = json.dumps(_plain(values), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.7g}") if abs(value) < float("inf") else None
    return value
