"""A condition over attributes names the rows that DuckDB names, whichever way it is evaluated.

The oracle gets the whole table and the condition as plain SQL. Values are drawn from few, so that bounds are hit
exactly and often; columns of many values are forced by letting others have three.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lakelet.lake.errors import InvalidSQL
from lakelet.vector import columns as columns_module
from lakelet.vector import rank_column
from lakelet.vector.attributes import declared
from lakelet.vector.bitmaps import count, rows_of
from lakelet.vector.bound import Judged
from lakelet.vector.conditions import Conditions
from lakelet.vector.constants import plain as conditions_plain
from lakelet.vector.loose_columns import loose
from lakelet.vector.matching import Columns, frozen, matching, table_of

ORACLE = duckdb.connect()
ORACLE.execute("SET TimeZone = 'UTC'")
DAY, MOMENT, BIG = date(2020, 2, 28), datetime(2020, 1, 1, 12), 2**53
NOBODY = np.empty(0, np.uint32)

VALUES: dict[str, tuple[str, list[Any]]] = {
    "tiny": ("int8", [-128, -1, 0, 1, 2, 127]),
    "whole": ("int64", [-(2**63), -1, 0, 1, 2, BIG, BIG + 1, BIG + 2, 2**63 - 1]),
    "plenty": ("uint64", [0, 1, 2, 2**63, 2**64 - 1]),
    "ratio": ("float64", [float("-inf"), -1.5, -0.0, 0.0, 0.1, 1.0, 2.0, float(BIG), float("inf"), float("nan")]),
    "single": ("float32", [-1.5, -0.0, 0.0, 0.1, 1.0, 16777216.0, float("inf"), float("nan")]),
    "Text": ("string", ["", "a", "ab", "abc", "b", "é", "zzzzzzzzzz", "\U0010ffff", "x'y"]),
    "day": ("date", [DAY - timedelta(1), DAY, DAY + timedelta(1), DAY + timedelta(2), date(9999, 12, 31)]),
    "moment": ("timestamp", [MOMENT, MOMENT + timedelta(microseconds=1), MOMENT + timedelta(days=1)]),
    "at_s": ("timestamp[s]", [MOMENT, MOMENT + timedelta(seconds=1), MOMENT + timedelta(days=1)]),
    "at_ns": ("timestamp[ns]", [MOMENT, MOMENT + timedelta(microseconds=1)]),
    "at_utc": ("timestamp[ms, tz=UTC]", [MOMENT.replace(tzinfo=UTC), MOMENT.replace(tzinfo=UTC) + timedelta(hours=1)]),
    "flag": ("bool", [False, True]),
    "tags": ("list<string>", [[], ["a"], ["a", "b"], ["b", "a", "b"], ["c", None], [None], [""]]),
}
NUMBERS = ["-129", "-1", "0", "1", "1.5", "2", "127", "128", "1e2", "0.1", "-0.0", "NULL", str(BIG), str(BIG + 1)]
LITERALS = {
    "tiny": [*NUMBERS, "'1'"],
    "whole": [*NUMBERS, "9007199254740993.0", "9.007199254740993e15", "9223372036854775808", "' 2 '"],
    "plenty": [*NUMBERS, "18446744073709551615", "18446744073709551616"],
    "ratio": [*NUMBERS, "1e300", "'nan'::DOUBLE", "'inf'", "9007199254740993", "'0.1'"],
    "single": [*NUMBERS, "0.1::DOUBLE", "16777217", "1e39", "'0.1'"],
    "Text": ["''", "'a'", "'ab'", "'aa'", "'é'", "'zzzzzzzzzz'", "'x''y'", "NULL"],
    "day": ["DATE '2020-02-28'", "'2020-02-29'", "'2020-3-1'", "TIMESTAMP '2020-02-28 12:00:00'", "NULL"],
    "moment": ["TIMESTAMP '2020-01-01 12:00:00'", "'2020-01-01 12:00:00.000001'", "DATE '2020-01-02'", "NULL"],
    "at_s": ["TIMESTAMP '2020-01-01 12:00:00'", "'2020-01-01 12:00:00.6'", "TIMESTAMP '2020-01-01 12:00:00.4'"],
    "at_ns": ["TIMESTAMP '2020-01-01 12:00:00'", "TIMESTAMP '2020-01-01 12:00:00.000001'"],
    "at_utc": ["TIMESTAMPTZ '2020-01-01 12:00:00+00'", "TIMESTAMP '2020-01-01 13:00:00'", "'2020-01-01 12:00:00+00'"],
    "flag": ["true", "false", "NULL"],
}
PARAMS: dict[str, list[Any]] = {
    "tiny": [-1, 0, 1, 1.0, 0.5, 2**70, np.int64(2), None, Decimal("0.5"), float("nan"), float("inf")],
    "whole": [0, 1, 1.0, 2.5, BIG + 1, float(BIG), -(2**63) - 1, None, Decimal("1.0"), np.float32(1)],
    "plenty": [0, 2, 2**64 - 1, 2**64, -1, 1.5, None],
    "ratio": [0, 0.1, -0.0, 1, float("nan"), float("-inf"), BIG + 1, np.float32(0.1), Decimal("0.1"), None],
    "single": [0, 0.1, 1, 16777217, float(np.float32(0.1)), np.float32(0.1), Decimal("0.1"), None],
    "Text": ["", "a", "aa", "é", "\U0010ffff", "x'y", None],
    "day": [DAY, datetime(2020, 2, 28, 12), "2020-02-29", date.max, None],
    "moment": [MOMENT, MOMENT.date(), MOMENT + timedelta(microseconds=1), "2020-01-01 12:00:00", None],
    "at_s": [MOMENT, MOMENT + timedelta(milliseconds=400), MOMENT.date(), None],
    "at_ns": [MOMENT, MOMENT + timedelta(microseconds=1)],
    "at_utc": [MOMENT.replace(tzinfo=UTC), MOMENT, None],
    "flag": [True, False, None],
}
SCHEMA = declared({name: kind for name, (kind, _) in VALUES.items()})
SCALARS = [name for name in VALUES if name != "tags"]


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A table of up to 150 rows, so that bitmaps have whole words and a rest."""
    rows = draw(st.integers(0, 150))
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    arrays = []
    for name, (_, values) in VALUES.items():
        among = [None, *values]
        picked = random.integers(0 if draw(st.booleans()) else 1, len(among), rows).tolist()
        arrays.append(pa.array([among[i] for i in picked], SCHEMA.field(name).type))
    return pa.table(arrays, schema=SCHEMA)


@st.composite
def conditions(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """The text of a condition and its parameters."""
    params: dict[str, Any] = {}

    def given_value(name: str) -> str:
        if draw(st.booleans()):
            return draw(st.sampled_from(LITERALS[name]))
        key = f"p{len(params)}"
        params[key] = draw(st.sampled_from(PARAMS[name]))
        return f"${key}"

    def listed(name: str) -> str:
        key = f"p{len(params)}"
        params[key] = draw(st.lists(st.sampled_from(PARAMS[name]), max_size=4))
        return f"${key}"

    def about_tags() -> str:
        texts = draw(st.lists(st.sampled_from(["'a'", "'b'", "'c'", "''", "NULL"]), min_size=1, max_size=2))
        return draw(
            st.sampled_from(
                [
                    f"list_contains(tags, {texts[0]})",
                    f"{texts[0]} IN tags",
                    f"list_has_any(tags, [{', '.join(texts)}])",
                    f"list_has_all(tags, [{', '.join(texts)}])",
                    "tags IS NULL",
                    "len(tags) = 1",
                ]
            )
        )

    def leaf() -> str:
        name = draw(st.sampled_from([*SCALARS, "tags", "tags"]))
        if name == "tags":
            return about_tags()
        shape = draw(st.integers(0, 7))
        if shape == 0:
            return f"{name} IS {draw(st.sampled_from(['NULL', 'NOT NULL']))}"
        if shape == 1:
            values = [given_value(name) for _ in range(draw(st.integers(1, 4)))]
            return f"{name} {draw(st.sampled_from(['IN', 'NOT IN']))} ({', '.join(values)})"
        if shape == 2:
            return f"{name} {draw(st.sampled_from(['', 'NOT ']))}BETWEEN {given_value(name)} AND {given_value(name)}"
        if shape == 3:
            return f"{name} IN {listed(name)}"
        if name == "flag" and shape == 4:
            return "flag"
        operator = draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM"]))
        sides = [name, given_value(name)]
        return f" {operator} ".join(sides if draw(st.booleans()) else sides[::-1])

    def tree(depth: int) -> str:
        shape = draw(st.integers(0, 3)) if depth else 3
        if shape == 0:
            return f"NOT ({tree(depth - 1)})"
        if shape < 3:
            return f"({tree(depth - 1)} {'AND' if shape == 1 else 'OR'} {tree(depth - 1)})"
        return leaf()

    return tree(draw(st.integers(0, 2))), params


@contextlib.contextmanager
def few_cells() -> Iterator[None]:
    """Columns with more than three values are ranked, in small cells and blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_module, "CELLS", 3)
        patch.setattr(rank_column, "CELL_ROWS", 20)
        patch.setattr(rank_column, "BLOCK_ROWS", 64)
        yield


def oracle(table: pa.Table, text: str, params: dict[str, Any]) -> list[int]:
    """The rows that DuckDB finds."""
    numbered = table.append_column("row", pa.array(np.arange(table.num_rows)))
    ORACLE.register("numbered", numbered)
    plain = {name: conditions_plain(value) for name, value in params.items()}
    found = ORACLE.execute(f"SELECT row FROM numbered WHERE {text} ORDER BY row", plain).fetchnumpy()["row"]
    return list(np.asarray(found).tolist())


def evaluated(conditions: Conditions, columns: Columns, rows: int, text: str, params: Any, some: Any) -> list[int]:
    bound = conditions.bound(text, params)
    words = matching(bound, columns, rows, some)
    assert count(words) == len(rows_of(words, NOBODY))
    return list(rows_of(words, NOBODY if some is None else some).tolist())


@given(tables(), conditions(), st.data())
@settings(max_examples=250, suppress_health_check=list(HealthCheck))
def test_every_way_names_the_rows_that_duckdb_names(
    table: pa.Table, condition: tuple[str, dict[str, Any]], data: st.DataObject
) -> None:
    text, params = condition
    try:
        expected = oracle(table, text, params)
        failed = None
    except (duckdb.Error, OverflowError) as error:
        expected, failed = [], error
    rows, known = table.num_rows, Conditions(SCHEMA)
    if failed is not None:  # an error must not depend on which rows there are, so it may come where DuckDB's did not
        with pytest.raises(InvalidSQL):
            evaluated(known, frozen(table), rows, text, params, None)
        return
    some = np.flatnonzero(np.random.default_rng(rows).random(rows) < 0.4).astype(np.uint32)
    wanted = [row for row in expected if row in set(some.tolist())]
    exact = frozen(table)
    with few_cells():
        for columns in (exact, frozen(table)):
            assert evaluated(known, columns, rows, text, params, None) == expected
            assert evaluated(known, columns, rows, text, params, some) == wanted
    growing = {field.name: loose(field.type, rows) for field in SCHEMA}
    for first in range(0, rows, 60):
        for name, column in growing.items():
            column.append(table.column(name).slice(first, 60).combine_chunks())
    assert evaluated(known, growing, rows, text, params, np.arange(rows, dtype=np.uint32)) == expected
    assert evaluated(known, growing, rows, text, params, some) == wanted
    assert known.bound(text, params) is known.bound(text, dict(params)) or any(
        isinstance(value, np.generic | list) for value in params.values()
    ), "what comes again is known again"


@given(tables())
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_columns_give_back_their_values(table: pa.Table) -> None:
    rows = np.random.default_rng(table.num_rows).permutation(table.num_rows)
    wanted = table.take(pa.array(rows))
    with few_cells():
        ranked = frozen(table)
    growing = {field.name: loose(field.type, table.num_rows) for field in SCHEMA}
    for name, column in growing.items():
        column.append(table.column(name).combine_chunks())
    for columns in (frozen(table), ranked, growing):
        found = table_of(columns, rows)
        assert found.schema == wanted.schema
        for name in SCHEMA.names:
            assert repr(found.column(name).to_pylist()) == repr(wanted.column(name).to_pylist()), name  # -0.0, nan


PLAIN = [
    ("whole >= $y AND Text IN ('en', 'de')", {"y": 3}),
    ("whole = 1 OR whole > 5 OR whole IS NULL", {}),
    ("NOT (ratio BETWEEN 0.5 AND 2 AND flag)", {}),
    ("whole IN $l", {"l": [1, 2]}),
    ("day >= '2020-01-01' AND day < DATE '2021-01-01'", {}),
    ("moment >= $t", {"t": MOMENT}),
    ("moment < $t", {"t": "2020-01-01"}),
    ("list_has_any(tags, $l)", {"l": ["a"]}),
    ("'a' IN tags AND NOT list_contains(tags, $t)", {"t": "b"}),
    ("single < 0.1", {}),
    ("plenty <> 18446744073709551615", {}),
]


@pytest.mark.parametrize(("text", "params"), PLAIN)
def test_usual_conditions_do_not_need_duckdb_at_each_search(text: str, params: dict[str, Any]) -> None:
    assert not isinstance(Conditions(SCHEMA).bound(text, params), Judged)


def test_conditions_are_told_apart_by_their_values() -> None:
    known, text = Conditions(SCHEMA), "whole % $m = 0"
    assert known.bound(text, {"m": 2}) == known.bound(text, {"m": 2})
    assert known.bound("flag = $m", {"m": True}) is not known.bound("flag = $m", {"m": 1}), "which DuckDB judges"
    assert known.bound(text, {"m": 2}) != known.bound(text, {"m": 3})
    assert known.bound(text, {"m": 2}) != known.bound(text, {"m": 2.0})
    long = [np.arange(2000), np.arange(2000)]
    long[1][1000] = 7  # repr shows neither
    assert known.bound("whole > random()", {}) != known.bound("whole > random()", {}), "it is asked anew each time"
    one, other = (known.bound("whole IN $l AND whole % 2 = 0", {"l": values.tolist()}) for values in long)
    assert one != other
