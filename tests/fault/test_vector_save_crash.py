"""An index is saved over another, and each system call is the last one or fails: one of the two indexes is there."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lakelet.lake.errors import CommitUnknown, Unavailable
from lakelet.vector import container
from lakelet.vector import index as index_module
from lakelet.vector.index import VectorIndex

DIM = 8


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 100)


def numbered(number: int) -> VectorIndex:
    """A segment and a delta, every row of a tenant of this number."""
    index = VectorIndex(DIM, threads=1)
    random = np.random.default_rng(number)
    for rows in (120, 5 + number):
        index.add(random.standard_normal((rows, DIM)).astype(np.float32), tenants=[[number, "a"]] * rows)
    return index


def number_in(path: Path) -> int:
    """The number of the index at ``path``, once it was found to be whole."""
    index = VectorIndex.load(path)
    (_, rows, _), _ = usage = index.tenants()
    number = usage[0].label
    assert isinstance(number, int)
    assert rows == usage[1].rows == len(index) == 125 + number
    ids = index.search(np.zeros(DIM, np.float32), 200, number, exact=True)[0][0]
    assert sorted(ids[ids >= 0].tolist()) == list(range(rows))
    return number


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("old", [None, 1])
def test_a_crash_at_every_system_call_of_a_save(
    tmp_path: Path, dying: Callable[..., list[str]], after: bool, old: int | None
) -> None:
    """Nothing is cleaned up: the dead do not."""
    first, second, third = (numbered(number) for number in (1, 2, 3))
    at, seen = 0, set()
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        path = folder / "f"
        if old is not None:
            first.save(path)

        made = dying(partial(second.save, path), at, after)
        found = number_in(path) if path.exists() else None
        assert found in {old, 2}
        seen.add(found)
        third.save(path)
        assert number_in(path) == 3
        if len(made) <= at:
            assert found == 2
            break
        at += 1
    assert at > 30
    assert seen == {old, 2}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("mapped", [False, True])
def test_an_error_at_every_system_call_of_a_save(
    tmp_path: Path, failing: Callable[..., Any], code: int, mapped: bool
) -> None:
    """The index itself goes on, also when it is mapped from the very file."""
    path = tmp_path / "f"
    numbered(1).save(path)
    first = VectorIndex.load(path) if mapped else numbered(1)
    second, at, kinds = numbered(2), 0, set()
    while True:
        first.save(path)

        made, error = failing(partial(second.save, path), at, code, (Unavailable, CommitUnknown))
        kinds.add(type(error))
        assert number_in(path) == (1 if isinstance(error, Unavailable) else 2), made[at:]
        assert len(first) == 126
        assert first.search(np.zeros(DIM, np.float32), 200, 1, exact=True)[0][0, 125] >= 0
        if at >= len(made):
            break
        at += 1
    assert kinds == {Unavailable, CommitUnknown, type(None)}


def test_a_save_that_fails_holds_no_lock(tmp_path: Path) -> None:
    index = numbered(1)
    with pytest.raises(Unavailable):
        index.save(tmp_path / "none" / "f")
    index.add(np.ones((1, DIM), np.float32), tenants=[[1, "a"]])
    index.delete([0])
    index.optimize()
    index.save(tmp_path / "f")
    assert len(VectorIndex.load(tmp_path / "f")) == 126


def test_writers_go_on_while_the_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, real, added = numbered(2), container.write, list[int]()

    def write(*args: Any, **kwargs: Any) -> None:
        added.extend(index.add(np.ones((3, DIM), np.float32), tenants=[[2, "a"]] * 3).tolist())
        index.delete([0, 1])
        index.revoke([5], "a")
        index.drop_tenant("a", keep_rows=True)
        index.optimize()
        real(*args, **kwargs)

    monkeypatch.setattr(container, "write", write)
    index.save(tmp_path / "f")
    assert added == [127, 128, 129]
    assert number_in(tmp_path / "f") == 2  # as it was when it was taken


PROGRAM = """
import sys
import numpy as np
from lakelet.vector import index as index_module
from lakelet.vector.index import VectorIndex
index_module.VECTOR_BULK_ROWS = 100
index, number = VectorIndex.load(sys.argv[1], threads=1), 125
while True:
    index.add(np.full((1, 8), number, np.float32), tenants=[[0, "a"]])
    number += 1
    if number % 20 == 0:
        index.optimize()
    index.save(sys.argv[1])
    print(number, flush=True)
"""


def test_a_killed_process_loses_nothing_it_told_of(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for delay in (0.0, 0.013, 0.04):
        numbered(0).save(path)
        command = [sys.executable, "-c", PROGRAM, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read()
            assert writer.wait(60) == -signal.SIGKILL
        told = int((first + rest[: rest.rfind("\n") + 1]).split()[-1])
        index = VectorIndex.load(path)
        assert told <= len(index) <= told + 1
        ids = index.search(np.zeros(DIM, np.float32), 5_000, "a", exact=True)[0][0]
        assert sorted(ids[ids >= 0].tolist()) == list(range(len(index)))
