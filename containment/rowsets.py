"""Sets of row hashes, compared exactly, in bounded memory.

Rows arrive in any order and any number of times. A set becomes one *run*: its distinct rows in ascending order of the
low lane, in memory or in a spill file. Since hashes are uniform under the secret seed, a range of the low lane holds a
proportional share of every run: whatever is too large to handle at once is handled range by range.
"""

from __future__ import annotations

import itertools
import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.errors import InvalidInput
from .mixing import Lanes
from .sorted_rows import concatenate, count_found, distinct, total, within
from .spill import SpillFolder, StoredRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

__all__ = ["SKETCH_ROWS", "Overlap", "RowSets"]

SKETCH_ROWS: Final = 4096
MEMORY_BYTES_MIN: Final = 1 << 16
ROW_BYTES: Final = 16
SORT_BYTES: Final = 72
"""Memory that one row takes while it is sorted: its lanes, their copy, the order, the result."""
FIRST_SORT_ROWS: Final = 1 << 16
"""A set is looked through for repeats when it has so many rows, so that few distinct ones stay few."""
PROBE_ROWS: Final = 1 << 16
FIRST_PROBE_ROWS: Final = 256
SMALL_ROWS: Final = 1 << 13


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many distinct rows of the set ``child`` the set ``parent`` has.

    ``found`` of the child's ``distinct`` rows were met. When ``complete`` is False the comparison stopped early, since
    the asked fraction cannot be reached any more: then ``found`` counts only what was met until then.
    """

    child: int
    parent: int
    found: int
    distinct: int
    complete: bool


class MemoryRun:
    """Distinct rows in ascending order, in memory. ``rows`` counts them; ``lanes`` holds them."""

    __slots__ = ("lanes", "rows")

    def __init__(self, lanes: Lanes) -> None:
        """``lanes`` are ascending by (lo, hi) and without repeats."""
        self.lanes = lanes
        self.rows = len(lanes)

    def read(self, start: int, stop: int) -> Lanes:
        """Rows start to stop, by position, sharing memory."""
        return self.lanes.slice(start, stop)

    def between(self, low: int, high: int) -> Lanes:
        """Rows whose low lane is at least ``low`` and at most ``high``, sharing memory."""
        return within(self.lanes, low, high)

    def release(self) -> None:
        """Nothing to give back."""


Run = MemoryRun | StoredRun


@dataclass(slots=True)
class _Set:
    pending: list[Lanes] = field(default_factory=list)
    pending_rows: int = 0
    sort_at_rows: int = FIRST_SORT_ROWS
    runs: list[Run] = field(default_factory=list)
    sealed: bool = False
    signature: tuple[int, int] | None = None

    def memory_bytes(self) -> int:
        held = sum(run.rows for run in self.runs if isinstance(run, MemoryRun))
        return ROW_BYTES * (held + self.pending_rows)


class RowSets:
    """Row sets by key: a context manager, whose spill files go when it is left.

    ``memory_bytes`` bounds what all sets and the work on them hold; what is beyond lies in a temporary folder below
    ``spill_folder`` (None: the system's). Safe to use from many threads; :meth:`seal` a set when all its adds returned.
    """

    def __init__(self, memory_bytes: int, *, spill_folder: str | None = None) -> None:
        """``memory_bytes`` below 64 KiB: InvalidInput."""
        if memory_bytes < MEMORY_BYTES_MIN:
            raise InvalidInput(f"memory_bytes is {memory_bytes}, expected {MEMORY_BYTES_MIN} or more")
        self._held_bytes_max = memory_bytes // 2
        self._sort_rows_max = memory_bytes // 8 // SORT_BYTES  # two threads sort at a time
        self._kept_rows_max = memory_bytes // 8 // ROW_BYTES
        self._probe_rows = min(PROBE_ROWS, memory_bytes // 8 // SORT_BYTES)
        self._held_bytes = 0
        self._sets: dict[int, _Set] = {}
        self._spill = SpillFolder(spill_folder)
        self._lock = threading.RLock()

    def __enter__(self) -> RowSets:
        """The row sets themselves."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """As :meth:`close`."""
        self.close()

    def close(self) -> None:
        """Free everything and remove the spill files."""
        with self._lock:
            self._sets.clear()
            self._held_bytes = 0
            self._spill.close()

    @property
    def spilled_bytes(self) -> int:
        """Bytes written to spill files so far."""
        return self._spill.bytes_written

    # --- filling ----------------------------------------------------------------------------------------------

    def add(self, key: int, rows: Lanes) -> None:
        """Add rows to the set ``key``, which need not exist. The arrays are kept: don't write to them afterwards.

        A sealed set: InvalidInput. A full disk: LimitExceeded.
        """
        step = max(1, self._sort_rows_max)
        if len(rows) <= step:
            self._add(key, rows)
        for start in range(0, len(rows) if len(rows) > step else 0, step):
            self._add(key, rows.slice(start, start + step))

    def _add(self, key: int, rows: Lanes) -> None:
        with self._lock:
            target = self._sets.setdefault(key, _Set())
            if target.sealed:
                raise InvalidInput(f"row set {key} is sealed: add all its rows first")
            if len(rows):
                target.pending.append(rows)
                target.pending_rows += len(rows)
                self._held_bytes += ROW_BYTES * len(rows)
            taken: list[Lanes] = []
            if target.pending_rows >= min(target.sort_at_rows, self._sort_rows_max):
                taken, target.pending, target.pending_rows = target.pending, [], 0
        if taken:  # outside the lock: other threads go on adding
            added = sum(map(len, taken))
            run = MemoryRun(distinct(concatenate(taken)))
            with self._lock:
                target.runs.append(run)
                self._held_bytes -= ROW_BYTES * (added - run.rows)
                if 2 * run.rows > added:  # hardly any repeats: don't look again soon
                    target.sort_at_rows *= 8
                elif len(target.runs) > 1 and isinstance(target.runs[-2], MemoryRun):
                    self._merge_last(target)
        if self._held_bytes > self._held_bytes_max:
            with self._lock:
                self._spill_largest()

    def _merge_last(self, target: _Set) -> None:
        """Merge the last two runs, when small, so that a set of few distinct rows keeps few."""
        runs = target.runs[-2:]
        before = sum(run.rows for run in runs)
        if before <= self._sort_rows_max:
            merged = MemoryRun(distinct(concatenate([run.read(0, run.rows) for run in runs])))
            target.runs[-2:] = [merged]
            self._held_bytes -= ROW_BYTES * (before - merged.rows)

    def seal(self, key: int | None = None) -> None:
        """No more rows come to the set ``key``, made empty if there is none; without a key: to any set there is."""
        for one in [key] if key is not None else list(self._sets):
            self._sealed(one, create=True)

    def drop(self, key: int) -> None:
        """Free the set ``key``, on disk too; nothing happens if there is none."""
        with self._lock:
            gone = self._sets.pop(key, None)
            if gone is not None:
                self._held_bytes -= gone.memory_bytes()
                for run in gone.runs:
                    run.release()

    # --- asking -----------------------------------------------------------------------------------------------

    def distinct(self, key: int) -> int:
        """The number of distinct rows."""
        return self._run(key).rows

    def signature(self, key: int) -> tuple[int, int]:
        """(distinct rows, sum of their 128-bit hashes mod 2**128): equal for equal sets, and hardly for others."""
        found = self._sealed(key)
        if found.signature is None:
            summed = 0
            for block in _blocks(found.runs[0], PROBE_ROWS):
                summed += total(block.lo) + (total(block.hi) << 64)
            found.signature = (found.runs[0].rows, summed % 2**128)
        return found.signature

    def sketch(self, key: int) -> NDArray[np.uint64]:
        """The lowest low lanes of the set's rows, ascending: all of them, or SKETCH_ROWS. Do not write to it."""
        return self._run(key).read(0, SKETCH_ROWS).lo

    def compare(self, pairs: Sequence[tuple[int, int]], *, min_fraction: float = 1.0) -> list[Overlap]:
        """Count, for each (child, parent), the distinct child rows that the parent has.

        A pair stops as soon as found / distinct cannot reach ``min_fraction`` any more: at 1.0, with the first row
        missing. A fraction outside (0, 1], or an unknown key: InvalidInput.
        """
        if not 0.0 < min_fraction <= 1.0:
            raise InvalidInput(f"min_fraction is {min_fraction}, expected a number above 0 and up to 1")
        return [self._compare(child, parent, min_fraction) for child, parent in pairs]

    def _compare(self, child: int, parent: int, min_fraction: float) -> Overlap:
        ours, theirs = self._run(child), self._run(parent)
        missing_max = ours.rows - _rows_needed(ours.rows, min_fraction)
        if ours.rows - theirs.rows > missing_max:
            return Overlap(child, parent, 0, ours.rows, False)
        # A block of the child meets about as large a range of the parent as memory allows.
        most = max(1, self._probe_rows * ours.rows // max(ours.rows, theirs.rows, 1))
        start, size, found = 0, min(most, FIRST_PROBE_ROWS), 0
        while start < ours.rows:
            block = ours.read(start, start + size)
            if isinstance(theirs, MemoryRun) and theirs.rows <= SMALL_ROWS:
                found += count_found(block, theirs.lanes)  # narrowing the range first would cost more than it saves
            else:
                found += count_found(block, theirs.between(int(block.lo[0]), int(block.lo[-1])))
            start += len(block)
            if start - found > missing_max:
                return Overlap(child, parent, found, ours.rows, False)
            size = min(most, 16 * size)
        return Overlap(child, parent, found, ours.rows, True)

    # --- runs -------------------------------------------------------------------------------------------------

    def _run(self, key: int) -> Run:
        return self._sealed(key).runs[0]

    def _sealed(self, key: int, *, create: bool = False) -> _Set:
        """The set ``key`` as one run."""
        found = self._sets.get(key)
        if found is not None and found.sealed:
            return found
        with self._lock:
            if found is None:
                if not create:
                    raise InvalidInput(f"there is no row set {key}: add rows to it, or seal it to make it empty")
                found = self._sets.setdefault(key, _Set())
            if not found.sealed:
                before = found.memory_bytes()
                run = self._as_one(found)
                for old in found.runs:
                    old.release()
                found.runs, found.pending, found.pending_rows, found.sealed = [run], [], 0, True
                self._held_bytes += found.memory_bytes() - before
                if self._held_bytes > self._held_bytes_max:
                    self._spill_largest()
        return found

    def _as_one(self, found: _Set) -> Run:
        parts: list[Run] = list(found.runs)
        rows = found.pending_rows + sum(run.rows for run in parts)
        if not parts or rows <= self._sort_rows_max:
            blocks = found.pending + [run.read(0, run.rows) for run in parts]
            return MemoryRun(distinct(concatenate(blocks)))
        if found.pending:
            parts.append(MemoryRun(distinct(concatenate(found.pending))))
        if rows <= self._kept_rows_max and all(isinstance(run, MemoryRun) for run in parts):
            return MemoryRun(_gathered(self._merged(parts, rows), rows))
        return self._spill.write([self._merged(parts, rows)])[0]

    def _merged(self, runs: Sequence[Run], rows: int) -> Iterator[Lanes]:
        """The distinct rows of several runs, ascending, one range of the low lane after the other."""
        ranges = math.ceil(2 * rows / self._sort_rows_max)
        edges = [i * 2**64 // ranges for i in range(ranges + 1)]
        for low, high in itertools.pairwise(edges):
            yield distinct(concatenate([run.between(low, high - 1) for run in runs]))

    def _spill_largest(self) -> None:
        """Write the largest sets to disk until half of the room is free again."""
        victims: list[_Set] = []
        freed = 0
        for one in sorted(self._sets.values(), key=_Set.memory_bytes, reverse=True):
            if self._held_bytes - freed <= self._held_bytes_max // 2:
                break
            freed += one.memory_bytes()
            victims.append(one)
        places: list[tuple[_Set, int]] = []
        for one in victims:
            if one.pending:
                rows = one.pending_rows
                run = MemoryRun(distinct(concatenate(one.pending)))
                one.runs.append(run)
                one.pending, one.pending_rows = [], 0
                self._held_bytes -= ROW_BYTES * (rows - run.rows)
            places += [(one, i) for i, run in enumerate(one.runs) if isinstance(run, MemoryRun)]
        stored = self._spill.write([_blocks(one.runs[i], PROBE_ROWS) for one, i in places])
        for (one, i), written in zip(places, stored, strict=True):
            one.runs[i] = written
            self._held_bytes -= ROW_BYTES * written.rows


def _gathered(blocks: Iterator[Lanes], rows_max: int) -> Lanes:
    """The blocks one after the other, at most ``rows_max`` rows, without holding them twice."""
    found = Lanes(np.empty(rows_max, np.uint64), np.empty(rows_max, np.uint64))
    rows = 0
    for block in blocks:
        found.lo[rows : rows + len(block)], found.hi[rows : rows + len(block)] = block.lo, block.hi
        rows += len(block)
    # What was never written takes no memory, but half of the room is worth giving back.
    return found.slice(0, rows) if 2 * rows > rows_max else Lanes(found.lo[:rows].copy(), found.hi[:rows].copy())


def _blocks(run: Run, rows: int) -> Iterator[Lanes]:
    for start in range(0, run.rows, rows):
        yield run.read(start, start + rows)


def _rows_needed(rows: int, fraction: float) -> int:
    """The least count n with n / rows >= fraction, as floats divide."""
    needed = math.ceil(fraction * rows)
    while needed > 0 and (needed - 1) / rows >= fraction:
        needed -= 1
    while needed < rows and needed / rows < fraction:
        needed += 1
    return needed
