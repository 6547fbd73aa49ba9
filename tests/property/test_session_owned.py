"""SQL over a table's files gives the rows that reading the table gives, whatever its names, types and deletions."""

from __future__ import annotations

import datetime as dt
import decimal
import os
import uuid

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake.changes import DataFile
from lakelet.lake.conversion import convert
from lakelet.lake.deletions import write_deletions
from lakelet.lake.local_store import LocalStore
from lakelet.lake.schema import encode_schema, evolve
from lakelet.lake.session import Session
from lakelet.lake.snapshot import OwnedTable
from lakelet.lake.sql_text import column_names
from lakelet.lake.table import owned_table

NAMES = ["a", "A", "a_1", "", "file_row_number", "filename", 'we"ird', "it's", "select", "é", "pos", "rowid", "%s $x ?"]
WIDENINGS = [
    (pa.int8(), pa.int16(), pa.int32(), pa.int64()),
    (pa.uint8(), pa.int16(), pa.float32()),
    (pa.int16(), pa.float32(), pa.float64()),
    (pa.int32(), pa.float32()),
    (pa.float32(), pa.float64()),
    (pa.decimal128(5, 2), pa.decimal128(9, 4), pa.decimal128(30, 4)),
    (pa.list_(pa.int32()), pa.list_(pa.int64())),
    (pa.struct([("x", pa.int8()), ("y z", pa.string())]), pa.struct([("y z", pa.string()), ("x", pa.int64())])),
    (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int32())),
    (pa.null(), pa.string()),
    (pa.null(), pa.int32()),
    (pa.string(),),
    (pa.large_string(), pa.string()),
    (pa.dictionary(pa.int32(), pa.string()), pa.string()),
    (pa.binary(),),
    (pa.binary(3),),
    (pa.bool_(),),
    (pa.date32(),),
    (pa.timestamp("us"),),
    (pa.timestamp("ms", "Europe/Paris"),),
    (pa.timestamp("ns"),),
    (pa.time64("us"),),
    (pa.uint64(),),
    (pa.duration("us"),),
]


def cell(kind: pa.DataType) -> st.SearchStrategy[object]:
    """Values of a type, NULL among them."""
    types = pa.types
    if types.is_null(kind):
        return st.none()
    if types.is_dictionary(kind):
        return cell(kind.value_type)
    if types.is_integer(kind):
        low = -(2 ** (kind.bit_width - 1)) if types.is_signed_integer(kind) else 0
        some = st.integers(low, 2 ** (kind.bit_width - types.is_signed_integer(kind)) - 1)
    elif types.is_floating(kind):
        some = st.floats(width=kind.bit_width)
    elif types.is_decimal(kind):
        digits = 10**kind.precision - 1
        some = st.integers(-digits, digits).map(lambda i: decimal.Decimal(i).scaleb(-kind.scale))
    elif types.is_string(kind) or types.is_large_string(kind):
        some = st.text(max_size=20)
    elif types.is_fixed_size_binary(kind):
        some = st.binary(min_size=3, max_size=3)
    elif types.is_binary(kind):
        some = st.binary(max_size=20)
    elif types.is_boolean(kind):
        some = st.booleans()
    elif types.is_date(kind):
        some = st.dates()
    elif types.is_time(kind):
        some = st.times()
    elif types.is_timestamp(kind):
        some = st.integers(-(10**12), 10**12)
    elif types.is_duration(kind):
        some = st.timedeltas(dt.timedelta(-1000), dt.timedelta(1000))
    elif types.is_list(kind):
        some = st.lists(cell(kind.value_type), max_size=3)
    elif types.is_map(kind):
        some = st.dictionaries(st.text(max_size=3), cell(kind.item_type), max_size=3).map(lambda d: list(d.items()))
    else:
        some = st.fixed_dictionaries({f.name: cell(f.type) for f in kind})
    return st.none() | some


@st.composite
def owned_tables(draw: st.DrawFn) -> tuple[list[pa.Schema], list[tuple[int, pa.Table, list[int]]]]:
    """Schemas as a table grew through them, and files: schema id, rows, deleted positions."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    chains = [draw(st.sampled_from(WIDENINGS)) for _ in names]
    present = draw(st.integers(1, len(names)))
    steps = [0] * len(names)
    schemas = [pa.schema([(names[i], chains[i][0]) for i in range(present)])]
    for _ in range(draw(st.integers(0, 2))):
        present = draw(st.integers(present, len(names)))
        steps = [min(step + draw(st.integers(0, 1)), len(chain) - 1) for step, chain in zip(steps, chains, strict=True)]
        appended = pa.schema([(names[i], chains[i][steps[i]]) for i in range(present)])
        schemas.append(evolve(schemas[-1], appended))
    files = []
    for schema_id in sorted(draw(st.lists(st.integers(0, len(schemas) - 1), max_size=4))):
        schema, count = schemas[schema_id], draw(st.integers(0, 6))
        columns = [pa.array([draw(cell(f.type)) for _ in range(count)], f.type) for f in schema]
        deleted = draw(st.lists(st.integers(0, max(count - 1, 0)), unique=True)) if count else []
        files.append((schema_id, pa.Table.from_arrays(columns, schema=schema), sorted(deleted)))
    return schemas, files


def as_lake_table(
    store: LocalStore, schemas: list[pa.Schema], files: list[tuple[int, pa.Table, list[int]]]
) -> OwnedTable:
    """The files written below ``store`` and the entry that a snapshot would hold of them."""
    table_id = uuid.uuid4().hex
    entries = {}
    for number, (schema_id, rows, deleted) in enumerate(files):
        path = f"data/{table_id}/{number}.parquet"
        store.put(path, b"")
        pq.write_table(rows, store.full_path(path), row_group_size=3)
        num_bytes = os.path.getsize(store.full_path(path))
        file = DataFile(f"f{number}", path, rows.num_rows, num_bytes, schema_id)
        if deleted:
            deletion = write_deletions(store, table_id, file, np.array(deleted, np.int64))
            file = DataFile(file.file_id, path, rows.num_rows, num_bytes, schema_id, deletion=deletion)
        entries[file.file_id] = file
    return OwnedTable(table_id, "t", tuple(map(encode_schema, schemas)), entries, rows_version=1)


def values(table: pa.Table, schema: pa.Schema) -> list[str]:
    """Every value in the types of ``schema``, NaN and -0.0 told apart, by column."""
    return [repr(convert(column, field.type).to_pylist()) for column, field in zip(table.columns, schema, strict=True)]


def types_of_one_file(store: LocalStore, schema: pa.Schema) -> list[object]:
    """The types that DuckDB gives the columns of a file that was written under ``schema``."""
    store.put("one.parquet", b"")
    pq.write_table(schema.empty_table(), store.full_path("one.parquet"))
    with duckdb.connect() as con:
        return list(con.sql(f"SELECT * FROM read_parquet('{store.full_path('one.parquet')}')").types)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(case=owned_tables())
def test_sql_reads_what_to_arrow_reads(case, tmp_path_factory):
    schemas, files = case
    store = LocalStore(tmp_path_factory.mktemp("lake"))
    entry = as_lake_table(store, schemas, files)
    session = Session(store)
    expected = owned_table(store, entry, 1).to_arrow()
    relation = session.sql('SELECT * FROM "t"', None, ["t"], {"t": entry}.__getitem__)
    assert relation.columns == column_names(schemas[-1])
    assert relation.types == types_of_one_file(store, schemas[-1])
    found = relation.to_arrow_table()
    session.close()
    assert found.num_rows == expected.num_rows
    assert values(found, expected.schema) == values(expected, expected.schema)
