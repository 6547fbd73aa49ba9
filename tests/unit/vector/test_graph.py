"""An HNSW graph beside the segments: it names candidates for searches over every row, and nothing else changes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from lakelet.lake.errors import Unavailable
from lakelet.vector import planner
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import ALL_TENANTS

pytest.importorskip("hnswlib", reason="hnswlib is an extra: pip install 'lakelet[graph]'")

DIM, ROWS = 24, 9_000
METRICS = ["l2", "cosine", "ip"]


def vectors_of(rows: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, DIM))
    return (centres[random.integers(0, 40, rows)] + 0.7 * random.standard_normal((rows, DIM))).astype(np.float32)


@pytest.fixture(autouse=True)
def graph_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the planner takes the graph wherever there is one."""
    monkeypatch.setattr(planner, "GRAPH_STEPS", 1e-9)
    planner.choose.cache_clear()


@pytest.fixture(scope="module")
def made() -> dict[str, VectorIndex]:
    found = {}
    for metric in METRICS:
        found[metric] = VectorIndex(DIM, metric, graph=True)
        found[metric].add(vectors_of(ROWS, 0), tenants=["a", "b", "c"] * (ROWS // 3))
    return found


def recall(index: VectorIndex, queries: np.ndarray, tenant: object = ALL_TENANTS) -> float:
    true = index.search(queries, 10, tenant, exact=True)[0]  # type: ignore[arg-type]
    found = index.search(queries, 10, tenant)[0]  # type: ignore[arg-type]
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(found, true, strict=True)]))


@pytest.mark.parametrize("metric", METRICS)
def test_searches_over_every_row_go_through_the_graph(made: dict[str, VectorIndex], metric: str) -> None:
    index = made[metric]
    assert [step.way for step in index.explain(tenant=ALL_TENANTS)] == ["graph"]
    assert index.explain(tenant="a")[0].way != "graph"
    assert index.memory()["graph"] > 4 * DIM * ROWS
    assert recall(index, vectors_of(50, 1)) >= 0.9
    assert recall(index, vectors_of(50, 1), "a") >= 0.9


@pytest.mark.parametrize("metric", METRICS)
def test_its_distances_are_those_of_the_rows(made: dict[str, VectorIndex], metric: str) -> None:
    queries = vectors_of(20, 2)
    ids, apart = made[metric].search(queries, 5, ALL_TENANTS)
    true_ids, true_apart = made[metric].search(queries, ROWS, ALL_TENANTS, exact=True)
    for found, distances, row, every in zip(ids, apart, true_ids, true_apart, strict=True):
        of = dict(zip(row.tolist(), every.tolist(), strict=True))
        assert [of[each] for each in found.tolist()] == distances.tolist()
        assert (np.diff(distances) >= 0).all()


def test_deleted_rows_are_not_found_and_k_rows_come(tmp_path: Path) -> None:
    vectors = vectors_of(ROWS, 0)
    index = VectorIndex(DIM, graph=True)
    index.add(vectors)
    queries = vectors_of(10, 3)
    for turn in range(4):
        gone = index.search(queries[:1], 60, exact=True)[0][0]
        index.delete(gone)
        for each in (index, reopened(index, tmp_path / str(turn))):
            ids, _ = each.search(queries, 10)
            assert not np.isin(ids, gone).any()
            assert (ids >= 0).all()
            assert recall(each, queries, None) >= 0.8


def reopened(index: VectorIndex, path: Path) -> VectorIndex:
    index.save(path)
    loaded = VectorIndex.load(path)
    assert loaded.memory()["graph"] > 0
    assert [step.way for step in loaded.explain()] == [step.way for step in index.explain()]
    return loaded


def test_rows_that_came_later_are_found_beside_the_graph(made: dict[str, VectorIndex]) -> None:
    index = VectorIndex(DIM, graph=True)
    index.add(vectors_of(ROWS, 0))
    late = index.add(vectors_of(30, 7))
    assert [step.unit for step in index.explain()] == ["segment", "delta"]
    assert index.search(vectors_of(30, 7), 1)[0][:, 0].tolist() == late.tolist()
    index.optimize()
    assert [step.way for step in index.explain()] == ["graph"]
    assert index.search(vectors_of(30, 7), 1)[0][:, 0].tolist() == late.tolist()


def test_without_hnswlib_the_mend_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(Unavailable, match=r"pip install 'lakelet\[graph\]'"):
        VectorIndex(DIM, graph=True)
