"""The engine's part that indexes columns of vectors and searches them."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .engine_base import EngineBase
from .lake.changes import DropIndex
from .lake.edit import now_us
from .lake.errors import Conflict, InvalidInput, LakeletError, NotFound
from .lake.index_edit import find_indexed, plan_drop_index, plan_set_index
from .lake.limits import VECTOR_DELTA_ROWS, VECTOR_LOOSE_PERCENT
from .lake.progress import shown
from .lake.snapshot import OwnedTable
from .lake.table import checked_columns
from .lake.table_index import TableIndex

if TYPE_CHECKING:
    import pyarrow as pa

    from .lake.catalog import Catalog
    from .lake.predicate import Params
    from .lake.progress import Progress
    from .lake.snapshot import Snapshot
    from .lake.table_index import IndexSegment
    from .vector.labels import Label
    from .vector.open_index import OpenIndex
    from .vector.predicates import Predicate
    from .vector.search import Step
    from .vector.table_view import TableView

__all__ = ["SearchEngine"]


class SearchEngine(EngineBase):
    """Indexes over columns of vectors, and searches of them."""

    def __init__(self, catalog: Catalog, pinned: Snapshot | None = None) -> None:
        """As of :class:`EngineBase`."""
        super().__init__(catalog, pinned)
        self._open: dict[str, OpenIndex] = {}
        self._open_lock = threading.Lock()
        self._updating: threading.Thread | None = None
        self._closing = threading.Event()

    def close(self) -> None:
        """As of :class:`EngineBase`; a segment that is being made in the background is given up once its step ends."""
        self._closing.set()
        if self._updating is not None:
            self._updating.join()
        super().close()

    def create_index(
        self,
        name: str,
        column: str,
        *,
        tenant: str | None = None,
        attributes: Iterable[str] | None = None,
        metric: str = "l2",
        public: Label | None = None,
        include: Iterable[str] | None = None,
        graph: bool = False,
        bits: int | None = None,
        seed: int = 0,
        threads: int | None = None,
        skip_invalid: bool = False,
        progress: Progress | None = None,
    ) -> int:
        """Index a table's column of vectors, so that :meth:`search` finds the nearest; returns the version.

        ``column`` holds lists of numbers, all of one length. ``tenant`` is the column that says who may see a row: a
        text or whole number, or a list of them; rows where it is NULL are seen by ALL_TENANTS alone, and those where it
        is ``public`` by everybody. ``attributes`` are columns that conditions find rows by at once; other columns may
        be named too, and take longer. ``metric`` as of :class:`.VectorIndex`. ``include`` are the columns that are
        copied into the index, so that answers need no data file; all of them if None. ``graph``, ``bits`` and ``seed``
        as of :class:`.VectorIndex`, ``threads`` for building.

        Rows that come later are found at once, and get into the index in the background or by :meth:`update_index`.
        Nobody waits for an index that is being made. InvalidInput when a column is missing or of another type, or when
        vectors are NULL, of another length or not finite, with their number and the first of them; ``skip_invalid``
        leaves those out instead: no search finds them. ``progress`` as of :meth:`containment`; what it raises ends the
        work, and then nothing was made.
        """
        from .vector.table_definition import defined, dimensions
        from .vector.table_rows import first_dimensions

        base, begun_us = self._base(), now_us()
        entry, table = find_indexed(base, name), self._catalog.table(base, name)
        if any(index.column == column for index in entry.indexes.values()):
            raise InvalidInput(
                f"column {column!r} of table {name!r} has an index; drop_index({name!r}, {column!r}) first"
            )
        dim = None
        if dimensions(name, table.schema, column) is None:
            dim = first_dimensions(table.fragments(), column)
        definition = defined(
            name,
            table.schema,
            column,
            dim,
            metric=metric,
            tenant=tenant,
            public=public,
            attributes=attributes,
            include=include,
            graph=graph,
            bits=bits,
            seed=seed,
        )
        index = TableIndex(uuid.uuid4().hex, column, definition.encoded())
        return self._extend(name, entry, index, begun_us, threads, progress, strict=not skip_invalid)

    def update_index(
        self,
        name: str,
        column: str | None = None,
        *,
        rebuild: bool = False,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Put rows that came since into an index, now: join small segments, drop those whose rows went. The version.

        ``rebuild`` makes all segments anew, from the table alone. ``column`` says which index, where there are
        several; ``progress`` and ``threads`` as of :meth:`create_index`.
        """
        base, begun_us = self._base(), now_us()
        entry = find_indexed(base, name)
        index = _index_of(entry, column)
        start = replace(index, segments=()) if rebuild else index
        return self._extend(name, entry, start, begun_us, threads, progress, was=index)

    def drop_index(self, name: str, column: str | None = None) -> int:
        """Give up an index; returns the version. Earlier versions keep it; its files leave by :meth:`vacuum`."""
        base = self._base()
        edit = plan_drop_index(base, name, column)
        version = self._commit(edit, f"drop index {name}", base)
        for change in edit.changes:
            if isinstance(change, DropIndex):
                self._open.pop(change.index_id, None)
        return version

    def indexes(self) -> pa.Table:
        """The indexes, one a row: table, column, metric, dim, tenant, attributes, graph, bits, segments, num_bytes of
        these, rows as stored, indexed_rows that stand in segments, and unsearchable_rows without a sound vector.
        """
        from .vector.table_listing import listed

        return listed(self._snapshot())

    def search(
        self,
        name: str,
        q: Any,
        k: int = 10,
        tenant: Label | Predicate | None = None,
        where: str | None = None,
        params: Params | None = None,
        *,
        column: str | None = None,
        columns: Sequence[str] | None = None,
        ef: int | None = None,
        exact: bool = False,
        rerank: bool | None = None,
        threads: int = 1,
    ) -> pa.Table:
        """The rows of a table whose vectors are nearest to ``q``: its columns and ``_distance``, nearest first.

        ``q`` float32 (dim,); of several queries, (m, dim), the rows come one after another, with the number of the
        query in ``_query``. ``tenant``, ``where``, ``ef``, ``exact``, ``rerank`` and ``threads`` as of
        :meth:`.VectorIndex.search`, but that the condition may name any column of the table. ``columns`` are those to
        return, all if None; ``column`` says which index, where there are several.

        It sees the latest version, or the one of :meth:`at`: rows that came since the index was made are found, those
        that are deleted are not. NotFound when the table or the index is none, LimitExceeded when too many rows are in
        no segment of it (:meth:`update_index`), and what reading raises.
        """
        view, snapshot = self._view(name, column, tenant)
        wanted = checked_columns(name, view.source.schema.names, columns)
        found = view.search(q, k, tenant, where, params, wanted, ef=ef, exact=exact, rerank=rerank, threads=threads)
        self._catalog.accesses.count(snapshot.names[name])
        if view.loose_rows > max(VECTOR_DELTA_ROWS, view.rows * VECTOR_LOOSE_PERCENT // 100):
            self._update_aside(name, view.source.definition.column)
        return found

    def explain_search(
        self,
        name: str,
        k: int = 10,
        tenant: Label | Predicate | None = None,
        where: str | None = None,
        params: Params | None = None,
        *,
        column: str | None = None,
        ef: int | None = None,
        exact: bool = False,
    ) -> list[Step]:
        """How such a search would go: one step for each list that it would look through, with its expected cost."""
        view, _ = self._view(name, column, tenant)
        return view.reading.explain(k, tenant, where, params, ef=ef, exact=exact)

    # --- inside --------------------------------------------------------------------------------------------------

    def _view(self, name: str, column: str | None, tenant: object) -> tuple[TableView, Snapshot]:
        snapshot = self._snapshot()
        entry = find_indexed(snapshot, name)
        index, later = self._index_then(entry, column)
        opened = self._opened(snapshot, index)
        opened.check_tenant(name, tenant)
        return opened.view(entry, (*index.segments, *later)), snapshot

    def _index_then(self, entry: OwnedTable, column: str | None) -> tuple[TableIndex, tuple[IndexSegment, ...]]:
        """The index for a table of an earlier version, and segments made since: they cover files, not versions."""
        if self._pinned is None:
            return _index_of(entry, column), ()
        now = self._catalog.log.latest().tables.get(entry.table_id)
        indexes = now.indexes if isinstance(now, OwnedTable) else {}
        if entry.indexes or not isinstance(now, OwnedTable):
            index = _index_of(entry, column)
            same = indexes.get(index.index_id)
            return index, () if same is None else same.segments
        return _index_of(now, column), ()

    def _opened(self, snapshot: Snapshot, index: TableIndex) -> OpenIndex:
        opened = self._open.get(index.index_id)
        if opened is None:
            from .vector.open_index import OpenIndex

            with self._open_lock:
                opened = self._open.get(index.index_id)
                if opened is None:
                    made = OpenIndex(self._catalog.store, snapshot.lake_id, index)
                    opened = self._open[index.index_id] = made
        return opened

    def _extend(
        self,
        name: str,
        entry: OwnedTable,
        index: TableIndex,
        begun_us: int,
        threads: int | None,
        progress: Progress | None,
        *,
        was: TableIndex | None = None,
        strict: bool = False,
    ) -> int:
        """Commit the index with all files of a table covered; ``was`` it is in the place of."""
        from .vector.index import checked_threads
        from .vector.table_upkeep import extended

        count, snapshot = checked_threads(threads), self._base()
        opened = self._opened(snapshot, index)
        with shown(progress) as report:
            if strict and (wrong := opened.left_out(entry, report)).counts:
                raise InvalidInput(
                    f"of column {index.column!r} of table {name!r}, {wrong}; mend or delete these rows, or say "
                    "skip_invalid=True to leave them out of the index: no search finds them then"
                )
            made = extended(self._catalog.store, opened, entry, index, progress=report, threads=count)
        if made == was:
            return snapshot.version
        latest = self._base()
        now = latest.tables.get(entry.table_id)
        if not isinstance(now, OwnedTable) or now.indexes.get(index.index_id) != was:
            raise Conflict(f"another commit changed the index of table {name!r} meanwhile; try again")
        word = "create" if was is None else "update"
        edit = plan_set_index(latest, now.name, made, begun_us=begun_us)
        return self._commit(edit, f"{word} index {name}", latest)

    def _update_aside(self, name: str, column: str) -> None:
        """Begin to put new rows into an index, in the background; one at a time, none where nothing may be written."""
        if self._pinned is not None or self._catalog.log.read_only or self._closing.is_set():
            return
        with self._open_lock:
            if self._updating is None or not self._updating.is_alive():
                thread = threading.Thread(
                    target=self._update_now, args=(name, column), name="lakelet-index", daemon=True
                )
                self._updating = thread
                thread.start()

    def _update_now(self, name: str, column: str) -> None:
        from .vector.background import step_back

        step_back()
        try:
            self.update_index(name, column, progress=self._until_closed)
        except (_Closed, Conflict):
            return  # whoever searches next begins anew
        except LakeletError as error:
            logging.getLogger("lakelet").warning("the index of table %r was not updated: %s", name, error)

    def _until_closed(self, stage: str, done: int, total: int) -> None:
        if self._closing.is_set():
            raise _Closed


class _Closed(Exception):
    """The engine was closed while it worked in the background."""


def _index_of(entry: OwnedTable, column: str | None) -> TableIndex:
    """The index over a column, or the only one."""
    found = [index for index in entry.indexes.values() if column is None or index.column == column]
    if len(found) == 1:
        return found[0]
    columns = ", ".join(sorted(repr(index.column) for index in entry.indexes.values()))
    if found:
        raise InvalidInput(f"table {entry.name!r} has indexes over {columns}; say which by column=…")
    if columns:
        raise NotFound(f"table {entry.name!r} has no index over {column!r}; it has one over {columns}")
    raise NotFound(f"table {entry.name!r} has no index; make one by create_index({entry.name!r}, column=…)")
