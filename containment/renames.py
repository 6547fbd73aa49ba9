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
from .hashing import ValueHasher
from .schema_graph import normalised
from .sketch import ValueSetBuilder

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
    hasher = ValueHasher(seed, compiled=False)
    rows: list[tuple[str, str, str, str, int]] = []
    left = max_bytes
    for candidates in _candidates(tables):
        by_values: defaultdict[tuple[int, bytes], list[Column]] = defaultdict(list)
        distinct: dict[tuple[int, bytes], int] = {}
        for table, name in candidates:
            fragments = tables[table].fragments()
            left -= sum(fragment.column_bytes([name]) for fragment in fragments)
            if left < 0:
                return _table(rows)
            builder = ValueSetBuilder()
            for fragment in fragments:
                for batch in fragment.batches([name]):
                    if batch.num_rows:
                        builder.add(hasher.column(batch.column(0)).lo)
            values = builder.build()
            key = int(values.threshold), values.hashes.tobytes()
            by_values[key].append((table, name))
            distinct[key] = round(values.distinct)
        for key, columns in by_values.items():
            if distinct[key] >= LEAST_DISTINCT and not _is_range(tables, columns[0], distinct[key]):
                rows.extend(_pairs(tables, columns, distinct[key]))
    return _table(rows)


def _table(rows: list[tuple[str, str, str, str, int]]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in sorted(rows)], SCHEMA)


def _candidates(tables: Sequence[Table]) -> Iterator[list[Column]]:
    """Columns with the same exact bounds under at least two names, those of the longest tables first."""
    found: defaultdict[tuple[Any, ...], list[Column]] = defaultdict(list)
    for number, table in enumerate(tables):
        fragments = table.fragments()
        if len(fragments) != 1 or table.num_rows < LEAST_DISTINCT:
            continue
        for name, bounds in fragments[0].bounds().items():
            if bounds.min_exact and bounds.max_exact and not _few(bounds):
                kind = family(table.schema.field(name).type).kind
                found[kind, bounds.min, bounds.max, bounds.null_count == 0].append((number, name))
    named = [columns for columns in found.values() if len({normalised(name) for _, name in columns}) > 1]
    named.sort(key=lambda columns: -max(tables[table].num_rows for table, _ in columns))
    yield from named


def _few(bounds: Bounds) -> bool:
    low, high = bounds.min, bounds.max
    return isinstance(low, int) and isinstance(high, int) and high - low < LEAST_DISTINCT


def _is_range(tables: Sequence[Table], column: Column, distinct: int) -> bool:
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
