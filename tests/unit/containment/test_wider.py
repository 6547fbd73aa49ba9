"""Copies with a few columns of their own: found, planned, rebuilt, and never called contained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lakelet
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet import Engine, InvalidInput
from lakelet.lake.bitwise import differing_rows

ROWS = 50_000
Retire = Callable[..., Any]


def orders() -> pa.Table:
    rng = np.random.default_rng(5)
    return pa.table({"id": np.arange(ROWS), "price": rng.random(ROWS), "kind": pa.array(rng.choice(["a", "b"], ROWS))})


def stamped(shuffle: bool = False) -> pa.Table:
    """Half of the orders with a batch and a load time of their own, between the columns that they share."""
    rng = np.random.default_rng(6)
    rows = np.flatnonzero(rng.random(ROWS) < 0.5)
    part = orders().take(pa.array(rng.permutation(rows) if shuffle else rows))
    batch = pa.array([f"batch {i // 10_000}" for i in range(len(part))]).dictionary_encode()
    loaded = pa.array(np.arange(len(part)) // 100, pa.timestamp("ms"))
    columns = {"loaded": loaded, "id": part["id"], "kind": part["kind"], "batch": batch, "price": part["price"]}
    return pa.table(columns)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Engine]:
    with lakelet.connect(tmp_path / "lake") as db:
        db.write("orders", orders())
        yield db


def check(db: Engine, name: str, expected: pa.Table) -> None:
    for found in (db.table(name).to_arrow(), db.sql(f"SELECT * FROM {name}").to_arrow_table()):
        assert found.column_names == expected.column_names
        assert found.num_rows == expected.num_rows
        for field in expected.schema:
            assert differing_rows(found[field.name].cast(field.type), expected[field.name]).size == 0


def test_they_are_found_when_asked_for_and_are_no_edges(db: Engine) -> None:
    db.write("stamped", stamped())
    db.write("other", pa.table({"id": [-1, 5], "price": [1.0, 2.0], "new": [1, 2]}))
    assert db.containment().wider.num_rows == 0
    graph = db.containment(extra_columns=2)
    assert graph.wider.to_pylist() == [{"child": "stamped", "parent": "orders", "extra_columns": ["loaded", "batch"]}]
    assert graph.edges.num_rows == 0
    assert db.containment(extra_columns=1).wider.num_rows == 0
    with pytest.raises(InvalidInput, match="extra_columns"):
        db.containment(extra_columns=-1)


def test_a_row_that_is_not_there_or_too_much_of_its_own_rules_them_out(db: Engine) -> None:
    changed = stamped().to_pylist()[:1000]
    changed[7]["price"] = -1.0
    db.write("changed", pa.Table.from_pylist(changed, schema=stamped().schema))
    text = pa.array([np.random.default_rng(i).bytes(60).hex() for i in range(1000)])
    wide = orders().slice(0, 1000).append_column("text", text)
    db.write("wide", wide)
    assert db.containment(extra_columns=2).wider.num_rows == 0


def test_they_are_planned_and_rebuilt_with_their_columns(db: Engine) -> None:
    db.write("stamped", stamped())
    plan = db.containment(extra_columns=2).plan()
    assert plan.pairs == [("stamped", "orders")]
    assert plan.actions.column("reason")[0].as_py() == "all its rows are in orders, without loaded, batch"
    (one,) = db.retire(plan).retired
    assert one.recipe_bytes < 0.4 * one.num_bytes
    check(db, "stamped", stamped())
    few = db.table("stamped").to_arrow(columns=["batch"], where="batch = 'batch 1' AND id > 30000")
    wanted = stamped().filter(
        (pa.compute.field("id") > 30000) & (pa.compute.field("batch").cast("string") == "batch 1")
    )
    assert few.num_rows == wanted.num_rows > 0
    assert db.table("stamped").to_arrow(columns=["loaded"]).equals(stamped().select(["loaded"]))
    db.restore("stamped")
    assert db.tables()["stamped"].kind == "owned"
    check(db, "stamped", stamped())


@pytest.mark.parametrize("shuffle", [False, True])
def test_they_live_through_edits(db: Engine, retire: Retire, shuffle: bool) -> None:
    expected = stamped(shuffle)
    db.write("stamped", expected)
    retire(db, ("stamped", "orders"))
    check(db, "stamped", expected)
    db.delete("orders", where="id % 1000 = 7")
    check(db, "stamped", expected)
    db.optimize("orders")
    check(db, "stamped", expected)
    db.delete("stamped", where="id < 1000 OR batch = 'batch 0'")
    kept = (pa.compute.field("id") >= 1000) & (pa.compute.field("batch").cast("string") != "batch 0")
    expected = expected.filter(kept)
    check(db, "stamped", expected)
    db.write("stamped", expected.slice(0, 3), mode="append")
    expected = pa.concat_tables([expected, expected.slice(0, 3)])
    check(db, "stamped", expected)
    db.drop("orders", dependants="restore")
    check(db, "stamped", expected)


def test_a_damaged_side_file_is_named(db: Engine, retire: Retire, tmp_path: Path) -> None:
    db.write("stamped", stamped())
    retire(db, ("stamped", "orders"))
    entry = db._catalog.log.latest().table("stamped")
    (file,) = entry.files.values()
    side = tmp_path / "lake" / file.recipe.side
    data = side.read_bytes()
    at = pq.read_metadata(side).row_group(0).column(0).data_page_offset + 40
    side.unlink()
    with pytest.raises(lakelet.NotFound, match=r"stamped.*" + side.name), lakelet.connect(db.uri) as again:
        again.table("stamped").to_arrow()
    side.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(lakelet.Corrupt, match="stamped"), lakelet.connect(db.uri) as again:
        again.table("stamped").to_arrow()
    side.write_bytes(data)
    check(db, "stamped", stamped())


def test_nothing_in_common_is_refused(db: Engine, retire: Retire) -> None:
    db.write("foreign", pa.table({"x": [1], "y": [2]}))
    with pytest.raises(InvalidInput, match="has not any of the child's columns x, y"):
        retire(db, ("foreign", "orders"))
