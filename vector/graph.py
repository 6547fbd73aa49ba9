"""The links of an HNSW graph over a segment's rows: built by hnswlib, walked by codes; optional.

hnswlib keeps the vectors once more, so its index is let go of once the lowest level's links are taken over: 128 bytes a
row. The levels above only find where to begin, which some rows spread over the tree do as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..lake.errors import Unavailable
from .bitmaps import of_mask
from .graph_walk import NO_LINK, found_by_walk
from .metrics import Metric
from .planner import MOST_CANDIDATES
from .postings import NONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .budget import Budget
    from .segment import Rows

__all__ = ["Graph", "linked", "require", "walks_fitted"]

LINKS: Final = 16
BUILD_CANDIDATES: Final = 100
STARTS: Final = 64
"""Rows that every walk begins with."""
SHARES: Final = (1.0, 0.5, 0.25, 0.12, 0.06)
"""Of rows that are wanted, for which walks are fitted; below, there are quicker ways."""
SAMPLE_QUERIES: Final = 512
RECALL: Final = 0.96
LONGER: Final = 1.25
"""From one length of a walk to the next that is tried."""
SHORTEST, LONGEST = 32, 1_024
MOST_ROWS: Final = 2**31
"""What a word of a walk's pool can tell apart."""


def require() -> Any:
    """The module hnswlib; Unavailable with the mend if it is not installed."""
    try:
        import hnswlib
    except ImportError as error:
        raise Unavailable("graph=True needs hnswlib: pip install 'lakelet[graph]'") from error
    return hnswlib


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A graph over the rows of a segment, known by their positions.

    links uint32 (n, 2 * LINKS): each row's neighbours, filled up with NO_LINK. starts uint32. wanted_rows, pool_rows
    float64 (points,): how many rows a walk must keep in its pool, where so many are wanted; ascending.
    """

    links: NDArray[np.uint32]
    starts: NDArray[np.uint32]
    wanted_rows: NDArray[np.float64]
    pool_rows: NDArray[np.float64]

    def pool(self, wanted: int) -> float:
        """Rows to keep in a walk's pool if so many rows are wanted; 0 where a walk is not the way."""
        if len(self.links) > MOST_ROWS or not len(self.wanted_rows) or wanted < 0.999 * self.wanted_rows[0]:
            return 0.0
        return float(np.exp(np.interp(math.log(wanted), np.log(self.wanted_rows), np.log(self.pool_rows))))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in self.__slots__)


def linked(
    vectors: NDArray[np.float32], metric: Metric, seed: int, threads: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """The links and starts of a graph over ``vectors``, float32 (n, dim). More threads than one make it differ from run
    to run.
    """
    space = "l2" if metric is Metric.L2 else "ip"  # vectors come normalised under cosine
    count = len(vectors)
    index = require().Index(space=space, dim=vectors.shape[1])
    index.init_index(count, M=LINKS, ef_construction=BUILD_CANDIDATES, random_seed=seed)
    index.add_items(vectors, np.arange(count), num_threads=threads)
    state = index.__getstate__()[0]
    elements = state["data_level0"].reshape(-1, state["size_data_per_element"])[:count]
    label = np.ascontiguousarray(elements[:, state["label_offset"] :][:, :8]).view(np.uint64)[:, 0].astype(np.uint32)
    words = np.ascontiguousarray(elements[:, : state["offset_data"]]).view(np.uint32)
    links = np.full((count, 2 * LINKS), NO_LINK, np.uint32)
    taken = np.arange(2 * LINKS) < (words[:, :1] & 0xFFFF)
    links[label] = np.where(taken, label[np.where(taken, words[:, 1 : 2 * LINKS + 1], 0)], np.uint32(NO_LINK))
    return links, np.unique(np.linspace(0, count - 1, STARTS).astype(np.uint32))


def walks_fitted(
    rows: Rows,
    links: NDArray[np.uint32],
    starts: NDArray[np.uint32],
    budget: Budget,
    neighbours: Any,
    seed: int,
) -> Graph:
    """The graph with the pools that its walks need, tried on rows as queries that they may not pass through.

    ``neighbours(positions, queries)`` are the indexes into ``positions`` of each query row's true neighbours.
    """
    random, count = np.random.default_rng(seed), len(rows.ids)
    queries = np.sort(random.choice(count, min(SAMPLE_QUERIES, count), replace=False))
    points: list[tuple[float, float]] = []
    pool = float(SHORTEST)
    for share in SHARES:
        mask = random.random(count) < share if share < 1 else np.ones(count, bool)
        some = np.flatnonzero(mask).astype(np.uint32)
        if len(some) < 2 * STARTS:
            break
        targets = some[neighbours(some, queries)]
        wanted = of_mask(mask) if share < 1 else NONE.view(np.uint64)
        most, band = round(MOST_CANDIDATES * budget.candidates(len(some))), budget.band(targets.shape[1], False)
        while pool <= LONGEST:
            found, walk = 0, (wanted, round(pool), most, band)
            for turn, query in enumerate(queries.tolist()):
                found += found_by_walk(rows.vectors[query], rows.table, links, starts, query, *walk, targets[turn])
            if found >= RECALL * targets.size:
                break
            pool *= LONGER
        if pool > LONGEST:
            break
        points.append((len(some), pool))
    wanted_rows, pool_rows = np.array(points[::-1], np.float64).reshape(-1, 2).T
    return Graph(links, starts, wanted_rows.copy(), pool_rows.copy())
