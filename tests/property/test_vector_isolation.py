"""A vector index that tenants share against a plain dictionary: nothing is lost, and nothing crosses tenants."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lakelet.lake.errors import InvalidInput, LakeletError, NotFound
from lakelet.vector import index as index_module
from lakelet.vector import units as units_module
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import ALL_TENANTS, PUBLIC
from lakelet.vector.predicates import Predicate, Tenant

DIM = 16
LABELS: list[Any] = ["a", "b", 3, "3", PUBLIC]
SEES = [*LABELS, "stranger", ALL_TENANTS]
METRICS = ["l2", "ip", "cosine"]


@pytest.fixture(autouse=True, scope="module")
def small() -> Iterator[None]:
    """A few dozen rows make full deltas, segments and merges."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units_module, "VECTOR_DELTA_ROWS", 48)
        patch.setattr(index_module, "VECTOR_BULK_ROWS", 250)
        yield


def corners(seed: int, rows: int) -> np.ndarray:
    """Vectors whose distances float32 holds exactly under every metric, many of them equal."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), (rows, DIM))


def distances(metric: str, queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Of corners, float32 (m, n), exact."""
    inner = queries @ vectors.T
    return 2 * (DIM - inner) if metric == "l2" else -inner if metric == "ip" else 1 - inner / np.float32(DIM)


def predicates() -> st.SearchStrategy[Predicate]:
    leaves = st.sampled_from([*LABELS, "stranger"]).map(Tenant)
    return st.recursive(
        leaves,
        lambda inner: (
            st.builds(lambda p, q: p & q, inner, inner)
            | st.builds(lambda p, q: p | q, inner, inner)
            | inner.map(lambda p: ~p)
        ),
        max_leaves=5,
    )


class Model:
    """A row by id: its vector, and the labels that it was granted to."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[np.ndarray, set[Any]]] = {}
        self.tenanted = False

    def seen(self, who: Any) -> set[int]:
        if who is None or who is ALL_TENANTS:
            return set(self.rows)
        if isinstance(who, Predicate):
            return {row for row, (_, labels) in self.rows.items() if holds(who, labels)}
        return {row for row, (_, labels) in self.rows.items() if who in labels or PUBLIC in labels}

    def usage(self) -> dict[Any, int]:
        known: dict[Any, int] = dict.fromkeys(LABELS, 0)
        for _, labels in self.rows.values():
            for label in labels:
                known[label] += 1
        return {label: count for label, count in known.items() if count}

    def nearest(self, metric: str, queries: np.ndarray, who: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        ids = np.array(sorted(self.seen(who)), np.int64)
        out_ids, out = np.full((len(queries), k), -1), np.full((len(queries), k), np.inf, np.float32)
        if len(ids):
            apart = distances(metric, queries, np.stack([self.rows[row][0] for row in ids.tolist()]))
            best = np.argsort(apart, axis=1, kind="stable")[:, :k]
            out_ids[:, : best.shape[1]], out[:, : best.shape[1]] = ids[best], np.take_along_axis(apart, best, 1)
        return out_ids, out


def holds(predicate: Predicate, labels: set[Any]) -> bool:
    if isinstance(predicate, Tenant):
        return predicate.label in labels or PUBLIC in labels
    parts = [holds(getattr(predicate, name), labels) for name in predicate.__slots__]
    return {"And": all(parts), "Or": any(parts), "Not": not parts[0]}[type(predicate).__name__]


class SharedIndex(RuleBasedStateMachine):
    """Everything that callers do, in any order."""

    @initialize(metric=st.sampled_from(METRICS))
    def start(self, metric: str) -> None:
        self.metric = metric
        self.index = VectorIndex(DIM, metric, threads=1)
        self.model = Model()
        self.gone: list[int] = []
        self.ever: set[Any] = {PUBLIC}

    def some(self, data: st.DataObject, most: int = 30) -> list[int]:
        """A few rows that are there."""
        live = sorted(self.model.rows)
        count = data.draw(st.integers(0, min(most, len(live))), "count")
        random = np.random.default_rng(data.draw(st.integers(0, 99), "which"))
        return [int(row) for row in random.choice(live, count, replace=False)] if live else []

    @rule(
        rows=st.sampled_from([0, 1, 1, 7, 30, 60, 260, 700]),
        seed=st.integers(0, 30),
        labels=st.lists(st.none() | st.lists(st.sampled_from(LABELS), max_size=3), min_size=1, max_size=5),
        again=st.booleans(),
    )
    def add(self, rows: int, seed: int, labels: list[Any], again: bool) -> None:
        vectors, entries = corners(seed, rows), [labels[row % len(labels)] for row in range(rows)]
        ids: list[int] | None = None
        if again and len(self.gone) >= rows:
            ids, self.gone = self.gone[:rows], self.gone[rows:]
        elif not rows % 2:
            first = max([*self.model.rows, *self.gone], default=-1) + 3
            ids = list(range(first + rows, first, -1))
        given_ids = self.index.add(vectors, ids, entries).tolist()
        assert ids is None or given_ids == ids
        assert len(set(given_ids)) == rows
        assert not set(given_ids) & set(self.model.rows)
        for row, vector, entry in zip(given_ids, vectors, entries, strict=True):
            self.model.rows[row] = vector, set(entry or ())
            self.ever |= set(entry or ())
            self.model.tenanted |= bool(entry)
        self.gone = [row for row in self.gone if row not in self.model.rows]

    @rule(data=st.data(), label=st.sampled_from(LABELS))
    def grant(self, data: st.DataObject, label: Any) -> None:
        ids = self.some(data)
        self.index.grant(ids, label)
        self.ever.add(label)
        self.model.tenanted = True
        for row in ids:
            self.model.rows[row][1].add(label)

    @rule(data=st.data(), label=st.sampled_from(LABELS))
    def revoke(self, data: st.DataObject, label: Any) -> None:
        ids = self.some(data)
        if label not in self.ever:
            with pytest.raises(NotFound):
                self.index.revoke(ids, label)
            return
        self.index.revoke(ids, label)
        for row in ids:
            self.model.rows[row][1].discard(label)

    @rule(data=st.data(), most=st.sampled_from([5, 50, 400]))
    def delete(self, data: st.DataObject, most: int) -> None:
        ids = self.some(data, most)
        if self.gone and data.draw(st.booleans(), "an unknown id too"):
            with pytest.raises(NotFound):
                self.index.delete([*ids, self.gone[0]])
            return
        self.index.delete(ids)
        for row in ids:
            del self.model.rows[row]
        self.gone += ids

    @rule(label=st.sampled_from(LABELS[:-1]), keep_rows=st.booleans())
    def drop(self, label: Any, keep_rows: bool) -> None:
        if label not in self.ever:
            with pytest.raises(NotFound):
                self.index.drop_tenant(label)
            return
        self.ever.discard(label)
        alone = [row for row, (_, labels) in self.model.rows.items() if labels == {label}]
        for _, labels in self.model.rows.values():
            labels.discard(label)
        assert self.index.drop_tenant(label, keep_rows=keep_rows) == (0 if keep_rows else len(alone))
        if not keep_rows:
            for row in alone:
                del self.model.rows[row]
            self.gone += alone

    @rule(optimize=st.booleans())
    def settle(self, optimize: bool) -> None:
        if optimize:
            self.index.optimize()
        else:
            self.index.wait()

    @rule(mmap=st.booleans())
    def save_and_load(self, mmap: bool) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "index")
            self.index.save(path)
            self.index.wait()
            self.index = VectorIndex.load(path, mmap, threads=1)

    @precondition(lambda self: self.model.rows)
    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        taken = self.some(data, 3) or [min(self.model.rows)]
        with pytest.raises(InvalidInput, match="live rows"):
            self.index.add(corners(0, len(taken)), taken, "b")

    @rule(
        who=st.sampled_from([*SEES, None]) | predicates(),
        k=st.sampled_from([1, 10, 60, 2_000]),
        seed=st.integers(50, 70),
    )
    def search(self, who: Any, k: int, seed: int) -> None:
        queries = corners(seed, 4)
        if who is None and self.model.tenanted:
            with pytest.raises(InvalidInput, match="this index has tenants"):
                self.index.search(queries, k)
            return
        visible = self.model.seen(who)
        ids, apart = self.index.search(queries, k, who, exact=True)
        wanted, distance = self.model.nearest(self.metric, queries, who, k)
        assert (ids == wanted).all()
        assert (apart == distance).all()
        for threads in (1, 2):
            ids, apart = self.index.search(queries, k, who, threads=threads)
            for query, some, found in zip(queries, ids.tolist(), apart, strict=True):
                shown = [row for row in some if row >= 0]
                assert len(shown) == len(set(shown)) == min(k, len(visible)) == np.isfinite(found).sum()
                assert set(shown) <= visible
                assert all(row == -1 for row in some[len(shown) :])
                if shown:
                    vectors = np.stack([self.model.rows[row][0] for row in shown])
                    assert (found[: len(shown)] == distances(self.metric, query[None], vectors)[0]).all()
                    assert list(zip(found.tolist(), some, strict=True))[: len(shown)] == sorted(
                        zip(found.tolist(), shown, strict=False)
                    )

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "index"):
            assert len(self.index) == len(self.model.rows)
            assert {use.label: use.rows for use in self.index.tenants() if use.rows} == self.model.usage()
            assert {use.label for use in self.index.tenants()} | {PUBLIC} == self.ever | {PUBLIC}

    def teardown(self) -> None:
        if hasattr(self, "index"):
            self.index.wait()
            for who in SEES:
                self.search(who, 40, 77)


SharedIndex.TestCase.settings = settings(max_examples=35, stateful_step_count=25)
test_an_index_is_the_model = SharedIndex.TestCase


# --- what one tenant does is nothing to another --------------------------------------------------------------------

A, B = "a", "b"
STEPS = st.lists(
    st.tuples(
        st.sampled_from([A, B]),
        st.sampled_from(["add", "add many", "grant", "revoke", "delete", "again", "drop", "optimize", "wrong"]),
        st.integers(0, 9_999),
    ),
    min_size=4,
    max_size=22,
)


class Habit:
    """A tenant at work in an index: what it does next depends on itself alone."""

    def __init__(self, who: str, first: int) -> None:
        self.who, self.next, self.mine, self.gone = who, first + 2, [first], [first + 1]

    def acts(self, index: VectorIndex, what: str, seed: int, others: list[int]) -> Any:
        """Do it; the type and the message of the error if it is refused. ``others`` are rows that it may look at."""
        random = np.random.default_rng(seed)
        some = [int(row) for row in random.permutation(self.mine)[: random.integers(1, 40)]]
        try:
            if what.startswith("add"):
                rows = 300 if what == "add many" else int(random.integers(1, 60))
                ids = list(range(self.next, self.next + rows))
                self.mine, self.next = self.mine + ids, self.next + rows
                entry = [self.who, "c"] if seed % 3 else [self.who]
                index.add(corners(seed, rows), ids, [entry] * rows)
            elif what == "grant":
                index.grant(some + others[: seed % 50], self.who)
            elif what == "revoke":
                index.revoke(some[:9] + others[: seed % 50], self.who)
            elif what == "delete":
                self.mine, self.gone = [row for row in self.mine if row not in some], self.gone + some
                index.delete(some)
            elif what == "again":
                ids, self.gone = self.gone[:20], self.gone[20:]
                self.mine = self.mine + ids
                index.add(corners(seed, len(ids)), ids, self.who)
            elif what == "drop":
                self.mine = []  # the other one may hold some of them: whether their ids are free is not for sure
                index.drop_tenant(self.who)
            elif what == "optimize":
                index.optimize() if seed % 2 else index.wait()
            else:
                index.add(corners(seed, 2), [self.next + 5, self.mine[0] if self.mine else -3], self.who)
        except LakeletError as error:
            return type(error), str(error)
        return None


def told(index: VectorIndex, who: str, seed: int) -> list[Any]:
    """All that a tenant is told."""
    queries = corners(seed, 3)
    found: list[Any] = [(use.rows, use.bytes) for use in index.tenants() if use.label == who]
    for k in (1, 20, 1_500):
        found += [part.tolist() for part in index.search(queries, k, who, exact=True)]
        found.append(np.count_nonzero(index.search(queries, k, who)[0] >= 0, axis=1).tolist())
    found += [part.tolist() for part in index.search(queries, 2_000, who)]  # of all it sees, in the same order
    return found


@settings(max_examples=40)
@given(STEPS, st.sampled_from(METRICS))
def test_what_one_tenant_does_is_nothing_to_another(steps: list[tuple[str, str, int]], metric: str) -> None:
    alone, shared = (VectorIndex(DIM, metric, threads=1) for _ in range(2))
    one, both = Habit(A, 0), (Habit(A, 0), Habit(B, 1_000_000))
    for index in (alone, shared):
        index.add(corners(1, 1), [0], A)
    shared.add(corners(2, 1), [1_000_000], B)
    for who, what, seed in steps:
        if who == A:
            assert one.acts(alone, what, seed, []) == both[0].acts(shared, what, seed, [])
        else:
            both[1].acts(shared, what, seed, list(both[0].mine))
        assert told(alone, A, seed) == told(shared, A, seed)
    for index in (alone, shared):
        index.wait()
    assert told(alone, A, 5) == told(shared, A, 5)


# --- a million searches --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_million_searches_of_a_changing_index_show_no_foreign_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, "VECTOR_DELTA_ROWS", 512)
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 2_000)
    tenants, most, batch, k = 50, 60_000, 2_000, 10
    random = np.random.default_rng(1)
    may_see = np.zeros((tenants, most), np.bool_)
    index, searches, foreign, short = VectorIndex(DIM, threads=2), 0, 0, 0
    live = np.zeros(most, np.bool_)
    while searches < 1_000_000:
        turn = searches // batch
        free = np.flatnonzero(~live)
        rows = min(len(free), 8_000 if turn % 60 == 0 else int(random.integers(1, 400)))
        ids = random.choice(free, rows, replace=False)
        grants = random.random((rows, tenants)) < np.where(np.arange(tenants) < 3, 0.3, 0.02)
        entries = [np.flatnonzero(row).tolist() for row in grants]
        index.add(random.standard_normal((rows, DIM)).astype(np.float32), ids, entries)
        live[ids], may_see[:, ids] = True, grants.T
        there = np.flatnonzero(live)
        some, label = random.choice(there, min(len(there), 150), replace=False), int(random.integers(0, tenants))
        index.grant(some[:50], label)
        may_see[label, some[:50]] = True
        index.revoke(some[50:100], label)
        may_see[label, some[50:100]] = False
        gone = some[100:] if turn % 10 else np.union1d(some[100:], random.choice(there, len(there) // 4, replace=False))
        index.delete(gone)
        live[gone] = False
        may_see[:, ~live] = False
        if turn % 25 == 24:
            alone = may_see[label] & (may_see.sum(axis=0) == 1)
            assert index.drop_tenant(label) == alone.sum()
            live[alone], may_see[:, alone] = False, False
            may_see[label] = False
            index.grant(np.flatnonzero(live)[:30], label)
            may_see[label, np.flatnonzero(live)[:30]] = True
        visible = np.minimum(may_see.sum(axis=1), k)
        for _ in range(4):
            label = int(random.integers(0, tenants))
            queries = random.standard_normal((batch // 4, DIM)).astype(np.float32)
            found = index.search(queries, k, label, threads=2)[0]
            foreign += np.count_nonzero((found >= 0) & ~may_see[label, found])
            distinct = np.sort(found, axis=1)
            counts = (found >= 0).sum(axis=1) - ((distinct[:, 1:] == distinct[:, :-1]) & (distinct[:, 1:] >= 0)).sum(
                axis=1
            )
            short += np.count_nonzero(counts != visible[label])
        searches += batch
    assert (searches, foreign, short) == (1_000_000, 0, 0)
