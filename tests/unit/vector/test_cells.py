"""Rows by ranges of cells and of their values, against boolean arrays."""

from __future__ import annotations

import numpy as np
import pytest
from lakelet.vector import cells as cells_module
from lakelet.vector.bitmaps import no_rows, of_mask
from lakelet.vector.cells import (
    BLOCK_ROWS,
    _scanned,
    add_cells,
    add_within,
    looked_up,
    ordered,
    populations,
    within_among,
)


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 1_000, BLOCK_ROWS, BLOCK_ROWS + 1, 2 * BLOCK_ROWS + 77])
@pytest.mark.parametrize("cells", [1, 7, 300, 65_536])
def test_both_ways_find_the_rows_of_a_range(rows: int, cells: int) -> None:
    column = np.random.default_rng(rows + cells).integers(0, cells, rows).astype(np.uint16)
    order, population = ordered(column), populations(column, cells - 1)
    for low, high in ((0, 0), (cells // 3, cells // 2), (0, cells - 1), (cells - 1, cells - 1)):
        wanted = of_mask((column >= low) & (column <= high))
        for way in ("scanned", "looked up", "chosen"):
            words = no_rows(rows)
            if way == "scanned":
                _scanned(column, low, high, words)
            elif way == "looked up":
                looked_up(column, order, low, high, words)
            else:
                add_cells(column, order, population, low, high, words)
            assert (words == wanted).all(), (way, low, high)


@pytest.mark.parametrize("rows", [0, 70, 3_000, BLOCK_ROWS + 900])
def test_values_of_cells_lie_within_intervals(rows: int) -> None:
    random = np.random.default_rng(rows)
    keys = random.integers(-1_000, 1_000, rows)
    null = random.random(rows) < 0.1
    values = np.unique(keys[~null])
    cells = np.where(null, 0, np.searchsorted(values, keys, "right")).astype(np.uint16)
    order, population = ordered(cells), populations(cells, len(values))
    some = np.sort(random.choice(rows, rows // 3, replace=False)).astype(np.uint32)
    least, greatest = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    for intervals in (
        [(-5, 5)],
        [(0, 0)],
        [(least, greatest)],
        [(least, -900), (-3, 4), (6, 6), (950, greatest)],
        [(key, key) for key in range(-100, 100, 3)],
        [(2_000, 3_000)],
        [],
    ):
        bounds = np.array(intervals, np.int64).reshape(-1, 2)
        mask = np.zeros(rows, bool)
        for low, high in intervals:
            mask |= (keys >= low) & (keys <= high) & ~null
        words = no_rows(rows)
        add_within(cells, order, population, values, bounds, words)
        assert (words == of_mask(mask)).all(), intervals
        assert (within_among(cells, values, bounds, some) == of_mask(mask[some])).all(), intervals


def test_the_quicker_way_is_the_scan_for_many_rows() -> None:
    assert cells_module.SCAN_NS < cells_module.LISTED_NS
