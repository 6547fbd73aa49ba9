"""Committing: the queue of one process, and the race for the next slot against all others.

Commits that wait in one process go into one log entry, under one version. The first to come leads: it takes the queue,
commits for all in it, and hands over to whoever came meanwhile. A commit whose requirements fail gets its own Conflict
and the rest go on without it.
"""

from __future__ import annotations

import copy
import secrets
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .changes import Change, Commit, CreateLake, DeleteRows, Requirement
from .entry import CommitRecord, Entry, decode, encode
from .errors import CommitUnknown, Conflict, Corrupt, InvalidInput, LakeletError, LimitExceeded
from .limits import COMMIT_GROUP_CHANGES, COMMIT_RETRY_SECONDS, LOG_ENTRY_BYTES
from .slot import pause, take_slot
from .snapshot import OwnedTable, Snapshot, apply, changed_names, unmet
from .stores import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .head import Head
    from .store import Store

__all__ = ["Group", "Member"]

_GATHER_SECONDS: Final = 0.005
_GATHER_SHARE: Final = 0.1
"""How long a leader waits for company: at most so long, and at most this share of what the last entry took."""


@dataclass(eq=False, slots=True)
class Member:
    """One caller's commit on its way. After :meth:`Group.submit` exactly one of the three outcomes is set.

    ``snapshot``: committed, and this is the lake right after. ``error``: not committed, or unknown. ``rebase_on``: the
    deletions were made on top of others than this snapshot has; make new changes and submit again.
    """

    changes: tuple[Change, ...]
    requirements: tuple[Requirement, ...]
    operation: str
    base_version: int
    hash_seed: str | None = None
    can_rebase: bool = False
    commit_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    deadline: float = field(default_factory=lambda: time.monotonic() + COMMIT_RETRY_SECONDS)
    snapshot: Snapshot | None = None
    error: BaseException | None = None
    rebase_on: Snapshot | None = None
    leads: bool = False
    turn: threading.Event = field(default_factory=threading.Event)

    @property
    def is_settled(self) -> bool:
        """Whether one of the outcomes is set."""
        return self.snapshot is not None or self.error is not None or self.rebase_on is not None

    def succeed(self, snapshot: Snapshot) -> None:
        """Committed: ``snapshot`` is the lake right after."""
        self.snapshot = snapshot
        self.turn.set()

    def fail(self, error: BaseException) -> None:
        """Not committed, or unknown: each member gets an error of its own, since each caller raises it."""
        other = copy.copy(error)
        other.__cause__ = error.__cause__
        self.error = other
        self.turn.set()

    def send_back(self, snapshot: Snapshot) -> None:
        """Its deletions must be made anew, on top of those in ``snapshot``."""
        self.rebase_on = snapshot
        self.turn.set()

    def start_again(self, changes: Sequence[Change]) -> None:
        """Ready to be submitted with ``changes`` made on top of ``rebase_on``."""
        assert self.rebase_on is not None
        self.changes, self.base_version, self.rebase_on = tuple(changes), self.rebase_on.version, None


@dataclass(slots=True)
class _Staged:
    """An entry that is ready to be written, its bytes, the snapshot that it makes and its lines of history."""

    entry: Entry
    after: Snapshot
    lines: list[Commit]
    data: bytes = b""


class Group:
    """The commits of this process to one lake. ``clock`` gives seconds since the epoch."""

    def __init__(self, store: Store, head: Head, clock: Callable[[], float]) -> None:
        """``head`` is told of what was committed."""
        self._store = store
        self._head = head
        self._clock = clock
        self._queue: list[Member] = []
        self._queue_lock = threading.Lock()
        self._in_hand: list[Member] = []
        self._has_leader = False
        self._probed = False
        self._is_contended = False
        self._last_members = 1
        self._last_seconds = 0.0

    def submit(self, member: Member) -> None:
        """Bring ``member`` to an outcome. What goes wrong is its ``error``; only interrupts are raised here."""
        member.turn.clear()
        try:
            with self._queue_lock:
                self._queue.append(member)
                member.leads, self._has_leader = not self._has_leader, True
            if not member.leads:
                member.turn.wait()
            while not member.is_settled:
                self._lead()
        finally:
            with self._queue_lock:
                if member.leads:
                    self._hand_over(member)
                if member in self._queue:  # its caller was interrupted: nobody should commit for it any more
                    self._queue.remove(member)

    def _hand_over(self, leader: Member) -> None:
        """Whoever waits longest leads next; what an interrupted leader had in hand waits again. Queue lock held."""
        leader.leads = False
        stranded = [member for member in self._in_hand if not member.is_settled and member not in self._queue]
        self._queue[:0] = [member for member in stranded if member is not leader]
        self._in_hand.clear()
        if leader in self._queue:
            self._queue.remove(leader)
        self._has_leader = bool(self._queue)
        if self._queue:
            self._queue[0].leads = True
            self._queue[0].turn.set()

    # --- the leader --------------------------------------------------------------------------------------------------

    def _lead(self) -> None:
        """Commit what waits in the queue as one entry, or settle each of them otherwise."""
        batch: list[Member] = []
        attempt = 0
        is_writing = False
        try:
            self._gather()
            self._in_hand.clear()
            while True:
                batch += self._take(batch)
                # while others commit too, reading first is cheaper than writing in vain; alone, it is one more request
                is_fresh = attempt > 0 or self._is_contended
                known = self._head.known()
                head = self._head.refresh() if is_fresh else known
                if head.version == 0 and not self._probed:
                    probe(self._store)
                    self._probed = True
                batch, staged = self._stage(head, batch, is_fresh=is_fresh)
                if staged is None:
                    return
                is_writing = True
                started = time.monotonic()
                if take_slot(self._store, staged.entry, staged.data):
                    self._is_contended = attempt > 0 or head.version > known.version
                    self._last_members, self._last_seconds = len(batch), time.monotonic() - started
                    self._head.publish(staged.after, staged.lines)
                    for member in batch:
                        member.succeed(staged.after)
                    return
                is_writing = False
                attempt += 1
                batch = self._in_time(batch, attempt)
                if not batch:
                    return
                pause(attempt)
        except LakeletError as error:
            for member in batch:
                if not member.is_settled:
                    member.fail(error)
        except BaseException as error:
            for member in batch if is_writing else ():
                if not member.is_settled:
                    member.fail(CommitUnknown(f"interrupted while committing ({error!r}): re-read the lake"))
            raise

    def _gather(self) -> None:
        """Those whose commits shared the last entry are likely to be back soon: a short wait saves them a long one."""
        if self._last_members > len(self._queue):
            time.sleep(min(_GATHER_SECONDS, _GATHER_SHARE * self._last_seconds))

    def _take(self, batch: Sequence[Member]) -> list[Member]:
        """Waiting members, up to what one entry may hold. A member too big for company goes alone."""
        changes = sum(len(member.changes) for member in batch)
        taken: list[Member] = []
        with self._queue_lock:
            while self._queue:
                changes += len(self._queue[0].changes)
                if (batch or taken) and changes > COMMIT_GROUP_CHANGES:
                    break
                taken.append(self._queue.pop(0))
                self._in_hand.append(taken[-1])
        return taken

    def _give_back(self, members: Sequence[Member]) -> None:
        with self._queue_lock:
            self._queue[:0] = members

    def _stage(self, head: Snapshot, batch: list[Member], *, is_fresh: bool) -> tuple[list[Member], _Staged | None]:
        """Those of ``batch`` that go into the next entry, and that entry; None when nobody is left.

        Members that cannot be committed on top of ``head`` are settled; those that only get in the way of others in
        the batch wait for the next entry. Unless the head ``is_fresh``, nobody is refused before it has been read anew.
        """
        while batch:
            members, waiting, refused, staged = self._stack(head, batch)
            if refused and not is_fresh:
                head, is_fresh = self._head.refresh(), True
                continue
            for member, verdict in refused:
                _settle(member, head, verdict)
            if not members:
                batch = waiting
                continue
            try:
                staged.data = _checked_bytes(staged.entry)
            except (InvalidInput, LimitExceeded) as error:
                # one of them cannot be written: halve until it is alone
                if len(members) == 1:
                    members[0].fail(error)
                    batch = waiting
                else:
                    self._give_back([*members[len(members) // 2 :], *waiting])
                    batch = members[: len(members) // 2]
            else:
                self._give_back(waiting)
                return members, staged
        return [], None

    def _stack(
        self, head: Snapshot, batch: list[Member]
    ) -> tuple[list[Member], list[Member], list[tuple[Member, LakeletError | None]], _Staged]:
        """Apply one member after the other: those that went on, wait, are refused, and what it comes to."""
        version = head.version + 1
        timestamp_us = max(int(self._clock() * 1_000_000), head.timestamp_us + 1)
        after = head
        members, waiting, refused, records, lines = [], [], [], [], []
        for member in batch:
            changes = member.changes
            if not after.lake_id:
                changes = (CreateLake(uuid.uuid4().hex, member.hash_seed or secrets.token_hex(32)), *changes)
            verdict = _try(after, member, changes, version, timestamp_us)
            if isinstance(verdict, Snapshot):
                names = changed_names(after, verdict, changes)
                lines.append(Commit(version, timestamp_us, member.operation, member.commit_id, names))
                records.append(CommitRecord(member.commit_id, member.operation, changes, member.requirements))
                members.append(member)
                after = verdict
            elif after is not head and isinstance(_try(head, member, changes, version, timestamp_us), Snapshot):
                waiting.append(member)
            else:
                refused.append((member, verdict))
        return members, waiting, refused, _Staged(Entry(version, timestamp_us, tuple(records)), after, lines)

    def _in_time(self, batch: list[Member], attempt: int) -> list[Member]:
        now = time.monotonic()
        for member in batch:
            if now > member.deadline:
                member.fail(
                    Conflict(
                        f"lost the race for the next version {attempt} times in {COMMIT_RETRY_SECONDS:.0f} s; nothing "
                        "was committed: retry, or let fewer writers commit at once"
                    )
                )
        return [member for member in batch if not member.is_settled]


def _try(
    snapshot: Snapshot, member: Member, changes: tuple[Change, ...], version: int, timestamp_us: int
) -> Snapshot | LakeletError | None:
    """The snapshot that the member makes of this one, or why not; None when its deletions need a rebase."""
    broken = unmet(snapshot, member.requirements)
    if broken is not None:
        return Conflict(f"{broken}, and this commit needs it unchanged; reload and retry")
    if member.can_rebase and _is_outdated(snapshot, changes):
        return None
    try:
        return apply(snapshot, changes, version=version, timestamp_us=timestamp_us)
    except Corrupt as error:
        return error


def _is_outdated(snapshot: Snapshot, changes: Sequence[Change]) -> bool:
    """Whether rows were deleted since from a file that ``changes`` delete rows from."""
    for change in changes:
        if isinstance(change, DeleteRows):
            table = snapshot.tables.get(change.table_id)
            file = table.files.get(change.file_id) if isinstance(table, OwnedTable) else None
            if file is not None and (file.deletion.path if file.deletion else None) != change.base:
                return True
    return False


def _settle(member: Member, head: Snapshot, verdict: LakeletError | None) -> None:
    """The outcome of a member that cannot be committed on top of ``head``."""
    if verdict is None:
        member.send_back(head)
    elif isinstance(verdict, Corrupt):
        # impossible on the snapshot that the caller saw is the caller's mistake; on a later one it is a lost race
        if member.base_version >= head.version:
            member.fail(InvalidInput(f"{verdict}; nothing was committed"))
        else:
            member.fail(Conflict(f"{verdict} after version {member.base_version}; reload and retry"))
    else:
        member.fail(verdict)


def _checked_bytes(entry: Entry) -> bytes:
    """The bytes of the entry, which any reader will take. InvalidInput or LimitExceeded if there are no such bytes."""
    data = encode(entry)
    if len(data) > LOG_ENTRY_BYTES:
        raise LimitExceeded(
            f"the commit takes {len(data)} bytes in the log, the limit is {LOG_ENTRY_BYTES} (limits.LOG_ENTRY_BYTES); "
            "commit fewer files at once"
        )
    try:
        decode(data, entry.version)
    except Corrupt as error:
        raise InvalidInput(f"the commit could not be read back ({error}); nothing was committed") from error
    return data
