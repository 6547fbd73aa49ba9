"""The kernel that keeps a child's rows in its parent's order; :func:`.matching._in_order` is its plain form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..lake.kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["in_order"]


@compiled
def in_order(first: NDArray[np.int64], after: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each child row an index into ``order`` between ``first`` and ``after``: the first that leads behind the place
    that the row before took, else the first of all; -1 where there is none. ``order`` ascends between the two.
    """
    taken = np.empty(len(first), np.int64)
    last = np.int64(-1)
    for i in range(len(first)):
        low, high = first[i], after[i]
        if low == high:
            taken[i] = -1
            continue
        while low < high:
            middle = (low + high) // 2
            if order[middle] > last:
                high = middle
            else:
                low = middle + 1
        if low == after[i]:
            low = first[i]
        taken[i] = low
        last = order[low]
    return taken
