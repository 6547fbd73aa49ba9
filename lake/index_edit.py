"""Edits of the indexes over tables: one comes to be, gets other segments, or goes. Pure: a snapshot in, an edit out.

Rows are not touched, and no edit of rows waits for an index: a segment may cover files that left the table meanwhile,
whose rows are then not seen, and lack those that came, which the next segment covers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .changes import DropIndex, SetIndex, TableUnchanged
from .edit import Edit
from .errors import InvalidInput, NotFound
from .naming import find_table
from .schema import decode_schema
from .snapshot import OwnedTable

if TYPE_CHECKING:
    from .snapshot import Snapshot
    from .table_index import TableIndex

__all__ = ["find_indexed", "plan_drop_index", "plan_set_index"]

_COLUMNS_SHOWN = 20
"""Columns that the error for an unknown one names."""


def find_indexed(snapshot: Snapshot, name: str) -> OwnedTable:
    """The owned table of that name, which alone can have indexes. Raises NotFound, or InvalidInput when it is none."""
    entry = find_table(snapshot, name)
    if isinstance(entry, OwnedTable):
        return entry
    raise InvalidInput(
        f"table {name!r} is attached, and its files may change under an index: db.import_table({name!r}) makes it a "
        "table of the lake, which can have one"
    )


def plan_set_index(snapshot: Snapshot, name: str, index: TableIndex, *, begun_us: int | None = None) -> Edit:
    """Give table ``name`` the index, in the place of the one with its ``index_id`` if there is one.

    ``snapshot`` is the one from which the index was made: a commit that changed an index of the table since, or dropped
    the table, makes it a Conflict; one that changed rows does not. ``begun_us`` is when the first object of the
    segments that are new was begun (:func:`.edit.now_us`), and must be given if any is: vacuum takes what waits too
    long. Raises NotFound, or InvalidInput when it is no owned table, or when the index is new and there is no such
    column or another index over it.
    """
    entry = find_indexed(snapshot, name)
    before = entry.indexes.get(index.index_id)
    if before is None:
        _check_column(entry, index.column)
    held = set(before.paths()) if before else set()
    new = tuple(path for path in index.paths() if path not in held)
    assert begun_us is not None or not new, "objects that no version names yet have an age"
    unchanged = TableUnchanged(entry.table_id, snapshot.version, schema=False, index=True)
    changes = (SetIndex(entry.table_id, index),)
    return Edit(changes, (unchanged,), files=new, begun_us=begun_us if new else None)


def _check_column(entry: OwnedTable, column: str) -> None:
    names = decode_schema(entry.schema).names
    if column not in names:
        shown = ", ".join(map(repr, names[:_COLUMNS_SHOWN]))
        more = f" and {len(names) - _COLUMNS_SHOWN:,} more" if len(names) > _COLUMNS_SHOWN else ""
        raise InvalidInput(f"table {entry.name!r} has no column {column!r}; it has {shown}{more}")
    if any(index.column == column for index in entry.indexes.values()):
        raise InvalidInput(f"column {column!r} of table {entry.name!r} has an index already: drop that one first")


def plan_drop_index(snapshot: Snapshot, name: str, column: str | None = None) -> Edit:
    """Drop the index over ``column`` of table ``name``; None is for a table with one index.

    Its segments stay for time travel until vacuum may take them. Segments that it got meanwhile go with it. Raises
    NotFound when there is no such table or index, InvalidInput when it is no owned table, or has several indexes and no
    column was named.
    """
    entry = find_indexed(snapshot, name)
    indexes = {index.column: index for index in entry.indexes.values()}
    known = f"indexes over {', '.join(map(repr, indexes))}"
    if column is None and len(indexes) > 1:
        raise InvalidInput(f"table {name!r} has {known}: name the column of the one to drop")
    found = indexes.get(column) if column is not None else next(iter(indexes.values()), None)
    if found is None:
        which = "index" if column is None else f"index over column {column!r}"
        others = f"; it has {known}" if indexes else ""
        raise NotFound(f"table {name!r} has no {which} in version {snapshot.version} of the lake{others}")
    exists = TableUnchanged(entry.table_id, snapshot.version, schema=False)
    return Edit((DropIndex(entry.table_id, found.index_id),), (exists,))
