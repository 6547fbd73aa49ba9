"""Several processes commit to one lake, some of them killed: all that was acknowledged is there, none of it twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from lakelet.lake.changes import CreateTable
from lakelet.lake.log import Log
from lakelet.lake.stores import open_store

if TYPE_CHECKING:
    from pathlib import Path

# Prints the name of each commit once it was acknowledged. Readers travel back in time between commits.
WORKER = """
import sys
from lakelet.lake.changes import AddFiles, DataFile, TableUnchanged
from lakelet.lake.log import Log
from lakelet.lake.stores import open_store

root, me, commits, tables = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log = Log(open_store(root))
for number in range(commits):
    name, table = f"{me}-{number}", f"t{int(me) % tables}"
    base = log.latest()
    files = (DataFile(name, f"data/{table}/{name}", 1, 1, 0, "{}"),)
    log.commit([AddFiles(table, files)], [TableUnchanged(table, base.version)], operation=name, base=base)
    print(name, flush=True)
    if number % 5 == 0:
        middle = log.latest().version // 2
        assert log.at(middle).version == middle
log.close()
"""


def start(root: Path, me: int, commits: int, tables: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WORKER, str(root), str(me), str(commits), str(tables)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


def make_lake(root: Path, tables: int) -> None:
    log = Log(open_store(root))
    changes = [CreateTable(f"t{number}", f"table {number}", "schema") for number in range(tables)]
    log.commit(changes, [], operation="create", base=log.latest())


def check(root: Path, acknowledged: list[str], in_doubt: int) -> None:
    log = Log(open_store(root))
    latest = log.latest()
    files = [file for table in latest.tables.values() for file in getattr(table, "files", {}).values()]
    found = [file.file_id for file in files]
    assert {file.stats for file in files} == {"{}"}
    operations = Counter(line.operation for line in log.history())
    assert max(operations.values()) == 1
    assert set(operations) - {"create"} == set(found)
    assert set(acknowledged) <= set(found)
    assert len(found) <= len(acknowledged) + in_doubt
    # entry by entry, without checkpoints, it comes to the same
    store = open_store(root)
    store.delete([info.path for info in store.list("_lakelet/checkpoints/")])
    store.delete(["_lakelet/hint"])
    assert Log(store).latest() == latest


def run_all(root: Path, processes: int, commits: int, tables: int) -> None:
    make_lake(root, tables)
    workers = [start(root, me, commits, tables) for me in range(processes)]
    acknowledged: list[str] = []
    for worker in workers:
        out, _ = worker.communicate(timeout=240)
        assert worker.returncode == 0
        acknowledged += out.split()
    assert len(acknowledged) == processes * commits
    check(root, acknowledged, 0)


@pytest.mark.parametrize("tables", [1, 4])
def test_processes_lose_no_commit(tmp_path: Path, tables: int) -> None:
    run_all(tmp_path / "lake", 4, 12, tables)


@pytest.mark.slow
@pytest.mark.parametrize("tables", [1, 8])
def test_eight_processes_lose_no_commit(tmp_path: Path, tables: int) -> None:
    run_all(tmp_path / "lake", 8, 50, tables)


def run_killed(root: Path, seconds: list[float]) -> None:
    """Start two workers a round, kill them after so many seconds of committing, and see what is there."""
    make_lake(root, 2)
    acknowledged: list[str] = []
    started = 0
    for delay in seconds:
        workers = [start(root, started + place, 100_000, 2) for place in range(2)]
        started += 2
        firsts = [worker.stdout.readline() for worker in workers if worker.stdout is not None]
        assert all(firsts)
        time.sleep(delay)
        for worker in workers:
            os.kill(worker.pid, signal.SIGKILL)
        for worker, first in zip(workers, firsts, strict=True):
            assert worker.stdout is not None
            out = first + worker.stdout.read()
            assert worker.wait(60) == -signal.SIGKILL
            worker.stdout.close()
            acknowledged += out[: out.rfind("\n") + 1].split()
        log = Log(open_store(root))
        found = {file_id for table in log.latest().tables.values() for file_id in getattr(table, "files", ())}
        assert set(acknowledged) <= found
    check(root, acknowledged, started)


def test_killed_processes_lose_nothing_acknowledged(tmp_path: Path) -> None:
    run_killed(tmp_path / "lake", [0.05, 0.2])


@pytest.mark.slow
def test_many_killed_processes_lose_nothing_acknowledged(tmp_path: Path) -> None:
    run_killed(tmp_path / "lake", [0.01 * 1.4**step for step in range(12)])
