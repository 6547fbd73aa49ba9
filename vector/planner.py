"""Which way a search of one posting list goes: true distances of all rows, copies or codes of all rows, or best-first.

The choice is the least of their estimates, made of the list's exact length and the costs of the kernels as
``benchmarks/vector_kernels.py`` and ``vector_ways.py`` measure them. The figures are constants, not readings of the
running machine, so that one index gives one answer everywhere.
"""

from __future__ import annotations

import math
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from .subtree import FILL_ROWS

if TYPE_CHECKING:
    from .budget import Budget

__all__ = ["NO_FAN", "SHORT_LIST_ROWS", "Fan", "Plan", "Way", "choose", "one_in", "ways"]

USUAL_K: Final = 10
"""What budgets are fitted for; more neighbours take candidates in proportion, and rows with the root of it."""
MOST_CANDIDATES: Final = 10
"""Candidates that a search may keep for one that would do if their number was the same for every query: a bound of
memory, for where matching rows lie far from the query hundreds of them are in doubt."""
SHORT_LIST_ROWS: Final = 32
"""A tenant's short-list splits above this, where its parts would not fall below :data:`.subtree.FILL_ROWS`."""
QUERY_NS: Final = 3_500.0
"""To round a query for codes; and once more to choose among short-lists."""
LIST_NS: Final = 6.0
"""To sort a short-list in among the others, once its centroid was scored."""
PASSED_NS: Final = 0.15
"""For each row of a short-list, to find those that fulfil a condition."""
COPY_QUERY_NS: Final = 700.0
"""To round a query for copies."""
WALK_NS: Final = 800.0
"""To meet the neighbours of a row in a walk's pool, beside their codes."""


class Way(Enum):
    """How the rows of a list are searched."""

    EXACT = "exact"
    """True distances of all rows."""
    CODES = "codes"
    """Estimates of all rows by their codes, true distances of the best."""
    COPIES = "copies"
    """Estimates of all rows by copies of their vectors in bytes, true distances of the best."""
    TREE = "tree"
    """Estimates of the rows in the nearest short-lists, true distances of the best."""
    GRAPH = "graph"
    """Estimates of the rows that a walk through an HNSW graph meets, true distances of the best."""


class Plan(NamedTuple):
    """What was chosen for a list: ``candidates`` to rank by true distance after ``budget_rows`` rows were estimated, or
    for a graph were held in the pool of a walk. With a ``band`` they are so many at most, and those alone that
    estimates leave in doubt, see :func:`.scoring.nearest`.
    """

    way: Way
    candidates: int
    budget_rows: int
    cost_microseconds: float
    band: float = 0.0


class Fan(NamedTuple):
    """How a tree branches: ``cells`` below its root, ``leaves`` in all; none where there is no tree."""

    cells: int
    leaves: int

    def lists(self, rows: int) -> float:
        """The short-lists of so many rows that lie anyhow: cells that hold one, and where rows are many, leaves."""
        cells = self.cells * -math.expm1(-rows / self.cells) if self.cells else 0
        return cells + (self.leaves if rows >= FILL_ROWS * self.leaves else 0)


NO_FAN: Final = Fan(0, 0)


def one_in(rows: float) -> int:
    """A power of two: what a condition that leaves one row in ``rows`` shares a sub-tree with others for."""
    return 1 << round(math.log2(max(rows, 1.0)))


def ways(
    rows: int,
    k: int,
    ef: int | None,
    budget: Budget,
    fan: Fan,
    walk: float,
    dim: int,
    blocks: int,
    copied: bool,
    passed: float = 1.0,
) -> list[Plan]:
    """The plans that there are for a list of ``rows`` rows of ``dim`` dimensions with codes of ``blocks`` blocks.

    ``fan``: what the tree is like; ``walk``: rows in the pool of a walk through a graph, 0 if there is none;
    ``copied``: their vectors are copied.
    ``passed``: rows of the list for one of these ``rows``, where a condition leaves out the others.
    ``ef`` is a number of candidates in place of those in the fitted band, and rows to score grow as it does. The first
    is exact.
    """
    far_ns = 15.0 + 0.30 * dim  # half in one, as rows of an index are in the mean
    code_ns = 2.0 + 4.0 * blocks  # of a list that lies scattered; in a row it is half of that, and changes no choice
    more = max(1.0, k / USUAL_K)
    usual = budget.candidates(rows) * more
    candidates = max(k, ef if ef is not None else round(MOST_CANDIDATES * usual))
    deeper = 1.0 if ef is None else candidates / usual
    (part, ranking_ns), (whole, whole_ns) = (
        (0.0, min(rows, candidates) * far_ns)
        if ef is not None
        else (budget.band(k, after_all), min(rows, max(k, budget.in_band(rows, after_all) * more)) * far_ns)
        for after_all in (False, True)
    )
    found = [(Way.EXACT, candidates, rows, rows * far_ns, 0.0)]
    found.append((Way.CODES, candidates, rows, QUERY_NS + rows * code_ns + whole_ns, whole))
    if copied:
        few = max(k, ef if ef is not None else k + 2 + k // 5)  # bytes hardly err
        copies_ns = rows * (4.0 + 0.03 * dim)
        found.append((Way.COPIES, few, rows, COPY_QUERY_NS + copies_ns + min(few, rows) * far_ns, 0.0))
    if fan.cells:
        scored = min(rows, round(budget.rows(rows) * more**0.5 * deeper) + 1)
        each_ns = 2.0 + 0.015 * dim + LIST_NS
        lists_ns = fan.lists(rows) * each_ns  # most centroids are scored, if few rows are
        if passed > 1:
            lists_ns = fan.lists(round(rows * passed / one_in(passed))) * each_ns + scored * passed * PASSED_NS
        cost_ns = 2 * QUERY_NS + scored * code_ns + lists_ns + ranking_ns
        found.append((Way.TREE, candidates, scored, cost_ns, part))
    if walk:
        pool = round(max(walk * deeper, k))
        cost_ns = QUERY_NS + pool * (WALK_NS + 150.0 * blocks) + ranking_ns
        found.append((Way.GRAPH, candidates, pool, cost_ns, part))
    return [Plan(way, most, scored, cost_ns / 1000, band) for way, most, scored, cost_ns, band in found]


@lru_cache(4096)
def choose(
    rows: int,
    k: int,
    ef: int | None,
    exact: bool,
    budget: Budget,
    fan: Fan,
    walk: float,
    dim: int,
    blocks: int,
    copied: bool,
    passed: float = 1.0,
) -> Plan:
    """The cheapest of the :func:`ways`; with ``exact`` the first of them."""
    there = ways(rows, k, ef, budget, fan, walk, dim, blocks, copied, passed)
    return there[0] if exact else min(there, key=lambda plan: plan.cost_microseconds)
