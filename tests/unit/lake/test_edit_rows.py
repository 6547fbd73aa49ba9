"""Write, delete, merge and optimize through the log: what they do and refuse, alone and beside other commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from lakelet.lake.changes import AttachTable, RemoveFiles, SetView
from lakelet.lake.compaction import plan_optimize
from lakelet.lake.edit import Edit, commit_edit, plan_delete, plan_write
from lakelet.lake.errors import Conflict, InvalidInput, InvalidSQL, NotFound
from lakelet.lake.local_store import LocalStore
from lakelet.lake.log import Log
from lakelet.lake.merge import plan_merge
from lakelet.lake.table import Table, owned_table

if TYPE_CHECKING:
    from lakelet.lake.snapshot import Snapshot


class Lake:
    """A lake with one table and the edits of these tests on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LocalStore(folder)
        self.log = Log(self.store)

    def do(self, plan: Callable[..., Edit], *args: Any) -> Edit:
        base = self.log.latest()
        edit = plan(base, self.store, *args)
        commit_edit(self.log, base, edit, plan.__name__)
        return edit

    def write(self, data: Any, mode: str = "append", name: str = "t") -> Edit:
        return self.do(plan_write, name, data, mode)

    def table(self, name: str = "t", at: Snapshot | None = None) -> Table:
        snapshot = at or self.log.latest()
        return owned_table(self.store, snapshot.table(name), snapshot.version)

    def rows(self, name: str = "t") -> list[dict[str, Any]]:
        return self.table(name).to_arrow().to_pylist()  # type: ignore[no-any-return]

    def paths(self) -> set[str]:
        return {str(path) for path in self.folder.rglob("*.parquet")}


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(tmp_path)
    lake.write({"id": [1, 2, 3, 4], "v": ["a", "b", "c", "d"]}, "create")
    yield lake
    lake.log.close()


def ids(lake: Lake) -> list[int]:
    return [row["id"] for row in lake.rows()]


# --- write ---------------------------------------------------------------------------------------------------------


def test_the_three_modes(lake: Lake) -> None:
    assert lake.write({"v": ["e"], "id": pa.array([5], pa.int8())}).rows_added == 1
    assert lake.rows()[-1] == {"id": 5, "v": "e"}
    edit = lake.write({"z": [1.5]}, "overwrite")
    assert (edit.rows_added, edit.rows_deleted) == (1, 5)
    assert lake.rows() == [{"z": 1.5}]
    lake.write({"z": [2]}, "overwrite", "new")
    assert lake.rows("new") == [{"z": 2}]


def test_versions_keep_their_rows_and_schema(lake: Lake) -> None:
    before = lake.log.latest()
    lake.write({"id": [5], "w": [0.5]})
    lake.do(plan_delete, "t", "id = 1")
    assert lake.table(at=before).to_arrow().to_pydict() == {"id": [1, 2, 3, 4], "v": ["a", "b", "c", "d"]}
    assert lake.rows()[0] == {"id": 2, "v": "b", "w": None}


def test_a_table_may_be_empty_and_gain_rows(lake: Lake) -> None:
    schema = pa.schema([pa.field("x", pa.int32(), metadata={"k": "v"})], metadata={"m": "n"})
    lake.write(schema.empty_table(), "create", "empty")
    assert lake.table("empty").to_arrow().schema.equals(schema, check_metadata=True)
    assert lake.table("empty").to_arrow(where="x > 1").num_rows == 0
    assert lake.table("empty").to_arrow(columns=[]).num_rows == 0
    lake.write({"x": [2**40]}, name="empty")
    assert lake.rows("empty") == [{"x": 2**40}]


def test_widened_columns_read_old_files_exactly(lake: Lake) -> None:
    lake.write(pa.table({"a": pa.array([1, None], pa.int32()), "n": pa.nulls(2)}), "create", "w")
    lake.write(pa.table({"a": pa.array([0.5]), "n": ["text"]}), name="w")
    found = lake.table("w").to_arrow()
    assert found.schema.types == [pa.float64(), pa.string()]
    assert found.to_pydict() == {"a": [1.0, None, 0.5], "n": [None, None, "text"]}
    assert lake.table("w").to_arrow(where="a = 1").num_rows == 1
    assert lake.table("w").to_arrow(where="n IS NULL").num_rows == 2


@pytest.mark.parametrize(
    ("data", "mode", "name", "error"),
    [
        ({"id": [1]}, "create", "t", InvalidInput),
        ({"id": [1]}, "append", "nope", NotFound),
        ({"id": [1]}, "upsert", "t", InvalidInput),
        ({"id": ["x"]}, "append", "t", InvalidInput),
        ({}, "create", "none", InvalidInput),
        ({"id": [1]}, "create", " ", InvalidInput),
        ({"id": [1]}, "append", "a view", InvalidInput),
        ({"id": [1]}, "overwrite", "a view", InvalidInput),
        ({"id": [1]}, "create", "a view", InvalidInput),
        ({"id": [1]}, "append", "attached", InvalidInput),
        (3, "append", "t", InvalidInput),
    ],
)
def test_bad_writes_change_nothing(lake: Lake, data: Any, mode: str, name: str, error: type[Exception]) -> None:
    base = lake.log.latest()
    changes = [SetView("a view", "SELECT 1"), AttachTable("at", "attached", "/nowhere")]
    lake.log.commit(changes, [], operation="set up", base=base)
    version, paths = lake.log.latest().version, lake.paths()
    with pytest.raises(error):
        lake.write(data, mode, name)
    assert lake.log.latest().version == version
    assert lake.paths() == paths


# --- delete --------------------------------------------------------------------------------------------------------


def test_delete_then_more_of_the_same_file(lake: Lake) -> None:
    assert lake.do(plan_delete, "t", "id > $x", {"x": 3}).rows_deleted == 1
    assert lake.do(plan_delete, "t", "v IN ('a', 'd')").rows_deleted == 1
    assert ids(lake) == [2, 3]
    assert lake.table().files.column("deleted_rows").to_pylist() == [2]
    assert lake.table().num_rows == 2


def test_a_file_that_loses_all_rows_goes(lake: Lake) -> None:
    lake.write({"id": [5], "v": ["e"]})
    edit = lake.do(plan_delete, "t", "id <= 4")
    assert [type(change) for change in edit.changes] == [RemoveFiles]
    assert ids(lake) == [5]
    assert len(lake.table().fragments()) == 1


def test_delete_of_nothing_writes_nothing(lake: Lake) -> None:
    paths = lake.paths()
    assert lake.do(plan_delete, "t", "id = 99").changes == ()
    assert lake.paths() == paths


def test_bad_deletes(lake: Lake) -> None:
    version = lake.log.latest().version
    for where, params in (("nope = 1", None), ("id = $x", None), ("id = 1 OR", None), ("id = 1; DROP TABLE t", None)):
        with pytest.raises(InvalidSQL):
            lake.do(plan_delete, "t", where, params)
    with pytest.raises(NotFound):
        lake.do(plan_delete, "nope", "1 = 1")
    assert lake.log.latest().version == version


def planned(lake: Lake, *plans: tuple[Any, ...]) -> tuple[Snapshot, list[Edit]]:
    base = lake.log.latest()
    return base, [plan(base, lake.store, *args) for plan, *args in plans]


def test_concurrent_deletes_of_one_file_merge(lake: Lake) -> None:
    base, edits = planned(
        lake, (plan_delete, "t", "id = 1"), (plan_delete, "t", "id = 3"), (plan_delete, "t", "id < 3")
    )
    for edit in edits:
        commit_edit(lake.log, base, edit, "delete")
    assert ids(lake) == [4]


def test_concurrent_deletes_that_together_empty_a_file(lake: Lake) -> None:
    base, edits = planned(lake, (plan_delete, "t", "id <= 2"), (plan_delete, "t", "id >= 2"))
    for edit in edits:
        commit_edit(lake.log, base, edit, "delete")
    assert ids(lake) == []
    assert lake.table().fragments() == ()


def test_a_delete_beside_an_append_and_an_overwrite(lake: Lake) -> None:
    new = {"id": [1], "v": ["new"]}
    base, (delete, append) = planned(lake, (plan_delete, "t", "id = 1"), (plan_write, "t", new, "append"))
    commit_edit(lake.log, base, append, "append")
    commit_edit(lake.log, base, delete, "delete")
    assert [row["v"] for row in lake.rows()] == ["b", "c", "d", "new"]
    base, (delete, over) = planned(lake, (plan_delete, "t", "id = 3"), (plan_write, "t", {"id": [3, 4]}, "overwrite"))
    commit_edit(lake.log, base, over, "overwrite")
    commit_edit(lake.log, base, delete, "delete")
    assert ids(lake) == [4]


def test_appends_do_not_conflict_but_a_changed_schema_does(lake: Lake) -> None:
    one = {"id": [9], "v": ["x"]}
    base, edits = planned(lake, *[(plan_write, "t", one, "append")] * 3, (plan_write, "t", {"new": [1]}, "append"))
    for edit in edits:
        commit_edit(lake.log, base, edit, "append")
    assert ids(lake) == [1, 2, 3, 4, 9, 9, 9, None]
    base, edits = planned(lake, (plan_write, "t", {"p": [1]}, "append"), (plan_write, "t", {"q": [1]}, "append"))
    commit_edit(lake.log, base, edits[0], "append")
    with pytest.raises(Conflict, match="schema"):
        commit_edit(lake.log, base, edits[1], "append")


def test_two_creates_of_one_name(lake: Lake) -> None:
    base, edits = planned(lake, *[(plan_write, "n", {"id": [i]}, "create") for i in range(2)])
    commit_edit(lake.log, base, edits[0], "create")
    with pytest.raises(Conflict, match="taken"):
        commit_edit(lake.log, base, edits[1], "create")
    assert lake.rows("n") == [{"id": 0}]


# --- merge ---------------------------------------------------------------------------------------------------------


def test_merge_replaces_and_adds(lake: Lake) -> None:
    edit = lake.do(plan_merge, "t", {"id": [3, 9], "v": ["C", "new"]}, ["id"])
    assert (edit.rows_added, edit.rows_deleted) == (2, 1)
    assert lake.rows() == [
        {"id": 1, "v": "a"},
        {"id": 2, "v": "b"},
        {"id": 4, "v": "d"},
        {"id": 3, "v": "C"},
        {"id": 9, "v": "new"},
    ]
    before = sorted(lake.rows(), key=str)
    lake.do(plan_merge, "t", {"id": [3, 9], "v": ["C", "new"]}, ["id"])
    assert sorted(lake.rows(), key=str) == before


def test_merge_on_several_columns_of_odd_names(lake: Lake) -> None:
    odd, other = 'we "ird" ; --', "column 0"
    lake.write(
        pa.table({odd: [1.0, float("nan"), None, -0.0], other: ["x", "y", "z", "'"], "n": [0] * 4}), "create", "o"
    )
    lake.do(
        plan_merge, "o", pa.table({odd: [float("nan"), 0.0, 1.0], other: ["y", "'", "y"], "n": [1] * 3}), [odd, other]
    )
    found = sorted(str(tuple(row.values())) for row in lake.rows("o"))
    assert found == sorted(["(1.0, 'x', 0)", "(None, 'z', 0)", "(nan, 'y', 1)", '(0.0, "\'", 1)', "(1.0, 'y', 1)"])


def test_merge_may_widen_and_add_columns(lake: Lake) -> None:
    lake.write(pa.table({"k": pa.array([1, 2], pa.int8()), "v": ["a", "b"]}), "create", "m")
    lake.do(plan_merge, "m", pa.table({"k": pa.array([2, 300]), "v": ["B", "C"], "w": [1, 2]}), ["k"])
    expected = [{"k": 1, "v": "a", "w": None}, {"k": 2, "v": "B", "w": 1}, {"k": 300, "v": "C", "w": 2}]
    assert lake.rows("m") == expected


@pytest.mark.parametrize(
    ("data", "on", "words"),
    [
        ({"id": [1, 1], "v": ["x", "y"]}, ["id"], "more than one row for the key id = 1"),
        ({"id": [1, None], "v": ["x", "y"]}, ["id"], "'id' of the data has 1 NULLs"),
        ({"id": [1]}, ["id"], "lacks column 'v'"),
        ({"id": [1], "v": ["x"]}, [], "names of one or more"),
        ({"id": [1], "v": ["x"]}, ["id", "id"], "each once"),
        ({"id": [1], "v": ["x"]}, ["nope"], "no column 'nope'"),
        ({"id": ["1"], "v": ["x"]}, ["id"], "'id'"),
    ],
)
def test_bad_merges_change_nothing(lake: Lake, data: Any, on: list[str], words: str) -> None:
    version, paths = lake.log.latest().version, lake.paths()
    with pytest.raises(InvalidInput, match=words):
        lake.do(plan_merge, "t", data, on)
    assert lake.log.latest().version == version
    assert lake.paths() == paths


def test_concurrent_merges_of_one_key_leave_one_row(lake: Lake) -> None:
    plans = [(plan_merge, "t", {"id": [2, 7], "v": [f"v{i}"] * 2}, ["id"]) for i in range(3)]
    base, edits = planned(lake, *plans)
    for edit in edits:
        commit_edit(lake.log, base, edit, "merge")
    assert sorted(ids(lake)) == [1, 2, 3, 4, 7]
    assert {row["v"] for row in lake.rows() if row["id"] in (2, 7)} == {"v2"}


def test_a_merge_replaces_what_was_appended_meanwhile(lake: Lake) -> None:
    new = {"id": [7], "v": ["appended"]}
    base, (merge, append) = planned(
        lake, (plan_merge, "t", {"id": [7], "v": ["merged"]}, ["id"]), (plan_write, "t", new, "append")
    )
    commit_edit(lake.log, base, append, "append")
    commit_edit(lake.log, base, merge, "merge")
    assert [row["v"] for row in lake.rows() if row["id"] == 7] == ["merged"]


# --- optimize ------------------------------------------------------------------------------------------------------


def test_optimize_joins_small_files_and_folds_deletions_in(lake: Lake) -> None:
    for i in range(5, 9):
        lake.write({"id": [i], "v": ["x"]})
    lake.do(plan_delete, "t", "id IN (2, 6)")
    before, version = lake.rows(), lake.log.latest()
    assert len(lake.table().fragments()) == 4
    lake.do(plan_optimize, "t")
    assert lake.rows() == before
    assert lake.table().files.select(["num_rows", "deleted_rows"]).to_pylist() == [{"num_rows": 6, "deleted_rows": 0}]
    assert lake.table(at=version).to_arrow().to_pylist() == before
    assert lake.do(plan_optimize, "t").changes == ()


def test_optimize_of_a_table_of_several_schemas_and_of_no_rows(lake: Lake) -> None:
    lake.write({"id": [5], "new": [1.5]})
    before = lake.table().to_arrow()
    lake.do(plan_optimize, "t")
    assert lake.table().to_arrow().combine_chunks().equals(before.combine_chunks())
    lake.do(plan_delete, "t", "1 = 1")
    assert lake.do(plan_optimize, "t").changes == ()


def test_optimize_keeps_the_place_of_rows_beside_appends(lake: Lake) -> None:
    lake.write({"id": [5], "v": ["e"]})
    base, (optimize, append) = planned(lake, (plan_optimize, "t"), (plan_write, "t", {"id": [6], "v": ["f"]}, "append"))
    commit_edit(lake.log, base, append, "append")
    commit_edit(lake.log, base, optimize, "optimize")
    assert ids(lake) == [1, 2, 3, 4, 5, 6]
    assert len(lake.table().fragments()) == 2


def test_optimize_never_brings_deleted_rows_back(lake: Lake) -> None:
    lake.write({"id": [5], "v": ["e"]})
    base, (optimize, delete) = planned(lake, (plan_optimize, "t"), (plan_delete, "t", "id = 2"))
    commit_edit(lake.log, base, delete, "delete")
    with pytest.raises(Conflict, match="while they were rewritten: retry"):
        commit_edit(lake.log, base, optimize, "optimize")
    assert ids(lake) == [1, 3, 4, 5]


def test_a_delete_follows_its_rows_into_rewritten_files(lake: Lake) -> None:
    lake.write({"id": [5], "v": ["e"]})
    base, (optimize, delete) = planned(lake, (plan_optimize, "t"), (plan_delete, "t", "id IN (2, 5)"))
    commit_edit(lake.log, base, optimize, "optimize")
    commit_edit(lake.log, base, delete, "delete")
    assert ids(lake) == [1, 3, 4]
