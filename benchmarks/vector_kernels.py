"""What do the vector kernels cost a row, and how long do they take to compile and to load?

    python benchmarks/vector_kernels.py [--dims 100 256 384 768] [--skip rows products conditions compile]

Nanoseconds a row of one thread, the least of some tries: estimates by codes, true distances, scores of centroids; over
every row ("dense") and over an ascending tenth of them ("sparse"), where all rows stand in the second-level cache, and
where they are several times the largest cache. The planner's costs are these figures. And whom rows are nearest to, as
training asks it: by the kernel for that, and by a product of BLAS and what NumPy finds in it, one thread each. And what
a comparison with an attribute costs over a million rows.

Compilation is measured in processes of their own, with an empty and with a full NUMBA_CACHE_DIR. Writes
results/vector_kernels.md.
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
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import machine
import numpy as np
import pyarrow as pa
from lakelet.lake.kernels import compiled
from lakelet.vector import codes, nodes, simd
from lakelet.vector.bitmaps import of_mask
from lakelet.vector.code_simd import estimate_four
from lakelet.vector.columns import frozen_column
from lakelet.vector.products import nearest
from lakelet.vector.simd import prefetch, small_dot, squared
from machine import markdown_table

Array = np.ndarray[Any, Any]
SEED = 20_240_615
INSIDE, OUTSIDE = 256 << 10, 160 << 20
"""Bytes of the rows that are to stay in the cache, and of those that are not."""
SPARSE = 10
TRIES, TRY_SECONDS = 7, 0.05
POINTS, CENTROIDS = 20_000, 1_440
ROWS = 1_000_000
"""Among which conditions are asked for."""
AHEAD = 12


@compiled
def scan(
    records: int, size: int, positions: Array, planes: int, blocks: int, shifts: int, c1: float, c2: float, out: Array
) -> int:
    """Estimate rows, four at a time, as a search does; none is good enough to be kept."""
    offset, factor, limit, kept = np.float32(c1), np.float32(c2), np.float32(-np.inf), 0
    for i in range(0, positions.shape[0] - AHEAD - 4, 4):
        for j in range(4):
            prefetch(records + np.int64(positions[i + AHEAD + j]) * size)
        kept += estimate_four(
            records + np.int64(positions[i]) * size,
            records + np.int64(positions[i + 1]) * size,
            records + np.int64(positions[i + 2]) * size,
            records + np.int64(positions[i + 3]) * size,
            planes,
            blocks,
            shifts,
            offset,
            factor,
            limit,
            out.ctypes.data,
        )
    return kept


@compiled
def distances(vectors: int, dim: int, positions: Array, query: int) -> float:
    """The least of the true distances of rows."""
    least = np.float32(np.inf)
    last = positions.shape[0] - 1
    for i in range(positions.shape[0]):
        ahead = vectors + np.int64(positions[min(i + 2, last)]) * dim * 4
        for line in range(0, dim * 4, 64):
            prefetch(ahead + line)
        least = min(least, squared(query, vectors + np.int64(positions[i]) * dim * 4, dim))
    return least


@compiled
def centroids(rounded: int, size: int, positions: Array, words: int, scale: Array, bias: Array) -> float:
    """The least of the scores of nodes."""
    least = np.float32(np.inf)
    for place in positions:
        product = np.float32(small_dot(rounded + np.int64(place) * size, words, size >> 5))
        least = min(least, bias[place] - scale[place] * product)
    return least


def nanoseconds(work: Callable[[Array], object], positions: Array) -> float:
    """Of a row: the least of the tries, less what a call costs by itself."""
    nothing = positions[:0]
    work(positions)
    work(nothing)
    seconds = []
    for some in (positions, nothing):
        start = time.perf_counter()
        work(some)
        times = max(1, int(TRY_SECONDS / (time.perf_counter() - start + 1e-7)))
        tries = []
        for _ in range(TRIES):
            start = time.perf_counter()
            for _ in range(times):
                work(some)
            tries.append((time.perf_counter() - start) / times)
        seconds.append(min(tries))
    return (seconds[0] - seconds[1]) * 1e9 / len(positions)


def places(rows: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Every row, and an ascending tenth."""
    sparse = rng.choice(rows, rows // SPARSE, replace=False)
    return np.arange(rows, dtype=np.uint32), np.sort(sparse).astype(np.uint32)


def of_dimension(dim: int) -> tuple[list[tuple[Any, ...]], tuple[Any, ...]]:
    """The lines of one dimension: the kernels a row, and what a row or a query costs once."""
    rng = np.random.default_rng(SEED)
    layout = codes.layout(dim, SEED)
    few = rng.standard_normal((4096, dim), np.float32)
    mean, query = few.mean(axis=0), rng.standard_normal(dim, np.float32)
    records = np.empty((len(few), layout.record_bytes), np.uint8)
    planes, out = np.empty(layout.blocks * codes.PLANE_WORDS, np.uint64), np.empty(4, np.float32)

    def encode(some: Array) -> None:
        codes.encode(few, mean, layout.signs, layout.bits, True, 0, len(some), records)

    def quantise(some: Array) -> None:
        for _ in some:
            codes.quantise(query, mean, layout.signs, layout.bits, True, planes)

    encoding = nanoseconds(encode, np.arange(len(few)))
    once = (dim, encoding, nanoseconds(quantise, np.arange(100)))
    c1, c2 = codes.quantise(query, mean, layout.signs, layout.bits, True, planes)
    words = np.empty(-(-dim // nodes.LANES) * nodes.LANES, np.int16)
    nodes.rounded_query(query, words)
    fixed = (planes.ctypes.data, layout.blocks, layout.shifts.ctypes.data, c1, c2, out)

    def figures(room: int) -> list[list[float]]:
        """Nanoseconds of each kernel, over all rows and over some."""
        many = np.resize(records, (room // layout.record_bytes, layout.record_bytes))
        vectors = np.resize(few, (room // (4 * dim), dim))
        rounded = rng.integers(-127, 128, (room // len(words), len(words)), np.int8)
        scale, bias = rng.random((2, len(rounded)), np.float32)
        kernels: list[tuple[int, Callable[[Array], object]]] = [
            (len(many), lambda at: scan(many.ctypes.data, layout.record_bytes, at, *fixed)),
            (len(vectors), lambda at: distances(vectors.ctypes.data, dim, at, query.ctypes.data)),
            (len(rounded), lambda at: centroids(rounded.ctypes.data, len(words), at, words.ctypes.data, scale, bias)),
        ]
        return [[nanoseconds(kernel, at) for at in places(count, rng)] for count, kernel in kernels]

    lines = []
    for where, room in (("inside", INSIDE), ("outside", OUTSIDE)):
        measured = figures(room)
        for shape, how in enumerate(("dense", "sparse")):
            lines.append((dim, layout.record_bytes, where, how, *(kernel[shape] for kernel in measured)))
            print(*(f"{value:.2f}" if isinstance(value, float) else value for value in lines[-1]), flush=True)
    return lines, once


def assignment(dim: int) -> tuple[Any, ...]:
    """Seconds for POINTS rows and CENTROIDS centroids, ours and NumPy's, the least of the tries; both find the same."""
    rng = np.random.default_rng(SEED)
    points, around = (rng.standard_normal((count, dim), np.float32) for count in (POINTS, CENTROIDS))

    def by_numpy() -> Array:
        found = [np.argmin(norms - 2 * (part @ around.T), axis=1) for part in np.array_split(points, 40)]
        return np.concatenate(found)

    norms = np.einsum("ij,ij->i", around, around)
    same = (nearest(points, around, 1, threads=1)[0][:, 0] == by_numpy()).mean()
    ways = (lambda: nearest(points, around, 1, threads=1), by_numpy, lambda: points @ around.T)
    least = []
    for way in ways:
        tries = []
        for _ in range(TRIES):
            start = time.perf_counter()
            way()
            tries.append(time.perf_counter() - start)
        least.append(min(tries))
    work = 2e-9 * POINTS * CENTROIDS * dim
    return (dim, *least, *(work / seconds for seconds in least), float(same))


_STEPS = """
import json, sys, time
seconds, at = {}, time.perf_counter()
def step(name):
    global at
    seconds[name], at = time.perf_counter() - at, time.perf_counter()
import numpy as np
step("import numpy")
import numba
step("import numba")
from lakelet.vector.index import VectorIndex
step("import lakelet.vector.index")
path, saved = sys.argv[1], sys.argv[2] == "saved"
rng = np.random.default_rng(7)
vectors = rng.standard_normal((20_000, 256), np.float32)
tenants = [[0] if row % 400 else [0, 1] for row in range(len(vectors))]
step("")
if saved:
    index = VectorIndex.load(path)
    step("load a file of the 20,000 rows")
else:
    index = VectorIndex(256)
    index.add(vectors, tenants=tenants)
    step("add 20,000 rows in one call")
    VectorIndex(256).add(vectors, tenants=tenants)
    step("the same into another index")
index.search(vectors[0], 10, 1)
step("first search, a tenant of 50 rows")
index.search(vectors[0], 10, 0)
step("first search, a tenant of 20,000 rows")
index.search(vectors[1], 10, 0)
step("another search")
index.add(vectors[0], tenants=1)
step("first add of one row")
index.search(vectors[1], 10, 1)
step("first search with a delta")
if not saved:
    index.save(path)
print(json.dumps(seconds))
"""


def conditions() -> list[tuple[Any, ...]]:
    """Lines of what a comparison with an attribute costs over all rows, and whether its rows are those of NumPy."""
    rng = np.random.default_rng(SEED)
    lines = []
    for values in (10, 1_000, ROWS):
        column = rng.integers(0, values, ROWS)
        made = frozen_column(pa.array(column), pa.int64())
        for share in (0.5, 0.1, 0.001):
            low, high = values // 4, values // 4 + max(1, round(share * values))
            mask = (column >= low) & (column < high)
            right = (made.within(((low, high),), None) == of_mask(mask)).all()
            seconds = []
            for _ in range(30):
                start = time.perf_counter()
                made.within(((low, high),), None)
                seconds.append(time.perf_counter() - start)
            nbytes = made.index_bytes / ROWS
            lines.append((f"{len(np.unique(column)):,}", f"{mask.mean():.2%}", min(seconds) * 1e6, nbytes, right))
    return lines


def compilation() -> str:
    """Seconds of the first steps of a process."""
    found = {}
    with tempfile.TemporaryDirectory() as home:
        for name, how in (("empty cache", "built"), ("full cache", "built"), ("full cache, from a file", "saved")):
            environment = {**os.environ, "NUMBA_CACHE_DIR": f"{home}/numba"}
            command = [sys.executable, "-c", _STEPS, f"{home}/index.lakelet", how]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found[name] = json.loads(done.stdout)
            found[name].pop("")
            own = sum(value for step, value in found[name].items() if step not in {"import numpy", "import numba"})
            again = found[name].get("the same into another index", 0.0)
            found[name]["all beyond importing numpy and numba, and beyond adding twice"] = own - 2 * again
    steps = dict.fromkeys(step for each in found.values() for step in each)
    order = sorted(steps, key=lambda step: step.startswith("all"))
    rows = [(step, *(each.get(step, "") for each in found.values())) for step in order]
    return markdown_table(("seconds", *found), rows)


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[100, 256, 384, 768])
    parser.add_argument("--skip", nargs="+", default=[], choices=("rows", "products", "conditions", "compile"))
    parser.add_argument("--no-results", action="store_true", help="print alone")
    given = parser.parse_args()
    sections = []
    if "rows" not in given.skip:
        lines, once = [], []
        for dim in given.dims:
            more, fixed = of_dimension(dim)
            lines += more
            once.append(fixed)
        columns = ("dim", "bytes of a code", "cache", "rows", "estimate by code ns", "true distance ns", "centroid ns")
        text = f"Nanoseconds a row; inside: {INSIDE >> 10} KiB of them, outside: {OUTSIDE >> 20} MiB.\n\n"
        sections.append(text + markdown_table(columns, lines))
        sections.append(markdown_table(("dim", "code of a row ns", "planes of a query ns, with the call"), once))
    if "products" not in given.skip:
        columns = ("dim", "ours s", "BLAS and NumPy s", "the product alone, BLAS s")
        columns += ("ours GFlop/s", "BLAS and NumPy", "the product alone", "of the same mind")
        text = f"Whom {POINTS:,} rows are nearest to among {CENTROIDS:,}:\n\n"
        sections.append(text + markdown_table(columns, [assignment(dim) for dim in given.dims]))
    if "conditions" not in given.skip:
        columns = ("distinct values", "rows in the range", "µs", "bytes of the index a row", "right")
        text = f"A range of an attribute's values among {ROWS:,} rows, as a bitmap:\n\n"
        sections.append(text + markdown_table(columns, conditions()))
    if "compile" not in given.skip:
        sections.append(compilation())
    print("\n\n".join(sections))
    if not given.no_results:
        command = f"python benchmarks/vector_kernels.py --dims {' '.join(map(str, given.dims))}"
        facts = machine.describe(seed=SEED, threads=1)
        facts["vector width"] = f"{simd.LANES} lanes of float32"
        print("written:", machine.write_results("vector_kernels", "Vector kernels", command, sections, facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
