"""Which rows of a unit fulfil a condition, as a bitmap: over all its rows, or over a few of them alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import pyarrow as pa

from ..lake.conversion import rows_without_columns
from ..lake.limits import VECTOR_MATCH_BYTES
from .bitmaps import all_rows, at, count, no_rows, of_mask, rows_of
from .bound import Both, Bound, Either, Holds, InKeys, IsNull, Judged
from .columns import CellColumn, frozen_column
from .kept_columns import KeptColumn
from .keys import is_list
from .list_columns import ListColumn, frozen_lists
from .loose_columns import LooseColumn, LooseLists
from .rank_column import RankColumn

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .postings import Posting

__all__ = ["Column", "Columns", "Kept", "Matches", "frozen", "matched", "matching", "table_of"]

Column: TypeAlias = CellColumn | RankColumn | ListColumn | LooseColumn | LooseLists | KeptColumn
Columns: TypeAlias = Mapping[str, Column]
"""The attributes of a unit's rows by name."""
NOT_PACKED: NDArray[np.uint8] = np.empty((0, 0), np.uint8)
OWN: NDArray[np.uint32] = np.empty(0, np.uint32)
"""For rows whose own numbers are wanted."""
FEW_SHARE: Final = 1 / 32
"""A list of no more than this share of a segment's rows is looked at by itself."""


def frozen(table: pa.Table) -> dict[str, Column]:
    """The columns of a segment whose rows have these values, in their order."""
    columns: dict[str, Column] = {}
    for field, values in zip(table.schema, table.columns, strict=True):
        array = values.combine_chunks()
        make = frozen_lists if is_list(field.type) else frozen_column
        columns[field.name] = make(array, field.type)
    return columns


def table_of(columns: Columns, rows: NDArray[np.int64]) -> pa.Table:
    """The values of rows, one column an attribute."""
    fields = [pa.field(name, column.kind) for name, column in columns.items()]
    if not fields:
        return rows_without_columns(len(rows), pa.schema([]))
    return pa.table([column.taken(rows) for column in columns.values()], schema=pa.schema(fields))


def matching(bound: Bound, columns: Columns, rows: int, among: NDArray[np.uint32] | None) -> NDArray[np.uint64]:
    """A bitmap over the ``rows`` rows of a unit that fulfil a condition; or if given, over those in ``among``.

    InvalidSQL where DuckDB judges and cannot.
    """
    if isinstance(bound, InKeys):
        return columns[bound.attribute].within(bound.intervals, among)  # type: ignore[arg-type]  # loose: among always
    if isinstance(bound, IsNull):
        return columns[bound.attribute].null(bound.wanted, among)  # type: ignore[arg-type]
    if isinstance(bound, Holds):
        column = columns[bound.attribute]
        return column.holds(bound.texts, bound.every, bound.denied, among)  # type: ignore[arg-type]
    size = rows if among is None else len(among)
    if isinstance(bound, Both | Either):
        parts = [matching(part, columns, rows, among) for part in bound.parts]
        if isinstance(bound, Both):
            return reduce(np.bitwise_and, parts) if parts else all_rows(size)
        return reduce(np.bitwise_or, parts) if parts else no_rows(size)
    wanted = np.arange(rows) if among is None else among.astype(np.int64)
    read = {name: columns[name] for name in bound.predicate.columns}
    mask = np.zeros(size, bool)
    mask[bound.predicate.matches(table_of(read, wanted))] = True
    return of_mask(mask)


class Matches:
    """The rows of a posting list that fulfil a condition and are live: exact.

    ``words`` is a bitmap over the list's base, ``added`` are positions beside the base; ``rows`` counts both.
    """

    __slots__ = ("_listed", "added", "base", "of_base", "records", "rows", "used", "words")

    def __init__(self, base: NDArray[np.uint32], words: NDArray[np.uint64], added: NDArray[np.uint32]) -> None:
        self.base, self.words, self.added = base, words, added
        self.of_base = count(words)
        self.rows = self.of_base + len(added)
        self._listed: NDArray[np.uint32] | None = None
        self.records, self.used = NOT_PACKED, False

    @property
    def listed(self) -> NDArray[np.uint32]:
        """The positions of those in the base, ascending."""
        if self._listed is None:
            every = len(self.base) > 0 and self.base[-1] == len(self.base) - 1  # ascending, so each is its own number
            self._listed = rows_of(self.words, OWN if every else self.base)
        return self._listed

    @property
    def nbytes(self) -> int:
        """Bytes that are kept for it, once its rows were listed."""
        return self.words.nbytes + self.added.nbytes + 4 * self.of_base


def matched(
    bound: Bound,
    columns: Columns,
    live: NDArray[np.uint8],
    posting: Posting,
    whole: NDArray[np.uint64] | None = None,
    all_live: bool = False,
) -> Matches:
    """The matches in a posting list; ``whole`` is the bitmap over all rows, if it is at hand."""
    base, added, removed = posting
    if isinstance(bound, Judged):
        return _judged(bound, columns, live, posting)
    if whole is None:
        words = matching(bound, columns, len(live), base)
    else:
        words = whole if len(base) == len(live) else at(whole, base)
    if len(removed) or not all_live:
        gone = live[base] == 0
        gone[np.searchsorted(base, removed)] = True
        words = words & ~of_mask(gone)
    if len(added):
        more = matching(bound, columns, len(live), added) if whole is None else at(whole, added)
        added = rows_of(more, added)
        added = added[live[added] > 0]
    return Matches(base, words, added)


def _judged(bound: Judged, columns: Columns, live: NDArray[np.uint8], posting: Posting) -> Matches:
    """The matches of a condition that DuckDB judges: over no row but those that can be seen, for one row may be an
    error, and who cannot see it must not be told.
    """
    base, added, removed = posting
    seen = live[base] > 0
    seen[np.searchsorted(base, removed)] = False
    seen_added = added[live[added] > 0]
    words = matching(bound, columns, len(live), np.concatenate([base[seen], seen_added]))
    found = rows_of(words, OWN)
    split = int(np.count_nonzero(seen))
    mask = np.zeros(len(base), bool)
    mask[np.flatnonzero(seen)[found[found < split]]] = True
    return Matches(base, of_mask(mask), seen_added[found[found >= split] - split])


class Kept:
    """What conditions found in one segment, kept for those that come again, as far as VECTOR_MATCH_BYTES goes.

    A condition is known again as the same object: :class:`.conditions.Conditions` gives it out.
    """

    __slots__ = ("_bytes", "_lists", "_whole", "columns")

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._whole: dict[int, tuple[Bound, NDArray[np.uint64]]] = {}
        self._lists: dict[tuple[object, int], tuple[Bound, Posting, int, Matches]] = {}
        self._bytes = 0

    def matches(
        self, selector: object, posting: Posting, bound: Bound, live: NDArray[np.uint8], deleted: int
    ) -> Matches:
        """The matches in the list of a selector, which must be the same object until it changes."""
        key = selector, id(bound)
        held = self._lists.get(key)
        if held is not None and held[0] is bound and held[1] is posting and held[2] == deleted:
            return held[3]
        few = len(posting.base) <= FEW_SHARE * len(live) or isinstance(bound, Judged)
        whole = None if few else self._all(bound, len(live))
        found = matched(bound, self.columns, live, posting, whole, all_live=deleted == 0)
        self._make_room(found.nbytes)
        self._lists[key] = bound, posting, deleted, found
        return found

    def records_of(self, matches: Matches, records: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The records of the matches in the base one after another, once they are asked for again; before, none."""
        if matches.used and not len(matches.records):
            self._make_room(matches.of_base * records.shape[1])
            matches.records = records[matches.listed]
        matches.used = True
        return matches.records

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return self._bytes

    def _all(self, bound: Bound, rows: int) -> NDArray[np.uint64]:
        held = self._whole.get(id(bound))
        if held is not None and held[0] is bound:
            return held[1]
        words = matching(bound, self.columns, rows, None)
        self._make_room(words.nbytes)
        self._whole[id(bound)] = bound, words
        return words

    def _make_room(self, nbytes: int) -> None:
        self._bytes += nbytes
        if self._bytes > VECTOR_MATCH_BYTES:
            self._whole, self._lists, self._bytes = {}, {}, nbytes
