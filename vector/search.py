"""A search of an index as it was when it began: for each list of each unit a plan, and the rows that plan finds."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import numpy as np

from .fine import Look
from .fine_rank import rank_each
from .planner import SHORT_LIST_ROWS, Way, choose, one_in
from .postings import Posting
from .predicates import Predicate
from .segment import ALL_CODE, EVERY, NOT_PACKED, Segment
from .subtree import NO_SUBTREE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .bound import Bound
    from .building import Settings
    from .compaction import Unit
    from .labels import LabelTable
    from .matching import Matches
    from .planner import Plan

__all__ = ["Search", "Selector", "Step", "nothing_found"]

Selector: TypeAlias = int | Predicate
"""What is searched: the code of a list, or a predicate over tenants."""
_List: TypeAlias = "tuple[Unit, Selector, Posting, Matches | None]"
"""A list of a unit, and those of its rows that fulfil the condition, if there is one."""
DEEPER: Final = 1.25
"""Rows scored where codes alone rank: what these lose, no vector makes good."""


class Step(NamedTuple):
    """How a search goes through one list of one unit: see :class:`.planner.Plan`.

    ``rows`` stand in the list, ``matches`` of them are live and fulfil the condition, all if there is none.
    """

    unit: str
    rows: int
    matches: int
    way: str
    budget_rows: int
    candidates: int
    cost_microseconds: float


class Search(NamedTuple):
    """What to search, for what, and how thoroughly; see :meth:`.VectorIndex.search`."""

    units: tuple[Unit, ...]
    selectors: tuple[Selector, ...]
    labels: LabelTable
    bound: Bound | None
    settings: Settings
    k: int
    ef: int | None
    exact: bool
    rerank: bool = True

    def run(
        self, queries: NDArray[np.float32], best_ids: NDArray[np.int64], best_distances: NDArray[np.float32]
    ) -> None:
        """Offer all rows that are searched for to the k nearest of each query."""
        for found in self._lists():
            unit, _, posting, matches = found
            fine = unit.rows.fine
            if fine is None or (self.exact and self.rerank):
                self._offer(found, queries, best_ids, best_distances)
            elif not self.rerank:
                self._offer(found, queries, best_ids, best_distances, self.k)
            elif (few := fine.few(self.k, self.ef)) >= (posting.rows if matches is None else matches.rows):
                self._offer(found, queries, best_ids, best_distances)
            else:  # the best by codes, of which vectors tell the nearest
                places, apart = nothing_found(len(queries), few)
                self._offer(found, queries, places, apart, few)
                rank_each(queries, unit.rows.table, places, best_ids, best_distances)

    def _offer(
        self,
        found: _List,
        queries: NDArray[np.float32],
        best_ids: NDArray[np.int64],
        best_distances: NDArray[np.float32],
        few: int = 0,
    ) -> None:
        """Offer the rows of a list to the k nearest of each query; with ``few`` by fine codes, to the few nearest."""
        unit, selector, posting, matches = found
        plan = self._plan(unit, selector, posting, matches, True, few)
        if plan.way is not Way.GRAPH:
            self._search(found, plan, queries, best_ids, best_distances, few)
            return
        wanted = EVERY if matches is None else matches.words
        share = (posting.rows if matches is None else matches.rows) / posting.rows
        best = best_ids, best_distances
        left = np.flatnonzero(unit.search_graph(queries, plan, wanted, share, *best, self._look(unit, few)))
        if len(left):  # where the walk went astray
            plan = self._plan(unit, selector, posting, matches, False, few)
            ids, distances = best_ids[left], best_distances[left]
            self._search(found, plan, queries[left], ids, distances, few)
            best_ids[left], best_distances[left] = ids, distances

    def _search(
        self,
        found: _List,
        plan: Plan,
        queries: NDArray[np.float32],
        best_ids: NDArray[np.int64],
        best_distances: NDArray[np.float32],
        few: int,
    ) -> None:
        unit, selector, posting, matches = found
        walked, wanted, listed = plan.way is Way.TREE, EVERY, posting
        thinned = 1 if matches is None else one_in(len(posting.base) / max(matches.of_base, 1))
        split = unit.subtree(selector, posting, SHORT_LIST_ROWS, thinned) if walked else NO_SUBTREE
        if matches is None:
            packed = unit.copies(selector, posting, plan.way)
        elif walked:
            packed, wanted = unit.copies(selector, posting, plan.way), matches.words
            listed = Posting(posting.base, matches.added)
        else:
            packed = unit.match_records(matches) if plan.way is Way.CODES else NOT_PACKED
            listed = Posting(matches.listed, matches.added)
        if isinstance(unit, Segment) and plan.band > 0 and not len(packed):
            unit.lead(plan.budget_rows)
        look = self._look(unit, few) if few else None
        unit.rows.search(queries, listed, plan, split, packed, best_ids, best_distances, wanted, look)

    def steps(self) -> list[Step]:
        """How it goes, list by list."""
        found = []
        for unit, selector, posting, matches in self._lists():
            way, candidates, budget_rows, cost, _ = self._plan(unit, selector, posting, matches)
            kind = "segment" if isinstance(unit, Segment) else "delta"
            rows = posting.rows if matches is None else matches.rows
            found.append(Step(kind, posting.rows, rows, way.value, budget_rows, candidates, cost))
        return found

    def _lists(self) -> Iterator[_List]:
        """The lists with rows in them that fulfil the condition, if there is one."""
        for unit in self.units:
            for selector in self.selectors:
                posting = unit.posting(selector) if isinstance(selector, int) else unit.selected(selector, self.labels)
                if not posting.rows:
                    continue
                if self.bound is None:
                    yield unit, selector, posting, None
                    continue
                matches = unit.matches(selector, posting, self.bound)
                if matches.rows:
                    yield unit, selector, posting, matches

    def _plan(
        self,
        unit: Unit,
        selector: Selector,
        posting: Posting,
        matches: Matches | None,
        walking: bool = True,
        few: int = 0,
    ) -> Plan:
        rows, live = (posting.rows, unit.live_share) if matches is None else (matches.rows, 1.0)
        plan = choose(
            max(round(rows * live), 1),
            self.k,
            self.ef,
            self.exact,
            unit.budget,
            unit.fan,
            unit.pool_rows(rows) if walking and selector == ALL_CODE else 0.0,
            self.settings.dim,
            self.settings.layout.blocks,
            matches is None and unit.is_copied(selector, posting),
            1.0 if matches is None else len(posting.base) / max(matches.of_base, 1),
        )
        if live < 1 and plan.way is Way.TREE:  # rows that are not live are passed on the way
            plan = plan._replace(budget_rows=min(round(plan.budget_rows / live), rows))
        if few > plan.candidates:
            plan = plan._replace(candidates=few)
        if few:
            scored = plan.budget_rows if self.rerank else round(DEEPER * plan.budget_rows)
            plan = plan._replace(budget_rows=min(max(scored, few), rows))
        return plan

    def _look(self, unit: Unit, few: int) -> Look | None:
        """What ranks rows in place of vectors, made anew for every array of queries; None if vectors do."""
        fine = unit.rows.fine
        return Look(unit.rows, fine, by_place=self.rerank) if few and fine is not None else None


def nothing_found(queries: int, k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k nearest of each query before any row was met, (queries, k) both."""
    if queries == 1:  # to copy is quicker than to fill
        ids, distances = _nothing_found_for_one(k)
        return ids.copy(), distances.copy()
    return np.full((queries, k), -1, np.int64), np.full((queries, k), np.inf, np.float32)


@lru_cache(16)
def _nothing_found_for_one(k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    return np.full((1, k), -1, np.int64), np.full((1, k), np.inf, np.float32)
