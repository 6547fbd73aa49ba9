"""Columns compared bit by bit: against bytes taken value by value, for every type, cut and laid out in any way."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake.bitwise import dictionary_of, differing_rows, same_dictionary

NANS = [0x7FF8_0000_0000_0000, 0xFFF8_0000_0000_0000, 0x7FF0_0000_0000_0001, 0x7FF8_0000_0000_0002]
DOUBLES = [struct.unpack("<d", struct.pack("<Q", bits))[0] for bits in (*NANS, 0, 1 << 63, 1, 0x3FF << 52)]


def floats(bits: list[int | None], kind: pa.DataType) -> pa.Array:
    """Floats of these bits: Python keeps no payload of a NaN on its way through a narrower type."""
    width = kind.bit_width // 8
    data = b"".join((value or 0).to_bytes(width, "little") for value in bits)
    valid = pa.array([value is not None for value in bits], pa.bool_()).buffers()[1]
    return pa.Array.from_buffers(kind, len(bits), [valid, pa.py_buffer(data)])


# --- the slow way --------------------------------------------------------------------------------------------------


def images(column: pa.ChunkedArray) -> list[Any]:
    """Each value as bytes, or as a tuple of those of its parts; None where it is NULL."""
    return [image for chunk in column.chunks for image in of_array(chunk)]


def of_array(array: pa.Array) -> Iterator[Any]:
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        yield from of_array(array.storage)
    elif pa.types.is_dictionary(kind):
        values = list(of_array(array.dictionary))
        yield from (None if i is None else values[i] for i in array.indices.to_pylist())
    else:
        for i in range(len(array)):
            yield of_value(array, i) if array[i].is_valid else None


def of_value(array: pa.Array, i: int) -> Any:
    kind, scalar = array.type, array[i]
    types = pa.types
    if types.is_struct(kind):
        return tuple(next(of_array(array.field(k).slice(i, 1))) for k in range(kind.num_fields))
    if types.is_map(kind):
        at = array.offset + i
        start, stop = np.frombuffer(array.buffers()[1], np.int32, 2, at * 4).tolist()
        keys, items = array.keys.slice(start, stop - start), array.items.slice(start, stop - start)
        return tuple(zip(of_array(keys), of_array(items), strict=True))
    if types.is_nested(kind):
        return tuple(of_array(scalar.values))
    if types.is_boolean(kind):
        return bytes([scalar.as_py()])
    if hasattr(scalar, "as_buffer"):
        return b"" if scalar.as_buffer() is None else scalar.as_buffer().to_pybytes()
    width = kind.bit_width // 8
    return array.buffers()[1].to_pybytes()[(array.offset + i) * width :][:width]


def slowly(a: pa.ChunkedArray, b: pa.ChunkedArray) -> list[int]:
    return [i for i, (x, y) in enumerate(zip(images(a), images(b), strict=True)) if x != y]


# --- values --------------------------------------------------------------------------------------------------------


def plain(kind: pa.DataType, values: list[Any]) -> tuple[pa.DataType, list[pa.Array]]:
    return kind, [pa.array([value], kind) for value in (*values, None)]


def bits(kind: pa.DataType, values: list[int]) -> tuple[pa.DataType, list[pa.Array]]:
    return kind, [floats([value], kind) for value in (*values, None)]


INTS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
TEXTS = [pa.string(), pa.large_string(), pa.string_view()]
BYTES = [pa.binary(), pa.large_binary(), pa.binary_view()]
LONG = "a text that no view holds within itself"
FLAT = [
    bits(pa.float64(), [*NANS, 0, 1 << 63, 0x3FF << 52]),
    bits(pa.float32(), [0x7FC0_0000, 0xFFC0_0000, 0x7F80_0001, 0, 1 << 31]),
    bits(pa.float16(), [0x7E00, 0xFE00, 0x7C01, 0, 1 << 15, 0x3C00]),
    *(plain(kind, [0, 1, 100]) for kind in INTS),
    *(plain(kind, ["", "a", "a\0", "é", LONG, LONG + "."]) for kind in TEXTS),
    *(plain(kind, [b"", b"a", b"a\0", LONG.encode(), LONG.encode() + b"."]) for kind in BYTES),
    plain(pa.binary(3), [b"abc", b"abd", b"\0\0\0"]),
    plain(pa.bool_(), [True, False]),
    plain(pa.null(), []),
    *(
        plain(kind, [Decimal("1.00"), Decimal("-1.00"), Decimal("0.01")])
        for kind in (pa.decimal32(9, 2), pa.decimal64(18, 2), pa.decimal128(38, 2), pa.decimal256(76, 2))
    ),
    *(plain(kind, [0, 1, 86_399]) for kind in (pa.time32("s"), pa.time64("ns"), pa.timestamp("us", "UTC"))),
    *(plain(kind, [0, -1, 86_400_000]) for kind in (pa.date32(), pa.date64(), pa.duration("ms"), pa.timestamp("s"))),
    plain(pa.month_day_nano_interval(), [(1, 0, 0), (0, 30, 0), (0, 0, 1)]),
    (pa.uuid(), [pa.ExtensionArray.from_storage(pa.uuid(), pa.array([v], pa.binary(16))) for v in (b"x" * 16, None)]),
    (pa.bool8(), [pa.ExtensionArray.from_storage(pa.bool8(), pa.array([v], pa.int8())) for v in (0, 1, None)]),
]


def listed(make: Any, kind: pa.DataType) -> pa.DataType:
    return pa.list_(kind, 2) if make == "fixed" else pa.map_(pa.string(), kind) if make == "map" else make(kind)


def lists(inner: tuple[pa.DataType, list[pa.Array]], make: Any) -> tuple[pa.DataType, list[pa.Array]]:
    """Lists of none, one and two of the inner values, and no list; rows of one each."""
    child, values = inner
    kind = listed(make, child)
    rows = [[value, values[-1]] for value in values]
    if make != "fixed":
        rows += [[], *([value] for value in values)]
    found = [_one_list(kind, child, row, valid=True) for row in rows]
    return kind, [*found, _one_list(kind, child, values[:2] if make == "fixed" else [], valid=False)]


def _one_list(kind: pa.DataType, child: pa.DataType, row: list[pa.Array], *, valid: bool) -> pa.Array:
    types = pa.types
    values: pa.Array = pa.concat_arrays(row) if row else pa.nulls(0, child)
    if types.is_map(kind):
        keys = pa.array([f"k{i}" for i in range(len(values))], pa.string())
        values = pa.StructArray.from_arrays([keys, values], fields=[kind.key_field, kind.item_field])
    buffers: list[Any] = [pa.array([valid]).buffers()[1]]
    wide = pa.int64() if types.is_large_list(kind) or types.is_large_list_view(kind) else pa.int32()
    if not types.is_fixed_size_list(kind):
        view = types.is_list_view(kind) or types.is_large_list_view(kind)
        buffers.append(pa.array([0] if view else [0, len(values)], wide).buffers()[1])
        if view:
            buffers.append(pa.array([len(values)], wide).buffers()[1])
    return pa.Array.from_buffers(kind, 1, buffers, children=[values])


def structs(*inner: tuple[pa.DataType, list[pa.Array]]) -> tuple[pa.DataType, list[pa.Array]]:
    fields = [pa.field(f"f{i}", kind) for i, (kind, _) in enumerate(inner)]
    rows = [
        [values[(at + i) % len(values)] for i, (_, values) in enumerate(inner)]
        for at in range(max(len(values) for _, values in inner))
    ]
    made = [pa.StructArray.from_arrays(row, fields=fields) for row in rows]
    return pa.struct(fields), [*made, pa.StructArray.from_arrays(rows[0], fields=fields, mask=pa.array([True]))]


def encoded(inner: tuple[pa.DataType, list[pa.Array]]) -> tuple[pa.DataType, list[pa.Array]]:
    """The values behind codes of two dictionaries, so that the same code means another value in another row."""
    child, values = inner[0], [value for value in inner[1] if not value.null_count]
    kind = pa.dictionary(pa.int8(), child)
    every = pa.concat_arrays(values)
    found = [pa.DictionaryArray.from_arrays(pa.array([i], pa.int8()), every) for i in range(len(values))]
    found += [pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), value) for value in values]
    return kind, [*found, pa.DictionaryArray.from_arrays(pa.array([None], pa.int8()), every)]


DOUBLE, HALF, TEXT, VIEW = FLAT[0], FLAT[2], FLAT[11], FLAT[13]
TENSOR = pa.fixed_shape_tensor(pa.float64(), [2])


def tensors() -> tuple[pa.DataType, list[pa.Array]]:
    _, held = lists(DOUBLE, "fixed")
    return TENSOR, [pa.ExtensionArray.from_storage(TENSOR, one.cast(TENSOR.storage_type)) for one in held]


MAKES = [pa.list_, pa.large_list, pa.list_view, pa.large_list_view, "fixed", "map"]
NESTED = [
    *(lists(inner, make) for make in MAKES for inner in (DOUBLE, TEXT, FLAT[-2])),
    *(lists(encoded(DOUBLE), make) for make in (pa.list_, "map")),
    structs(DOUBLE, TEXT),
    structs(HALF, VIEW, lists(DOUBLE, pa.list_)),
    structs(tensors()),
    structs(encoded(DOUBLE)),
    lists(structs(HALF, encoded(TEXT)), pa.large_list),
    lists(lists(DOUBLE, "map"), pa.list_view),
    lists(lists(DOUBLE, "fixed"), "fixed"),
    tensors(),
]
DICTIONARIES = [encoded(inner) for inner in (DOUBLE, TEXT, FLAT[3])]
EVERY = [*FLAT, *DICTIONARIES, *NESTED]


@st.composite
def pairs(draw: st.DrawFn, kind: pa.DataType, values: list[pa.Array]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Two columns that differ in some rows, each cut by itself into chunks that begin within larger arrays."""
    picks = draw(st.lists(st.integers(0, len(values) - 1), max_size=6))
    others = [draw(st.integers(0, len(values) - 1)) if draw(st.booleans()) else pick for pick in picks]
    found = []
    for rows in (picks, others):
        whole = pa.concat_arrays([values[0], values[-1], *(values[i] for i in rows), values[0]])
        cut = draw(st.integers(0, len(rows)))
        chunks = [whole.slice(2, cut), whole.slice(2 + cut, len(rows) - cut)]
        found.append(pa.chunked_array(chunks if draw(st.booleans()) else [whole.slice(2, len(rows))], kind))
    return found[0], found[1]


@pytest.mark.parametrize(("kind", "values"), EVERY, ids=[str(kind)[:60] for kind, _ in EVERY])
def test_every_pair_of_values_of_every_type(kind: pa.DataType, values: list[pa.Array]) -> None:
    a = pa.chunked_array([one for one in values for _ in values], kind)
    b = pa.chunked_array(values * len(values), kind)
    found = differing_rows(a, b)
    assert found.dtype == np.int64
    assert found.tolist() == slowly(a, b)
    alone = [differing_rows(pa.chunked_array([x]), pa.chunked_array([y])).size for x in values for y in values]
    assert np.flatnonzero(alone).tolist() == sorted(i % len(values) * len(values) + i // len(values) for i in found)


@settings(max_examples=250)
@given(st.integers(0, len(EVERY) - 1).flatmap(lambda at: pairs(*EVERY[at])))
def test_any_two_columns_in_any_layout(pair: tuple[pa.ChunkedArray, pa.ChunkedArray]) -> None:
    assert differing_rows(*pair).tolist() == slowly(*pair)
    assert not differing_rows(pair[0], pair[0]).size


def test_what_lies_under_a_null_is_no_part_of_the_value() -> None:
    valid = pa.array([True, False]).buffers()[1]
    one, two = (
        pa.Array.from_buffers(pa.float64(), 2, [valid, pa.py_buffer(struct.pack("<2d", 1, under))]) for under in (2, 3)
    )
    offsets = pa.array([0, 2], pa.int32())
    for a, b in ((one, two), [pa.ListArray.from_arrays(offsets, values) for values in (one, two)]):
        assert not differing_rows(pa.chunked_array([a]), pa.chunked_array([b])).size


def test_columns_without_rows_and_without_chunks() -> None:
    for kind, _ in EVERY:
        none = pa.chunked_array([], kind)
        assert differing_rows(none, none).tolist() == []


def test_long_columns_of_lists_find_their_few_rows() -> None:
    values = [[float(i), -0.0] for i in range(20_000)]
    other = [list(row) for row in values]
    for row in (0, 777, 19_999):
        other[row][1] = 0.0
    found = differing_rows(pa.chunked_array([values]), pa.chunked_array([other]))
    assert found.tolist() == [0, 777, 19_999]


def test_dictionaries_are_the_same_by_values_and_order() -> None:
    def column(*dictionaries: list[Any], kind: pa.DataType | None = None) -> pa.ChunkedArray:
        return pa.chunked_array(
            [pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array(one, kind)) for one in dictionaries]
        )

    assert same_dictionary(column(["a", "b"]), column(["a", "b"]))
    assert not same_dictionary(column(["a", "b"]), column(["b", "a"]))
    assert not same_dictionary(column(["a", "b"]), column(["a"]))
    assert not same_dictionary(column([0.0]), column([-0.0]))
    assert same_dictionary(column(["a"], ["b", "a"]), column(["a", "b"]))
    assert dictionary_of(column(["a"], ["b", "a"], ["c"])).to_pylist() == ["a", "b", "c"]
    empty = pa.chunked_array([], pa.dictionary(pa.int8(), pa.string()))
    assert dictionary_of(empty).to_pylist() == []
    assert not same_dictionary(empty, column(["a"]))
