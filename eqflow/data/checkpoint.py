"""One file that a long run goes on from: replaced whole or not at all."""

from __future__ import annotations

import io
import os
import pickle
import time
from pathlib import Path

import torch

from eqflow.data.files import DatasetError, explained, write_whole


class Checkpoint:
    """Where a rollout keeps what it needs to go on, and how often.

    Written under a temporary name, synced and renamed: whatever happens, the file is one whole checkpoint. It holds
    tensors and plain values and is read with `weights_only`, so a file from elsewhere cannot run code.

    Args:
        path: the file; its folder is made.
        every: steps between checkpoints.
        seconds: at least this long between checkpoints. When they are made changes no bit of the rollout.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoint = Checkpoint(folder + "/run.pt", every=100)
        ...     checkpoint.save({"step": 100, "state": torch.zeros(2)})
        ...     checkpoint.load()["step"]
        100
    """

    def __init__(self, path: str | os.PathLike, every: int = 1000, seconds: float = 0.0):
        if every < 1:
            raise ValueError(f"expected every from 1 up, got {every}")
        self.path, self.every, self.seconds = Path(path), every, seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed since the last one."""
        return time.monotonic() - self._last >= self.seconds

    def load(self) -> dict | None:
        """What was saved last, on the CPU, or None.

        Raises:
            DatasetError: the file is damaged.
        """
        with explained("read", self.path):
            if not self.path.exists():
                return None
            try:
                return torch.load(self.path, map_location="cpu", weights_only=True)
            except (RuntimeError, EOFError, pickle.UnpicklingError, KeyError, ValueError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DatasetError(f"{self.path} is not a checkpoint that can be read ({reason}): delete it to start over")

    def save(self, values: dict) -> None:
        """Replace the file.

        Raises:
            DatasetError: the disk refuses.
        """
        content = io.BytesIO()  # torch.save straight to a full disk would hide the OSError
        torch.save(values, content)
        write_whole(self.path, content.getbuffer())
        self._last = time.monotonic()
