"""The search of one posting list against sorting all rows."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector import simd
from lakelet.vector.best_first import walk_ranks
from lakelet.vector.building import Settings, built
from lakelet.vector.codes import layout, quantise
from lakelet.vector.estimates import estimate_ranks
from lakelet.vector.metrics import Metric, checked_vectors
from lakelet.vector.nodes import Nodes, rounded_query
from lakelet.vector.scoring import exact, nearest
from lakelet.vector.segment import EVERY, NOT_PACKED
from lakelet.vector.subtree import CHILD, CHILDREN, NO_SUBTREE, NODE, START, STOP, subtree

if TYPE_CHECKING:
    from lakelet.vector.segment import Segment

ROWS = 1200
KINDS = [(Metric.L2, 19), (Metric.IP, 64), (Metric.COSINE, 130), (Metric.L2, 100)]
NOTHING = np.empty(0, np.uint32)
Found = tuple[np.ndarray, np.ndarray]


def vectors_of(seed: int, n: int, dim: int, metric: Metric) -> np.ndarray:
    random = np.random.default_rng(seed)
    within = np.random.default_rng(dim).normal(size=(8, dim))
    hidden = random.normal(size=(n, 8)) + np.random.default_rng(7).normal(size=(12, 8))[random.integers(0, 12, n)] * 2
    rows = (hidden @ within + random.normal(size=(n, dim)) * 0.2).astype(np.float32)
    rows[n // 2 : n // 2 + n // 20] = rows[n // 2]  # duplicates
    return checked_vectors(rows, dim, metric, "rows")


@cache
def unit(metric: Metric, dim: int) -> Segment:
    """A segment in which ids fall where positions rise, so that ties by id are not ties by position."""
    rows = vectors_of(1, ROWS, dim, metric)
    settings_ = Settings(dim, metric, layout(dim, 3), 3, 2)
    nobody = np.empty(0, np.int32), np.empty(0, np.int64)
    return built(rows, np.random.default_rng(2).permutation(ROWS) * 7 + 11, nobody, settings_)[0]


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind[0].name}-{kind[1]}")
def segment(request: pytest.FixtureRequest) -> Segment:
    found = unit(*request.param)
    found.rows.live[:] = 1
    return found


def queries_of(segment: Segment, count: int) -> np.ndarray:
    metric, dim = segment.rows.metric, segment.rows.vectors.shape[1]
    some = vectors_of(99, count, dim, metric)
    some[0] = segment.rows.vectors[np.argsort(segment.rows.ids)[17]]
    return some


def distances(segment: Segment, query: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """float32, by the kernels that test_simd holds against double precision."""
    rows, dim, metric = segment.rows.vectors, segment.rows.vectors.shape[1], segment.rows.metric
    kernel = simd.squared if metric is Metric.L2 else simd.dot
    base = rows.ctypes.data
    raw = [kernel(query.ctypes.data, base + int(at) * dim * 4, dim) for at in positions]
    raw32 = np.array(raw, np.float32)
    if metric is Metric.COSINE:
        return np.maximum(np.float32(1) - raw32, np.float32(0))
    return -raw32 if metric is Metric.IP else raw32


def brute(segment: Segment, queries: np.ndarray, positions: np.ndarray, removed: np.ndarray, k: int) -> Found:
    left = np.setdiff1d(positions, removed)
    left = left[segment.rows.live[left] > 0]
    ids, found = np.full((len(queries), k), -1), np.full((len(queries), k), np.inf, np.float32)
    for turn, query in enumerate(queries):
        apart = distances(segment, query, left)
        order = np.lexsort((segment.rows.ids[left], apart))[:k]
        ids[turn, : len(order)], found[turn, : len(order)] = segment.rows.ids[left[order]], apart[order]
    return ids, found


def looked_up(
    segment: Segment,
    queries: np.ndarray,
    positions: np.ndarray,
    removed: np.ndarray = NOTHING,
    k: int = 10,
    way: tuple[np.ndarray, int, int] | None = None,
) -> Found:
    """By true distances, or by ``way``: a sub-tree, candidates, rows to score."""
    ids, found = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf, np.float32)
    if way is None:
        exact(queries, segment.rows.table, positions, removed, ids, found)
        return ids, found
    split, ef, budget = way
    packed = np.ascontiguousarray(segment.rows.records[positions])
    again = ids.copy(), found.copy()
    nearest(queries, segment.rows.table, positions, removed, split, NOT_PACKED, EVERY, ef, 0.0, budget, ids, found)
    nearest(queries, segment.rows.table, positions, removed, split, packed, EVERY, ef, 0.0, budget, *again)
    same((ids, found), again)  # copies of records save time alone
    return ids, found


def same(one: Found, two: Found) -> None:
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


def some_of(seed: int, size: int, parts: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Positions, and a part of them that is removed."""
    random = np.random.default_rng(seed)
    positions = np.sort(random.choice(ROWS, size, replace=False)).astype(np.uint32)
    return positions, np.sort(random.choice(positions, size // parts, replace=False)).astype(np.uint32)


def split_of(segment: Segment, positions: np.ndarray, cap: int = 16) -> np.ndarray:
    return subtree(positions, segment.rows.nodes, cap)


@pytest.mark.parametrize("size", [0, 1, 2, 5, 333, ROWS])
def test_exact_is_sorting_all_rows(segment: Segment, size: int) -> None:
    positions, removed = some_of(size, size)
    segment.rows.live[np.random.default_rng(size).choice(ROWS, ROWS // 5)] = 0
    queries = queries_of(segment, 6)
    for k in (1, 10, 400):
        for gone in (NOTHING, removed):
            same(looked_up(segment, queries, positions, gone, k), brute(segment, queries, positions, gone, k))


@settings(max_examples=40)
@given(
    st.integers(0, 10**6),
    st.integers(0, ROWS),
    st.integers(1, 60),
    st.sampled_from(KINDS),
    st.booleans(),
    st.booleans(),
)
def test_with_enough_candidates_all_ways_are_exact(
    seed: int, size: int, k: int, kind: tuple[Metric, int], dead: bool, walk: bool
) -> None:
    segment = unit(*kind)
    segment.rows.live[:] = 1
    if dead:
        segment.rows.live[np.random.default_rng(seed).choice(ROWS, ROWS // 3)] = 0
    positions, removed = some_of(seed, size)
    queries, ef = queries_of(segment, 3), max(size, k)
    split = split_of(segment, positions) if walk else NO_SUBTREE
    found = looked_up(segment, queries, positions, removed, k, (split, ef, size))
    same(found, looked_up(segment, queries, positions, removed, k))


def test_a_budget_of_all_rows_is_the_flat_scan(segment: Segment) -> None:
    queries = queries_of(segment, 20)
    for size, ef in ((ROWS, 10), (ROWS, 40), (500, 25)):
        positions, removed = some_of(size, size, parts=10)
        split = split_of(segment, positions)
        for k in (1, 10):
            walked = looked_up(segment, queries, positions, removed, k, (split, ef, size))
            same(walked, looked_up(segment, queries, positions, removed, k, (NO_SUBTREE, ef, 0)))


def test_more_rows_or_more_candidates_find_no_less_in_the_mean(segment: Segment) -> None:
    positions, queries = np.arange(ROWS, dtype=np.uint32), queries_of(segment, 60)
    split = split_of(segment, positions)
    truth = brute(segment, queries, positions, NOTHING, 10)

    def recall(ef: int, budget: int) -> float:
        ids, apart = looked_up(segment, queries, positions, NOTHING, 10, (split, ef, budget))
        assert (apart >= truth[1]).all()
        return float(np.mean([np.isin(a, b).mean() for a, b in zip(truth[0], ids, strict=True)]))

    by_budget = [recall(100, budget) for budget in (10, 50, 150, 400, 800, ROWS)]
    assert all(a <= b + 0.01 for a, b in pairwise(by_budget))
    assert by_budget[0] < 0.9 < by_budget[-1]
    by_candidates = [recall(ef, ROWS) for ef in (10, 20, 50, 200, ROWS)]
    assert all(a <= b + 0.01 for a, b in pairwise(by_candidates))
    assert by_candidates[-1] == 1


def test_rows_that_are_dead_or_removed_in_the_nearest_lists_do_not_leave_places_empty(segment: Segment) -> None:
    positions, queries = np.arange(ROWS, dtype=np.uint32), queries_of(segment, 1)
    split = split_of(segment, positions)
    close = brute(segment, queries, positions, NOTHING, 900)[0][0]
    gone = np.flatnonzero(np.isin(segment.rows.ids, close)).astype(np.uint32)
    way = split, ROWS, 20
    wanted = brute(segment, queries, positions, gone, 10)
    same(looked_up(segment, queries, positions, gone, 10, way), wanted)
    segment.rows.live[gone] = 0
    same(looked_up(segment, queries, positions, NOTHING, 10, way), wanted)
    segment.rows.live[:] = 0
    ids, apart = looked_up(segment, queries, positions, NOTHING, 10, way)
    assert (ids == -1).all()
    assert np.isinf(apart).all()


def test_more_neighbours_than_rows_are_padded(segment: Segment) -> None:
    positions, queries = some_of(5, 30)[0], queries_of(segment, 4)
    for way in (None, (NO_SUBTREE, 50, 0), (split_of(segment, positions, 4), 50, 8)):
        ids, apart = looked_up(segment, queries, positions, NOTHING, 50, way)
        assert (ids[:, 30:] == -1).all()
        assert np.isinf(apart[:, 30:]).all()
        same((ids, apart), brute(segment, queries, positions, NOTHING, 50))


def test_more_neighbours_than_the_budget_has_rows_come_from_all_of_them(segment: Segment) -> None:
    positions, queries = np.arange(ROWS, dtype=np.uint32), queries_of(segment, 3)
    found = looked_up(segment, queries, positions, NOTHING, 500, (split_of(segment, positions), ROWS, 10))
    same(found, brute(segment, queries, positions, NOTHING, 500))


def test_lists_are_offered_one_after_the_other(segment: Segment) -> None:
    queries, (positions, _) = queries_of(segment, 5), some_of(8, 600)
    ids, apart = np.full((5, 10), -1, np.int64), np.full((5, 10), np.inf, np.float32)
    kept = queries.copy()
    for part in (positions[:100], positions[50:400], positions[400:]):  # some of them twice
        exact(queries, segment.rows.table, part, NOTHING, ids, apart)
    nearest(queries, segment.rows.table, positions, NOTHING, NO_SUBTREE, NOT_PACKED, EVERY, 600, 0.0, 0, ids, apart)
    same((ids, apart), brute(segment, queries, positions, NOTHING, 10))
    np.testing.assert_array_equal(queries, kept)


def keys_of(nodes: Nodes, query: np.ndarray, split: np.ndarray) -> np.ndarray:
    """The key of each entry: the greatest score on the way to it, rounded as the kernel rounds."""
    words = np.zeros(nodes.codes.shape[1], np.int16)
    twice = np.float32(2) * np.float32(rounded_query(query, words))
    keys = np.full(split.shape[1], -np.inf, np.float32)
    for entry in range(split.shape[1]):
        for below in range(split[CHILD, entry], split[CHILD, entry] + split[CHILDREN, entry]):
            node = split[NODE, below]
            product = np.float32(nodes.codes[node].astype(int) @ words.astype(int))
            keys[below] = max(keys[entry], nodes.bias[node] - twice * nodes.scale[node] * product)
    return keys


def test_walk_ranks_count_the_rows_of_the_lists_up_to_a_target(segment: Segment) -> None:
    nodes = segment.rows.nodes
    for size, cap in ((ROWS, 32), (400, 8), (3, 1), (1, 1)):
        positions = some_of(size, size)[0]
        split = split_of(segment, positions, cap)
        targets = np.unique(np.random.default_rng(size).integers(0, size, 25))
        leaves = split[CHILD] == 0
        sizes = np.where(leaves, split[STOP] - split[START], 0)
        for query in queries_of(segment, 4):
            out, keys = np.full(len(targets), -5, np.int64), keys_of(nodes, query, split)
            walk_ranks(query, nodes.codes, nodes.scale, nodes.bias, split, targets, out)
            for target, scored in zip(targets, out, strict=True):
                (entry,) = np.flatnonzero(leaves & (split[START] <= target) & (target < split[STOP]))
                before = sizes[keys < keys[entry]].sum()
                assert before + sizes[entry] <= scored <= sizes[keys <= keys[entry]].sum()


def test_a_budget_of_a_walk_rank_finds_the_row(segment: Segment) -> None:
    positions, queries = np.arange(ROWS, dtype=np.uint32), queries_of(segment, 30)
    split, nodes = split_of(segment, positions, 32), segment.rows.nodes
    found = 0
    for turn, query in enumerate(queries):
        best = brute(segment, query[None], positions, NOTHING, 1)[0][0, 0]
        target, out = np.flatnonzero(segment.rows.ids == best), np.empty(1, np.int64)
        walk_ranks(query, nodes.codes, nodes.scale, nodes.bias, split, target, out)
        ids, _ = looked_up(segment, queries[turn : turn + 1], positions, NOTHING, 1, (split, ROWS, int(out[0])))
        found += ids[0, 0] == best
    assert found >= 28  # keys are read as 1,024 bins, so that the last list may be another


def test_estimate_ranks_count_better_estimates(segment: Segment) -> None:
    rows, lay = segment.rows, segment.rows.layout
    positions = some_of(3, 300)[0]
    targets = np.arange(0, 300, 13)
    words = rows.records[positions, : 32 * lay.blocks].copy().view(np.uint64).reshape(300, lay.blocks, 4)
    tails = rows.records[positions, 32 * lay.blocks :].copy().view(np.float32).astype(float)
    for query in queries_of(segment, 4):
        planes = np.empty(lay.blocks * 16, np.uint64)
        c1, c2 = quantise(query, rows.mean, lay.signs, lay.bits, rows.metric is not Metric.IP, planes)
        differ = np.tile(words, 4) ^ planes.reshape(1, lay.blocks, 16)
        counts = (np.bitwise_count(differ).astype(int) << lay.shifts).sum(axis=(1, 2))
        estimates = tails[:, 0] + tails[:, 1] * (c1 + c2 * counts)
        slack = 1e-6 * (np.abs(tails[:, 0]) + np.abs(tails[:, 1] * c1)).max()
        out = np.empty(len(targets), np.int64)
        estimate_ranks(query, rows.table, positions, targets, out, np.empty((len(targets), 3)))
        for target, rank in zip(targets, out, strict=True):
            own = estimates[target]
            assert (estimates < own - slack).sum() <= rank <= (estimates < own + slack).sum()


def test_a_query_as_long_as_they_may_be_finds_as_much() -> None:
    segment = unit(Metric.IP, 64)
    segment.rows.live[:] = 1
    positions, queries = np.arange(ROWS, dtype=np.uint32), queries_of(segment, 10)
    queries *= np.float32(9.9e17) / np.linalg.norm(queries, axis=1)[:, None]
    wanted, apart = looked_up(segment, queries, positions)
    assert np.isfinite(apart).all()
    for split in (NO_SUBTREE, split_of(segment, positions)):
        ids, _ = looked_up(segment, queries, positions, NOTHING, 10, (split, 300, ROWS))
        assert np.mean([np.isin(*pair).mean() for pair in zip(wanted, ids, strict=True)]) >= 0.95


TIED = """
import numpy as np
from lakelet.vector.codes import encode, layout
from lakelet.vector.metrics import Metric
from lakelet.vector.nodes import Nodes
from lakelet.vector.scoring import nearest
from lakelet.vector.segment import EVERY, NOT_PACKED, Rows
from lakelet.vector.subtree import subtree

bias = np.array({bias}, np.float32)
rows, lay, mean = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32), layout(8, 0), np.zeros(8, "f4")
records = np.empty((256, lay.record_bytes), np.uint8)
encode(rows, mean, lay.signs, lay.bits, True, 0, 256, records)
first, count = np.array([1, 3, 5, 0, 0, 0, 0], np.int32), np.array([2, 2, 2, 0, 0, 0, 0], np.int32)
lo, hi = np.array([0, 0, 128, 0, 64, 128, 192], np.uint32), np.array([256, 128, 256, 64, 128, 192, 256], np.uint32)
zeros = np.zeros(7, np.float32)
nodes = Nodes(np.zeros((7, 32), np.int8), zeros, bias, first, count, lo, hi, zeros)
made = Rows(rows, records, np.arange(256), np.ones(256, np.uint8), mean, lay, Metric.L2, nodes)
every, ids, apart = np.arange(256, dtype=np.uint32), np.full((1, 5), -1), np.full((1, 5), np.inf, np.float32)
split = subtree(every, nodes, 64)
query, nothing = np.zeros((1, 8), np.float32), np.empty(0, np.uint32)
nearest(query, made.table, every, nothing, split, NOT_PACKED, EVERY, 100, 0.0, 64, ids, apart)
assert (ids >= 0).all(), ids
assert (ids < 64).all() or np.isinf(bias).any(), ids  # of the first short-list, which scores best
"""


@pytest.mark.parametrize(
    "bias",
    [
        "[0, 1, 2, 1, 2, 2, 3]",
        "[0, 1e38, np.inf, 1e38, 2e38, np.inf, np.inf]",
        "[0, 1, 1, 1, 2, 3, 4]",
    ],
)
@pytest.mark.parametrize("checked", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_walk_stays_inside_its_arrays_and_picks_the_nearest_list(
    bias: str, checked: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    if checked:  # every index is, which takes kernels of their own: ten seconds to compile, once for all of these
        folder = Path(tmp_path_factory.getbasetemp()) / "checked-kernels"
        environment |= {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", TIED.replace("{bias}", bias)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
