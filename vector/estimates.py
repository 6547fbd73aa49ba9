"""How far estimates by codes are off: what the budget of a segment is fitted on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import carray  # type: ignore[attr-defined]

from ..lake.kernels import compiled
from .code_simd import estimate
from .codes import quantise, query_length
from .scoring import (
    BITS,
    BLOCKS,
    DIM,
    DIMS,
    INNER,
    MEAN,
    METRIC,
    RECORDS,
    SHIFTS,
    SIGNS,
    TURNS,
    VECTORS,
    comparable,
    distance_of,
)
from .simd import float_at, pointer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["estimate_ranks", "rows_within"]


@compiled
def estimate_ranks(
    query: NDArray[np.float32],
    table: NDArray[np.int64],
    positions: NDArray[np.uint32],
    targets: NDArray[np.int64],
    out_rows: NDArray[np.int64],
    out_terms: NDArray[np.float64],
) -> None:
    """For each target, an index into the list, how many rows of the list have a better estimate.

    And to ``out_terms``, (targets, 3): the estimate, what it would be without error, and of what it errs by a share.
    """
    dim, dims, bits, metric = table[DIM], table[DIMS], table[BITS], table[METRIC]
    blocks = table[BLOCKS]
    mean = carray(pointer(table[MEAN]), dim, np.float32)
    signs = carray(pointer(table[SIGNS]), (table[TURNS], dims), np.float32)
    planes, estimates = np.empty(blocks * 16, np.uint64), np.empty(positions.shape[0], np.float32)
    c1, c2 = quantise(query, mean, signs, bits, metric != INNER, planes)
    offset, factor = np.float32(c1), np.float32(c2)
    slope, shift, length = comparable(table, query, c2)
    for i in range(positions.shape[0]):
        record = table[RECORDS] + np.int64(positions[i]) * (blocks * 32 + 8)
        estimates[i] = estimate(record, planes.ctypes.data, blocks, table[SHIFTS], offset, factor)
    for i in range(targets.shape[0]):
        own, better = estimates[targets[i]], 0
        for other in estimates:
            better += other < own
        out_rows[i] = better
        row = np.int64(positions[targets[i]])
        distance = distance_of(metric, query.ctypes.data, table[VECTORS] + row * dim * 4, dim)
        tail = table[RECORDS] + row * (blocks * 32 + 8) + blocks * 32
        out_terms[i, 0], out_terms[i, 1] = own, slope * distance + shift
        out_terms[i, 2] = length * float_at(tail + 4)


@compiled
def rows_within(
    query: NDArray[np.float32],
    table: NDArray[np.int64],
    positions: NDArray[np.uint32],
    truth: float,
    bands: NDArray[np.float64],
    out_rows: NDArray[np.int64],
) -> None:
    """For each band, how many rows of a list may be as near as a row whose estimate without error is ``truth``."""
    blocks, dims = table[BLOCKS], table[DIMS]
    mean = carray(pointer(table[MEAN]), table[DIM], np.float32)
    signs = carray(pointer(table[SIGNS]), (table[TURNS], dims), np.float32)
    planes = np.empty(blocks * 16, np.uint64)
    c1, c2 = quantise(query, mean, signs, table[BITS], table[METRIC] != INNER, planes)
    offset, factor, length = np.float32(c1), np.float32(c2), query_length(c2, dims)
    out_rows[:] = 0
    for i in range(positions.shape[0]):
        record = table[RECORDS] + np.int64(positions[i]) * (blocks * 32 + 8)
        own = estimate(record, planes.ctypes.data, blocks, table[SHIFTS], offset, factor)
        reach = length * float_at(record + blocks * 32 + 4)
        for j in range(bands.shape[0]):
            out_rows[j] += own - bands[j] * reach <= truth
