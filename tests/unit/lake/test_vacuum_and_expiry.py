"""Expiry and vacuum: what goes, and above all what stays."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from lakelet.lake.changes import (
    AddFiles,
    Change,
    CreateTable,
    DataFile,
    DeleteRows,
    DeletionFile,
    DropIndex,
    DropTable,
    RemoveFiles,
    SetIndex,
    SetView,
)
from lakelet.lake.checkpoint import CHECKPOINTS, HINT, list_checkpoints
from lakelet.lake.entry import log_path
from lakelet.lake.errors import Conflict, Corrupt, InvalidInput, NotFound, Unavailable
from lakelet.lake.expiry import expire
from lakelet.lake.floor import raise_floor, read_floor
from lakelet.lake.log import Log
from lakelet.lake.stores import open_store
from lakelet.lake.table_index import IndexSegment, TableIndex
from lakelet.lake.vacuum import vacuum

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lakelet.lake.snapshot import Snapshot
    from lakelet.lake.store import Store

DAY = 86_400.0


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return open_store(tmp_path / "lake" if request.param == "local" else f"memory://{uuid.uuid4().hex}/lake")


def age(store: Store, path: str, days: float) -> None:
    """Make the store date an object so long ago."""
    if store.fsspec is None:
        then = time.time() - days * DAY
        os.utime(store.full_path(path), (then, then))
    else:
        key = "/" + store.full_path(path).removeprefix("memory://")
        store.fsspec.store[key].created = datetime.now(UTC) - timedelta(days=days)


def age_all(store: Store, prefix: str, days: float) -> None:
    for info in list(store.list(prefix)):
        age(store, info.path, days)


class Lake:
    """A lake whose past is written with a clock that stands in the past."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.days_ago = 0.0
        self.log = Log(store, clock=lambda: time.time() - self.days_ago * DAY)

    def commit(self, days_ago: float, *changes: Change) -> Snapshot:
        """Commit, with the data files that the changes name, as if it had been so many days ago."""
        self.days_ago = days_ago
        for change in changes:
            if isinstance(change, AddFiles):
                for file in change.files:
                    self.put(file.path, days_ago)
            if isinstance(change, DeleteRows):
                self.put(change.deletion.path, days_ago)
            if isinstance(change, SetIndex):
                for segment in change.index.paths():
                    if not self.store.exists(segment):
                        self.put(segment, days_ago)
        after = self.log.commit(changes, [], operation="test", base=self.log.latest())
        age(self.store, log_path(after.version), days_ago)
        self.days_ago = 0.0
        return after

    def put(self, path: str, days_ago: float) -> None:
        self.store.put(path, b"12345678")
        age(self.store, path, days_ago)

    def data(self) -> list[str]:
        return sorted(info.path for info in self.store.list("data/"))


def path(name: str) -> str:
    return f"data/t/{name}"


def add(*names: str) -> AddFiles:
    return AddFiles("t", tuple(DataFile(name, path(name), 10, 8, 0) for name in names))


@pytest.fixture
def old_lake(store: Store) -> Lake:
    """History until two days ago: of the files a b c, a left 8 days ago and b 2; d is deleted from twice."""
    made = Lake(store)
    made.commit(10, CreateTable("t", "table", "s"), add("a", "b"))
    made.commit(9, add("c", "d"))
    made.commit(8, RemoveFiles("t", ("a",)))
    made.commit(6, DeleteRows("t", "d", DeletionFile(path("d.del1"), 1, 8), None))
    made.commit(3, DeleteRows("t", "d", DeletionFile(path("d.del2"), 2, 8), path("d.del1")))
    made.commit(2, RemoveFiles("t", ("b",)))
    return made


@pytest.fixture
def lake(old_lake: Lake) -> Lake:
    """The same with one more commit, a short while ago."""
    old_lake.commit(0.1, SetView("v", "SELECT 1"))
    return old_lake


# --- expiry ------------------------------------------------------------------------------------------------------


def test_expire_keeps_the_version_in_force_and_all_later_ones(store: Store, lake: Lake) -> None:
    kept = {version: lake.log.at(version) for version in range(4, 8)}
    done = expire(lake.log, older_than_seconds=5 * DAY)
    assert (done.floor, done.versions) == (4, 4)
    assert set(done.paths) == {log_path(version) for version in range(1, 5)}
    assert sorted(info.path for info in store.list("_lakelet/log/")) == [log_path(version) for version in range(5, 8)]
    for log in (lake.log, Log(store)):
        assert {version: log.at(version) for version in range(4, 8)} == kept
        assert [line.version for line in log.history()] == [4, 5, 6, 7]
        with pytest.raises(NotFound, match="versions kept are 4 to 7"):
            log.at(3)
    assert expire(lake.log, older_than_seconds=5 * DAY).paths == ()
    assert lake.commit(0, add("e")).version == 8


def test_a_dry_run_says_the_same_and_does_nothing(store: Store, lake: Lake) -> None:
    before = {info.path for info in store.list("")}
    told = expire(lake.log, older_than_seconds=5 * DAY, dry_run=True)
    assert {info.path for info in store.list("")} == before
    assert told == expire(lake.log, older_than_seconds=5 * DAY)


def test_expiring_in_steps_removes_checkpoints_below(store: Store, lake: Lake) -> None:
    for days in (8.5, 7, 5, 1.5):
        expire(lake.log, older_than_seconds=days * DAY)
        assert Log(store).latest() == lake.log.latest()
    assert [version for version, _ in list_checkpoints(store)] == [6]
    assert read_floor(store) == 6


def test_a_young_entry_is_kept_whatever_its_timestamp_says(store: Store, lake: Lake) -> None:
    """The writer's clock stood still: by the store's clock its entry is minutes old."""
    age(store, log_path(3), 0.01)
    assert expire(lake.log, older_than_seconds=1.5 * DAY).floor == 2


def test_a_fast_clock_of_ours_expires_nothing_early(store: Store, lake: Lake) -> None:
    fast = Log(store, clock=lambda: time.time() + 100 * DAY)
    assert expire(fast, older_than_seconds=5 * DAY).floor == 4
    assert vacuum(fast).paths == (path("a"),)


@pytest.mark.parametrize("seconds", [-1.0, 0.0, DAY - 1, float("nan")])
def test_a_short_retention_or_grace_is_refused(store: Store, lake: Lake, seconds: float) -> None:
    before = {info.path for info in store.list("")}
    with pytest.raises(InvalidInput, match="at least 86400"):
        expire(lake.log, older_than_seconds=seconds)
    with pytest.raises(InvalidInput, match="at least 86400"):
        vacuum(lake.log, older_than_seconds=seconds)
    with pytest.raises(InvalidInput, match="read-only"):
        expire(Log(store, read_only=True))
    with pytest.raises(InvalidInput, match="read-only"):
        vacuum(Log(store, read_only=True))
    assert {info.path for info in store.list("")} == before


def test_a_checkpoint_that_does_not_read_back_stops_expiry(store: Store, old_lake: Lake) -> None:
    class Forgetful:
        """A store that cuts off the end of the statistics."""

        def put(self, where: str, data: bytes) -> None:
            store.put(where, data[:-9] if where.endswith("stats.parquet") else data)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    forgetful: Any = Forgetful()
    old_lake.commit(1.8, AddFiles("t", (DataFile("s", path("s"), 1, 8, 0, "stats"),)))
    before = {info.path for info in store.list("_lakelet/log/")}
    log = Log(forgetful)
    with pytest.raises(Corrupt):
        expire(log, older_than_seconds=1.5 * DAY)
    assert read_floor(store) == 0
    assert {info.path for info in store.list("_lakelet/log/")} == before


def test_the_hint_never_names_what_was_expired(store: Store, lake: Lake) -> None:
    early = lake.log.checkpoint(lake.log.at(2))
    late = lake.log.checkpoint(lake.log.at(6))
    store.put(HINT, store.get(HINT).replace(late.name.encode(), early.name.encode()))
    expire(lake.log, older_than_seconds=5 * DAY)
    assert late.name.encode() in store.get(HINT)
    assert all(f"{CHECKPOINTS}{early.name}" not in info.path for info in store.list(CHECKPOINTS))


@pytest.mark.parametrize("stop_at", range(12))
def test_an_interrupted_expiry_loses_nothing_that_is_kept(store: Store, lake: Lake, stop_at: int) -> None:
    kept = {version: lake.log.at(version) for version in range(4, 8)}

    class Stop(BaseException):
        pass

    class Stopping:
        left = stop_at

        def _count(self) -> None:
            Stopping.left -= 1
            if Stopping.left < 0:
                raise Stop

        def create(self, where: str, data: bytes) -> bool:
            self._count()
            return store.create(where, data)

        def put(self, where: str, data: bytes) -> None:
            self._count()
            store.put(where, data)

        def delete(self, paths: list[str]) -> None:
            for one in paths:
                self._count()
                store.delete([one])

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    stopping: Any = Stopping()
    with contextlib.suppress(Stop):
        expire(Log(stopping), older_than_seconds=5 * DAY)
    log = Log(store)
    assert {version: log.at(version) for version in range(4, 8)} == kept
    assert log.latest() == kept[7]
    assert set(vacuum(log, dry_run=True).paths) <= {path("a")}
    expire(log, older_than_seconds=5 * DAY)
    assert [line.version for line in Log(store).history()] == [4, 5, 6, 7]
    assert lake.commit(0, add("e")).version == 8


# --- vacuum ------------------------------------------------------------------------------------------------------


def test_nothing_goes_while_its_version_is_kept(lake: Lake) -> None:
    before = lake.data()
    assert vacuum(lake.log).paths == ()
    assert lake.data() == before


def test_files_go_with_the_last_version_that_has_them(lake: Lake) -> None:
    expire(lake.log, older_than_seconds=7 * DAY)
    done = vacuum(lake.log)
    assert (done.paths, done.num_bytes, done.kept) == ((path("a"),), 8, 5)
    assert lake.data() == [path(name) for name in ("b", "c", "d", "d.del1", "d.del2")]
    expire(lake.log, older_than_seconds=1.5 * DAY)
    assert vacuum(lake.log).paths == (path("b"), path("d.del1"))
    assert lake.data() == [path(name) for name in ("c", "d", "d.del2")]


def test_orphans_go_only_after_the_grace(store: Store, lake: Lake) -> None:
    lake.put(path("orphan-old"), 2)
    lake.put(path("orphan-young"), 0.9)
    lake.put(path("orphan-new"), 0)
    assert vacuum(lake.log, dry_run=True).paths == (path("orphan-old"),)
    assert store.exists(path("orphan-old"))
    assert vacuum(lake.log, older_than_seconds=3 * DAY).paths == ()
    assert vacuum(lake.log).paths == (path("orphan-old"),)
    assert not store.exists(path("orphan-old"))
    assert store.exists(path("orphan-young"))


def test_only_the_owned_layout_is_touched(store: Store, lake: Lake) -> None:
    strangers = ["data/readme.txt", "data/t/deep/er/x", "exports/t/x.parquet", "x", "_lakelet/notes", "database/t/x"]
    for stranger in strangers:
        lake.put(stranger, 100)
    assert vacuum(lake.log).paths == ()
    assert all(store.exists(stranger) for stranger in strangers)


def test_further_roots_stay(lake: Lake) -> None:
    for name in ("recipe", "index", "orphan"):
        lake.put(path(name), 5)
    asked: list[bool] = []

    def roots() -> list[str]:
        asked.append(True)
        return [path("recipe"), path("index")]

    assert vacuum(lake.log, dry_run=True, extra_roots=[path("recipe")]).paths == (path("index"), path("orphan"))
    assert vacuum(lake.log, extra_roots=roots).paths == (path("orphan"),)
    assert asked == [True]


def test_roots_that_cannot_be_told_stop_it(lake: Lake) -> None:
    lake.put(path("orphan"), 5)

    def roots() -> list[str]:
        raise Unavailable("no index")

    with pytest.raises(Unavailable):
        vacuum(lake.log, extra_roots=roots)
    assert path("orphan") in lake.data()


def test_a_dropped_tables_files_stay_until_its_versions_go(old_lake: Lake) -> None:
    lake = old_lake
    lake.commit(1.5, DropTable("t"))
    assert vacuum(lake.log).paths == ()
    lake.commit(1.2, SetView("w", "SELECT 1"))
    expire(lake.log, older_than_seconds=1.1 * DAY)
    assert set(vacuum(lake.log).paths) == {path(name) for name in ("a", "b", "c", "d", "d.del1", "d.del2")}


def index(*names: str) -> SetIndex:
    segments = tuple(IndexSegment(path(name), 8, "0" * 64, ("a",), (0,), (10,)) for name in names)
    return SetIndex("t", TableIndex("i", "x", "{}", segments))


def segments_left(lake: Lake) -> list[str]:
    return [found.removeprefix("data/t/") for found in lake.data() if found.startswith("data/t/seg")]


def test_segments_stay_as_long_as_a_version_that_has_them(store: Store, old_lake: Lake) -> None:
    """One is merged into another, then the index is dropped; each goes with the last version that names it."""
    lake = old_lake
    lake.commit(1.9, index("seg1", "seg2"))
    lake.commit(1.8, index("seg2", "seg3"))
    lake.commit(1.7, DropIndex("t", "i"))
    lake.commit(1.6, SetView("v", "SELECT 1"))
    assert vacuum(lake.log).paths == ()
    expire(lake.log, older_than_seconds=1.75 * DAY)  # the version with seg2 and seg3 is the oldest that is kept
    assert {found for found in vacuum(Log(store)).paths if "seg" in found} == {path("seg1")}
    assert segments_left(lake) == ["seg2", "seg3"]
    floor = lake.log.at(read_floor(store)).tables["t"]
    assert [store.exists(segment) for segment in floor.indexes["i"].paths()] == [True, True]  # type: ignore[union-attr]
    expire(lake.log, older_than_seconds=1.65 * DAY)
    assert set(vacuum(Log(store)).paths) == {path("seg2"), path("seg3")}
    assert segments_left(lake) == []


def test_segments_of_the_newest_version_stay_whatever_their_age(store: Store, old_lake: Lake) -> None:
    """Also where the entry that named them is gone, and the checkpoint of the floor alone has them."""
    lake = old_lake
    lake.commit(1.9, index("seg1"))
    lake.commit(1.8, SetView("v", "SELECT 1"))
    expire(lake.log, older_than_seconds=1.5 * DAY)
    assert not store.exists(log_path(7))
    assert not any("seg" in found for found in vacuum(Log(store)).paths)
    assert segments_left(lake) == ["seg1"]


def test_segments_on_their_way_have_the_grace(store: Store, old_lake: Lake) -> None:
    lake = old_lake
    lake.put(path("seg-young"), 0.9)
    lake.put(path("seg-abandoned"), 2)
    assert vacuum(lake.log).paths == (path("seg-abandoned"),)
    lake.commit(0, index("seg-young"))
    age(store, path("seg-young"), 30)
    assert vacuum(lake.log).paths == ()
    assert segments_left(lake) == ["seg-young"]


def test_a_dropped_tables_segments_go_with_its_versions(store: Store, old_lake: Lake) -> None:
    lake = old_lake
    lake.commit(1.9, index("seg1"))
    lake.commit(1.5, DropTable("t"))
    lake.commit(1.2, SetView("w", "SELECT 1"))
    assert vacuum(lake.log).paths == ()
    expire(lake.log, older_than_seconds=1.1 * DAY)
    assert path("seg1") in vacuum(lake.log).paths
    assert lake.data() == []


def test_a_commit_after_the_listing_is_seen(store: Store, lake: Lake) -> None:
    """An old file becomes reachable between vacuum's listing and its reading of the log."""
    lake.put(path("late"), 2)

    class Racing:
        def list(self, prefix: str) -> Any:
            found = list(store.list(prefix))
            if prefix == "data/":
                add_late = AddFiles("t", (DataFile("late", path("late"), 10, 8, 0),))
                log = Log(store)
                log.commit([add_late], [], operation="race", base=log.latest())
            return iter(found)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    racing: Any = Racing()
    assert vacuum(Log(racing)).paths == ()
    assert store.exists(path("late"))


def _lose_entry(store: Store) -> None:
    store.delete([log_path(2)])


def _damage_entry(store: Store) -> None:
    store.put(log_path(4), store.get(log_path(4))[:-5])


def _lose_tail(store: Store) -> None:
    store.delete([log_path(version) for version in range(3, 8)])


@pytest.mark.parametrize("damage", [_lose_entry, _damage_entry])
def test_a_log_that_cannot_be_read_stops_it(store: Store, lake: Lake, damage: Callable[[Store], None]) -> None:
    lake.put(path("orphan"), 5)
    before = lake.data()
    lake.log.latest()
    damage(store)
    for log in (lake.log, Log(store)):
        with pytest.raises((Corrupt, Conflict)):
            vacuum(log)
    assert lake.data() == before


def test_a_log_that_looks_shorter_than_it_was_stops_it(store: Store, lake: Lake) -> None:
    before = lake.data()
    lake.log.latest()
    _lose_tail(store)
    with pytest.raises(Conflict):
        vacuum(lake.log)
    assert lake.data() == before


@pytest.mark.parametrize("after", ["floor", "log"])
def test_expiry_in_the_middle_stops_it(store: Store, lake: Lake, after: str) -> None:
    """Entries that vanish while vacuum reads look like the end of a log in which nothing is reachable."""
    before = lake.data()

    class Expiring:
        done = False

        def expire(self) -> None:
            if not Expiring.done:
                Expiring.done = True
                lake.log.checkpoint(lake.log.at(6))
                raise_floor(store, 6)
                store.delete([log_path(version) for version in range(1, 7)])

        def list(self, prefix: str) -> Any:
            found = list(store.list(prefix))
            if prefix == "_lakelet/floor/" and after == "floor" and armed:
                self.expire()
            return iter(found)

        def get_many(self, paths: list[str]) -> Any:
            if armed and after == "log" and log_path(1) in paths:
                self.expire()
            return store.get_many(paths)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    armed = False
    expiring: Any = Expiring()
    log = Log(expiring)
    log.latest()
    armed = True
    with pytest.raises(Conflict, match="retry"):
        vacuum(log)
    assert lake.data() == before
    assert vacuum(log).paths == (path("a"), path("b"), path("d.del1"))


def test_abandoned_temporary_objects_go_after_the_grace(store: Store, lake: Lake) -> None:
    lake.put("_lakelet/tmp/dead", 2)
    lake.put("_lakelet/tmp/alive", 0)
    assert vacuum(lake.log).paths == ()
    assert not store.exists("_lakelet/tmp/dead")
    assert store.exists("_lakelet/tmp/alive")


def test_a_folder_without_a_log_is_not_ours(store: Store) -> None:
    store.put("data/t/x", b"1")
    age_all(store, "data/", 100)
    assert vacuum(Log(store)).paths == ()
    assert expire(Log(store)).floor == 0
    assert store.exists("data/t/x")


def test_a_table_that_reads_an_old_version_keeps_reading(store: Store, old_lake: Lake) -> None:
    """The union over all kept versions, with files that came and went in between."""
    lake = old_lake
    lake.commit(1.9, add("x"))
    lake.commit(1.8, RemoveFiles("t", ("x",)))
    expire(lake.log, older_than_seconds=2.5 * DAY)
    vacuum(lake.log)
    for line in lake.log.history():
        table = lake.log.at(line.version).tables["t"]
        for file in table.files.values():  # type: ignore[union-attr]
            assert store.exists(file.path)
            assert file.deletion is None or store.exists(file.deletion.path)
