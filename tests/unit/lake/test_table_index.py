"""Indexes over tables as the log knows them: what changes them, what they outlive, and how they are written down."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.lake.changes import (
    AddFiles,
    AttachTable,
    Change,
    CreateTable,
    DataFile,
    DropIndex,
    DropTable,
    RemoveFiles,
    RenameTable,
    SetIndex,
    SetView,
    TableUnchanged,
)
from lakelet.lake.checkpoint import CHECKPOINTS, list_checkpoints
from lakelet.lake.compaction import plan_optimize
from lakelet.lake.edit import Edit, commit_edit, now_us, plan_delete, plan_write
from lakelet.lake.entry import CommitRecord, Entry, decode, encode, index_of, index_text, log_path
from lakelet.lake.errors import Conflict, Corrupt, InvalidInput, NotFound
from lakelet.lake.index_edit import plan_drop_index, plan_set_index
from lakelet.lake.log import Log
from lakelet.lake.naming import plan_drop, plan_rename
from lakelet.lake.snapshot import OwnedTable, Snapshot, apply, changed_names, unmet
from lakelet.lake.store import check_path
from lakelet.lake.stores import open_store
from lakelet.lake.table_index import IndexSegment, TableIndex, segment_path

if TYPE_CHECKING:
    from pathlib import Path

SUM = hashlib.sha256(b"segment").hexdigest()


def segment(name: str, *files: str) -> IndexSegment:
    return IndexSegment(f"data/t/{name}.segment", 7, SUM, files, tuple(range(len(files))), (5,) * len(files))


def index(index_id: str = "i", column: str = "x", *segments: IndexSegment) -> TableIndex:
    return TableIndex(index_id, column, '{"ü":1}', segments)


SETS = SetIndex("t", index("i", "x", segment("s1", "f", "g"), segment("s2", "h")))


def after(*changes: Change) -> Snapshot:
    """Version 1 has table t with two files and an attached one; each change makes a version."""
    files = tuple(DataFile(name, f"data/t/{name}", 10, 100, 0) for name in "fg")
    start: list[Change] = [CreateTable("t", "table", "s"), AddFiles("t", files), AttachTable("raw", "raw", "/raw")]
    made = apply(Snapshot(), start, version=1, timestamp_us=1)
    for change in changes:
        made = apply(made, [change], version=made.version + 1, timestamp_us=1)
    return made


def owned(snapshot: Snapshot, table_id: str = "t") -> OwnedTable:
    found = snapshot.tables[table_id]
    assert isinstance(found, OwnedTable)
    return found


# --- apply -------------------------------------------------------------------------------------------------------


def test_an_index_comes_changes_and_goes() -> None:
    before = after()
    assert (owned(before).indexes, owned(before).index_version) == ({}, 0)
    made = after(SETS)
    assert (owned(made).indexes, owned(made).index_version) == ({"i": SETS.index}, 2)
    merged = index("i", "x", segment("s3", "f", "g", "h"))
    changed = after(SETS, SetIndex("t", index("j", "y")), SetIndex("t", merged))
    assert owned(changed).indexes == {"i": merged, "j": index("j", "y")}
    assert owned(changed).index_version == 4
    dropped = apply(changed, [DropIndex("t", "i")], version=5, timestamp_us=1)
    assert (owned(dropped).indexes, owned(dropped).index_version) == ({"j": index("j", "y")}, 5)
    assert owned(changed).indexes == {"i": merged, "j": index("j", "y")}
    assert owned(dropped).rows_version == owned(dropped).schema_version == owned(dropped).name_version == 1
    assert owned(dropped).num_bytes == 200
    again = apply(dropped, [SetIndex("t", index("k", "x"))], version=6, timestamp_us=1)
    assert list(owned(again).indexes) == ["j", "k"]


@pytest.mark.parametrize(
    "changes",
    [
        [SetIndex("raw", index())],
        [SetIndex("nope", index())],
        [SetIndex("t", index(""))],
        [SETS, SetIndex("t", index("j", "x"))],
        [SETS, SetIndex("t", index("j", "y")), SetIndex("t", index("j", "x"))],
        [DropIndex("t", "i")],
        [SETS, DropIndex("t", "j")],
        [SETS, DropIndex("t", "i"), DropIndex("t", "i")],
        [DropIndex("raw", "i")],
        [SETS, DropTable("t"), DropIndex("t", "i")],
    ],
)
def test_what_cannot_be(changes: Sequence[Change]) -> None:
    possible = after(*changes[:-1])
    with pytest.raises(Corrupt, match="cannot be"):
        apply(possible, changes[-1:], version=9, timestamp_us=1)


def test_an_index_outlives_its_rows_and_its_tables_name() -> None:
    kept = after(SETS, RemoveFiles("t", ("f", "g")), RenameTable("t", "other"))
    assert owned(kept).indexes == {"i": SETS.index}
    assert owned(kept).index_version == 2
    assert kept.table("other") == owned(kept)
    assert "t" not in after(SETS, DropTable("t")).tables


def test_history_names_the_table() -> None:
    one, two = after(SETS), after(SETS, DropIndex("t", "i"))
    assert changed_names(after(), one, [SETS]) == ("table",)
    assert changed_names(one, two, [DropIndex("t", "i")]) == ("table",)


@pytest.mark.parametrize(
    ("change", "breaks"),
    [
        (SETS, True),
        (DropIndex("t", "j"), True),
        (AddFiles("t", (DataFile("h", "data/t/h", 1, 1, 0),)), False),
        (RemoveFiles("t", ("f",)), False),
        (RenameTable("t", "other"), False),
    ],
)
def test_the_requirement_hears_of_indexes_alone(change: Change, breaks: bool) -> None:
    base = after(SetIndex("t", index("j", "y")))
    newer = apply(base, [change], version=3, timestamp_us=1)
    said = unmet(newer, [TableUnchanged("t", 2, schema=False, index=True)])
    assert said == ("an index over table 'table' changed after version 2" if breaks else None)
    assert unmet(newer, [TableUnchanged("t", 3, schema=False, index=True)]) is None
    if breaks:
        assert unmet(newer, [TableUnchanged("t", 2, rows=True, name=True, dependants=True)]) is None


# --- bytes -------------------------------------------------------------------------------------------------------


def written(change: Change) -> dict[str, Any]:
    """The change as an entry says it."""
    document = json.loads(encode(Entry(1, 1, (CommitRecord("id", "op", (change,)),))))
    found: dict[str, Any] = document["entry"]["commits"][0]["changes"][0]
    return found


def read(change: dict[str, Any]) -> Change:
    commit = {"id": "id", "operation": "op", "changes": [change], "requirements": []}
    body = json.dumps({"version": 1, "base": 0, "timestamp_us": 1, "commits": [commit]}, separators=(",", ":")).encode()
    checksum = hashlib.sha256(body).hexdigest().encode()
    return decode(b'{"format":1,"checksum":"%s","entry":%s}\n' % (checksum, body), 1).commits[0].changes[0]


SAID: dict[str, Any] = {
    "kind": "SetIndex",
    "table_id": "t",
    "index": {
        "index_id": "i",
        "column": "x",
        "definition": '{"ü":1}',
        "segments": [
            {
                "path": "data/t/s1.segment",
                "num_bytes": 7,
                "checksum": SUM,
                "files": ["f", "g"],
                "numbers": [0, 1],
                "rows": [5, 5],
            },
            {
                "path": "data/t/s2.segment",
                "num_bytes": 7,
                "checksum": SUM,
                "files": ["h"],
                "numbers": [0],
                "rows": [5],
            },
        ],
    },
}
"""What stands in the log: it must stay readable."""


def test_entries_say_indexes_as_they_always_did() -> None:
    assert written(SETS) == SAID
    assert read(SAID) == SETS
    assert written(DropIndex("t", "i")) == {"kind": "DropIndex", "table_id": "t", "index_id": "i"}
    assert read({"kind": "DropIndex", "table_id": "t", "index_id": "i"}) == DropIndex("t", "i")
    bare = SetIndex("t", index())
    assert "segments" not in written(bare)["index"]
    assert read(written(bare)) == bare


def changed(document: Any, place: Sequence[Any], value: Any) -> Any:
    """A copy in which ``value`` stands at ``place``; ... takes away what stands there."""
    copy = json.loads(json.dumps(document))
    at = copy
    for step in place[:-1]:
        at = at[step]
    if value is ...:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    return copy


MALFORMED: list[tuple[list[Any], Any]] = [
    (["index"], ...),
    (["index"], None),
    (["index"], [SAID["index"]]),
    (["table_id"], 7),
    (["more"], 1),
    (["index", "index_id"], None),
    (["index", "column"], ...),
    (["index", "definition"], {"ü": 1}),
    (["index", "segments"], {}),
    (["index", "segments"], ["data/t/s1.segment"]),
    (["index", "more"], 1),
    (["index", "segments", 0, "path"], "../s1"),
    (["index", "segments", 0, "path"], "/data/t/s1"),
    (["index", "segments", 0, "rows"], [5]),
    (["index", "segments", 0, "rows"], [5, -1]),
    (["index", "segments", 0, "rows"], ...),
    (["index", "segments", 0, "num_bytes"], 7.5),
    (["index", "segments", 0, "num_bytes"], True),
    (["index", "segments", 0, "checksum"], SUM[:-1]),
    (["index", "segments", 0, "checksum"], SUM.upper()),
    (["index", "segments", 0, "files"], "f"),
    (["index", "segments", 0, "files"], [1]),
    (["index", "segments", 0, "files"], ...),
    (["index", "segments", 0, "numbers"], [0]),
    (["index", "segments", 0, "numbers"], [1, 1]),
    (["index", "segments", 0, "numbers"], [0, -1]),
    (["index", "segments", 0, "numbers"], [0, "1"]),
    (["index", "segments", 1, "more"], 1),
    (["index", "next_number"], -1),
]


@pytest.mark.parametrize(("place", "value"), MALFORMED)
def test_malformed_indexes_are_corrupt(place: list[Any], value: Any) -> None:
    with pytest.raises(Corrupt, match="no log entry can say"):
        read(changed(SAID, place, value))
    if place[0] == "index" and len(place) > 1:
        with pytest.raises((ValueError, TypeError)):
            index_of(json.dumps(changed(SAID, place, value)["index"]))


def test_an_index_survives_its_text() -> None:
    assert index_of(index_text(SETS.index)) == SETS.index


def test_an_index_that_could_not_be_read_back_is_not_committed(tmp_path: Path) -> None:
    log = Log(open_store(tmp_path / "lake"))
    base = log.commit([CreateTable("t", "table", "s")], [], operation="create", base=log.latest())
    for wrong in (replace(segment("s", "f"), checksum="?"), replace(segment("s", "f"), path="../s")):
        with pytest.raises(InvalidInput):
            log.commit([SetIndex("t", index("i", "x", wrong))], [], operation="index", base=base)
    assert log.latest() == base


# --- checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["local", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    uri = tmp_path / "lake" if request.param == "local" else f"memory://{uuid.uuid4().hex}/lake"
    with Log(open_store(uri)) as opened:
        yield opened


def filled(log: Log) -> Snapshot:
    changes: list[Change] = [
        CreateTable("t", "table", "s"),
        CreateTable("u", "bare", "s"),
        AttachTable("raw", "raw", "/raw"),
        SetView("v", "SELECT 1"),
    ]
    log.commit(changes, [], operation="create", base=log.latest())
    log.commit([SETS, SetIndex("t", index("j", "y"))], [], operation="index", base=log.latest())
    return log.commit([AddFiles("t", (DataFile("f", "data/t/f", 1, 1, 0),))], [], operation="a", base=log.latest())


def test_indexes_survive_a_checkpoint(log: Log) -> None:
    made = filled(log)
    log.checkpoint(made)
    log.store.delete([log_path(version) for version in (1, 2, 3)])
    opened = Log(log.store)
    assert opened.latest() == made
    assert owned(opened.latest()).indexes == {"i": SETS.index, "j": index("j", "y")}
    assert owned(opened.latest()).index_version == 2
    later = opened.commit([DropIndex("t", "i")], [], operation="drop", base=made)
    assert list(owned(later).indexes) == ["j"]


def rewritten(log: Log, change: Callable[[pa.Table], pa.Table]) -> str:
    """The newest checkpoint with its tables changed; their path."""
    path = f"{CHECKPOINTS}{list_checkpoints(log.store)[-1][1]}/tables.parquet"
    table = change(pq.ParquetFile(pa.BufferReader(log.store.get(path))).read())
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    log.store.put(path, sink.getvalue().to_pybytes())
    return path


def test_a_checkpoint_from_before_there_were_indexes_is_read(log: Log) -> None:
    log.commit([CreateTable("t", "table", "s")], [], operation="create", base=log.latest())
    made = log.commit([SetView("v", "SELECT 1")], [], operation="view", base=log.latest())
    log.checkpoint(made)
    rewritten(log, lambda table: table.drop_columns(["index_version", "indexes"]))
    log.store.delete([log_path(1), log_path(2)])
    assert Log(log.store).latest() == made
    rewritten(log, lambda table: table.drop_columns(["num_files"]))
    with pytest.raises(Corrupt, match="found the columns"):
        Log(log.store).latest()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"index_id":"i"}', index_text(SETS.index).replace("data/t", "..")])
def test_a_checkpoint_with_a_malformed_index_is_corrupt(log: Log, text: str) -> None:
    log.checkpoint(filled(log))

    def change(table: pa.Table) -> pa.Table:
        at = table.schema.get_field_index("indexes")
        texts = pa.array([[text]] + [[]] * (table.num_rows - 1), table.schema.field(at).type)
        return table.set_column(at, table.schema.field(at), texts)

    path = rewritten(log, change)
    with pytest.raises(Corrupt) as caught:
        Log(log.store).latest()
    assert caught.value.path == path


# --- plans -------------------------------------------------------------------------------------------------------


class Lake:
    """A lake with a table of two files, a view and an attached table."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.write({"x": [1, 2], "y": [1, 2]}, "create")
        self.write({"x": [3, 4], "y": [1, 2]}, "append")
        others = [AttachTable("raw", "raw", "/raw"), SetView("v", "SELECT 1")]
        log.commit(others, [], operation="others", base=log.latest())

    def write(self, data: dict[str, list[Any]], mode: str) -> Snapshot:
        base = self.log.latest()
        return self.commit(plan_write(base, self.log.store, "t", pa.table(data), mode), base)

    def commit(self, edit: Edit, base: Snapshot) -> Snapshot:
        return commit_edit(self.log, base, edit, "edit")

    def entry(self) -> OwnedTable:
        found = self.log.latest().table("t")
        assert isinstance(found, OwnedTable)
        return found

    def index(self, column: str = "x", index_id: str = "i") -> TableIndex:
        """One with a new segment over all files that the table has."""
        entry = self.entry()
        path = segment_path(entry.table_id, index_id)
        return index(
            index_id,
            column,
            IndexSegment(path, 7, SUM, tuple(entry.files), tuple(range(len(entry.files))), (1,) * len(entry.files)),
        )

    def set_index(self, column: str = "x", index_id: str = "i") -> TableIndex:
        base, made = self.log.latest(), self.index(column, index_id)
        self.commit(plan_set_index(base, "t", made, begun_us=now_us()), base)
        return made


@pytest.fixture
def lake(log: Log) -> Lake:
    return Lake(log)


def test_paths_of_segments_are_new_and_where_vacuum_looks() -> None:
    paths = {segment_path("t", "i") for _ in range(9)}
    assert len(paths) == 9
    for path in paths:
        assert check_path(path).rpartition("/")[0] == "data/t"
        assert path.rpartition("/")[2].startswith("i.")


def test_an_index_is_set_grows_and_is_dropped(lake: Lake) -> None:
    made = lake.set_index()
    assert lake.entry().indexes == {"i": made}
    lake.write({"x": [5], "y": [1]}, "append")
    base = lake.log.latest()
    grown = replace(made, segments=(*made.segments, *lake.index().segments))
    edit = plan_set_index(base, "t", grown, begun_us=now_us())
    assert edit.files == (grown.segments[1].path,)
    lake.commit(edit, base)
    assert lake.entry().indexes == {"i": grown}
    base = lake.log.latest()
    fewer = plan_set_index(base, "t", made)
    assert (fewer.files, fewer.begun_us) == ((), None)
    lake.commit(fewer, base)
    assert lake.entry().indexes == {"i": made}
    lake.commit(plan_drop_index(lake.log.latest(), "t"), lake.log.latest())
    assert lake.entry().indexes == {}
    assert [line.tables for line in lake.log.history()[-4:]] == [("t",)] * 4


def change_rows(lake: Lake, base: Snapshot) -> None:
    store = lake.log.store
    lake.commit(plan_delete(base, store, "t", "x = 1"), base)
    lake.commit(plan_optimize(lake.log.latest(), store, "t"), lake.log.latest())
    lake.write({"x": [9], "y": [9]}, "overwrite")
    lake.write({"x": [9], "z": [9]}, "append")


def test_edits_of_rows_and_names_do_not_disturb_it(lake: Lake) -> None:
    """All files that the segment covers have left by its commit, and the table has another name and more columns."""
    base, made = lake.log.latest(), lake.index()
    change_rows(lake, base)
    lake.commit(plan_rename(lake.log.latest(), "t", "other"), lake.log.latest())
    after = lake.commit(plan_set_index(base, "t", made, begun_us=now_us()), base)
    entry = after.table("other")
    assert isinstance(entry, OwnedTable)
    assert entry.indexes == {"i": made}
    assert not set(made.segments[0].files) & set(entry.files)


def test_an_index_and_its_change_do_not_disturb_edits_of_rows(lake: Lake) -> None:
    base, store = lake.log.latest(), lake.log.store
    edits = [plan_write(base, store, "t", pa.table({"x": [1]}), "append"), plan_delete(base, store, "t", "x = 2")]
    edits.append(replace(plan_write(base, store, "t", pa.table({"x": [9]}), "overwrite"), replan=None))
    made = lake.set_index()
    lake.commit(edits[0], base)
    lake.commit(edits[1], base)
    with pytest.raises(Conflict, match="rows of table"):  # of the two before it, not of the index
        lake.commit(edits[2], base)
    now = lake.log.latest()
    overwrite = replace(plan_write(now, store, "t", pa.table({"x": [9]}), "overwrite"), replan=None)
    other = lake.set_index("y", "j")
    lake.commit(overwrite, now)
    assert lake.entry().indexes == {"i": made, "j": other}


def test_a_change_of_an_index_meanwhile_is_a_conflict(lake: Lake) -> None:
    first = lake.set_index()
    base = lake.log.latest()
    mine = plan_set_index(base, "t", replace(first, segments=()))
    for_other_column = plan_set_index(base, "t", lake.index("y", "j"), begun_us=now_us())
    lake.commit(plan_drop_index(base, "t", "x"), base)
    for edit in (mine, for_other_column):
        with pytest.raises(Conflict, match="index over table 't' changed"):
            lake.commit(edit, base)
    assert lake.entry().indexes == {}
    with pytest.raises(Conflict):
        lake.commit(plan_drop_index(base, "t", "x"), base)


def test_a_drop_takes_what_the_index_got_meanwhile(lake: Lake) -> None:
    made = lake.set_index()
    base = lake.log.latest()
    drop = plan_drop_index(base, "t")
    lake.commit(plan_set_index(base, "t", replace(made, segments=())), base)
    other = lake.set_index("y", "j")
    lake.commit(drop, base)
    assert lake.entry().indexes == {"j": other}


def test_a_table_that_was_dropped_meanwhile_is_a_conflict(lake: Lake) -> None:
    lake.set_index()
    base = lake.log.latest()
    edits = [plan_set_index(base, "t", lake.index("y", "j"), begun_us=now_us()), plan_drop_index(base, "t")]
    lake.commit(plan_drop(base, "t"), base)
    lake.write({"x": [1], "y": [1]}, "create")  # of the same name, and another table
    for edit in edits:
        with pytest.raises(Conflict, match="dropped"):
            lake.commit(edit, base)
    assert lake.entry().indexes == {}


def test_segments_that_waited_as_long_as_the_grace_are_refused(lake: Lake) -> None:
    base = lake.log.latest()
    long_ago = int((time.time() - 86_000) * 1_000_000)
    with pytest.raises(Conflict, match="hours ago"):
        lake.commit(plan_set_index(base, "t", lake.index(), begun_us=long_ago), base)
    with pytest.raises(AssertionError):
        plan_set_index(base, "t", lake.index())


@pytest.mark.parametrize("plan", [lambda at, name: plan_set_index(at, name, index()), plan_drop_index])
def test_names_that_are_no_owned_table(lake: Lake, plan: Callable[[Snapshot, str], Edit]) -> None:
    base = lake.log.latest()
    with pytest.raises(NotFound, match="did you mean 't'"):
        plan(base, "tt")
    with pytest.raises(InvalidInput, match="is a view"):
        plan(base, "v")
    with pytest.raises(InvalidInput, match=r"db.import_table\('raw'\)"):
        plan(base, "raw")


def test_columns_are_checked(lake: Lake) -> None:
    made = lake.set_index()
    base = lake.log.latest()
    with pytest.raises(InvalidInput, match=r"no column 'z'; it has 'x', 'y'$"):
        plan_set_index(base, "t", index("j", "z"))
    with pytest.raises(InvalidInput, match="'x' of table 't' has an index already"):
        plan_set_index(base, "t", index("j", "x"))
    lake.write({"z": [1]}, "overwrite")
    base = lake.log.latest()
    lake.commit(plan_set_index(base, "t", replace(made, segments=())), base)  # it has been there before


def test_which_index_to_drop(lake: Lake) -> None:
    base = lake.log.latest()
    with pytest.raises(NotFound, match=r"table 't' has no index in version 3 of the lake$"):
        plan_drop_index(base, "t")
    with pytest.raises(NotFound, match=r"no index over column 'x' in version 3 of the lake$"):
        plan_drop_index(base, "t", "x")
    lake.set_index()
    lake.set_index("y", "j")
    base = lake.log.latest()
    with pytest.raises(InvalidInput, match="indexes over 'x', 'y': name the column"):
        plan_drop_index(base, "t")
    with pytest.raises(NotFound, match=r"no index over column 'z' .* it has indexes over 'x', 'y'$"):
        plan_drop_index(base, "t", "z")
    assert plan_drop_index(base, "t", "y").changes == (DropIndex(lake.entry().table_id, "j"),)
