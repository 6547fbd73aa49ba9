"""How long does the cheapest set of 2,000 tables to keep take to find and to prove, over 10,000 edges?

    python benchmarks/retirement_program.py [--tables 2000] [--edges 10000] [--seed 7] [--limit 20]

Lakes of five shapes, in dollars a month: sizes are log-normal, a table costs its storage, and rebuilding one costs
reading the parent and writing the table as often as it is used. A sixth, where every table costs the same and so does
every edge, is a minimum dominating set of a random graph: the hardest there is, printed but not held to the target.
Writes results/retirement_program.md; leaves with 1 when a gap is above 0.1 % or a run takes over 20 seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from importlib import metadata

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import machine
import numpy as np
from lakelet.containment.program import solve
from machine import Stopwatch, markdown_table

GAP = 0.001
SECONDS = 20.0
STORE, READ, WRITE = 0.023, 0.0004, 0.005
"""Dollars a GB: a month's storage, and what requests and processors take for a scan and for a write."""

Edges = tuple[np.ndarray, np.ndarray]


def random_dag(rng: np.random.Generator, n: int, m: int) -> Edges:
    """Any smaller table within any larger one: tables are numbered from the largest."""
    ends = np.sort(rng.integers(0, n, (m, 2)), axis=1)
    return ends[:, 1], ends[:, 0]


def stars(rng: np.random.Generator, n: int, m: int) -> Edges:
    """A few hubs are named by most edges, and lie within each other too."""
    hubs = n // 25
    parent = (hubs * rng.random(m) ** 2).astype(np.int64)
    return rng.integers(parent + 1, n), parent


def cliques(rng: np.random.Generator, n: int, m: int) -> Edges:
    """Groups of duplicates, each in each, and as many edges between tables of different groups."""
    sizes, left = [], m // 2
    while left > 0:
        sizes.append(int(rng.integers(2, 12)))
        left -= sizes[-1] * (sizes[-1] - 1)
    start = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    inside = [(s + i, s + j) for s, k in zip(start, sizes, strict=True) for i in range(k) for j in range(k) if i != j]
    child, parent = np.array(inside)[: m // 2].T % n
    between = random_dag(rng, n, m - child.size)
    return np.concatenate([child, between[0]]), np.concatenate([parent, between[1]])


def chains(rng: np.random.Generator, n: int, m: int) -> Edges:
    """Chains of 200 tables; a table lies in some of the ten before it."""
    child = rng.integers(1, n, m)
    back = rng.integers(1, 11, m)
    return child, np.maximum(child - np.minimum(back, np.maximum(child % 200, 1)), 0)


def mixed(rng: np.random.Generator, n: int, m: int) -> Edges:
    """A quarter of each of the others, over the same tables."""
    made = [shape(rng, n, m // 4) for shape in (random_dag, stars, cliques, chains)]
    return np.concatenate([child for child, _ in made]), np.concatenate([parent for _, parent in made])


SHAPES = {"random DAG": random_dag, "stars": stars, "cliques": cliques, "chains": chains, "mixed": mixed}


def costs(rng: np.random.Generator, n: int, ends: Edges) -> tuple[np.ndarray, np.ndarray]:
    """Dollars a month of keeping each table and of each edge; duplicates come out alike in size only by chance."""
    gigabytes = np.sort(rng.lognormal(1.0, 1.5, n))[::-1]
    uses = rng.lognormal(0.0, 1.5, n)
    child, parent = ends
    return STORE * gigabytes, uses[child] * (READ * gigabytes[parent] + WRITE * gigabytes[child])


def measure(name: str, keep: np.ndarray, ends: Edges, edge: np.ndarray, limit: float) -> tuple[list[object], bool]:
    """A row of the table, and whether the target is met."""
    start = time.perf_counter()
    greedy = solve(keep, *ends, edge, time_limit_seconds=0)
    greedy_seconds = time.perf_counter() - start
    with Stopwatch() as watch:
        found = solve(keep, *ends, edge, time_limit_seconds=limit)
    cells = [name, f"{keep.sum():.6g}", f"{greedy.cost:.8g}", f"{greedy_seconds:.2f}", f"{found.cost:.8g}"]
    cells += [f"{found.gap:.2e}", f"{watch.seconds:.2f}", f"{watch.cpu_seconds:.2f}"]
    cells += [int(np.count_nonzero(found.parent >= 0)), found.components]
    return cells, found.gap <= GAP and watch.seconds <= SECONDS


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=2000)
    parser.add_argument("--edges", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--limit", type=float, default=SECONDS - 2)
    given = parser.parse_args()
    n, m = given.tables, given.edges
    rows, met = [], True
    for name, shape in SHAPES.items():
        rng = np.random.default_rng(given.seed)
        ends = shape(rng, n, m)
        row, good = measure(name, *_ordered(costs(rng, n, ends), ends), given.limit)
        print(*row, "" if good else "TARGET MISSED", flush=True)
        rows.append(row)
        met = met and good
    rng = np.random.default_rng(given.seed)
    ends = random_dag(rng, n, m)
    row, _ = measure("all alike", np.ones(n), ends, np.full(m, 0.1), given.limit)
    print(*row, flush=True)
    columns = ["lake", "keep all, $", "greedy, $", "s", "found, $", "gap", "s", "CPU s", "retired", "components"]
    text = [
        f"{n:,} tables and {m:,} edges, at most {given.limit:g} s each. A gap of 0 is proof; the target is at most "
        f"{GAP:.1%} within {SECONDS:g} s: {'met' if met else 'MISSED'}.",
        markdown_table(columns, rows),
        "With equal costs everywhere, a minimum dominating set of a random graph, no target:",
        markdown_table(columns, [row]),
    ]
    facts = machine.describe(seed=given.seed, threads=1)
    facts["versions"] += f", highspy {metadata.version('highspy')}"
    command = f"python benchmarks/retirement_program.py --tables {n} --edges {m} --seed {given.seed}"
    written = machine.write_results("retirement_program", "The cheapest set of tables to keep", command, text, facts)
    print("\n" + "\n\n".join(text), f"\n\nwritten: {written}")
    return 0 if met else 1


def _ordered(priced: tuple[np.ndarray, np.ndarray], ends: Edges) -> tuple[np.ndarray, Edges, np.ndarray]:
    keep, edge = priced
    return keep, ends, edge


if __name__ == "__main__":
    sys.exit(main())
