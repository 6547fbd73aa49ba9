"""Reading the log forwards: from a snapshot, over the slots that follow it, to the snapshot that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .changes import Commit
from .entry import Entry, decode, log_path
from .errors import Corrupt, NotFound
from .snapshot import Snapshot, apply, changed_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .store import Store

__all__ = ["advance", "entries", "read_slot", "replay"]

_PROBES: Final = (4, 32, 256)
"""Slots asked for at once: few at first, since mostly there is nothing new, then more while there is."""


def read_slot(store: Store, version: int) -> Entry | None:
    """The entry of one slot, or None while it is free. Raises Corrupt when it is damaged."""
    data = store.get_many([log_path(version)])[0]
    return None if data is None else decode(data, version)


def entries(store: Store, after: int, until: int | None = None, first: Sequence[bytes | None] = ()) -> Iterator[Entry]:
    """The entries of the versions ``after + 1`` to ``until``, or to the newest one there is.

    ``first`` is what the caller has read of the first slots already. Raises Corrupt when an entry before the newest
    is missing, NotFound when one up to ``until`` is.
    """
    version, found, step = after, first, len(_PROBES) - 1 if first else 0
    while until is None or version < until:
        for position, data in enumerate(found):
            if version == until:
                return
            slot = version + 1
            if data is None:
                if until is None and all(later is None for later in found[position:]):
                    return
                # a later slot is taken: this one was made while we read, or it is lost
                data = store.get_many([log_path(slot)])[0]  # noqa: PLW2901
                if data is None:
                    raise _missing(slot, until)
            yield decode(data, slot)
            version = slot
        width = _PROBES[min(step, len(_PROBES) - 1)] if until is None else min(_PROBES[-1], until - version)
        found = store.get_many([log_path(version + 1 + ahead) for ahead in range(width)])
        step += 1


def _missing(version: int, until: int | None) -> Exception:
    path = log_path(version)
    if until is not None:
        return NotFound(f"{path} is gone: its version was expired; ask for a newer one")
    return Corrupt(f"{path} is missing although later entries are there; restore it from a copy of the lake", path=path)


def advance(snapshot: Snapshot, entry: Entry) -> tuple[Snapshot, list[Commit]]:
    """The snapshot after ``entry``, and its lines of history. Raises Corrupt, naming the file, for what cannot be."""
    lines = []
    try:
        for commit in entry.commits:
            before = snapshot
            snapshot = apply(before, commit.changes, version=entry.version, timestamp_us=entry.timestamp_us)
            names = changed_names(before, snapshot, commit.changes)
            lines.append(Commit(entry.version, entry.timestamp_us, commit.operation, commit.commit_id, names))
        if not snapshot.lake_id:
            raise Corrupt("the first commit gives the lake no id")
    except Corrupt as error:
        path = log_path(entry.version)
        raise Corrupt(f"{path}: {error}; restore it from a copy of the lake", path=path) from error
    return snapshot, lines


def replay(
    store: Store, snapshot: Snapshot, until: int | None = None, first: Sequence[bytes | None] = ()
) -> tuple[Snapshot, list[Commit]]:
    """The snapshot at ``until``, or the newest, from an older one, with the history in between."""
    lines: list[Commit] = []
    for entry in entries(store, snapshot.version, until, first):
        snapshot, more = advance(snapshot, entry)
        lines += more
    return snapshot, lines
