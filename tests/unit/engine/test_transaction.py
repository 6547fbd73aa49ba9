"""Transactions: several tables, one commit, and what was read is a requirement."""

from __future__ import annotations

import lakelet
import pyarrow as pa
import pytest


@pytest.fixture
def lake(tmp_path):
    with lakelet.connect(tmp_path / "lake") as db:
        db.write("stock", pa.table({"item": ["a", "b"], "n": [5, 5]}))
        db.write("log", pa.table({"what": ["open"]}))
        yield db


def test_all_edits_are_one_version(lake):
    with lake.transaction() as tx:
        tx.delete("stock", "item = 'a'")
        tx.write("stock", pa.table({"item": ["a"], "n": [4]}), mode="append")
        tx.write("log", pa.table({"what": ["sold a"]}), mode="append")
        tx.write("new", pa.table({"x": [1]}))
        tx.write("new", pa.table({"x": [2]}), mode="append")
        assert tx.table("new").num_rows == 2
        assert tx.sql("SELECT sum(n) FROM stock").fetchall() == [(9,)]
        assert lake.sql("SELECT sum(n) FROM stock").fetchall() == [(10,)]
        assert "new" not in lake.tables()
    assert lake.version == 3
    assert lake.sql("SELECT sum(n) FROM stock").fetchall() == [(9,)]
    assert lake.table("new").to_arrow().to_pydict() == {"x": [1, 2]}
    assert lake.history()[0].tables == ("stock", "log", "new")


def test_an_error_inside_commits_nothing(lake):
    with pytest.raises(RuntimeError), lake.transaction() as tx:
        tx.write("new", pa.table({"x": [1]}))
        raise RuntimeError
    assert lake.version == 2
    with pytest.raises(lakelet.InvalidInput, match="ended"):
        tx.write("new", pa.table({"x": [1]}))


def test_a_table_that_was_read_and_changed_meanwhile_is_a_conflict(lake):
    with pytest.raises(lakelet.Conflict, match="stock"), lake.transaction() as tx:
        left = tx.table("stock").num_rows
        lake.delete("stock", "item = 'a'")
        tx.write("log", pa.table({"what": [f"{left} items"]}), mode="append")
    assert lake.table("log").num_rows == 1


def test_tables_that_were_not_read_do_not_conflict(lake):
    with lake.transaction() as tx:
        tx.write("log", pa.table({"what": ["one"]}), mode="append")
        lake.delete("stock", "item = 'a'")
        lake.write("log", pa.table({"what": ["other"]}), mode="append")
    assert lake.table("log").num_rows == 3
    assert lake.table("stock").num_rows == 1


def test_a_name_can_pass_from_one_table_to_another(lake):
    with lake.transaction() as tx:
        tx.rename("stock", "old")
        tx.write("stock", pa.table({"item": ["z"]}))
        tx.drop("log")
        tx.create_view("log", "SELECT item AS what FROM old")
    assert {name: info.kind for name, info in lake.tables().items()} == {
        "log": "view",
        "old": "owned",
        "stock": "owned",
    }
    assert lake.sql("SELECT count(*) FROM log").fetchall() == [(2,)]


def test_a_name_that_another_commit_takes_is_a_conflict(lake):
    with pytest.raises(lakelet.Conflict, match="taken"), lake.transaction() as tx:
        tx.write("new", pa.table({"x": [1]}))
        lake.write("new", pa.table({"y": [1]}))
    assert lake.table("new").schema.names == ["y"]


def test_a_merge_in_a_transaction(lake):
    with lake.transaction() as tx:
        tx.merge("stock", pa.table({"item": ["a", "c"], "n": [1, 1]}), on=["item"])
        tx.merge("stock", pa.table({"item": ["c"], "n": [2]}), on=["item"])
    rows = sorted((r["item"], r["n"]) for r in lake.table("stock").to_arrow().to_pylist())
    assert rows == [("a", 1), ("b", 5), ("c", 2)]


def test_commit_early_returns_the_version(lake):
    with lake.transaction() as tx:
        tx.drop("log")
        assert tx.commit() == 3
        with pytest.raises(lakelet.InvalidInput, match="ended"):
            tx.drop("stock")
    assert lake.version == 3


def test_without_edits_nothing_is_written(lake):
    with lake.transaction() as tx:
        tx.table("stock")
    assert lake.version == 2
