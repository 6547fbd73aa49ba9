"""An attribute of a segment whose values are lists of texts: for each text, the rows whose list holds it."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .bitmaps import add_rows, all_rows, at, no_rows, of_mask
from .texts import Texts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .intervals import Intervals

__all__ = ["ListColumn", "frozen_lists"]


@dataclass(frozen=True, slots=True, eq=False)
class ListColumn:
    """One attribute of a segment's rows.

    ``texts`` are the distinct ones; starts int64 (texts + 1,) bounds of each one's ``rows``, uint32, ascending and
    distinct. As they came: ends int64 (n + 1,) bounds of each row's ``codes``, uint32: its texts' ranks, the number of
    texts for a NULL in a list; valid uint64: rows whose list is not NULL.
    """

    kind: pa.DataType
    texts: Texts
    starts: NDArray[np.int64]
    rows: NDArray[np.uint32]
    ends: NDArray[np.int64]
    codes: NDArray[np.uint32]
    valid: NDArray[np.uint64]

    def within(self, intervals: Intervals, among: NDArray[np.uint32] | None) -> NDArray[np.uint64]:
        """Lists are not compared here: conditions that do are left to DuckDB."""
        raise TypeError("lists have no intervals")

    def null(self, wanted: bool, among: NDArray[np.uint32] | None) -> NDArray[np.uint64]:
        """The rows whose list is NULL; is not, if not ``wanted``."""
        words = self._null() if wanted else self.valid
        return words if among is None else at(words, among)

    def holds(
        self, texts: tuple[str, ...], every: bool, denied: bool, among: NDArray[np.uint32] | None
    ) -> NDArray[np.uint64]:
        """The rows whose list holds every text, or any; or, if ``denied``, is not NULL and does not."""
        count = len(self.ends) - 1
        words = self.valid.copy() if every else no_rows(count)
        for text in texts:
            rows = self._rows(text)
            if not every:
                add_rows(rows, words)
                continue
            own = no_rows(count)
            add_rows(rows, own)
            words &= own
        if denied:
            words = self.valid & ~words
        return words if among is None else at(words, among)

    def taken(self, rows: NDArray[np.int64]) -> pa.Array:
        """The lists of rows, in the column's type."""
        lengths = self.ends[rows + 1] - self.ends[rows]
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        at_code = np.arange(bounds[-1]) + np.repeat(self.ends[rows] - bounds[:-1], lengths)
        codes = self.codes[at_code].astype(np.int64)
        values = self.texts.array.take(pa.array(codes, pa.int64(), mask=codes == len(self.texts)))
        present = np.asarray(at(self.valid, rows.astype(np.uint32)).view(np.uint8))
        mask = np.unpackbits(present, count=len(rows), bitorder="little") == 0
        return pa.LargeListArray.from_arrays(pa.array(bounds), values, mask=pa.array(mask))

    @property
    def index_bytes(self) -> int:
        """Bytes of what conditions read."""
        return self.starts.nbytes + self.rows.nbytes + self.valid.nbytes

    @property
    def value_bytes(self) -> int:
        """Bytes of the values themselves."""
        return self.ends.nbytes + self.codes.nbytes + self.texts.nbytes

    def _null(self) -> NDArray[np.uint64]:
        return all_rows(len(self.ends) - 1) & ~self.valid

    def _rows(self, text: str) -> NDArray[np.uint32]:
        place = bisect_left(self.texts, text)
        if place == len(self.texts) or self.texts[place] != text:
            return self.rows[:0]
        return self.rows[self.starts[place] : self.starts[place + 1]]


def frozen_lists(array: pa.Array, kind: pa.DataType) -> ListColumn:
    """The column of an array of lists."""
    lengths = np.asarray(pc.list_value_length(array).fill_null(0)).astype(np.int64)
    values = pc.list_flatten(array)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    texts, rank = Texts.of(values.drop_null())
    codes = np.full(len(values), len(texts), np.uint32)
    codes[np.asarray(values.is_valid())] = rank
    row = np.repeat(np.arange(len(array), dtype=np.int64), lengths)
    pairs = np.unique((codes.astype(np.int64) << 32) | row)
    pairs = pairs[pairs < len(texts) << 32]
    starts = np.searchsorted(pairs, np.arange(len(texts) + 1, dtype=np.int64) << 32)
    valid = of_mask(np.asarray(array.is_valid()))
    return ListColumn(kind, texts, starts, (pairs & 0xFFFFFFFF).astype(np.uint32), ends, codes, valid)
