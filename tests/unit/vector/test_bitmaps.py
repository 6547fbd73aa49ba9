"""Bitmaps of rows against boolean arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lakelet.vector.bitmaps import (
    BLOCK_ROWS,
    add_listed,
    add_ranges,
    add_rows,
    all_rows,
    at,
    count,
    count_between,
    listed,
    no_rows,
    of_mask,
    rows_of,
)
from lakelet.vector.columns import ordered

OWN = np.empty(0, np.uint32)
SIZES = [0, 1, 63, 64, 65, 127, 128, 1_000]


def mask_of(words: np.ndarray, rows: int) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), count=rows, bitorder="little").astype(bool)


@given(st.sampled_from(SIZES), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_counting_listing_and_choosing(rows: int, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    mask = random.random(rows) < share
    words = of_mask(mask)
    assert len(words) == -(-rows // 64)
    assert (mask_of(words, rows) == mask).all()
    assert count(words) == mask.sum()
    assert (rows_of(words, OWN) == np.flatnonzero(mask)).all()
    names = np.sort(random.choice(10 * rows + 1, rows, replace=False)).astype(np.uint32)
    assert (rows_of(words, names) == names[mask]).all()
    for start, stop in random.integers(0, rows + 1, (20, 2)).tolist():
        assert count_between(words, start, stop) == mask[start:stop].sum()
    some = np.sort(random.choice(rows, rows // 3, replace=False)).astype(np.uint32)
    assert (at(words, some) == of_mask(mask[some])).all()
    made = no_rows(rows)
    add_rows(np.flatnonzero(mask).astype(np.uint32), made)
    assert (made == words).all()
    assert (all_rows(rows) == of_mask(np.ones(rows, bool))).all()


@pytest.mark.parametrize("rows", [*SIZES, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 77])
@pytest.mark.parametrize("cells", [1, 7, 300, 65_536])
def test_ranges_of_cells_by_looking_and_by_order(rows: int, cells: int) -> None:
    random = np.random.default_rng(rows + cells)
    column = random.integers(0, cells, rows).astype(np.uint16)
    order = ordered(column)
    for ranges in ([(0, 0)], [(cells // 3, cells // 2)], [(0, cells - 1)], [(0, 1), (cells // 2, cells // 2)], []):
        bounds = np.array(ranges, np.int64).reshape(-1, 2)
        mask = np.zeros(rows, bool)
        for low, high in ranges:
            mask |= (column >= low) & (column <= high)
        looked, found = no_rows(rows), no_rows(rows)
        add_ranges(column, bounds, looked)
        add_listed(column, order, bounds, found)
        assert (looked == of_mask(mask)).all()
        assert (found == looked).all()
        if len(ranges) == 1:
            assert (np.sort(listed(column, order, bounds)) == np.flatnonzero(mask)).all()
