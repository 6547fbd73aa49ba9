"""Retiring tables: recipes in the place of files, in one commit, once every one of them has been proven.

A retired table keeps its name, schema, history and the order of its rows; its files leave by vacuum, like any that no
version needs. An attached table becomes an owned one that is rebuilt: its own files are left alone, and a manifest
says which they were.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..lake.changes import (
    AddFiles,
    Change,
    CreateTable,
    DataFile,
    DropTable,
    Requirement,
    TableUnchanged,
)
from ..lake.compaction import placed
from ..lake.dependants import dependants_of
from ..lake.edit import Edit, Rewrite, now_us
from ..lake.errors import Conflict, Corrupt, InvalidInput, NotFound
from ..lake.naming import find_table
from ..lake.schema import encode_schema
from ..lake.snapshot import AttachedTable, OwnedTable, Snapshot, apply, unmet
from .manifest import manifest_path, write_manifest
from .matching import column_map
from .rebuilding import Rebuilder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..lake.progress import Progress
    from ..lake.store import Store
    from ..lake.table import Table
    from .candidates import Candidates
    from .rebuilding import Rebuilt

__all__ = ["Retired", "Retirement", "plan_retirement"]


@dataclass(frozen=True, slots=True)
class Retired:
    """One table that is rebuilt from another now.

    ``num_bytes`` is what its files take, ``recipe_bytes`` what the recipes do, residual rows included, of which there
    are ``residual_rows``.
    """

    table: str
    parent: str
    num_bytes: int
    recipe_bytes: int
    residual_rows: int


@dataclass(frozen=True, slots=True)
class Retirement:
    """What a retirement comes to: ``retired``; ``skipped``, names with the reason; ``version``, 0 before the commit.

    ``edit`` is what is committed.
    """

    edit: Edit = field(repr=False)
    retired: tuple[Retired, ...]
    skipped: Sequence[tuple[str, str]]
    version: int = 0

    @property
    def saved_bytes(self) -> int:
        """Bytes of the files that are no longer needed, less those of the recipes."""
        return sum(one.num_bytes - one.recipe_bytes for one in self.retired)


@dataclass(frozen=True, slots=True)
class _Prepared:
    """One table's part of the edit, and how to make it again on a newer snapshot."""

    name: str
    parent: str
    make: Callable[[Snapshot], Edit]
    retired: Retired | None
    files: tuple[str, ...] = field(default=())


def plan_retirement(
    snapshot: Snapshot,
    store: Store,
    table: Callable[[str], Table],
    pairs: Sequence[tuple[str, str]],
    *,
    memory_bytes: int,
    must_pay: bool = True,
    progress: Progress | None = None,
) -> Retirement:
    """Recipes for the first table of each pair over the second, as one edit that is still to be committed.

    ``table`` opens one as of ``snapshot``. Tables that are rebuilt from one that is now retired are rebuilt from its
    parent instead. A table that cannot be proven, and with ``must_pay`` one whose recipe takes as much as its files,
    is skipped. Raises InvalidInput for a parent that is attached, itself rebuilt, or has none of the child's columns,
    and what reading and writing raise; what was written is removed then.
    """
    work = list(_with_dependants(snapshot, pairs))
    for child, parent in pairs:
        _kept_parent(snapshot, parent)
        column_map(table(child).schema, table(parent).schema, partly=True)
    by_parent: defaultdict[str, list[tuple[str, frozenset[str] | None]]] = defaultdict(list)
    for child, parent, only in work:
        by_parent[parent].append((child, only))
    begun_us, seed = now_us(), bytes.fromhex(snapshot.hash_seed)
    prepared: list[_Prepared] = []
    skipped: list[tuple[str, str]] = []
    try:
        for parent, children in by_parent.items():
            entry = _kept_parent(snapshot, parent)
            maker = Rebuilder(store, entry, table(parent), seed=seed, memory_bytes=memory_bytes)
            for child, only in children:
                try:
                    one = _prepare(snapshot, store, table(child), parent, only, maker, begun_us)
                except (Corrupt, InvalidInput, NotFound) as error:
                    if only is not None:
                        raise  # its source goes otherwise
                    skipped.append((child, str(error)))
                else:
                    reason = _dear(one.retired) if must_pay else ""
                    if reason:
                        store.delete(one.files)
                        skipped.append((child, reason))
                    else:
                        prepared.append(one)
                if progress is not None:
                    progress("retire", len(prepared) + len(skipped), len(work))
    except BaseException:
        store.delete([path for one in prepared for path in one.files])
        raise
    edit = _joined(_edits(prepared, snapshot, skipped), skipped, begun_us)
    return Retirement(edit, tuple(one.retired for one in prepared if one.retired is not None), skipped)


def _dear(retired: Retired | None) -> str:
    """Why a recipe does not pay, "" when it does."""
    if retired is None or retired.recipe_bytes < retired.num_bytes:
        return ""
    return f"its recipe takes {retired.recipe_bytes:,} bytes, its files {retired.num_bytes:,}"


def check_unchanged(
    snapshot: Snapshot, candidates: Candidates, tables: Mapping[str, Table], pairs: Sequence[tuple[str, str]]
) -> None:
    """Raise Conflict when a table is not as the graph saw it, InvalidInput when one that is to be retired is pinned."""
    for name, table in tables.items():
        at = candidates.position.get(name)
        now = tuple(str(fragment.identity) for fragment in table.fragments())
        if at is None or candidates.identities[at] != now:
            raise Conflict(f"table {name!r} changed since the containment graph was made: make it and the plan again")
    for name, _ in pairs:
        pin = find_table(snapshot, name).pin
        if pin is not None:
            raise InvalidInput(f"table {name!r} is not retired: {pin}. unpin({name!r}) lifts it, or plan again")


def _with_dependants(
    snapshot: Snapshot, pairs: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str, frozenset[str] | None]]:
    """Child, parent, and the ids of the files to rebuild (None: all that are not), dependants of the children too."""
    retiring = {child for child, _ in pairs}
    if len(retiring) < len(pairs):
        twice = next(child for at, (child, _) in enumerate(pairs) if child in dict(pairs[:at]))
        raise InvalidInput(f"table {twice!r} is to be retired twice: a table is rebuilt from one other")
    for child, parent in pairs:
        if parent in retiring or parent == child:
            raise InvalidInput(f"table {parent!r} is to be retired itself: {child!r} cannot be rebuilt from it")
        yield child, parent, None
        entry = find_table(snapshot, child)
        if isinstance(entry, OwnedTable):
            for dependant, file_ids in dependants_of(snapshot, entry.table_id).items():
                if snapshot.tables[dependant].name not in retiring:
                    yield snapshot.tables[dependant].name, parent, frozenset(file_ids)


def _kept_parent(snapshot: Snapshot, name: str) -> OwnedTable:
    entry = find_table(snapshot, name)
    if isinstance(entry, AttachedTable):
        raise InvalidInput(
            f"table {name!r} is attached: its files may change under a recipe. import_table({name!r}) copies it first"
        )
    if entry.is_retired:
        raise InvalidInput(f"table {name!r} is itself rebuilt from another: restore({name!r}) first, or name that one")
    return entry


def _prepare(
    snapshot: Snapshot,
    store: Store,
    child: Table,
    parent: str,
    only: frozenset[str] | None,
    maker: Rebuilder,
    begun_us: int,
) -> _Prepared:
    entry = find_table(snapshot, child.name)
    files = list(entry.files.items()) if isinstance(entry, OwnedTable) else None
    fragments = child.fragments()
    if files is None:
        table_id, schema_id = uuid.uuid4().hex, 0
        chosen = [(uuid.uuid4().hex, fragment) for fragment in fragments if fragment.num_rows]
        before: list[DataFile] = []
    else:
        assert isinstance(entry, OwnedTable)
        table_id, schema_id = entry.table_id, len(entry.schemas) - 1
        wanted = [
            (file, fragment)
            for (file_id, file), fragment in zip(files, fragments, strict=True)
            if (file.recipe is None if only is None else file_id in only)
        ]
        chosen = [(file.file_id, fragment) for file, fragment in wanted]
        before = [file for file, _ in wanted]
    made: list[Rebuilt] = []
    try:
        made.extend(maker.rebuild(child.name, table_id, schema_id, child.schema, chosen))
    except BaseException:
        store.delete([path for one in made for path in one.file.own_paths()])
        raise
    requirements = maker.requirements(made)
    if isinstance(entry, OwnedTable):
        rewrites = tuple(
            Rewrite((old,), (new.file,) if new.file.num_rows else ()) for old, new in zip(before, made, strict=True)
        )
        make = _in_place(entry, rewrites, requirements, begun_us)
    else:
        make = _instead(entry, table_id, child, tuple(one.file for one in made), requirements, store, begun_us)
    if only is None:
        make = _while_unpinned(entry.table_id, make)
    num_bytes = sum(fragment.num_bytes for _, fragment in chosen)
    retired = Retired(
        child.name,
        parent,
        num_bytes,
        sum(one.file.num_bytes for one in made),
        sum(one.residual_rows for one in made),
    )
    written = tuple(path for one in made for path in one.file.own_paths())
    if not isinstance(entry, OwnedTable):
        written = (*written, manifest_path(table_id))
    return _Prepared(child.name, parent, make, retired if only is None else None, written)


def _while_unpinned(table_id: str, make: Callable[[Snapshot], Edit]) -> Callable[[Snapshot], Edit]:
    """As ``make``, unless somebody pinned the table meanwhile."""

    def checked(snapshot: Snapshot) -> Edit:
        now = snapshot.tables.get(table_id)
        if now is not None and now.pin is not None:
            raise Conflict(f"table {now.name!r} was pinned while its recipe was made: {now.pin}")
        return make(snapshot)

    return checked


def _in_place(
    entry: OwnedTable, rewrites: tuple[Rewrite, ...], requirements: tuple[Requirement, ...], begun_us: int
) -> Callable[[Snapshot], Edit]:
    """The edit that puts recipes in the place of the table's files, whatever was appended meanwhile."""

    def make(snapshot: Snapshot) -> Edit:
        now = snapshot.tables.get(entry.table_id)
        if not isinstance(now, OwnedTable) or now.schemas != entry.schemas:
            raise Conflict(f"table {entry.name!r} was dropped or got another schema")
        _check(snapshot, requirements)
        edit = placed(snapshot, now, rewrites, begun_us)
        needed = TableUnchanged(entry.table_id, snapshot.version, rows=True, dependants=True)
        return replace(edit, requirements=(needed, *requirements), replan=None)

    return make


def _instead(
    entry: AttachedTable,
    table_id: str,
    child: Table,
    files: tuple[DataFile, ...],
    requirements: tuple[Requirement, ...],
    store: Store,
    begun_us: int,
) -> Callable[[Snapshot], Edit]:
    """The edit that puts a rebuilt table in the place of an attached one, under its name."""
    write_manifest(store, table_id, entry.location, entry.hive, child)

    def make(snapshot: Snapshot) -> Edit:
        now = snapshot.tables.get(entry.table_id)
        if now is None:
            raise Conflict(f"table {entry.name!r} was dropped")
        _check(snapshot, requirements)
        changes: tuple[Change, ...] = (
            DropTable(entry.table_id),
            CreateTable(table_id, now.name, encode_schema(child.schema)),
            AddFiles(table_id, files),
        )
        needed = TableUnchanged(entry.table_id, snapshot.version, schema=False, name=True)
        paths = tuple(path for file in files for path in file.own_paths())
        return Edit(changes, (needed, *requirements), files=paths, begun_us=begun_us)

    return make


def _check(snapshot: Snapshot, requirements: Sequence[Requirement]) -> None:
    broken = unmet(snapshot, requirements)
    if broken is not None:
        raise Conflict(f"{broken} while its recipe was made")


def _joined(made: list[tuple[_Prepared, Edit]], skipped: list[tuple[str, str]], begun_us: int) -> Edit:
    """One edit of all; made again on a newer snapshot it leaves out what does not hold there any more."""
    requirements: dict[Requirement, None] = {}
    for _, edit in made:
        requirements.update(dict.fromkeys(edit.requirements))

    def again(newer: Snapshot) -> Edit:
        kept = _edits([one for one, _ in made], newer, skipped)
        if not kept:
            raise Conflict("; ".join(f"{name}: {reason}" for name, reason in skipped))
        return _joined(kept, skipped, begun_us)

    return Edit(
        tuple(change for _, edit in made for change in edit.changes),
        tuple(requirements),
        replan=again,
        files=tuple(path for one, _ in made for path in one.files),
        begun_us=begun_us if made else None,
    )


def _edits(
    prepared: Sequence[_Prepared], snapshot: Snapshot, skipped: list[tuple[str, str]]
) -> list[tuple[_Prepared, Edit]]:
    """Each with its edit on ``snapshot``, or among the skipped when it does not hold there.

    A table that is rebuilt from several that retire comes several times: each edit is made on top of the ones before.
    """
    often = Counter(one.name for one in prepared)
    found: list[tuple[_Prepared, Edit]] = []
    for one in prepared:
        try:
            edit = one.make(snapshot)
        except (Conflict, NotFound) as error:
            skipped.append((one.name, str(error)))
            continue
        found.append((one, edit))
        if often[one.name] > 1:
            snapshot = apply(snapshot, edit.changes, version=snapshot.version, timestamp_us=snapshot.timestamp_us)
    return found
