"""What every store promises, on each adapter."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.lake.errors import InvalidInput, NotFound, Unavailable
from lakelet.lake.fsspec_store import FsspecStore
from lakelet.lake.local_store import LocalStore
from lakelet.lake.stores import open_store, probe, store_time_us

if TYPE_CHECKING:
    from pathlib import Path

    from lakelet.lake.store import Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path / "lake" if request.param == "local" else f"memory://{uuid.uuid4().hex}/lake")


def test_create_makes_an_object_once(store: Store) -> None:
    assert store.create("_lakelet/log/1.json", b"first")
    assert not store.create("_lakelet/log/1.json", b"second")
    assert store.get("_lakelet/log/1.json") == b"first"


def test_create_has_one_winner_among_threads(store: Store) -> None:
    for slot in range(20):
        won: list[int] = []
        barrier = threading.Barrier(8)

        def run(me: int, slot: int = slot, won: list[int] = won, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            if store.create(f"log/{slot}", b"%d" % me * 1000):
                won.append(me)

        threads = [threading.Thread(target=run, args=(me,)) for me in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.get(f"log/{slot}") == b"%d" % won[0] * 1000


def test_put_replaces(store: Store) -> None:
    store.put("hint", b"old")
    store.put("hint", b"")
    assert store.get("hint") == b""
    store.put("hint", b"new")
    assert store.get("hint") == b"new"


def test_reading_what_is_not_there(store: Store) -> None:
    with pytest.raises(NotFound, match="nothing/here"):
        store.get("nothing/here")
    assert not store.exists("nothing/here")
    assert list(store.list("nothing/")) == []
    store.delete(["nothing/here"])


def test_get_many_keeps_order_and_gaps(store: Store) -> None:
    store.put("a/1", b"one")
    store.put("a/3", b"three")
    assert store.get_many(["a/3", "a/2", "a/1", "a/3"]) == [b"three", None, b"one", b"three"]
    assert store.get_many([]) == []


def test_list_sees_every_depth_and_nothing_else(store: Store) -> None:
    before = store_time_us(store)
    for path in ("data/t/a.parquet", "data/t/b.parquet", "data/u/deep/c", "database/x", "other"):
        store.put(path, b"1234")
    found = {info.path: info for info in store.list("data/")}
    assert sorted(found) == ["data/t/a.parquet", "data/t/b.parquet", "data/u/deep/c"]
    assert all(info.num_bytes == 4 for info in found.values())
    assert all(before <= info.modified_us <= store_time_us(store) for info in found.values())
    assert {"other", "database/x"} <= {info.path for info in store.list("")}
    with pytest.raises(InvalidInput):
        list(store.list("data"))


def test_delete_removes_only_what_is_named(store: Store) -> None:
    store.put("a", b"1")
    store.put("b", b"2")
    store.delete(["a", "gone"])
    assert not store.exists("a")
    assert store.exists("b")
    assert store.create("a", b"again")


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../out", "a/../../out", "a//b", "a/./b", "a/", "nul\0"])
def test_paths_that_leave_the_root_are_refused(store: Store, path: str) -> None:
    for call in (store.get, store.exists, store.full_path, store.sync):
        with pytest.raises(InvalidInput):
            call(path)
    with pytest.raises(InvalidInput):
        store.create(path, b"")
    with pytest.raises(InvalidInput):
        store.put(path, b"")
    with pytest.raises(InvalidInput):
        store.delete([path])


def test_arrow_and_duckdb_read_the_same_objects(store: Store) -> None:
    table = pa.table({"a": list(range(1000)), "b": [f"ü{i}" for i in range(1000)]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    store.put("data/t 1/ü'.parquet", bytes(sink.getvalue()))
    assert pq.read_table("data/t 1/ü'.parquet", filesystem=store.arrow).equals(table)
    with duckdb.connect() as con:
        if store.fsspec is not None:
            con.register_filesystem(store.fsspec)
        found = con.execute("SELECT sum(a) FROM read_parquet(?)", [store.full_path("data/t 1/ü'.parquet")]).fetchone()
    assert found == (499500,)


def test_arrow_readers_do_not_disturb_each_other(store: Store) -> None:
    store.put("data/t/a", b"0123456789" * 1000)
    with store.arrow.open_input_file("data/t/a") as one, store.arrow.open_input_file("data/t/a") as two:
        assert one.read(5) == b"01234"
        assert two.read(3) == b"012"
        assert one.read(3) == b"567"


def test_what_arrow_wrote_can_be_synced(store: Store) -> None:
    store.arrow.create_dir("data/t", recursive=True)
    with store.arrow.open_output_stream("data/t/x") as out:
        out.write(b"hello")
    store.sync("data/t/x")
    assert store.get("data/t/x") == b"hello"


def test_probe_accepts_and_leaves_nothing(store: Store) -> None:
    probe(store)
    assert list(store.list("")) == []


def test_probe_refuses_a_store_whose_create_overwrites(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(path: str, data: bytes) -> bool:
        store.put(path, data)
        return True

    monkeypatch.setattr(store, "create", careless)
    with pytest.raises(Unavailable, match="create-if-absent"):
        probe(store)
    assert list(store.list("")) == []


def test_addresses(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path)), LocalStore)
    assert open_store(f"file://{tmp_path}").uri == str(tmp_path)
    assert isinstance(open_store("memory://x/y"), FsspecStore)
    assert open_store("memory://x/y").full_path("data/t/f") == "memory://x/y/data/t/f"
    with pytest.raises(InvalidInput, match="nosuchprotocol"):
        open_store("nosuchprotocol://x")
    with pytest.raises(InvalidInput):
        open_store("")
    with pytest.raises(InvalidInput, match="storage_options"):
        open_store(str(tmp_path), {"key": "x"})


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    def missing(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(Unavailable, match=r"pip install 'lakelet\[s3\]'"):
        open_store("s3://bucket/lake")


def test_memory_lakes_are_shared_inside_the_process() -> None:
    name = f"memory://{uuid.uuid4().hex}"
    open_store(name).put("a", b"1")
    assert open_store(name).get("a") == b"1"
    assert not open_store(name).create("a", b"2")
