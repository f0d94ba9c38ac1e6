"""An observer that writes the frames of a rollout while the next steps are computed.

The number of frames is known before the first, so each has its place in the file from the beginning: a frame that is
written again after an interruption gets the same bytes in the same place.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eqflow.data.files import DatasetError, explained, sync_folder
from eqflow.data.frames import layout
from eqflow.data.lock import Lock
from eqflow.data.shard import _write_at

_BUFFER_BYTES = 2**24  # frames wait for each other so that a sample's stand in one write
_MOST_FRAMES = 64


class Recorder:
    """An observer that keeps the states 0, k, 2k, ... of a rollout in one file.

    A thread writes; `state_dict`, which a checkpoint calls, waits until all is on the disk. The file grows as
    `.NAME.part` and gets its name when all frames are there. Leave the `with` block, or call `close`, at the end.

    Args:
        path: the file, such as `run/data/train/gaussian_00000.hdf5`; its folder is made.
        like: [batch, ...], a state of the rollout: its shape counts, not its numbers.
        steps: steps of the whole trajectory.
        every: steps between frames; it must divide `steps`.
        dt: time step.
        first_sample: global index of the first sample.
        about: plain values kept in the file.

    Raises:
        DatasetError: the disk refuses, or another process writes this file.

    Example:
        >>> import tempfile
        >>> from eqflow.data.frames import read_frames
        >>> from eqflow.dynamics import rollout
        >>> state = torch.ones(3, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Recorder(folder + "/run.hdf5", state, steps=100, every=10, dt=0.01) as recorder:
        ...         _ = rollout(state, lambda x: -x, 100, dt=0.01, observers=[recorder])
        ...     read_frames(folder + "/run.hdf5").shape
        torch.Size([3, 11, 2])
    """

    def __init__(
        self,
        path: str | os.PathLike,
        like: Tensor,  # [batch, channels, height, width] or [batch, dimension]
        *,
        steps: int,
        every: int,
        dt: float,
        first_sample: int = 0,
        about: Mapping[str, Any] | None = None,
    ):
        if every < 1 or steps % every:
            raise ValueError(f"expected every to divide steps = {steps}, got {every}")
        self.path, self.every = Path(path), every
        self.part = self.path.with_name(f".{self.path.name}.part")
        self._shape, self._frames = tuple(like.shape), steps // every + 1
        times = np.arange(self._frames) * (every * dt)
        self._layout = layout(len(like), like.shape[1:], times, first_sample, dict(about or {}))
        self._seen = 0  # frames from the beginning without a gap
        self._error: BaseException | None = None
        self._handle = -1
        with explained("write", self.part):
            self.part.parent.mkdir(parents=True, exist_ok=True)
            self._lock = Lock.take(self.path.with_name(f".{self.path.name}.lock"))
        if self._lock is None:
            raise DatasetError(f"another process writes {self.path}: wait for it, or choose another folder")
        try:
            with explained("write", self.part):
                self._open()
        except BaseException:
            self._lock.release()
            raise
        self._queue: queue.Queue = queue.Queue(maxsize=4)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _open(self) -> None:
        if self.path.exists() and not self.part.exists():
            os.replace(self.path, self.part)  # complete before, and about to be gone through again
        self._handle = os.open(self.part, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(self._handle, self._layout.size)
        for offset, data in self._layout.pieces:
            _write_at(self._handle, data, offset)

    def options(self) -> dict:
        """What a checkpoint compares."""
        return {"every": self.every, "frames": self._frames, "shape": list(self._shape)}

    def observe(self, step: int, time: float, state: Tensor) -> None:
        index = step // self.every
        if tuple(state.shape) != self._shape or index >= self._frames:
            raise ValueError(
                f"expected {self._frames} frames of shape {list(self._shape)}, got frame {index} of shape "
                f"{list(state.shape)}: give the Recorder the steps and a state of this rollout"
            )
        self._put((index, state.detach().to("cpu", torch.float32, copy=True)))
        self._seen = max(self._seen, index + 1)

    def _put(self, item: Any) -> None:
        self._raise()
        self._queue.put(item)

    def _raise(self) -> None:
        if self._error is not None:
            with explained("write", self.part):
                raise self._error

    def flush(self) -> None:
        """Wait until every frame is on the disk."""
        done = threading.Event()
        self._put(done)
        done.wait()
        self._raise()

    def state_dict(self) -> dict:
        self.flush()
        return {"seen": self._seen}

    def load_state_dict(self, values: dict) -> None:
        self._seen = values["seen"]

    def _work(self) -> None:
        waiting: list[tuple[int, np.ndarray]] = []
        while (item := self._queue.get()) is not None:
            try:
                if isinstance(item, threading.Event):
                    self._write(waiting)
                    waiting = []
                    os.fsync(self._handle)
                elif self._error is None:
                    waiting.append((item[0], item[1].numpy()))
                    full = len(waiting) * item[1].nbytes >= _BUFFER_BYTES or len(waiting) >= _MOST_FRAMES
                    if full or waiting[-1][0] != waiting[0][0] + len(waiting) - 1:
                        self._write(waiting)
                        waiting = []
            except BaseException as error:  # told to the rollout at its next frame
                self._error = self._error or error
                waiting = []
            if isinstance(item, threading.Event):
                item.set()

    def _write(self, waiting: list[tuple[int, np.ndarray]]) -> None:
        """Frames to their places; those of one sample that follow each other in one piece."""
        if waiting and waiting[-1][0] != waiting[0][0] + len(waiting) - 1:
            self._write(waiting[:-1])
            waiting = waiting[-1:]
        if not waiting:
            return
        block = np.stack([frame for _, frame in waiting], 1)  # [batch, frames, ...]
        if block.ndim == 3:
            block = block[:, :, None]
        for channel, offset in enumerate(self._layout.offsets):
            rows = np.ascontiguousarray(block[:, :, channel], "<f4")
            frame = rows[0, 0].nbytes if len(rows) else 0
            for sample, row in enumerate(rows):
                _write_at(self._handle, row, offset + (sample * self._frames + waiting[0][0]) * frame)

    def close(self) -> None:
        """Write what remains; the file gets its name if all frames are there. Twice does no harm."""
        if self._handle < 0:
            return
        try:
            self.flush()
        finally:
            self._queue.put(None)
            self._thread.join()
            os.close(self._handle)
            self._handle = -1
            if self._error is None and self._seen == self._frames:
                with explained("write", self.path):
                    os.replace(self.part, self.path)
                    sync_folder(self.path.parent)
            self._lock.release()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
