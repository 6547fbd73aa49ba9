"""Row sets against Python sets of tuples, with memory enough and with so little that they spill."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.containment.hashing import Lanes
from lakelet.containment.rowsets import RowSets

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKED = settings(deadline=None, derandomize=True, max_examples=60)
Row = tuple[int, int]


def lanes(rows: Sequence[Row]) -> Lanes:
    return Lanes(np.array([r[0] for r in rows], np.uint64), np.array([r[1] for r in rows], np.uint64))


def check(sets: dict[int, list[Row]], memory_bytes: int, batch: int, fraction: float) -> int:
    """Add in batches, ask everything, compare with Python sets; returns bytes spilled."""
    exact = {key: set(rows) for key, rows in sets.items()}
    with RowSets(memory_bytes) as found:
        for key in sets:
            found.add(key, lanes([]))
        longest = max(map(len, sets.values()))
        for start in range(0, longest, batch):  # sets grow side by side
            for key, rows in sets.items():
                found.add(key, lanes(rows[start : start + batch]))
        found.seal()
        for key, rows in exact.items():
            assert found.distinct(key) == len(rows)
            assert found.signature(key) == (len(rows), sum((hi << 64) + lo for lo, hi in rows) % 2**128)
            assert found.sketch(key).tolist() == sorted(lo for lo, _ in rows)[:4096]
        pairs = [(a, b) for a in sets for b in sets]
        for limit in {fraction, 1.0}:
            for pair, overlap in zip(pairs, found.compare(pairs, min_fraction=limit), strict=True):
                child, parent = exact[pair[0]], exact[pair[1]]
                both = len(child & parent)
                assert (overlap.child, overlap.parent, overlap.distinct) == (*pair, len(child))
                assert overlap.complete == (not child or both / len(child) >= limit)
                assert overlap.found == both if overlap.complete else overlap.found <= both
        return found.spilled_bytes


# Lanes from a few values only: rows that share one lane and differ in the other are the hard case.
CLASHING = st.tuples(st.sampled_from([0, 1, 2**63, 2**64 - 1]), st.integers(0, 3))
SPREAD = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))


@CHECKED
@given(
    st.lists(st.lists(CLASHING | SPREAD, max_size=40), min_size=1, max_size=5), st.integers(1, 50), st.floats(0.05, 1)
)
def test_small_sets(sets: list[list[Row]], batch: int, fraction: float) -> None:
    check(dict(enumerate(sets)), 1 << 20, batch, fraction)


@settings(CHECKED, max_examples=5)
@given(st.integers(0, 2**32), st.integers(200, 5000), st.sampled_from([0.3, 0.5, 0.9]))
def test_sets_that_spill(seed: int, batch: int, fraction: float) -> None:
    random = np.random.default_rng(seed)
    pool = random.integers(0, 2**64, (6000, 2), np.uint64)
    pool[::10, 0] = pool[1::10, 0]  # some rows share their low lane
    rows = [(int(lo), int(hi)) for lo, hi in pool]
    picked = {key: [rows[i] for i in random.integers(0, size, 9000)] for key, size in enumerate((10, 500, 3000, 6000))}
    picked[4] = rows
    picked[5] = [*rows[:5999], (rows[5999][0], rows[5999][1] ^ 1)]  # one row changed, in one lane
    assert check(picked, 1 << 16, batch, fraction) > 0


@CHECKED
@given(st.integers(1, 10_000), st.floats(0.001, 1.0))
def test_rows_needed_is_the_least_count(rows: int, fraction: float) -> None:
    from lakelet.containment.rowsets import _rows_needed

    needed = _rows_needed(rows, fraction)
    assert needed / rows >= fraction
    assert needed == 0 or (needed - 1) / rows < fraction
    assert _rows_needed(10, 0.9) == 9
    assert math.isclose(needed, fraction * rows, abs_tol=1.0)
