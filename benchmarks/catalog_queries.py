"""Figure 3, queries: what ``db.sql`` costs on top of DuckDB's own ``read_parquet``, and what ``import lakelet`` costs.

    python benchmarks/catalog_queries.py [--tpch FOLDER] [--scale 1] [--rounds 31]

TPC-H Q1, Q6 and a lookup of one order, on files that are attached and on files that lakelet wrote; raw DuckDB reads the
very same files. Both run in one process, in turn, with the same threads and files in the page cache; each query's
answer is fetched, and both must agree. The lookup's key changes every round, so that no answer is remembered.

Writes results/catalog_queries.md; leaves with 1 when an answer differs or a figure is not reached.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import duckdb
import lakelet
import machine
import pyarrow as pa
import pyarrow.parquet as pq
from machine import Stopwatch, markdown_table
from scale_lake import generate_tpch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RATIO, ALLOWANCE_MS = 1.05, 2.0
"""lakelet may take this much of raw DuckDB's time, plus so many milliseconds a query."""
IMPORT_MS = 50.0

Q1 = """
SELECT l_returnflag, l_linestatus, sum(l_quantity), sum(l_extendedprice), sum(l_extendedprice * (1 - l_discount)),
       sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)), avg(l_quantity), avg(l_extendedprice), avg(l_discount),
       count(*)
FROM {table} WHERE l_shipdate <= DATE '1998-09-02'
GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus
"""
Q6 = """
SELECT sum(l_extendedprice * l_discount) FROM {table}
WHERE l_shipdate >= DATE '1994-01-01' AND l_shipdate < DATE '1995-01-01'
  AND l_discount BETWEEN 0.05 AND 0.07 AND l_quantity < 24
"""
LOOKUP = "SELECT * FROM {table} WHERE l_orderkey = $key ORDER BY l_linenumber"
QUERIES = {"Q1": Q1, "Q6": Q6, "lookup": LOOKUP}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tpch", default=str(machine.CACHE / "tpch"), help="folder of TPC-H; made when not there")
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--no-results", action="store_true", help="print the figures, write no file")
    arguments = parser.parse_args()
    source = generate_tpch(arguments.tpch, arguments.scale) / "lineitem.parquet"
    with tempfile.TemporaryDirectory() as home, lakelet.connect(f"{home}/lake") as db, duckdb.connect() as raw:
        db.attach("attached", source)
        file = pq.ParquetFile(source)
        db.write("owned", pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches()))
        rows, reached = [], True
        for name in ("attached", "owned"):
            files = db.table(name).files["path"].to_pylist()
            machine.warm(files)
            for title, query in QUERIES.items():
                row = _compare(db, raw, name, files, query, arguments.rounds)
                rows.append((title, f"{name}, {len(files)} file(s)", *row))
                reached &= row[-1] == "yes"
    import_ms = _import_ms()
    reached &= import_ms < IMPORT_MS
    bound = f"<= {RATIO} x + {ALLOWANCE_MS:g} ms"
    columns = ("query", "table", "DuckDB ms", "lakelet ms", "ratio", "DuckDB CPU ms", "lakelet CPU ms", bound)
    sections = [
        f"Medians of {arguments.rounds} rounds, in turn; {source.name} of TPC-H at scale factor {arguments.scale:g}. "
        "CPU is that of the process, all threads together: neighbours on the machine disturb it least.",
        markdown_table(columns, rows),
        f"`import lakelet` in a fresh process: {import_ms:.1f} ms (median of 15; asked for: below {IMPORT_MS:g}).",
    ]
    print("\n\n".join(sections))
    if not arguments.no_results:
        facts = machine.describe(threads=os.cpu_count())
        machine.write_results(
            "catalog_queries", "Queries through the catalog", "python benchmarks/catalog_queries.py", sections, facts
        )
    return 0 if reached else 1


def _compare(
    db: lakelet.Engine, raw: duckdb.DuckDBPyConnection, table: str, files: Sequence[str], query: str, rounds: int
) -> tuple[float, float, float, float, float, str]:
    """Medians in milliseconds of raw DuckDB and of lakelet, their ratio, those of CPU, and whether it is in bounds."""
    paths = ", ".join("'" + path.replace("'", "''") + "'" for path in files)
    raw_query, our_query = query.format(table=f"read_parquet([{paths}])"), query.format(table=table)
    raw_ms: list[tuple[float, float]] = []
    our_ms: list[tuple[float, float]] = []
    for number in range(-3, rounds):
        params = {"key": 32 * (number * 1_871 % 180_000) + 1} if "$key" in query else None
        sides: list[tuple[list[tuple[float, float]], Callable[[], Any]]] = [
            (raw_ms, lambda params=params: raw.sql(raw_query, params=params).fetchall()),
            (our_ms, lambda params=params: db.sql(our_query, params).fetchall()),
        ]
        answers = []
        for times, run in sides if number % 2 else reversed(sides):
            cpu_began = time.process_time()
            with Stopwatch() as watch:
                answers.append(run())
            if number >= 0:
                times.append((watch.seconds * 1000, (time.process_time() - cpu_began) * 1000))
        assert answers[0] == answers[1], f"{table}: the answers differ"
        assert answers[0], f"{table}: no answer"
    theirs, their_cpu = map(statistics.median, zip(*raw_ms, strict=True))
    ours, our_cpu = map(statistics.median, zip(*our_ms, strict=True))
    kept = "yes" if ours <= RATIO * theirs + ALLOWANCE_MS else "no"
    return theirs, ours, ours / theirs, their_cpu, our_cpu, kept


def _import_ms() -> float:
    """Milliseconds of ``import lakelet`` in a fresh process: the median of 15."""
    code = "import time; began = time.perf_counter(); import lakelet; print(time.perf_counter() - began)"
    runs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True) for _ in range(15)]
    return 1000 * statistics.median(float(run.stdout) for run in runs)


if __name__ == "__main__":
    sys.exit(main())
