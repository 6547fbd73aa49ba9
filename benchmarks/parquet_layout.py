"""Is the lake's Parquet layout worth its choices? Size, writing, reading and a query, against plain settings.

    python benchmarks/parquet_layout.py [FOLDER] [--real FOLDER] [--rounds 3]

FOLDER holds TPC-H at scale factor 0.1, the folder of --real what ``real_lake.py`` builds, of which the largest
``--real-tables`` are taken; both are made when they are not there. Every setting gets the same rows, in memory, and is
measured in turns with the others; the least of the rounds counts. Writing includes the choice of encodings and
statistics. The query counts, sums and groups over three columns by DuckDB.

Writes results/parquet_layout.md. Informational: it leaves with 0 whatever the figures are.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import duckdb
import machine
import pyarrow as pa
import pyarrow.parquet as pq
import real_lake
from lakelet.lake.layout import ParquetLayout
from lakelet.lake.local_store import LocalStore
from lakelet.lake.writer import write_files
from machine import Stopwatch, markdown_table
from scale_lake import generate_tpch

QUERY_COLUMNS = {
    "lineitem": ("l_returnflag", "l_quantity", "l_extendedprice"),
    "orders": ("o_orderpriority", "o_totalprice", "o_custkey"),
    "partsupp": ("ps_suppkey", "ps_availqty", "ps_supplycost"),
    "customer": ("c_mktsegment", "c_acctbal", "c_nationkey"),
    "part": ("p_brand", "p_size", "p_retailprice"),
}
LAYOUT = ParquetLayout()
Writer = Callable[[pa.Table, Path], None]


def plain(**settings: object) -> Writer:
    return lambda table, folder: pq.write_table(table, folder / "0.parquet", **settings)


def lakelet(layout: ParquetLayout) -> Writer:
    def write(table: pa.Table, folder: Path) -> None:
        write_files(LocalStore(folder), "t", table.to_reader(), table.schema, 0, layout)

    return write


SETTINGS: dict[str, Writer] = {
    "pyarrow defaults (snappy)": plain(),
    "pyarrow, zstd-3": plain(compression="zstd", compression_level=3),
    "pyarrow, zstd-3, 122,880-row groups": plain(compression="zstd", compression_level=3, row_group_size=122_880),
    "lakelet": lakelet(LAYOUT),
    "lakelet, 524,288-row groups": lakelet(replace(LAYOUT, row_group_rows=524_288)),
    "lakelet, 1,048,576-row groups": lakelet(replace(LAYOUT, row_group_rows=1_048_576)),
    "lakelet, dictionary always": lakelet(replace(LAYOUT, dictionary_ratio=1.0)),
    "lakelet, dictionary up to 0.2": lakelet(replace(LAYOUT, dictionary_ratio=0.2)),
}


def measure(tables: dict[str, pa.Table], rounds: int, query: bool) -> dict[str, list[float]]:
    """Bytes, seconds to write, to read all, and to query, by setting; sums over the tables."""
    best: dict[tuple[str, str, str], float] = {}
    sizes = dict.fromkeys(SETTINGS, 0.0)

    def keep(setting: str, table: str, what: str, seconds: float) -> None:
        key = setting, table, what
        best[key] = min(best.get(key, seconds), seconds)

    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        for _ in range(rounds):
            for name, table in tables.items():
                for setting, write in SETTINGS.items():
                    folder = Path(tempfile.mkdtemp(dir=scratch))
                    with Stopwatch() as watch:
                        write(table, folder)
                    keep(setting, name, "write", watch.seconds)
                    files = sorted(str(path) for path in folder.rglob("*.parquet"))
                    sizes[setting] += sum(os.path.getsize(file) for file in files) / rounds
                    with Stopwatch() as watch:
                        rows = sum(pq.ParquetFile(file).read().num_rows for file in files)
                    assert rows == table.num_rows
                    keep(setting, name, "read", watch.seconds)
                    if query:
                        key, *summed = QUERY_COLUMNS[name]
                        sums = ", ".join(f"sum({column})" for column in summed)
                        sql = f"SELECT {key}, count(*), {sums} FROM read_parquet(?) GROUP BY 1"
                        with Stopwatch() as watch:
                            connection.execute(sql, [files]).fetchall()
                        keep(setting, name, "query", watch.seconds)
                    for file in files:
                        os.remove(file)
    figures = {}
    for setting in SETTINGS:
        times = [sum(best.get((setting, name, what), 0.0) for name in tables) for what in ("write", "read", "query")]
        figures[setting] = [sizes[setting], *times]
    return figures


def section(title: str, figures: dict[str, list[float]]) -> str:
    base = next(iter(figures.values()))
    rows = [
        (setting, f"{found[0] / 1e6:.2f}", *(f"{a / b:.2f}" if b else "-" for a, b in zip(found, base, strict=True)))
        for setting, found in figures.items()
    ]
    columns = ("setting", "MB", "size ÷", "write ÷", "read all ÷", "3-column query ÷")
    return f"## {title}\n\nRatios to the first line; below 1 is better.\n\n" + markdown_table(columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=machine.CACHE / "tpch-0.1")
    parser.add_argument("--real", default=str(real_lake.DEFAULT_FOLDER))
    parser.add_argument("--real-tables", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-results", action="store_true")
    arguments = parser.parse_args()
    folder = generate_tpch(arguments.folder, 0.1)
    tpch = {name: pq.read_table(folder / f"{name}.parquet") for name in QUERY_COLUMNS}
    real = real_lake.build(arguments.real).folder
    largest = sorted(real.glob("*/*.parquet"), key=os.path.getsize)[-arguments.real_tables :]
    tables = {path.parent.name: pq.ParquetFile(path).read() for path in largest}
    sections = [
        section("TPC-H", measure(tpch, arguments.rounds, query=True)),
        section(f"The {len(tables)} largest real tables", measure(tables, arguments.rounds, query=False)),
    ]
    print("\n\n".join(sections))
    if not arguments.no_results:
        command = "python benchmarks/parquet_layout.py"
        machine.write_results("parquet_layout", "The Parquet layout", command, sections, machine.describe())


if __name__ == "__main__":
    main()
