"""Attributes of a segment: few values as the numbers of their cells, with the rows in the order of these.

Two bytes a row say its cell, which has one value, and two more, for each block of rows, which rows a cell has: a
condition looks at all cells, 28 µs for a million rows, or where few rows match, at these alone. It is SQUASH's
attribute index (arXiv 2502.01528, section 3) without cells of several values: a column of many is a
:mod:`.rank_column`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from .bitmaps import no_rows, of_mask
from .cells import NULL_CELL, add_cells, add_within, ordered, populations, within_among
from .keys import array_of, is_text, keys_of
from .rank_column import RankColumn, ranked
from .texts import Texts, bounds_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .intervals import Intervals

__all__ = ["CellColumn", "frozen_column"]

CELLS: Final = 65_535
"""Most cells of a column, beside that of NULL."""
FEW_VALUES: Final = 255
EXACT_ROWS: Final = 16
"""Values have cells of their own if there are few, or so many rows to one."""


@dataclass(frozen=True, slots=True, eq=False)
class CellColumn:
    """One attribute of a segment's rows.

    The arrays are those of :mod:`.cells`; ``texts`` are what the values' keys are ranks of, if they are texts.
    """

    kind: pa.DataType
    cells: NDArray[np.uint16]
    order: NDArray[np.uint16]
    population: NDArray[np.uint32]
    values: NDArray[np.int64]
    texts: Texts | None

    def within(self, intervals: Intervals, among: NDArray[np.uint32] | None) -> NDArray[np.uint64]:
        """The rows whose value lies in the intervals: a bitmap over all rows, or over those in ``among``."""
        bounds = bounds_of(intervals, self.texts)
        if among is not None:
            return within_among(self.cells, self.values, bounds, among)
        words = no_rows(len(self.cells))
        add_within(self.cells, self.order, self.population, self.values, bounds, words)
        return words

    def null(self, wanted: bool, among: NDArray[np.uint32] | None) -> NDArray[np.uint64]:
        """The rows whose value is NULL; is not, if not ``wanted``."""
        if among is not None:
            return of_mask((self.cells[among] == NULL_CELL) == wanted)
        words = no_rows(len(self.cells))
        low, high = (NULL_CELL, NULL_CELL) if wanted else (NULL_CELL + 1, len(self.values))
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
        keys = np.append(self.values, 0)[cells.astype(np.int64) - 1]
        if self.texts is not None:
            return self.texts.array.take(pa.array(keys, pa.int64(), mask=~valid))
        return array_of(keys, valid, self.kind)

    @property
    def index_bytes(self) -> int:
        """Bytes of what conditions read: cells and their order."""
        return self.cells.nbytes + self.order.nbytes + self.population.nbytes

    @property
    def value_bytes(self) -> int:
        """Bytes of the values themselves."""
        return self.values.nbytes + (0 if self.texts is None else self.texts.nbytes)


def frozen_column(array: pa.Array, kind: pa.DataType) -> CellColumn | RankColumn:
    """The column of an array of numbers, moments, booleans or texts."""
    count, texts = len(array), None
    if is_text(kind):
        valid = np.asarray(array.is_valid())
        texts, rank = Texts.of(array.drop_null())
        keys = np.zeros(count, np.int64)
        keys[valid] = rank
    else:
        keys, valid = keys_of(array)
    rows = np.flatnonzero(valid)
    by_key = rows[np.argsort(keys[rows], kind="stable")]
    ascending = keys[by_key]
    new = np.concatenate([np.ones(min(len(rows), 1), bool), ascending[1:] != ascending[:-1]])
    values = ascending[new]
    if len(values) > min(max(FEW_VALUES, count // EXACT_ROWS), CELLS):
        return ranked(kind, keys, by_key, texts)
    cells = np.zeros(count, np.uint16)
    cells[by_key] = np.cumsum(new)
    return CellColumn(kind, cells, ordered(cells), populations(cells, len(values)), values, texts)
