"""A search of an index as it was when it began: for each list of each unit a plan, and the rows that plan finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from .planner import SHORT_LIST_ROWS, Way, choose
from .postings import Posting
from .predicates import Predicate
from .segment import ALL_CODE, EVERY, Segment
from .subtree import NO_SUBTREE

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
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
            plan, wanted, listed = self._plan(unit, selector, posting, matches), EVERY, posting
            if plan.way is Way.GRAPH and unit.search_graph(queries, plan.candidates, best_ids, best_distances):
                continue
            walked = plan.way in (Way.TREE, Way.GRAPH)
            split = unit.subtree(selector, posting, SHORT_LIST_ROWS) if walked else NO_SUBTREE
            packed = unit.copies(selector, posting, plan.way)
            if matches is not None:
                wanted = matches.words if walked else EVERY
                listed = Posting(posting.base if walked else matches.listed, matches.added)
            unit.rows.search(queries, listed, plan, split, packed, best_ids, best_distances, wanted)

    def steps(self) -> list[Step]:
        """How it goes, list by list."""
        found = []
        for unit, selector, posting, matches in self._lists():
            way, candidates, budget_rows, cost = self._plan(unit, selector, posting, matches)
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

    def _plan(self, unit: Unit, selector: Selector, posting: Posting, matches: Matches | None) -> Plan:
        graph = matches is None and selector == ALL_CODE and isinstance(unit, Segment) and unit.graph is not None
        return choose(
            posting.rows if matches is None else matches.rows,
            self.k,
            self.ef,
            self.exact,
            unit.budget,
            unit.fan,
            graph,
            self.settings.dim,
            self.settings.layout.blocks,
            matches is None and unit.is_copied(selector, posting),
            1.0 if matches is None else len(posting.base) / max(matches.of_base, 1),
        )
