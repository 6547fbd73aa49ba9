"""Labels, what stands for several of them, and their codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake.errors import InvalidInput
from lakelet.vector.labels import ALL_TENANTS, PUBLIC, PUBLIC_CODE, LabelTable, coded, parsed

LABEL = st.one_of(st.integers(-5, 5), st.sampled_from(["", "a", "b", "5", "é"]), st.just(PUBLIC))
BAD = [1.5, True, False, b"a", object(), np.float64(1), np.True_, ("a",)]


def plain(labels: Any) -> list[list[Any]]:
    return [list(each) for each in labels]


def test_a_number_and_its_digits_are_two_tenants() -> None:
    table = LabelTable()
    assert table.code(7) != table.code("7")
    assert table.code(7) == table.code(np.int64(7)) == table.code(np.uint8(7)) == table.find(7)
    assert table.code("7") == table.code(np.str_("7"))
    assert [type(label) for label in table.labels[1:]] == [int, str]
    assert len(table) == 3


def test_public_has_a_code_from_the_start() -> None:
    table = LabelTable()
    assert table.find(PUBLIC) == table.code(PUBLIC) == PUBLIC_CODE
    assert dict(table.known()) == {PUBLIC: PUBLIC_CODE}
    assert table.find("PUBLIC") is None
    assert repr(PUBLIC) == "lakelet.PUBLIC"


@pytest.mark.parametrize("label", [*BAD, None, ["a"]])
def test_what_is_no_label_has_no_code(label: Any) -> None:
    table = LabelTable()
    table.code(1)  # equal to True, and yet not it
    for call in (table.find, table.code):
        with pytest.raises(InvalidInput, match="a tenant is an int or a str"):
            call(label)
    assert len(table) == 2


def test_nothing_is_granted_to_all_tenants() -> None:
    for call in (LabelTable().find, LabelTable().code, lambda each: parsed(each, 1), lambda each: parsed([each], 1)):
        with pytest.raises(InvalidInput, match="ALL_TENANTS"):
            call(ALL_TENANTS)
    with pytest.raises(InvalidInput, match="ALL_TENANTS"):
        parsed([["a", ALL_TENANTS]], 1)


def test_a_label_forgotten_comes_back_with_a_new_code() -> None:
    table = LabelTable()
    first = table.code("a")
    other = table.code("b")
    table.forget(first)
    assert table.find("a") is None
    assert dict(table.known()) == {PUBLIC: 0, "b": other}
    again = table.code("a")
    assert again not in (first, other)
    assert table.find("a") == again
    assert table.labels[first] == table.labels[again] == "a"


def test_a_table_comes_back() -> None:
    table = LabelTable()
    codes = {label: table.code(label) for label in ["a", 3, "3", "gone"]}
    table.forget(codes["gone"])
    table.forget(codes["a"])
    table.code("a")
    unused = set(range(len(table))) - {code for _, code in table.known()}
    again = LabelTable.restored(table.labels[1:], unused)
    assert dict(again.known()) == dict(table.known())
    assert len(again) == len(table)
    assert again.code("new") == table.code("new") == 6
    assert dict(LabelTable.restored([], []).known()) == {PUBLIC: 0}


@pytest.mark.parametrize(
    ("tenants", "wanted"),
    [
        (None, [[], [], []]),
        ("abc", [["abc"]] * 3),
        (7, [[7]] * 3),
        (np.int32(7), [[7]] * 3),
        (np.str_("x"), [["x"]] * 3),
        (PUBLIC, [[PUBLIC]] * 3),
        (["a", "b", "a"], [["a"], ["b"], ["a"]]),
        (("a", 1, PUBLIC), [["a"], [1], [PUBLIC]]),
        ([None, "b", None], [[], ["b"], []]),
        ([["a", "b"], (), [1]], [["a", "b"], [], [1]]),
        ([{"a"}, frozenset([2]), ("c", "d")], [["a"], [2], ["c", "d"]]),
        ([np.array([1, 2]), np.array(["x"]), np.array([], np.int64)], [[1, 2], ["x"], []]),
        (np.array([1, 2, 3]), [[1], [2], [3]]),
        (np.array(["a", "b", "c"]), [["a"], ["b"], ["c"]]),
        (np.array([[1, 2], [3, 4], [5, 6]]), [[1, 2], [3, 4], [5, 6]]),
        (np.array(["a", None, 3], object), [["a"], [], [3]]),
        ([np.int64(4), np.str_("x"), 5], [[4], ["x"], [5]]),
        ((str(i) for i in range(3)), [["0"], ["1"], ["2"]]),
        ({"a": 1, "b": 2, "c": 3}.keys(), [["a"], ["b"], ["c"]]),
    ],
)
def test_tenants_of_rows_in_every_spelling(tenants: Any, wanted: list[list[Any]]) -> None:
    found = plain(parsed(tenants, 3))
    assert found == wanted
    assert all(label is PUBLIC or type(label) in (int, str) for row in found for label in row)


@pytest.mark.parametrize("tenants", [["a"], ["a"] * 4, [], np.arange(5), [None]])
def test_as_many_tenants_as_rows(tenants: Any) -> None:
    with pytest.raises(InvalidInput, match=f"{len(tenants)} tenants for 3 vectors"):
        parsed(tenants, 3)


@pytest.mark.parametrize("bad", BAD[:-1])
def test_a_row_of_no_label(bad: Any) -> None:
    for tenants in (["a", bad], ["a", ["b", bad]], ["a", (bad,)]):
        with pytest.raises(InvalidInput, match="a tenant is an int or a str"):
            parsed(tenants, 2)


@pytest.mark.parametrize("bad", [[[["a"]], "b"], [{"a": 1}, "b"], [["a", None], "b"]])
def test_lists_deeper_than_labels_of_a_row(bad: Any) -> None:
    with pytest.raises(InvalidInput, match="a tenant is an int or a str"):
        parsed(bad, 2)


@pytest.mark.parametrize("bad", [True, np.array([True, False]), np.array([1.0, 2.0])])
def test_truth_and_fractions_are_no_tenants(bad: Any) -> None:
    with pytest.raises(InvalidInput, match="a tenant is an int or a str"):
        parsed(bad, 2)


@pytest.mark.parametrize("bad", [1.5, object(), np.float64(1), np.True_])
def test_one_thing_for_all_rows_that_is_no_label(bad: Any) -> None:
    with pytest.raises(InvalidInput):
        parsed(bad, 2)


def test_bytes_are_no_list_of_numbers() -> None:
    with pytest.raises(InvalidInput):
        parsed(b"ab", 2)


@settings(max_examples=150)
@given(st.lists(st.lists(LABEL, max_size=6), max_size=12), st.lists(LABEL, max_size=4))
def test_codes_of_rows_each_once(labels: list[list[Any]], before: list[Any]) -> None:
    table = LabelTable()
    for label in before:
        table.code(label)
    offsets, codes = coded(parsed(labels, len(labels)), table)
    assert offsets.dtype == np.int64
    assert codes.dtype == np.int32
    assert len(offsets) == len(labels) + 1
    assert (offsets[0], offsets[-1]) == (0, len(codes))
    for row, wanted in enumerate(labels):
        mine = codes[offsets[row] : offsets[row + 1]].tolist()
        assert len(mine) == len(set(mine))
        assert {table.labels[code] for code in mine} == set(wanted)
    new = dict.fromkeys(label for row in [before, *labels] for label in row if label is not PUBLIC)
    assert table.labels == [PUBLIC, *new]
