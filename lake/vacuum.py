"""Deleting data files that nobody can reach any more. The most dangerous code of the lake, so it is short.

A file goes only if all of this holds: it lies where owned tables keep theirs and the segments of indexes over them,
``data/<table_id>/<file>``; it is older than the grace period by the store's own clock; and no version from the floor
on, no log entry, and none of the further roots that the caller names, mentions it. The log is read after the files were
listed, so that a commit which landed in between is seen; whatever cannot be read stops it before anything is deleted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .changes import AddFiles, Change, DeleteRows, SetIndex
from .checkpoint import newest_checkpoint
from .errors import Conflict, Corrupt, InvalidInput, LakeletError
from .floor import read_floor
from .limits import VACUUM_GRACE_SECONDS
from .replay import entries
from .snapshot import OwnedTable, Snapshot
from .store import DATA, TMP
from .stores import store_time_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .log import Log
    from .store import ObjectInfo

__all__ = ["Vacuumed", "vacuum"]

_OWNED: Final = re.compile(re.escape(DATA) + r"[^/]+/[^/]+")


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What :func:`vacuum` deleted, or would delete: ``paths`` relative to the lake, and ``num_bytes`` in all.

    ``kept`` counts the files below ``data/`` that stay.
    """

    paths: tuple[str, ...]
    num_bytes: int
    kept: int


def vacuum(
    log: Log,
    *,
    older_than_seconds: float = VACUUM_GRACE_SECONDS,
    dry_run: bool = False,
    extra_roots: Iterable[str] | Callable[[], Iterable[str]] = (),
) -> Vacuumed:
    """Delete data and deletion files, segments of indexes, and abandoned temporary files, that nothing can reach.

    ``extra_roots`` are further paths to keep, or a callable that gives them, asked after the files were listed. With
    ``dry_run`` nothing is deleted. Raises InvalidInput for a grace below ``limits.VACUUM_GRACE_SECONDS`` or a read-only
    log, Conflict when versions were expired meanwhile (retry), and Corrupt or Unavailable when any part of the log
    cannot be read; nothing is deleted then.
    """
    if not older_than_seconds >= VACUUM_GRACE_SECONDS:
        raise InvalidInput(
            f"found a grace period of {older_than_seconds} s; expected at least {VACUUM_GRACE_SECONDS:.0f} s, since a "
            "commit that needs a younger file may be on its way"
        )
    log.check_writable()
    store = log.store
    if log.latest().version == 0:
        return Vacuumed((), 0, 0)  # no log, no lake: whatever lies here is not known to be ours
    now_us = min(int(log.clock() * 1_000_000), store_time_us(store))
    cutoff_us = now_us - int(older_than_seconds * 1_000_000)
    listed = list(store.list(DATA))
    old = [info for info in listed if info.modified_us < cutoff_us and _OWNED.fullmatch(info.path)]
    abandoned = [info for info in store.list(TMP) if info.modified_us < cutoff_us]
    reachable = _reachable(log)
    reachable.update(extra_roots() if callable(extra_roots) else extra_roots)
    gone: list[ObjectInfo] = sorted((info for info in old if info.path not in reachable), key=lambda info: info.path)
    if not dry_run:
        store.delete([info.path for info in gone])
        store.delete([info.path for info in abandoned])
    return Vacuumed(tuple(info.path for info in gone), sum(info.num_bytes for info in gone), len(listed) - len(gone))


def _reachable(log: Log) -> set[str]:
    """Every path that any retained version mentions: those of the floor's own version and of every entry after it.

    Paths that a later entry removes are in it too, since the versions before that entry are still readable.
    """
    store = log.store
    floor = read_floor(store)
    latest = log.latest()
    paths = set(_paths_of(latest))
    reached = floor
    try:
        if floor:
            checkpoint = newest_checkpoint(store, at_most=floor)
            if checkpoint is None or checkpoint.snapshot.version != floor:
                raise Corrupt(f"the checkpoint of version {floor}, the oldest that is kept, is missing")
            paths.update(_paths_of(checkpoint.snapshot))
        for entry in entries(store, floor):
            reached = entry.version
            for commit in entry.commits:
                for change in commit.changes:
                    paths.update(_paths_in(change))
    except LakeletError:
        if read_floor(store) == floor:
            raise
        reached = -1
    # Entries that are expired while we read look like the end of the log. Then everything would seem unreachable.
    if reached < latest.version or read_floor(store) != floor:
        raise Conflict("versions were expired while their files were being looked for; nothing was deleted: retry")
    return paths


def _paths_of(snapshot: Snapshot) -> Iterator[str]:
    for table in snapshot.tables.values():
        if isinstance(table, OwnedTable):
            yield from _paths_in(AddFiles(table.table_id, tuple(table.files.values())))
            for index in table.indexes.values():
                yield from index.paths()


def _paths_in(change: Change) -> Iterator[str]:
    if isinstance(change, AddFiles):
        for file in change.files:
            yield from file.paths()
    elif isinstance(change, DeleteRows):
        yield change.deletion.path
    elif isinstance(change, SetIndex):
        yield from change.index.paths()
