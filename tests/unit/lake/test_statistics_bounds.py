"""What of a footer's statistics is believed, and that bounds survive the log and unions."""

from __future__ import annotations

import io
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.lake.errors import Corrupt
from lakelet.lake.statistics import (
    UNKNOWN,
    Bounds,
    constant_bounds,
    decode_bounds,
    encode_bounds,
    footer_bounds,
    in_type,
    leaf_columns,
    make_bounds,
    merged,
    outer,
)

NAN = float("nan")


def of_file(table: pa.Table, **settings: object) -> dict[str, Bounds]:
    sink = io.BytesIO()
    pq.write_table(table, sink, **settings)
    return footer_bounds(pq.read_metadata(io.BytesIO(sink.getvalue())))


def test_typed_bounds_over_row_groups() -> None:
    table = pa.table(
        {
            "i": pa.array([3, None, 1, 2], pa.int8()),
            "u": pa.array([2**64 - 1, 0, 5, 6], pa.uint64()),
            "f": pa.array([0.0, 1.0, NAN, -0.0]),
            "d": pa.array([Decimal("1.50"), None, Decimal("-2.25"), None], pa.decimal128(9, 2)),
            "s": ["b", "é", "a", None],
            "b": [b"\xff", b"", b"a", None],
            "t": pa.array([1, 2, 3, 4], pa.timestamp("us", "UTC")),
            "o": [True, False, None, True],
            "a.b": [1, 2, 3, 4],
            "a": pa.array([{"b": 1}] * 4),
            "l": [[1], [2], [], None],
        }
    )
    found = of_file(table, row_group_size=2)
    assert found["i"] == Bounds(1, 1, 3, True, True, 0)
    assert found["u"] == Bounds(0, 0, 2**64 - 1, True, True, 0)
    assert found["f"] == Bounds(0, 0.0, 1.0, True, True, None)
    assert str(found["f"].min) == "-0.0"
    assert found["d"] == Bounds(2, Decimal("-2.25"), Decimal("1.50"), True, True, 0)
    assert found["s"] == Bounds(1, "a", "é", True, True, 0)
    assert found["b"] == Bounds(1, b"", b"\xff", True, True, 0)
    assert found["t"] == Bounds(0, 1, 4, True, True, 0)
    assert found["o"] == Bounds(1, False, True, True, True, 0)
    assert found["a.b"] == Bounds(0, 1, 4, True, True, 0)
    assert "a" not in found
    assert "l" not in found


def test_a_column_with_a_dot_is_not_a_field_of_a_struct() -> None:
    schema = pa.schema([("a", pa.struct({"b": pa.int8(), "c": pa.int8()})), ("a.b", pa.int8())])
    assert leaf_columns(schema, 3) == {"a": (0, 2), "a.b": (2, 1)}
    assert leaf_columns(schema, 4) == {}


def test_int96_is_unknown() -> None:
    table = pa.table({"t": pa.array([1, 2], pa.timestamp("ns"))})
    assert of_file(table, use_deprecated_int96_timestamps=True).get("t", UNKNOWN).min is None


def test_without_statistics_nothing_is_known() -> None:
    assert of_file(pa.table({"a": [1]}), write_statistics=False) == {}


@pytest.mark.parametrize(
    ("low", "high", "exact", "expected"),
    [
        (NAN, 1.0, True, Bounds(0)),
        (0.0, NAN, True, Bounds(0)),
        (0.0, 0.0, True, Bounds(0, -0.0, 0.0, True, True)),
        (2, 1, True, Bounds(0)),
        ("a" * 16, "b", False, Bounds(0, "a" * 16, "b", False, True)),
        ("é" * 8, "ê" * 7, False, Bounds(0, "é" * 8, "ê" * 7, False, True)),
        (b"a" * 15, b"b" * 16, False, Bounds(0, b"a" * 15, b"b" * 16, True, False)),
        ("a" * 16, "b" * 16, True, Bounds(0, "a" * 16, "b" * 16, True, True)),
    ],
)
def test_what_a_writer_says_is_weighed(low: object, high: object, exact: bool, expected: Bounds) -> None:
    found = make_bounds(0, low, high, exact, None)  # type: ignore[arg-type]
    assert found == expected


def test_merged_parts() -> None:
    a, b = Bounds(0, 1, 5, True, True, 0), Bounds(1, 5, 9, False, True, 0)
    nulls, unknown = Bounds(4, nan_count=0), Bounds()
    assert merged([(a, 3), (b, 3)]) == Bounds(1, 1, 9, True, True, 0)
    assert merged([(a, 3), (nulls, 4)]) == Bounds(4, 1, 5, True, True, 0)
    assert merged([(a, 3), (unknown, 4)]) == Bounds(None, None, None, False, False, None)
    assert merged([(nulls, 4)]) == Bounds(4, nan_count=0)


def test_deletions_leave_outer_bounds() -> None:
    assert outer(Bounds(2, 1, 5, True, True, 0)) == Bounds(None, 1, 5, False, False, 0)
    assert outer(Bounds(0, 1, 5, True, True, 3)) == Bounds(0, 1, 5, False, False, None)


def test_from_the_files_type_to_the_tables() -> None:
    bounds = Bounds(0, 1500, 2500, True, True, 0)
    seconds = in_type(bounds, pa.timestamp("ms"), pa.timestamp("s"))
    assert seconds == Bounds(0, 1, 3, False, False, 0)
    assert in_type(bounds, pa.timestamp("ms"), pa.timestamp("us")) == Bounds(0, 1_500_000, 2_500_000, True, True, 0)
    assert in_type(bounds, pa.timestamp("ms"), pa.timestamp("ms", "UTC")) == Bounds(0)
    assert in_type(Bounds(0, 1, 2, True, True), pa.date32(), pa.date64()).min == 86_400_000
    assert in_type(Bounds(0, 0, 2, True, True, 0), pa.int8(), pa.float64()) == Bounds(0, 0.0, 2.0, True, True, 0)
    assert in_type(Bounds(3, 0, 2, True, True, 0), pa.int8(), pa.string()) == Bounds(3)
    assert in_type(Bounds(0, "a", "b", True, True), pa.string(), pa.dictionary(pa.int8(), pa.string())).max == "b"


def test_constants() -> None:
    assert constant_bounds(pa.scalar(3), 5) == Bounds(0, 3, 3, True, True, 0)
    assert constant_bounds(pa.scalar(None, pa.int8()), 5) == Bounds(5, nan_count=0)
    assert constant_bounds(pa.scalar(NAN), 5) == Bounds(0, nan_count=5)
    assert constant_bounds(pa.scalar([1]), 5) == UNKNOWN
    assert constant_bounds(pa.scalar(7, pa.date32()), 5).min == 7


def test_text_for_the_log() -> None:
    known = {
        "a": Bounds(1, float("-inf"), -0.0, True, True, 2),
        'q"': Bounds(None, Decimal("1E-30"), Decimal("99"), False, True, 0),
        "b": Bounds(0, b"\xff\x00", b"\xff\xff", True, True, 0),
        "s": Bounds(0, "", "é", True, True, 0),
        "t": Bounds(0, False, True, True, True, 0),
        "i": Bounds(0, -(2**63), 2**64, True, True, 0),
        "n": UNKNOWN,
    }
    again = decode_bounds(encode_bounds(known))
    assert again == known
    assert str(again["a"].max) == "-0.0"
    assert decode_bounds("") == {}
    for text in ("[", "[1]", '{"a":[1]}', '{"a":[0,{"f":"x"},0,0,0]}'):
        with pytest.raises(Corrupt):
            decode_bounds(text)


@pytest.mark.parametrize(
    ("low", "high"),
    [("x" * 99, "y" * 99), (b"x" * 99, b"\xff" * 70), ("x" * 99, "\ud7ff" * 99), ("", "\U0010ffff" * 70)],
)
def test_long_strings_are_cut_outwards(low: str | bytes, high: str | bytes) -> None:
    (found,) = decode_bounds(encode_bounds({"c": Bounds(0, low, high, True, True, 0)})).values()
    assert found.min is not None
    assert found.min <= low  # type: ignore[operator]
    assert found.max is None or found.max > high  # type: ignore[operator]
    assert not found.max_exact
