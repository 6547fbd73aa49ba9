"""Predicates against the algebra of sets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake.errors import InvalidInput
from lakelet.vector.ascending import difference, intersection, union
from lakelet.vector.labels import ALL_TENANTS, PUBLIC, PUBLIC_CODE, LabelTable
from lakelet.vector.postings import NONE, Posting
from lakelet.vector.predicates import And, Not, Or, Predicate, Tenant, selected

ROWS = 40
LABELS = ["a", "b", 7, "7"]
UNKNOWN = "nobody"
SETS = st.sets(st.integers(0, 2**32 - 1), max_size=60) | st.sets(st.integers(0, 20))
GRANTS = st.lists(st.sets(st.integers(0, ROWS - 1)), min_size=len(LABELS) + 1, max_size=len(LABELS) + 1)
TREES = st.recursive(
    st.sampled_from([*LABELS, PUBLIC, UNKNOWN]).map(Tenant),
    lambda below: st.one_of(
        st.builds(And, below, below),
        st.builds(Or, below, below),
        st.builds(Not, below),
        st.builds(lambda left, right: left & ~right, below, below),
    ),
    max_leaves=12,
)


def array(values: set[int]) -> np.ndarray:
    return np.array(sorted(values), np.uint32)


def posting(random: np.random.Generator, rows: set[int]) -> Posting:
    """The rows as a list of a base, what was added and what was removed."""
    added = {row for row in rows if random.random() < 0.3}
    removed = {int(row) for row in random.integers(0, ROWS, 5)} - rows
    return Posting(array(rows - added | removed), array(added), array(removed))


class Lists:
    """Grants as a unit has them, and as sets: the public rows first."""

    def __init__(self, grants: list[set[int]], rows: int = ROWS, seed: int = 0) -> None:
        self.table, random = LabelTable(), np.random.default_rng(seed)
        codes = [PUBLIC_CODE, *(self.table.code(label) for label in LABELS)]
        self.sets = dict(zip([PUBLIC, *LABELS], grants, strict=True))
        self.lists = {code: posting(random, rows) for code, rows in zip(codes, grants, strict=True)}
        self.everything = np.arange(rows, dtype=np.uint32)

    def found(self, predicate: Predicate) -> list[int]:
        out = selected(predicate, self.table, lambda code: self.lists.get(code, Posting(NONE)), self.everything)
        assert out.dtype == np.uint32
        assert (np.diff(out.astype(int)) > 0).all()
        return out.tolist()

    def wanted(self, predicate: Predicate) -> set[int]:
        match predicate:
            case Tenant(label):
                return self.sets.get(label, set()) | self.sets[PUBLIC]
            case And(left, right):
                return self.wanted(left) & self.wanted(right)
            case Or(left, right):
                return self.wanted(left) | self.wanted(right)
            case Not(inner):
                return set(self.everything.tolist()) - self.wanted(inner)
        raise AssertionError(predicate)


@settings(max_examples=150)
@given(SETS, SETS)
def test_arrays_are_sets(left: set[int], right: set[int]) -> None:
    one, two = array(left), array(right)
    for kernel, wanted in ((union, left | right), (intersection, left & right), (difference, left - right)):
        out = kernel(one, two)
        assert out.dtype == np.uint32
        assert out.tolist() == sorted(wanted)
    assert one.tolist() == sorted(left)
    assert two.tolist() == sorted(right)


def test_what_comes_out_is_an_array_of_its_own() -> None:
    values = array({1, 2, 3})
    for out in (union(values, NONE), intersection(values, values), difference(values, NONE)):
        assert not np.shares_memory(out, values)


@settings(max_examples=200)
@given(GRANTS, TREES, st.integers(0, 1000))
def test_a_predicate_names_the_rows_of_its_algebra(grants: list[set[int]], tree: Predicate, seed: int) -> None:
    lists = Lists(grants, seed=seed)
    assert lists.found(tree) == sorted(lists.wanted(tree))


@settings(max_examples=60)
@given(GRANTS, TREES, TREES)
def test_de_morgan(grants: list[set[int]], one: Predicate, two: Predicate) -> None:
    lists = Lists(grants)
    assert lists.found(~(one & two)) == lists.found(~one | ~two)
    assert lists.found(~(one | two)) == lists.found(~one & ~two)
    assert lists.found(~~one) == lists.found(one)
    assert lists.found(one & ~one) == []
    assert lists.found(one | ~one) == list(range(ROWS))


def test_public_rows_are_everybodys() -> None:
    lists = Lists([{0, 1}, {1, 2}, {3}, set(), set()])
    assert lists.found(Tenant("a")) == [0, 1, 2]
    assert lists.found(Tenant("b")) == [0, 1, 3]
    assert lists.found(Tenant("a") & Tenant("b")) == [0, 1]
    assert lists.found(Tenant("a") & ~Tenant("b")) == [2]
    assert lists.found(Tenant(PUBLIC)) == lists.found(Tenant(UNKNOWN)) == [0, 1]
    assert lists.found(Tenant("a") & ~Tenant(PUBLIC)) == [2]
    assert lists.found(~Tenant(UNKNOWN)) == list(range(2, ROWS))
    assert UNKNOWN not in dict(lists.table.known())


def test_a_unit_without_rows() -> None:
    lists = Lists([set()] * 5, rows=0)
    lists.lists.clear()
    assert lists.found(~Tenant("a")) == lists.found(Tenant("a") | Tenant(7)) == []


def test_equal_predicates_are_one_key() -> None:
    made = {Tenant("a") & ~Tenant(7): 1}
    assert made[Tenant("a") & ~Tenant(7)] == 1
    assert Tenant("a") & ~Tenant("7") not in made
    assert Tenant(7) != Tenant("7")
    assert Tenant(np.int64(7)) == Tenant(7)
    assert hash(Tenant(np.int64(7))) == hash(Tenant(7))
    assert Tenant(np.str_("a")) == Tenant("a")
    assert type(Tenant(np.int64(7)).label) is int
    assert Tenant("a") & Tenant("b") != Tenant("a") | Tenant("b")
    assert Tenant("a") & Tenant("b") != Tenant("b") & Tenant("a")


def test_predicates_say_what_they_name() -> None:
    tree = (Tenant("a") | Tenant(7)) & ~Tenant("b")
    assert tree.labels() == ("a", 7, "b")
    assert (
        repr(tree) == "And(left=Or(left=Tenant(label='a'), right=Tenant(label=7)), right=Not(inner=Tenant(label='b')))"
    )
    with pytest.raises(AttributeError):
        tree.left = Tenant("x")  # type: ignore[misc]


@pytest.mark.parametrize("label", [1.5, None, True, False, ["a"], b"a", Tenant("a"), np.float32(1), np.True_])
def test_a_tenant_is_an_int_or_a_str(label: Any) -> None:
    with pytest.raises(InvalidInput, match="a tenant is an int or a str"):
        Tenant(label)


def test_no_tenant_is_all_tenants() -> None:
    with pytest.raises(InvalidInput, match="ALL_TENANTS"):
        Tenant(ALL_TENANTS)


@pytest.mark.parametrize("other", ["b", 7, None, True])
def test_predicates_combine_with_predicates(other: Any) -> None:
    with pytest.raises(InvalidInput, match="write Tenant"):
        Tenant("a") & other
    with pytest.raises(InvalidInput, match="write Tenant"):
        Tenant("a") | other
    with pytest.raises(TypeError):
        other & Tenant("a")
