"""A part of an index over a table: rows of some of its data files as one unit, and the columns kept beside them.

A part covers all stored rows of its files, so it never changes. What a version of the table sees of it, is said by
which of its rows are live: none of files that the version lacks, or that another part covers, nor deleted ones.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from ..lake.conversion import conform, rows_without_columns
from ..lake.errors import Corrupt
from . import container
from .building import built, mean_of
from .delta import Delta
from .nodes import no_nodes
from .segment import Segment
from .stored import KIND, Contents, held, taken
from .table_rows import POSITION_BITS, TableRows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .building import Settings
    from .compaction import Unit
    from .labels import LabelTable
    from .matching import Columns

__all__ = ["Beside", "Part", "built_part", "loose_part", "part_of_file", "write_part"]

BATCH_BYTES: Final = 2**30
"""Kept columns stand in batches of about so many bytes: offsets of texts end at twice that."""


class Beside:
    """Columns kept beside the vectors, in the order of the unit's rows."""

    __slots__ = ("_starts", "batches", "schema")

    def __init__(self, schema: pa.Schema, batches: list[pa.RecordBatch]) -> None:
        self.schema, self.batches = schema, batches
        self._starts = np.cumsum([0, *(batch.num_rows for batch in batches)])

    @classmethod
    def of(cls, table: pa.Table) -> Beside:
        """From a table, in batches as large as they may be."""
        count = max(1, -(-table.nbytes // BATCH_BYTES))
        cuts = np.linspace(0, table.num_rows, count + 1).astype(int).tolist()
        batches = []
        for low, high in pairwise(cuts):
            batches += table.slice(low, high - low).combine_chunks().to_batches()
        return cls(table.schema, batches)

    @property
    def num_rows(self) -> int:
        """Rows of the unit, where there are columns."""
        return int(self._starts[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of the columns."""
        return sum(int(batch.nbytes) for batch in self.batches)

    def take(self, positions: NDArray[np.int64], names: list[str]) -> pa.Table:
        """These columns of the rows at these positions, in their order."""
        if not names:
            return rows_without_columns(len(positions), pa.schema([]))
        if len(self.batches) == 1:
            batch = self.batches[0] if names == self.schema.names else self.batches[0].select(names)
            return pa.Table.from_batches([batch.take(pa.array(positions))])
        which = np.searchsorted(self._starts, positions, side="right") - 1
        parts = []
        for number in np.unique(which).tolist():
            at = positions[which == number] - self._starts[number]
            parts.append(self.batches[number].select(names).take(pa.array(at)))
        table = pa.Table.from_batches(parts, pa.schema([self.schema.field(name) for name in names]))
        return table.take(pa.array(np.argsort(np.argsort(which, kind="stable"))))  # back in their order


@dataclass(eq=False)
class Part:
    """``unit`` with every row live; ``numbers`` of the data files that it covers, by file id.

    ``types`` are those of the columns that it was made of, ``path`` its object in the lake, "" for one in memory alone.
    """

    unit: Unit
    numbers: Mapping[str, int]
    beside: Beside
    types: Mapping[str, str]
    path: str = ""
    labels: LabelTable | None = None
    in_order: NDArray[np.uint32] = field(init=False)
    last_seen: tuple[object, Unit] | None = None

    def __post_init__(self) -> None:
        unit = self.unit
        self.in_order = (
            unit.id_order
            if isinstance(unit, Segment)
            else np.argsort(unit.rows.ids[: len(unit)], kind="stable").astype(np.uint32)
        )

    @property
    def nbytes(self) -> int:
        """Bytes in memory, if it is in memory alone."""
        return sum(self.unit.nbytes().values()) + self.beside.nbytes

    def rows_of(self, file_id: str) -> NDArray[np.uint32]:
        """Positions of the rows of a data file, in the order that they have there."""
        ids, order, number = self.unit.rows.ids, self.in_order, self.numbers[file_id]

        def of(place: int) -> int:
            return int(ids[order[place]])

        low = bisect_left(range(len(order)), number << POSITION_BITS, key=of)
        high = bisect_left(range(len(order)), (number + 1) << POSITION_BITS, lo=low, key=of)
        return order[low:high]

    def seen(self, deleted: Mapping[str, NDArray[np.int64]], others: Columns) -> Unit:
        """The unit as a version sees it: with the rows of the files named in ``deleted``, less the positions there.

        Conditions may also name ``others``.
        """
        if len(deleted) == len(self.numbers):
            live = np.ones(len(self.unit.rows.live), np.uint8)
        else:
            live = np.zeros(len(self.unit.rows.live), np.uint8)
            for file_id in deleted:
                live[self.rows_of(file_id)] = 1
        for file_id, positions in deleted.items():
            if len(positions):
                found = self.unit.find((np.int64(self.numbers[file_id]) << POSITION_BITS) | positions)
                live[found[found >= 0]] = 0
        return self.unit.seen(live, others)

    def take(self, positions: NDArray[np.int64], schema: pa.Schema) -> pa.Table:
        """Kept columns of the rows at these positions, in the types of ``schema``; NULL where their files lack one."""
        names = schema.names
        if self.beside.schema.names != names:
            names = [name for name in names if self.beside.schema.get_field_index(name) >= 0]
        return conform(self.beside.take(positions, names), schema)


def built_part(
    rows: TableRows,
    numbers: Mapping[str, int],
    settings: Settings,
    types: Mapping[str, str],
) -> Part:
    """A segment of rows. Takes seconds for a hundred thousand of them."""
    offsets, codes = rows.grants
    pairs = codes, np.repeat(np.arange(len(rows.ids), dtype=np.int64), np.diff(offsets))
    segment, position = built(rows.vectors, rows.ids, pairs, settings, attributes=rows.attributes)
    return Part(segment, numbers, Beside.of(rows.kept.take(pa.array(np.argsort(position)))), types)


def loose_part(rows: TableRows, numbers: Mapping[str, int], settings: Settings, types: Mapping[str, str]) -> Part:
    """Rows as they came, compared one by one at every search; made at once."""
    mean = mean_of(rows.vectors) if len(rows.ids) else np.zeros(settings.dim, np.float32)
    delta = Delta(
        max(len(rows.ids), 1), mean, settings.layout, settings.metric, no_nodes(settings.dim), settings.schema
    )
    delta.append(rows.vectors, rows.ids, rows.grants, rows.attributes)
    return Part(delta, numbers, Beside.of(rows.kept), types)


# --- files -----------------------------------------------------------------------------------------------------------


def write_part(path: str, part: Part, labels: LabelTable, settings: Settings, *, tenanted: bool) -> None:
    """Write the part as a file that :meth:`.VectorIndex.load` reads as well."""
    assert isinstance(part.unit, Segment), "loose parts stay in memory"
    meta, arrays = taken(Contents(settings, labels, tenanted, 0, (part.unit,)))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, part.beside.schema) as stream:
        for batch in part.beside.batches:
            stream.write_batch(batch)
    arrays["beside"] = np.frombuffer(sink.getvalue(), np.uint8)
    container.write(path, kind=KIND, meta=meta | {"types": dict(part.types)}, arrays=arrays)


def part_of_file(path: str, name: str, numbers: Mapping[str, int]) -> Part:
    """Open a part by mapping its file: nothing is read but the header. ``name`` it has in the lake.

    Corrupt when it is damaged, NotFound when it is gone.
    """
    meta, arrays = container.read(path, kind=KIND, mmap=True, verify=False)
    contents = held(path, meta, arrays, threads=1)  # for building, which nobody does by these settings
    try:
        (unit,) = contents.units
        with pa.ipc.open_stream(pa.py_buffer(arrays["beside"])) as stream:
            beside = Beside(stream.schema, list(stream))
        types: dict[str, Any] = meta["types"]
        if len(beside.schema) and beside.num_rows != len(unit):
            raise ValueError(f"{beside.num_rows:,} rows beside {len(unit):,}")
    except (KeyError, ValueError, TypeError, pa.ArrowException) as error:
        raise Corrupt(f"the index segment {name} is not whole: {error!r}; build the index anew", path=name) from error
    return Part(unit, numbers, beside, types, name, contents.labels)
