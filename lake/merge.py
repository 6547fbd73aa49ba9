"""Merge: rows of the same key replaced, all others added, in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .changes import AddFiles, Change, DataFile, SetSchema, TableUnchanged
from .edit import Edit, find_owned, now_us, row_changes
from .errors import Conflict, InvalidInput, LakeletError
from .evaluation import first_repeated, rows_with_keys
from .incoming import open_reader
from .layout import ParquetLayout
from .schema import decode_schema, encode_schema, evolve
from .snapshot import OwnedTable, Snapshot
from .statistics import Bounds, apart, merged
from .table import Table, owned_fragment, owned_table
from .writer import write_files

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from .fragment import Fragment
    from .store import Store

__all__ = ["plan_merge"]


def plan_merge(
    snapshot: Snapshot,
    store: Store,
    name: str,
    data: Any,
    on: Sequence[str],
    layout: ParquetLayout | None = None,
) -> Edit:
    """Replace the rows of table ``name`` whose columns ``on`` equal those of a row of ``data``, and add the others.

    The new rows stand at the end of the table. Keys are equal as DuckDB's ``=`` has it: NaN equals NaN, -0.0 equals
    0.0. A key of ``data`` must have no NULL, since NULL equals nothing and the row would be added again by each merge;
    rows of the table with a NULL in the key are never replaced. ``data`` has all columns of the table, since whole rows
    are replaced; columns that are new are added as by an append. Raises InvalidInput for that and for a key that occurs
    twice in ``data``, NotFound when there is no such table; nothing is changed.
    """
    begun_us = now_us()
    entry = find_owned(snapshot, name)
    old = decode_schema(entry.schema)
    reader = open_reader(data)
    keys = _checked_keys(on, old, reader.schema)
    lacking = [column for column in old.names if column not in set(reader.schema.names)]
    if lacking:
        raise InvalidInput(f"merge replaces whole rows, and the data lacks column {lacking[0]!r}: add it to the data")
    schema = evolve(old, reader.schema)
    schema_id = len(entry.schemas) - 1 + (schema is not old)
    files = write_files(store, entry.table_id, reader, schema, schema_id, layout or ParquetLayout())
    try:
        incoming = Table(name, schema, [owned_fragment(store, file, schema, schema) for file in files], 0)
        wanted = incoming.to_arrow(keys)
        _check_values(wanted, keys)
        return _planned(snapshot, store, entry, files, schema if schema is not old else None, wanted, begun_us)
    except LakeletError:
        store.delete([file.path for file in files])
        raise


def _checked_keys(on: Sequence[str], old: pa.Schema, new: pa.Schema) -> list[str]:
    keys = [on] if isinstance(on, str) else list(on)
    if not keys or len(set(keys)) != len(keys):
        raise InvalidInput(f"on is {on!r}, expected the names of one or more columns, each once")
    for key in keys:
        for where, schema in (("table", old), ("data", new)):
            if schema.get_field_index(key) < 0:
                raise InvalidInput(f"the {where} has no column {key!r} to merge on; it has {', '.join(schema.names)}")
        if pa.types.is_nested(old.field(key).type):
            raise InvalidInput(f"column {key!r} of type {old.field(key).type} cannot be a key: name a flat column")
    return keys


def _check_values(wanted: pa.Table, keys: list[str]) -> None:
    for key in keys:
        nulls = wanted.column(key).null_count
        if nulls:
            raise InvalidInput(
                f"key column {key!r} of the data has {nulls:,} NULLs, and NULL equals nothing: drop them"
            )
    repeated = first_repeated(wanted)
    if repeated is not None:
        shown = ", ".join(f"{key} = {value!r}" for key, value in zip(keys, repeated, strict=True))
        raise InvalidInput(f"the data has more than one row for the key {shown}: keep one of them")


def _planned(
    snapshot: Snapshot,
    store: Store,
    entry: OwnedTable,
    files: tuple[DataFile, ...],
    grown: pa.Schema | None,
    wanted: pa.Table,
    begun_us: int,
) -> Edit:
    def again(newer: Snapshot) -> Edit:
        now = newer.tables.get(entry.table_id)
        if not isinstance(now, OwnedTable) or now.schemas != entry.schemas:
            raise Conflict(f"table {entry.name!r} was dropped or got another schema: reload and retry")
        return _planned(newer, store, now, files, grown, wanted, begun_us)

    table = owned_table(store, entry, snapshot.version)
    sought = {key: _bounds_of(wanted, key, files, store, grown or table.schema) for key in wanted.schema.names}
    doomed: dict[str, npt.NDArray[np.int64]] = {}
    for file, fragment in zip(entry.files.values(), table.fragments(), strict=True):
        if wanted.num_rows and fragment.num_rows and not _apart(fragment, sought):
            there = fragment.read(wanted.schema.names)
            rows = rows_with_keys(there, wanted)
            if rows.size:
                doomed[file.file_id] = fragment.positions()[rows]
    changes, written = row_changes(store, entry, doomed)
    grow: tuple[Change, ...] = () if grown is None else (SetSchema(entry.table_id, encode_schema(grown)),)
    add: tuple[Change, ...] = (AddFiles(entry.table_id, files),) if files else ()
    unchanged = TableUnchanged(entry.table_id, snapshot.version, schema=True, rows=True)
    edit = Edit((*changes, *grow, *add), (unchanged,), rows_added=wanted.num_rows)
    paths = (*(file.path for file in files), *written)
    deleted = sum(positions.size for positions in doomed.values())
    return replace(edit, replan=again, files=paths, rows_deleted=deleted, begun_us=begun_us)


def _bounds_of(wanted: pa.Table, key: str, files: tuple[DataFile, ...], store: Store, schema: pa.Schema) -> Bounds:
    fragments = [owned_fragment(store, file, schema, schema) for file in files]
    return merged((f.bounds([key]).get(key, Bounds()), f.num_rows) for f in fragments) if fragments else Bounds()


def _apart(fragment: Fragment, sought: dict[str, Bounds]) -> bool:
    """Whether the file's rows lie outside the sought keys' bounds in one key column. NaN lies in no bounds."""
    there = fragment.bounds(list(sought))
    for key, wanted in sought.items():
        known = there.get(key)
        if known is None or (known.nan_count != 0 and wanted.nan_count != 0):
            continue
        if apart(wanted, known):
            return True
    return False
