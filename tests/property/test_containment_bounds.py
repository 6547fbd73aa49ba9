"""Bounds never refute a pair that holds, whatever of them is known or exact; and they refute what they can."""

from decimal import Decimal

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.containment.min_max import profiles, surviving
from lakelet.containment.schema_graph import schema_graph
from lakelet.lake.statistics import Bounds

SETTINGS = settings(deadline=None, derandomize=True, max_examples=300)
NUMBERS = st.sampled_from([-1, 0, 1, 2**53, 2**53 + 1, 0.5, -0.0, 1.0, float(2**53), Decimal("0.1"), 0.1, None])


def kept(values, known, fractions=1.0):
    """Whether each ordered pair of two tables of one column survives its bounds."""
    schemas = [pa.schema([("x", pa.float64())])] * len(values)
    graph = schema_graph(schemas)
    rows = [len(v) for v in values]
    found = profiles(
        graph.classes, lambda table: {"x": known[table]}, rows, dict(enumerate(schemas)), fractions, range(len(values))
    )
    pairs = set()
    for _, _, a, b in surviving(found, graph.maps):
        members = found[0].members
        pairs |= {(members[i][0], members[j][0]) for i, j in zip(a.tolist(), b.tolist(), strict=True)}
    return pairs


@st.composite
def bounds_of(draw, values):
    """True bounds of the values: exact, loosened outwards, or left out."""
    present = [v for v in values if v is not None]
    nulls = draw(st.sampled_from([len(values) - len(present), None]))
    if not present:
        return Bounds(nulls)
    low, high = min(present), max(present)
    loose_low, loose_high = draw(st.booleans()), draw(st.booleans())
    return Bounds(
        nulls,
        draw(st.sampled_from([low - 1 if loose_low else low, None])),
        draw(st.sampled_from([high + 1 if loose_high else high, None])),
        not loose_low,
        not loose_high,
        draw(st.sampled_from([0, None])),
    )


@SETTINGS
@given(st.data(), st.lists(NUMBERS, min_size=1, max_size=5), st.lists(NUMBERS, min_size=1, max_size=5))
def test_a_true_pair_is_never_refuted(data, child, others):
    parent = child + others
    known = [data.draw(bounds_of(child)), data.draw(bounds_of(parent))]
    assert (0, 1) in kept([child, parent], known)


@SETTINGS
@given(st.data(), st.lists(NUMBERS, min_size=1, max_size=5), st.lists(NUMBERS, min_size=1, max_size=5))
def test_a_pair_with_enough_rows_in_common_is_never_refuted(data, one, two):
    fraction = len(set(one) & set(two)) / len(set(one))
    if fraction > 0:
        known = [data.draw(bounds_of(one)), data.draw(bounds_of(two))]
        assert (0, 1) in kept([one, two], known, fraction)


def test_what_bounds_prove_is_refuted():
    def exact(low, high, nulls=0):
        return Bounds(nulls, low, high, True, True, 0)

    def loose(low, high, nulls=0):
        return Bounds(nulls, low, high, False, False, 0)

    rows = [[0] * 9, [0] * 9]
    assert (0, 1) not in kept(rows, [exact(0, 5), exact(1, 5)])
    assert (0, 1) not in kept(rows, [exact(0, 5), loose(1, 9)])
    assert (0, 1) in kept(rows, [loose(0, 5), exact(1, 5)])
    assert (0, 1) not in kept(rows, [loose(0, 5), loose(6, 7)])
    assert (0, 1) not in kept(rows, [exact(1, 2, 3), exact(1, 2)])
    assert (0, 1) in kept(rows, [exact(1, 2), exact(1, 2, 3)])
    assert (0, 1) not in kept(rows, [exact(1, 2), Bounds(9)])
    assert (0, 1) in kept(rows, [Bounds(9), exact(1, 2, 1)])
    # Exact across types: 2**53 + 1 is no float.
    assert (0, 1) not in kept(rows, [exact(2**53 + 1, 2**53 + 1), exact(0.0, float(2**53))])
    assert (0, 1) not in kept(rows, [exact(Decimal("0.1"), 1), exact(0.1, 1.0)])


def test_many_pairs_take_the_narrowing_path_and_agree():
    rng = np.random.default_rng(3)
    count = 700
    low, high = rng.integers(0, 50, count), rng.integers(50, 100, count)
    known = [Bounds(0, int(a), int(b), True, True, 0) for a, b in zip(low, high, strict=True)]
    found = kept([[0] * 5] * count, known)
    inside = (low[:, None] >= low[None, :]) & (high[:, None] <= high[None, :]) & ~np.eye(count, dtype=bool)
    assert found == set(zip(*(index.tolist() for index in np.nonzero(inside)), strict=True))


def test_temporal_bounds_compare_across_units():
    schemas = [pa.schema([("x", pa.timestamp("s"))]), pa.schema([("x", pa.timestamp("us"))])]
    graph = schema_graph(schemas)
    known = [Bounds(0, 1, 3, True, True, 0), Bounds(0, 0, 3_000_000, True, True, 0)]
    found = profiles(graph.classes, lambda t: {"x": known[t]}, [4, 4], dict(enumerate(schemas)))
    pairs = [(a.tolist(), b.tolist()) for _, _, a, b in surviving(found, graph.maps)]
    assert pairs == [([0], [1])]
