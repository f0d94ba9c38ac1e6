"""The two threads of `generate`: one computes, one writes and hashes; the caller's thread watches."""

from __future__ import annotations

import atexit
import json
import os
import queue
import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

from eqflow.data.files import explained, sync_folder
from eqflow.data.folder import Folder
from eqflow.data.lock import Lock
from eqflow.data.shard import ShardWriter
from eqflow.data.simulate import Chunk, simulate
from eqflow.data.statistics import sample_sums, shard_sums


class Progress(NamedTuple):
    """How far `generate` is. Samples and shards are those of this rank, finished earlier or now; the rest: this run."""

    samples_done: int
    samples_total: int
    cell_updates: int
    shards_done: int
    shards_total: int
    bytes_written: int
    redrawn: int


class _Begin(NamedTuple):
    shard: int
    lock: Lock


class _End(NamedTuple):
    pass


class _Event(NamedTuple):
    """Something for the caller's thread to count."""

    samples: int = 0
    cell_updates: int = 0
    shards: int = 0
    made: int = 0
    bytes: int = 0
    redrawn: int = 0
    error: BaseException | None = None
    done: bool = False


class _Stopped(Exception):
    pass


class _Open:
    """The shard that the writing thread has in hand."""

    def __init__(self, folder: Folder, shard: int, lock: Lock):
        self._folder, self._shard, self._lock = folder, shard, lock
        recipe = folder.recipe
        self._sums = np.zeros((len(recipe.shard(shard)), 2 * recipe.frames - 1, 2, 2))
        self._dead = self._rejected = 0
        self._path = folder.part_path(shard)
        with explained("write", self._path):
            self._writer = ShardWriter(self._path, recipe, shard)

    def write(self, chunk: Chunk) -> None:
        self._dead += chunk.dead
        self._rejected += chunk.rejected
        frames = chunk.frames.numpy()
        with explained("write", self._path):
            for row, sample in zip(chunk.rows.tolist(), frames, strict=True):
                self._writer.write(row, sample, chunk.attempt)
                self._sums[row] = sample_sums(sample)

    def finish(self) -> int:
        """The facts first, then the name: a file with its final name always has its facts."""
        folder, recipe, target = self._folder, self._folder.recipe, self._folder.shard_path(self._shard)
        with explained("write", self._path):
            size, digest = self._writer.finish()
        samples = recipe.shard(self._shard)
        facts = {
            "shard": self._shard,
            "file": str(target.relative_to(folder.path)),
            "first_sample": samples.start,
            "samples": len(samples),
            "bytes": size,
            "sha256": digest,
            "dead": self._dead,
            "redrawn": int((self._writer.attempts > 0).sum()),
            "rejected": self._rejected,
            "sums": shard_sums(self._sums, recipe.height * recipe.width),
        }
        folder.write(folder.facts_path(self._shard), json.dumps(facts, indent=1) + "\n")
        with explained("write", target):
            os.replace(self._path, target)
            sync_folder(folder.train)
        self._lock.release()
        return size

    def discard(self) -> None:
        self._writer.discard()


class Pipeline:
    """Makes some shards of a dataset."""

    def __init__(
        self,
        folder: Folder,
        shards: Iterable[int],
        device: torch.device,
        backend: str,
        observer: Callable[[Progress], object] | None,
    ):
        self._folder, self._shards = folder, list(shards)
        self._device, self._backend, self._observer = device, backend, observer
        self._chunks: queue.Queue = queue.Queue(maxsize=2)
        self._events: queue.SimpleQueue = queue.SimpleQueue()
        self._stop = threading.Event()
        self._locks: list[Lock] = []

    def run(self) -> tuple[int, int]:
        """Make what is missing: shards made and cell updates."""
        # Daemons: a long native call cannot be interrupted, and must not hold up the caller.
        threads = [
            threading.Thread(target=self._guard, args=(work,), daemon=True) for work in (self._compute, self._write)
        ]
        for thread in threads:
            thread.start()
        total = sum(len(self._folder.recipe.shard(shard)) for shard in self._shards)
        progress = Progress(0, total, 0, 0, len(self._shards), 0, 0)
        made = 0
        try:
            while not (event := self._events.get()).done:
                if event.error:
                    raise event.error
                made += event.made
                progress = Progress(
                    progress.samples_done + event.samples,
                    total,
                    progress.cell_updates + event.cell_updates,
                    progress.shards_done + event.shards,
                    len(self._shards),
                    progress.bytes_written + event.bytes,
                    progress.redrawn + event.redrawn,
                )
                if self._observer:
                    self._observer(progress)
        finally:
            self._stop.set()
            threads[1].join(timeout=10)  # lets it close and delete the unfinished file
            threads[0].join(timeout=1)
            if threads[0].is_alive():
                # A native call that comes back while Python ends aborts the process: the end waits for it.
                atexit.register(threads[0].join)
            for lock in self._locks:
                lock.release()
        return made, progress.cell_updates

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except _Stopped:
            pass
        except BaseException as error:
            self._events.put(_Event(error=error))

    def _put(self, item) -> None:
        while not self._stop.is_set():
            try:
                return self._chunks.put(item, timeout=0.1)
            except queue.Full:
                continue
        raise _Stopped

    def _take(self):
        while not self._stop.is_set():
            try:
                return self._chunks.get(timeout=0.1)
            except queue.Empty:
                continue
        raise _Stopped

    def _compute(self) -> None:
        pending = self._shards
        while pending:
            held_elsewhere = []
            for shard in pending:
                lock = None
                if not self._folder.finished(shard):
                    lock = self._folder.lock(shard)
                    if lock is None:
                        held_elsewhere.append(shard)
                        continue
                if lock is None or self._folder.finished(shard):
                    self._events.put(_Event(samples=len(self._folder.recipe.shard(shard)), shards=1))
                    if lock:
                        lock.release()
                    continue
                self._compute_shard(shard, lock)
            pending = held_elsewhere
            if pending and self._stop.wait(0.2):
                raise _Stopped
        self._put(None)

    def _compute_shard(self, shard: int, lock: Lock) -> None:
        self._locks.append(lock)
        try:
            self._put(_Begin(shard, lock))
        except _Stopped:
            lock.release()
            raise
        for chunk in simulate(self._folder.recipe, shard, self._device, self._backend):
            self._put(chunk)
        self._put(_End())

    def _write(self) -> None:
        current: _Open | None = None
        try:
            while (item := self._take()) is not None:
                if isinstance(item, _Begin):
                    current = _Open(self._folder, *item)
                elif isinstance(item, Chunk):
                    current.write(item)
                    redrawn = item.rejected if item.attempt == 0 else 0
                    self._events.put(
                        _Event(
                            samples=len(item.rows),
                            cell_updates=item.cell_updates,
                            bytes=item.frames.nbytes,
                            redrawn=redrawn,
                        )
                    )
                else:
                    current.finish()
                    current = None
                    self._events.put(_Event(shards=1, made=1))
        finally:
            if current:
                current.discard()
        self._events.put(_Event(done=True))
