"""Segments of an index over a table: made, joined, given up, fetched, and missed."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import lakelet
import pyarrow as pa
import pytest
from lake_docs import check, docs, nearest, vectors
from lakelet.lake.errors import Conflict, Corrupt, InvalidInput, LimitExceeded, NotFound, Unavailable
from lakelet.vector import open_index, segment_files, table_upkeep


def test_new_rows_go_into_the_index(db: Any) -> None:
    db.write("docs", docs(0, 100))
    db.create_index("docs", "embedding", attributes=["year"])
    for first in range(100, 200, 20):
        db.write("docs", docs(first, 20), mode="append")
    assert db.indexes()["indexed_rows"].to_pylist() == [100]
    assert "delta" in [step.unit for step in db.explain_search("docs")]
    before, version = db.version, db.update_index("docs")
    assert {step.unit for step in db.at(before).explain_search("docs")} == {"segment"}, (
        "those made later cover its files"
    )
    assert {step.unit for step in db.explain_search("docs")} == {"segment"}
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
    stages: list[str] = []

    def note(stage: str, done: int, total: int) -> None:
        stages.append(stage.partition(" ")[0])

    with monkeypatch.context() as patch:
        patch.setattr(table_upkeep, "VECTOR_SEGMENT_BYTES", 12_000)
        db.create_index("docs", "embedding", tenant="team", attributes=["tags"], progress=note)
    assert stages.index("indexing") < len(stages) - 1 - stages[::-1].index("reading"), "not all is read at first"
    assert db.indexes()["segments"].to_pylist()[0] > 1
    check(db, tenant=lakelet.ALL_TENANTS, where="list_contains(tags, 'odd')")
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


def test_searches_go_on_while_an_index_is_made(db: Any) -> None:
    db.write("docs", docs(0, 50))
    db.create_index("docs", "embedding", attributes=["year"])
    stages = set()

    def search(stage: str, done: int, total: int) -> None:
        stages.add(stage.partition(" ")[0])
        thread = threading.Thread(target=lambda: finished.append(check(db, where="year > 2003")))
        thread.start()
        thread.join(30)

    for rebuild in (False, True):
        finished: list[None] = []
        db.write("docs", docs(db.table("docs").num_rows, 50), mode="append")
        db.update_index("docs", rebuild=rebuild, progress=search)
        assert stages == {"reading", "indexing"}
        assert len(finished) >= 4, "a search waited for the index"


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


def test_bytes_that_are_not_those_of_the_commit_are_refused(cache: Path) -> None:
    uri = f"memory://lake-{time.time_ns()}"
    with lakelet.connect(uri) as db:
        db.write("docs", docs(0, 100))
        db.create_index("docs", "embedding")
        store = db._catalog.store
        (segment,) = (each for each in store.list("data/") if each.path.endswith(".segment"))
        whole = store.get(segment.path)
        store.put(segment.path, whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(Corrupt, match=r"is not what was committed.*rebuild"):
            db.search("docs", vectors(1, 0)[0])
        assert not [path for path in cache.rglob("*") if path.is_file()]
        store.put(segment.path, whole)
        check(db)


def test_without_a_folder_for_copies_nothing_is_lost(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with lakelet.connect(f"memory://lake-{time.time_ns()}") as db:
        db.write("docs", docs(0, 100))
        db.create_index("docs", "embedding")
        monkeypatch.setenv("LAKELET_CACHE_DIR", str(tmp_path / "file"))
        with pytest.raises(Unavailable, match="cannot be fetched to"):
            db.search("docs", vectors(1, 0)[0])
        with pytest.raises(Unavailable, match="set LAKELET_CACHE_DIR"):
            db.update_index("docs", rebuild=True)
        monkeypatch.setenv("LAKELET_CACHE_DIR", str(cache))
        check(db)


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


def test_rows_of_files_that_left_do_not_come_back(db: Any) -> None:
    db.write("docs", docs(0, 100))
    db.write("docs", docs(100, 60), mode="append")
    db.create_index("docs", "embedding", attributes=["year"])
    db.delete("docs", "id < 100")  # the whole file
    db.write("docs", docs(200, 60), mode="append")
    assert db.table("docs").files.num_rows == 2
    db.update_index("docs")
    assert db.indexes().select(["segments", "indexed_rows"]).to_pylist() == [{"segments": 1, "indexed_rows": 120}]
    check(db, k=200)
    check(db, k=200, where="year > 2003")


def test_processes_may_meet_tenants_in_another_order(db: Any) -> None:
    db.write("docs", docs(0, 40))
    db.create_index("docs", "embedding", tenant="team")
    q = vectors(1, 5)[0]
    db.search("docs", q, tenant="acme")
    late = docs(0, 40).set_column(2, "team", pa.array(["zed", "bolt", "acme", "yan"] * 10))
    db.write("docs", late, mode="overwrite")
    db.search("docs", q, tenant="zed")
    with lakelet.connect(db.uri) as other:
        other.update_index("docs")
    for team in ("zed", "bolt", "acme", "yan"):
        mine = late.filter(pa.array([each == team for each in late["team"].to_pylist()]))
        assert db.search("docs", q, 100, team)["id"].to_pylist() == nearest(mine, q, 100)
