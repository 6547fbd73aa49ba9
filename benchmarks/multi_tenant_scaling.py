"""How do latency, building and memory of a lakelet index grow with its rows and its tenants, and a batch with threads?

    python benchmarks/multi_tenant_scaling.py FOLDER [--set text256] [--rows-list 100000 200000 400000 1000000]
        [--tenants-list 100 1000 10000] [--rows 400000] [--sharing 5]

Rows grow with 1,000 tenants, tenants with ``--rows`` rows; all are clustered, each row seen by ``--sharing`` tenants in
the mean. Beyond what the set has, its rows are repeated, each moved a little. Queries are held-out rows with a
tenant in proportion to its rows; and of tenants drawn alike. A batch of all queries of the largest tenant is shared by
1 thread to as many as there are processors.

Writes results/multi_tenant_scaling.md and one picture for each of the three.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import machine
import numpy as np
import real_vectors
from lakelet.vector.index import VectorIndex
from machine import Stopwatch, markdown_table
from multi_tenant_work import Array, Work, parser_of, vectors_of

SEED = 20_240_614
K, QUERIES, ROUNDS = 10, 1000, 5
COLUMNS = (
    "rows",
    "tenants",
    "mean µs",
    "p99 µs",
    "mean µs, tenants alike",
    "recall@10",
    "build s",
    "bytes a vector beyond raw",
    "MiB",
)


def latencies(index: VectorIndex, queries: Array, tenants: list[int]) -> tuple[float, float, list[Array]]:
    """Mean and p99 in microseconds, medians over the rounds; and the ids."""
    found = [index.search(query, K, tenant)[0][0] for query, tenant in zip(queries, tenants, strict=True)]
    took = np.empty((ROUNDS, len(tenants)))
    for turn in range(ROUNDS):
        for i, tenant in enumerate(tenants):
            start = time.perf_counter_ns()
            index.search(queries[i], K, tenant)
            took[turn, i] = (time.perf_counter_ns() - start) / 1000
    return float(np.median(took.mean(axis=1))), float(np.median(np.percentile(took, 99, axis=1))), found


def one(base: Array, queries: Array, tenants: int, given: argparse.Namespace) -> tuple[tuple[Any, ...], VectorIndex]:
    """The line of the table for these rows and so many tenants, and the index."""
    work = Work(base, *real_vectors.zipf_tenants(len(base), tenants, given.sharing, SEED, True, base), tenants, 1)
    members, lists = work.members(), work.lists()
    index = VectorIndex(base.shape[1], threads=given.threads)
    with Stopwatch() as watch:
        index.add(base, tenants=lists)
        index.wait()
    del lists
    rng = np.random.default_rng(SEED)
    drawn = rng.choice(tenants, len(queries), p=work.sizes / work.sizes.sum()).tolist()
    mean, high, found = latencies(index, queries, drawn)
    truth, _ = real_vectors.ground_truth(base, queries, K, [members[tenant] for tenant in drawn])
    hits = [np.isin(true[true >= 0], got).mean() for true, got in zip(truth, found, strict=True)]
    alike = latencies(index, queries, rng.integers(0, tenants, len(queries)).tolist())[0]
    for tenant in range(tenants):  # what is made at a tenant's first search counts
        index.search(queries[0], K, tenant)
    memory = index.memory()
    figures = (mean, high, alike, float(np.mean(hits)), watch.seconds, (memory["total"] - base.nbytes) / len(base))
    line = (len(base), tenants, *figures, memory["total"] / 2**20)
    print(" ".join(f"{value:.4g}" for value in line), flush=True)
    return line, index


def batches(index: VectorIndex, queries: Array) -> list[tuple[Any, ...]]:
    """Queries a second of one call, by threads; the most of the rounds."""
    rows: list[tuple[Any, ...]] = []
    many = np.tile(queries, (5, 1))
    for threads in range(1, (os.cpu_count() or 1) + 1):
        seconds = []
        for _ in range(ROUNDS):
            with Stopwatch() as watch:
                index.search(many, K, 0, threads=threads)
            seconds.append(watch.seconds)
        rate = len(many) / min(seconds)
        rows.append((threads, rate, rate / rows[0][1] if rows else 1.0))
    return rows


def draw(name: str, over: str, lines: dict[str, list[tuple[float, float]]], log: bool = True) -> None:
    """One picture: a panel for each figure over ``over``."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(lines), figsize=(4.2 * len(lines), 3.6), squeeze=False, layout="constrained")
    for (what, points), panel in zip(lines.items(), axes[0], strict=True):
        panel.plot([x for x, _ in points], [y for _, y in points], marker="o")
        panel.set(xlabel=over, title=what, ylim=(0, None))
        if log:
            panel.set_xscale("log")
    figure.savefig(machine.RESULTS / f"{name}.png", dpi=110)
    plt.close(figure)


def panels(lines: list[tuple[Any, ...]], over: int) -> dict[str, list[tuple[float, float]]]:
    """The figures to draw of a table, against its column ``over``."""
    return {COLUMNS[column]: [(line[over], line[column]) for line in lines] for column in (2, 3, 6, 7)}


def main() -> int:
    """Measure, print, write the results."""
    parser = parser_of(__doc__)
    parser.add_argument("--rows-list", type=int, nargs="+", default=[100_000, 200_000, 400_000, 1_000_000])
    parser.add_argument("--tenants-list", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--sharing", type=float, default=5)
    given = parser.parse_args()
    vectors = vectors_of(given.folder, given.set, max(*given.rows_list, given.rows) + QUERIES, SEED)
    queries, vectors = np.array(vectors[:QUERIES]), vectors[QUERIES:]
    warm_up = VectorIndex(vectors.shape[1])
    warm_up.add(vectors[:10_000])
    warm_up.search(queries, K)
    tables: dict[str, list[tuple[Any, ...]]] = {"rows": [], "tenants": [], "threads": []}
    command = f"python benchmarks/multi_tenant_scaling.py FOLDER --set {given.set} --rows {given.rows} --rows-list "
    command += " ".join(map(str, given.rows_list)) + " --tenants-list " + " ".join(map(str, given.tenants_list))
    command += f" --sharing {given.sharing:g}"
    facts = machine.describe(seed=SEED, threads=1) | {"building": f"{given.threads} threads"}
    for rows in given.rows_list:
        tables["rows"].append(one(np.array(vectors[:rows]), queries, 1000, given)[0])
        write(tables, command, facts, given.no_results)
    base = np.array(vectors[: given.rows])
    for tenants in given.tenants_list:
        line, index = one(base, queries, tenants, given)
        tables["tenants"].append(line)
        tables["threads"] = tables["threads"] or batches(index, queries)
        write(tables, command, facts, given.no_results)
    return 0


def write(tables: dict[str, list[tuple[Any, ...]]], command: str, facts: dict[str, str], no_results: bool) -> None:
    columns = {"rows": COLUMNS, "tenants": COLUMNS, "threads": ("threads", "queries/s", "over one thread")}
    titles = {"rows": "Rows", "tenants": "Tenants", "threads": "A batch of 5,000 queries of the largest tenant"}
    done = {name: lines for name, lines in tables.items() if lines}
    sections = []
    for name, lines in done.items():
        picture = "" if no_results else f"\n\n![{name}](multi_tenant_scaling_{name}.png)"
        sections.append(f"## {titles[name]}\n\n{markdown_table(columns[name], lines)}{picture}")
    if no_results:
        print(sections[-1], flush=True)
        return
    title = "How an index of many tenants grows"
    print("written:", machine.write_results("multi_tenant_scaling", title, command, sections, facts), flush=True)
    for name, lines in done.items():
        if name == "threads":
            draw(f"multi_tenant_scaling_{name}", name, {"queries/s": [line[:2] for line in lines]}, log=False)
        else:
            draw(f"multi_tenant_scaling_{name}", name, panels(lines, 0 if name == "rows" else 1))


if __name__ == "__main__":
    sys.exit(main())
