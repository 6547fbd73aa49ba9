"""The face of a vector index: what writers change, and that searches return just that, against numpy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lakelet.lake.errors import InvalidInput, NotFound
from lakelet.vector import index as index_module
from lakelet.vector import units as units_module
from lakelet.vector.index import TenantUsage, VectorIndex
from lakelet.vector.labels import ALL_TENANTS, PUBLIC
from lakelet.vector.predicates import Predicate, Tenant

DIM = 16
FORMS = ["delta", "deltas", "segment", "mixed"]
METRICS = ["l2", "cosine", "ip"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred rows make segments, full deltas and merges."""
    monkeypatch.setattr(units_module, "VECTOR_DELTA_ROWS", 128)
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 400)


def corners(rows: int, seed: int = 0) -> np.ndarray:
    """Vectors whose distances float32 holds exactly under every metric, so that order and ties are certain."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), (rows, DIM))


def gaussian(rows: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def distances(metric: str, queries: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """float64 (m, n), as the face defines them."""
    left, right = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "l2":
        return ((left[:, None, :] - right[None, :, :]) ** 2).sum(axis=2)
    inner = left @ right.T
    if metric == "ip":
        return -inner
    return 1 - inner / np.linalg.norm(left, axis=1)[:, None] / np.linalg.norm(right, axis=1)


def nearest(
    metric: str, queries: np.ndarray, ids: np.ndarray, vectors: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """What an exact search returns: ascending by distance, then by id, padded."""
    out_ids, out = np.full((len(queries), k), -1), np.full((len(queries), k), np.inf)
    apart = distances(metric, queries, vectors)
    for turn in range(len(queries)):
        best = np.lexsort((ids, apart[turn]))[:k]
        out_ids[turn, : len(best)], out[turn, : len(best)] = ids[best], apart[turn, best]
    return out_ids, out


def filled(form: str, vectors: np.ndarray, tenants: Any = None, metric: str = "l2") -> VectorIndex:
    """An index of these rows, their ids 0 on, in units of this form."""
    index, rows = VectorIndex(vectors.shape[1], metric, threads=2), len(vectors)
    with pytest.MonkeyPatch.context() as patch:
        if form == "delta":
            patch.setattr(units_module, "VECTOR_DELTA_ROWS", 2 * rows)
            patch.setattr(index_module, "VECTOR_BULK_ROWS", 2 * rows)
        if form == "segment":
            patch.setattr(index_module, "VECTOR_BULK_ROWS", 1)
        edges = (
            {0, *range(0, rows, 30), rows}
            if form == "deltas"
            else {0, rows // 2, rows}
            if form == "mixed"
            else {0, rows}
        )
        for first, last in itertools.pairwise(sorted(edges)):
            index.add(vectors[first:last], tenants=None if tenants is None else list(tenants[first:last]))
    if form == "mixed":
        index.wait()
    return index


def sets(index: VectorIndex, tenant: Any, k: int = 2_000) -> set[int]:
    """The ids that a tenant sees, once several ways to ask for them agree."""
    query = np.ones(index.dim, np.float32)
    found = [index.search(query, k, tenant, exact=exact, ef=ef)[0][0] for exact, ef in ((True, None), (False, k))]
    kept = [ids[ids >= 0] for ids in found]
    assert all(len(ids) == len(set(ids.tolist())) for ids in kept)
    assert set(kept[0].tolist()) == set(kept[1].tolist())
    return set(kept[0].tolist())


# --- adding --------------------------------------------------------------------------------------------------------


def test_ids_are_counted_up_behind_the_greatest_one_used() -> None:
    index = VectorIndex(DIM)
    assert index.add(corners(1)[0]).tolist() == [0]
    assert index.add(corners(3)).tolist() == [1, 2, 3]
    assert index.add(corners(2), ids=[50, 7]).tolist() == [50, 7]
    assert index.add(corners(2)).tolist() == [51, 52]
    assert index.add(corners(1), ids=5).tolist() == [5]
    assert index.add(corners(500)).tolist() == list(range(53, 553))
    given = index.add(corners(1), ids=np.array([10_000], np.uint64))
    assert given.dtype == np.int64
    assert index.add(corners(1)).tolist() == [10_001]
    assert index.add(np.empty((0, DIM), np.float32)).shape == (0,)
    assert len(index) == 511


def test_ids_of_deleted_rows_are_not_counted_up_to_again() -> None:
    index = VectorIndex(DIM)
    index.add(corners(3))
    index.delete([0, 1, 2])
    assert index.add(corners(1)).tolist() == [3]


@pytest.mark.parametrize("rows", [1, 40, 300, 450])
def test_tenants_of_a_call_are_one_label_or_one_entry_a_row(rows: int) -> None:
    everyone = set(range(rows))
    for label in (7, "seven", PUBLIC, np.int64(9), "ü\U0001f30a", ""):
        index = VectorIndex(DIM)
        index.add(corners(rows), tenants=label)
        assert sets(index, label) == everyone
        assert sets(index, "other") == (everyone if label is PUBLIC else set())
    entries = [
        ("a", ["a", "b"], None, PUBLIC, [], ("b", "b", 3), {"a"}, ["b", PUBLIC], np.int32(3))[row % 9]
        for row in everyone
    ]
    index = VectorIndex(DIM)
    index.add(corners(rows), tenants=entries)
    of: dict[Any, set[int]] = {label: {row for row in everyone if row % 9 in at} for label, at in SEEN.items()}
    assert {label: sets(index, label) for label in of} == of
    assert sets(index, ALL_TENANTS) == everyone
    one = VectorIndex(DIM)
    one.add(corners(rows), tenants=np.arange(rows) % 2)
    assert sets(one, 1) == {row for row in everyone if row % 2}
    many = VectorIndex(DIM)
    many.add(corners(rows), tenants=list(np.stack([np.arange(rows) % 2, np.full(rows, 5)], axis=1)))
    assert sets(many, 5) == everyone
    assert sets(many, 0) == {row for row in everyone if row % 2 == 0}


SEEN: dict[Any, set[int]] = {
    "a": {0, 1, 3, 6, 7},
    "b": {1, 3, 5, 7},
    3: {3, 5, 7, 8},
    "nobody": {3, 7},
    "3": {3, 7},
    PUBLIC: {3, 7},
}


def test_a_number_and_its_text_are_two_tenants() -> None:
    index = VectorIndex(DIM)
    index.add(corners(4), tenants=[7, "7", "7", [7, "7"]])
    assert (sets(index, 7), sets(index, "7"), sets(index, "07")) == ({0, 3}, {1, 2, 3}, set())


def test_rows_are_copied_when_they_are_added() -> None:
    index = VectorIndex(DIM)
    for rows in (50, 450):
        vectors = gaussian(rows, rows)
        ids = index.add(vectors)
        query = vectors[3].copy()
        vectors[:] = 0
        found, apart = index.search(query, 1, exact=True)
        assert (found[0, 0] in ids.tolist(), apart[0, 0]) == (True, 0)


def test_lists_of_numbers_and_read_only_and_strided_arrays_are_taken() -> None:
    index, vectors = VectorIndex(DIM), gaussian(8)
    locked = vectors.copy()
    locked.flags.writeable = False
    for given in (vectors.tolist(), tuple(vectors), locked, np.asfortranarray(vectors), np.repeat(vectors, 2, 0)[::2]):
        index.add(given)
    found, apart = index.search(vectors.tolist(), 5, exact=True)
    assert (found == np.arange(8)[:, None] + 8 * np.arange(5)).all()
    assert not apart.any()


# --- grants --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_grant_revoke_and_delete_change_what_is_seen_and_nothing_else(form: str) -> None:
    rows = 300
    index = filled(form, corners(rows), ["a"] * rows)
    model: dict[Any, set[int]] = {"a": set(range(rows)), "b": set(), PUBLIC: set()}
    live = set(range(rows))
    random = np.random.default_rng(3)
    index.grant([0], "b")
    model["b"].add(0)
    for turn in range(40):
        some = random.choice(sorted(live), random.integers(1, 30), replace=False)
        label = ("a", "b", PUBLIC)[turn % 3]
        if turn % 8 == 7:
            index.delete(some)
            live -= set(some.tolist())
        elif random.random() < 0.5:
            index.grant(some, label)
            model[label] |= set(some.tolist())
        else:
            index.revoke(some.tolist(), label)
            model[label] -= set(some.tolist())
        for each in ("a", "b"):
            assert sets(index, each) == (model[each] | model[PUBLIC]) & live
        assert sets(index, PUBLIC) == sets(index, "stranger") == model[PUBLIC] & live
        assert sets(index, ALL_TENANTS) == live
        usage = {use.label: use.rows for use in index.tenants()}
        assert {label: usage.get(label, 0) for label in model} == {label: len(m & live) for label, m in model.items()}
        assert len(index) == len(live)
    index.optimize()
    for each in ("a", "b"):
        assert sets(index, each) == (model[each] | model[PUBLIC]) & live


@pytest.mark.parametrize("form", FORMS)
def test_what_is_granted_or_revoked_twice_is_as_if_once(form: str) -> None:
    index = filled(form, corners(200), ["a"] * 200)
    index.grant([3, 4], "b")
    index.grant([4, 5], "b")
    index.revoke([5, 6], "b")
    index.revoke([5, 6], "b")
    index.grant([], "b")
    index.revoke([], "b")
    index.delete([])
    assert sets(index, "b") == {3, 4}
    assert {use.label: use.rows for use in index.tenants()}["b"] == 2


@pytest.mark.parametrize("form", FORMS)
def test_a_row_both_public_and_granted_comes_once(form: str) -> None:
    index = filled(form, corners(200), [["a", PUBLIC]] * 200)
    for exact in (True, False):
        ids, apart = index.search(corners(20, 1), 200, "a", exact=exact)
        assert (np.sort(ids, axis=1) == np.arange(200)).all()
        assert np.isfinite(apart).all()
    index.revoke(np.arange(200), "a")
    assert len(sets(index, "a")) == 200
    index.revoke(np.arange(200), PUBLIC)
    assert not sets(index, "a")


@pytest.mark.parametrize("form", FORMS)
def test_deleted_ids_may_come_again_with_another_row_and_other_tenants(form: str) -> None:
    vectors = gaussian(300)
    index = filled(form, vectors, ["a"] * 300)
    others = gaussian(300, 1)
    for first in (0, 100, 0):
        ids = np.arange(first, first + 100)
        index.delete(ids)
        assert not sets(index, "a") & set(ids.tolist())
        index.add(others[ids], ids=ids, tenants="b")
        found, apart = index.search(others[ids], 1, "b", exact=True)
        assert found[:, 0].tolist() == ids.tolist()
        assert not apart.any()
        assert len(index) == 300
    index.optimize()
    assert (sets(index, "a"), sets(index, "b")) == (set(range(200, 300)), set(range(200)))


# --- dropping ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keep_rows", [False, True])
def test_a_dropped_tenant_takes_the_rows_that_nobody_else_sees(form: str, keep_rows: bool) -> None:
    labels: list[Any] = [["a"], ["a", "b"], ["b"], ["a", PUBLIC], [], [PUBLIC]] * 50
    index = filled(form, corners(300), labels)
    of = [set(range(kind, 300, 6)) for kind in range(6)]
    assert index.drop_tenant("a", keep_rows=keep_rows) == (0 if keep_rows else 50)
    left = set(range(300)) - (set() if keep_rows else of[0])
    for _ in range(2):
        assert sets(index, ALL_TENANTS) == left
        assert sets(index, "a") == of[3] | of[5]
        assert sets(index, "b") == of[1] | of[2] | of[3] | of[5]
        assert "a" not in [use.label for use in index.tenants()]
        for act in (lambda: index.drop_tenant("a"), lambda: index.revoke([1], "a")):
            with pytest.raises(NotFound, match="no tenant 'a'"):
                act()
        index.optimize()
    index.grant([1, 2], "a")
    index.add(corners(1), ids=[900], tenants="a")
    assert sets(index, "a") == {1, 2, 900} | of[3] | of[5]
    assert {use.label: use.rows for use in index.tenants()}["a"] == 3
    assert index.drop_tenant("a") == 1
    assert sets(index, ALL_TENANTS) == left
    assert {use.label: use.rows for use in index.tenants()}["b"] == 100


def test_rows_of_two_dropped_tenants_go_with_the_second() -> None:
    index = VectorIndex(DIM)
    index.add(corners(10), tenants=["a", "b"] * 5)
    index.grant([0, 1, 2], "a")
    index.grant([0, 1, 2], "b")
    assert [index.drop_tenant("a"), index.drop_tenant("b"), len(index)] == [3, 7, 0]
    with pytest.raises(InvalidInput, match="ALL_TENANTS"):
        index.search(np.ones(DIM, np.float32))


def test_public_comes_again_after_it_was_dropped() -> None:
    index = VectorIndex(DIM)
    index.add(corners(4), tenants=["a", PUBLIC, ["a", PUBLIC], PUBLIC])
    try:
        assert index.drop_tenant(PUBLIC) == 2
    except InvalidInput:  # refusing it would do as well
        return
    assert sets(index, "a") == {0, 2}
    index.grant([0], PUBLIC)
    assert sets(index, "stranger") == {0}


# --- searching -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("metric", METRICS)
def test_exact_equals_brute_force_with_ties_by_id(form: str, metric: str) -> None:
    vectors, queries = corners(600), corners(40, 1)
    ids = np.arange(600)
    index = filled(form, vectors, ["a" if row % 3 else "b" for row in range(600)], metric)
    for tenant, seen in (("a", ids % 3 > 0), ("b", ids % 3 == 0), (ALL_TENANTS, ids >= 0)):
        for k in (1, 10, 700):
            found, apart = index.search(queries, k, tenant, exact=True)
            assert (found.dtype, apart.dtype, found.shape) == (np.int64, np.float32, (40, k))
            wanted, distance = nearest(metric, queries, ids[seen], vectors[seen], k)
            assert (found == wanted).all()
            assert (apart == distance.astype(np.float32)).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dim", [1, 3, 31, 32, 33, 100])
def test_distances_are_those_of_the_metric(metric: str, dim: int) -> None:
    vectors, queries = 3 * gaussian(500, dim=dim), 2 * gaussian(20, 1, dim)
    index = VectorIndex(dim, metric)
    index.add(vectors[:100])
    index.add(vectors[100:])
    wanted = distances(metric, queries, vectors)
    for exact in (True, False):
        found, apart = index.search(queries, 10, exact=exact)
        np.testing.assert_allclose(apart, np.take_along_axis(wanted, found, 1), rtol=1e-4, atol=1e-4)
        assert (np.diff(apart, axis=1) >= 0).all()
    np.testing.assert_allclose(
        index.search(queries, 10, exact=True)[1], np.sort(wanted, axis=1)[:, :10], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("form", FORMS)
def test_fewer_visible_rows_than_k_are_padded(form: str) -> None:
    index = filled(form, corners(300), ["few" if row in {5, 99, 250} else "many" for row in range(300)])
    for exact in (True, False):
        ids, apart = index.search(corners(7, 1), 8, "few", exact=exact)
        assert (np.sort(ids[:, :3], axis=1) == [5, 99, 250]).all()
        assert (ids[:, 3:] == -1).all()
        assert np.isfinite(apart[:, :3]).all()
        assert (apart[:, 3:] == np.inf).all()
        ids, apart = index.search(corners(1, 1), 16_384, ALL_TENANTS, exact=exact)
        assert (np.count_nonzero(ids >= 0), np.count_nonzero(np.isfinite(apart))) == (300, 300)


def test_one_query_gives_one_row_and_none_gives_none() -> None:
    index = filled("mixed", corners(300))
    one, batch = index.search(corners(1, 1)[0], 4), index.search(corners(1, 1), 4)
    assert one[0].shape == one[1].shape == (1, 4)
    assert (one[0] == batch[0]).all()
    assert index.search(np.empty((0, DIM), np.float32), 4)[0].shape == (0, 4)
    assert index.search(np.empty((0, DIM), np.float32), 4, threads=3)[1].shape == (0, 4)
    assert index.search(corners(1))[0].shape == (1, 10)


def test_an_empty_index_finds_nothing() -> None:
    index = VectorIndex(DIM)
    for step in (lambda: None, index.optimize, index.wait):
        step()
        for tenant in (None, "a", PUBLIC, ALL_TENANTS, ~Tenant("a")):
            ids, apart = index.search(corners(2), 3, tenant)
            assert (ids == -1).all()
            assert (apart == np.inf).all()
        assert (len(index), index.tenants(), index.explain()) == (0, [], [])
        assert index.memory()["vectors"] == 0
    index.add(corners(300), tenants="a")
    index.delete(np.arange(300))
    index.optimize()
    assert (index.search(corners(2), 3, "a")[0] == -1).all()
    assert index.tenants() == [TenantUsage("a", 0, 0)]


def test_an_index_without_tenants_needs_none_and_one_with_tenants_does() -> None:
    index = VectorIndex(DIM)
    index.add(corners(5))
    assert sets(index, None) == set(range(5))
    assert (sets(index, "a"), sets(index, PUBLIC), sets(index, ALL_TENANTS)) == (set(), set(), set(range(5)))
    index.grant([2], "a")
    with pytest.raises(InvalidInput, match=r"tenant=…, or tenant=lakelet.ALL_TENANTS"):
        index.search(corners(1))
    with pytest.raises(InvalidInput, match=r"this index has tenants"):
        index.explain()
    assert (sets(index, "a"), sets(index, ALL_TENANTS)) == ({2}, set(range(5)))


@pytest.mark.parametrize("metric", METRICS)
def test_searches_find_nearly_all_and_a_greater_ef_never_less(metric: str) -> None:
    centres = gaussian(40, 5)
    random = np.random.default_rng(6)
    vectors = (centres[random.integers(0, 40, 5_000)] + 0.3 * gaussian(5_000, 7)).astype(np.float32)
    index = VectorIndex(DIM, metric)
    index.add(vectors)
    queries = (centres[random.integers(0, 40, 200)] + 0.3 * gaussian(200, 8)).astype(np.float32)
    true = index.search(queries, 10, exact=True)[0]
    recalls = []
    for ef in (10, 20, 40, 80, 160, 640, 5_000):
        found = index.search(queries, 10, ef=ef)[0]
        recalls.append(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), true.tolist(), strict=True)]))
    assert all(later >= earlier for earlier, later in itertools.pairwise(recalls)), recalls
    assert recalls[-1] == 1
    found = index.search(queries, 10)[0]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), true.tolist(), strict=True)]) >= 0.9


@pytest.mark.parametrize("form", FORMS)
def test_threads_and_batches_do_not_change_results(form: str) -> None:
    index = filled(form, gaussian(900), [["a", "b", PUBLIC][row % 3] for row in range(900)])
    index.wait()  # until then a merge may change what is found
    queries = gaussian(37, 1)
    for tenant in ("a", ALL_TENANTS, Tenant("a") & ~Tenant("b")):
        for exact in (True, False):
            alone = [
                np.concatenate(parts)
                for parts in zip(*(index.search(q, 7, tenant, exact=exact) for q in queries), strict=True)
            ]
            for threads in (1, 2, 5, 64):
                ids, apart = index.search(queries, 7, tenant, exact=exact, threads=threads)
                assert (ids == alone[0]).all()
                assert (apart == alone[1]).all()


# --- predicates ----------------------------------------------------------------------------------------------------

NAMES = ("a", "b", 3, "unknown")


def drawn(
    random: np.random.Generator, depth: int, seen: Callable[[Any], set[int]]
) -> tuple[Predicate, Callable[[], set[int]]]:
    """A predicate, and the set that it names, worked out of ``seen`` when it is called."""
    kind = random.integers(0, 4) if depth else 0
    if kind == 0:
        label = NAMES[random.integers(0, len(NAMES))]
        return Tenant(label), lambda: seen(label)
    left, names_left = drawn(random, depth - 1, seen)
    if kind == 1:
        return ~left, lambda: seen(ALL_TENANTS) - names_left()
    right, names_right = drawn(random, depth - 1, seen)
    if kind == 2:
        return left & right, lambda: names_left() & names_right()
    return left | right, lambda: names_left() | names_right()


@pytest.mark.parametrize("form", FORMS)
def test_predicates_are_set_algebra_and_stay_so_after_changes(form: str) -> None:
    random = np.random.default_rng(11)
    labels = [[label for label in ("a", "b", 3, PUBLIC) if random.random() < 0.35] for _ in range(300)]
    index = filled(form, corners(300), labels)
    live = set(range(300))
    of = {label: {row for row in live if label in labels[row]} for label in ("a", "b", 3, PUBLIC)}

    def seen(label: Any) -> set[int]:
        return live if label is ALL_TENANTS else (of.get(label, set()) | of[PUBLIC]) & live

    tried = [drawn(random, depth, seen) for depth in (0, 1, 1, 2, 2, 3, 3, 4, 5)]
    for step in range(5):
        for predicate, names in tried:
            assert sets(index, predicate) == names(), predicate
        some = set(random.choice(sorted(live), 25, replace=False).tolist())
        if step == 0:
            index.grant(sorted(some), "b")
            of["b"] |= some
        elif step == 1:
            index.revoke(sorted(some), PUBLIC)
            of[PUBLIC] -= some
        elif step == 2:
            index.delete(sorted(some))
            live -= some
        else:
            gone = {row for row in of["a"] & live if not any(row in of[other] for other in of if other != "a")}
            assert index.drop_tenant("a") == len(gone)
            live -= gone
            index.grant(sorted(live)[:9], "a")
            of["a"] = set(sorted(live)[:9])


def test_a_predicate_finds_the_nearest_of_the_rows_it_names() -> None:
    vectors, queries = corners(900), corners(30, 1)
    index = filled("mixed", vectors, [["a"], ["b"], ["a", "b"]] * 300)
    kind = np.arange(900) % 3
    for predicate, named in (
        (Tenant("a") & Tenant("b"), kind == 2),
        (Tenant("a") & ~Tenant("b"), kind == 0),
        (~(Tenant("a") | ~Tenant("b")), kind == 1),
    ):
        wanted = nearest("l2", queries, np.flatnonzero(named), vectors[named], 10)
        found = index.search(queries, 10, predicate, exact=True)
        assert (found[0] == wanted[0]).all()
        assert named[index.search(queries, 10, predicate)[0]].all()


# --- looking at it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_memory_adds_up_and_vectors_are_four_bytes_a_number(form: str) -> None:
    index = filled(form, gaussian(600), ["a"] * 600)
    index.wait()
    memory = index.memory()
    assert memory["vectors"] == 4 * DIM * 600
    assert memory["total"] == sum(size for what, size in memory.items() if what != "total")
    assert min(memory.values()) >= 0
    index.delete(np.arange(300))
    index.optimize()
    assert index.memory()["vectors"] == 4 * DIM * 300


def test_tenants_tell_rows_and_bytes_in_proportion() -> None:
    index = VectorIndex(DIM)
    index.add(corners(30), tenants=[["b"], ["a", "b"], [PUBLIC]] * 10)
    usage = index.tenants()
    assert [(use.label, use.rows) for use in usage] == [(PUBLIC, 10), ("b", 20), ("a", 10)]
    each = usage[1].bytes // 20
    assert each > 4 * DIM
    assert [use.bytes for use in usage] == [10 * each, 20 * each, 10 * each]
    index.optimize()
    assert index.tenants() == usage
    index.revoke(np.arange(2, 30, 3), PUBLIC)
    assert [use.label for use in index.tenants()] == ["b", "a"]


def test_properties_length_and_repr() -> None:
    for metric in METRICS:
        index = VectorIndex(np.int64(DIM), metric)
        assert (index.dim, index.metric, len(index)) == (DIM, metric, 0)
    index.add(corners(1_200), tenants=["a", "b"] * 600)
    assert repr(index) == "VectorIndex(dim=16, metric='ip', rows=1,200, tenants=2)"


def test_explain_tells_the_way_through_each_list() -> None:
    index = VectorIndex(DIM)
    index.add(gaussian(3_000), tenants=[["a", PUBLIC] if row < 20 else ["a"] for row in range(3_000)])
    index.add(gaussian(50), tenants="b")
    index.wait()
    steps = index.explain(10, "a")
    assert [(step.unit, step.rows) for step in steps] == [("segment", 3_000), ("segment", 20)]
    assert [step.way for step in steps] == ["tree", "exact"]
    assert steps[0].budget_rows < 3_000
    assert all(step.candidates >= 10 and step.cost_microseconds > 0 for step in steps)
    assert {step.way for step in index.explain(10, ALL_TENANTS, exact=True)} == {"exact"}
    assert [(step.unit, step.rows) for step in index.explain(10, Tenant("b") & ~Tenant("a"))] == [("delta", 50)]
    assert index.explain(10, "a", ef=500)[0].budget_rows > steps[0].budget_rows
    assert index.explain(10, "stranger") == steps[1:]


def test_optimize_leaves_one_segment_of_live_rows() -> None:
    index = filled("deltas", corners(500), ["a"] * 500)
    index.delete(np.arange(0, 500, 7))
    before = index.search(corners(9, 1), 20, "a", exact=True)
    index.optimize()
    assert [(step.unit, step.rows) for step in index.explain(10, ALL_TENANTS)] == [("segment", len(index))]
    after = index.search(corners(9, 1), 20, "a", exact=True)
    assert (after[0] == before[0]).all()
    assert (after[1] == before[1]).all()


def test_waiting_leaves_no_full_delta() -> None:
    index = VectorIndex(DIM)
    for _ in range(20):
        index.add(gaussian(50))
    index.wait()
    steps = index.explain(10)
    assert "segment" in {step.unit for step in steps}
    assert sum(step.rows for step in steps if step.unit == "delta") < 128 + 50
    assert sum(step.rows for step in steps) == len(index) == 1_000
