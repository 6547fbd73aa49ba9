"""How often tables are read and rewritten, as rates a month: what the catalog counted, or what a file of events says.

Nothing counted is not nothing read: a table that was never seen read is taken to be read once in the time that was
looked at, and that time to be a month at least.
"""

from __future__ import annotations

import datetime as dt
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..lake.accesses import read_events
from ..lake.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ..lake.accesses import Accesses
    from ..lake.changes import Commit

__all__ = ["Observed", "counted_reads", "overwrites_of", "reads_of", "rewrites_of"]

MONTH_DAYS: Final = 30
_MOVING: Final = frozenset({"delete", "merge", "optimize"})
_UNDOING: Final = frozenset({"overwrite"})
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Observed:
    """Rates a month by table name; a name without ``reads`` is unknown. ``rewrites`` move rows of a table,
    ``overwrites`` replace them all. ``pinned``: tables to keep, with the reason.

    ``created``: the version that created each table; of two that cost the same the older one is kept.
    """

    reads: Mapping[str, float]
    rewrites: Mapping[str, float]
    overwrites: Mapping[str, float] = field(default_factory=dict)
    pinned: Mapping[str, str] = field(default_factory=dict)
    created: Mapping[str, int] = field(default_factory=dict)


def rate(reads: float, days: float) -> float:
    """Reads a month that are assumed after ``reads`` in ``days``."""
    return (reads + 1) * MONTH_DAYS / max(days, MONTH_DAYS)


def counted_reads(names: Mapping[str, str], accesses: Accesses, today: dt.date) -> dict[str, float]:
    """Reads a month of the tables ``names`` (by id), from the counts of the last month."""
    return {name: rate(accesses.reads(table_id, today, MONTH_DAYS), MONTH_DAYS) for table_id, name in names.items()}


def reads_of(
    accesses: Mapping[str, float] | str | os.PathLike[str] | None, names: Collection[str], observed: Observed | None
) -> Mapping[str, float]:
    """Reads a month by name: as given, from a file of events, or, with None, as the catalog observed.

    A file is taken to cover all tables from its first day to its last. Raises InvalidInput for names that do not exist
    and rates that make no sense, and what :func:`.read_events` raises.
    """
    if accesses is None:
        return {} if observed is None else observed.reads
    if isinstance(accesses, str | os.PathLike):
        events = read_events(accesses)
        days = [day for of_table in events.values() for day in of_table]
        length = (max(days) - min(days)).days + 1 if days else 0
        return {name: rate(sum(events.get(name, {}).values()), length) for name in names}
    if not isinstance(accesses, Mapping):
        raise InvalidInput(
            f"accesses is a {type(accesses).__name__}, expected reads a month by table, or the path of a file of events"
        )
    unknown = sorted(set(accesses) - set(names))
    if unknown:
        raise InvalidInput(f"accesses of tables that the graph does not have: {', '.join(map(repr, unknown[:20]))}")
    return accesses


def rewrites_of(history: Sequence[Commit], now_us: int) -> dict[str, float]:
    """How often a month rows of each table were moved or deleted, by the commits of the last month."""
    return _rates(history, now_us, _MOVING)


def overwrites_of(history: Sequence[Commit], now_us: int) -> dict[str, float]:
    """How often a month each table was overwritten, by the commits of the last month."""
    return _rates(history, now_us, _UNDOING)


def _rates(history: Sequence[Commit], now_us: int, operations: frozenset[str]) -> dict[str, float]:
    recent = [commit for commit in history if commit.timestamp_us > now_us - MONTH_DAYS * _DAY_US]
    if not recent:
        return {}
    days = max(1.0, (now_us - min(commit.timestamp_us for commit in recent)) / _DAY_US)
    counts: Counter[str] = Counter()
    for commit in recent:
        if commit.operation.partition(" ")[0] in operations:
            counts.update(commit.tables)
    return {name: count * MONTH_DAYS / max(days, MONTH_DAYS) for name, count in counts.items()}
