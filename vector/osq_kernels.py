"""The loops of :mod:`.osq`: packing codes, making tables for a query, and summing up entries of coded rows.

A record is a string of bits, the lowest of a byte first: the top bit of every coded dimension, then the other bits of
each in turn. Dimensions are taken in groups of eight, for each of which a plan says, a byte a dimension (``lanes``,
uint8 (groups, 5, 8)): how far right its lower bits stand in the group's, their mask, what the top bit counts, where
in a chunk of 128 entries its table starts, and in which of the group's chunks. ``places``, int64 (groups + 1, 2), has
the bit at which a group's lower bits start, and its first chunk. A table's entries are whole numbers below 65,536, so
that sums have no order: ``tables``, uint8 (chunks, 2, 128), the low bytes of a chunk and then the high ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled
from .osq_simd import ROWS, sum_rows, weigh, word_at
from .simd import prefetch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ESTIMATE", "GREATEST", "differing", "fill_tables", "pack", "scan", "scan_wide"]

ESTIMATE, ESTIMATE_INNER, BOUND, BOUND_INNER = range(4)
"""What a table's entries say: estimates or lower bounds, of squared distance or of minus the inner product."""
GREATEST: Final = 65_535
AHEAD: Final = 16


@compiled
def pack(
    coordinates: NDArray[np.float32],
    bits: NDArray[np.uint8],
    first: NDArray[np.int64],
    edges: NDArray[np.float32],
    out_records: NDArray[np.uint8],
    reach: NDArray[np.float32],
) -> None:
    """Write the records of some rows, zeros before, and widen ``reach``, float32 (dim, 2), to take them in.

    coordinates: float32 (n, dim), along the axes; bits, first, edges: the cells, see :mod:`.lloyd`.
    """
    dim = coordinates.shape[1]
    coded = 0
    while coded < dim and bits[coded] > 0:
        coded += 1
    for row in range(coordinates.shape[0]):
        record = out_records[row]
        at = coded
        for j in range(dim):
            value = coordinates[row, j]
            reach[j, 0] = min(reach[j, 0], value)
            reach[j, 1] = max(reach[j, 1], value)
            if j >= coded:
                continue
            half = np.int64(1) << (bits[j] - 1)
            cell, span = np.int64(0), half
            while span > 0:
                if value >= edges[first[j] + cell + span]:
                    cell += span
                span >>= 1
            if cell >= half:
                record[j >> 3] |= np.uint8(1 << (j & 7))
            lower = (cell & (half - 1)) << (at & 7)
            if lower > 0:
                record[at >> 3] |= np.uint8(lower & 255)
            if lower > 255:
                record[(at >> 3) + 1] |= np.uint8(lower >> 8)
            at += bits[j] - 1


@compiled
def fill_tables(
    kind: int,
    query: NDArray[np.float32],
    bits: NDArray[np.uint8],
    first: NDArray[np.int64],
    cells: NDArray[np.float32],
    reach: NDArray[np.float32],
    lanes: NDArray[np.uint8],
    places: NDArray[np.int64],
    out_tables: NDArray[np.uint8],
) -> tuple[float, float]:
    """Write the tables of a query, zeros before; (base, step): a row's number is ``base + step * sum``.

    query: float32 (dim,), along the axes; cells: float32 (3, all), lower boundaries, values and spreads. Entries are
    rounded to the nearest, those of bounds downward.
    """
    base, widest, coded = 0.0, np.float32(0), 0
    numbers, least = np.empty(first[-1], np.float32), np.zeros(query.shape[0], np.float32)
    for j in range(query.shape[0]):
        start, stop = first[j], first[j + 1]
        _numbers(kind, query[j], cells[:, start:stop], reach[j, 0], reach[j, 1], numbers[start:stop])
        # the numbers of a dimension are convex or rise or fall, so an end has the greatest; squares are not below 0
        one, other = numbers[start], numbers[stop - 1]
        if other < one:
            one, other = other, one
        if kind in (ESTIMATE_INNER, BOUND_INNER) or stop - start == 1:
            least[j] = one
        base += least[j]
        widest = max(widest, other - least[j])
        coded += bits[j] > 0
    step = np.float64(widest) / GREATEST if widest > 0 else 1.0
    half = np.float32(0.5 if kind <= ESTIMATE_INNER else 0.0)
    inverse = np.float32(1.0 / step)
    flat = out_tables.reshape(-1)
    for j in range(coded):
        group, lane = j >> 3, j & 7
        to = (places[group, 1] + lanes[group, 4, lane]) * 128 + lanes[group, 3, lane]
        count = first[j + 1] - first[j]
        for cell in range(0, count, 128):
            place = ((to + cell) >> 7) * 256 + (to & 127)
            low_bytes, high_bytes = flat[place : place + 128], flat[place + 128 :]
            some = numbers[first[j] + cell :]
            for i in range(min(count, 128)):
                number = min(np.int32((some[i] - least[j]) * inverse + half), np.int32(GREATEST))
                low_bytes[i] = np.uint8(number & 255)
                high_bytes[i] = np.uint8(number >> 8)
    if coded & 7:  # lanes without a dimension read the first entry of their group
        at = places[coded >> 3, 1] * 256
        base -= (8 - (coded & 7)) * step * (np.int64(flat[at]) + 256 * np.int64(flat[at + 128]))
    return base, step


@compiled
def _numbers(
    kind: int,
    query: float,
    cells: NDArray[np.float32],
    least: float,
    most: float,
    out: NDArray[np.float32],
) -> None:
    """What each cell of a dimension tells about a query's coordinate; no row lies below ``least`` or above ``most``."""
    count = cells.shape[1]
    edges, values, spreads = cells[0], cells[1], cells[2]
    if kind == ESTIMATE:
        for cell in range(count):
            away = query - values[cell]
            out[cell] = away * away + spreads[cell]
        return
    if kind == ESTIMATE_INNER:
        for cell in range(count):
            out[cell] = -query * values[cell]
        return
    for cell in range(count):
        # a row may lie beyond what an end cell was learnt from, and a cell beyond all rows
        low = least if cell == 0 or edges[cell] < least else min(edges[cell], most)
        high = most if cell == count - 1 or edges[cell + 1] > most else max(edges[cell + 1], least)
        if kind == BOUND:
            away = max(low - query, query - high, np.float32(0))
            out[cell] = away * away
        else:
            out[cell] = min(-query * low, -query * high)


@compiled
def scan_wide(
    records: NDArray[np.uint8],
    positions: NDArray[np.uint32],
    lanes: NDArray[np.uint8],
    places: NDArray[np.int64],
    tables: NDArray[np.uint8],
    base: float,
    step: float,
    out: NDArray[np.float32],
) -> None:
    """Write ``base + step * sum`` of the records at some positions; only where :func:`.osq_simd.wide` says so."""
    rows, sums = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    scratch = np.empty((ROWS // 8) * (((records.shape[1] + 63) // 64) * 1024 + 64), np.uint8)
    _scan_wide(records, positions, lanes, places, tables, base, step, rows, sums, scratch, out)


@compiled
def _scan_wide(
    records: NDArray[np.uint8],
    positions: NDArray[np.uint32],
    lanes: NDArray[np.uint8],
    places: NDArray[np.int64],
    tables: NDArray[np.uint8],
    base: float,
    step: float,
    rows: NDArray[np.int64],
    sums: NDArray[np.int64],
    scratch: NDArray[np.uint8],
    out: NDArray[np.float32],
) -> None:
    size, count = records.shape[1], positions.shape[0]
    first = records.ctypes.data
    for i in range(0, count, ROWS):
        for j in range(ROWS):
            rows[j] = first + np.int64(positions[min(i + j, count - 1)]) * size
            ahead = first + np.int64(positions[min(i + j + AHEAD, count - 1)]) * size
            for line in range(0, size, 64):
                prefetch(ahead + line)
        sum_rows(
            rows.ctypes.data,
            size,
            lanes.ctypes.data,
            places.ctypes.data,
            lanes.shape[0],
            tables.ctypes.data,
            scratch.ctypes.data,
            sums.ctypes.data,
        )
        for j in range(min(ROWS, count - i)):
            out[i + j] = np.float32(base + step * sums[j])


@compiled
def scan(
    records: NDArray[np.uint8],
    positions: NDArray[np.uint32],
    lanes: NDArray[np.uint8],
    places: NDArray[np.int64],
    tables: NDArray[np.uint8],
    base: float,
    step: float,
    out: NDArray[np.float32],
) -> None:
    """What :func:`scan_wide` does, on any processor."""
    size, groups = records.shape[1], lanes.shape[0]
    record = np.zeros(size + 8, np.uint8)
    # lanes as the words that the loop wants, and entries in one piece
    plan = np.empty((groups, 4, 8), np.uint64)
    for group in range(groups):
        for lane in range(8):
            for part in range(3):
                plan[group, part, lane] = np.uint64(lanes[group, part, lane])
            start = (places[group, 1] + lanes[group, 4, lane]) * 128 + lanes[group, 3, lane]
            plan[group, 3, lane] = np.uint64(start)
    one, at = np.uint64(1), np.empty(8, np.uint64)
    entries = np.empty(tables.shape[0] * 128, np.int32)
    for chunk in range(tables.shape[0]):
        for i in range(128):
            entries[chunk * 128 + i] = np.int32(tables[chunk, 0, i]) + (np.int32(tables[chunk, 1, i]) << 8)
    for i in range(positions.shape[0]):
        row = records[positions[i]]
        for byte in range(size):
            record[byte] = row[byte]
        total = np.int64(0)
        for group in range(groups):
            bit = places[group, 0]
            word = word_at(record.ctypes.data + (bit >> 3)) >> np.uint64(bit & 7)
            tops = np.uint64(record[group])
            mine = plan[group]
            for lane in range(8):
                top = (np.uint64(0) - ((tops >> np.uint64(lane)) & one)) & mine[2, lane]
                at[lane] = ((word >> mine[0, lane]) & mine[1, lane]) + top + mine[3, lane]
            for lane in range(8):
                total += entries[at[lane]]  # unsigned: Numba need not think of negative places
        out[i] = np.float32(base + step * total)


@compiled
def differing(
    records: NDArray[np.uint8],
    positions: NDArray[np.uint32],
    signs: NDArray[np.uint8],
    planes: NDArray[np.uint8],
    out: NDArray[np.int32],
) -> None:
    """For records at some positions, the weight of the top bits that differ from a query's: int32.

    signs: uint8 (blocks, 32), the query's top bits; planes: uint8 (blocks, PLANES, 32), bit p of each one's weight.
    """
    _differing(records, positions, signs, planes, np.zeros(signs.size, np.uint8), out)


@compiled
def _differing(
    records: NDArray[np.uint8],
    positions: NDArray[np.uint32],
    signs: NDArray[np.uint8],
    planes: NDArray[np.uint8],
    scratch: NDArray[np.uint8],
    out: NDArray[np.int32],
) -> None:
    count, size, read = positions.shape[0], records.shape[1], signs.size
    first = records.ctypes.data
    safe = records.size - read  # a block may be longer than a record, and must not reach beyond the last
    for i in range(count):
        prefetch(first + np.int64(positions[min(i + AHEAD, count - 1)]) * size)
        at = np.int64(positions[i]) * size
        start = first + at
        if at > safe:
            for byte in range(min(size, read)):
                scratch[byte] = records[positions[i], byte]
            start = scratch.ctypes.data
        out[i] = np.int32(weigh(start, signs.ctypes.data, planes.ctypes.data, signs.shape[0]))
