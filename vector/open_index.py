"""One index over a table as this process has it open: its segments mapped, rows in none of them held in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from ..lake.deletions import read_deletions
from ..lake.errors import InvalidInput, LimitExceeded
from ..lake.limits import VECTOR_LOOSE_BYTES, VECTOR_VIEWS
from ..lake.schema import decode_schema
from ..lake.table import owned_fragment
from .conditions import Conditions
from .labels import ALL_TENANTS, LabelTable
from .reading import Reading
from .segment import Segment
from .segment_files import local_segment
from .start import kernels_ready
from .table_definition import Definition
from .table_part import Part, loose_part, part_of_file
from .table_rows import LOOSE_NUMBER, LeftOut, TableRows, joined, labels_of, left_out, rows_of_file
from .table_view import RowSource, TableView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from ..lake.changes import DataFile
    from ..lake.fragment import Fragment
    from ..lake.progress import Progress
    from ..lake.snapshot import OwnedTable
    from ..lake.store import Store
    from ..lake.table_index import IndexSegment, TableIndex
    from .building import Settings
    from .compaction import Unit
    from .labels import Grants

__all__ = ["Covered", "OpenIndex"]


class Covered(NamedTuple):
    """Which part answers for which of a table's files, and the files that none does."""

    parts: list[tuple[Part, list[str]]]
    left: list[str]


class _Loose(NamedTuple):
    """A part in memory, and the rows that it was made of."""

    part: Part
    rows: TableRows


class OpenIndex:
    """An index over a table, at every version that is searched. Safe to use from many threads."""

    def __init__(self, store: Store, lake_id: str, index: TableIndex) -> None:
        self.definition = Definition.decoded(index.definition)
        definition = self.definition
        kernels_ready(attributes=bool(definition.attributes), graph=definition.graph, bits=definition.bits is not None)
        self.labels = LabelTable()
        self._store, self._lake_id = store, lake_id
        self._lock = threading.RLock()
        self._parts: dict[str, Part] = {}
        self._loose: list[_Loose] = []
        self._next_loose = LOOSE_NUMBER
        self._views: OrderedDict[tuple[int, int, tuple[str, ...]], TableView] = OrderedDict()

    def view(self, table: OwnedTable, segments: Sequence[IndexSegment]) -> TableView:
        """The table as it is in a snapshot; ``segments`` are those that may cover its files, the best first.

        LimitExceeded when more rows than a process may hold stand in no segment; what opening segments and reading
        data files raises.
        """
        key = table.rows_version, table.schema_version, tuple(segment.path for segment in segments)
        view = self._views.get(key)
        if view is not None:
            return view
        with self._lock:
            view = self._views.get(key)
            if view is None:
                view = self._viewed(table, segments)
                self._views[key] = view
                while len(self._views) > VECTOR_VIEWS:
                    self._views.popitem(last=False)
                searched = {id(part) for view in self._views.values() for part in view.part_of.values()}
                self._parts = {path: part for path, part in self._parts.items() if id(part) in searched}
                self._loose = [loose for loose in self._loose if id(loose.part) in searched]
            return view

    def check_tenant(self, table: str, tenant: object) -> None:
        """InvalidInput when a search is for a tenant, and the index has none."""
        if self.definition.tenant is None and not (tenant is None or tenant is ALL_TENANTS):
            raise InvalidInput(
                f"the index of table {table!r} knows no tenants: leave tenant out, or make it with tenant=…"
            )

    def covered(self, table: OwnedTable, segments: Sequence[IndexSegment]) -> Covered:
        """Who covers which files of the table, among segments whose rows are still of the table's types."""
        schema = decode_schema(table.schema)
        self.definition.check(table.name, schema)
        types = self.definition.types(schema)
        left = dict.fromkeys(table.files)
        parts = []
        with self._lock:
            for segment in segments:
                mine = [file_id for file_id in segment.files if file_id in left]
                part = self._opened(segment) if mine else None
                if part is not None and part.types == types:
                    parts.append((part, mine))
                    for file_id in mine:
                        del left[file_id]
        return Covered(parts, list(left))

    def rows_of(self, table: OwnedTable, file_id: str, number: int) -> TableRows:
        """All stored rows of a data file that have a sound vector. Searches go on meanwhile."""
        stored = table.files[file_id].with_deletion(None)
        return rows_of_file(self._fragment(table, stored), number, self.definition, self._coded)

    def left_out(self, table: OwnedTable, progress: Progress) -> LeftOut:
        """The rows of a table that no search finds."""
        found = LeftOut()
        for done, file in enumerate(table.files.values()):
            progress(f"checking {table.name}", done, len(table.files))
            found = found.plus(left_out(self._fragment(table, file), self.definition))
        return found

    def _coded(self, column: pa.ChunkedArray) -> Grants:
        """The labels in a tenant column as codes."""
        with self._lock:
            return labels_of(column, self.definition.public, self.labels)

    # Making a view

    def _viewed(self, table: OwnedTable, segments: Sequence[IndexSegment]) -> TableView:
        schema = decode_schema(table.schema)
        covered = self.covered(table, segments)
        settings = self.definition.settings(schema, threads=1)
        loose = self._loose_parts(table, schema, settings, covered.left)
        part_of: dict[int, Part] = {}
        file_of: dict[int, str] = {}
        for part, files in (*covered.parts, *loose):
            for file_id in files:
                part_of[part.numbers[file_id]], file_of[part.numbers[file_id]] = part, file_id

        def fetch(file_id: str, positions: NDArray[np.int64], names: list[str]) -> pa.Table:
            return _rows_at(self._fragment(table, table.files[file_id].with_deletion(None)), positions, names)

        source = RowSource(self.definition, schema, file_of, fetch)
        units = tuple(self._seen(part, files, table, source) for part, files in (*covered.parts, *loose))
        attributes = self.definition.attribute_types(schema)
        others = pa.schema([field for field in schema if field.name not in attributes.names])
        tenanted = self.definition.tenant is not None
        reading = Reading(units, self.labels, tenanted, Conditions(attributes, others), settings)
        rows = [int(np.count_nonzero(unit.rows.live)) for unit in units]
        return TableView(source, reading, part_of, sum(rows), sum(rows[len(covered.parts) :]))

    def _seen(self, part: Part, files: list[str], table: OwnedTable, source: RowSource) -> Unit:
        """The unit of a part as the table sees it; the same as before if nothing changed."""
        state = tuple((file_id, table.files[file_id].state) for file_id in files), table.schema_version
        if part.last_seen is not None and part.last_seen[0] == state:
            return part.last_seen[1]
        deleted = {file_id: read_deletions(self._store, table.files[file_id]) for file_id in files}
        named = self.definition.attributes
        others = {name: source.column(part, name) for name in source.schema.names if name not in named}
        unit = part.seen(deleted, others)
        part.last_seen = state, unit
        return unit

    def _opened(self, segment: IndexSegment) -> Part:
        part = self._parts.get(segment.path)
        if part is None:
            path = local_segment(self._store, self._lake_id, segment)
            numbers = dict(zip(segment.files, segment.numbers, strict=True))
            part = part_of_file(path, segment.path, numbers)
            if part.labels is not None and isinstance(part.unit, Segment):
                part.unit.recode([self.labels.code(label) for label in part.labels.labels])
            self._parts[segment.path] = part
        return part

    # Rows in no segment

    def _loose_parts(
        self, table: OwnedTable, schema: pa.Schema, settings: Settings, left: Sequence[str]
    ) -> list[tuple[Part, list[str]]]:
        types = self.definition.types(schema)
        wanted, found = dict.fromkeys(left), []
        needed: list[_Loose] = []
        for loose in self._loose:
            mine = [file_id for file_id in loose.part.numbers if file_id in wanted]
            if mine and loose.part.types == types:
                needed.append(loose)
                for file_id in mine:
                    del wanted[file_id]
        if wanted:
            self._make_room(table, settings, needed, list(wanted))
            fresh = self._read_loose(table, types, settings, list(wanted))
            while needed and len(needed[-1].rows.ids) <= 2 * len(fresh.rows.ids):
                last = needed.pop()  # so that many small appends make few parts
                self._loose = [loose for loose in self._loose if loose is not last]
                fresh = self._loose_of(
                    joined([last.rows, fresh.rows]), {**last.part.numbers, **fresh.part.numbers}, types, settings
                )
            self._loose.append(fresh)
            needed.append(fresh)
        for loose in needed:
            mine = [file_id for file_id in loose.part.numbers if file_id in left]
            found.append((loose.part, mine))
        return found

    def _read_loose(self, table: OwnedTable, types: Mapping[str, str], settings: Settings, files: list[str]) -> _Loose:
        numbers = {file_id: self._next_loose + place for place, file_id in enumerate(files)}
        self._next_loose += len(files)
        rows = joined([self.rows_of(table, file_id, number) for file_id, number in numbers.items()])
        return self._loose_of(rows, numbers, types, settings)

    def _loose_of(
        self, rows: TableRows, numbers: Mapping[str, int], types: Mapping[str, str], settings: Settings
    ) -> _Loose:
        part = loose_part(rows, numbers, settings, types)
        kept = pa.Table.from_batches(part.beside.batches, part.beside.schema)
        return _Loose(part, rows._replace(vectors=part.unit.rows.vectors[: len(rows.ids)], kept=kept))

    def _make_room(self, table: OwnedTable, settings: Settings, needed: list[_Loose], files: list[str]) -> None:
        rows = sum(table.files[file_id].num_rows for file_id in files)
        more = rows * (4 * settings.dim + settings.layout.record_bytes)
        if more + sum(loose.part.nbytes for loose in self._loose) <= VECTOR_LOOSE_BYTES:
            return
        self._loose = list(needed)
        held = sum(loose.part.nbytes for loose in needed)
        if held + more > VECTOR_LOOSE_BYTES:
            rows += sum(len(loose.rows.ids) for loose in needed)
            raise LimitExceeded(
                f"{rows:,} rows of table {table.name!r} stand in no segment of its index and would take "
                f"{held + more:,} bytes, at most {VECTOR_LOOSE_BYTES:,} are held: make a segment of them by "
                f"update_index({table.name!r})"
            )

    def _fragment(self, table: OwnedTable, file: DataFile) -> Fragment:
        written, schema = decode_schema(table.schemas[file.schema_id]), decode_schema(table.schema)
        return owned_fragment(self._store, file, written, schema, table.name)


def _rows_at(fragment: Fragment, positions: NDArray[np.int64], names: list[str]) -> pa.Table:
    """Stored rows of a data file at these positions, in their order, from the row groups that have some."""
    starts = np.cumsum([0, *fragment.row_group_rows])
    groups = np.unique(np.searchsorted(starts, positions, side="right") - 1)
    table = fragment.read(names, groups.tolist())
    within = np.searchsorted(fragment.positions(groups.tolist()), positions)
    return table.take(pa.array(within))
