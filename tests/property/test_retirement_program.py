"""The cheapest set of tables to keep, against every set of tables, and against dynamic programs on lines and trees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from lakelet.containment import program
from lakelet.containment.program import Solution, solve

SEEDS = range(12)


@dataclass
class Lake:
    keep: np.ndarray
    child: np.ndarray
    parent: np.ndarray
    edge: np.ndarray
    must: np.ndarray

    def solve(self, **options: float) -> Solution:
        return solve(self.keep, self.child, self.parent, self.edge, must_keep=self.must, **options)


def check(lake: Lake, found: Solution, least: float) -> None:
    """The choice can be made, costs what it says, and that is the least."""
    retired = np.flatnonzero(found.parent >= 0)
    assert (found.parent[found.parent[retired]] == -1).all()
    assert not lake.must[retired].any()
    cost = lake.keep[found.parent == -1].sum()
    for table in retired:
        edges = (lake.child == table) & (lake.parent == found.parent[table])
        cost += lake.edge[edges].min()
    assert found.cost == pytest.approx(cost, rel=1e-12, abs=1e-300)
    assert found.bound <= found.cost
    assert found.bound <= least * (1 + 1e-7)
    assert found.cost == pytest.approx(least, rel=1e-7, abs=1e-300)
    assert found.gap <= 1e-7


def brute_force(lake: Lake) -> float:
    """The least cost over all sets of tables that may be kept: a row for each set, a column for each table."""
    n = lake.keep.size
    kept = (np.arange(1 << n)[:, None] >> np.arange(n)) & 1 == 1
    kept = kept[kept[:, lake.must].all(axis=1)]
    columns = np.asfortranarray(np.full(kept.shape, np.inf))
    for child, parent, cost in zip(lake.child, lake.parent, lake.edge, strict=True):
        if child != parent:
            column = columns[:, child]
            np.minimum(column, cost, out=column, where=kept[:, parent])
    return float(np.where(kept, lake.keep, columns).sum(axis=1).min())


def any_lake(rng: np.random.Generator, most: int) -> Lake:
    """Random edges, loops and parallel ones among them, and perhaps groups of duplicates in each other."""
    n = int(rng.integers(1, most + 1))
    m = int(rng.integers(0, 3 * n + 1))
    child, parent = rng.integers(0, n, m), rng.integers(0, n, m)
    keep, edge = COSTS[rng.integers(len(COSTS))](rng, n), COSTS[rng.integers(len(COSTS))](rng, m)
    if rng.random() < 0.5:  # duplicates cost the same, and rebuilding one from another does so too
        group = rng.integers(0, max(n // 3, 1), n)
        same = np.argwhere((group[:, None] == group) & ~np.eye(n, dtype=bool))
        keep = keep[group]
        child, parent = np.concatenate([child, same[:, 0]]), np.concatenate([parent, same[:, 1]])
        edge = np.concatenate([edge, 0.3 * keep[same[:, 0]]])
    return Lake(keep, child, parent, edge, rng.random(n) < rng.choice([0.0, 0.2]))


COSTS = [
    lambda rng, n: rng.integers(0, 4, n).astype(float),
    lambda rng, n: np.full(n, float(rng.integers(0, 3))),
    lambda rng, n: rng.lognormal(0, 2, n),
    lambda rng, n: 1e-9 * rng.lognormal(0, 1, n),
    lambda rng, n: rng.uniform(1, 2, n) * (rng.random(n) < 0.8),
]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("enumerated", [8, 0])
def test_no_set_of_tables_is_cheaper(seed: int, enumerated: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # At 0 the solver gets what would else be enumerated.
    monkeypatch.setattr(program, "_ENUMERATED", enumerated)
    rng = np.random.default_rng(seed)
    for _ in range(250):
        lake = any_lake(rng, 9)
        check(lake, lake.solve(max_gap=1e-9), brute_force(lake))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_set_of_a_few_more_tables_is_cheaper(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_ENUMERATED", 4)
    rng = np.random.default_rng((1, seed))
    for _ in range(60):
        lake = any_lake(rng, 12)
        check(lake, lake.solve(max_gap=1e-9), brute_force(lake))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_greedy_choice_can_be_made_and_its_bound_holds(seed: int) -> None:
    rng = np.random.default_rng((2, seed))
    for _ in range(25):
        lake = any_lake(rng, 10)
        found, least = lake.solve(time_limit_seconds=0), brute_force(lake)
        assert found.bound <= least * (1 + 1e-12)
        assert found.cost >= least * (1 - 1e-12)
        assert (found.parent[found.parent[found.parent >= 0]] == -1).all()


def nearest_line(lake: Lake, cost: np.ndarray) -> float:
    """Tables on a line, where the nearest kept table before is the cheapest parent there is.

    D[j], the least cost of tables 0 to j with j kept, is the least D[i] and all between from i, over i before j.
    """
    n = lake.keep.size
    from_i = np.concatenate([np.zeros((n, 1)), np.cumsum(np.where(np.tri(n, dtype=bool).T, cost, 0.0), axis=1)], axis=1)
    least = np.full(n, np.inf)
    for j in range(n):
        before = [least[i] + from_i[i, j] - from_i[i, i + 1] for i in range(j) if np.isfinite(from_i[i, j])]
        least[j] = lake.keep[j] + min(before, default=0.0 if j == 0 else np.inf)
    ends = [least[i] + from_i[i, n] - from_i[i, i + 1] for i in range(n) if np.isfinite(from_i[i, n])]
    return float(min(ends))


@pytest.mark.parametrize("seed", SEEDS)
def test_lines_with_parents_anywhere_before(seed: int) -> None:
    rng = np.random.default_rng((3, seed))
    for _ in range(25):
        n, window = int(rng.integers(2, 60)), int(rng.integers(1, 15))
        keep = rng.lognormal(0, 1, n)
        cost = np.full((n, n), np.inf)  # by parent and child, falling as the parent nears the child
        for j in range(1, n):
            near = min(j, window)
            cost[j - near : j, j] = np.sort(rng.uniform(0, 0.7 * keep[j], near))[::-1]
        cost[np.arange(n), np.arange(n)] = 0.0
        parent, child = np.nonzero(np.isfinite(cost) & ~np.eye(n, dtype=bool))
        lake = Lake(keep, child, parent, cost[parent, child], np.zeros(n, dtype=bool))
        check(lake, lake.solve(max_gap=1e-9), nearest_line(lake, cost))


def tree(lake: Lake, up: np.ndarray, cost: np.ndarray) -> float:
    """Two states for each table, kept or rebuilt from the one above it; tables are numbered from the root."""
    kept = lake.keep.copy()
    rebuilt = np.where(lake.must, np.inf, cost)
    for table in range(lake.keep.size - 1, 0, -1):
        kept[up[table]] += min(kept[table], rebuilt[table])
        rebuilt[up[table]] += kept[table]
    return float(kept[0])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", ["line", "tree", "broad"])
def test_lines_and_trees_with_one_parent_each(seed: int, shape: str) -> None:
    rng = np.random.default_rng((4, seed))
    for _ in range(10):
        n = int(rng.integers(2, 200))
        tables = np.arange(n)
        lowest = {"line": tables - 1, "tree": 0 * tables, "broad": tables // 5 - 1}[shape]
        up = np.array([0, *(rng.integers(max(lowest[t], 0), max(t, 1) if shape != "broad" else t) for t in tables[1:])])
        keep, cost = rng.lognormal(0, 1, n), rng.lognormal(-1, 1, n)
        must = rng.random(n) < 0.05
        lake = Lake(keep, tables[1:], up[1:], cost[1:], must)
        cost[0] = np.inf
        check(lake, lake.solve(max_gap=1e-9), tree(lake, up, cost))


@pytest.mark.parametrize("seed", SEEDS)
def test_what_must_not_matter_does_not_and_more_edges_cost_no_more(seed: int) -> None:
    rng = np.random.default_rng((5, seed))
    for _ in range(5):
        lake = any_lake(rng, 30)
        n = lake.keep.size
        cost = lake.solve(max_gap=1e-9).cost
        order = rng.permutation(n)
        turned = Lake(lake.keep[np.argsort(order)], order[lake.child], order[lake.parent], lake.edge, lake.must)
        turned.must = lake.must[np.argsort(order)]
        assert turned.solve(max_gap=1e-9).cost == pytest.approx(cost, rel=1e-7, abs=1e-300)
        larger = Lake(1e6 * lake.keep, lake.child, lake.parent, 1e6 * lake.edge, lake.must)
        assert larger.solve(max_gap=1e-9).cost == pytest.approx(1e6 * cost, rel=1e-7, abs=1e-300)
        ends = rng.integers(0, n, (2, 5))
        more = Lake(
            lake.keep, *np.hstack([[lake.child, lake.parent], ends]), np.append(lake.edge, np.ones(5)), lake.must
        )
        assert more.solve(max_gap=1e-9).cost <= cost * (1 + 1e-7)
