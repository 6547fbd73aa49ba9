"""Rows by ranges of keys: from kept bitmaps of the rows below a few keys, the rows between toggled one by one.

Of a column of n rows, in blocks of ``block_rows``, a multiple of 64, are given: keys int64 (n,); order uint16 (n,), for
each block its rows ascending by key, those of NULL last; bottoms int64 (cells,), the least key of each cell; offsets
uint32 (cells + 1, blocks), where each cell begins in the order of each block, and where the last ends; edges int32
(m,), the cells that marks lie before; marks uint64 (m + 1, ceil(n / 64)), bitmaps of the rows before each, the last of
all rows that have a value. ``bounds`` int64 (r, 2) are intervals of keys, both ends inside, ascending and apart.

The rows of an interval are those up to its end without those before it, and XOR takes a set out of one that holds it.
So the marks that the ends of all intervals are reached from, and the rows between, are all toggled in one bitmap, in
any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled
from .cells import lies_in

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DIRECT", "add_between", "chosen", "places_of", "reached", "toggle", "within_among"]

LISTED_NS: Final = 0.5
"""To toggle one row by its number,"""
WORD_NS: Final = 0.4
"""and to toggle 64 rows by a bitmap."""
TOGETHER: Final = 64
"""Intervals that are looked for at once."""
DIRECT: Final = -1
"""In place of a mark: from the other end of the interval."""
LAST_KEY: Final = np.iinfo(np.int64).max


@compiled
def places_of(
    keys: NDArray[np.int64],
    order: NDArray[np.uint16],
    bottoms: NDArray[np.int64],
    offsets: NDArray[np.uint32],
    bounds: NDArray[np.int64],
    block_rows: int,
) -> NDArray[np.int64]:
    """How many rows of each block come before each interval, and how many up to its end: int64 (2 r, blocks)."""
    ends, blocks, cells = 2 * bounds.shape[0], offsets.shape[1], bottoms.shape[0]
    lefts, rights = np.empty((ends, blocks), np.int64), np.empty((ends, blocks), np.int64)
    for end in range(ends):
        key, up_to = bounds[end >> 1, end & 1], end & 1
        everything = up_to == 1 and key == LAST_KEY
        first, behind = 0, cells  # the first cell that begins behind the end
        while first < behind and not everything:
            middle = (first + behind) >> 1
            if bottoms[middle] < key + up_to:
                first = middle + 1
            else:
                behind = middle
        last = cells if everything else first
        whole = everything or last == 0 or (last < cells and bottoms[last] == key + up_to)
        for block in range(blocks):
            rights[end, block] = offsets[last, block]
            lefts[end, block] = offsets[last if whole else last - 1, block]
    going = True
    while going:  # one step of every search before the next of any, so that none waits for another's memory
        going = False
        for end in range(ends):
            key = bounds[end >> 1, end & 1] + (end & 1)
            for block in range(blocks):
                left, right = lefts[end, block], rights[end, block]
                if left < right:
                    middle = (left + right) >> 1
                    row = block * block_rows + np.int64(order[block * block_rows + middle])
                    before = keys[row] < key
                    lefts[end, block] = middle + 1 if before else left
                    rights[end, block] = right if before else middle
                    going = True
    return lefts


@compiled
def reached(offsets: NDArray[np.uint32], edges: NDArray[np.int32]) -> NDArray[np.int64]:
    """The rows of the set of none, of each mark, and of all that have a value: int64 (m + 2,)."""
    out = np.zeros(edges.shape[0] + 2, np.int64)
    for mark in range(1, out.shape[0]):
        cell = edges[mark - 1] if mark <= edges.shape[0] else offsets.shape[0] - 1
        for block in range(offsets.shape[1]):
            out[mark] += offsets[cell, block]
    return out


@compiled
def chosen(places: NDArray[np.int64], reach: NDArray[np.int64], words: int) -> NDArray[np.int64]:
    """For each end the cheapest set to come from, a number in ``reach``, or DIRECT for both of an interval."""
    out = np.empty(places.shape[0], np.int64)
    for interval in range(places.shape[0] >> 1):
        whole, from_marks, before = 0.0, 0.0, 0
        for end in (2 * interval, 2 * interval + 1):
            rows = 0
            for block in range(places.shape[1]):
                rows += places[end, block]
            least = rows * LISTED_NS
            out[end] = 0
            for mark in range(1, reach.shape[0]):
                cost = abs(rows - reach[mark]) * LISTED_NS + words * WORD_NS
                if cost < least:
                    least = cost
                    out[end] = mark
            from_marks += least
            whole, before = (rows - before) * LISTED_NS, rows
        if whole <= from_marks:
            out[2 * interval] = out[2 * interval + 1] = DIRECT
    return out


@compiled
def _toggle_words(one: NDArray[np.uint64], other: NDArray[np.uint64], words: NDArray[np.uint64]) -> None:
    for i in range(words.shape[0]):
        words[i] ^= one[i] ^ other[i]


@compiled
def _toggle_rows(rows: NDArray[np.uint16], words: NDArray[np.uint64]) -> None:
    for row in rows:
        words[row >> 6] ^= np.uint64(1) << np.uint64(row & 63)


@compiled
def toggle(
    order: NDArray[np.uint16],
    offsets: NDArray[np.uint32],
    edges: NDArray[np.int32],
    marks: NDArray[np.uint64],
    places: NDArray[np.int64],
    through: NDArray[np.int64],
    block_rows: int,
    words: NDArray[np.uint64],
) -> None:
    """Toggle the rows of intervals whose ends have these ``places``, each end reached ``through`` a set or DIRECT."""
    odd = np.zeros(marks.shape[0] + 1, np.bool_)  # a mark that two ends come from goes out again
    for mark in through:
        if mark > 0:
            odd[mark] = not odd[mark]
    used, none = np.flatnonzero(odd) - 1, np.zeros(block_rows >> 6, np.uint64)
    for block in range(offsets.shape[1]):
        first, behind = block * (block_rows >> 6), (block + 1) * (block_rows >> 6)
        inside = words[first:behind]  # stays in the nearest cache while all is toggled
        for i in range(0, used.shape[0], 2):  # two are read in little more time than one
            other = marks[used[i + 1], first:behind] if i + 1 < used.shape[0] else none
            _toggle_words(marks[used[i], first:behind], other, inside)
        rows = order[block * block_rows : (block + 1) * block_rows]
        for end in range(places.shape[0]):
            mark, start = through[end], places[end, block]
            if mark == DIRECT:
                stop = places[end + 1, block] if end & 1 == 0 else start
            elif mark == 0:
                stop = 0
            else:
                stop = np.int64(offsets[edges[mark - 1] if mark <= edges.shape[0] else offsets.shape[0] - 1, block])
            _toggle_rows(rows[min(start, stop) : max(start, stop)], inside)


@compiled
def add_between(
    keys: NDArray[np.int64],
    order: NDArray[np.uint16],
    bottoms: NDArray[np.int64],
    offsets: NDArray[np.uint32],
    edges: NDArray[np.int32],
    marks: NDArray[np.uint64],
    bounds: NDArray[np.int64],
    block_rows: int,
    words: NDArray[np.uint64],
) -> None:
    """Add the rows whose key lies in one of the intervals to ``words``, which have none."""
    reach = reached(offsets, edges)
    for first in range(0, bounds.shape[0], TOGETHER):
        places = places_of(keys, order, bottoms, offsets, bounds[first : first + TOGETHER], block_rows)
        through = chosen(places, reach, words.shape[0])
        toggle(order, offsets, edges, marks, places, through, block_rows, words)


@compiled
def within_among(
    keys: NDArray[np.int64], valid: NDArray[np.uint64], bounds: NDArray[np.int64], among: NDArray[np.uint32]
) -> NDArray[np.uint64]:
    """A bitmap over ``among``: of these rows, those that are ``valid`` and whose key lies in one of the intervals."""
    words = np.zeros((among.shape[0] + 63) >> 6, np.uint64)
    for i in range(among.shape[0]):
        row = np.int64(among[i])
        if (valid[row >> 6] >> np.uint64(row & 63)) & np.uint64(1) == 0:
            continue
        if lies_in(bounds, keys[row]):
            words[i >> 6] |= np.uint64(1) << np.uint64(i & 63)
    return words
