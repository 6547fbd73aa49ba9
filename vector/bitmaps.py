"""Sets of rows as bitmaps: 64 rows a word, row 0 the lowest bit, bits behind the last row clear.

All take and give words uint64 (ceil(n / 64),). A million rows are 125 kB, so that conditions combine in a cache.
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
    "add_listed",
    "add_ranges",
    "add_rows",
    "all_rows",
    "at",
    "count",
    "count_between",
    "no_rows",
    "of_mask",
    "rows_of",
    "trailing_zeros",
]

BLOCK_ROWS: Final = 65_536
"""Rows that a list of uint16 may name."""
I64 = ir.IntType(64)


def _unary(name: str) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        extra = [ir.Constant(ir.IntType(1), 1)] if name == "cttz" else []
        parameters = [I64] + [ir.IntType(1)] * len(extra)
        full = f"llvm.{name}.i64"
        found = builder.module.globals.get(full)
        function = found or ir.Function(builder.module, ir.FunctionType(I64, parameters), full)
        return builder.call(function, [arguments[0], *extra])

    def typed(typing: Any, word: Any) -> Any:
        return types.int64(types.uint64), generate

    return intrinsic(typed)


_popcount: Any = _unary("ctpop")
trailing_zeros: Any = _unary("cttz")
"""The place of the lowest bit of a word that has one."""


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
        return builder.bitcast(within, I64)

    return types.uint64(types.intp, types.int64, types.int64), generate


_in_range: Any = intrinsic(_range_word)


def no_rows(n: int) -> NDArray[np.uint64]:
    """None of ``n`` rows."""
    return np.zeros((n + 63) // 64, np.uint64)


def all_rows(n: int) -> NDArray[np.uint64]:
    """All of ``n`` rows."""
    words = np.full((n + 63) // 64, np.iinfo(np.uint64).max, np.uint64)
    if n % 64:
        words[-1] = (1 << n % 64) - 1
    return words


def of_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """The rows where ``mask``, bool (n,), is true."""
    out = np.zeros((len(mask) + 63) // 64 * 8, np.uint8)
    packed = np.packbits(mask, bitorder="little")
    out[: len(packed)] = packed
    return out.view(np.uint64)


@compiled
def add_ranges(cells: NDArray[np.uint16], ranges: NDArray[np.int64], words: NDArray[np.uint64]) -> None:
    """Add the rows whose cell lies in one of ``ranges``, int64 (r, 2), both ends inside, by looking at every row."""
    rows, cell_at = cells.shape[0], cells.ctypes.data
    whole = rows >> 6
    for each in range(ranges.shape[0]):
        low, width = ranges[each, 0], ranges[each, 1] - ranges[each, 0]
        for i in range(whole):
            words[i] |= _in_range(cell_at + 128 * i, low, width)
    for row in range(whole << 6, rows):
        for each in range(ranges.shape[0]):
            if ranges[each, 0] <= cells[row] <= ranges[each, 1]:
                words[row >> 6] |= np.uint64(1) << np.uint64(row & 63)


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
def add_listed(
    cells: NDArray[np.uint16], order: NDArray[np.uint16], ranges: NDArray[np.int64], words: NDArray[np.uint64]
) -> None:
    """Add the same rows as :func:`add_ranges`, found in ``order``, which sorts the cells of each block of rows."""
    for first in range(0, cells.shape[0], BLOCK_ROWS):
        block, inside = cells[first : first + BLOCK_ROWS], order[first : first + BLOCK_ROWS]
        for each in range(ranges.shape[0]):
            start, stop = _first_of(inside, block, ranges[each, 0]), _first_of(inside, block, ranges[each, 1] + 1)
            for i in range(start, stop):
                row = first + np.int64(inside[i])
                words[row >> 6] |= np.uint64(1) << np.uint64(row & 63)


@compiled
def add_rows(rows: NDArray[np.uint32], words: NDArray[np.uint64]) -> None:
    """Add rows by their numbers."""
    for row in rows:
        words[row >> 6] |= np.uint64(1) << np.uint64(row & 63)


@compiled
def count_between(words: NDArray[np.uint64], start: int, stop: int) -> int:
    """How many of the rows from ``start`` to before ``stop`` are in."""
    if start >= stop:
        return 0
    first, last = start >> 6, (stop - 1) >> 6
    lowest = ~np.uint64(0) << np.uint64(start & 63)
    highest = ~np.uint64(0) >> np.uint64(63 - ((stop - 1) & 63))
    if first == last:
        return int(_popcount(words[first] & lowest & highest))
    total = _popcount(words[first] & lowest) + _popcount(words[last] & highest)
    for i in range(first + 1, last):
        total += _popcount(words[i])
    return int(total)


@compiled
def count(words: NDArray[np.uint64]) -> int:
    """How many rows are in."""
    total = 0
    for word in words:
        total += _popcount(word)
    return total


@compiled
def rows_of(words: NDArray[np.uint64], of: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """``of[i]`` for each row i that is in, ascending as ``of`` is; the rows' own numbers where that is empty."""
    out, size = np.empty(count(words), np.uint32), 0
    for i in range(words.shape[0]):
        word = words[i]
        while word != 0:
            row = (i << 6) + trailing_zeros(word)
            out[size] = of[row] if of.shape[0] > 0 else row
            size += 1
            word &= word - np.uint64(1)
    return out


@compiled
def at(words: NDArray[np.uint64], rows: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """A bitmap over ``rows``: bit i says whether rows[i] is in."""
    out = np.zeros((rows.shape[0] + 63) >> 6, np.uint64)
    for i in range(rows.shape[0]):
        row = np.int64(rows[i])
        bit = (words[row >> 6] >> np.uint64(row & 63)) & np.uint64(1)
        out[i >> 6] |= bit << np.uint64(i & 63)
    return out


@compiled
def listed(cells: NDArray[np.uint16], order: NDArray[np.uint16], ranges: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The rows that :func:`add_listed` adds, one after another."""
    found, size = np.empty(cells.shape[0], np.uint32), 0
    for first in range(0, cells.shape[0], BLOCK_ROWS):
        block, inside = cells[first : first + BLOCK_ROWS], order[first : first + BLOCK_ROWS]
        for each in range(ranges.shape[0]):
            start, stop = _first_of(inside, block, ranges[each, 0]), _first_of(inside, block, ranges[each, 1] + 1)
            for i in range(start, stop):
                found[size] = first + np.int64(inside[i])
                size += 1
    return found[:size].copy()
