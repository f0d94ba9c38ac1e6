"""Locks that keep processes apart, on one machine or on a shared file system."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path


class Lock:
    """An exclusive lock on a file that is gone as soon as its process is."""

    def __init__(self, path: Path, handle: int, exclusive: bool = True):
        self._path, self._handle, self.exclusive = path, handle, exclusive

    @classmethod
    def take(cls, path: Path) -> Lock | None:
        """The lock, or None if another process holds it."""
        while True:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before us may have removed the name after we opened the file.
                if os.fstat(handle).st_ino == os.stat(path).st_ino:
                    return cls(path, handle)
            except BlockingIOError:
                os.close(handle)
                return None
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    os.close(handle)
                    raise
                # No locks on this file system: the temporary names alone keep writers apart.
                return cls(path, handle, exclusive=False)
            os.close(handle)

    def release(self) -> None:
        """Give the lock back; twice does no harm."""
        if self._handle >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = -1
