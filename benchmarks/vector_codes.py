"""How much do codes keep of the true neighbours, for how many bytes a row, and how long does a scan of them take?

    python benchmarks/vector_codes.py FOLDER [--rows 200000] [--queries 500] [--skip peers]

FOLDER holds what ``real_vectors.py`` prepared. The queries are rows held out; their 10 nearest are found by a product
of matrices. Every code ranks all rows for a query; "alone" is the share of the true 10 among its first 10, "of 20" that
among its first 20, which is the recall after comparing those exactly. Nanoseconds a row are those of a query's whole
scan with its tables, the median over the first 50 queries, of one thread; of Faiss those of its search for 100, which
selects too. Bytes a row are those of a record, and "shared" those of what all rows share, by their number.

OSQ is taken with axes for each partition of the first level of a tree, with axes for all rows together, and, as a
contrast, with none and the same bits for each dimension. The first look keeps a share of the rows by top bits.

Writes results/vector_codes.md; leaves with 1 when OSQ of 4 bits falls short: on text256 of a recall of 0.90 alone, or
with more than a sixth of the bytes of float32.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import machine
import numpy as np
import real_vectors
from lakelet.lake.kernels import compiled
from lakelet.vector import codes, osq, osq_simd
from lakelet.vector.code_simd import estimate
from lakelet.vector.partitions import partition_count, partitioned
from lakelet.vector.simd import prefetch, small_dot
from lakelet.vector.tree import train
from machine import Stopwatch, markdown_table

Array = np.ndarray[Any, Any]
SEED, K, LEAF_ROWS = 20_240_619, 10, 128
BITS = (1, 2, 3, 4, 6, 8)
FIRST = (20, 50, 100)
KEPT = (0.1, 0.03, 0.01)
TIMED = 50
RECALL_ALONE, SHARE_OF_FLOAT32 = 0.90, 1 / 6
Scan = Callable[[Array], Array]


@dataclass
class Code:
    """A code of all rows, and how it ranks them: lower is nearer."""

    name: str
    bytes_a_row: float
    shared: float
    scan: Scan | None
    peer: Any = None
    found: dict[str, float] = field(default_factory=dict)


@dataclass
class Task:
    """What is searched: float32 (n, dim) and (queries, dim), and the K nearest of each query."""

    rows: Array
    queries: Array
    truth: Array


@compiled
def rabitq_scan(
    records: Array, planes: Array, blocks: int, shifts: Array, offset: float, factor: float, out: Array
) -> None:
    """The estimate of every record of :mod:`.codes`."""
    size = records.shape[1]
    for i in range(records.shape[0]):
        prefetch(records.ctypes.data + np.int64(i + 16) * size)
        at = records.ctypes.data + np.int64(i) * size
        out[i] = estimate(at, planes.ctypes.data, blocks, shifts.ctypes.data, np.float32(offset), np.float32(factor))


@compiled
def int8_scan(rows: Array, query: Array, scale: float, squares: Array, out: Array) -> None:
    """|row|² - 2 <row, query> of rows of int8, 32 to a multiple."""
    size = rows.shape[1]
    for i in range(rows.shape[0]):
        found = small_dot(rows.ctypes.data + np.int64(i) * size, query.ctypes.data, size // 32)
        out[i] = squares[i] - np.float32(scale) * np.float32(found)


def osq_code(name: str, made: osq.Osq, task: Task, bounds: Array) -> tuple[Code, Array]:
    """Rows coded by ``made``, and their records."""
    records, _ = osq.encoded(made, task.rows, bounds, threads=1)
    every = np.arange(len(records), dtype=np.uint32)

    def scan(query: Array) -> Array:
        found = []
        for number, part in enumerate(made.parts):
            positions = every[bounds[number] : bounds[number + 1]]
            found.append(osq.tables(part, query).scores(records, positions))
        return np.concatenate(found)

    return Code(name, made.record_bytes, made.nbytes / len(records), scan), records


def plain(task: Task, bits: int, bounds: Array) -> osq.Osq:
    """Cells along the dimensions as they are, the same bits for each."""
    dim = task.rows.shape[1]
    sample = task.rows[np.sort(np.random.default_rng(SEED).choice(len(task.rows), osq.CELL_ROWS, replace=False))]
    of = osq.part(sample, sample.mean(axis=0), np.eye(dim, dtype=np.float32), np.full(dim, bits, np.uint8))
    return osq.Osq((of,), -(-bits * dim // 8))


def rabitq(task: Task) -> Code:
    """The records that the index has today."""
    dim = task.rows.shape[1]
    layout, mean = codes.layout(dim, SEED), task.rows.mean(axis=0)
    records = np.zeros((len(task.rows) + 1, layout.record_bytes), np.uint8)
    codes.encode(task.rows, mean, layout.signs, layout.bits, True, 0, len(task.rows), records)
    planes, out = np.empty(layout.blocks * 16, np.uint64), np.empty(len(task.rows), np.float32)

    def scan(query: Array) -> Array:
        offset, factor = codes.quantise(query, mean, layout.signs, layout.bits, True, planes)
        rabitq_scan(records[:-1], planes, layout.blocks, layout.shifts, offset, factor, out)
        return out

    return Code(f"RaBitQ, {layout.bits} bit", layout.record_bytes, layout.signs.nbytes / len(task.rows), scan)


def uniform(task: Task, bits: int) -> Code:
    """Dimensions cut evenly, all at the same places. Four bits lie in bytes here: their time is that of eight."""
    rows, dim = task.rows, task.rows.shape[1]
    top = (1 << bits - 1) - 1
    reach = float(np.quantile(np.abs(rows[:20_000]), 1 - 1e-4 if bits == 8 else 0.995))
    padded = np.zeros((len(rows), -(-dim // 32) * 32), np.int8)
    padded[:, :dim] = np.rint(np.clip(rows / reach, -1, 1) * top)
    step = reach / top
    squares = np.einsum("ij,ij->i", padded.astype(np.float32), padded.astype(np.float32)) * step * step
    out = np.empty(len(rows), np.float32)

    def scan(query: Array) -> Array:
        fine = float(np.abs(query).max()) / 127
        words = np.zeros(padded.shape[1], np.int16)
        words[:dim] = np.rint(query / fine)
        int8_scan(padded, words, 2 * step * fine, squares, out)
        return out

    return Code(f"uniform, {bits} bit", dim * bits / 8 + 4, 0.0, scan)


def peers(task: Task) -> list[Code]:
    """Codes of Faiss that take as many bytes."""
    import faiss

    faiss.omp_set_num_threads(1)
    dim, sq = task.rows.shape[1], faiss.ScalarQuantizer
    made = [
        ("Faiss SQ, 4 bit", faiss.IndexScalarQuantizer(dim, sq.QT_4bit, faiss.METRIC_L2)),
        ("Faiss SQ, 8 bit", faiss.IndexScalarQuantizer(dim, sq.QT_8bit, faiss.METRIC_L2)),
        ("Faiss PQ, dim / 2 of 8 bits", faiss.IndexPQ(dim, dim // 2, 8)),
        ("Faiss PQ fast scan, dim / 2 of 4 bits", faiss.IndexPQFastScan(dim, dim // 2, 4)),
        ("Faiss PQ fast scan, dim of 4 bits", faiss.IndexPQFastScan(dim, dim, 4)),
        ("Faiss RaBitQ, 1 bit", faiss.IndexRaBitQ(dim, faiss.METRIC_L2)),
    ]
    found = []
    for name, index in made:
        if hasattr(index, "pq"):
            index.pq.cp.max_points_per_centroid = 128
            index.pq.cp.seed = SEED % 10_000
        with Stopwatch() as watch:
            index.train(task.rows)
            index.add(task.rows)
        size = index.sa_code_size() if hasattr(index, "sa_code_size") else index.pq.code_size
        print(f"  {name}: built in {watch.seconds:.0f} s", flush=True)
        found.append(Code(name, float(size), 0.0, None, index))
    return found


def measure(code: Code, task: Task) -> None:
    """Recall and time of a code, into ``code.found``."""
    most = max(FIRST)
    hits = dict.fromkeys((K, *FIRST), 0)
    took = []
    for number, query in enumerate(task.queries):
        start = time.perf_counter_ns()
        if code.scan is None:
            near = code.peer.search(query[None], most)[1][0]
            stop = time.perf_counter_ns()
        else:
            scores = code.scan(query)
            stop = time.perf_counter_ns()
            near = np.argpartition(scores, most)[:most]
            near = near[np.argsort(scores[near], kind="stable")]
        if number < TIMED:
            took.append(stop - start)
        for first in hits:
            hits[first] += int(np.isin(task.truth[number], near[:first]).sum())
    code.found = {"alone" if first == K else f"of {first}": hit / task.truth.size for first, hit in hits.items()}
    code.found["ns"] = float(np.median(took)) / len(task.rows)
    print(f"  {code.name}: {code.found}", flush=True)


def first_look(made: osq.Osq, records: Array, bounds: Array, kept_by: Code, task: Task) -> list[tuple[object, ...]]:
    """The share of true neighbours among the rows that top bits keep, and that RaBitQ keeps; and their time."""
    every = np.arange(len(records), dtype=np.uint32)

    def by_bits(weighted: bool) -> Scan:
        def scan(query: Array) -> Array:
            of = enumerate(made.parts)
            parts = [(osq.tables(part, query), every[bounds[i] : bounds[i + 1]]) for i, part in of]
            return np.concatenate(
                [
                    each.first_look(records, some) if weighted else each.differences(records, some)
                    for each, some in parts
                ]
            )

        return scan

    assert kept_by.scan is not None
    ways = {
        "top bits of the OSQ code, Hamming": (by_bits(False), 0),
        "top bits of the OSQ code, weighted": (by_bits(True), 0),
        f"records of {kept_by.name}": (kept_by.scan, kept_by.bytes_a_row),
    }
    lines: list[tuple[object, ...]] = []
    for name, (scan, more) in ways.items():
        kept, took = np.zeros(len(KEPT)), []
        for query, truth in zip(task.queries, task.truth, strict=True):
            start = time.perf_counter_ns()
            scores = scan(query)
            took.append(time.perf_counter_ns() - start)
            order = np.argsort(scores, kind="stable")
            kept += [np.isin(truth, order[: int(share * len(order))]).mean() for share in KEPT]
        ns = float(np.median(took[:TIMED])) / len(task.rows)
        lines.append((name, int(more), *(float(each) for each in kept / len(task.truth)), ns))
        print(" ", lines[-1], flush=True)
    return lines


def compared(task: Task, given: argparse.Namespace) -> tuple[list[str], Code]:
    """The sections of one set, and OSQ of four bits with axes for each partition. ``task.rows`` is put in order."""
    rows, dim = task.rows.shape
    tree, order = train(task.rows, metric="l2", leaf_rows=LEAF_ROWS, seed=SEED, threads=1)
    tops = slice(1, 1 + int(tree.child_count[0]))
    lo, hi = tree.lo[tops].astype(np.int64), tree.hi[tops].astype(np.int64)
    count = partition_count(rows, dim)
    cells, starts = partitioned(tree.centroids[tops], hi - lo, count, seed=SEED)
    order = np.concatenate([order[lo[cell] : hi[cell]] for cell in cells])
    bounds = np.append(0, np.cumsum((hi - lo)[cells]))[starts]
    place = np.empty(rows, np.int64)
    place[order] = np.arange(rows)
    task = Task(np.ascontiguousarray(task.rows[order]), task.queries, place[task.truth])
    one, found, times = np.array([0, rows]), [], []
    four: Code | None = None
    for bits in BITS:
        with Stopwatch() as watch:
            made = osq.trained(task.rows, bounds, bits=bits, seed=SEED, threads=1)
        code, records = osq_code(f"OSQ, {count} partitions, {bits} bit", made, task, bounds)
        measure(code, task)
        found.append(code)
        with Stopwatch() as encoding:
            osq.encoded(made, task.rows, bounds, threads=1)
        times.append((bits, watch.seconds, encoding.seconds * 1e6 / rows))
        if bits == 4:
            four, four_made, four_records = code, made, records
        for name, other in (
            ("one partition", osq.trained(task.rows, one, bits=bits, seed=SEED, threads=1)),
            ("no axes, the same bits each", plain(task, bits, bounds)),
        ):
            found.append(osq_code(f"OSQ, {name}, {bits} bit", other, task, one)[0])
            measure(found[-1], task)
    today = rabitq(task)
    others = [today, uniform(task, 8), uniform(task, 4), *([] if "peers" in given.skip else peers(task))]
    for code in others:
        measure(code, task)
    assert four is not None
    columns = ("code", "bytes a row", "shared", "alone", *(f"of {first}" for first in FIRST), "ns a row")
    lines = [(c.name, f"{c.bytes_a_row:.0f}", f"{c.shared:.1f}", *c.found.values()) for c in (*found, *others)]
    sizes = np.diff(bounds)
    text = f"{rows:,} rows of {dim}, {len(task.queries)} queries; partitions of {sizes.min():,} to {sizes.max():,} rows"
    looks = ("first look", "bytes more", *(f"kept {share:.0%}" for share in KEPT), "ns a row")
    looked = first_look(four_made, four_records, bounds, today, task)
    sections = [
        f"{text}, cut from {len(cells)} cells.\n\n{markdown_table(columns, lines)}",
        "The share of the true 10 among the rows kept; by the top bits of OSQ of 4 bits:\n\n"
        + markdown_table(looks, looked),
        markdown_table(("bits", "training s", "coding µs a row"), times),
    ]
    return sections, four


def sizes_of(dim: int) -> tuple[object, ...]:
    """How the bytes of a row divide at four bits, for 200,000 synthetic rows."""
    rows = real_vectors.synthetic(200_000, dim, SEED)
    count = partition_count(len(rows), dim)
    bounds = np.linspace(0, len(rows), count + 1).astype(np.int64)
    made = osq.trained(rows, bounds, bits=4, seed=SEED, threads=1)
    axes = sum(part.axes.nbytes + part.mean.nbytes for part in made.parts) / len(rows)
    top = sum(part.coded for part in made.parts) / count / 8
    rest = made.nbytes / len(rows) - axes
    total = made.record_bytes + axes + rest
    return dim, count, 4 * dim, top, made.record_bytes - top, axes, rest, total, 4 * dim / total


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=real_vectors.DEFAULT_FOLDER)
    parser.add_argument("--sets", nargs="+", default=real_vectors.SETS, choices=real_vectors.SETS)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--skip", nargs="*", default=(), choices=("peers",))
    parser.add_argument("--no-results", action="store_true", help="print alone")
    given = parser.parse_args()
    facts = machine.describe(seed=SEED, threads=1)
    facts["data"] = f"the first {given.rows + given.queries:,} rows of each set; {given.queries} of them are queries"
    facts["kernel of the scan"] = "AVX-512 VBMI" if osq_simd.wide() else "portable"
    sections, fine = [], True
    for name in given.sets:
        vectors = np.array(real_vectors.load(given.folder, name)[: given.rows + given.queries])
        rows, queries = real_vectors.split_queries(vectors, given.queries, SEED)
        truth = np.concatenate([np.argsort(-(q @ rows.T), axis=1)[:, :K] for q in np.array_split(queries, 10)])
        print(name, flush=True)
        parts, four = compared(Task(np.ascontiguousarray(rows), queries, truth), given)
        sections += [f"## {name}", *parts]
        fine &= name != "text256" or four.found["alone"] >= RECALL_ALONE
        fine &= four.bytes_a_row + four.shared <= 4 * rows.shape[1] * SHARE_OF_FLOAT32
    divided = (
        "dim",
        "partitions",
        "float32",
        "top bits",
        "other bits",
        "axes",
        "cells and plans",
        "in all",
        "times less",
    )
    lines = [sizes_of(dim) for dim in (128, 256)]
    fine &= all(float(str(line[-1])) >= 1 / SHARE_OF_FLOAT32 for line in lines)
    sections += ["## Bytes a row at 4 bits", "200,000 synthetic rows.\n\n" + markdown_table(divided, lines)]
    print("\n\n".join(sections))
    if not given.no_results:
        command = f"python benchmarks/vector_codes.py FOLDER --rows {given.rows} --queries {given.queries}"
        print("written:", machine.write_results("vector_codes", "Codes of vectors", command, sections, facts))
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
