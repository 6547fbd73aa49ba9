"""Forgetting old versions: the floor rises, and the log entries and checkpoints below it go.

The order is what makes it safe. First a checkpoint of the oldest version to keep is there and has been read back; then
the floor rises; only then is anything deleted. Data files are not touched: that is :mod:`.vacuum`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .checkpoint import CHECKPOINTS, checkpoint_version, newest_checkpoint, open_checkpoint, point_hint
from .entry import LOG, log_version
from .errors import Corrupt, InvalidInput
from .floor import raise_floor, read_floor
from .limits import RETENTION_MIN_SECONDS, RETENTION_SECONDS
from .stores import store_time_us

if TYPE_CHECKING:
    from .log import Log
    from .snapshot import Snapshot
    from .store import ObjectInfo, Store

__all__ = ["Expired", "expire"]


@dataclass(frozen=True, slots=True)
class Expired:
    """What :func:`expire` did, or would do.

    ``floor``: the oldest version that is kept. ``versions``: how many were given up. ``paths``: the objects that were
    deleted, relative to the lake; ``num_bytes``: their size.
    """

    floor: int
    versions: int
    paths: tuple[str, ...]
    num_bytes: int


def expire(log: Log, *, older_than_seconds: float = RETENTION_SECONDS, dry_run: bool = False) -> Expired:
    """Give up the versions that were superseded more than ``older_than_seconds`` ago.

    The version that was in force at that time stays, so that every later moment can still be read. With ``dry_run``
    nothing is written or deleted. Raises InvalidInput for a retention below ``limits.RETENTION_MIN_SECONDS`` or a
    read-only log, Corrupt when the checkpoint that must carry the kept versions does not read back.
    """
    if not older_than_seconds >= RETENTION_MIN_SECONDS:
        raise InvalidInput(
            f"found a retention of {older_than_seconds} s; expected at least {RETENTION_MIN_SECONDS:.0f} s, so that no "
            "running writer or reader loses the versions it stands on"
        )
    log.check_writable()
    if log.latest().version == 0:
        return Expired(0, 0, (), 0)
    now_us = min(int(log.clock() * 1_000_000), store_time_us(log.store))
    before = read_floor(log.store)
    floor = max(before, _oldest_to_keep(log, now_us, older_than_seconds))
    if not dry_run and floor > before:
        _carry(log, floor)
        floor = raise_floor(log.store, floor)
    gone = _below(log.store, floor)
    if not dry_run:
        newest = newest_checkpoint(log.store)
        if newest is not None:  # the hint must not name one that goes
            point_hint(log.store, newest.name)
        log.store.delete([info.path for info in gone])
    return Expired(floor, floor - before, tuple(info.path for info in gone), sum(info.num_bytes for info in gone))


def _oldest_to_keep(log: Log, now_us: int, older_than_seconds: float) -> int:
    """The version that was in force so long ago; 0 when there was none.

    A writer's clock may have been slow, so an entry must also be old by the clock of the store that dates it.
    """
    cutoff_us = now_us - int(older_than_seconds * 1_000_000)
    youngest_us = now_us - int(RETENTION_MIN_SECONDS * 1_000_000)
    oldest = max((commit.version for commit in log.history() if commit.timestamp_us <= cutoff_us), default=0)
    for info in log.store.list(LOG):
        version = log_version(info.path)
        if version is not None and info.modified_us > youngest_us:
            oldest = min(oldest, version - 1)
    return oldest


def _carry(log: Log, version: int) -> None:
    """A checkpoint of exactly ``version`` is there, and what reads back from the store is what the log says."""
    snapshot = log.at(version)
    found = newest_checkpoint(log.store, at_most=version)
    if found is None or found.snapshot.version != version:
        name = log.write_checkpoint(snapshot).name
        found, _ = open_checkpoint(log.store, name)
    if found is None or found.snapshot != snapshot or _order(found.snapshot) != _order(snapshot):
        raise Corrupt(
            f"the checkpoint of version {version} does not read back as it was written: nothing was expired; retry",
            path=CHECKPOINTS,
        )


def _order(snapshot: Snapshot) -> list[tuple[str, ...]]:
    """What equality of dictionaries does not look at: the files of each table in the order of their rows."""
    return [(table_id, *getattr(table, "files", ())) for table_id, table in snapshot.tables.items()]


def _below(store: Store, floor: int) -> list[ObjectInfo]:
    """Log entries up to the floor and checkpoints below it: the floor's own version lives on in its checkpoint."""
    gone = [info for info in store.list(LOG) if (version := log_version(info.path)) is not None and version <= floor]
    gone += [
        info
        for info in store.list(CHECKPOINTS)
        if (version := checkpoint_version(info.path)) is not None and version < floor
    ]
    return sorted(gone, key=lambda info: info.path)
