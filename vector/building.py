"""How a segment comes to be: from rows that were added, or from the rows of several units in one."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from .background import shared_out
from .budget import fitted, true_neighbours
from .codes import encode
from .fine import USUAL_DEPTH, Fine, coded_finely, depth_fitted
from .graph import linked, walks_fitted
from .matching import frozen
from .metrics import Metric
from .nodes import rounded
from .planner import SHORT_LIST_ROWS
from .postings import FrozenPostings, by_code
from .segment import Rows, Segment
from .tree import Tree, train

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from .codes import CodeLayout
    from .osq import Part

__all__ = ["Pairs", "Settings", "built", "mean_of"]

ENCODE_ROWS = 16_384
Pairs: TypeAlias = "tuple[NDArray[np.int32], NDArray[np.int64]]"
"""Grants as two arrays of one length: the code, and the row that has it."""


class Settings(NamedTuple):
    """What is the same for every unit of an index."""

    dim: int
    metric: Metric
    layout: CodeLayout
    seed: int
    threads: int
    graph: bool = False
    schema: pa.Schema | None = None
    bits: int | None = None
    keep_vectors: bool = True


def mean_of(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of rows, float32 (dim,), added up in float64."""
    mean: NDArray[np.float32] = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mean


def built(
    vectors: NDArray[np.float32],
    ids: NDArray[np.int64],
    granted: Pairs,
    settings: Settings,
    grown: tuple[Tree, NDArray[np.int64]] | None = None,
    attributes: pa.Table | None = None,
    part: Part | None = None,
) -> tuple[Segment, NDArray[np.int64]]:
    """A segment of ``vectors``, float32 (n, dim), with the grants of their rows; and each row's position, int64 (n,).

    ``grown``: a tree for these rows and its order, where one was grown from another; else one is trained.
    ``attributes`` of the rows, if the index has some; ``part``: axes and cells for their fine codes, if not new ones.
    """
    metric = settings.metric
    trained, order = grown or train(
        vectors,
        metric=_word(metric),
        leaf_rows=SHORT_LIST_ROWS,
        seed=settings.seed,
        threads=settings.threads,
    )
    placed = vectors[order]
    mean = mean_of(placed)
    nodes = rounded(trained, mean)
    records = np.empty((len(ids), settings.layout.record_bytes), np.uint8)

    def encode_some(first: int) -> None:
        last = min(first + ENCODE_ROWS, len(ids))
        encode(placed, mean, settings.layout.signs, settings.layout.bits, metric is not Metric.IP, first, last, records)

    shared_out(encode_some, range(0, len(ids), ENCODE_ROWS), settings.threads)
    placed_ids = ids[order]
    rows = Rows(placed, records, placed_ids, np.ones(len(ids), np.uint8), mean, settings.layout, metric, nodes)
    position = np.empty(len(ids), np.int64)
    position[order] = np.arange(len(ids))
    id_order = np.argsort(placed_ids, kind="stable").astype(np.uint32)
    postings = FrozenPostings(*by_code(granted[0], position[granted[1]]))
    budget = fitted(rows, postings, SHORT_LIST_ROWS, settings.seed, threads=settings.threads)
    graph = None
    if settings.graph:
        links, starts = linked(placed, metric, settings.seed, settings.threads)
        graph = walks_fitted(rows, links, starts, budget, partial(true_neighbours, rows), settings.seed)
    columns = {} if attributes is None else frozen(attributes.take(order))
    if settings.bits is not None:
        rows = _finely(rows, settings.bits, settings, part)
    return Segment(rows, id_order, postings, budget, graph, columns), position


def _finely(rows: Rows, bits: int, settings: Settings, part: Part | None) -> Rows:
    """The rows with fine codes, and without vectors if these are not to be kept."""
    part, records = coded_finely(rows.vectors, bits, settings.seed, settings.threads, part)
    if not settings.keep_vectors:
        return replace(rows, vectors=rows.vectors[:0].copy(), fine=Fine(part, records, USUAL_DEPTH))
    neighbours = partial(true_neighbours, rows, threads=settings.threads)
    return replace(rows, fine=Fine(part, records, depth_fitted(rows, part, records, neighbours, settings.seed)))


def _word(metric: Metric) -> str:
    return metric.name.lower()
