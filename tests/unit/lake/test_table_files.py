"""Fragments, files, layout, deletions: what one data file promises and what happens when it breaks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.lake.changes import DataFile, DeletionFile
from lakelet.lake.deletions import deleted_positions, read_deletions, write_deletions
from lakelet.lake.errors import Corrupt, InvalidInput, InvalidSQL, NotFound
from lakelet.lake.fragment import Fragment
from lakelet.lake.incoming import open_reader
from lakelet.lake.layout import ParquetLayout
from lakelet.lake.local_store import LocalStore
from lakelet.lake.schema import encode_schema
from lakelet.lake.snapshot import OwnedTable
from lakelet.lake.statistics import decode_bounds
from lakelet.lake.stores import open_store
from lakelet.lake.table import Table, owned_table
from lakelet.lake.writer import write_files

TABLE = pa.table({"i": range(10), "s": [f"v{i}" for i in range(10)], "f": [i / 3 for i in range(10)]})


def written(store: Any, table: pa.Table, **layout: Any) -> tuple[DataFile, ...]:
    return write_files(store, "t", open_reader(table), table.schema, 0, ParquetLayout(**layout))


def as_table(store: Any, files: tuple[DataFile, ...], schema: pa.Schema) -> Table:
    return owned_table(store, OwnedTable("t", "t", (encode_schema(schema),), {f.file_id: f for f in files}), 3)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.mark.parametrize("uri", ["local", "memory://owned-tables"])
def test_rows_and_files_on_each_store(tmp_path: Path, uri: str) -> None:
    store = LocalStore(tmp_path) if uri == "local" else open_store(uri)
    table = as_table(store, written(store, TABLE, row_group_rows=4, file_bytes=1), TABLE.schema)
    assert len(table.fragments()) == 3
    assert table.to_arrow().equals(TABLE)
    assert table.to_arrow(where="i > 7", columns=["s"]).to_pylist() == [{"s": "v8"}, {"s": "v9"}]
    assert table.files.column("num_rows").to_pylist() == [4, 4, 2]
    assert table.num_bytes == sum(table.files.column("num_bytes").to_pylist())


def test_what_is_at_hand_is_taken(store: LocalStore) -> None:
    import pandas as pd
    import polars as pl

    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    with duckdb.connect() as connection:
        relation = connection.sql("SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL")
        data = [
            frame,
            pl.DataFrame(frame),
            relation,
            {"a": [1, 2], "b": ["x", None]},
            pa.table({"a": [1, 2], "b": ["x", None]}).to_batches()[0],
            pa.table({"a": [1, 2], "b": ["x", None]}).to_reader(),
        ]
        for given in data:
            reader = open_reader(given)
            files = write_files(store, "t", reader, reader.schema, 0, ParquetLayout())
            rows = as_table(store, files, reader.schema).to_arrow().to_pylist()
            assert rows == [{"a": 1, "b": "x"}, {"a": 2, "b": None}], type(given)


@pytest.mark.parametrize("data", [[{"a": 1}], "a", 1, None, object(), pa.array([1])])
def test_what_is_no_table_is_refused(data: Any) -> None:
    with pytest.raises(InvalidInput, match=r"type|Arrow"):
        open_reader(data)


def test_duplicate_columns_are_refused() -> None:
    with pytest.raises(InvalidInput, match="more than one 'a'"):
        open_reader(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))


def test_a_failing_reader_leaves_no_file(store: LocalStore, tmp_path: Path) -> None:
    def batches() -> Any:
        yield from TABLE.to_batches()
        raise RuntimeError("the source broke")

    reader = pa.RecordBatchReader.from_batches(TABLE.schema, batches())
    with pytest.raises(RuntimeError, match="the source broke"):
        write_files(store, "t", reader, TABLE.schema, 0, ParquetLayout(row_group_rows=3, file_bytes=1))
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([2**60], pa.timestamp("s")), "timestamp"),
        (pa.array([86_400_001], pa.date64()), "86400001"),
    ],
)
def test_values_that_parquet_cannot_hold_name_their_column(
    store: LocalStore, tmp_path: Path, column: pa.Array, words: str
) -> None:
    with pytest.raises(InvalidInput, match=f"column 'c'.*{words}"):
        written(store, pa.table({"c": column}))
    assert not list(tmp_path.rglob("*.parquet"))


def test_not_null_is_kept(store: LocalStore) -> None:
    schema = pa.schema([pa.field("a", pa.int8(), nullable=False)])
    with pytest.raises(InvalidInput, match="'a' is declared not null"):
        write_files(store, "t", open_reader({"a": [1, None]}), schema, 0, ParquetLayout())


def test_statistics_go_into_the_log(store: LocalStore) -> None:
    table = pa.table(
        {"f": [1.0, float("nan"), None], "d": pa.array(["x", "y", None]).dictionary_encode(), "l": [[1]] * 3}
    )
    (file,) = written(store, table)
    known = decode_bounds(file.stats)
    assert (known["f"].min, known["f"].max, known["f"].nan_count, known["f"].null_count) == (1.0, 1.0, 1, 1)
    assert (known["d"].min, known["d"].max, known["d"].min_exact) == ("x", "y", True)
    assert "l" not in known


def test_encodings_follow_the_data(store: LocalStore, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    table = pa.table(
        {
            "id": np.arange(50_000),
            "few": generator.integers(0, 10, 50_000),
            "noise": generator.random(50_000),
            "name": [f"{i * 7919 % 50_000:x}" for i in range(50_000)],
            "vector": pa.FixedSizeListArray.from_arrays(generator.random(100_000, dtype=np.float32), 2),
        }
    )
    written(store, table)
    (path,) = tmp_path.rglob("*.parquet")
    group = pq.read_metadata(path).row_group(0)
    encodings = {group.column(i).path_in_schema: set(group.column(i).encodings) for i in range(group.num_columns)}
    assert "DELTA_BINARY_PACKED" in encodings["id"]
    assert "RLE_DICTIONARY" in encodings["few"]
    assert "BYTE_STREAM_SPLIT" in encodings["noise"]
    assert "RLE_DICTIONARY" not in encodings["name"]
    assert "BYTE_STREAM_SPLIT" in encodings["vector.list.element"]
    assert [order.column_index for order in group.sorting_columns] == [0]
    assert group.column(0).compression == "ZSTD"
    assert group.column(0).has_offset_index
    pq.write_table(table, tmp_path / "plain.parquet")
    assert path.stat().st_size < (tmp_path / "plain.parquet").stat().st_size


def test_a_promise_of_order_is_kept_or_not_made(store: LocalStore, tmp_path: Path) -> None:
    table = pa.table({"i": [1, 2, 3, 4, 9, 8, 7, 6, 1, 2]})
    files = written(store, table, row_group_rows=2)
    assert as_table(store, files, table.schema).to_arrow().equals(table)
    for path in tmp_path.rglob("*.parquet"):
        metadata = pq.read_metadata(path)
        for i in range(metadata.num_row_groups):
            values = pq.ParquetFile(path).read_row_group(i).column(0).to_pylist()
            if metadata.row_group(i).sorting_columns:
                assert values == sorted(values)


def test_memory_is_bounded_by_row_groups(store: LocalStore) -> None:
    alive: list[int] = []
    batch = pa.record_batch({"x": np.zeros(10_000)})

    def batches() -> Any:
        for _ in range(200):
            alive.append(pa.total_allocated_bytes())
            yield pa.record_batch({"x": pa.array(np.random.default_rng(0).random(10_000))})

    reader = pa.RecordBatchReader.from_batches(batch.schema, batches())
    files = write_files(store, "t", reader, batch.schema, 0, ParquetLayout(row_group_bytes=200_000, file_bytes=10**6))
    assert sum(file.num_rows for file in files) == 2_000_000
    assert len(files) > 3
    assert max(alive) - min(alive) < 8_000_000  # all rows are 16 MB


def test_a_narrow_dictionary_that_overflows_is_refused(store: LocalStore) -> None:
    kind = pa.dictionary(pa.int8(), pa.string())
    chunks = [pa.array([f"{part}-{i}" for i in range(100)]).dictionary_encode().cast(kind) for part in range(2)]
    table = pa.table({"c": pa.chunked_array(chunks)})
    with pytest.raises(InvalidInput, match="'c' has 200 different values"):
        written(store, table)
    assert as_table(store, written(store, table, row_group_rows=100), table.schema).to_arrow().equals(table)


# --- one file of any origin ----------------------------------------------------------------------------------------


def fragment(path: Path, schema: pa.Schema, **more: Any) -> Fragment:
    return Fragment(str(path), schema, identity=str(path), num_bytes=os.path.getsize(path), **more)


def test_a_file_read_as_another_schema(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"b": pa.array([1, 2, 3], pa.int32()), "x": ["p", "q", "r"], "unused": [0, 0, 0]}), path)
    schema = pa.schema([("new", pa.string()), ("x", pa.large_string()), ("b", pa.int64()), ("p", pa.int16())])
    found = fragment(path, schema, constants={"p": pa.scalar(7)}, deletions=lambda: np.array([1]), num_deleted_rows=1)
    expected = [{"new": None, "x": "p", "b": 1, "p": 7}, {"new": None, "x": "r", "b": 3, "p": 7}]
    assert found.read().to_pylist() == expected
    assert found.read().schema.equals(schema)
    assert found.read(["p", "new"]).to_pylist() == [{"p": 7, "new": None}] * 2
    assert found.read([]).num_rows == 2
    assert found.positions().tolist() == [0, 2]
    assert found.num_rows == 2
    assert (found.bounds()["b"].min, found.bounds()["b"].max_exact) == (1, False)
    assert found.bounds(["p"])["p"].min == 7
    assert 0 < found.column_bytes()["b"] < sum(found.column_bytes().values())


def test_row_groups_and_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path, row_group_size=4)
    found = fragment(path, TABLE.schema, deletions=lambda: np.array([0, 5, 9]), num_deleted_rows=3)
    assert [part.column("i").to_pylist() for part in found.batches(["i"])] == [[1, 2, 3], [4, 6, 7], [8]]
    assert found.read(["i"], [2, 0]).column(0).to_pylist() == [8, 1, 2, 3]
    assert found.positions([2, 0]).tolist() == [8, 1, 2, 3]
    assert found.read(["i"], []).num_rows == 0
    assert found.read([], [1]).num_rows == 3


def test_columns_with_dots_and_structs_of_the_same_path(tmp_path: Path) -> None:
    table = pa.table({"a.b": [1, 2], "a": [{"b": 3}, {"b": 4}], "a.b.c": ["x", "y"]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    found = fragment(path, table.schema)
    for name in table.schema.names:
        assert found.read([name]).equals(table.select([name]))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "other"])
def test_a_broken_file_is_a_typed_error(store: LocalStore, tmp_path: Path, damage: str) -> None:
    table = as_table(store, written(store, TABLE), TABLE.schema)
    (path,) = tmp_path.rglob("*.parquet")
    data = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        path.write_bytes(data[:40] + bytes([data[40] ^ 255]) + data[41:])
    elif damage == "other":
        path.write_bytes(b"hello" * 20)
    with pytest.raises(NotFound if damage == "gone" else Corrupt) as caught:
        table.to_arrow()
    assert str(path) in str(caught.value)


def test_scan_arguments_are_checked_before_the_first_batch(store: LocalStore) -> None:
    table = as_table(store, written(store, TABLE), TABLE.schema)
    for call in (table.scan, table.to_arrow):
        with pytest.raises(InvalidInput, match=r"no column 'nope'; it has 'i', 's', 'f'"):
            call(columns=["nope"])
        with pytest.raises(InvalidInput, match="once each"):
            call(columns=["i", "i"])
        with pytest.raises(InvalidInput, match="write \\['i'\\]"):
            call(columns="i")
        with pytest.raises(InvalidSQL):
            call(where="i >")
        with pytest.raises(InvalidInput, match="without a where"):
            call(params={"x": 1})


def test_batches_of_a_scan_are_bounded(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakelet.lake.table.SCAN_BATCH_ROWS", 3)
    table = as_table(store, written(store, TABLE), TABLE.schema)
    assert [batch.num_rows for batch in table.scan()] == [3, 3, 3, 1]
    assert sum(batch.num_rows for batch in table.scan(columns=[])) == 10


def test_files_that_cannot_match_are_not_opened(store: LocalStore, tmp_path: Path) -> None:
    table = as_table(store, written(store, TABLE, row_group_rows=5, file_bytes=1), TABLE.schema)
    os.unlink(table.fragments()[0].path)
    assert table.to_arrow(where="i >= 5").num_rows == 5
    assert table.to_arrow(where="i = $i", params={"i": 7}).num_rows == 1
    with pytest.raises(NotFound):
        table.to_arrow(where="i >= 4")


# --- deletion files ------------------------------------------------------------------------------------------------


def test_deletions_survive(store: LocalStore) -> None:
    (file,) = written(store, TABLE)
    deletion = write_deletions(store, "t", file, np.array([0, 3, 9]))
    assert deletion.rows == 3
    file = file.with_deletion(deletion)
    assert read_deletions(store, file).tolist() == deleted_positions(store, deletion).tolist() == [0, 3, 9]
    assert as_table(store, (file,), TABLE.schema).to_arrow(["i"]).column(0).to_pylist() == [1, 2, 4, 5, 6, 7, 8]


def test_many_deletions_are_small(store: LocalStore) -> None:
    file = DataFile("f", "data/t/f.parquet", 1_000_000, 1, 0)
    deletion = write_deletions(store, "t", file, np.arange(999_999))
    assert deletion.num_bytes < 20_000


@pytest.mark.parametrize("how", ["rows", "range", "order", "negative", "bytes"])
def test_deletions_that_make_no_sense_are_corrupt(store: LocalStore, how: str) -> None:
    (file,) = written(store, TABLE)
    deletion = write_deletions(store, "t", file, np.array([0, 3, 9]))
    if how == "rows":
        file = file.with_deletion(DeletionFile(deletion.path, 2, deletion.num_bytes))
    elif how == "range":
        file = replace(file, num_rows=9).with_deletion(deletion)
    elif how == "bytes":
        store.put(deletion.path, store.get(deletion.path)[:-9])
        file = file.with_deletion(deletion)
    else:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"pos": [3, 0, 9] if how == "order" else [-1, 0, 9]}), sink)
        store.put(deletion.path, sink.getvalue().to_pybytes())
        file = file.with_deletion(deletion)
    with pytest.raises(Corrupt) as caught:
        read_deletions(store, file)
    assert caught.value.path == deletion.path
