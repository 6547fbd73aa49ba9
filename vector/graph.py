"""An HNSW graph beside a segment, by hnswlib, for searches over every row: optional, for it copies the vectors.

The graph names candidates; their distances come from the rows themselves, and rows deleted since are left out there.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..lake.errors import Unavailable
from .metrics import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Graph", "require"]

LINKS: Final = 16
BUILD_CANDIDATES: Final = 100


def require() -> Any:
    """The module hnswlib; Unavailable with the mend if it is not installed."""
    try:
        import hnswlib
    except ImportError as error:
        raise Unavailable("graph=True needs hnswlib: pip install 'lakelet[graph]'") from error
    return hnswlib


class Graph:
    """A graph over the rows of a segment, known by their positions."""

    __slots__ = ("_ef", "_index", "rows")

    def __init__(self, index: Any, rows: int) -> None:
        self._index, self._ef, self.rows = index, 0, rows
        index.set_num_threads(1)

    @classmethod
    def built(cls, vectors: NDArray[np.float32], metric: Metric, seed: int, threads: int) -> Graph:
        """The graph of ``vectors``, float32 (n, dim). More threads than one make it differ from run to run."""
        index = _empty(vectors.shape[1], metric)
        index.init_index(len(vectors), M=LINKS, ef_construction=BUILD_CANDIDATES, random_seed=seed)
        index.add_items(vectors, np.arange(len(vectors)), num_threads=threads)
        return cls(index, len(vectors))

    def near(self, query: NDArray[np.float32], candidates: int) -> NDArray[np.uint32]:
        """Positions of rows near one query, float32 (1, dim): uint32 (candidates,) at most."""
        wanted = min(candidates, self.rows)
        if self._ef != wanted:
            self._index.set_ef(wanted)
            self._ef = wanted
        positions, _ = self._index.knn_query(query, wanted)
        near: NDArray[np.uint32] = positions[0].astype(np.uint32)
        return near

    @property
    def nbytes(self) -> int:
        """Bytes of the graph with its copy of the vectors."""
        return int(self._index.index_file_size())

    def stored(self) -> NDArray[np.uint8]:
        """The graph as bytes, uint8 (n,)."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "graph")
            self._index.save_index(path)
            return np.fromfile(path, np.uint8)

    @classmethod
    def opened(cls, stored: NDArray[np.uint8], dim: int, rows: int, metric: Metric) -> Graph:
        """The graph of :meth:`stored`."""
        index = _empty(dim, metric)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "graph")
            stored.tofile(path)
            index.load_index(path, max_elements=rows)
        return cls(index, rows)


def _empty(dim: int, metric: Metric) -> Any:
    space = "l2" if metric is Metric.L2 else "ip"  # vectors come normalised under cosine
    return require().Index(space=space, dim=dim)
