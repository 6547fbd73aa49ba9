"""What a vector index refuses: a typed error says what was found and what is expected, and nothing was changed."""

from __future__ import annotations

import itertools
import operator
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from lakelet.lake.errors import InvalidInput, LakeletError, LimitExceeded, NotFound
from lakelet.vector import index as index_module
from lakelet.vector import units as units_module
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import ALL_TENANTS, PUBLIC
from lakelet.vector.predicates import Tenant

DIM = 8
QUERIES = np.random.default_rng(9).standard_normal((5, DIM)).astype(np.float32)
NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, "VECTOR_DELTA_ROWS", 64)
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 200)


def rows(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def with_number(count: int, number: float) -> np.ndarray:
    """Rows of which the last but one holds this number."""
    made = rows(count, 4)
    made[count - 2, 3] = number
    return made


SAVED = tempfile.TemporaryDirectory()


def index_in(form: str, metric: str = "l2") -> VectorIndex:
    """The index of :func:`made`, one of its own for each test; loading one takes less time than making it."""
    path = os.path.join(SAVED.name, f"{form}-{metric}")
    if not os.path.exists(path):
        made(form, metric).save(path)
    return VectorIndex.load(path, mmap=False)


def made(form: str, metric: str) -> VectorIndex:
    """350 rows, of tenants a, b, PUBLIC and none, some of them deleted, in a delta alone or in units of all kinds."""
    index = VectorIndex(DIM, metric)
    labels: list[Any] = [["a"], ["b"], ["a", "b"], [PUBLIC], []] * 70
    step = 50 if form == "units" else 10
    index.add(rows(50)[:step], tenants=labels[:step])
    if form == "units":
        index.add(rows(300, 1), tenants=labels[50:])
        index.wait()
        index.add(rows(40, 2), tenants="c")
    index.delete([1, 4])
    index.grant([0, 5], "d")
    index.wait()
    return index


def state(index: VectorIndex) -> list[Any]:
    """All that callers can see of an index, but for its next id."""
    seen: list[Any] = [len(index), index.tenants()]
    for tenant in (ALL_TENANTS, "a", "b", PUBLIC, "d", "stranger", ~Tenant("a")):
        ids, distances = index.search(QUERIES, 500, tenant, exact=True)
        seen += [ids.tolist(), distances.tolist()]
    return seen


def refused(index: VectorIndex, act: Callable[[VectorIndex], Any], error: type[Exception], told: str) -> None:
    """The call raises just this, and the index is what it was; the next id too."""
    before, expected = state(index), index._state.next_id
    with pytest.raises(error) as caught:
        act(index)
    assert type(caught.value) is error
    assert re.search(told, str(caught.value)), str(caught.value)
    assert state(index) == before
    assert index.add(rows(1, 8), tenants="a").tolist() == [expected]


# --- adding --------------------------------------------------------------------------------------------------------

VECTORS: dict[str, tuple[Any, str]] = {
    "too short": (rows(3, dim=7), r"shape \(3, 7\), expected \(n, 8\)"),
    "one too long": (rows(1, dim=9)[0], r"shape \(1, 9\), expected \(n, 8\)"),
    "none of another dim": (np.empty((0, 7), np.float32), r"shape \(0, 7\)"),
    "a number": (np.float32(3), r"shape \(\), expected \(n, 8\)"),
    "three axes": (rows(4).reshape(2, 2, 8), r"shape \(2, 2, 8\), expected \(n, 8\)"),
    "float64": (rows(3).astype(np.float64), r"dtype float64, expected float32; convert with .astype"),
    "float16": (rows(3).astype(np.float16), "dtype float16, expected float32"),
    "int64": (np.ones((3, DIM), np.int64), "dtype int64, expected float32"),
    "big-endian": (rows(3).astype(">f4"), "dtype >f4, expected float32"),
    "text": ("abc", "expected float32"),
    "None": (None, "expected float32"),
    "ragged": ([[1.0] * 8, [1.0] * 7], "not numbers in rows of one length"),
    "words": ([["x"] * 8], "not numbers in rows of one length"),
    "NaN": (with_number(3, NAN), "row 1 holds NaN or inf; every number must be finite"),
    "inf": (with_number(3, INF), "row 1 holds NaN or inf"),
    "-inf in a list": ([[-INF] * 8], "row 0 holds NaN or inf"),
    "NaN in many": (with_number(250, NAN), "row 248 holds NaN or inf"),
}


@pytest.mark.parametrize("form", ["delta", "units"])
@pytest.mark.parametrize("what", VECTORS)
def test_vectors_that_do_not_fit_are_refused(form: str, what: str) -> None:
    vectors, told = VECTORS[what]
    index = index_in(form)
    refused(index, lambda index: index.add(vectors, tenants="new"), InvalidInput, f"vectors: .*{told}")
    refused(index, lambda index: index.search(vectors, 3, "a"), InvalidInput, f"queries: .*{told}")
    refused(index, lambda index: index.search(vectors, 3, "a", exact=True), InvalidInput, f"queries: .*{told}")


@pytest.mark.parametrize("form", ["delta", "units"])
@pytest.mark.parametrize("count", [3, 250])
def test_zero_vectors_are_refused_under_cosine_alone(form: str, count: int) -> None:
    vectors = rows(count, 3)
    vectors[1] = 0
    index = index_in(form, "cosine")
    told = "row 1 is a zero vector, which has no cosine; leave it out or use metric 'l2'"
    refused(index, lambda index: index.add(vectors, tenants="new"), InvalidInput, f"vectors: {told}")
    refused(index, lambda index: index.search(vectors, 3, "a"), InvalidInput, f"queries: {told}")
    for metric in ("l2", "ip"):
        index = index_in(form, metric)
        index.add(vectors, tenants="new")
        index.search(vectors, 3, "a")


IDS: dict[str, tuple[Any, type[Exception], str]] = {
    "one twice": ([700, 701, 700], InvalidInput, "id 700 is given twice; ids of one call are distinct"),
    "of a live row": ([700, 3, 701], InvalidInput, "1 of the ids, id 3 first, are those of live rows; delete"),
    "negative": ([700, -5, 701], InvalidInput, "id -5 is negative; -1 pads results, so ids start at 0"),
    "floats": ([1.0, 2.0, 3.0], InvalidInput, "ids of dtype float64 .*expected whole numbers"),
    "booleans": (np.array([True, False, True]), InvalidInput, "ids of dtype bool .*expected whole numbers"),
    "texts": (["x", "y", "z"], InvalidInput, "expected whole numbers"),
    "two axes": ([[700, 701, 702]], InvalidInput, r"shape \(1, 3\); expected whole numbers, one a row"),
    "too few": ([700, 701], InvalidInput, "2 ids for 3 vectors; expected one each"),
    "too many": (range(700, 704), InvalidInput, "4 ids for 3 vectors; expected one each"),
    "none": ([], InvalidInput, "0 ids for 3 vectors; expected one each"),
    "beyond int64": (np.array([1, 2, 2**63], np.uint64), InvalidInput, "9223372036854775808 is above"),
    "far beyond": ([700, 701, 2**80], InvalidInput, "expected whole numbers"),
}


@pytest.mark.parametrize("form", ["delta", "units"])
@pytest.mark.parametrize("what", IDS)
def test_ids_that_do_not_fit_are_refused(form: str, what: str) -> None:
    ids, error, told = IDS[what]
    refused(index_in(form), lambda index: index.add(rows(3, 5), ids=ids, tenants="new"), error, told)


@pytest.mark.parametrize("at", [0, 57, 300, 349, 355])
@pytest.mark.parametrize("count", [1, 2, 250])
def test_ids_of_live_rows_are_refused_wherever_these_stand(at: int, count: int) -> None:
    index = index_in("units")
    ids = np.append(np.arange(1_000, 1_000 + count - 1), at)
    taken = f"1 of the ids, id {at} first, are those of live rows"
    refused(index, lambda index: index.add(rows(count, 5), ids=ids, tenants="new"), InvalidInput, taken)
    index.delete([at])
    assert index.add(rows(count, 5), ids=ids, tenants="e").tolist() == ids.tolist()
    refused(index, lambda index: index.add(rows(1, 5), ids=[at]), InvalidInput, taken)


TENANTS: dict[str, tuple[Any, str]] = {
    "too few": (["new", "b"], "2 tenants for 3 vectors; give one label for all, or one entry"),
    "too many": (["new"] * 4, "4 tenants for 3 vectors"),
    "none": ([], "0 tenants for 3 vectors"),
    "a float among them": (["new", 1.5, "b"], "a tenant is an int or a str, not 1.5 of type float"),
    "floats": (np.array([1.0, 2.0, 3.0]), "a tenant is an int or a str, not 1.0 of type float"),
    "True": (True, "a tenant is an int or a str, not True of type bool"),
    "True among them": (["new", True, 1], "not True of type bool"),
    "None in a list": (["new", ["b", None], "c"], "not None of type NoneType"),
    "too deep": (["new", [["b"]], "c"], "of type list"),
    "bytes among them": (["new", b"b", "c"], "not b'b' of type bytes"),
    "every row": (ALL_TENANTS, "ALL_TENANTS reads every row; a row is granted to tenants, or to PUBLIC"),
    "every row in a list": (["new", [ALL_TENANTS], "c"], "ALL_TENANTS reads every row"),
}


@pytest.mark.parametrize("form", ["delta", "units"])
@pytest.mark.parametrize("what", TENANTS)
def test_tenants_that_do_not_fit_are_refused(form: str, what: str) -> None:
    tenants, told = TENANTS[what]
    index = index_in(form)
    refused(index, lambda index: index.add(rows(3, 5), tenants=tenants), InvalidInput, told)
    if not isinstance(tenants, list):
        return
    long = [*tenants, *(["new"] * 247)]
    told = r"\d+ tenants for 250 vectors" if len(tenants) != 3 else told
    refused(index, lambda index: index.add(rows(250, 5), tenants=long), InvalidInput, told)


@pytest.mark.parametrize("tenants", [1.5, np.float64(1.5), np.array(5), object()])
def test_tenants_that_are_neither_label_nor_list_are_refused(tenants: Any) -> None:
    refused(index_in("delta"), lambda index: index.add(rows(3, 5), tenants=tenants), InvalidInput, "a tenant is an int")


@pytest.mark.parametrize("tenants", [b"abc", {"a", "b", "c"}, {"a": 1, "b": 2, "c": 3}], ids=["bytes", "set", "dict"])
def test_tenants_without_an_order_or_of_bytes_are_refused(tenants: Any) -> None:
    refused(index_in("delta"), lambda index: index.add(rows(3, 5), tenants=tenants), InvalidInput, "tenant")


@pytest.mark.parametrize("what", ["ids of add", "ids of delete", "huge numbers"])
def test_what_numpy_cannot_make_an_array_of_is_refused(what: str) -> None:
    acts: dict[str, Callable[[VectorIndex], Any]] = {
        "ids of add": lambda index: index.add(rows(2), ids=[[1], [2, 3]]),
        "ids of delete": lambda index: index.delete([[1], [2, 3]]),
        "huge numbers": lambda index: index.add([[10**400] * DIM]),
    }
    refused(index_in("delta"), acts[what], InvalidInput, "")


def test_automatic_ids_end_with_a_typed_error() -> None:
    index = index_in("delta")
    index.add(rows(1, 5), ids=[2**63 - 1], tenants="a")
    with pytest.raises((InvalidInput, LimitExceeded)):
        index.add(rows(1, 6), tenants="a")


# --- ids of rows that are not there, unknown tenants ------------------------------------------------------------------


@pytest.mark.parametrize("form", ["delta", "units"])
@pytest.mark.parametrize("what", ["grant", "grant a new one", "revoke", "delete"])
def test_unknown_ids_are_refused_with_all_of_the_call(form: str, what: str) -> None:
    acts: dict[str, Callable[[VectorIndex, Any], Any]] = {
        "grant": lambda index, ids: index.grant(ids, "b"),
        "grant a new one": lambda index, ids: index.grant(ids, "new"),
        "revoke": lambda index, ids: index.revoke(ids, "a"),
        "delete": lambda index, ids: index.delete(ids),
    }
    act, known = acts[what], [0, 3, 60, 353] if form == "units" else [0, 3]
    index = index_in(form)

    def tried(ids: Any, error: type[Exception], told: str) -> None:
        refused(index, lambda index: act(index, ids), error, told)

    for missing in (1, 9_999, 2**63 - 1):  # a deleted one, one never there, the greatest
        tried(missing, NotFound, f"no row with id {missing}; nothing was changed")
        tried([*known, missing], NotFound, f"no row with id {missing}; nothing was changed")
    tried([4, *known, 1], NotFound, "no row with id 4, nor 1 others; nothing was changed")
    tried([0, 0], InvalidInput, "id 0 is given twice")
    tried([0, -1], InvalidInput, "id -1 is negative")
    for ids in ([0.5], "0", None, [True], [[0]]):
        tried(ids, InvalidInput, "expected whole numbers, one a row")


@pytest.mark.parametrize("form", ["delta", "units"])
def test_unknown_tenants_are_refused_by_revoke_and_drop(form: str) -> None:
    index = index_in(form)

    def tried(label: Any) -> None:
        told = f"no tenant {label!r}: no row was ever granted to it, or it was dropped; nothing was changed"
        refused(index, lambda index: index.revoke([0], label), NotFound, told)
        refused(index, lambda index: index.drop_tenant(label), NotFound, told)
        refused(index, lambda index: index.drop_tenant(label, keep_rows=True), NotFound, told)

    for label in ("new", 7, "A", ""):
        tried(label)
    index.drop_tenant("d")
    tried("d")


@pytest.mark.parametrize("label", [1.5, None, True, ["a"], b"a", ALL_TENANTS, Tenant("a"), np.float64(1)])
def test_what_is_no_label_is_refused_everywhere(label: Any) -> None:
    told = "ALL_TENANTS reads every row" if label is ALL_TENANTS else "a tenant is an int or a str, not "
    acts: list[Callable[[VectorIndex], Any]] = [
        lambda index: index.grant([0], label),
        lambda index: index.revoke([0], label),
        lambda index: index.drop_tenant(label),
        lambda index: Tenant(label),
    ]
    if label is not ALL_TENANTS and label is not None and not isinstance(label, Tenant):
        acts += [lambda index: index.search(QUERIES, 3, label), lambda index: index.explain(3, label)]
    index = index_in("units")
    for act in acts:
        refused(index, act, InvalidInput, told)


def test_predicates_combine_with_predicates_alone() -> None:
    for other, combine in itertools.product(("b", None, 3, True, PUBLIC), (operator.and_, operator.or_)):
        with pytest.raises(InvalidInput, match=r"a predicate combines with a predicate, not with .*; write Tenant\("):
            combine(Tenant("a"), other)


def test_a_search_without_a_tenant_is_refused_once_there_are_some() -> None:
    told = "this index has tenants: say tenant=…, or tenant=lakelet.ALL_TENANTS to search every row"
    refused(index_in("units"), lambda index: index.search(QUERIES, 3), InvalidInput, told)


# --- numbers -------------------------------------------------------------------------------------------------------

WRONG = [0, -1, True, False, 1.5, 2.0, "3", 16_385, 2**70, NAN, [3], np.float32(3)]


@pytest.mark.parametrize("what", ["k", "ef", "threads"])
@pytest.mark.parametrize("form", ["delta", "units"])
def test_k_ef_and_threads_are_whole_numbers_within_bounds(what: str, form: str) -> None:
    index = index_in(form)

    def tried(value: Any) -> None:
        told = re.escape(f"{what} {value!r}: expected a whole number from 1 to 16,384")
        refused(index, lambda index: index.search(QUERIES, tenant="a", **{what: value}), InvalidInput, told)
        if what != "threads":
            refused(index, lambda index: index.explain(tenant="a", **{what: value}), InvalidInput, told)

    for value in WRONG if what == "ef" else [*WRONG, None]:
        tried(value)
    assert index.search(QUERIES, np.int64(3), "a", ef=np.int32(50), threads=np.int8(2))[0].shape == (5, 3)


@pytest.mark.parametrize("dim", [0, -1, True, 1.5, "8", None, 16_385, NAN])
def test_dim_is_a_whole_number_within_bounds(dim: Any) -> None:
    with pytest.raises(InvalidInput, match=re.escape(f"dim {dim!r}: expected a whole number from 1 to 16,384")):
        VectorIndex(dim)


@pytest.mark.parametrize("metric", ["l3", "", "Cosine", "euclidean", None, 2, ["l2"]])
def test_metrics_are_three_words(metric: Any) -> None:
    with pytest.raises(InvalidInput, match=re.escape(f"no metric {metric!r}; there are 'l2', 'cosine' and 'ip'")):
        VectorIndex(8, metric)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "3"])
def test_threads_for_building_are_checked(threads: Any) -> None:
    with pytest.raises(InvalidInput, match=re.escape(f"threads {threads!r}: expected 1 or more, or None")):
        VectorIndex(8, threads=threads)


@pytest.mark.parametrize("seed", [-1, 1.5, "x"])
def test_seeds_are_checked(seed: Any) -> None:
    try:
        VectorIndex(8, seed=seed)
    except LakeletError:
        return
    raise TypeError


# --- numbers at the edge of float32 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e37, 1e25, 1e-22, 1e-30])
def test_cosine_knows_the_direction_of_very_long_and_very_short_vectors(size: float) -> None:
    vectors = rows(20)
    index = VectorIndex(DIM, "cosine")
    index.add(vectors)
    ids, distances = index.search(vectors, 20, exact=True)
    other = VectorIndex(DIM, "cosine")
    other.add((vectors.astype(np.float64) * size).astype(np.float32))
    scaled, apart = other.search((vectors.astype(np.float64) * size).astype(np.float32), 20, exact=True)
    assert (scaled[:, 0] == ids[:, 0]).all()
    np.testing.assert_allclose(apart, distances, atol=1e-5)


@pytest.mark.parametrize(
    ("metric", "size", "asked"), [("l2", 1e19, 1e19), ("l2", 1, 1e25), ("ip", 1e25, 1e25), ("ip", 1, 1e37)]
)
def test_numbers_whose_squares_overflow_are_refused_or_found(
    monkeypatch: pytest.MonkeyPatch, metric: str, size: float, asked: float
) -> None:
    monkeypatch.setattr(units_module, "VECTOR_DELTA_ROWS", 4_000)
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 4_000)
    index = VectorIndex(DIM, metric)
    try:
        index.add(rows(3_000) * np.float32(size))
        found = [index.search(rows(5) * np.float32(asked), 10, exact=exact)[0] for exact in (True, False)]
    except InvalidInput:  # refusing such numbers would do as well
        return
    assert [[len(set(some) - {-1}) for some in ids.tolist()] for ids in found] == [[10] * 5] * 2


OVERFLOW = """
import numpy as np
from lakelet.lake.errors import InvalidInput
from lakelet.vector.index import VectorIndex
vectors = np.random.default_rng(0).standard_normal((3_000, 8)).astype(np.float32)
index = VectorIndex(8, "l2")
try:
    index.add(vectors * np.float32(1e19))
    index.optimize()
    ids, _ = index.search(vectors[:5] * np.float32(1e19), 10)
    assert all(len(set(some) - {-1}) == 10 for some in ids.tolist()), ids
except InvalidInput:
    pass  # refusing such numbers would do as well
"""


def test_a_tree_over_numbers_whose_squares_overflow_kills_nobody() -> None:
    """In a process of its own: it was seen to die of a segmentation fault."""
    command = [sys.executable, "-W", "ignore", "-c", OVERFLOW]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-500:])
