"""A table as it was at one version: its schema, its files, and scans over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from .conversion import keep_rows, no_rows, rows_without_columns
from .deletions import read_deletions
from .derived import DerivedFragment
from .errors import InvalidInput
from .fragment import Fragment
from .limits import SCAN_BATCH_ROWS
from .predicate import Params, Predicate, bind_where
from .schema import decode_schema
from .statistics import UNKNOWN, Bounds, decode_bounds, in_type, merged

if TYPE_CHECKING:
    import numpy.typing as npt

    from .changes import DataFile
    from .snapshot import OwnedTable
    from .store import Store

__all__ = ["Found", "Table", "checked_columns", "find_rows", "owned_fragment", "owned_table"]


class Table:
    """One table at one version. Reading changes nothing, and later commits change nothing here.

    ``name``, ``schema`` (Arrow), ``version`` (of the lake) and ``kind`` are attributes; ``kind`` is "owned",
    "attached", or "retired" when rows of it are rebuilt from another table. Rows come in the order in which they were
    written. Safe to use from many threads.
    """

    __slots__ = ("_fragments", "_on_read", "kind", "name", "schema", "version")

    def __init__(
        self,
        name: str,
        schema: pa.Schema,
        fragments: Sequence[Fragment],
        version: int,
        kind: Literal["owned", "attached", "retired"] = "owned",
        on_read: Callable[[], None] | None = None,
    ) -> None:
        """A table of the rows of ``fragments``, each of which yields ``schema``; ``on_read`` hears of each scan."""
        self._on_read = on_read
        self.kind = kind
        self.name = name
        self.schema = schema
        self.version = version
        self._fragments = tuple(fragments)

    def __repr__(self) -> str:
        """For people; reads nothing."""
        return f"Table({self.name!r}, {len(self.schema)} columns, {len(self._fragments)} files, version {self.version})"

    @property
    def num_rows(self) -> int:
        """Rows that a scan returns."""
        return sum(fragment.num_rows for fragment in self._fragments)

    @property
    def num_bytes(self) -> int:
        """Bytes of the data files in the store."""
        return sum(fragment.num_bytes for fragment in self._fragments)

    @property
    def files(self) -> pa.Table:
        """The files in the order of their rows: path, num_rows (live), num_bytes, deleted_rows."""
        fragments = self._fragments
        return pa.table(
            {
                "path": pa.array([f.path for f in fragments], pa.string()),
                "num_rows": pa.array([f.num_rows for f in fragments], pa.int64()),
                "num_bytes": pa.array([f.num_bytes for f in fragments], pa.int64()),
                "deleted_rows": pa.array([f.num_deleted_rows for f in fragments], pa.int64()),
            }
        )

    def bounds(self) -> dict[str, Bounds]:
        """Bounds of all rows by column; a missing name means that nothing is known."""
        parts = [(fragment.bounds(), fragment.num_rows) for fragment in self._fragments if fragment.num_rows]
        if len(parts) == 1:
            return parts[0][0]
        names = set.intersection(*(set(bounds) for bounds, _ in parts)) if parts else set()
        return {name: merged((bounds[name], rows) for bounds, rows in parts) for name in sorted(names)}

    def fragments(self) -> tuple[Fragment, ...]:
        """The files as fragments, in the order of their rows."""
        return self._fragments

    def to_arrow(
        self, columns: Sequence[str] | None = None, where: str | None = None, params: Params | None = None
    ) -> pa.Table:
        """All rows as one Arrow table, or those for which ``where`` is true; arguments as in :meth:`scan`."""
        schema, parts = self._parts(columns, where, params)
        tables = list(parts)
        if len(schema) == 0:
            return rows_without_columns(sum(table.num_rows for table in tables), schema)
        return pa.concat_tables(tables) if tables else no_rows(schema)

    def scan(
        self, columns: Sequence[str] | None = None, where: str | None = None, params: Params | None = None
    ) -> pa.RecordBatchReader:
        """The rows as a stream, one file or row group in memory at a time, in batches of at most SCAN_BATCH_ROWS.

        ``columns`` gives names and order, None all; no columns at all keep the number of rows. ``where`` is a SQL
        condition, ``params`` its values: a dict for ``$name``, a list for ``?``. Times without a zone are UTC where
        they meet times with one. Files and row groups whose statistics rule the condition out are not read. Raises
        InvalidInput for unknown columns and InvalidSQL for a bad condition, before the first batch.
        """
        schema, parts = self._parts(columns, where, params)
        batches = (batch for part in parts for batch in part.to_batches(max_chunksize=SCAN_BATCH_ROWS))
        return pa.RecordBatchReader.from_batches(schema, batches)

    def _parts(
        self, columns: Sequence[str] | None, where: str | None, params: Params | None
    ) -> tuple[pa.Schema, Iterator[pa.Table]]:
        names = checked_columns(self.name, self.schema.names, columns)
        if self._on_read is not None:
            self._on_read()
        schema = self.schema
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in names], schema.metadata)
        if where is None:
            if params:
                raise InvalidInput("params were given without a where that uses them")
            return schema, self._all_rows(None if columns is None else names)
        predicate = bind_where(where, self.schema, params)
        predicate.check(self.schema)
        return schema, self._matching_rows(names, schema, predicate)

    def _all_rows(self, names: list[str] | None) -> Iterator[pa.Table]:
        for fragment in self._fragments:
            if fragment.is_small or names == []:
                yield fragment.read(names)
            else:
                yield from fragment.batches(names)

    def _matching_rows(self, names: list[str], schema: pa.Schema, predicate: Predicate) -> Iterator[pa.Table]:
        others = [name for name in names if name not in predicate.columns]
        for found in find_rows(self._fragments, predicate):
            rows, looked_at = found.rows, found.looked_at
            columns = {name: looked_at.column(name) for name in predicate.columns if name in names}
            if others:
                rest = found.fragment.read(others, found.groups)
                columns |= {name: rest.column(name) for name in others}
            if not names:
                yield rows_without_columns(rows.size, schema)
                continue
            table = pa.Table.from_arrays([columns[name] for name in names], schema=schema)
            yield table if rows.size == table.num_rows else keep_rows(table, pa.array(rows))


def checked_columns(table: str, known: Sequence[str], columns: Sequence[str] | None) -> list[str]:
    """The columns of a table that a caller asks for, all if None; InvalidInput unless they are known, each once."""
    if columns is None:
        return list(known)
    if isinstance(columns, str):
        raise InvalidInput(f"columns must be a list of names, found the text {columns!r}: write [{columns!r}]")
    if not isinstance(columns, Iterable):
        raise InvalidInput(f"columns must be a list of names, found {columns!r}")
    names, there = list(columns), set(known)
    for name in names:
        if name not in there:
            shown = ", ".join(repr(other) for other in known[:20])
            more = f" and {len(known) - 20:,} more" if len(known) > 20 else ""
            raise InvalidInput(f"table {table!r} has no column {name!r}; it has {shown or 'none'}{more}")
    if len(set(names)) != len(names):
        raise InvalidInput(f"columns must be named once each, found {names}")
    return names


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of one file that match: positions, ascending int64, in what ``fragment.read(columns, groups)`` yields.

    ``looked_at`` is that table, of the condition's columns.
    """

    fragment: Fragment
    groups: list[int] | None
    looked_at: pa.Table
    rows: npt.NDArray[np.int64]


def find_rows(fragments: Sequence[Fragment], predicate: Predicate) -> Iterator[Found]:
    """Where rows match, in the order of the fragments, reading the condition's columns of what bounds do not refute.

    Small parts are judged together, since each call of DuckDB costs about a millisecond.
    """
    waiting: list[tuple[Fragment, list[int] | None, pa.Table]] = []
    for fragment in fragments:
        for groups in _matching_groups(fragment, predicate):
            waiting.append((fragment, groups, fragment.read(predicate.columns, groups)))
            if not predicate.columns or sum(table.num_rows for _, _, table in waiting) >= SCAN_BATCH_ROWS:
                yield from _judged(waiting, predicate)
                waiting = []
    yield from _judged(waiting, predicate)


def _judged(parts: list[tuple[Fragment, list[int] | None, pa.Table]], predicate: Predicate) -> Iterator[Found]:
    if not parts:
        return
    tables = [table for _, _, table in parts]
    rows = predicate.matches(tables[0] if len(tables) == 1 else pa.concat_tables(tables))
    start = 0
    for fragment, groups, table in parts:
        first, last = np.searchsorted(rows, [start, start + table.num_rows])
        if last > first:
            yield Found(fragment, groups, table, rows[first:last] - start)
        start += table.num_rows


def _matching_groups(fragment: Fragment, predicate: Predicate) -> Iterator[list[int] | None]:
    """The parts of the file in which rows may match, as row groups to read together; None is the whole file."""
    if not predicate.may_match(fragment.bounds(predicate.columns), fragment.num_rows):
        return
    group_rows = fragment.row_group_rows
    if len(group_rows) == 1:
        yield None
        return
    chosen = [
        group
        for group, rows in enumerate(group_rows)
        if predicate.may_match(fragment.row_group_bounds(predicate.columns, group), rows)
    ]
    if not fragment.is_small:
        yield from ([group] for group in chosen)
    elif chosen:
        yield None if len(chosen) == len(group_rows) else chosen


# --- tables of the lake --------------------------------------------------------------------------------------------


def owned_table(store: Store, entry: OwnedTable, version: int) -> Table:
    """The table that ``entry`` describes, as of ``version``. Reads nothing."""
    schemas = [decode_schema(text) for text in entry.schemas]
    fragments = [
        owned_fragment(store, file, schemas[file.schema_id], schemas[-1], entry.name) for file in entry.files.values()
    ]
    return Table(entry.name, schemas[-1], fragments, version, "retired" if entry.is_retired else "owned")


def owned_fragment(store: Store, file: DataFile, written: pa.Schema, schema: pa.Schema, table: str = "") -> Fragment:
    """One data file of the lake, written under schema ``written``, as rows of ``schema``. Reads nothing.

    ``table`` names the table in errors.
    """
    deletion = file.deletion
    if file.recipe is not None:
        return DerivedFragment(
            store,
            table,
            file,
            written,
            schema,
            deletions=partial(read_deletions, store, file),
            bounds=partial(_stored_bounds, file, written, schema),
        )
    return Fragment(
        store.full_path(file.path),
        schema,
        identity=f"{file.file_id}/{deletion.path if deletion else ''}",
        num_bytes=file.num_bytes,
        num_stored_rows=file.num_rows,
        filesystem=None if store.fsspec is None else store.arrow,
        file=file.path,
        deletions=partial(read_deletions, store, file),
        num_deleted_rows=deletion.rows if deletion else 0,
        bounds=partial(_stored_bounds, file, written, schema),
        verify=True,
    )


def _stored_bounds(file: DataFile, written: pa.Schema, schema: pa.Schema) -> Mapping[str, Bounds]:
    known = decode_bounds(file.stats)
    bounds = {}
    for field in schema:
        index = written.get_field_index(field.name)
        if index < 0:
            bounds[field.name] = Bounds(file.num_rows, nan_count=0)
        elif field.name in known:
            found = in_type(known[field.name], written.field(index).type, field.type)
            if found != UNKNOWN:
                bounds[field.name] = found
    return bounds
