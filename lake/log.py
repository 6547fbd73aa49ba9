"""The log: every version of the lake, and the one way to make the next.

A version is a file ``_lakelet/log/<20 digits>.json``; whoever creates it first has committed. :mod:`.group` does the
committing, :mod:`.head` knows the newest version, :mod:`.replay` reads forwards, :mod:`.checkpoint` shortens the way.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from .changes import Change, Commit, Requirement
from .checkpoint import Checkpoint, History, list_checkpoints, open_checkpoint, point_hint, write_checkpoint
from .errors import Conflict, Corrupt, InvalidInput, LakeletError, NotFound
from .floor import read_floor
from .group import Group, Member
from .head import Head
from .limits import CHECKPOINT_EVERY_VERSIONS, VACUUM_GRACE_SECONDS
from .replay import replay
from .snapshot import Snapshot, unmet

if TYPE_CHECKING:
    from types import TracebackType

    from .store import Store

__all__ = ["Commit", "Log", "Rebase"]

Rebase = Callable[[Snapshot, Sequence[Change]], Sequence[Change]]
"""Given the snapshot that won and our changes, the changes to commit instead; may raise Conflict.

Called in the thread that commits, when rows were deleted meanwhile from a file that our changes delete rows from.
"""

_PINNED_SNAPSHOTS: Final = 16
"""Older snapshots held for time travel."""
_LONGEST_EDIT_SECONDS: Final = VACUUM_GRACE_SECONDS - 3_600
"""Files that were begun longer ago may be taken by vacuum before their commit lands."""


class Log:
    """The log of the lake in ``store``. Safe to use from many threads; opening it costs no request.

    ``clock`` gives seconds since the epoch. Close it, or use it as a context manager, to wait for checkpoints that are
    still being written.
    """

    def __init__(self, store: Store, read_only: bool = False, *, clock: Callable[[], float] = time.time) -> None:
        """Nothing is read yet."""
        self.store = store
        self.read_only = read_only
        self.clock = clock
        self._head = Head(store, clock)
        self._group = Group(store, self._head, clock)
        self._lock = threading.Lock()
        self._pinned: OrderedDict[int, Snapshot] = OrderedDict()
        self._checkpoints: list[tuple[int, str]] | None = None
        self._writer: threading.Thread | None = None

    def __enter__(self) -> Log:
        """The log itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As :meth:`close`."""
        self.close()

    def close(self) -> None:
        """Wait for a checkpoint that is being written. The log can still be used afterwards."""
        with self._lock:
            writer = self._writer
        if writer is not None:
            writer.join()

    # --- reading -------------------------------------------------------------------------------------------------

    def latest(self) -> Snapshot:
        """The newest version; everything that was acknowledged before the call is in it. Version 0 is an empty lake.

        Raises Corrupt for damaged bytes, Unavailable when the store cannot be read or a newer lakelet wrote it.
        """
        return self._head.refresh()

    def at(self, version: int) -> Snapshot:
        """The lake as it was at ``version``. NotFound, naming the versions there are, when it is not one of them."""
        latest = self._head.known()
        if version > latest.version:
            latest = self._head.refresh()
        if version == latest.version:
            return latest
        if not 0 <= version < latest.version:
            raise NotFound(f"found no version {version}; {self._range(latest)}")
        with self._lock:
            snapshot = self._pinned.get(version)
        if snapshot is None:
            snapshot = self._rebuild(version, latest)
        elif version < read_floor(self.store):
            raise NotFound(f"version {version} was expired; {self._range(latest)}")
        with self._lock:
            self._pinned[version] = snapshot
            self._pinned.move_to_end(version)
            while len(self._pinned) > _PINNED_SNAPSHOTS:
                self._pinned.popitem(last=False)
        return snapshot

    def at_time(self, timestamp_us: int) -> Snapshot:
        """The lake as it was at that time (microseconds since the epoch, UTC): its newest version up to then.

        NotFound, naming the times there are, when it is before the first commit or was expired.
        """
        latest = self._head.refresh()
        if latest.version and timestamp_us >= latest.timestamp_us:
            return latest
        versions = [commit.version for commit in self.history() if commit.timestamp_us <= timestamp_us]
        if not versions:
            raise NotFound(f"found no version at {_iso(timestamp_us)}; {self._range(latest)}")
        return self.at(versions[-1])

    def history(self) -> list[Commit]:
        """Every commit of the versions that are kept, oldest first."""
        self._head.refresh()
        floor = read_floor(self.store)
        return [commit for commit in self._head.history() if commit.version >= floor]

    # --- committing ----------------------------------------------------------------------------------------------

    def create(self, seed: str | None = None) -> Snapshot:
        """The lake exists: its first commit gives it an id and a secret ``hash_seed`` (32 bytes in hex).

        ``seed`` fixes the secret, for reproducible runs. A lake that exists already is returned as it is. The first
        commit of any kind does the same by itself.
        """
        if seed is not None and (len(seed) != 64 or not set(seed) <= set("0123456789abcdef")):
            raise InvalidInput(f"found the seed {seed!r}; expected 32 bytes as 64 lower-case hex digits")
        latest = self.latest()
        if latest.lake_id:
            return latest
        self.check_writable()
        return self._submit(Member((), (), "create lake", 0, hash_seed=seed), None)

    def commit(
        self,
        changes: Sequence[Change],
        requirements: Sequence[Requirement],
        *,
        operation: str,
        base: Snapshot,
        rebase: Rebase | None = None,
        begun_us: int | None = None,
    ) -> Snapshot:
        """Make ``changes`` durable under ``requirements``; returns the lake right after.

        ``base`` is the snapshot that the changes were made from. Whatever else was committed since then, they are
        applied on top of it if the requirements still hold. Concurrent commits of this process may share one version.
        ``begun_us`` is when the first new file was begun, if it was long ago: files that waited nearly as long as
        vacuum's grace are refused. Without changes nothing is written, and only the requirements are looked at.

        Raises Conflict (requirements broken, or too many races lost), InvalidInput (impossible changes, read-only,
        wrong base), CommitUnknown (no answer), Unavailable (the store refused; nothing was committed), LimitExceeded.
        """
        self.check_writable()
        self._check_base(base)
        if begun_us is not None and self.clock() - begun_us / 1_000_000 > _LONGEST_EDIT_SECONDS:
            raise Conflict(
                f"the edit was begun more than {_LONGEST_EDIT_SECONDS / 3600:.0f} hours ago: vacuum may have taken its "
                "files by now; write them again, in smaller commits"
            )
        if not changes:
            latest = self.latest()
            broken = unmet(latest, requirements)
            if broken is not None:
                raise Conflict(f"{broken}, and this commit needs it unchanged; reload and retry")
            return latest
        member = Member(tuple(changes), tuple(requirements), operation, base.version, can_rebase=rebase is not None)
        return self._submit(member, rebase)

    def _submit(self, member: Member, rebase: Rebase | None) -> Snapshot:
        while True:
            self._group.submit(member)
            if member.snapshot is not None:
                self._after_commit(member.snapshot)
                return member.snapshot
            if member.error is not None:
                raise member.error
            assert member.rebase_on is not None
            assert rebase is not None
            if time.monotonic() > member.deadline:
                raise Conflict("rows were deleted again and again from the same files; nothing was committed: retry")
            # in this thread, so that nobody else waits for the reading and writing that it takes
            member.start_again(rebase(member.rebase_on, member.changes))

    def check_writable(self) -> None:
        """Raise InvalidInput when the log was opened read-only."""
        if self.read_only:
            raise InvalidInput(f"the lake at {self.store.uri} was opened read-only; connect without read_only to write")

    def _check_base(self, base: Snapshot) -> None:
        known = self._head.known()
        if base.version > known.version:
            known = self._head.refresh()
        if base.version > known.version or (base.lake_id and base.lake_id != known.lake_id):
            raise InvalidInput(
                f"found a base snapshot of lake {base.lake_id!r} at version {base.version}, "
                f"expected one of lake {known.lake_id!r} up to {known.version}"
            )

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def _after_commit(self, snapshot: Snapshot) -> None:
        """Write a checkpoint beside the commits, now and then. Whoever makes a round version does it; if that one died,
        the next one that finds the checkpoint far behind.
        """
        newest = self._head.past()
        behind = snapshot.version - (newest.version if newest else 0)
        is_round = snapshot.version % CHECKPOINT_EVERY_VERSIONS == 0
        if not is_round and behind < 2 * CHECKPOINT_EVERY_VERSIONS:
            return
        with self._lock:
            if self._writer is not None and self._writer.is_alive():
                return
            # no daemon: the interpreter waits for it, so that it cannot be cut off inside Arrow
            self._writer = threading.Thread(target=self._try_checkpoint, args=(snapshot,), name="lakelet-checkpoint")
            self._writer.start()

    def _try_checkpoint(self, snapshot: Snapshot) -> None:
        """A checkpoint is an optimisation: the commit stands without it, so nobody is told of a failure."""
        try:
            listed = list_checkpoints(self.store)
            if listed and snapshot.version - listed[-1][0] < CHECKPOINT_EVERY_VERSIONS:
                self._head.shorten(History(self.store, listed[-1][1]))
            else:
                self.checkpoint(snapshot)
        except (LakeletError, OSError):
            return

    def checkpoint(self, snapshot: Snapshot) -> Checkpoint:
        """Write a checkpoint of ``snapshot``, a version of this log, and let cold opens start from it.

        Raises Unavailable when the store refuses, NotFound when what it needs was expired meanwhile.
        """
        checkpoint = self.write_checkpoint(snapshot)
        point_hint(self.store, checkpoint.name)
        self._head.shorten(checkpoint.history)
        return checkpoint

    def write_checkpoint(self, snapshot: Snapshot) -> Checkpoint:
        """As :meth:`checkpoint`, but nobody is pointed to it."""
        floor = read_floor(self.store)
        commits = [commit for commit in self._head.history() if floor <= commit.version <= snapshot.version]
        checkpoint = write_checkpoint(self.store, snapshot, commits)
        with self._lock:
            self._checkpoints = None
        return checkpoint

    # --- time travel ---------------------------------------------------------------------------------------------

    def _rebuild(self, version: int, latest: Snapshot) -> Snapshot:
        """The snapshot of an old version, from the nearest earlier one that is at hand."""
        for again in (False, True):
            start = self._nearest(version, relist=again)
            try:
                snapshot, _ = replay(self.store, start, until=version)
            except (NotFound, Corrupt):
                if version < read_floor(self.store):
                    raise NotFound(f"version {version} was expired; {self._range(latest)}") from None
                if again:
                    raise
            else:
                if version >= read_floor(self.store):
                    return snapshot
                raise NotFound(f"version {version} was expired; {self._range(latest)}")
        raise AssertionError("unreachable")

    def _nearest(self, version: int, *, relist: bool) -> Snapshot:
        """The newest snapshot up to ``version`` that we hold, or that a checkpoint holds, else the empty lake."""
        with self._lock:
            listed = None if relist else self._checkpoints
            held = [] if relist else [pinned for pinned in self._pinned if pinned <= version]
            best = self._pinned[max(held)] if held else Snapshot()
        if listed is None or version - _newest(listed, version) > 2 * CHECKPOINT_EVERY_VERSIONS:
            listed = list_checkpoints(self.store)
            with self._lock:
                self._checkpoints = listed
        for found, name in reversed(listed):
            if best.version < found <= version:
                checkpoint, _ = open_checkpoint(self.store, name)
                if checkpoint is not None:
                    return checkpoint.snapshot
        return best

    def _range(self, latest: Snapshot) -> str:
        if latest.version == 0:
            return "the lake has no commits yet"
        kept = self.history()
        first = kept[0] if kept else None
        if first is None:
            return f"the versions kept are {read_floor(self.store)} to {latest.version}"
        return (
            f"the versions kept are {first.version} to {latest.version}, "
            f"committed from {_iso(first.timestamp_us)} to {_iso(latest.timestamp_us)}"
        )


def _iso(timestamp_us: int) -> str:
    """A time as people read it, in UTC; in microseconds where the calendar ends."""
    try:
        return (dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=timestamp_us)).isoformat()
    except OverflowError:
        return f"{timestamp_us} µs since the epoch"


def _newest(listed: Sequence[tuple[int, str]], version: int) -> int:
    return max((found for found, _ in listed if found <= version), default=0)
