"""The tree's promises, checked node by node, for trees trained and grown."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lakelet.vector.growth import grow
from lakelet.vector.tree import CROWDED, Tree, fan_out, lifted, train


def check(tree: Tree, vectors: np.ndarray, order: np.ndarray, metric: str, leaf_rows: int) -> None:
    """Every promise of a tree over these rows, slowly."""
    n, nodes = len(vectors), len(tree.first_child)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))
    assert tree.centroids.shape == (nodes, vectors.shape[1])
    assert tree.centroids.flags.c_contiguous
    kinds = {"centroids": "f4", "bias": "f4", "variance": "f4", "lo": "u4", "hi": "u4"}
    kinds |= {"first_child": "i4", "child_count": "i4"}
    assert {name: getattr(tree, name).dtype.str[1:] for name in kinds} == kinds
    assert (int(tree.lo[0]), int(tree.hi[0])) == (0, n)
    space = lifted(vectors, metric).astype(np.float64)[order]
    parents = np.zeros(nodes, int)
    leaves = []
    for node in range(nodes):
        lo, hi, first, count = (int(a[node]) for a in (tree.lo, tree.hi, tree.first_child, tree.child_count))
        assert lo < hi or n == 0
        if count:
            assert first > node
            assert count > 1
            children = range(first, first + count)
            parents[children] += 1
            edges = [lo, *(int(tree.hi[child]) for child in children)]
            assert [int(tree.lo[child]) for child in children] == edges[:-1]
            assert edges[-1] == hi
        else:
            assert first == 0
            assert hi - lo <= leaf_rows
            leaves.append(hi - lo)
        if hi > lo:
            mean = space[lo:hi].mean(axis=0)
            scale = float(np.abs(space).max()) + 1e-6
            np.testing.assert_allclose(tree.centroids[node], mean[: vectors.shape[1]], rtol=1e-4, atol=1e-5 * scale)
            assert tree.bias[node] == pytest.approx(mean @ mean, rel=1e-3, abs=1e-4 * scale**2)
            spread = ((space[lo:hi] - mean) ** 2).sum(axis=1).mean()
            assert tree.variance[node] == pytest.approx(spread, rel=1e-3, abs=1e-4 * scale**2)
    assert parents.tolist() == [0] + [1] * (nodes - 1)
    if n > leaf_rows:
        assert np.mean(leaves) >= 0.5 * leaf_rows


def same(one: tuple[Tree, np.ndarray], two: tuple[Tree, np.ndarray]) -> None:
    np.testing.assert_array_equal(one[1], two[1])
    for name in Tree.__slots__:
        np.testing.assert_array_equal(getattr(one[0], name), getattr(two[0], name))


def rows_of(kind: str, n: int, dim: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    found = random.normal(size=(n, dim))
    if kind == "equal":
        found[:] = 0.5
    elif kind == "zero":
        found[:] = 0
    elif kind == "repeated":
        found = found[random.integers(0, max(1, n // 9), n)]
    elif kind == "half":
        found[: n // 2] = 1
    elif kind == "outliers":
        found[:: max(1, n // 7)] *= 1000
    elif kind == "scales":
        found *= np.exp(random.normal(size=(n, 1)) * 3)
    return np.ascontiguousarray(found, np.float32)


KINDS = st.sampled_from(["cloud", "equal", "zero", "repeated", "half", "outliers", "scales"])
METRICS = st.sampled_from(["l2", "ip"])


@settings(max_examples=60)
@given(KINDS, METRICS, st.integers(0, 1500), st.integers(1, 9), st.sampled_from([2, 5, 8, 32]), st.integers(0, 99))
@example("cloud", "l2", 0, 3, 8, 0)
@example("cloud", "ip", 0, 3, 8, 0)
@example("cloud", "ip", 1, 3, 8, 0)
@example("equal", "l2", 5000, 3, 4, 0)
@example("half", "ip", 5000, 3, 4, 0)
@example("cloud", "l2", 33, 3, 32, 0)
@example("cloud", "l2", 7, 3, 1, 0)
def test_a_trained_tree_keeps_its_promises(kind: str, metric: str, n: int, dim: int, leaf_rows: int, seed: int) -> None:
    vectors = rows_of(kind, n, dim, seed)
    tree, order = train(vectors, metric=metric, leaf_rows=leaf_rows, seed=seed, threads=2)
    check(tree, vectors, order, metric, leaf_rows)


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
def test_threads_change_nothing_and_seeds_do(metric: str) -> None:
    vectors = rows_of("cloud", 3000, 20, 3)
    one = train(vectors, metric=metric, leaf_rows=16, seed=7, threads=1)
    same(one, train(vectors, metric=metric, leaf_rows=16, seed=7, threads=4))
    assert (one[1] != train(vectors, metric=metric, leaf_rows=16, seed=8, threads=2)[1]).any()


def test_equal_rows_are_cut_into_cells_of_bounded_size() -> None:
    vectors = rows_of("half", 6000, 4, 1)
    tree, _ = train(vectors, metric="l2", leaf_rows=8, seed=1, threads=2)
    sizes = (tree.hi - tree.lo)[1 : 1 + tree.child_count[0]]
    assert sizes.max() <= 2 * CROWDED * len(vectors) / fan_out(len(vectors), 8)


def best_first(tree: Tree, order: np.ndarray, query: np.ndarray, rows: int) -> set[int]:
    """The rows of the leaves that come first, at least so many of them."""
    score = tree.bias - 2 * tree.centroids @ query
    waiting, found = [0], []
    while waiting and len(found) < rows:
        node = min(waiting, key=lambda one: score[one])
        waiting.remove(node)
        if tree.child_count[node]:
            waiting += range(tree.first_child[node], tree.first_child[node] + tree.child_count[node])
        else:
            found += order[tree.lo[node] : tree.hi[node]].tolist()
    return set(found)


@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_the_nearest_rows_come_early(metric: str) -> None:
    random = np.random.default_rng(5)
    centres = random.normal(size=(60, 12))
    every = np.asarray(centres[random.integers(0, 60, 4040)] + 0.4 * random.normal(size=(4040, 12)), np.float32)
    queries, vectors = every[:40], np.ascontiguousarray(every[40:])
    tree, order = train(vectors, metric=metric, leaf_rows=16, seed=1, threads=2)
    hits = 0
    for query in queries:
        distance = -(vectors @ query) if metric == "ip" else ((vectors - query) ** 2).sum(axis=1)
        hits += len(set(np.argsort(distance)[:10].tolist()) & best_first(tree, order, query, 600))
    assert hits >= 0.9 * 400


def leaf_of(tree: Tree, order: np.ndarray, n: int) -> np.ndarray:
    """Each row's leaf, and -1 for rows that the tree has not."""
    found = np.full(n, -1, np.int32)
    for node in np.flatnonzero(tree.child_count == 0):
        found[order[tree.lo[node] : tree.hi[node]]] = node
    return found


@settings(max_examples=50)
@given(
    KINDS,
    METRICS,
    st.integers(0, 900),
    st.integers(0, 500),
    st.floats(0, 1),
    st.sampled_from([4, 32]),
    st.integers(0, 9),
)
@example("cloud", "l2", 0, 0, 0.0, 32, 0)
@example("cloud", "ip", 900, 0, 1.0, 32, 0)
@example("cloud", "l2", 900, 50, 0.1, 4, 0)
@example("equal", "l2", 900, 400, 0.1, 4, 0)
def test_a_grown_tree_keeps_its_promises(
    kind: str, metric: str, n: int, more: int, gone: float, leaf_rows: int, seed: int
) -> None:
    every = rows_of(kind, n + more, 5, seed)
    tree, order = train(np.ascontiguousarray(every[:n]), metric=metric, leaf_rows=leaf_rows, seed=seed, threads=1)
    leaf = leaf_of(tree, order, n + more)
    kept = np.flatnonzero(np.random.default_rng(seed).random(n + more) >= gone)
    vectors, leaf = np.ascontiguousarray(every[kept]), leaf[kept]
    grown = grow(tree, vectors, leaf, metric=metric, leaf_rows=leaf_rows, seed=seed, threads=1)
    check(*(grown[0], vectors, grown[1]), metric, leaf_rows)
    same(grown, grow(tree, vectors, leaf, metric=metric, leaf_rows=leaf_rows, seed=seed, threads=3))


def grown_from(before: int, vectors: np.ndarray) -> tuple[tuple[Tree, np.ndarray], tuple[Tree, np.ndarray], np.ndarray]:
    """A tree over the first rows, what it grows to with all, and the leaves in between."""
    old = train(np.ascontiguousarray(vectors[:before]), metric="l2", leaf_rows=32, seed=1, threads=2)
    leaf = leaf_of(*old, len(vectors))
    return old, grow(old[0], vectors, leaf, metric="l2", leaf_rows=32, seed=1, threads=2), leaf


def test_few_new_rows_leave_most_rows_together() -> None:
    vectors = rows_of("cloud", 4100, 8, 2)
    old, new, leaf = grown_from(4000, vectors)
    after = leaf_of(*new, len(vectors))
    check(new[0], vectors, new[1], "l2", 32)
    stayed = 0
    for node in np.flatnonzero(old[0].child_count == 0):
        stayed += np.bincount(after[leaf == node]).max()
    assert stayed > 0.9 * 4000
    trained = train(vectors, metric="l2", leaf_rows=32, seed=1, threads=2)
    assert (new[1] != trained[1]).any()


def test_rows_far_off_train_the_tree_anew() -> None:
    vectors = rows_of("cloud", 4100, 8, 2)
    vectors[4000:] *= 20
    _, new, _ = grown_from(4000, vectors)
    same(new, train(vectors, metric="l2", leaf_rows=32, seed=1, threads=2))


def test_rows_far_off_in_one_place_train_that_place_anew() -> None:
    random = np.random.default_rng(4)
    vectors = rows_of("cloud", 6060, 8, 2)
    vectors[6000:] = vectors[0] * 2 + random.normal(size=(60, 8)) * 0.2
    vectors[6000:, :2] += 6
    old, new, leaf = grown_from(6000, vectors)
    check(new[0], vectors, new[1], "l2", 32)
    after = leaf_of(*new, len(vectors))
    stayed = sum(np.bincount(after[leaf == node]).max() for node in np.flatnonzero(old[0].child_count == 0))
    assert 0.5 * 6000 < stayed < 6000
