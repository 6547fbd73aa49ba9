"""Where a child's rows stand in the parent: the order is found again, and memory and the kernel change nothing."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import lakelet
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet import Engine
from lakelet.containment import matching
from lakelet.containment.matching import column_map, match_rows
from lakelet.containment.selection import in_order
from lakelet.lake.edit import plan_write
from lakelet.lake.errors import InvalidInput
from lakelet.lake.layout import ParquetLayout

SEED = bytes(range(16))


@pytest.fixture
def db() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory() as folder, lakelet.connect(folder) as engine:
        yield engine


def write(db: Engine, name: str, *files: pa.Table, group: int = 50_000) -> None:
    for at, table in enumerate(files):
        base, mode = db._catalog.log.latest(), "append" if at else "create"
        edit = plan_write(base, db._catalog.store, name, table, mode, ParquetLayout(row_group_rows=group))
        db._commit(edit, mode, base)


def matched(db: Engine, child: str, parent: str, memory_bytes: int = 2**28) -> list[list[tuple[list[int], list[int]]]]:
    """For each file of the child and each of its row groups: sources and rows."""
    one, two = db.table(child), db.table(parent)
    columns = column_map(one.schema, two.schema)
    found = match_rows(one.fragments(), two, columns, seed=SEED, memory_bytes=memory_bytes)
    return [[(part.source.tolist(), part.row.tolist()) for part in file] for file in found]


def flat(found: list[list[tuple[list[int], list[int]]]]) -> list[tuple[int, int]]:
    return [pair for file in found for part in file for pair in zip(*part, strict=True)]


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 6), max_size=40),
    st.lists(st.integers(0, 7), max_size=40),
    st.integers(0, 2**32 - 1),
)
def test_the_kernel_chooses_as_its_plain_form_does(parent: list[int], child: list[int], seed: int) -> None:
    low = np.array(parent, np.int64)
    order = np.argsort(low, kind="stable")
    first, after = (np.searchsorted(low[order], np.array(child, np.int64), side=side) for side in ("left", "right"))
    quick = in_order(first, after, order)
    assert quick.tolist() == matching._in_order(first.tolist(), after.tolist(), order).tolist()
    for value, at in zip(child, quick.tolist(), strict=True):
        assert (at < 0) == (value not in parent)
        assert at < 0 or parent[order[at]] == value


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=60))
def test_a_selection_in_order_is_found_in_order_however_often_values_come(rows: list[tuple[int, bool]]) -> None:
    low = np.array([value for value, _ in rows], np.int64)
    child = low[np.array([kept for _, kept in rows], np.bool_)]
    order = np.argsort(low, kind="stable")
    first, after = (np.searchsorted(low[order], child, side=side) for side in ("left", "right"))
    places = order[in_order(first, after, order)]
    assert (np.diff(places) > 0).all()
    assert np.array_equal(low[places], child)


def test_order_is_found_again_among_many_duplicates(db: Engine) -> None:
    rng = np.random.default_rng(0)
    parent = pa.table({"a": rng.integers(0, 3, 3_000), "b": rng.choice(["x", "y"], 3_000)})
    child = parent.filter(pa.array(rng.random(3_000) < 0.4))
    write(db, "p", parent.slice(0, 1_000), parent.slice(1_000), group=300)
    write(db, "c", child, group=200)
    found = flat(matched(db, "c", "p"))
    assert found == sorted(set(found))
    rows = np.array([row + 1_000 * source for source, row in found])
    assert parent.take(pa.array(rows)).equals(child)


def test_rows_that_the_parent_lacks_or_has_lost_have_no_source(db: Engine) -> None:
    write(db, "p", pa.table({"a": range(10)}), pa.table({"a": range(10, 20)}), group=4)
    write(db, "c", pa.table({"a": [3, 99, 13, 3, 7]}), pa.table({"a": [None, 19]}))
    db.delete("p", "a IN (7, 12)")
    assert matched(db, "c", "p") == [[([0, -1, 1, 0, -1], [3, 0, 3, 3, 0])], [([-1, 1], [0, 9])]]
    db.delete("c", "a = 99 OR a = 19")
    assert matched(db, "c", "p") == [[([0, 1, 0, -1], [3, 3, 3, 0])], [([-1], [0])]]


def test_values_are_equal_across_types_and_columns_by_their_names(db: Engine) -> None:
    write(db, "p", pa.table({"S": ["x", "y", "z"], "n": [1, 2, 3], "other": [0, 0, 0]}))
    write(db, "c", pa.table({"n": [3.0, 1.0, 2.5], "s": pa.array(["z", "x", "y"]).dictionary_encode()}))
    assert column_map(db.table("c").schema, db.table("p").schema) == {"n": "n", "s": "S"}
    assert matched(db, "c", "p") == [[([0, 0, -1], [2, 0, 0])]]
    with pytest.raises(InvalidInput, match=r"not all of the child's columns n, S, other"):
        column_map(db.table("p").schema.remove(0).insert(1, pa.field("S", pa.string())), db.table("c").schema)


def test_memory_changes_how_often_the_parent_is_read_and_nothing_else(
    db: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    parent = pa.table({"a": rng.integers(0, 60_000, 150_000), "b": rng.integers(0, 2, 150_000)})
    kept = parent.filter(pa.array(rng.random(150_000) < 0.7))
    write(db, "p", parent, group=40_000)
    write(db, "c", kept.slice(0, 90_000), kept.slice(90_000), kept.slice(0, 10), group=30_000)
    settled: list[int] = []
    real: Callable[..., Any] = matching._found

    def counted(child: Any, *rest: Any) -> Any:
        settled.append(len(child))
        return real(child, *rest)

    monkeypatch.setattr(matching, "_found", counted)
    whole = matched(db, "c", "p")
    assert settled == [kept.num_rows + 10]
    settled.clear()
    tiny = matched(db, "c", "p", memory_bytes=1)
    assert len(settled) == 2
    assert [[len(part[0]) for part in file] for file in tiny] == [[len(part[0]) for part in file] for file in whole]
    for found in (whole, tiny):
        sources, rows = (np.array(one) for one in zip(*flat(found), strict=True))
        assert (sources == 0).all()
        assert parent.take(pa.array(rows)).equals(pa.concat_tables([kept, kept.slice(0, 10)]))
    assert flat(tiny)[:60_000] == flat(whole)[:60_000]
