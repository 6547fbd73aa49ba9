"""Centroids and queries as bytes: how far off they may be."""

from __future__ import annotations

import numpy as np
import pytest
from lakelet.vector.nodes import Nodes, no_nodes, rounded, rounded_query
from lakelet.vector.tree import Tree, train

DIMS = (1, 2, 7, 31, 32, 33, 64, 100, 257)
GREATEST = 127


def grown(dim: int, metric: str = "l2", scale: float = 1.0) -> tuple[Tree, np.ndarray]:
    rows = (np.random.default_rng(dim).normal(size=(300, dim)) * scale + 3 * scale).astype(np.float32)
    return train(rows, metric=metric, leaf_rows=16, seed=1, threads=1)[0], rows.mean(axis=0)


def words_of(query: np.ndarray) -> tuple[np.ndarray, float]:
    words = np.full(-(-len(query) // 32) * 32 + 32, 99, np.int16)
    return words, float(rounded_query(query, words))


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("dim", DIMS)
def test_centroids_come_back_within_half_a_step(dim: int, scale: float) -> None:
    tree, mean = grown(dim, scale=scale)
    nodes = rounded(tree, mean)
    assert nodes.codes.shape == (len(tree.bias), -(-dim // 32) * 32)
    assert nodes.codes.dtype == np.int8
    assert nodes.scale.dtype == np.float32
    assert not nodes.codes[:, dim:].any()
    apart = np.abs(tree.centroids - mean).max(axis=1)
    np.testing.assert_allclose(nodes.scale, apart / GREATEST, rtol=1e-6)
    back = nodes.tree(mean)
    error = np.abs(back.centroids - tree.centroids.astype(np.float64))
    assert (error <= 0.501 * nodes.scale[:, None] + 1e-6 * np.abs(mean)).all()
    assert back.centroids.dtype == np.float32
    for name in ("bias", "first_child", "child_count", "lo", "hi", "variance"):
        np.testing.assert_array_equal(getattr(back, name), getattr(tree, name))
        np.testing.assert_array_equal(getattr(nodes, name), getattr(tree, name))


def test_a_centroid_that_is_the_mean_is_nothing() -> None:
    row = np.array([[1, 2, 3]], np.float32)
    tree, _ = train(row, metric="l2", leaf_rows=4, seed=0, threads=1)
    nodes = rounded(tree, row[0])
    assert not nodes.codes.any()
    assert not nodes.scale.any()
    np.testing.assert_array_equal(nodes.tree(row[0]).centroids, row)


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize("dim", [7, 64, 257])
def test_scores_are_nearly_those_of_the_tree(dim: int, metric: str) -> None:
    tree, mean = grown(dim, metric)
    nodes = rounded(tree, mean)
    for query in np.random.default_rng(5).normal(size=(5, dim)).astype(np.float32) + 3:
        words, unit = words_of(query)
        product = nodes.codes.astype(int) @ words[: nodes.codes.shape[1]].astype(int)
        scores = nodes.bias - 2.0 * unit * nodes.scale * product
        wanted = tree.bias - 2.0 * tree.centroids.astype(float) @ query + 2.0 * mean.astype(float) @ query
        error, bound = np.abs(scores - wanted), 2 * unit / 2 * np.abs(tree.centroids - mean).sum(axis=1)
        bound = bound + 2 * nodes.scale / 2 * np.abs(query).sum() + nodes.scale * unit * dim / 2
        assert (error <= bound * 1.01 + 1e-4 * np.abs(wanted).max()).all()
        assert error.max() < 0.05 * np.abs(wanted - wanted.mean()).max() + 1e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1.0, 1e15, 1e38])
@pytest.mark.parametrize("dim", DIMS)
def test_a_query_comes_back_within_half_a_step(dim: int, scale: float) -> None:
    query = (np.random.default_rng(dim).uniform(-1, 1, dim) * scale).astype(np.float32)
    words, unit = words_of(query)
    assert unit == pytest.approx(np.abs(query).max() / GREATEST, rel=1e-6)
    assert np.abs(words).max() == GREATEST
    assert (np.abs(words[:dim] * unit - query.astype(np.float64)) <= 0.501 * unit).all()
    assert not words[dim:].any()


def test_a_query_of_nothing_is_nothing() -> None:
    words, unit = words_of(np.zeros(40, np.float32))
    assert unit == 0
    assert not words.any()


@pytest.mark.parametrize("size", [3e-37, 1e-40, 1e-45])
def test_a_query_of_almost_nothing_stays_in_range(size: float) -> None:
    words, unit = words_of(np.array([size, -size, 0], np.float32))
    assert np.abs(words.astype(int)).max() <= GREATEST
    assert 0 <= unit <= size


@pytest.mark.parametrize("dim", DIMS)
def test_no_nodes_are_one_leaf_over_nothing(dim: int) -> None:
    nodes = no_nodes(dim)
    assert isinstance(nodes, Nodes)
    assert nodes.codes.shape == (1, -(-dim // 32) * 32)
    assert (int(nodes.lo[0]), int(nodes.hi[0]), int(nodes.first_child[0])) == (0, 0, 0)
    assert nodes.nbytes == nodes.codes.nbytes + 7 * 4
