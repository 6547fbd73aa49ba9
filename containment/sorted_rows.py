"""Row hashes in order: sorting, removing repeats, and finding the rows of one array in another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from .mixing import Lanes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["concatenate", "count_found", "distinct", "total", "within"]

CACHED_ROWS: Final = 1 << 16
KEYED_ROWS: Final = 1 << 10
"""Below so many rows, sorting positions costs less than what speeds it up."""


def concatenate(parts: Sequence[Lanes]) -> Lanes:
    """The rows of all parts, one after the other; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Lanes(np.empty(0, np.uint64), np.empty(0, np.uint64))
    return Lanes(np.concatenate([p.lo for p in parts]), np.concatenate([p.hi for p in parts]))


def distinct(rows: Lanes) -> Lanes:
    """The rows without repeats, ascending by (lo, hi)."""
    ordered = _by_low_lane(rows)
    lo, hi = ordered.lo, ordered.hi
    same = lo[1:] == lo[:-1]
    if not same.any():
        return ordered
    repeats = same & (hi[1:] == hi[:-1])
    if np.count_nonzero(repeats) != np.count_nonzero(same):  # different rows share a low lane: sort by both lanes
        order = np.lexsort((rows.hi, rows.lo))
        lo, hi = rows.lo.take(order), rows.hi.take(order)
        repeats = (lo[1:] == lo[:-1]) & (hi[1:] == hi[:-1])
    keep = np.concatenate([[True], ~repeats])
    return Lanes(lo[keep], hi[keep])


def _by_low_lane(rows: Lanes) -> Lanes:
    """A copy of the rows, ascending by the low lane."""
    if len(rows) <= CACHED_ROWS:
        return rows.take(_order(rows.lo))
    # First by the highest byte, in linear time, so that every part then sorts within the cache.
    top = (rows.lo >> np.uint64(56)).astype(np.uint8)
    rows = rows.take(top.argsort(kind="stable"))
    start = 0
    for stop in np.bincount(top, minlength=256).cumsum().tolist():
        part = rows.slice(start, stop)
        order = _order(part.lo)
        part.lo[:], part.hi[:] = part.lo.take(order), part.hi.take(order)
        start = stop
    return rows


def stable_order(lo: NDArray[np.uint64]) -> NDArray[np.intp]:
    """The positions that put ``lo`` in ascending order, equal words in the order in which they come."""
    return _order(lo, "stable")


def _order(lo: NDArray[np.uint64], kind: Literal["quicksort", "stable"] = "quicksort") -> NDArray[np.intp]:
    """The positions that put ``lo`` in ascending order."""
    if len(lo) < KEYED_ROWS:
        return lo.argsort(kind=kind)
    # NumPy sorts words four times as fast as their positions: let each word carry its position in its lowest bits.
    bits = np.uint64(len(lo).bit_length())
    keys = (lo >> bits << bits) | np.arange(len(lo), dtype=np.uint64)
    keys.sort()
    order = (keys & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.intp)
    ordered = lo.take(order)
    return lo.argsort(kind=kind) if (ordered[1:] < ordered[:-1]).any() else order


def within(rows: Lanes, low: int, high: int) -> Lanes:
    """The part of ascending ``rows`` whose low lane is at least ``low`` and at most ``high``, sharing memory."""
    start = int(rows.lo.searchsorted(np.uint64(low), side="left"))
    return rows.slice(start, int(rows.lo.searchsorted(np.uint64(high), side="right")))


def count_found(child: Lanes, parent: Lanes) -> int:
    """How many rows of ``child`` are in ``parent``, both ascending and without repeats."""
    if not len(parent):
        return 0
    at = parent.lo.searchsorted(child.lo)
    same = parent.lo.take(at, mode="clip") == child.lo
    equal = same & (parent.hi.take(at, mode="clip") == child.hi)
    found, matched = int(np.count_nonzero(equal)), int(np.count_nonzero(same))
    if found == matched:
        return found
    # Rows that share a low lane and differ in the high one: the first of the parent's need not be the right one.
    for row in np.flatnonzero(same & ~equal):
        stop = int(parent.lo.searchsorted(child.lo[row], side="right"))
        found += bool((parent.hi[at[row] : stop] == child.hi[row]).any())
    return found


def total(words: NDArray[np.uint64]) -> int:
    """The exact sum of fewer than 2**32 words."""
    low = int((words & np.uint64(0xFFFF_FFFF)).sum())
    return (int((words >> np.uint64(32)).sum()) << 32) + low
