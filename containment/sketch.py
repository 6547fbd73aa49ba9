"""The distinct values of one column as hashes: all of them while they are few, a sample by hash when they are many.

The sample keeps the hashes up to a threshold, so two samples agree on which values they would hold: a child hash at
or below the parent's threshold that the parent does not hold is proof of a missing value. (KMV sketches; Beyer et
al., SIGMOD 2007.) Hashes of equal values are equal, so what a sketch refutes is refuted for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ValueSet", "ValueSetBuilder", "missing_values"]

_WHOLE: Final = np.uint64(2**64 - 1)
VALUES: Final = 65_536
"""Hashes that one column's sketch may hold: 512 KiB."""


@dataclass(frozen=True, slots=True)
class ValueSet:
    """``hashes``: uint64, ascending, distinct, complete up to ``threshold``, the greatest uint64 for all values."""

    hashes: NDArray[np.uint64]
    threshold: np.uint64

    @property
    def whole(self) -> bool:
        """Whether every value of the column is here."""
        return bool(self.threshold == _WHOLE)

    @property
    def distinct(self) -> float:
        """Distinct values, NULL included: exact when whole, else estimated."""
        if self.whole:
            return float(len(self.hashes))
        return len(self.hashes) / max(float(self.threshold) / 2.0**64, 2.0**-64)


class ValueSetBuilder:
    """Collects the hashes of one column, batch by batch, in bounded memory. Not thread-safe."""

    __slots__ = ("_capacity", "_hashes", "_threshold")

    def __init__(self, capacity: int = VALUES) -> None:
        self._capacity = capacity
        self._hashes: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._threshold = _WHOLE

    def add(self, hashes: NDArray[np.uint64]) -> None:
        """Note the values of one batch: uint64, any order, repeats allowed; not changed."""
        if self._threshold != _WHOLE:
            hashes = hashes[hashes <= self._threshold]
        if not len(hashes):
            return
        merged = np.sort(np.concatenate([self._hashes, hashes]))
        fresh = np.empty(len(merged), dtype=np.bool_)
        fresh[0] = True
        np.not_equal(merged[1:], merged[:-1], out=fresh[1:])
        merged = merged[fresh]
        if len(merged) > self._capacity:
            # Half full leaves room, so that the sketch shrinks rarely.
            self._threshold = merged[self._capacity // 2 - 1]
            merged = merged[: self._capacity // 2].copy()
        self._hashes = merged

    def build(self) -> ValueSet:
        """What was collected."""
        return ValueSet(self._hashes, self._threshold)


def missing_values(child: ValueSet, parent: ValueSet) -> int:
    """Child values that the parent provably lacks: a lower bound, exact when both are whole."""
    if not len(child.hashes):
        return 0
    known = child.hashes
    if not parent.whole:
        known = known[: np.searchsorted(known, parent.threshold, side="right")]
        if not len(known):
            return 0
    if not len(parent.hashes):
        return len(known)
    at = np.searchsorted(parent.hashes, known)
    np.minimum(at, len(parent.hashes) - 1, out=at)
    return int(np.count_nonzero(parent.hashes[at] != known))
