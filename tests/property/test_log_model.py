"""The log against slow oracles: a model of plain dictionaries, and a second log that reads everything afresh."""

from __future__ import annotations

import copy
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake.changes import (
    AddFiles,
    AttachTable,
    Change,
    CreateLake,
    CreateTable,
    DataFile,
    DeleteRows,
    DeletionFile,
    DropIndex,
    DropTable,
    DropView,
    FilesPresent,
    NameFree,
    RemoveFiles,
    RenameTable,
    Requirement,
    SetIndex,
    SetSchema,
    SetView,
    TableUnchanged,
)
from lakelet.lake.checkpoint import newest_checkpoint, write_checkpoint
from lakelet.lake.entry import CommitRecord, Entry, decode, encode
from lakelet.lake.errors import Conflict, Corrupt, InvalidInput, LakeletError
from lakelet.lake.log import Log
from lakelet.lake.snapshot import AttachedTable, OwnedTable, Snapshot, TableEntry, apply, unmet
from lakelet.lake.stores import open_store
from lakelet.lake.table_index import IndexSegment, TableIndex

IDS = st.sampled_from(["t1", "t2", "t3"])
NAMES = st.sampled_from(["a", "b", "ü ''\" b", "\U0001f30a"])
FILE_IDS = st.sampled_from(["f1", "f2", "f3", "f4"])
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
DELETIONS = st.builds(
    DeletionFile, st.sampled_from(["data/d1", "data/d2", "data/d3"]), st.integers(0, 6), st.integers(0, 99)
)
FILES = st.builds(
    DataFile,
    FILE_IDS,
    st.sampled_from(["data/t/x", "data/t/y"]),
    st.integers(0, 5),
    st.integers(0, 2**62),
    st.integers(0, 2),
    TEXT,
    st.none() | DELETIONS,
)
INDEX_IDS = st.sampled_from(["i1", "i2", "i3"])
SEGMENTS = st.builds(
    lambda path, num_bytes, checksum, files, row: IndexSegment(
        path, num_bytes, checksum, files, tuple(range(row, row + len(files))), (row,) * len(files)
    ),
    st.sampled_from(["data/t/s1", "data/t/s2"]),
    st.integers(0, 2**62),
    st.sampled_from(["0" * 64, "9f" * 32]),
    st.lists(FILE_IDS, max_size=3).map(tuple),
    st.integers(0, 9),
)
INDEXES = st.builds(
    TableIndex,
    INDEX_IDS,
    st.sampled_from(["x", "y"]),
    TEXT,
    st.lists(SEGMENTS, max_size=2).map(tuple),
    st.integers(0, 99),
)
CHANGES = st.one_of(
    st.builds(CreateTable, IDS, NAMES, TEXT),
    st.builds(SetSchema, IDS, TEXT),
    st.builds(AddFiles, IDS, st.lists(FILES, max_size=3).map(tuple)),
    st.builds(RemoveFiles, IDS, st.lists(FILE_IDS, max_size=2).map(tuple), st.booleans()),
    st.builds(DeleteRows, IDS, FILE_IDS, DELETIONS, st.sampled_from([None, "data/d1", "data/d2", "data/d3"])),
    st.builds(DropTable, IDS),
    st.builds(RenameTable, IDS, NAMES),
    st.builds(AttachTable, IDS, NAMES, TEXT, st.just("parquet"), st.booleans()),
    st.builds(SetView, NAMES, TEXT),
    st.builds(DropView, NAMES),
    st.builds(SetIndex, IDS, INDEXES),
    st.builds(SetIndex, st.just("t1"), INDEXES),
    st.builds(DropIndex, IDS, INDEX_IDS),
)
FIRST: list[Change] = [CreateTable("t1", "a", "")]
"""A table to begin with, so that more of the changes are possible."""
REQUIREMENTS = st.one_of(
    st.builds(NameFree, NAMES),
    st.builds(TableUnchanged, IDS, st.integers(0, 9), st.booleans(), st.booleans(), st.booleans(), index=st.booleans()),
    st.builds(FilesPresent, IDS, st.lists(FILE_IDS, max_size=2).map(tuple)),
)


# --- a model of plain dictionaries -----------------------------------------------------------------------------------


class ImpossibleError(Exception):
    pass


def need(holds: bool) -> None:
    if not holds:
        raise ImpossibleError


class Model:
    """Tables as dictionaries, copied whole for every change. Slow, and short enough to be believed."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Any]] = {}
        self.views: dict[str, tuple[str, int]] = {}

    def names(self) -> list[str]:
        return [table["name"] for table in self.tables.values()] + list(self.views)

    def add(self, change: Change, now: int) -> None:
        after = copy.deepcopy(self)
        after._add(change, now)
        self.tables, self.views = after.tables, after.views

    def _add(self, change: Change, now: int) -> None:
        if isinstance(change, SetView):
            need(change.name not in [table["name"] for table in self.tables.values()])
            self.views[change.name] = (change.sql, now)
            return
        if isinstance(change, DropView):
            need(change.name in self.views)
            del self.views[change.name]
            return
        assert not isinstance(change, CreateLake)
        if isinstance(change, CreateTable | AttachTable):
            need(change.table_id not in self.tables and change.name not in self.names())
            owned = isinstance(change, CreateTable)
            self.tables[change.table_id] = {
                "name": change.name,
                "owned": owned,
                "schemas": [change.schema] if isinstance(change, CreateTable) else None,
                "place": None if owned else (change.location, change.hive),  # type: ignore[union-attr]
                "files": [],
                "indexes": {},
                "versions": {"name": now, "schema": now, "rows": now, "index": 0},
            }
            return
        need(change.table_id in self.tables)
        table = self.tables[change.table_id]
        if isinstance(change, DropTable):
            del self.tables[change.table_id]
        elif isinstance(change, RenameTable):
            need(change.name not in [name for name in self.names() if name != table["name"]])
            table["name"] = change.name
            table["versions"]["name"] = now
        elif isinstance(change, SetIndex | DropIndex):
            need(table["owned"])
            self._change_indexes(table["indexes"], change)
            table["versions"]["index"] = now
        else:
            need(table["owned"])
            self._change_rows(table, change, now)

    def _change_indexes(self, indexes: dict[str, TableIndex], change: SetIndex | DropIndex) -> None:
        """Indexes by column: so there cannot be two over one."""
        if isinstance(change, SetIndex):
            held = indexes.get(change.index.column)
            need(held is None or held.index_id == change.index.index_id)
            for column in [c for c, index in indexes.items() if index.index_id == change.index.index_id]:
                del indexes[column]
            indexes[change.index.column] = change.index
        else:
            columns = [column for column, index in indexes.items() if index.index_id == change.index_id]
            need(bool(columns))
            del indexes[columns[0]]

    def _change_rows(self, table: dict[str, Any], change: Change, now: int) -> None:
        if isinstance(change, SetSchema):
            table["schemas"].append(change.schema)
            table["versions"]["schema"] = now
            return
        table["versions"]["rows"] = now
        if isinstance(change, AddFiles):
            for file in change.files:
                need(file.file_id not in [held.file_id for held in table["files"]])
                need(file.schema_id < len(table["schemas"]))
                need(file.deletion is None or file.deletion.rows <= file.num_rows)
                table["files"].append(file)
        elif isinstance(change, RemoveFiles):
            for file_id in change.file_ids:
                need(file_id in [held.file_id for held in table["files"]])
                table["files"] = [held for held in table["files"] if held.file_id != file_id]
        elif isinstance(change, DeleteRows):
            places = [at for at, held in enumerate(table["files"]) if held.file_id == change.file_id]
            need(bool(places))
            held = table["files"][places[0]]
            need(change.base == (held.deletion.path if held.deletion else None))
            need((held.deletion.rows if held.deletion else 0) <= change.deletion.rows <= held.num_rows)
            table["files"][places[0]] = held.with_deletion(change.deletion)


def indexes_of(table: TableEntry) -> dict[str, TableIndex]:
    """By column."""
    if not isinstance(table, OwnedTable):
        return {}
    assert all(index_id == index.index_id for index_id, index in table.indexes.items())
    found = {index.column: index for index in table.indexes.values()}
    assert len(found) == len(table.indexes)
    return found


def plain(snapshot: Snapshot) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[str, int]]]:
    tables = {}
    for table_id, table in snapshot.tables.items():
        owned = isinstance(table, OwnedTable)
        tables[table_id] = {
            "name": table.name,
            "owned": owned,
            "schemas": list(table.schemas) if isinstance(table, OwnedTable) else None,
            "place": (table.location, table.hive) if isinstance(table, AttachedTable) else None,
            "files": list(table.files.values()) if isinstance(table, OwnedTable) else [],
            "indexes": indexes_of(table),
            "versions": {
                "name": table.name_version,
                "schema": table.schema_version if isinstance(table, OwnedTable) else table.created_version,
                "rows": table.rows_version if isinstance(table, OwnedTable) else table.created_version,
                "index": table.index_version if isinstance(table, OwnedTable) else 0,
            },
        }
    assert dict(snapshot.names) == {table.name: table_id for table_id, table in snapshot.tables.items()}
    return tables, {name: (view.sql, view.created_version) for name, view in snapshot.views.items()}


@settings(max_examples=400)
@given(st.lists(st.lists(CHANGES, min_size=1, max_size=4), max_size=8))
def test_apply_is_the_model(commits: list[list[Change]]) -> None:
    snapshot, model = Snapshot(), Model()
    for changes in [FIRST, *commits]:
        version = snapshot.version + 1
        before, trial = plain(snapshot), copy.deepcopy(model)
        possible = True
        for change in changes:
            try:
                trial.add(change, version)
            except ImpossibleError:
                possible = False
                break
        if possible:
            after = apply(snapshot, changes, version=version, timestamp_us=version)
            assert plain(after) == (trial.tables, trial.views)
            assert plain(snapshot) == before
            snapshot, model = after, trial
        else:
            with pytest.raises(Corrupt):
                apply(snapshot, changes, version=version, timestamp_us=version)
            assert plain(snapshot) == before


@settings(max_examples=200)
@given(st.lists(CHANGES, max_size=6), st.lists(REQUIREMENTS, max_size=3), st.integers(1, 10**19), TEXT)
def test_entries_survive_their_bytes(
    changes: list[Change], requirements: list[Requirement], version: int, operation: str
) -> None:
    record = CommitRecord("id", operation, tuple(changes), tuple(requirements))
    entry = Entry(version, 1_700_000_000_000_000, (record, record))
    assert decode(encode(entry), version) == entry


@settings(max_examples=100)
@given(st.lists(CHANGES, min_size=1, max_size=3), st.data())
def test_any_damaged_byte_is_noticed(changes: list[Change], data: st.DataObject) -> None:
    entry = Entry(3, 7, (CommitRecord("id", "test", tuple(changes)),))
    raw = bytearray(encode(entry))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        assert decode(bytes(raw), 3) == entry
    except Exception as error:
        assert isinstance(error, LakeletError)  # noqa: PT017  (either refused by name, or the damage changed nothing)


@settings(max_examples=60)
@given(st.lists(CHANGES, max_size=25))
def test_checkpoints_survive_their_bytes(changes: list[Change]) -> None:
    snapshot = apply(Snapshot(), [CreateLake("lake", "5eed"), *FIRST], version=1, timestamp_us=1)
    for change in changes:
        try:
            version = snapshot.version + 1
            snapshot = apply(snapshot, [change], version=version, timestamp_us=version)
        except Corrupt:
            continue
    store = open_store(f"memory://{uuid.uuid4().hex}")
    write_checkpoint(store, snapshot, [])
    found = newest_checkpoint(store)
    assert found is not None
    assert found.snapshot == snapshot
    assert plain(found.snapshot) == plain(snapshot)


# --- two logs on one lake --------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 3), st.lists(CHANGES, min_size=1, max_size=2), st.booleans()),
    max_size=14,
)


@settings(max_examples=120)
@given(STEPS, st.data())
def test_two_logs_agree_with_one_that_saw_everything(
    steps: list[tuple[int, int, list[Change], bool]], data: st.DataObject
) -> None:
    """Each commit goes through exactly when its requirements hold and it is possible on the newest version."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    logs = [Log(store), Log(store)]
    truth = [logs[0].create()]
    for who, bases_ago, changes, refresh in steps:
        log = logs[who]
        if refresh:
            assert log.latest() == truth[-1]
        base = truth[max(0, len(truth) - 1 - bases_ago)]
        requirements = data.draw(st.lists(REQUIREMENTS, max_size=2))
        newest = truth[-1]
        expected: Snapshot | None = None
        if unmet(newest, requirements) is None:
            try:
                expected = apply(newest, changes, version=newest.version + 1, timestamp_us=2**62)
            except Corrupt:
                expected = None
        if expected is None:
            with pytest.raises((Conflict, InvalidInput)):
                log.commit(changes, requirements, operation="step", base=base)
        else:
            after = log.commit(changes, requirements, operation="step", base=base)
            assert plain(after) == plain(expected)
            assert after.version == newest.version + 1
            truth.append(after)
    fresh = Log(store)
    assert fresh.latest() == logs[0].latest() == logs[1].latest() == truth[-1]
    assert [fresh.at(snapshot.version) for snapshot in truth] == truth
    assert [line.version for line in fresh.history()] == [snapshot.version for snapshot in truth]
