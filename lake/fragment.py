"""One Parquet file seen as rows of a table: in the table's types, with its deletions applied.

Why not ``pyarrow.dataset``: it opens each file anew, infers one schema for all, knows no deletions, and costs
milliseconds a file where a lake has thousands of small ones. Why no memory map: a file that somebody truncates while it
is mapped kills the process; plain reads were as quick (3,230 real files).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .conversion import conform, keep_rows, rows_without_columns
from .errors import Conflict, Corrupt, InvalidInput, NotFound, Unavailable
from .statistics import UNKNOWN, Bounds, constant_bounds, footer_bounds, in_type, leaf_columns, outer

if TYPE_CHECKING:
    import numpy.typing as npt
    from pyarrow.fs import FileSystem

__all__ = ["Fragment"]

_THREADS_FROM_BYTES = 1 * 2**20
"""Files below this are read by the calling thread alone: handing them to a pool costs more than it saves."""
_WHOLE_FILE_BYTES = 16 * 2**20
"""Files up to this are read in one go by a scan."""
_WHOLE_BYTES = 128 * 2**10
"""Local files up to this are fetched whole: one call costs less than one for each of their columns."""


class Fragment:
    """One Parquet file of a table. Safe to use from many threads; nothing is read until asked for.

    ``path`` is the file as DuckDB finds it. It is opened there when ``filesystem`` is None (a local path), else as
    ``file`` in the Arrow file system. ``schema`` is the table's: what the file lacks reads as NULL, and ``constants``
    are columns that the folder names hold. ``identity`` changes whenever the rows that the fragment yields do.
    ``metadata`` supplies the parsed footer, ``num_stored_rows`` saves asking it for the rows. ``deletions`` supplies
    the deleted positions, ascending int64, ``num_deleted_rows`` of them. ``bounds`` supplies what is known of the
    *stored* rows by column, in the table's types; None derives it from the footer. ``verify`` checks page checksums.
    """

    __slots__ = (
        "_bounds",
        "_bounds_source",
        "_constants",
        "_deletions",
        "_deletions_source",
        "_file",
        "_file_schema",
        "_filesystem",
        "_metadata",
        "_metadata_source",
        "_row_group_rows",
        "_stored_rows",
        "_verify",
        "identity",
        "num_bytes",
        "num_deleted_rows",
        "path",
        "schema",
    )

    def __init__(
        self,
        path: str,
        schema: pa.Schema,
        *,
        identity: str,
        num_bytes: int,
        num_stored_rows: int | None = None,
        filesystem: FileSystem | None = None,
        file: str = "",
        metadata: Callable[[], pq.FileMetaData] | None = None,
        constants: Mapping[str, pa.Scalar] | None = None,
        deletions: Callable[[], npt.NDArray[np.int64]] | None = None,
        num_deleted_rows: int = 0,
        bounds: Callable[[], Mapping[str, Bounds]] | None = None,
        verify: bool = False,
    ) -> None:
        """Keeps what it is given; the class says what each means."""
        self.path = path
        self.schema = schema
        self.identity = identity
        self.num_bytes = num_bytes
        self.num_deleted_rows = num_deleted_rows
        self._stored_rows = num_stored_rows
        self._filesystem = filesystem
        self._file = file
        self._metadata_source = metadata
        self._row_group_rows: list[int] | None = None
        self._metadata: pq.FileMetaData | None = None
        self._file_schema: pa.Schema | None = None
        self._constants = dict(constants or {})
        self._deletions_source = deletions
        self._deletions: npt.NDArray[np.int64] | None = None
        self._bounds_source = bounds
        self._bounds: Mapping[str, Bounds] | None = None
        self._verify = verify

    def __repr__(self) -> str:
        """For people."""
        return f"Fragment({self.path!r}, identity={self.identity!r})"

    # --- what is known without reading rows ------------------------------------------------------------------------

    @property
    def metadata(self) -> pq.FileMetaData:
        """The parsed footer, read at most once."""
        if self._metadata is None:
            if self._metadata_source is not None:
                self._metadata = self._metadata_source()
            else:
                with self._open() as file:
                    self._metadata = file.metadata
        return self._metadata

    @property
    def is_local(self) -> bool:
        """Whether reading it costs no requests."""
        return self._filesystem is None

    @property
    def is_small(self) -> bool:
        """Whether all of it may be held at once by a scan; others are read row group by row group."""
        return self.num_bytes <= _WHOLE_FILE_BYTES

    @property
    def file_schema(self) -> pa.Schema:
        """The Arrow schema of the file itself."""
        if self._file_schema is None:
            self._file_schema = self.metadata.schema.to_arrow_schema()
        return self._file_schema

    @property
    def num_stored_rows(self) -> int:
        """Rows in the file, deleted ones included."""
        if self._stored_rows is None:
            self._stored_rows = int(self.metadata.num_rows)
        return self._stored_rows

    @property
    def num_rows(self) -> int:
        """Rows that :meth:`read` yields."""
        return self.num_stored_rows - self.num_deleted_rows

    @property
    def row_group_rows(self) -> list[int]:
        """Stored rows of each row group. Not to be changed."""
        if self._row_group_rows is None:
            metadata = self.metadata
            self._row_group_rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        return self._row_group_rows

    def column_bytes(self) -> dict[str, int]:
        """Compressed bytes in the file of each column that it holds."""
        held = [name for name in self._spans() if self.schema.get_field_index(name) >= 0]
        return {
            name: sum(chunk.total_compressed_size for _, chunk in chunks)
            for name, chunks in zip(held, self._chunks(held), strict=True)
        }

    def group_column_bytes(self, columns: Sequence[str], groups: Sequence[int]) -> dict[str, int]:
        """Compressed bytes of each column in these row groups; 0 for one that the file lacks."""
        spans, metadata = self._spans(), self.metadata
        chosen = [metadata.row_group(group) for group in groups]
        return {
            name: sum(group.column(leaf).total_compressed_size for group in chosen for leaf in spans.get(name, ()))
            for name in columns
        }

    def stored_forms(self, columns: Sequence[str]) -> tuple[Hashable, ...] | None:
        """What decides, beside the stored bytes, how each of these columns reads; equal in every copy of a column.

        Types, encoding parameters, and for every row group its rows and the column's bytes. None when the rows are not
        all those that are stored, a column is not in the file, or the writer counted a column's bytes wrong.
        """
        metadata, spans = self.metadata, self._spans()
        if self.num_deleted_rows or any(name in self._constants or name not in spans for name in columns):
            return None
        if str(metadata.created_by).startswith("parquet-cpp version"):
            return None  # before 1.2.9 a dictionary's header was not counted: PARQUET-816
        forms: list[Hashable] = []
        for name, chunks in zip(columns, self._chunks(columns), strict=True):
            leaves = [metadata.schema.column(leaf) for leaf in spans[name]]
            forms.append(
                (
                    *(_values_of(schema.field(name).type) for schema in (self.schema, self.file_schema)),
                    *((k.physical_type, k.length, k.max_definition_level, k.max_repetition_level) for k in leaves),
                    *((rows, c.compression, c.total_compressed_size, c.total_uncompressed_size) for rows, c in chunks),
                )
            )
        return tuple(forms)

    def stored_bytes(self, columns: Sequence[str]) -> list[list[bytes]]:
        """The bytes of these columns as the file holds them, page headers included: a part a leaf and row group.

        Raises NotFound, Corrupt and Unavailable as :meth:`read` does.
        """
        found = self._chunks(columns)
        with self._opened() as source:
            return [[_chunk_bytes(source, chunk) for _, chunk in chunks] for chunks in found]

    def _spans(self) -> dict[str, range]:
        """The leaves of each column of the file."""
        spans = leaf_columns(self.file_schema, self.metadata.num_columns)
        return {name: range(first, first + count) for name, (first, count) in spans.items()}

    def _chunks(self, columns: Sequence[str]) -> list[list[tuple[int, pq.ColumnChunkMetaData]]]:
        """For each column, the rows and the chunk of every row group and leaf."""
        spans, metadata = self._spans(), self.metadata
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        return [[(group.num_rows, group.column(leaf)) for group in groups for leaf in spans[name]] for name in columns]

    def bounds(self, columns: Sequence[str] | None = None) -> dict[str, Bounds]:
        """Bounds of the live rows by column, in the table's types; a missing key means that nothing is known."""
        if self._bounds is None:
            if self._bounds_source is not None:
                self._bounds = self._bounds_source()
            else:
                self._bounds = self._stored_bounds(None)
        known = self._bounds
        if columns is not None:
            known = {name: known[name] for name in columns if name in known}
        return {name: outer(found) for name, found in known.items()} if self.num_deleted_rows else dict(known)

    def row_group_bounds(self, columns: Sequence[str], group: int) -> dict[str, Bounds]:
        """Bounds of the live rows of one row group, from the footer."""
        known = self._stored_bounds(columns, group)
        return {name: outer(found) for name, found in known.items()} if self.num_deleted_rows else known

    def _stored_bounds(self, columns: Sequence[str] | None, group: int | None = None) -> dict[str, Bounds]:
        stored = self.file_schema
        if stored is self.schema and not self._constants:
            return footer_bounds(self.metadata, columns, None if group is None else [group], stored)
        names = self.schema.names if columns is None else columns
        rows = self.num_stored_rows if group is None else self.metadata.row_group(group).num_rows
        own = [name for name in names if name not in self._constants and self.file_schema.get_field_index(name) >= 0]
        groups = None if group is None else [group]
        found = footer_bounds(self.metadata, own, groups, self.file_schema)
        known = {}
        for name in names:
            if name in self._constants:
                bounds = constant_bounds(self._constants[name], rows)
                if bounds != UNKNOWN:
                    known[name] = bounds
            elif name in found:
                bounds = in_type(found[name], self.file_schema.field(name).type, self.schema.field(name).type)
                if bounds != UNKNOWN:
                    known[name] = bounds
            elif self.file_schema.get_field_index(name) < 0:
                known[name] = Bounds(rows, nan_count=0)
        return known

    # --- rows ------------------------------------------------------------------------------------------------------

    def read(self, columns: Sequence[str] | None = None, row_groups: Sequence[int] | None = None) -> pa.Table:
        """The live rows of the given columns and row groups (all when None), in the table's exact types and order.

        Raises NotFound when the file is gone, Corrupt when its bytes are not what its footer says, InvalidInput when a
        value does not fit the table's type.
        """
        return self._finished(columns, row_groups, self._read_stored)

    def _finished(
        self,
        columns: Sequence[str] | None,
        row_groups: Sequence[int] | None,
        stored: Callable[[list[str], Sequence[int] | None], pa.Table],
    ) -> pa.Table:
        """What ``stored`` gives of the file's own columns, as rows of the table."""
        names = self.schema.names if columns is None else list(columns)
        wanted = self.schema
        if columns is not None:
            wanted = pa.schema([self.schema.field(name) for name in names], self.schema.metadata)
        present = [n for n in names if n not in self._constants and self.file_schema.get_field_index(n) >= 0]
        if present:
            table = stored(present, row_groups)
        else:
            rows = self.num_stored_rows if row_groups is None else sum(self.row_group_rows[i] for i in row_groups)
            table = rows_without_columns(rows, wanted)
        if self.num_deleted_rows:
            table = keep_rows(table, pa.array(self._alive(row_groups)))
        for name in names:
            if name in self._constants:
                table = table.append_column(name, pa.repeat(self._constants[name], table.num_rows))
        return conform(table, wanted)

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The live rows, row group by row group, so that one group is in memory at a time."""
        for group in range(len(self.row_group_rows)):
            yield self.read(columns, [group])

    def positions(self, row_groups: Sequence[int] | None = None) -> npt.NDArray[np.int64]:
        """Position in the file of each row that :meth:`read` yields for these row groups; ascending int64."""
        stored = self._stored_positions(row_groups)
        return stored[self._alive(row_groups)] if self.num_deleted_rows else stored

    def _stored_positions(self, row_groups: Sequence[int] | None) -> npt.NDArray[np.int64]:
        if row_groups is None:
            return np.arange(self.num_stored_rows, dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(self.row_group_rows)]).astype(np.int64)
        parts = [np.arange(starts[i], starts[i + 1], dtype=np.int64) for i in row_groups]
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _alive(self, row_groups: Sequence[int] | None) -> npt.NDArray[np.bool_]:
        alive = np.ones(self.num_stored_rows, dtype=np.bool_)
        alive[self.deleted()] = False
        return alive if row_groups is None else alive[self._stored_positions(row_groups)]

    def deleted(self) -> npt.NDArray[np.int64]:
        """Deleted positions, ascending int64; read at most once. Not to be changed."""
        if self._deletions is None:
            if self._deletions_source is None:
                return np.empty(0, np.int64)
            self._deletions = self._deletions_source()
        return self._deletions

    def _read_stored(self, names: list[str], row_groups: Sequence[int] | None) -> pa.Table:
        threads = self.num_bytes >= _THREADS_FROM_BYTES
        with self._open() as file:
            try:
                if row_groups is None:
                    table = file.read(columns=names, use_threads=threads)
                else:
                    table = file.read_row_groups(list(row_groups), columns=names, use_threads=threads)
            except pa.ArrowNotImplementedError:
                # Nested strings and dictionaries are read by pyarrow only where they make one chunk.
                groups = range(file.metadata.num_row_groups) if row_groups is None else row_groups
                parts = [part for group in groups for part in _in_chunks(file, group, names)]
                table = pa.concat_tables(parts)
        # Dotted names may have brought more columns than asked for, in the file's order.
        return table if table.schema.names == names else table.select(names)

    def _source(self) -> pa.NativeFile:
        if self._filesystem is not None:
            return self._filesystem.open_input_file(self._file)
        if self.num_bytes > _WHOLE_BYTES:
            return pa.OSFile(self.path)
        with open(self.path, "rb") as file:
            return pa.BufferReader(file.read(self.num_bytes))  # no more, should another file be there by now

    @contextmanager
    def _open(self) -> Iterator[pq.ParquetFile]:
        """The open Parquet file; whatever goes wrong inside is one of our errors."""
        with self._opened() as source:
            known = self._metadata if self._metadata_source is None else self.metadata
            remote = self._filesystem is not None
            yield pq.ParquetFile(source, metadata=known, pre_buffer=remote, page_checksum_verification=self._verify)

    @contextmanager
    def _opened(self) -> Iterator[pa.NativeFile]:
        """The open file; whatever goes wrong inside is one of our errors."""
        try:
            with self._source() as source:
                yield source
        except FileNotFoundError as error:
            raise NotFound(f"the data file {self.path} is not there any more: restore it, or attach anew") from error
        except PermissionError as error:
            raise Unavailable(f"the data file {self.path} cannot be read: {error}") from error
        except (NotFound, Conflict, Corrupt, InvalidInput, Unavailable):
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Corrupt(
                f"the data file {self.path} cannot be read as Parquet ({error}): restore it, or write it again",
                path=self.path,
            ) from error


def _values_of(kind: pa.DataType) -> pa.DataType:
    """The type without what only says how Arrow lays its values out in memory."""
    if pa.types.is_dictionary(kind):
        return _values_of(kind.value_type)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    return pa.binary() if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) else kind


def _chunk_bytes(source: pa.NativeFile, chunk: pq.ColumnChunkMetaData) -> bytes:
    starts = (chunk.dictionary_page_offset, chunk.data_page_offset)
    start = min((offset for offset in starts if offset and offset > 0), default=0)  # none where there are no rows
    found = bytes(source.read_at(chunk.total_compressed_size, start))
    if len(found) != chunk.total_compressed_size:
        raise ValueError(f"a column ends {chunk.total_compressed_size - len(found)} bytes too early")
    return found


def _in_chunks(file: pq.ParquetFile, group: int, names: list[str]) -> list[pa.Table]:
    """One row group, in as large parts as pyarrow can read."""
    rows = file.metadata.row_group(group).num_rows
    while True:
        try:
            return [
                pa.Table.from_batches([b]) for b in file.iter_batches(max(1, rows), row_groups=[group], columns=names)
            ]
        except pa.ArrowNotImplementedError:
            if rows <= 1:
                raise
            rows = -(-rows // 4)
