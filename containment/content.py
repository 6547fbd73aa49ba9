"""Reading rows for comparison: each column's compressed bytes counted, hashed once, and forgotten.

Small tables are read whole at their first use and kept decoded until their rows are hashed, since opening a file costs
more than a few columns of it. Larger ones are read column by column as far as needed, and batch by batch.

``pa.table`` and ``pa.array`` import pandas where it is installed, 0.3 s: tables are made by ``Table.from_arrays``.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar, cast

import numpy as np
import pyarrow as pa

from .buffers import plain
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
_SMALL_VALUES: Final = 2**20
"""Values above which a table is not small, however well it is compressed."""
_LOT_BYTES: Final = 2**20
_LOT_VALUES: Final = 2**21
"""Compressed bytes and values of small tables hashed together."""
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
        self._kept_bytes_of: dict[int, int] = {}
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
        schema = self._tables[table].schema
        dense = [
            name
            for name, bounds in fragments[0].bounds().items()
            if type(bounds.min) is int and type(bounds.max) is int and bounds.max - bounds.min + 1 == rows
            if pa.types.is_integer(schema.field(name).type) and bounds.max < 2**63
        ]
        for name in sorted(dense, key=lambda name: self.column_bytes(table, [name]))[:1]:
            self.bytes_read += self.column_bytes(table, [name])
            least = fragments[0].bounds([name])[name].min
            return _all_met(fragments[0].read([name]).column(0), cast("int", least))
        return False

    def is_small(self, table: int, columns: Sequence[str]) -> bool:
        """Whether reading these columns costs hardly more than opening the table."""
        if self.num_rows(table) * len(columns) > _SMALL_VALUES:
            return False
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

        def one(table: int) -> list[ValueSet]:
            builders = {name: ValueSetBuilder() for name in sorted(wanted[table])}
            for batch in self._batches(table, list(builders), needed(table) if needed else None):
                for name, builder in builders.items():
                    builder.add(self._hasher.value_set(batch.column(name)))
            return [builder.build() for builder in builders.values()]

        def several(tables: Sequence[int]) -> list[ValueSet]:
            columns: list[pa.ChunkedArray] = []
            for table in tables:
                columns += self._whole(table, sorted(wanted[table]), needed(table) if needed else None).columns
            built = []
            for lanes in self._hasher.columns(columns):
                builder = ValueSetBuilder()
                builder.add(lanes.lo)
                built.append(builder.build())
            return built

        result: dict[tuple[int, str], ValueSet] = {}
        finished = 0
        for tables, sets in self._each(wanted, one, several):
            keys = [(table, name) for table in tables for name in sorted(wanted[table])]
            result.update(zip(keys, sets, strict=True))
            done(finished := finished + len(tables), len(wanted))
        self._unique.update(t for (t, _), v in result.items() if v.whole and len(v.hashes) == self.num_rows(t))
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

        # A salt is a column's normalised name, which tells the column of this table.
        named = {
            table: {salt: name for names, salts in sets.values() for name, salt in zip(names, salts, strict=True)}
            for table, sets in wanted.items()
        }
        columns_of = {table: sorted(set(names.values())) for table, names in named.items()}

        def seal(table: int) -> None:
            for key in wanted[table]:
                self._rowsets.seal(key)
            self._forget(table)

        def one(table: int) -> None:
            sets, names = wanted[table], named[table]
            for batch in self._batches(table, columns_of[table]):
                salted = pa.Table.from_arrays([batch.column(name) for name in names.values()], names=list(names))
                hashed = self._hasher.table_rows(salted, [salts for _, salts in sets.values()])
                for key, rows in zip(sets, hashed, strict=True):
                    self._rowsets.add(key, rows)
            seal(table)

        def several(tables: Sequence[int]) -> None:
            whole = [(table, self._whole(table, columns_of[table])) for table in tables]
            hashed = iter(self._hasher.columns([rows.column(name) for t, rows in whole for name in named[t].values()]))
            for table in tables:
                columns = {salt: next(hashed) for salt in named[table]}
                for key, (_, salts) in wanted[table].items():
                    self._rowsets.add(key, self._hasher.rows(columns, salts))
                seal(table)

        finished = 0
        for tables, _ in self._each(wanted, one, several):
            done(finished := finished + len(tables), len(wanted))

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
        self._kept.pop(table, None)
        self._take(-self._kept_bytes_of.pop(table, 0))

    def _take(self, num_bytes: int) -> bool:
        """Take room for columns that are kept, or give it back; False when there is not so much."""
        with self._lock:
            if num_bytes > 0 and self._kept_bytes + num_bytes > _KEPT_BYTES:
                return False
            self._kept_bytes += num_bytes
            return True

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
        at = taken = 0
        for fragment in self._tables[table].fragments():
            for rows in [fragment.read(missing)] if small else fragment.batches(missing):
                if not rows.num_rows:
                    continue
                if fresh is not None and self._take(num_bytes := rows.get_total_buffer_size()):
                    taken += num_bytes
                    for name, kept_parts in fresh.items():
                        kept_parts.append(rows.column(name))
                elif fresh is not None:
                    self._take(-taken)
                    fresh = None
                arrays = [rows.column(name) if name not in kept else kept[name][at] for name in columns]
                yield rows if missing == columns else pa.Table.from_arrays(arrays, names=list(columns))
                at += 1
        if fresh is not None:
            self._kept.setdefault(table, {}).update(fresh)
            self._kept_bytes_of[table] = self._kept_bytes_of.get(table, 0) + taken

    def _num_values(self, table: int) -> int:
        return self.num_rows(table) * len(self._tables[table].schema)

    def _whole(self, table: int, columns: Sequence[str], needed: Sequence[str] | None = None) -> pa.Table:
        """The columns of a small table."""
        parts = list(self._batches(table, columns, needed))
        return parts[0] if len(parts) == 1 else pa.concat_tables(parts)

    def _each(
        self, tables: Iterable[int], one: Callable[[int], _T], several: Callable[[Sequence[int]], _T]
    ) -> Iterator[tuple[Sequence[int], _T]]:
        """Work on every table, on two threads: large ones one by one, the largest first, then lots of small ones."""
        large: list[int] = []
        small: list[int] = []
        for table in sorted(tables, key=lambda table: self._tables[table].num_bytes, reverse=True):
            compact = self._tables[table].num_bytes <= _SMALL_BYTES
            (small if compact and self._num_values(table) <= _SMALL_VALUES else large).append(table)
        lots: list[list[int]] = []
        bytes_left = values_left = 0
        for table in small:
            num_bytes, values = self._tables[table].num_bytes, self._num_values(table)
            if num_bytes > bytes_left or values > values_left:
                lots.append([])
                bytes_left, values_left = _LOT_BYTES, _LOT_VALUES
            lots[-1].append(table)
            bytes_left, values_left = bytes_left - num_bytes, values_left - values
        single = len(large)
        lots = [[table] for table in large] + lots

        def work(at: int) -> _T:
            return one(lots[at][0]) if at < single else several(lots[at])

        if len(lots) < _THREADS:
            yield from ((lot, work(at)) for at, lot in enumerate(lots))
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            pending = [pool.submit(work, at) for at in range(len(lots))]
            try:
                yield from zip(lots, (future.result() for future in pending), strict=True)
            finally:
                for future in pending:
                    future.cancel()


def _all_met(column: pa.ChunkedArray, least: int) -> bool:
    """Whether the column's n integers, none below ``least``, are ``least`` to ``least + n - 1``, each once."""
    if column.null_count:
        return False
    met = np.zeros(len(column), dtype=np.bool_)
    for chunk in column.chunks:
        places = plain(chunk).astype(np.int64) - least
        met[places[(places >= 0) & (places < len(met))]] = True
    return bool(met.all())


def _column_bytes(table: Table) -> dict[str, int]:
    """Compressed bytes of each column. All at once: asking a fragment column by column costs its width each time."""
    sizes: Counter[str] = Counter()
    for fragment in table.fragments():
        sizes.update(fragment.column_bytes())
    return sizes
