"""Optimised scalar quantisation: each partition's rows along its own axes, each axis with bits as it needs them.

OSQ as in SQUASH (arXiv 2502.01528): a rotation to uncorrelated coordinates (:mod:`.klt`), bits by variance
(:mod:`.allocation`), cells by Lloyd (:mod:`.lloyd`), and codes joined without gaps into one run of bytes a row. Two
things are other than there. The top bits of all dimensions stand first: they say on which side of its middle boundary
a coordinate is, so the record's start is the binary code that SQUASH keeps beside it. And an estimate is the expected
distance to a row of the same cells, spread inside them included, so that it is unbiased; the lower bound is for
certainty.

A query makes tables for a partition, and :class:`Tables` ranks any of the partition's rows by them. Distances are
squared Euclidean (cosine: over normalised rows) or minus the inner product. Bounds need to know how far a partition's
rows reach along each axis: :func:`encoded` says so. Along an axis the inner product is linear, so its least in a cell
is at an end of the cell, and the sum of those bounds the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from .allocation import allocated
from .background import shared_out
from .klt import klt, turn_query, turned
from .lloyd import cells_of, first_cells
from .osq_kernels import ESTIMATE, ESTIMATE_INNER, differing, fill_tables, pack, scan, scan_wide
from .osq_simd import PLANES, wide

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Osq", "Part", "Tables", "cells", "decoded", "encoded", "part", "rebuilt", "tables", "trained"]

SAMPLE_ROWS: Final = 32_768
"""Rows of a partition that its axes are learnt from."""
CELL_ROWS: Final = 16_384
"""Those of them that cells are learnt from."""
BLOCK_ROWS: Final = 2_048
HEAVIEST: Final = 0.98
"""The quantile of weights from which all count the same: few would leave the others no room."""


@dataclass(frozen=True, slots=True)
class Part:
    """How the rows of one partition are coded.

    mean, axes: see :class:`.klt.Klt`; bits: uint8 (dim,), never rising; first: int64 (dim + 1,), each dimension's cells
    among ``cells``, float32 (3, all): lower boundaries, values, mean squared distances to the value. gaps: float32
    (dim,), how far the means of the upper and of the lower half of the cells lie apart; energy: float32 (1,), the mean
    squared distance of rows to the mean. lanes, places: how a record is read, see :mod:`.osq_kernels`; they follow from
    bits.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    bits: NDArray[np.uint8]
    first: NDArray[np.int64]
    cells: NDArray[np.float32]
    gaps: NDArray[np.float32]
    energy: NDArray[np.float32]
    lanes: NDArray[np.uint8]
    places: NDArray[np.int64]

    @property
    def coded(self) -> int:
        """Dimensions that have a bit at least: the first ones."""
        return int(np.count_nonzero(self.bits))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in self.__slots__)


@dataclass(frozen=True, slots=True)
class Osq:
    """How rows are coded: a part for each partition, all with records of the same length."""

    parts: tuple[Part, ...]
    record_bytes: int

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(each.nbytes for each in self.parts)


@dataclass(frozen=True, slots=True)
class Tables:
    """What ranks one partition's rows for one query; see :func:`tables`.

    query: float32 (dim,), along the axes, off the mean or, ``inner``, of itself; centre: then the mean's own distance.
    """

    part: Part
    entries: NDArray[np.uint8]
    base: float
    step: float
    query: NDArray[np.float32]
    inner: bool
    centre: float

    def scores(self, records: NDArray[np.uint8], positions: NDArray[np.uint32]) -> NDArray[np.float32]:
        """The estimate or bound of the rows at some positions of ``records``, uint8 (n, record_bytes), C-contiguous."""
        out = np.empty(len(positions), np.float32)
        of = _scan()
        of(records, positions, self.part.lanes, self.part.places, self.entries, self.base, self.step, out)
        return out

    def differences(self, records: NDArray[np.uint8], positions: NDArray[np.uint32]) -> NDArray[np.int32]:
        """How many top bits of a partition's rows differ from the query's: the Hamming distance of SQUASH."""
        signs, weights, _, _ = self._first_look()
        out = np.empty(len(positions), np.int32)
        differing(records, positions, *_planes(signs, np.ones_like(weights)), out)
        return out

    def first_look(self, records: NDArray[np.uint8], positions: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Rough estimates by top bits alone, which may be compared across partitions; for few of the bytes and time.

        A bit that differs counts for what it changes: much where the query lies far from the middle boundary and the
        means on its sides far from each other. Costs what :meth:`differences` does.
        """
        signs, weights, base, step = self._first_look()
        out = np.empty(len(positions), np.int32)
        differing(records, positions, *_planes(signs, weights), out)
        return (base + step * out).astype(np.float32)

    def _first_look(self) -> tuple[NDArray[np.bool_], NDArray[np.int64], float, float]:
        """The query's top bits, their weights, and (base, step): an estimate is ``base + step * differing weight``."""
        coded, part = self.part.coded, self.part
        query, gaps = self.query[:coded].astype(np.float64), part.gaps[:coded]
        middle = part.cells[0, part.first[:coded] + ((1 << part.bits[:coded].astype(np.int64)) >> 1)]
        away = query if self.inner else 2 * (query - middle)
        gain, signs = np.abs(away) * gaps, away >= 0
        top = max(float(np.quantile(gain, HEAVIEST)), 1e-30) if coded else 1.0
        step = top / ((1 << PLANES) - 1)
        weights = np.rint(np.minimum(gain / top, 1) * ((1 << PLANES) - 1)).astype(np.int64)
        agreed = float(query @ (middle + np.where(signs, 0.5, -0.5) * gaps))  # were all rows on the query's sides
        rest = float((gain - step * weights).sum()) / 2  # what weights leave out counts for every other row
        if self.inner:
            return signs, weights, self.centre - agreed + rest, step
        base = float(self.query @ self.query + part.energy[0]) - 2 * agreed + rest
        return signs, weights, base, step


def _planes(signs: NDArray[np.bool_], weights: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What :func:`.osq_kernels.differing` takes, of bits and their weights."""
    coded = len(signs)
    packed = np.zeros((PLANES + 1, -(-coded // 256) * 32), np.uint8)
    for to, each in zip(packed, (signs, *(weights >> plane & 1 for plane in range(PLANES))), strict=True):
        to[: -(-coded // 8)] = np.packbits(each.astype(np.uint8), bitorder="little")
    planes = packed[1:].reshape(PLANES, -1, 32).transpose(1, 0, 2)
    return packed[0].reshape(-1, 32), np.ascontiguousarray(planes)


def trained(vectors: NDArray[np.float32], bounds: NDArray[np.int64], *, bits: float, seed: int, threads: int) -> Osq:
    """How to code ``vectors``, float32 (n, dim), of which partition p is ``bounds[p]`` to ``bounds[p + 1]``.

    bits: 1 to 8, a dimension in the mean, so ``round(bits * dim)`` a row. The same for one seed whatever ``threads``
    is. A partition without rows gets axes and cells all the same.
    """
    seeds = np.random.default_rng(seed).integers(0, 2**62, len(bounds) - 1).tolist()
    budget = round(bits * vectors.shape[1])
    parts: dict[int, Part] = {}

    def one(number: int) -> None:
        random = np.random.default_rng(seeds[number])
        rows = np.arange(bounds[number], bounds[number + 1], dtype=np.int64)
        if len(rows) > SAMPLE_ROWS:
            rows = np.sort(random.choice(rows, SAMPLE_ROWS, replace=False))
        axes = klt(vectors, rows)
        some = rows if len(rows) <= CELL_ROWS else np.sort(random.choice(rows, CELL_ROWS, replace=False))
        parts[number] = part(vectors[some], axes.mean, axes.axes, allocated(axes.variances, budget))

    shared_out(one, range(len(seeds)), threads)
    return Osq(tuple(parts[number] for number in range(len(seeds))), -(-budget // 8))


def part(
    sample: NDArray[np.float32], mean: NDArray[np.float32], axes: NDArray[np.float32], bits: NDArray[np.uint8]
) -> Part:
    """A part whose cells are learnt from sample rows, float32 (n, dim). bits: uint8 (dim,), never rising."""
    coordinates = turned(sample, mean, axes) if len(sample) else np.zeros((1, len(mean)), np.float32)
    columns, first = np.sort(np.ascontiguousarray(coordinates.T), axis=1), first_cells(bits)
    found = np.stack(cells_of(columns, bits))
    upper = columns >= found[0, first[:-1] + (1 << bits.astype(np.int64) >> 1)][:, None]
    means = [np.where(half, columns, 0).sum(axis=1) / np.maximum(half.sum(axis=1), 1) for half in (upper, ~upper)]
    energy = np.array([np.einsum("ij,ij->", columns, columns, dtype=np.float64) / columns.shape[1]], np.float32)
    return rebuilt(mean, axes, bits, found, (means[0] - means[1]).astype(np.float32), energy)


def rebuilt(
    mean: NDArray[np.float32],
    axes: NDArray[np.float32],
    bits: NDArray[np.uint8],
    cells: NDArray[np.float32],
    gaps: NDArray[np.float32],
    energy: NDArray[np.float32],
) -> Part:
    """A part from what a file has to keep of it: the rest follows from its bits."""
    return Part(mean, axes, bits, first_cells(bits), cells, gaps, energy, *_plan(bits))


def _plan(bits: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """``lanes`` and ``places`` of these bits.

    As bits never rise, tables that follow each other start at multiples of their own size: none straddles a chunk.
    """
    coded = int(np.count_nonzero(bits))
    groups = -(-coded // 8)
    lanes, places = np.zeros((groups, 5, 8), np.uint8), np.zeros((groups + 1, 2), np.int64)
    bit, chunk = coded, 0
    for group in range(groups):
        places[group] = bit, chunk
        within, entry = 0, 0
        for lane, width in enumerate(bits[8 * group : min(8 * group + 8, coded)].tolist()):
            lower = width - 1
            lanes[group, :, lane] = within, (1 << lower) - 1, 1 << lower, entry & 127, entry >> 7
            within += lower
            entry += 1 << width
        bit += within
        chunk += -(-entry // 128)
    places[groups] = bit, chunk
    return lanes, places


def encoded(
    osq: Osq, vectors: NDArray[np.float32], bounds: NDArray[np.int64], *, threads: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The records of ``vectors``, uint8 (n, record_bytes), and how far each partition reaches along its axes.

    The latter is float32 (partitions, dim, 2), least and greatest coordinate; of a partition without rows, zeros.
    """
    records = np.zeros((len(vectors), osq.record_bytes), np.uint8)
    reach = np.zeros((len(osq.parts), vectors.shape[1], 2), np.float32)
    reach[np.diff(bounds) > 0] = np.float32(np.inf), np.float32(-np.inf)

    def one(number: int) -> None:
        to = osq.parts[number]
        for start in range(int(bounds[number]), int(bounds[number + 1]), BLOCK_ROWS):
            rows = slice(start, min(start + BLOCK_ROWS, int(bounds[number + 1])))
            coordinates = turned(vectors[rows], to.mean, to.axes)
            pack(coordinates, to.bits, to.first, to.cells[0], records[rows], reach[number])

    shared_out(one, range(len(osq.parts)), threads)
    return records, reach


def tables(
    part: Part,
    query: NDArray[np.float32],
    *,
    inner: bool = False,
    reach: NDArray[np.float32] | None = None,
) -> Tables:
    """What ranks a partition's rows for ``query``, float32 (dim,): by estimates, or given their reach by lower bounds.

    Estimates and bounds are of the squared distance, or, ``inner``, of minus the inner product. A bound is above the
    truth by rounding alone: of coordinates, boundaries and sums, which are float32, by at most 1e-5 of
    |query - mean|² + |row - mean|², or ``inner`` of |query| * (|mean| + |row - mean|).
    """
    coordinates = turn_query(query, part.mean, part.axes, not inner)
    kind = ESTIMATE_INNER if inner else ESTIMATE
    entries = np.zeros((int(part.places[-1, 1]), 2, 128), np.uint8)
    ends = np.empty((len(query), 2), np.float32)
    ends[:] = (-np.inf, np.inf) if reach is None else reach
    kind += 2 * (reach is not None)
    base, step = fill_tables(
        kind, coordinates, part.bits, part.first, part.cells, ends, part.lanes, part.places, entries
    )
    centre = -float(query.astype(np.float64) @ part.mean) if inner else 0.0
    return Tables(part, entries, base + centre, step, coordinates, inner, centre)


def cells(part: Part, records: NDArray[np.uint8], dimension: int) -> NDArray[np.int64]:
    """The cell of each record in one dimension, counted from 0: any dimension's can be read alone."""
    width = int(part.bits[dimension])
    if width == 0:
        return np.zeros(len(records), np.int64)
    group, lane = dimension // 8, dimension % 8
    top = records[:, group].astype(np.int64) >> lane & 1
    bit = int(part.places[group, 0]) + int(part.lanes[group, 0, lane])
    low = np.zeros(len(records), np.int64)
    for shift, byte in enumerate(range(bit >> 3, (bit + width - 1 + 7) >> 3)):
        low |= records[:, byte].astype(np.int64) << 8 * shift
    return top << width - 1 | (low >> (bit & 7)) & (1 << width - 1) - 1


def decoded(part: Part, records: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The vectors that records stand for: float32 (n, dim)."""
    dim = len(part.bits)
    columns = [part.cells[1, part.first[j] + cells(part, records, j)] for j in range(dim)]
    return np.stack(columns, axis=1) @ part.axes + part.mean


@cache
def _scan() -> Callable[..., None]:
    """The scan for this processor."""
    return scan_wide if wide() else scan
