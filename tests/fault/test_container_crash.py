"""A container is overwritten, and at every system call the process dies or the call fails: the old or the new is there.

What was mapped before goes on to be read, and an error that is told leaves nothing beside the file.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from lakelet.lake.errors import CommitUnknown, Unavailable
from lakelet.vector import container
from lakelet.vector.container import read, write

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 3_000


def put(path: Path, number: int) -> None:
    """Version ``number``: every array is full of it, and meta says it."""
    arrays = {"a": np.full(ROWS, number, np.int32), "b": np.full((number % 7, 3), number, np.float32)}
    write(path, kind="k", meta={"number": number}, arrays={**arrays, "c": arrays["a"][::2]})


def number_in(path: Path, *, mmap: bool = True) -> int:
    """The version at ``path``, once all of it was found to be of that version."""
    meta, arrays = read(path, kind="k", mmap=mmap)
    number: int = meta["number"]
    assert {name: array.shape for name, array in arrays.items()} == {
        "a": (ROWS,),
        "b": (number % 7, 3),
        "c": (ROWS // 2,),
    }
    assert all((array == number).all() for array in arrays.values())
    return number


@pytest.fixture(autouse=True)
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several writes for each array."""
    monkeypatch.setattr(container, "CHUNK_BYTES", 4_096)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("old", [None, 1])
def test_a_crash_at_every_system_call(
    tmp_path: Path, dying: Callable[..., list[str]], after: bool, old: int | None
) -> None:
    """Nothing is cleaned up: the dead do not."""
    at, seen = 0, set()
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        path = folder / "f"
        if old is not None:
            put(path, old)

        made = dying(partial(put, path, 2), at, after)
        found = number_in(path) if path.exists() else None
        assert found in {old, 2}
        seen.add(found)
        assert len([name for name in os.listdir(folder) if name != "f"]) <= 1
        put(path, 3)
        assert number_in(path) == 3
        if len(made) <= at:
            assert found == 2
            break
        at += 1
    assert at > 15
    assert seen == {old, 2}


MENDS = {
    errno.ENOSPC: "free some space",
    errno.EACCES: "grant",
    errno.EIO: "see that the disk",
    errno.EROFS: "mount it",
}


@pytest.mark.parametrize("code", MENDS)
def test_an_error_at_every_system_call(tmp_path: Path, failing: Callable[..., Any], code: int) -> None:
    path = tmp_path / "f"
    at, told = 0, []
    while True:
        put(path, 1)

        made, error = failing(partial(put, path, 2), at, code, (Unavailable, CommitUnknown))
        told.append((made[at] if at < len(made) else "none", type(error).__name__))
        assert number_in(path) == (1 if isinstance(error, Unavailable) else 2), told
        if isinstance(error, Unavailable):
            assert str(error).startswith(f"could not write {path}: ")
            assert MENDS[code] in str(error)
        elif error is not None:
            assert f"{path} was written, but may not survive power loss" in str(error)
        left = [name for name in os.listdir(tmp_path) if name != "f"]
        assert not left or (made[at] == "unlink" and len(left) <= 1), told
        if at >= len(made):
            break
        at += 1
    before, after = told[: len(told) - 5], told[-5:]
    assert {what for _, what in before} == {"Unavailable"}
    assert after == [
        ("unlink", "NoneType"),
        *((name, "CommitUnknown") for name in ("open", "fsync", "close")),
        ("none", "NoneType"),
    ]


def test_what_is_written_is_synced_before_it_gets_its_name(tmp_path: Path, watch: Callable[..., list[str]]) -> None:
    made = watch(lambda: put(tmp_path / "f", 1), lambda number, name, call: call())
    order = [name for name in made if name in {"pwrite", "fsync", "replace"}]
    writes = order.count("pwrite")
    assert writes > 5
    assert order == ["pwrite"] * writes + ["fsync", "replace", "fsync"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    put(tmp_path / "whole", 5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda descriptor, data, at: real(descriptor, data[: min(len(data), 1_000)], at))
        put(tmp_path / "parts", 5)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("what", ["interrupt", "a full disk", "a missing folder"])
def test_an_error_leaves_nothing_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    path = tmp_path / "f"
    put(path, 1)

    def refuse(*args: Any) -> int:
        raise KeyboardInterrupt if what == "interrupt" else OSError(errno.ENOSPC, "No space left on device")

    if what == "a missing folder":
        with pytest.raises(Unavailable, match="its folder is not there: make it first"):
            put(tmp_path / "none" / "f", 2)
    else:
        monkeypatch.setattr(os, "pwrite", refuse)
        with pytest.raises(KeyboardInterrupt if what == "interrupt" else Unavailable):
            put(path, 2)
    assert os.listdir(tmp_path) == ["f"]
    assert number_in(path) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is permitted to root")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "f"
    put(path, 1)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(Unavailable, match="permission denied"):
            put(path, 2)
        assert number_in(path) == 1
    finally:
        tmp_path.chmod(0o700)


def test_a_file_without_room_for_it(tmp_path: Path) -> None:
    """The file system itself refuses: a limit on the size of files."""
    put(tmp_path / "f", 1)
    program = """
import resource, signal, sys
import numpy as np
from lakelet.lake.errors import Unavailable
from lakelet.vector.container import write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write(sys.argv[1], kind="k", meta={}, arrays={"a": np.zeros(30_000)})
except Unavailable as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "f"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"could not write {tmp_path / 'f'}: ")
    assert number_in(tmp_path / "f") == 1
    assert os.listdir(tmp_path) == ["f"]


# --- readers and writers at once -----------------------------------------------------------------------------------


def test_what_was_mapped_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "f"
    put(path, 1)
    _, old = read(path, kind="k")
    put(path, 2)
    _, new = read(path, kind="k")
    path.unlink()
    assert (old["a"] == 1).all()
    assert (new["a"] == 2).all()
    put(path, 3)
    # a container that is made of what it replaces
    _, mapped = read(path, kind="k")
    write(path, kind="k", meta={"number": 3}, arrays=mapped)
    assert number_in(path) == 3


def test_readers_and_writers_at_once(tmp_path: Path) -> None:
    path = tmp_path / "f"
    put(path, 0)
    stop = threading.Event()
    counts = [0, 0, 0]
    errors: list[BaseException] = []

    def run(place: int, work: Callable[[], object]) -> None:
        try:
            while not stop.is_set():
                work()
                counts[place] += 1
        except BaseException as error:
            errors.append(error)

    works: list[Callable[[], object]] = [
        lambda: put(path, counts[0]),
        lambda: number_in(path, mmap=True),
        lambda: number_in(path, mmap=False),
    ]
    threads = [threading.Thread(target=run, args=(place, work)) for place, work in enumerate(works)]
    for thread in threads:
        thread.start()
    time.sleep(0.7)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert min(counts) > 2
    assert os.listdir(tmp_path) == ["f"]


WRITER = """
import sys
import numpy as np
from lakelet.vector.container import write
number = int(sys.argv[2])
while True:
    number += 1
    arrays = {"a": np.full(3_000, number, np.int32), "b": np.full((number % 7, 3), number, np.float32)}
    write(sys.argv[1], kind="k", meta={"number": number}, arrays={**arrays, "c": arrays["a"][::2]})
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_told_of(tmp_path: Path) -> None:
    path = tmp_path / "f"
    put(path, 0)
    number = 0
    for delay in (0.0, 0.003, 0.011, 0.02, 0.05):
        command = [sys.executable, "-c", WRITER, str(path), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            first = writer.stdout.readline()
            assert first
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
            rest = writer.stdout.read()
            assert writer.wait(60) == -signal.SIGKILL
        told = (first + rest[: rest.rfind("\n") + 1]).split()
        number = number_in(path)
        assert int(told[-1]) <= number <= int(told[-1]) + 1
    put(path, 1)
    assert number_in(path) == 1
