"""Sorted row hashes on disk: what :mod:`.rowsets` cannot hold in memory.

A file holds one or more runs of 16-byte records (low lane, high lane; little-endian), each run ascending and without
repeats. Files live in a temporary folder of their own and never outlive it.
"""

from __future__ import annotations

import errno
import os
import tempfile
from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.errors import LimitExceeded, Unavailable
from .mixing import Lanes
from .sorted_rows import within

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

__all__ = ["SpillFolder", "StoredRun"]

RECORD_BYTES: Final = 16
FENCE_ROWS: Final = 1024
"""Every so many rows the low lane is kept in memory, to find a range of rows without reading the others."""


class SpillFolder:
    """A temporary folder, made when the first run is written and removed by :meth:`close` with all that is in it.

    ``parent``: the folder to make it in; None stands for the system's.
    """

    def __init__(self, parent: str | None = None) -> None:
        """Nothing is written yet."""
        self._parent = parent
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0
        self.bytes_written = 0

    def write(self, runs: Sequence[Iterable[Lanes]]) -> list[StoredRun]:
        """Write runs, each given as consecutive blocks, to one new file.

        A full disk: LimitExceeded; any other refusal: Unavailable. Either way the file is gone.
        """
        path = ""
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="lakelet-spill-", dir=self._parent)
            self._files += 1
            path = os.path.join(self._folder.name, f"{self._files}.rows")
            return self._write(path, runs)
        except OSError as error:
            if path and os.path.exists(path):
                os.unlink(path)
            folder = self._parent or tempfile.gettempdir()
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
                raise LimitExceeded(
                    f"no space left in {folder} for row hashes that memory cannot hold: free some, set TMPDIR to a "
                    "larger disk, or allow more memory_bytes"
                ) from error
            raise Unavailable(
                f"cannot write row hashes that memory cannot hold to {folder}: {error.strerror}. Set TMPDIR to a "
                "folder that can be written, or allow more memory_bytes"
            ) from error

    def _write(self, path: str, runs: Sequence[Iterable[Lanes]]) -> list[StoredRun]:
        file = _File(path)
        stored = []
        with open(path, "wb") as out:
            for blocks in runs:
                first, rows = out.tell(), 0
                fences: list[NDArray[np.uint64]] = []
                for block in blocks:
                    records = np.empty((len(block), 2), "<u8")
                    records[:, 0], records[:, 1] = block.lo, block.hi
                    out.write(records.data)
                    fences.append(block.lo[-rows % FENCE_ROWS :: FENCE_ROWS].copy())
                    rows += len(block)
                    self.bytes_written += records.nbytes
                marks = np.concatenate(fences) if fences else np.empty(0, np.uint64)
                stored.append(StoredRun(file, first, rows, marks))
        return stored

    def close(self) -> None:
        """Remove the folder. Runs cannot be read any more."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


class _File:
    """A spill file and how many runs in it still count; it goes with the last of them."""

    __slots__ = ("path", "runs")

    def __init__(self, path: str) -> None:
        self.path = path
        self.runs = 0

    def release(self) -> None:
        self.runs -= 1
        if self.runs == 0 and os.path.exists(self.path):
            os.unlink(self.path)


class StoredRun:
    """One run in a spill file. ``rows`` records, ascending, without repeats."""

    __slots__ = ("_fences", "_file", "_first_byte", "rows")

    def __init__(self, file: _File, first_byte: int, rows: int, fences: NDArray[np.uint64]) -> None:
        """``fences``: the low lane of every FENCE_ROWS-th record from the first on."""
        self._file = file
        self._first_byte = first_byte
        self._fences = fences
        self.rows = rows
        file.runs += 1

    def read(self, start: int, stop: int) -> Lanes:
        """Records start to stop, by position."""
        count = max(0, min(stop, self.rows) - start)
        first = self._first_byte + start * RECORD_BYTES
        try:
            flat = np.fromfile(self._file.path, "<u8", 2 * count, offset=first)
        except OSError as error:
            raise Unavailable(f"cannot read back row hashes from {self._file.path}: {error.strerror}") from error
        if len(flat) != 2 * count:
            raise Unavailable(f"row hashes in {self._file.path} were cut short by somebody else: run again")
        records = flat.reshape(-1, 2)
        return Lanes(np.ascontiguousarray(records[:, 0]), np.ascontiguousarray(records[:, 1]))

    def between(self, low: int, high: int) -> Lanes:
        """Records whose low lane is at least ``low`` and at most ``high``."""
        # A record equal to a fence may stand before it too: its low lane can be shared.
        first = max(0, int(np.searchsorted(self._fences, np.uint64(low), side="left")) - 1) * FENCE_ROWS
        last = int(np.searchsorted(self._fences, np.uint64(high), side="right")) * FENCE_ROWS
        return within(self.read(first, last), low, high)

    def release(self) -> None:
        """The run is not needed any more; its file goes with its last run."""
        self._file.release()
