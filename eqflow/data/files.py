"""Files that appear whole or not at all, and errors of the disk that say what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path


class DatasetError(RuntimeError):
    """A dataset on disk cannot be made or read; the message says what, where and what to do."""


_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again, the finished shards are kept",
    errno.EDQUOT: "the quota is used up: free some space and run the same command again, the finished shards are kept",
    errno.EFBIG: "the file would be larger than allowed here: take a smaller shard_samples, or raise ulimit -f",
    errno.EACCES: "permission denied: choose a folder that you may write to",
    errno.EPERM: "permission denied: choose a folder that you may write to",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.ENAMETOOLONG: "the name is too long: choose a shorter one",
}


@contextlib.contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a DatasetError that names the action, the path and the remedy."""
    try:
        yield
    except OSError as error:
        reason = _REMEDIES.get(error.errno, str(error))
        raise DatasetError(f"cannot {action} {path}: {reason}") from error


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, content: bytes | memoryview, beside: Path | None = None) -> None:
    """Give a file this content, whole or not at all, whatever happens.

    Args:
        path: the file; its folder is made.
        content: the bytes.
        beside: a folder of the same disk for the unfinished file; None: hidden next to the file.

    Raises:
        DatasetError: the disk refuses.
    """
    hidden = path.name if beside else f".{path.name}"
    temporary = (beside or path.parent) / f"{hidden}.{os.uname().nodename}.{os.getpid()}.tmp"
    with explained("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
