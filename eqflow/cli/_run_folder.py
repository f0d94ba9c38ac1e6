"""The folder of a rollout: what it was begun with, and the files of each rank.

rollout.json                       the options: the same command goes on, another is refused
data/train/<name>_<rank>.hdf5      the frames
.rollout/<rank>.pt                 the checkpoint
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from eqflow.cli._shell import Problem, in_options
from eqflow.cli._words import bytes_


class RunFolder:
    """The paths of one rank."""

    def __init__(self, path: Path, name: str, rank: int):
        self.path, self.options = path, path / "rollout.json"
        self.frames = path / "data" / "train" / f"{name}_{rank:05d}.hdf5"
        self.checkpoint = path / ".rollout" / f"{rank:05d}.pt"

    def claim(self, options: dict[str, Any], needed: int, overwrite: bool) -> None:
        """Make the folder, or find it begun with the same options.

        Raises:
            Problem: it holds something else, or the disk is too small.
        """
        from eqflow.data import DatasetError
        from eqflow.data.folder import read_json
        from eqflow.dynamics.fingerprint import difference

        try:
            found = read_json(self.options)
        except DatasetError as error:
            raise Problem(in_options(error)) from None
        strangers = [entry.name for entry in self.path.iterdir()] if found is None and self.path.is_dir() else []
        if set(strangers) - {".rollout"}:
            raise Problem(f"expected {self.path} to be new or to hold a rollout, found {min(strangers)}: choose --out")
        different = found is not None and difference(found, options)
        if different and not overwrite:
            raise Problem(
                f"expected {self.path} to be new or to hold the same rollout, but {different}: choose another --out, "
                "or replace it with --overwrite"
            )
        if different:
            self._remove()
        if found is None or different:
            free = shutil.disk_usage(next(p for p in (self.path, *self.path.absolute().parents) if p.exists())).free
            if needed > free:
                raise Problem(
                    f"expected {bytes_(needed)} of free disk for the frames, found {bytes_(free)}: take fewer --batch, "
                    "a larger --every, or another --out"
                )
            self._write(options)

    def _remove(self) -> None:
        """Delete what a rollout wrote and nothing else, what says that it is one last."""
        for pattern in ("data/train/*.hdf5", "data/train/.*.hdf5.part", ".rollout/*.pt"):
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)
        self.options.unlink(missing_ok=True)

    def _write(self, options: dict[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        part = self.options.with_name(f".rollout.json.{os.getpid()}.tmp")
        part.write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
        os.replace(part, self.options)
