"""What OSQ codes are learnt from: partitions, axes, bits and cells, each against a slow or exhaustive form of it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake.errors import InvalidInput
from lakelet.vector.allocation import allocated
from lakelet.vector.klt import klt, turn_query, turned
from lakelet.vector.lloyd import CHANGE, ITERATIONS, cells_of, first_cells
from lakelet.vector.partitions import SLACK, partition_count, partitioned

Array = np.ndarray[Any, Any]


# partitions


def blobs(cells: int, dim: int, seed: int, largest: int = 200) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((7, dim)) * 3
    points = centres[rng.integers(0, 7, cells)] + rng.standard_normal((cells, dim))
    return points.astype(np.float32), rng.integers(1, largest, cells)


def cost(points: Array, sizes: Array, order: Array, starts: Array) -> float:
    total = 0.0
    for lo, hi in itertools.pairwise(starts):
        inside, weight = points[order[lo:hi]].astype(np.float64), sizes[order[lo:hi], None]
        total += float((weight * (inside - (weight * inside).sum(axis=0) / weight.sum()) ** 2).sum())
    return total


@pytest.mark.parametrize("count", [2, 5, 16])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_partitions_are_of_about_equal_size_and_of_near_cells(count: int, seed: int) -> None:
    points, sizes = blobs(900, 12, seed)
    order, starts = partitioned(points, sizes, count, seed=seed)
    assert sorted(order.tolist()) == list(range(900))
    rows = np.add.reduceat(sizes[order], starts[:-1])
    mean = sizes.sum() / count
    assert rows.max() <= mean * (1 + SLACK)
    assert rows.min() >= mean * (1 - SLACK)
    even = np.linspace(0, 900, count + 1).astype(np.int64)
    assert cost(points, sizes, order, starts) < 0.8 * cost(points, sizes, np.arange(900), even)


def test_partitions_follow_the_seed_and_keep_cells_in_order() -> None:
    points, sizes = blobs(300, 6, 4)
    one, again = (partitioned(points, sizes, 6, seed=9) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert all((np.diff(one[0][lo:hi]) > 0).all() for lo, hi in itertools.pairwise(one[1]))


@pytest.mark.parametrize(
    "sizes",
    [[1000, 1, 1, 1], [5, 5], [], [0, 0, 0], [300, 300, 300, 10, 10, 10, 10, 10, 10]],
    ids=["one large cell", "fewer cells than partitions", "none", "without rows", "lumps"],
)
def test_cells_that_cannot_be_balanced_are_all_in_a_partition(sizes: list[int]) -> None:
    points = np.random.default_rng(0).standard_normal((len(sizes), 3)).astype(np.float32)
    order, starts = partitioned(points, np.array(sizes, np.int64), 3, seed=0)
    assert sorted(order.tolist()) == list(range(len(sizes)))
    assert len(starts) == 4
    assert starts[0] == 0
    assert starts[-1] == len(sizes)


def test_lumps_are_spread() -> None:
    sizes = np.array([300, 300, 300, *[10] * 6])
    points = np.zeros((9, 2), np.float32)
    order, starts = partitioned(points, sizes, 3, seed=0)
    rows = np.add.reduceat(sizes[order], starts[:-1])
    assert (abs(rows - 320) <= SLACK * 320).all()


def test_the_number_of_partitions() -> None:
    assert partition_count(0, 8) == partition_count(39_999, 8) == 1
    assert partition_count(200_000, 256) == 10  # by rows
    assert partition_count(200_000, 1_024) == 7  # by memory
    for rows, dim in ((1_000_000, 128), (300_000, 768), (5_000_000, 384)):
        assert partition_count(rows, dim) * dim * dim <= 0.04 * rows * dim


# axes


def stretched(rows: int, dim: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    scales = np.arange(1, dim + 1) ** -0.8
    return np.asarray(((rng.standard_normal((rows, dim)) * scales) @ turn + 3).astype(np.float32))


def test_axes_are_those_of_the_covariance() -> None:
    vectors = stretched(5_000, 20, 0)
    rows = np.arange(0, 5_000, 2)
    found = klt(vectors, rows)
    double = vectors[rows].astype(np.float64)
    np.testing.assert_allclose(found.mean, double.mean(axis=0), atol=1e-6)
    covariance = np.cov(double.T, bias=True)
    np.testing.assert_allclose(found.variances, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-6)
    np.testing.assert_allclose(found.axes @ covariance @ found.axes.T, np.diag(found.variances), atol=1e-6)
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(20), atol=1e-6)
    assert (found.axes[np.arange(20), np.abs(found.axes).argmax(axis=1)] > 0).all()
    coordinates = turned(vectors, found.mean, found.axes)
    np.testing.assert_allclose(coordinates, (vectors - found.mean) @ found.axes.T, atol=1e-5)


def test_negated_rows_have_the_same_axes() -> None:
    vectors = stretched(2_000, 10, 1)
    rows = np.arange(2_000)
    np.testing.assert_allclose(klt(vectors, rows).axes, klt(-vectors, rows).axes, atol=1e-4)


@pytest.mark.parametrize("rows", [0, 1, 3, 500])
def test_singular_and_constant_rows_have_axes(rows: int) -> None:
    flat = np.zeros((500, 9), np.float32)
    flat[:, :2] = np.random.default_rng(0).standard_normal((500, 2))
    for vectors in (flat, np.full((500, 9), 2.5, np.float32)):
        found = klt(vectors, np.arange(rows))
        np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(9), atol=1e-5)
        assert (found.variances >= 0).all()
        assert (np.diff(found.variances) <= 0).all()
        assert (found.variances[2:] < 1e-9).all()


@pytest.mark.parametrize("dim", [1, 7, 16, 33, 100, 256])
def test_a_query_is_turned_as_rows_are(dim: int) -> None:
    rng = np.random.default_rng(dim)
    axes = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    query, mean = rng.standard_normal((2, dim)).astype(np.float32)
    np.testing.assert_allclose(turn_query(query, mean, axes, True), axes @ (query - mean), atol=2e-5)
    np.testing.assert_allclose(turn_query(query, mean, axes, False), axes @ query, atol=2e-5)
    np.testing.assert_allclose(turned(query[None], mean, axes)[0], axes @ (query - mean), atol=2e-5)


# bits


def slow(variances: list[float], budget: int) -> list[int]:
    """The greedy rule to the letter, a full dimension passed over."""
    bits = [0] * len(variances)
    energies = list(variances)
    for _ in range(budget):
        at = max((i for i in range(len(bits)) if bits[i] < 8), key=lambda i: (energies[i], -i))
        bits[at] += 1
        energies[at] /= 4
    return bits


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_bits_are_those_of_the_slow_rule(data: st.DataObject) -> None:
    numbers = st.one_of(st.floats(0, 1e6), st.sampled_from([0.0, 1.0, 4.0, 16.0]))
    variances = data.draw(st.lists(numbers, min_size=1, max_size=30))
    budget = data.draw(st.integers(0, 8 * len(variances)))
    bits = allocated(np.array(variances), budget)
    assert bits.tolist() == slow(variances, budget)
    assert int(bits.sum()) == budget
    falling = allocated(np.sort(np.array(variances))[::-1], budget).astype(int)
    assert (np.diff(falling) <= 0).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=3), st.data())
def test_no_other_bits_leave_less(variances: list[float], data: st.DataObject) -> None:
    budget = data.draw(st.integers(0, 8 * len(variances)))
    every = np.array([b for b in itertools.product(range(9), repeat=len(variances)) if sum(b) == budget])
    least = (np.array(variances) / 4.0**every).sum(axis=1).min()
    left = (np.array(variances) / 4.0 ** allocated(np.array(variances), budget)).sum()
    assert left <= least * (1 + 1e-12)


def test_a_full_dimension_hands_its_bits_on() -> None:
    assert allocated(np.array([1e12, 1.0, 1.0]), 14).tolist() == [8, 3, 3]


@pytest.mark.parametrize("budget", [-1, 17])
def test_more_bits_than_there_is_room_for_are_refused(budget: int) -> None:
    with pytest.raises(InvalidInput):
        allocated(np.ones(2), budget)


# cells


def slow_cells(column: Array, bits: int) -> tuple[Array, Array, Array]:
    """Lloyd's iteration by masks, from the same start: :mod:`.lloyd` says which."""
    values, cells = column.astype(np.float64), 1 << bits
    runs = min(4 * cells, len(values))
    corners = values[np.arange(runs + 1) * (len(values) - 1) // runs]
    passed = np.append(0, np.cumsum(np.diff(corners) ** (2 / 3)))
    edges = np.interp(passed[-1] * np.arange(1, cells) / cells, passed, corners)
    before = np.inf
    for turn in range(ITERATIONS + 1):
        label = np.searchsorted(edges, values, side="right")
        bounds = np.concatenate([values[:1], edges, values[-1:]])
        means = np.array(
            [values[label == c].mean() if (label == c).any() else bounds[c : c + 2].mean() for c in range(cells)]
        )
        error = ((values - means[label]) ** 2).sum()
        if turn == ITERATIONS or (turn and before - error <= CHANGE * before):
            break
        before, edges = error, (means[1:] + means[:-1]) / 2
    spreads = np.array([values[label == c].var() if (label == c).any() else 0 for c in range(cells)])
    return np.append(-np.inf, edges), means, spreads


@pytest.mark.parametrize("bits", [0, 1, 2, 4, 6])
@pytest.mark.parametrize("kind", ["normal", "skewed", "two lumps"])
def test_cells_are_those_of_the_slow_iteration(bits: int, kind: str) -> None:
    rng = np.random.default_rng(bits)
    column = {
        "normal": rng.standard_normal(4_000),
        "skewed": rng.exponential(2, 4_000),
        "two lumps": np.concatenate([rng.normal(-4, 1, 2_000), rng.normal(5, 0.3, 2_000)]),
    }[kind]
    column = np.sort(column.astype(np.float32))
    edges, means, spreads = cells_of(column[None], np.array([bits], np.uint8))
    expected = slow_cells(column, bits)
    for found, wanted in zip((edges, means, spreads), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-3)


@pytest.mark.parametrize(("bits", "error"), [(1, 0.3634), (2, 0.1175), (3, 0.03454), (4, 0.009497), (5, 0.002499)])
def test_the_error_is_near_the_least_there_is(bits: int, error: float) -> None:
    # Lloyd and Max's figures for the normal distribution
    column = np.sort(np.random.default_rng(0).standard_normal(100_000).astype(np.float32))
    _, means, spreads = cells_of(column[None], np.array([bits], np.uint8))
    away = np.abs(column[:, None] - means[None]).min(axis=1).astype(np.float64)
    assert (away**2).mean() < 1.05 * error
    assert len(spreads) == 1 << bits


def test_eight_bits_do_better_than_even_cells() -> None:
    column = np.sort(np.random.default_rng(0).standard_normal(16_000).astype(np.float32))
    _, means, _ = cells_of(column[None], np.array([8], np.uint8))
    even = np.linspace(column[0], column[-1], 257)
    error = [
        (np.abs(column[:, None] - each[None]).min(axis=1) ** 2).mean() for each in (means, (even[1:] + even[:-1]) / 2)
    ]
    assert error[0] < 0.75 * error[1]


@pytest.mark.parametrize("values", [[3.0], [3.0, 3.0, 3.0], [1.0, 1.0, 2.0, 9.0], [0.0] * 50 + [1.0]])
@pytest.mark.parametrize("bits", [0, 1, 3, 8])
def test_few_values_are_kept_exactly_where_cells_suffice(values: list[float], bits: int) -> None:
    column = np.array(values, np.float32)
    edges, means, spreads = cells_of(column[None], np.array([bits], np.uint8))
    assert np.isfinite(means).all()
    assert (spreads >= 0).all()
    assert (np.diff(edges[1:]) >= 0).all()
    cell = np.searchsorted(edges[1:], column, side="right")
    if bits == 8 or len(set(values)) == 1:
        np.testing.assert_allclose(means[cell], column, atol=1e-6)
    for of in set(cell.tolist()):
        assert means[of] == pytest.approx(column[cell == of].mean(), abs=1e-6)


def test_columns_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(3)
    columns, bits = (
        np.sort(rng.standard_normal((5, 700)).astype(np.float32), axis=1),
        np.array([4, 0, 8, 1, 3], np.uint8),
    )
    together = cells_of(columns, bits)
    first = first_cells(bits)
    assert first.tolist() == [0, 16, 17, 273, 275, 283]
    for j in range(5):
        alone = cells_of(columns[j : j + 1], bits[j : j + 1])
        for one, all_of_them in zip(alone, together, strict=True):
            assert np.array_equal(one, all_of_them[first[j] : first[j + 1]])
