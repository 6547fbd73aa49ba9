"""A scan with a condition returns what DuckDB returns over all rows at once, whatever files and row groups are skipped.

The oracle gets the whole table and the condition as plain SQL text; the fast path gets many small files with
statistics. Values are drawn from few, so that bounds are hit exactly and often.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lakelet.lake.errors import InvalidSQL
from lakelet.lake.incoming import open_reader
from lakelet.lake.layout import ParquetLayout
from lakelet.lake.local_store import LocalStore
from lakelet.lake.schema import encode_schema
from lakelet.lake.snapshot import OwnedTable
from lakelet.lake.table import Table, owned_table
from lakelet.lake.writer import write_files


class Unsynced(LocalStore):
    """Power loss is not what is tested here."""

    def sync(self, path: str) -> None:
        """Nothing."""


STORE = Unsynced(tempfile.mkdtemp())
ORACLE = duckdb.connect()
ORACLE.execute("SET TimeZone = 'UTC'")
DAY = date(2020, 2, 28)
MOMENT = datetime(2020, 1, 1, 12)
BIG = 2**53

VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "tiny": (pa.int8(), [-128, -1, 0, 1, 2, 127]),
    "whole": (pa.int64(), [-(2**63), -1, 0, 1, 2, BIG, BIG + 1, BIG + 2, 2**63 - 1]),
    "natural": (pa.uint64(), [0, 1, 2, 2**63, 2**64 - 1]),
    "real": (pa.float64(), [float("-inf"), -1.5, -0.0, 0.0, 0.1, 1.0, 2.0, float(BIG), float("inf"), float("nan")]),
    "single": (pa.float32(), [-1.5, -0.0, 0.0, 0.1, 1.0, 16777216.0, float("inf"), float("nan")]),
    "money": (
        pa.decimal128(10, 2),
        [Decimal(text) for text in ("-1.50", "0.00", "0.10", "1.00", "2.01", "99999999.99")],
    ),
    "Text": (pa.string(), ["", "a", "ab", "abc", "b", "é", "zzzzzzzzzzzzzzzzzzzzzz", "\U0010ffff", "x'y"]),
    "kind": (pa.dictionary(pa.int8(), pa.string()), ["", "a", "ab", "b"]),
    "raw": (pa.binary(), [b"", b"a", b"a\x00", b"\xff\xff"]),
    "day": (pa.date32(), [DAY - timedelta(1), DAY, DAY + timedelta(1), DAY + timedelta(2), date(9999, 12, 31)]),
    "at": (pa.timestamp("us"), [MOMENT, MOMENT + timedelta(microseconds=1), MOMENT + timedelta(days=1)]),
    "at_s": (pa.timestamp("s"), [MOMENT, MOMENT + timedelta(seconds=1), MOMENT + timedelta(days=1)]),
    "at_utc": (
        pa.timestamp("ms", "Europe/Berlin"),
        [MOMENT.replace(tzinfo=UTC), MOMENT.replace(tzinfo=UTC) + timedelta(hours=1)],
    ),
    "flag": (pa.bool_(), [False, True]),
}
LITERALS = {
    "tiny": ["-129", "-1", "0", "1", "127", "128", "1.5", "1e2", "NULL", "'1'"],
    "whole": ["0", "1", str(BIG), str(BIG + 1), "9007199254740993.0", "1e0", "9.007199254740993e15", "2.5", "NULL"],
    "natural": ["0", "2", "18446744073709551615", "9223372036854775808", "-1", "1.0"],
    "real": ["0", "-0.0", "0.1", "1", "1e300", "'nan'::DOUBLE", "'inf'::DOUBLE", "9007199254740993", "NULL"],
    "single": ["0", "0.1", "0.1::DOUBLE", "1.0", "16777217", "1e39", "NULL"],
    "money": ["0", "0.1", "0.105", "1", "2.01", "1e0", "0.1::DOUBLE", "99999999.99", "NULL"],
    "Text": ["''", "'a'", "'ab'", "'b'", "'é'", "'zzzzzzzzzzzzzzzzzzzzzz'", "'x''y'", "NULL"],
    "kind": ["''", "'a'", "'aa'", "'b'", "NULL"],
    "raw": ["'a'::BLOB", "''::BLOB", "'\\xFF'::BLOB", "NULL"],
    "day": ["DATE '2020-02-28'", "'2020-02-29'", "TIMESTAMP '2020-02-28 12:00:00'", "DATE '9999-12-31'", "NULL"],
    "at": ["TIMESTAMP '2020-01-01 12:00:00'", "'2020-01-01 12:00:00.000001'", "DATE '2020-01-02'", "NULL"],
    "at_s": ["TIMESTAMP '2020-01-01 12:00:00'", "'2020-01-01 12:00:00.6'", "TIMESTAMP '2020-01-01 12:00:00.4'"],
    "at_utc": ["TIMESTAMPTZ '2020-01-01 12:00:00+00'", "TIMESTAMP '2020-01-01 13:00:00'", "'2020-01-01 12:00:00+00'"],
    "flag": ["true", "false", "NULL"],
}
COLUMNS = list(VALUES)


@st.composite
def tables(draw: st.DrawFn, names: list[str]) -> list[pa.Table]:
    """The files of one table: few rows each, drawn from neighbouring values so that bounds differ between files."""
    files = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(1, 6))
        columns = {}
        for name in names:
            kind, values = VALUES[name]
            start = draw(st.integers(0, len(values) - 1))
            near = st.sampled_from(values[start : start + draw(st.integers(1, 3))])
            nulls = draw(st.sampled_from(["none", "some", "all"]))
            cell = near if nulls == "none" else st.none() if nulls == "all" else st.one_of(st.none(), near)
            found = draw(st.lists(cell, min_size=rows, max_size=rows))
            plain = kind.value_type if pa.types.is_dictionary(kind) else kind
            columns[name] = pa.array(found, plain).cast(kind) if plain is not kind else pa.array(found, kind)
        files.append(pa.table(columns))
    return files


@st.composite
def comparisons(draw: st.DrawFn, names: list[str]) -> tuple[str, list[Any]]:
    name = draw(st.sampled_from(names))
    quoted = f'"{name}"' if draw(st.booleans()) else name.upper()
    params: list[Any] = []

    def value() -> str:
        if draw(st.booleans()):
            return draw(st.sampled_from(LITERALS[name]))
        params.append(draw(st.sampled_from([*VALUES[name][1], None])))
        return "?"

    match draw(st.integers(0, 7)):
        case 0 | 1 | 2:
            operator = draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]))
            sides = [quoted, value()] if draw(st.booleans()) else [value(), quoted]
            return f" {operator} ".join(sides), params
        case 3:
            return f"{quoted} BETWEEN {value()} AND {value()}", params
        case 4:
            word = draw(st.sampled_from(["IN", "NOT IN"]))
            return f"{quoted} {word} ({value()}, {value()})", params
        case 5:
            return f"{quoted} IS {draw(st.sampled_from(['NULL', 'NOT NULL']))}", params
        case 6 if name in ("Text", "kind"):
            params.append(draw(st.sampled_from(["a%", "ab%", "%b", "a_c", "", "zzzzzzzzzzzzzzzzzz%", "é%", "x'y"])))
            return f"{quoted} LIKE ?", params
        case _ if name == "flag":
            return quoted, params
        case _:
            params.append(draw(st.lists(st.sampled_from([*VALUES[name][1], None]), min_size=1, max_size=3)))
            return f"{quoted} IN ?", params


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[pa.Table], str, list[Any]]:
    names = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=3, unique=True))
    conditions = st.recursive(
        st.one_of(comparisons(names), comparisons(names), st.just(("NULL", []))),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(
                lambda parts: (f"({parts[0][0]} {parts[1]} {parts[2][0]})", parts[0][1] + parts[2][1])
            ),
            inner.map(lambda part: (f"NOT ({part[0]})", part[1])),
        ),
        max_leaves=4,
    )
    return (draw(tables(names)), *draw(conditions))


def _stored(files: list[pa.Table]) -> Table:
    schema = files[0].schema
    layout = ParquetLayout(row_group_rows=2)
    written = itertools.chain.from_iterable(
        write_files(STORE, "t", open_reader(file), schema, 0, layout) for file in files
    )
    entry = OwnedTable("t", "t", (encode_schema(schema),), {file.file_id: file for file in written})
    return owned_table(STORE, entry, 1)


def _oracle(rows: pa.Table, where: str, params: list[Any]) -> pa.Table | None:
    numbered = rows.append_column("row number", pa.array(range(rows.num_rows)))
    ORACLE.register("rows", numbered)
    try:
        found = ORACLE.execute(f'SELECT "row number" FROM rows WHERE {where} ORDER BY 1', params).fetchall()
    except duckdb.Error:
        return None
    finally:
        ORACLE.unregister("rows")
    return rows.take(pa.array([number for (number,) in found], pa.int64()))


def check(case: tuple[list[pa.Table], str, list[Any]]) -> None:
    files, where, params = case
    expected = _oracle(pa.concat_tables(files), where, params)
    table = _stored(files)
    if expected is None:
        # Over fewer rows there may be no error to meet.
        with contextlib.suppress(InvalidSQL):
            table.to_arrow(where=where, params=params)
        return
    found = table.to_arrow(where=where, params=params)
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert str(found.to_pylist()) == str(expected.to_pylist())  # as text: NaN equals itself there
    assert table.to_arrow(columns=[], where=where, params=params).num_rows == expected.num_rows


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(cases())
def test_a_scan_finds_what_duckdb_finds(case: tuple[list[pa.Table], str, list[Any]]) -> None:
    check(case)


@pytest.mark.slow
@settings(max_examples=3_000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(cases())
def test_a_scan_finds_what_duckdb_finds_at_length(case: tuple[list[pa.Table], str, list[Any]]) -> None:
    check(case)
