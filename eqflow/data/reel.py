"""The frames of a world as whole numbers of 8 bits, in one .npy that a rollout fills as it goes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from torch import Tensor

from eqflow.data.files import DatasetError, explained


class Reel:
    """An observer of a rollout that keeps the colours 0, k, 2k, ... of one world, [frames, 3, height, width], uint8.

    Every frame has its place from the beginning, so that one written again after an interruption gets the same bytes in
    the same place. The file grows as `.NAME.part` and gets its name in `close`, if all frames are there. A quarter of
    the size of the fields; 255 levels of [-1, 1] are more than an eye sees, and enough to find creatures by.

    Args:
        path: the file; its folder is made.
        frames: number of frames, the first one of step 0.
        shape: (channels, height, width) of a frame.
        every: steps between frames.

    Raises:
        DatasetError: the disk refuses.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     reel = Reel(folder + "/world.npy", 2, (3, 8, 8), every=5)
        ...     for step in (0, 5):
        ...         reel.observe(step, 0.0, torch.ones(1, 3, 8, 8))
        ...     reel.close()
        ...     np.load(folder + "/world.npy")[:, 0, 0, 0].tolist()
        [255, 255]
    """

    def __init__(self, path: str | os.PathLike, frames: int, shape: tuple[int, int, int], *, every: int):
        self.path, self.every, self._seen = Path(path), every, 0
        self.part = self.path.with_name(f".{self.path.name}.part")
        self._shape = (frames, *shape)
        with explained("write", self.part):
            self.part.parent.mkdir(parents=True, exist_ok=True)
            again = self.part.exists()
            mode = "r+" if again else "w+"
            self._frames = np.lib.format.open_memmap(self.part, mode=mode, dtype=np.uint8, shape=self._shape)
        if self._frames.shape != self._shape:
            raise DatasetError(f"{self.part} belongs to another world: delete it and run the same command again")

    def options(self) -> dict:
        """What a checkpoint compares."""
        return {"every": self.every, "shape": list(self._shape)}

    def observe(self, step: int, time: float, state: Tensor) -> None:
        """Take note of a field [1, channels, height, width] in [-1, 1]; what lies beyond is cut."""
        levels = ((state[0].clamp(-1, 1) + 1) * 127.5).round()
        self._frames[step // self.every] = levels.to("cpu").numpy().astype(np.uint8)
        self._seen = step // self.every + 1

    def state_dict(self) -> dict:
        with explained("write", self.part):
            self._frames.flush()
        return {"seen": self._seen}

    def load_state_dict(self, values: dict) -> None:
        self._seen = values["seen"]

    def close(self) -> None:
        """Give the file its name, if all frames are there."""
        with explained("write", self.path):
            self._frames.flush()
            if self._seen == self._shape[0]:
                os.replace(self.part, self.path)


def fields(
    frames: np.ndarray,  # uint8
) -> np.ndarray:
    """The same numbers in [-1, 1], float32."""
    return frames.astype(np.float32) / 127.5 - 1
