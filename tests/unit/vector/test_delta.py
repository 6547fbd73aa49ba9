"""A delta against a list of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector.codes import encode, layout
from lakelet.vector.delta import Delta
from lakelet.vector.labels import PUBLIC, LabelTable, coded, parsed
from lakelet.vector.metrics import Metric
from lakelet.vector.nodes import no_nodes
from lakelet.vector.planner import Plan, Way
from lakelet.vector.postings import folded
from lakelet.vector.predicates import Tenant
from lakelet.vector.segment import ALL_CODE, NOT_PACKED
from lakelet.vector.subtree import NO_SUBTREE

LABELS = ["a", "b", PUBLIC, 3]
CAPACITY = 60


def empty(dim: int = 9, metric: Metric = Metric.L2) -> Delta:
    return Delta(CAPACITY, np.full(dim, 0.5, np.float32), layout(dim, 1), metric, no_nodes(dim))


def rows_of(seed: int, n: int, dim: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


BATCHES = st.lists(st.lists(st.lists(st.sampled_from(LABELS), max_size=3), max_size=12), max_size=5)


@settings(max_examples=60)
@given(BATCHES, st.sampled_from(list(Metric)))
def test_rows_stand_as_they_came(batches: list[list[list[Any]]], metric: Metric) -> None:
    delta, table, rows = empty(metric=metric), LabelTable(), []
    vectors = rows_of(len(batches), CAPACITY)
    for batch in batches:
        first, many = len(rows), len(batch)
        ids = (np.arange(first, first + many) * 37) % 1009
        before = delta.posting(ALL_CODE).base
        delta.append(vectors[first : first + many], ids, coded(parsed(batch, many), table))
        rows += zip(ids.tolist(), batch, strict=True)
        assert len(before) == first
    assert len(delta) == delta.count == len(rows)
    np.testing.assert_array_equal(delta.rows.vectors[: len(rows)], vectors[: len(rows)])
    assert delta.rows.ids[: len(rows)].tolist() == [each for each, _ in rows]
    assert delta.rows.live.tolist() == [1] * len(rows) + [0] * (CAPACITY - len(rows))
    assert delta.posting(ALL_CODE).base.tolist() == list(range(len(rows)))
    for label in LABELS:
        mine = [at for at, (_, labels) in enumerate(rows) if label in labels]
        assert folded(delta.posting(table.code(label))).tolist() == mine
    seen = [at for at, (_, labels) in enumerate(rows) if "a" in labels or PUBLIC in labels]
    assert folded(delta.selected(Tenant("a"), table)).tolist() == seen
    assert folded(delta.selected(~Tenant("a"), table)).tolist() == [at for at in range(len(rows)) if at not in seen]
    records = np.empty((len(rows), delta.rows.layout.record_bytes), np.uint8)
    lay = delta.rows.layout
    encode(
        vectors, delta.rows.mean, lay.signs, lay.bits, metric is not Metric.IP, 0, len(rows), records
    )  # fmt: skip
    np.testing.assert_array_equal(delta.rows.records[: len(rows)], records)


def test_live_rows_are_found_by_id() -> None:
    delta, table = empty(), LabelTable()
    delta.append(rows_of(1, 5), np.array([50, 10, 40, 20, 30]), coded([()] * 5, table))
    wanted = np.array([10, 99, 30, 50, -1])
    assert delta.find(wanted).tolist() == [1, -1, 4, 0, -1]
    delta.rows.live[[0, 1]] = 0
    assert delta.find(wanted).tolist() == [-1, -1, 4, -1, -1]
    delta.append(rows_of(2, 1), np.array([10]), coded([()], table))  # an id that comes back
    assert delta.find(wanted).tolist() == [5, -1, 4, -1, -1]
    assert delta.find(np.empty(0, np.int64)).shape == (0,)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("exact", [True, False])
def test_rows_of_a_tenant_are_searched(metric: Metric, exact: bool) -> None:
    delta, table, vectors = empty(metric=metric), LabelTable(), rows_of(4, 40)
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    delta.append(vectors, np.arange(40) + 100, coded(parsed(["a", "b"] * 20, 40), table))
    code = table.code("a")
    delta.postings.grant(code, np.array([1, 3], np.uint32))
    delta.postings.revoke(code, np.array([0, 2], np.uint32))
    delta.rows.live[4] = 0
    mine = [1, 3, *range(6, 40, 2)]
    queries, ids, apart = rows_of(5, 6), np.full((6, 5), -1), np.full((6, 5), np.inf, np.float32)
    plan = Plan(Way.EXACT if exact else Way.CODES, 50, 40, 0.0)
    posting = delta.posting(code)
    split = delta.subtree(code, posting, 32)
    assert split is NO_SUBTREE
    delta.rows.search(queries, posting, plan, split, NOT_PACKED, ids, apart)
    wide, some = queries.astype(float), vectors[mine].astype(float)
    distances = ((wide[:, None] - some) ** 2).sum(axis=2) if metric is Metric.L2 else -wide @ some.T
    if metric is Metric.COSINE:
        distances = np.maximum(0, 1 + distances)
    order = np.argsort(distances, axis=1, kind="stable")[:, :5]
    np.testing.assert_allclose(apart, np.take_along_axis(distances, order, 1), rtol=1e-4, atol=1e-5)
    if metric is not Metric.COSINE:  # there distances of 0 may be several
        assert ids.tolist() == (np.array(mine)[order] + 100).tolist()


def test_a_full_delta_counts_its_bytes() -> None:
    delta, table = empty(), LabelTable()
    assert delta.nbytes()["vectors"] == 0
    delta.append(rows_of(1, CAPACITY), np.arange(CAPACITY), coded(parsed("a", CAPACITY), table))
    found = delta.nbytes()
    assert found["vectors"] == CAPACITY * 9 * 4
    assert found["codes"] == CAPACITY * delta.rows.layout.record_bytes
    assert found["postings"] >= 4 * CAPACITY
    assert found.pop("attributes") == found.pop("values") == 0, "it has none"
    assert min(found.values()) > 0
    delta.drop_views(0)
