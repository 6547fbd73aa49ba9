"""Attributes of a segment: each value as the number of its cell, and the rows in the order of their cells.

A cell holds one value if there are few enough, and else neighbouring values of about equally many rows; then the rows
of the two cells that an interval cuts are compared by their own values. Two bytes a row say its cell, and two more, for
each block of rows, which rows a cell has: a condition looks at all cells, 24 µs for a million rows, or where few rows
match, at these alone. It is SQUASH's attribute index (arXiv 2502.01528, section 3) with its false positives taken out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .bitmaps import BLOCK_ROWS, add_listed, add_ranges, add_rows, listed, no_rows, of_mask
from .keys import array_of, is_text, keys_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .intervals import Intervals

__all__ = ["CellColumn", "Texts", "frozen_cells", "ranks"]

CELLS: Final = 65_535
"""Most cells of a column, beside that of NULL."""
FEW_VALUES: Final = 255
EXACT_ROWS: Final = 16
"""Every value has a cell of its own if there are few, or so many rows to one."""
CELL_ROWS: Final = 256
"""Rows of a cell with several values, in the mean."""
SCAN_NS: Final = 0.025
"""To look at a row's cell for one range,"""
LISTED_NS: Final = 0.8
"""to add one row by its number,"""
FIND_NS: Final = 250.0
"""and to find a range in the order of one block."""
NULL_CELL: Final = 0
GREATEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Distinct ascending texts, as they stand in a file: UTF-8 one after another, and int64 (n + 1,) bounds."""

    bounds: NDArray[np.int64]
    utf8: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, number: int) -> str:
        return self.utf8[self.bounds[number] : self.bounds[number + 1]].tobytes().decode()

    @property
    def array(self) -> pa.Array:
        """The texts as an Arrow array over the same bytes."""
        buffers = [None, pa.py_buffer(self.bounds), pa.py_buffer(self.utf8)]
        return pa.Array.from_buffers(pa.large_string(), len(self), buffers)

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.bounds.nbytes + self.utf8.nbytes

    @classmethod
    def of(cls, array: pa.Array) -> tuple[Texts, NDArray[np.int64]]:
        """The distinct texts of an array without NULLs, and the rank of each row's text, int64 (n,)."""
        coded = array.dictionary_encode()
        order = np.asarray(pc.sort_indices(coded.dictionary))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        ascending = coded.dictionary.take(pa.array(order))
        _, bounds, utf8 = pa.concat_arrays([pa.array([""], pa.large_string()), ascending]).slice(1).buffers()
        ends = np.frombuffer(bounds, np.int64)[1 : len(order) + 2].copy()
        held = np.frombuffer(utf8, np.uint8) if utf8 is not None else np.empty(0, np.uint8)
        return cls(ends, held[: ends[-1]].copy()), rank[np.asarray(coded.indices)]


def ranks(intervals: Intervals, texts: Sequence[str] | Texts) -> Intervals:
    """Intervals of texts as intervals of their ranks among ascending ones."""

    def rank(cut: tuple[int, str, int]) -> int:
        beyond, text, side = cut
        if beyond:
            return len(texts)
        return bisect_right(texts, text) if side else bisect_left(texts, text)

    return tuple((low, high) for low, high in ((rank(low), rank(high)) for low, high in intervals) if low < high)


@dataclass(frozen=True, slots=True, eq=False)
class CellColumn:
    """One attribute of a segment's rows.

    cells uint16 (n,), 0 for NULL; order uint16 (n,), see :mod:`.bitmaps`; population uint32 (cells + 2,): rows in the
    cells before each, and in all. bottoms, tops int64 (cells,): the least and greatest key in cell i + 1. keys (n,) of
    all rows, or none where each cell has one key. ``texts`` of which the keys are ranks, if the values are texts.
    """

    kind: pa.DataType
    cells: NDArray[np.uint16]
    order: NDArray[np.uint16]
    population: NDArray[np.uint32]
    bottoms: NDArray[np.int64]
    tops: NDArray[np.int64]
    keys: NDArray[Any]
    texts: Texts | None

    def within(self, intervals: Intervals, among: NDArray[np.uint32] | None) -> NDArray[np.uint64]:
        """The rows whose value lies in the intervals: a bitmap over all rows, or over those in ``among``."""
        if self.texts is not None:
            intervals = ranks(intervals, self.texts)
        ranges, cut = self._ranges(intervals)
        if among is None:
            words = self._found(ranges)
            if cut:
                rows = listed(self.cells, self.order, np.array([(cell, cell) for cell in cut], np.int64))
                add_rows(rows[_inside(self.keys[rows], intervals)], words)
            return words
        cells = self.cells[among]
        mask = _in_ranges(cells, ranges)
        if cut:
            unsure = np.flatnonzero(np.isin(cells, cut))
            mask[unsure] = _inside(self.keys[among[unsure]], intervals)
        return of_mask(mask)

    def null(self, wanted: bool, among: NDArray[np.uint32] | None) -> NDArray[np.uint64]:
        """The rows whose value is NULL; is not, if not ``wanted``."""
        if among is not None:
            return of_mask((self.cells[among] == NULL_CELL) == wanted)
        last = NULL_CELL if wanted else len(self.bottoms)
        return self._found(np.array([(NULL_CELL if wanted else 1, last)], np.int64)[: last + wanted])

    def holds(
        self, texts: tuple[str, ...], every: bool, denied: bool, among: NDArray[np.uint32] | None
    ) -> NDArray[np.uint64]:
        """Lists alone hold texts: conditions on other attributes do not come here."""
        raise TypeError(f"an attribute of type {self.kind} holds no texts")

    def taken(self, rows: NDArray[np.int64]) -> pa.Array:
        """The values of rows, in the column's type."""
        cells = self.cells[rows]
        valid = cells != NULL_CELL
        if len(self.keys):
            keys = self.keys[rows].astype(np.int64)
        else:
            keys = np.concatenate([np.zeros(1, np.int64), self.bottoms])[cells]
        if self.texts is not None:
            return self.texts.array.take(pa.array(keys, pa.int64(), mask=~valid))
        return array_of(np.where(valid, keys, np.int64(0)), valid, self.kind)

    @property
    def index_bytes(self) -> int:
        """Bytes of what conditions read: cells, their order and bounds."""
        bounds = 0 if not len(self.keys) else self.bottoms.nbytes + self.tops.nbytes
        return self.cells.nbytes + self.order.nbytes + self.population.nbytes + bounds

    @property
    def value_bytes(self) -> int:
        """Bytes of the values themselves."""
        own = self.keys.nbytes if len(self.keys) else self.bottoms.nbytes
        return own + (0 if self.texts is None else self.texts.nbytes)

    def _ranges(self, intervals: Intervals) -> tuple[NDArray[np.int64], list[int]]:
        """Ranges of cells that lie in the intervals, int64 (r, 2), both ends inside, and cells that these cut."""
        lows = np.array([low for low, _ in intervals], np.int64)
        highs = np.array([high - 1 for _, high in intervals], np.int64)
        first = np.searchsorted(self.bottoms, lows, "left")
        last = np.searchsorted(self.tops, highs, "right") - 1
        cut: set[int] = set()
        if len(self.keys):
            above, below = first - 1, last + 1
            into = (above >= 0) & (self.tops[np.maximum(above, 0)] >= lows)
            cut.update((above[into] + 1).tolist())
            over = (below < len(self.bottoms)) & (self.bottoms[np.minimum(below, len(self.bottoms) - 1)] <= highs)
            cut.update((below[over] + 1).tolist())
        inside = first <= last
        return np.stack([first[inside] + 1, last[inside] + 1], axis=1).astype(np.int64), sorted(cut)

    def _found(self, ranges: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The rows in ranges of cells."""
        words, count = no_rows(len(self.cells)), len(self.cells)
        if not len(ranges):
            return words
        rows = int((self.population[ranges[:, 1] + 1] - self.population[ranges[:, 0]]).sum(dtype=np.int64))
        if not rows:
            return words
        blocks = -(-count // BLOCK_ROWS)
        if rows * LISTED_NS + len(ranges) * blocks * FIND_NS < len(ranges) * count * SCAN_NS:
            add_listed(self.cells, self.order, ranges, words)
        else:
            add_ranges(self.cells, ranges, words)
        return words


def _inside(keys: NDArray[Any], intervals: Intervals) -> NDArray[np.bool_]:
    mask = np.zeros(len(keys), bool)
    for low, high in intervals:
        mask |= (keys >= low) & (keys <= high - 1)
    return mask


def _in_ranges(cells: NDArray[np.uint16], ranges: NDArray[np.int64]) -> NDArray[np.bool_]:
    mask = np.zeros(len(cells), bool)
    if len(ranges) > 4:
        wanted = np.zeros(CELLS + 1, bool)
        for low, high in ranges.tolist():
            wanted[low : high + 1] = True
        return wanted[cells]
    for low, high in ranges.tolist():
        mask |= (cells >= low) & (cells <= high)
    return mask


def frozen_cells(array: pa.Array, kind: pa.DataType) -> CellColumn:
    """The column of an array of numbers, moments, booleans or texts."""
    count, texts = len(array), None
    if is_text(kind):
        valid = np.asarray(array.is_valid())
        texts, rank = Texts.of(array.drop_null())
        keys = np.zeros(count, np.int64)
        keys[valid] = rank
    else:
        keys, valid = keys_of(array)
    distinct, place, rows = np.unique(keys[valid], return_inverse=True, return_counts=True)
    if len(distinct) <= min(max(FEW_VALUES, count // EXACT_ROWS), CELLS):
        of_key, bottoms, tops, kept = np.arange(len(distinct)), distinct, distinct, np.empty(0, np.int64)
    else:
        wanted = min(CELLS, max(count // CELL_ROWS, 1))
        cell = (np.cumsum(rows) - rows) * wanted // rows.sum()
        starts = np.flatnonzero(np.diff(cell, prepend=-1))
        of_key = np.cumsum(np.diff(cell, prepend=-1) > 0) - 1
        bottoms, tops = distinct[starts], distinct[np.append(starts[1:], len(distinct)) - 1]
        kept = keys.astype(np.int32 if _narrow(keys) else np.int64)
    cells = np.zeros(count, np.uint16)
    cells[valid] = of_key[place] + 1
    return CellColumn(kind, cells, ordered(cells), populations(cells, len(bottoms)), bottoms, tops, kept, texts)


def _narrow(keys: NDArray[np.int64]) -> bool:
    return int(keys.min()) >= -(2**31) and int(keys.max()) < 2**31


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
