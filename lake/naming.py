"""Edits that touch names and no rows: rename, drop, views, attach. Pure: a snapshot in, an edit out."""

from __future__ import annotations

import difflib
import uuid
from typing import TYPE_CHECKING

from .changes import (
    AttachTable,
    DropTable,
    DropView,
    NameFree,
    RenameTable,
    SetPin,
    SetView,
    TableUnchanged,
)
from .edit import Edit
from .errors import InvalidInput, NotFound
from .schema import check_table_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .snapshot import Snapshot, TableEntry

__all__ = [
    "find_table",
    "no_such_table",
    "plan_attach",
    "plan_drop",
    "plan_pin",
    "plan_rename",
    "plan_unpin",
    "plan_view",
]


PINS = ("keep", "legal-hold")
"""Kinds of pins."""


def find_table(snapshot: Snapshot, name: str) -> TableEntry:
    """The table of that name. Raises NotFound, naming the nearest names, or InvalidInput when it is a view."""
    if not isinstance(name, str):
        raise InvalidInput(f"found the table name {name!r}; expected a text")
    entry = snapshot.table(name)
    if entry is not None:
        return entry
    if name in snapshot.views:
        raise InvalidInput(f"{name!r} is a view, and this needs a table; query the view by sql()")
    raise no_such_table(snapshot, name)


def no_such_table(snapshot: Snapshot, name: str) -> NotFound:
    """The error for a name that is neither table nor view, with the names that come nearest."""
    names = [*snapshot.names, *snapshot.views]
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {', '.join(map(repr, near))}?" if near else f"it has {len(names):,} tables and views"
    return NotFound(f"there is no table {name!r} in version {snapshot.version} of the lake; {hint}")


def plan_rename(snapshot: Snapshot, name: str, new_name: str) -> Edit:
    """Give a table another name. It keeps its id, so its history goes on."""
    entry = find_table(snapshot, name)
    check_table_name(new_name)
    _check_free(snapshot, new_name)
    unchanged = TableUnchanged(entry.table_id, snapshot.version, schema=False, name=True)
    return Edit((RenameTable(entry.table_id, new_name),), (unchanged, NameFree(new_name)))


def plan_drop(snapshot: Snapshot, name: str) -> Edit:
    """Free the name of a table or a view. An owned table's files stay for time travel until vacuum may take them."""
    if name in snapshot.views:
        return Edit((DropView(name),), ())
    entry = find_table(snapshot, name)
    unchanged = TableUnchanged(entry.table_id, snapshot.version, schema=False, name=True)
    return Edit((DropTable(entry.table_id),), (unchanged,))


def plan_pin(snapshot: Snapshot, name: str, kind: str, owner: str = "", reason: str = "") -> Edit:
    """Pin a table, in the place of the pin that it has."""
    if kind not in PINS:
        raise InvalidInput(f"found the pin {kind!r}, expected {' or '.join(map(repr, PINS))}")
    return _pinned(snapshot, name, kind, owner, reason)


def plan_unpin(snapshot: Snapshot, name: str) -> Edit:
    """Lift a table's pin."""
    return _pinned(snapshot, name, "", "", "")


def _pinned(snapshot: Snapshot, name: str, kind: str, owner: str, reason: str) -> Edit:
    entry = find_table(snapshot, name)
    unchanged = TableUnchanged(entry.table_id, snapshot.version, schema=False, name=True)
    return Edit((SetPin(entry.table_id, kind, owner, reason),), (unchanged,))


def plan_view(snapshot: Snapshot, name: str, sql: str) -> Edit:
    """Name a SELECT, in place of the view of that name if there is one. The caller has seen that it binds."""
    check_table_name(name)
    if name in snapshot.views:
        return Edit((SetView(name, sql),), ())
    _check_free(snapshot, name)
    return Edit((SetView(name, sql),), (NameFree(name),))


def plan_attach(snapshot: Snapshot, tables: Sequence[tuple[str, str, bool]], format: str = "parquet") -> Edit:  # noqa: A002 - the face's word
    """Attach locations under names: ``tables`` holds (name, location, hive). Nothing is opened here."""
    changes = []
    requirements = []
    for name, location, hive in tables:
        check_table_name(name)
        _check_free(snapshot, name)
        changes.append(AttachTable(uuid.uuid4().hex, name, location, format, hive))
        requirements.append(NameFree(name))
    return Edit(tuple(changes), tuple(requirements))


def _check_free(snapshot: Snapshot, name: str) -> None:
    if name in snapshot.names or name in snapshot.views:
        kind = "view" if name in snapshot.views else "table"
        raise InvalidInput(f"a {kind} {name!r} exists already; choose another name or drop it first")
