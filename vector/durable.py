"""An index in a folder that outlives the death of its process: a snapshot, and journals of what happened since::

    current                       which snapshot counts: JSON, replaced whole
    snapshot-<8 digits>.lakelet   an index as one file, see :mod:`.stored`
    journal-<8 digits>            operations since then, see :mod:`.journal`; several while a snapshot is being written
    lock                          held by the process that writes

A checkpoint starts a new journal, takes the state as it is at that moment, writes it as the snapshot of the journal's
generation, names that in ``current``, and removes what is older. Dying anywhere on the way leaves a snapshot with all
journals since. Journals number their operations through, so that one that lost some is told from one that ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from ..lake.errors import Corrupt, InvalidInput, LakeletError, NotFound
from ..lake.limits import VECTOR_JOURNAL_BYTES, VECTOR_JOURNAL_PERCENT
from ..lake.local_store import remove_quietly
from .background import step_back
from .commits import Commits
from .folder import FIRST, MEND, Current, Folder
from .journal import Journal, Scan
from .records import decoded, joined
from .stored import taken, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .operations import Operation, State

__all__ = ["Durable"]


class Durable:
    """Keeps an index in its folder, which is locked: a new one from now on, one that was opened after its journals.

    ``run`` does an operation as a caller's would be done.
    """

    def __init__(self, folder: Folder, state: State, run: Callable[[Operation], Any]) -> None:
        self._folder, self._state = folder, state
        self._checkpointing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._before_bytes = 0  # of journals before the one that is written to
        if folder.current is None:
            written(folder.snapshot(FIRST), *taken(state.contents()))
            journal = Journal.create(folder.journal(FIRST), FIRST, 0)
            folder.name(Current(FIRST, 0, folder.fingerprint(FIRST)))
        else:
            journal = self._replayed(folder.current, run)
        self._commits = Commits(state, journal, self._committed)
        self._due_bytes = self._limit_bytes()
        state.writer = self._commits

    # Opening

    def _replayed(self, current: Current, run: Callable[[Operation], Any]) -> Journal:
        """Do what the journals hold; the last of them, to go on with. Corrupt where operations are missing."""
        scans = [Scan(self._folder.journal(number), number) for number in self._folder.journals()]
        # One without operations may be left of a checkpoint that failed early, and the one before it went on then.
        late = scans.pop() if len(scans) > 1 and scans[-1].empty else None
        sequence = current.sequence
        for scan in scans:
            if scan.first != sequence:
                told = f"{scan.path} begins with operation {scan.first:,}, expected {sequence:,}; {MEND}"
                raise Corrupt(told, path=scan.path, offset=20)
            self._run_all(scan, run)
            sequence = scan.sequence
            if scan.torn_bytes and scan is not scans[-1]:
                raise _cut_short(scan)
        if late is not None and late.first > sequence:
            raise _cut_short(scans[-1])
        journal = Journal.resumed(scans[-1])
        self._before_bytes = sum(scan.end for scan in scans[:-1])
        self._folder.clean({scan.generation for scan in scans})
        return journal

    def _run_all(self, scan: Scan, run: Callable[[Operation], Any]) -> None:
        def operations() -> Iterator[Operation]:
            for kind, payload in scan.records():
                yield decoded(kind, payload, self._state.settings, scan.path)

        for operation in joined(operations()):
            try:
                run(operation)
            except (InvalidInput, NotFound) as error:
                told = f"{scan.path} holds an operation that its index refuses: {error}; {MEND}"
                raise Corrupt(told, path=scan.path) from error

    # Checkpoints

    def checkpoint(self) -> None:
        """Write a snapshot and begin a new journal; writers wait while the state is taken, not while it is written.

        Unavailable when the disk refuses; nothing is lost then, and the journals go on.
        """
        with self._checkpointing:
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._due_bytes = self._journal_bytes() + self._limit_bytes()  # if it fails, not at once again
        with self._commits.writing:
            old = self._commits.journal_in_use()
            journal = self._new_journal(old.generation + 1, old.sequence)
            with self._state.units.lock:
                meta, arrays = taken(self._state.contents())
            self._commits.journal = journal
            self._before_bytes += old.end
        old.close()
        generation, path = journal.generation, self._folder.snapshot(journal.generation)
        try:
            written(path, meta, arrays)
            current = Current(generation, journal.first, self._folder.fingerprint(generation))
        except BaseException:
            remove_quietly(path)
            raise
        self._folder.name(current)
        self._before_bytes = 0
        self._folder.clean({generation})
        self._due_bytes = self._limit_bytes()

    def _new_journal(self, generation: int, first: int) -> Journal:
        path = self._folder.journal(generation)
        try:
            return Journal.create(path, generation, first)
        except BaseException:
            remove_quietly(path)
            raise

    def _committed(self) -> None:
        """Begin a checkpoint in the background if one is due and none is running."""
        if self._journal_bytes() < self._due_bytes or not self._checkpointing.acquire(blocking=False):
            return
        self._thread = threading.Thread(target=self._checkpoint_aside, name="lakelet-checkpoint", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads, or Python is about to end
            self._thread = None
            self._checkpointing.release()

    def _checkpoint_aside(self) -> None:
        try:
            step_back()
            self._checkpoint()
        except (LakeletError, OSError, MemoryError) as error:
            logging.getLogger("lakelet").warning("no new snapshot in %s, its journal goes on: %s", self._folder, error)
        finally:
            self._checkpointing.release()

    def _journal_bytes(self) -> int:
        return self._before_bytes + self._commits.journal.end

    def _limit_bytes(self) -> int:
        """The journals may grow to this."""
        size = 0
        if self._folder.current is not None:
            with contextlib.suppress(OSError):
                size = os.stat(self._folder.snapshot(self._folder.current.generation)).st_size
        return max(VECTOR_JOURNAL_BYTES, size * VECTOR_JOURNAL_PERCENT // 100)

    # Closing

    def close(self) -> None:
        """Write what waits, wait for a checkpoint that runs, and let other processes have the folder."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        with self._checkpointing:
            self._commits.close()
            self._folder.release()


def _cut_short(scan: Scan) -> Corrupt:
    told = f"{scan.path} is cut short at byte {scan.end:,}: the journal after it says that more was there; {MEND}"
    return Corrupt(told, path=scan.path, offset=scan.end)
