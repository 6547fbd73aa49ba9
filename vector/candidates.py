"""The kernels' small ordered sets: candidates by estimate, and the k nearest by distance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lake.kernels import compiled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["keep_least", "offer"]


@compiled
def keep_least(estimates: NDArray[np.float32], places: NDArray[np.uint32], count: int, keep: int) -> np.float32:
    """Move the ``keep`` least of the first ``count`` estimates to the front, their places with them; the greatest kept.

    Hoare's selection; both arrays are mutated. keep < count.
    """
    left, right = 0, count - 1
    while left < right:
        pivot = estimates[(left + right) >> 1]
        i, j = left, right
        while i <= j:
            while estimates[i] < pivot:
                i += 1
            while pivot < estimates[j]:
                j -= 1
            if i <= j:
                estimates[i], estimates[j] = estimates[j], estimates[i]
                places[i], places[j] = places[j], places[i]
                i += 1
                j -= 1
        if keep - 1 <= j:
            right = j
        elif keep - 1 >= i:
            left = i
        else:
            break
    greatest: np.float32 = estimates[0]
    for i in range(1, keep):
        greatest = max(greatest, estimates[i])
    return greatest


@compiled
def offer(
    best_ids: NDArray[np.int64], best_distances: NDArray[np.float32], row: np.int64, distance: np.float32
) -> None:
    """Take a row among the k nearest, both arrays (k,) ascending by (distance, id), if it belongs there and is new.

    Both are mutated. Places not taken hold the id -1 at the distance inf. Equal distances go by id, so that the k
    nearest are the same in whatever order rows are met.
    """
    k = best_ids.shape[0]
    last = best_distances[k - 1]
    if distance > last or (distance == last and best_ids[k - 1] >= 0 and row >= best_ids[k - 1]):
        return
    free = k - 1
    for i in range(k):
        if best_ids[i] == row:  # met before: a row may move from unit to unit during a search
            if best_distances[i] <= distance:
                return
            free = i
            break
    at = free
    while at > 0 and (
        distance < best_distances[at - 1]
        or (distance == best_distances[at - 1] and (best_ids[at - 1] < 0 or row < best_ids[at - 1]))
    ):
        at -= 1
    for i in range(free, at, -1):
        best_ids[i] = best_ids[i - 1]
        best_distances[i] = best_distances[i - 1]
    best_ids[at] = row
    best_distances[at] = distance
