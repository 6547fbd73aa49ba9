"""Posting lists: which rows of a unit each tenant may see, exactly, as sorted positions.

A list is a base, a few positions added since and a few removed, three immutable ascending arrays in a tuple that is
replaced as a whole: a reader that took it goes on with what it was.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..lake.kernels import compiled
from .ascending import difference, holds, union

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["NONE", "FrozenPostings", "GrowingPostings", "Posting", "by_code", "count_live", "folded"]

NONE: NDArray[np.uint32] = np.empty(0, np.uint32)
FOLD_ROWS = 256
"""A list of a segment is folded once it has more revisions than this"""
FOLD_SHARE = 64
"""and one for so many rows of its base."""


class Posting(NamedTuple):
    """One tenant's rows in one unit: ``base`` less ``removed``, which is a part of it, and ``added``, which is not.

    All uint32, ascending and distinct. Rows that were deleted since may still stand in it.
    """

    base: NDArray[np.uint32]
    added: NDArray[np.uint32] = NONE
    removed: NDArray[np.uint32] = NONE

    @property
    def rows(self) -> int:
        """How many rows it names."""
        return len(self.base) + len(self.added) - len(self.removed)


@compiled
def _granted(
    base: NDArray[np.uint32], added: NDArray[np.uint32], removed: NDArray[np.uint32], positions: NDArray[np.uint32]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """``added`` and ``removed`` once the ascending ``positions`` are granted."""
    fresh = np.empty(positions.shape[0], np.uint32)
    count, taken_back = 0, 0
    for position in positions:
        if holds(base, position):
            taken_back += 1
        elif not holds(added, position):
            fresh[count] = position
            count += 1
    left = removed if taken_back == 0 or removed.shape[0] == 0 else difference(removed, positions)
    return (added if count == 0 else union(added, fresh[:count])), left


@compiled
def _revoked(
    base: NDArray[np.uint32], added: NDArray[np.uint32], removed: NDArray[np.uint32], positions: NDArray[np.uint32]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """``added`` and ``removed`` once the ascending ``positions`` are revoked."""
    gone = np.empty(positions.shape[0], np.uint32)
    count, from_added = 0, 0
    for position in positions:
        if holds(added, position):
            from_added += 1
        elif holds(base, position) and not holds(removed, position):
            gone[count] = position
            count += 1
    left = added if from_added == 0 else difference(added, positions)
    return left, (removed if count == 0 else union(removed, gone[:count]))


@compiled
def count_live(positions: NDArray[np.uint32], live: NDArray[np.uint8]) -> int:
    """How many of ``positions`` are live."""
    count = 0
    for position in positions:
        count += live[position]
    return count


def folded(posting: Posting) -> NDArray[np.uint32]:
    """The positions of a list in one ascending array."""
    base = difference(posting.base, posting.removed) if len(posting.removed) else posting.base
    return union(base, posting.added) if len(posting.added) else base


def by_code(codes: NDArray[np.int32], places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Lists from pairs of code and position: offsets int64 (codes + 1,) and positions uint32, ascending a code."""
    keys = np.sort((codes.astype(np.int64) << 32) | places)
    most = int(keys[-1] >> 32) + 1 if len(keys) else 0
    bounds = np.searchsorted(keys, np.arange(most + 1, dtype=np.int64) << 32)
    return bounds, (keys & 0xFFFFFFFF).astype(np.uint32)


class _Postings(ABC):
    """Lists by code, changed by one writer at a time while readers read."""

    __slots__ = ("_lists",)

    def __init__(self) -> None:
        self._lists: dict[int, Posting] = {}

    @abstractmethod
    def base(self, code: int) -> NDArray[np.uint32]:
        """The list as it came, without revisions."""

    @abstractmethod
    def codes(self) -> Iterator[int]:
        """Every code that may have rows here."""

    def get(self, code: int) -> Posting:
        """The list of a code, empty if it has none."""
        found = self._lists.get(code)
        return found if found is not None else Posting(self.base(code))

    def grant(self, code: int, positions: NDArray[np.uint32]) -> None:
        """Add ascending ``positions`` to a list; those that stand in it are passed over."""
        posting = self.get(code)
        added, removed = _granted(posting.base, posting.added, posting.removed, positions)
        self._put(code, Posting(posting.base, added, removed))

    def revoke(self, code: int, positions: NDArray[np.uint32]) -> None:
        """Take ascending ``positions`` from a list; those that do not stand in it are passed over."""
        posting = self.get(code)
        added, removed = _revoked(posting.base, posting.added, posting.removed, positions)
        self._put(code, Posting(posting.base, added, removed))

    def _put(self, code: int, posting: Posting) -> None:
        self._lists[code] = posting


class FrozenPostings(_Postings):
    """The lists of a segment: one array for all, with revisions beside it."""

    __slots__ = ("_views", "offsets", "positions")

    def __init__(self, offsets: NDArray[np.int64], positions: NDArray[np.uint32]) -> None:
        super().__init__()
        self.offsets, self.positions = offsets, positions
        self._views: dict[int, Posting] = {}

    def base(self, code: int) -> NDArray[np.uint32]:
        """The list as it was made."""
        if code + 1 >= len(self.offsets):
            return NONE
        return self.positions[self.offsets[code] : self.offsets[code + 1]]

    def length(self, code: int) -> int:
        """The rows of a list as it was made."""
        return int(self.offsets[code + 1] - self.offsets[code]) if code + 1 < len(self.offsets) else 0

    def get(self, code: int) -> Posting:
        """The list of a code, empty if it has none; the same object until the list changes."""
        found = self._lists.get(code) or self._views.get(code)
        if found is None:
            found = self._views[code] = Posting(self.base(code))
        return found

    def recoded(self, codes: list[int]) -> FrozenPostings:
        """These lists, none of which was revised, each under the code that stands at its own in ``codes``."""
        count = max(codes, default=-1) + 1
        lengths = np.zeros(count, np.int64)
        of = dict(zip(codes, range(len(codes)), strict=True))
        parts = [self.base(of[code]) if code in of else NONE for code in range(count)]
        lengths[:] = [len(part) for part in parts]
        return FrozenPostings(
            np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), np.concatenate([NONE, *parts])
        )

    def codes(self) -> Iterator[int]:
        """Every code that may have rows here."""
        made = np.flatnonzero(np.diff(self.offsets)).tolist() if len(self.offsets) else []
        yield from dict.fromkeys([*made, *list(self._lists)])

    def replace(self, code: int, positions: NDArray[np.uint32]) -> None:
        """Make ``positions``, ascending, the whole list."""
        self._lists[code] = Posting(positions)

    def _put(self, code: int, posting: Posting) -> None:
        if len(posting.added) + len(posting.removed) > FOLD_ROWS + len(posting.base) // FOLD_SHARE:
            posting = Posting(folded(posting))
        self._lists[code] = posting

    @property
    def nbytes(self) -> int:
        """Bytes of all lists."""
        revised = sum(
            part.nbytes
            for posting in list(self._lists.values())
            for part in posting
            if not np.may_share_memory(part, self.positions)
        )
        return self.offsets.nbytes + self.positions.nbytes + revised


class _GrowingList:
    """Positions that only ever grow at the end: a reader's view of the first ``count`` stays true."""

    __slots__ = ("array", "count")

    def __init__(self) -> None:
        self.array, self.count = np.empty(8, np.uint32), 0

    def extend(self, positions: NDArray[np.uint32]) -> None:
        end = self.count + len(positions)
        if end > len(self.array):
            grown = np.empty(max(end, 2 * len(self.array)), np.uint32)
            grown[: self.count] = self.array[: self.count]
            self.array = grown
        self.array[self.count : end] = positions
        self.count = end

    def append(self, position: int) -> None:
        count = self.count
        if count == len(self.array):
            self.extend(np.array([position], np.uint32))
            return
        self.array[count] = position
        self.count = count + 1

    def view(self) -> NDArray[np.uint32]:
        count = self.count  # before the array: whichever array follows holds that many
        return self.array[:count]


class GrowingPostings(_Postings):
    """The lists of a delta: rows come at the end, so that adding one row costs an append a tenant."""

    __slots__ = ("_grown",)

    def __init__(self) -> None:
        super().__init__()
        self._grown: dict[int, _GrowingList] = {}

    def base(self, code: int) -> NDArray[np.uint32]:
        """The rows that came with the label."""
        grown = self._grown.get(code)
        return NONE if grown is None else grown.view()

    def get(self, code: int) -> Posting:
        """The list of a code, empty if it has none."""
        revised = self._lists.get(code)
        base = self.base(code)
        return Posting(base) if revised is None else Posting(base, revised.added, revised.removed)

    def codes(self) -> Iterator[int]:
        """Every code that may have rows here."""
        yield from dict.fromkeys([*list(self._grown), *list(self._lists)])

    def append(self, code: int, position: int) -> None:
        """Add a row that stands behind all others."""
        grown = self._grown.get(code)
        if grown is None:
            grown = self._grown[code] = _GrowingList()
        grown.append(position)

    def extend(self, code: int, positions: NDArray[np.uint32]) -> None:
        """Add ascending rows that stand behind all others."""
        grown = self._grown.get(code)
        if grown is None:
            grown = self._grown[code] = _GrowingList()
        grown.extend(positions)

    @property
    def nbytes(self) -> int:
        """Bytes of all lists."""
        revised = sum(posting.added.nbytes + posting.removed.nbytes for posting in list(self._lists.values()))
        return revised + sum(grown.array.nbytes for grown in list(self._grown.values()))
