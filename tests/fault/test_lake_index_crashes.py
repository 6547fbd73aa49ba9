"""An index over a table whose process dies at every call on a file, or is killed: searches find what scans do."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lakelet
import numpy as np
import pyarrow as pa
import pytest
from lakelet.vector import segment_files

DIM = 8
QUERY = np.ones(DIM, np.float32)


class Crash(BaseException):
    """The process is dead."""


def docs(first: int, count: int, value: int = 0) -> pa.Table:
    number = np.arange(first, first + count)
    vectors = np.random.default_rng(first + value).standard_normal((count, DIM)).astype(np.float32)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM)
    return pa.table({"id": number, "value": pa.array([value] * count), "embedding": embedding})


def check(db: Any) -> set[int]:
    """A search finds the rows that a scan does, each once; their ids."""
    scanned = sorted(db.table("docs").to_arrow(columns=["id"])["id"].to_pylist())
    found = sorted(db.search("docs", QUERY, 10_000, exact=True, columns=["id"])["id"].to_pylist())
    assert found == scanned
    return set(found)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("LAKELET_CACHE_DIR", str(folder))
    monkeypatch.setattr(segment_files, "CHUNK_BYTES", 8_192)  # a segment goes to the store in several writes
    return folder


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A lake with an index that lacks the rows of some commits."""
    root = tmp_path / "before"
    with lakelet.connect(root) as db:
        db.write("docs", docs(0, 60))
        db.create_index("docs", "embedding")
        db.write("docs", docs(60, 30), mode="append")
        db.merge("docs", docs(50, 20, 1), on=["id"])
        db.delete("docs", "id < 5")
    return root


STEPS: dict[str, Callable[[Any], object]] = {
    "update": lambda db: db.update_index("docs"),
    "rebuild": lambda db: db.update_index("docs", rebuild=True),
    "create": lambda db: (db.drop_index("docs"), db.create_index("docs", "embedding", metric="cosine")),
    "merge": lambda db: db.merge("docs", docs(80, 20, 2), on=["id"]),
}


@pytest.mark.parametrize("step", list(STEPS))
def test_a_process_that_dies_leaves_an_index_that_finds_all(
    step: str, before: Path, tmp_path: Path, dying: Callable[..., list[str]]
) -> None:
    root, number, after, places = tmp_path / "lake", 0, False, 0
    while True:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(before, root)
        acknowledged = False

        def work() -> None:
            nonlocal acknowledged
            with lakelet.connect(root) as db:
                STEPS[step](db)
                acknowledged = True

        calls = dying(work, number, after)
        go_on(root, may_lack=step == "create" and not acknowledged)
        places += 1
        if number >= len(calls):
            break
        number, after = (number, True) if not after else (number + 1, False)
    assert acknowledged
    assert places > 20


@pytest.mark.parametrize("step", ["update", "rebuild", "create"])
def test_a_segment_that_is_cut_off_on_its_way_is_never_read(
    step: str, before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, upload, stop = tmp_path / "lake", segment_files._chunks, 0

    def broken(source: Any) -> Any:
        for place, chunk in enumerate(upload(source)):
            if place == stop:
                raise Crash
            yield chunk

    for stop in range(4):  # noqa: B007 - broken reads it
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(before, root)
        monkeypatch.setattr(segment_files, "_chunks", broken)
        with lakelet.connect(root) as db, pytest.raises(Crash):
            STEPS[step](db)
        monkeypatch.setattr(segment_files, "_chunks", upload)
        go_on(root, may_lack=step == "create")


def go_on(root: Path, *, may_lack: bool) -> None:
    """The next process finds what a scan does, writes, and indexes what it wrote."""
    with lakelet.connect(root) as db:
        if db.indexes().num_rows:
            check(db)
        else:
            assert may_lack, "between its two commits alone there is no index"
            return
        db.write("docs", docs(500, 3), mode="append")
        assert check(db) >= {500, 501, 502}
        db.update_index("docs", threads=1)
        assert check(db) >= {500, 501, 502}


PROGRAM = """
import sys
import numpy as np
import pyarrow as pa
import lakelet

def docs(first, count, value):
    vectors = np.random.default_rng(value).standard_normal((count, 8)).astype(np.float32)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 8)
    return pa.table({"id": np.arange(first, first + count), "value": pa.array([value] * count), "embedding": embedding})

with lakelet.connect(sys.argv[1]) as db:
    turn = 0
    while True:
        turn += 1
        db.write("docs", docs(turn * 1_000, 5, turn), mode="append")
        print("append", turn * 1_000, flush=True)
        db.merge("docs", docs(turn * 1_000 + 3, 4, turn), on=["id"])
        print("merge", turn * 1_000, flush=True)
        db.delete("docs", "id = $id", {"id": turn * 1_000})
        print("delete", turn * 1_000, flush=True)
        db.update_index("docs", rebuild=turn % 3 == 0, threads=1)
        print("update", turn, flush=True)
"""


def run_killed(root: Path, delays: list[float]) -> None:
    """Let a process write and index until it is killed, again and again; nothing that it told of is lost."""
    with lakelet.connect(root) as db:
        db.write("docs", docs(0, 40))
        db.create_index("docs", "embedding")
    told: dict[str, set[int]] = {"append": set(), "merge": set(), "delete": set(), "update": set()}
    acknowledged = 0
    for delay in delays:
        command = [sys.executable, "-c", PROGRAM, str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()  # it has begun
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read()
            assert writer.wait(60) == -signal.SIGKILL
        for line in (first + rest[: rest.rfind("\n") + 1]).splitlines():
            what, number = line.split()
            told[what].add(int(number))
        acknowledged += sum(map(len, told.values()))
        with lakelet.connect(root) as db:
            found = check(db)
            assert found >= {first + 1 for first in told["append"]}
            assert found >= {first + 6 for first in told["merge"]}
            assert not found & told["delete"]
            db.delete("docs", "id >= 1000")
            for numbers in told.values():
                numbers.clear()
            db.update_index("docs", threads=1)
            check(db)
    assert acknowledged > len(delays)


def test_killed_processes_lose_nothing(tmp_path: Path) -> None:
    run_killed(tmp_path / "lake", [0.2, 0.8, 1.5])


@pytest.mark.slow
def test_thirty_killed_processes_lose_nothing(tmp_path: Path) -> None:
    run_killed(tmp_path / "lake", np.random.default_rng(0).uniform(0, 1.5, 30).tolist())
