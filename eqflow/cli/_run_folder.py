"""The folders that commands write to: what each was begun with, and which files are its own.

A rollout   rollout.json                       the options: the same command goes on, another is refused
            data/train/<name>_<rank>.hdf5      the frames
            .rollout/<rank>.pt                 the checkpoint
A fit       fit.json                           the options, likewise
            flow.safetensors                   everything that is needed to use the flow
            report.json                        what was found, and with what
            flow.png                           the picture
            .fit/<stage>.pt                    checkpoints, until all is done
A density   density.json, density.safetensors, report.json, density.png, .density/training.pt, likewise
A score     train.json, score.safetensors, report.json, score.png, .train/training.pt, likewise
A world     design.json, score.safetensors, report.json, trails.png, .design/training.pt, likewise
            index.html                         the report, with everything in it
            world.npy, null.npy                frames of 8-bit colours, of the rule and of K = 0
            tracks.npz                         where each creature was
            film.webp and more pictures
An atlas    atlas.json, report.json, atlas.png, atlas.webp, .atlas/<rule>.npy, likewise
A compare   compare.json, report.json, compare.png, compare.gif, .compare/<sample>.pt, likewise
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

from eqflow.cli._shell import Problem, in_options
from eqflow.cli._words import bytes_


class Claimed:
    """A folder that belongs to one command and its options."""

    kind: ClassVar[str]
    own: ClassVar[tuple[str, ...]]  # patterns of the files that it writes, besides its options
    advice: ClassVar[str]  # where the disk is too small

    def __init__(self, path: Path):
        self.path, self.options = path, path / f"{self.kind}.json"

    def begun(self) -> dict[str, Any] | None:
        """The options of what was begun here, or None."""
        from eqflow.data import DatasetError
        from eqflow.data.folder import read_json

        try:
            return read_json(self.options)
        except DatasetError as error:
            raise Problem(in_options(error)) from None

    def claim(self, options: dict[str, Any], needed: int, overwrite: bool) -> None:
        """Make the folder, or find it begun with the same options.

        Raises:
            Problem: it holds something else, or the disk is too small.
        """
        from eqflow.dynamics.fingerprint import difference

        found = self.begun()
        strangers = [entry.name for entry in self.path.iterdir()] if found is None and self.path.is_dir() else []
        if set(strangers) - {f".{self.kind}"}:
            raise Problem(
                f"expected {self.path} to be new or to hold a {self.kind}, found {min(strangers)}: choose --out"
            )
        different = found is not None and difference(found, options)
        if different and not overwrite:
            raise Problem(
                f"expected {self.path} to be new or to hold the same {self.kind}, but {different}: choose another "
                "--out, or replace it with --overwrite"
            )
        if different:
            self._remove()
        if found is None or different:
            free = shutil.disk_usage(next(p for p in (self.path, *self.path.absolute().parents) if p.exists())).free
            if needed > free:
                raise Problem(f"expected {bytes_(needed)} of free disk, found {bytes_(free)}: {self.advice}")
            write_json(self.options, options)

    def _remove(self) -> None:
        """Delete what the command wrote and nothing else, what says whose it is last."""
        for pattern in self.own:
            for file in self.path.glob(pattern):
                file.unlink(missing_ok=True)
        self.options.unlink(missing_ok=True)


class RunFolder(Claimed):
    """The paths of one rank of a rollout."""

    kind = "rollout"
    own = ("data/train/*.hdf5", "data/train/.*.hdf5.part", ".rollout/*.pt")
    advice = "take fewer --batch, a larger --every, or another --out"

    def __init__(self, path: Path, name: str, rank: int):
        super().__init__(path)
        self.frames = path / "data" / "train" / f"{name}_{rank:05d}.hdf5"
        self.checkpoint = path / ".rollout" / f"{rank:05d}.pt"


class Fitted(Claimed):
    """The paths of something that is learned from points and kept with a report and a picture."""

    stem: ClassVar[str]  # of the names of its files

    def __init__(self, path: Path):
        super().__init__(path)
        self.tensors, self.report = path / f"{self.stem}.safetensors", path / "report.json"
        self.picture, self.stages = path / f"{self.stem}.png", path / f".{self.kind}"

    def finish(self) -> None:
        """Delete the checkpoints: the report is there, so nothing will go on from them."""
        for file in self.stages.glob("*"):
            file.unlink(missing_ok=True)
        if self.stages.is_dir():
            self.stages.rmdir()


class FitFolder(Fitted):
    """The paths of a fit."""

    kind = "fit"
    stem = "flow"
    own = ("report.json", "flow.safetensors", "flow.png", ".fit/*.pt")
    advice = "take a smaller --pool, or another --out"


class DensityFolder(Fitted):
    """The paths of a density."""

    kind = "density"
    stem = "density"
    own = ("report.json", "density.safetensors", "density.png", ".density/*.pt")
    advice = "take another --out"


class ScoreFolder(Fitted):
    """The paths of a score of patterns."""

    kind = "train"
    stem = "score"
    own = ("report.json", "score.safetensors", "score.png", ".train/*.pt")
    advice = "take another --out"


class CompareFolder(Fitted):
    """The paths of a comparison with the truth; its film stands where others keep tensors."""

    kind = "compare"
    stem = "compare"
    own = ("report.json", "compare.gif", "compare.png", ".compare/*.pt")
    advice = "take fewer --samples, or another --out"

    def __init__(self, path: Path):
        super().__init__(path)
        self.tensors = path / "compare.gif"


class DesignFolder(Fitted):
    """The paths of a world of creatures."""

    kind = "design"
    stem = "score"
    own = (
        "report.json", "index.html", "score.safetensors", "world.npy", "null.npy", ".world.npy.part", ".null.npy.part",
        "tracks.npz", "film.webp", "trails.png", "average.png", "null.png", "scatter.png", "rule.png", "curves.png",
        ".design/*",
    )  # fmt: skip
    advice = "take a smaller --size, a larger --every, or another --out"

    def __init__(self, path: Path):
        super().__init__(path)
        self.world, self.null, self.tracks = path / "world.npy", path / "null.npy", path / "tracks.npz"
        self.page, self.film, self.picture = path / "index.html", path / "film.webp", path / "trails.png"


class AtlasFolder(Fitted):
    """The paths of an atlas; its film stands where others keep tensors."""

    kind = "atlas"
    stem = "atlas"
    own = ("report.json", "atlas.webp", "atlas.png", ".atlas/*")
    advice = "take fewer --rules, a larger --every, or another --out"

    def __init__(self, path: Path):
        super().__init__(path)
        self.tensors = path / "atlas.webp"


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Give a file this content, whole or not at all.

    Raises:
        Problem: it cannot be written.
    """
    from eqflow.data.files import DatasetError, write_whole

    try:
        write_whole(path, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())
    except DatasetError as error:
        raise Problem(in_options(error)) from None
