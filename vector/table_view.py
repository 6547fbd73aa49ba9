"""An index over a table as one version sees it: the parts that cover its files, and the rows of these that are live."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..lake.conversion import no_rows
from .kept_columns import KeptColumn
from .table_rows import POSITION_BITS, POSITIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from .reading import Reading
    from .table_definition import Definition
    from .table_part import Part

__all__ = ["DISTANCE", "QUERY", "RowSource", "TableView"]

DISTANCE = "_distance"
"""The column of an answer with the distances,"""
QUERY = "_query"
"""and with the number of the query, where there are several."""


class Plan(NamedTuple):
    """Where the columns of an answer come from: ``schema`` its columns, ``kept`` those kept beside vectors."""

    schema: pa.Schema
    kept: pa.Schema
    from_vectors: bool
    fetched: list[str]


class RowSource:
    """Where columns of a part's rows come from: kept beside it, from the vectors, or else from the data files.

    ``schema`` is the table's. ``fetch`` reads rows of a data file, for its id and positions in it; ``file_of`` is the
    id of a data file by its number.
    """

    __slots__ = ("_fetch", "_file_of", "_plans", "definition", "schema")

    def __init__(
        self,
        definition: Definition,
        schema: pa.Schema,
        file_of: Mapping[int, str],
        fetch: Callable[[str, NDArray[np.int64], list[str]], pa.Table],
    ) -> None:
        self.definition, self.schema, self._file_of, self._fetch = definition, schema, file_of, fetch
        self._plans: dict[tuple[str, ...], Plan] = {}

    def rows(self, part: Part, positions: NDArray[np.int64], names: tuple[str, ...]) -> pa.Table:
        """These columns of the rows at these positions of the part, in their order."""
        schema, kept, from_vectors, fetched = self.plan(names)
        table = part.take(positions, kept)
        if not from_vectors and not fetched:
            return table
        columns: dict[str, Any] = dict(zip(kept.names, table.columns, strict=True))
        if from_vectors:
            column = self.definition.column
            columns[column] = _lists(part.unit.rows.vectors[positions], schema.field(column).type)
        if fetched:
            found = self._fetched(part.unit.rows.ids[positions], fetched)
            columns |= dict(zip(fetched, found.columns, strict=True))
        return pa.Table.from_arrays([columns[name] for name in names], schema=schema)

    def plan(self, names: tuple[str, ...]) -> Plan:
        """Where these columns come from."""
        plan = self._plans.get(names)
        if plan is None:
            definition, schema = self.definition, pa.schema([self.schema.field(name) for name in names])
            kept = [name for name in names if name in definition.kept(self.schema)]
            from_vectors = definition.column in names and definition.vectors_are_values(self.schema)
            others = {*kept, definition.column} if from_vectors else {*kept}
            fetched = [name for name in names if name not in others]
            plan = Plan(schema, pa.schema([schema.field(name) for name in kept]), from_vectors, fetched)
            self._plans[names] = plan
        return plan

    def _fetched(self, ids: NDArray[np.int64], names: list[str]) -> pa.Table:
        """Columns of rows from the data files, in the order of ``ids``."""
        numbers = ids >> POSITION_BITS
        tables, order = [], [np.empty(0, np.int64)]
        for number in np.unique(numbers).tolist():
            places = np.flatnonzero(numbers == number)
            tables.append(self._fetch(self._file_of[number], ids[places] & POSITIONS, names))
            order.append(places)
        return _put_back(tables, np.concatenate(order), pa.schema([self.schema.field(name) for name in names]))

    def column(self, part: Part, name: str) -> KeptColumn:
        """One of them for conditions."""
        kind = self.schema.field(name).type
        return KeptColumn(kind, lambda positions: self.rows(part, positions, (name,)).column(0))


class TableView(NamedTuple):
    """``reading`` is what searches read, ``part_of`` the part that has a data file, by its number.

    ``rows`` can be seen, of these ``loose_rows`` stand in no segment.
    """

    source: RowSource
    reading: Reading
    part_of: Mapping[int, Part]
    rows: int
    loose_rows: int

    def search(
        self, queries: Any, k: int, tenant: Any, where: Any, params: Any, names: Sequence[str], **how: Any
    ) -> pa.Table:
        """The columns ``names`` of the nearest rows, with their distances, nearest first; of several queries one after
        another, with the query's number in front. What else it takes is that of :meth:`.VectorIndex.search`.
        """
        ids, distances = self.reading.search(queries, k, tenant, where, params, **how)
        found = ids >= 0
        table = self._rows_of(ids[found], tuple(names))
        if np.ndim(queries) == 2:
            table = table.add_column(0, QUERY, pa.array(np.nonzero(found)[0]))
        return table.append_column(DISTANCE, pa.array(distances[found]))

    def _rows_of(self, ids: NDArray[np.int64], names: tuple[str, ...]) -> pa.Table:
        places: dict[int, tuple[Part, list[int]]] = {}
        for place, number in enumerate((ids >> POSITION_BITS).tolist()):
            part = self.part_of[number]
            places.setdefault(id(part), (part, []))[1].append(place)
        tables, order = [], [np.empty(0, np.int64)]
        for part, of_part in places.values():
            tables.append(self.source.rows(part, part.unit.find(ids[of_part]), names))
            order.append(np.array(of_part, np.int64))
        return (
            tables[0] if len(tables) == 1 else _put_back(tables, np.concatenate(order), self.source.plan(names).schema)
        )


def _put_back(tables: list[pa.Table], order: NDArray[np.int64], schema: pa.Schema) -> pa.Table:
    """Rows that were taken apart, in the order that they had: ``order`` says where each stood."""
    if not tables:
        return no_rows(schema)
    return pa.concat_tables(tables).take(pa.array(np.argsort(order)))


def _lists(vectors: NDArray[np.float32], kind: pa.DataType) -> pa.Array:
    """Vectors as values of a column of lists."""
    count, dim = vectors.shape
    flat = pa.array(vectors.reshape(-1))
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(flat, type=kind)
    ends = np.arange(count + 1) * dim
    if pa.types.is_large_list(kind):
        return pa.LargeListArray.from_arrays(pa.array(ends), flat, type=kind)
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), flat, type=kind)
