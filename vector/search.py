"""A search of an index as it was when it began: for each list of each unit a plan, and the rows that plan finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from .planner import SHORT_LIST_ROWS, Way, choose
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

__all__ = ["Search", "Selector", "Step"]

Selector: TypeAlias = int | Predicate
"""What is searched: the code of a list, or a predicate over tenants."""


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

    def run(
        self, queries: NDArray[np.float32], best_ids: NDArray[np.int64], best_distances: NDArray[np.float32]
    ) -> None:
        """Offer all rows that are searched for to the k nearest of each query."""
        for unit, selector, posting, matches in self._lists():
            plan = self._plan(unit, selector, posting, matches)
            if plan.way is not Way.GRAPH:
                self._search(unit, selector, posting, matches, plan, queries, best_ids, best_distances)
                continue
            wanted = EVERY if matches is None else matches.words
            share = (posting.rows if matches is None else matches.rows) / posting.rows
            left = np.flatnonzero(unit.search_graph(queries, plan, wanted, share, best_ids, best_distances))
            if len(left):  # where the walk went astray
                plan = self._plan(unit, selector, posting, matches, walking=False)
                ids, distances = best_ids[left], best_distances[left]
                self._search(unit, selector, posting, matches, plan, queries[left], ids, distances)
                best_ids[left], best_distances[left] = ids, distances

    def _search(
        self,
        unit: Unit,
        selector: Selector,
        posting: Posting,
        matches: Matches | None,
        plan: Plan,
        queries: NDArray[np.float32],
        best_ids: NDArray[np.int64],
        best_distances: NDArray[np.float32],
    ) -> None:
        walked, wanted, listed = plan.way is Way.TREE, EVERY, posting
        split = unit.subtree(selector, posting, SHORT_LIST_ROWS) if walked else NO_SUBTREE
        if matches is None:
            packed = unit.copies(selector, posting, plan.way)
        elif walked:
            packed, wanted = unit.copies(selector, posting, plan.way), matches.words
            listed = Posting(posting.base, matches.added)
        else:
            packed = unit.match_records(matches) if plan.way is Way.CODES else NOT_PACKED
            listed = Posting(matches.listed, matches.added)
        unit.rows.search(queries, listed, plan, split, packed, best_ids, best_distances, wanted)

    def steps(self) -> list[Step]:
        """How it goes, list by list."""
        found = []
        for unit, selector, posting, matches in self._lists():
            way, candidates, budget_rows, cost, _ = self._plan(unit, selector, posting, matches)
            kind = "segment" if isinstance(unit, Segment) else "delta"
            rows = posting.rows if matches is None else matches.rows
            found.append(Step(kind, posting.rows, rows, way.value, budget_rows, candidates, cost))
        return found

    def _lists(self) -> Iterator[tuple[Unit, Selector, Posting, Matches | None]]:
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
        self, unit: Unit, selector: Selector, posting: Posting, matches: Matches | None, walking: bool = True
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
            return plan._replace(budget_rows=min(round(plan.budget_rows / live), rows))
        return plan
