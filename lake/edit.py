"""Edits of rows, planned: write, delete, merge. Planning writes files and changes nothing that anybody sees; the commit
of an :class:`Edit` does.

What a concurrent commit does to an edit is part of the plan. Isolation is that of snapshots: an edit sees the rows of
the snapshot it was planned on.

* *append* holds while the table's schema stays. Appends never conflict with each other.
* *delete* holds while its files are there. Deletes of other rows of one file merge, and so do deletes of the same rows:
  gone twice is gone, so the union of the positions is right whichever came first (:class:`_Union`). Rows that were
  appended meanwhile were not there for the condition and stay.
* *merge* replaces rows, so the union would be wrong for it: had somebody deleted, replaced or added a row of one of
  its keys meanwhile, the key would be gone or there twice. It holds only while the table's rows stay, and is planned
  again on the newer snapshot otherwise, with the files that it has written (``Edit.replan``).
* *overwrite* replaces whatever is there, so it too is planned again, and needs the rows unchanged at its commit.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .changes import (
    AddFiles,
    Change,
    CreateTable,
    DataFile,
    DeleteRows,
    FilesPresent,
    NameFree,
    RemoveFiles,
    Requirement,
    SetSchema,
    TableUnchanged,
)
from .deletions import read_deletions, write_deletions
from .errors import Conflict, InvalidInput, NotFound
from .incoming import open_reader
from .layout import ParquetLayout
from .limits import COMMIT_RETRY_SECONDS
from .predicate import Params, bind_where
from .schema import check_table_name, decode_schema, encode_schema, evolve, same_schema
from .snapshot import OwnedTable, Snapshot
from .table import find_rows, owned_table
from .writer import write_files

if TYPE_CHECKING:
    import pyarrow as pa

    from .log import Log
    from .store import Store

__all__ = [
    "MODES",
    "Edit",
    "Rewrite",
    "commit_edit",
    "find_owned",
    "now_us",
    "plan_delete",
    "plan_write",
    "row_changes",
]

MODES = ("create", "append", "overwrite")
"""The modes of :func:`plan_write`."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Neighbouring files, as they were with their deletions, and the files that stand for their live rows, in order."""

    before: tuple[DataFile, ...]
    after: tuple[DataFile, ...]


@dataclass(frozen=True, slots=True)
class Edit:
    """Changes to commit, the requirements under which they hold, and what to do when others were first.

    ``rebase`` is for the log, when rows were deleted meanwhile in a file that this edit deletes rows from. ``replan``
    makes the edit anew on a newer snapshot after a Conflict, without writing the data again; None when that cannot be.
    ``rows_added`` and ``rows_deleted`` count rows as planned. ``files`` are the paths that were written for the edit,
    since ``begun_us`` (microseconds since the epoch; None without files): orphans for vacuum if it is never committed.
    ``rewrites`` says where rows went that the changes take out of their files and put into others.
    """

    changes: tuple[Change, ...]
    requirements: tuple[Requirement, ...] = ()
    rebase: Callable[[Snapshot, Sequence[Change]], Sequence[Change]] | None = None
    replan: Callable[[Snapshot], Edit] | None = None
    rows_added: int = 0
    rows_deleted: int = 0
    files: tuple[str, ...] = ()
    begun_us: int | None = None
    rewrites: tuple[Rewrite, ...] = ()


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1_000


def commit_edit(log: Log, base: Snapshot, edit: Edit, operation: str) -> Snapshot:
    """Commit the edit, planning it again on newer snapshots as long as it knows how and COMMIT_RETRY_SECONDS last.

    ``base`` is the snapshot that the edit was planned on. Raises what :meth:`Log.commit` raises.
    """
    deadline = time.monotonic() + COMMIT_RETRY_SECONDS
    while True:
        try:
            return log.commit(
                edit.changes,
                edit.requirements,
                operation=operation,
                base=base,
                rebase=edit.rebase,
                begun_us=edit.begun_us,
            )
        except Conflict:
            if edit.replan is None or time.monotonic() > deadline:
                raise
            base = log.latest()
            edit = edit.replan(base)


def find_owned(snapshot: Snapshot, name: str) -> OwnedTable:
    """The owned table of that name. Raises NotFound, or InvalidInput when it is attached or a view."""
    entry = snapshot.table(name)
    if isinstance(entry, OwnedTable):
        return entry
    if entry is not None:
        raise InvalidInput(f"table {name!r} is attached and is not written to: import_table({name!r}) makes it a copy")
    if name in snapshot.views:
        raise InvalidInput(f"{name!r} is a view, which is not written to: name a table")
    raise NotFound(f"there is no table {name!r} in version {snapshot.version}; write it with mode='create' first")


# --- write ---------------------------------------------------------------------------------------------------------


def plan_write(
    snapshot: Snapshot, store: Store, name: str, data: Any, mode: str, layout: ParquetLayout | None = None
) -> Edit:
    """Write ``data`` to files of table ``name``, for ``mode`` "create", "append" or "overwrite".

    create needs a free name; append a table, whose schema may grow (:func:`evolve`); overwrite replaces rows and schema
    of the table, or creates it. ``data`` is whatever :func:`open_reader` takes. Raises InvalidInput, or NotFound when
    there is no table to append to, before anything is written; then what :func:`write_files` raises.
    """
    if mode not in MODES:
        raise InvalidInput(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
    layout, begun_us = layout or ParquetLayout(), now_us()
    if mode == "append":
        edit = _plan_append(snapshot, store, find_owned(snapshot, name), data, layout)
        return replace(edit, begun_us=begun_us)
    entry = None
    if mode == "overwrite" and (snapshot.table(name) is not None or name in snapshot.views):
        entry = find_owned(snapshot, name)
    if entry is None:
        check_table_name(name)
        if name in snapshot.names or name in snapshot.views:
            raise InvalidInput(f"there is a table or view {name!r} already: append to it, overwrite it, or drop it")
    reader = open_reader(data)
    if len(reader.schema) == 0:
        raise InvalidInput("the data has no columns, and a table needs one at least")
    if entry is None:
        table_id = uuid.uuid4().hex
        files = write_files(store, table_id, reader, reader.schema, 0, layout)
        created = CreateTable(table_id, name, encode_schema(reader.schema))
        return replace(_written((created, AddFiles(table_id, files)), (NameFree(name),), files), begun_us=begun_us)
    # The schema id is known at commit only if the schema stays until then: the requirement sees to it.
    changed = not same_schema(decode_schema(entry.schema), reader.schema)
    files = write_files(store, entry.table_id, reader, reader.schema, len(entry.schemas) - 1 + changed, layout)
    text = encode_schema(reader.schema) if changed else None
    return _overwrite(entry, snapshot, files, text, name, begun_us)


def _written(changes: tuple[Change, ...], requirements: tuple[Requirement, ...], files: tuple[DataFile, ...]) -> Edit:
    kept = tuple(change for change in changes if not (isinstance(change, AddFiles) and not change.files))
    return Edit(kept, requirements, rows_added=sum(f.num_rows for f in files), files=tuple(f.path for f in files))


def _plan_append(snapshot: Snapshot, store: Store, entry: OwnedTable, data: Any, layout: ParquetLayout) -> Edit:
    old = decode_schema(entry.schema)
    reader = open_reader(data)
    schema = evolve(old, reader.schema)
    changes, schema_id = _growth(entry, old, schema)
    files = write_files(store, entry.table_id, reader, schema, schema_id, layout)
    unchanged = TableUnchanged(entry.table_id, snapshot.version, schema=True)
    return _written((*changes, AddFiles(entry.table_id, files)), (unchanged,), files)


def _growth(entry: OwnedTable, old: pa.Schema, schema: pa.Schema) -> tuple[tuple[Change, ...], int]:
    """The change that brings the table to ``schema``, if one is needed, and the id that ``schema`` will have."""
    if schema is old:
        return (), len(entry.schemas) - 1
    return (SetSchema(entry.table_id, encode_schema(schema)),), len(entry.schemas)


def _overwrite(
    entry: OwnedTable, snapshot: Snapshot, files: tuple[DataFile, ...], text: str | None, name: str, begun_us: int
) -> Edit:
    schemas = len(entry.schemas)

    def again(newer: Snapshot) -> Edit:
        now = newer.tables.get(entry.table_id)
        if not isinstance(now, OwnedTable) or now.name != name or len(now.schemas) != schemas:
            raise Conflict(f"table {name!r} was dropped, renamed, or got another schema: reload and retry")
        return _overwrite(now, newer, files, text, name, begun_us)

    changes: list[Change] = []
    if entry.files:
        changes.append(RemoveFiles(entry.table_id, tuple(entry.files)))
    if text is not None:
        changes.append(SetSchema(entry.table_id, text))
    unchanged = TableUnchanged(entry.table_id, snapshot.version, schema=True, rows=True, name=True)
    edit = _written((*changes, AddFiles(entry.table_id, files)), (unchanged,), files)
    return replace(edit, replan=again, rows_deleted=entry.num_rows, begun_us=begun_us)


# --- delete --------------------------------------------------------------------------------------------------------


def plan_delete(snapshot: Snapshot, store: Store, name: str, where: str, params: Params | None = None) -> Edit:
    """Find the rows of table ``name`` for which ``where`` is true, and write which they are.

    Reads the columns that the condition names, of the files that statistics do not rule out. A file that loses all its
    rows goes altogether. Raises NotFound, InvalidInput or InvalidSQL before anything is written.
    """
    begun_us = now_us()
    entry = find_owned(snapshot, name)
    table = owned_table(store, entry, snapshot.version)
    predicate = bind_where(where, table.schema, params)
    predicate.check(table.schema)
    file_ids = {id(fragment): file_id for file_id, fragment in zip(entry.files, table.fragments(), strict=True)}
    parts: dict[str, list[npt.NDArray[np.int64]]] = {}
    for found in find_rows(table.fragments(), predicate):
        positions = found.fragment.positions(found.groups)[found.rows]
        parts.setdefault(file_ids[id(found.fragment)], []).append(positions)
    doomed = {file_id: np.concatenate(positions) for file_id, positions in parts.items()}
    changes, files = row_changes(store, entry, doomed)
    return Edit(
        changes,
        (FilesPresent(entry.table_id, tuple(doomed)),) if doomed else (),
        rebase=_Union(store, doomed),
        replan=lambda newer: plan_delete(newer, store, name, where, params),
        rows_deleted=sum(positions.size for positions in doomed.values()),
        files=files,
        begun_us=begun_us if files else None,
    )


def row_changes(
    store: Store, entry: OwnedTable, doomed: Mapping[str, npt.NDArray[np.int64]]
) -> tuple[tuple[Change, ...], tuple[str, ...]]:
    """Changes after which the positions ``doomed`` (by file id, ascending int64) are gone, and the files written.

    Positions that are deleted already may be among them. Files that lose their last row are removed.
    """
    changes: list[Change] = []
    gone: list[str] = []
    written: list[str] = []
    for file_id, positions in doomed.items():
        file = entry.files[file_id]
        before = read_deletions(store, file)
        union = np.union1d(before, positions)
        if union.size == file.num_rows:
            gone.append(file_id)
        elif union.size > before.size:
            deletion = write_deletions(store, entry.table_id, file, union)
            written.append(deletion.path)
            changes.append(DeleteRows(entry.table_id, file_id, deletion, file.deletion.path if file.deletion else None))
    if gone:
        changes.append(RemoveFiles(entry.table_id, tuple(gone)))
    return tuple(changes), tuple(written)


@dataclass(frozen=True, slots=True)
class _Union:
    """The rebase of a plain delete: what others deleted and what we delete, together.

    Right because a delete is idempotent: our condition was true of each of our rows in our snapshot, rows never change
    in place, and a row that somebody else deleted first is gone all the same.
    """

    store: Store
    doomed: Mapping[str, npt.NDArray[np.int64]] = field(repr=False)

    def __call__(self, newer: Snapshot, changes: Sequence[Change]) -> Sequence[Change]:
        """The changes to commit on top of ``newer``."""
        touched = [change for change in changes if isinstance(change, DeleteRows | RemoveFiles)]
        table_id = touched[0].table_id
        entry = newer.tables.get(table_id)
        if not isinstance(entry, OwnedTable) or any(file_id not in entry.files for file_id in self.doomed):
            raise Conflict("the table was dropped, or its files were replaced: reload and retry")
        return row_changes(self.store, entry, self.doomed)[0]
