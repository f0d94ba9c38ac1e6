"""What a rollout goes on from: state, step, what the observers know, and the options that must be the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from eqflow.dynamics.fingerprint import describe, difference
from eqflow.dynamics.observers import Observer


class ResumeError(RuntimeError):
    """A checkpoint belongs to another rollout; the message names the first difference."""


class Store(Protocol):
    """Where checkpoints go, such as `eqflow.data.checkpoint.Checkpoint`."""

    every: int

    def due(self) -> bool: ...

    def load(self) -> dict | None: ...

    def save(self, values: dict) -> None: ...


class Point(NamedTuple):
    """A place on a trajectory."""

    state: Tensor
    step: int
    stopped: bool


def _options(observer: Observer) -> dict:
    own = getattr(observer, "options", None)
    return describe(own()) if own else {"every": observer.every}


class Book:
    """The checkpoints of one rollout: state, step, options, and what the observers know."""

    def __init__(self, store: Store | None, options: dict | None, observers: Sequence[Observer], end: int):
        # Guards and progress bars know nothing that must be kept, and may differ from run to run.
        self._observers = [observer for observer in observers if observer.state_dict()] if store else []
        rows = [{"type": type(observer).__name__, **_options(observer)} for observer in self._observers]
        self._options = {**(options or {}), "observers": {str(number): row for number, row in enumerate(rows)}}
        self._store, self._kept, self._end = store, 0, end
        self.every = [store.every] if store else []

    def resume(self, device: torch.device) -> Point | None:
        found = self._store.load() if self._store else None
        if found is None:
            return None
        if different := difference(found.get("options"), self._options):
            raise ResumeError(
                f"the checkpoint belongs to another rollout: {different}. Give the same options again, or another file"
            )
        for observer, values in zip(self._observers, found["observers"], strict=True):
            observer.load_state_dict(values)
        if found["step"] > self._end:
            raise ResumeError(
                f"the checkpoint stands at step {found['step']}, beyond the last step {self._end} that was asked for: "
                "ask for more steps, or give another file"
            )
        self._kept = found["step"]
        return Point(found["state"].to(device), found["step"], found["stopped"])

    def keep(self, point: Point, last: bool) -> None:
        if self._store is None or point.step == self._kept:
            return
        due = point.step // self._store.every > self._kept // self._store.every and self._store.due()
        if due or last:
            # What the observers know first: a recorder has its frames on disk before the step counts as done.
            known = [observer.state_dict() for observer in self._observers]
            self._store.save({**point._asdict(), "options": self._options, "observers": known})
            self._kept = point.step
