"""A ``where`` is one condition and nothing else, over columns that are there, with the parameters that it names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from lakelet.lake.errors import InvalidSQL
from lakelet.lake.limits import WHERE_BYTES
from lakelet.lake.predicate import bind_where
from lakelet.lake.statistics import Bounds
from lakelet.lake.where import parse_where

TABLE = pa.table(
    {
        "a": [1, 2, None, 4],
        "A": [4, 3, 2, 1],
        "Year": [2019, 2020, 2021, 2022],
        'we "ird" ; --': ["x", "y", "z", "' OR 1=1"],
        "column 0": [1, 1, 0, 0],
        "é": [1.0, float("nan"), -0.0, None],
        "s": [{"x": 1}, {"x": 2}, None, {"x": None}],
        "l": [[1, 2], [], None, [3]],
        "": [9, 8, 7, 6],
        "h": pa.array([1, 2, 3, 4], pa.float16()),
        "big": pa.array([Decimal(1), Decimal(2), None, Decimal(4)], pa.decimal256(60, 0)),
        "cat": pa.array(["u", "v", "u", None]).dictionary_encode(),
        "row": [0, 0, 0, 5],
    }
)


def rows(where: str, params: Any = None) -> list[int]:
    return bind_where(where, TABLE.schema, params).matches(TABLE).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("where", "params", "expected"),
    [
        ("a >= 2", None, [1, 3]),
        ("A >= 2", None, [0, 1, 2]),
        ("a = $x OR a = $y", {"x": 1, "y": 4}, [0, 3]),
        ("a = ? AND year = ?", [2, 2020], [1]),
        ("a = $2 AND year = $1", [2020, 2], [1]),
        ("YEAR BETWEEN 2020 AND 2021", None, [1, 2]),
        ('"we ""ird"" ; --" = $v', {"v": "' OR 1=1"}, [3]),
        ('"column 0" = 0 AND a = 4', None, [3]),
        ("é > 5", None, [1]),
        ("é = 0", None, [2]),
        ("é IS NULL", None, [3]),
        ("s.x = 2", None, [1]),
        ("len(list_filter(l, lambda a: a > 1)) = 1", None, [0, 3]),
        ("len(list_filter(l, lambda e: e >= A)) > 0", None, [3]),
        ("h > 2.5", None, [2, 3]),
        ("big >= 2", None, [1, 3]),
        ("cat = 'u'", None, [0, 2]),
        ('"row" = 5', None, [3]),
        ("a IN (1, NULL)", None, [0]),
        ("a NOT IN (1, NULL)", None, []),
        ("a IN $l", {"l": [1, 4]}, [0, 3]),
        ("NULL", None, []),
        ("1 = 1", None, [0, 1, 2, 3]),
        ("$flag", {"flag": True}, [0, 1, 2, 3]),
        ("CASE WHEN a IS NULL THEN true ELSE a > 2 END", None, [2, 3]),
        ("'--' = '--' AND '/*' <> ';'", None, [0, 1, 2, 3]),
        ("(a = 1) OR (a = 2)", None, [0, 1]),
    ],
)
def test_conditions(where: str, params: Any, expected: list[int]) -> None:
    assert rows(where, params) == expected


@pytest.mark.parametrize(
    "where",
    [
        "",
        "  ",
        "a =",
        "1=1) OR (1=1",
        "(a = 1",
        "a = 1 --",
        "a = 1 -- OR true",
        "a = 1 /* OR */",
        "a = 1;",
        "a = 1; DROP TABLE t",
        "a = 1 ORDER BY a",
        "a = 1 LIMIT 1",
        "a = 1 GROUP BY a",
        "a = 1 HAVING true",
        "a = 1 QUALIFY true",
        "a = 1 WINDOW w AS (ORDER BY a)",
        "a = 1 USING SAMPLE 1",
        "a = 1 UNION ALL SELECT * FROM t",
        "a IN (SELECT 1)",
        "EXISTS (FROM t)",
        "a = ANY (SELECT 1)",
        "(SELECT true)",
        "row_number() OVER () = 1",
        "sum(a) > 1",
        "count(*) > 0",
        "* = 1",
        "COLUMNS(*) = 1",
        "#1 = 1",
        "a = DEFAULT",
        "no_such_function(a)",
        "a = 'x\0y'",
        "'unterminated",
        "a = \ud800",
        "read_text('/etc/passwd') = 'x'",
    ],
)
def test_anything_but_a_condition_is_refused(where: str) -> None:
    with pytest.raises(InvalidSQL):
        bind_where(where, TABLE.schema).check(TABLE.schema)


def test_errors_that_only_rows_bring_are_typed_too() -> None:
    with pytest.raises(InvalidSQL, match="not a number"):
        rows("a > 'not a number'")


def test_unknown_columns_are_named_with_their_place_and_what_there_is() -> None:
    with pytest.raises(InvalidSQL, match=r"unknown column 'nope' at byte 11; the columns are 'a', 'A', 'Year'"):
        rows("A = 1 AND (nope = 2)")
    with pytest.raises(InvalidSQL, match="'t'"):
        rows("t.a = 1")


def test_names_that_differ_in_case_must_be_written_exactly() -> None:
    schema = pa.schema([("Ab", pa.int8()), ("aB", pa.int8())])
    assert bind_where("aB = 1", schema).columns == ("aB",)
    with pytest.raises(InvalidSQL, match="any of 'Ab', 'aB'"):
        bind_where("ab = 1", schema)


@pytest.mark.parametrize(
    ("where", "params"),
    [
        ("a = $x", None),
        ("a = $x", {}),
        ("a = $x", {"y": 1}),
        ("a = $x", {"x": 1, "y": 1}),
        ("a = ?", [1, 2]),
        ("a = ?", []),
        ("a = 1", [1]),
        ("a = ?", "1"),
        ("a = ?", 1),
        ("a = $x", {"x": object()}),
    ],
)
def test_parameters_must_be_those_that_are_named(where: str, params: Any) -> None:
    with pytest.raises(InvalidSQL):
        rows(where, params)


def test_too_long_a_text_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(InvalidSQL, match="at most"):
        parse_where("a = 1" + " " * WHERE_BYTES)


def test_a_text_is_compiled_once() -> None:
    assert parse_where("a = 77") is parse_where("a = 77")


def test_files_and_the_network_are_closed() -> None:
    with pytest.raises(InvalidSQL):
        rows("a = (FROM read_csv('/etc/passwd'))")


def test_threads_do_not_meet() -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: rows("Year = $y", {"y": 2019 + i % 4}), range(64)))
    assert found == [[i % 4] for i in range(64)]


NUMBER = {"a": Bounds(0, 10, 20, True, True, 0)}
FLOAT = {"é": Bounds(0, 1.0, 2.0, True, True, None)}
CLEAN = {"é": Bounds(0, 1.0, 2.0, True, True, 0)}
TEXT = {'we "ird" ; --': Bounds(0, "b", "d", True, True, 0)}
CUT = {'we "ird" ; --': Bounds(0, "b", "d" * 16, False, False, 0)}
W = '"we ""ird"" ; --"'


@pytest.mark.parametrize(
    ("where", "params", "bounds", "expected"),
    [
        ("a = 9", None, NUMBER, False),
        ("a = 10", None, NUMBER, True),
        ("a > 20", None, NUMBER, False),
        ("20 < a", None, NUMBER, False),
        ("a < $x", {"x": 10}, NUMBER, False),
        ("a IS NULL", None, NUMBER, False),
        ("a IN (1, 2, 30)", None, NUMBER, False),
        ("a IN $l", {"l": [1, 30]}, NUMBER, False),
        ("NOT a BETWEEN 10 AND 20", None, NUMBER, False),
        ("NOT (a >= 10)", None, NUMBER, False),
        ("a = 1 OR a = 15", None, NUMBER, True),
        ("a = 1 AND A = 1", None, NUMBER, False),
        ("a + 1 = 1", None, NUMBER, True),
        ("a = NULL", None, NUMBER, False),
        ("é > 2", None, FLOAT, True),
        ("é > 2", None, CLEAN, False),
        ("é < 1", None, FLOAT, False),
        ("é <> 1.5", None, FLOAT, True),
        (f"{W} = 'a'", None, TEXT, False),
        (f"{W} LIKE 'e%'", None, TEXT, False),
        (f"{W} LIKE 'a%'", None, TEXT, False),
        (f"{W} LIKE 'c%'", None, TEXT, True),
        (f"{W} > 'd'", None, TEXT, False),
        (f"{W} = $v", {"v": "d" * 20}, CUT, True),
        (f"{W} = $v", {"v": "e"}, CUT, False),
        (f"{W} = 5", None, TEXT, True),
    ],
)
def test_files_are_left_out_when_bounds_refute(
    where: str, params: Any, bounds: dict[str, Bounds], expected: bool
) -> None:
    assert bind_where(where, TABLE.schema, params).may_match(bounds, 100) is expected


def test_dates_prune_too() -> None:
    schema = pa.schema([("d", pa.date32())])
    bounds = {"d": Bounds(0, 100, 200, True, True, 0)}
    assert not bind_where("d < DATE '1970-01-01'", schema).may_match(bounds, 5)
    assert not bind_where("d > $d", schema, {"d": date(1990, 1, 1)}).may_match(bounds, 5)
    assert bind_where("d = $d", schema, {"d": date(1970, 5, 1)}).may_match(bounds, 5)
    assert not bind_where("d = $d", schema, {"d": date(1970, 5, 1)}).may_match(bounds, 0)
