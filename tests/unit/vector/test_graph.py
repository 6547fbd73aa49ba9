"""An HNSW graph beside the segments: it names candidates for searches over every row, and nothing else changes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from lakelet.lake.errors import Unavailable
from lakelet.vector import planner
from lakelet.vector.graph_walk import found_by_walk, nearest_by_graph
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import ALL_TENANTS
from lakelet.vector.scoring import exact
from lakelet.vector.segment import ALL_CODE, EVERY

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
    monkeypatch.setattr(planner, "WALK_NS", -1e6)
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
    assert 128 * ROWS <= index.memory()["graph"] < 130 * ROWS, "links alone, no second copy of the vectors"
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


@pytest.mark.parametrize("metric", METRICS)
def test_pools_are_fitted_by_walks_as_searches_make_them(made: dict[str, VectorIndex], metric: str) -> None:
    (segment,) = made[metric]._units.now
    table, graph = segment.rows.table, segment.graph
    queries = vectors_of(40, 6)
    if metric == "cosine":
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for pool_rows, band in ((16, 1.0), (60, 1.0), (60, 0.0)):
        walk = pool_rows, 40, band
        ids, apart = np.full((len(queries), 10), -1), np.full((len(queries), 10), np.inf, np.float32)
        astray = nearest_by_graph(queries, table, graph.links, graph.starts, EVERY, 0.0, *walk, ids, apart)
        assert not astray.any()
        for query, found in zip(queries, ids, strict=True):
            near, far = np.full((1, 10), -1), np.full((1, 10), np.inf, np.float32)
            everything = segment.posting(ALL_CODE).base
            exact(query[None], table, everything, everything[:0], near, far)
            places = segment.find(near[0]).astype(np.uint32)
            vectors = segment.rows.vectors
            away = ((vectors - query) ** 2).sum(axis=1) if metric == "l2" else -vectors @ query
            hidden = int(away.argmax())
            known = found_by_walk(query, table, graph.links, graph.starts, hidden, EVERY, *walk, places)
            assert known == len(set(near[0].tolist()) & set(found.tolist()))


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


def with_shares(metric: str = "l2") -> tuple[VectorIndex, np.ndarray, np.ndarray]:
    vectors = vectors_of(ROWS, 0)
    index, price = (
        VectorIndex(DIM, metric, attributes={"price": "float64"}, graph=True),
        np.random.default_rng(3).random(ROWS),
    )
    index.add(vectors, attributes={"price": price})
    return index, vectors, price


@pytest.mark.parametrize("metric", METRICS)
def test_conditions_are_kept_on_the_walk(metric: str) -> None:
    index, _, price = with_shares(metric)
    queries = vectors_of(50, 4)
    for share in (0.9, 0.5, 0.2):
        where = {"where": "price < $s", "params": {"s": share}}
        assert [step.way for step in index.explain(**where)] == ["graph"]
        found, _ = index.search(queries, 10, **where)
        true, _ = index.search(queries, 10, exact=True, **where)
        assert (price[found] < share).all()
        assert np.mean([np.isin(a, b).mean() for a, b in zip(found, true, strict=True)]) >= 0.9


def test_a_walk_that_goes_astray_is_made_up_for() -> None:
    """The rows that fulfil the condition lie in other cells than the query: a walk near it meets none of them."""
    vectors, queries = vectors_of(ROWS, 0), vectors_of(20, 5)
    centres = np.random.default_rng(99).standard_normal((40, DIM))
    cell = np.square(vectors[:, None] - centres).sum(axis=2).argmin(axis=1)
    near = np.argsort(np.square(queries[0] - centres).sum(axis=1))[:12]
    far = ~np.isin(cell, near)
    index = VectorIndex(DIM, attributes={"far": "bool"}, graph=True)
    index.add(vectors, attributes={"far": far})
    found, true = (index.search(queries[0], 10, where="far", exact=exact)[0] for exact in (False, True))
    assert [step.way for step in index.explain(where="far")] == ["graph"]
    assert far[found].all()
    assert np.isin(found, true).mean() >= 0.9
    ids, _ = index.search(queries, 10, where="far")
    alone = np.concatenate([index.search(query, 10, where="far")[0] for query in queries])
    assert (ids == alone).all(), "each query goes its own way, alone or in a batch"


def test_links_are_those_of_hnswlib() -> None:
    import hnswlib
    from lakelet.vector.graph import LINKS, linked
    from lakelet.vector.graph_walk import NO_LINK
    from lakelet.vector.metrics import Metric

    vectors = vectors_of(700, 6)
    links, starts = linked(vectors, Metric.L2, 5, 1)
    index = hnswlib.Index(space="l2", dim=DIM)
    index.init_index(len(vectors), M=LINKS, ef_construction=100, random_seed=5)
    index.add_items(vectors, np.arange(len(vectors)), num_threads=1)
    assert links.shape == (700, 2 * LINKS)
    for row in links:
        held = row[row != NO_LINK]
        assert len(held) == len(set(held.tolist())) > 0
        assert (row[len(held) :] == NO_LINK).all(), "they come first"
        assert held.max() < 700
    near = np.array([np.isin(index.knn_query(vectors[i : i + 1], 2)[0][0][1], links[i]) for i in range(700)])
    assert near.mean() > 0.9, "a row is linked with its neighbour"
    assert (np.diff(starts.astype(np.int64)) > 0).all()


def test_without_hnswlib_the_mend_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(Unavailable, match=r"pip install 'lakelet\[graph\]'"):
        VectorIndex(DIM, graph=True)
