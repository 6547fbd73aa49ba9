"""What attributes and conditions are refused: a typed error, and nothing was changed."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lakelet.lake.errors import InvalidInput, InvalidSQL, LimitExceeded
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import ALL_TENANTS

TYPES = {"year": "int64", "lang": "string", "day": "date", "tags": "list<string>"}


def index() -> VectorIndex:
    made = VectorIndex(2, attributes=TYPES)
    made.add([[0.0, 1.0], [1.0, 0.0]], attributes={"year": [1, 2], "lang": ["a", None]})
    return made


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        (["year"], "expected a dict"),
        ({"year": "integer"}, "attribute 'year' of type 'integer': expected int8"),
        ({"year": pa.decimal128(5, 2)}, "expected int8"),
        ({"year": pa.list_(pa.int64())}, "expected int8"),
        ({"": "int64"}, "not empty"),
        ({7: "int64"}, "expected a text"),
        (pa.schema([("a", pa.int64()), ("a", pa.int64())]), "'a' is declared more than once"),
    ],
)
def test_types_that_are_none(declared: Any, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        VectorIndex(2, attributes=declared)


def test_too_many_attributes() -> None:
    with pytest.raises(LimitExceeded, match="1,001 attributes"):
        VectorIndex(2, attributes={f"a{i}": "int64" for i in range(1_001)})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"jahr": [1, 2]}, "unknown attribute 'jahr': this index has 'year', 'lang'"),
        ({"year": [1]}, "'year' has 1 values for 2 vectors"),
        ({"year": [1, 2, 3]}, "'year' has 3 values for 2 vectors"),
        ({"year": ["x", "y"]}, "attribute 'year' of type int64"),
        ({"year": np.array(["x", "y"])}, "values of type string"),
        ({"year": [1.5, 2]}, "attribute 'year' of type int64"),
        ({"year": np.array([1.5, 2])}, "attribute 'year' of type int64"),
        ({"year": np.array([[1, 2], [3, 4]])}, r"shape \(2, 2\)"),
        ({"year": [2**63, 1]}, "attribute 'year'"),
        ({"year": np.array([True, False])}, "values of type bool"),
        ({"lang": [1, 2]}, "attribute 'lang'"),
        ({"lang": np.array([1, 2])}, "values of type int64"),
        ({"lang": {"a", "b"}}, "no sequence"),
        ({"day": ["2020-01-01", "x"]}, "values of type string"),
        ({"day": [5, 6]}, "values of type int64"),
        ({"tags": ["a", "b"]}, "attribute 'tags'"),
        ({"tags": [[1], [2]]}, "attribute 'tags'"),
        ([1, 2], "expected a dict"),
        (pa.table({"jahr": [1, 2]}), "unknown attribute 'jahr'"),
    ],
)
def test_values_that_do_not_fit_change_nothing(given: Any, told: str) -> None:
    made = index()
    with pytest.raises(InvalidInput, match=told):
        made.add([[5.0, 5.0], [6.0, 6.0]], attributes=given)
    assert len(made) == 2
    made.add([[5.0, 5.0]], attributes={"year": [9]})
    assert made.search([0.0, 0.0], 3, where="year = 9")[0].tolist() == [[2, -1, -1]]


def test_an_index_without_attributes_takes_none() -> None:
    made = VectorIndex(2)
    with pytest.raises(InvalidInput, match="unknown attribute 'year': this index has none"):
        made.add([[0.0, 1.0]], attributes={"year": [1]})
    made.add([[0.0, 1.0]], attributes={})
    with pytest.raises(InvalidSQL, match=r"unknown column 'year'.*the columns are none"):
        made.search([0.0, 1.0], where="year = 1")
    assert made.search([0.0, 1.0], 1, where="1 = 1")[0].tolist() == [[0]]


@pytest.mark.parametrize(
    ("where", "params", "told"),
    [
        ("jahr = 1", None, "unknown column 'jahr' at byte 0; the columns are 'year', 'lang', 'day', 'tags'"),
        ("year = ", None, "does not parse"),
        ("year = 1; DROP TABLE t", None, "where"),
        ("year = 1 ORDER BY year", None, "where"),
        ("year = 1 -- so", None, "comment"),
        ("year IN (SELECT 1)", None, "subquery"),
        ("", None, "empty"),
        (7, None, "must be SQL text"),
        ("year = $y", None, r"lacks \['y'\]"),
        ("year = $y", {"y": 1, "z": 2}, r"has \['z'\] too many"),
        ("year = $y", 7, "must be a dict"),
        ("year = 'x'", None, "where cannot be run"),
        ("year = $y", {"y": "x"}, "where cannot be run"),
        ("day = 5", None, "where cannot be run"),
        ("lang > 5", None, "where cannot be run"),
        ("list_contains(tags, 5)", None, "where cannot be run"),
        ("nosuch(year)", None, "where cannot be run"),
    ],
)
def test_conditions_that_cannot_be(where: Any, params: Any, told: str) -> None:
    for made in (index(), VectorIndex(2, attributes=TYPES)):  # with rows, and with none
        with pytest.raises(InvalidSQL, match=told):
            made.search([0.0, 1.0], where=where, params=params)
        with pytest.raises(InvalidSQL, match=told):
            made.explain(where=where, params=params)


def test_params_without_a_condition() -> None:
    with pytest.raises(InvalidInput, match="params without where"):
        index().search([0.0, 1.0], params={"y": 1})


def test_positional_params_and_moments() -> None:
    made = index()
    made.add([[2.0, 2.0]], attributes={"day": [date(2020, 2, 29)], "year": 7})
    for where, params in (
        ("day = ?", [date(2020, 2, 29)]),
        ("day = ? AND year = ?", ["2020-02-29", 7]),
        ("year % ? = 0 AND day > ?", [7, "2020-01-01"]),
        ("day BETWEEN $a AND $a", {"a": np.datetime64("2020-02-29").item()}),
    ):
        assert made.search([0.0, 1.0], 2, where=where, params=params)[0].tolist() == [[2, -1]], where


@pytest.mark.parametrize("rows", [3, 300])
def test_a_row_that_cannot_be_judged_is_an_error_to_those_alone_who_see_it(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakelet.vector.index.VECTOR_BULK_ROWS", 200)
    made, where = VectorIndex(2, attributes=TYPES), "CAST(lang AS INTEGER) > 3"
    ids = made.add(np.ones((rows, 2), np.float32), tenants="a", attributes={"lang": ["5"] * rows})
    (bad,) = made.add([[1.0, 1.0]], tenants=["b"], attributes={"lang": ["x"]})
    made.optimize()
    assert (made.search([1.0, 1.0], 3, "a", where=where)[0] == ids[:3]).all()
    for who in ("b", ALL_TENANTS):
        with pytest.raises(InvalidSQL, match="Could not convert string 'x'"):
            made.search([1.0, 1.0], 3, who, where=where)
    made.grant([bad], "a")
    with pytest.raises(InvalidSQL):
        made.search([1.0, 1.0], 3, "a", where=where)
    made.revoke([bad], "a")
    assert (made.search([1.0, 1.0], 3, "a", where=where)[0] == ids[:3]).all()
    made.delete([bad])
    assert (made.search([1.0, 1.0], 3, ALL_TENANTS, where=where)[0] == ids[:3]).all()
