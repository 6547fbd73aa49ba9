"""An index with bits against a dictionary and NumPy: distances by codes, no wrong row, always min(k, matches) rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector import index as index_module
from lakelet.vector import units as units_module
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import ALL_TENANTS
from lakelet.vector.osq import cells
from lakelet.vector.predicates import Tenant
from lakelet.vector.segment import Segment

Array = np.ndarray[Any, Any]
DIM, CENTRES = 12, np.random.default_rng(5).normal(size=(9, 12))
METRICS = ["l2", "ip", "cosine"]
LABELS = ["a", "b", "c"]


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units_module, "VECTOR_DELTA_ROWS", 48)
        patch.setattr(index_module, "VECTOR_BULK_ROWS", 150)
        yield


def rows_of(seed: int, count: int) -> Array:
    random = np.random.default_rng(seed)
    return (CENTRES[random.integers(0, 9, count)] + 0.4 * random.normal(size=(count, DIM))).astype(np.float32)


def unit_vectors(metric: str, vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True) if metric == "cosine" else vectors


def true_distances(metric: str, query: Array, vectors: Array) -> Array:
    query, vectors = (unit_vectors(metric, each.astype(np.float64)) for each in (query, vectors))
    if metric == "l2":
        return np.asarray(np.square(vectors - query).sum(axis=1))
    return np.asarray(-(vectors @ query) if metric == "ip" else 1 - vectors @ query)


def by_codes(metric: str, query: Array, segment: Segment) -> dict[int, float]:
    """The definition: the expected distance to a row of the same cells, in double precision."""
    fine, live = segment.rows.fine, np.flatnonzero(segment.rows.live)
    assert fine is not None
    part, records = fine.part, fine.records[live]
    at = np.stack([part.first[j] + cells(part, records, j) for j in range(DIM)], axis=1)
    values, spreads = part.cells[1].astype(np.float64)[at], part.cells[2].astype(np.float64)[at]
    asked, axes, mean = (each.astype(np.float64) for each in (query, part.axes, part.mean))
    if metric == "cosine":
        asked = asked / np.linalg.norm(asked)
    if metric == "ip":
        found = -(values @ (axes @ asked)) - asked @ mean
    else:
        found = np.maximum(((axes @ (asked - mean) - values) ** 2 + spreads).sum(axis=1), 0)
        found *= 0.5 if metric == "cosine" else 1.0
    return dict(zip(segment.rows.ids[live].tolist(), found.tolist(), strict=True))


def expected_of(index: VectorIndex, metric: str, query: Array) -> dict[int, float]:
    """Every live row's distance: by codes in segments, true in deltas."""
    found: dict[int, float] = {}
    for unit in index._units.now:
        if isinstance(unit, Segment):
            found |= by_codes(metric, query, unit)
        else:
            live = np.flatnonzero(unit.rows.live[: len(unit)])
            apart = true_distances(metric, query, unit.rows.vectors[live])
            found |= dict(zip(unit.rows.ids[live].tolist(), apart.tolist(), strict=True))
    return found


class Model:
    """Rows by id: the vector, who sees it, and its number."""

    def __init__(self, metric: str, bits: int, kept: bool, seed: int) -> None:
        self.metric, self.kept = metric, kept
        self.index = VectorIndex(
            DIM, metric, attributes={"number": "int64"}, bits=bits, keep_vectors=kept, seed=seed, threads=1
        )
        self.rows: dict[int, tuple[Array, set[str], int]] = {}
        self.random = np.random.default_rng(seed)

    def add(self, count: int) -> None:
        vectors = rows_of(int(self.random.integers(99)), count)
        labels = [{label for label in LABELS if self.random.random() < 0.4} for _ in range(count)]
        numbers = self.random.integers(0, 100, count).tolist()
        ids = self.index.add(vectors, tenants=[sorted(each) for each in labels], attributes={"number": numbers})
        self.rows |= dict(zip(ids.tolist(), zip(vectors, labels, numbers, strict=True), strict=True))

    def change(self) -> None:
        some = self.random.permutation(list(self.rows))[: len(self.rows) // 3].tolist()
        for row in some[::3]:
            self.index.delete(row)
            del self.rows[row]
        self.index.grant(some[1::3], "c")
        for row in some[1::3]:
            self.rows[row][1].add("c")

    def check(self, k: int, below: int) -> None:
        queries = rows_of(int(self.random.integers(99)), 3)
        for who in (*LABELS, ALL_TENANTS, Tenant("a") & ~Tenant("b")):
            for where in (None, f"number < {below}"):
                seen = {
                    row for row in self.rows if self.sees(who, row) and (where is None or self.rows[row][2] < below)
                }
                for more in ({}, {"exact": True}, {"rerank": False}, {"rerank": False, "exact": True}, {"ef": 40}):
                    ids, apart = self.index.search(queries, k, who, where, **more)
                    for query, mine, found in zip(queries, ids, apart, strict=True):
                        self.check_one(query, mine, found, seen, k, more)

    def sees(self, who: Any, row: int) -> bool:
        labels = self.rows[row][1]
        if isinstance(who, str):
            return who in labels
        return who is ALL_TENANTS or ("a" in labels and "b" not in labels)

    def check_one(self, query: Array, ids: Array, apart: Array, seen: set[int], k: int, more: dict[str, Any]) -> None:
        held = ids[ids >= 0].tolist()
        assert len(held) == len(set(held)) == min(k, len(seen))
        assert set(held) <= seen
        assert (np.diff(apart[: len(held)]) >= 0).all()
        if not held:
            return
        if self.kept and more.get("rerank", True):
            vectors = np.stack([self.rows[row][0] for row in held])
            np.testing.assert_allclose(
                apart[: len(held)], true_distances(self.metric, query, vectors), atol=1e-4, rtol=1e-4
            )
            return
        slow = expected_of(self.index, self.metric, query)
        slack = 2e-4 * max(1.0, *map(abs, slow.values()))
        assert set(slow) == set(self.rows)
        np.testing.assert_allclose(apart[: len(held)], [slow[row] for row in held], atol=slack)
        if more.get("exact"):
            np.testing.assert_allclose(apart[: len(held)], sorted(slow[row] for row in seen)[: len(held)], atol=slack)


@pytest.mark.parametrize("kept", [True, False])
@settings(max_examples=8, deadline=None)
@given(
    metric=st.sampled_from(METRICS),
    bits=st.integers(1, 8),
    counts=st.lists(st.sampled_from([1, 20, 60, 160, 400]), min_size=1, max_size=4),
    k=st.sampled_from([1, 5, 30]),
    below=st.sampled_from([2, 30, 100]),
    seed=st.integers(0, 99),
)
def test_results_are_those_of_the_definition(
    kept: bool, metric: str, bits: int, counts: list[int], k: int, below: int, seed: int
) -> None:
    model = Model(metric, bits, kept, seed)
    for turn, count in enumerate(counts):
        model.add(count)
        if turn % 2:
            model.change()
    model.index.wait()
    model.check(k, below)
    model.index.optimize()
    model.change()
    model.check(k, below)
