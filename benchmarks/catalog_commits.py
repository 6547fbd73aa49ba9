"""Figures 3 and 4, the log: opening a long one, committing to it, and many processes committing at once.

    python benchmarks/catalog_commits.py [--versions 10000] [--skip open commit race] [--seed 1]

*open*: a lake of so many tables and as many versions, opened by fresh processes (page cache warm), and the
requests that wait for one another while it opens. *commit*: appends to a table of that lake and of one at version 10,
in turn, on the same disk. *race*: 8 processes x 50 commits on one table and on many, on a local folder and on a store
that takes 20 ms a put, by one thread a process and by ten (whose commits group), with and without readers that travel
in time; afterwards every acknowledged commit is looked for, and looked for twice.

Writes results/catalog_commits.md; leaves with 1 when a commit is missing or doubled, or a figure is not reached.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import machine
import pyarrow as pa
from lakelet.lake.changes import AddFiles, Change, CreateTable, DataFile, TableUnchanged
from lakelet.lake.log import Log
from lakelet.lake.schema import encode_schema
from lakelet.lake.statistics import Bounds, encode_bounds
from lakelet.lake.stores import open_store
from machine import Stopwatch, markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lakelet.lake.store import Store

OPEN_SECONDS, OPEN_REQUESTS, OPEN_RUNS = 1.0, 5, 11
COMMIT_RATIO = 1.2
GROUPED_PER_SECOND = 50.0
PROCESSES, COMMITS, THREADS, MANY_TABLES, READERS = 8, 50, 10, 8, 2
PUT_SECONDS = 0.02
RACE_SECONDS_MAX = 180.0
READER_PAUSE_SECONDS = 0.01

SCHEMA = pa.schema([(f"column_{number}", pa.int64() if number % 2 else pa.string()) for number in range(10)])
STATS = encode_bounds(
    {name: Bounds(0, number, 1_000_000 + number, True, True) for number, name in enumerate(SCHEMA.names)}
)


def main() -> int:
    if sys.argv[1:2] == ["--worker"]:
        return _worker(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--versions", type=int, default=10_000, help="versions of the long lake, and its tables")
    parser.add_argument("--skip", nargs="*", default=[], choices=["open", "commit", "race"])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random.seed(options.seed)
    sections: list[str] = []
    reached = True
    with tempfile.TemporaryDirectory(prefix="lakelet-commits-") as home:
        if not {"open", "commit"} <= set(options.skip):
            lake = _long_lake(options.versions)
        for name, measure in (
            ("open", lambda: _measure_open(lake, options.versions)),
            ("commit", lambda: _measure_commits(lake, Path(home), options.versions)),
            ("race", lambda: _measure_races(Path(home))),
        ):
            if name not in options.skip:
                section, fine = measure()
                print(section, flush=True)
                sections.append(section)
                reached &= fine
    facts = machine.describe(seed=options.seed, threads=THREADS)
    command = "python benchmarks/catalog_commits.py"
    path = machine.write_results("catalog_commits", "The log: opening, committing, racing", command, sections, facts)
    print(f"written to {path}")
    return 0 if reached else 1


# --- a long log ------------------------------------------------------------------------------------------------------


def _append(table_id: str, file_id: str) -> AddFiles:
    return AddFiles(table_id, (DataFile(file_id, f"data/{table_id}/{file_id}.parquet", 1000, 65_536, 0, STATS),))


def _fill(store: Store, versions: int) -> None:
    """One table with one file a version. Without syncing: how it came to be is not what is measured."""
    schema = encode_schema(SCHEMA)
    with mock.patch.object(os, "fsync"), Log(store) as log:
        snapshot = log.latest()
        while snapshot.version < versions:
            table_id = f"t{snapshot.version}"
            changes: list[Change] = [
                CreateTable(table_id, f"table {snapshot.version}", schema),
                _append(table_id, "f0"),
            ]
            snapshot = log.commit(changes, [], operation="create", base=snapshot)


def _long_lake(versions: int) -> Path:
    lake = machine.CACHE / f"catalog-{versions}"
    if not lake.exists():
        partial = machine.CACHE / f"catalog-{versions}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        _fill(open_store(partial), versions)
        partial.rename(lake)
    machine.warm(path for path in lake.rglob("*") if path.is_file())
    return lake


class CountingStore:
    """Counts the requests that wait for one another: objects that are fetched side by side are one."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.requests = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in {"create", "put", "get", "get_many", "exists", "list", "delete"}:
            self.requests += 1
        return found


OPEN = """
import sys, time
started = time.perf_counter()
import lakelet
db = lakelet.connect(sys.argv[1], read_only=True)
opened = time.perf_counter()
tables = len(db.tables())
print(time.perf_counter() - started, time.process_time(), tables)
"""


def _measure_open(lake: Path, versions: int) -> tuple[str, bool]:
    Log(open_store(lake)).latest()
    counting: Any = CountingStore(open_store(lake))
    with Stopwatch() as watch:
        snapshot = Log(counting).latest()
    walls, cpus = [], []
    for _ in range(OPEN_RUNS):
        out = subprocess.run([sys.executable, "-c", OPEN, str(lake)], capture_output=True, text=True, check=True).stdout
        wall, cpu, tables = out.split()
        walls.append(float(wall))
        cpus.append(float(cpu))
        assert int(tables) == len(snapshot.tables) == snapshot.version == versions
    fine = min(walls) < OPEN_SECONDS and counting.requests <= OPEN_REQUESTS
    rows = [
        (f"import, connect, db.tables(): fastest of {OPEN_RUNS} runs", f"{min(walls):.2f} s", f"< {OPEN_SECONDS} s"),
        ("the same: median", f"{statistics.median(walls):.2f} s", ""),
        ("the same: processor time with the interpreter's start, median", f"{statistics.median(cpus):.2f} s", ""),
        ("of it for the log, all imports done", f"{watch.cpu_seconds:.2f} s", ""),
        ("requests one after the other", counting.requests, f"<= {OPEN_REQUESTS}"),
    ]
    title = f"## Opening {versions:,} tables and {versions:,} versions: {_word(fine)}"
    return f"{title}\n\n{markdown_table(['', 'found', 'asked'], rows)}", fine


def _measure_commits(lake: Path, home: Path, versions: int) -> tuple[str, bool]:
    """Appends to both lakes in turn; the short one is new every few commits, so that it stays near version 10."""
    long_lake = home / "long"
    shutil.copytree(lake, long_lake, copy_function=os.link)
    rows, ratios = [], []
    for kind in ("synced, as it is", "without syncing"):
        syncing = nullcontext() if kind.startswith("synced") else mock.patch.object(os, "fsync")
        times: tuple[list[float], list[float]] = ([], [])
        with syncing, Log(open_store(long_lake)) as long_log:
            for lap in range(20):
                short = home / f"short-{kind[:3]}-{lap}"
                _fill(open_store(short), 10)
                with Log(open_store(short)) as short_log:
                    for step in range(12):
                        for log, taken in zip((short_log, long_log), times, strict=True):
                            taken.append(_timed_commit(log, f"{kind[:3]}-{lap}-{step}"))
        at_10, at_end = (statistics.median(taken) * 1e3 for taken in times)
        ratios.append(at_end / at_10)
        rows.append((kind, at_10, at_end, at_end / at_10))
    columns = ["one writer, p50 of 240 each", "at version 10, ms", f"at version {versions:,}, ms", "ratio"]
    fine = ratios[0] <= COMMIT_RATIO
    title = f"## Committing at version {versions:,} as at version 10: {_word(fine)} (asked: ratio <= {COMMIT_RATIO})"
    note = (
        "The second row, for information, leaves out what the disk takes: what is left is JSON, one copy of a "
        "dictionary of all tables, and the calls to the file system."
    )
    return f"{title}\n\n{markdown_table(columns, rows)}\n\n{note}", fine


def _timed_commit(log: Log, name: str) -> float:
    base = log.latest()
    started = time.perf_counter()
    log.commit([_append("t3", name)], [TableUnchanged("t3", base.version)], operation="append", base=base)
    return time.perf_counter() - started


# --- races -----------------------------------------------------------------------------------------------------------


class SlowStore:
    """A local store as far away as an object store: so many seconds for each object that is written."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    def create(self, path: str, data: bytes) -> bool:
        time.sleep(PUT_SECONDS)
        return self._inner.create(path, data)

    def put(self, path: str, data: bytes) -> None:
        time.sleep(PUT_SECONDS)
        self._inner.put(path, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _worker(arguments: Sequence[str]) -> int:
    """Commit, or travel in time, from the moment that the file ``go`` is there. Prints what was acknowledged."""
    home, me, role, slow, tables, threads = arguments
    store: Any = open_store(Path(home) / "lake")
    log = Log(SlowStore(store) if slow == "slow" else store)
    log.latest()
    (Path(home) / f"ready-{me}").touch()
    while not (Path(home) / "go").exists():
        time.sleep(0.005)
    return _travel(log, Path(home), int(me)) if role == "reader" else _commit(log, int(me), int(tables), int(threads))


def _commit(log: Log, me: int, tables: int, threads: int) -> int:
    lines: list[str] = []

    def run(thread: int) -> None:
        for number in range(thread, COMMITS, threads):
            name, table = f"{me}-{number}", f"t{me % tables}"
            base = log.latest()
            needs = [TableUnchanged(table, base.version)]
            version = log.commit([_append(table, name)], needs, operation=name, base=base).version
            lines.append(f"{name} {version} {time.time()}")

    running = [threading.Thread(target=run, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    print("\n".join(lines))
    log.close()
    return 0


def _travel(log: Log, home: Path, me: int) -> int:
    """Read versions at random until ``stop`` is there; what was read twice must be the same."""
    chance = random.Random(me)
    seen: dict[int, int] = {}
    reads = 0
    while not (home / "stop").exists():
        version = chance.randint(1, log.latest().version)
        rows = sum(table.num_rows for table in log.at(version).tables.values())  # type: ignore[union-attr]
        assert seen.setdefault(version, rows) == rows
        reads += 1
        time.sleep(READER_PAUSE_SECONDS)
    print(f"read {reads} {time.time()}")
    return 0


def _measure_races(home: Path) -> tuple[str, bool]:
    rows, fine = [], True
    races = [
        (slow, tables, threads, readers)
        for slow in ("local", "slow")
        for tables in (1, MANY_TABLES)
        for threads, readers in ((1, 0), (THREADS, 0), (THREADS, READERS))
    ]
    for number, race in enumerate(races):
        place = home / f"race-{number}"
        per_second, versions, reads = _race(place, *race)
        slow, tables, threads, readers = race
        grouped_enough = threads == 1 or per_second >= GROUPED_PER_SECOND
        fine &= grouped_enough
        store = "local" if slow == "local" else f"{PUT_SECONDS * 1e3:.0f} ms a put"
        rows.append(
            (
                store,
                tables,
                threads,
                reads if readers else "-",
                versions,
                per_second,
                _word(grouped_enough) if threads > 1 else "",
            )
        )
        shutil.rmtree(place)
    columns = ["store", "tables", "threads a process", "old versions read", "log entries", "commits/s in all", ""]
    title = f"## {PROCESSES} processes x {COMMITS} commits: {_word(fine)}"
    note = (
        f"All {PROCESSES * COMMITS} there, none twice, in every row. Asked: grouped (several threads a process) "
        f">= {GROUPED_PER_SECOND:.0f}/s in all. With one thread a process nothing groups: a store that takes 20 ms "
        "a put then allows 50 commits a second at the very most, however many processes there are."
    )
    return f"{title}\n\n{markdown_table(columns, rows)}\n\n{note}", fine


def _race(home: Path, slow: str, tables: int, threads: int, readers: int) -> tuple[float, int, int]:
    """Commits a second over all processes, log entries that they took, and old versions that readers read meanwhile."""
    store = open_store(home / "lake")
    _fill(store, MANY_TABLES)
    before = Log(store).latest().version
    roles = ["writer"] * PROCESSES + ["reader"] * readers
    command = [sys.executable, os.path.abspath(__file__), "--worker", str(home)]
    workers = [
        subprocess.Popen([*command, str(me), role, slow, str(tables), str(threads)], stdout=subprocess.PIPE, text=True)
        for me, role in enumerate(roles)
    ]
    until = time.monotonic() + RACE_SECONDS_MAX
    try:
        while len(list(home.glob("ready-*"))) < len(workers) and time.monotonic() < until:
            time.sleep(0.01)
        started = time.time()
        (home / "go").touch()
        lines = list(_lines(workers[:PROCESSES], until))
        (home / "stop").touch()
        reads = sum(int(words[1]) for words in _lines(workers[PROCESSES:], until))
    finally:
        for worker in workers:
            worker.kill()
    _check(store, {words[0]: int(words[1]) for words in lines})
    assert len(lines) == PROCESSES * COMMITS
    seconds = max(float(words[2]) for words in lines) - started
    return len(lines) / seconds, Log(store).latest().version - before, reads


def _lines(workers: Sequence[subprocess.Popen[str]], until: float) -> Iterator[list[str]]:
    for worker in workers:
        out, _ = worker.communicate(timeout=max(1.0, until - time.monotonic()))
        if worker.returncode != 0:
            raise SystemExit(f"a worker left with {worker.returncode}")
        yield from (line.split() for line in out.splitlines())


def _check(store: Store, acknowledged: dict[str, int]) -> None:
    """Every acknowledged commit is in the history at its version, exactly once, and its file is in the table once."""
    log = Log(store)
    found = [(line.operation, line.version) for line in log.history() if line.operation != "create"]
    assert Counter(found) == Counter(acknowledged.items())
    files = Counter(
        file_id
        for table in log.latest().tables.values()
        for file_id in table.files  # type: ignore[union-attr]
        if file_id != "f0"
    )
    assert files == Counter(acknowledged.keys())


def _word(fine: bool) -> str:
    return "reached" if fine else "NOT REACHED"


if __name__ == "__main__":
    sys.exit(main())
