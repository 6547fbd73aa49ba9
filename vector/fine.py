"""Fine codes of a segment's rows: OSQ of as many bits as the user asked for, which rank in place of vectors.

A segment is one partition: axes for each part of it bring next to nothing on text and words, take an eighth of the
codes' bytes, and want tables of their own for every query (``benchmarks/results/vector_codes.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..lake.errors import InvalidInput
from ..lake.limits import VECTOR_BITS
from .fine_rank import LOOK_FIELDS, ranker
from .metrics import Metric
from .osq import BLOCK_ROWS, Osq, Part, decoded, encoded, tables, trained
from .scoring import LOOK, RANKER

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from .segment import Rows

__all__ = ["USUAL_DEPTH", "Fine", "Look", "coded_finely", "depth_fitted"]

CODED_ROWS: Final = 8 * BLOCK_ROWS
"""Rows that a thread codes at a time."""
SAMPLE_QUERIES: Final = 64
RECALL: Final = 0.99
"""Of what was ranked by codes, among the rows compared by vectors."""
LEAST_DEPTH, MOST_DEPTH = 1.5, 30.0
USUAL_DEPTH: Final = 3.0
"""Where it is not fitted: few rows, or no vectors to compare."""
DEEP_K: Final = 100
"""Rows beyond k are in proportion to k up to this, for the order of far neighbours errs by no more of them."""

CANDIDATES_EACH: Final = 5
"""Rows ranked by codes for one that is compared by its vector, where ``ef`` says how many."""


@dataclass(frozen=True, slots=True, eq=False)
class Fine:
    """records uint8 (n, record_bytes) as ``part`` codes them; ``depth``: rows to compare by vectors for each neighbour
    that is wanted.
    """

    part: Part
    records: NDArray[np.uint8]
    depth: float
    fields: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        part = self.part
        arrays = (self.records, part.mean, part.axes, part.bits, part.first, part.cells, part.lanes, part.places)
        sizes = (self.records.shape[1], part.cells.shape[1], len(part.lanes), int(part.places[-1, 1]))
        fields = np.array([0, 0, 0, *(array.ctypes.data for array in arrays), *sizes, 0], np.int64)
        assert len(fields) == LOOK_FIELDS
        object.__setattr__(self, "fields", fields)

    @property
    def nbytes(self) -> int:
        """Bytes of records and of what they are read by."""
        return self.records.nbytes + self.part.nbytes

    def few(self, k: int, ef: int | None) -> int:
        """How many of the best by codes to compare by vectors for k neighbours."""
        more = k + round((self.depth - 1) * min(k, DEEP_K))
        return more if ef is None else max(more, ef // CANDIDATES_EACH)

    def decoded(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors that records stand for, float32 (m, dim)."""
        out = np.empty((len(positions), len(self.part.mean)), np.float32)
        for start in range(0, len(positions), BLOCK_ROWS):
            some = slice(start, start + BLOCK_ROWS)
            out[some] = decoded(self.part, self.records[positions[some]])
        return out


class Look:
    """A unit's table for one search of one thread, which ranks by fine codes.

    ``by_place``: what it finds are positions in place of ids.
    """

    __slots__ = ("_fine", "entries", "fields", "sums", "table")

    def __init__(self, rows: Rows, fine: Fine, by_place: bool = False) -> None:
        self._fine, self.fields, self.table = fine, fine.fields.copy(), rows.table.copy()
        self.entries = np.zeros((int(fine.part.places[-1, 1]), 2, 128), np.uint8)
        self.sums = np.empty(2)
        self.fields[1:3] = self.entries.ctypes.data, self.sums.ctypes.data
        self.fields[-1] = by_place
        self.table[RANKER], self.table[LOOK] = ranker().address, self.fields.ctypes.data


def coded_finely(
    vectors: NDArray[np.float32], bits: int, seed: int, threads: int, part: Part | None = None
) -> tuple[Part, NDArray[np.uint8]]:
    """Axes and cells for ``vectors``, float32 (n, dim), learnt now if there is no ``part`` yet, and their records."""
    rows = len(vectors)
    if part is None:
        part = trained(vectors, np.array([0, rows]), bits=bits, seed=seed, threads=threads).parts[0]
    bounds = np.append(np.arange(0, rows, CODED_ROWS), rows)  # the same part for all, so that threads share them
    blocks = Osq((part,) * (len(bounds) - 1), -(-bits * vectors.shape[1] // 8))
    return part, encoded(blocks, vectors, bounds, threads=threads)[0]


def depth_fitted(
    rows: Rows,
    part: Part,
    records: NDArray[np.uint8],
    neighbours: Callable[[NDArray[np.uint32], NDArray[np.int64]], NDArray[np.int64]],
    seed: int,
) -> float:
    """How many rows by codes hold the true neighbours of some rows, for each of these.

    ``neighbours(positions, queries)`` are the indexes into ``positions`` of each query row's true neighbours.
    """
    count = len(rows.ids)
    if count < 4 * SAMPLE_QUERIES:
        return USUAL_DEPTH
    everything = np.arange(count, dtype=np.uint32)
    queries = np.sort(np.random.default_rng(seed).choice(count, SAMPLE_QUERIES, replace=False))
    found, ranks = neighbours(everything, queries), []
    for query, near in zip(queries.tolist(), found, strict=True):
        of = tables(part, rows.vectors[query], inner=rows.metric is Metric.IP)
        scores = of.scores(records, everything)
        scores[query] = np.inf
        ranks += [int(np.count_nonzero(scores < own)) + 1 for own in scores[near].tolist()]
    depth = float(np.quantile(ranks, RECALL)) / found.shape[1]
    return float(np.clip(depth, LEAST_DEPTH, MOST_DEPTH))


def checked_bits(bits: Any) -> int | None:
    """The bits of a dimension; None stands for no such codes."""
    if bits is None:
        return None
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or not 1 <= bits <= VECTOR_BITS:
        raise InvalidInput(f"bits {bits!r}: expected a whole number from 1 to {VECTOR_BITS}, or None for vectors alone")
    return int(bits)


def checked_kept(keep_vectors: Any, bits: Any) -> bool:
    """Whether vectors are kept; without them there must be codes."""
    if not isinstance(keep_vectors, bool):
        raise InvalidInput(f"keep_vectors {keep_vectors!r}: expected True or False")
    if not keep_vectors and bits is None:
        raise InvalidInput("keep_vectors=False without bits leaves nothing to search; say bits=8, or fewer, as well")
    return keep_vectors
