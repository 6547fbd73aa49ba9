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
from .code_simd import estimate, estimate_four
from .codes import quantise, query_length
from .sieve import LOOK_WORDS, look, sieved
from .simd import call_ranker, dot, pointer, prefetch, squared, uint_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "COSINE",
    "INNER",
    "L2",
    "bound_of",
    "comparable",
    "distance_of",
    "exact",
    "first_scored",
    "nearest",
    "rank",
    "rank_best",
    "rank_least",
]

L2: Final = 0
INNER: Final = 1
COSINE: Final = 2
FIELDS: Final = 21
(VECTORS, RECORDS, IDS, LIVE, MEAN, SIGNS, SHIFTS, CODES, SCALE, BIAS) = range(10)
(ROWS, DIM, DIMS, BITS, BLOCKS, TURNS, NODES, METRIC, RANKER, LOOK, LEADING) = range(10, FIELDS)
"""Of a unit's table: addresses of its arrays, then their sizes; then, where a search ranks by fine codes, what does so,
see :mod:`.fine_rank`, else 0; last the address of leading words of codes, see :mod:`.sieve`, or 0. A kernel takes one
array in place of twenty arguments, each of which would cost a search 0.15 µs; the unit keeps the arrays alive."""
AHEAD_ROWS: Final = 96
"""Codes are fetched so many rows ahead of the one being scored,"""
AHEAD_VECTORS: Final = 4
"""and vectors so many."""
FIRST_RANKED: Final = 2
"""For each neighbour wanted, candidates that are ranked before the bound is known;"""
RANKED_LEAST: Final = 8
"""and so many at least."""
FIRST_SCORED: Final = 12
"""For each neighbour wanted, rows that are scored before the best of them are ranked;"""
SCORED_LEAST: Final = 64
"""so many at least;"""
MORE_SCORED: Final = 2
"""and so many times as many each time after that."""
ROUNDING: Final = 1e-5
"""Of the terms that are added to compare an estimate with a distance: more than float32 loses."""


@inlined
def distance_of(metric: int, query: int, row: int, dim: int) -> np.float32:
    """The distance of a vector at an address to a query at another."""
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
    estimates: NDArray[np.float32],
    places: NDArray[np.uint32],
    count: int,
    ef: int,
    limit: np.float32,
) -> int:
    """Put the ``ef`` best rows by estimate, and some more while there is room, to the ``count`` that there are in
    ``places``; how many.

    All are below ``limit``. ``slots`` of records at the address ``records``: positions, or where the records were
    ``copied``, indexes of these.
    """
    blocks, shifts, at_first = table[BLOCKS], table[SHIFTS], slots.ctypes.data
    size, room = blocks * 32 + 8, places.shape[0]
    last, four = slots.shape[0], np.empty(4, np.float32)
    # Where most rows are wanted, the processor foresees the next by itself
    scattered = not copied and last > 0 and 2 * last < np.int64(positions[-1]) - np.int64(positions[0])
    for i in range(min(AHEAD_ROWS, last) if scattered else 0):
        prefetch(records + uint_at(at_first + 4 * i) * size)
        prefetch(records + uint_at(at_first + 4 * i) * size + size - 1)
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
    """Offer the first ``count`` places to the k nearest, by their true distances to the query at an address.

    Or by what their fine codes tell of these, where the table says so.
    """
    if table[RANKER] != 0:
        call_ranker(table[RANKER], table, query, places, count, best_ids, best_distances)
        return
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
        distance = distance_of(metric, query, vectors + row * row_bytes, dim)
        if distance <= best_distances[best_distances.shape[0] - 1]:
            offer(best_ids, best_distances, ids[row], distance)


@inlined
def comparable(table: NDArray[np.int64], query: NDArray[np.float32], c2: float) -> tuple[float, float, float]:
    """The slope and shift that turn a true distance into the estimate that would not err, and the length of the query
    as it was coded, of which estimates err by a share; c2 from :func:`.codes.quantise`.
    """
    metric, length = table[METRIC], query_length(c2, table[DIMS])
    if metric == INNER:
        return 2.0, 2.0 * np.float64(dot(table[MEAN], query.ctypes.data, table[DIM])), length
    return 1.0 if metric == L2 else 2.0, -length * length, length


@inlined
def bound_of(distance: np.float32, slope: float, shift: float) -> np.float32:
    """What an estimate must not exceed for its row to be as near as ``distance``."""
    scaled = slope * np.float64(distance)
    return np.float32(scaled + shift + ROUNDING * (abs(scaled) + abs(shift)))


@inlined
def first_scored(k: int) -> int:
    """Rows to score before the best of them are ranked."""
    return max(FIRST_SCORED * k, SCORED_LEAST)


@compiled
def rank_best(
    table: NDArray[np.int64],
    query: int,
    estimates: NDArray[np.float32],
    places: NDArray[np.uint32],
    count: int,
    most: int,
    slope: float,
    shift: float,
    ids: NDArray[np.int64],
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> int:
    """Rank the ``most`` least of the first ``count`` bounds; how many are left, which are moved to the front.

    Those are left out whose bound says that they are farther than the k-th nearest.
    """
    bound, kept = bound_of(best_distances[best_distances.shape[0] - 1], slope, shift), 0
    for i in range(count):
        if estimates[i] <= bound:
            estimates[kept], places[kept] = estimates[i], places[i]
            kept += 1
    most = min(most, kept)
    if most < kept:
        keep_least(estimates, places, kept, most)
    rank(table, query, places, most, ids, best_ids, best_distances)
    for i in range(most, kept):
        estimates[i - most], places[i - most] = estimates[i], places[i]
    return kept - most


@compiled
def rank_least(
    table: NDArray[np.int64],
    query: int,
    estimates: NDArray[np.float32],
    places: NDArray[np.uint32],
    count: int,
    ef: int,
    band: float,
    slope: float,
    shift: float,
    ids: NDArray[np.int64],
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> None:
    """Rank the ``ef`` of the first ``count`` places that have the least estimates. The arrays are mutated.

    With a ``band`` the estimates are bounds (:func:`nearest`), and rows whose bound says that they are farther than the
    k-th nearest so far are left out. Least first, ever more at a time: what has been ranked tightens what follows.
    """
    if count > ef:
        keep_least(estimates, places, count, ef)
        count = ef
    if band == 0:
        rank(table, query, places, count, ids, best_ids, best_distances)
        return
    most = max(FIRST_RANKED * best_ids.shape[0], RANKED_LEAST)
    while count > 0:
        count = rank_best(table, query, estimates, places, count, most, slope, shift, ids, best_ids, best_distances)
        most *= 2


@compiled
def _search_rows(
    table: NDArray[np.int64],
    query: NDArray[np.float32],
    records: int,
    slots: NDArray[np.uint32],
    positions: NDArray[np.uint32],
    copied: bool,
    removed: NDArray[np.uint32],
    live: NDArray[np.uint8],
    coded: tuple[int, np.float32, np.float32],
    sieve: tuple[int, NDArray[np.uint64], NDArray[np.uint32]],
    kept: tuple[NDArray[np.float32], NDArray[np.uint32]],
    rule: tuple[int, float, float, float],
    ids: NDArray[np.int64],
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> bool:
    """Score the rows of ``slots``, as :func:`_score_rows` has them, and rank the best; whether there are k at all.

    ``coded`` is the query: planes, offset, factor; ``sieve``: leading words, or 0, the query beside these, and room;
    ``kept``: estimates and places; ``rule``: as for :func:`rank_least`.
    """
    (planes, offset, factor), (estimates, places), (ef, band, slope, shift) = coded, kept, rule
    leading, coarse, room = sieve
    k, address, done = best_ids.shape[0], query.ctypes.data, 0
    count: int = np.int64(0)  # type: ignore[assignment]  # Numba compiles what takes it once more for a literal
    together = first_scored(k) if band > 0 else slots.shape[0]
    limit = bound_of(best_distances[k - 1], slope, shift) if band > 0 else np.float32(np.inf)
    while True:
        some = slots[done : done + together]
        done += together
        if leading != 0 and limit < np.inf:
            some = room[: sieved(leading, some, coarse, limit, room)]
        count = _score_rows(
            table,
            records,
            some,
            positions,
            copied,
            removed,
            live,
            planes,
            offset,
            factor,
            estimates,
            places,
            count,
            ef,
            limit,
        )
        if done >= slots.shape[0]:
            break
        # What is nearest so far tells which of the others may be nearer
        count = rank_best(table, address, estimates, places, count, k, slope, shift, ids, best_ids, best_distances)
        limit, together = bound_of(best_distances[k - 1], slope, shift), MORE_SCORED * together
    enough = count >= k
    rank_least(table, address, estimates, places, count, ef, band, slope, shift, ids, best_ids, best_distances)
    return bool(best_distances[k - 1] < np.inf) if band > 0 else enough


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
    band: float,
    budget_rows: int,
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> None:
    """Offer to the k nearest of each query, (m, k), the rows of one list.

    ``positions`` less ``removed``, both ascending, less rows that are not live. The sub-tree is that of ``positions``;
    without entries all of them are scored. ``packed`` are copies of their records, one after another, uint8 (n,
    record_bytes), or none. ``wanted`` a bitmap over ``positions`` of the rows that alone count, for a list with a
    sub-tree, or none. ``ef`` candidates, k at least, are ranked by their true distances; with a ``band`` that is not 0
    those alone whose estimate less ``band`` times what it errs by a share of is not above the k-th distance.
    """
    dim, rows, dims, nodes = table[DIM], table[ROWS], table[DIMS], table[NODES]
    ids, live = carray(pointer(table[IDS]), rows, np.int64), carray(pointer(table[LIVE]), rows, np.uint8)
    mean = carray(pointer(table[MEAN]), dim, np.float32)
    signs = carray(pointer(table[SIGNS]), (table[TURNS], dims), np.float32)
    codes = carray(pointer(table[CODES]), (nodes, (dim + 31) // 32 * 32), np.int8)
    scale, bias = carray(pointer(table[SCALE]), nodes, np.float32), carray(pointer(table[BIAS]), nodes, np.float32)
    planes, room = np.empty(table[BLOCKS] * 16, np.uint64), 2 * ef + 64
    estimates, places = np.empty(room, np.float32), np.empty(room, np.uint32)
    sifted, coarse = table[LEADING] != 0 and band > 0 and packed.shape[0] == 0, np.empty(LOOK_WORDS, np.uint64)
    share = count_in(wanted) / positions.shape[0] if wanted.shape[0] > 0 else 0.0
    in_order = np.empty(packed.shape[0] if split.shape[1] == 0 else 0, np.uint32)
    for i in range(in_order.shape[0]):
        in_order[i] = i
    for turn in range(queries.shape[0]):
        query = queries[turn]
        c1, c2 = quantise(query, mean, signs, table[BITS], table[METRIC] != INNER, planes)
        slope, shift, length = comparable(table, query, c2)
        coded = planes.ctypes.data, np.float32(c1 - band * length), np.float32(c2)
        if sifted:
            look(planes, table[BITS], c2, band * length, table[LEADING], coarse)
        records, slots, copied = table[RECORDS], positions, packed.shape[0] > 0
        if copied:
            records, slots = np.int64(packed.ctypes.data), in_order
        if split.shape[1] > 0:
            slots = chosen_rows(query, codes, scale, bias, split, positions, copied, wanted, share, budget_rows)
        rule, kept, best = (ef, band, slope, shift), (estimates, places), (best_ids[turn], best_distances[turn])
        passed = np.empty(slots.shape[0] + 4 if sifted else 0, np.uint32)
        sieve = table[LEADING] if sifted else 0, coarse, passed
        for again in range(2):
            if again:  # rows that are deleted or revoked left too few: score them all
                records, copied = table[RECORDS], False
                sieve = np.int64(0), coarse, passed
                slots = rows_of(wanted, positions) if wanted.shape[0] > 0 else positions
            wheres, to = (table, query, records, slots), (ids, *best)
            enough = _search_rows(*wheres, positions, copied, removed, live, coded, sieve, kept, rule, *to)
            if enough or slots.shape[0] == positions.shape[0]:
                break


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
