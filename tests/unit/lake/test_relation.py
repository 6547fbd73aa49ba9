"""The SELECT of a table: what DuckDB may prune, what it must take literally, what there is without files."""

from __future__ import annotations

import re

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.lake.attached import Attachments
from lakelet.lake.changes import DataFile
from lakelet.lake.deletions import write_deletions
from lakelet.lake.errors import InvalidSQL
from lakelet.lake.local_store import LocalStore
from lakelet.lake.relation import SourceFile, attached_relation, owned_relation, select_text
from lakelet.lake.schema import encode_schema
from lakelet.lake.snapshot import OwnedTable
from lakelet.lake.sql_text import column_names, sql_type

SCHEMA = pa.schema([("a", pa.int64())])


def scanned(con, query):
    """Files and row groups that DuckDB says it read."""
    plan = con.sql("EXPLAIN ANALYZE " + query).fetchall()[0][1]
    groups = re.search(r"Row Groups Scanned: (\d+) / (\d+)", plan)
    files = re.search(r"Total Files Read: (\d+)", plan)
    assert files, plan
    return int(files[1]), groups and (int(groups[1]), int(groups[2]))


@pytest.fixture
def con():
    with duckdb.connect() as made:
        yield made


def test_files_of_one_schema_are_one_scan_that_prunes(tmp_path, con):
    for i in range(4):
        pq.write_table(pa.table({"a": np.arange(i * 1000, i * 1000 + 1000)}), tmp_path / f"{i}.parquet")
    text = attached_relation(Attachments().open(str(tmp_path))).text
    assert text.count("read_parquet") == 1
    query = f"SELECT count(*) FROM ({text}) WHERE a = 1500"
    assert con.sql(query).fetchall() == [(1,)]
    assert scanned(con, query)[1] == (1, 4)


def test_a_filter_reaches_the_scan_through_a_cast_and_past_deletions(tmp_path, con):
    store = LocalStore(tmp_path)
    narrow, wide = pa.schema([("a", pa.int32())]), SCHEMA
    files = {}
    for i, schema in enumerate((narrow, wide, wide)):
        file = DataFile(f"f{i}", f"data/t/{i}.parquet", 1000, 1, 0 if schema is narrow else 1)
        store.put(file.path, b"")
        pq.write_table(
            pa.table({"a": np.arange(i * 1000, i * 1000 + 1000)}).cast(schema),
            store.full_path(file.path),
            row_group_size=100,
        )
        files[file.file_id] = file
    deletion = write_deletions(store, "t", files["f2"], np.array([500], np.int64))
    files["f2"] = DataFile("f2", files["f2"].path, 1000, 1, 1, deletion=deletion)
    text = owned_relation(store, OwnedTable("t", "t", tuple(map(encode_schema, (narrow, wide))), files)).text
    assert con.sql(f"SELECT a FROM ({text})").to_arrow_table()["a"].to_pylist() == [a for a in range(3000) if a != 2500]
    assert con.sql(f"SELECT count(*) FROM ({text}) WHERE a IN (2500, 2501)").fetchall() == [(1,)]
    assert con.sql(f"SELECT count(*) FROM ({text}) WHERE a = 501").fetchall() == [(1,)]
    plan = con.sql(f"EXPLAIN ANALYZE SELECT a FROM ({text}) WHERE a = 501").fetchall()[0][1]
    read = [int(found) for found in re.findall(r"Row Groups Scanned: (\d+)", plan)]
    assert sum(read) <= 2, plan


def test_a_plain_hive_folder_is_one_scan_whose_folders_are_pruned(tmp_path, con):
    for year in range(5):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(pa.table({"a": [year]}), tmp_path / f"year={year}/f.parquet")
    text = attached_relation(Attachments().open(str(tmp_path), hive=True)).text
    assert text.count("read_parquet") == 1
    assert con.sql(f"SELECT * FROM ({text}) WHERE year = 3").fetchall() == [(3, 3)]
    assert scanned(con, f"SELECT * FROM ({text}) WHERE year = 3")[0] == 1


def test_a_hive_folder_below_another_key_takes_only_its_own(tmp_path, con):
    (tmp_path / "a=5/d/k=1").mkdir(parents=True)
    pq.write_table(pa.table({"a": [7]}), tmp_path / "a=5/d/k=1/f.parquet")
    text = attached_relation(Attachments().open(str(tmp_path / "a=5/d"), hive=True)).text
    assert con.sql(text).columns == ["a", "k"]
    assert con.sql(text).fetchall() == [(7, 1)]


def test_without_files_there_are_types_and_no_rows(con):
    schema = pa.schema(
        [
            ("i", pa.int32()),
            ("t", pa.timestamp("ms", "UTC")),
            ("d", pa.decimal128(9, 2)),
            ("l", pa.list_(pa.struct([('x"y', pa.int8())]))),
            ("n", pa.null()),
        ]
    )
    relation = con.sql(select_text(schema, []))
    assert relation.columns == ["i", "t", "d", "l", "n"]
    assert list(map(str, relation.types))[:4] == [
        "INTEGER",
        "TIMESTAMP WITH TIME ZONE",
        "DECIMAL(9,2)",
        'STRUCT("x""y" TINYINT)[]',
    ]
    assert relation.fetchall() == []


def test_a_column_that_no_file_has(tmp_path, con):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "f.parquet")
    text = select_text(pa.schema([("b", pa.date32())]), [SourceFile(str(tmp_path / "f.parquet"), SCHEMA, 1)])
    assert con.sql(text).fetchall() == [(None,)]


def test_a_table_without_columns_is_refused():
    with pytest.raises(InvalidSQL, match="no columns"):
        select_text(pa.schema([]), [])


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        (["a", "A", "b"], ["a", "A_1", "b"]),
        (["a", "A", "A_1", "a_1"], ["a", "A_1", "A_1_1", "a_1_2"]),
        (["a_1", "A", "a"], ["a_1", "A", "a_1_1"]),
        (["é", "É"], ["é", "É"]),
        (["", "C0"], ["C0", "C0_1"]),
    ],
)
def test_names_that_sql_cannot_tell_apart(tmp_path, con, names, seen):
    table = pa.table([pa.array([i]) for i in range(len(names))], names=names)
    pq.write_table(table, tmp_path / "f.parquet")
    text = select_text(table.schema, [SourceFile(str(tmp_path / "f.parquet"), table.schema, 1)])
    relation = con.sql(text)
    assert relation.columns == seen == column_names(table.schema)
    assert relation.fetchall() == [tuple(range(len(names)))]


@pytest.mark.parametrize(
    "kind",
    [
        pa.bool_(),
        pa.uint8(),
        pa.uint64(),
        pa.float16(),
        pa.float64(),
        pa.string_view(),
        pa.binary(4),
        pa.date64(),
        pa.time32("s"),
        pa.time64("ns"),
        pa.timestamp("s"),
        pa.timestamp("ns"),
        pa.timestamp("ns", "UTC"),
        pa.duration("ms"),
        pa.decimal256(50, 3),
        pa.decimal128(38, 10),
        pa.large_list(pa.int8()),
        pa.list_(pa.float32(), 2),
        pa.map_(pa.string(), pa.date32()),
        pa.struct([("a b", pa.int8()), ("c", pa.list_(pa.string()))]),
        pa.dictionary(pa.int8(), pa.string()),
        pa.uuid(),
        pa.json_(),
    ],
    ids=str,
)
def test_types_are_those_that_duckdb_reads(tmp_path, con, kind):
    pq.write_table(pa.schema([("x", kind)]).empty_table(), tmp_path / "f.parquet")
    read = con.sql(f"SELECT x FROM read_parquet('{tmp_path}/f.parquet')").types
    assert con.sql(f"SELECT CAST(NULL AS {sql_type(kind)}) AS x").types == read
