"""Segments of an index over a table: made of the files that none covers, joined when they are small, and dropped.

What is to be done, is a pure decision over counts of rows. Doing it writes segments that no version names yet; the
commit that names them is the caller's.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pyarrow as pa

from ..lake.limits import VECTOR_SEGMENT_BYTES
from ..lake.schema import decode_schema
from ..lake.table_index import IndexSegment, TableIndex, segment_path
from .compaction import merged, started
from .segment_files import scratch_folder, uploaded
from .table_part import Beside, Part, built_part, loose_part, write_part
from .table_rows import TableRows, joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..lake.progress import Progress
    from ..lake.snapshot import OwnedTable
    from ..lake.store import Store
    from .building import Settings
    from .open_index import OpenIndex
    from .table_definition import Definition

__all__ = ["extended", "joining"]

RATIO: Final = 3
"""New rows take along a segment of up to so many times as many, so that sizes of those that stay differ by more."""
GONE_SHARE: Final = 0.25
"""A segment of which more rows than this are of files that left the table is written anew."""


def joining(fresh: int, segments: Sequence[tuple[int, int]], most_rows: int) -> list[int]:
    """Which segments to join with ``fresh`` new rows: indexes into ``segments``, the rows of each and how many of these
    are of files in the table. The result has ``most_rows`` at most, but for a single segment that lost rows.
    """
    wanted: list[int] = []
    rows = fresh
    for place, (stored, here) in enumerate(segments):
        if here < (1 - GONE_SHARE) * stored and (not wanted or rows + here <= most_rows):
            wanted.append(place)
            rows += here
    if not rows:
        return wanted
    for place in sorted(range(len(segments)), key=lambda place: segments[place][1]):
        here = segments[place][1]
        if place not in wanted and here <= RATIO * rows and rows + here <= most_rows:
            wanted.append(place)
            rows += here
    return sorted(wanted) if fresh or len(wanted) > 1 or _lost(segments, wanted) else []


def _lost(segments: Sequence[tuple[int, int]], wanted: list[int]) -> bool:
    return any(segments[place][1] < segments[place][0] for place in wanted)


def extended(
    store: Store,
    opened: OpenIndex,
    table: OwnedTable,
    index: TableIndex,
    *,
    progress: Progress,
    threads: int,
) -> TableIndex:
    """Cover all of a table's files: segments of those that none covers, some joined with older ones, some dropped.

    What ``progress`` raises ends the work, and nothing is left but objects that no version names. One segment's rows
    are in memory at a time, twice.
    """
    covered = opened.covered(table, index.segments)
    stays = {part.path: (part, files) for part, files in covered.parts}
    maker, made = _Maker(store, opened, table, index.index_id, threads, progress), []
    for group in chain(_groups(opened, table, covered.left, index.next_number, progress), [None]):
        parts = list(stays.values())
        counted = [(len(part.unit), sum(len(part.rows_of(file_id)) for file_id in files)) for part, files in parts]
        fresh = 0 if group is None else len(group.rows.ids)
        joins = [parts[place] for place in joining(fresh, counted, _most_rows(opened, group, parts))]
        if not fresh and not joins:
            continue
        segment = maker.made(group if fresh else None, joins)
        for part, _ in joins:
            del stays[part.path]
        if segment is not None:
            made.append(segment)
    kept = [segment for segment in index.segments if segment.path in stays]
    numbers = (number + 1 for segment in made for number in segment.numbers)
    return replace(index, segments=(*kept, *made), next_number=max((index.next_number, *numbers)))


class _Group(NamedTuple):
    """New rows for one segment, and the numbers of their files."""

    rows: TableRows
    numbers: Mapping[str, int]


def _groups(
    opened: OpenIndex, table: OwnedTable, files: Sequence[str], next_number: int, progress: Progress
) -> Iterator[_Group]:
    """The rows of files, as many files together as make one segment."""
    waiting: dict[str, TableRows] = {}
    numbers: dict[str, int] = {}
    for done, file_id in enumerate(files):
        progress(f"reading {table.name}", done, len(files))
        rows = opened.rows_of(table, file_id, next_number + done)
        if waiting and sum(some.nbytes for some in waiting.values()) + rows.nbytes > VECTOR_SEGMENT_BYTES:
            yield _Group(joined(list(waiting.values())), numbers)
            waiting, numbers = {}, {}
        waiting[file_id], numbers[file_id] = rows, next_number + done
    if waiting:
        progress(f"reading {table.name}", len(files), len(files))
        yield _Group(joined(list(waiting.values())), numbers)


def _most_rows(opened: OpenIndex, group: _Group | None, parts: Sequence[tuple[Part, list[str]]]) -> int:
    """Rows that a segment may have, by what those at hand take."""
    each = 4 * opened.definition.dim
    if group is not None and len(group.rows.ids):
        each = group.rows.nbytes // len(group.rows.ids)
    elif parts and len(parts[0][0].unit):
        each += parts[0][0].beside.nbytes // len(parts[0][0].unit)
    return VECTOR_SEGMENT_BYTES // max(each, 1)


class _Maker:
    """Makes segments and puts them into the store."""

    def __init__(
        self, store: Store, opened: OpenIndex, table: OwnedTable, index_id: str, threads: int, progress: Progress
    ) -> None:
        self._store, self._opened, self._table = store, opened, table
        self._index_id, self._progress, self._count = index_id, progress, 0
        self._schema = decode_schema(table.schema)
        self._settings = opened.definition.settings(self._schema, threads)

    def made(self, group: _Group | None, old: Sequence[tuple[Part, list[str]]]) -> IndexSegment | None:
        """The segment of new rows and of those of older parts, of files that the table has; None without rows."""
        stage = f"indexing {self._table.name}.{self._opened.definition.column}"
        self._progress(stage, self._count, self._count + 1)
        part = self._built(group, old)
        self._progress(stage, self._count, self._count + 1)  # the last moment to give it up: nothing is written yet
        segment = None if part is None else self._stored(part)
        self._count += 1
        self._progress(stage, self._count, self._count)
        return segment

    def _built(self, group: _Group | None, old: Sequence[tuple[Part, list[str]]]) -> Part | None:
        schema, settings = self._schema, self._settings
        types, parts = self._opened.definition.types(schema), list(old)
        if group is not None:
            if not old:
                return built_part(group.rows, group.numbers, settings, types)
            parts.append((loose_part(group.rows, group.numbers, settings, types), list(group.numbers)))
        return _joined_part(parts, self._opened.definition, schema, settings)

    def _stored(self, part: Part) -> IndexSegment:
        local = scratch_folder() / f"{uuid.uuid4().hex}.lakelet"
        opened = self._opened
        try:
            tenanted = opened.definition.tenant is not None
            write_part(str(local), part, opened.labels, self._settings, tenanted=tenanted)
            path = segment_path(self._table.table_id, self._index_id)
            num_bytes, checksum = uploaded(self._store, local, path)
        finally:
            local.unlink(missing_ok=True)
        rows = tuple(len(part.rows_of(file_id)) for file_id in part.numbers)
        return IndexSegment(path, num_bytes, checksum, tuple(part.numbers), tuple(part.numbers.values()), rows)


def _joined_part(
    parts: Sequence[tuple[Part, list[str]]], definition: Definition, schema: pa.Schema, settings: Settings
) -> Part | None:
    """All stored rows of these files of several parts in one; None without rows."""
    nothing = np.empty(0, np.int64)
    work = started([part.seen(dict.fromkeys(files, nothing), {}) for part, files in parts])
    made = merged(work, settings)
    if made is None:
        return None
    segment, places = made
    wanted = pa.schema([schema.field(name) for name in definition.kept(schema)])
    kept = pa.concat_tables([part.take(rows, wanted) for (part, _), rows in zip(parts, work.kept, strict=True)])
    place = np.concatenate([of_unit[rows] for of_unit, rows in zip(places, work.kept, strict=True)])
    numbers = {file_id: part.numbers[file_id] for part, files in parts for file_id in files}
    return Part(segment, numbers, Beside.of(kept.take(pa.array(np.argsort(place)))), definition.types(schema))
