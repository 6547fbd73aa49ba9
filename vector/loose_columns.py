"""Attributes of a delta's rows, in the order they came: few, so a condition looks at each.

Values are written behind the last row and become visible with it, as the delta's other arrays do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from .bitmaps import of_mask
from .keys import array_of, is_list, is_text, keys_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .intervals import Intervals

__all__ = ["LooseColumn", "LooseLists", "LooseTexts", "loose"]


class LooseColumn:
    """Numbers, moments or booleans, as keys: int64 and bool (capacity,)."""

    __slots__ = ("count", "keys", "kind", "valid")

    def __init__(self, kind: pa.DataType, capacity: int) -> None:
        self.kind, self.count = kind, 0
        self.keys, self.valid = np.zeros(capacity, np.int64), np.zeros(capacity, bool)

    def append(self, array: pa.Array) -> None:
        """Add values; visible to whoever reads :attr:`count` afterwards."""
        at = slice(self.count, self.count + len(array))
        self.keys[at], self.valid[at] = self._keys(array)
        self.count += len(array)

    def within(self, intervals: Intervals, among: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """The rows of ``among`` whose value lies in the intervals."""
        keys, mask = self.keys[among], np.zeros(len(among), bool)
        for low, high in intervals:
            mask |= (keys >= low) & (keys <= high - 1)
        return of_mask(mask & self.valid[among])

    def null(self, wanted: bool, among: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """The rows of ``among`` whose value is NULL; is not, if not ``wanted``."""
        return of_mask(self.valid[among] != wanted)

    def holds(self, texts: tuple[str, ...], every: bool, denied: bool, among: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Lists alone hold texts: conditions on other attributes do not come here."""
        raise TypeError(f"an attribute of type {self.kind} holds no texts")

    def taken(self, rows: NDArray[np.int64]) -> pa.Array:
        """The values of rows, in the column's type."""
        return array_of(self.keys[rows], self.valid[rows], self.kind)

    @property
    def index_bytes(self) -> int:
        """None beside the values."""
        return 0

    @property
    def value_bytes(self) -> int:
        """Bytes of the values."""
        return self.keys.nbytes + self.valid.nbytes

    def _keys(self, array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        return keys_of(array)


class LooseTexts(LooseColumn):
    """Texts, each kept once; a row's key is the number of its text in the order of their coming."""

    __slots__ = ("number", "texts")

    def __init__(self, kind: pa.DataType, capacity: int) -> None:
        super().__init__(kind, capacity)
        self.texts: list[str] = []
        self.number: dict[str, int] = {}

    def within(self, intervals: Intervals, among: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """The rows of ``among`` whose text lies in the intervals."""
        wanted = np.zeros(len(self.texts), bool)
        for low, high in intervals:
            if low[:2] == high[:2]:  # one text
                number = self.number.get(low[1])
                if number is not None and number < len(wanted):
                    wanted[number] = True
            else:
                for number, text in enumerate(self.texts[: len(wanted)]):
                    wanted[number] |= low <= (0, text, 0) and (0, text, 1) <= high
        valid = self.valid[among]
        mask = np.zeros(len(among), bool)
        mask[valid] = wanted[self.keys[among[valid]]]
        return of_mask(mask)

    def taken(self, rows: NDArray[np.int64]) -> pa.Array:
        """The texts of rows."""
        keys = pa.array(self.keys[rows], pa.int64(), mask=~self.valid[rows])
        return pa.array(self.texts, pa.large_string()).take(keys)

    @property
    def value_bytes(self) -> int:
        """Bytes of the values: a text takes about what Python does."""
        return super().value_bytes + sum(2 * len(text) + 150 for text in list(self.texts))

    def _keys(self, array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        keys = np.zeros(len(array), np.int64)
        for row, text in enumerate(array.to_pylist()):
            if text is not None:
                number = self.number.get(text)
                if number is None:
                    number = len(self.texts)
                    self.texts.append(text)
                    self.number[text] = number
                keys[row] = number
        return keys, np.asarray(array.is_valid())


class LooseLists:
    """Lists of texts, or None for NULL."""

    __slots__ = ("count", "kind", "lists")

    def __init__(self, kind: pa.DataType, capacity: int) -> None:
        self.kind, self.count = kind, 0
        self.lists: list[list[str | None] | None] = []

    def append(self, array: pa.Array) -> None:
        """Add lists; visible to whoever reads :attr:`count` afterwards."""
        self.lists.extend(array.to_pylist())
        self.count += len(array)

    def within(self, intervals: Intervals, among: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """Lists are not compared here: conditions that do are left to DuckDB."""
        raise TypeError("lists have no intervals")

    def null(self, wanted: bool, among: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """The rows of ``among`` whose list is NULL; is not, if not ``wanted``."""
        return of_mask(np.array([(self.lists[row] is None) == wanted for row in among.tolist()], bool))

    def holds(self, texts: tuple[str, ...], every: bool, denied: bool, among: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """The rows of ``among`` whose list holds every text, or any; or, if ``denied``, is not NULL and does not."""
        wanted, mask = set(texts), np.zeros(len(among), bool)
        for place, row in enumerate(among.tolist()):
            held = self.lists[row]
            if held is not None:
                found = wanted.issubset(held) if every else not wanted.isdisjoint(held)
                mask[place] = found != denied
        return of_mask(mask)

    def taken(self, rows: NDArray[np.int64]) -> pa.Array:
        """The lists of rows."""
        return pa.array([self.lists[row] for row in rows.tolist()], self.kind)

    @property
    def index_bytes(self) -> int:
        """None beside the values."""
        return 0

    @property
    def value_bytes(self) -> int:
        """Bytes of the values, about."""
        return sum(64 + 8 * len(held or ()) + sum(len(text or "") + 50 for text in held or ()) for held in self.lists)


def loose(kind: pa.DataType, capacity: int) -> LooseColumn | LooseLists:
    """An empty column of a delta."""
    if is_list(kind):
        return LooseLists(kind, capacity)
    return LooseTexts(kind, capacity) if is_text(kind) else LooseColumn(kind, capacity)
