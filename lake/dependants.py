"""Who is rebuilt from whose files, and what becomes of them when those files lose rows.

A recipe names files, and files are never changed, so that a recipe stays right whatever happens to the table they
belong to: vacuum keeps what a recipe names. But then rows that were deleted would live on in a file, and files that
were compacted would be paid for twice. So an edit that takes rows away from a table carries its dependants along, in
the same commit: positions move to where the rows went, and rows that are gone move into the dependant's residual file
or, when none is left, into plain files of its own.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from .changes import DeleteRows, DropTable, RemoveFiles, TableUnchanged
from .compaction import placed
from .edit import Edit, Rewrite, now_us
from .errors import InvalidInput
from .moving import Moves, moved_file
from .snapshot import OwnedTable, Snapshot, apply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .changes import Change, DataFile
    from .store import Store

__all__ = ["Dependants", "carried", "dependants_of"]

Dependants = Literal["restore", "refuse"]
"""What an edit does to tables that are rebuilt from rows that it takes away."""


def dependants_of(snapshot: Snapshot, table_id: str) -> Mapping[str, tuple[str, ...]]:
    """The files, by table id, whose recipes name files of this table."""
    entry = snapshot.tables.get(table_id)
    if not isinstance(entry, OwnedTable) or not entry.dependants_version:
        return {}
    found: defaultdict[str, list[str]] = defaultdict(list)
    for other, file in _recipes(snapshot):
        if file.recipe and any(source.table_id == table_id for source in file.recipe.sources):
            found[other.table_id].append(file.file_id)
    return {other: tuple(files) for other, files in found.items()}


def carried(store: Store, snapshot: Snapshot, edit: Edit, dependants: Dependants = "restore") -> Edit:
    """The edit, planned on ``snapshot``, with what it takes to keep dependants right and rid of rows that are gone.

    Raises InvalidInput when rows of a table under a legal hold would go, or, naming them, when rows of dependants would
    and ``dependants`` is "refuse"; Conflict when their files cannot be moved.
    """
    if dependants not in ("restore", "refuse"):
        raise InvalidInput(f"dependants is {dependants!r}, expected 'restore' or 'refuse'")
    _check_holds(snapshot, edit.changes)
    begun_us, touched = now_us(), _losers(edit.changes)
    guards = tuple(
        TableUnchanged(table_id, snapshot.version, schema=False, dependants=True)
        for table_id in touched
        if isinstance(snapshot.tables.get(table_id), OwnedTable)
    )
    if not guards:
        return edit
    guarded = replace(edit, requirements=tuple(dict.fromkeys((*edit.requirements, *guards))))
    after = apply(snapshot, edit.changes, version=snapshot.version, timestamp_us=snapshot.timestamp_us)
    affected = list(_affected(snapshot, after, touched))
    if affected and not edit.rewrites and dependants == "refuse":
        names = sorted({table.name for table, _ in affected})
        raise InvalidInput(
            f"these tables are rebuilt from rows that would go: {', '.join(map(repr, names))}. Restore them first, or "
            "let this call do it with dependants='restore'"
        )
    if edit.replan is not None:
        again = edit.replan
        guarded = replace(guarded, replan=lambda newer: carried(store, newer, again(newer), dependants))
    if not affected:
        return guarded
    moves = Moves(store, edit.rewrites, after)
    written: list[str] = []
    changes: list[Change] = list(edit.changes)
    requirements = list(guarded.requirements)
    by_table: defaultdict[str, list[DataFile]] = defaultdict(list)
    for table, file in affected:
        by_table[table.table_id].append(file)
    try:
        for table_id, files in by_table.items():
            entry = after.tables[table_id]
            assert isinstance(entry, OwnedTable), "only owned tables are rebuilt"
            rewrites = []
            for file in files:
                made = moved_file(store, entry, file, moves)
                written += [path for one in made for path in one.with_deletion(None).own_paths()]
                rewrites.append(Rewrite((file,), made))
            changes += placed(after, entry, tuple(rewrites), begun_us).changes
            if table_id in snapshot.tables:
                requirements.append(TableUnchanged(table_id, snapshot.version, rows=True))
    except BaseException:
        store.delete(written)
        raise
    return replace(
        guarded,
        changes=tuple(changes),
        requirements=tuple(dict.fromkeys(requirements)),
        rebase=None,  # positions were moved for these very deletions
        files=(*edit.files, *written),
        begun_us=edit.begun_us if edit.begun_us is not None else begun_us,
    )


def _losers(changes: Sequence[Change]) -> tuple[str, ...]:
    """Ids of the tables from which the changes take rows or files."""
    found = dict.fromkeys(
        change.table_id for change in changes if isinstance(change, RemoveFiles | DeleteRows | DropTable)
    )
    return tuple(found)


def _check_holds(snapshot: Snapshot, changes: Sequence[Change]) -> None:
    for change in changes:
        loses = isinstance(change, DeleteRows | DropTable) or (isinstance(change, RemoveFiles) and not change.rewritten)
        entry = snapshot.tables.get(change.table_id) if loses else None  # type: ignore[union-attr]
        if entry is not None and entry.pin is not None and entry.pin.kind == "legal-hold":
            raise InvalidInput(f"no row of table {entry.name!r} may leave: {entry.pin}. unpin({entry.name!r}) lifts it")


def _recipes(snapshot: Snapshot) -> Iterator[tuple[OwnedTable, DataFile]]:
    for table in snapshot.tables.values():
        if isinstance(table, OwnedTable):
            for file in table.files.values():
                if file.recipe is not None:
                    yield table, file


def _affected(before: Snapshot, after: Snapshot, touched: Sequence[str]) -> Iterator[tuple[OwnedTable, DataFile]]:
    """Rebuilt files, as they are after the edit, of whose sources one lost rows or is no longer its table's."""
    lost: set[str] = set()
    for table_id in touched:
        was, now = before.tables.get(table_id), after.tables.get(table_id)
        if not isinstance(was, OwnedTable) or not was.dependants_version:
            continue
        left = {file.state for file in now.files.values()} if isinstance(now, OwnedTable) else set()
        lost.update(file.path for file in was.files.values() if file.state not in left)
    if not lost:
        return
    for table, file in _recipes(after):
        assert file.recipe is not None, "only recipes come here"
        if any(source.path in lost for source in file.recipe.sources):
            yield table, file
