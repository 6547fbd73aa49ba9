"""How often each table is read, counted by table id and UTC day, beside the log and never through it.

A counter adds up in memory and writes what it has at most once a minute, so a process that dies loses the counts of
its last, unwritten minute and nothing else. Each write makes one object for each day concerned,
``_lakelet/accesses/<day>/<counter>-<number>.json``; the id of a counter is its own, and its numbers ascend from 0 in
each day without a gap. A number whose write may or may not have happened is written again, with the same bytes.

:func:`compact` adds up the objects of a day in ``_lakelet/accesses/merged/<day>-<generation>.json``, which also says
up to which number it covers each counter; then it deletes them. Whoever creates a generation first has made it, from
the one before, so the highest holds all that the lower ones hold and alone counts, with the objects it does not cover.
An object that it covers adds nothing, whether it is not deleted yet or was written once more by a writer that slept.

What makes every moment safe: objects go only after a generation that covers them is there, and generations stay for
ever. A name that is never free again cannot be taken by a compactor that slept; and a reader that lists the counters'
objects first and the generations afterwards has found a generation for whatever it did not see any more.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
import weakref
from collections import defaultdict, deque
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Final

from .access_events import read_events
from .access_objects import MEND, Found, Leaf, Record, encode, fetch, leaf_path, list_found, merged_path
from .errors import Corrupt, InvalidInput, LakeletError, Unavailable
from .limits import ACCESS_FLUSH_SECONDS, ACCESS_READ_ROUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .store import Store

__all__ = ["AccessCounter", "Accesses", "compact", "read_accesses", "read_events"]

_DAY_SECONDS: Final = 86_400
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_SIGNS_OF_A_LAKE: Final = ("_lakelet/log/", "_lakelet/checkpoints/")


def _day(seconds: float) -> date:
    """The UTC day of a time in seconds since the epoch."""
    return date.fromordinal(_EPOCH_DAY + int(seconds // _DAY_SECONDS))


# --- counting ----------------------------------------------------------------------------------------------------


class _LakeGone(Unavailable):
    """There is no lake where the counts belong."""


class AccessCounter:
    """Counts reads of tables in memory and writes them in batches, in the background. Safe to use from many threads.

    With ``read_only`` nothing is counted and nothing written. ``clock`` gives seconds since the epoch. In a forked
    child it starts from nothing, under an id of its own: what the parent had counted is the parent's to write.
    """

    def __init__(self, store: Store, *, read_only: bool = False, clock: Callable[[], float] = time.time) -> None:
        """Nothing is asked of the store, and no thread started, before something is counted."""
        self._store = store
        self._clock = clock
        self._off = read_only
        self._reset()
        _COUNTERS.add(self)

    def _reset(self) -> None:
        self._id = uuid.uuid4().hex
        self._lock = threading.Lock()  # over what is pending; held for an instant
        self._writing = threading.Lock()  # over what is unsent; held during writes
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pending: dict[int, tuple[int, dict[str, int]]] = {}  # by day: second of the first count, reads
        self._unsent: deque[tuple[str, bytes]] = deque()
        self._next: defaultdict[date, int] = defaultdict(int)

    def count(self, table_id: str, reads: int = 1) -> None:
        """Count ``reads`` reads of the table now; fewer than one count nothing. Does no I/O and never raises."""
        if self._off or reads <= 0:
            return
        now = int(self._clock())
        number = now // _DAY_SECONDS
        with self._lock:
            day = self._pending.get(number)
            if day is None:
                day = self._pending[number] = (now, {})
            counts = day[1]
            counts[table_id] = counts.get(table_id, 0) + reads
            if self._thread is None:
                self._start()

    def flush(self) -> None:
        """Write what was counted so far; durable on return.

        Raises Unavailable when the store refuses or there is no lake any more; the counts are kept for the next time.
        """
        with self._writing:
            if not self._pending and not self._unsent:
                return
            try:
                self._check_lake()
                # First what failed before: while that fails, counts go on adding up and take no more room.
                self._send()
                self._freeze()
                self._send()
            except _LakeGone:
                raise
            except LakeletError as error:
                raise Unavailable(f"the access counts are not written, and kept for the next flush: {error}") from error

    def close(self) -> None:
        """Count no more, write what is pending if that can be done, and stop the thread. A lost lake is no error."""
        self._off = True
        self._stop.set()
        with contextlib.suppress(LakeletError):
            self.flush()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="lakelet-accesses", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter ends; a later count or close tries again
            return
        self._thread = thread

    def _run(self) -> None:
        """Flush a while after the first count, and again until nothing is left: an idle counter has no thread."""
        while not self._stop.wait(ACCESS_FLUSH_SECONDS):
            gone = False
            try:
                self.flush()
            except _LakeGone:
                gone = True
            except Exception:
                # Whatever it is, nobody waits for these counts: they are kept, and the next turn tries again.
                pass
            with self._lock:
                if gone or (not self._pending and not self._unsent):
                    self._thread = None
                    return

    def _check_lake(self) -> None:
        """Stores make the folders they need: without this, a lake that was deleted would come back as a stub."""
        if self._store.exists("_lakelet/hint"):
            return
        if not any(True for prefix in _SIGNS_OF_A_LAKE for _ in self._store.list(prefix)):
            raise _LakeGone(
                f"found no lake at {self._store.uri} to write access counts to; they are kept: restore the lake"
            )

    def _freeze(self) -> None:
        """What is pending becomes objects whose names and bytes are settled, one for each day."""
        now = int(self._clock())
        with self._lock:
            pending, self._pending = self._pending, {}
        for number, (since, reads) in sorted(pending.items()):
            start = number * _DAY_SECONDS
            day = _day(start)
            path = leaf_path(day, self._id, self._next[day])
            self._next[day] += 1
            until = max(since, min(now, start + _DAY_SECONDS))
            whole = {table_id: int(count) for table_id, count in reads.items()}  # JSON knows no integers of NumPy
            self._unsent.append((path, encode(path, Record(whole, since, until))))

    def _send(self) -> None:
        while self._unsent:
            # An object that is there already is this very one: an earlier answer was lost.
            self._store.create(*self._unsent[0])
            self._unsent.popleft()


_COUNTERS: Final[weakref.WeakSet[AccessCounter]] = weakref.WeakSet()


def _after_fork() -> None:
    for counter in list(_COUNTERS):
        counter._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# --- adding up ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accesses:
    """Reads by table id and UTC day. ``first_day``: the first on which anything was counted, also one not read here."""

    days: Mapping[str, Mapping[date, int]]
    first_day: date | None

    def reads(self, table_id: str, until: date, days: int) -> int:
        """Reads of the table in the ``days`` days that end with ``until``, itself included. 0 if never counted."""
        if days < 1:
            raise InvalidInput(f"found a span of {days} days; expected 1 or more")
        counted = self.days.get(table_id, {})
        return sum(reads for day, reads in counted.items() if 0 <= (until - day).days < days)


def read_accesses(store: Store, *, since_day: date | None = None) -> Accesses:
    """All counts, or those from ``since_day`` on.

    Raises Corrupt, naming the object, when one is damaged; Unavailable when one is of a newer lakelet, when the store
    cannot be reached, or when objects keep vanishing.
    """
    listed = list_found(store)
    first_day = min(listed, default=None)
    by_day: dict[date, dict[str, int]] = {}
    for _ in range(ACCESS_READ_ROUNDS):
        missing = _add_up(store, {d: f for d, f in listed.items() if since_day is None or d >= since_day}, by_day)
        if not missing:
            break
        listed = {day: found for day, found in list_found(store).items() if day in missing}
    else:
        raise Unavailable(
            f"access counts of {store.uri} vanished {ACCESS_READ_ROUNDS} times while they were read: retry"
        )
    days: dict[str, dict[date, int]] = {}
    for day in sorted(by_day):
        for table_id, reads in by_day[day].items():
            days.setdefault(table_id, {})[day] = reads
    return Accesses(days, first_day)


def _merged(store: Store, listed: Mapping[date, Found]) -> dict[date, Record]:
    """The highest generation of each day that has one."""
    days = [day for day, found in listed.items() if found.generation]
    paths = [merged_path(day, listed[day].generation) for day in days]
    merged = {}
    for day, path, record in zip(days, paths, fetch(store, paths), strict=True):
        if record is None:
            raise Corrupt(f"{path} is gone, and it stood for objects that were deleted; {MEND}", path=path)
        merged[day] = record
    return merged


_NOTHING: Final = Record({}, 0, 0)


def _uncovered(leaves: Iterable[Leaf], merged: Record) -> list[Leaf]:
    return [leaf for leaf in leaves if leaf.number >= merged.covers.get(leaf.counter, 0)]


def _add_up(store: Store, listed: Mapping[date, Found], by_day: dict[date, dict[str, int]]) -> set[date]:
    """Put the sums of the days into ``by_day``. Returns the days that were merged meanwhile: list them again."""
    merged = _merged(store, listed)
    wanted: list[tuple[date, str]] = []
    for day, found in listed.items():
        by_day[day] = dict(merged.get(day, _NOTHING).reads)
        wanted += [(day, leaf.path) for leaf in _uncovered(found.leaves, merged.get(day, _NOTHING))]
    missing = set()
    records = fetch(store, [path for _, path in wanted])
    for (day, _), record in zip(wanted, records, strict=True):
        if record is None:
            missing.add(day)
        else:
            _add(by_day[day], record.reads)
    return missing


def _add(sums: dict[str, int], reads: Mapping[str, int]) -> None:
    for table_id, number in reads.items():
        sums[table_id] = sums.get(table_id, 0) + number


# --- compaction --------------------------------------------------------------------------------------------------


def compact(store: Store, *, clock: Callable[[], float] = time.time) -> int:
    """Merge the objects of each day before yesterday into one, by ``clock``. Returns how many objects were deleted.

    May be stopped at any moment, and run by many at once. A day that has one object beside what is merged is left as
    it is. Raises Corrupt and Unavailable as :func:`read_accesses` does; nothing that is damaged is deleted.
    """
    yesterday = _day(clock()) - timedelta(days=1)
    listed = {day: found for day, found in list_found(store).items() if day < yesterday and found.leaves}
    return sum(_compact_day(store, day, found) for day, found in sorted(listed.items()))


def _compact_day(store: Store, day: date, found: Found) -> int:
    before = _merged(store, {day: found}).get(day, _NOTHING)
    uncovered = _uncovered(found.leaves, before)
    open_paths = {leaf.path for leaf in uncovered}
    gone = [leaf.path for leaf in found.leaves if leaf.path not in open_paths]  # somebody stopped before deleting them
    covers = dict(before.covers)
    ready: list[str] = []
    for leaf in sorted(uncovered, key=lambda leaf: (leaf.counter, leaf.number)):
        # A listing that runs beside a writer may show a number and not the one before: that one must not be covered.
        if leaf.number == covers.get(leaf.counter, 0):
            covers[leaf.counter] = leaf.number + 1
            ready.append(leaf.path)
    if len(ready) > 1:
        records = [before] if found.generation else []
        records += [record for record in fetch(store, ready) if record is not None]
        # One that is gone was merged by somebody else, who made the next generation. The create would fail as well.
        if len(records) == len(ready) + bool(found.generation):
            path = merged_path(day, found.generation + 1)
            reads: dict[str, int] = {}
            for record in records:
                _add(reads, record.reads)
            since, until = min(record.from_s for record in records), max(record.until_s for record in records)
            if store.create(path, encode(path, Record(reads, since, until, covers))):
                gone += ready
    store.delete(gone)
    return len(gone)
