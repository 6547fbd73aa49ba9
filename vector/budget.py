"""How much of a list a search has to look at: fitted on the rows themselves when a segment is made.

For a sample of rows as queries the true neighbours are computed, over all rows and over some lists of each length:
those of tenants, for it matters whether theirs lie together, or where none has that length, rows thinned out. How many
rows best-first scores until it has met a neighbour, and how many rows have a better estimate than it, are read off at a
stated share of all neighbours; between the lengths tried a power law holds well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .best_first import walk_ranks
from .metrics import Metric
from .products import nearest
from .scoring import estimate_ranks
from .subtree import subtree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .postings import FrozenPostings
    from .segment import Rows

__all__ = ["Budget", "fitted", "true_neighbours", "whole"]

SAMPLE_QUERIES: Final = 512
NEIGHBOURS: Final = 10
WALK_RECALL: Final = 0.96
RANK_RECALL: Final = 0.99
"""Of what was scored, where not all was;"""
WHOLE_RECALL: Final = 0.97
"""and where all was."""
THIN: Final = 5
"""From one length to the next."""
LISTS: Final = 4
"""Of a length, among which the queries are shared out."""
NEARLY_ALL: Final = 0.9
"""Lists of a greater share of the rows are searched as all rows are."""
BLOCK_ROWS: Final = 65_536
"""Rows that queries are compared with at a time."""
LEAST_ROWS: Final = 64
"""Shorter lists are scored whole."""
LEAST_CANDIDATES: Final = 24


@dataclass(frozen=True, slots=True, eq=False)
class Budget:
    """Rows to score and candidates to rank at some lengths of a list, each float64 (points,), lengths ascending.

    ``ranked`` after a part was scored, ``whole`` after all was.
    """

    lengths: NDArray[np.float64]
    scored: NDArray[np.float64]
    ranked: NDArray[np.float64]
    whole: NDArray[np.float64]

    def rows(self, length: int) -> float:
        """Rows to score of a list, for ten neighbours."""
        return _between(length, self.lengths, self.scored)

    def candidates(self, length: int) -> float:
        """Candidates to rank by their true distance after a part was scored, for ten neighbours."""
        return _between(length, self.lengths, self.ranked)

    def whole_candidates(self, length: int) -> float:
        """Candidates to rank by their true distance after all rows were scored, for ten neighbours."""
        return _between(length, self.lengths, self.whole)


def _between(length: int, lengths: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """The value at a length on lines through the points, all in logarithms; the end points' beyond them."""
    return float(np.exp(np.interp(np.log(length), np.log(lengths), np.log(values))))


def whole() -> Budget:
    """For rows of which nothing is known: score all, rank a hundred."""
    return Budget(np.array([1.0, 1e12]), np.array([1.0, 1e12]), *[np.array([100.0, 100.0])] * 2)


def fitted(rows: Rows, postings: FrozenPostings, cap_rows: int, seed: int, *, threads: int) -> Budget:
    """The budget for the rows of a segment in tree order and the lists of those who see them."""
    count = len(rows.ids)
    if count < LEAST_ROWS:
        return whole()
    random = np.random.default_rng(seed)
    queries = np.sort(random.choice(count, min(SAMPLE_QUERIES, count), replace=False))
    everything = np.arange(count, dtype=np.uint32)
    points = [_point(rows, [everything], queries, cap_rows, threads)]
    lengths, length, reach = np.diff(postings.offsets), count, THIN**0.5
    while length >= LEAST_ROWS:
        among = (lengths >= max(length / reach, LEAST_ROWS)) & (lengths < min(length * reach, NEARLY_ALL * count))
        codes = np.flatnonzero(among)
        some = [postings.base(code) for code in random.permutation(codes)[:LISTS].tolist()]
        if not some and length < count:
            some = [np.sort(random.choice(everything, length, replace=False))]
        if some:
            points.append(_point(rows, some, queries, cap_rows, threads))
        length //= THIN
    by_length = np.array(points[::-1]).T
    return Budget(by_length[0].copy(), *(np.maximum.accumulate(values) for values in by_length[1:]))


def _point(
    rows: Rows, lists: list[NDArray[np.uint32]], queries: NDArray[np.int64], cap_rows: int, threads: int
) -> tuple[float, ...]:
    """The mean length of lists, and what of that a search must score, and rank after a part or all was scored; each
    takes its part of the queries.
    """
    length = round(math.exp(sum(math.log(len(some)) for some in lists) / len(lists)))
    shares, ranks = [], []
    for turn, some in enumerate(lists):
        walked, ranked = _needed(rows, some, queries[turn :: len(lists)], cap_rows, threads)
        shares.append(walked / len(some))
        ranks.append(ranked)
    scored = length * float(np.quantile(np.concatenate(shares), WALK_RECALL))
    better = np.quantile(np.concatenate(ranks), (RANK_RECALL, WHOLE_RECALL))
    return length, scored, *np.maximum(better + 1.0, LEAST_CANDIDATES).tolist()


def _needed(
    rows: Rows, some: NDArray[np.uint32], queries: NDArray[np.int64], cap_rows: int, threads: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each neighbour of each query in a list: rows scored until best-first met it, rows with a better estimate."""
    found = true_neighbours(rows, some, queries, threads)
    split = subtree(some, rows.nodes, cap_rows)
    walked, ranked = np.full(found.shape, len(some), np.int64), np.empty(found.shape, np.int64)
    nodes = rows.nodes
    for turn, query in enumerate(queries):
        walk_ranks(rows.vectors[query], nodes.codes, nodes.scale, nodes.bias, split, found[turn], walked[turn])
        estimate_ranks(rows.vectors[query], rows.table, some, found[turn], ranked[turn])
    return walked.reshape(-1), ranked.reshape(-1)


def true_neighbours(
    rows: Rows, some: NDArray[np.uint32], queries: NDArray[np.int64], threads: int = 1
) -> NDArray[np.int64]:
    """Indexes into ``some`` of the nearest of each query, itself left out: int64 (queries, NEIGHBOURS at most)."""
    wanted = rows.vectors[queries]
    found = np.empty((len(queries), 0), np.int64)
    scores = np.empty((len(queries), 0), np.float32)
    for first in range(0, len(some), BLOCK_ROWS):
        part = some[first : first + BLOCK_ROWS]
        block = rows.vectors[part]
        bias = np.zeros(len(part), np.float32) if rows.metric is Metric.IP else None
        near, score = nearest(wanted, block, min(NEIGHBOURS + 1, len(part)), bias=bias, threads=threads)
        score[part[near] == queries[:, None]] = np.inf
        scores = np.concatenate([scores, score], axis=1)
        found = np.concatenate([found, near + np.int64(first)], axis=1)
        best = np.argpartition(scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        scores, found = np.take_along_axis(scores, best, 1), np.take_along_axis(found, best, 1)
    return np.ascontiguousarray(found)
