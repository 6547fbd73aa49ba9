"""Committing: requirements, races, rebases, groups, and what is refused."""

from __future__ import annotations

import json
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from lakelet.lake import group as group_module
from lakelet.lake import log as log_module
from lakelet.lake import slot as slot_module
from lakelet.lake.changes import (
    AddFiles,
    Change,
    CreateTable,
    DataFile,
    DeleteRows,
    DeletionFile,
    DropTable,
    FilesPresent,
    NameFree,
    RemoveFiles,
    RenameTable,
    SetSchema,
    SetView,
    TableUnchanged,
)
from lakelet.lake.entry import log_path
from lakelet.lake.errors import CommitUnknown, Conflict, Corrupt, InvalidInput, LimitExceeded, Unavailable
from lakelet.lake.log import Log
from lakelet.lake.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lakelet.lake.snapshot import Snapshot
    from lakelet.lake.store import Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path / "lake" if request.param == "local" else f"memory://{uuid.uuid4().hex}/lake")


@pytest.fixture
def log(store: Store) -> Iterator[Log]:
    with Log(store) as opened:
        yield opened


def file(name: str, rows: int = 10, **more: Any) -> DataFile:
    return DataFile(name, f"data/t/{name}.parquet", rows, rows * 8, 0, **more)


def create(log: Log, table_id: str, name: str) -> Snapshot:
    changes = [CreateTable(table_id, name, "schema")]
    return log.commit(changes, [NameFree(name)], operation="create", base=log.latest())


def append(log: Log, table_id: str, name: str) -> Snapshot:
    base = log.latest()
    requirements = [TableUnchanged(table_id, base.version)]
    return log.commit([AddFiles(table_id, (file(name),))], requirements, operation="append", base=base)


def log_files(store: Store) -> list[str]:
    return sorted(info.path for info in store.list("_lakelet/log/"))


def test_the_first_commit_makes_the_lake(store: Store, log: Log) -> None:
    assert log.latest().version == 0
    assert list(store.list("")) == []
    after = create(log, "t", "a")
    assert after.version == 1
    assert len(after.hash_seed) == 64
    assert after.lake_id
    assert Log(store).latest() == after
    assert log_files(store) == [log_path(1)]
    assert create(log, "u", "b").lake_id == after.lake_id


def test_create_with_a_seed_is_done_once(store: Store, log: Log) -> None:
    assert log.create(seed="ab" * 32).hash_seed == "ab" * 32
    assert log.create(seed="cd" * 32).hash_seed == "ab" * 32
    assert log.latest().version == 1
    for seed in ("", "ab", "AB" * 32, "zz" * 32):
        with pytest.raises(InvalidInput):
            Log(store).create(seed=seed)


def test_appends_never_conflict(store: Store, log: Log) -> None:
    base = create(log, "t", "a")
    other = Log(store)
    for number in range(3):
        add = [AddFiles("t", (file(f"x{number}"),))]
        log.commit(add, [TableUnchanged("t", base.version)], operation="append", base=base)
        add = [AddFiles("t", (file(f"y{number}"),))]
        other.commit(add, [TableUnchanged("t", base.version)], operation="append", base=base)
    latest = log.latest()
    assert list(latest.tables["t"].files) == ["x0", "y0", "x1", "y1", "x2", "y2"]  # type: ignore[union-attr]
    assert latest == other.latest() == Log(store).latest()


@pytest.mark.parametrize(
    ("other", "requirement", "words"),
    [
        ([AddFiles("t", (file("new"),))], TableUnchanged("t", 1, rows=True), "rows of table 'a' changed"),
        ([SetSchema("t", "wider")], TableUnchanged("t", 1), "schema of table 'a' changed"),
        ([RenameTable("t", "z")], TableUnchanged("t", 1, name=True), "renamed"),
        ([DropTable("t")], TableUnchanged("t", 1, schema=False), "dropped"),
        ([DropTable("t")], FilesPresent("t", ("f",)), "dropped"),
        ([RemoveFiles("t", ("f",))], FilesPresent("t", ("f",)), "replaced"),
        ([CreateTable("u", "b", "s")], NameFree("b"), "'b' is taken"),
        ([SetView("b", "SELECT 1")], NameFree("b"), "'b' is taken"),
    ],
)
def test_a_broken_requirement_is_a_conflict(
    store: Store, log: Log, other: Sequence[Change], requirement: Any, words: str
) -> None:
    changes = [CreateTable("t", "a", "s"), AddFiles("t", (file("f"),))]
    base = log.commit(changes, [], operation="create", base=log.latest())
    Log(store).commit(other, [], operation="other", base=base)
    with pytest.raises(Conflict, match=words):
        log.commit([SetView("v", "SELECT 2")], [requirement], operation="mine", base=base)
    assert log.latest().version == 2
    assert "v" not in log.latest().views


def test_impossible_changes_are_refused_before_anything_is_written(store: Store, log: Log) -> None:
    base = create(log, "t", "a")
    impossible: list[list[Change]] = [
        [AddFiles("nope", (file("x"),))],
        [AddFiles("t", (file("x"), file("x")))],
        [AddFiles("t", (DataFile("x", "data/t/x", 1, 1, 7),))],
        [AddFiles("t", (DataFile("x", "../x", 1, 1, 0),))],
        [RemoveFiles("t", ("nope",))],
        [CreateTable("t", "other", "s")],
        [CreateTable("u", "a", "s")],
        [SetView("a", "SELECT 1")],
        [RenameTable("nope", "b")],
        [DropTable("t"), DropTable("t")],
        [SetView("\ud800", "SELECT 1")],
        [AddFiles("t", (DataFile("x", "data/t/x", -1, 1, 0),))],
    ]
    for changes in impossible:
        with pytest.raises(InvalidInput):
            log.commit(changes, [], operation="bad", base=base)
    assert log.latest() == base
    assert log_files(store) == [log_path(1)]


def test_the_same_changes_on_a_lost_race_are_a_conflict(store: Store, log: Log) -> None:
    base = create(log, "t", "a")
    Log(store).commit([DropTable("t")], [], operation="drop", base=base)
    with pytest.raises(Conflict, match=r"dropped|no table"):
        log.commit([AddFiles("t", (file("x"),))], [], operation="append", base=base)


def test_read_only_and_foreign_bases(store: Store, log: Log, tmp_path: Path) -> None:
    base = create(log, "t", "a")
    with pytest.raises(InvalidInput, match="read-only"):
        Log(store, read_only=True).commit([DropTable("t")], [], operation="drop", base=base)
    with pytest.raises(InvalidInput, match="read-only"):
        Log(open_store(tmp_path / "none"), read_only=True).create()
    assert not (tmp_path / "none").exists()
    foreign = create(Log(open_store(tmp_path / "other")), "t", "a")
    with pytest.raises(InvalidInput, match="base"):
        log.commit([DropTable("t")], [], operation="drop", base=foreign)


def test_a_commit_without_changes_writes_nothing(store: Store, log: Log) -> None:
    base = create(log, "t", "a")
    assert log.commit([], [TableUnchanged("t", 1)], operation="read", base=base) == base
    with pytest.raises(Conflict):
        log.commit([], [NameFree("a")], operation="read", base=base)
    assert log_files(store) == [log_path(1)]


def test_files_begun_before_the_grace_are_refused(log: Log) -> None:
    base = create(log, "t", "a")
    long_ago = int((time.time() - 86_000) * 1_000_000)
    with pytest.raises(Conflict, match="hours ago"):
        log.commit([AddFiles("t", (file("x"),))], [], operation="append", base=base, begun_us=long_ago)


# --- rebase ------------------------------------------------------------------------------------------------------


def delete(name: str, path: str, rows: int, base: str | None) -> DeleteRows:
    return DeleteRows("t", name, DeletionFile(path, rows, 10), base)


def test_deletions_rebase_on_those_that_won(store: Store, log: Log) -> None:
    changes = [CreateTable("t", "a", "s"), AddFiles("t", (file("f"), file("g")))]
    base = log.commit(changes, [], operation="create", base=log.latest())
    Log(store).commit([delete("f", "data/t/d1", 2, None)], [], operation="delete", base=base)
    seen: list[int] = []

    def rebase(won: Snapshot, ours: Sequence[Change]) -> Sequence[Change]:
        seen.append(won.version)
        assert isinstance(ours[0], DeleteRows)
        if len(seen) == 1:  # while we merge, somebody deletes again
            Log(store).commit([delete("f", "data/t/d2", 3, "data/t/d1")], [], operation="delete", base=won)
        held = won.tables["t"].files["f"].deletion  # type: ignore[union-attr]
        return [delete("f", f"data/t/merged{len(seen)}", held.rows + 3, held.path)]

    requirements = [FilesPresent("t", ("f",))]
    mine = [delete("f", "data/t/mine", 3, None)]
    after = log.commit(mine, requirements, operation="delete", base=base, rebase=rebase)
    assert seen == [2, 3]
    assert after.tables["t"].files["f"].deletion == DeletionFile("data/t/merged2", 6, 10)  # type: ignore[union-attr]
    assert after.tables["t"].num_rows == 14  # type: ignore[union-attr]


def test_without_a_rebase_deleting_on_a_changed_file_conflicts(store: Store, log: Log) -> None:
    changes = [CreateTable("t", "a", "s"), AddFiles("t", (file("f"),))]
    base = log.commit(changes, [], operation="create", base=log.latest())
    Log(store).commit([delete("f", "data/t/d1", 2, None)], [], operation="delete", base=base)
    with pytest.raises(Conflict):
        log.commit([delete("f", "data/t/d2", 2, None)], [], operation="delete", base=base)


def test_a_rebase_that_refuses_is_the_callers_conflict(store: Store, log: Log) -> None:
    changes = [CreateTable("t", "a", "s"), AddFiles("t", (file("f"),))]
    base = log.commit(changes, [], operation="create", base=log.latest())
    Log(store).commit([delete("f", "data/t/d1", 2, None)], [], operation="delete", base=base)

    def rebase(won: Snapshot, ours: Sequence[Change]) -> Sequence[Change]:
        raise Conflict("the same rows")

    with pytest.raises(Conflict, match="the same rows"):
        log.commit([delete("f", "data/t/d2", 2, None)], [], operation="delete", base=base, rebase=rebase)
    assert append(log, "t", "later").version == 3


# --- groups ------------------------------------------------------------------------------------------------------


class SlowStore:
    """A store whose create waits until it is let go, so that others queue up behind it."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.go = threading.Event()
        self.entered = threading.Event()

    def create(self, path: str, data: bytes) -> bool:
        self.entered.set()
        assert self.go.wait(30)
        return self.inner.create(path, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def run_queued(slow: SlowStore, log: Log, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The first call enters the store; the others queue up behind it; then all go on."""
    answers: list[Any] = [None] * len(calls)

    def run(place: int) -> None:
        try:
            answers[place] = calls[place]()
        except Exception as error:
            answers[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    threads[0].start()
    assert slow.entered.wait(30)
    for count, thread in enumerate(threads[1:], start=1):
        thread.start()
        until = time.monotonic() + 30
        while len(log._group._queue) < count and time.monotonic() < until:
            time.sleep(0.001)
    slow.go.set()
    for thread in threads:
        thread.join()
    return answers


def test_queued_commits_share_one_entry_and_fail_alone(store: Store) -> None:
    base = create(Log(store), "t", "a")
    slow: Any = SlowStore(store)
    log = Log(slow)
    log.latest()

    def add(name: str) -> Callable[[], Snapshot]:
        change, need = AddFiles("t", (file(name),)), TableUnchanged("t", base.version)
        return lambda: log.commit([change], [need], operation=f"append {name}", base=base)

    def broken() -> Snapshot:
        return log.commit([SetView("v", "SELECT 1")], [NameFree("a")], operation="broken", base=base)

    def overwrite() -> Snapshot:
        needs = [TableUnchanged("t", base.version, rows=True)]
        return log.commit([AddFiles("t", (file("o"),))], needs, operation="overwrite", base=base)

    answers = run_queued(slow, log, [add("x"), add("y"), broken, add("z"), overwrite])
    assert [getattr(answer, "version", type(answer)) for answer in answers] == [2, 3, Conflict, 3, Conflict]
    assert len(log_files(store)) == 3
    assert [(c.version, c.operation, c.tables) for c in log.history()[1:]] == [
        (2, "append x", ("a",)),
        (3, "append y", ("a",)),
        (3, "append z", ("a",)),
    ]
    assert Log(store).latest() == log.latest() == answers[3]


def test_many_threads_commit_everything_once(store: Store) -> None:
    """Two logs, as if two processes, with many threads each: leaders change all the time, and everybody is woken."""
    create(Log(store), "t", "a")
    logs = [Log(store), Log(store)]
    failed: list[BaseException] = []

    def run(thread: int) -> None:
        try:
            for number in range(8):
                append(logs[thread % 2], "t", f"{thread}-{number}")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failed
    assert not any(thread.is_alive() for thread in threads)
    expected = sorted(f"{thread}-{number}" for thread in range(16) for number in range(8))
    assert sorted(Log(store).latest().tables["t"].files) == expected  # type: ignore[union-attr]
    assert len(logs[0].history()) == 1 + len(expected)
    assert logs[0].history() == logs[1].history() == Log(store).history()


def test_names_claimed_in_one_group_go_to_the_first(store: Store) -> None:
    base = create(Log(store), "t", "a")
    slow: Any = SlowStore(store)
    log = Log(slow)
    log.latest()

    def make(table_id: str, name: str) -> Callable[[], Snapshot]:
        return lambda: log.commit([CreateTable(table_id, name, "s")], [NameFree(name)], operation="create", base=base)

    answers = run_queued(slow, log, [make("x", "first"), make("y", "b"), make("z", "b"), make("w", "c")])
    assert isinstance(answers[2], Conflict)
    assert dict(log.latest().names) == {"a": "t", "first": "x", "b": "y", "c": "w"}


def test_an_entry_above_the_limit_is_split_and_a_single_one_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = create(Log(store), "t", "a")
    monkeypatch.setattr(group_module, "LOG_ENTRY_BYTES", 2_000)
    slow: Any = SlowStore(store)
    log = Log(slow)
    log.latest()

    def view(name: str, width: int) -> Callable[[], Snapshot]:
        return lambda: log.commit([SetView(name, "x" * width)], [], operation="view", base=base)

    answers = run_queued(
        slow, log, [view("v0", 900), view("v1", 900), view("big", 3_000), view("v2", 900), view("v3", 9)]
    )
    assert isinstance(answers[2], LimitExceeded)
    assert sorted(log.latest().views) == ["v0", "v1", "v2", "v3"]
    assert len(log_files(store)) > 3


def test_a_writer_that_never_wins_gives_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    base = create(Log(store), "t", "a")
    monkeypatch.setattr(group_module, "COMMIT_RETRY_SECONDS", 0.0)
    monkeypatch.setattr(slot_module, "COMMIT_RETRY_SECONDS", 0.0)

    class Unlucky:
        """Somebody else is always a moment faster."""

        def create(self, path: str, data: bytes) -> bool:
            if path.startswith("_lakelet/log/"):
                append(Log(store), "t", uuid.uuid4().hex)
            return store.create(path, data)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    unlucky: Any = Unlucky()
    with pytest.raises(Conflict, match="lost the race"):
        append(Log(unlucky), "t", "never")
    assert "never" not in Log(store).latest().tables["t"].files  # type: ignore[union-attr]
    assert base.version == 1


# --- what the log refuses to read ------------------------------------------------------------------------------------


def rewrite(store: Store, version: int, change: Callable[[bytes], bytes]) -> None:
    store.put(log_path(version), change(store.get(log_path(version))))


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data.replace(b'"rows"', b'"rowz"') if b'"rows"' in data else data[:60] + b"?" + data[61:],
        lambda data: data[:120] + bytes([data[120] ^ 1]) + data[121:],
        lambda data: b"\x00" * len(data),
        lambda data: b'{"format":0}',
    ],
)
def test_damaged_entries_are_corrupt_and_named(store: Store, log: Log, damage: Callable[[bytes], bytes]) -> None:
    create(log, "t", "a")
    append(log, "t", "x")
    rewrite(store, 2, damage)
    with pytest.raises(Corrupt, match=r"00000000000000000002.json") as caught:
        Log(store).latest()
    assert caught.value.path == log_path(2)
    files = log_files(store)
    with pytest.raises(Corrupt):
        append(Log(store), "t", "y")
    assert log_files(store) == files


def test_entries_of_a_newer_lakelet_are_not_guessed_at(store: Store, log: Log) -> None:
    create(log, "t", "a")
    append(log, "t", "x")
    for newer in (
        lambda data: data.replace(b'"format":1', b'"format":2', 1),
        lambda data: b'{"format": 12, "body": "of another shape"}',
    ):
        rewrite(store, 2, newer)
        with pytest.raises(Unavailable, match="upgrade"):
            Log(store).latest()


def test_a_missing_entry_is_corrupt(store: Store, log: Log) -> None:
    create(log, "t", "a")
    append(log, "t", "x")
    append(log, "t", "y")
    store.delete([log_path(2)])
    with pytest.raises(Corrupt, match=r"00000000000000000002.json is missing"):
        Log(store).latest()


def test_a_copied_entry_is_corrupt(store: Store, log: Log) -> None:
    create(log, "t", "a")
    append(log, "t", "x")
    store.put(log_path(3), store.get(log_path(2)))
    with pytest.raises(Corrupt, match="holds version 2"):
        Log(store).latest()


def test_an_entry_is_plain_json(store: Store, log: Log) -> None:
    create(log, "t", 'na"me \U0001f30a')
    document = json.loads(store.get(log_path(1)))
    assert document["format"] == 1
    kinds = [change["kind"] for change in document["entry"]["commits"][0]["changes"]]
    assert kinds == ["CreateLake", "CreateTable"]


def test_times_never_go_back(store: Store) -> None:
    clock = [1_000.0]
    log = Log(store, clock=lambda: clock[0])
    times = [create(log, "t", "a").timestamp_us]
    for now in (1_000.0, 500.0, 1_000.0000005, 2_000.0, 0.0):
        clock[0] = now
        times.append(append(log, "t", uuid.uuid4().hex).timestamp_us)
    assert times == [1_000_000_000, 1_000_000_001, 1_000_000_002, 1_000_000_003, 2_000_000_000, 2_000_000_001]
    assert log_module.Commit is type(log.history()[0])


# --- lost answers ----------------------------------------------------------------------------------------------------


class LossyStore:
    """A store that answers some creates of log entries wrongly, as told by ``script``, one word for each."""

    def __init__(self, inner: Store, script: Sequence[str]) -> None:
        self.inner = inner
        self.script = list(script)

    def create(self, path: str, data: bytes) -> bool:
        if not path.startswith("_lakelet/log/") or not self.script:
            return self.inner.create(path, data)
        word = self.script.pop(0)
        if word == "refused":
            raise Unavailable("no")
        if word == "lost before":
            raise CommitUnknown("timed out")
        made = self.inner.create(path, data)
        if word == "lost after":
            raise CommitUnknown("timed out")
        if word == "refused after":
            raise Unavailable("connection reset")
        if word == "os error after":
            raise ConnectionResetError("reset")
        assert word == "sdk retried"
        assert made
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@pytest.mark.parametrize(
    "script",
    [
        ["lost after"],
        ["lost before"],
        ["lost before", "lost before", "lost after"],
        ["refused after"],
        ["os error after"],
        ["sdk retried"],
        ["lost before", "refused", "sdk retried"],
    ],
)
def test_lost_answers_are_settled_by_commit_ids(store: Store, script: list[str]) -> None:
    create(Log(store), "t", "a")
    lossy: Any = LossyStore(store, script)
    after = append(Log(lossy), "t", "x")
    assert after.version == 2
    assert lossy.script == []
    assert len(log_files(store)) == 2
    assert Log(store).latest() == after


def test_a_refusal_is_unavailable_and_nothing_happened(store: Store) -> None:
    before = create(Log(store), "t", "a")
    lossy: Any = LossyStore(store, ["refused"])
    log = Log(lossy)
    with pytest.raises(Unavailable):
        append(log, "t", "x")
    assert Log(store).latest() == before
    assert append(log, "t", "y").version == 2


def test_what_cannot_be_settled_is_unknown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    create(Log(store), "t", "a")
    monkeypatch.setattr(group_module, "COMMIT_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(slot_module, "COMMIT_RETRY_SECONDS", 0.05)
    lossy: Any = LossyStore(store, ["lost before"] * 1_000)
    with pytest.raises(CommitUnknown, match="history"):
        append(Log(lossy), "t", "x")


def test_another_writer_in_the_slot_is_not_taken_for_ours(store: Store) -> None:
    create(Log(store), "t", "a")

    class Raced(LossyStore):
        def create(self, path: str, data: bytes) -> bool:
            if self.script:
                self.script.pop()
                append(Log(store), "t", "theirs")
                raise CommitUnknown("timed out")
            return self.inner.create(path, data)

    raced: Any = Raced(store, ["once"])
    assert append(Log(raced), "t", "ours").version == 3
    assert list(Log(store).latest().tables["t"].files) == ["theirs", "ours"]  # type: ignore[union-attr]
