"""Walking a graph by codes: from row to row towards the query, estimates deciding, true distances last.

The walk is HNSW's on its lowest level (Malkov and Yashunin, arXiv 1603.09320), with the estimates of :mod:`.codes` in
place of distances: a step reads 40 bytes a neighbour, not a vector. It goes through rows that fail a condition, since
these lead to others, and keeps those apart that may be found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from ..lake.kernels import compiled, inlined
from .candidates import keep_least
from .code_simd import estimate, estimate_four
from .codes import quantise
from .scoring import (
    BITS,
    BLOCKS,
    DIM,
    DIMS,
    IDS,
    INNER,
    LIVE,
    MEAN,
    METRIC,
    RECORDS,
    ROWS,
    SHIFTS,
    SIGNS,
    TURNS,
    bound_of,
    comparable,
    first_scored,
    rank_best,
    rank_least,
)
from .simd import pointer, prefetch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NO_LINK", "found_by_walk", "nearest_by_graph"]

NO_LINK: Final = 2**32 - 1
"""Fills up a row's links."""
ONE, ROW_BITS, SIGN_BIT = np.uint64(1), np.uint64(2**31 - 1), np.uint32(2**31)
LOST_SHARE: Final = 0.5
"""A walk whose rows fulfil the condition less often than this share of what its count promises went astray."""


@compiled
def _unseen(rows: NDArray[np.int64], count: int, seen: NDArray[np.uint64], records: int, record_bytes: int) -> int:
    """Move those of the first ``count`` rows that were not seen to the front, and fetch their records; how many."""
    kept = 0
    for i in range(count):
        row = rows[i]
        if not (seen[row >> 6] >> np.uint64(row & 63)) & ONE:
            seen[row >> 6] |= ONE << np.uint64(row & 63)
            prefetch(records + row * record_bytes)
            prefetch(records + row * record_bytes + record_bytes - 1)
            rows[kept] = row
            kept += 1
    return kept


@compiled
def _is_in(wanted: NDArray[np.uint64], row: np.int64) -> bool:
    """Whether a row is in a bitmap; every row is in one of no words."""
    return bool(wanted.shape[0] == 0 or (wanted[row >> 6] >> np.uint64(row & 63)) & ONE)


@compiled
def _put(pool: NDArray[np.uint64], held: int, pool_rows: int, word: np.uint64) -> int:
    """Put a word in its place among the ``held`` ascending ones of a pool, the greatest going if it is full; where."""
    left, right = 0, held
    while left < right:
        middle = (left + right) >> 1
        if pool[middle] <= word:
            left = middle + 1
        else:
            right = middle
    for j in range(min(held, pool_rows - 1), left, -1):
        pool[j] = pool[j - 1]
    pool[left] = word
    return left


@inlined
def _row_of(word: np.uint64) -> np.int64:
    return np.int64((word >> ONE) & ROW_BITS)


@inlined
def _word_of(value: np.float32, row: np.int64, number: NDArray[np.float32]) -> np.uint64:
    """A row by its estimate: the estimate's bits in the order of its value, the row, and a bit for whether its
    neighbours were met, not set. ``number`` is one of scratch.
    """
    number[0] = value
    bits = number.view(np.uint32)[0]
    return (np.uint64(bits ^ SIGN_BIT if bits < SIGN_BIT else ~bits) << np.uint64(32)) | (np.uint64(row) << ONE)


@inlined
def _value_of(word: np.uint64, number: NDArray[np.float32]) -> np.float32:
    """The estimate of a word."""
    bits = np.uint32(word >> np.uint64(32))
    number.view(np.uint32)[0] = bits ^ SIGN_BIT if bits >= SIGN_BIT else ~bits
    value: np.float32 = number[0]
    return value


@compiled
def _met(pool: NDArray[np.uint64], held: int, wanted: NDArray[np.uint64]) -> int:
    """How many of the ``held`` rows of a pool are wanted."""
    met = 0
    for i in range(held):
        met += _is_in(wanted, _row_of(pool[i]))
    return met


@compiled
def _links_of(links: NDArray[np.uint32], row: np.int64, out_rows: NDArray[np.int64]) -> int:
    """Write the rows that a row is linked with; how many."""
    count = 0
    while count < links.shape[1] and links[row, count] != NO_LINK:
        out_rows[count] = links[row, count]
        count += 1
    return count


@compiled
def _scored(
    table: NDArray[np.int64],
    rows: NDArray[np.int64],
    first: int,
    together: int,
    planes: int,
    offset: np.float32,
    factor: np.float32,
    limit: np.float32,
    out: NDArray[np.float32],
) -> bool:
    """Write the estimates of up to four rows; False, and perhaps nothing written, if none is below ``limit``."""
    blocks, shifts, records = table[BLOCKS], table[SHIFTS], table[RECORDS]
    size = blocks * 32 + 8
    if together == 4:
        row0, row1 = records + rows[first] * size, records + rows[first + 1] * size
        row2, row3 = records + rows[first + 2] * size, records + rows[first + 3] * size
        four: bool = estimate_four(
            row0, row1, row2, row3, planes, blocks, shifts, offset, factor, limit, out.ctypes.data
        )
        return four
    for i in range(together):
        out[i] = estimate(records + rows[first + i] * size, planes, blocks, shifts, offset, factor)
    return True


@compiled
def _walk(
    table: NDArray[np.int64],
    links: NDArray[np.uint32],
    starts: NDArray[np.uint32],
    planes: NDArray[np.uint64],
    offset: np.float32,
    factor: np.float32,
    pool_rows: int,
    wanted: NDArray[np.uint64],
    live: NDArray[np.uint8],
    seen: NDArray[np.uint64],
    estimates: NDArray[np.float32],
    places: NDArray[np.uint32],
    query: int,
    rule: tuple[int, float, float, float],
    best: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]],
) -> tuple[int, int]:
    """Put the best wanted rows that a walk meets to ``places``; how many, and how many wanted ones are among the
    ``pool_rows`` best rows that it met.

    ``rule`` as for :func:`.scoring.rank_least`: the ``ef`` best, and some more while there is room; with a band those
    that may be near enough, of which some are ranked on the way and offered to ``best``: all ids, the k nearest and
    their distances. ``seen`` is a bitmap of rows that are passed over; it is mutated. The pool holds rows by estimate,
    see :func:`_word_of`.
    """
    pool, held, at, count = np.empty(pool_rows + 1, np.uint64), 0, 0, 0
    fresh, four = np.empty(max(links.shape[1], starts.shape[0]), np.int64), np.empty(4, np.float32)
    number, limit, pool_limit = np.empty(1, np.float32), np.float32(np.inf), np.float32(np.inf)
    (ef, band, slope, shift), batch = rule, starts.shape[0]
    k, room = best[1].shape[0], places.shape[0]
    full = min(first_scored(k), room) if band > 0 else room
    for i in range(batch):
        fresh[i] = starts[i]
    while True:
        lowest, batch = held, _unseen(fresh, batch, seen, table[RECORDS], table[BLOCKS] * 32 + 8)
        for first in range(0, batch, 4):
            together = min(batch - first, 4)
            if not _scored(
                table, fresh, first, together, planes.ctypes.data, offset, factor, max(limit, pool_limit), four
            ):
                continue
            for i in range(together):
                row, value = fresh[first + i], four[i]
                if value < limit and live[row] and _is_in(wanted, row):
                    estimates[count], places[count] = value, row
                    count += 1
                    if count == full and band > 0:
                        count = rank_best(table, query, estimates, places, count, k, slope, shift, *best)
                        limit, full = bound_of(best[2][k - 1], slope, shift), min(count + first_scored(k), room)
                    elif count == full:
                        limit, count = keep_least(estimates, places, count, ef), ef
                if value >= pool_limit:
                    continue
                lowest = min(lowest, _put(pool, held, pool_rows, _word_of(value, row, number)))
                held = min(held + 1, pool_rows)
                if held == pool_rows:
                    pool_limit = _value_of(pool[held - 1], number)
        at = min(at, lowest)
        while at < held and pool[at] & ONE:
            at += 1
        if at == held:
            break
        batch = _links_of(links, _row_of(pool[at]), fresh)
        pool[at] |= ONE
        ahead = at + 1
        while ahead < held and pool[ahead] & ONE:
            ahead += 1
        if ahead < held:
            following = links.ctypes.data + _row_of(pool[ahead]) * links.shape[1] * 4
            prefetch(following)
            prefetch(following + 64)
    return count, _met(pool, held, wanted)


@compiled
def _copied(
    ids: NDArray[np.int64], distances: NDArray[np.float32], out_ids: NDArray[np.int64], out: NDArray[np.float32]
) -> None:
    """Copy the k nearest: loops take Numba a tenth of the time to compile that assignments of arrays do."""
    for i in range(ids.shape[0]):
        out_ids[i], out[i] = ids[i], distances[i]


@compiled
def _searched(
    query: NDArray[np.float32],
    table: NDArray[np.int64],
    links: NDArray[np.uint32],
    starts: NDArray[np.uint32],
    wanted: NDArray[np.uint64],
    pool_rows: int,
    ef: int,
    band: float,
    seen: NDArray[np.uint64],
    near: NDArray[np.int64],
    apart: NDArray[np.float32],
) -> int:
    """Offer the rows that a walk meets to the k nearest, ``near`` and ``apart``; how many wanted ones its pool held."""
    ids, live = carray(pointer(table[IDS]), table[ROWS], np.int64), carray(pointer(table[LIVE]), table[ROWS], np.uint8)
    mean = carray(pointer(table[MEAN]), table[DIM], np.float32)
    signs = carray(pointer(table[SIGNS]), (table[TURNS], table[DIMS]), np.float32)
    planes, room, address = np.empty(table[BLOCKS] * 16, np.uint64), 2 * ef + 64, query.ctypes.data
    estimates, places = np.empty(room, np.float32), np.empty(room, np.uint32)
    c1, c2 = quantise(query, mean, signs, table[BITS], table[METRIC] != INNER, planes)
    slope, shift, length = comparable(table, query, c2)
    count, met = _walk(
        table,
        links,
        starts,
        planes,
        np.float32(c1 - band * length),
        np.float32(c2),
        pool_rows,
        wanted,
        live,
        seen,
        estimates,
        places,
        address,
        (ef, band, slope, shift),
        (ids, near, apart),
    )
    rank_least(table, address, estimates, places, count, ef, band, slope, shift, ids, near, apart)
    return met


@compiled
def nearest_by_graph(
    queries: NDArray[np.float32],
    table: NDArray[np.int64],
    links: NDArray[np.uint32],
    starts: NDArray[np.uint32],
    wanted: NDArray[np.uint64],
    share: float,
    pool_rows: int,
    ef: int,
    band: float,
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> NDArray[np.uint8]:
    """Offer to the k nearest of each query, (m, k), the live rows, or those in a bitmap, that a walk meets.

    ``links`` uint32 (n, width) as :class:`.graph.Graph` has them; ``share`` of all rows that are wanted; ``ef`` and
    ``band`` as for :func:`.scoring.nearest`. Returns uint8 (m,): 1 where the walk went astray and nothing was offered.
    """
    astray = np.zeros(queries.shape[0], np.uint8)
    near, apart = np.empty(best_ids.shape[1], np.int64), np.empty(best_ids.shape[1], np.float32)
    for turn in range(queries.shape[0]):
        _copied(best_ids[turn], best_distances[turn], near, apart)
        seen = np.zeros((table[ROWS] + 63) >> 6, np.uint64)
        met = _searched(queries[turn], table, links, starts, wanted, pool_rows, ef, band, seen, near, apart)
        if apart[apart.shape[0] - 1] == np.inf or met < LOST_SHARE * share * pool_rows:
            astray[turn] = 1
        else:
            _copied(near, apart, best_ids[turn], best_distances[turn])
    return astray


@compiled
def found_by_walk(
    query: NDArray[np.float32],
    table: NDArray[np.int64],
    links: NDArray[np.uint32],
    starts: NDArray[np.uint32],
    hidden: int,
    wanted: NDArray[np.uint64],
    pool_rows: int,
    ef: int,
    band: float,
    targets: NDArray[np.uint32],
) -> int:
    """How many of the ``targets``, uint32 (t,) and no others nearer than they, a search by a walk finds that must not
    pass through the row ``hidden``.
    """
    ids, seen = carray(pointer(table[IDS]), table[ROWS], np.int64), np.zeros((table[ROWS] + 63) >> 6, np.uint64)
    seen[hidden >> 6] |= np.uint64(1) << np.uint64(hidden & 63)
    near, apart = np.full(targets.shape[0], -1), np.full(targets.shape[0], np.inf, np.float32)
    _searched(query, table, links, starts, wanted, pool_rows, ef, band, seen, near, apart)
    found = 0
    for target in targets:
        for each in near:
            found += each == ids[target]
    return found
