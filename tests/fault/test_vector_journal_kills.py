"""A durable index beside threads, killed processes and full disks: what was acknowledged is there after it all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lakelet.lake.errors import CommitUnknown, InvalidInput, NotFound, Unavailable
from lakelet.lake.limits import VECTOR_K
from lakelet.vector import container
from lakelet.vector import durable as durable_module
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import ALL_TENANTS

DIM = 8


def rows(count: int, value: float = 1.0) -> np.ndarray:
    return np.full((count, DIM), value, np.float32)


def ids_of(index: VectorIndex, who: Any = ALL_TENANTS) -> list[int]:
    found = index.search(np.zeros(DIM, np.float32), VECTOR_K, who, exact=True)[0][0]
    return sorted(row for row in found.tolist() if row >= 0)


# --- killed processes ----------------------------------------------------------------------------------------------

PROGRAM = """
import sys
import numpy as np
from lakelet.vector import durable
from lakelet.vector.index import VectorIndex
durable.VECTOR_JOURNAL_BYTES = 20_000
with VectorIndex.open(sys.argv[1], 8, threads=1) as index:
    turn = 0
    while True:
        turn += 1
        ids = index.add(np.full((3, 8), turn, np.float32), tenants=[["a"], ["a", "b"], None]).tolist()
        print("add", *ids, flush=True)
        index.delete(ids[:1])
        print("delete", ids[0], flush=True)
        index.grant(ids[2:], "b")
        print("grant", ids[2], flush=True)
        if turn % 40 == 0:
            index.save()
"""


def run_killed(folder: Path, delays: list[float]) -> None:
    """Each child acknowledges over a pipe what it did, and is killed; the next one goes on with what it left."""
    there, granted, told = set[int](), set[int](), 0
    for delay in delays:
        command = [sys.executable, "-c", PROGRAM, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read()
            assert writer.wait(60) == -signal.SIGKILL
        lines = (first + rest[: rest.rfind("\n") + 1]).splitlines()
        told += len(lines)
        for line in lines:
            what, *numbers = line.split()
            ids = {int(number) for number in numbers}
            if what == "add":
                assert not ids & there, "an id was given twice"
                there |= ids
            elif what == "delete":
                there -= ids
            else:
                granted |= ids
        with VectorIndex.open(folder, threads=1) as index:
            found, seen = set(ids_of(index)), set(ids_of(index, "b"))
            assert len(index) == len(found)
        # one operation was not acknowledged any more: all of it is there, or nothing
        assert (len(found - there), len(there - found)) in {(0, 0), (3, 0), (0, 1)}
        assert granted - seen <= there - found
        there, granted = found, seen
    assert told > 20 * len(delays)


def test_a_killed_process_loses_nothing_it_told_of(tmp_path: Path) -> None:
    run_killed(tmp_path / "index", [0.0, 0.1, 0.4])


@pytest.mark.slow
def test_thirty_killed_processes_lose_nothing(tmp_path: Path) -> None:
    run_killed(tmp_path / "index", [0.01 * 1.12**turn for turn in range(30)])


# --- threads -------------------------------------------------------------------------------------------------------


def at_once(works: list[Callable[[], Any]]) -> None:
    """Do the works in a thread each; raise what any of them raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "it is blocked"
    if errors:
        raise errors[0]


def test_threads_share_syncs_and_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snapshots are written meanwhile, by threads and in the background."""
    syncs, real = [0], os.fsync

    def fsync(descriptor: int) -> None:
        syncs[0] += 1
        time.sleep(0.002)
        real(descriptor)

    monkeypatch.setattr(durable_module, "VECTOR_JOURNAL_BYTES", 30_000)
    index = VectorIndex.open(tmp_path / "index", DIM, threads=1)
    monkeypatch.setattr(os, "fsync", fsync)
    added: list[int] = index.add(rows(1), [10**6], "a").tolist()  # ids that are given out come after it

    def write(number: int) -> None:
        for turn in range(40):
            mine = index.add(rows(2, number), tenants=[[number, "a"], "a"]).tolist()
            index.grant(mine[1:], number)
            index.delete(mine[:1])
            if turn % 10 == 0:
                index.add(rows(1), [1_000 * number + turn], "own")
                with pytest.raises(InvalidInput, match="are those of live rows"):
                    index.add(rows(1), [1_000 * number + turn], "own")
                with pytest.raises(NotFound):
                    index.delete(mine[:1])
            added.append(mine[1])

    works: list[Callable[[], Any]] = [lambda number=number: write(number) for number in range(8)]  # type: ignore[misc]
    at_once([*works, *[index.save] * 3])
    before = index.tenants(), ids_of(index), index._state.next_id
    assert len(before[1]) == 1 + 8 * (40 + 4)
    assert syncs[0] < 8 * (3 * 40 + 4) * 0.7
    assert set(added) <= set(before[1])
    index.close()
    names = sorted(name[:8] for name in os.listdir(tmp_path / "index"))
    assert names == ["current", "journal-", "lock", "snapshot"]
    assert not (tmp_path / "index" / "snapshot-00000002.lakelet").exists()
    with VectorIndex.open(tmp_path / "index") as again:
        assert {(use.label, use.rows) for use in again.tenants()} == {(use.label, use.rows) for use in before[0]}
        assert (ids_of(again), again._state.next_id) == before[1:]


def test_operations_on_the_same_rows_take_turns(tmp_path: Path) -> None:
    """One of those that delete a row, or give an id, wins, in memory as in the journal."""
    index = VectorIndex.open(tmp_path / "index", DIM, threads=1)
    wins: list[str] = []

    def contend() -> None:
        for turn in range(25):
            for what, act in (
                ("add", lambda turn=turn: index.add(rows(1), [turn], "a")),
                ("drop", lambda: index.drop_tenant("a", keep_rows=True)),
                ("delete", lambda turn=turn: index.delete([turn])),
            ):
                try:
                    act()
                except (InvalidInput, NotFound):
                    continue
                wins.append(what)

    at_once([contend] * 6)
    assert wins.count("add") - wins.count("delete") == len(index)
    before = ids_of(index), [(use.label, use.rows) for use in index.tenants()]
    index.close()
    with VectorIndex.open(tmp_path / "index") as again:
        assert (ids_of(again), [(use.label, use.rows) for use in again.tenants()]) == before


def test_a_snapshot_blocks_neither_writers_nor_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable_module, "VECTOR_JOURNAL_BYTES", 2_000)
    index = VectorIndex.open(tmp_path / "index", DIM, threads=1)
    entered, go, real = threading.Event(), threading.Event(), container.write

    def write(*args: Any, **kwargs: Any) -> None:
        entered.set()
        assert go.wait(30)
        real(*args, **kwargs)

    monkeypatch.setattr(container, "write", write)
    index.add(rows(100), tenants="a")
    assert entered.wait(30)
    at_once([lambda: index.add(rows(3), tenants="a"), lambda: ids_of(index), lambda: index.grant([0], "b")])
    assert len(index) == 103
    copies = tmp_path / "copy"
    copies.mkdir()
    for name in os.listdir(tmp_path / "index"):  # as it would be found if the process died here
        (copies / name).write_bytes((tmp_path / "index" / name).read_bytes())
    go.set()
    index.close()
    for folder in (copies, tmp_path / "index"):
        with VectorIndex.open(folder) as again:
            assert (ids_of(again, "a"), ids_of(again, "b")) == (list(range(103)), [0])


# --- full and broken disks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_an_error_at_every_system_call_of_a_change(tmp_path: Path, failing: Callable[..., Any], code: int) -> None:
    at = 0
    while True:
        folder = tmp_path / str(at)
        index = VectorIndex.open(folder, DIM, threads=1)
        index.add(rows(5), tenants="a")
        made, error = failing(lambda index=index: index.add(rows(2), tenants="b"), at, code, (Unavailable,))
        assert len(index) == (5 if error else 7)
        index.grant([0], "c")
        index.add(rows(1))
        expected = ids_of(index)
        index.close()
        with VectorIndex.open(folder) as again:
            assert ids_of(again) == expected
            assert ids_of(again, "c") == [0]
        if at >= len(made):
            assert (error, made) == (None, ["pwrite", "fsync"])
            break
        assert isinstance(error, Unavailable)
        assert made[at + 1 :] == ["ftruncate", "fsync"]
        at += 1


def test_a_journal_that_cannot_be_mended_takes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = VectorIndex.open(tmp_path / "index", DIM, threads=1)
    index.add(rows(5), tenants="a")

    def refuse(*args: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(CommitUnknown, match="may be when the index is opened again"):
            index.add(rows(2), tenants="b")
    assert ids_of(index) == list(range(5))
    for act in (lambda: index.add(rows(1)), lambda: index.delete([0]), index.save):
        with pytest.raises(Unavailable, match="open the index again"):
            act()
    index.close()
    with VectorIndex.open(tmp_path / "index") as again:
        assert ids_of(again) in (list(range(5)), list(range(7)))
        again.delete([0])


def test_an_error_at_every_system_call_of_a_snapshot(tmp_path: Path, failing: Callable[..., Any]) -> None:
    index, at, refusals, number = VectorIndex.open(tmp_path / "index", DIM, threads=1), 0, 0, 0
    while True:
        made, error = failing(index.save, at, errno.ENOSPC, (Unavailable, CommitUnknown))
        refusals += error is not None
        index.add(rows(1, at), tenants="a")
        number += 1
        if at % 5 == 0:
            index.close()
            index = VectorIndex.open(tmp_path / "index", threads=1)
        assert ids_of(index) == list(range(number)), made[at:]
        if at >= len(made):
            break
        at += 1
    assert at > 25
    assert refusals > 20
    index.close()


def test_a_disk_without_room(tmp_path: Path) -> None:
    """The file system itself refuses: a limit on the size of files."""
    program = """
import resource, signal, sys
import numpy as np
from lakelet.lake.errors import Unavailable
from lakelet.vector.index import VectorIndex
index = VectorIndex.open(sys.argv[1], 8, threads=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for turn in range(500):
    try:
        index.add(np.ones((10, 8), np.float32))
    except Unavailable as error:
        print(len(index), error)
        break
index.delete([0])
print(len(index))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "index")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, last = done.stdout.splitlines()
    count, told = first.split(maxsplit=1)
    assert told.startswith(f"could not write {tmp_path / 'index'}")
    assert 100 < int(count) < 5_000
    assert int(last) == int(count) - 1
    with VectorIndex.open(tmp_path / "index") as index:
        assert ids_of(index) == list(range(1, int(count)))
