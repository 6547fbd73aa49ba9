"""Whatever Arrow holds and Parquet can keep comes back: type for type, value for value, metadata included."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import lakelet
import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lakelet.lake.bitwise import differing_rows, same_dictionary
from lakelet.lake.conversion import keep_rows
from lakelet.lake.edit import plan_write
from lakelet.lake.incoming import open_reader
from lakelet.lake.layout import ParquetLayout
from lakelet.lake.local_store import LocalStore
from lakelet.lake.schema import encode_schema
from lakelet.lake.snapshot import OwnedTable
from lakelet.lake.table import Table, owned_table
from lakelet.lake.writer import write_files

STORE = LocalStore(tempfile.mkdtemp())

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
TEXT = [pa.string(), pa.large_string(), pa.string_view()]
BYTES = [pa.binary(), pa.large_binary(), pa.binary_view()]
UNITS = ["s", "ms", "us", "ns"]
TEMPORAL = [
    pa.date32(),
    pa.date64(),
    *(pa.timestamp(unit, zone) for unit in UNITS for zone in (None, "UTC", "Asia/Kathmandu", "+02:30")),
    *(pa.duration(unit) for unit in UNITS),
    *(pa.time32(unit) for unit in UNITS[:2]),
    *(pa.time64(unit) for unit in UNITS[2:]),
]
DECIMALS = [pa.decimal32(9, 3), pa.decimal64(18, 0), pa.decimal128(38, 10), pa.decimal256(76, 30), pa.decimal128(5, 5)]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
FLAT = [*INTEGERS, *TEXT, *BYTES, *TEMPORAL, *DECIMALS, *FLOATS, pa.bool_(), pa.null(), pa.binary(3)]
DICTIONARIES = [
    pa.dictionary(index, value, ordered)
    for index in (pa.int8(), pa.uint16(), pa.int64())
    for value in (pa.string(), pa.large_string(), pa.int64(), pa.timestamp("s"), pa.decimal128(9, 3), pa.binary())
    for ordered in (False, True)
]
EXTENSIONS = [pa.uuid(), pa.json_(), pa.bool8(), pa.opaque(pa.int32(), "kind", "vendor")]
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)


def nested(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    return st.one_of(
        st.sampled_from([pa.list_, pa.large_list, pa.list_view, pa.large_list_view]).flatmap(
            lambda make: inner.map(lambda kind: make(pa.field("a name", kind, metadata={"k": "v"})))
        ),
        st.tuples(inner, st.integers(1, 3)).map(lambda pair: pa.list_(*pair)),
        st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(
            lambda fields: pa.struct([pa.field(name, kind) for name, kind in fields.items()])
        ),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
    )


KINDS = st.one_of(
    st.sampled_from([*FLAT, *DICTIONARIES, *EXTENSIONS]),
    st.recursive(st.sampled_from([*FLAT, *DICTIONARIES, pa.uuid()]), nested, max_leaves=4),
)


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Python values that pyarrow makes arrays of the storage of ``kind`` from."""
    types = pa.types
    if types.is_integer(kind):
        low, high = (0, 2**kind.bit_width - 1)
        return st.integers(low, high) if types.is_unsigned_integer(kind) else st.integers(~(high >> 1), high >> 1)
    if types.is_floating(kind):
        return st.floats(width=kind.bit_width)
    if types.is_decimal(kind):
        return st.integers(-(10**kind.precision) + 1, 10**kind.precision - 1).map(
            lambda n: Decimal(n).scaleb(-kind.scale, CONTEXT)
        )
    if types.is_time(kind):
        return st.integers(0, 86_400 * {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit] - 1)
    if types.is_date64(kind):
        return st.integers(-(10**5), 10**5).map(lambda days: days * 86_400_000)
    if types.is_date32(kind):
        return st.integers(-(10**5), 10**5)
    if types.is_temporal(kind):
        return st.integers(-(2**53), 2**53)
    if any(kind.equals(other) for other in TEXT):
        return st.text(st.characters(codec="utf-8"), max_size=20)
    if types.is_fixed_size_binary(kind):
        return st.binary(min_size=kind.byte_width, max_size=kind.byte_width)
    if any(kind.equals(other) for other in BYTES):
        return st.binary(max_size=20)
    return st.none() if types.is_null(kind) else st.booleans()


CONTEXT = __import__("decimal").Context(prec=80)


def arrays(kind: pa.DataType, rows: int) -> st.SearchStrategy[pa.Array]:
    """Arrays of ``rows`` rows, NULLs among them."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return arrays(kind.storage_type, rows).map(lambda held: pa.ExtensionArray.from_storage(kind, held))
    if types.is_dictionary(kind):
        return arrays(kind.value_type, rows).map(
            lambda held: pa.DictionaryArray.from_arrays(
                held.dictionary_encode().indices.cast(kind.index_type),
                held.dictionary_encode().dictionary,
                ordered=kind.ordered,
            )
        )
    missing = st.lists(st.booleans(), min_size=rows, max_size=rows)
    if types.is_struct(kind):
        children = st.tuples(*(arrays(field.type, rows) for field in kind))
        return st.tuples(children, missing).map(
            lambda drawn: pa.StructArray.from_arrays(drawn[0], fields=list(kind), mask=pa.array(drawn[1], pa.bool_()))
        )
    if types.is_nested(kind):
        return _lists(kind, rows)
    return st.lists(st.one_of(st.none(), values(kind)), min_size=rows, max_size=rows).map(
        lambda drawn: pa.array(drawn, kind)
    )


def _encoded(found: pa.DictionaryArray, kind: pa.DataType) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(found.indices.cast(kind.index_type), found.dictionary, ordered=kind.ordered)


@st.composite
def _lists(draw: st.DrawFn, kind: pa.DataType, rows: int) -> pa.Array:
    fixed = kind.list_size if pa.types.is_fixed_size_list(kind) else None
    lengths = [fixed if fixed is not None else draw(st.integers(0, 3)) for _ in range(rows)]
    valid = [draw(st.booleans()) for _ in range(rows)]
    total = sum(lengths)
    if pa.types.is_map(kind):
        keys = pa.array([f"k{i}" for i in range(total)], pa.string())
        child = pa.StructArray.from_arrays(
            [keys, draw(arrays(kind.item_type, total))], fields=[kind.key_field, kind.item_field]
        )
    else:
        child = draw(arrays(kind.value_type, total))
    if fixed is not None:
        return pa.Array.from_buffers(kind, rows, [_bits(valid)], children=[child])
    offsets = [sum(lengths[:i]) for i in range(rows + 1)]
    wide = pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind)
    width = pa.int64() if wide else pa.int32()
    buffers = [_bits(valid), pa.array(offsets, width).buffers()[1]]
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        buffers.append(pa.array(lengths, width).buffers()[1])
    return pa.Array.from_buffers(kind, rows, buffers, children=[child])


def _bits(valid: list[bool]) -> pa.Buffer:
    return pa.array(valid, pa.bool_()).buffers()[1]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 7))
    names = draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))
    fields, columns = [], []
    for name in names:
        kind = draw(KINDS)
        column = draw(arrays(kind, rows))
        metadata = draw(st.sampled_from([None, {"unit": "m"}]))
        nullable = pa.types.is_null(kind) or column.null_count > 0 or draw(st.booleans())
        fields.append(pa.field(name, kind, nullable=nullable, metadata=metadata))
        columns.append(column)
    table = pa.table(columns, schema=pa.schema(fields, draw(st.sampled_from([None, {"owner": "é"}]))))
    cut = draw(st.integers(0, rows))
    return pa.concat_tables([table.slice(cut), table.slice(0, cut)])


def write(table: pa.Table, layout: ParquetLayout) -> Table:
    files = write_files(STORE, "t", open_reader(table), table.schema, 0, layout)
    return owned_table(STORE, OwnedTable("t", "t", (encode_schema(table.schema),), {f.file_id: f for f in files}), 1)


def same(found: pa.Table, expected: pa.Table) -> None:
    assert found.schema.equals(expected.schema, check_metadata=True), (found.schema, expected.schema)
    assert found.num_rows == expected.num_rows
    found.validate(full=True)
    for name, column in zip(expected.schema.names, expected.columns, strict=True):
        # As text, since NaN equals itself there. Storage, since not every extension has Python values.
        assert plain(found.column(name)) == plain(column), name


def plain(column: pa.ChunkedArray) -> list[str]:
    return [repr(value) for chunk in column.chunks for value in held(chunk)]


def held(array: pa.Array) -> list[Any]:
    """Python values; times as integers, since datetime does not reach as far as Arrow."""
    types = pa.types
    if isinstance(array, pa.ExtensionArray):
        return held(array.storage)
    if types.is_dictionary(array.type):
        return held(array.dictionary_decode())
    if types.is_temporal(array.type):
        return array.cast(pa.int32() if array.type.bit_width == 32 else pa.int64()).to_pylist()
    if types.is_struct(array.type):
        children = [held(array.field(i)) for i in range(array.type.num_fields)]
        rows = zip(*children, strict=True)
        return [row if valid else None for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)]
    if types.is_map(array.type) or types.is_fixed_size_list(array.type) or types.is_nested(array.type):
        return [None if value is None or not value.is_valid else held(value.values) for value in array]
    return array.to_pylist()


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(table=tables(), group=st.sampled_from([1, 2, 3, 100]), file_bytes=st.sampled_from([1, 2**20]))
def test_what_is_written_is_read(table: pa.Table, group: int, file_bytes: int) -> None:
    stored = write(table, ParquetLayout(row_group_rows=group, file_bytes=file_bytes))
    same(stored.to_arrow(), table)
    same(stored.scan().read_all(), table)
    name = table.schema.names[-1]
    same(stored.to_arrow(columns=[name]), table.select([name]))
    assert stored.num_rows == stored.to_arrow(columns=[]).num_rows == table.num_rows
    same(stored.to_arrow(where="1 = 1"), table)


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(table=tables(), group=st.sampled_from([2, 3, 100]), seed=st.integers(0, 9))
def test_what_is_rebuilt_is_what_was_read(retire: Callable[..., Any], table: pa.Table, group: int, seed: int) -> None:
    picks = np.random.default_rng(seed).integers(0, max(1, table.num_rows), table.num_rows)
    with tempfile.TemporaryDirectory() as folder, lakelet.connect(folder) as db:
        for name, rows in (("p", table), ("c", keep_rows(table, pa.array(picks)))):
            base = db._catalog.log.latest()
            edit = plan_write(base, db._catalog.store, name, rows, "create", ParquetLayout(row_group_rows=group))
            db._commit(edit, "create", base)
        read = db.table("c").to_arrow()
        queried = db.sql("FROM c").to_arrow_table() if all(table.schema.names) else None
        retire(db, ("c", "p"))
        same_bits(db.table("c").to_arrow(), read)
        if queried is not None:
            same_bits(db.sql("FROM c").to_arrow_table(), queried)


def same_bits(found: pa.Table, expected: pa.Table) -> None:
    assert found.schema.equals(expected.schema, check_metadata=True), (found.schema, expected.schema)
    found.validate(full=True)
    for one, two in zip(found.columns, expected.columns, strict=True):
        assert not differing_rows(one, two).size
        assert not pa.types.is_dictionary(one.type) or same_dictionary(one, two)
