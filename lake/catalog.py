"""One lake's parts under one roof: its store, log, attached files and SQL session, and tables made from them.

Reading takes a snapshot and never looks at another; committing takes an edit and the snapshot it was made from.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .accesses import AccessCounter, read_accesses
from .attached import Attachment, Attachments, attached_table
from .dependants import carried
from .edit import commit_edit
from .errors import LakeletError
from .limits import TABLE_CACHE_ENTRIES
from .log import Log
from .naming import find_table
from .snapshot import AttachedTable, OwnedTable, Snapshot, TableEntry, View
from .stores import open_store
from .table import Table, owned_table

if TYPE_CHECKING:
    import datetime as dt
    import os
    from collections.abc import Callable

    import duckdb

    from .accesses import Accesses
    from .dependants import Dependants
    from .edit import Edit
    from .session import Parameters, Session

__all__ = ["Catalog"]

_T = TypeVar("_T")


class Catalog:
    """The lake at ``uri``. Safe to use from many threads; opening costs no request."""

    def __init__(
        self, uri: str | os.PathLike[str], *, read_only: bool = False, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        """``storage_options`` go to the fsspec file system of the lake and of attached URIs."""
        self.storage_options = dict(storage_options or {})
        self.store = open_store(uri, storage_options)
        self.log = Log(self.store, read_only)
        self.attachments = Attachments(storage_options)
        self.accesses = AccessCounter(self.store, read_only=read_only)
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._tables: OrderedDict[str, tuple[object, Table]] = OrderedDict()

    def close(self) -> None:
        """Wait for checkpoints that are being written, write read counts, and give up the SQL session."""
        self.log.close()
        self.accesses.close()
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    # --- reading -------------------------------------------------------------------------------------------------

    def table(self, snapshot: Snapshot, name: str) -> Table:
        """The table of that name in ``snapshot``; an attached one as its files are now.

        Raises NotFound for an unknown name, InvalidInput for a view, and what opening an attached location raises.
        """
        (table,) = self.tables(snapshot, [name])
        return table

    def tables(self, snapshot: Snapshot, names: Sequence[str]) -> list[Table]:
        """Tables by name, in that order: thousands of attached ones are looked at together. Raises as :meth:`table`."""
        return [_or_raise(found) for found in self.readable(snapshot, names)]

    def readable(self, snapshot: Snapshot, names: Sequence[str]) -> list[Table | LakeletError]:
        """As :meth:`tables`, with the error in the place of an attached table that cannot be read."""
        entries = [find_table(snapshot, name) for name in names]
        attached = [entry for entry in entries if isinstance(entry, AttachedTable)]
        opened = {a.table_id: found for a, found in zip(attached, self._opened(attached), strict=True)}
        found: list[Table | LakeletError] = []
        for entry in entries:
            attachment = opened.get(entry.table_id)
            if isinstance(attachment, LakeletError):
                found.append(attachment)
            else:
                found.append(self._made(entry, attachment, snapshot))
        return found

    def _opened(self, attached: Sequence[AttachedTable]) -> list[Attachment | LakeletError]:
        found = self.attachments.open_many([(entry.location, entry.hive) for entry in attached])
        return [
            _unreadable(entry, one) if isinstance(one, LakeletError) else one
            for entry, one in zip(attached, found, strict=True)
        ]

    def _made(self, entry: TableEntry, attachment: Attachment | None, snapshot: Snapshot) -> Table:
        """The table object, made of the same fragments as before while its rows are the same: they hold footers."""
        source: object = attachment
        if isinstance(entry, OwnedTable):
            source = (entry.schema_version, entry.rows_version, entry.name_version)  # errors bear the name
        with self._lock:
            held = self._tables.get(entry.table_id)
            if held is not None and (held[0] is source or (attachment is None and held[0] == source)):
                self._tables.move_to_end(entry.table_id)
                return self._counted(entry, held[1], snapshot.version)
        if isinstance(entry, OwnedTable):
            table = owned_table(self.store, entry, snapshot.version)
        else:
            assert attachment is not None
            table = attached_table(entry.name, attachment, snapshot.version)
        with self._lock:
            self._tables[entry.table_id] = (source, table)
            while len(self._tables) > TABLE_CACHE_ENTRIES:
                self._tables.popitem(last=False)
        return self._counted(entry, table, snapshot.version)

    def _counted(self, entry: TableEntry, table: Table, version: int) -> Table:
        """The table under its name now, whose scans are counted."""
        on_read = partial(self.accesses.count, entry.table_id)
        return Table(entry.name, table.schema, table.fragments(), version, table.kind, on_read)

    def sql(
        self,
        snapshot: Snapshot,
        query: str,
        params: Parameters = None,
        on_read: Callable[[TableEntry], None] | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """DuckDB SQL over ``snapshot``, as :meth:`.session.Session.sql`; ``on_read`` hears of each table it names."""

        def resolve(name: str) -> OwnedTable | Attachment | View:
            view = snapshot.views.get(name)
            if view is not None:
                return view
            entry = find_table(snapshot, name)
            if on_read is not None:
                on_read(entry)
            self.accesses.count(entry.table_id)
            return entry if isinstance(entry, OwnedTable) else _or_raise(self._opened([entry])[0])

        return self._open_session().sql(query, params, {*snapshot.names, *snapshot.views}, resolve)

    def check_view(self, snapshot: Snapshot, sql: str) -> None:
        """See that the SELECT of a view binds in ``snapshot``; raises InvalidSQL when it does not."""
        self._open_session().check_view(sql)
        self.sql(snapshot, sql)

    def read_counts(self, since_day: dt.date) -> Accesses:
        """How often tables were read since that day, what this catalog has not written yet included."""
        if not self.log.read_only:
            self.accesses.flush()
        return read_accesses(self.store, since_day=since_day)

    def _open_session(self) -> Session:
        from .session import Session

        with self._lock:
            if self._session is None:
                self._session = Session(self.store)
            return self._session

    # --- committing ----------------------------------------------------------------------------------------------

    def commit(self, edit: Edit, operation: str, base: Snapshot, dependants: Dependants = "restore") -> Snapshot:
        """Make an edit that was planned on ``base`` durable, and carry along the tables that are rebuilt from rows that
        it takes away, or refuse. The errors are those of :func:`.dependants.carried` and :meth:`.log.Log.commit`.
        """
        return commit_edit(self.log, base, carried(self.store, base, edit, dependants), operation)


def _or_raise(found: _T | LakeletError) -> _T:
    if isinstance(found, LakeletError):
        raise found
    return found


def _unreadable(entry: AttachedTable, error: LakeletError) -> LakeletError:
    """The error of an attached location with the table's name in front and what to do behind."""
    return type(error)(
        f"the attached table {entry.name!r} cannot be read: {error} Mend {entry.location}, or drop the table."
    )
