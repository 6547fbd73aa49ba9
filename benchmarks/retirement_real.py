"""What does retiring save on the real lake, and does every retired table come back bit for bit?

    python benchmarks/retirement_real.py [FOLDER] [--seed 7]

FOLDER is what ``real_lake.py`` builds. Its tables are copied into a lake as owned ones, with what people make of the 40
largest: a filtered subset, a subset of the columns, a shuffled copy, one with its integers as floats, a backup. Then:
containment, plan, retire. Every retired table is read back and compared with the Parquet file that it came from: schema
with metadata, every value by its bits, dictionaries, and by SQL its number of rows and an order-insensitive hash of all
columns. A sample is restored and compared again.

Reads are those that the lake assumes of tables never seen read: one a month each. Writes results/retirement_real.md;
leaves with 1 when anything differs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import duckdb
import lakelet
import machine
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import real_lake
from lakelet.lake.bitwise import differing_rows, same_dictionary
from machine import Stopwatch, markdown_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SEED = 7
LARGEST = 40
SAMPLE = 20
TABLES_A_COMMIT = 1_000
KINDS = ("subset", "columns", "shuffled", "retyped", "backup")
_SQL_COLUMNS = 1_000
"""Wider tables are left to the comparison of bits: DuckDB takes seconds to plan a hash of thousands of columns."""


@dataclass(frozen=True)
class Held:
    """What a table takes: objects and bytes on disk, how many of the bytes are recipes and residual rows."""

    kind: str
    objects: int
    num_bytes: int
    recipe_bytes: int
    residual_bytes: int


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default=str(real_lake.DEFAULT_FOLDER))
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--no-results", action="store_true", help="print the figures, write no file")
    arguments = parser.parse_args()
    built = real_lake.build(arguments.folder)
    originals = {path.parent.name: path for path in sorted(built.folder.glob("*/part-0.parquet"))}
    machine.compile_kernels()
    with tempfile.TemporaryDirectory() as scratch, lakelet.connect(os.path.join(scratch, "lake")) as db:
        originals |= derive(originals, Path(scratch, "derived"), np.random.default_rng(arguments.seed))
        copies = sum(map(_is_derived, originals))
        whence = f"{len(originals) - copies:,} of the real lake, and {copies:,} copies of its {LARGEST} largest"
        sections, differences = measure(db, originals, np.random.default_rng(arguments.seed), whence)
    facts = machine.describe(seed=arguments.seed, threads=os.cpu_count())
    print("\n\n".join(sections))
    print("reached" if not differences else f"NOT reached: {differences[:20]}")
    if not arguments.no_results:
        command = f"python benchmarks/retirement_real.py --seed {arguments.seed}"
        machine.write_results("retirement_real", "Retirement on the real lake", command, sections, facts)
    return 0 if not differences else 1


# --- the lake --------------------------------------------------------------------------------------------------------


def derive(originals: Mapping[str, Path], folder: Path, rng: np.random.Generator) -> dict[str, Path]:
    """Write copies of the largest tables, each of another kind, as Parquet files; their paths by name."""
    largest = sorted(originals, key=lambda name: (-originals[name].stat().st_size, name))[:LARGEST]
    made = {}
    for name in largest:
        table = pq.ParquetFile(originals[name]).read()
        for kind in KINDS:
            copy = _copy(table, kind, rng)
            if copy is not None:
                path = folder / f"{name}__{kind}" / "part-0.parquet"
                path.parent.mkdir(parents=True)
                pq.write_table(copy, path, compression="zstd")
                made[path.parent.name] = path
    return made


def _copy(table: pa.Table, kind: str, rng: np.random.Generator) -> pa.Table | None:
    """What somebody made of a table; None where that is nothing else."""
    rows = table.num_rows
    if kind == "subset":  # as a condition gives it: rows in their order
        return table.filter(pa.array(rng.random(rows) < rng.uniform(0.1, 0.6)))
    if kind == "columns":
        count = max(1, int(table.num_columns * rng.uniform(0.3, 0.8)))
        return table.select(sorted(rng.permutation(table.num_columns)[:count].tolist()))
    if kind == "shuffled":
        return table.take(pa.array(rng.permutation(rows)))
    if kind == "backup":
        return table
    fields = [
        f.with_type(pa.float64()) if pa.types.is_int64(f.type) and _fits(table[f.name]) else f for f in table.schema
    ]
    schema = pa.schema(fields, table.schema.metadata)
    return None if schema.equals(table.schema) else table.cast(schema)


def _fits(column: pa.ChunkedArray) -> bool:
    found = pc.min_max(column).as_py()
    return found["min"] is not None and max(abs(found["min"]), abs(found["max"])) <= 2**53


def load(db: Any, originals: Mapping[str, Path]) -> None:
    """Write every file as an owned table, many in a commit."""
    names = list(originals)
    for start in range(0, len(names), TABLES_A_COMMIT):
        with db.transaction() as tx:
            for name in names[start : start + TABLES_A_COMMIT]:
                tx.write(name, pq.ParquetFile(originals[name]).read())


# --- what is measured ------------------------------------------------------------------------------------------------


def measure(
    db: Any, originals: Mapping[str, Path], rng: np.random.Generator, whence: str
) -> tuple[list[str], list[str]]:
    """Retire and compare. The sections of the results, and what differed. ``whence``: where the tables come from."""
    watches = {name: Stopwatch() for name in ("load", "containment", "plan", "retire", "compare", "restore")}
    with watches["load"]:
        load(db, originals)
    before = held(db, originals)
    with watches["containment"]:
        graph = db.containment()
    with watches["plan"]:
        plan = graph.plan(prices=lakelet.Prices.s3_standard())
    with watches["retire"]:
        done = db.retire(plan)
    after = held(db, originals)
    retired = [name for name in originals if after[name].kind == "retired"]
    with watches["compare"]:
        differences = compare(db, originals, retired)
        hashed, by_sql = compare_sql(db, originals, retired)
    sample = sorted(rng.permutation(retired)[:SAMPLE].tolist())
    with watches["restore"]:
        for name in sample:
            db.restore(name)
    still = [f"{name} is not restored" for name in sample if db.tables()[name].kind != "owned"]
    differences += by_sql + still + compare(db, originals, sample)
    num_columns = sum(len(db.table(name).schema) for name in retired)
    sections = [
        f"{len(originals):,} owned tables: {whence}.",
        _table_of_bytes(before, after),
        _words_of_actions(plan, done, retired),
        "Dollars a month under each price list, in the same lake with the same reads:\n\n" + _table_of_prices(plan),
        _table_of_origins(done),
        markdown_table(("step", "seconds", "processor seconds"), _times(watches)),
        f"Compared with their Parquet files: {len(retired):,} retired tables, {num_columns:,} columns, by their bits, "
        f"{hashed:,} of them by SQL as well (the others have types that DuckDB reads otherwise from the file, or more "
        f"than {_SQL_COLUMNS:,} columns; their rows are counted); and {len(sample)} that were restored. "
        f"**Differences: {len(differences)}.**",
    ]
    return sections, differences


def _is_derived(name: str) -> bool:
    return name.endswith(tuple(f"__{kind}" for kind in KINDS))


def held(db: Any, names: Mapping[str, Path]) -> dict[str, Held]:
    """What each table takes on disk at the latest version."""
    found = {}
    for name in names:
        table = db.table(name)
        files = [fragment.path for fragment in table.fragments()]
        beside = (getattr(f, name, None) for f in table.fragments() for name in ("residual", "side"))
        residuals = [one.path for one in beside if one is not None]
        sizes, extra = (sum(map(os.path.getsize, paths)) for paths in (files, residuals))
        if sizes + extra != table.num_bytes:
            raise SystemExit(f"{name} says that it takes {table.num_bytes:,} bytes; it takes {sizes + extra:,}")
        recipes = sizes if table.kind == "retired" else 0
        found[name] = Held(table.kind, len(files) + len(residuals), sizes + extra, recipes, extra)
    return found


def compare(db: Any, originals: Mapping[str, Path], names: Sequence[str]) -> list[str]:
    """Where tables are not what their Parquet files hold: schema with metadata, bits, dictionaries."""
    found = []
    for name in names:
        one, two = pq.ParquetFile(originals[name]).read(), db.table(name).to_arrow()
        if not one.schema.equals(two.schema, check_metadata=True) or one.num_rows != two.num_rows:
            found.append(f"{name}: {two.num_rows:,} rows under another schema or of {one.num_rows:,}")
            continue
        for field, a, b in zip(one.schema, one.columns, two.columns, strict=True):
            if differing_rows(a, b).size:
                found.append(f"{name}.{field.name}")
            if pa.types.is_dictionary(field.type) and not same_dictionary(a, b):
                found.append(f"{name}.{field.name}: dictionary")
    return found


def compare_sql(db: Any, originals: Mapping[str, Path], names: Sequence[str]) -> tuple[int, list[str]]:
    """The same by SQL, as sets of rows; how many tables were hashed, and what differed."""
    found, hashed = [], 0
    with duckdb.connect() as con:
        for name in names:
            path, quoted = str(originals[name]).replace("'", "''"), name.replace('"', '""')
            ours, theirs = f'SELECT * FROM "{quoted}"', f"SELECT * FROM read_parquet('{path}')"
            value = "count(*)"
            columns = db.table(name).schema.names
            if len(columns) <= _SQL_COLUMNS and _types(db, ours) == _types(con, theirs):
                value, hashed = "count(*), sum(hash(t)::HUGEINT), bit_xor(hash(t))", hashed + 1
            results = [
                run.sql(f"SELECT {value} FROM ({text}) AS t").fetchall() for run, text in ((db, ours), (con, theirs))
            ]
            if results[0] != results[1]:
                found.append(f"{name} by SQL: {results}")
    return hashed, found


def _types(run: Any, text: str) -> tuple[list[str], list[str]]:
    relation = run.sql(f"{text} LIMIT 0")
    return relation.columns, [str(kind) for kind in relation.types]


# --- tables of the results -------------------------------------------------------------------------------------------


def _table_of_bytes(before: Mapping[str, Held], after: Mapping[str, Held]) -> str:
    rows = [
        (
            what,
            len(state),
            sum(one.kind == "retired" for one in state.values()),
            sum(one.objects for one in state.values()),
            sum(one.num_bytes for one in state.values()),
            sum(one.recipe_bytes for one in state.values()),
            sum(one.residual_bytes for one in state.values()),
        )
        for what, state in (("before", before), ("after", after))
    ]
    share = 1 - rows[1][4] / rows[0][4]
    columns = ("", "tables", "retired", "objects", "bytes", "of them recipes", "of them rows and columns kept")
    return markdown_table(columns, rows) + f"\n\n{share:.1%} of the bytes are saved, recipes counted."


def _words_of_actions(plan: Any, done: Any, retired: Sequence[str]) -> str:
    kept = Counter(row["reason"] for row in plan.actions.to_pylist() if row["action"] == "keep")
    skipped = Counter(reason.partition(" ")[2].partition(" ")[0] for _, reason in done.skipped)
    small = [
        size
        for name, size in zip(plan.candidates.names, plan.candidates.num_bytes, strict=True)
        if name in dict(done.skipped)
    ]
    lines = [
        f"Planned: {len(plan.pairs):,} of {len(plan.candidates.names):,} tables, gap {plan.gap:g}, "
        f"${plan.cost_per_month_before:.6f} a month before, ${plan.saves_per_month:.6f} saved. "
        f"Retired: {len(retired):,}. Left alone by `retire`: {len(done.skipped):,}"
        + (f", of {max(small):,} bytes at most, since their recipes would take as much" if small else "")
        + (f" (by first words: {dict(skipped)})." if set(skipped) - {"recipe"} else "."),
        f"Residual rows: {sum(one.residual_rows for one in done.retired):,}.",
        markdown_table(("kept because", "tables"), kept.most_common()),
    ]
    return "\n\n".join(lines)


def _table_of_prices(plan: Any) -> str:
    rows = []
    for name in lakelet.Prices.names():
        other = plan.what_if(prices=lakelet.Prices.named(name))
        before, saved = other.cost_per_month_before, other.saves_per_month
        rows.append(
            (
                name,
                f"{before:.6f}",
                f"{before - saved:.6f}",
                f"{saved / before:.1%}",
                len(other.pairs),
                other.retired_bytes,
            )
        )
    return markdown_table(("prices", "before, $", "after, $", "saved", "tables to retire", "their bytes"), rows)


def _table_of_origins(done: Any) -> str:
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for one in done.retired:
        kind = one.table.rpartition("__")[2] if _is_derived(one.table) else "as built"
        for at, value in enumerate((1, one.num_bytes, one.recipe_bytes, one.residual_rows)):
            sums[kind][at] += value
    rows = [(kind, *sums[kind], sums[kind][2] / sums[kind][1]) for kind in ("as built", *KINDS) if kind in sums]
    return markdown_table(("retired", "tables", "bytes before", "bytes after", "residual rows", "after / before"), rows)


def _times(watches: Mapping[str, Stopwatch]) -> list[tuple[str, float, float]]:
    return [(name, watch.seconds, watch.cpu_seconds) for name, watch in watches.items()]


if __name__ == "__main__":
    sys.exit(main())
