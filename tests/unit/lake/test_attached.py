"""Attached locations: one table of many files, looked at again on each use."""

from __future__ import annotations

import datetime as dt
import os
import time

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.lake.attached import Attachment, Attachments, attached_table
from lakelet.lake.discovery import discover
from lakelet.lake.errors import Conflict, Corrupt, InvalidInput, LakeletError, NotFound, Unavailable
from lakelet.lake.listing import place_of


def put(root, relative, table):
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def rows(location, hive=False, attachments=None):
    opened = (attachments or Attachments()).open(str(location), hive)
    return attached_table("t", opened, 1).to_arrow()


def settle():
    """Wait until a folder that just changed may be told by its time from one that changes now."""
    time.sleep(0.06)


# --- what is one table -------------------------------------------------------------------------------------------


def test_a_file_a_folder_and_a_glob(tmp_path):
    for i in range(3):
        put(tmp_path, f"d/{i}.parquet", pa.table({"a": [i]}))
    put(tmp_path, "d/_x.parquet", pa.table({"a": [9]}))
    put(tmp_path, "d/sub/f.parquet", pa.table({"a": [8]}))
    assert rows(tmp_path / "d/1.parquet").to_pydict() == {"a": [1]}
    assert rows(tmp_path / "d").to_pydict() == {"a": [0, 1, 2]}
    assert rows(tmp_path / "d/[02].parquet").to_pydict() == {"a": [0, 2]}
    assert rows(tmp_path / "**/*.parquet").to_pydict() == {"a": [0, 1, 2, 8]}
    assert rows(f"file://{tmp_path}/d").to_pydict() == {"a": [0, 1, 2]}


def test_a_name_with_glob_characters_is_itself(tmp_path):
    put(tmp_path, "[a]*/f?.parquet", pa.table({"a": [1]}))
    put(tmp_path, "a/f1.parquet", pa.table({"a": [2]}))
    assert rows(tmp_path / "[a]*").to_pydict() == {"a": [1]}
    assert rows(tmp_path / "[a]*/f?.parquet").to_pydict() == {"a": [1]}


def test_schemas_unite_by_name(tmp_path):
    put(tmp_path, "d/0.parquet", pa.table({"a": pa.array([1], pa.int32()), "b": ["x"]}))
    put(tmp_path, "d/1.parquet", pa.table({"c": [1.5], "a": pa.array([2**40], pa.int64())}))
    table = rows(tmp_path / "d")
    assert table.schema.equals(pa.schema([("a", pa.int64()), ("b", pa.string()), ("c", pa.float64())]))
    assert table.to_pydict() == {"a": [1, 2**40], "b": ["x", None], "c": [None, 1.5]}


def test_schemas_that_do_not_unite_name_both_files(tmp_path):
    one = put(tmp_path, "d/0.parquet", pa.table({"a": [1]}))
    two = put(tmp_path, "d/1.parquet", pa.table({"a": ["x"]}))
    with pytest.raises(InvalidInput) as caught:
        rows(tmp_path / "d")
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)
    assert "int64" in str(caught.value)


def test_a_not_null_column_that_a_file_lacks_reads_as_null(tmp_path):
    strict = pa.schema([pa.field("a", pa.int64(), nullable=False)])
    put(tmp_path, "d/0.parquet", pa.table({"a": [1]}, schema=strict))
    put(tmp_path, "d/1.parquet", pa.table({"b": [2]}))
    assert rows(tmp_path / "d").to_pydict() == {"a": [1, None], "b": [None, 2]}


def test_metadata_of_one_file_stays_and_of_many_only_what_they_share(tmp_path):
    notes = {b"pandas": b"{}", b"owner": b"me"}
    for i in range(2):
        put(tmp_path, f"d/{i}.parquet", pa.table({"a": [i]}).replace_schema_metadata(notes))
    assert Attachments().open(str(tmp_path / "d/0.parquet")).schema.metadata == notes
    assert Attachments().open(str(tmp_path / "d")).schema.metadata == {b"owner": b"me"}
    put(tmp_path, "d/2.parquet", pa.table({"a": [2]}))
    assert not Attachments().open(str(tmp_path / "d")).schema.metadata


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "20", "-3"], pa.int64(), [1, 20, -3]),
        (["01", "2"], pa.string(), ["01", "2"]),
        (["1", "x"], pa.string(), ["1", "x"]),
        (["9223372036854775807", "0"], pa.int64(), [2**63 - 1, 0]),
        (["9223372036854775808", "0"], pa.string(), ["9223372036854775808", "0"]),
        (["2024-02-29", "2020-01-01"], pa.date32(), [dt.date(2024, 2, 29), dt.date(2020, 1, 1)]),
        (["2023-02-29"], pa.string(), ["2023-02-29"]),
        (["1", "__HIVE_DEFAULT_PARTITION__"], pa.int64(), [1, None]),
        (["__HIVE_DEFAULT_PARTITION__"], pa.string(), [None]),
        (["a%2Fb%20c", "x=y", "%25", "it's"], pa.string(), ["a/b c", "x=y", "%", "it's"]),
        ([""], pa.string(), [""]),
    ],
)
def test_partition_columns_are_typed_over_all_folders(tmp_path, values, kind, expected):
    for i, value in enumerate(values):
        put(tmp_path, f"d/k={value}/f.parquet", pa.table({"n": [i]}))
    table = rows(tmp_path / "d", hive=True)
    assert table.schema.field("k").type == kind
    assert dict(zip(table["n"].to_pylist(), table["k"].to_pylist(), strict=True)) == dict(enumerate(expected))


def test_a_partition_column_that_the_files_hold_is_read_from_them(tmp_path):
    put(tmp_path, "d/k=1/f.parquet", pa.table({"k": [7.5]}))
    assert rows(tmp_path / "d", hive=True).to_pydict() == {"k": [7.5]}


def test_folders_of_different_keys_name_both_files(tmp_path):
    put(tmp_path, "d/a=1/f.parquet", pa.table({"n": [1]}))
    put(tmp_path, "d/b=1/f.parquet", pa.table({"n": [1]}))
    with pytest.raises(InvalidInput, match=r"(?s)a=1.*b=1.*keys"):
        rows(tmp_path / "d", hive=True)
    put(tmp_path, "e/a=1/a=2/f.parquet", pa.table({"n": [1]}))
    with pytest.raises(InvalidInput, match="two folders"):
        rows(tmp_path / "e", hive=True)


def test_whether_a_folder_looks_partitioned(tmp_path):
    put(tmp_path, "h/a=1/b=2/f.parquet", pa.table({"n": [1]}))
    put(tmp_path, "flat/f.parquet", pa.table({"n": [1]}))
    put(tmp_path, "both/f.parquet", pa.table({"n": [1]}))
    put(tmp_path, "both/a=1/f.parquet", pa.table({"n": [1]}))
    looks = Attachments().looks_partitioned
    found = {name: looks(str(tmp_path / name)) for name in ("h", "flat", "both", "nothing", "h/a=1")}
    assert found == {"h": True, "flat": False, "both": False, "nothing": False, "h/a=1": True}


@pytest.mark.parametrize("location", ["", "a\0b", "nosuch://x/y"])
def test_locations_that_are_none(location):
    with pytest.raises(InvalidInput):
        Attachments().open(location)


def test_what_is_no_table(tmp_path):
    with pytest.raises(NotFound, match="no"):
        rows(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no Parquet file"):
        rows(tmp_path / "empty")
    with pytest.raises(NotFound):
        rows(tmp_path / "*.parquet")
    with pytest.raises(InvalidInput, match="no columns"):
        rows(put(tmp_path, "none.parquet", pa.table({})))
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(InvalidInput, match="two columns"):
        rows(put(tmp_path, "twice.parquet", twice))
    (tmp_path / "cut.parquet").write_bytes(put(tmp_path, "x.parquet", pa.table({"a": [1]})).read_bytes()[:-5])
    with pytest.raises(Corrupt):
        rows(tmp_path / "cut.parquet")


# --- looked at again ---------------------------------------------------------------------------------------------


def test_nothing_changed_gives_the_same_object(tmp_path):
    put(tmp_path, "d/0.parquet", pa.table({"a": [1]}))
    settle()
    attachments = Attachments()
    first = attachments.open(str(tmp_path / "d"))
    assert attachments.open(str(tmp_path / "d")) is first
    assert attachments.open(str(tmp_path / "d")).fragments is first.fragments


def test_changed_new_and_gone_files_show(tmp_path):
    zero = put(tmp_path, "d/0.parquet", pa.table({"a": [1]}))
    one = put(tmp_path, "d/1.parquet", pa.table({"a": [2]}))
    settle()
    attachments = Attachments()
    assert rows(tmp_path / "d", attachments=attachments).to_pydict() == {"a": [1, 2]}
    before = attachments.open(str(tmp_path / "d"))
    settle()
    put(tmp_path, "d/2.parquet", pa.table({"a": [3]}))
    after = attachments.open(str(tmp_path / "d"))
    assert after.num_rows == 3
    assert after.footers[0] is before.footers[0]
    assert after.fragments[0].identity == before.fragments[0].identity
    put(tmp_path, "d/1.parquet", pa.table({"a": [20, 21]}))
    changed = attachments.open(str(tmp_path / "d"))
    assert changed.fragments[1].identity != before.fragments[1].identity
    zero.unlink()
    assert rows(tmp_path / "d", attachments=attachments).to_pydict() == {"a": [20, 21, 3]}
    one.unlink()
    (tmp_path / "d/2.parquet").unlink()
    with pytest.raises(NotFound, match=str(tmp_path / "d")):
        attachments.open(str(tmp_path / "d"))


def test_new_files_in_a_new_partition_show(tmp_path):
    put(tmp_path, "d/k=1/f.parquet", pa.table({"a": [1]}))
    settle()
    attachments = Attachments()
    assert attachments.open(str(tmp_path / "d"), True).num_rows == 1
    put(tmp_path, "d/k=2/f.parquet", pa.table({"a": [1]}))
    assert attachments.open(str(tmp_path / "d"), True).num_rows == 2
    settle()
    put(tmp_path, "d/k=2/g.parquet", pa.table({"a": [1]}))
    assert attachments.open(str(tmp_path / "d"), True).num_rows == 3


def test_files_written_within_a_tick_of_the_listing_show(tmp_path):
    attachments = Attachments()
    for i in range(30):
        put(tmp_path, f"d/{i:02}.parquet", pa.table({"a": [i]}))
        assert attachments.open(str(tmp_path / "d")).num_rows == i + 1


def test_a_file_that_changes_after_it_was_opened_is_a_conflict(tmp_path):
    path = put(tmp_path, "f.parquet", pa.table({"a": [1, 2]}))
    table = attached_table("t", Attachments().open(str(path)), 1)
    assert table.to_arrow().num_rows == 2
    put(tmp_path, "f.parquet", pa.table({"a": [3, 4, 5]}))
    with pytest.raises(Conflict, match="changed"):
        table.to_arrow()
    path.unlink()
    with pytest.raises((Conflict, NotFound)):
        table.to_arrow()


def test_many_at_once_with_their_errors_in_place(tmp_path):
    put(tmp_path, "a/f.parquet", pa.table({"a": [1]}))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/f.parquet").write_bytes(b"")
    heard = []
    found = Attachments().open_many(
        [(str(tmp_path / name), False) for name in ("a", "b", "c")], lambda *what: heard.append(what)
    )
    assert isinstance(found[0], Attachment)
    assert isinstance(found[1], InvalidInput)
    assert isinstance(found[2], NotFound)
    assert heard[-1][1:] == (3, 3)


def test_listings_of_discovery_are_taken_over(tmp_path, monkeypatch):
    for i in range(3):
        put(tmp_path, f"{i}/f.parquet", pa.table({"a": [i]}))
    settle()
    attachments = Attachments()
    found = discover(place_of(str(tmp_path)), attachments.footers).tables
    attachments.adopt(table.listing for table in found)
    monkeypatch.setattr(os, "scandir", lambda _: pytest.fail("a folder was listed again"))
    opened = attachments.open_many([(table.location, table.hive) for table in found])
    assert [one.num_rows for one in opened] == [1, 1, 1]


def test_what_is_held_is_bounded(tmp_path):
    for i in range(10):
        put(tmp_path, f"{i}.parquet", pa.table({"a": [i]}))
    one = Attachments().open(str(tmp_path / "0.parquet")).footers[0].held_bytes
    attachments = Attachments(max_bytes=3 * one)
    first = attachments.open(str(tmp_path / "0.parquet"))
    for i in range(1, 10):
        attachments.open(str(tmp_path / f"{i}.parquet"))
    assert attachments.open(str(tmp_path / "9.parquet")).num_rows == 1
    assert attachments.open(str(tmp_path / "0.parquet")) is not first


# --- object stores -----------------------------------------------------------------------------------------------


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    if filesystem.exists("/attached"):
        filesystem.rm("/attached", recursive=True)


def put_remote(filesystem, path, table):
    with filesystem.open(path, "wb") as file:
        pq.write_table(table, file)


def test_a_store_is_listed_each_time_and_read_when_it_changed(memory):
    put_remote(memory, "/attached/d/0.parquet", pa.table({"a": [1]}))
    put_remote(memory, "/attached/d/sub/no.parquet", pa.table({"a": [9]}))
    put_remote(memory, "/attached/h/k=1/f.parquet", pa.table({"a": [5]}))
    attachments = Attachments()
    first = attachments.open("memory://attached/d")
    assert attachments.open("memory://attached/d") is first
    assert rows("memory://attached/d", attachments=attachments).to_pydict() == {"a": [1]}
    assert rows("memory://attached/d/0.parquet").to_pydict() == {"a": [1]}
    assert rows("memory://attached/d/*.parquet").to_pydict() == {"a": [1]}
    assert rows("memory://attached/h", hive=True).to_pydict() == {"a": [5], "k": [1]}
    put_remote(memory, "/attached/d/1.parquet", pa.table({"a": [2]}))
    second = attachments.open("memory://attached/d")
    assert second.num_rows == 2
    assert second.footers[0] is first.footers[0]
    memory.rm("/attached/d", recursive=True)
    with pytest.raises(NotFound, match="memory://attached/d"):
        attachments.open("memory://attached/d")


def test_a_remote_file_that_changes_is_a_conflict(memory):
    put_remote(memory, "/attached/f.parquet", pa.table({"a": [1]}))
    table = attached_table("t", Attachments().open("memory://attached/f.parquet"), 1)
    put_remote(memory, "/attached/f.parquet", pa.table({"a": [1, 2, 3]}))
    with pytest.raises(Conflict):
        table.to_arrow()


def test_many_stores_are_listed_together(memory):
    for i in range(20):
        put_remote(memory, f"/attached/{i}/f.parquet", pa.table({"a": [i]}))
    found = Attachments().open_many([(f"memory://attached/{i}", False) for i in range(21)])
    assert [one.num_rows for one in found[:20] if isinstance(one, Attachment)] == [1] * 20
    assert isinstance(found[20], LakeletError)


def test_a_missing_package_is_unavailable(monkeypatch):
    import fsspec.core

    def missing(*_args, **_kwargs):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(Unavailable, match="s3fs"):
        Attachments().open("s3://bucket/x")
