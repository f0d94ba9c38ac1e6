"""Waiting for other processes that work in the same folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from eqflow.data.files import DatasetError
from eqflow.data.folder import Folder

PATIENCE = 600.0  # seconds without any change before the others are given up
_POLL = 0.2


def _signs_of_life(folder: Folder) -> set:
    signs = set()
    for entry in (*folder.private.glob("*"), *folder.train.glob("*")):
        with contextlib.suppress(FileNotFoundError):
            signs.add((entry.name, entry.stat().st_mtime_ns))
    return signs


def wait(ready: Callable[[], object], folder: Folder, waiting_for: Callable[[], str]) -> object:
    """Poll until `ready` returns something true, for as long as files in the folder still change."""
    signs, since = None, time.monotonic()
    while not (result := ready()):
        if (now := _signs_of_life(folder)) != signs:
            signs, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise DatasetError(
                f"{folder.path}: no progress for {PATIENCE:.0f} s while waiting for {waiting_for()}. Does every rank "
                "run, with the same folder? Run the same command again: what is there is kept"
            )
        time.sleep(_POLL)
    return result
