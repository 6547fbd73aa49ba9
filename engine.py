"""The engine: what ``lakelet.connect`` returns. It composes the rooms and holds no algorithm."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .engine_containment import ContainmentEngine
from .engine_search import SearchEngine
from .lake.catalog import Catalog
from .lake.discovery import Rejected, discover
from .lake.edit import plan_delete, plan_write
from .lake.errors import InvalidInput, LakeletError, NotFound
from .lake.limits import RETENTION_SECONDS, VACUUM_GRACE_SECONDS
from .lake.listing import place_of
from .lake.merge import plan_merge
from .lake.naming import find_table, plan_attach, plan_drop, plan_rename, plan_view
from .lake.progress import shown
from .lake.snapshot import AttachedTable, OwnedTable, Snapshot, TableEntry
from .lake.transaction import Transaction

if TYPE_CHECKING:
    import duckdb

    from .lake.changes import Commit
    from .lake.dependants import Dependants
    from .lake.expiry import Expired
    from .lake.progress import Progress
    from .lake.session import Parameters
    from .lake.table import Table
    from .lake.vacuum import Vacuumed

__all__ = ["Attached", "Engine", "TableInfo", "connect"]


def connect(
    uri: str | os.PathLike[str] = "./lake",
    *,
    read_only: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Engine:
    """Open the lake at a local path or a URI (``memory://``, ``s3://``, ``abfs://``, ``gs://``).

    A lake comes into being with its first commit; opening an empty place writes nothing. ``storage_options`` go to the
    fsspec file system of that URI, and of attached URIs. Raises InvalidInput for an address that cannot be one,
    Unavailable when the store cannot be reached or its package is missing, and, with ``read_only``, NotFound when
    there is no lake.
    """
    catalog = Catalog(uri, read_only=read_only, storage_options=storage_options)
    if read_only and catalog.log.latest().version == 0:
        raise NotFound(f"there is no lake at {catalog.store.uri}; write or attach something there first")
    return Engine(catalog)


@dataclass(frozen=True, slots=True)
class TableInfo:
    """A name of the lake; ``version`` is the one that last changed it.

    ``kind`` is "owned", "attached", "retired" (owned, and rebuilt from another table) or "view". The files of an
    attached table change without a version. ``parents``: the tables that a retired one is rebuilt from.
    """

    name: str
    kind: Literal["owned", "attached", "retired", "view"]
    version: int
    parents: tuple[str, ...] = ()


class Attached(list[str]):
    """The names that :meth:`Engine.attach_all` attached; ``rejected`` holds what it passed over, with the reason."""

    def __init__(self, names: Sequence[str], rejected: Sequence[Rejected]) -> None:
        super().__init__(names)
        self.rejected = tuple(rejected)


class Engine(ContainmentEngine, SearchEngine):
    """One lake. A context manager; safe to use from many threads.

    Every call sees the latest commit, except on an engine that :meth:`at` pinned to a version, which only reads.
    """

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- writing -------------------------------------------------------------------------------------------------

    def write(self, name: str, data: Any, mode: str = "create", *, dependants: Dependants = "refuse") -> int:
        """Write rows into a table and return the version.

        ``mode``: "create" a table, "append" to one, or "overwrite" all of one (made if there is none). ``data`` is
        anything with the Arrow C stream (pyarrow, pandas, polars, a DuckDB relation) or a record batch reader; it is
        streamed. On append columns match by name: new nullable columns join the table and numbers widen; a column that
        ``data`` lacks reads as NULL. Where an overwrite takes rows from which retired tables are rebuilt,
        ``dependants`` says whether to "refuse" or to "restore" those tables in the same commit. Raises InvalidInput
        (name, type, schema, table exists, dependants), NotFound (append to no table), Conflict (another commit changed
        what this one needs), Unavailable (disk full, no permission).
        """
        base = self._base()
        edit = plan_write(base, self._catalog.store, name, data, mode)
        return self._commit(edit, f"{mode} {name}", base, dependants)

    def merge(self, name: str, data: Any, on: Sequence[str], *, dependants: Dependants = "restore") -> int:
        """Replace the rows that have the keys of ``data`` and add the rest of it, in one commit; returns the version.

        ``on`` names the key columns; ``dependants`` as of :meth:`delete`. Raises InvalidInput for unknown keys or a key
        that comes twice in ``data``.
        """
        base = self._base()
        return self._commit(plan_merge(base, self._catalog.store, name, data, on), f"merge {name}", base, dependants)

    def delete(
        self,
        name: str,
        where: str,
        params: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        dependants: Dependants = "restore",
    ) -> int:
        """Delete the rows for which the SQL condition ``where`` is true; returns the version.

        ``params`` are its values: a dict for ``$name``, a list for ``?``. Retired tables that are rebuilt from deleted
        rows keep them: with ``dependants`` "restore" they get copies of those rows in the same commit, with "refuse"
        the call does. Raises InvalidSQL for a bad condition.
        """
        base = self._base()
        edit = plan_delete(base, self._catalog.store, name, where, params)
        return self._commit(edit, f"delete {name}", base, dependants)

    def rename(self, name: str, new_name: str) -> int:
        """Give a table another name; its history goes on. Returns the version."""
        base = self._base()
        return self._commit(plan_rename(base, name, new_name), f"rename {name}", base)

    def drop(self, name: str, *, dependants: Dependants = "refuse") -> int:
        """Drop a table or a view; earlier versions still have it, attached files stay. Returns the version.

        Retired tables that are rebuilt from it make the call ``dependants`` "refuse", or are restored by it.
        """
        base = self._base()
        return self._commit(plan_drop(base, name), f"drop {name}", base, dependants)

    def create_view(self, name: str, sql: str) -> int:
        """Name a SELECT over the lake, in place of the view of that name. Raises InvalidSQL when it does not bind."""
        base = self._base()
        edit = plan_view(base, name, sql)
        self._catalog.check_view(base, sql)
        return self._commit(edit, f"create view {name}", base)

    def transaction(self, *, dependants: Dependants = "refuse") -> Transaction:
        """Several edits of several tables as one commit: ``with db.transaction() as tx: tx.write(…); tx.drop(…)``.

        ``dependants`` as of :meth:`drop`, for all of its edits.
        """
        self._base()
        return Transaction(self._catalog, dependants)

    # --- attaching -----------------------------------------------------------------------------------------------

    def attach(self, name: str, location: str | os.PathLike[str], format: Literal["parquet"] = "parquet") -> int:  # noqa: A002 - the face's word
        """Put Parquet files into the lake where they lie, as one table; nothing is copied. Returns the version.

        ``location`` is a file, a folder, a Hive-partitioned folder or a glob, as a path or URI. Raises NotFound when
        there is nothing, InvalidInput when it is no table.
        """
        if format != "parquet":
            raise InvalidInput(f"found the format {format!r}, expected 'parquet'")
        base = self._base()
        where = _absolute(location)
        hive = self._catalog.attachments.looks_partitioned(where)
        edit = plan_attach(base, [(name, where, hive)])
        self._catalog.attachments.open(where, hive)
        return self._commit(edit, f"attach {name}", base)

    def attach_all(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> Attached:
        """Attach every table below a folder, in one commit: files, folders and Hive-partitioned folders of Parquet.

        Names come from the paths; what is attached already keeps its name, so that a second call adds only what is
        new. What cannot be a table is passed over and listed in ``.rejected``. ``progress`` as of :meth:`containment`.
        Raises NotFound when there is no such folder.
        """
        base = self._base()
        place = place_of(_absolute(path), self._catalog.storage_options)
        with shown(progress) as report:
            found = discover(place, self._catalog.attachments.footers, {*base.names, *base.views}, report)
        known = {entry.location: entry.name for entry in base.tables.values() if isinstance(entry, AttachedTable)}
        fresh = [table for table in found.tables if table.location not in known]
        self._commit(plan_attach(base, [(t.name, t.location, t.hive) for t in fresh]), "attach all", base)
        self._catalog.attachments.adopt(table.listing for table in fresh)
        return Attached([known.get(table.location, table.name) for table in found.tables], found.rejected)

    def import_table(self, name: str) -> int:
        """Copy an attached table into the lake: an owned one of the same name and pin. Returns the version."""
        with self.transaction() as tx:
            table = tx.table(name)
            if isinstance(find_table(self._snapshot(), name), OwnedTable):
                raise InvalidInput(f"table {name!r} is owned by the lake already")
            pin = find_table(self._snapshot(), name).pin
            tx.drop(name)
            tx.write(name, table.scan(), mode="create")
            if pin is not None:
                tx.pin(name, pin.kind, owner=pin.owner, reason=pin.reason)
            return tx.commit()

    # --- reading -------------------------------------------------------------------------------------------------

    def tables(self) -> dict[str, TableInfo]:
        """The tables and views by name, in alphabetical order."""
        snapshot = self._snapshot()
        found = [_info(snapshot, entry) for entry in snapshot.tables.values()]
        found += [TableInfo(view.name, "view", view.created_version) for view in snapshot.views.values()]
        return {info.name: info for info in sorted(found, key=lambda info: info.name)}

    def open_tables(self) -> dict[str, Table | LakeletError]:
        """All tables of one version, opened together; the error stands for an attached one that cannot be read."""
        snapshot = self._snapshot()
        names = sorted(snapshot.names)
        return dict(zip(names, self._catalog.readable(snapshot, names), strict=True))

    def history(self) -> list[Commit]:
        """The commits that are kept, the newest first; up to the pinned version on a pinned engine."""
        last = self._snapshot().version
        return [commit for commit in reversed(self._catalog.log.history()) if commit.version <= last]

    def table(self, name: str, version: int | None = None, timestamp: dt.datetime | str | None = None) -> Table:
        """A table, to read: as it is now, at a version of the lake, or at a time.

        ``timestamp`` is a datetime or ISO text; without a zone it is UTC. Raises NotFound for an unknown table,
        version or time, naming what there is.
        """
        return self._catalog.table(self._snapshot_at(version, timestamp), name)

    def at(self, version: int | None = None, timestamp: dt.datetime | str | None = None) -> Engine:
        """This lake as it was at a version or a time: an engine that only reads."""
        if version is None and timestamp is None:
            raise InvalidInput("at() needs a version or a timestamp")
        then = Engine(self._catalog, self._snapshot_at(version, timestamp))
        then._open, then._open_lock = self._open, self._open_lock  # what is mapped of indexes serves every version
        return then

    def _snapshot_at(self, version: int | None, timestamp: dt.datetime | str | None) -> Snapshot:
        if version is not None and timestamp is not None:
            raise InvalidInput("found both a version and a timestamp; give one of them")
        if version is not None:
            return self._catalog.log.at(version)
        if timestamp is not None:
            return self._catalog.log.at_time(_microseconds(timestamp))
        return self._snapshot()

    def sql(self, query: str, params: Parameters = None, /, **named: Any) -> duckdb.DuckDBPyRelation:
        """Run DuckDB SQL over the lake's tables and views; a relation, which DuckDB runs when its rows are asked for.

        ``params``: a dict for ``$name``, a list for ``?``; or the values by keyword. The relation keeps seeing the
        version of this call. Raises InvalidSQL with DuckDB's words, also for an unknown table.
        """
        if params is not None and named:
            raise InvalidInput("found parameters both as one argument and by keyword; give them one way")
        return self._catalog.sql(self._snapshot(), query, named or params)

    # --- maintenance ---------------------------------------------------------------------------------------------

    def optimize(self, name: str) -> int:
        """Rewrite a table's small files and files with deleted rows into good ones; returns the version.

        The rows and their order stay. Appends go on meanwhile; deletes from the files concerned make it a Conflict.
        """
        from .lake.compaction import plan_optimize

        base = self._base()
        return self._commit(plan_optimize(base, self._catalog.store, name), f"optimize {name}", base)

    def expire(self, older_than_seconds: float = RETENTION_SECONDS, *, dry_run: bool = False) -> Expired:
        """Give up the versions that were superseded longer ago than that: they can be read no more.

        Raises InvalidInput for less than a day. Files leave by :meth:`vacuum`.
        """
        from .lake.expiry import expire

        self._base()
        return expire(self._catalog.log, older_than_seconds=older_than_seconds, dry_run=dry_run)

    def vacuum(self, older_than_seconds: float = VACUUM_GRACE_SECONDS, *, dry_run: bool = False) -> Vacuumed:
        """Delete the data files that no kept version reaches and that are older than that; sum up old read counts.

        Raises InvalidInput for less than a day, since a commit that needs a younger file may be on its way.
        """
        from .lake.accesses import compact
        from .lake.vacuum import vacuum

        self._base()
        found = vacuum(self._catalog.log, older_than_seconds=older_than_seconds, dry_run=dry_run)
        if not dry_run:
            compact(self._catalog.store)
        return found


def _info(snapshot: Snapshot, entry: TableEntry) -> TableInfo:
    if not isinstance(entry, OwnedTable):
        return TableInfo(entry.name, "attached", entry.name_version)
    version = max(entry.name_version, entry.schema_version, entry.rows_version)
    ids = {source.table_id for file in entry.files.values() if file.recipe for source in file.recipe.sources}
    parents = sorted(snapshot.tables[table_id].name for table_id in ids if table_id in snapshot.tables)
    return TableInfo(entry.name, "retired" if entry.is_retired else "owned", version, tuple(parents))


def _absolute(location: str | os.PathLike[str]) -> str:
    """A location that means the same in every working folder."""
    text = os.fspath(location)
    return text if "://" in text or not text else os.path.abspath(text)


def _microseconds(timestamp: dt.datetime | str) -> int:
    """A time as microseconds since the epoch; without a zone it is UTC."""
    if isinstance(timestamp, str):
        try:
            timestamp = dt.datetime.fromisoformat(timestamp)
        except ValueError as e:
            raise InvalidInput(f"found the timestamp {timestamp!r}, expected ISO 8601 such as 2026-01-31T12:00") from e
    if timestamp.tzinfo is None:
        timestamp = timestamp.replace(tzinfo=dt.UTC)
    return (timestamp - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)
