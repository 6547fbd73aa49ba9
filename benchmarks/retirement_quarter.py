"""Does retiring pay over a quarter of appends, refreshes, deletes, merges and reads?

    python benchmarks/retirement_quarter.py [--rows 60000] [--scale 100] [--seed 7]

Two lakes of 40 tables get the same edits for 13 weeks: eight parents of 8 columns, and four children of each, subsets
in order, of columns, by a range, shuffled, backups. Every week there are appends, overwrites of children by a new
subset, now and then of a parent, deletes, merges, optimize; reads are skewed, a few tables get most. One lake keeps all
it has. The other one looks for containment after weeks 4, 8 and 12, plans with the reads and the edits counted so far,
and retires.

A week's money is, for both: storing every file of the latest snapshot; each read, as requests and bytes of the files
or, where a table is rebuilt, of the row groups that its recipe touches; objects and bytes written, with recipes and
tables that are rewritten or restored because a parent changed, and the reads that takes; and for the lake that retires
what finding, planning, proving and writing takes, in processor time as measured. What an edit itself reads is the same
in both and left out, as is upkeep, which favours the lake that keeps.

With ``--scale`` every byte stands for so many, in storage, requests for data, throughput and processor time, for the
books and for the plans alike: a lake of some 10 GB need not lie on the disk. What is fixed (opening a file, a request
for it, a recipe's header) stays as it is, so recipes' headers come out too large by that factor.

Every week all tables of both lakes are compared. Writes results/retirement_quarter.md; leaves with 1 when tables
differ, or the lake that retires has cost more at the end of a month after its first retirement, or in the end.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lakelet
import machine
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lakelet.containment import costs
from lakelet.containment.throughput import Throughput, measured
from lakelet.containment.usage import Observed
from machine import Stopwatch, markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SEED = 7
WEEKS = 13
MONTHS = (4, 8, 13)
"""Weeks at whose end a month ends."""
PLANS = (4, 8, 12)
"""Weeks after which the lake retires."""
PARENTS, CHILDREN = 8, 4
READS_A_WEEK = 300
TRIES = 7
"""Throughput is measured so often, and the best taken: neighbours on the machine come and go."""
WEEKS_A_MONTH = 30 / 7
MOVING = ("delete", "merge", "optimize", "refresh")
Edit = tuple[str, str, Any]
"""What is done, to which table, with what."""


# --- the data --------------------------------------------------------------------------------------------------------


def rows_of(start: int, count: int, rng: np.random.Generator) -> pa.Table:
    """Rows of a parent with ids from ``start``."""
    names = pa.array([f"customer {number}" for number in range(5_000)])
    return pa.table(
        {
            "id": np.arange(start, start + count),
            "key": rng.integers(0, 1 << 40, count),
            "kind": pa.array(["web", "shop", "phone"]).take(pa.array(rng.integers(0, 3, count))),
            "name": names.take(pa.array(rng.integers(0, 5_000, count))),
            "amount": rng.random(count) * 1000,
            "discount": rng.random(count),
            "weight": rng.random(count) * 50,
            "day": pa.array(rng.integers(15_000, 15_100, count).astype(np.int32)).cast(pa.date32()),
        }
    )


def child_of(parent: pa.Table, number: int, rng: np.random.Generator) -> pa.Table:
    """What somebody takes from a parent; ``number`` of the child says in which way."""
    rows = parent.num_rows
    if number == 0:
        return parent.filter(pa.array(rng.random(rows) < rng.uniform(0.2, 0.5)))
    if number == 1:
        return parent.filter(pc.less(parent["day"], pa.scalar(15_070, pa.int32()).cast(pa.date32()))).drop(["weight"])
    if number == 2:
        start = int(rng.integers(0, rows // 2))
        return parent.slice(start, rows // 2)
    return parent.take(pa.array(rng.permutation(rows))) if rng.random() < 0.3 else parent


@dataclass
class Company:
    """Those who edit and read: everything they do comes from the seed and from what the keeping lake holds."""

    rng: np.random.Generator
    rows: int
    next_id: int = 0

    @property
    def names(self) -> list[str]:
        parents = range(PARENTS)
        return [*(f"parent_{p}" for p in parents), *(f"child_{p}_{c}" for p in parents for c in range(CHILDREN))]

    def fresh(self, count: int) -> pa.Table:
        self.next_id += count
        return rows_of(self.next_id - count, count, self.rng)

    def founding(self) -> Iterator[Edit]:
        for number in range(PARENTS):
            rows = self.fresh(int(self.rows * self.rng.uniform(0.5, 1.5)))
            yield "create", f"parent_{number}", rows
            for child in range(CHILDREN):
                yield "create", f"child_{number}_{child}", child_of(rows, child, self.rng)

    def week(self, number: int, read: Callable[[str], pa.Table]) -> Iterator[Edit]:
        """The edits of a week; ``read`` gives a table as it is by then."""
        rng = self.rng
        for parent in rng.choice(PARENTS, 3, replace=False).tolist():
            rows = self.fresh(self.rows // 50)
            yield "append", f"parent_{parent}", rows
            child = f"child_{parent}_{int(rng.integers(CHILDREN))}"
            yield "append", child, rows.select(read(child).schema.names)
        for _ in range(3):
            parent, child = int(rng.integers(PARENTS)), int(rng.integers(CHILDREN))
            yield "refresh", f"child_{parent}_{child}", child_of(read(f"parent_{parent}"), child, rng)
        yield "delete", self._parent(), f"id % 211 = {int(rng.integers(211))}"
        merged = self._parent()
        some = read(merged)
        some = some.take(pa.array(np.sort(rng.permutation(some.num_rows)[: some.num_rows // 200])))
        changed = pa.array(rng.random(some.num_rows))
        yield "merge", merged, some.set_column(some.schema.get_field_index("discount"), "discount", changed)
        if number % 2 == 0:
            yield "optimize", self._parent(), None
        if number % 4 == 2:
            parent = self._parent()
            rows = read(parent)
            rows = rows.filter(pa.array(rng.random(rows.num_rows) < 0.95))
            yield "refresh", parent, pa.concat_tables([rows, self.fresh(self.rows // 20)])

    def _parent(self) -> str:
        return f"parent_{int(self.rng.integers(PARENTS))}"

    def reads(self) -> Counter[str]:
        """How often each table is read in a week: the first tenth gets most."""
        ranked = np.random.default_rng(self.rows).permutation(self.names)
        weights = 1 / np.arange(1, len(ranked) + 1) ** 1.3
        return Counter(self.rng.choice(ranked, READS_A_WEEK, p=weights / weights.sum()).tolist())


# --- the money -------------------------------------------------------------------------------------------------------


@dataclass
class Books:
    """One lake and what it has cost, in dollars by week and item."""

    db: Any
    prices: Any
    speed: Throughput
    scale: float
    weeks: list[dict[str, float]] = field(default_factory=list)
    plans: list[tuple[object, ...]] = field(default_factory=list)
    undone: Counter[str] = field(default_factory=Counter)

    def spend(self, item: str, dollars: float) -> None:
        self.weeks[-1][item] = self.weeks[-1].get(item, 0.0) + dollars

    def read_cost(self, num_bytes: float, files: int) -> float:
        requests = 2 * files + num_bytes / costs.REQUEST_BYTES
        return self.prices.reads(requests, num_bytes) + self.prices.compute(self.speed.read_seconds(num_bytes, files))

    def table_read(self, table: Any) -> float:
        return sum(self.file_read(fragment) for fragment in table.fragments() if fragment.num_rows)

    def file_read(self, fragment: Any) -> float:
        """A read of one file, or of a recipe, its residual rows and the row groups it touches."""
        if not hasattr(fragment, "touched"):
            return self.read_cost(fragment.num_bytes, 1)
        files = 1 + sum(1 for groups in fragment.touched() if groups) + len(beside_of(fragment))
        beside = sum(one.num_bytes for one in beside_of(fragment))
        return self.read_cost(sum(fragment.column_bytes().values()) + fragment.num_bytes - beside, files)

    def objects(self) -> dict[str, tuple[str, int]]:
        """Every object of the latest snapshot: its table and its bytes."""
        catalog, found = self.db._catalog, {}
        for table in catalog.log.latest().tables.values():
            for path in (path for file in table.files.values() for path in file.own_paths()):
                found[path] = table.name, os.path.getsize(catalog.store.full_path(path))
        return found

    def recipes(self) -> dict[str, tuple[str, Any]]:
        """The rebuilt files and their tables, by the path of the recipe."""
        tables = [self.db.table(name) for name in self.db.tables()]
        return {f.path: (table.name, f) for table in tables for f in table.fragments() if hasattr(f, "touched")}

    def edit(self, one: Edit) -> None:
        """Do it, and pay for what is written and for recipes that move: the old one and the new one are read."""
        action, name, data = one
        before, rebuilt = self.objects(), self.recipes()
        old_reads = {path: self.file_read(fragment) for path, (_, fragment) in rebuilt.items()}
        if action in ("create", "append"):
            self.db.write(name, data, mode=action)
        elif action == "refresh":
            self.db.write(name, data, mode="overwrite", dependants="restore")
        elif action == "delete":
            self.db.delete(name, data)
        elif action == "merge":
            self.db.merge(name, data, ["id"])
        else:
            self.db.optimize(name)
        self.pay_for_writing(before, {name: "write"})
        after = self.recipes()
        for table in {table for table, _ in rebuilt.values()} - {table for table, _ in after.values()}:
            self.undone["refreshed" if table == name else "restored"] += 1
        self.spend("move", sum(old_reads[path] for path in rebuilt.keys() - after.keys() if rebuilt[path][0] != name))
        self.spend("move", sum(self.file_read(after[path][1]) for path in after.keys() - rebuilt.keys()))

    def pay_for_writing(self, before: Mapping[str, object], items: Mapping[str, str], other: str = "move") -> None:
        """Pay for the objects that are new, under an item for each table."""
        for path, (table, num_bytes) in self.objects().items():
            if path not in before:
                cost = self.prices.writes(1) + self.prices.compute(self.speed.write_seconds(num_bytes))
                self.spend(items.get(table, other), cost)

    def end_week(self, reads: Mapping[str, int]) -> None:
        """Pay for the week's reads and storage."""
        self.spend("read", sum(count * self.table_read(self.db.table(name)) for name, count in reads.items()))
        held = self.objects().values()
        self.spend("store", self.prices.storage(sum(size for _, size in held), len(held)) / WEEKS_A_MONTH)

    def retire(self, reads: Mapping[str, float], rewrites: Mapping[str, float]) -> None:
        """Find, plan and retire, and pay for it."""
        before = self.objects()
        own_reads = {name: self.table_read(self.db.table(name)) for name in self.db.tables()}
        with Stopwatch() as watch:
            graph = replace(self.db.containment(), observe=lambda: Observed({}, rewrites))
            plan = graph.plan(self.prices, accesses=reads, throughput=self.speed, payback_months=3)
            done = self.db.retire(plan)
        searched = sum(row["bytes_read"] for row in graph.stages.to_pylist())
        opened = sum(table.files.num_rows for table in graph.tables)
        self.spend("retire", self.prices.compute(self.scale * watch.cpu_seconds))
        self.spend("retire", self.prices.reads(2 * opened + searched / costs.REQUEST_BYTES, searched))
        for one in done.retired:  # read to match, to compare, and once more as it is rebuilt; its parent to match
            way = costs.reading(self.db.table(one.parent))
            self.spend("retire", 2 * own_reads[one.table] + self.table_read(self.db.table(one.table)))
            self.spend("retire", self.prices.reads(way.requests, way.num_bytes))
        self.pay_for_writing(before, {}, "retire")
        retired = len({table for table, _ in self.recipes().values()})
        money = (f"{dollars:.6f}" for dollars in (plan.saves_per_month, self.weeks[-1]["retire"]))
        self.plans.append((len(done.retired), len(done.skipped), retired, *money, watch.cpu_seconds))


def beside_of(fragment: Any) -> list[Any]:
    """The files that a recipe has beside it, of rows or columns that no source has."""
    return [one for name in ("residual", "side") if (one := getattr(fragment, name, None)) is not None]


# --- the quarter -----------------------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=60_000, help="of a parent, about")
    parser.add_argument("--scale", type=float, default=100, help="what a byte stands for")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--no-results", action="store_true", help="print the figures, write no file")
    given = parser.parse_args()
    machine.compile_kernels()
    sections, problems = run(given.rows, given.scale, given.seed)
    small, _ = run(given.rows, 1, given.seed)
    sections.append("The same with bytes as they are, so that files are small; no target:")
    sections += [text.replace("**", "") for text in small[1:] if "week by week" not in text]
    print("\n\n".join(sections))
    if not given.no_results:
        command = (
            f"python benchmarks/retirement_quarter.py --rows {given.rows} --scale {given.scale:g} --seed {given.seed}"
        )
        facts = machine.describe(seed=given.seed, threads=os.cpu_count())
        machine.write_results("retirement_quarter", "A quarter with and without retiring", command, sections, facts)
    return 0 if not problems else 1


def run(rows: int, scale: float, seed: int) -> tuple[list[str], list[str]]:
    """Both lakes through the quarter: the sections of the results, and what is not as it should be."""
    with Stopwatch() as watch, tempfile.TemporaryDirectory() as scratch:
        keeping, retiring = (lakelet.connect(os.path.join(scratch, name)) for name in ("keeping", "retiring"))
        with keeping, retiring:
            company = Company(np.random.default_rng(seed), rows)
            with mock.patch.object(costs, "REQUEST_BYTES", costs.REQUEST_BYTES / scale):
                books, problems = simulate(keeping, retiring, company, scale)
            held = sum(num_bytes for _, num_bytes in books[0].objects().values())
    equal = "all were equal" if not problems else "some differed"
    totals = [np.cumsum([sum(week.values()) for week in one.weeks]) for one in books]
    problems += [
        f"after week {week} ${totals[1][week]:.6f} against ${totals[0][week]:.6f}"
        for week in MONTHS
        if week > PLANS[0] and totals[1][week] > totals[0][week]
    ]
    speed, ours = books[0].speed, books[1]
    planned = [(week, *row) for week, row in zip(PLANS, ours.plans, strict=True)]
    sections = [
        f"{PARENTS * (CHILDREN + 1)} tables, {held / 1e6:.0f} MB in the end when all is kept, each byte standing for "
        f"{scale:g}; {READS_A_WEEK} reads a week, {books[0].prices.name} prices, best measured throughput (reads "
        f"{speed.read_bytes_per_second * scale / 1e6:.0f}, writes {speed.write_bytes_per_second * scale / 1e6:.0f} "
        f"MB/s, opening {speed.open_seconds * 1e3:.1f} ms). Both lakes took {watch.seconds:.0f} s; all tables were "
        f"compared after each week: {equal}.",
        f"In the end ${totals[0][-1]:.6f} when all is kept and ${totals[1][-1]:.6f} when tables are retired: "
        f"**{1 - totals[1][-1] / totals[0][-1]:.1%} saved.**",
        "Dollars added up, week by week (week 0 is the founding, which costs both the same):\n\n"
        + table_of_weeks(books, totals),
        "Dollars of the quarter by item:\n\n" + table_of_items(books),
        "The plans (saved: dollars a month as planned; cost: dollars for finding, planning, proving and writing):\n\n"
        + markdown_table(
            ("after week", "retired", "left alone", "retired by then", "saved", "cost", "processor seconds"), planned
        ),
        f"Retirements that edits undid: {ours.undone['refreshed']} where the table itself was overwritten, "
        f"{ours.undone['restored']} where its parent was.",
        f"**{'The target is met' if not problems else 'Missed: ' + '; '.join(problems)}.**",
    ]
    return sections, problems


def simulate(keeping: Any, retiring: Any, company: Company, scale: float) -> tuple[tuple[Books, Books], list[str]]:
    """Thirteen weeks. The books of both lakes, and tables that differed."""
    prices = lakelet.Prices.s3_standard()
    prices = prices.replace(storage_per_gb_month=prices.storage_per_gb_month * scale)
    for _, name, rows in company.founding():
        keeping.write(name, rows)
        retiring.write(name, rows)
    tries = [measured([keeping.table(name) for name in company.names]) for _ in range(TRIES)]
    reading, writing = (max(getattr(one, f"{what}_bytes_per_second") for one in tries) for what in ("read", "write"))
    speed = Throughput(reading / scale, writing / scale, min(one.open_seconds for one in tries))
    books = Books(keeping, prices, speed, scale), Books(retiring, prices, speed, scale)
    for one in books:
        one.weeks.append({})
        one.pay_for_writing({}, {}, "write")
    reads, moves, problems = Counter[str](), list[Counter[str]](), list[str]()
    for week in range(1, WEEKS + 1):
        for one in books:
            one.weeks.append({})
        if week - 1 in PLANS:
            recent = sum(moves[-4:], Counter())
            rates = {name: reads[name] * WEEKS_A_MONTH / (week - 1) for name in company.names}
            books[1].retire(rates, {name: count * WEEKS_A_MONTH / 4 for name, count in recent.items()})
        moves.append(Counter())
        for edit in company.week(week, lambda name: keeping.table(name).to_arrow()):
            for one in books:
                one.edit(edit)
            moves[-1][edit[1]] += edit[0] in MOVING
        this_week = company.reads()
        reads += this_week
        for one in books:
            one.end_week(this_week)
        problems += [
            f"{name} differs in week {week}"
            for name in company.names
            if not keeping.table(name).to_arrow().equals(retiring.table(name).to_arrow(), check_metadata=True)
        ]
    return books, problems


def table_of_weeks(books: Sequence[Books], totals: Sequence[np.ndarray]) -> str:
    rows = []
    for week in range(WEEKS + 1):
        theirs, ours = (one.weeks[week] for one in books)
        moves = ours.get("move", 0.0) + ours.get("retire", 0.0)
        money = (totals[0][week], totals[1][week], totals[0][week] - totals[1][week])
        money = (*money, theirs.get("store", 0.0), ours.get("store", 0.0), moves)
        rows.append((f"{week}{' (month ends)' if week in MONTHS else ''}", *(f"{dollars:.6f}" for dollars in money)))
    columns = (
        "week",
        "keeping",
        "retiring",
        "saved so far",
        "storage, keeping",
        "storage, retiring",
        "moves, retiring",
    )
    return markdown_table(columns, rows)


def table_of_items(books: Sequence[Books]) -> str:
    items = ("store", "read", "write", "move", "retire")
    sums = [[f"{sum(week.get(item, 0.0) for week in one.weeks):.6f}" for item in items] for one in books]
    return markdown_table(
        ("lake", *items), [(name, *row) for name, row in zip(("keeping", "retiring"), sums, strict=True)]
    )


if __name__ == "__main__":
    sys.exit(main())
