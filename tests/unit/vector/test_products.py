"""Products by panels, and the nearest that are read off them, against NumPy in twice the precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector.products import BLOCK_ROWS, PANEL, nearest, paneled, products


def cloud(seed: int, n: int, dim: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    apart = a[:, None].astype(np.float64) - b[None].astype(np.float64)
    return np.einsum("ijk,ijk->ij", apart, apart)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 70), st.integers(1, 40), st.data())
def test_nearest_are_those_of_all_distances(seed: int, n: int, count: int, dim: int, data: st.DataObject) -> None:
    points, centroids = cloud(seed, n, dim), cloud(seed + 1, count, dim)
    near, threads = data.draw(st.integers(1, count)), data.draw(st.integers(1, 3))
    found, best = nearest(points, centroids, near, threads=threads)
    all_of_them = squared(points, centroids)
    assert found.shape == best.shape == (n, near)
    assert all(len(set(row)) == near for row in found.tolist())
    wanted = np.sort(all_of_them, axis=1)[:, :near]
    np.testing.assert_allclose(np.take_along_axis(all_of_them, found, 1), wanted, rtol=1e-4, atol=1e-4)
    norms = np.einsum("ij,ij->i", points, points)[:, None]
    np.testing.assert_allclose(best + norms, wanted, rtol=1e-3, atol=1e-3)
    some = np.arange(0, n, 2)
    np.testing.assert_array_equal(nearest(points, centroids, near, rows=some, threads=threads)[0], found[some])


def test_of_equal_centroids_the_first_is_nearest() -> None:
    points = cloud(1, 9, 7)
    centroids = np.repeat(cloud(2, 2, 7), 3, axis=0)
    assert set(nearest(points, centroids, 1, threads=1)[0].ravel().tolist()) <= {0, 3}
    assert set(nearest(points, np.repeat(centroids, PANEL, axis=0), 1, threads=1)[0].ravel().tolist()) <= {0, 3 * PANEL}


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_rows_in_several_blocks_are_the_same_for_any_number_of_threads(threads: int) -> None:
    points, centroids = cloud(3, 9 * BLOCK_ROWS + 3, 5), cloud(4, 3 * PANEL + 1, 5)
    found, best = nearest(points, centroids, 2, threads=threads)
    wanted = np.argsort(squared(points, centroids), axis=1)[:, :2]
    assert (found == wanted).mean() > 0.999
    again = nearest(points, centroids, 2, threads=1)
    np.testing.assert_array_equal(found, again[0])
    np.testing.assert_array_equal(best, again[1])


def test_a_bias_of_its_own_makes_inner_products() -> None:
    points, centroids = cloud(5, 50, 20), cloud(6, 40, 20)
    found, best = nearest(points, centroids, 3, bias=np.zeros(40, np.float32), threads=2)
    scores = -2 * points.astype(np.float64) @ centroids.T.astype(np.float64)
    np.testing.assert_array_equal(found, np.argsort(scores, axis=1)[:, :3])
    np.testing.assert_allclose(best, np.sort(scores, axis=1)[:, :3], rtol=1e-4, atol=1e-4)


def test_no_rows_have_no_nearest() -> None:
    found, best = nearest(cloud(0, 0, 4), cloud(0, 3, 4), 2, threads=2)
    assert found.shape == best.shape == (0, 2)


@settings(max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 70), st.integers(1, 40))
def test_products_are_those_of_matrices(seed: int, n: int, count: int, dim: int) -> None:
    points, centroids = cloud(seed, n, dim), cloud(seed + 1, count, dim)
    scores = np.full((n, count), np.nan, np.float32)
    products(points, np.arange(n), paneled(centroids), scores)
    wanted = -2 * points.astype(np.float64) @ centroids.T.astype(np.float64)
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)
