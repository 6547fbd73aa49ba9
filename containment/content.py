"""Reading rows for comparison: each column's compressed bytes counted, hashed once, and forgotten.

Small tables are read whole at their first use and kept decoded until their rows are hashed, since opening a file costs
more than a few columns of it. Larger ones are read column by column as far as needed, and batch by batch.

``pa.table`` and ``pa.array`` import pandas where it is installed, 0.3 s: tables are made by ``Table.from_arrays``.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from ..lake.statistics import leaf_columns
from .hashing import ValueHasher
from .sketch import ValueSet, ValueSetBuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from ..lake.table import Table
    from .rowsets import RowSets

__all__ = ["Content"]

_T = TypeVar("_T")

_SMALL_BYTES: Final = 128 * 2**10
"""Compressed bytes below which a table is read in one go."""
_KEPT_BYTES: Final = 256 * 2**20
"""Decoded bytes of columns kept from probing until rows are compared."""
_WORTH_COUNTING_VALUES: Final = 200_000
"""Above this many values, looking for a column without repeats comes before hashing rows just to count them."""
_THREADS: Final = 2
_COMPILED_VALUES: Final = 60_000_000
"""Below this many values to hash, NumPy is done before Numba has started."""


class Content:
    """Reads and hashes columns of tables, which are numbered by their position in ``tables``.

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
        self._kept: dict[int, dict[str, list[pa.ChunkedArray]]] = {}
        self._kept_bytes = 0
        self._unique: set[int] = set()
        self._column_bytes: dict[int, dict[str, int]] = {}

    def column_bytes(self, table: int, columns: Iterable[str]) -> int:
        """Compressed bytes of these columns in all fragments of the table."""
        sizes = self._column_bytes.get(table)
        if sizes is None:
            sizes = self._column_bytes[table] = _column_bytes(self._tables[table])
        return sum(sizes.get(name, 0) for name in columns)

    def num_rows(self, table: int) -> int:
        """Rows of the table."""
        return self._tables[table].num_rows

    def has_unique_column(self, table: int) -> bool:
        """Whether some column is known to repeat no value, or one that well may is found not to when read.

        Then the table's rows are distinct, which spares hashing all its columns.
        """
        if table in self._unique:
            return True
        rows, fragments = self._tables[table].num_rows, self._tables[table].fragments()
        if len(fragments) != 1 or rows * len(self._tables[table].schema) < _WORTH_COUNTING_VALUES:
            return False
        dense = [
            name
            for name, bounds in fragments[0].bounds().items()
            if type(bounds.min) is int and type(bounds.max) is int and bounds.max - bounds.min + 1 == rows
        ]
        for name in sorted(dense, key=lambda name: self.column_bytes(table, [name]))[:1]:
            self.bytes_read += self.column_bytes(table, [name])
            return int(pc.count_distinct(fragments[0].read([name]).column(0), mode="all").as_py()) == rows
        return False

    def is_small(self, table: int, columns: Sequence[str]) -> bool:
        """Whether reading these columns costs hardly more than opening the table."""
        return self._tables[table].num_bytes <= _SMALL_BYTES or self.column_bytes(table, columns) <= _SMALL_BYTES

    def value_sets(
        self,
        wanted: Mapping[int, set[str]],
        needed: Callable[[int], Sequence[str]] | None = None,
        done: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[tuple[int, str], ValueSet]:
        """The value sets of the wanted columns by (table, column). ``done(tables, of)`` is called as they are read.

        With ``needed``, what is read is kept, and of small tables all columns that it tells.
        """
        self._choose_kernels(wanted)

        def one(table: int) -> list[tuple[tuple[int, str], ValueSet]]:
            columns = sorted(wanted[table])
            builders = {name: ValueSetBuilder() for name in columns}
            for batch in self._batches(table, columns, needed(table) if needed else None):
                for name, builder in builders.items():
                    builder.add(self._hasher.column(batch.column(name)).lo)
            built = [((table, name), builder.build()) for name, builder in builders.items()]
            if any(values.whole and len(values.hashes) == self.num_rows(table) for _, values in built):
                self._unique.add(table)
            return built

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
        self._choose_kernels(
            {table: {n for names, _ in sets.values() for n in names} for table, sets in wanted.items()}
        )

        def one(table: int) -> None:
            sets = wanted[table]
            # A salt is a column's normalised name, which tells the column of this table.
            named = {salt: name for names, salts in sets.values() for name, salt in zip(names, salts, strict=True)}
            columns = sorted(set(named.values()))
            for batch in self._batches(table, columns):
                salted = pa.Table.from_arrays([batch.column(name) for name in named.values()], names=list(named))
                hashed = self._hasher.table_rows(salted, [salts for _, salts in sets.values()])
                for key, rows in zip(sets, hashed, strict=True):
                    self._rowsets.add(key, rows)
            for key in sets:
                self._rowsets.seal(key)
            self._forget(table)

        for at, _ in enumerate(self._each(one, list(wanted))):
            done(at + 1, len(wanted))

    def _choose_kernels(self, wanted: Mapping[int, set[str]]) -> None:
        if self._compiled:
            return
        values = sum(self._tables[table].num_rows * len(columns) for table, columns in wanted.items())
        if values >= _COMPILED_VALUES:
            self._hasher = ValueHasher(self._seed, compiled=True)
            self._compiled = True

    def keep_only(self, tables: Container[int]) -> None:
        """Forget what was kept of other tables."""
        for table in [table for table in self._kept if table not in tables]:
            self._forget(table)

    def _forget(self, table: int) -> None:
        with self._lock:
            for batches in self._kept.pop(table, {}).values():
                self._kept_bytes -= sum(batch.nbytes for batch in batches)

    def _batches(self, table: int, columns: Sequence[str], needed: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The columns batch by batch. With ``needed``, what is read is kept: of a small table all that is needed."""
        kept = self._kept.get(table, {})
        missing = [name for name in columns if name not in kept]
        small = self.is_small(table, columns if needed is None else needed)
        if missing and small and needed is not None:
            missing = sorted({*missing, *needed} - kept.keys())
        if not missing:
            for parts in zip(*(kept[name] for name in columns), strict=True):
                yield pa.Table.from_arrays(list(parts), names=list(columns))
            return
        size = self.column_bytes(table, missing)
        with self._lock:
            self.bytes_read += size
        fresh: dict[str, list[pa.ChunkedArray]] | None = None if needed is None else {name: [] for name in missing}
        at = 0
        for fragment in self._tables[table].fragments():
            for rows in [fragment.read(missing)] if small else fragment.batches(missing):
                if not rows.num_rows:
                    continue
                fresh = self._kept_now(fresh, rows)
                yield pa.Table.from_arrays(
                    [rows.column(name) if name not in kept else kept[name][at] for name in columns], names=list(columns)
                )
                at += 1
        if fresh is not None:
            with self._lock:
                self._kept.setdefault(table, {}).update(fresh)

    def _kept_now(
        self, fresh: dict[str, list[pa.ChunkedArray]] | None, rows: pa.Table
    ) -> dict[str, list[pa.ChunkedArray]] | None:
        """Keep the batch with those before it; None, with all given back, once there is too much."""
        if fresh is None:
            return None
        with self._lock:
            if self._kept_bytes + rows.nbytes > _KEPT_BYTES:
                self._kept_bytes -= sum(part.nbytes for parts in fresh.values() for part in parts)
                return None
            self._kept_bytes += rows.nbytes
        for name, parts in fresh.items():
            parts.append(rows.column(name))
        return fresh

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


def _column_bytes(table: Table) -> dict[str, int]:
    """Compressed bytes of each column. All at once: asking a fragment column by column costs its width each time."""
    sizes = dict.fromkeys(table.schema.names, 0)
    for fragment in table.fragments():
        metadata = fragment.metadata
        spans = leaf_columns(fragment.file_schema, metadata.num_columns)
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            leaves = [group.column(leaf).total_compressed_size for leaf in range(metadata.num_columns)]
            for name, (first, count) in spans.items():
                if name in sizes:
                    sizes[name] += sum(leaves[first : first + count])
    return sizes
