"""Checkpoints: a snapshot as Parquet, so that a cold open need not read the whole log.

``_lakelet/checkpoints/<20 digits>-<random>/`` holds four objects: ``stats``, ``commits``, ``files`` and, written last,
``tables``; a folder without ``tables.parquet`` is unfinished and ignored. ``_lakelet/hint`` names the newest one. Names
are never used twice, so two writers cannot mix their objects. A checkpoint is only ever an optimisation: the log is
the truth, and until :mod:`.expiry` raises the floor everything can be read from it.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from .changes import Commit, DataFile, DeletionFile
from .checkpoint_parts import StatsObject, StatsOfRow, damaged, encode_stats, has_stats, read_part, stamped
from .entry import FORMAT, index_of, index_text, log_path, recipe_of, recipe_text
from .snapshot import AttachedTable, OwnedTable, Pin, Snapshot, TableEntry, View

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .store import Store

__all__ = [
    "CHECKPOINTS",
    "HINT",
    "Checkpoint",
    "History",
    "checkpoint_version",
    "hinted",
    "list_checkpoints",
    "newest_checkpoint",
    "open_checkpoint",
    "point_hint",
    "write_checkpoint",
]

CHECKPOINTS: Final = "_lakelet/checkpoints/"
HINT: Final = "_lakelet/hint"
_NAME: Final = re.compile(r"(\d{20})-[0-9a-f]{32}")

_TABLES: Final = pa.schema(
    [
        ("kind", pa.string()),  # owned, attached or view
        ("id", pa.string()),
        ("name", pa.string()),
        ("schemas", pa.list_(pa.large_string())),
        ("text", pa.large_string()),  # an attached table's location, a view's SQL
        ("format", pa.string()),
        ("hive", pa.bool_()),
        ("created_version", pa.int64()),
        ("name_version", pa.int64()),
        ("schema_version", pa.int64()),
        ("rows_version", pa.int64()),
        ("dependants_version", pa.int64()),
        ("pin", pa.list_(pa.large_string())),  # kind, owner, reason
        ("num_files", pa.int64()),  # so many of the rows of ``files``, in order
        ("index_version", pa.int64()),
        ("indexes", pa.list_(pa.large_string())),  # each as JSON
    ]
)
_SINCE_INDEXES: Final = ("index_version", "indexes")
"""Columns that checkpoints lack which were written before tables had indexes."""
_FILES: Final = pa.schema(
    [
        ("file_id", pa.large_string()),
        ("path", pa.large_string()),
        ("num_rows", pa.int64()),
        ("num_bytes", pa.int64()),
        ("schema_id", pa.int32()),
        ("has_stats", pa.bool_()),
        ("deletion_path", pa.large_string()),
        ("deletion_rows", pa.int64()),
        ("deletion_bytes", pa.int64()),
        ("recipe", pa.large_string()),  # as JSON; NULL where the file holds its own rows
    ]
)
_COMMITS: Final = pa.schema(
    [
        ("version", pa.int64()),
        ("timestamp_us", pa.int64()),
        ("operation", pa.large_string()),
        ("commit_id", pa.large_string()),
        ("tables", pa.list_(pa.large_string())),
    ]
)


class History:
    """The commits that a checkpoint keeps, read when they are asked for."""

    def __init__(self, store: Store, name: str, commits: Sequence[Commit] | None = None) -> None:
        """``commits``: when they are in hand already."""
        self._store = store
        self._name = name
        self._commits = commits
        self.version = int(name.partition("-")[0])

    def commits(self) -> Sequence[Commit]:
        """The commits of the retained versions up to ``version``, oldest first. NotFound when it was expired."""
        if self._commits is None:
            path = _part(self._name, "commits")
            self._commits = _decode_commits(self._store.get(path), path)
        return self._commits


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint: the name of its folder, the snapshot it holds and the history up to it."""

    name: str
    snapshot: Snapshot
    history: History


# --- finding and reading -----------------------------------------------------------------------------------------


def hinted(data: bytes | None) -> str | None:
    """The checkpoint that the hint names; None when there is no hint, or none that makes sense."""
    try:
        name = json.loads(data)["checkpoint"] if data else None
    except (ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None


def list_checkpoints(store: Store) -> list[tuple[int, str]]:
    """Version and name of each finished checkpoint, oldest first."""
    found = []
    for info in store.list(CHECKPOINTS):
        name, _, part = info.path.removeprefix(CHECKPOINTS).partition("/")
        match = _NAME.fullmatch(name)
        if match and part == "tables.parquet":
            found.append((int(match[1]), name))
    return sorted(found)


def newest_checkpoint(store: Store, at_most: int | None = None) -> Checkpoint | None:
    """The newest checkpoint of a version up to ``at_most``, found by listing; None when there is none."""
    for version, name in reversed(list_checkpoints(store)):
        if at_most is None or version <= at_most:
            checkpoint, _ = open_checkpoint(store, name)
            if checkpoint is not None:
                return checkpoint
    return None


def checkpoint_version(path: str) -> int | None:
    """The version of the checkpoint whose part ``path`` is, or None for something else."""
    match = _NAME.fullmatch(path.removeprefix(CHECKPOINTS).partition("/")[0])
    return int(match[1]) if match else None


def open_checkpoint(store: Store, name: str, slots_ahead: int = 0) -> tuple[Checkpoint | None, Sequence[bytes | None]]:
    """The checkpoint, or None when it is gone, and the log slots behind it, fetched side by side.

    Raises Corrupt when its bytes are damaged, Unavailable when a newer lakelet wrote them.
    """
    version = int(name.partition("-")[0])
    parts = [_part(name, "tables"), _part(name, "files")]
    slots = [log_path(version + 1 + ahead) for ahead in range(slots_ahead)]
    tables, files, *entries = store.get_many([*parts, *slots])
    if tables is None or files is None:
        return None, ()
    return Checkpoint(name, _decode_snapshot(store, name, tables, files), History(store, name)), entries


def _part(name: str, part: str) -> str:
    return f"{CHECKPOINTS}{name}/{part}.parquet"


def _columns(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _decode_snapshot(store: Store, name: str, tables_data: bytes, files_data: bytes) -> Snapshot:
    path = _part(name, "tables")
    rows = read_part(tables_data, path, _TABLES, optional=_SINCE_INDEXES)
    files = _decode_files(store, name, read_part(files_data, _part(name, "files"), _FILES))
    metadata = {key.decode(): value.decode() for key, value in (rows.schema.metadata or {}).items()}
    tables: dict[str, TableEntry] = {}
    views: dict[str, View] = {}
    texts: dict[str, str] = {}  # many tables share a schema; so do they share its text
    try:
        for (
            kind,
            table_id,
            label,
            schemas,
            text,
            form,
            hive,
            created,
            named,
            schemed,
            rowed,
            depended,
            pinned,
            num_files,
            indexed,
            indexes,
        ) in _columns(rows):
            pin = Pin(*pinned) if pinned else None
            if kind == "owned":
                shared = tuple(texts.setdefault(schema, schema) for schema in schemas)
                own = {file.file_id: file for file in islice(files, num_files)}
                if len(own) != num_files or not shared:
                    raise ValueError(f"table {label!r} misses files or schemas")
                found = {index.index_id: index for index in map(index_of, indexes or ())}
                tables[table_id] = OwnedTable(
                    table_id, label, shared, own, created, named, schemed, rowed, depended, pin, found, indexed or 0
                )
            elif kind == "attached":
                tables[table_id] = AttachedTable(table_id, label, text, form, hive, created, named, pin)
            elif kind == "view":
                views[label] = View(label, text, created)
            else:
                raise ValueError(f"unknown kind {kind!r}")
        names = {table.name: table_id for table_id, table in tables.items()}
        if len(names) != len(tables) or next(files, None) is not None:
            raise ValueError("names or files do not match the tables")
        version, timestamp_us = int(metadata["lakelet.version"]), int(metadata["lakelet.timestamp_us"])
        if version != int(name.partition("-")[0]):
            raise ValueError(f"it holds version {version}")
        lake_id, hash_seed = metadata["lakelet.lake_id"], metadata["lakelet.hash_seed"]
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(path, str(error)) from error
    return Snapshot(version, timestamp_us, lake_id, hash_seed, tables, names, views)


def _decode_files(store: Store, name: str, table: pa.Table) -> Iterator[DataFile]:
    stats = StatsObject(store, _part(name, "stats"))
    for row, (file_id, path, rows, size, schema_id, is_known, *deleted, recipe) in enumerate(_columns(table)):
        deletion = DeletionFile(*deleted) if deleted[0] is not None else None
        made = None if recipe is None else recipe_of(recipe)
        known = StatsOfRow(stats, row) if is_known else ""
        yield DataFile(file_id, path, rows, size, schema_id, known, deletion, made)


def _decode_commits(data: bytes, path: str) -> list[Commit]:
    return [
        Commit(version, timestamp_us, operation, commit_id, tuple(tables))
        for version, timestamp_us, operation, commit_id, tables in _columns(read_part(data, path, _COMMITS))
    ]


# --- writing -----------------------------------------------------------------------------------------------------


def write_checkpoint(store: Store, snapshot: Snapshot, commits: Sequence[Commit]) -> Checkpoint:
    """Write ``snapshot`` and the history to keep. Whoever dies half-way leaves nothing that a reader follows.

    Raises Unavailable when the store refuses, NotFound when statistics that it would carry over are gone.
    """
    name = f"{snapshot.version:020d}-{uuid.uuid4().hex}"
    files = [
        file for table in snapshot.tables.values() if isinstance(table, OwnedTable) for file in table.files.values()
    ]
    store.put(_part(name, "stats"), encode_stats(files))
    store.put(_part(name, "commits"), _encode(_commit_rows(commits), _COMMITS))
    store.put(_part(name, "files"), _encode(_file_rows(files), _FILES))
    metadata = {
        "lakelet.version": str(snapshot.version),
        "lakelet.timestamp_us": str(snapshot.timestamp_us),
        "lakelet.lake_id": snapshot.lake_id,
        "lakelet.hash_seed": snapshot.hash_seed,
    }
    store.put(_part(name, "tables"), _encode(_table_rows(snapshot), _TABLES, metadata))
    return Checkpoint(name, snapshot, History(store, name, list(commits)))


def point_hint(store: Store, name: str) -> None:
    """The hint names this checkpoint, unless it names a newer one."""
    held = hinted(store.get_many([HINT])[0])
    if held is None or held < name:
        store.put(HINT, json.dumps({"format": FORMAT, "checkpoint": name}).encode())


def _encode(rows: list[tuple[Any, ...]], schema: pa.Schema, metadata: dict[str, str] | None = None) -> bytes:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_arrays(arrays, schema=stamped(schema, metadata))
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _file_rows(files: list[DataFile]) -> list[tuple[Any, ...]]:
    none = (None, None, None)
    return [
        (f.file_id, f.path, f.num_rows, f.num_bytes, f.schema_id, has_stats(f))
        + ((f.deletion.path, f.deletion.rows, f.deletion.num_bytes) if f.deletion else none)
        + (None if f.recipe is None else recipe_text(f.recipe),)
        for f in files
    ]


def _commit_rows(commits: Sequence[Commit]) -> list[tuple[Any, ...]]:
    return [(c.version, c.timestamp_us, c.operation, c.commit_id, c.tables) for c in commits]


def _table_rows(snapshot: Snapshot) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    start: tuple[Any, ...]
    for t in snapshot.tables.values():
        if isinstance(t, OwnedTable):
            versions = (t.created_version, t.name_version, t.schema_version, t.rows_version, t.dependants_version)
            indexes = [index_text(index) for index in t.indexes.values()]
            start = ("owned", t.table_id, t.name, t.schemas, None, None, None)
            rows.append((*start, *versions, _pin(t.pin), len(t.files), t.index_version, indexes))
        else:
            versions = (t.created_version, t.name_version, 0, 0, 0)
            start = ("attached", t.table_id, t.name, None, t.location, t.format, t.hive)
            rows.append((*start, *versions, _pin(t.pin), 0, 0, None))
    rows += [
        ("view", None, v.name, None, v.sql, None, None, v.created_version, 0, 0, 0, 0, None, 0, 0, None)
        for v in snapshot.views.values()
    ]
    return rows


def _pin(pin: Pin | None) -> tuple[str, str, str] | None:
    return None if pin is None else (pin.kind, pin.owner, pin.reason)
