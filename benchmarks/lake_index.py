"""What does it cost that a vector index lives in a lake: to build, to open, to search, to follow its table?

    python benchmarks/lake_index.py FOLDER [--data text256] [--rows N] [--no-results]

A table of real vectors with a text, a year and a tenant is indexed, and searched beside a VectorIndex of the same rows:
the segment's own file, loaded. Then rows are appended, replaced and deleted, and searched for. At last a process of its
own opens the lake and searches for one tenant of a hundred, and the memory that the mapping keeps is counted. FOLDER is
that of real_vectors.py. Writes results/lake_index.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lakelet
import machine
import numpy as np
import pyarrow as pa
from lakelet.vector.index import VectorIndex
from lakelet.vector.start import kernels_ready
from machine import Stopwatch, markdown_table
from multi_tenant_work import vectors_of

SEED = 20_240_623
TENANTS = 1_000
FILE_ROWS = 250_000
QUERIES = 500
ROUNDS = 3
WHERE, PARAMS = "year >= $y", {"y": 2015}


def table_of(vectors: np.ndarray, first: int, random: np.random.Generator) -> pa.Table:
    """Rows with these vectors; tenants of ranks 1, 2, … see 1, 1/2, … as many."""
    count, dim = vectors.shape
    weights = 1 / np.arange(1, TENANTS + 1)
    tenant = random.choice(TENANTS, count, p=weights / weights.sum())
    return pa.table(
        {
            "id": np.arange(first, first + count),
            "title": [f"the title of document {number}" for number in range(first, first + count)],
            "year": random.integers(1990, 2025, count).astype(np.int32),
            "tenant": pa.array(tenant),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim),
        }
    )


def built(root: Path, vectors: np.ndarray) -> list[tuple[object, ...]]:
    """Write the table, index it, and say what that took."""
    random = np.random.default_rng(SEED)
    with lakelet.connect(root) as db:
        for first in range(0, len(vectors), FILE_ROWS):
            part = table_of(vectors[first : first + FILE_ROWS], first, random)
            db.write("docs", part, mode="append" if first else "create")
        before = machine.peak_rss_bytes()
        with Stopwatch() as watch:
            db.create_index("docs", "embedding", tenant="tenant", attributes=["year"])
        told = db.indexes().to_pylist()[0]
        data = db.table("docs").num_bytes
    return [
        ("rows", len(vectors)),
        ("seconds", watch.seconds),
        ("rows a second", len(vectors) / watch.seconds),
        ("segments", told["segments"]),
        ("MiB of segments, kept columns included", told["num_bytes"] / 2**20),
        ("MiB of data files", data / 2**20),
        ("MiB of memory at the most, of which before", (machine.peak_rss_bytes() - before) / 2**20),
    ]


def each(act: Callable[[np.ndarray], object], queries: np.ndarray) -> list[float]:
    took = []
    for query in queries:
        start = time.perf_counter()
        act(query)
        took.append((time.perf_counter() - start) * 1e6)
    return took


def searches(db: Any, index: VectorIndex, queries: np.ndarray) -> list[tuple[object, ...]]:
    """Median microseconds of both, in turns."""
    all_of = lakelet.ALL_TENANTS
    lines: list[tuple[object, ...]] = []
    for name, tenant, where in (
        ("all rows", all_of, None),
        ("all rows, by year", all_of, WHERE),
        ("the largest tenant", 0, None),
        ("tenant 100", 100, None),
        ("tenant 100, by year", 100, WHERE),
    ):
        how: dict[str, Any] = {"tenant": tenant} | ({"where": where, "params": PARAMS} if where else {})
        took: list[list[float]] = [[], [], []]
        for _ in range(ROUNDS):
            took[0] += each(lambda q, how=how: index.search(q, 10, **how), queries)
            took[1] += each(lambda q, how=how: db.search("docs", q, 10, **how), queries)
            took[2] += each(lambda q, how=how: db.search("docs", q, 10, columns=["id"], **how), queries)
        alone, whole, ids = (float(np.median(some)) for some in took)
        same = all(
            db.search("docs", q, 10, **how)["_distance"].to_pylist() == index.search(q, 10, **how)[1][0].tolist()
            for q in queries[:50]
        )
        lines.append((name, alone, whole, ids, whole - alone, "yes" if same else "NO"))
    return lines


def following(root: Path, queries: np.ndarray, vectors: np.ndarray) -> list[tuple[object, ...]]:
    """The first search after a commit, and those that follow."""
    random = np.random.default_rng(SEED + 1)
    lines: list[tuple[object, ...]] = []
    with lakelet.connect(root) as db:
        db.search("docs", queries[0], tenant=lakelet.ALL_TENANTS)
        more = table_of(vectors[:1_000], 10**9, random)
        changes: list[tuple[str, Callable[[], object]]] = [
            ("1,000 rows appended", lambda: db.write("docs", more, mode="append")),
            ("1,000 rows replaced by key", lambda: db.merge("docs", more, on=["id"])),
            ("some rows deleted", lambda: db.delete("docs", "id % 1000 = 7")),
            ("update_index", lambda: db.update_index("docs")),
        ]
        for name, change in changes:
            with Stopwatch() as commit:
                change()
            took = each(lambda q: db.search("docs", q, tenant=lakelet.ALL_TENANTS), queries)
            lines.append((name, commit.seconds * 1e3, took[0] / 1e3, float(np.median(took[1:]))))
    return lines


OPENER = """
import json, sys, time
import numpy as np
import lakelet
from lakelet.vector.start import kernels_ready
kernels_ready(attributes=True)
queries = np.load(sys.argv[2])
began = time.perf_counter()
db = lakelet.connect(sys.argv[1])
db.search("docs", queries[0], tenant=999)
opened = time.perf_counter() - began
for tenant in range(100, 1_000, 100):
    for query in queries:
        db.search("docs", query, tenant=tenant)
size = resident = 0
mapped = False
for line in open("/proc/self/smaps"):
    if "-" in line.split()[0]:
        mapped = line.rstrip().endswith(".segment")
    elif mapped and line.startswith("Size:"):
        size += int(line.split()[1])
    elif mapped and line.startswith("Rss:"):
        resident += int(line.split()[1])
print(json.dumps({"seconds": opened, "mapped_kib": size, "resident_kib": resident}))
"""


def opened(root: Path, queries: np.ndarray, folder: Path) -> list[tuple[object, ...]]:
    """A process of its own: until the first answer, and the memory that the segments keep."""
    np.save(folder / "queries.npy", queries[:20])
    command = [sys.executable, "-c", OPENER, str(root), str(folder / "queries.npy")]

    def run() -> dict[str, float]:
        told: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        return told

    warm = min(run()["seconds"] for _ in range(3))
    for path in root.rglob("*.segment"):  # out of the page cache, of which the kernel maps more than was asked for
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cold = run()
    return [
        ("seconds from connect() to the first answer, kernels loaded", warm),
        ("the same, segments not in the page cache", cold["seconds"]),
        ("MiB of segments", cold["mapped_kib"] / 2**10),
        ("MiB of these resident after 180 searches for 1 % of the tenants", cold["resident_kib"] / 2**10),
        ("% resident", 100 * cold["resident_kib"] / cold["mapped_kib"]),
    ]


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the vectors: see real_vectors.py")
    parser.add_argument("--data", default="text256")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--no-results", action="store_true")
    given = parser.parse_args()
    vectors = vectors_of(given.folder, given.data, given.rows + QUERIES, SEED)
    vectors = vectors[np.random.default_rng(SEED).permutation(len(vectors))]
    vectors, queries = vectors[:-QUERIES], np.ascontiguousarray(vectors[-QUERIES:])
    kernels_ready(attributes=True)
    machine.CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=machine.CACHE) as name:
        folder = Path(name)
        root = folder / "lake"
        sections = ["Building:\n\n" + markdown_table(("", "value"), built(root, vectors))]
        sections.append("Opening:\n\n" + markdown_table(("", "value"), opened(root, queries, folder)))
        (segment, *_) = sorted(root.rglob("*.segment"), key=lambda path: -path.stat().st_size)
        with lakelet.connect(root) as db:
            index = VectorIndex.load(segment, verify=False)
            columns = ("search", "VectorIndex.search, median µs", "db.search, all columns", "ids alone", "added")
            sections.append(
                "Searching for 10 rows, one thread:\n\n"
                + markdown_table((*columns, "same distances"), searches(db, index, queries))
            )
        columns = ("commit", "ms", "first search after it, ms", "next ones, median µs")
        sections.append("Following:\n\n" + markdown_table(columns, following(root, queries, vectors)))
    for section in sections:
        print(section, "\n")
    if not given.no_results:
        command = f"python benchmarks/lake_index.py FOLDER --data {given.data} --rows {given.rows}"
        facts = machine.describe(seed=SEED)
        print("written:", machine.write_results("lake_index", "An index in a lake", command, sections, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
