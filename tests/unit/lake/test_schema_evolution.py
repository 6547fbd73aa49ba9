"""Which schemas a table may have, and which data may follow which."""

from __future__ import annotations

import pyarrow as pa
import pytest
from lakelet.lake.errors import Corrupt, InvalidInput
from lakelet.lake.schema import check_schema, check_table_name, common_type, decode_schema, encode_schema, evolve

S = pa.string()
LONG = pa.int64()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.int64(), pa.int8(), pa.int64()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.int64(), pa.uint32(), pa.int64()),
        (pa.uint64(), pa.int8(), None),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.int8(), pa.float16(), pa.float16()),
        (pa.int64(), pa.float64(), None),
        (pa.float64(), pa.uint64(), None),
        (pa.decimal128(10, 2), pa.decimal128(12, 4), pa.decimal128(12, 4)),
        (pa.decimal128(38, 0), pa.decimal128(10, 5), pa.decimal256(43, 5)),
        (pa.decimal32(9, 0), pa.decimal32(9, 9), pa.decimal64(18, 9)),
        (pa.decimal256(76, 0), pa.decimal256(76, 1), None),
        (pa.decimal128(10, 2), pa.int32(), None),
        (S, pa.large_string(), S),
        (pa.string_view(), S, pa.string_view()),
        (S, pa.dictionary(pa.int8(), pa.large_string()), S),
        (pa.dictionary(pa.int8(), S), pa.dictionary(pa.int32(), S), pa.dictionary(pa.int32(), S)),
        (pa.dictionary(pa.int8(), S), S, pa.dictionary(pa.int8(), S)),
        (pa.dictionary(pa.int8(), S), pa.dictionary(pa.int8(), S, True), None),
        (S, pa.binary(), None),
        (S, pa.int64(), None),
        (pa.bool_(), pa.int8(), None),
        (pa.null(), pa.int8(), pa.int8()),
        (pa.int8(), pa.null(), pa.int8()),
        (pa.timestamp("ms"), pa.timestamp("us"), None),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (pa.date32(), pa.timestamp("us"), None),
        (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.list_(pa.int64())),
        (pa.list_(pa.int32()), pa.list_(S), None),
        (
            pa.struct({"a": pa.int8(), "b": S}),
            pa.struct({"b": S, "a": pa.int16()}),
            pa.struct({"a": pa.int16(), "b": S}),
        ),
        (pa.struct({"a": S}), pa.struct({"b": S}), None),
        (pa.map_(S, pa.int8()), pa.map_(S, pa.int64()), pa.map_(S, pa.int64())),
    ],
)
def test_common_type(old: pa.DataType, new: pa.DataType, expected: pa.DataType | None) -> None:
    assert common_type(old, new) == expected


def test_columns_are_matched_by_name_and_new_ones_follow() -> None:
    old = pa.schema([pa.field("a", pa.int32(), metadata={"k": "v"}), ("b", S)], metadata={"owner": "me"})
    grown = evolve(old, pa.schema([("c", S), ("a", pa.int64())]))
    wanted = [pa.field("a", pa.int64(), metadata={"k": "v"}), ("b", S), ("c", S)]
    assert grown.equals(pa.schema(wanted, metadata={"owner": "me"}), check_metadata=True)


def test_nothing_new_is_the_same_schema() -> None:
    old = pa.schema([("a", pa.int64()), ("b", S)])
    assert evolve(old, pa.schema([("b", pa.large_string()), ("a", pa.int8())])) is old


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (pa.schema([("a", S)]), ["'a'", "string", "int64"]),
        (pa.schema([("b", S)]), ["lacks column 'a'", "not null", "'b'"]),
        (pa.schema([("a", pa.int64()), pa.field("c", S, nullable=False)]), ["new column 'c'", "nullable"]),
        (pa.schema([("a", pa.int64()), ("a", pa.int64())]), ["more than one 'a'"]),
        (pa.schema([("a", pa.int64()), ("c", pa.dense_union([pa.field("x", S)]))]), ["'c'", "Parquet"]),
    ],
)
def test_what_cannot_follow_is_refused_by_name(new: pa.Schema, words: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        evolve(pa.schema([pa.field("a", pa.int64(), nullable=False), ("b", S)]), new)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [
        pa.month_day_nano_interval(),
        pa.sparse_union([pa.field("x", S)]),
        pa.run_end_encoded(pa.int32(), S),
        pa.decimal128(5, -2),
        pa.binary(0),
        pa.list_(S, 0),
        pa.struct([]),
        pa.list_(pa.struct([])),
        pa.struct([("a", S), ("a", S)]),
        pa.dictionary(pa.int8(), pa.list_(S)),
        pa.map_(S, pa.month_day_nano_interval()),
    ],
)
def test_types_that_parquet_cannot_hold(kind: pa.DataType) -> None:
    with pytest.raises(InvalidInput, match="column 'c'"):
        check_schema(pa.schema([("c", kind)]))


def test_schema_text_keeps_everything() -> None:
    schema = pa.schema(
        [pa.field("ü \"x\" 'y'", pa.list_(pa.field("n", pa.decimal256(70, 3), False)), metadata={b"\xff": b"\x00"})],
        metadata={"a": "b"},
    )
    assert decode_schema(encode_schema(schema)).equals(schema, check_metadata=True)
    for text in ("", "!", "AAAA", encode_schema(schema)[:-8]):
        with pytest.raises(Corrupt):
            decode_schema(text)


@pytest.mark.parametrize("name", ["", " a", "a\n", "a\0b", "\ud800", "é" * 128, 7])
def test_bad_table_names(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_table_name(name)


@pytest.mark.parametrize("name", ["orders", "we ird", "q\"u'o", "日本", "é" * 127, "a.b", "; DROP TABLE x"])
def test_good_table_names(name: str) -> None:
    check_table_name(name)
