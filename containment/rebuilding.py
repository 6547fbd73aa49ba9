"""Files of a child as recipes over the files of its parent, each proven by rebuilding it before anybody relies on it.

Rows that the parent has only under other bits (-0.0 for 0.0, another NaN), or has no more, are kept as they are in a
residual file, and columns that it does not have in a side file. What is written is read back from the store and
compared with the original, bit by bit; only a recipe that passes leaves this module.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..lake.bitwise import dictionary_of, differing_rows, same_dictionary
from ..lake.changes import DataFile, FilesUnchanged, SourceFile
from ..lake.derived import footer_checksum
from ..lake.errors import Corrupt
from ..lake.recipe import Directions, Origins, Source, make_part, source_starts
from ..lake.recipe_writer import Beside, put_recipe, write_residual, write_side
from ..lake.statistics import encode_bounds
from ..lake.table import owned_fragment
from .matching import column_map, match_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ..lake.changes import Requirement
    from ..lake.fragment import Fragment
    from ..lake.snapshot import OwnedTable
    from ..lake.store import Store
    from ..lake.table import Table

__all__ = ["Rebuilder", "Rebuilt"]

_Rows = dict[int, "NDArray[np.int64]"]
_Dictionaries = dict[int, dict[str, pa.Array]]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A file that is a recipe now: ``file`` to commit, ``residual_rows`` of it kept as they are."""

    file: DataFile
    residual_rows: int


class Rebuilder:
    """Makes recipes over one parent. ``parent`` is the table that ``entry`` describes; none of its files is a recipe.

    ``seed`` is the lake's secret for row hashes; ``memory_bytes`` bounds what matching holds.
    """

    def __init__(self, store: Store, entry: OwnedTable, parent: Table, *, seed: bytes, memory_bytes: int) -> None:
        """Nothing is read yet."""
        self._store = store
        self._entry = entry
        self._parent = parent
        self._seed = seed
        self._memory_bytes = memory_bytes
        self._files = list(entry.files.values())
        self._footers: dict[str, str] = {}

    def rebuild(
        self, name: str, table_id: str, schema_id: int, schema: pa.Schema, child: Sequence[tuple[str, Fragment]]
    ) -> Iterator[Rebuilt]:
        """A recipe for each file of the child, in order; ``child`` holds their file ids with fragments of ``schema``.

        The files belong to table ``table_id``, called ``name``. What is written is durable, and belongs to nothing
        until a commit adds it. Raises InvalidInput when the parent has none of the columns, Corrupt when a recipe
        cannot be proven, and what reading and writing raise; then nothing of the file that failed is left.
        """
        columns = column_map(schema, self._parent.schema, partly=True)
        fragments = [fragment for _, fragment in child]
        found = match_rows(fragments, self._parent, columns, seed=self._seed, memory_bytes=self._memory_bytes)
        for (file_id, fragment), origins in zip(child, found, strict=True):
            # The same rows keep their id; without the deleted ones they are others.
            new_id = uuid.uuid4().hex if fragment.num_deleted_rows else file_id
            one = _OneFile(self, name, table_id, new_id, schema_id, schema, columns, fragment)
            yield one.proven([part for part in origins if len(part)])

    def source(self, number: int) -> tuple[SourceFile, Source]:
        """A file of the parent as a source."""
        file = self._files[number]
        if file.path not in self._footers:
            self._footers[file.path], _ = footer_checksum(self._store, file.path, file.num_bytes)
        return (
            SourceFile(self._entry.table_id, file.file_id, file.path),
            Source(file.num_rows, file.num_bytes, self._footers[file.path]),
        )

    def source_schema(self, columns: Mapping[str, str]) -> pa.Schema:
        """How the sources' columns are read."""
        return pa.schema([self._parent.schema.field(name) for name in columns.values()])

    def requirements(self, made: Sequence[Rebuilt]) -> tuple[Requirement, ...]:
        """That the files that these recipes name are the parent's still, with no row deleted since."""
        named = {source.file_id for one in made for source in (one.file.recipe.sources if one.file.recipe else ())}
        states = tuple(file.state for file in self._files if file.file_id in named)
        return (FilesUnchanged(self._entry.table_id, states),) if states else ()

    @property
    def store(self) -> Store:
        """Where everything lies."""
        return self._store


class _OneFile:
    """One file of the child on its way to a recipe."""

    def __init__(
        self,
        maker: Rebuilder,
        name: str,
        table_id: str,
        file_id: str,
        schema_id: int,
        schema: pa.Schema,
        columns: Mapping[str, str],
        original: Fragment,
    ) -> None:
        self._maker = maker
        self._name = name
        self._table_id = table_id
        self._file_id = file_id
        self._schema_id = schema_id
        self._schema = schema
        self._columns = columns
        self._original = original

    def proven(self, origins: Sequence[Origins]) -> Rebuilt:
        """The recipe, once more with what differed in bits the first time."""
        differing: _Rows = {}
        dictionaries: _Dictionaries = {}
        for last in (False, True):
            made = self._written(origins, differing, dictionaries)
            try:
                differing, dictionaries = self._differences(made.file, dictionaries)
            except BaseException:
                self._maker.store.delete(made.file.own_paths())
                raise
            if not differing and not dictionaries:
                return made
            self._maker.store.delete(made.file.own_paths())
            if last:
                break
        raise Corrupt(
            f"table {self._name!r}: its file {self._original.path} is not what its recipe makes, even with the rows "
            f"kept that differ; it stays as it is"
        )

    def _written(self, origins: Sequence[Origins], differing: _Rows, dictionaries: _Dictionaries) -> Rebuilt:
        kept = [
            part if number not in differing else _without(part, differing[number])
            for number, part in enumerate(origins)
        ]
        used = np.unique(np.concatenate([part.source for part in kept] or [np.empty(0, np.int32)]))
        used = used[used >= 0]
        sources = [self._maker.source(number) for number in used.tolist()]
        starts = source_starts(tuple(source for _, source in sources))
        parts = []
        for number, part in enumerate(kept):
            renumbered = np.searchsorted(used, part.source).astype(np.int32)
            renumbered[part.source < 0] = -1
            parts.append(make_part(Origins(renumbered, part.row), starts, dictionaries.get(number, {})))
        store, table_id = self._maker.store, self._table_id
        residual = write_residual(store, table_id, self._schema, self._schema_id, kept, self._originals())
        own = pa.schema([field for field in self._schema if field.name not in self._columns])
        side = write_side(store, table_id, own, self._schema_id, self._originals())
        directions = Directions(
            self._maker.source_schema(self._columns), self._columns, tuple(s for _, s in sources), tuple(parts)
        )
        rows = sum(len(part) for part in origins)
        file = DataFile(self._file_id, "", rows, 0, self._schema_id, encode_bounds(self._original.bounds()))
        made = put_recipe(store, table_id, file, directions, [named for named, _ in sources], _beside(residual, side))
        return Rebuilt(made, residual.num_rows if residual else 0)

    def _originals(self) -> Iterator[pa.Table]:
        """The live rows of each row group that has any."""
        return (table for table in self._original.batches() if table.num_rows)

    def _differences(self, file: DataFile, given: _Dictionaries) -> tuple[_Rows, _Dictionaries]:
        """Rows that come out with other bits, by part, and dictionaries that do: empty means proven."""
        rebuilt = owned_fragment(self._maker.store, file, self._schema, self._schema, self._name)
        differing: _Rows = {}
        dictionaries: _Dictionaries = {}
        compared = 0
        for number, (one, two) in enumerate(zip(self._originals(), rebuilt.batches(), strict=True)):
            if one.num_rows != two.num_rows:
                raise Corrupt(f"table {self._name!r}: its recipe makes {two.num_rows:,} rows of {one.num_rows:,}")
            compared += one.num_rows
            rows = [differing_rows(a, b) for a, b in zip(one.columns, two.columns, strict=True)]
            if any(found.size for found in rows):
                differing[number] = np.unique(np.concatenate(rows))
            other = {
                field.name: dictionary_of(column)
                for field, column, made in zip(one.schema, one.columns, two.columns, strict=True)
                if pa.types.is_dictionary(field.type) and not same_dictionary(column, made)
            }
            if other:
                dictionaries[number] = {**given.get(number, {}), **other}
        if compared != self._original.num_rows or compared != rebuilt.num_rows:
            raise Corrupt(f"table {self._name!r}: {compared:,} of {self._original.num_rows:,} rows were rebuilt")
        return differing, dictionaries


def _beside(residual: DataFile | None, side: DataFile | None) -> Beside:
    rows = (residual.path, residual.num_bytes) if residual else ("", 0)
    return Beside(*rows, *((side.path, side.num_bytes) if side else ("", 0)))


def _without(origins: Origins, rows: NDArray[np.int64]) -> Origins:
    """The origins with these rows left to the residual file."""
    source, row = origins.source.copy(), origins.row.copy()
    source[rows], row[rows] = -1, 0
    return Origins(source, row)
