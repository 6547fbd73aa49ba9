"""Each kernel of the k-means against a slow form of itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector import kmeans


def _cloud(seed: int, n: int, dim: int, kinds: int = 5) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(kinds, dim))
    points = centres[random.integers(0, kinds, n)] + random.normal(size=(n, dim)) * 0.3
    return np.ascontiguousarray(points, np.float32)


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    apart = a[:, None].astype(np.float64) - b[None].astype(np.float64)
    return np.einsum("ijk,ijk->ij", apart, apart)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(1, 10), st.integers(1, 40), st.integers(1, 3))
def test_means_and_variances(seed: int, n: int, count: int, dim: int, threads: int) -> None:
    points = _cloud(seed, n, dim)
    labels = np.random.default_rng(seed).integers(0, count, n).astype(np.int32)
    order, starts = kmeans.groups(labels, count)
    centroids = np.full((count, dim), 7, np.float32)
    variance = kmeans.means(points, order, starts, centroids, threads=threads)
    for group in range(count):
        rows = np.flatnonzero(labels == group)
        assert order[starts[group] : starts[group + 1]].tolist() == rows.tolist()
        if not len(rows):
            assert (centroids[group] == 7).all()
            assert variance[group] == 0
            continue
        mean = points[rows].astype(np.float64).mean(axis=0)
        np.testing.assert_allclose(centroids[group], mean, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(variance[group], _squared(points[rows], mean[None]).mean(), rtol=1e-4, atol=1e-5)


def test_the_large_k_means_finds_what_is_there() -> None:
    points = _cloud(5, 3000, 16, kinds=6)
    rows = np.arange(len(points))
    best = min(_loss(points, kmeans.cluster(points, rows, 12, seed=s, threads=2)) for s in range(3))
    assert best < 1.2 * 16 * 0.3**2
    once, again = (kmeans.cluster(points, rows, 12, seed=1, threads=t) for t in (1, 3))
    np.testing.assert_array_equal(once, again)


def _loss(points: np.ndarray, centroids: np.ndarray) -> float:
    return float(_squared(points, centroids).min(axis=1).mean())


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 90), min_size=1, max_size=6), st.integers(1, 20), st.booleans())
def test_balanced_cells_are_within_bounds_and_groups(seed: int, sizes: list[int], room: int, equal: bool) -> None:
    points = _cloud(seed, max(1, sum(sizes)), 6)[: sum(sizes)]
    if equal:
        points[:] = 1
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order, starts = kmeans.groups(labels, len(sizes))
    counts = np.minimum(-(-np.array(sizes) // room) + seed % 2, sizes)
    cells = kmeans.balance(points, order, starts, counts, room, seed=seed, threads=1)
    np.testing.assert_array_equal(
        cells, kmeans.balance(points, order, starts, counts, room, seed=seed, threads=3), "threads change nothing"
    )
    assert (np.bincount(cells, minlength=1) <= room).all()
    first = np.cumsum(counts) - counts
    assert (cells >= first[labels[order]]).all()
    assert (cells < (first + counts)[labels[order]]).all()


def test_balanced_cells_are_near_to_a_slow_k_means() -> None:
    points = _cloud(7, 280, 8, kinds=10)
    order, starts = kmeans.groups(np.zeros(280, np.int32), 1)
    every = [kmeans.balance(points, order, starts, np.array([10]), 400, seed=seed, threads=1) for seed in range(6)]
    fast = [sum(_spread(points[cells == cell]) for cell in range(10)) for cells in every]
    slow = [_slow_k_means(points, 10, seed) for seed in range(6)]
    assert min(fast) < 1.5 * min(slow)
    assert np.mean(fast) < 1.5 * np.mean(slow)
    bounded = kmeans.balance(points, order, starts, np.array([10]), 32, seed=3, threads=1)
    assert sum(_spread(points[bounded == cell]) for cell in range(10)) < 0.5 * _spread(points)


def _spread(points: np.ndarray) -> float:
    return float(((points - points.mean(axis=0)) ** 2).sum()) if len(points) else 0.0


def _slow_k_means(points: np.ndarray, count: int, seed: int) -> float:
    centroids = points[np.random.default_rng(seed).choice(len(points), count, replace=False)].astype(np.float64)
    for _ in range(12):
        label = _squared(points, centroids).argmin(axis=1)
        for cell in set(label.tolist()):
            centroids[cell] = points[label == cell].mean(axis=0)
    return float(_squared(points, centroids).min(axis=1).sum())


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 60), st.lists(st.integers(1, 5), min_size=1, max_size=5), st.booleans())
def test_better_leaves_follow_hartigans_rule(seed: int, n: int, leaves: list[int], some_new: bool) -> None:
    random = np.random.default_rng(seed)
    points, first = _cloud(seed, n, 6), np.append(0, np.cumsum(leaves))
    count, groups = int(first[-1]), len(leaves)
    leaf = random.integers(-1 if some_new else 0, count, n).astype(np.int32)
    sizes = np.bincount(leaf[leaf >= 0], minlength=count)
    centroids = _cloud(seed + 1, count, 6)
    order, starts = kmeans.groups(random.integers(0, groups, n), groups)
    near = np.array([random.permutation(groups)[: max(1, groups - 1)] for _ in range(groups)], np.int32)
    targets, gains = kmeans.better(points, order, starts, near, first, leaf, sizes, centroids, threads=2)
    distance = _squared(points, centroids)
    for group in range(groups):
        inside = [one for other in near[group] for one in range(first[other], first[other + 1])]
        for place in range(starts[group], starts[group + 1]):
            row = order[place]
            nearest = sorted(inside, key=lambda one: distance[row, one])[: kmeans.TARGETS]
            own = leaf[row]
            leaving = np.inf if own < 0 else distance[row, own] * sizes[own] / max(1, sizes[own] - 1)
            gain = {one: leaving - distance[row, one] * sizes[one] / (sizes[one] + 1) for one in nearest if one != own}
            wanted = [one for one in nearest if gain.get(one, 0) > 0]
            assert [one for one in targets[place].tolist() if one >= 0] == wanted
            assert gains[place] == pytest.approx(max([gain[one] for one in wanted], default=0), rel=1e-3, abs=1e-4)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 80), st.integers(1, 8), st.integers(1, 15))
def test_moves_respect_room_and_keep_counts(seed: int, n: int, count: int, room: int) -> None:
    random = np.random.default_rng(seed)
    leaf = random.integers(0, count, n).astype(np.int32)
    before, sizes = leaf.copy(), np.bincount(leaf, minlength=count)
    limit = np.maximum(sizes, room)
    rows = random.permutation(n)[: max(1, n // 2)]
    targets = random.integers(-1, count, (len(rows), kmeans.TARGETS)).astype(np.int32)
    gains = random.random(len(rows)).astype(np.float32)
    kmeans.move(rows, targets, gains, leaf, sizes, room)
    np.testing.assert_array_equal(sizes, np.bincount(leaf, minlength=count))
    assert (sizes <= limit).all()
    moved = np.flatnonzero(before != leaf)
    assert set(moved.tolist()) <= set(rows.tolist())
    where = {row: place for place, row in enumerate(rows.tolist())}
    assert all(leaf[row] in targets[where[row]] for row in moved.tolist())


def test_the_greatest_gain_moves_first() -> None:
    leaf, sizes = np.zeros(3, np.int32), np.array([3, 0])
    targets = np.full((3, kmeans.TARGETS), -1, np.int32)
    targets[:, 0] = 1
    kmeans.move(np.arange(3), targets, np.array([1, 3, 2], np.float32), leaf, sizes, 1)
    assert leaf.tolist() == [0, 1, 0]
