"""Any sequence of appends, deletes, merges, overwrites and compactions leaves the rows that a list of dicts would hold.

Edits are planned on a snapshot and committed together with others that were planned on the same one, so that rebasing
and planning anew are part of what is checked. Indexes come, grow and go beside them, and neither minds the other.
"""

from __future__ import annotations

import tempfile
import uuid
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lakelet.lake.changes import SetIndex
from lakelet.lake.compaction import plan_optimize
from lakelet.lake.edit import Edit, commit_edit, now_us, plan_delete, plan_write
from lakelet.lake.errors import Conflict, NotFound
from lakelet.lake.index_edit import plan_drop_index, plan_set_index
from lakelet.lake.layout import ParquetLayout
from lakelet.lake.local_store import LocalStore
from lakelet.lake.log import Log
from lakelet.lake.merge import plan_merge
from lakelet.lake.table import owned_table
from lakelet.lake.table_index import IndexSegment, TableIndex, segment_path

if TYPE_CHECKING:
    from lakelet.lake.snapshot import OwnedTable, Snapshot

LAYOUT = ParquetLayout(row_group_rows=2, file_bytes=4_000)
SCHEMA = pa.schema([("id", pa.int64()), ("v", pa.string())])
Row = dict[str, Any]

KEYS = st.integers(0, 9)
ROWS = st.lists(st.fixed_dictionaries({"id": KEYS, "v": st.sampled_from(["a", "b", None])}), max_size=5)
ACTIONS = st.one_of(
    st.tuples(st.just("append"), ROWS),
    st.tuples(st.just("delete"), st.tuples(KEYS, KEYS)),
    st.tuples(st.just("merge"), st.lists(KEYS, max_size=4, unique=True)),
    st.tuples(st.just("overwrite"), ROWS),
    st.tuples(st.just("optimize"), st.none()),
    st.tuples(st.just("index"), st.sampled_from(["id", "v"])),
    st.tuples(st.just("unindex"), st.sampled_from(["id", "v"])),
)


def plan(snapshot: Snapshot, log: Log, kind: str, what: Any) -> Edit:
    store = log.store
    match kind:
        case "append" | "overwrite":
            return plan_write(snapshot, store, "t", pa.Table.from_pylist(what, SCHEMA), kind, LAYOUT)
        case "delete":
            return plan_delete(snapshot, store, "t", "id BETWEEN $low AND $high", {"low": min(what), "high": max(what)})
        case "merge":
            new = pa.table({"id": what, "v": [f"m{key}" for key in what]}, schema=SCHEMA)
            return plan_merge(snapshot, store, "t", new, ["id"], LAYOUT)
        case "index":
            return plan_set_index(snapshot, "t", with_one_more(snapshot, what), begun_us=now_us())
        case "unindex":
            return plan_drop_index(snapshot, "t", what)
    return plan_optimize(snapshot, store, "t", LAYOUT)


def entry_of(snapshot: Snapshot) -> OwnedTable:
    return snapshot.table("t")  # type: ignore[return-value]


def indexes_of(snapshot: Snapshot) -> dict[str, TableIndex]:
    """By column."""
    return {index.column: index for index in entry_of(snapshot).indexes.values()}


def with_one_more(snapshot: Snapshot, column: str) -> TableIndex:
    """The index over the column, which there may be not yet, with a segment more, of the files of the table now."""
    entry = entry_of(snapshot)
    held = indexes_of(snapshot).get(column)
    index_id = held.index_id if held else uuid.uuid4().hex
    path = segment_path(entry.table_id, index_id)
    segment = IndexSegment(
        path, 1, "0" * 64, tuple(entry.files), tuple(range(len(entry.files))), (0,) * len(entry.files)
    )
    return TableIndex(index_id, column, "{}", (*(held.segments if held else ()), segment))


def outcomes(rows: list[Row], kind: str, what: Any, seen: list[Row]) -> list[list[Row]]:
    """What the rows may be afterwards. ``seen`` are the rows that the edit was planned on.

    A delete looks at those alone, or at all rows when it had to be planned again because files had gone.
    """
    match kind:
        case "append":
            return [rows + what]
        case "overwrite":
            return [list(what)]
        case "delete":
            hit = [row for row in rows if min(what) <= row["id"] <= max(what)]
            there = [row for row in hit if any(row is old for old in seen)]
            return [without(rows, there), without(rows, hit)]
        case "merge":
            return [[row for row in rows if row["id"] not in what] + [{"id": key, "v": f"m{key}"} for key in what]]
    return [rows]


def without(rows: list[Row], gone: list[Row]) -> list[Row]:
    return [row for row in rows if not any(row is other for other in gone)]


def fresh(kind: str, what: Any) -> Any:
    """Rows of their own: identity tells a row that was there from an equal one that came meanwhile."""
    return [dict(row) for row in what] if kind in ("append", "overwrite") else what


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(batches=st.lists(st.lists(ACTIONS, min_size=1, max_size=3), max_size=5))
def test_edits_leave_what_a_list_would_hold(batches: list[list[tuple[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder, Log(LocalStore(folder)) as log:
        snapshot = log.create()
        commit_edit(log, snapshot, plan_write(snapshot, log.store, "t", SCHEMA.empty_table(), "create"), "create")
        rows: list[Row] = []
        indexes: dict[str, TableIndex] = {}
        for batch in batches:
            snapshot, seen, were = log.latest(), rows, indexes
            actions = [(kind, fresh(kind, what)) for kind, what in batch if kind != "unindex" or what in were]
            for column in {"id", "v"} - were.keys():
                with pytest.raises(NotFound):
                    plan(snapshot, log, "unindex", column)
            edits = [plan(snapshot, log, kind, what) for kind, what in actions]
            for (kind, what), edit in zip(actions, edits, strict=True):
                beaten = (kind == "index" and indexes != were) or (kind == "unindex" and what not in indexes)
                try:
                    now = commit_edit(log, snapshot, edit, kind)
                except Conflict:
                    assert beaten or kind == "optimize"  # the rows it had rewritten changed: nothing else gives up
                    continue
                assert not beaten
                if kind == "index":
                    (change,) = edit.changes
                    assert isinstance(change, SetIndex)
                    indexes = {**indexes, what: change.index}
                elif kind == "unindex":
                    indexes = {column: index for column, index in indexes.items() if column != what}
                assert indexes_of(now) == indexes
                table = owned_table(log.store, now.table("t"), now.version)
                found = table.to_arrow().to_pylist()
                possible = outcomes(rows, kind, what, seen)
                assert found in possible
                assert table.num_rows == len(found)
                rows = possible[possible.index(found)]
