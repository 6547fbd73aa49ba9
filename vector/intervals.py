"""Sets of values as intervals of an ordered domain: what a condition on one attribute leaves of its values.

An interval lies between two cuts, and a cut lies between two values. For numbers cut i lies just below i; for texts
the cuts about a text are tuples, so that "up to" and "below" differ. A set is a tuple of intervals that ascend and
neither meet nor touch, so equal sets are equal tuples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "NOTHING",
    "NUMBERS",
    "TEXTS",
    "Cut",
    "Intervals",
    "after",
    "before",
    "complement",
    "intersection",
    "union",
]

Cut: TypeAlias = Any
"""An int, or (0, text, 0 below or 1 above it) with (1, "", 0) above all texts; cuts of one domain compare."""
Intervals: TypeAlias = "tuple[tuple[Cut, Cut], ...]"

NOTHING: Final[Intervals] = ()
NUMBERS: Final[Intervals] = ((-(2**63), 2**63),)
"""Every int64."""
TEXTS: Final[Intervals] = (((0, "", 0), (1, "", 0)),)
"""Every text."""


def before(value: int | str) -> Cut:
    """The cut just below a value."""
    return (0, value, 0) if isinstance(value, str) else value


def after(value: int | str) -> Cut:
    """The cut just above a value."""
    return (0, value, 1) if isinstance(value, str) else value + 1


def union(parts: Iterable[tuple[Cut, Cut]]) -> Intervals:
    """What lies in any of the intervals, which may come in any order, meet, and be empty."""
    out: list[tuple[Cut, Cut]] = []
    for low, high in sorted(parts):
        if low >= high:
            continue
        if out and low <= out[-1][1]:
            out[-1] = out[-1][0], max(out[-1][1], high)
        else:
            out.append((low, high))
    return tuple(out)


def intersection(left: Intervals, right: Intervals) -> Intervals:
    """What lies in both."""
    out, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        low = max(left[i][0], right[j][0])
        high = min(left[i][1], right[j][1])
        if low < high:
            out.append((low, high))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return tuple(out)


def complement(intervals: Intervals, domain: Intervals) -> Intervals:
    """What lies in the domain, one interval, but in none of these."""
    ((first, last),) = domain
    cuts = [first, *(cut for interval in intervals for cut in interval), last]
    return tuple((low, high) for low, high in zip(cuts[::2], cuts[1::2], strict=True) if low < high)
