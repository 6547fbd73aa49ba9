"""Which process writes to a folder: a file that it holds locked for as long as it lives, with its number in it."""

from __future__ import annotations

import contextlib
import os
import socket
import weakref
from typing import TYPE_CHECKING, Any, Final

from ..lake.errors import Unavailable
from .container import refused

if TYPE_CHECKING:
    from types import ModuleType

flock: ModuleType | None
try:
    import fcntl as flock
except ImportError:  # not on this system
    flock = None

__all__ = ["LOCK", "FolderLock"]

LOCK: Final = "lock"
_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """The lock of a folder, taken at once or refused with Unavailable, which says who has it."""

    def __init__(self, folder: str) -> None:
        if flock is None:
            raise Unavailable("this system has no flock, so an index in a folder cannot be kept from other processes")
        path = os.path.join(folder, LOCK)
        try:
            while True:
                self._file: Any = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "r+b", 0)
                flock.flock(self._file, flock.LOCK_EX | flock.LOCK_NB)
                if _same(self._file.fileno(), path):
                    break
                self._file.close()  # it was removed meanwhile by somebody who made the folder in vain
        except BlockingIOError as error:
            holder = self._file.read(200).decode("utf-8", "replace").strip() or "another process"
            self._file.close()
            raise Unavailable(f"{folder} is open for writing by {holder}: close it there first") from error
        except OSError as error:
            raise refused(error, path, "lock") from error
        with contextlib.suppress(OSError):  # only for the message above
            os.ftruncate(self._file.fileno(), 0)
            os.pwrite(self._file.fileno(), f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        _held.add(self)

    def release(self) -> None:
        """Let others have it."""
        if not self._file.closed and flock is not None:
            flock.flock(self._file, flock.LOCK_UN)  # closing alone would leave it with processes that were forked
            self._file.close()

    def leave(self) -> None:
        """Close the file without unlocking it: for a forked process, which would hold on to its parent's lock."""
        self._file.close()


def _same(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _leave_all() -> None:
    for lock in list(_held):
        lock.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
