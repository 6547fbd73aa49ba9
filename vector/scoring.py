"""The search of one posting list: score codes, flat or best-first through its sub-tree, then rank by true distances.

Best-first goes on until ``budget_rows`` of the list's rows were scored. A budget in rows, fitted when the segment was
made, finds as much for the rows scored as rules that watch the results do, and its slowest query takes hardly longer
than its mean one; it cannot stop early on a run of tiny lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from ..lake.kernels import compiled, inlined
from .ascending import holds
from .candidates import keep_least, offer
from .codes import quantise
from .nodes import rounded_query
from .simd import dot, estimate, estimate_four, pointer, prefetch, small_dot, squared, uint_at
from .subtree import CHILD, CHILDREN, NODE, START, STOP

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COSINE", "INNER", "L2", "estimate_ranks", "exact", "nearest", "walk_ranks"]

L2: Final = 0
INNER: Final = 1
COSINE: Final = 2
BINS: Final = 1024
"""Of the histogram of keys."""
FIELDS: Final = 18
(VECTORS, RECORDS, IDS, LIVE, MEAN, SIGNS, SHIFTS, CODES, SCALE, BIAS) = range(10)
(ROWS, DIM, DIMS, BITS, BLOCKS, TURNS, NODES, METRIC) = range(10, FIELDS)
"""Of a unit's table: addresses of its arrays, then their sizes. A kernel takes one array in place of eighteen
arguments, each of which would cost a search 0.15 µs; the unit keeps the arrays alive."""
AHEAD_ROWS: Final = 24
"""Codes are fetched so many rows ahead of the one being scored."""


@inlined
def _distance(metric: int, query: int, row: int, dim: int) -> np.float32:
    if metric == L2:
        return squared(query, row, dim)
    if metric == INNER:
        return -dot(query, row, dim)
    apart: np.float32 = max(np.float32(1) - dot(query, row, dim), np.float32(0))
    return apart


@inlined
def _score(
    place: int,
    codes: NDArray[np.int8],
    words: NDArray[np.int16],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    unit: np.float32,
) -> np.float32:
    """The score of a node for a query in ``words``; ``unit`` is what one of these stands for, twice.

    Addresses are taken here and not by the caller: Numba frees an array of which nothing but an address is used later.
    """
    size = codes.shape[1]
    product = small_dot(codes.ctypes.data + np.int64(place) * size, words.ctypes.data, size >> 5)
    score: np.float32 = bias[place] - unit * scale[place] * np.float32(product)
    return score


@inlined
def _bin(score: np.float32, least: np.float32, narrow: np.float32) -> int:
    place = (score - least) * narrow
    return int(max(place, np.float32(0))) if place < np.float32(BINS - 1) else BINS - 1


@compiled
def _chosen_rows(
    query: NDArray[np.float32],
    codes: NDArray[np.int8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    split: NDArray[np.int32],
    positions: NDArray[np.uint32],
    copied: bool,
    budget_rows: int,
) -> NDArray[np.uint32]:
    """Positions in the short-lists that best-first comes to until it has ``budget_rows``; if ``copied``, their indexes.

    No heap: cells below the root are opened in the order of their scores, until a histogram of the lists' own scores
    says that the rows that lie before the next cell suffice; then those of the best lists are taken.
    """
    node, child, children, start, stop = split[NODE], split[CHILD], split[CHILDREN], split[START], split[STOP]
    if child[0] == 0:
        return np.arange(stop[0]).astype(np.uint32) if copied else positions
    words = np.empty(codes.shape[1], np.int16)
    unit = np.float32(2) * rounded_query(query, words)
    cells, first = children[0], child[0]
    scores = np.empty(cells, np.float32)
    least, greatest = np.float32(np.inf), np.float32(-np.inf)
    for i in range(cells):
        scores[i] = _score(node[first + i], codes, words, scale, bias, unit)
        least, greatest = min(least, scores[i]), max(greatest, scores[i])
    narrow = np.float32((BINS - 1) / 2.0) / max(greatest - least, np.float32(1e-30))
    least -= np.float32(0.5) * (greatest - least)  # lists may lie nearer than the cell that they are in
    order = _by_bin(scores, least, narrow)
    rows_of, spots = np.zeros(BINS, np.int64), np.full(split.shape[1], -1, np.int16)
    stack, keys = np.empty(split.shape[1], np.int32), np.empty(split.shape[1], np.float32)
    before, frontier = 0, 0
    for turn in range(cells):
        cell = order[turn]
        reached = _bin(scores[cell], least, narrow)
        while frontier < reached:
            before += rows_of[frontier]
            frontier += 1
        if before >= budget_rows:
            break
        stack[0], keys[0], depth = first + cell, scores[cell], 1
        if child[first + cell] == 0:
            spots[first + cell], depth = reached, 0
            rows_of[reached] += stop[first + cell] - start[first + cell]
        while depth > 0:
            depth -= 1
            entry, key = stack[depth], keys[depth]
            for below in range(child[entry], child[entry] + children[entry]):
                own = _score(node[below], codes, words, scale, bias, unit)
                if child[below] > 0:
                    stack[depth], keys[depth] = below, max(key, own)
                    depth += 1
                    continue
                spot, held = _bin(own, least, narrow), stop[below] - start[below]
                spots[below] = spot
                rows_of[spot] += held
                before += held if spot < frontier else 0
    last, total = 0, rows_of[0]
    while total < budget_rows and last < BINS - 1:
        last += 1
        total += rows_of[last]
    # The last bin goes in whole unless it is most of what was chosen, as where many lists lie equally near
    short = rows_of[last] if total <= 2 * budget_rows else budget_rows - (total - rows_of[last])
    out, at = np.empty(total, np.uint32), 0
    for entry in range(split.shape[1]):  # by place, not by nearness: memory is read forwards
        if spots[entry] < 0 or spots[entry] > last or (spots[entry] == last and short <= 0):
            continue
        held = stop[entry] - start[entry]
        short -= held if spots[entry] == last else 0
        part = out[at : at + held]
        if copied:
            for i in range(held):
                part[i] = start[entry] + i
        else:
            named = positions[start[entry] : stop[entry]]
            for i in range(held):
                part[i] = named[i]
        at += held
    return out[:at]


@compiled
def _by_bin(scores: NDArray[np.float32], least: np.float32, narrow: np.float32) -> NDArray[np.int32]:
    """The indexes of scores, by their bin: a counting sort."""
    starts = np.zeros(BINS + 1, np.int32)
    for score in scores:
        starts[_bin(score, least, narrow) + 1] += 1
    for i in range(BINS):
        starts[i + 1] += starts[i]
    order = np.empty(scores.shape[0], np.int32)
    for i in range(scores.shape[0]):
        spot = _bin(scores[i], least, narrow)
        order[starts[spot]] = i
        starts[spot] += 1
    return order


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
    scattered = not copied and last > 0 and 2 * last < np.int64(slots[last - 1]) - np.int64(slots[0])
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


@inlined
def _rank(
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
    for i in range(count):
        if i + 2 < count:
            ahead = vectors + np.int64(places[i + 2]) * row_bytes
            for line in range(0, row_bytes, 64):
                prefetch(ahead + line)
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
    ef: int,
    budget_rows: int,
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> None:
    """Offer to the k nearest of each query, (m, k), the rows of one list.

    ``positions`` less ``removed``, both ascending, less rows that are not live. The sub-tree is that of ``positions``;
    without entries all of them are scored. ``packed`` are copies of their records, one after another, uint8 (n,
    record_bytes), or none. ``ef`` candidates, k at least, are ranked by their true distances.
    """
    dim, rows, dims, nodes = table[DIM], table[ROWS], table[DIMS], table[NODES]
    ids, live = carray(pointer(table[IDS]), rows, np.int64), carray(pointer(table[LIVE]), rows, np.uint8)
    mean = carray(pointer(table[MEAN]), dim, np.float32)
    signs = carray(pointer(table[SIGNS]), (table[TURNS], dims), np.float32)
    codes = carray(pointer(table[CODES]), (nodes, (dim + 31) // 32 * 32), np.int8)
    scale, bias = carray(pointer(table[SCALE]), nodes, np.float32), carray(pointer(table[BIAS]), nodes, np.float32)
    planes, four, room = np.empty(table[BLOCKS] * 16, np.uint64), np.empty(4, np.float32), 2 * ef + 64
    estimates, places = np.empty(room, np.float32), np.empty(room, np.uint32)
    for turn in range(queries.shape[0]):
        query = queries[turn]
        c1, c2 = quantise(query, mean, signs, table[BITS], table[METRIC] != INNER, planes)
        offset, factor, at = np.float32(c1), np.float32(c2), planes.ctypes.data
        records, slots, copied = table[RECORDS], positions, False
        if split.shape[1] > 0:
            copied = packed.shape[0] > 0
            records = packed.ctypes.data if copied else records
            slots = _chosen_rows(query, codes, scale, bias, split, positions, copied, budget_rows)
        count = _score_rows(
            table, records, slots, positions, copied, removed, live, at, offset, factor, four, estimates, places, ef
        )
        if count < best_ids.shape[1] and slots.shape[0] < positions.shape[0]:
            # Rows that are deleted or revoked left too few: score them all
            records = table[RECORDS]
            count = _score_rows(
                table,
                records,
                positions,
                positions,
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
        _rank(table, query.ctypes.data, places, count, ids, best_ids[turn], best_distances[turn])


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
    dim, k, vectors_at, metric = table[DIM], best_ids.shape[1], table[VECTORS], table[METRIC]
    ids = carray(pointer(table[IDS]), table[ROWS], np.int64)
    live = carray(pointer(table[LIVE]), table[ROWS], np.uint8)
    for turn in range(queries.shape[0]):
        query_at = queries[turn].ctypes.data
        for i in range(positions.shape[0]):
            ahead = vectors_at + np.int64(positions[min(i + 2, positions.shape[0] - 1)]) * dim * 4
            for line in range(0, dim * 4, 64):
                prefetch(ahead + line)
            place = positions[i]
            if live[place] and not (removed.shape[0] > 0 and holds(removed, place)):
                row = np.int64(place)
                distance = _distance(metric, query_at, vectors_at + row * dim * 4, dim)
                if distance <= best_distances[turn, k - 1]:
                    offer(best_ids[turn], best_distances[turn], ids[row], distance)


@compiled
def walk_ranks(
    query: NDArray[np.float32],
    codes: NDArray[np.int8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    split: NDArray[np.int32],
    targets: NDArray[np.int64],
    out_rows: NDArray[np.int64],
) -> None:
    """For each target, an index into the list, how many rows best-first has scored once it has seen that one."""
    node, child, children, start, stop = split[NODE], split[CHILD], split[CHILDREN], split[START], split[STOP]
    words = np.empty(codes.shape[1], np.int16)
    unit = np.float32(2) * rounded_query(query, words)
    keys, own = np.zeros(node.shape[0], np.float64), np.zeros(node.shape[0], np.float64)
    keys[0] = -np.inf
    for entry in range(node.shape[0]):  # parents stand before their children
        for below in range(child[entry], child[entry] + children[entry]):
            own[below] = _score(node[below], codes, words, scale, bias, unit)
            keys[below] = max(keys[entry], own[below])
    scored = 0
    # Best-first takes a list once its own score and those of all nodes above are reached; of several, the nearer first
    for entry in np.argsort(keys + 1e-6 * own):
        if child[entry] == 0:
            scored += stop[entry] - start[entry]
            for i in range(targets.shape[0]):
                if start[entry] <= targets[i] < stop[entry]:
                    out_rows[i] = scored


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
