"""An index with bits: recall, files, merges, graphs, memory, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lakelet.lake.errors import Corrupt, InvalidInput
from lakelet.vector import container, planner
from lakelet.vector.index import VectorIndex
from lakelet.vector.predicates import Tenant
from lakelet.vector.segment import Segment

Array = np.ndarray[Any, Any]
DIM, ROWS = 32, 9_000
WAYS: list[dict[str, Any]] = [{}, {"rerank": False}, {"rerank": False, "exact": True}]


def clustered(rows: int, seed: int) -> Array:
    """Rows about some centres, of falling variance along axes of their own."""
    same, random = np.random.default_rng(1), np.random.default_rng(seed)
    centres, turn = 0.4 * same.normal(size=(40, DIM)), np.linalg.qr(same.normal(size=(DIM, DIM)))[0]
    around = random.normal(size=(rows, DIM)) * np.arange(1, DIM + 1) ** -0.7
    return ((centres[random.integers(0, 40, rows)] + around) @ turn).astype(np.float32)


BASE, QUERIES = clustered(ROWS, 2), clustered(60, 3)


def made(**more: Any) -> VectorIndex:
    index = VectorIndex(DIM, threads=2, **more)
    index.add(BASE)
    return index


@pytest.fixture(scope="module")
def kept() -> VectorIndex:
    return made(bits=4)


@pytest.fixture(scope="module")
def codes_alone() -> VectorIndex:
    return made(bits=6, keep_vectors=False)


@pytest.fixture(scope="module")
def truth() -> Array:
    return made().search(QUERIES, 10, exact=True)[0]


def recall(found: Array, true: Array) -> float:
    return float(np.mean([np.isin(mine, near).mean() for mine, near in zip(found, true, strict=True)]))


def answers(index: VectorIndex, ways: list[dict[str, Any]] = WAYS) -> list[Any]:
    return [part.tolist() for way in ways for part in index.search(QUERIES, 7, **way)]


def segment_of(index: VectorIndex) -> Segment:
    unit = index._units.now[0]
    assert isinstance(unit, Segment)
    return unit


# --- searching -----------------------------------------------------------------------------------------------------


def test_codes_find_most_and_vectors_nearly_all(kept: VectorIndex, codes_alone: VectorIndex, truth: Array) -> None:
    assert recall(kept.search(QUERIES, 10)[0], truth) >= 0.95
    assert 0.75 <= recall(kept.search(QUERIES, 10, rerank=False)[0], truth) < 0.95
    assert recall(codes_alone.search(QUERIES, 10)[0], truth) >= 0.88


def test_more_bits_find_more(truth: Array) -> None:
    found = [recall(made(bits=bits).search(QUERIES, 10, rerank=False)[0], truth) for bits in (1, 3, 8)]
    assert found[0] + 0.15 < found[1] < found[2]


def test_exact_is_exact_where_there_are_vectors(kept: VectorIndex, truth: Array) -> None:
    found, apart = kept.search(QUERIES, 10, exact=True)
    assert (found == truth).all()
    np.testing.assert_array_equal(apart, kept.search(QUERIES, 10, exact=True, threads=2)[1])


def test_distances_are_true_after_comparing_vectors(kept: VectorIndex) -> None:
    found, apart = kept.search(QUERIES, 10)
    np.testing.assert_allclose(apart, np.square(BASE[found] - QUERIES[:, None]).sum(axis=2), rtol=1e-4)
    estimated = kept.search(QUERIES, 10, rerank=False)[1]
    assert np.abs(estimated / apart - 1).mean() < 0.1


def test_a_batch_by_threads_is_the_queries_one_by_one(kept: VectorIndex) -> None:
    for way in WAYS:
        together = kept.search(QUERIES, 7, threads=2, **way)
        alone = [kept.search(query, 7, **way) for query in QUERIES]
        for part in (0, 1):
            np.testing.assert_array_equal(together[part], np.concatenate([each[part] for each in alone]))


def test_one_seed_makes_one_index(kept: VectorIndex) -> None:
    again = VectorIndex(DIM, bits=4, threads=1)
    again.add(BASE)
    assert answers(again) == answers(kept)


def test_ef_ranks_more_by_codes_and_compares_more(kept: VectorIndex, truth: Array) -> None:
    assert recall(kept.search(QUERIES, 10, ef=ROWS)[0], truth) == 1.0
    np.testing.assert_array_equal(
        kept.search(QUERIES, 10, ef=ROWS, rerank=False)[0],
        kept.search(QUERIES, 10, rerank=False, exact=True)[0],
    )


@pytest.mark.parametrize("more", [{"bits": 5}, {"bits": 5, "keep_vectors": False}])
def test_a_graph_is_walked_with_bits_too(more: dict[str, Any], truth: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "WALK_NS", -1e6)  # the planner takes it wherever it can
    pytest.importorskip("hnswlib")
    index = made(graph=True, **more)
    assert {step.way for step in index.explain()} == {"graph"}
    for k in (1, 10, 30):
        assert (index.search(QUERIES, k)[0] >= 0).all()
    assert recall(index.search(QUERIES, 10)[0], truth) >= 0.8


def test_rows_are_never_nearer_than_nothing() -> None:
    index = VectorIndex(4, "cosine", bits=2, threads=1)
    index.add(np.ones((9_000, 4), np.float32))
    for way in WAYS:
        ids, apart = index.search(np.ones(4, np.float32), 20, **way)
        assert ids.tolist() == [list(range(20))]
        assert (apart >= 0).all()
        assert (apart < 1e-5).all()


def test_kernels_of_codes_are_compiled_for_those_who_ask() -> None:
    told = """if True:
        from lakelet.vector import fine_rank, index, osq_kernels
        index.VectorIndex(4)
        assert not osq_kernels.fill_tables.signatures and not fine_rank.ranker.cache_info().currsize
        index.VectorIndex(4, bits=2)
        assert osq_kernels.fill_tables.signatures and fine_rank.ranker.cache_info().currsize
    """
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


# --- memory, merges, files -----------------------------------------------------------------------------------------


def test_memory_tells_codes_from_vectors(kept: VectorIndex, codes_alone: VectorIndex) -> None:
    assert kept.memory()["vectors"] == 4 * DIM * ROWS
    assert codes_alone.memory()["vectors"] == 0
    for index, bits in ((kept, 4), (codes_alone, 6)):
        fine = segment_of(index).rows.fine
        assert fine is not None
        assert index.memory()["quantised"] == bits * DIM * ROWS / 8 + fine.part.nbytes
    assert made().memory()["quantised"] == 0
    assert kept.memory()["total"] == sum(value for what, value in kept.memory().items() if what != "total")


def test_merges_make_codes_of_codes(truth: Array) -> None:
    index = VectorIndex(DIM, bits=6, keep_vectors=False, threads=2)
    for start in range(0, ROWS, 1_500):
        index.add(BASE[start : start + 1_500])
        index.optimize()
    assert index.memory()["vectors"] == 0
    assert recall(index.search(QUERIES, 10, exact=True)[0], truth) >= 0.8
    index.delete(np.arange(0, ROWS, 2))
    index.optimize()
    assert len(index) == len(segment_of(index)) == ROWS // 2
    found, _ = index.search(QUERIES, 10)
    assert (found % 2 == 1).all()


@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_a_merge_into_a_larger_segment_takes_nothing_off(metric: str) -> None:
    index = VectorIndex(DIM, metric, bits=3, keep_vectors=False, threads=1)
    index.add(BASE)
    before = index.search(QUERIES, 10, exact=True)
    index.add(BASE[:20] + 100, np.arange(20_000, 20_020), "b")
    index.delete(np.arange(20_000, 20_020))
    index.add(-100 - BASE[:9], np.arange(20_000, 20_009), "b")
    index.optimize()
    assert len(segment_of(index)) == ROWS + 9
    after = index.search(QUERIES, 10, ~Tenant("b"), exact=True)
    np.testing.assert_allclose(after[1], before[1], atol=1e-2)
    assert recall(after[0], before[0]) > 0.99


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("form", ["kept", "codes_alone"])
def test_what_was_saved_is_loaded(tmp_path: Path, form: str, mmap: bool, request: pytest.FixtureRequest) -> None:
    index: VectorIndex = request.getfixturevalue(form)
    ways = WAYS if form == "kept" else WAYS[1:]
    index.save(tmp_path / "saved")
    again = VectorIndex.load(tmp_path / "saved", mmap)
    assert answers(again, ways) == answers(index, ways)
    again.add(BASE[:3], tenants="a")
    again.optimize()
    assert len(again) == ROWS + 3
    assert (again.memory()["vectors"] == 0) == (form == "codes_alone")


def test_a_file_whose_codes_are_missing_is_corrupt(tmp_path: Path, kept: VectorIndex) -> None:
    kept.save(tmp_path / "saved")
    meta, arrays = container.read(tmp_path / "saved", kind="vector index")
    for changed in ({"0.fine_axes": None}, {"0.fine_records": arrays["0.fine_records"][:-1]}):
        some = {name: array for name, array in (arrays | changed).items() if array is not None}
        container.write(tmp_path / "less", kind="vector index", meta=meta, arrays=some)
        with pytest.raises(Corrupt, match="no whole vector index"):
            VectorIndex.load(tmp_path / "less")


def test_a_folder_keeps_bits(tmp_path: Path) -> None:
    with VectorIndex.open(tmp_path / "index", DIM, bits=4, keep_vectors=False, threads=1) as index:
        index.add(BASE)
        index.save()
        index.add(BASE[:5])
        before = answers(index, WAYS[1:])
    with VectorIndex.open(tmp_path / "index", bits=4, threads=1) as index:
        assert answers(index, WAYS[1:]) == before
        assert index.memory()["vectors"] == 4 * DIM * 5
    for wrong, told in (({"bits": 5}, "bits 4; expected 5"), ({"keep_vectors": True}, "keep_vectors False; expected")):
        with pytest.raises(InvalidInput, match=told):
            VectorIndex.open(tmp_path / "index", **wrong)
    with pytest.raises(InvalidInput, match="bits 9: expected a whole number"):
        VectorIndex.open(tmp_path / "index", bits=9)


# --- what is refused -----------------------------------------------------------------------------------------------

PLAIN = VectorIndex(4)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no bits": (lambda: VectorIndex(4, bits=0), "bits 0: expected a whole number from 1 to 8, or None"),
    "too many": (lambda: VectorIndex(4, bits=9), "bits 9: expected"),
    "half a bit": (lambda: VectorIndex(4, bits=3.5), r"bits 3\.5: expected"),  # type: ignore[arg-type]
    "True": (lambda: VectorIndex(4, bits=True), "bits True: expected"),
    "text": (lambda: VectorIndex(4, bits="4"), "bits '4': expected"),  # type: ignore[arg-type]
    "nothing kept": (lambda: VectorIndex(4, keep_vectors=False), "keep_vectors=False without bits .* say bits=8"),
    "kept: 1": (lambda: VectorIndex(4, bits=4, keep_vectors=1), "keep_vectors 1: expected True or False"),  # type: ignore[arg-type]
    "rerank without vectors": (
        lambda: VectorIndex(4, bits=4, keep_vectors=False).search(np.ones(4, np.float32), rerank=True),
        "rerank=True needs vectors, and this index has keep_vectors=False; leave rerank out",
    ),
    "rerank=False without bits": (
        lambda: PLAIN.search(np.ones(4, np.float32), rerank=False),
        "rerank=False ranks by codes .* this index has none; say bits=4",
    ),
    "rerank: a word": (
        lambda: PLAIN.search(np.ones(4, np.float32), rerank="yes"),  # type: ignore[arg-type]
        "rerank 'yes': expected True, False, or None",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused(what: str) -> None:
    act, told = REFUSED[what]
    with pytest.raises(InvalidInput) as caught:
        act()
    assert re.search(told, str(caught.value)), str(caught.value)
