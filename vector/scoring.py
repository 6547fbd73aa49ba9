"""The search of one posting list: score codes, flat or best-first through its sub-tree, then rank by true distances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from ..lake.kernels import compiled, inlined
from .ascending import holds
from .best_first import chosen_rows
from .bitmaps import count as count_in
from .bitmaps import rows_of
from .candidates import keep_least, offer
from .codes import quantise
from .simd import dot, estimate, estimate_four, pointer, prefetch, squared, uint_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COSINE", "INNER", "L2", "estimate_ranks", "exact", "nearest", "rank"]

L2: Final = 0
INNER: Final = 1
COSINE: Final = 2
FIELDS: Final = 18
(VECTORS, RECORDS, IDS, LIVE, MEAN, SIGNS, SHIFTS, CODES, SCALE, BIAS) = range(10)
(ROWS, DIM, DIMS, BITS, BLOCKS, TURNS, NODES, METRIC) = range(10, FIELDS)
"""Of a unit's table: addresses of its arrays, then their sizes. A kernel takes one array in place of eighteen
arguments, each of which would cost a search 0.15 µs; the unit keeps the arrays alive."""
AHEAD_ROWS: Final = 48
"""Codes are fetched so many rows ahead of the one being scored,"""
AHEAD_VECTORS: Final = 4
"""and vectors so many."""


@inlined
def _distance(metric: int, query: int, row: int, dim: int) -> np.float32:
    if metric == L2:
        return squared(query, row, dim)
    if metric == INNER:
        return -dot(query, row, dim)
    apart: np.float32 = max(np.float32(1) - dot(query, row, dim), np.float32(0))
    return apart


@compiled
def _score_rows(
    table: NDArray[np.int64],
    records: int,
    slots: NDArray[np.uint32],
    positions: NDArray[np.uint32],
    copied: bool,
    removed: NDArray[np.uint32],
    live: NDArray[np.uint8],
    planes: int,
    offset: np.float32,
    factor: np.float32,
    four: NDArray[np.float32],
    estimates: NDArray[np.float32],
    places: NDArray[np.uint32],
    ef: int,
) -> int:
    """Put the ``ef`` best rows by estimate, and some more while there is room, to ``places``; how many.

    ``slots`` of records at the address ``records``: positions, or where the records were ``copied``, indexes of these.
    """
    blocks, shifts, at_first = table[BLOCKS], table[SHIFTS], slots.ctypes.data
    size, room = blocks * 32 + 8, places.shape[0]
    limit, count, last = np.float32(np.inf), 0, slots.shape[0]
    # Where most rows are wanted, the processor foresees the next by itself
    scattered = not copied and last > 0 and 2 * last < np.int64(positions[-1]) - np.int64(positions[0])
    for i in range(0, last, 4):
        together = min(last - i, 4)
        at = at_first + 4 * i
        if together == 4:
            if scattered and i + AHEAD_ROWS + 4 <= last:
                for j in range(AHEAD_ROWS, AHEAD_ROWS + 4):
                    ahead = records + uint_at(at + 4 * j) * size
                    prefetch(ahead)
                    prefetch(ahead + size - 1)  # half of all records reach into a second cache line
            row0, row1 = records + uint_at(at) * size, records + uint_at(at + 4) * size
            row2, row3 = records + uint_at(at + 8) * size, records + uint_at(at + 12) * size
            out = four.ctypes.data
            if not estimate_four(row0, row1, row2, row3, planes, blocks, shifts, offset, factor, limit, out):
                continue
        else:
            for j in range(together):
                four[j] = estimate(records + uint_at(at + 4 * j) * size, planes, blocks, shifts, offset, factor)
        for j in range(together):
            place = positions[slots[i + j]] if copied else slots[i + j]
            if four[j] < limit and live[place] and not (removed.shape[0] > 0 and holds(removed, place)):
                estimates[count], places[count] = four[j], place
                count += 1
                if count == room:
                    limit = keep_least(estimates, places, count, ef)
                    count = ef
    return count


@compiled
def rank(
    table: NDArray[np.int64],
    query: int,
    places: NDArray[np.uint32],
    count: int,
    ids: NDArray[np.int64],
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> None:
    """Offer the first ``count`` places to the k nearest, by their true distances to the query at an address."""
    dim, vectors, metric = table[DIM], table[VECTORS], table[METRIC]
    row_bytes = dim * 4
    for i in range(-AHEAD_VECTORS, count):
        if i + AHEAD_VECTORS < count:
            ahead = vectors + np.int64(places[i + AHEAD_VECTORS]) * row_bytes
            for line in range(0, row_bytes, 64):
                prefetch(ahead + line)
        if i < 0:
            continue
        row = np.int64(places[i])
        distance = _distance(metric, query, vectors + row * row_bytes, dim)
        if distance <= best_distances[best_distances.shape[0] - 1]:
            offer(best_ids, best_distances, ids[row], distance)


@compiled
def nearest(
    queries: NDArray[np.float32],
    table: NDArray[np.int64],
    positions: NDArray[np.uint32],
    removed: NDArray[np.uint32],
    split: NDArray[np.int32],
    packed: NDArray[np.uint8],
    wanted: NDArray[np.uint64],
    ef: int,
    budget_rows: int,
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> None:
    """Offer to the k nearest of each query, (m, k), the rows of one list.

    ``positions`` less ``removed``, both ascending, less rows that are not live. The sub-tree is that of ``positions``;
    without entries all of them are scored. ``packed`` are copies of their records, one after another, uint8 (n,
    record_bytes), or none. ``wanted`` a bitmap over ``positions`` of the rows that alone count, for a list with a
    sub-tree, or none. ``ef`` candidates, k at least, are ranked by their true distances.
    """
    dim, rows, dims, nodes = table[DIM], table[ROWS], table[DIMS], table[NODES]
    ids, live = carray(pointer(table[IDS]), rows, np.int64), carray(pointer(table[LIVE]), rows, np.uint8)
    mean = carray(pointer(table[MEAN]), dim, np.float32)
    signs = carray(pointer(table[SIGNS]), (table[TURNS], dims), np.float32)
    codes = carray(pointer(table[CODES]), (nodes, (dim + 31) // 32 * 32), np.int8)
    scale, bias = carray(pointer(table[SCALE]), nodes, np.float32), carray(pointer(table[BIAS]), nodes, np.float32)
    planes, four, room = np.empty(table[BLOCKS] * 16, np.uint64), np.empty(4, np.float32), 2 * ef + 64
    estimates, places = np.empty(room, np.float32), np.empty(room, np.uint32)
    share = count_in(wanted) / positions.shape[0] if wanted.shape[0] > 0 else 0.0
    in_order = np.empty(packed.shape[0] if split.shape[1] == 0 else 0, np.uint32)
    for i in range(in_order.shape[0]):
        in_order[i] = i
    for turn in range(queries.shape[0]):
        query = queries[turn]
        c1, c2 = quantise(query, mean, signs, table[BITS], table[METRIC] != INNER, planes)
        offset, factor, at = np.float32(c1), np.float32(c2), planes.ctypes.data
        records, slots, copied = table[RECORDS], positions, packed.shape[0] > 0
        if copied:
            records, slots = packed.ctypes.data, in_order
        if split.shape[1] > 0:
            slots = chosen_rows(query, codes, scale, bias, split, positions, copied, wanted, share, budget_rows)
        count = _score_rows(
            table, records, slots, positions, copied, removed, live, at, offset, factor, four, estimates, places, ef
        )
        if count < best_ids.shape[1] and slots.shape[0] < positions.shape[0]:
            # Rows that are deleted or revoked left too few: score them all
            records, slots = table[RECORDS], rows_of(wanted, positions) if wanted.shape[0] > 0 else positions
            count = _score_rows(
                table,
                records,
                slots,
                slots,
                False,
                removed,
                live,
                at,
                offset,
                factor,
                four,
                estimates,
                places,
                ef,
            )
        if count > ef:
            keep_least(estimates, places, count, ef)
            count = ef
        rank(table, query.ctypes.data, places, count, ids, best_ids[turn], best_distances[turn])


@compiled
def exact(
    queries: NDArray[np.float32],
    table: NDArray[np.int64],
    positions: NDArray[np.uint32],
    removed: NDArray[np.uint32],
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> None:
    """Offer to the k nearest of each query, (m, k), every row of one list, by true distances alone."""
    ids = carray(pointer(table[IDS]), table[ROWS], np.int64)
    live = carray(pointer(table[LIVE]), table[ROWS], np.uint8)
    places, count = np.empty(positions.shape[0], np.uint32), 0
    for place in positions:
        if live[place] and not (removed.shape[0] > 0 and holds(removed, place)):
            places[count] = place
            count += 1
    for turn in range(queries.shape[0]):
        rank(table, queries[turn].ctypes.data, places, count, ids, best_ids[turn], best_distances[turn])


@compiled
def estimate_ranks(
    query: NDArray[np.float32],
    table: NDArray[np.int64],
    positions: NDArray[np.uint32],
    targets: NDArray[np.int64],
    out_rows: NDArray[np.int64],
) -> None:
    """For each target, an index into the list, how many rows of the list have a better estimate."""
    dim, dims, bits, metric = table[DIM], table[DIMS], table[BITS], table[METRIC]
    blocks = table[BLOCKS]
    mean = carray(pointer(table[MEAN]), dim, np.float32)
    signs = carray(pointer(table[SIGNS]), (table[TURNS], dims), np.float32)
    planes, estimates = np.empty(blocks * 16, np.uint64), np.empty(positions.shape[0], np.float32)
    c1, c2 = quantise(query, mean, signs, bits, metric != INNER, planes)
    offset, factor = np.float32(c1), np.float32(c2)
    for i in range(positions.shape[0]):
        record = table[RECORDS] + np.int64(positions[i]) * (blocks * 32 + 8)
        estimates[i] = estimate(record, planes.ctypes.data, blocks, table[SHIFTS], offset, factor)
    for i in range(targets.shape[0]):
        own, better = estimates[targets[i]], 0
        for other in estimates:
            better += other < own
        out_rows[i] = better
