"""What does hashing rows and comparing row sets cost, beside DuckDB hashing and semi-joining the same Parquet?

    python benchmarks/hash_kernels.py [FOLDER] [--rounds 3]

FOLDER holds TPC-H at scale factor 1 and is made when it is not there; lineitem is what is hashed, over all 16 columns.
Both sides use two threads. CPU seconds of all threads count, the least of the rounds; wall seconds stand beside them.
Writes results/hash_kernels.md; leaves with 1 when reading and hashing costs more than DuckDB's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import duckdb
import machine
import pyarrow as pa
import pyarrow.parquet as pq
from lakelet.containment.hashing import ValueHasher
from lakelet.containment.rowsets import RowSets
from machine import Stopwatch, markdown_table
from scale_lake import generate_tpch

THREADS = 2
SEED = b"a secret of thirty-two bytes...."
LOW_NDV = ["l_returnflag", "l_linestatus", "l_shipinstruct", "l_shipmode"]
KERNEL_ROWS = 200_000


def measure(rounds: int, work: Callable[[], object]) -> tuple[float, float]:
    """CPU and wall seconds of ``work``: the least of the rounds, each."""
    watches = []
    for _ in range(rounds):
        with Stopwatch() as watch:
            work()
        watches.append(watch)
    return min(w.cpu_seconds for w in watches), min(w.seconds for w in watches)


def each_row_group(path: str, dictionaries: list[str], use: Callable[[pa.Table], object]) -> None:
    """Read the file on two threads, row group by row group, and hand each on."""
    groups = pq.read_metadata(path).num_row_groups

    def some(first: int) -> None:
        file = pq.ParquetFile(path, read_dictionary=dictionaries)
        for group in range(first, groups, THREADS):
            use(file.read_row_group(group, use_threads=False))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(some, range(THREADS)))


def whole_file(path: str, rounds: int) -> tuple[str, float]:
    """The table of whole-file figures, and CPU of reading and hashing over DuckDB's."""
    con = duckdb.connect(config={"threads": THREADS})
    names = pq.read_schema(path).names
    hashes = ", ".join(f"bit_xor(hash({name}))" for name in names)
    hasher = ValueHasher(SEED, compiled=True)
    rows = {
        "DuckDB: read, hash every column": lambda: con.execute(f"SELECT {hashes} FROM '{path}'").fetchall(),
        "pyarrow: read": lambda: each_row_group(path, [], lambda _: None),
        "lakelet: read, hash every row": lambda: each_row_group(path, [], lambda t: hasher.table_rows(t, [names])),
        "pyarrow: read, four columns as dictionaries": lambda: each_row_group(path, LOW_NDV, lambda _: None),
        "lakelet: read so, hash every row": lambda: each_row_group(
            path, LOW_NDV, lambda t: hasher.table_rows(t, [names])
        ),
    }
    for work in rows.values():
        work()
    found = {name: measure(rounds, work) for name, work in rows.items()}
    base = found["DuckDB: read, hash every column"]
    table = [(name, cpu, cpu / base[0], wall, wall / base[1]) for name, (cpu, wall) in found.items()]
    text = markdown_table(["lineitem, 16 columns", "CPU s", "ratio", "wall s", "ratio"], table)
    return text, found["lakelet: read so, hash every row"][0] / base[0]


def kernels(path: str, rounds: int) -> str:
    """Nanoseconds a value, by column, on one thread."""
    table = pq.read_table(path, read_dictionary=["l_returnflag"]).slice(0, KERNEL_ROWS).combine_chunks()
    rows = []
    for name in table.column_names:
        values = table[name]
        cpu = []
        for compiled in (True, False):
            hasher = ValueHasher(SEED, compiled=compiled)
            hasher.column(values)
            cpu.append(measure(3 * rounds, lambda h=hasher, v=values: h.column(v))[1] * 1e9 / len(values))
        rows.append((name, str(values.type).replace("<", "\\<"), *cpu))
    return markdown_table(["column", "type", "Numba, ns a value", "NumPy"], rows)


def comparison(path: str, rounds: int) -> str:
    """Half of lineitem against all of it: distinct rows and the semi-join."""
    con = duckdb.connect(config={"threads": THREADS})
    names = pq.read_schema(path).names
    hasher = ValueHasher(SEED, compiled=True)
    lanes = [hasher.table_rows(batch, [names])[0] for batch in _halves(path)]
    condition = " AND ".join(f"a.{name} IS NOT DISTINCT FROM b.{name}" for name in names)
    join = f"SELECT count(*) FROM '{path}' a SEMI JOIN '{path}' b ON {condition} WHERE a.l_orderkey % 2 = 0"
    found = [("DuckDB: semi-join of half of the rows, 16 columns", *measure(1, lambda: con.execute(join).fetchall()))]
    for memory_bytes in (1 << 30, 1 << 26):
        watches: list[tuple[float, float]] = []
        for _ in range(rounds):
            with RowSets(memory_bytes) as sets, Stopwatch() as watch:
                for half in lanes:
                    sets.add(0, half)
                sets.add(1, lanes[0])
                sets.seal()
                assert sets.compare([(1, 0)])[0].complete
            watches.append((watch.cpu_seconds, watch.seconds))
        best = min(watches)
        found.append((f"lakelet: sort both sets, compare, within {memory_bytes >> 20} MiB", *best))
    base = found[0]
    return markdown_table(
        ["half of lineitem in all of it", "CPU s", "ratio", "wall s", "ratio"],
        [(name, cpu, cpu / base[1], wall, wall / base[2]) for name, cpu, wall in found],
    )


def _halves(path: str) -> list[pa.Table]:
    table = pq.read_table(path)
    return [table.slice(0, table.num_rows // 2), table.slice(table.num_rows // 2)]


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=machine.CACHE / "tpch")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    pa.set_cpu_count(THREADS)
    path = str(generate_tpch(given.folder, 1) / "lineitem.parquet")
    machine.warm([path])
    first, ratio = whole_file(path, given.rounds)
    sections = [first, comparison(path, given.rounds), kernels(path, given.rounds)]
    sections[1] += (
        "\n\nHashing is not in the second table: both sets were hashed before, DuckDB reads and hashes as it joins."
    )
    facts = machine.describe(threads=THREADS)
    command = f"python benchmarks/hash_kernels.py --rounds {given.rounds}"
    written = machine.write_results("hash_kernels", "Hashing rows and comparing row sets", command, sections, facts)
    print("\n\n".join(sections), f"\n\nwritten: {written}")
    return 0 if ratio <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
