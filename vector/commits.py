"""Operations of many threads, made durable together: written and synced as one group, then applied in its order.

Whoever comes first writes for all that wait. An operation is checked before it is queued, against the index and beside
operations under way: it waits for those that touch the same rows, so what was checked is still true when it is applied.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from ..lake.errors import CommitUnknown, InvalidInput, LakeletError, Unavailable
from .records import Encoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from .journal import Journal
    from .operations import Operation, State

__all__ = ["Commits"]


class _Pending:
    """An operation in the queue, and what became of it."""

    __slots__ = ("done", "encoded", "error", "operation", "result")

    def __init__(self, operation: Operation, encoded: Encoded) -> None:
        self.operation, self.encoded = operation, encoded
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None


class Commits:
    """The way of operations into a journal and then into the state.

    ``writing`` is held by whoever writes to the journal or changes it for another; while it is held, all that is in the
    journal has been applied. The writers' lock may be taken under it, never the other way round. ``then`` is called
    after each operation, without a lock.
    """

    def __init__(self, state: State, journal: Journal, then: Callable[[], None]) -> None:
        self.journal, self._then = journal, then
        self.writing = threading.Lock()
        self._state, self._lock = state, state.units.lock
        self._waiting: list[_Pending] = []
        self._under_way: list[_Pending] = []
        self._process = os.getpid()
        self._closed = False

    def run(self, operation: Operation) -> Any:
        """Do the operation: searches see it once it is on the disk, a little before this returns.

        Refused with the error of its check, or with Unavailable when the disk refuses: nothing was done then.
        """
        encoded = Encoded(operation)
        while True:
            with self._lock:
                self._refuse_if_closed()
                if not any(_meet(operation, other.operation) for other in (*self._under_way, *self._waiting)):
                    self._state.units.raise_failure()
                    operation.check(self._state)
                    mine = _Pending(operation, encoded)
                    self._waiting.append(mine)
                    break
            with self.writing:
                self._write()
        while not mine.done:
            with self.writing:
                if not mine.done:
                    self._write()
        if mine.error is not None:
            raise mine.error
        self._then()
        return mine.result

    def journal_in_use(self) -> Journal:
        """The journal; refused where an operation would be."""
        self._refuse_if_closed()
        self.journal.refuse_if_unusable()
        return self.journal

    def close(self) -> None:
        """Write what waits, and refuse whatever comes after."""
        with self.writing:
            if not self._closed:
                self._write()
                self._closed = True
                self.journal.close()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise InvalidInput("the index is closed: open it again to change it")
        if os.getpid() != self._process:
            raise Unavailable("the index was opened by the process that this one was forked from: open it here, alone")

    def _write(self) -> None:
        """Write and apply what waits; ``writing`` is held. What became of each operation stands in it."""
        with self._lock:
            batch, self._waiting = self._waiting, []
            self._under_way = batch
        if not batch:
            return
        written = False
        try:
            self._refuse_if_closed()
            self.journal.append([each.encoded.record() for each in batch])
            written = True
            with self._lock:
                for each in batch:
                    each.operation.check(self._state)  # units may have been merged meanwhile
                    each.result = each.operation.apply(self._state)
                    each.done = True
        except BaseException as error:
            self._fail(batch, error, written)
            if not isinstance(error, Exception):
                raise
        finally:
            with self._lock:
                self._under_way = []

    def _fail(self, batch: list[_Pending], error: BaseException, written: bool) -> None:
        """Tell those whose operations were not applied."""
        told = error
        if written:
            self.journal.refuse("memory lacks an operation that is on the disk: close the index and open it again")
            told = CommitUnknown(
                f"the operation is on the disk, but could not be applied in memory ({error!r}): close the index and "
                "open it again"
            )
        elif not isinstance(error, Exception):
            told = Unavailable(f"the thread that wrote for this one was interrupted ({error!r}); nothing was done")
        for each in batch:
            if not each.done:
                each.error = _copied(told)
                each.done = True


def _copied(error: BaseException) -> BaseException:
    """An error of its own for each thread: raising one in two mixes up their tracebacks."""
    if not isinstance(error, LakeletError):
        return error
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy


def _meet(one: Operation, other: Operation) -> bool:
    """Whether both touch a row."""
    mine, others = one.touches(), other.touches()
    if mine is None or others is None:
        return True
    if not len(mine) or not len(others) or mine.max() < others.min() or others.max() < mine.min():
        return False
    return bool(len(np.intersect1d(mine, others)))
