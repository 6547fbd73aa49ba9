"""Counts of reads: none lost, none doubled, whoever writes, merges, reads or dies, and when."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from lakelet.lake import accesses as accesses_module
from lakelet.lake.access_objects import ACCESSES, Record, encode, leaf_path, merged_path
from lakelet.lake.accesses import AccessCounter, Accesses, compact, read_accesses
from lakelet.lake.errors import CommitUnknown, InvalidInput, Unavailable
from lakelet.lake.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lakelet.lake.store import Store

DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()
DAY_SECONDS = 86_400


def with_lake(store: Store) -> Store:
    """A counter writes only where there is a lake."""
    store.create("_lakelet/log/00000000000000000001.json", b"{}")
    return store


def memory_store() -> Store:
    return with_lake(open_store(f"memory://{uuid.uuid4().hex}/lake"))


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return with_lake(open_store(tmp_path / "lake")) if request.param == "local" else memory_store()


def objects(store: Store) -> list[str]:
    return sorted(info.path for info in store.list(ACCESSES))


def sums(store: Store) -> dict[tuple[str, date], int]:
    return {(table, day): n for table, days in read_accesses(store).days.items() for day, n in days.items()}


class Clock:
    def __init__(self, now: float = NOON) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def later() -> float:
    return NOON + 10 * DAY_SECONDS


# --- counting ----------------------------------------------------------------------------------------------------


def test_sums_are_those_of_a_model_under_many_threads(store: Store) -> None:
    clock = Clock()
    counter = AccessCounter(store, clock=clock)
    expected: Counter[tuple[str, date]] = Counter()
    for day in range(3):
        clock.now = NOON + day * DAY_SECONDS

        def run(me: int) -> None:
            for i in range(600):
                counter.count(f"t{(me + i) % 7}", 1 + i % 3)
                if i % 200 == 100:
                    counter.flush()

        threads = [threading.Thread(target=run, args=(me,)) for me in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for me in range(6):
            for i in range(600):
                expected[f"t{(me + i) % 7}", DAY + timedelta(day)] += 1 + i % 3
    counter.close()
    assert sums(store) == expected
    assert compact(store, clock=later) > 3
    assert sums(store) == expected
    assert len(objects(store)) == 3


def test_two_counters_add_up_and_pending_counts_split_by_day(store: Store) -> None:
    clock = Clock()
    first, second = AccessCounter(store, clock=clock), AccessCounter(store, clock=clock)
    first.count("a")
    second.count("a", 2)
    clock.now += DAY_SECONDS
    first.count("a", 4)
    first.count("b", 0)
    first.count("b", -1)
    first.flush()
    second.flush()
    first.flush()
    assert len(objects(store)) == 3
    found = read_accesses(store)
    assert found.days == {"a": {DAY: 3, DAY + timedelta(1): 4}}
    assert found.first_day == DAY
    assert found.reads("a", DAY + timedelta(1), 2) == 7
    assert found.reads("a", DAY + timedelta(1), 1) == 4
    assert found.reads("a", DAY, 10**6) == 3
    assert found.reads("b", DAY, 3) == 0
    with pytest.raises(InvalidInput, match="0 days"):
        found.reads("a", DAY, 0)
    since = read_accesses(store, since_day=DAY + timedelta(1))
    assert since == Accesses({"a": {DAY + timedelta(1): 4}}, DAY)
    assert read_accesses(memory_store()) == Accesses({}, None)
    first.close()
    second.close()


def test_read_only_writes_nothing_and_starts_nothing(store: Store) -> None:
    before = threading.active_count()
    counter = AccessCounter(store, read_only=True)
    counter.count("a")
    assert threading.active_count() == before
    counter.flush()
    counter.close()
    assert objects(store) == []


def test_counts_are_written_in_the_background_and_the_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesses_module, "ACCESS_FLUSH_SECONDS", 0.02)
    store = memory_store()
    counter = AccessCounter(store, clock=Clock())
    for turn in range(2):
        counter.count("a")
        until = time.monotonic() + 20
        while counter._thread is not None and time.monotonic() < until:
            time.sleep(0.005)
        assert counter._thread is None
        assert sums(store) == {("a", DAY): turn + 1}
    counter.close()


def test_close_writes_ends_the_thread_and_counts_no_more() -> None:
    store = memory_store()
    counter = AccessCounter(store, clock=Clock())
    counter.count("a")
    thread = counter._thread
    assert thread is not None
    assert thread.daemon
    counter.close()
    counter.close()
    assert not thread.is_alive()
    counter.count("a")
    counter.flush()
    assert sums(store) == {("a", DAY): 1}


@pytest.mark.parametrize("fault", [Unavailable, CommitUnknown])
@pytest.mark.parametrize("after", [False, True])
def test_a_failed_flush_keeps_the_counts(store: Store, fault: type[Exception], after: bool) -> None:
    """Also when the object was made and only the answer was lost: it is not made twice."""
    watched: Any = Watched(store)
    counter = AccessCounter(watched, clock=Clock())

    def refuse(name: str, number: int) -> None:
        if name == "create":
            raise fault("refused")

    setattr(watched, "after" if after else "before", refuse)
    for _ in range(3):
        counter.count("a")
        with pytest.raises(Unavailable, match="refused"):
            counter.flush()
    assert len(objects(store)) == after
    watched.before = watched.after = None
    counter.flush()
    assert sums(store) == {("a", DAY): 3}
    assert len(objects(store)) == 2
    counter.close()


def test_a_failure_in_the_background_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accesses_module, "ACCESS_FLUSH_SECONDS", 0.01)
    store = memory_store()
    watched: Any = Watched(store)
    failures = []

    def refuse(name: str, number: int) -> None:
        if len(failures) < 3:
            failures.append(name)
            raise Unavailable("refused")

    watched.before = refuse
    counter = AccessCounter(watched, clock=Clock())
    counter.count("a")
    until = time.monotonic() + 20
    while counter._thread is not None and time.monotonic() < until:
        time.sleep(0.005)
    assert len(failures) == 3
    assert sums(store) == {("a", DAY): 1}
    counter.close()


def test_a_lake_that_vanished_is_no_error_and_does_not_come_back(tmp_path: Path) -> None:
    store = open_store(tmp_path / "lake")
    counter = AccessCounter(store)
    counter.count("a")
    with pytest.raises(Unavailable, match="found no lake"):
        counter.flush()
    counter.close()
    assert not (tmp_path / "lake").exists()


FORKED = """
import os, sys
from lakelet.lake.accesses import AccessCounter
from lakelet.lake.stores import open_store

counter = AccessCounter(open_store(sys.argv[1]), clock=lambda: float(sys.argv[2]))
counter.count("a")
counter.flush()
counter.count("a", 10)
child = os.fork()
if child == 0:
    counter.count("a", 100)
    counter.flush()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
counter.count("a", 1000)
counter.close()
"""
"""A program of its own: this process has threads, and forking it may hang."""


def test_a_forked_child_counts_for_itself(tmp_path: Path) -> None:
    store = with_lake(open_store(tmp_path / "lake"))
    subprocess.run([sys.executable, "-c", FORKED, str(tmp_path / "lake"), str(Clock()())], check=True, timeout=60)
    assert sums(store) == {("a", DAY): 1111}


def test_importing_it_loads_no_engine() -> None:
    code = "import sys, lakelet.lake.accesses\nprint({'duckdb', 'pandas', 'pyarrow', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


# --- compaction --------------------------------------------------------------------------------------------------


class Stop(BaseException):
    """The process dies here."""


class Watched:
    """Calls ``before`` and ``after`` with name and number of each request, which may raise."""

    REQUESTS = frozenset({"create", "put", "get", "get_many", "exists", "list", "delete"})

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.requests = 0
        self.before: Callable[[str, int], None] | None = None
        self.after: Callable[[str, int], None] | None = None

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in self.REQUESTS:
            return found

        def watched(*args: Any) -> Any:
            if name == "delete":  # one by one: it may end between any two
                for path in args[0]:
                    self._around(name, lambda path=path: found([path]))
                return None
            # a listing is over when its caller has all of it
            return self._around(name, lambda: iter(list(found(*args))) if name == "list" else found(*args))

        return watched

    def _around(self, name: str, act: Callable[[], Any]) -> Any:
        number = self.requests
        self.requests += 1
        if self.before is not None:
            self.before(name, number)
        answer = act()
        if self.after is not None:
            self.after(name, number)
        return answer


def write(store: Store, day: date, counter: int, number: int, reads: dict[str, int]) -> str:
    path = leaf_path(day, f"{counter:032x}", number)
    store.put(path, encode(path, Record(reads, 0, 1)))
    return path


def history(store: Store) -> dict[tuple[str, date], int]:
    """A day merged and then added to, one that was never merged, one with a single object, and today's."""
    write(store, DAY, 1, 0, {"a": 1})
    write(store, DAY, 2, 0, {"a": 2, "b": 1})
    assert compact(store, clock=later) == 2
    write(store, DAY, 1, 1, {"a": 4})
    write(store, DAY, 3, 0, {"b": 8})
    write(store, DAY, 1, 0, {"a": 1})  # once more, by a writer that had no answer and slept: adds nothing
    write(store, DAY + timedelta(1), 1, 0, {"a": 16})
    write(store, DAY + timedelta(1), 1, 1, {"c": 32})
    write(store, DAY + timedelta(1), 4, 1, {"c": 64})  # number 0 is not there yet
    write(store, DAY + timedelta(2), 1, 0, {"a": 128})
    write(store, DAY + timedelta(10), 1, 0, {"a": 256})
    write(store, DAY + timedelta(10), 1, 1, {"a": 512})
    return {
        ("a", DAY): 7,
        ("b", DAY): 9,
        ("a", DAY + timedelta(1)): 16,
        ("c", DAY + timedelta(1)): 96,
        ("a", DAY + timedelta(2)): 128,
        ("a", DAY + timedelta(10)): 768,
    }


MERGED_ALL = [
    leaf_path(DAY + timedelta(1), f"{4:032x}", 1),
    leaf_path(DAY + timedelta(2), f"{1:032x}", 0),
    leaf_path(DAY + timedelta(10), f"{1:032x}", 0),
    leaf_path(DAY + timedelta(10), f"{1:032x}", 1),
    merged_path(DAY, 1),
    merged_path(DAY, 2),
    merged_path(DAY + timedelta(1), 1),
]


def test_compaction_leaves_one_object_for_a_day_that_is_over(store: Store) -> None:
    truth = history(store)
    assert sums(store) == truth
    assert compact(store, clock=later) == 5
    assert sums(store) == truth
    assert objects(store) == sorted(MERGED_ALL)
    assert compact(store, clock=later) == 0
    write(store, DAY + timedelta(1), 4, 0, {"c": 1000})
    assert compact(store, clock=later) == 2  # the number that was missing, and the one that waited for it
    assert sums(store) == {**truth, ("c", DAY + timedelta(1)): 1096}
    assert compact(store, clock=lambda: NOON) == 0  # yesterday and today are left alone


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fault", [Stop, CommitUnknown])
@pytest.mark.parametrize("make", ["local", "memory"])
def test_compaction_stopped_at_every_request(tmp_path: Path, make: str, fault: type, after: bool) -> None:
    at = 0
    while True:
        store = with_lake(open_store(tmp_path / str(at))) if make == "local" else memory_store()
        truth = history(store)
        watched: Any = Watched(store)

        def stop(name: str, number: int, at: int = at) -> None:
            if number == at:
                raise fault("stopped")

        setattr(watched, "after" if after else "before", stop)
        with contextlib.suppress(Stop, CommitUnknown):
            compact(watched, clock=later)
        assert sums(store) == truth
        compact(store, clock=later)
        assert sums(store) == truth
        assert objects(store) == sorted(MERGED_ALL)
        if watched.requests <= at:
            assert at > 10
            return
        at += 1


def test_a_reader_at_every_moment_of_a_compaction() -> None:
    store = memory_store()
    truth = history(store)
    watched: Any = Watched(store)
    seen = []

    def read(name: str, number: int) -> None:
        seen.append(number)
        assert sums(store) == truth

    watched.before = watched.after = read
    compact(watched, clock=later)
    assert len(seen) > 20


def test_a_reader_overtaken_at_every_request_by_compactions() -> None:
    """The other way round, and what was merged grows and is merged again while it reads."""
    at = 0
    while True:
        store = memory_store()
        truth = history(store)
        watched: Any = Watched(store)

        def overtake(name: str, number: int, at: int = at, store: Store = store) -> None:
            if at <= number < at + 3:
                compact(store, clock=later)
                # what adds nothing, merged into the next generation
                write(store, DAY, 7, number, {})
                write(store, DAY, 8, number, {})

        watched.before = watched.after = overtake
        assert sums(watched) == truth
        if watched.requests <= at:
            assert at >= 4
            return
        at += 1


def test_a_listing_that_is_torn_by_a_compaction() -> None:
    """Some of the objects are listed before they go, some not, and the generation came too late for that listing."""
    for seen in range(5):
        store = memory_store()
        truth = history(store)
        torn = []

        class Torn(Watched):
            def list(self, prefix: str, store: Store = store, torn: list[str] = torn, seen: int = seen) -> Any:
                listed = list(store.list(prefix))
                if torn:
                    return iter(listed)
                torn.append(prefix)
                compact(store, clock=later)
                left = set(objects(store))
                gone = [info for info in listed if info.path not in left]
                stayed = [info for info in listed if info.path in left]
                return iter(gone[:seen] + stayed)

        reader: Any = Torn(store)
        assert sums(reader) == truth
        assert torn


def test_two_compactors_interleaved_at_every_request() -> None:
    """One sleeps at any request while another does all there is to do, late counts included, once or twice."""
    for after, early in itertools.product((False, True), repeat=2):
        at = 0
        while True:
            store = memory_store()
            truth = history(store)
            watched: Any = Watched(store)

            def sleep(name: str, number: int, at: int = at, store: Store = store, early: bool = early) -> None:
                if number == at:
                    if not early:
                        compact(store, clock=later)
                    write(store, DAY, 1, 2, {"a": 1000})
                    write(store, DAY, 9, 0, {"a": 2000})
                    compact(store, clock=later)

            setattr(watched, "after" if after else "before", sleep)
            compact(watched, clock=later)
            if watched.requests > at:
                truth["a", DAY] += 3000
            assert sums(store) == truth
            compact(store, clock=later)
            assert sums(store) == truth
            if watched.requests <= at:
                assert at > 8
                break
            at += 1


def test_who_loses_the_race_for_a_generation_deletes_nothing_that_it_does_not_cover() -> None:
    """The winner listed the objects before the last one was written, the loser afterwards."""
    store = memory_store()
    truth = history(store)
    winner: Any = Watched(store)
    loser: Any = Watched(store)
    at_create, go = threading.Event(), threading.Event()

    def wait(name: str, number: int) -> None:
        if name == "create" and not at_create.is_set():
            at_create.set()
            assert go.wait(20)

    winner.before = wait
    thread = threading.Thread(target=compact, args=(winner,), kwargs={"clock": later})
    thread.start()
    assert at_create.wait(20)
    write(store, DAY, 9, 0, {"b": 1000})

    def overtaken(name: str, number: int) -> None:
        if name == "create" and not go.is_set():
            go.set()
            thread.join(20)

    loser.before = overtaken
    compact(loser, clock=later)
    assert not thread.is_alive()
    assert sums(store) == {**truth, ("b", DAY): 1009}
    assert leaf_path(DAY, f"{9:032x}", 0) in objects(store)


def test_compactors_and_readers_at_once(store: Store) -> None:
    for number in range(60):
        write(store, DAY + timedelta(number % 3), number % 5, number // 15, {"a": 1})
    truth = sums(store)
    for number in range(4, 8):
        write(store, DAY, 0, number, {})
    wrong: list[object] = []

    def run(act: Callable[[], object]) -> None:
        try:
            for _ in range(4):
                act()
        except Exception as error:
            wrong.append(error)

    def read() -> None:
        if sums(store) != truth:
            wrong.append(sums(store))

    jobs: list[Callable[[], object]] = [lambda: compact(store, clock=later)] * 3 + [read] * 3
    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sums(store) == truth


def test_objects_that_keep_vanishing_end_a_reader(store: Store) -> None:
    write(store, DAY, 1, 0, {"a": 1})
    watched: Any = Watched(store)

    def vanish(name: str, number: int) -> None:
        if name == "get_many":
            store.delete(objects(store))
        if name == "list":
            write(store, DAY, 1, 0, {"a": 1})

    watched.before = vanish
    with pytest.raises(Unavailable, match="vanished"):
        read_accesses(watched)
