"""Sets of positions as ascending arrays: membership, union, intersection, difference.

All take and give uint32 (n,), ascending and distinct, and mutate nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..lake.kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["difference", "holds", "intersection", "union"]


@compiled
def holds(ascending: NDArray[np.uint32], value: np.uint32) -> bool:
    """Whether ``value`` stands in ``ascending``, uint32 (n,)."""
    left, right = 0, ascending.shape[0]
    while left < right:
        middle = (left + right) >> 1
        if ascending[middle] < value:
            left = middle + 1
        else:
            right = middle
    return bool(left < ascending.shape[0] and ascending[left] == value)


@compiled
def union(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The values in one of two ascending arrays."""
    out = np.empty(left.shape[0] + right.shape[0], np.uint32)
    i, j, count = 0, 0, 0
    while i < left.shape[0] or j < right.shape[0]:
        if j == right.shape[0] or (i < left.shape[0] and left[i] < right[j]):
            out[count] = left[i]
            i += 1
        else:
            out[count] = right[j]
            if i < left.shape[0] and left[i] == right[j]:
                i += 1
            j += 1
        count += 1
    return out[:count].copy()


@compiled
def _matched(left: NDArray[np.uint32], right: NDArray[np.uint32], wanted: bool) -> NDArray[np.uint32]:
    out = np.empty(left.shape[0], np.uint32)
    j, count = 0, 0
    for value in left:
        while j < right.shape[0] and right[j] < value:
            j += 1
        if (j < right.shape[0] and right[j] == value) == wanted:
            out[count] = value
            count += 1
    return out[:count].copy()


@compiled
def intersection(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The values in both of two ascending arrays."""
    return _matched(left, right, True)


@compiled
def difference(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The values of an ascending array that another one lacks."""
    return _matched(left, right, False)
