"""Short lists copied: their vectors once more, side by side and rounded to bytes.

A tenant's hundred vectors lie in a hundred places, and to fetch them takes three times what comparing them does. Bytes
that stand in a row come quickly and are nearly as good; the few best are ranked by their true distances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from ..lake.kernels import compiled
from .ascending import holds
from .candidates import keep_least
from .nodes import LANES, rounded_query
from .scoring import DIM, IDS, INNER, L2, LIVE, MEAN, METRIC, ROWS, VECTORS, rank
from .simd import dot, float_at, pointer, put_float, small_dot

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["copied", "copy_bytes", "nearest_copied"]

HEAD_BYTES: Final = 8
"""Two float32 before the coordinates: what a byte of them stands for, and the row's own part of its scores."""


def copy_bytes(dim: int) -> int:
    """What the copy of a vector takes."""
    return HEAD_BYTES + -(-dim // LANES) * LANES


@compiled
def _centred(table: NDArray[np.int64], vector: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Write a vector less the mean; under the inner product, whose queries need not lie about it, as it is."""
    mean = carray(pointer(table[MEAN]), table[DIM], np.float32)
    for i in range(table[DIM]):
        out[i] = vector[i] - mean[i] if table[METRIC] != INNER else vector[i]


@compiled
def copied(table: NDArray[np.int64], positions: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Copies of some of a unit's vectors: uint8 (n, copy_bytes)."""
    dim, metric = table[DIM], table[METRIC]
    padded = -(-dim // LANES) * LANES
    vectors = carray(pointer(table[VECTORS]), (table[ROWS], dim), np.float32)
    apart, words = np.empty(dim, np.float32), np.empty(padded, np.int16)
    out = np.empty((positions.shape[0], HEAD_BYTES + padded), np.uint8)
    for i in range(positions.shape[0]):
        _centred(table, vectors[positions[i]], apart)
        own, at = np.float32(0), out[i].ctypes.data
        if metric == L2:
            own = dot(apart.ctypes.data, apart.ctypes.data, dim)
        elif metric != INNER:
            own = np.float32(-2) * dot(apart.ctypes.data, table[MEAN], dim)
        put_float(at, rounded_query(apart, words))
        put_float(at + 4, own)
        for j in range(padded):
            out[i, HEAD_BYTES + j] = words[j]
    return out


@compiled
def nearest_copied(
    queries: NDArray[np.float32],
    table: NDArray[np.int64],
    positions: NDArray[np.uint32],
    removed: NDArray[np.uint32],
    copies: NDArray[np.uint8],
    candidates: int,
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> None:
    """Offer to the k nearest of each query, (m, k), the rows of one list of which ``copies`` are at hand.

    ``positions`` less ``removed``, both ascending, less rows that are not live. ``candidates``, k at least, are ranked
    by their true distances.
    """
    width = copies.shape[1]
    ids, live = carray(pointer(table[IDS]), table[ROWS], np.int64), carray(pointer(table[LIVE]), table[ROWS], np.uint8)
    apart, words = np.empty(table[DIM], np.float32), np.empty(width - HEAD_BYTES, np.int16)
    estimates, places = np.empty(positions.shape[0], np.float32), np.empty(positions.shape[0], np.uint32)
    groups, word_at = words.shape[0] >> 5, words.ctypes.data
    for turn in range(queries.shape[0]):
        _centred(table, queries[turn], apart)
        unit, count, at = np.float32(2) * rounded_query(apart, words), 0, copies.ctypes.data
        for i in range(positions.shape[0]):
            if live[positions[i]] and not (removed.shape[0] > 0 and holds(removed, positions[i])):
                product = np.float32(small_dot(at + HEAD_BYTES, word_at, groups))
                estimates[count], places[count] = float_at(at + 4) - unit * float_at(at) * product, positions[i]
                count += 1
            at += width
        if count > candidates:
            keep_least(estimates, places, count, candidates)
            count = candidates
        rank(table, queries[turn].ctypes.data, places, count, ids, best_ids[turn], best_distances[turn])
