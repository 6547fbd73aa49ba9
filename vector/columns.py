"""Attributes of a segment: each value as the number of its cell, and the rows in the order of their cells.

A cell holds one value if there are few enough, and else neighbouring values of about equally many rows; then the rows
of the two cells that an interval cuts are compared by their own values. Two bytes a row say its cell, and two more, for
each block of rows, which rows a cell has: a condition looks at all cells, 28 µs for a million rows, or where few rows
match, at these alone. It is SQUASH's attribute index (arXiv 2502.01528, section 3) with its false positives taken out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .bitmaps import no_rows, of_mask
from .cells import NULL_CELL, add_cells, add_within, ordered, populations, within_among
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
CELL_ROWS: Final = 1_024
"""Rows of a cell with several values, in the mean."""


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

    The arrays are those of :mod:`.cells`; ``texts`` are what the keys are ranks of, if the values are texts.
    """

    kind: pa.DataType
    cells: NDArray[np.uint16]
    order: NDArray[np.uint16]
    population: NDArray[np.uint32]
    bottoms: NDArray[np.int64]
    tops: NDArray[np.int64]
    keys: NDArray[np.int64]
    texts: Texts | None

    def within(self, intervals: Intervals, among: NDArray[np.uint32] | None) -> NDArray[np.uint64]:
        """The rows whose value lies in the intervals: a bitmap over all rows, or over those in ``among``."""
        if self.texts is not None:
            intervals = ranks(intervals, self.texts)
        bounds = np.array([(low, high - 1) for low, high in intervals], np.int64).reshape(-1, 2)
        if among is not None:
            return within_among(self.cells, self.bottoms, self.keys, bounds, among)
        words = no_rows(len(self.cells))
        add_within(self.cells, self.order, self.population, self.bottoms, self.tops, self.keys, bounds, words)
        return words

    def null(self, wanted: bool, among: NDArray[np.uint32] | None) -> NDArray[np.uint64]:
        """The rows whose value is NULL; is not, if not ``wanted``."""
        if among is not None:
            return of_mask((self.cells[among] == NULL_CELL) == wanted)
        words = no_rows(len(self.cells))
        low, high = (NULL_CELL, NULL_CELL) if wanted else (NULL_CELL + 1, len(self.bottoms))
        add_cells(self.cells, self.order, self.population, low, high, words)
        return words

    def holds(
        self, texts: tuple[str, ...], every: bool, denied: bool, among: NDArray[np.uint32] | None
    ) -> NDArray[np.uint64]:
        """Lists alone hold texts: conditions on other attributes do not come here."""
        raise TypeError(f"an attribute of type {self.kind} holds no texts")

    def taken(self, rows: NDArray[np.int64]) -> pa.Array:
        """The values of rows, in the column's type."""
        cells = self.cells[rows]
        valid = cells != NULL_CELL
        keys = self.keys[rows] if len(self.keys) else np.append(self.bottoms, 0)[cells.astype(np.int64) - 1]
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
        kept = keys
    cells = np.zeros(count, np.uint16)
    cells[valid] = of_key[place] + 1
    return CellColumn(kind, cells, ordered(cells), populations(cells, len(bottoms)), bottoms, tops, kept, texts)
