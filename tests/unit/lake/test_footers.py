"""Footers: read as pyarrow reads them, kept until the file changes, refused with a reason."""

from __future__ import annotations

import os
import threading

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.lake import footers as module
from lakelet.lake.errors import Conflict, Corrupt, InvalidInput, LakeletError, LimitExceeded, NotFound, Unavailable
from lakelet.lake.footers import FileState, FooterCache, file_state

WIDE = pa.table({f"column_{i:05}": [i] for i in range(3_000)})
SMALL = pa.table({"a": [1, 2, 3], "b": ["x", None, "z"]})


def state_of(path):
    return file_state(str(path), os.stat(path))


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.parquet"
    pq.write_table(SMALL, path)
    return path


@pytest.mark.parametrize("table", [SMALL, WIDE], ids=["one read", "footer above the first read"])
def test_a_footer_is_what_pyarrow_reads(tmp_path, table):
    path = tmp_path / "t.parquet"
    pq.write_table(table, path)
    footer = FooterCache().read(state_of(path))
    assert footer.metadata.equals(pq.read_metadata(path))
    assert footer.schema.equals(pq.read_schema(path), check_metadata=True)
    assert footer.num_rows == table.num_rows
    assert pq.ParquetFile(path, metadata=footer.metadata).read().equals(table)


def test_the_wide_footer_is_longer_than_the_first_read(tmp_path):
    pq.write_table(WIDE, tmp_path / "t.parquet")
    assert FooterCache().read(state_of(tmp_path / "t.parquet")).num_bytes > module.TAIL_BYTES


def test_a_footer_is_parsed_once_and_again_when_the_file_changed(small):
    cache = FooterCache()
    first = cache.read(state_of(small))
    assert cache.read(state_of(small)) is first
    pq.write_table(SMALL.slice(1), small)
    second = cache.read(state_of(small))
    assert second is not first
    assert second.num_rows == 2


def test_a_copy_with_the_same_size_and_time_is_another_file(small, tmp_path):
    before = state_of(small)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [7, 8, 9], "b": ["x", None, "z"]}), other)
    assert other.stat().st_size == small.stat().st_size
    os.utime(other, ns=(small.stat().st_atime_ns, small.stat().st_mtime_ns))
    os.replace(other, small)
    assert small.stat().st_mtime_ns == int(before.stamp.split(".")[0])
    assert state_of(small) != before


def test_memory_is_bounded_and_the_oldest_go_first(tmp_path):
    states = []
    for i in range(10):
        pq.write_table(SMALL, tmp_path / f"{i}.parquet")
        states.append(state_of(tmp_path / f"{i}.parquet"))
    one = FooterCache().read(states[0]).held_bytes
    cache = FooterCache(max_bytes=3 * one)
    kept = cache.read_many(states)
    assert cache.held_bytes <= 3 * one
    assert cache.read(states[-1]) is kept[-1]
    assert cache.read(states[0]) is not kept[0]


def broken(path, data: bytes) -> LakeletError:
    path.write_bytes(data)
    (found,) = FooterCache().read_many([state_of(path)])
    assert isinstance(found, LakeletError)
    assert str(path) in str(found)
    return found


def test_what_is_no_parquet_file_is_refused(tmp_path, small):
    good = small.read_bytes()
    path = tmp_path / "bad.parquet"
    assert "0 bytes" in str(broken(path, b""))
    assert type(broken(path, b"")) is InvalidInput
    assert type(broken(path, b"PAR1")) is InvalidInput
    assert type(broken(path, b"id,name\n" * 10)) is InvalidInput
    assert type(broken(path, good[:-4] + b"PARE")) is InvalidInput


def test_what_is_damaged_names_the_offset(tmp_path, small):
    good = small.read_bytes()
    path = tmp_path / "bad.parquet"
    truncated = broken(path, good[:-20])
    assert isinstance(truncated, Corrupt)
    assert (truncated.path, truncated.offset) == (str(path), len(good) - 24)
    beyond = broken(path, good[:-8] + (len(good)).to_bytes(4, "little") + b"PAR1")
    assert isinstance(beyond, Corrupt)
    assert beyond.offset == len(good) - 8
    assert isinstance(broken(path, good[:-8] + bytes(4) + b"PAR1"), Corrupt)
    length = int.from_bytes(good[-8:-4], "little")
    garbled = broken(path, good[: -8 - length] + b"\xff" * length + good[-8:])
    assert isinstance(garbled, Corrupt)
    assert garbled.offset == len(good) - 8 - length


def test_every_truncation_is_a_typed_error(tmp_path, small):
    good = small.read_bytes()
    path = tmp_path / "bad.parquet"
    for length in range(len(good)):
        assert isinstance(broken(path, good[:length]), Corrupt | InvalidInput)


def test_a_huge_footer_is_refused_before_it_is_read(tmp_path):
    found = broken(tmp_path / "bad.parquet", b"PAR1" + (2**31).to_bytes(4, "little") + b"PAR1")
    assert type(found) is LimitExceeded


def test_missing_unreadable_and_changed_files(tmp_path, small, monkeypatch):
    state = state_of(small)
    assert type(FooterCache().read_many([FileState(str(tmp_path / "no"), 99, "")])[0]) is NotFound
    assert type(FooterCache().read_many([FileState(state.path, state.num_bytes, "0.0")])[0]) is Conflict
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert type(FooterCache().read_many([state])[0]) is Unavailable


def test_read_raises_what_read_many_returns(tmp_path):
    with pytest.raises(NotFound, match="not there"):
        FooterCache().read(FileState(str(tmp_path / "no"), 99, ""))


def test_one_bad_file_does_not_hide_the_others(tmp_path, small):
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"no parquet file at all")
    first, second, third = FooterCache().read_many([state_of(small), state_of(bad), state_of(small)])
    assert first is not None
    assert isinstance(second, InvalidInput)
    assert third.num_rows == 3


def test_remote_footers_in_two_rounds_of_ranges():
    filesystem = fsspec.filesystem("memory")
    states = []
    for name, table in (("small", SMALL), ("wide", WIDE), ("bad", None), ("short", None)):
        path = f"/footers/{name}.parquet"
        if table is None:
            filesystem.pipe(path, b"PAR1 and no more" if name == "bad" else b"x")
        else:
            with filesystem.open(path, "wb") as file:
                pq.write_table(table, file)
        states.append(FileState(f"memory://{path}", filesystem.size(path), ""))
    states.append(FileState("memory:///footers/gone.parquet", 100, ""))
    small, wide, bad, short, gone = FooterCache().read_many(states, filesystem)
    assert small.num_rows == 3
    assert wide.schema.equals(WIDE.schema)
    assert isinstance(bad, Corrupt)
    assert isinstance(short, InvalidInput)
    assert isinstance(gone, NotFound)


def test_many_threads_share_the_cache(tmp_path):
    states = []
    for i in range(40):
        pq.write_table(SMALL, tmp_path / f"{i}.parquet")
        states.append(state_of(tmp_path / f"{i}.parquet"))
    cache = FooterCache(max_bytes=20_000)
    failures = []

    def work(offset):
        found = cache.read_many(states[offset:] + states[:offset])
        failures.extend(footer for footer in found if footer.num_rows != 3)

    threads = [threading.Thread(target=work, args=(i * 5,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert 0 < cache.held_bytes <= 20_000
