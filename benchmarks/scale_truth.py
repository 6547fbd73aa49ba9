"""The true containments of the scale lake, exactly, without comparing tables with each other.

Every table of the lake is a set of rows of one universe: a TPC-H table and the rows synthesised from it. For a child's
columns S, rows of the universe that agree on S, value by value as DuckDB compares values of one type, get one number;
a child is contained in a parent when its numbers are among the parent's. So one exact grouping a column set settles
every pair, accidental containments of small domains included, and nothing is believed because of how a table was made.

Where S holds the key of the TPC-H table, only rows that share a key with a synthetic row can agree, and only those are
grouped. A column that was written as double keeps its value only where it is a multiple of 1/4; other values equal
those of columns cast in the same way and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from scale_tables import COLUMNS, KEYS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    from numpy.typing import NDArray
    from scale_tables import Derived


def candidates(con: duckdb.DuckDBPyConnection, tables: Sequence[Derived]) -> pa.Table:
    """Return every ordered pair whose child's column names are among the parent's.

    ``con`` holds the universe as :func:`scale_lake.open_universe` makes it. Columns: child, parent (names),
    child_rows (distinct rows of the child), common_rows (how many of them are in the parent's projection).
    """
    found: dict[str, list[object]] = {"child": [], "parent": [], "child_rows": [], "common_rows": []}
    for base in COLUMNS:
        own = [table for table in tables if table.base == base]
        universe = _Universe(con, base, own)
        for names in dict.fromkeys(frozenset(table.names) for table in own):
            for child, parent, rows, common in universe.pairs(names):
                for column, value in zip(found.values(), (child, parent, rows, common), strict=True):
                    column.append(value)
    return pa.table(found)


class _Universe:
    """The rows that one TPC-H table and its synthetic rows make, and which of them each table holds."""

    def __init__(self, con: duckdb.DuckDBPyConnection, base: str, tables: Sequence[Derived]) -> None:
        self._con = con
        self._base = base
        self._tables = tables
        self._all_columns = ", ".join(COLUMNS[base])
        self._size = int(_numbers(con, f"SELECT max(pos) + 1 FROM all_{base}")[0])
        self._members = {table.name: np.packbits(self._mask(_picked(table))) for table in tables}
        lossy = sorted({table.lossy for table in tables if table.lossy})
        self._inexact = {column: self._mask(f"SELECT pos FROM all_{base} WHERE {_inexact(column)}") for column in lossy}
        key = ", ".join(KEYS[base])
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE shared AS "
            f"SELECT pos, {self._all_columns} FROM {base} SEMI JOIN (SELECT {key} FROM extra_{base}) USING ({key}) "
            f"UNION ALL SELECT pos, {self._all_columns} FROM extra_{base}"
        )

    def pairs(self, names: frozenset[str]) -> list[tuple[str, str, int, int]]:
        """Return (child, parent, child rows, common rows) for children with exactly these column names."""
        holders = [table for table in self._tables if names <= set(table.names)]
        children = [table for table in holders if len(table.names) == len(names)]
        columns = [c for c, name in zip(children[0].columns, children[0].names, strict=True) if name in names]
        groups = self._keyed(columns) if set(KEYS[self._base]) <= set(columns) else self._grouped(columns)
        planes = [column for column in self._inexact if column in columns]
        present = {table.name: self._present(table, groups, planes) for table in holders}
        result = []
        for child in children:
            own = present[child.name]
            rows = _count(own)
            others = [parent.name for parent in holders if parent is not child and rows]
            result += [(child.name, parent, rows, _count(own & present[parent])) for parent in others]
        return result

    def _present(self, table: Derived, groups: _Groups, planes: Sequence[str]) -> NDArray[np.uint8]:
        """Return the numbers that the table's rows have, as packed bits: exact values first, then a plane a column."""
        mask = np.unpackbits(self._members[table.name], count=self._size).view(bool)
        inexact = self._inexact[table.lossy] & mask if table.lossy in planes else None
        parts = [groups.present(mask if inexact is None else mask & ~inexact)]
        parts += [
            groups.present(inexact) if inexact is not None and column == table.lossy else np.zeros(groups.count, bool)
            for column in planes
        ]
        return np.packbits(np.concatenate(parts))

    def _mask(self, query: str) -> NDArray[np.bool_]:
        mask = np.zeros(self._size, bool)
        mask[_numbers(self._con, query)] = True
        return mask

    def _keyed(self, columns: Sequence[str]) -> _Groups:
        listed = ", ".join(columns)
        same = self._con.sql(
            f"SELECT min(pos) AS first, list(pos) AS same FROM shared GROUP BY {listed} HAVING count(*) > 1"
        ).to_arrow_table()
        lists = same["same"].combine_chunks()
        sizes = np.diff(lists.offsets.to_numpy())
        numbers = np.arange(self._size)
        numbers[lists.flatten().to_numpy()] = np.repeat(same["first"].to_numpy(), sizes)
        return _Groups(numbers, self._size)

    def _grouped(self, columns: Sequence[str]) -> _Groups:
        listed = ", ".join(columns)
        self._con.execute(
            f"CREATE OR REPLACE TEMP TABLE groups AS "
            f"SELECT row_number() OVER () - 1 AS number, * FROM (SELECT DISTINCT {listed} FROM all_{self._base})"
        )
        agree = " AND ".join(f"u.{column} IS NOT DISTINCT FROM g.{column}" for column in columns)
        found = self._con.execute(
            f"SELECT u.pos, g.number FROM all_{self._base} u JOIN groups g ON {agree}"
        ).fetchnumpy()
        numbers = np.zeros(self._size, np.int64)
        numbers[found["pos"]] = found["number"]
        return _Groups(numbers, int(found["number"].max()) + 1)


@dataclass(frozen=True)
class _Groups:
    """A number a row, int64 (rows,); rows that agree on the columns at hand share it. Numbers are below ``count``."""

    numbers: NDArray[np.int64]
    count: int

    def present(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which numbers the rows of ``mask`` have, bool (count,)."""
        result = np.zeros(self.count, bool)
        result[self.numbers[mask]] = True
        return result


def _picked(table: Derived) -> str:
    picked = f"SELECT pos FROM {table.base} WHERE {table.where}"
    if table.synthetic:
        picked += f" UNION ALL SELECT pos FROM extra_{table.base} WHERE tag = '{table.synthetic}'"
    return picked


def _inexact(column: str) -> str:
    return f"{column} IS NOT NULL AND (({column} * 100)::BIGINT % 25) <> 0"


def _numbers(con: duckdb.DuckDBPyConnection, query: str) -> NDArray[np.int64]:
    result: NDArray[np.int64] = next(iter(con.execute(query).fetchnumpy().values()))
    return result


def _count(bits: NDArray[np.uint8]) -> int:
    return int(np.bitwise_count(bits).sum(dtype=np.int64))
