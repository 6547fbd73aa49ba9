"""Columns that hold the same values under another name: suggestions for people, never edges.

Bounds choose the candidates without reading anything; the values of the few that agree are then hashed without their
name, so that equal columns have equal value sets whatever they are called.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from ..lake.limits import CONTAINMENT_RENAME_BYTES
from .canonical import family
from .content import Content
from .rowsets import RowSets
from .schema_graph import normalised

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..lake.statistics import Bounds
    from ..lake.table import Table

__all__ = ["suggestions"]

SCHEMA: Final = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("column", pa.string(), nullable=False),
        pa.field("other_table", pa.string(), nullable=False),
        pa.field("other_column", pa.string(), nullable=False),
        pa.field("distinct_values", pa.int64(), nullable=False),
    ]
)
_LEAST_MEMORY_BYTES: Final = 2**20
LEAST_DISTINCT: Final = 20
"""Columns of fewer distinct values agree by chance."""

Column = tuple[int, str]
"""Table, by position, and column name."""


def suggestions(tables: Sequence[Table], seed: bytes, max_bytes: int = CONTAINMENT_RENAME_BYTES) -> pa.Table:
    """Pairs of columns in different tables with equal sets of values, and names that differ.

    Columns: table, column, other_table, other_column, distinct_values; the first pair of each is the first column of
    its kind in table order. Candidates are read until ``max_bytes`` compressed bytes are used up, the longest tables
    first. Columns of few values and gapless ranges of integers (row numbers) are left out: they say nothing.
    """
    found = _candidates(tables)
    wanted: dict[int, set[str]] = {}
    rows: list[tuple[str, str, str, str, int]] = []
    with RowSets(_LEAST_MEMORY_BYTES) as rowsets:
        content = Content(tables, seed, rowsets)
        affordable, left = [], max_bytes
        for candidates in found:
            left -= sum(content.column_bytes(table, [name]) for table, name in candidates)
            if left < 0:
                break
            affordable.append(candidates)
            for table, name in candidates:
                wanted.setdefault(table, set()).add(name)
        sets = content.value_sets(wanted)
    for candidates in affordable:
        alike: defaultdict[tuple[int, bytes], list[Column]] = defaultdict(list)
        for column in candidates:
            values = sets[column]
            if values.distinct >= LEAST_DISTINCT and not _is_range(tables, column, values.distinct):
                alike[int(values.threshold), values.hashes.tobytes()].append(column)
        for columns in alike.values():
            rows.extend(_pairs(tables, columns, round(sets[columns[0]].distinct)))
    return _table(rows)


def _table(rows: list[tuple[str, str, str, str, int]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in sorted(rows)], SCHEMA)


def _candidates(tables: Sequence[Table]) -> list[list[Column]]:
    """Columns with the same exact bounds under at least two names, those of the longest tables first."""
    found: defaultdict[tuple[Any, ...], list[Column]] = defaultdict(list)
    for number, table in enumerate(tables):
        fragments = table.fragments()
        if len(fragments) != 1 or table.num_rows < LEAST_DISTINCT:
            continue
        for name, bounds in fragments[0].bounds().items():
            if bounds.min_exact and bounds.max_exact and not _says_nothing(bounds, table.num_rows):
                kind = family(table.schema.field(name).type).kind
                found[kind, bounds.min, bounds.max, bounds.null_count == 0].append((number, name))
    named = [columns for columns in found.values() if len({normalised(name) for _, name in columns}) > 1]
    named.sort(key=lambda columns: -max(tables[table].num_rows for table, _ in columns))
    return named


def _says_nothing(bounds: Bounds, rows: int) -> bool:
    """Whether the column can hold few values only, or looks like row numbers."""
    low, high = bounds.min, bounds.max
    if not isinstance(low, int) or not isinstance(high, int):
        return False
    return high - low < LEAST_DISTINCT or (high - low + 1 == rows and low in (0, 1))


def _is_range(tables: Sequence[Table], column: Column, distinct: float) -> bool:
    """Whether the column's values are all integers of a range, as row numbers are."""
    bounds = tables[column[0]].fragments()[0].bounds([column[1]])[column[1]]
    low, high = bounds.min, bounds.max
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return False
    return high - low + 1 <= distinct + (bounds.null_count != 0)


def _pairs(
    tables: Sequence[Table], columns: Sequence[Column], distinct: int
) -> Iterator[tuple[str, str, str, str, int]]:
    """The first column of each name against those of other names: n pairs, not n squared."""
    (first, name), *others = columns
    for table, other in others:
        if table != first and normalised(other) != normalised(name):
            yield tables[first].name, name, tables[table].name, other, distinct
