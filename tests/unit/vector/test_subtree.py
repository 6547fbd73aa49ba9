"""Sub-trees against a recursive reading of the shared tree."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector import subtree as module
from lakelet.vector.nodes import Nodes, no_nodes, rounded
from lakelet.vector.subtree import CHILD, CHILDREN, FILL_ROWS, NO_SUBTREE, NODE, START, STOP, split, subtree
from lakelet.vector.tree import train

ROWS = 1500
FILL: int = getattr(module, "FILL_ROWS", 0)


@cache
def shared(leaf_rows: int) -> Nodes:
    rows = np.random.default_rng(3).normal(size=(ROWS, 4)).astype(np.float32)
    rows[200:320] = rows[200]
    tree, order = train(rows, metric="l2", leaf_rows=leaf_rows, seed=2, threads=1)
    return rounded(tree, rows[order].mean(axis=0))


def deep() -> Nodes:
    """Five levels by hand: each node is cut in two, of 64 positions; one child here and there holds nearly all."""
    first, count, lo, hi = [0], [0], [0], [64]
    at = 0
    while at < len(lo):
        size = hi[at] - lo[at]
        if size > 2:
            cuts = lo[at] + (1 if at % 3 == 2 else size // 2)
            first[at], count[at] = len(lo), 2
            lo += [lo[at], cuts]
            hi += [cuts, hi[at]]
            first += [0, 0]
            count += [0, 0]
        at += 1
    reals = np.zeros(len(lo), np.float32)
    shape = (np.array(part, np.int32) for part in (first, count))
    bounds = (np.array(part, np.uint32) for part in (lo, hi))
    return Nodes(np.zeros((len(lo), 32), np.int8), reals, reals, *shape, *bounds, reals)


def stays(rows: int, nodes: Nodes, cap: int, node: int, root: bool) -> bool:
    """Whether a list is not cut: it is short, a leaf's, or its parts would be too short to be worth their centroids."""
    if rows <= cap or not nodes.first_child[node]:
        return True
    return not root and rows < FILL * nodes.child_count[node]


def lists(positions: list[int], nodes: Nodes, cap: int, node: int = 0, root: bool = True) -> list[list[int]]:
    """The short-lists by recursion."""
    if stays(len(positions), nodes, cap, node, root):
        return [positions]
    first, count = int(nodes.first_child[node]), int(nodes.child_count[node])
    parts = [(c, [p for p in positions if nodes.lo[c] <= p < nodes.hi[c]]) for c in range(first, first + count)]
    parts = [(child, part) for child, part in parts if part]
    return [each for child, part in parts for each in lists(part, nodes, cap, child, root and len(parts) == 1)]


def check(positions: np.ndarray, nodes: Nodes, cap: int) -> None:
    made = subtree(positions, nodes, cap)
    assert made.dtype == np.int32
    assert made.shape[0] == 5
    assert made.flags.c_contiguous
    entries = made.shape[1]
    assert (made[START, 0], made[STOP, 0]) == (0, len(positions))
    parents, frontier = np.zeros(entries, int), []
    for entry in range(entries):
        node, child, children, start, stop = made[:, entry].tolist()
        below = positions[start:stop]
        assert ((below >= nodes.lo[node]) & (below < nodes.hi[node])).all()
        if not child:
            assert children == 0
            assert stays(stop - start, nodes, cap, node, entry == 0)
            frontier.append((start, stop))
            continue
        assert child > entry
        assert children >= 2
        assert stop - start > cap
        first, last = int(nodes.first_child[node]), int(nodes.first_child[node] + nodes.child_count[node])
        edge = start
        for each in range(child, child + children):
            parents[each] += 1
            assert made[START, each] == edge < made[STOP, each]
            edge = made[STOP, each]
            if made[NODE, each] < first or made[NODE, each] >= last:  # passed over to something further down
                above = [c for c in range(first, last) if nodes.lo[c] <= nodes.lo[made[NODE, each]] < nodes.hi[c]]
                assert nodes.hi[made[NODE, each]] <= nodes.hi[above[0]]
        assert edge == stop
    assert parents.tolist() == [0] + [1] * (entries - 1)
    wanted = lists(positions.tolist(), nodes, cap)
    assert [positions[a:b].tolist() for a, b in sorted(frontier)] == wanted


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, ROWS), st.sampled_from([1, 2, 5, 16, 32, 100, 5000]), st.booleans())
def test_a_sub_tree_is_the_shared_one_read_for_some_rows(seed: int, size: int, cap: int, fine: bool) -> None:
    random = np.random.default_rng(seed)
    some = np.sort(random.choice(ROWS, size, replace=False)).astype(np.uint32)
    check(some, shared(4 if fine else 24), cap)


@settings(max_examples=80)
@given(st.sets(st.integers(0, 63)), st.integers(1, 20))
def test_a_sub_tree_of_a_deep_tree(positions: set[int], cap: int) -> None:
    check(np.array(sorted(positions), np.uint32), deep(), cap)


def test_nodes_that_hold_all_rows_are_passed_over() -> None:
    nodes = deep()
    made = subtree(np.array([40, 41, 42, 43], np.uint32), nodes, 1)
    assert made[CHILDREN, 0] >= 2
    node = made[NODE, 0]
    assert node != 0
    assert nodes.lo[node] <= 40
    assert nodes.hi[node] >= 44
    alone = subtree(np.array([17], np.uint32), nodes, 1)
    assert alone.tolist() == [[0], [0], [0], [0], [1]]


@pytest.mark.parametrize("one_in", [1, 2, 8, 1 << 20])
def test_a_thinner_list_has_short_lists_as_many_times_as_long(one_in: int) -> None:
    every, nodes = np.arange(ROWS, dtype=np.uint32), shared(4)
    made = subtree(every, nodes, 32, one_in)
    wanted = split(every, nodes.first_child, nodes.child_count, nodes.hi, 32 * one_in, FILL_ROWS * one_in)
    assert made.tolist() == wanted.tolist()
    assert (made.shape[1] == 1) == (32 * one_in >= ROWS)
    if one_in > 1:
        assert made.shape[1] <= subtree(every, nodes, 32).shape[1]


@pytest.mark.parametrize("cap", [1, 32])
def test_every_row_and_no_row(cap: int) -> None:
    check(np.arange(ROWS, dtype=np.uint32), shared(4), cap)
    check(np.empty(0, np.uint32), shared(4), cap)
    check(np.arange(64, dtype=np.uint32), deep(), cap)
    assert subtree(np.arange(9, dtype=np.uint32), no_nodes(3), cap).shape == (5, 1)
    assert NO_SUBTREE.shape == (5, 0)


def test_rows_side_by_side_in_one_cell() -> None:
    nodes = shared(24)
    leaf = int(np.flatnonzero(nodes.first_child == 0)[5])
    check(np.arange(nodes.lo[leaf], nodes.hi[leaf], dtype=np.uint32), nodes, 2)
    made = subtree(np.arange(nodes.lo[leaf], nodes.hi[leaf], dtype=np.uint32), nodes, 2)
    assert made.shape == (5, 1)
    assert made[CHILD, 0] == 0
    assert made[NODE, 0] == leaf
