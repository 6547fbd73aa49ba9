"""How much of a list a search has to look at: fitted on the rows themselves when a segment is made.

For a sample of rows as queries the true neighbours are computed, over all rows and over some lists of each length:
those of tenants, for it matters whether theirs lie together, or where none has that length, rows thinned out. How many
rows best-first scores until it has met a neighbour, and how many rows have a better estimate than it, are read off at a
stated share of all neighbours; between the lengths tried a power law holds well.

The band of estimates in which rows are ranked by true distance is fitted on the same neighbours, and on those in
regions where the queries are not: how far off an estimate is, as a share of what it errs by, is much the same for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from .best_first import walk_ranks
from .estimates import estimate_ranks, rows_within
from .metrics import Metric
from .products import nearest
from .subtree import subtree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .postings import FrozenPostings
    from .segment import Rows

__all__ = ["Budget", "fitted", "true_neighbours", "usual_bands", "whole"]

SAMPLE_QUERIES: Final = 512
NEIGHBOURS: Final = 10
WALK_RECALL: Final = 0.967
RANK_RECALL: Final = 0.99
"""Of what was scored, where not all was;"""
WHOLE_RECALL: Final = 0.97
"""and where all was."""
DEVIATIONS: Final = {1: 1.23, 2: 1.36, 4: 1.96}
"""Of an estimate's error from 0, in shares of the width of the row's cell and the query's length, by the bits of a
coordinate; as random rows show them."""
USUAL_BANDS: Final = (2.0, 1.6)
"""In deviations, where nothing is known of the rows: what is fitted for text."""
LEAST_BAND, MOST_BAND = 1.0, 5.0
"""In deviations; rows that are all equal have margins of nothing, or of what was lost by rounding."""
COUNTED_QUERIES: Final = 64
"""Of each length, for which rows in the band are counted."""
REGIONS, REGION_PART = 8, 20
"""Of neighbouring rows, each one in so many of all, which hold the neighbours of queries that lie elsewhere."""
THINNED: Final = 0.5**0.5
"""Where a condition leaves so many rows or fewer, short-lists are as in a sub-tree for one row in two."""
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
    """What a search looks at, by the length of a list: each float64 (points,), lengths ascending, but for ``bands``.

    ``scored``: rows to score; ``ranked``: candidates to rank if their number was the same for every query;
    ``expected`` and ``whole``: rows in the band, in the mean, after a part was scored and after all was. ``bands`` (2,
    up to NEIGHBOURS): how far a row's estimate may be above the k-th distance, in shares of what it errs by, for k of
    1, 2 and so on, after a part and after all.
    """

    lengths: NDArray[np.float64]
    scored: NDArray[np.float64]
    ranked: NDArray[np.float64]
    expected: NDArray[np.float64]
    whole: NDArray[np.float64]
    bands: NDArray[np.float64]

    def rows(self, length: int) -> float:
        """Rows to score of a list, for ten neighbours."""
        return _between(length, self.lengths, self.scored)

    def candidates(self, length: int) -> float:
        """Candidates that do for all queries after a part was scored, for ten neighbours; ``ef`` is measured by it."""
        return _between(length, self.lengths, self.ranked)

    def in_band(self, length: int, whole: bool) -> float:
        """Candidates in the band in the mean, for ten neighbours, after all rows were scored or a part was."""
        return _between(length, self.lengths, self.whole if whole else self.expected)

    def band(self, k: int, whole: bool) -> float:
        """The band for k neighbours."""
        return float(self.bands[int(whole), min(k, self.bands.shape[1]) - 1])


def _between(length: int, lengths: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """The value at a length on lines through the points, all in logarithms; the end points' beyond them."""
    return float(np.exp(np.interp(np.log(length), np.log(lengths), np.log(values))))


def usual_bands(bits: int) -> NDArray[np.float64]:
    """The bands for rows of which nothing is known."""
    return np.array([[each * DEVIATIONS[bits]] for each in USUAL_BANDS])


def whole(bits: int) -> Budget:
    """For rows of which nothing is known but the bits of a coordinate: score all, rank a hundred or the usual band."""
    hundred = np.array([100.0, 100.0])
    return Budget(np.array([1.0, 1e12]), np.array([1.0, 1e12]), hundred, hundred, hundred, usual_bands(bits))


def fitted(rows: Rows, postings: FrozenPostings, cap_rows: int, seed: int, *, threads: int) -> Budget:
    """The budget for the rows of a segment in tree order and the lists of those who see them."""
    count = len(rows.ids)
    if count < LEAST_ROWS:
        return whole(rows.layout.bits)
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
    margins = [point.margins for point in points] + _far_margins(rows, queries, random, threads)
    deviation = DEVIATIONS[rows.layout.bits]
    bands = np.nanquantile(np.concatenate(margins), (RANK_RECALL, WHOLE_RECALL), axis=(0, 1))
    bands = np.clip(bands, LEAST_BAND * deviation, MOST_BAND * deviation)
    held = [_in_bands(rows, point, bands[:, -1]) for point in points]
    table = [(point.length, point.scored, point.ranked, *counts) for point, counts in zip(points, held, strict=True)]
    table.append((THINNED * count, THINNED * points[0].scored_thinned, *table[0][2:]))
    found = np.array(sorted(table))
    found[:, 2:] = np.maximum.accumulate(found[:, 2:])
    found[:-1, 1] = np.maximum.accumulate(found[:-1, 1])  # all rows have shorter lists, of which fewer do
    lengths_, scored, ranked, expected, whole_ = found.T.copy()
    return Budget(lengths_, scored, ranked, expected, whole_, bands)


class _Point(NamedTuple):
    """What searches of lists of a length need: the mean length, rows to score, and in short-lists twice as long,
    candidates to rank, margins of the neighbours, see :func:`_margins`, and the lists, each with its queries and their
    k-th distances as estimates.
    """

    length: float
    scored: float
    scored_thinned: float
    ranked: float
    margins: NDArray[np.float64]
    lists: list[tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.float64]]]


def _point(
    rows: Rows, lists: list[NDArray[np.uint32]], queries: NDArray[np.int64], cap_rows: int, threads: int
) -> _Point:
    """Each list takes its part of the queries."""
    length = round(math.exp(sum(math.log(len(some)) for some in lists) / len(lists)))
    shares, ranks, margins, searched = [], [], [], []
    for turn, some in enumerate(lists):
        mine = queries[turn :: len(lists)]
        walked, ranked, terms = _needed(rows, some, mine, cap_rows, threads)
        shares.append(walked / len(some))  # of both sub-trees
        ranks.append(ranked)
        margins.append(_margins(terms))
        searched.append((some, mine, terms[:, :, 1].max(axis=1)))
    scored, thinned = (length * np.quantile(np.concatenate(shares, axis=1), WALK_RECALL, axis=1)).tolist()
    better = max(float(np.quantile(np.concatenate(ranks), RANK_RECALL)) + 1.0, LEAST_CANDIDATES)
    return _Point(length, scored, thinned, better, np.concatenate(margins), searched)


def _margins(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far above the k-th distance the estimates of the neighbours are, in shares of what they err by.

    float64 (queries, neighbours, k from 1 on): NaN for neighbours that are not among k.
    """
    order = np.argsort(terms[:, :, 1], axis=1)[:, :, None]
    own, truth, share = np.moveaxis(np.take_along_axis(terms, order, 1), 2, 0)
    made: NDArray[np.float64] = own[:, :, None] - truth[:, None, :]
    share = share[:, :, None]
    np.divide(made, share, out=made, where=share > 0)
    made[np.broadcast_to(share == 0, made.shape)] = 0
    among = np.arange(made.shape[1])
    made[:, among[:, None] > among] = np.nan
    return made


def _needed(
    rows: Rows, some: NDArray[np.uint32], queries: NDArray[np.int64], cap_rows: int, threads: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """For each neighbour of each query in a list: rows scored until best-first met it, in its sub-tree and in that of
    twice as long short-lists, (2, neighbours); rows with a better estimate, and what its own is made of.
    """
    found, nodes = true_neighbours(rows, some, queries, threads), rows.nodes
    walked = np.full((2, *found.shape), len(some), np.int64)
    for one_in in (1, 2):
        split = subtree(some, nodes, cap_rows, one_in)
        for query, near, out in zip(rows.vectors[queries], found, walked[one_in - 1], strict=True):
            walk_ranks(query, nodes.codes, nodes.scale, nodes.bias, split, near, out)
    ranked, terms = _estimated(rows, some, queries, found)
    return walked.reshape(2, -1), ranked.reshape(-1), terms


def _estimated(
    rows: Rows, some: NDArray[np.uint32], queries: NDArray[np.int64], found: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """What :func:`.estimates.estimate_ranks` says of the neighbours: (queries, neighbours) and for terms (…, 3)."""
    ranked, terms = np.empty(found.shape, np.int64), np.empty((*found.shape, 3))
    for turn, query in enumerate(queries):
        estimate_ranks(rows.vectors[query], rows.table, some, found[turn], ranked[turn], terms[turn])
    return ranked, terms


def _far_margins(
    rows: Rows, queries: NDArray[np.int64], random: np.random.Generator, threads: int
) -> list[NDArray[np.float64]]:
    """The margins of neighbours in regions, for queries that lie elsewhere; none where regions would be too small."""
    size = len(rows.ids) // REGION_PART
    if size < LEAST_ROWS:
        return []
    margins = []
    for turn, first in enumerate(random.choice(len(rows.ids) - size, REGIONS).tolist()):
        some = np.arange(first, first + size, dtype=np.uint32)
        mine = queries[turn::REGIONS]
        mine = mine[(mine < first) | (mine >= first + size)]
        found = true_neighbours(rows, some, mine, threads)
        margins.append(_margins(_estimated(rows, some, mine, found)[1]))
    return [np.concatenate(margins)]


def _in_bands(rows: Rows, point: _Point, bands: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean number of rows in each band about the k-th distance, of a few of a point's queries."""
    counts: list[NDArray[np.int64]] = []
    for some, queries, truths in point.lists:
        step = -(-len(queries) * len(point.lists) // COUNTED_QUERIES)
        for query, truth in zip(queries[::step].tolist(), truths[::step].tolist(), strict=True):
            counts.append(np.empty(len(bands), np.int64))
            rows_within(rows.vectors[query], rows.table, some, truth, bands, counts[-1])
    found: NDArray[np.float64] = np.mean(counts, axis=0)
    return np.maximum(found, NEIGHBOURS)


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
