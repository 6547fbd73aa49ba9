"""What does it cost that additions to a vector index survive the death of its process, and how fast are they read back?

    python benchmarks/vector_journal.py [FOLDER] [--dim 256] [--no-results]

Additions of 1, 100 and 10,000 rows, each with a tenant, to an index in memory and to one that is kept in a folder, in
turns; beside them the same bytes written to a file and synced, which no journal can go below. Then rows added one by
one by several threads, which share syncs; and opening a folder whose journal holds all these rows. FOLDER is where the
files go, a temporary one by default: it should be on the disk that is meant. Writes results/vector_journal.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import machine
import numpy as np
from lakelet.vector import durable
from lakelet.vector.index import VectorIndex
from machine import markdown_table

SEED = 20_240_617
ADDITIONS = ((1, 300), (100, 100), (10_000, 5))
"""Rows of an addition, and how many additions."""
BASE_ROWS = 20_000
THREADS, EACH = (1, 2, 8), 400


def each(act: Callable[[int], object], times: int) -> np.ndarray:
    """Microseconds of each call."""
    took = []
    for turn in range(times):
        start = time.perf_counter()
        act(turn)
        took.append((time.perf_counter() - start) * 1e6)
    return np.array(took)


def synced(path: Path, nbytes: int, times: int) -> np.ndarray:
    """Microseconds of writing so many bytes at the end of a file, and syncing it."""
    data = os.urandom(nbytes)
    with open(path, "wb", buffering=0) as file:

        def write(turn: int) -> None:
            file.write(data)
            os.fsync(file.fileno())

        return each(write, times)


def additions(folder: Path, vectors: np.ndarray) -> list[tuple[object, ...]]:
    lines: list[tuple[object, ...]] = []
    for rows, times in ADDITIONS:
        memory, kept = VectorIndex(vectors.shape[1]), VectorIndex.open(folder / f"add{rows}", vectors.shape[1])
        for index in (memory, kept):
            index.add(vectors[:BASE_ROWS], tenants="base")
        took: list[list[float]] = [[], [], []]
        for turn in range(times):
            first = turn * rows % (len(vectors) - rows)
            some = vectors[first : first + rows]
            for place, index in list(enumerate((memory, kept)))[:: 1 if turn % 2 else -1]:
                took[place] += each(lambda _, index=index, some=some: index.add(some, tenants="a"), 1).tolist()
                index.wait()  # for merges: they take a processor
        took[2] = synced(folder / "raw", vectors[:rows].nbytes + 12 * rows, times).tolist()
        kept.close()
        median = [float(np.median(some)) for some in took]
        lines.append((rows, *median, float(np.percentile(took[1], 99))))
    return lines


def together(folder: Path, vectors: np.ndarray) -> list[tuple[object, ...]]:
    """Rows one by one, from several threads at once."""
    lines: list[tuple[object, ...]] = []
    for threads in THREADS:
        with VectorIndex.open(folder / f"threads{threads}", vectors.shape[1]) as index:

            def work(number: int, index: VectorIndex = index) -> None:
                for turn in range(EACH):
                    index.add(vectors[number * EACH + turn], tenants="a")

            all_threads = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
            start = time.perf_counter()
            for thread in all_threads:
                thread.start()
            for thread in all_threads:
                thread.join()
            lines.append((threads, threads * EACH / (time.perf_counter() - start)))
    return lines


def replays(folder: Path, vectors: np.ndarray, rows: int) -> list[tuple[object, ...]]:
    """Opening a folder with nothing but a journal; the file is in the page cache."""
    lines: list[tuple[object, ...]] = []
    fsync = os.fsync
    for at_once in (1, 100, 10_000):
        path = folder / f"replay{at_once}"
        os.fsync = lambda descriptor: None  # type: ignore[assignment]  # to have the file sooner
        with VectorIndex.open(path, vectors.shape[1]) as index:
            for first in range(0, rows, at_once):
                index.add(vectors[first : first + at_once], tenants="a")
        os.fsync = fsync
        nbytes = sum(file.stat().st_size for file in path.glob("journal-*"))
        start = time.perf_counter()
        with VectorIndex.open(path) as index:
            seconds = time.perf_counter() - start
            assert len(index) == rows
        beside = VectorIndex(vectors.shape[1])
        start = time.perf_counter()
        beside.add(vectors[:rows], tenants="a")
        alone = time.perf_counter() - start
        lines.append((at_once, nbytes / 2**20, seconds, rows / seconds, rows / alone))
    return lines


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="where the files go")
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--rows", type=int, default=50_000, help="rows of the journals that are read")
    parser.add_argument("--no-results", action="store_true")
    given = parser.parse_args()
    vectors = np.random.default_rng(SEED).standard_normal((max(given.rows, 60_000), given.dim), dtype=np.float32)
    durable.VECTOR_JOURNAL_BYTES = 2**40  # no snapshots on the way
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        VectorIndex(given.dim).add(vectors[:10_000])  # compiles
        columns = ("rows of an addition", "in memory, median µs", "in a folder", "the bytes alone, synced")
        sections = [
            f"Additions to {BASE_ROWS:,} rows of {given.dim} dimensions:\n\n"
            + markdown_table((*columns, "in a folder, p99"), additions(folder, vectors)),
            "Rows one by one, from threads at once:\n\n"
            + markdown_table(("threads", "rows a second"), together(folder, vectors)),
            f"Opening a folder whose journal holds {given.rows:,} rows:\n\n"
            + markdown_table(
                ("rows of an addition", "MiB", "seconds", "rows a second", "added at once in memory, rows a second"),
                replays(folder, vectors, given.rows),
            ),
        ]
    for section in sections:
        print(section, "\n")
    if not given.no_results:
        command = f"python benchmarks/vector_journal.py --dim {given.dim} --rows {given.rows}"
        title = "An index in a folder beside one in memory"
        print(
            "written:", machine.write_results("vector_journal", title, command, sections, machine.describe(seed=SEED))
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
