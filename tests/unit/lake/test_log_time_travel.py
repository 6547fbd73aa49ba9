"""Old versions, by number and by time; checkpoints, cold opens and what they cost; logs that slept."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from lakelet.lake import checkpoint_parts as parts_module
from lakelet.lake import log as log_module
from lakelet.lake.changes import (
    AddFiles,
    AttachTable,
    Change,
    CreateTable,
    DataFile,
    DeleteRows,
    DeletionFile,
    DropIndex,
    RemoveFiles,
    RenameTable,
    SetIndex,
    SetSchema,
    SetView,
)
from lakelet.lake.checkpoint import CHECKPOINTS, HINT, list_checkpoints, newest_checkpoint
from lakelet.lake.entry import log_path
from lakelet.lake.errors import CommitUnknown, Corrupt, NotFound, Unavailable
from lakelet.lake.floor import raise_floor, read_floor
from lakelet.lake.log import Log
from lakelet.lake.stores import open_store
from lakelet.lake.table_index import IndexSegment, TableIndex

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lakelet.lake.snapshot import OwnedTable, Snapshot
    from lakelet.lake.store import Store


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path / "lake" if request.param == "local" else f"memory://{uuid.uuid4().hex}/lake")


class CountingStore:
    """Counts requests that wait for one another: a get_many is one."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.requests: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found) or name == "full_path":
            return found

        def counted(*args: Any) -> Any:
            self.requests.append((name, args[0]))
            return found(*args)

        return counted


def file(name: str, stats: str = "") -> DataFile:
    return DataFile(name, f"data/t/{name}.parquet", 10, 80, 0, stats)


def commit(log: Log, *changes: Change) -> Snapshot:
    return log.commit(changes, [], operation="test", base=log.latest())


def fill(log: Log, versions: int) -> list[Snapshot]:
    """Every kind of change at least once, then appends: one snapshot a version, version 0 first."""
    made = [log.latest()]
    segment = IndexSegment("data/t/s", 80, "0" * 64, ("f0", "f1"), (0, 1), (5, 5))
    first, other = TableIndex("i", "x", "{}", (segment,)), TableIndex("j", "y", "{}")
    kinds: list[list[Change]] = [
        [CreateTable("t", "table", "schema 0"), AddFiles("t", (file("f0", '{"a":1}'), file("f1")))],
        [AttachTable("raw", "raw", "s3://b/raw/*/", hive=True), SetView("v", "SELECT 'ü'")],
        [SetSchema("t", "schema 1"), RenameTable("raw", 'r"a w'), SetIndex("t", first), SetIndex("t", other)],
        [DeleteRows("t", "f0", DeletionFile("data/t/d0", 3, 99), None), DropIndex("t", "j")],
        [RemoveFiles("t", ("f1",)), CreateTable("empty", "empty", "schema 0")],
    ]
    made += [commit(log, *changes) for changes in kinds]
    while len(made) <= versions:
        made.append(commit(log, AddFiles("t", (file(f"n{len(made)}", f'{{"n":{len(made)}}}'),))))
    return made


def assert_same(left: Snapshot, right: Snapshot) -> None:
    assert left == right
    assert list(left.tables) == list(right.tables)
    for one, other in zip(left.tables.values(), right.tables.values(), strict=True):
        assert list(getattr(one, "files", ())) == list(getattr(other, "files", ()))


def test_every_version_can_be_read_again(store: Store) -> None:
    with Log(store) as log:
        made = fill(log, 12)
        log.checkpoint(made[7])
    for opened in (log, Log(store), Log(store, read_only=True)):
        for snapshot in [*made, *reversed(made)]:
            assert_same(opened.at(snapshot.version), snapshot)


def test_times_pick_the_version_in_force(store: Store) -> None:
    clock = [1_000.0]
    log = Log(store, clock=lambda: clock[0])
    made = []
    for step in range(6):
        clock[0] = 1_000.0 + 10 * step
        made.append(commit(log, SetView("v", f"SELECT {step}")))
    for opened in (log, Log(store)):
        for step, snapshot in enumerate(made):
            at = int((1_000 + 10 * step) * 1_000_000)
            assert opened.at_time(at) == snapshot
            assert opened.at_time(at + 9_999_999) == snapshot
        with pytest.raises(NotFound, match=r"versions kept are 1 to 6, committed from 1970-01-01T00:16:40"):
            opened.at_time(999_999_999)


def test_versions_that_are_not_there(store: Store) -> None:
    log = Log(store)
    with pytest.raises(NotFound, match="no commits yet"):
        log.at(1)
    assert log.at(0).version == 0
    with pytest.raises(NotFound, match="no commits yet"):
        log.at_time(int(time.time() * 1_000_000))
    fill(log, 6)
    for version in (-1, 7, 10**30):
        with pytest.raises(NotFound, match="versions kept are 1 to 6"):
            log.at(version)


def test_checkpoints_are_written_beside_the_commits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "CHECKPOINT_EVERY_VERSIONS", 20)
    with Log(store) as log:
        fill(log, 20)
    assert [version for version, _ in list_checkpoints(store)] == [20]
    commit(log, SetView("w", "SELECT 2"))
    counting: Any = CountingStore(store)
    opened = Log(counting)
    assert_same(opened.latest(), log.latest())
    assert len(counting.requests) <= 5
    asked = [path for _, paths in counting.requests for path in (paths if isinstance(paths, list) else [paths])]
    assert log_path(19) not in asked
    assert opened.history() == log.history()


def test_a_writer_that_finds_checkpoints_far_behind_makes_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with Log(store) as log:
        fill(log, 45)
    monkeypatch.setattr(log_module, "CHECKPOINT_EVERY_VERSIONS", 20)
    with Log(store) as log:
        commit(log, SetView("w", "SELECT 2"))
    assert [version for version, _ in list_checkpoints(store)] == [46]


def test_statistics_come_when_they_are_read(store: Store) -> None:
    with Log(store) as log:
        made = fill(log, 8)
        log.checkpoint(log.latest())
    counting: Any = CountingStore(store)
    table: OwnedTable = Log(counting).latest().tables["t"]  # type: ignore[assignment]
    stats_path = f"{CHECKPOINTS}{list_checkpoints(store)[0][1]}/stats.parquet"
    asked = [paths for _, paths in counting.requests]
    assert not any(stats_path in paths for paths in asked)
    assert [table.files[name].stats for name in table.files] == [
        made[-1].tables["t"].files[name].stats  # type: ignore[union-attr]
        for name in table.files
    ]
    assert table.files["f0"].stats == '{"a":1}'
    assert table.files["f0"].deletion == DeletionFile("data/t/d0", 3, 99)
    # deletions on top of a file that was not loaded yet leave its statistics where they are, and readable
    lazy = Log(store)
    after = commit(lazy, DeleteRows("t", "f0", DeletionFile("data/t/d1", 4, 99), "data/t/d0"))
    held = after.tables["t"].files["f0"]  # type: ignore[union-attr]
    assert not isinstance(held.stats_in_hand(), str)
    assert held.stats == '{"a":1}'
    store.delete([stats_path])
    gone = Log(store).latest().tables["t"].files["f0"]  # type: ignore[union-attr]
    assert gone.stats == ""


def test_a_checkpoint_of_a_checkpoint_carries_the_statistics(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "_STATS_GROUP_ROWS", 3)
    monkeypatch.setattr(parts_module, "_STATS_GROUPS_HELD", 2)
    log = Log(store)
    made = fill(log, 20)
    log.checkpoint(made[15])
    for _ in range(2):
        opened = Log(store)
        opened.checkpoint(opened.latest())
    assert_same(Log(store).latest(), made[20])
    assert opened.history() == log.history()


@pytest.mark.parametrize("part", ["tables", "files"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\x00" * len(data),
        lambda data: data[:40] + bytes([data[40] ^ 255]) + data[41:],
    ],
)
def test_a_damaged_checkpoint_is_corrupt_and_named(store: Store, part: str, damage: Callable[[bytes], bytes]) -> None:
    log = Log(store)
    fill(log, 8)
    name = log.checkpoint(log.latest()).name
    path = f"{CHECKPOINTS}{name}/{part}.parquet"
    store.put(path, damage(store.get(path)))
    with pytest.raises(Corrupt, match=name) as caught:
        Log(store).latest()
    assert caught.value.path == path


def test_a_damaged_history_or_statistic_is_corrupt(store: Store) -> None:
    log = Log(store)
    fill(log, 8)
    name = log.checkpoint(log.latest()).name
    for part in ("commits", "stats"):
        path = f"{CHECKPOINTS}{name}/{part}.parquet"
        store.put(path, store.get(path)[:-7])
    opened = Log(store)
    with pytest.raises(Corrupt, match="commits"):
        opened.history()
    with pytest.raises(Corrupt, match="stats"):
        opened.latest().tables["t"].files["f0"].stats  # type: ignore[union-attr]  # noqa: B018


def test_a_checkpoint_of_a_newer_lakelet_is_not_guessed_at(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(store)
    fill(log, 8)
    with monkeypatch.context() as patch:
        patch.setattr(parts_module, "FORMAT", 2)
        log.checkpoint(log.latest())
    with pytest.raises(Unavailable, match="upgrade"):
        Log(store).latest()


@pytest.mark.parametrize("hint", [None, b"", b"garbage", b'{"checkpoint":"../../etc"}', b'{"checkpoint":7}', b"[]"])
def test_a_lost_or_senseless_hint_costs_a_listing(store: Store, hint: bytes | None) -> None:
    log = Log(store)
    made = fill(log, 20)
    log.checkpoint(made[18])
    if hint is None:
        store.delete([HINT])
    else:
        store.put(HINT, hint)
    assert_same(Log(store).latest(), made[20])


def test_a_hint_at_a_checkpoint_that_is_gone(store: Store) -> None:
    log = Log(store)
    made = fill(log, 20)
    gone, kept = log.checkpoint(made[10]), log.checkpoint(made[15])
    hint = store.get(HINT)
    store.put(HINT, hint.replace(kept.name.encode(), gone.name.encode()))
    store.delete([info.path for info in store.list(f"{CHECKPOINTS}{gone.name}/")])
    assert_same(Log(store).latest(), made[20])


def test_an_unfinished_checkpoint_is_ignored(store: Store) -> None:
    log = Log(store)
    made = fill(log, 20)
    name = log.checkpoint(made[18]).name
    store.delete([f"{CHECKPOINTS}{name}/tables.parquet"])
    assert newest_checkpoint(store) is None
    assert_same(Log(store).latest(), made[20])
    store.delete([HINT])
    assert_same(Log(store).latest(), made[20])


def test_a_failing_checkpoint_does_not_touch_the_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoPut:
        def put(self, path: str, data: bytes) -> None:
            raise Unavailable("disk full")

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    no_put: Any = NoPut()
    monkeypatch.setattr(log_module, "CHECKPOINT_EVERY_VERSIONS", 10)
    with Log(no_put) as log:
        made = fill(log, 11)
    assert list_checkpoints(store) == []
    assert_same(Log(store).latest(), made[11])
    with Log(store) as log:
        while log.latest().version < 20:
            commit(log, SetView("v", "SELECT 1"))
    assert [version for version, _ in list_checkpoints(store)] == [20]


# --- the floor and logs that slept -----------------------------------------------------------------------------------


def test_the_floor_only_rises(store: Store) -> None:
    assert read_floor(store) == 0
    assert raise_floor(store, 7) == 7
    assert raise_floor(store, 3) == 7
    store.create("_lakelet/floor/00000000000000000005", b"a slow expirer, much later")
    assert read_floor(store) == 7
    assert raise_floor(store, 9) == 9
    assert [info.path for info in store.list("_lakelet/floor/")] == ["_lakelet/floor/00000000000000000009"]


def expire_by_hand(store: Store, log: Log, version: int) -> None:
    """What expire does, without its regard for age."""
    log.checkpoint(log.at(version))
    raise_floor(store, version)
    store.delete([log_path(number) for number in range(1, version + 1)])


def test_a_log_that_slept_past_the_floor_starts_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [time.time()]
    log = Log(store)
    fill(log, 10)
    sleeper = Log(store, clock=lambda: clock[0])
    assert sleeper.latest().version == 10
    for number in range(10):
        commit(log, SetView("v", f"SELECT {number}"))
    expire_by_hand(store, log, 18)
    clock[0] += 3_600
    assert sleeper.latest().version == 20
    assert_same(sleeper.latest(), log.latest())
    assert sleeper.history() == log.history()
    assert sleeper.history()[0].version == 18


def test_a_writer_that_slept_past_the_floor_commits_on_top(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [time.time()]
    log = Log(store)
    fill(log, 10)
    sleeper = Log(store, clock=lambda: clock[0])
    base = sleeper.latest()
    for number in range(10):
        commit(log, SetView("v", f"SELECT {number}"))
    expire_by_hand(store, log, 18)
    clock[0] += 3_600
    after = sleeper.commit([AddFiles("t", (file("late"),))], [], operation="append", base=base)
    assert after.version == 21
    assert_same(log.latest(), after)


def test_a_put_that_lands_below_the_floor_is_unknown(store: Store) -> None:
    """The process slept inside its put: the slot was free because its entry had been expired."""
    log = Log(store)
    fill(log, 10)

    class Sleepy:
        def create(self, path: str, data: bytes) -> bool:
            if path == log_path(11):
                for number in range(10):
                    commit(log, SetView("v", f"SELECT {number}"))
                expire_by_hand(store, log, 15)
            return store.create(path, data)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    sleepy: Any = Sleepy()
    with pytest.raises(CommitUnknown, match="expired"):
        commit(Log(sleepy), AddFiles("t", (file("lost"),)))
    assert "lost" not in Log(store).latest().tables["t"].files  # type: ignore[union-attr]
    assert Log(store).latest().version == 20


def test_expired_versions_say_what_is_left(store: Store) -> None:
    log = Log(store)
    made = fill(log, 20)
    assert log.at(5) == made[5]
    expire_by_hand(store, log, 12)
    for opened in (log, Log(store)):
        with pytest.raises(NotFound, match="versions kept are 12 to 20"):
            opened.at(5)
        with pytest.raises(NotFound, match="versions kept are 12 to 20"):
            opened.at_time(made[11].timestamp_us)
        assert_same(opened.at(12), made[12])
        assert_same(opened.at(13), made[13])
        assert opened.at_time(made[12].timestamp_us).version == 12
        assert [line.version for line in opened.history()] == list(range(12, 21))


def test_a_floor_without_its_checkpoint_is_corrupt(store: Store) -> None:
    log = Log(store)
    fill(log, 20)
    expire_by_hand(store, log, 12)
    store.delete([info.path for info in store.list(CHECKPOINTS)])
    with pytest.raises(Corrupt, match="no checkpoint"):
        Log(store).latest()
