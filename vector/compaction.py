"""Compaction: deltas and small segments become one segment, deleted rows go, and the tree grows with what came.

Which units, is a pure decision. The work reads a copy of the units' lists and needs no lock; what changed meanwhile is
carried over when the new unit takes their place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from .building import Settings, built
from .delta import Delta
from .growth import grow
from .matching import table_of
from .planner import SHORT_LIST_ROWS
from .postings import NONE, Posting, folded
from .segment import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .osq import Part
    from .tree import Tree

__all__ = ["Unit", "Work", "chosen", "merged", "published", "started"]

Unit = Segment | Delta
RATIO: Final = 3
"""A segment joins a merge of at least a third of its rows, so that sizes of those that stay differ by more."""
DEAD_SHARE: Final = 0.25
"""A segment with more deleted rows than this is written anew."""
INHERIT_SHARE: Final = 0.5
"""The tree of a segment that brings more than this share of the rows is grown instead of trained anew."""


def chosen(units: Sequence[Unit]) -> list[Unit]:
    """The units to merge next, none if all is well: full deltas with the segments that are not much larger."""
    full = [unit for unit in units if isinstance(unit, Delta)]
    segments = sorted((unit for unit in units if isinstance(unit, Segment)), key=len)
    wanted: list[Unit] = list(full)
    wanted += [unit for unit in segments if unit.deleted > DEAD_SHARE * len(unit)]
    if not wanted and len(segments) > 1 and len(segments[1]) <= RATIO * len(segments[0]):
        wanted.append(segments[0])
    if not wanted:
        return []
    rows = sum(map(len, wanted))
    for segment in segments:
        if segment not in wanted and len(segment) <= RATIO * rows:
            wanted.append(segment)
            rows += len(segment)
    return wanted


@dataclass(slots=True)
class Work:
    """What a merge starts from: units, their live rows as positions, and their lists, as they were."""

    units: list[Unit]
    kept: list[NDArray[np.int64]]
    lists: list[dict[int, Posting]]


def started(units: list[Unit]) -> Work:
    """The start of a merge; call it where no writer is at work."""
    kept = [np.flatnonzero(unit.rows.live[: len(unit)]) for unit in units]
    lists = [{code: unit.postings.get(code) for code in unit.postings.codes()} for unit in units]
    return Work(units, kept, lists)


def merged(work: Work, settings: Settings) -> tuple[Segment, list[NDArray[np.int64]]] | None:
    """The new segment, and for each unit where its rows stand now, int64, -1 for rows that went; None without rows."""
    total = sum(map(len, work.kept))
    if total == 0:
        return None
    vectors = np.concatenate([unit.rows.vectors_at(kept) for unit, kept in zip(work.units, work.kept, strict=True)])
    ids = np.concatenate([unit.rows.ids[kept] for unit, kept in zip(work.units, work.kept, strict=True)])
    first, row_of = 0, []
    codes, rows = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
    for unit, kept, lists in zip(work.units, work.kept, work.lists, strict=True):
        row = np.full(len(unit), -1, np.int64)
        row[kept] = np.arange(first, first + len(kept))
        first += len(kept)
        row_of.append(row)
        for code, posting in lists.items():
            named = row[folded(posting)]
            named = named[named >= 0]
            rows.append(named)
            codes.append(np.full(len(named), code, np.int32))
    grown = _grown(work, row_of, vectors, settings)
    attributes = None
    if settings.schema is not None:
        parts = [table_of(unit.columns, kept) for unit, kept in zip(work.units, work.kept, strict=True)]
        attributes = pa.concat_tables(parts).combine_chunks()
    pairs = np.concatenate(codes), np.concatenate(rows)
    segment, position = built(vectors, ids, pairs, settings, grown, attributes, _inherited(work, total))
    return segment, [np.where(row >= 0, position[row], -1) for row in row_of]


def _grown(
    work: Work, row_of: list[NDArray[np.int64]], vectors: NDArray[np.float32], settings: Settings
) -> tuple[Tree, NDArray[np.int64]] | None:
    """A tree grown from that of the largest segment, if that brings enough of the rows."""
    largest = max(range(len(work.units)), key=lambda i: len(work.kept[i]))
    unit = work.units[largest]
    if not isinstance(unit, Segment) or len(work.kept[largest]) < INHERIT_SHARE * len(vectors):
        return None
    nodes = unit.rows.nodes
    leaves = np.flatnonzero(nodes.child_count == 0)
    leaves = leaves[np.argsort(nodes.lo[leaves], kind="stable")]
    at = np.repeat(leaves, nodes.hi[leaves].astype(np.int64) - nodes.lo[leaves]).astype(np.int32)
    leaf = np.full(len(vectors), -1, np.int32)
    leaf[row_of[largest][work.kept[largest]]] = at[work.kept[largest]]
    return grow(
        nodes.tree(unit.rows.mean),
        vectors,
        leaf,
        metric=settings.metric.name.lower(),
        leaf_rows=SHORT_LIST_ROWS,
        seed=settings.seed,
        threads=settings.threads,
    )


def _inherited(work: Work, total: int) -> Part | None:
    """How the rows of the largest segment are coded, if it brings enough of them and has no vectors.

    By their own axes and cells the vectors that codes stand for are coded as before, so that a merge takes nothing off.
    """
    largest = max(range(len(work.units)), key=lambda i: len(work.kept[i]))
    rows = work.units[largest].rows
    return (
        None if rows.fine is None or rows.whole or len(work.kept[largest]) < INHERIT_SHARE * total else rows.fine.part
    )


def published(work: Work, segment: Segment, places: list[NDArray[np.int64]]) -> None:
    """Carry over to ``segment`` what happened to its units since :func:`started`; call it where no writer works."""
    changed: set[int] = set()
    for unit, lists in zip(work.units, work.lists, strict=True):
        for code in unit.postings.codes():
            now, then = unit.postings.get(code), lists.get(code, Posting(NONE))
            if now is not then and not all(map(_same, now, then)):
                changed.add(code)
    for code in changed:
        rows = [place[folded(unit.postings.get(code))] for unit, place in zip(work.units, places, strict=True)]
        together = np.sort(np.concatenate(rows))
        segment.postings.replace(code, together[together >= 0].astype(np.uint32))
    for unit, kept, place in zip(work.units, work.kept, places, strict=True):
        segment.rows.live[place[kept]] = unit.rows.live[kept]
    segment.deleted = int(np.count_nonzero(segment.rows.live == 0))


def _same(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> bool:
    """Whether two lists hold the same; immutable ones are told by their place."""
    return left is right or np.array_equal(left, right)
