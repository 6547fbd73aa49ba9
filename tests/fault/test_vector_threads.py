"""A vector index under threads: readers beside writers, and writers beside merges that are held up or fail."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from lakelet.lake.errors import InvalidInput
from lakelet.vector import index as index_module
from lakelet.vector import segment as segment_module
from lakelet.vector import units as units_module
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import ALL_TENANTS, PUBLIC
from lakelet.vector.predicates import Tenant

DIM = 8
MOST = 3_000
SECONDS = 60.0


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Merges all the time, and threads that take turns more often than they would."""
    monkeypatch.setattr(units_module, "VECTOR_DELTA_ROWS", 32)
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 250)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)
    yield
    sys.setswitchinterval(interval)


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def seen(index: VectorIndex, who: Any, k: int = MOST, exact: bool = True) -> list[int]:
    ids = index.search(np.zeros(DIM, np.float32), k, who, exact=exact)[0][0]
    return [row for row in ids.tolist() if row >= 0]


def in_time(act: Callable[[], Any]) -> Any:
    """What ``act`` returns; it must not be blocked."""
    out: list[Any] = []

    def run() -> None:
        try:
            out.append((act(), None))
        except BaseException as error:
            out.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert out, "it is blocked"
    value, error = out[0]
    if error is not None:
        raise error
    return value


def together(works: list[Callable[[], Any]], writer: Callable[[], Any]) -> None:
    """Repeat ``works``, a thread each, until ``writer`` is done; raise what any of them raised."""
    stop, errors, turns = threading.Event(), list[BaseException](), [0] * len(works)

    def repeat(number: int) -> None:
        try:
            while not stop.is_set() or not turns[number]:
                works[number]()
                turns[number] += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(number,), daemon=True) for number in range(len(works))]
    for thread in threads:
        thread.start()
    try:
        writer()
    finally:
        stop.set()
        for thread in threads:
            thread.join(SECONDS)
    if errors:
        raise errors[0]
    assert not any(thread.is_alive() for thread in threads)


class Ledger:
    """What a writer did to each row: how often it began, how often it was done, and who sees the row since."""

    def __init__(self, tenants: int) -> None:
        self.began, self.done = np.zeros(MOST, np.int64), np.zeros(MOST, np.int64)
        self.sees = np.zeros((tenants, MOST), np.bool_)
        self.live = np.zeros(MOST, np.bool_)

    def change(self, ids: Any, act: Callable[[], Any], noted: Callable[[], Any]) -> None:
        self.began[ids] += 1
        act()
        noted()
        self.done[ids] += 1

    def check(self, tenant: int, search: Callable[[], list[int]], every: Callable[[], list[int]]) -> None:
        """Rows that nobody touched from before a search until after it are in its results just if they should be."""
        for looked, look in ((lambda: self.sees[tenant], search), (lambda: self.live, every)):
            done, expected = self.done.copy(), looked().copy()
            found = look()
            quiet = done == self.began
            assert len(found) == len(set(found))
            has = np.zeros(MOST, np.bool_)
            has[found] = True
            wrong = np.flatnonzero(quiet & (has != expected))
            assert not len(wrong), (wrong[:9], has[wrong[:9]], expected[wrong[:9]])


def test_readers_beside_a_writer_see_what_was_acknowledged_and_nothing_else() -> None:
    index, ledger, random = VectorIndex(DIM, threads=1), Ledger(3), np.random.default_rng(5)
    index.add(rows(1), [MOST - 1], 0)
    ledger.live[MOST - 1] = ledger.sees[0, MOST - 1] = True
    for label in (1, 2):
        index.grant([], label)

    def seen_by(labels: Any, ids: np.ndarray, sees: bool) -> None:
        ledger.sees[labels, ids] = sees

    def put(ids: np.ndarray, labels: np.ndarray) -> None:
        index.add(rows(len(ids), int(ids[0])), ids, [[int(label)] for label in labels])

    def is_live(ids: np.ndarray, labels: np.ndarray) -> None:
        seen_by(labels, ids, True)
        ledger.live[ids] = True

    def is_gone(ids: np.ndarray) -> None:
        seen_by(slice(None), ids, False)
        ledger.live[ids] = False

    def write() -> None:
        first = 0
        for turn in range(200):
            count = 260 if turn % 60 == 20 else int(random.integers(1, 16))
            ids, labels = np.arange(first, first + count), random.integers(0, 3, count)
            ledger.change(ids, partial(put, ids, labels), partial(is_live, ids, labels))
            first += count
            there = np.flatnonzero(ledger.live[: MOST - 1])
            some, label = random.choice(there, min(len(there), 12), replace=False), int(random.integers(0, 3))
            if turn % 3 == 0:
                ledger.change(some, partial(index.grant, some, label), partial(seen_by, label, some, True))
            elif turn % 3 == 1:
                ledger.change(some, partial(index.revoke, some, label), partial(seen_by, label, some, False))
            else:
                gone = there[: len(there) // 3] if turn % 50 == 2 else some
                ledger.change(gone, partial(index.delete, gone), partial(is_gone, gone))
        assert first < MOST - 1

    def reader(tenant: int, exact: bool) -> Callable[[], None]:
        return lambda: ledger.check(
            tenant, lambda: seen(index, tenant, exact=exact), lambda: seen(index, ALL_TENANTS, exact=exact)
        )

    together([reader(0, True), reader(1, False), reader(2, True)], write)
    index.wait()
    for tenant in range(3):
        reader(tenant, True)()
        assert sorted(seen(index, tenant)) == np.flatnonzero(ledger.sees[tenant]).tolist()


def growing(index: VectorIndex, turns: int) -> Callable[[], None]:
    """A writer that brings new tenants all the time, and takes some away."""

    def write() -> None:
        for number in range(turns):
            ids = index.add(rows(9, number), tenants=f"t{number}")
            index.grant(ids, number)
            index.grant([number], 10_000 + number)
            if number % 9 == 0:
                index.drop_tenant(number)

    return write


def test_a_reader_of_predicates_beside_a_writer() -> None:
    index = VectorIndex(DIM, threads=1)
    index.add(rows(600), tenants=[["a"], ["b"], ["a", PUBLIC]] * 200)
    queries, turn = rows(3, 1), iter(range(10**9))

    def predicate() -> None:
        label = next(turn) % 250
        ids = index.search(queries, 700, Tenant("a") & ~Tenant(label) & ~Tenant(f"t{label}"))[0]
        assert all(len(set(some) - {-1}) == sum(row >= 0 for row in some) for some in ids.tolist())
        shown = set(ids[0].tolist()) - {-1}
        assert shown <= set(range(0, 600, 3))
        assert len(shown) >= 199  # one of the first 250 rows was granted to the label at most

    together([predicate], growing(index, 250))
    index.wait()


def test_readers_of_many_predicates_do_not_disturb_each_other() -> None:
    index = VectorIndex(DIM, threads=1)
    index.add(rows(600), tenants=["a", "b"] * 300)
    turn = iter(range(10**9))

    def predicate() -> None:
        ids = index.search(rows(1), 400, Tenant("a") & ~Tenant(next(turn)))[0]
        assert np.count_nonzero(ids >= 0) == 300

    def read() -> None:
        for _ in range(800):
            predicate()

    together([predicate, predicate], read)


def test_figures_can_be_read_beside_a_writer() -> None:
    index = VectorIndex(DIM, threads=1)
    index.add(rows(600), tenants=[["a"], ["b"], ["a", PUBLIC]] * 200)

    def figures() -> None:
        memory = index.memory()
        assert memory["total"] == sum(size for what, size in memory.items() if what != "total")
        assert {use.label for use in index.tenants()} >= {"a", "b", PUBLIC}
        assert len(index) >= 600
        assert index.explain(5, "a")
        assert "rows=" in repr(index)

    together([figures, figures], growing(index, 200))
    index.wait()


# --- merges that are held up ---------------------------------------------------------------------------------------


class Gate:
    """Merges wait here once they have begun."""

    def __init__(self, patch: pytest.MonkeyPatch, name: str = "merged") -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()
        real = getattr(units_module, name)

        def held(*args: Any, **kwargs: Any) -> Any:
            self.begun.set()
            assert self.let_go.wait(SECONDS)
            return real(*args, **kwargs)

        patch.setattr(units_module, name, held)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.let_go.set()


def merging(gate: Gate, optimize: bool) -> tuple[VectorIndex, threading.Thread]:
    """200 rows of a (even) and b (odd), id 3k public too, in units that are being merged."""
    index = VectorIndex(DIM, threads=1)
    labels: list[Any] = [["a" if row % 2 == 0 else "b", *([PUBLIC] if row % 3 == 0 else [])] for row in range(200)]
    for first in range(0, 200, 20):
        index.add(rows(20, first), tenants=labels[first : first + 20])
    thread = threading.Thread(target=index.optimize if optimize else index.wait, daemon=True)
    thread.start()
    assert gate.begun.wait(SECONDS)
    return index, thread


@pytest.mark.parametrize("optimize", [False, True])
def test_nobody_waits_for_a_merge_and_what_is_done_meanwhile_is_kept(gate: Gate, optimize: bool) -> None:
    index, thread = merging(gate, optimize)
    model: dict[Any, set[int]] = {"a": set(range(0, 200, 2)), "b": set(range(1, 200, 2)), PUBLIC: set(range(0, 200, 3))}
    live = set(range(200))

    def agrees() -> None:
        for label in ("a", "b", "new", "stranger"):
            expected = (model.get(label, set()) | model[PUBLIC]) & live
            for exact in (True, False):
                assert set(seen(index, label, 400, exact)) == expected, label
        assert set(seen(index, ALL_TENANTS, 400)) == live
        assert set(seen(index, ~Tenant("a"), 400)) == live - model["a"] - model[PUBLIC]
        usage = {use.label: use.rows for use in index.tenants()}
        assert usage == {label: len(some & live) for label, some in model.items()}
        assert len(index) == len(live)
        assert np.isfinite(index.search(rows(4, 77), 3, "b")[1]).all()

    def act() -> None:
        agrees()
        index.grant([1, 51, 151], "a")
        model["a"] |= {1, 51, 151}
        index.grant([0, 100, 199], "new")
        model["new"] = {0, 100, 199}
        index.revoke([2, 4, 102], "a")
        model["a"] -= {2, 4, 102}
        index.revoke([0, 3, 99], PUBLIC)
        model[PUBLIC] -= {0, 3, 99}
        index.delete([6, 7, 8, 120, 121])
        for some in model.values():
            some -= {6, 7, 8, 120, 121}
        index.add(rows(2, 500), [7, 120], ["b", ["b", "new"]])  # deleted ids come again
        model["b"] |= {7, 120}
        model["new"] |= {120}
        live.difference_update({6, 8, 121})
        index.add(rows(90, 501), np.arange(300, 390), "a")  # more than a delta
        model["a"] |= set(range(300, 390))
        live.update(range(300, 390))
        agrees()
        assert thread.is_alive()
        gone = {row for row in model["a"] if not any(row in some for label, some in model.items() if label != "a")}
        assert index.drop_tenant("a") == len(gone)
        del model["a"]
        live.difference_update(gone)
        model.update({label: some - gone for label, some in model.items()})
        model["a"] = set()
        index.grant([1, 9], "a")
        model["a"] = {1, 9}
        agrees()

    in_time(act)
    assert thread.is_alive()
    gate.let_go.set()
    thread.join(SECONDS)
    in_time(index.wait)
    agrees()
    in_time(index.optimize)
    agrees()


def test_a_merge_of_rows_that_all_go_meanwhile(gate: Gate) -> None:
    index, thread = merging(gate, optimize=False)
    index.delete(np.arange(200))
    index.add(rows(5), np.arange(5), "b")
    gate.let_go.set()
    thread.join(SECONDS)
    in_time(index.wait)
    assert (sorted(seen(index, ALL_TENANTS)), sorted(seen(index, "b")), seen(index, "a")) == (
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4],
        [],
    )
    in_time(index.optimize)
    assert len(index) == 5
    assert index.memory()["vectors"] == 5 * 4 * DIM


def held_up(monkeypatch: pytest.MonkeyPatch) -> tuple[VectorIndex, Gate, threading.Thread]:
    """An index of 20 rows of tenant a while 400 more are being built, which the gate holds up."""
    index = VectorIndex(DIM, threads=1)
    index.add(rows(20), tenants="a")
    gate = Gate(monkeypatch, "built")
    thread = threading.Thread(target=lambda: index.add(rows(400, 1), tenants="a"), daemon=True)
    thread.start()
    assert gate.begun.wait(SECONDS)
    return index, gate, thread


def test_a_large_batch_is_built_while_others_read_and_write(monkeypatch: pytest.MonkeyPatch) -> None:
    index, gate, thread = held_up(monkeypatch)

    def act() -> None:
        assert sorted(seen(index, "a")) == list(range(20))
        assert index.add(rows(1, 2), tenants="b").tolist() == [420]
        index.delete([3])
        index.revoke([4], "a")

    in_time(act)
    assert thread.is_alive()
    gate.let_go.set()
    thread.join(SECONDS)
    assert sorted(seen(index, "a")) == [0, 1, 2, *range(5, 420)]
    assert seen(index, "b") == [420]


def test_a_tenant_dropped_while_its_large_batch_is_built_sees_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch was acknowledged after the drop, so nothing may have taken its rows from the tenant."""
    index, gate, thread = held_up(monkeypatch)
    in_time(lambda: index.drop_tenant("a"))
    gate.let_go.set()
    thread.join(SECONDS)
    assert sorted(seen(index, "a")) == sorted(seen(index, ALL_TENANTS)) == list(range(20, 420))


@pytest.mark.parametrize(
    "label",
    ["a", "new"],
)
def test_a_large_batch_whose_ids_are_taken_meanwhile_is_refused_whole(
    monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    index = VectorIndex(DIM, threads=1)
    index.add(rows(20), tenants="a")
    gate = Gate(monkeypatch, "built")
    errors: list[BaseException] = []

    def load() -> None:
        try:
            index.add(rows(400, 1), np.arange(100, 500), label)
        except InvalidInput as error:
            errors.append(error)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    assert gate.begun.wait(SECONDS)
    in_time(lambda: index.add(rows(1, 2), [300], "a"))
    before = index.tenants()
    gate.let_go.set()
    thread.join(SECONDS)
    assert [str(error)[:44] for error in errors] == ["1 of the ids, id 300 first, are those of liv"]
    assert sorted(seen(index, ALL_TENANTS)) == [*range(20), 300]
    assert [use.label for use in before] == [use.label for use in index.tenants()] == ["a"]


# --- merges that fail ----------------------------------------------------------------------------------------------


class Burnt(Exception):
    """What a merge may fail with."""


def failing(patch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Merges fail so many times; those that were tried."""
    real, tried = units_module.merged, list[int]()

    def merged(*args: Any) -> Any:
        tried.append(len(tried))
        if len(tried) <= times:
            raise Burnt(f"attempt {len(tried)}")
        return real(*args)

    patch.setattr(units_module, "merged", merged)
    return tried


@pytest.mark.parametrize("who", ["add", "grant", "revoke", "delete", "drop_tenant", "wait"])
def test_what_a_merge_failed_with_is_raised_once_and_the_next_one_works(
    monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    tried = failing(monkeypatch, 1)
    index = VectorIndex(DIM, threads=1)
    index.add(rows(200), tenants="a")
    while (thread := index._units._background) is not None:  # a join that does not raise, unlike wait()
        thread.join(SECONDS)
    assert tried == [0]
    before = sorted(seen(index, "a")), index.tenants(), len(index)
    acts: dict[str, Callable[[], Any]] = {
        "add": lambda: index.add(rows(1, 1), tenants="b"),
        "grant": lambda: index.grant([0], "b"),
        "revoke": lambda: index.revoke([0], "a"),
        "delete": lambda: index.delete([0]),
        "drop_tenant": lambda: index.drop_tenant("a"),
        "wait": index.wait,
    }
    with pytest.raises(Burnt, match="attempt 1"):
        acts[who]()
    assert (sorted(seen(index, "a")), index.tenants(), len(index)) == before == (list(range(200)), index.tenants(), 200)
    index.add(rows(50, 2), tenants="a")
    index.wait()
    assert len(tried) > 1
    assert {step.unit for step in index.explain(5, "a")} >= {"segment"}
    assert sorted(seen(index, "a")) == list(range(250))
    index.delete(np.arange(100))
    index.wait()
    assert sorted(seen(index, "a")) == list(range(100, 250))


def test_optimize_raises_what_it_failed_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    index = VectorIndex(DIM, threads=1)
    index.add(rows(20), tenants="a")
    failing(monkeypatch, 1)
    with pytest.raises(Burnt, match="attempt 1"):
        index.optimize()
    assert sorted(seen(index, "a")) == list(range(20))
    assert index.add(rows(20, 1), tenants="a").tolist() == list(range(20, 40))
    index.optimize()
    assert [step.unit for step in index.explain(5, "a")] == ["segment"]
    assert sorted(seen(index, "a")) == list(range(40))


def test_a_large_batch_that_cannot_be_built_leaves_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    index = VectorIndex(DIM, threads=1)
    index.add(rows(20), tenants="a")

    def built(*args: Any, **named: Any) -> Any:
        raise Burnt

    with monkeypatch.context() as patch:
        patch.setattr(units_module, "built", built)
        with pytest.raises(Burnt):
            index.add(rows(400, 1), np.arange(100, 500), "a")
    assert sorted(seen(index, "a")) == list(range(20))
    index.add(rows(400, 1), np.arange(100, 500), "a")
    assert len(index) == 420


def test_a_merge_that_fails_at_its_start_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)
    index = VectorIndex(DIM, threads=1)
    ended = threading.Event()

    def started(units: Any) -> Any:
        ended.set()
        raise MemoryError

    monkeypatch.setattr(units_module, "started", started)
    index.add(rows(100), tenants="a")
    assert ended.wait(SECONDS)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            index.wait()
        except MemoryError as error:
            errors.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(1)
    index._units._background = None  # lets the thread end where it goes round for ever
    thread.join(SECONDS)
    assert len(errors) == 1


# --- one search, one state -----------------------------------------------------------------------------------------


def test_a_row_deleted_and_added_again_during_a_search_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    index = VectorIndex(DIM, threads=1)
    index.add(rows(20), tenants="a")
    index.optimize()
    index.add(rows(5, 1), tenants="a")
    real, done = segment_module.Rows.search, list[int]()

    def search(self: Any, *args: Any) -> None:
        real(self, *args)
        if not done:
            done.append(1)
            index.delete([7])
            index.add(rows(1, 2), [7], "a")

    monkeypatch.setattr(segment_module.Rows, "search", search)
    found = seen(index, "a", 30)
    assert done
    assert len(found) == len(set(found))
