"""An index over a table of the lake: what it finds, at every version, whatever happens to the rows."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import lakelet
import numpy as np
import pyarrow as pa
import pytest
from lakelet.lake.errors import Conflict, Corrupt, InvalidInput, InvalidSQL, LimitExceeded, NotFound
from lakelet.vector import open_index, segment_files, table_upkeep

DIM = 8
TEAMS = ["acme", "bolt", None, "everyone"]
METRICS = ["l2", "cosine", "ip"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Segments that are being made, and copies of them, lie here."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LAKELET_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def db(tmp_path: Path) -> Any:
    with lakelet.connect(tmp_path / "lake") as engine:
        yield engine


def vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def docs(first: int, count: int, seed: int = 0) -> pa.Table:
    """Rows with ids from ``first`` on."""
    number = np.arange(first, first + count)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors(count, seed + first).reshape(-1)), DIM)
    return pa.table(
        {
            "id": pa.array(number, pa.int64()),
            "title": pa.array([f"title {n}" for n in number.tolist()]),
            "team": pa.array([TEAMS[n % 4] for n in number.tolist()]),
            "year": pa.array(2000 + number % 25, pa.int32()),
            "tags": pa.array([["even"] if n % 2 == 0 else ["odd", "prime"] for n in number.tolist()]),
            "embedding": embedding,
        }
    )


def distances(metric: str, q: np.ndarray, rows: np.ndarray) -> np.ndarray:
    rows, q = rows.astype(np.float64), q.astype(np.float64)
    if metric == "l2":
        return ((rows - q) ** 2).sum(1)
    if metric == "ip":
        return -rows @ q
    return 1 - rows @ q / np.linalg.norm(rows, axis=1) / np.linalg.norm(q)


def nearest(table: pa.Table, q: np.ndarray, k: int, metric: str = "l2") -> list[int]:
    """The ids of the nearest rows, by NumPy."""
    if not table.num_rows:
        return []
    rows = np.array(table["embedding"].to_pylist(), np.float32)
    order = np.argsort(distances(metric, q, rows), kind="stable")[:k]
    return [table["id"][int(place)].as_py() for place in order]


def check(db: Any, where: str | None = None, metric: str = "l2", k: int = 7, **how: Any) -> None:
    """A search of the table finds what a scan of it does."""
    rows = db.table("docs").to_arrow(where=where)
    for q in vectors(3, 99):
        found = db.search("docs", q, k, where=where, exact=True, **how)
        assert found["id"].to_pylist() == nearest(rows, q, k, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_search_returns_the_rows_of_the_table(db: Any, metric: str) -> None:
    db.write("docs", docs(0, 300))
    db.create_index("docs", "embedding", metric=metric)
    table = db.table("docs").to_arrow()
    q = vectors(1, 5)[0]
    found = db.search("docs", q, 5)
    assert found.schema.names == [*table.schema.names, "_distance"]
    assert found.select(table.schema.names).schema.equals(table.schema)
    assert found["id"].to_pylist() == nearest(table, q, 5, metric)
    by_id = {row["id"]: row for row in table.to_pylist()}
    for row in found.to_pylist():
        distance = row.pop("_distance")
        assert row == by_id[row["id"]]
        assert distance == pytest.approx(
            distances(metric, q, np.array([row["embedding"]], np.float32))[0], rel=1e-4, abs=1e-5
        )


def test_several_queries_come_with_their_number(db: Any) -> None:
    db.write("docs", docs(0, 50))
    db.create_index("docs", "embedding")
    q = vectors(3, 5)
    found = db.search("docs", q, 4, columns=["id"])
    assert found.schema.names == ["_query", "id", "_distance"]
    assert found["_query"].to_pylist() == [0] * 4 + [1] * 4 + [2] * 4
    for number in range(3):
        alone = db.search("docs", q[number], 4, columns=["id"])
        assert found.filter(pa.array(np.asarray(found["_query"]) == number))["id"].equals(alone["id"])


def test_rows_that_come_and_go_are_seen_so_at_once(db: Any) -> None:
    db.write("docs", docs(0, 200))
    db.create_index("docs", "embedding", attributes=["year"])
    check(db)
    db.write("docs", docs(200, 50), mode="append")
    check(db)
    db.delete("docs", "id % 3 = 0")
    check(db)
    again = docs(100, 120, seed=7)  # 20 of them new, 100 replaced
    db.merge("docs", again, on=["id"])
    check(db, where="year > 2010")
    check(db)
    db.rename("docs", "papers")
    db.rename("papers", "docs")
    db.update_index("docs")
    check(db)
    db.write("docs", docs(1_000, 30), mode="overwrite")
    check(db, k=40)
    db.update_index("docs")
    check(db, k=40)
    assert db.indexes()["segments"].to_pylist() == [1]


def test_each_version_is_searched_as_it_was(db: Any) -> None:
    versions = [db.write("docs", docs(0, 60))]
    versions.append(db.write("docs", docs(60, 60), mode="append"))
    db.create_index("docs", "embedding")
    versions.append(db.delete("docs", "id < 30"))
    versions.append(db.merge("docs", docs(20, 60, seed=3), on=["id"]))
    db.update_index("docs")
    versions.append(db.write("docs", docs(500, 20), mode="overwrite"))
    versions.append(db.update_index("docs"))
    for version in (*versions, *reversed(versions)):
        check(db.at(version), k=11)
    with lakelet.connect(db.uri, read_only=True) as other:
        for version in versions:
            check(other.at(version), k=11)


def test_tenants_see_their_rows_and_public_ones(db: Any) -> None:
    db.write("docs", docs(0, 80))
    db.create_index("docs", "embedding", tenant="team", public="everyone", attributes=["year"])
    db.write("docs", docs(80, 40), mode="append")
    q = vectors(1, 5)[0]
    rows = db.table("docs").to_arrow()
    for team in ("acme", "bolt", "nobody"):
        mine = rows.filter(pa.array([each in (team, "everyone") for each in rows["team"].to_pylist()]))
        assert db.search("docs", q, 200, team)["id"].to_pylist() == nearest(mine, q, 200)
        late = mine.filter(pa.array(np.asarray(mine["year"]) >= 2015))
        found = db.search("docs", q, 200, tenant=team, where="year >= $y", params={"y": 2015})
        assert found["id"].to_pylist() == nearest(late, q, 200)
    assert db.search("docs", q, 200, tenant=lakelet.ALL_TENANTS).num_rows == 120
    with pytest.raises(InvalidInput, match="tenant"):
        db.search("docs", q)
    db.update_index("docs")
    mine = rows.filter(pa.array([each in ("acme", "everyone") for each in rows["team"].to_pylist()]))
    assert db.search("docs", q, 200, "acme")["id"].to_pylist() == nearest(mine, q, 200)


def test_a_row_may_have_several_tenants(db: Any) -> None:
    table = docs(0, 6).drop(["team"])
    teams = [[1, 2], [2], [], None, [3, None], [1, 1]]
    db.write("docs", table.append_column("team", pa.array(teams, pa.list_(pa.int64()))))
    db.create_index("docs", "embedding", tenant="team")
    q = vectors(1, 5)[0]
    for team, ids in ((1, {0, 5}), (2, {0, 1}), (3, {4}), (9, set())):
        assert set(db.search("docs", q, tenant=team)["id"].to_pylist()) == ids


def test_any_column_may_stand_in_a_condition(db: Any) -> None:
    db.write("docs", docs(0, 150))
    db.create_index("docs", "embedding", attributes=["year", "tags"])
    db.write("docs", docs(150, 60), mode="append")
    for where in (
        "year BETWEEN 2004 AND 2010",
        "list_contains(tags, 'prime') AND year > 2010",
        "title LIKE '%7'",
        "year > 2010 AND title LIKE '%7'",
        "team IS NULL OR team = 'acme'",
        "embedding[1] > 0.5",
        "id % 7 = 3",
    ):
        check(db, where=where)
    with pytest.raises(InvalidSQL, match="colour"):
        db.search("docs", vectors(1, 0)[0], where="colour = 'red'")


@pytest.mark.parametrize("include", [[], ["title"]])
def test_columns_that_are_not_included_come_from_the_data_files(db: Any, include: list[str]) -> None:
    db.write("docs", docs(0, 100))
    db.write("docs", docs(100, 20), mode="append")
    db.create_index("docs", "embedding", metric="cosine", include=include)
    db.write("docs", docs(120, 10), mode="append")
    rows = {row["id"]: row for row in db.table("docs").to_arrow().to_pylist()}
    for row in db.search("docs", vectors(1, 1)[0], 50).drop(["_distance"]).to_pylist():
        assert row == rows[row["id"]]
    check(db, where="title LIKE '%3' OR year = 2004", metric="cosine")


def test_columns_that_come_later_are_null_in_rows_of_before(db: Any) -> None:
    db.write("docs", docs(0, 40))
    db.create_index("docs", "embedding", attributes=["year"])
    more = docs(40, 40).append_column("lang", pa.array(["en", "de"] * 20))
    db.write("docs", more, mode="append")
    check(db, where="lang = 'en'", k=40)
    check(db, where="lang IS NULL", k=100)
    found = db.search("docs", vectors(1, 1)[0], 80)
    langs = dict(zip(found["id"].to_pylist(), found["lang"].to_pylist(), strict=True))
    assert {number for number, lang in langs.items() if lang is None} == set(range(40))
    db.update_index("docs")
    check(db, where="lang = 'en' AND year > 2003", k=40)


def test_an_attribute_of_a_wider_type_is_taken_anew(db: Any) -> None:
    db.write("docs", docs(0, 40))
    db.create_index("docs", "embedding", attributes=["year"])
    wide = docs(40, 40)
    wide = wide.set_column(3, "year", pa.array([2**40] * 40, pa.int64()))
    db.write("docs", wide, mode="append")
    check(db, where="year > 2010", k=100)
    db.update_index("docs")
    assert db.indexes()["indexed_rows"].to_pylist() == [80]
    check(db, where="year > 2010", k=100)


def test_double_and_half_vectors_come_back_as_they_are(db: Any) -> None:
    for kind in (pa.float64(), pa.float16()):
        table = docs(0, 30)
        values = pa.array(np.array(table["embedding"].to_pylist()).reshape(-1), pa.float64())
        flat = pa.array(np.asarray(values).astype(kind.to_pandas_dtype()))
        table = table.set_column(5, "embedding", pa.FixedSizeListArray.from_arrays(flat, DIM))
        db.write("docs", table, mode="overwrite")
        if db.indexes().num_rows:
            db.drop_index("docs")
        db.create_index("docs", "embedding")
        found = db.search("docs", vectors(1, 1)[0], 30).drop(["_distance"])
        assert found.sort_by("id").equals(db.table("docs").to_arrow())


# Upkeep


def test_new_rows_go_into_the_index(db: Any) -> None:
    db.write("docs", docs(0, 100))
    db.create_index("docs", "embedding", attributes=["year"])
    for first in range(100, 200, 20):
        db.write("docs", docs(first, 20), mode="append")
    assert db.indexes()["indexed_rows"].to_pylist() == [100]
    version = db.update_index("docs")
    assert db.indexes()["indexed_rows"].to_pylist() == [200]
    check(db)
    assert db.update_index("docs") == version, "nothing is left to do"
    assert db.update_index("docs", rebuild=True) == version + 1
    assert db.indexes()["segments"].to_pylist() == [1]
    check(db)
    assert next(commit.operation for commit in db.history()) == "update index docs"


@pytest.mark.parametrize(
    ("fresh", "segments", "most", "wanted"),
    [
        (10, [], 100, []),
        (10, [(1_000, 1_000)], 10_000, []),
        (400, [(1_000, 1_000)], 10_000, [0]),
        (400, [(1_000, 1_000)], 1_200, []),
        (10, [(20, 20), (60, 60), (200, 200), (5_000, 5_000)], 10_000, [0, 1, 2]),
        (0, [(20, 20), (60, 60)], 10_000, []),
        (0, [(1_000, 700)], 10_000, [0]),
        (0, [(1_000, 800)], 10_000, []),
        (0, [(1_000, 700), (2_000, 2_000)], 10_000, [0, 1]),
    ],
)
def test_which_segments_are_joined(fresh: int, segments: list[Any], most: int, wanted: list[int]) -> None:
    assert table_upkeep.joining(fresh, segments, most) == wanted


def test_many_small_files_make_several_segments_if_they_must(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for first in range(0, 200, 50):
        db.write("docs", docs(first, 50), mode="append" if first else "create")
    monkeypatch.setattr(table_upkeep, "VECTOR_SEGMENT_BYTES", 12_000)
    db.create_index("docs", "embedding", tenant="team", attributes=["tags"])
    assert db.indexes()["segments"].to_pylist()[0] > 1
    check(db, tenant=lakelet.ALL_TENANTS, where="list_contains(tags, 'odd')")
    monkeypatch.undo()
    db.write("docs", docs(200, 100), mode="append")
    db.update_index("docs")
    assert db.indexes()["segments"].to_pylist() == [1]
    check(db, tenant=lakelet.ALL_TENANTS, where="list_contains(tags, 'odd')")


def test_searching_brings_the_index_up_to_date_in_the_background(db: Any) -> None:
    db.write("docs", docs(0, 100))
    db.create_index("docs", "embedding")
    db.write("docs", docs(100, 5_000), mode="append")
    check(db)
    deadline = time.monotonic() + 60
    while db.indexes()["indexed_rows"].to_pylist() != [5_100] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert db.indexes()["indexed_rows"].to_pylist() == [5_100]
    check(db)


def test_what_is_made_in_the_background_is_given_up_at_close(tmp_path: Path, cache: Path) -> None:
    with lakelet.connect(tmp_path / "lake") as db:
        db.write("docs", docs(0, 100))
        db.create_index("docs", "embedding")
        db.write("docs", docs(100, 5_000), mode="append")
        db.search("docs", vectors(1, 0)[0])
    assert not [thread for thread in threading.enumerate() if thread.name == "lakelet-index"]
    assert not list((cache / "building").glob("*"))


def test_rows_in_no_segment_have_a_limit(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    db.write("docs", docs(0, 100))
    db.create_index("docs", "embedding")
    db.write("docs", docs(100, 100), mode="append")
    monkeypatch.setattr(open_index, "VECTOR_LOOSE_BYTES", 4_000)
    with pytest.raises(LimitExceeded, match=r"100 rows of table 'docs' stand in no segment .* update_index"):
        db.search("docs", vectors(1, 0)[0])
    db.update_index("docs")
    check(db)


def test_a_change_of_the_index_meanwhile_is_a_conflict(db: Any) -> None:
    db.write("docs", docs(0, 50))
    db.create_index("docs", "embedding")
    db.write("docs", docs(50, 50), mode="append")

    def meanwhile(stage: str, done: int, total: int) -> None:
        if stage.startswith("reading") and done == 0:
            with lakelet.connect(db.uri) as other:
                other.update_index("docs")

    with pytest.raises(Conflict, match="index of table 'docs'"):
        db.update_index("docs", progress=meanwhile)
    check(db)


def test_rows_may_change_while_an_index_is_made(db: Any) -> None:
    db.write("docs", docs(0, 50))

    def meanwhile(stage: str, done: int, total: int) -> None:
        if stage.startswith("reading") and done == 0:
            with lakelet.connect(db.uri) as other:
                other.delete("docs", "id < 20")
                other.write("docs", docs(50, 20), mode="append")
                other.rename("docs", "papers")

    db.create_index("docs", "embedding", progress=meanwhile)
    db.rename("papers", "docs")
    check(db)


def test_making_an_index_can_be_cancelled(db: Any, cache: Path) -> None:
    db.write("docs", docs(0, 50))

    def cancel(stage: str, done: int, total: int) -> None:
        if stage.startswith("indexing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        db.create_index("docs", "embedding", progress=cancel)
    assert db.indexes().num_rows == 0
    assert not list(cache.rglob("*.lakelet"))
    db.create_index("docs", "embedding")
    check(db)


def test_a_retired_table_is_searched_as_before(db: Any, retire: Any) -> None:
    db.write("everything", docs(0, 400))
    db.write("docs", db.table("everything").to_arrow(where="id >= 100 AND id < 300"))
    db.create_index("docs", "embedding", include=["id"])
    retire(db, ("docs", "everything"))
    assert db.table("docs").kind == "retired"
    check(db, where="title LIKE '%1'")
    db.update_index("docs", rebuild=True)
    check(db)
    db.restore("docs")
    check(db)


def test_dropped_and_made_anew(db: Any) -> None:
    db.write("docs", docs(0, 50))
    db.create_index("docs", "embedding")
    with pytest.raises(InvalidInput, match="has an index"):
        db.create_index("docs", "embedding")
    version = db.version
    db.drop_index("docs")
    with pytest.raises(NotFound, match="create_index"):
        db.search("docs", vectors(1, 0)[0])
    check(db.at(version))
    db.create_index("docs", "embedding", metric="ip")
    check(db, metric="ip")
    db.drop("docs")
    with pytest.raises(NotFound, match="docs"):
        db.search("docs", vectors(1, 0)[0])


def test_several_indexes_of_a_table(db: Any) -> None:
    table = docs(0, 50)
    db.write("docs", table.append_column("other", docs(50, 50)["embedding"]))
    db.create_index("docs", "embedding")
    db.create_index("docs", "other", metric="ip")
    q = vectors(1, 0)[0]
    with pytest.raises(InvalidInput, match="'embedding', 'other'"):
        db.search("docs", q)
    assert db.search("docs", q, column="embedding")["id"].to_pylist() == nearest(table, q, 10)
    assert db.search("docs", q, column="other").num_rows == 10
    with pytest.raises(NotFound, match="'third'"):
        db.search("docs", q, column="third")


# Where segments lie


def test_in_an_object_store_segments_are_fetched_once(cache: Path) -> None:
    uri = f"memory://lake-{time.time_ns()}"
    with lakelet.connect(uri) as db:
        db.write("docs", docs(0, 100))
        db.create_index("docs", "embedding", attributes=["year"])
        db.write("docs", docs(100, 20), mode="append")
        check(db)
    (copy,) = cache.rglob("*.segment")
    stamp = copy.stat().st_ino
    with lakelet.connect(uri) as db:
        check(db, where="year > 2004")
    assert copy.stat().st_ino == stamp


def test_the_cache_is_bounded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_files, "VECTOR_SEGMENT_CACHE_BYTES", 1)
    uri = f"memory://lake-{time.time_ns()}"
    with lakelet.connect(uri) as db:
        for name in ("docs", "others"):
            db.write(name, docs(0, 100))
            db.create_index(name, "embedding")
            db.search(name, vectors(1, 0)[0])
        assert len(list(cache.rglob("*.segment"))) == 1
        check(db)


def test_a_segment_that_is_gone_or_damaged_is_named(db: Any, tmp_path: Path) -> None:
    db.write("docs", docs(0, 100))
    db.create_index("docs", "embedding")
    (path,) = (tmp_path / "lake").rglob("*.segment")
    whole = path.read_bytes()
    q = vectors(1, 0)[0]
    path.write_bytes(whole[:-100])
    with lakelet.connect(db.uri) as other, pytest.raises(Corrupt, match=r"segment has .* bytes.*rebuild"):
        other.search("docs", q)
    path.write_bytes(b"\0" * 5_000 + whole[5_000:])
    with lakelet.connect(db.uri) as other, pytest.raises((Corrupt, InvalidInput), match=path.name):
        other.search("docs", q)
    path.unlink()
    with lakelet.connect(db.uri) as other:
        with pytest.raises(NotFound, match=rf"{path.name} is gone.*rebuild"):
            other.search("docs", q)
        other.update_index("docs", rebuild=True)
        check(other)


def test_vacuum_keeps_what_versions_need(db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    db.write("docs", docs(0, 100))
    db.create_index("docs", "embedding")
    version = db.version
    db.write("docs", docs(100, 100), mode="append")
    db.update_index("docs")
    assert len(list((tmp_path / "lake").rglob("*.segment"))) == 2
    later = time.time_ns() + 3 * 86_400 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: later)
    db.vacuum()
    check(db.at(version))
    check(db)


# Bad input


def table_with(values: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"id": range(len(values)), "embedding": pa.array(values, kind or pa.list_(pa.float32()))})


BAD = [[1.0, 2.0], None, [3.0], [float("nan"), 1.0], [0.0, 0.0], [1.0, None], [2.0, 2.0, 2.0], [5.0, 5.0], None]


def test_vectors_that_cannot_be_are_told(db: Any) -> None:
    db.write("docs", table_with(BAD))
    with pytest.raises(InvalidInput) as told:
        db.create_index("docs", "embedding", metric="cosine")
    words = str(told.value)
    assert "3 are NULL or hold a NULL (first: row 1 of " in words
    assert "2 have another length (first: row 2 of " in words
    assert "of length 1)" in words
    assert "1 hold NaN or inf (first: row 3 of " in words
    assert "1 are zero, which has no cosine (first: row 4 of " in words
    assert "skip_invalid=True" in words
    assert db.indexes().num_rows == 0
    db.create_index("docs", "embedding", metric="cosine", skip_invalid=True)
    assert db.search("docs", np.float32([1, 1]))["id"].to_pylist() == [7, 0]
    assert db.indexes()["unsearchable_rows"].to_pylist() == [7]


def test_later_rows_without_a_sound_vector_are_left_out_and_counted(db: Any) -> None:
    db.write("docs", table_with([[1.0, 2.0], [3.0, 4.0]]))
    db.create_index("docs", "embedding")
    db.write("docs", table_with(BAD), mode="append")
    assert db.search("docs", np.float32([1, 1]), 20).num_rows == 5
    db.update_index("docs")
    assert db.search("docs", np.float32([1, 1]), 20).num_rows == 5
    assert db.indexes()["unsearchable_rows"].to_pylist() == [6]
    db.write("docs", table_with([None, None]), mode="append")
    version = db.version
    assert db.update_index("docs") == version, "of a file without a vector there is nothing to index"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"column": "colour"}, "'colour' is not in table 'docs'"),
        ({"column": "title"}, "lists of numbers"),
        ({"column": "tags"}, "lists of numbers"),
        ({"column": "embedding", "metric": "manhattan"}, "manhattan"),
        ({"column": "embedding", "tenant": "nobody"}, "'nobody'"),
        ({"column": "embedding", "tenant": "embedding"}, "texts or whole numbers"),
        ({"column": "embedding", "public": "everyone"}, "tenant"),
        ({"column": "embedding", "attributes": "year"}, "lists of column names"),
        ({"column": "embedding", "attributes": ["yeer"]}, "'yeer'"),
        ({"column": "embedding", "attributes": ["embedding"]}, "'embedding'"),
        ({"column": "embedding", "include": ["yeer"]}, "'yeer'"),
        ({"column": "embedding", "seed": -1}, "seed"),
        ({"column": "embedding", "threads": 0}, "threads"),
    ],
)
def test_an_index_that_cannot_be(db: Any, how: dict[str, Any], words: str) -> None:
    db.write("docs", docs(0, 10))
    version = db.version
    with pytest.raises(InvalidInput, match=words):
        db.create_index("docs", **how)
    assert db.version == version


def test_tables_that_can_have_no_index(db: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    with pytest.raises(NotFound, match="docs"):
        db.create_index("docs", "embedding")
    pq.write_table(docs(0, 10), tmp_path / "raw.parquet")
    db.attach("raw", tmp_path / "raw.parquet")
    with pytest.raises(InvalidInput, match="import_table"):
        db.create_index("raw", "embedding")
    db.write("docs", table_with([]))
    with pytest.raises(InvalidInput, match="dimensions"):
        db.create_index("docs", "embedding")
    with pytest.raises(NotFound, match="create_index"):
        db.search("docs", np.float32([1]))
    db.write("empty", docs(0, 0))
    db.create_index("empty", "embedding", attributes=["year"])
    assert db.search("empty", vectors(1, 0)[0], where="year > 3").num_rows == 0
    db.write("empty", docs(0, 5), mode="append")
    assert db.search("empty", vectors(1, 0)[0]).num_rows == 5


def test_questions_that_cannot_be(db: Any) -> None:
    db.write("docs", docs(0, 10))
    db.create_index("docs", "embedding")
    q = vectors(1, 0)[0]
    with pytest.raises(InvalidInput, match="shape"):
        db.search("docs", q[:3])
    with pytest.raises(InvalidInput, match="float32"):
        db.search("docs", q.astype(np.float64))
    with pytest.raises(InvalidInput, match="'colour'"):
        db.search("docs", q, columns=["colour"])
    with pytest.raises(InvalidInput, match="list of names"):
        db.search("docs", q, columns="title")
    with pytest.raises(InvalidInput, match="knows no tenants"):
        db.search("docs", q, tenant="acme")
    with pytest.raises(InvalidInput, match="k 0"):
        db.search("docs", q, 0)
    with pytest.raises(InvalidInput, match="pinned"):
        db.at(db.version).create_index("docs", "embedding")


def test_explained(db: Any) -> None:
    db.write("docs", docs(0, 100))
    db.create_index("docs", "embedding", attributes=["year"])
    db.write("docs", docs(100, 20), mode="append")
    steps = db.explain_search("docs", where="year = 2003")
    assert [(step.unit, step.rows) for step in steps] == [("segment", 100), ("delta", 20)]
    rows = db.table("docs").to_arrow(where="year = 2003")
    assert sum(step.matches for step in steps) == rows.num_rows
