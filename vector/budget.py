"""How much of a list a search has to look at: fitted on the rows themselves when a segment is made.

For a sample of rows as queries the true neighbours are computed, over all rows and over lists thinned out as tenants'
are. How many rows best-first scores until it has met a neighbour, and how many rows have a better estimate than it, are
read off at a stated share of all neighbours; between the lengths tried a power law holds well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .best_first import walk_ranks
from .scoring import estimate_ranks
from .subtree import subtree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .segment import Rows

__all__ = ["Budget", "fitted", "whole"]

SAMPLE_QUERIES: Final = 512
NEIGHBOURS: Final = 10
WALK_RECALL: Final = 0.966
RANK_RECALL: Final = 0.99
THIN: Final = 5
LEAST_ROWS: Final = 256
"""Shorter lists are scored whole."""
LEAST_CANDIDATES: Final = 24


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """Rows to score and candidates to rank at some lengths of a list, each float64 (points,), lengths ascending."""

    lengths: NDArray[np.float64]
    scored: NDArray[np.float64]
    ranked: NDArray[np.float64]

    def rows(self, length: int) -> float:
        """Rows to score of a list, for ten neighbours."""
        return _between(length, self.lengths, self.scored)

    def candidates(self, length: int) -> float:
        """Candidates to rank by their true distance, for ten neighbours."""
        return _between(length, self.lengths, self.ranked)


def _between(length: int, lengths: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """The value at a length on lines through the points, all in logarithms; the end points' beyond them."""
    return float(np.exp(np.interp(np.log(length), np.log(lengths), np.log(values))))


def whole() -> Budget:
    """For rows of which nothing is known: score all, rank a hundred."""
    return Budget(np.array([1.0, 1e12]), np.array([1.0, 1e12]), np.array([100.0, 100.0]))


def fitted(rows: Rows, cap_rows: int, seed: int) -> Budget:
    """The budget for the rows of a segment in tree order."""
    count = len(rows.ids)
    if count < LEAST_ROWS:
        return whole()
    random = np.random.default_rng(seed)
    queries = np.sort(random.choice(count, min(SAMPLE_QUERIES, count), replace=False))
    points: list[tuple[float, float, float]] = []
    length = count
    while length >= LEAST_ROWS or not points:
        some = np.arange(count) if length == count else np.sort(random.choice(count, length, replace=False))
        walked, ranked = _needed(rows, some.astype(np.uint32), queries, cap_rows)
        candidates = max(float(np.quantile(ranked, RANK_RECALL)) + 1.0, LEAST_CANDIDATES)
        points.append((length, float(np.quantile(walked, WALK_RECALL)), candidates))
        length //= THIN
    lengths, scored, candidates_at = np.array(points[::-1]).T
    return Budget(lengths.copy(), np.maximum.accumulate(scored), np.maximum.accumulate(candidates_at))


def _needed(
    rows: Rows, some: NDArray[np.uint32], queries: NDArray[np.int64], cap_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each neighbour of each query in a list: rows scored until best-first met it, rows with a better estimate."""
    nearest = _neighbours(rows, some, queries)
    split = subtree(some, rows.nodes, cap_rows)
    walked, ranked = np.full(nearest.shape, len(some), np.int64), np.empty(nearest.shape, np.int64)
    nodes = rows.nodes
    for turn, query in enumerate(queries):
        walk_ranks(rows.vectors[query], nodes.codes, nodes.scale, nodes.bias, split, nearest[turn], walked[turn])
        estimate_ranks(rows.vectors[query], rows.table, some, nearest[turn], ranked[turn])
    return walked.reshape(-1), ranked.reshape(-1)


def _neighbours(rows: Rows, some: NDArray[np.uint32], queries: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indexes into ``some`` of the nearest of each query, itself left out: int64 (queries, NEIGHBOURS at most)."""
    wanted = rows.vectors[queries]
    found = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    for first in range(0, len(some), 65_536):
        part = some[first : first + 65_536]
        block = rows.vectors[part]
        score = -2.0 * (wanted @ block.T)
        if rows.metric.name != "IP":
            score += np.einsum("ij,ij->i", block, block)
        score[part[None, :] == queries[:, None]] = np.inf
        scores = np.concatenate([scores, score], axis=1)
        found = np.concatenate([found, np.broadcast_to(np.arange(first, first + len(part)), score.shape)], axis=1)
        best = np.argpartition(scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        scores, found = np.take_along_axis(scores, best, 1), np.take_along_axis(found, best, 1)
    return np.ascontiguousarray(found)
