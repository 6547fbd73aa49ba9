"""Row sets: bounds on memory and files, errors, threads."""

from __future__ import annotations

import errno
import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from lakelet.containment.hashing import Lanes
from lakelet.containment.rowsets import Overlap, RowSets
from lakelet.lake.errors import InvalidInput, LimitExceeded, Unavailable

if TYPE_CHECKING:
    from pathlib import Path


def spread(n: int, seed: int = 0) -> Lanes:
    words = np.random.default_rng(seed).integers(0, 2**64, (2, n), np.uint64)
    return Lanes(words[0], words[1])


def test_pair_stops_at_its_first_missing_row() -> None:
    parent = spread(100_000)
    child = Lanes(parent.lo.copy(), parent.hi.copy())
    child.hi[np.argmin(child.lo)] ^= np.uint64(1)
    with RowSets(1 << 26) as sets:
        sets.add(1, parent)
        sets.add(2, child)
        sets.seal()
        (stopped,) = sets.compare([(2, 1)])
        assert not stopped.complete
        assert stopped.found < 1000
        assert sets.compare([(2, 1)], min_fraction=0.99) == [Overlap(2, 1, 99_999, 100_000, True)]


def test_memory_stays_within_the_bound() -> None:
    bound = 8 << 20
    with RowSets(bound) as sets:
        batches = [spread(10_000, seed) for seed in range(20)]
        sets.add(0, batches[0])
        sets.seal()
        tracemalloc.start()
        for key in range(1, 6):
            for i in range(100):  # 5 sets of a million rows: 80 MB
                rows = batches[i % 20]
                sets.add(key, Lanes(rows.lo + np.uint64(i * key), rows.hi.copy()))
        for key in range(1, 6):
            sets.seal(key)
            assert sets.distinct(key) > 900_000
        assert sets.compare([(1, 2), (0, 1), (3, 3)], min_fraction=0.001)[2].complete
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sets.spilled_bytes > 80 << 20
        assert peak < bound


def test_many_repeats_of_few_rows_neither_grow_nor_spill() -> None:
    few = spread(100)
    with RowSets(1 << 20) as sets:
        for _ in range(200):
            sets.add(7, few.take(np.arange(10_000) % 100))
        sets.seal(7)
        assert sets.distinct(7) == 100
        assert sets.spilled_bytes == 0


def test_spill_files_go_with_their_sets_and_with_the_owner(tmp_path: Path) -> None:
    with RowSets(1 << 16, spill_folder=str(tmp_path)) as sets:
        for key in range(3):
            sets.add(key, spread(20_000, key))
        sets.seal()
        (folder,) = tmp_path.iterdir()
        assert sum(f.stat().st_size for f in folder.iterdir()) == 3 * 20_000 * 16
        sets.drop(0)
        assert sum(f.stat().st_size for f in folder.iterdir()) == 2 * 20_000 * 16
        assert sets.distinct(1) == 20_000
        sets.drop(0)
    assert not list(tmp_path.iterdir())


def test_full_disk_is_named_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lakelet.containment import spill

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def tell(self) -> int:
            return int(self.file.tell())

        def write(self, data: Any) -> int:
            self.file.write(bytes(data)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(spill, "open", lambda path, mode: Full(open(path, mode)), raising=False)  # noqa: SIM115
    with RowSets(1 << 16, spill_folder=str(tmp_path)) as sets:
        with pytest.raises(LimitExceeded, match=f"no space left in {tmp_path}"):
            sets.add(1, spread(20_000))
        assert [f for folder in tmp_path.iterdir() for f in folder.iterdir()] == []
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with RowSets(1 << 16, spill_folder=str(missing)) as sets, pytest.raises(Unavailable, match=str(missing)):
        sets.add(1, spread(20_000))


def test_file_cut_short_is_found(tmp_path: Path) -> None:
    with RowSets(1 << 16, spill_folder=str(tmp_path)) as sets:
        sets.add(1, spread(20_000))
        sets.seal()
        for path in next(tmp_path.iterdir()).iterdir():
            os.truncate(path, 1000)
        with pytest.raises(Unavailable, match="cut short"):
            sets.signature(1)


def test_adding_from_many_threads() -> None:
    rows = spread(200_000)
    with RowSets(1 << 20) as sets, ThreadPoolExecutor(8) as pool:
        starts = np.random.default_rng(1).permutation(np.repeat(np.arange(0, 200_000, 2_000), 2))
        list(pool.map(lambda start: sets.add(start % 3, rows.slice(start, start + 2_000)), starts.tolist()))
        sets.seal()
        assert sum(sets.distinct(key) for key in range(3)) == 200_000


def test_bad_calls_are_refused() -> None:
    with pytest.raises(InvalidInput, match="memory_bytes is 5"):
        RowSets(5)
    with RowSets(1 << 20) as sets:
        sets.add(1, spread(3))
        with pytest.raises(InvalidInput, match="no row set 2"):
            sets.compare([(1, 2)])
        sets.seal(2)
        assert sets.compare([(2, 1)]) == [Overlap(2, 1, 0, 0, True)]
        with pytest.raises(InvalidInput, match="is sealed"):
            sets.add(1, spread(1))
        for fraction in (0.0, 1.5, float("nan")):
            with pytest.raises(InvalidInput, match="min_fraction"):
                sets.compare([(2, 1)], min_fraction=fraction)
