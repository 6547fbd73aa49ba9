"""What does each way of searching a list cost, by the list's length, and is the planner's the quickest?

    python benchmarks/vector_ways.py FOLDER [--set text256] [--rows 400000]

FOLDER holds what ``real_vectors.py`` prepared. Lists of each length are drawn at random from the rows of one segment,
so that they lie scattered, and a query, a row held out, goes to a list of its own, so that no list is in a near cache.
Ways take turns, some queries each, for several rounds; a query's latency is its median over these. One thread, k = 10.
Copies are made of every list up to some length here, for the sake of the comparison; the index makes them as far as it
has room. The flat scan is NumPy's, over a copy of each list's vectors.

Writes results/vector_ways.md; leaves with 1 when the planner's way takes more than 1.5 times the quickest.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import machine
import numpy as np
import real_vectors
from lakelet.vector.building import Settings, built
from lakelet.vector.codes import layout
from lakelet.vector.copies import copied
from lakelet.vector.metrics import Metric
from lakelet.vector.planner import SHORT_LIST_ROWS, Plan, Way, ways
from lakelet.vector.postings import Posting
from lakelet.vector.segment import NOT_PACKED, Segment
from lakelet.vector.subtree import NO_SUBTREE, subtree
from machine import markdown_table
from multi_tenant_work import Array, parser_of, vectors_of

SEED, K = 20_240_617, 10
LENGTHS = (20, 40, 80, 160, 320, 640, 1_280, 2_560, 10_240, 40_960)
QUERIES, CHUNK, ROUNDS = 200, 50, 5
COPIED_MOST, FLAT_MOST = 2_560, 10_240
"""Longer lists are not copied, by the ways and by the flat scan."""
ALLOWED = 1.5
COLUMNS = ("exact", "codes", "copies", "tree", "flat")
Search = Callable[[int], Array]


def searches(segment: Segment, lists: list[Array], queries: Array, plans: list[Plan]) -> dict[str, Search]:
    """For each plan, and for the flat scan, the search of query i in list i."""
    rows = segment.rows

    def of(plan: Plan) -> Search:
        walked, copies = plan.way is Way.TREE, plan.way is Way.COPIES
        splits = [subtree(each, rows.nodes, SHORT_LIST_ROWS) if walked else NO_SUBTREE for each in lists]
        packed = [copied(rows.table, each) if copies else NOT_PACKED for each in lists]
        postings = [Posting(each) for each in lists]

        def search(i: int) -> Array:
            ids, apart = np.full((1, K), -1, np.int64), np.full((1, K), np.inf, np.float32)
            rows.search(queries[i : i + 1], postings[i], plan, splits[i], packed[i], ids, apart)
            return ids[0]

        return search

    found = {plan.way.value: of(plan) for plan in plans}
    if len(lists[0]) <= FLAT_MOST:
        vectors = [rows.vectors[each] for each in lists]
        half = [np.einsum("ij,ij->i", each, each) / 2 for each in vectors]

        def flat(i: int) -> Array:
            scores = half[i] - vectors[i] @ queries[i]
            best = np.argpartition(scores, K)[:K]
            return rows.ids[lists[i][best[np.argsort(scores[best])]]]

        found["flat"] = flat
    return found


def measured(of: dict[str, Search]) -> dict[str, tuple[float, float]]:
    """Microseconds a query and recall of each search."""
    took = {name: np.empty((ROUNDS, QUERIES)) for name in of}
    for turn in range(ROUNDS):
        for first in range(0, QUERIES, CHUNK):
            for name, search in of.items():
                for i in range(first, first + CHUNK):
                    start = time.perf_counter_ns()
                    search(i)
                    took[name][turn, i] = time.perf_counter_ns() - start
    true = [of["exact"](i) for i in range(QUERIES)]
    found = {}
    for name, search in of.items():
        recall = float(np.mean([np.isin(true[i], search(i)).mean() for i in range(QUERIES)]))
        found[name] = float(np.median(took[name], axis=0).mean()) / 1000, recall
    return found


def main() -> int:
    """Measure, print, write the results."""
    given = parser_of(__doc__).parse_args()
    vectors = vectors_of(given.folder, given.set, given.rows + QUERIES, SEED)
    base, queries = real_vectors.split_queries(vectors, QUERIES, SEED)
    dim, rng = base.shape[1], np.random.default_rng(SEED)
    nobody = np.empty(0, np.int32), np.empty(0, np.int64)
    settings = Settings(dim, Metric.L2, layout(dim, SEED), SEED, given.threads)
    segment, _ = built(np.ascontiguousarray(base), np.arange(len(base)), nobody, settings)
    lines, worst = [], 0.0
    for length in LENGTHS:
        lists = [np.sort(rng.choice(len(base), length, replace=False)).astype(np.uint32) for _ in range(QUERIES)]
        given_to_all = length, K, None, segment.budget, segment.fan, False, dim, settings.layout.blocks
        plans = ways(*given_to_all, length <= COPIED_MOST)
        found = measured(searches(segment, lists, queries, plans))
        for there in [plans] if length > COPIED_MOST else [ways(*given_to_all, False), plans]:
            taken = min(there, key=lambda plan: plan.cost_microseconds)
            names = [plan.way.value for plan in there]
            worst = max(worst, found[taken.way.value][0] / min(found[name][0] for name in names))
            lines.append((length, "yes" if "copies" in names else "no", taken.way.value, taken.candidates))
            for name in COLUMNS:
                lines[-1] += found.get(name, ("", "")) if name in (*names, "flat") else ("", "")
        print(length, found, flush=True)
    columns = ["rows of the list", "copied", "the planner takes", "candidates"]
    for name in COLUMNS:
        columns += [f"{name} µs", "recall"]
    text = f"The planner's way takes {worst:.2f} times the quickest at most ({ALLOWED} allowed).\n\n"
    sections = [text + markdown_table(tuple(columns), lines)]
    print("\n\n".join(sections))
    if not given.no_results:
        command = f"python benchmarks/vector_ways.py FOLDER --set {given.set} --rows {given.rows}"
        facts = machine.describe(seed=SEED, threads=1)
        facts["data"] = f"{given.set}, {len(base):,} rows of {dim}; {QUERIES} queries, {ROUNDS} rounds"
        print("written:", machine.write_results("vector_ways", "Ways to search a list", command, sections, facts))
    return 0 if worst <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
