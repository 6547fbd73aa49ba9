"""A process that retires, restores and edits without end is killed again and again: nothing is lost, nothing is half.

Before each step it notes, durably, which rows the parent table will have; the tables rebuilt from it never change. So
the test knows what every version must hold, and that a step in progress happened or did not.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import lakelet
import pytest
from lakelet.lake.bitwise import differing_rows
from lakelet.lake.log import Log
from lakelet.lake.snapshot import OwnedTable

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from lakelet.engine import Engine

DAY = 86_400.0
KEPT = 8
"""Versions that the process keeps when it expires the others."""

TABLES = """
import hashlib

import numpy as np
import pyarrow as pa


def rows(ids):
    texts = [hashlib.sha256(b"%d" % one).hexdigest()[:40] for one in ids]
    return pa.table({"id": pa.array(ids, pa.int64()), "x": pa.array([one / 3 for one in ids]), "s": texts})


FIRST = list(range(300))
CHILDREN = {
    "part": rows(FIRST[40:240]).select(["s", "id"]),
    "shuffled": rows(np.random.default_rng(1).permutation(300)[:150].tolist()),
}
"""

WORKER = (
    TABLES
    + """
import json
import os
import random
import sys
import time
from dataclasses import replace

import lakelet
from lakelet.lake.expiry import expire
from lakelet.lake.log import Log

root, notes, seed, begun, kept = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
chance = random.Random(seed)
log = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(**what):
    os.write(log, json.dumps(what).encode() + b"\\n")
    os.fsync(log)


def age(folder):
    for place, _, names in os.walk(os.path.join(root, folder)):
        for name in names:
            os.utime(os.path.join(place, name), (begun - 10 * 86_400,) * 2)


def retire(db, children):
    plan = db.containment().plan(prices=lakelet.Prices.s3_standard(), accesses=None, max_restore_seconds=1e9)
    known = plan.candidates
    pairs = {c: known.position["p"] for c in children if (known.position[c], known.position["p"]) in known.number}
    if pairs:
        db.retire(replace(plan, _parents=tuple(pairs.get(name, -1) for name in known.names)))


def step(db, what, ids):
    kinds = {name: info.kind for name, info in db.tables().items()}
    if what == "retire":
        retire(db, [name for name in CHILDREN if kinds[name] == "owned"])
    elif what == "restore":
        db.restore(chance.choice(list(CHILDREN)))
    elif what == "delete":
        left = set(ids)
        gone = [one for one in db.table("p").to_arrow(["id"])["id"].to_pylist() if one not in left]
        db.delete("p", f"id IN ({', '.join(map(str, gone))})")
    elif what == "refill":
        now = db.table("p").num_rows
        db.write("p", rows(ids[now:]), "append")
    elif what == "optimize":
        db.optimize("p")
    elif what == "vacuum":
        age("data")
        db.vacuum()
    elif what == "expire":
        age("_lakelet/log")
        expire(Log(db._catalog.store), older_than_seconds=max(86_400, time.time() - begun - 60 * (db.version - kept)))


def next_ids(what, ids):
    if what == "delete":
        number = chance.randrange(11)
        return [one for one in ids if one % 11 != number]
    return ids + sorted(set(FIRST) - set(ids)) if what == "refill" else ids


with lakelet.connect(root) as db:
    ticks = [db.version]
    db._catalog.log = Log(db._catalog.store, clock=lambda: begun + 60 * ticks[0])
    print("ready", flush=True)
    sys.stdin.readline()
    steps = "retire retire restore delete refill optimize vacuum expire".split()
    while True:
        ids = db.table("p").to_arrow(["id"])["id"].to_pylist()
        ticks[0] = db.version
        what = chance.choice(steps)
        then = next_ids(what, ids)
        if then != ids or what not in ("delete", "refill"):
            note(step=what, ids=then)
            step(db, what, then)
            note(done=what, version=db.version)
"""
)

known: dict[str, Any] = {}
exec(TABLES, known)


def start(root: Path, notes: Path, seed: int, begun: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WORKER, str(root), str(notes), str(seed), str(begun), str(KEPT)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


class Model:
    """The rows of the parent in every version that was ever seen, and what was being done when the process died."""

    def __init__(self, version: int) -> None:
        self.ids: dict[int, list[int]] = {version: known["FIRST"]}
        self.done: Counter[str] = Counter()
        self.died_in: Counter[str] = Counter()

    def read(self, notes: Path) -> list[int] | None:
        """Take over what a process noted. The rows of the parent after the step that it died in, None between steps."""
        pending = None
        lines = notes.read_text().splitlines() if notes.exists() else []
        for line in map(json.loads, lines):
            if "step" in line:
                pending = line["ids"]
                self.died_in[line["step"]] += 1
                continue
            last = max(self.ids)
            assert last <= line["version"] <= last + 1
            if line["version"] == last:
                assert pending == self.ids[last]
            self.ids[line["version"]] = pending
            self.done[line["done"]] += 1
            self.died_in[line["done"]] -= 1
            pending = None
        return pending

    def check(self, db: Engine, pending: list[int] | None) -> None:
        """Every version that is kept is as it was noted, and the last step happened or did not."""
        last = max(self.ids)
        assert last <= db.version <= last + (pending is not None)
        if db.version > last:
            self.ids[db.version] = pending  # type: ignore[assignment]
        kept = sorted({line.version for line in db.history()})
        assert kept == list(range(kept[0], db.version + 1))
        for version in kept:
            expected = {"p": known["rows"](self.ids[version]), **known["CHILDREN"]}
            past = db.at(version)
            assert set(past.tables()) == set(expected)
            for name, table in expected.items():
                check_equal(past.table(name).to_arrow(), table)


def check_equal(found: pa.Table, expected: pa.Table) -> None:
    assert found.schema.equals(expected.schema)
    assert found.num_rows == expected.num_rows
    assert not any(differing_rows(a, b).size for a, b in zip(found.columns, expected.columns, strict=True))


def check_sweep(root: Path) -> None:
    """What the killed left behind goes, and nothing else."""
    age(root)
    with lakelet.connect(root) as db:
        db.vacuum()
        snapshots = [db.at(line.version)._snapshot() for line in db.history()]
        tables = [t for snapshot in snapshots for t in snapshot.tables.values() if isinstance(t, OwnedTable)]
        needed = {path for table in tables for file in table.files.values() for path in file.paths()}
        assert {info.path for info in db._catalog.store.list("data/")} == needed


def make_lake(root: Path, begun: float) -> Model:
    """The parent in two files and what can be rebuilt from it; older versions are expired."""
    with lakelet.connect(root) as db:
        db._catalog.log = Log(db._catalog.store, clock=lambda: begun)
        db.write("p", known["rows"](known["FIRST"][:120]))
        db.write("p", known["rows"](known["FIRST"][120:]), "append")
        with db.transaction() as transaction:
            for name, table in known["CHILDREN"].items():
                transaction.write(name, table)
    age(root)
    with lakelet.connect(root) as db:
        assert db.expire().floor == db.version
        return Model(db.version)


def age(root: Path) -> None:
    then = time.time() - 30 * DAY
    for folder, _, names in os.walk(root):
        for name in names:
            os.utime(os.path.join(folder, name), (then, then))


def kill(worker: subprocess.Popen[str], after_seconds: float) -> None:
    """Let it begin, and kill it so long afterwards."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()
    time.sleep(after_seconds)
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait(60) == -signal.SIGKILL
    worker.stdin.close()
    worker.stdout.close()


def run_killed(tmp_path: Path, rounds: int, longest_seconds: float) -> Model:
    root, chance, begun = tmp_path / "lake", random.Random(5), time.time() - 20 * DAY
    model = make_lake(root, begun)
    notes = [tmp_path / f"notes-{number}" for number in range(rounds + 1)]
    waiting = start(root, notes[0], 0, begun)
    try:
        for number in range(rounds):
            worker = waiting
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            waiting = start(root, notes[number + 1], number + 1, begun)
            kill(worker, chance.uniform(0.02, longest_seconds))
            with lakelet.connect(root) as db:
                model.check(db, model.read(notes[number]))
    finally:
        waiting.kill()
        waiting.communicate()
    check_sweep(root)
    with lakelet.connect(root) as db:
        model.check(db, None)
    return model


def test_a_killed_process_leaves_every_version_whole(tmp_path: Path) -> None:
    run_killed(tmp_path, 3, 0.6)


@pytest.mark.slow
def test_thirty_kills(tmp_path: Path) -> None:
    model = run_killed(tmp_path, 30, 1.5)
    assert model.done.keys() == {"retire", "restore", "delete", "refill", "optimize", "vacuum", "expire"}
    assert sum(model.died_in.values()) >= 10
