"""Rows by the cells of a column: a range of cells looked up 64 rows at a time, or in the order of the cells.

A column is cells uint16 (n,), 0 for NULL; ``order`` uint16 (n,), for each block of rows these in the order of their
cells; population uint32 (cells + 2,), the rows in the cells before each, and in all; values int64 (cells,), the key of
cell i + 1, ascending. Sets of rows are words of a bitmap, and ``bounds`` int64 (r, 2) are intervals of keys, both ends
inside, ascending and apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from ..lake.kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "BLOCK_ROWS",
    "NULL_CELL",
    "add_cells",
    "add_within",
    "lies_in",
    "looked_up",
    "ordered",
    "populations",
    "within_among",
]

BLOCK_ROWS: Final = 65_536
"""Rows that a list of uint16 may name."""
NULL_CELL: Final = 0
SCAN_NS: Final = 0.025
"""To look at a row's cell,"""
LISTED_NS: Final = 0.8
"""to add one row by its number,"""
FIND_NS: Final = 250.0
"""and to find a range in the order of one block."""


def _range_word(typing: Any, address: Any, low: Any, width: Any) -> Any:
    """A word with bit i set where the i-th of the 64 uint16 at an address is from ``low`` to ``low + width``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, low, width = arguments
        small, many = ir.IntType(16), ir.VectorType(ir.IntType(16), 64)
        first = ir.Constant(ir.IntType(32), 0)
        spread = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
        unknown = ir.Constant(many, ir.Undefined)

        def everywhere(value: Any) -> Any:
            alone = builder.insert_element(unknown, builder.trunc(value, small), first)
            return builder.shuffle_vector(alone, unknown, spread)

        cells = builder.load(builder.inttoptr(address, many.as_pointer()))
        cells.align = 1
        within = builder.icmp_unsigned("<=", builder.sub(cells, everywhere(low)), everywhere(width))
        return builder.bitcast(within, ir.IntType(64))

    return types.uint64(types.intp, types.int64, types.int64), generate


_in_range: Any = intrinsic(_range_word)


@compiled
def _first_of(order: NDArray[np.uint16], cells: NDArray[np.uint16], cell: int) -> int:
    """Where rows of a block in the order of their cells reach ``cell``."""
    left, right = 0, order.shape[0]
    while left < right:
        middle = (left + right) >> 1
        if cells[order[middle]] < cell:
            left = middle + 1
        else:
            right = middle
    return left


@compiled
def _scanned(cells: NDArray[np.uint16], low: int, high: int, words: NDArray[np.uint64]) -> None:
    """Add the rows of the cells from ``low`` to ``high`` by looking at every row."""
    rows, cell_at = cells.shape[0], cells.ctypes.data
    whole = rows >> 6
    for i in range(whole):
        words[i] |= _in_range(cell_at + 128 * i, low, high - low)
    for row in range(whole << 6, rows):
        if low <= cells[row] <= high:
            words[row >> 6] |= np.uint64(1) << np.uint64(row & 63)


@compiled
def looked_up(
    cells: NDArray[np.uint16], order: NDArray[np.uint16], low: int, high: int, words: NDArray[np.uint64]
) -> None:
    """Add the rows of the cells from ``low`` to ``high``, found in their order."""
    for first in range(0, cells.shape[0], BLOCK_ROWS):
        block, inside = cells[first : first + BLOCK_ROWS], order[first : first + BLOCK_ROWS]
        for i in range(_first_of(inside, block, low), _first_of(inside, block, high + 1)):
            row = first + np.int64(inside[i])
            words[row >> 6] |= np.uint64(1) << np.uint64(row & 63)


@compiled
def add_cells(
    cells: NDArray[np.uint16],
    order: NDArray[np.uint16],
    population: NDArray[np.uint32],
    low: int,
    high: int,
    words: NDArray[np.uint64],
) -> None:
    """Add the rows of the cells from ``low`` to ``high``, in the quicker of the two ways."""
    if low > high:
        return
    rows, count = np.int64(population[high + 1]) - np.int64(population[low]), cells.shape[0]
    blocks = (count + BLOCK_ROWS - 1) // BLOCK_ROWS
    if rows * LISTED_NS + blocks * FIND_NS < count * SCAN_NS:
        looked_up(cells, order, low, high, words)
    else:
        _scanned(cells, low, high, words)


@compiled
def add_within(
    cells: NDArray[np.uint16],
    order: NDArray[np.uint16],
    population: NDArray[np.uint32],
    values: NDArray[np.int64],
    bounds: NDArray[np.int64],
    words: NDArray[np.uint64],
) -> None:
    """Add the rows whose key lies in one of the intervals."""
    count = values.shape[0]
    for each in range(bounds.shape[0]):
        first, right = 0, count  # the first value inside
        while first < right:
            middle = (first + right) >> 1
            if values[middle] < bounds[each, 0]:
                first = middle + 1
            else:
                right = middle
        behind, right = first, count  # the first from there on that is not
        while behind < right:
            middle = (behind + right) >> 1
            if values[middle] <= bounds[each, 1]:
                behind = middle + 1
            else:
                right = middle
        add_cells(cells, order, population, first + 1, behind, words)


@compiled
def lies_in(bounds: NDArray[np.int64], key: int) -> bool:
    """Whether a key lies in one of the intervals."""
    left, right = 0, bounds.shape[0]  # how many begin at the key or before
    while left < right:
        middle = (left + right) >> 1
        if bounds[middle, 0] <= key:
            left = middle + 1
        else:
            right = middle
    return bool(left > 0 and key <= bounds[left - 1, 1])


@compiled
def within_among(
    cells: NDArray[np.uint16], values: NDArray[np.int64], bounds: NDArray[np.int64], among: NDArray[np.uint32]
) -> NDArray[np.uint64]:
    """A bitmap over ``among``: of these rows, those whose key lies in one of the intervals."""
    words = np.zeros((among.shape[0] + 63) >> 6, np.uint64)
    for i in range(among.shape[0]):
        row = among[i]
        if cells[row] == NULL_CELL:
            continue
        if lies_in(bounds, values[cells[row] - 1]):
            words[i >> 6] |= np.uint64(1) << np.uint64(i & 63)
    return words


def ordered(cells: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The rows of each block in the order of their cells, equal ones as they stand."""
    parts = [
        np.argsort(cells[first : first + BLOCK_ROWS], kind="stable").astype(np.uint16)
        for first in range(0, len(cells), BLOCK_ROWS)
    ]
    return np.concatenate([np.empty(0, np.uint16), *parts])


def populations(cells: NDArray[np.uint16], count: int) -> NDArray[np.uint32]:
    """Rows in the cells before that of NULL and each of ``count`` others, and in all: uint32 (count + 2,)."""
    return np.cumsum(np.concatenate([[0], np.bincount(cells, minlength=count + 1)])).astype(np.uint32)
