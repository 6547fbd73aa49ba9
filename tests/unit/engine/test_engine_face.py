"""The public face, called as somebody outside would."""

from __future__ import annotations

import datetime as dt
import threading

import lakelet
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ORDERS = pa.table({"id": [1, 2, 3], "day": ["a", "b", "c"]})


@pytest.fixture(params=["local", "memory"])
def lake(request, tmp_path):
    uri = str(tmp_path / "lake") if request.param == "local" else f"memory://{tmp_path.name}"
    with lakelet.connect(uri) as db:
        yield db


def test_every_edit_is_a_version_and_reads_back(lake):
    assert lake.version == 0
    assert lake.write("orders", ORDERS) == 1
    assert lake.write("orders", pa.table({"id": [4], "day": ["d"]}), mode="append") == 2
    assert lake.merge("orders", pa.table({"id": [4, 5], "day": ["D", "e"]}), on=["id"]) == 3
    assert lake.delete("orders", where="id < $limit", params={"limit": 2}) == 4
    assert sorted(lake.table("orders").to_arrow().to_pylist(), key=lambda row: row["id"]) == [
        {"id": 2, "day": "b"},
        {"id": 3, "day": "c"},
        {"id": 4, "day": "D"},
        {"id": 5, "day": "e"},
    ]
    assert [commit.version for commit in lake.history()] == [4, 3, 2, 1]
    assert lake.history()[-1].tables == ("orders",)
    assert lake.write("orders", pa.table({"other": [1.5]}), mode="overwrite") == 5
    assert lake.table("orders").schema.names == ["other"]


def test_earlier_versions_and_times_still_read(lake):
    lake.write("orders", ORDERS)
    between = dt.datetime.fromtimestamp(lake.history()[0].timestamp_us / 1e6, dt.UTC)
    lake.drop("orders")
    assert lake.tables() == {}
    assert lake.table("orders", version=1).num_rows == 3
    assert lake.at(version=1).sql("SELECT count(*) FROM orders").fetchall() == [(3,)]
    assert lake.at(timestamp=between + dt.timedelta(microseconds=1)).version == 1
    with pytest.raises(lakelet.NotFound, match="no table 'orders'"):
        lake.table("orders")
    with pytest.raises(lakelet.NotFound, match="version"):
        lake.at(version=99)
    with pytest.raises(lakelet.NotFound):
        lake.at(timestamp="1990-01-01")
    with pytest.raises(lakelet.InvalidInput, match="ISO"):
        lake.at(timestamp="yesterday")
    with pytest.raises(lakelet.InvalidInput, match="both"):
        lake.table("orders", version=1, timestamp="2026-01-01")
    with pytest.raises(lakelet.InvalidInput, match="needs"):
        lake.at()


def test_a_pinned_engine_only_reads(lake):
    lake.write("orders", ORDERS)
    pinned = lake.at(version=1)
    lake.write("orders", ORDERS, mode="append")
    assert pinned.version == 1
    assert pinned.table("orders").num_rows == 3
    assert [commit.version for commit in pinned.history()] == [1]
    for edit in (lambda: pinned.write("x", ORDERS), pinned.transaction, lambda: pinned.drop("orders"), pinned.vacuum):
        with pytest.raises(lakelet.InvalidInput, match="pinned to version 1"):
            edit()
    pinned.close()
    assert lake.sql("SELECT count(*) FROM orders").fetchall() == [(6,)]


def test_rename_keeps_history_and_views_follow_the_lake(lake):
    lake.write("orders", ORDERS)
    lake.create_view("days", "SELECT day FROM orders")
    lake.rename("orders", "sales")
    assert {name: info.kind for name, info in lake.tables().items()} == {"days": "view", "sales": "owned"}
    with pytest.raises(lakelet.LakeletError, match="orders"):
        lake.sql("FROM days")
    lake.create_view("days", "SELECT day FROM sales WHERE id > 1")
    assert lake.sql("FROM days").fetchall() == [("b",), ("c",)]
    lake.drop("days")
    assert list(lake.tables()) == ["sales"]


@pytest.mark.parametrize("text", ["SELECT FROM", "SELECT nothing FROM orders", "SELECT * FROM nowhere", "DROP TABLE x"])
def test_a_view_that_does_not_bind_is_refused(lake, text):
    lake.write("orders", ORDERS)
    with pytest.raises(lakelet.LakeletError):
        lake.create_view("v", text)
    assert lake.version == 1


def test_names_that_clash_change_nothing(lake):
    lake.write("orders", ORDERS)
    lake.create_view("v", "SELECT 1 AS one")
    for edit in (
        lambda: lake.write("orders", ORDERS),
        lambda: lake.write("v", ORDERS),
        lambda: lake.rename("orders", "v"),
        lambda: lake.create_view("orders", "SELECT 1 AS one"),
        lambda: lake.write("", ORDERS),
        lambda: lake.write("orders", ORDERS, mode="upsert"),
    ):
        with pytest.raises(lakelet.InvalidInput):
            edit()
    with pytest.raises(lakelet.InvalidInput, match="view"):
        lake.table("v")
    with pytest.raises(lakelet.NotFound, match="did you mean 'orders'"):
        lake.rename("order", "x")
    assert lake.version == 2


def test_parameters_of_sql(lake):
    lake.write("orders", ORDERS)
    assert lake.sql("SELECT day FROM orders WHERE id = $id", {"id": 2}).fetchall() == [("b",)]
    assert lake.sql("SELECT day FROM orders WHERE id = $id", id=2).fetchall() == [("b",)]
    assert lake.sql("SELECT day FROM orders WHERE id = ?", [2]).fetchall() == [("b",)]
    assert lake.sql("SELECT day FROM orders WHERE day = $d", d="b'; DROP TABLE orders; --").fetchall() == []
    with pytest.raises(lakelet.InvalidInput, match="one way"):
        lake.sql("SELECT 1", {"a": 1}, b=2)
    with pytest.raises(lakelet.InvalidSQL):
        lake.sql("SELECT * FROM orders WHERE id = $id")


def test_attach_import_and_rejected(tmp_path):
    files = tmp_path / "files"
    (files / "b").mkdir(parents=True)
    pq.write_table(ORDERS, files / "a.parquet")
    pq.write_table(ORDERS, files / "b" / "part-0.parquet")
    (files / "broken.parquet").write_bytes(b"PAR1 not really")
    with lakelet.connect(tmp_path / "lake") as db:
        names = db.attach_all(files)
        assert names == ["a", "b"]
        assert [rejected.location for rejected in names.rejected] == [str(files / "broken.parquet")]
        assert db.version == 1
        db.attach("again", files / "a.parquet")
        with pytest.raises(lakelet.InvalidInput, match="import_table"):
            db.write("a", ORDERS, mode="append")
        db.import_table("a")
        assert db.tables()["a"].kind == "owned"
        (files / "a.parquet").unlink()
        assert db.table("a").to_arrow().equals(ORDERS)
        with pytest.raises(lakelet.InvalidInput, match="owned"):
            db.import_table("a")
        with pytest.raises(lakelet.NotFound, match="'again'"):
            db.table("again")
        with pytest.raises(lakelet.InvalidInput, match="format"):
            db.attach("x", files / "b", format="orc")
        with pytest.raises(lakelet.NotFound):
            db.attach("x", files / "none")
        assert "x" not in db.tables()


def test_attaching_a_tree_again_adds_only_what_is_new(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    pq.write_table(ORDERS, files / "a.parquet")
    with lakelet.connect(tmp_path / "lake") as db:
        assert db.attach_all(files) == ["a"]
        db.rename("a", "orders")
        assert db.attach_all(files) == ["orders"]
        assert db.version == 2
        pq.write_table(ORDERS, files / "b.parquet")
        assert db.attach_all(files) == ["orders", "b"]
        assert list(db.tables()) == ["b", "orders"]


def test_an_attached_table_follows_its_files(tmp_path):
    pq.write_table(ORDERS, tmp_path / "a.parquet")
    with lakelet.connect(tmp_path / "lake") as db:
        db.attach("a", tmp_path / "*.parquet")
        assert db.table("a").num_rows == 3
        pq.write_table(ORDERS, tmp_path / "b.parquet")
        assert db.table("a").num_rows == 6
        assert db.sql("SELECT count(*) FROM a").fetchall() == [(6,)]


def test_read_only_and_no_lake(tmp_path):
    with pytest.raises(lakelet.NotFound, match="no lake"):
        lakelet.connect(tmp_path / "none", read_only=True)
    assert not (tmp_path / "none").exists()
    with lakelet.connect(tmp_path / "lake") as db:
        db.write("orders", ORDERS)
    with lakelet.connect(tmp_path / "lake", read_only=True) as db:
        assert db.table("orders").num_rows == 3
        with pytest.raises(lakelet.InvalidInput, match="read-only"):
            db.write("orders", ORDERS, mode="append")


def test_containment_through_the_face(lake):
    lake.write("orders", ORDERS)
    lake.write("part", pa.table({"id": [3, 1]}))
    lake.write("other", pa.table({"id": [1, 9]}))
    graph = lake.containment()
    assert [(e["child"], e["parent"]) for e in graph.edges.to_pylist()] == [("part", "orders")]
    partial = lake.containment(min_fraction=0.5).edges.to_pylist()
    assert {(e["child"], e["parent"], e["fraction"]) for e in partial if e["kind"] == "partial"} == {
        ("other", "orders", 0.5),
        ("other", "part", 0.5),
        ("part", "other", 0.5),
    }
    assert lake.containment(tables=["part", "other"]).edges.num_rows == 0
    with pytest.raises(lakelet.NotFound, match="nope"):
        lake.containment(tables=["nope"])
    with pytest.raises(lakelet.InvalidInput, match="backend"):
        lake.containment(backend="abacus")


def test_maintenance_keeps_what_can_be_read(lake):
    for n in range(6):
        lake.write("t", pa.table({"n": [n]}), mode="create" if n == 0 else "append")
    lake.delete("t", "n = 3")
    before = lake.table("t").to_arrow().to_pylist()
    lake.optimize("t")
    assert lake.table("t").files.num_rows == 1
    assert lake.table("t").to_arrow().to_pylist() == before
    assert lake.vacuum(dry_run=True).paths == ()
    assert lake.expire().versions == 0
    assert lake.table("t", version=6).num_rows == 6
    with pytest.raises(lakelet.InvalidInput, match="grace"):
        lake.vacuum(older_than_seconds=0)
    with pytest.raises(lakelet.InvalidInput, match="retention"):
        lake.expire(older_than_seconds=0)


def test_threads_share_an_engine(lake):
    lake.write("t", pa.table({"w": pa.array([], pa.int64()), "i": pa.array([], pa.int64())}))
    failures = []

    def work(w):
        try:
            for i in range(5):
                lake.write("t", pa.table({"w": [w], "i": [i]}), mode="append")
                assert lake.sql("SELECT count(*) FROM t WHERE w = $w", w=w).fetchall() == [(i + 1,)]
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(w,)) for w in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert lake.sql("SELECT count(*), count(DISTINCT (w, i)) FROM t").fetchall() == [(30, 30)]


def test_times_are_utc_in_sql_and_in_conditions(lake, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    at = dt.datetime(2026, 1, 1, 23, 30, tzinfo=dt.UTC)
    lake.write("t", pa.table({"ts": pa.array([at], pa.timestamp("us", "UTC"))}))
    assert lake.sql("SELECT day(ts) FROM t").fetchall() == [(1,)]
    assert lake.table("t").to_arrow(where="day(ts) = 1").num_rows == 1


def test_an_engine_that_only_reads_writes_no_file(tmp_path):
    rows = pa.table({"id": [1, 2], "embedding": [[1.0, 2.0], [3.0, 4.0]]})
    with lakelet.connect(tmp_path / "lake") as db:
        db.write("docs", rows)
    before = sorted(tmp_path.rglob("*"))
    with lakelet.connect(tmp_path / "lake", read_only=True) as db:
        for act in (
            lambda: db.write("docs", rows, mode="append"),
            lambda: db.write("more", rows),
            lambda: db.merge("docs", rows, on=["id"]),
            lambda: db.delete("docs", "id = 1"),
            lambda: db.create_index("docs", "embedding"),
            db.transaction,
            lambda: db.optimize("docs"),
        ):
            with pytest.raises(lakelet.InvalidInput, match="opened read-only"):
                act()
    assert sorted(tmp_path.rglob("*")) == before
