"""Ranking rows by fine codes, where a search asks for it: what :func:`.scoring.rank` calls in place of reading vectors.

It is called by address, so that the kernels of a usual search neither know these nor wait for them to be compiled. A
look (:class:`.fine.Look`) is one search's: it holds the tables of the query that was ranked for last, made when the
next one comes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]

from ..lake.kernels import called_back, compiled
from .candidates import offer
from .klt import turn_query
from .osq_kernels import ESTIMATE, ESTIMATE_INNER, fill_tables, scan, scan_wide
from .osq_simd import wide
from .scoring import COSINE, DIM, FIELDS, IDS, INNER, LOOK, METRIC, ROWS, rank
from .simd import pointer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LOOK_FIELDS", "rank_each", "ranker"]

LOOK_FIELDS: Final = 16
(QUERY, ENTRIES, SUMS, RECORDS, MEAN, AXES, WIDTHS, FIRST, CELLS, LANES, PLACES) = range(11)
(RECORD_BYTES, CELL_COUNT, GROUPS, CHUNKS, BY_PLACE) = range(11, LOOK_FIELDS)
"""Of a look: the address of the query that its tables are for, addresses of arrays as :class:`.osq.Part` and
:class:`.osq.Tables` have them, their sizes, and 1 if rows are to be named by their positions in place of ids."""
_scan_rows = scan_wide if wide() else scan


@compiled
def _look_at(look: NDArray[np.int64], query: NDArray[np.float32], inner: bool) -> None:
    """Make the tables of a query."""
    dim, count, groups = query.shape[0], look[CELL_COUNT], look[GROUPS]
    mean, axes = carray(pointer(look[MEAN]), dim, np.float32), carray(pointer(look[AXES]), (dim, dim), np.float32)
    entries = carray(pointer(look[ENTRIES]), (look[CHUNKS], 2, 128), np.uint8)
    sums = carray(pointer(look[SUMS]), 2, np.float64)
    base, step = fill_tables(
        ESTIMATE_INNER if inner else ESTIMATE,
        turn_query(query, mean, axes, not inner),
        carray(pointer(look[WIDTHS]), dim, np.uint8),
        carray(pointer(look[FIRST]), dim + 1, np.int64),
        carray(pointer(look[CELLS]), (3, count), np.float32),
        np.zeros((dim, 2), np.float32),  # estimates have no use for it
        carray(pointer(look[LANES]), (groups, 5, 8), np.uint8),
        carray(pointer(look[PLACES]), (groups + 1, 2), np.int64),
        entries,
    )
    centre = 0.0
    if inner:
        for i in range(dim):
            centre -= np.float64(query[i]) * np.float64(mean[i])
    sums[0], sums[1] = base + centre, step
    look[QUERY] = query.ctypes.data


@compiled
def _rank(
    table: NDArray[np.int64],
    look: NDArray[np.int64],
    query: NDArray[np.float32],
    places: NDArray[np.uint32],
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> None:
    metric, groups = table[METRIC], look[GROUPS]
    if look[QUERY] != query.ctypes.data:
        _look_at(look, query, metric == INNER)
    sums, ids = carray(pointer(look[SUMS]), 2, np.float64), carray(pointer(table[IDS]), table[ROWS], np.int64)
    records = carray(pointer(look[RECORDS]), (table[ROWS], look[RECORD_BYTES]), np.uint8)
    lanes = carray(pointer(look[LANES]), (groups, 5, 8), np.uint8)
    groups_at = carray(pointer(look[PLACES]), (groups + 1, 2), np.int64)
    entries = carray(pointer(look[ENTRIES]), (look[CHUNKS], 2, 128), np.uint8)
    distances = np.empty(places.shape[0], np.float32)
    _scan_rows(records, places, lanes, groups_at, entries, sums[0], sums[1], distances)
    for i in range(places.shape[0]):
        distance = distances[i]
        if metric != INNER:
            distance = max(distance, np.float32(0))
        if metric == COSINE:
            distance *= np.float32(0.5)  # of unit vectors
        if distance <= best_distances[best_distances.shape[0] - 1]:
            row = np.int64(places[i]) if look[BY_PLACE] else ids[places[i]]
            offer(best_ids, best_distances, row, distance)


@compiled
def rank_each(
    queries: NDArray[np.float32],
    table: NDArray[np.int64],
    found: NDArray[np.int64],
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> None:
    """Offer the rows at some positions for each query, int64 (m, few), -1 for none, by their true distances."""
    ids, places = carray(pointer(table[IDS]), table[ROWS], np.int64), np.empty(found.shape[1], np.uint32)
    for turn in range(queries.shape[0]):
        count = 0
        for i in range(found.shape[1]):
            if found[turn, i] >= 0:
                places[count] = found[turn, i]
                count += 1
        query = queries[turn]
        rank(table, query.ctypes.data, places, count, ids, best_ids[turn], best_distances[turn])


def _rank_at(table_at: int, query_at: int, places_at: int, count: int, ids_at: int, distances_at: int, k: int) -> int:
    """As :func:`.scoring.rank`, of addresses."""
    table = carray(pointer(table_at), FIELDS, np.int64)
    look = carray(pointer(table[LOOK]), LOOK_FIELDS, np.int64)
    query, places = carray(pointer(query_at), table[DIM], np.float32), carray(pointer(places_at), count, np.uint32)
    if count > 0:
        best_ids, apart = carray(pointer(ids_at), k, np.int64), carray(pointer(distances_at), k, np.float32)
        _rank(table, look, query, places, best_ids, apart)
    return 0


@cache
def ranker() -> Any:
    """What ranks by fine codes: a C function of seven int64, compiled or loaded now."""
    return called_back(_rank_at, types.int64(*(types.int64,) * 7))
