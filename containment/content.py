"""Reading rows for comparison: each column's compressed bytes counted, hashed once, and forgotten.

Small tables are read whole at their first use and kept decoded until their rows are hashed, since opening a file costs
more than a few columns of it. Larger ones are read column by column as far as needed, and batch by batch.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import pyarrow as pa

from .hashing import ValueHasher
from .sketch import ValueSet, ValueSetBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ..lake.table import Table
    from .rowsets import RowSets

__all__ = ["Content"]

_T = TypeVar("_T")

_SMALL_BYTES: Final = 128 * 2**10
"""Compressed bytes below which a table is read in one go."""
_KEPT_BYTES: Final = 256 * 2**20
"""Decoded bytes of small tables kept between the stages."""
_THREADS: Final = 2
_COMPILED_VALUES: Final = 100_000_000
"""Below this many values to hash, NumPy is done before Numba has started."""


class Content:
    """Reads and hashes columns of tables. ``tables`` are numbered by their position; ``needed`` gives the columns of
    each table that may be asked for, so that a small one can be read once.

    ``bytes_read`` counts compressed bytes of the columns read.
    """

    def __init__(self, tables: Sequence[Table], seed: bytes, rowsets: RowSets) -> None:
        self.bytes_read = 0
        self._tables = tables
        self._seed = seed
        self._hasher = ValueHasher(seed, compiled=False)
        self._compiled = False
        self._rowsets = rowsets
        self._lock = threading.Lock()
        self._kept: dict[int, pa.Table] = {}
        self._kept_bytes = 0
        self._column_bytes: dict[tuple[int, str], int] = {}

    def column_bytes(self, table: int, columns: Iterable[str]) -> int:
        """Compressed bytes of these columns in all fragments of the table."""
        total = 0
        for name in columns:
            size = self._column_bytes.get((table, name))
            if size is None:
                size = sum(fragment.column_bytes([name]) for fragment in self._tables[table].fragments())
                self._column_bytes[table, name] = size
            total += size
        return total

    def is_small(self, table: int, columns: Sequence[str]) -> bool:
        """Whether reading these columns costs hardly more than opening the table."""
        return table in self._kept or self._tables[table].num_bytes <= _SMALL_BYTES or (
            self.column_bytes(table, columns) <= _SMALL_BYTES
        )

    def value_sets(
        self,
        wanted: Mapping[int, set[str]],
        needed: Callable[[int], Sequence[str]],
        done: Callable[[int, int], None],
    ) -> dict[tuple[int, str], ValueSet]:
        """The value sets of the wanted columns by (table, column). ``done(tables, of)`` is called as they are read."""
        self._choose_kernels(wanted)

        def one(table: int) -> list[tuple[tuple[int, str], ValueSet]]:
            columns = sorted(wanted[table])
            builders = {name: ValueSetBuilder() for name in columns}
            for batch in self._batches(table, columns, needed(table)):
                for name, builder in builders.items():
                    builder.add(self._hasher.column(batch.column(name)).lo)
            return [((table, name), builder.build()) for name, builder in builders.items()]

        result: dict[tuple[int, str], ValueSet] = {}
        for at, sets in enumerate(self._each(one, list(wanted))):
            result.update(sets)
            done(at + 1, len(wanted))
        return result

    def row_sets(
        self,
        wanted: Mapping[int, Mapping[int, tuple[Sequence[str], Sequence[str]]]],
        done: Callable[[int, int], None],
    ) -> None:
        """Add row sets: for each table, by key of the row set, its columns and the names that salt them."""
        self._choose_kernels({table: {n for names, _ in sets.values() for n in names} for table, sets in wanted.items()})

        def one(table: int) -> None:
            sets = wanted[table]
            # A salt is a column's normalised name, which tells the column of this table.
            named = {salt: name for names, salts in sets.values() for name, salt in zip(names, salts, strict=True)}
            columns = sorted(set(named.values()))
            for batch in self._batches(table, columns, columns):
                salted = pa.table([batch.column(name) for name in named.values()], names=list(named))
                hashed = self._hasher.table_rows(salted, [salts for _, salts in sets.values()])
                for key, rows in zip(sets, hashed, strict=True):
                    self._rowsets.add(key, rows)
            for key in sets:
                self._rowsets.seal(key)
            with self._lock:
                kept = self._kept.pop(table, None)
                if kept is not None:
                    self._kept_bytes -= kept.nbytes

        for at, _ in enumerate(self._each(one, list(wanted))):
            done(at + 1, len(wanted))

    def _choose_kernels(self, wanted: Mapping[int, set[str]]) -> None:
        if self._compiled:
            return
        values = sum(self._tables[table].num_rows * len(columns) for table, columns in wanted.items())
        if values >= _COMPILED_VALUES:
            self._hasher = ValueHasher(self._seed, compiled=True)
            self._compiled = True

    def _batches(self, table: int, columns: Sequence[str], needed: Sequence[str]) -> Iterator[pa.Table]:
        kept = self._kept.get(table)
        if kept is not None and all(name in kept.column_names for name in columns):
            yield kept
            return
        small = self.is_small(table, needed)
        names = sorted({*columns, *needed}) if small else list(columns)
        size = self.column_bytes(table, names)
        with self._lock:
            self.bytes_read += size
        for fragment in self._tables[table].fragments():
            if small:
                rows = fragment.read(names)
                if rows.num_rows:
                    self._keep(table, rows)
                    yield rows
            else:
                for rows in fragment.batches(names):
                    if rows.num_rows:
                        yield rows

    def _keep(self, table: int, rows: pa.Table) -> None:
        if len(self._tables[table].fragments()) != 1:
            return
        with self._lock:
            if self._kept_bytes + rows.nbytes <= _KEPT_BYTES:
                self._kept[table] = rows
                self._kept_bytes += rows.nbytes

    def _each(self, work: Callable[[int], _T], tables: list[int]) -> Iterator[_T]:
        """Run ``work`` for every table, the largest first, on two threads when there is enough to decode."""
        tables.sort(key=lambda table: self._tables[table].num_bytes, reverse=True)
        large = [table for table in tables if self._tables[table].num_bytes > _SMALL_BYTES]
        if len(large) > 1:
            with ThreadPoolExecutor(_THREADS) as pool:
                pending = [pool.submit(work, table) for table in large]
                try:
                    for future in pending:
                        yield future.result()
                finally:
                    for future in pending:
                        future.cancel()
            tables = tables[len(large) :]
        for table in tables:
            yield work(table)
