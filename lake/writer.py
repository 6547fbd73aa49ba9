"""Rows into data files: a stream in, immutable Parquet files with their statistics out."""

from __future__ import annotations

import contextlib
import math
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .changes import DataFile
from .conversion import conform, stored_type
from .errors import InvalidInput, LakeletError, Unavailable
from .layout import ParquetLayout, Plan, still_ascending
from .statistics import UNKNOWN, Bounds, encode_bounds, footer_bounds, in_type
from .store import DATA

if TYPE_CHECKING:
    from .store import Store

__all__ = ["write_files"]


def write_files(
    store: Store,
    table_id: str,
    reader: pa.RecordBatchReader,
    schema: pa.Schema,
    schema_id: int,
    layout: ParquetLayout,
) -> tuple[DataFile, ...]:
    """Write all rows of ``reader`` as rows of ``schema`` (number ``schema_id`` of the table) and return the files.

    Columns are taken by name; those that the reader lacks are NULL. At most one row group and one batch are in memory.
    The files are durable on return and belong to nothing until a commit adds them; when anything fails they are
    removed again. No rows, no files. Raises InvalidInput for a value that the schema or Parquet cannot hold,
    Unavailable when the store refuses.
    """
    rolling = _Rolling(store, table_id, schema, schema_id, layout)
    try:
        for group in _row_groups(reader, schema, layout):
            rolling.write(group)
        rolling.close()
    except BaseException as error:
        rolling.abandon()
        if isinstance(error, OSError) and not isinstance(error, LakeletError):
            raise Unavailable(f"data files cannot be written below {store.uri}: {error}") from error
        raise
    return tuple(rolling.files)


def _row_groups(reader: pa.RecordBatchReader, schema: pa.Schema, layout: ParquetLayout) -> Iterator[pa.Table]:
    """The reader's rows in the schema, cut into row groups."""
    held: list[pa.Table] = []
    rows = num_bytes = 0
    for batch in reader:
        rest = conform(pa.Table.from_batches([batch]), schema)
        while rest.num_rows:
            row_bytes = max(1.0, rest.nbytes / rest.num_rows)
            room = min(layout.row_group_rows - rows, math.ceil((layout.row_group_bytes - num_bytes) / row_bytes))
            part, rest = rest.slice(0, max(1, room)), rest.slice(max(1, room))
            held.append(part)
            rows, num_bytes = rows + part.num_rows, num_bytes + part.nbytes
            if rows >= layout.row_group_rows or num_bytes >= layout.row_group_bytes:
                yield pa.concat_tables(held)
                held, rows, num_bytes = [], 0, 0
    if held:
        yield pa.concat_tables(held)


@dataclass(slots=True)
class _Open:
    """The file being written. ``nans`` counts NaN by float column."""

    file_id: str
    path: str
    sink: Any
    writer: pq.ParquetWriter
    plan: Plan
    footers: list[pq.FileMetaData]
    rows: int = 0
    nans: dict[str, int] = field(default_factory=dict)


class _Rolling:
    """Files of one table, one after another."""

    def __init__(self, store: Store, table_id: str, schema: pa.Schema, schema_id: int, layout: ParquetLayout) -> None:
        self.files: list[DataFile] = []
        self._paths: list[str] = []
        self._store, self._folder, self._layout = store, f"{DATA}{table_id}", layout
        self._schema, self._schema_id = schema, schema_id
        stored = [field.with_type(stored_type(field.type)) for field in schema]
        self._stored = pa.schema(stored, schema.metadata)
        self._open: _Open | None = None

    def write(self, group: pa.Table) -> None:
        """Append one row group; begins a new file when the last is full or its promise of order would break."""
        _check_dictionaries(group)
        stored = conform(group, self._stored)
        now = self._open
        if now is not None and now.plan.sorted_column >= 0 and not still_ascending(stored[now.plan.sorted_column]):
            self.close()
        now = self._open or self._begin(stored)
        try:
            now.writer.write_table(stored, row_group_size=max(1, stored.num_rows))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OverflowError) as error:
            raise InvalidInput(f"Parquet cannot hold these values: {error}") from error
        now.rows += group.num_rows
        for name, column in zip(group.schema.names, group.columns, strict=True):
            if pa.types.is_floating(column.type):
                now.nans[name] = now.nans.get(name, 0) + (pc.sum(pc.is_nan(column)).as_py() or 0)
        if now.sink.tell() >= self._layout.file_bytes:
            self.close()

    def _begin(self, stored: pa.Table) -> _Open:
        plan = self._layout.plan(stored)
        file_id = uuid.uuid4().hex
        path = f"{self._folder}/{file_id}.parquet"
        files = self._store.arrow
        files.create_dir(self._folder, recursive=True)
        self._paths.append(path)
        footers: list[pq.FileMetaData] = []
        sink = files.open_output_stream(path)
        writer = pq.ParquetWriter(sink, self._stored, metadata_collector=footers, **plan.arguments)
        self._open = _Open(file_id, path, sink, writer, plan, footers)
        return self._open

    def close(self) -> None:
        """Finish the file being written, if there is one, and make it durable."""
        now, self._open = self._open, None
        if now is None:
            return
        now.writer.close()
        num_bytes = now.sink.tell()
        now.sink.close()
        self._store.sync(now.path)
        (footer,) = now.footers
        assert footer.num_rows == now.rows, "the footer counts the rows that were written"
        stats = encode_bounds(self._bounds(footer, now.nans))
        self.files.append(DataFile(now.file_id, now.path, now.rows, num_bytes, self._schema_id, stats))

    def _bounds(self, footer: pq.FileMetaData, nans: dict[str, int]) -> dict[str, Bounds]:
        found = {}
        for name, known in footer_bounds(footer, arrow_schema=self._stored).items():
            bounds = in_type(known, self._stored.field(name).type, self._schema.field(name).type)
            if name in nans:
                bounds = bounds._replace(nan_count=nans[name])
            if bounds != UNKNOWN:
                found[name] = bounds
        return found

    def abandon(self) -> None:
        """Remove what was written; nothing refers to it."""
        now, self._open = self._open, None
        with contextlib.suppress(pa.ArrowException, OSError, RuntimeError):  # the first failure is the one to report
            if now is not None:
                now.writer.close()
                now.sink.close()
        with contextlib.suppress(LakeletError):  # vacuum takes what is left
            self._store.delete(self._paths)


def _check_dictionaries(group: pa.Table) -> None:
    """Narrow dictionary indices must hold all values of a row group, since it is read back with one dictionary."""
    for name, column in zip(group.schema.names, group.columns, strict=True):
        kind = column.type
        if not pa.types.is_dictionary(kind) or kind.index_type.bit_width >= 32 or column.num_chunks == 1:
            continue
        distinct = len(pc.unique(pa.chunked_array([chunk.dictionary for chunk in column.chunks])))
        if distinct > 2 ** (kind.index_type.bit_width - pa.types.is_signed_integer(kind.index_type)):
            raise InvalidInput(
                f"column {name!r} has {distinct:,} different values, more than a dictionary with indices of type "
                f"{kind.index_type} holds: cast it to {pa.dictionary(pa.int32(), kind.value_type)}"
            )
