"""What does an index keep of its recall and its speed when it ranks rows by so many bits a dimension?

    python benchmarks/quantised_search.py FOLDER [--rows 200000] [--queries 500] [--bits 4 1 2 8] [--skip parts]

FOLDER holds what ``real_vectors.py`` prepared. One index without bits and one for each number of bits hold the same
rows, and are asked the same queries, rows held out, for their 10 nearest, of all rows and of those of a condition on a
number drawn at random that leaves 10 % or 1 %. "codes alone" is ``rerank=False``. The indexes take turns, a part of the
queries each, for several rounds; a figure is the median over all rounds of single queries of one thread, and "times"
what it is of the index without bits in the same run. Bytes a row of codes are those of the first pass, of the bits, and
of what reads them.

The last table is of indexes that keep no vectors, whose rows came in parts that were merged, so that some codes are
made of what older ones tell.

Writes results/quantised_search.md; leaves with 1 when 4 bits find less than 0.90 alone, or take more than a sixth of
the bytes of float32.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import machine
import numpy as np
import real_vectors
from lakelet.vector.index import VectorIndex
from machine import Stopwatch, markdown_table

Array = np.ndarray[Any, Any]
SEED, K, ROUNDS, PART = 20_240_621, 10, 3, 50
PERCENTS, PARTS = (100, 10, 1), (1, 4, 16)
RECALL_ALONE, SHARE_OF_FLOAT32 = 0.90, 1 / 6


def condition(percent: int) -> str | None:
    return None if percent == 100 else f"number < {percent}"


def built(rows: Array, numbers: Array, **more: Any) -> tuple[VectorIndex, float]:
    """An index of one segment, and the seconds that it took."""
    index = VectorIndex(rows.shape[1], attributes={"number": "int64"}, seed=1, **more)
    with Stopwatch() as watch:
        index.add(rows, attributes={"number": numbers})
    return index, watch.seconds


def recall(found: Array, truth: Array) -> float:
    return float(np.mean([np.isin(mine, true).mean() for mine, true in zip(found, truth, strict=True)]))


def took(index: VectorIndex, queries: Array, where: str | None, more: dict[str, Any]) -> list[int]:
    """Nanoseconds of each query."""
    times = []
    for query in queries:
        start = time.perf_counter_ns()
        index.search(query, K, where=where, **more)
        times.append(time.perf_counter_ns() - start)
    return times


def compared(indexes: dict[str, VectorIndex], queries: Array, percent: int) -> dict[str, tuple[float, float]]:
    """The recall and the microseconds of each way to ask each index."""
    where = condition(percent)
    truth, _ = indexes["none"].search(queries, K, where=where, exact=True)
    ways: dict[str, tuple[VectorIndex, dict[str, Any]]] = {}
    for name, index in indexes.items():
        ways[name] = index, {}
        if name != "none":
            ways[f"{name}, codes alone"] = index, {"rerank": False}
    times: dict[str, list[int]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for first in range(0, len(queries), PART):
            for name, (index, more) in ways.items():
                times[name] += took(index, queries[first : first + PART], where, more)
    found = {name: index.search(queries, K, where=where, **more)[0] for name, (index, more) in ways.items()}
    return {name: (recall(found[name], truth), float(np.median(times[name])) / 1000) for name in ways}


def in_parts(rows: Array, queries: Array, truth: Array, bits: int) -> list[tuple[object, ...]]:
    """Recall and seconds of an index that keeps no vectors, by how many parts its rows come in."""
    lines: list[tuple[object, ...]] = []
    for parts in PARTS:
        index = VectorIndex(rows.shape[1], bits=bits, keep_vectors=False, seed=1)
        with Stopwatch() as watch:
            for part in np.array_split(rows, parts):
                index.add(part)
            index.wait()
            index.optimize()
        found, _ = index.search(queries, K, exact=True)
        lines.append((bits, parts, recall(found, truth), watch.seconds))
        print(" ", lines[-1], flush=True)
    return lines


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=real_vectors.DEFAULT_FOLDER)
    parser.add_argument("--set", default="text256", choices=real_vectors.SETS)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--bits", type=int, nargs="+", default=(4, 1, 2, 8))
    parser.add_argument("--skip", nargs="*", default=(), choices=("parts",))
    parser.add_argument("--no-results", action="store_true", help="print alone")
    given = parser.parse_args()
    vectors = np.array(real_vectors.load(given.folder, given.set)[: given.rows + given.queries])
    rows, queries = real_vectors.split_queries(vectors, given.queries, SEED)
    numbers = np.random.default_rng(SEED).integers(0, 100, len(rows))
    indexes, sizes, fine = {}, [], True
    for bits in (None, *given.bits):
        name = "none" if bits is None else f"{bits} bits"
        indexes[name], seconds = built(rows, numbers, bits=bits)
        memory = indexes[name].memory()
        parts = [memory[what] / len(rows) for what in ("vectors", "codes", "quantised")]
        depth = 0.0 if bits is None else indexes[name]._units.now[0].rows.fine.depth
        sizes.append((name, *parts, parts[0] / (parts[1] + parts[2]), depth, seconds))
        print(sizes[-1], flush=True)
    lines = []
    for percent in PERCENTS:
        found = compared(indexes, queries, percent)
        for name, (share, each) in found.items():
            lines.append((f"{percent} %", name, share, each, each / found["none"][1]))
            print(" ", lines[-1], flush=True)
        if percent == 100 and "4 bits" in indexes:
            fine = found["4 bits, codes alone"][0] >= RECALL_ALONE
    fine &= all(size[4] >= 1 / SHARE_OF_FLOAT32 for size in sizes if size[0] == "4 bits")
    truth, _ = indexes["none"].search(queries, K, exact=True)
    again = [line for bits in given.bits if not given.skip for line in in_parts(rows, queries, truth, bits)]
    columns = (
        "bits",
        "vectors",
        "first pass",
        "bits and tables",
        "times less",
        "compared for each neighbour",
        "s to build",
    )
    told = f"{len(rows):,} rows of {rows.shape[1]}, {len(queries)} queries. Bytes a row"
    sections = [
        f"{told}:\n\n{markdown_table(columns, sizes)}",
        markdown_table(("matching", "bits", "recall", "µs a query", "times"), lines),
        "Without vectors:\n\n" + markdown_table(("bits", "parts", "recall, exact", "s"), again),
    ]
    print("\n\n".join(sections))
    if not given.no_results:
        command, facts = "python benchmarks/quantised_search.py FOLDER", machine.describe(seed=SEED, threads=1)
        machine.write_results("quantised_search", "An index by so many bits a dimension", command, sections, facts)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
