"""A data file that is rebuilt from the files of another table, read like any other.

A part of the recipe plays the row group: it is what a scan holds at a time and what bounds may rule out, by those of
the row groups it comes from. Of the sources only the row groups that hold wanted rows are read, and only the wanted
columns; neighbouring parts share the row group in which they meet. Sources are believed only while their footers are
those that the recipe was made over, and pages carry checksums of their own.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .conversion import keep_rows, no_rows
from .errors import Corrupt, LakeletError, NotFound
from .fragment import Fragment
from .gathering import Held, gathered, groups_of
from .recipe import Directions, Origins, decode_recipe
from .statistics import UNKNOWN, Bounds, in_type, merged, outer

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from .changes import DataFile, Recipe
    from .recipe import Part, Source
    from .store import Store

__all__ = ["DerivedFragment", "footer_checksum"]

_TAIL_BYTES: Final = 64 * 2**10
_SMALL_VALUES: Final = 2**21
"""Up to so many values, some 16 MiB in memory, a rebuilt file is held at once by a scan."""
_STREAMED_VALUES: Final = 2**22
"""Parts in the order of their sources are rebuilt a few at a time, up to some 32 MiB: each read opens the file."""
_TOGETHER_VALUES: Final = 2**24
"""Parts whose rows are scattered are rebuilt together, up to so many values, some 128 MiB, in one pass over sources."""

_Columns = list[str]


class DerivedFragment(Fragment):
    """Rows of a data file that holds a recipe. ``written`` is the schema of its own rows. Reads nothing until asked."""

    __slots__ = (
        "_directions",
        "_origin",
        "_recipe",
        "_residual",
        "_side",
        "_sources",
        "_starts",
        "_store",
        "_table",
        "_written",
    )

    def __init__(
        self,
        store: Store,
        table: str,
        origin: DataFile,
        written: pa.Schema,
        schema: pa.Schema,
        *,
        deletions: Callable[[], npt.NDArray[np.int64]] | None = None,
        bounds: Callable[[], Mapping[str, Bounds]] | None = None,
    ) -> None:
        """``table`` is named in errors; ``deletions`` and ``bounds`` as of Fragment."""
        assert origin.recipe is not None, "a derived file has a recipe"
        super().__init__(
            store.full_path(origin.path),
            schema,
            identity=f"{origin.file_id}/{origin.deletion.path if origin.deletion else ''}",
            num_bytes=origin.num_bytes,
            num_stored_rows=origin.num_rows,
            filesystem=None if store.fsspec is None else store.arrow,
            file=origin.path,
            deletions=deletions,
            num_deleted_rows=origin.deletion.rows if origin.deletion else 0,
            bounds=bounds,
        )
        self._store = store
        self._table = table
        self._origin = origin
        self._recipe: Recipe = origin.recipe
        self._written = written
        self._directions: Directions | None = None
        self._sources: tuple[Fragment, ...] = ()
        self._residual: Fragment | None = None
        self._side: Fragment | None = None
        self._starts: list[int] = []

    # --- the recipe ------------------------------------------------------------------------------------------------

    @property
    def directions(self) -> Directions:
        """The recipe, read and checked at its first use."""
        found = self._directions
        if found is None:
            found = self._loaded()
            residual_starts = np.cumsum([0, *(part.residual.count for part in found.parts)])
            self._starts = residual_starts.tolist()
            self._sources = self._opened_sources(found)
            self._residual = self._kept(self._recipe.residual, self._recipe.residual_bytes, self._written)
            own = pa.schema([field for field in self._written if field.name not in found.columns])
            self._side = self._kept(self._recipe.side, self._recipe.side_bytes, own)
            self._directions = found
        return found

    def _loaded(self) -> Directions:
        path = self._origin.path
        with self.naming():
            found = decode_recipe(self._store.get(path), path, self._recipe.checksum)
            if sum(part.num_rows for part in found.parts) != self._origin.num_rows:
                raise Corrupt(f"the recipe {path} does not make {self._origin.num_rows:,} rows", path=path)
            if len(found.sources) != len(self._recipe.sources):
                raise Corrupt(f"the recipe {path} has other sources than the log names", path=path)
        return found

    def _opened_sources(self, directions: Directions) -> tuple[Fragment, ...]:
        return tuple(
            Fragment(
                self._store.full_path(named.path),
                directions.source_schema,
                identity=named.file_id,
                num_bytes=source.num_bytes,
                num_stored_rows=source.num_rows,
                filesystem=self._filesystem,
                file=named.path,
                metadata=partial(_checked_footer, self._store, named.path, source),
                verify=True,
            )
            for named, source in zip(self._recipe.sources, directions.sources, strict=True)
        )

    def _kept(self, path: str, num_bytes: int, schema: pa.Schema) -> Fragment | None:
        """A file of rows or columns that are kept as they are; None when there is none."""
        if not path:
            return None
        return Fragment(
            self._store.full_path(path),
            schema,
            identity=path,
            num_bytes=num_bytes,
            filesystem=self._filesystem,
            file=path,
            verify=True,
        )

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Errors inside come out with the table that cannot be rebuilt in front."""
        try:
            yield
        except LakeletError as error:
            raise self._named(error) from error

    def _named(self, error: LakeletError) -> LakeletError:
        front = f"table {self._table!r} cannot be rebuilt: "
        if str(error).startswith(front):
            return error
        text = f"{front}{error}"
        return Corrupt(text, path=error.path) if isinstance(error, Corrupt) else type(error)(text)

    def sources(self) -> tuple[Fragment, ...]:
        """The source files, as the recipe reads them."""
        assert self.directions is not None
        return self._sources

    @property
    def side(self) -> Fragment | None:
        """The file of columns that no source has, for every stored row in order; None when there are none."""
        assert self.directions is not None
        return self._side

    @property
    def residual(self) -> Fragment | None:
        """The file of rows that no source has, None when there are none."""
        assert self.directions is not None
        return self._residual

    def origins(self, part: int) -> Origins:
        """Where the stored rows of a part come from."""
        directions = self.directions
        try:
            return directions.origins(directions.parts[part], self._starts[part])
        except (ValueError, IndexError) as error:
            raise self._named(Corrupt(f"{self._origin.path}: {error}", path=self._origin.path)) from error

    # --- what a file knows of itself -------------------------------------------------------------------------------

    @property
    def is_small(self) -> bool:
        """By what it rebuilds, not by what it takes in the store."""
        return self.num_stored_rows * max(1, len(self.schema)) <= _SMALL_VALUES

    @property
    def file_schema(self) -> pa.Schema:
        """The schema of the rows as they were written."""
        return self._written

    @property
    def row_group_rows(self) -> list[int]:
        """Stored rows of each part."""
        return [part.num_rows for part in self.directions.parts]

    def column_bytes(self) -> dict[str, int]:
        """Compressed bytes that reading each column takes: of all row groups of the sources that hold rows of ours."""
        with self.naming():
            return self._column_bytes()

    def _column_bytes(self) -> dict[str, int]:
        directions, sizes = self.directions, dict.fromkeys(self._written.names, 0)
        touched = self.touched()
        for source, groups in zip(self._sources, touched, strict=True):
            held = source.group_column_bytes(list(set(directions.columns.values())), groups)
            for name, own in directions.columns.items():
                sizes[name] += held[own]
        for beside in (self._residual, self._side):
            for name, num_bytes in beside.column_bytes().items() if beside is not None else ():
                sizes[name] += num_bytes
        return sizes

    def touched(self) -> list[list[int]]:
        """For each source, its row groups that hold rows of this file."""
        found: list[set[int]] = [set() for _ in self.sources()]
        for part in range(len(self.directions.parts)):
            origins = self.origins(part)
            for number in np.unique(origins.source[origins.source >= 0]).tolist():
                rows = origins.row[origins.source == number]
                found[number].update(np.unique(groups_of(self._sources[number], rows)).tolist())
        return [sorted(groups) for groups in found]

    def stored_forms(self, columns: Sequence[str]) -> tuple[Hashable, ...] | None:
        """None: the stored bytes are those of other tables."""
        return None

    def row_group_bounds(self, columns: Sequence[str], group: int) -> dict[str, Bounds]:
        """Bounds of a part, from those of the row groups that it comes from."""
        with self.naming():
            return self._part_bounds(columns, group)

    def _part_bounds(self, columns: Sequence[str], group: int) -> dict[str, Bounds]:
        origins, columns_of = self.origins(group), self.directions.columns
        wanted = [name for name in columns if name in columns_of]
        parts: dict[str, list[tuple[Bounds, int]]] = {name: [] for name in wanted}
        for number in np.unique(origins.source).tolist():
            fragment = self._numbered(number)
            own = {name: name if number < 0 else columns_of[name] for name in wanted}
            for touched in np.unique(groups_of(fragment, origins.row[origins.source == number])).tolist():
                known = fragment.row_group_bounds(list(own.values()), touched)
                for name in wanted:
                    kinds = (fragment.schema.field(own[name]).type, self.schema.field(name).type)
                    bounds = in_type(outer(known.get(own[name], UNKNOWN)), *kinds)
                    parts[name].append((bounds, fragment.row_group_rows[touched]))
        found = {name: outer(merged(pieces)) for name, pieces in parts.items() if pieces}
        return {name: bounds for name, bounds in found.items() if bounds != UNKNOWN}

    def _numbered(self, number: int) -> Fragment:
        """A source, or, for -1, the residual file."""
        found = self._residual if number < 0 else self._sources[number]
        assert found is not None, "a recipe that names residual rows has their file"
        return found

    # --- rows ------------------------------------------------------------------------------------------------------

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The live rows, part by part; a row group in which two parts meet is read once."""
        held = Held()
        names = self.schema.names if columns is None else columns
        stored = [name for name in names if self._written.get_field_index(name) >= 0]
        for run in self._together(range(len(self.row_group_rows)), len(stored)):
            for part, table in zip(run, self._rebuilt(stored, run, held) if stored else run, strict=True):
                yield self._finished(columns, [part], lambda *_, table=table: table)

    def _read_stored(self, names: _Columns, row_groups: Sequence[int] | None) -> pa.Table:
        parts = range(len(self.directions.parts)) if row_groups is None else row_groups
        held = Held()
        tables = [table for run in self._together(parts, len(names)) for table in self._rebuilt(names, run, held)]
        return pa.concat_tables(tables) if tables else no_rows(pa.schema([self._written.field(n) for n in names]))

    def _together(self, parts: Sequence[int], width: int) -> Iterator[range]:
        """Runs of neighbouring parts to rebuild in one pass: a few where rows keep their order, else as many as may be
        held at a time, since each pass may read all of the sources.
        """
        run: list[int] = []
        values = 0
        for part in parts:
            found = self.directions.parts[part]
            size = found.num_rows * max(1, width)
            most = _STREAMED_VALUES if found.rows.is_ascending else _TOGETHER_VALUES
            if run and (part != run[-1] + 1 or values + size > most):
                yield range(run[0], run[-1] + 1)
                run, values = [], 0
            run.append(part)
            values += size
        if run:
            yield range(run[0], run[-1] + 1)

    def _rebuilt(self, names: _Columns, run: range, held: Held) -> list[pa.Table]:
        """The stored rows of consecutive parts, a table each."""
        columns_of = self.directions.columns
        schema = pa.schema([self._written.field(name) for name in names])
        mapped = pa.schema([field for field in schema if field.name in columns_of])
        own = pa.schema([field for field in schema if field.name not in columns_of])
        columns: dict[str, pa.ChunkedArray] = {}
        with self.naming():
            if len(mapped):
                columns |= zip(mapped.names, self._from_sources(run, mapped, held).columns, strict=True)
            if len(own):
                assert self._side is not None, "a recipe that lacks columns has a side file"
                start = sum(self.row_group_rows[: run.start])
                rows = np.arange(start, start + self._rows_of(run), dtype=np.int64)
                beside = pa.concat_tables(list(gathered(self._side, own.names, rows, own, held)))
                columns |= zip(own.names, beside.columns, strict=True)
        table = pa.Table.from_arrays([columns[name] for name in names], schema=schema)
        tables, start = [], 0
        for number in run:
            part = self.directions.parts[number]
            tables.append(_with_dictionaries(table.slice(start, part.num_rows), part))
            start += part.num_rows
        return tables

    def _rows_of(self, run: range) -> int:
        return sum(self.row_group_rows[run.start : run.stop])

    def _from_sources(self, run: range, schema: pa.Schema, held: Held) -> pa.Table:
        """The columns of these parts that their sources have, in the parts' order."""
        found = [self.origins(number) for number in run]
        origins = Origins(np.concatenate([o.source for o in found]), np.concatenate([o.row for o in found]))
        order = None
        if not origins.in_order:
            order = np.lexsort((origins.row, origins.source))
            origins = Origins(origins.source[order], origins.row[order])
        pieces: list[pa.Table] = []
        edges = np.flatnonzero(np.diff(origins.source)) + 1
        for rows, source in zip(np.split(origins.row, edges), origins.source[np.r_[0, edges]].tolist(), strict=True):
            own = [name if source < 0 else self.directions.columns[name] for name in schema.names]
            pieces += gathered(self._numbered(source), own, rows, schema, held)
        table = pa.concat_tables(pieces) if pieces else no_rows(schema)
        if table.num_rows != self._rows_of(run):
            raise Corrupt(f"{self._origin.path} finds {table.num_rows:,} of {self._rows_of(run):,} rows")
        if order is not None:
            place = np.empty_like(order)
            place[order] = np.arange(len(order))
            table = keep_rows(table.combine_chunks(), pa.array(place))
        return table


def _with_dictionaries(table: pa.Table, part: Part) -> pa.Table:
    for name, values in part.dictionaries.items():
        index = table.schema.get_field_index(name)
        if index >= 0:
            kind = table.schema.field(index).type
            decoded = table.column(index).cast(kind.value_type).combine_chunks()
            indices = pc.index_in(decoded, value_set=values).cast(kind.index_type)
            column = pa.DictionaryArray.from_arrays(indices, values, ordered=kind.ordered)
            table = table.set_column(index, table.schema.field(index), column)
    return table


# --- trust in sources ----------------------------------------------------------------------------------------------


def footer_checksum(store: Store, path: str, num_bytes: int) -> tuple[str, bytes]:
    """The SHA-256 in hex of a Parquet file's footer, and the footer with what follows it. NotFound when it is gone."""
    try:
        with store.arrow.open_input_file(path) as source:
            size = source.size()
            if size != num_bytes:
                raise Corrupt(f"{path} has {size:,} bytes, expected {num_bytes:,}: restore it", path=path)
            tail = source.read_at(min(size, _TAIL_BYTES), max(0, size - _TAIL_BYTES))
            need = int.from_bytes(tail[-8:-4], "little") + 8
            if need > size:
                raise Corrupt(f"{path} is damaged at its end: restore it", path=path, offset=size - 8)
            if need > len(tail):
                tail = source.read_at(need, size - need)
    except FileNotFoundError as error:
        raise NotFound(f"the data file {path} is not there any more: restore it") from error
    except OSError as error:
        raise Corrupt(f"the data file {path} cannot be read: {error}", path=path) from error
    footer = bytes(tail[-need:])
    return hashlib.sha256(footer).hexdigest(), footer


def _checked_footer(store: Store, path: str, source: Source) -> pq.FileMetaData:
    checksum, footer = footer_checksum(store, path, source.num_bytes)
    if checksum != source.footer:
        raise Corrupt(f"{path} was replaced: its footer is not the one that the recipe was made over", path=path)
    return pq.ParquetFile(pa.BufferReader(footer)).metadata
