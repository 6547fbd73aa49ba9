"""The lake at one version, as a value. ``apply`` is pure: snapshot and changes in, next snapshot out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .changes import (
    AddFiles,
    AttachTable,
    Change,
    CreateLake,
    CreateTable,
    DataFile,
    DeleteRows,
    DropIndex,
    DropTable,
    DropView,
    FilesPresent,
    FilesUnchanged,
    NameFree,
    RemoveFiles,
    RenameTable,
    Requirement,
    SetIndex,
    SetPin,
    SetSchema,
    SetView,
)
from .errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .table_index import TableIndex

__all__ = ["AttachedTable", "OwnedTable", "Pin", "Snapshot", "TableEntry", "View", "apply", "changed_names", "unmet"]


@dataclass(frozen=True, slots=True)
class Pin:
    """Why a table must stay: ``kind`` is "keep" (never retired) or "legal-hold" (no row leaves)."""

    kind: str
    owner: str = ""
    reason: str = ""

    def __str__(self) -> str:
        """In words, with owner and reason where they were given."""
        who = f" by {self.owner}" if self.owner else ""
        words = "it is under a legal hold" if self.kind == "legal-hold" else "it is pinned"
        return f"{words}{who}{f': {self.reason}' if self.reason else ''}"


@dataclass(frozen=True, slots=True)
class OwnedTable:
    """A table whose files belong to the lake.

    ``schemas`` holds every schema it ever had, as text, by schema id; the last one is in force. ``files`` keeps the
    order of the rows. ``name_version``, ``schema_version`` and ``rows_version`` are the versions that last changed
    each aspect, ``dependants_version`` the one that last added a recipe over the table's files or pinned it,
    ``index_version`` the one that last changed an index: requirements compare them. ``indexes`` is keyed by index id;
    no two are over the same column.
    """

    table_id: str
    name: str
    schemas: tuple[str, ...]
    files: Mapping[str, DataFile] = field(default_factory=dict)
    created_version: int = 0
    name_version: int = 0
    schema_version: int = 0
    rows_version: int = 0
    dependants_version: int = 0
    pin: Pin | None = None
    indexes: Mapping[str, TableIndex] = field(default_factory=dict)
    index_version: int = 0

    @property
    def is_retired(self) -> bool:
        """Whether rows of it are rebuilt from other tables."""
        return any(file.recipe is not None for file in self.files.values())

    @property
    def schema(self) -> str:
        """The schema in force, as text."""
        return self.schemas[-1]

    @property
    def num_rows(self) -> int:
        """Rows that a scan returns: stored rows less deleted ones."""
        return sum(f.num_rows - (f.deletion.rows if f.deletion else 0) for f in self.files.values())

    @property
    def num_bytes(self) -> int:
        """Bytes of the data files in the store, without indexes over them."""
        return sum(f.num_bytes for f in self.files.values())


@dataclass(frozen=True, slots=True)
class AttachedTable:
    """A table whose files belong to somebody else and may change under us."""

    table_id: str
    name: str
    location: str
    format: str
    hive: bool
    created_version: int = 0
    name_version: int = 0
    pin: Pin | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A named SELECT over tables of the lake."""

    name: str
    sql: str
    created_version: int = 0


TableEntry = OwnedTable | AttachedTable


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The lake at one version.

    ``tables`` is keyed by table id, ``names`` maps each table's name to its id, ``views`` is keyed by name. Version 0
    is the empty lake. ``timestamp_us`` is the commit's time in microseconds since the epoch, in UTC, monotonic over
    versions. ``hash_seed`` is the lake's secret for row hashes, 32 bytes in hex, fixed by the first commit.
    """

    version: int = 0
    timestamp_us: int = 0
    lake_id: str = ""
    hash_seed: str = ""
    tables: Mapping[str, TableEntry] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)

    def table(self, name: str) -> TableEntry | None:
        """The table of that name, or None."""
        table_id = self.names.get(name)
        return None if table_id is None else self.tables[table_id]


# --- the next snapshot -------------------------------------------------------------------------------------------


def apply(snapshot: Snapshot, changes: Iterable[Change], *, version: int, timestamp_us: int) -> Snapshot:
    """The lake after ``changes``, which become ``version``.

    Pure: ``snapshot`` is left as it was, and what did not change is shared with it, so the cost is that of the change
    plus a copy of the dictionaries that it touches. Raises Corrupt for a change that is impossible here.
    """
    if version < snapshot.version or timestamp_us < snapshot.timestamp_us:
        raise Corrupt(
            f"version {version} at {timestamp_us} µs cannot follow {snapshot.version} at {snapshot.timestamp_us}"
        )
    building = _Building(snapshot, version)
    for change in changes:
        building.add(change)
    return building.finish(timestamp_us)


class _Building:
    """The dictionaries of the next snapshot: each copied when the first change touches it, none before."""

    def __init__(self, snapshot: Snapshot, version: int) -> None:
        self._version = version
        self._old = snapshot
        self._lake = (snapshot.lake_id, snapshot.hash_seed)
        self._tables: dict[str, TableEntry] | None = None
        self._names: dict[str, str] | None = None
        self._views: dict[str, View] | None = None
        self._files: dict[str, dict[str, DataFile]] = {}

    def finish(self, timestamp_us: int) -> Snapshot:
        old = self._old
        return Snapshot(
            version=self._version,
            timestamp_us=timestamp_us,
            lake_id=self._lake[0],
            hash_seed=self._lake[1],
            tables=old.tables if self._tables is None else self._tables,
            names=old.names if self._names is None else self._names,
            views=old.views if self._views is None else self._views,
        )

    def add(self, change: Change) -> None:
        match change:
            case AddFiles():
                self._add_files(change)
            case RemoveFiles():
                self._remove_files(change)
            case DeleteRows():
                self._delete_rows(change)
            case CreateTable(table_id, name, schema):
                self._new_id(table_id)
                now = self._version
                self._claim(name, table_id)
                self._put(OwnedTable(table_id, name, (schema,), {}, now, now, now, now))
            case AttachTable(table_id, name, location, format_, hive):
                self._new_id(table_id)
                self._claim(name, table_id)
                self._put(AttachedTable(table_id, name, location, format_, hive, self._version, self._version))
            case SetSchema(table_id, schema):
                table = self._owned(table_id)
                self._put(replace(table, schemas=(*table.schemas, schema), schema_version=self._version))
            case RenameTable(table_id, name):
                entry = self._entry(table_id)
                self._free(entry.name)
                self._claim(name, table_id)
                self._put(replace(entry, name=name, name_version=self._version))
            case SetPin(table_id, kind, owner, reason):
                entry = replace(self._entry(table_id), pin=Pin(kind, owner, reason) if kind else None)
                if isinstance(entry, OwnedTable):
                    self._put(replace(entry, dependants_version=self._version))
                else:
                    self._put(replace(entry, name_version=self._version))
            case SetIndex(table_id, index):
                self._set_index(self._owned(table_id), index)
            case DropIndex(table_id, index_id):
                self._drop_index(self._owned(table_id), index_id)
            case DropTable(table_id):
                self._free(self._entry(table_id).name)
                self._own_tables().pop(table_id)
                self._files.pop(table_id, None)
            case SetView(name, sql):
                if name in self._current_names():
                    raise _impossible(f"a table has the name {name!r} of a view")
                self._own_views()[name] = View(name, sql, self._version)
            case DropView(name):
                if self._own_views().pop(name, None) is None:
                    raise _impossible(f"no view {name!r} to drop")
            case CreateLake(lake_id, hash_seed):
                if self._lake[0] or self._version > 1 or not lake_id:
                    raise _impossible("a lake is created once, by its first commit")
                self._lake = (lake_id, hash_seed)

    def _add_files(self, change: AddFiles) -> None:
        table = self._owned(change.table_id)
        files = self._own_files(table)
        for file in change.files:
            if file.file_id in files:
                raise _impossible(f"file {file.file_id!r} is part of table {table.name!r} already")
            if not 0 <= file.schema_id < len(table.schemas):
                raise _impossible(f"file {file.file_id!r} has schema {file.schema_id} of {len(table.schemas)}")
            if file.deletion is not None and not 0 <= file.deletion.rows <= file.num_rows:
                raise _impossible(f"file {file.file_id!r} loses {file.deletion.rows} of {file.num_rows} rows")
            files[file.file_id] = file
            if file.recipe is not None:
                for table_id in {source.table_id for source in file.recipe.sources}:
                    self._note_dependant(table_id)
        self._put(replace(self._owned(change.table_id), files=files, rows_version=self._version))

    def _note_dependant(self, table_id: str) -> None:
        """A recipe over a table's files was added. Its table may be gone: the files stay as long as the recipe."""
        entry = (self._old.tables if self._tables is None else self._tables).get(table_id)
        if isinstance(entry, OwnedTable) and entry.dependants_version != self._version:
            self._put(replace(entry, dependants_version=self._version))

    def _remove_files(self, change: RemoveFiles) -> None:
        table = self._owned(change.table_id)
        files = self._own_files(table)
        for file_id in change.file_ids:
            if files.pop(file_id, None) is None:
                raise _impossible(f"no file {file_id!r} in table {table.name!r} to remove")
        self._put(replace(table, files=files, rows_version=self._version))

    def _delete_rows(self, change: DeleteRows) -> None:
        table = self._owned(change.table_id)
        files = self._own_files(table)
        file = files.get(change.file_id)
        if file is None:
            raise _impossible(f"no file {change.file_id!r} in table {table.name!r} to delete rows from")
        base = file.deletion.path if file.deletion else None
        if base != change.base:
            raise _impossible(f"deletions of file {change.file_id!r} made on top of {change.base!r}, found {base!r}")
        least = file.deletion.rows if file.deletion else 0
        if not least <= change.deletion.rows <= file.num_rows:
            raise _impossible(f"{change.deletion.rows} deleted rows of {file.num_rows}, {least} before")
        files[change.file_id] = file.with_deletion(change.deletion)
        self._put(replace(table, files=files, rows_version=self._version))

    def _set_index(self, table: OwnedTable, index: TableIndex) -> None:
        if not index.index_id:
            raise _impossible(f"an index over table {table.name!r} without an id")
        for other in table.indexes.values():
            if other.column == index.column and other.index_id != index.index_id:
                raise _impossible(f"two indexes over column {index.column!r} of table {table.name!r}")
        indexes = {**table.indexes, index.index_id: index}
        self._put(replace(table, indexes=indexes, index_version=self._version))

    def _drop_index(self, table: OwnedTable, index_id: str) -> None:
        left = dict(table.indexes)
        if left.pop(index_id, None) is None:
            raise _impossible(f"no index {index_id!r} over table {table.name!r} to drop")
        self._put(replace(table, indexes=left, index_version=self._version))

    # each dictionary is ours from the first change on

    def _own_tables(self) -> dict[str, TableEntry]:
        if self._tables is None:
            self._tables = dict(self._old.tables)
        return self._tables

    def _own_names(self) -> dict[str, str]:
        if self._names is None:
            self._names = dict(self._old.names)
        return self._names

    def _own_views(self) -> dict[str, View]:
        if self._views is None:
            self._views = dict(self._old.views)
        return self._views

    def _own_files(self, table: OwnedTable) -> dict[str, DataFile]:
        files = self._files.get(table.table_id)
        if files is None:
            files = self._files[table.table_id] = dict(table.files)
        return files

    def _current_names(self) -> Mapping[str, str]:
        return self._old.names if self._names is None else self._names

    def _entry(self, table_id: str) -> TableEntry:
        tables = self._old.tables if self._tables is None else self._tables
        entry = tables.get(table_id)
        if entry is None:
            raise _impossible(f"no table with the id {table_id!r}")
        return entry

    def _owned(self, table_id: str) -> OwnedTable:
        entry = self._entry(table_id)
        if not isinstance(entry, OwnedTable):
            raise _impossible(f"table {entry.name!r} is attached: its files are not the lake's to change")
        return entry

    def _new_id(self, table_id: str) -> None:
        if not table_id or table_id in (self._old.tables if self._tables is None else self._tables):
            raise _impossible(f"table id {table_id!r} is taken")

    def _put(self, entry: TableEntry) -> None:
        self._own_tables()[entry.table_id] = entry

    def _free(self, name: str) -> None:
        del self._own_names()[name]

    def _claim(self, name: str, table_id: str) -> None:
        if name in self._current_names() or name in (self._old.views if self._views is None else self._views):
            raise _impossible(f"the name {name!r} is taken")
        self._own_names()[name] = table_id


def _impossible(what: str) -> Corrupt:
    return Corrupt(f"a commit says what cannot be: {what}")


# --- requirements and history ------------------------------------------------------------------------------------


def unmet(snapshot: Snapshot, requirements: Iterable[Requirement]) -> str | None:
    """What the first broken requirement is, in words, or None when all hold."""
    for requirement in requirements:
        if isinstance(requirement, NameFree):
            if requirement.name in snapshot.names or requirement.name in snapshot.views:
                return f"the name {requirement.name!r} is taken"
            continue
        table = snapshot.tables.get(requirement.table_id)
        if table is None:
            return f"the table with id {requirement.table_id!r} was dropped"
        if isinstance(requirement, FilesPresent):
            files = table.files if isinstance(table, OwnedTable) else {}
            if any(file_id not in files for file_id in requirement.file_ids):
                return f"files of table {table.name!r} were replaced"
            continue
        if isinstance(requirement, FilesUnchanged):
            states = {file.state for file in table.files.values()} if isinstance(table, OwnedTable) else set()
            if not states.issuperset(requirement.states):
                return f"rows of table {table.name!r} were deleted or rewritten"
            continue
        since = requirement.version
        if requirement.name and table.name_version > since:
            return f"table {table.name!r} was renamed after version {since}"
        if isinstance(table, OwnedTable):
            if requirement.schema and table.schema_version > since:
                return f"the schema of table {table.name!r} changed after version {since}"
            if requirement.rows and table.rows_version > since:
                return f"the rows of table {table.name!r} changed after version {since}"
            if requirement.index and table.index_version > since:
                return f"an index over table {table.name!r} changed after version {since}"
            if requirement.dependants and table.dependants_version > since:
                return f"table {table.name!r} was pinned, or one that is rebuilt from it retired, after version {since}"
    return None


def changed_names(before: Snapshot, after: Snapshot, changes: Sequence[Change]) -> tuple[str, ...]:
    """The names of the tables and views that ``changes``, between these two snapshots, touched; each once, in order."""
    names: dict[str, None] = {}
    for change in changes:
        if isinstance(change, CreateLake):
            continue
        if isinstance(change, SetView | DropView):
            names[change.name] = None
            continue
        table = after.tables.get(change.table_id) or before.tables.get(change.table_id)
        if table is not None:
            names[table.name] = None
    return tuple(names)
