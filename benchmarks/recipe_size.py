"""How large are recipes, and how long does reading through one take beside reading the parent's row groups?

    python benchmarks/recipe_size.py [--rows 5000000] [--seed 7]

A parent of 5 million rows and 8 mixed columns, and children of it: subsets in order, ranges, copies, shuffled and
sorted ones, repeated rows. Sizes: bits a row of the parent before compression, from the sequences in the recipe, and
bytes of the object. Reading: all columns and two of them by ``to_arrow()``, against pyarrow reading the same columns of
exactly the row groups that hold rows of the child; and an aggregate by SQL, against the same aggregate over the
parent's rows between the first and the last of the child's. Same files, same threads, warm, in turns, medians.

Writes results/recipe_size.md; leaves with 1 when a recipe that keeps the order takes over 1.2 bits a row of the parent,
another one over 4 bytes a row of the child, or reading over 1.5 times as long.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import duckdb
import lakelet
import machine
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lakelet.lake.positions import packed_bytes
from machine import Stopwatch, markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SEED = 7
ROWS = 5_000_000
ORDERED_BITS, ARBITRARY_BYTES, READ_RATIO = 1.2, 4.0, 1.5
REPEATS = 5
SLOW_SECONDS = 3.0
"""What takes longer runs once more, not five times."""
_COLUMNS = ["key", "name"]
_AGGREGATE = "count(*), sum(amount), max(name), count(DISTINCT kind)"
_RUN_BYTES = 16
"""Count and base of a sequence, which stand there whatever its form."""


@dataclass(frozen=True)
class Child:
    """``rows`` of the parent, in this order; ``ordered`` when ascending without repeats."""

    name: str
    rows: np.ndarray

    @property
    def ordered(self) -> bool:
        """Whether the rows keep their order and come once."""
        return bool((np.diff(self.rows) > 0).all())


@dataclass(frozen=True)
class Measured:
    """Figures of one child. Times are medians in seconds: ours, theirs."""

    child: Child
    parent_rows: int
    stored_bytes: int
    object_bytes: int
    own_bytes: int
    retire: float
    reads: dict[str, tuple[float, float]]

    @property
    def bits(self) -> float:
        """Bits of the recipe a row of the parent, before compression."""
        return self.stored_bytes * 8 / self.parent_rows

    @property
    def child_bytes(self) -> float:
        """Bytes a row of the child, before compression."""
        return self.stored_bytes / len(self.child.rows)


def make_parent(rows: int, rng: np.random.Generator) -> pa.Table:
    """Eight columns: a number in order, a random key, few values, text, floats, a date, a decimal, NULLs."""
    days = pa.array(rng.integers(10_000, 20_000, rows).astype(np.int32)).cast(pa.date32())
    words = pa.array([f"{word} name" for word in range(50_000)])
    return pa.table(
        {
            "id": np.arange(rows),
            "key": rng.integers(0, 1 << 40, rows),
            "kind": pa.array(["red", "green", "blue", "grey"]).take(pa.array(rng.integers(0, 4, rows))),
            "name": words.take(pa.array(rng.integers(0, 50_000, rows))),
            "amount": rng.random(rows) * 1000,
            "day": days,
            "price": pa.array(rng.integers(0, 100_000, rows)).cast(pa.decimal128(19, 0)).cast(pa.decimal128(12, 2)),
            "note": pa.array(rng.integers(0, 1000, rows), mask=rng.random(rows) < 0.3),
        }
    )


def make_children(parent: pa.Table, rng: np.random.Generator) -> Iterator[Child]:
    """The children, as rows of the parent."""
    rows = parent.num_rows
    for percent in (50, 30, 10, 1, 0.1):
        yield Child(f"random {percent} % in order", np.flatnonzero(rng.random(rows) < percent / 100))
    yield Child("range of 20 %", np.arange(rows // 3, rows // 3 + rows // 5))
    key = parent["key"].to_numpy()
    low, high = np.quantile(key, (0.4, 0.5))
    yield Child("10 % by a range of keys, sorted by key", np.argsort(key, kind="stable")[rows * 4 // 10 : rows // 2])
    yield Child("10 % by a range of keys, in order", np.flatnonzero((key >= low) & (key < high)))
    yield Child("copy", np.arange(rows))
    yield Child("shuffled 20 %", rng.permutation(rows)[: rows // 5])
    yield Child("10 % sorted by amount", np.argsort(parent["amount"].to_numpy(), kind="stable")[: rows // 10])
    yield Child("2 % of the rows, each 10 times", np.repeat(np.flatnonzero(rng.random(rows) < 0.02), 10))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--no-results", action="store_true", help="print the figures, write no file")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    machine.compile_kernels()
    with tempfile.TemporaryDirectory() as scratch, lakelet.connect(os.path.join(scratch, "lake")) as db:
        parent = make_parent(given.rows, rng)
        db.write("parent", parent)
        paths = [fragment.path for fragment in db.table("parent").fragments()]
        whole, _ = in_turns(lambda: [pq.ParquetFile(path).read() for path in paths], lambda: None)
        found = []
        for child in make_children(parent, rng):
            found.append(measure(db, parent, child))
            print(*size_row(found[-1]), *read_row(found[-1], whole), sep=" | ", flush=True)
        parent_bytes = db.table("parent").num_bytes
    missed = list(misses(found))
    sections = [
        f"Parent: {given.rows:,} rows, 8 columns, {parent_bytes:,} bytes; read whole by pyarrow in {whole:.2f} s.",
        f"Targets: at most {ORDERED_BITS} bits a row of the parent for children that keep the order, at most "
        f"{ARBITRARY_BYTES:g} bytes a row of the child for others, both before compression:",
        markdown_table(
            ("child", "rows", "own bytes", "recipe bytes", "bits / parent row", "bytes / child row", "in order"),
            [size_row(one) for one in found],
        ),
        f"Seconds of lakelet / of pyarrow or DuckDB over the parent's row groups, medians of {REPEATS}; target: "
        f"at most {READ_RATIO:g}. Retiring: in times of reading the parent once, proof included.",
        markdown_table(("child", *found[0].reads, "retiring"), [read_row(one, whole) for one in found]),
        f"**{'All targets are met.' if not missed else 'Missed: ' + '; '.join(missed) + '.'}**",
    ]
    print("\n\n".join(sections))
    if not given.no_results:
        command = f"python benchmarks/recipe_size.py --rows {given.rows} --seed {given.seed}"
        facts = machine.describe(seed=given.seed, threads=os.cpu_count())
        machine.write_results("recipe_size", "The size of recipes, and reading through them", command, sections, facts)
    return 0 if not missed else 1


def measure(db: Any, parent: pa.Table, child: Child) -> Measured:
    """Write the child, retire it, read it back, and drop it."""
    expected = parent.take(pa.array(child.rows))
    db.write("child", expected)
    own_bytes = db.table("child").num_bytes
    plan = db.containment(["child", "parent"]).plan(
        payback_months=1e12,
        accesses={"child": 0.0, "parent": 0.0},
        max_restore_seconds=1e9,
        max_read_amplification=1e9,
        keep=["parent"],
    )
    with Stopwatch() as retire:
        done = db.retire(plan)
    if [one.table for one in done.retired] != ["child"] or done.retired[0].residual_rows:
        raise SystemExit(f"{child.name}: {done}")
    fragments = db.table("child").fragments()
    stored = sum(_stored_bytes(part) for fragment in fragments for part in fragment.directions.parts)
    if not db.table("child").to_arrow().equals(expected):
        raise SystemExit(f"{child.name} does not come back as it was")
    touched = list(touched_groups(fragments))
    found = Measured(
        child,
        parent.num_rows,
        stored,
        done.retired[0].recipe_bytes,
        own_bytes,
        retire.seconds,
        {
            "all columns": in_turns(lambda: db.table("child").to_arrow(), lambda: read(touched, None)),
            "2 columns": in_turns(lambda: db.table("child").to_arrow(_COLUMNS), lambda: read(touched, _COLUMNS)),
            "SQL aggregate": by_sql(db, touched),
        },
    )
    db.drop("child")
    return found


def _stored_bytes(part: Any) -> int:
    """Bytes of a part's sequences before compression."""
    total = 0
    for sequence in (part.rows, part.residual):
        total += _RUN_BYTES + len(sequence.bits)
        total += sum(packed_bytes(numbers) for numbers in (sequence.numbers, sequence.lengths) if len(numbers))
    return total


# --- what reading is compared with -----------------------------------------------------------------------------------


def touched_groups(fragments: Sequence[Any]) -> Iterator[tuple[str, list[int]]]:
    """The parent's files, each with its row groups that hold rows of the child."""
    found: dict[str, set[int]] = {}
    for fragment in fragments:
        for source, groups in zip(fragment.sources(), fragment.touched(), strict=True):
            found.setdefault(source.path, set()).update(groups)
    yield from ((path, sorted(groups)) for path, groups in found.items() if groups)


def read(touched: Sequence[tuple[str, list[int]]], columns: list[str] | None) -> list[pa.Table]:
    """These row groups by pyarrow alone."""
    return [pq.ParquetFile(path).read_row_groups(groups, columns) for path, groups in touched]


def by_sql(db: Any, touched: Sequence[tuple[str, list[int]]]) -> tuple[float, float]:
    """The aggregate over the child, and over the parent's rows from the first row group it touches to the last."""
    scans = []
    for path, groups in touched:
        file = pq.ParquetFile(path).metadata
        starts = np.cumsum([0, *(file.row_group(group).num_rows for group in range(file.num_row_groups))])
        between = f"{starts[groups[0]]} AND {starts[groups[-1] + 1] - 1}"
        quoted = path.replace("'", "''")
        scans.append(f"SELECT * FROM read_parquet('{quoted}') WHERE file_row_number BETWEEN {between}")
    theirs = f"SELECT {_AGGREGATE} FROM ({' UNION ALL '.join(scans)})"
    with duckdb.connect() as con:
        con.execute(f"SET threads = {os.cpu_count()}; SET enable_progress_bar = false")
        return in_turns(
            lambda: db.sql(f"SELECT {_AGGREGATE} FROM child").fetchall(), lambda: con.sql(theirs).fetchall()
        )


def in_turns(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float]:
    """Medians of both, run in turns after one run each to warm up."""
    start = time.perf_counter()
    ours()
    repeats = REPEATS if time.perf_counter() - start < SLOW_SECONDS else 1
    theirs()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, found in ((ours, times[0]), (theirs, times[1])):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


# --- tables of the results -------------------------------------------------------------------------------------------


def size_row(one: Measured) -> list[object]:
    rows = len(one.child.rows)
    order = "yes" if one.child.ordered else "no"
    return [one.child.name, rows, one.own_bytes, one.object_bytes, one.bits, one.child_bytes, order]


def read_row(one: Measured, whole: float) -> list[object]:
    cells = [f"{ours:.3f} / {theirs:.3f} = {ours / theirs:.2f}" for ours, theirs in one.reads.values()]
    return [one.child.name, *cells, f"{one.retire / whole:.1f}"]


def misses(found: list[Measured]) -> Iterator[str]:
    for one in found:
        if one.child.ordered and one.bits > ORDERED_BITS:
            yield f"{one.child.name}: {one.bits:.2f} bits"
        if not one.child.ordered and one.child_bytes > ARBITRARY_BYTES:
            yield f"{one.child.name}: {one.child_bytes:.2f} bytes"
        for what, (ours, theirs) in one.reads.items():
            if ours > READ_RATIO * theirs:
                yield f"{one.child.name}, {what}: {ours / theirs:.2f}"


if __name__ == "__main__":
    sys.exit(main())
