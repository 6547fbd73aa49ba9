"""A recipe over files that lost rows, made anew over where the rows are now."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .bitwise import differing_rows, same_dictionary
from .changes import DataFile, SourceFile
from .deletions import read_deletions
from .derived import DerivedFragment, footer_checksum
from .errors import Corrupt
from .layout import ParquetLayout
from .recipe import Origins, Source, make_part, source_starts
from .recipe_writer import Beside, put_recipe, write_residual
from .schema import decode_schema
from .snapshot import OwnedTable
from .table import owned_fragment
from .writer import write_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .edit import Rewrite
    from .fragment import Fragment
    from .recipe import Directions
    from .snapshot import Snapshot
    from .store import Store

__all__ = ["Moves", "moved_file", "plain_files"]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the stored rows of an old file are now: ``row[i]``, counted through ``files``; -1 when gone."""

    files: tuple[DataFile, ...]
    row: NDArray[np.int64]


@dataclass
class Moves:
    """Where rows went, by the file that had them. ``after`` is the lake as the edit leaves it."""

    store: Store
    rewrites: Sequence[Rewrite]
    after: Snapshot
    _places: dict[str, _Place | None] = field(default_factory=dict)
    _footers: dict[str, str] = field(default_factory=dict)

    def place(self, source: SourceFile) -> _Place | None:
        """The place of a source's rows now; None while its file is as the recipe knows it."""
        if source.path not in self._places:
            self._places[source.path] = self._found(source)
        return self._places[source.path]

    def _found(self, source: SourceFile) -> _Place | None:
        for rewrite in self.rewrites:
            start = 0
            for file in rewrite.before:
                alive = np.ones(file.num_rows, np.bool_)
                alive[read_deletions(self.store, file)] = False
                if file.path == source.path:
                    return _Place(rewrite.after, np.where(alive, np.cumsum(alive) - 1 + start, -1))
                start += int(alive.sum())
        table = self.after.tables.get(source.table_id)
        now = table.files.get(source.file_id) if isinstance(table, OwnedTable) else None
        if now is None or now.path != source.path:
            return _Place((), np.empty(0, np.int64))
        if now.deletion is None:
            return None
        row = np.arange(now.num_rows, dtype=np.int64)
        row[read_deletions(self.store, now)] = -1
        return _Place((now,), row)

    def source(self, file: DataFile) -> Source:
        """What a recipe says of a file."""
        if file.path not in self._footers:
            self._footers[file.path], _ = footer_checksum(self.store, file.path, file.num_bytes)
        return Source(file.num_rows, file.num_bytes, self._footers[file.path])


class _Sources:
    """The sources of the recipe that is being made, numbered as they come."""

    def __init__(self, old: DerivedFragment, named: tuple[SourceFile, ...], moves: Moves) -> None:
        self.found: dict[str, tuple[SourceFile, Source]] = {}
        self._old = old
        self._named = named
        self._moves = moves

    def mapped(self, origins: Origins) -> Origins:
        """The origins over where the rows are now; -1 for those that are gone or stood in the residual file."""
        source = np.full(len(origins), -1, np.int32)
        row = np.zeros(len(origins), np.int64)
        for number in np.unique(origins.source[origins.source >= 0]).tolist():
            mine = np.flatnonzero(origins.source == number)
            named = self._named[number]
            place = self._moves.place(named)
            if place is None:
                source[mine] = self._number(named, self._old.directions.sources[number])
                row[mine] = origins.row[mine]
                continue
            if not place.files:
                continue
            now = place.row[origins.row[mine]]
            starts = np.cumsum([0, *(file.num_rows for file in place.files)])
            which = np.searchsorted(starts, now, side="right") - 1
            for at in np.unique(which[now >= 0]).tolist():
                file = place.files[at]
                here = (which == at) & (now >= 0)
                known = SourceFile(named.table_id, file.file_id, file.path)
                source[mine[here]] = self._number(known, self._moves.source(file))
                row[mine[here]] = now[here] - starts[at]
        return Origins(source, row)

    def _number(self, named: SourceFile, source: Source) -> int:
        self.found.setdefault(named.path, (named, source))
        return list(self.found).index(named.path)


def moved_file(store: Store, entry: OwnedTable, file: DataFile, moves: Moves) -> tuple[DataFile, ...]:
    """The rebuilt file ``file`` of table ``entry`` over where its rows are now; plain files when no source is left.

    Compared bit by bit with what the old recipe makes before it is returned. Deletions of the file stay with it; plain
    files hold the live rows alone. Raises Corrupt when the two differ, and what reading and writing raise; nothing of
    this file is left then.
    """
    assert file.recipe is not None, "only recipes are moved"
    schemas = [decode_schema(text) for text in entry.schemas]
    own = schemas[file.schema_id]
    stored = owned_fragment(store, file.with_deletion(None), own, own, entry.name)
    assert isinstance(stored, DerivedFragment), "a recipe makes a derived fragment"
    sources = _Sources(stored, file.recipe.sources, moves)
    mapped = [sources.mapped(stored.origins(part)) for part in range(len(stored.row_group_rows))]
    if not sources.found:
        live = owned_fragment(store, file, own, schemas[-1], entry.name)
        return plain_files(store, entry, live)
    named, known = zip(*sources.found.values(), strict=True)
    starts = source_starts(known)
    parts = [
        make_part(origins, starts, part.dictionaries)
        for origins, part in zip(mapped, stored.directions.parts, strict=True)
    ]
    directions = replace(_current(stored.directions, named[0], moves), sources=known, parts=tuple(parts))
    residual = write_residual(store, entry.table_id, own, file.schema_id, mapped, stored.batches())
    beside = Beside(
        residual.path if residual else "",
        residual.num_bytes if residual else 0,
        file.recipe.side,
        file.recipe.side_bytes,
    )
    made = put_recipe(store, entry.table_id, file, directions, named, beside)
    try:
        _compare(stored, owned_fragment(store, made, own, own, entry.name), entry.name)
    except BaseException:
        store.delete([path for path in made.own_paths() if path != beside.side])
        raise
    return (made.with_deletion(file.deletion),)


def _current(directions: Directions, source: SourceFile, moves: Moves) -> Directions:
    """Rewritten sources have the types that their table has now, which hold the values of older ones."""
    table = moves.after.tables.get(source.table_id)
    if not isinstance(table, OwnedTable):
        return directions
    schema = decode_schema(table.schema)
    if any(schema.get_field_index(name) < 0 for name in directions.source_schema.names):
        return directions
    fields = [schema.field(name) for name in directions.source_schema.names]
    return replace(directions, source_schema=pa.schema(fields))


def plain_files(store: Store, entry: OwnedTable, fragment: Fragment) -> tuple[DataFile, ...]:
    """The live rows of a file of table ``entry``, written as files of their own under the schema in force."""
    schema = fragment.schema
    batches = (batch for part in fragment.batches() for batch in part.to_batches())
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    return write_files(store, entry.table_id, reader, schema, len(entry.schemas) - 1, ParquetLayout())


def _compare(old: Fragment, new: Fragment, table: str) -> None:
    for one, two in zip(old.batches(), new.batches(), strict=True):
        for column, a, b in zip(one.schema, one.columns, two.columns, strict=True):
            if len(a) != len(b) or differing_rows(a, b).size:
                raise Corrupt(f"table {table!r}: its moved recipe makes other values in column {column.name!r}")
            if pa.types.is_dictionary(column.type) and not same_dictionary(a, b):
                raise Corrupt(f"table {table!r}: its moved recipe makes another dictionary of column {column.name!r}")
