"""Getting the kernels ready: compiled once for a machine, loaded from Numba's cache ever after.

Each is called on a few rows, so that the first search of a process is as quick as the next. Compiling takes seconds
and is announced, a bar on a terminal and a line in the log ``lakelet``; loading is not, however long it takes.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
from numba.core.event import Event, Listener, install_listener

from ..lake.progress import shown
from .ascending import difference, intersection, union
from .bitmaps import add_rows, at, rows_of
from .building import Settings, built
from .codes import layout
from .columns import frozen_column
from .copies import copied
from .delta import Delta
from .fine import Look
from .fine_rank import rank_each
from .graph_walk import found_by_walk, nearest_by_graph
from .metrics import Metric, checked_vectors
from .nodes import no_nodes
from .planner import SHORT_LIST_ROWS, Plan, Way
from .postings import count_live, folded
from .segment import ALL_CODE, EVERY, NOT_PACKED
from .subtree import NO_SUBTREE

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..lake.progress import Progress

__all__ = ["kernels_ready"]

ROWS: Final = 320
DIM: Final = 8
STAGE: Final = "compiling vector kernels, once for this machine"
_lock = threading.Lock()
_ready: set[Callable[[Settings], None]] = set()


class _Announcer(Listener):
    """Says so each time that Numba begins to compile a kernel, which it does not for one that it finds in its cache."""

    def __init__(self, progress: Progress, steps: int) -> None:
        self.progress, self.steps, self.done, self.compiled = progress, steps, 0, 0

    def on_start(self, event: Event) -> None:
        self.compiled += 1
        self.progress(STAGE, self.done, self.steps)

    def on_end(self, event: Event) -> None:
        self.progress(STAGE, self.done, self.steps)


def kernels_ready(*, attributes: bool = False, graph: bool = False, bits: bool = False) -> None:
    """Compile or load every kernel, those for attributes, a graph and bits if asked for, unless this process did so."""
    with _lock:
        wanted = (*STEPS, *([_match] if attributes else []), *([_link] if graph else []), *([_code] if bits else []))
        steps = [step for step in wanted if step not in _ready]
        if not steps:
            return
        settings = Settings(DIM, Metric.L2, layout(DIM, 0), 0, 1)
        began_seconds = time.monotonic()
        with shown(None) as progress, install_listener("numba:compile", _Announcer(progress, len(steps))) as announcer:
            for step in steps:
                step(settings)
                announcer.done += 1
        if announcer.compiled:
            took_seconds = time.monotonic() - began_seconds
            logging.getLogger("lakelet").info("%s: took %.1f s", STAGE, took_seconds)
        _ready.update(steps)


def _rows() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal((ROWS, DIM), dtype=np.float32)


def _check(settings: Settings) -> None:
    checked_vectors(_rows(), DIM, settings.metric, "rows")


def _build(settings: Settings) -> None:
    ids, codes = np.arange(ROWS), np.zeros(ROWS, np.int32)
    segment, _ = built(_rows(), ids, (codes, ids), settings)
    segment.find(ids[:1])
    segment.rows.lead()
    posting = segment.posting(ALL_CODE)
    best_ids, best_distances = np.full((1, 2), -1), np.full((1, 2), np.inf, np.float32)
    split, copies = segment.subtree(ALL_CODE, posting, SHORT_LIST_ROWS), copied(segment.rows.table, posting.base)
    for way in (Way.EXACT, Way.CODES, Way.COPIES, Way.TREE):
        packed = copies if way is Way.COPIES else NOT_PACKED
        segment.rows.search(_rows()[:1], posting, Plan(way, 8, 64, 0.0, 1.0), split, packed, best_ids, best_distances)


def _revise(settings: Settings) -> None:
    delta = Delta(4, np.zeros(DIM, np.float32), settings.layout, settings.metric, no_nodes(DIM))
    delta.append(_rows()[:2], np.arange(2), (np.array([0, 1, 1]), np.zeros(1, np.int32)))
    one = np.arange(1, dtype=np.uint32)
    delta.postings.grant(1, one)
    delta.postings.revoke(1, one)
    listed = folded(delta.postings.get(0))
    count_live(difference(union(listed, one), intersection(listed, one)), delta.rows.live)


def _match(settings: Settings) -> None:
    some = np.arange(2, dtype=np.uint32)
    for values in (np.arange(ROWS), np.arange(ROWS) % 2):  # many, and few
        column = frozen_column(pa.array(values), pa.int64())
        words = column.within(((1, 7),), None) & column.null(False, None)
        add_rows(some, words)
        rows_of(at(words, some) | column.within(((1, 7),), some), some)


def _link(settings: Settings) -> None:
    segment, _ = built(_rows(), np.arange(ROWS), (np.zeros(0, np.int32), np.zeros(0, np.int64)), settings)
    rows, some = segment.rows, np.zeros(1, np.uint32)
    links = ((np.arange(ROWS)[:, None] + np.arange(1, 3)) % ROWS).astype(np.uint32)
    found_by_walk(rows.vectors[0], rows.table, links, some, 0, EVERY, 8, 8, 1.0, some)
    best_ids, best_distances = np.full((1, 2), -1), np.full((1, 2), np.inf, np.float32)
    nearest_by_graph(_rows()[:1], rows.table, links, some, EVERY, 1.0, 8, 8, 1.0, best_ids, best_distances)


def _code(settings: Settings) -> None:
    ids, codes = np.arange(ROWS), np.zeros(ROWS, np.int32)
    segment, _ = built(_rows(), ids, (codes, ids), settings._replace(bits=2))
    assert segment.rows.fine is not None
    best_ids, best_distances = np.full((1, 2), -1), np.full((1, 2), np.inf, np.float32)
    everything, plan, look = (
        segment.posting(ALL_CODE),
        Plan(Way.EXACT, 8, 64, 0.0, 1.0),
        Look(segment.rows, segment.rows.fine),
    )
    best = best_ids, best_distances
    segment.rows.search(_rows()[:1], everything, plan, NO_SUBTREE, NOT_PACKED, *best, look=look)
    rank_each(_rows()[:1], segment.rows.table, best_ids, *best)


STEPS: Final[tuple[Callable[[Settings], None], ...]] = (_check, _revise, _build)
