"""The process dies, or an answer is lost, at every single request and every system call of a small history.

Whatever was acknowledged is there afterwards, exactly once; what was in flight is there once or not at all; the lake
opens, checks out, and takes the next commit.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake import group as group_module
from lakelet.lake import log as log_module
from lakelet.lake import slot as slot_module
from lakelet.lake.changes import AddFiles, Change, CreateTable, DataFile, SetIndex, TableUnchanged
from lakelet.lake.errors import CommitUnknown, Conflict, Unavailable
from lakelet.lake.log import Log
from lakelet.lake.stores import open_store
from lakelet.lake.table_index import IndexSegment, TableIndex

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lakelet.lake.store import Store

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Crash(BaseException):
    """The process is dead: nothing that it does from now on reaches the store."""


class CrashingStore:
    """Dies at request number ``at``, before it is done or right after; ``at`` beyond the last one: never."""

    def __init__(self, inner: Store, at: int, *, after: bool) -> None:
        self.inner = inner
        self.at = at
        self.after = after
        self.count = 0
        self.lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in {"create", "put", "get", "get_many", "exists", "list", "delete"}:
            return found

        def watched(*args: Any) -> Any:
            with self.lock:
                number = self.count
                self.count += 1
            if number > self.at or (number == self.at and not self.after):
                raise Crash
            answer = found(*args)
            if number == self.at:
                raise Crash
            return answer

        return watched


def index_named(name: str) -> TableIndex:
    segment = IndexSegment(f"data/t/{name}.segment", 9, "5e" * 32, ("n0", name), (0, 1), (1, 0))
    return TableIndex(name, f"column {name}", f'{{"of":"{name}"}}', (segment, segment))


def change_named(name: str) -> Change:
    if name.startswith("i"):
        return SetIndex("t", index_named(name))
    return AddFiles("t", (DataFile(name, f"data/t/{name}", 1, 1, 0, f'"{name}"'),))


def commit_all(log: Log, names: list[str], acknowledged: list[str]) -> None:
    """A table, then one commit for each name, of an index where it starts with i and else an append.

    It waits for checkpoints, so that every run makes the same requests.
    """
    base = log.latest()
    if base.version == 0:
        log.commit([CreateTable("t", "table", "s")], [], operation="create", base=base)
    for name in names:
        base = log.latest()
        needs = [TableUnchanged("t", base.version, index=True)]
        log.commit([change_named(name)], needs, operation=name, base=base)
        acknowledged.append(name)
        log.close()


def check(store: Store, acknowledged: list[str], in_doubt: set[str]) -> None:
    """The promise. Also that a checkpoint, if there is one, says what the log says."""
    log = Log(store)
    latest = log.latest()
    table = latest.tables.get("t")
    found = Counter([*table.files, *table.indexes] if table is not None else ())  # type: ignore[union-attr]
    assert set(acknowledged) <= set(found)
    assert set(found) <= set(acknowledged) | in_doubt
    operations = Counter(line.operation for line in log.history())
    assert all(count == 1 for count in operations.values())
    assert set(operations) - {"create"} == set(found)
    assert sorted({line.version for line in log.history()}) == list(range(1, latest.version + 1))
    if table is not None:
        assert all(file.stats == f'"{name}"' for name, file in table.files.items())  # type: ignore[union-attr]
        assert all(index == index_named(name) for name, index in table.indexes.items())  # type: ignore[union-attr]
    # without hint and checkpoints, from the entries alone
    for info in list(store.list("_lakelet/checkpoints/")):
        store.delete([info.path])
    store.delete(["_lakelet/hint"])
    assert Log(store).latest() == latest
    more: list[str] = []
    commit_all(Log(store), ["next"], more)
    assert more == ["next"]
    assert "next" in Log(store).latest().tables["t"].files  # type: ignore[union-attr]


NAMES = ["n0", "i1", "n2", "n3"]


def crash_everywhere(make_store: Callable[[], Store], *, after: bool) -> int:
    at = 0
    while True:
        store = make_store()
        crashing: Any = CrashingStore(store, at, after=after)
        acknowledged: list[str] = []
        try:
            log = Log(crashing)
            commit_all(log, NAMES, acknowledged)
        except Crash:
            pass
        in_doubt = set(NAMES[len(acknowledged) : len(acknowledged) + 1])
        check(store, acknowledged, in_doubt)
        if crashing.count <= at:
            assert acknowledged == NAMES
            return at
        at += 1


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_every_request(monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    monkeypatch.setattr(log_module, "CHECKPOINT_EVERY_VERSIONS", 2)
    requests = crash_everywhere(lambda: open_store(f"memory://{uuid.uuid4().hex}"), after=after)
    assert requests > 30


CALLS = ["open", "write", "fsync", "link", "replace", "unlink", "mkdir", "close"]


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_every_system_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """As above, between the system calls of the local store. Nothing is cleaned up: the dead do not."""
    monkeypatch.setattr(log_module, "CHECKPOINT_EVERY_VERSIONS", 2)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the process dies here, not the machine
    at, count, lake = 0, 0, 0
    while at <= count:
        count = 0
        lake += 1
        store = open_store(tmp_path / str(lake))
        acknowledged: list[str] = []
        with monkeypatch.context() as patch:

            def watch(real: Callable[..., Any], at: int = at) -> Callable[..., Any]:
                def watched(*args: Any, **kwargs: Any) -> Any:
                    nonlocal count
                    number = count
                    count += 1
                    if number > at or (number == at and not after):
                        raise Crash
                    answer = real(*args, **kwargs)
                    if number == at:
                        raise Crash
                    return answer

                return watched

            for call in CALLS:
                patch.setattr(os, call, watch(getattr(os, call)))
            with contextlib.suppress(Crash):
                commit_all(Log(store), NAMES[:2], acknowledged)
        check(store, acknowledged, set(NAMES[len(acknowledged) : len(acknowledged) + 1]))
        at += 1
    assert at > 60


# --- lost answers and refusals -----------------------------------------------------------------------------------


class FaultyStore:
    """Goes wrong at chosen requests, and on: ``faults`` maps their numbers to what happens."""

    def __init__(self, inner: Store, faults: dict[int, str]) -> None:
        self.inner = inner
        self.faults = faults
        self.count = 0
        self.lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in {"create", "put", "get", "get_many", "exists", "list", "delete"}:
            return found

        def watched(*args: Any) -> Any:
            with self.lock:
                fault = self.faults.get(self.count)
                self.count += 1
            if fault is None:
                return found(*args)
            if fault == "refused":
                raise Unavailable("refused")
            if fault == "lost request":
                raise (CommitUnknown if name == "create" else Unavailable)("lost request")
            found(*args)
            if fault == "retried by the SDK" and name == "create":
                return False
            raise (CommitUnknown if name == "create" else Unavailable)("lost answer")

        return watched


def commit_through_faults(store: Store, faults: dict[int, str]) -> None:
    """Two writers take turns, each through its own faults, and go on after errors."""
    shared: Any = FaultyStore(store, faults)
    logs = [Log(shared), Log(shared)]
    acknowledged: list[str] = []
    in_doubt: set[str] = set()
    refused: set[str] = set()
    commit_all(Log(store), [], [])
    for turn in range(5):
        log, name = logs[turn % 2], f"n{turn}" if turn % 3 else f"i{turn}"
        try:
            commit_all(log, [name], acknowledged)
        except CommitUnknown:
            in_doubt.add(name)
        except (Unavailable, Conflict):
            refused.add(name)
    shared.faults = {}
    table: Any = Log(store).latest().tables["t"]
    assert not refused & {*table.files, *table.indexes}
    check(store, acknowledged, in_doubt)


@pytest.mark.parametrize("fault", ["refused", "lost request", "lost answer", "retried by the SDK"])
def test_every_answer_lost_once(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(log_module, "CHECKPOINT_EVERY_VERSIONS", 3)
    monkeypatch.setattr(group_module, "COMMIT_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(slot_module, "COMMIT_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(slot_module, "_BACKOFF_SECONDS", (0.0, 0.001))
    for at in range(40):
        commit_through_faults(open_store(f"memory://{uuid.uuid4().hex}"), {at: fault})


FAULTS = st.dictionaries(
    st.integers(0, 40), st.sampled_from(["refused", "lost request", "lost answer", "retried by the SDK"]), max_size=20
)


@settings(max_examples=60)
@given(FAULTS)
def test_many_answers_lost(faults: dict[int, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "CHECKPOINT_EVERY_VERSIONS", 3)
        patch.setattr(group_module, "COMMIT_RETRY_SECONDS", 0.02)
        patch.setattr(slot_module, "COMMIT_RETRY_SECONDS", 0.02)
        patch.setattr(slot_module, "_BACKOFF_SECONDS", (0.0, 0.001))
        commit_through_faults(open_store(f"memory://{uuid.uuid4().hex}"), faults)


def test_an_interrupt_in_a_group_leaves_the_others_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader is interrupted inside its put: its followers are told that they do not know, not that it failed."""
    inner = open_store(f"memory://{uuid.uuid4().hex}")
    commit_all(Log(inner), [], [])
    waiting, interrupted, go = threading.Event(), threading.Event(), threading.Event()

    class Interrupting:
        def create(self, path: str, data: bytes) -> bool:
            if b"follower" in data and not interrupted.is_set():
                interrupted.set()
                inner.create(path, data)
                raise KeyboardInterrupt
            if b"first" in data:
                waiting.set()
                assert go.wait(30)
            return inner.create(path, data)

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    interrupting: Any = Interrupting()
    log = Log(interrupting)
    base = log.latest()
    told: dict[str, BaseException | None] = {}

    def run(name: str) -> None:
        try:
            files = (DataFile(name, f"data/t/{name}", 1, 1, 0, f'"{name}"'),)
            log.commit([AddFiles("t", files)], [], operation=name, base=base)
            told[name] = None
        except BaseException as error:
            told[name] = error

    threads = [threading.Thread(target=run, args=(name,)) for name in ("first", "follower 1", "follower 2")]
    threads[0].start()
    assert waiting.wait(30)
    for count, thread in enumerate(threads[1:], start=1):
        thread.start()
        until = time.monotonic() + 30
        while len(log._group._queue) < count and time.monotonic() < until:
            time.sleep(0.001)
    go.set()
    for thread in threads:
        thread.join(30)
    assert told["first"] is None
    kinds = sorted(type(told[name]).__name__ for name in ("follower 1", "follower 2"))
    assert kinds == ["CommitUnknown", "KeyboardInterrupt"]
    acknowledged = [name for name, error in told.items() if error is None]
    check(inner, acknowledged, {"follower 1", "follower 2"})
