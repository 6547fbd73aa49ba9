"""The newest version that this process knows of, and how it learns of newer ones."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from .checkpoint import HINT, History, hinted, newest_checkpoint, open_checkpoint
from .entry import log_path
from .errors import Corrupt, NotFound
from .floor import read_floor
from .limits import COMMIT_BASE_AGE_SECONDS
from .replay import replay
from .snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .changes import Commit
    from .store import Store

__all__ = ["Head"]

_FIRST_SLOTS = 16
"""Slots that a cold open asks for together with the checkpoint."""


class Head:
    """A snapshot, the checkpoint it grew from, and the history since. Safe to use from many threads.

    ``clock`` gives seconds since the epoch.
    """

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        """Nothing is read yet."""
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._load_lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._past: History | None = None
        self._since: list[Commit] = []
        self._seen_at = (0.0, 0.0)

    def known(self) -> Snapshot:
        """The newest version as far as we know: no request, unless we know nothing or what we know is old."""
        with self._lock:
            snapshot = self._snapshot
        return self.refresh() if snapshot is None or self._is_old() else snapshot

    def refresh(self) -> Snapshot:
        """The newest version there is: every commit that was acknowledged before the call is in it."""
        with self._lock:
            snapshot, is_old = self._snapshot, self._is_old()
        if snapshot is None:
            with self._load_lock:  # the first callers wait for one load instead of each doing it
                with self._lock:
                    snapshot = self._snapshot
                if snapshot is None:
                    return self._load()
        asked_at = self._now()
        newer, lines = replay(self._store, snapshot)
        # The slot after an old snapshot can look free because its entry was expired. Young ones are never expired.
        if is_old and read_floor(self._store) > snapshot.version:
            return self._load()
        with self._lock:
            return self._adopt(newer, lines, asked_at)

    def publish(self, snapshot: Snapshot, lines: list[Commit]) -> None:
        """Our own commit, made on top of what is known, went through."""
        with self._lock:
            if self._snapshot is not None and self._snapshot.version == snapshot.version - 1:
                self._adopt(snapshot, lines, self._now())

    def history(self) -> list[Commit]:
        """Every commit of the versions that are kept, oldest first, as of what is known."""
        for _ in range(2):
            with self._lock:
                past, since = self._past, list(self._since)
            try:
                return [*(past.commits() if past else ()), *since]
            except NotFound:  # expired since we opened it; a newer one is there
                self._load()
        raise Corrupt(f"the checkpoint that the hint of {self._store.uri} names has no history")

    def past(self) -> History | None:
        """The part of history that is read from a checkpoint."""
        with self._lock:
            return self._past

    def shorten(self, past: History) -> None:
        """History up to a newer checkpoint is read from there from now on, instead of being held here."""
        with self._lock:
            if self._snapshot is None or past.version > self._snapshot.version:
                return
            if self._past is None or past.version > self._past.version:
                self._past = past
                self._since = [commit for commit in self._since if commit.version > past.version]

    # --- inside --------------------------------------------------------------------------------------------------

    def _now(self) -> tuple[float, float]:
        # two clocks: the monotonic one may stand still while the machine sleeps, the other one may be set back
        return (time.monotonic(), self._clock())

    def _is_old(self) -> bool:
        return any(
            abs(now - seen) > COMMIT_BASE_AGE_SECONDS for now, seen in zip(self._now(), self._seen_at, strict=True)
        )

    def _adopt(self, newer: Snapshot, lines: list[Commit], asked_at: tuple[float, float]) -> Snapshot:
        """Take over a newer snapshot; the lock is held. Another thread may have gone further meanwhile."""
        assert self._snapshot is not None
        held = self._snapshot.version
        if newer.version > held:
            self._since += [commit for commit in lines if commit.version > held]
            self._snapshot = newer
        if newer.version >= self._snapshot.version:
            self._seen_at = max(self._seen_at, asked_at)
        return self._snapshot

    def _load(self) -> Snapshot:
        """Start afresh: hint, then checkpoint and the slots behind it side by side, then what is left of the log."""
        asked_at = self._now()
        slots: Sequence[bytes | None]
        hint, *slots = self._store.get_many([HINT, *(log_path(1 + ahead) for ahead in range(_FIRST_SLOTS))])
        name = hinted(hint)
        checkpoint = None
        if name is not None:
            checkpoint, slots = open_checkpoint(self._store, name, _FIRST_SLOTS)
        if checkpoint is None and (name is not None or slots[0] is None or slots[-1] is not None):
            # no use of the hint: look for a checkpoint, unless the log from its start is short
            checkpoint = newest_checkpoint(self._store)
            if checkpoint is not None or name is not None:
                slots = []
        for _ in range(2):
            start = checkpoint.snapshot if checkpoint else Snapshot()
            try:
                snapshot, lines = replay(self._store, start, first=slots)
            except (Corrupt, NotFound):
                if read_floor(self._store) <= start.version:
                    raise
            else:
                if read_floor(self._store) <= start.version:
                    break
            # the floor has passed this checkpoint: what follows it in the log may be gone
            checkpoint, slots = newest_checkpoint(self._store), []
        else:
            floor = read_floor(self._store)
            path = log_path(floor)
            raise Corrupt(f"versions up to {floor} were expired, but no checkpoint of them is left", path=path)
        with self._lock:
            if self._snapshot is None or snapshot.version >= self._snapshot.version:
                self._snapshot, self._since = snapshot, lines
                self._past = checkpoint.history if checkpoint else None
                self._seen_at = asked_at
            return self._snapshot
