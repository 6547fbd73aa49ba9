"""A vector index as a file: what is saved comes back whole; damaged files and files of another kind are told apart."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lakelet.lake.errors import Corrupt, InvalidInput, LakeletError, NotFound, Unavailable
from lakelet.vector import container
from lakelet.vector import index as index_module
from lakelet.vector import units as units_module
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import ALL_TENANTS, PUBLIC
from lakelet.vector.predicates import Tenant

DIM = 16
LABELS: list[Any] = ["a", "b", 7, "7", -(10**30), "ü \U0001f30a\n", "", "\ud800", "gone", PUBLIC]
SEES: list[Any] = [*LABELS, "stranger", ALL_TENANTS, Tenant("a") & ~Tenant("b"), ~Tenant(7)]
QUERIES = np.random.default_rng(9).choice(np.array([-1, 1], np.float32), (6, DIM))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units_module, "VECTOR_DELTA_ROWS", 100)
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 250)


def corners(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), (rows, DIM))


def much(metric: str = "l2", seed: int = 3) -> VectorIndex:
    """Segments and deltas; rows were deleted, added again, granted and revoked, and labels were dropped."""
    random = np.random.default_rng(seed)
    index = VectorIndex(DIM, metric, seed=seed, threads=2)
    for number, rows in enumerate((300, 800, 130, 60, 30)):
        entries = [[label for label in LABELS if random.random() < 0.25] for _ in range(rows)]
        index.add(corners(rows, number), tenants=entries)
    index.wait()
    rows = index.add(corners(50, 9), np.arange(5_000, 5_050), "a").tolist()
    index.drop_tenant("gone", keep_rows=True)
    index.drop_tenant(7)
    index.grant(rows[:9], 7)
    for first, label in ((0, "b"), (300, PUBLIC), (5_000, -(10**30)), (500, "a")):
        live = sorted(ids_of(index) & set(range(first, first + 40)))
        index.grant(live, label)
        index.revoke(live[::3], label)
        index.delete(live[5:9])
        index.add(corners(2, first), live[5:7], "\ud800")
    index.grant([], "nobody yet")
    return index


def ids_of(index: VectorIndex) -> set[int]:
    return set(index.search(QUERIES[:1], 3_000, ALL_TENANTS, exact=True)[0][0].tolist()) - {-1}


def seen(index: VectorIndex, approximate: bool = False) -> list[Any]:
    """All that is certain; ``approximate`` results too, which may change when lists are saved without revisions."""
    found: list[Any] = [len(index), index.tenants(), index.dim, index.metric, index._state.next_id]
    for who in SEES:
        for k, exact in ((3_000, True), (10, True), *([(10, False)] if approximate else [])):
            found += [part.tolist() for part in index.search(QUERIES if k == 10 else QUERIES[:1], k, who, exact=exact)]
    return found


# --- there and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("verify", [True, False])
def test_what_was_saved_is_loaded(tmp_path: Path, metric: str, mmap: bool, verify: bool) -> None:
    index = much(metric)
    assert {step.unit for step in index.explain(5, ALL_TENANTS)} == {"segment", "delta"}
    before = seen(index)
    index.save(tmp_path / "f")
    assert seen(index) == before
    loaded = VectorIndex.load(str(tmp_path / "f"), mmap, verify=verify, threads=1)
    assert seen(loaded) == before
    assert [step[:2] for step in loaded.explain(5, "a")] == [step[:2] for step in index.explain(5, "a")]
    assert "gone" not in [use.label for use in loaded.tenants()]
    with pytest.raises(NotFound, match="no tenant 'gone'"):
        loaded.drop_tenant("gone")
    with pytest.raises(InvalidInput, match="this index has tenants"):
        loaded.search(QUERIES)
    loaded.save(tmp_path / "again")
    again = VectorIndex.load(tmp_path / "again", mmap)
    assert seen(again, approximate=True) == seen(loaded, approximate=True)
    assert again.explain(5, "a") == loaded.explain(5, "a")
    again.save(tmp_path / "f")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "f").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["again", "f"]


@pytest.mark.parametrize("mmap", [True, False])
def test_a_loaded_index_takes_every_operation_as_the_one_that_was_saved(tmp_path: Path, mmap: bool) -> None:
    index = much()
    index.save(tmp_path / "f")
    data = (tmp_path / "f").read_bytes()
    loaded = VectorIndex.load(tmp_path / "f", mmap, threads=2)
    live = sorted(ids_of(index))
    acts: list[Callable[[VectorIndex], Any]] = [
        lambda each: each.add(corners(3, 20), tenants=["a", "new", None]).tolist(),
        lambda each: each.grant(live[::5], "b"),
        lambda each: each.revoke(live[::3], PUBLIC),
        lambda each: each.delete(live[1::4]),
        lambda each: each.add(corners(2, 21), live[1:6:4], ["a", "7"]).tolist(),
        lambda each: each.add(corners(300, 22), tenants="b").tolist(),
        lambda each: each.drop_tenant("a"),
        lambda each: each.grant(live[2:9:4], "a"),
        lambda each: each.add(corners(240, 23), tenants="7").tolist(),
        lambda each: each.wait(),
        lambda each: each.delete([2**40]),
        lambda each: each.add(corners(1, 24), live[2], "a"),
        lambda each: each.optimize(),
    ]
    for act in acts:
        results = []
        for each in (index, loaded):
            try:
                results.append(act(each))
            except LakeletError as error:
                results.append((type(error), str(error)))
        assert results[0] == results[1]
        assert seen(index) == seen(loaded)
    assert (tmp_path / "f").read_bytes() == data


def test_an_index_without_rows_or_tenants_comes_back(tmp_path: Path) -> None:
    index = VectorIndex(3, "ip", seed=5)
    acts: list[tuple[Callable[[], Any], int]] = [
        (lambda: None, 0),
        (index.optimize, 0),
        (lambda: index.add([1, 2, 3]), 1),
        (lambda: index.delete([0]), 1),
        (index.optimize, 1),
    ]
    for act, free in acts:
        act()
        index.save(tmp_path / "f")
        for mmap in (True, False):
            loaded = VectorIndex.load(tmp_path / "f", mmap)
            assert (len(loaded), loaded.dim, loaded.metric, loaded.tenants()) == (len(index), 3, "ip", [])
            assert (loaded.search([1, 2, 3], 4)[0] == index.search([1, 2, 3], 4)[0]).all()
            assert loaded.add([1, 2, 3]).tolist() == [free]


def test_deltas_and_segments_of_one_row(tmp_path: Path) -> None:
    for optimize in (False, True):
        index = VectorIndex(DIM)
        index.add(corners(1), [2**63 - 2], ["a"])
        if optimize:
            index.optimize()
        index.save(tmp_path / "f")
        loaded = VectorIndex.load(tmp_path / "f")
        assert loaded.search(corners(1), 2, "a")[0].tolist() == [[2**63 - 2, -1]]


def test_an_index_with_a_numpy_seed_can_be_saved(tmp_path: Path) -> None:
    index = VectorIndex(DIM, seed=np.int64(3))  # type: ignore[arg-type]
    index.add(corners(5))
    index.save(tmp_path / "f")


def test_public_that_was_dropped_and_came_again_is_saved(tmp_path: Path) -> None:
    index = VectorIndex(DIM)
    index.add(corners(4), tenants=["a", PUBLIC, PUBLIC, ["a", PUBLIC]])
    try:
        index.drop_tenant(PUBLIC, keep_rows=True)
    except InvalidInput:  # refusing it would do as well
        return
    index.grant([2], PUBLIC)
    index.save(tmp_path / "f")
    loaded = VectorIndex.load(tmp_path / "f")
    assert loaded.tenants() == index.tenants()
    assert loaded.search(QUERIES[:1], 3, "stranger")[0].tolist() == [[2, -1, -1]]


# --- over itself, and beside writers -------------------------------------------------------------------------------


def test_an_index_is_saved_over_the_file_that_it_is_mapped_from(tmp_path: Path) -> None:
    much().save(tmp_path / "f")
    index = VectorIndex.load(tmp_path / "f")
    other = VectorIndex.load(tmp_path / "f")
    before = seen(other)
    for turn in range(3):
        index.add(corners(40, turn), tenants="a")
        index.delete(sorted(ids_of(index))[:30])
        if turn == 1:
            index.optimize()
        expected = seen(index)
        index.save(tmp_path / "f")
        assert seen(index) == expected
        assert seen(VectorIndex.load(tmp_path / "f")) == expected
    assert seen(other) == before  # still reads what it was opened from
    assert os.listdir(tmp_path) == ["f"]


def test_each_file_saved_beside_a_writer_holds_a_state_that_there_was(tmp_path: Path) -> None:
    """The writer adds a row, then deletes the one before: one of two neighbours is there, or both."""
    index = VectorIndex(DIM, threads=1)
    index.add(corners(300), np.arange(300), "a")
    index.add(corners(1), [1_000], "a")
    stop, errors, last = threading.Event(), list[BaseException](), [1_000]

    def write() -> None:
        try:
            while not stop.is_set():
                index.add(corners(1, last[0]), [last[0] + 1], ["a"])
                index.delete([last[0]])
                last[0] += 1
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        for turn in range(25):
            least = last[0]
            index.save(tmp_path / "f")
            most = last[0] + 1
            loaded = VectorIndex.load(tmp_path / "f", turn % 2 == 0)
            assert len(loaded) in {301, 302}
            found = loaded.search(corners(1), 400, "a", exact=True)[0][0]
            moving = sorted(row for row in found.tolist() if row >= 1_000)
            assert set(found.tolist()) >= set(range(300))
            assert least <= moving[0] <= most
            assert moving in ([moving[0]], [moving[0], moving[0] + 1])
            assert loaded._state.next_id == moving[-1] + 1
    finally:
        stop.set()
        thread.join(60)
    assert not errors
    assert last[0] > 1_000


# --- what is no file of an index -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "f"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units_module, "VECTOR_DELTA_ROWS", 100)
        patch.setattr(index_module, "VECTOR_BULK_ROWS", 250)
        much().save(path)
    return path.read_bytes()


def told(path: Path, data: bytes, **options: Any) -> LakeletError | None:
    """The error that such a file is refused with; nothing else than these two is ever raised."""
    path.write_bytes(data)
    try:
        VectorIndex.load(path, **options)
    except (Corrupt, InvalidInput) as error:
        found = error
    else:
        return None
    assert type(found) in (Corrupt, InvalidInput)
    assert str(path) in str(found)
    return found


@pytest.mark.parametrize("mmap", [True, False])
def test_a_truncated_file_is_corrupt(tmp_path: Path, whole: bytes, mmap: bool) -> None:
    places = {1, 7, 8, 27, 28, 29, 500, 4_095, 4_096, len(whole) // 2, len(whole) - 1}
    for place in sorted(places | set(range(9, len(whole), len(whole) // 40))):
        for verify in (True, False):
            error = told(tmp_path / "f", whole[:place], mmap=mmap, verify=verify)
            assert isinstance(error, Corrupt), place
            assert error.path == str(tmp_path / "f")
    assert isinstance(told(tmp_path / "f", whole + b"x", mmap=mmap, verify=False), Corrupt)


@pytest.mark.parametrize("mmap", [True, False])
def test_every_flipped_bit_is_noticed(tmp_path: Path, whole: bytes, mmap: bool) -> None:
    random = np.random.default_rng(1)
    for place in [*range(0, 60, 3), *random.integers(0, len(whole), 150).tolist()]:
        data = bytearray(whole)
        data[place] ^= 1 << int(random.integers(0, 8))
        error = told(tmp_path / "f", bytes(data), mmap=mmap)
        assert isinstance(error, Corrupt | InvalidInput), place
        if place >= 28:
            assert isinstance(error, Corrupt), place


def test_without_verifying_the_header_is_still_checked(tmp_path: Path, whole: bytes) -> None:
    end = int.from_bytes(whole[16:24], "little") + 28
    for place in range(28, end, end // 60):
        data = bytearray(whole)
        data[place] ^= 4
        assert isinstance(told(tmp_path / "f", bytes(data), verify=False), Corrupt), place


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"PAR1" + b"x" * 90, "a Parquet file"),
        (b"PK\x03\x04" + b"x" * 90, "a zip archive"),
        (b"hello world, and more than that is in here", "of a format unknown here"),
        (b"\0" * 5_000, "of a format unknown here"),
    ],
)
def test_foreign_files_are_named_and_never_written_over(tmp_path: Path, data: bytes, what: str) -> None:
    error = told(tmp_path / "f", data)
    assert isinstance(error, InvalidInput)
    assert what in str(error)
    with pytest.raises(InvalidInput, match=what):
        much().save(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == data


def test_an_empty_file_is_told_and_may_be_written_over(tmp_path: Path) -> None:
    assert isinstance(told(tmp_path / "f", b""), Corrupt)
    index = much()
    index.save(tmp_path / "f")
    assert seen(VectorIndex.load(tmp_path / "f")) == seen(index)


def test_newer_files_and_other_containers_are_told(
    tmp_path: Path, whole: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(container, "FORMAT", 2)
        much().save(tmp_path / "newer")
    error = told(tmp_path / "f", (tmp_path / "newer").read_bytes())
    assert isinstance(error, InvalidInput)
    assert "format 2, this lakelet reads up to 1: pip install --upgrade lakelet" in str(error)
    container.write(tmp_path / "f", kind="soup", meta={}, arrays={})
    with pytest.raises(InvalidInput, match="holds the kind 'soup'; expected 'vector index'"):
        VectorIndex.load(tmp_path / "f")


@pytest.mark.parametrize(
    "lacks", ["meta.dim", "meta.units", "meta.metric", "label_ends", "0.ids", "0.live", "0.node_hi", "1.capacity"]
)
def test_a_container_that_is_no_whole_index_is_corrupt(tmp_path: Path, whole: bytes, lacks: str) -> None:
    (tmp_path / "whole").write_bytes(whole)
    meta, arrays = container.read(tmp_path / "whole", kind="vector index")
    numbers = {kind: str(number) for number, kind in reversed(list(enumerate(meta["units"])))}
    assert set(numbers) == {"segment", "delta"}
    lacks = lacks.replace("0.", f"{numbers['segment']}.").replace("1.", f"{numbers['delta']}.")
    if lacks.startswith("meta."):
        del meta[lacks[5:]]
    elif lacks.endswith("live"):
        arrays[lacks] = arrays[lacks][:-1]
    else:
        del arrays[lacks]
    container.write(tmp_path / "f", kind="vector index", meta=meta, arrays=arrays)
    with pytest.raises(Corrupt, match="is no whole vector index"):
        VectorIndex.load(tmp_path / "f")


def test_what_is_not_there_or_is_no_file(tmp_path: Path) -> None:
    index = VectorIndex(DIM)
    for path in (tmp_path / "none", tmp_path / "none" / "f"):
        with pytest.raises(NotFound, match="found no file at"):
            VectorIndex.load(path)
    for act, words in ((VectorIndex.load, "is a folder: VectorIndex.open"), (index.save, "a folder stands at")):
        with pytest.raises(InvalidInput, match=words):
            act(tmp_path)
        for path in ("", "a\0b", os.fsencode(tmp_path / "f")):
            with pytest.raises(InvalidInput, match="expected the path of a file"):
                act(path)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="its folder is not there: make it first"):
        index.save(tmp_path / "none" / "f")
    index.save(tmp_path / "f")
    for threads in (0, True, 1.5):
        with pytest.raises(InvalidInput, match="expected 1 or more, or None"):
            VectorIndex.load(tmp_path / "f", threads=threads)  # type: ignore[arg-type]
