"""The program of which tables to keep, made smaller before it is solved, and the parts into which it then falls.

Parents that are kept in any case leave it together with their edges, and so do edges that no cheapest choice needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Given", "Part", "Reduced"]

_ROUNDS: Final = 100
"""How often the program is reduced at most: long chains would give up only a table or two each time."""


@dataclass(frozen=True)
class Given:
    """The program as given, checked: no loops, no parallel edges; edges by child, then by parent."""

    keep_cost: NDArray[np.float64]
    must_keep: NDArray[np.bool_]
    child: NDArray[np.int64]
    parent: NDArray[np.int64]
    edge_cost: NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Tables to decide together, numbered from 0, and the edges between them.

    ``keep_cost``, ``external``: float64 of shape (n,); the latter is the cost of rebuilding a table from one that is
    kept whatever happens here, infinite where there is none. ``child``, ``parent``: int64 of shape (m,), no pair
    twice. ``edge_cost``: float64 of shape (m,), below what the child costs alone.
    """

    keep_cost: NDArray[np.float64]
    external: NDArray[np.float64]
    child: NDArray[np.int64]
    parent: NDArray[np.int64]
    edge_cost: NDArray[np.float64]

    @property
    def alone(self) -> NDArray[np.float64]:
        """What each table costs when no other of the part helps it."""
        return np.minimum(self.keep_cost, self.external)

    def rebuilt(self, kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What rebuilding each table costs at least while ``kept`` are kept; infinite where nothing serves."""
        cost = self.external.copy()
        usable = kept[self.parent]
        np.minimum.at(cost, self.child[usable], self.edge_cost[usable])
        return cost

    def complete(self, kept: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], float]:
        """Keep also what is cheaper kept than rebuilt, or cannot be rebuilt. Returns all that is kept and the cost."""
        kept = kept | (self.rebuilt(kept) >= self.keep_cost)
        return kept, float(np.where(kept, self.keep_cost, self.rebuilt(kept)).sum())

    def least(self) -> float:
        """A lower bound that costs nothing to find: each table by its cheapest way, whoever is kept."""
        return float(np.minimum(self.keep_cost, self.rebuilt(np.ones(self.keep_cost.size, bool))).sum())


class Reduced:
    """The program without what is decided already, in any order that keeps some cheapest choice.

    ``kept``: bool of shape (n,), the tables known to be kept, since they must be or nothing serves them for less.
    Such parents need no variable: of their edges, a child's cheapest becomes its ``external`` cost.
    """

    def __init__(self, given: Given) -> None:
        self._keep = given.keep_cost
        self._child, self._parent, self._cost = given.child, given.parent, given.edge_cost
        self._external = np.full(self._keep.size, math.inf)
        self.kept = given.must_keep.copy()
        self._drop_costly()
        self.components = int(np.count_nonzero(np.bincount(self._labels()) > 1)) if self._keep.size else 0
        for _ in range(_ROUNDS):
            before = self._child.size, np.count_nonzero(self.kept)
            self._drop_costly()
            self._keep_unserved()
            self._drop_unworthy()
            if before == (self._child.size, np.count_nonzero(self.kept)):
                break

    def _alone(self) -> NDArray[np.float64]:
        return np.where(self.kept, self._keep, np.minimum(self._keep, self._external))

    def _only(self, edges: NDArray[np.bool_]) -> None:
        self._child, self._parent, self._cost = self._child[edges], self._parent[edges], self._cost[edges]

    def _drop_costly(self) -> None:
        """Drop edges that cost at least what the child costs alone, and edges to what is kept anyway."""
        self._only((self._cost < self._alone()[self._child]) & ~self.kept[self._child])

    def _keep_unserved(self) -> None:
        """Keep what has no edge left and nothing external, and make the edges of what is kept external costs."""
        unserved = np.isinf(self._external)
        unserved[self._child] = False
        self.kept |= unserved
        sure = self.kept[self._parent]
        np.minimum.at(self._external, self._child[sure], self._cost[sure])
        self._only(~sure)

    def _drop_unworthy(self) -> None:
        """Drop the edges of parents whose keeping costs more, over rebuilding them, than all of it could save.

        Holds for any number of such parents at once: none of them relies on another, for each has its external cost.
        """
        saved = np.zeros(self._keep.size)
        np.add.at(saved, self._parent, np.maximum(self._alone()[self._child] - self._cost, 0.0))
        worthy = np.isinf(self._external) | (saved > self._keep - self._external)
        self._only(worthy[self._parent])

    def _labels(self) -> NDArray[np.int64]:
        """The least table that each table is connected with, int64 of shape (n,)."""
        label = np.arange(self._keep.size)
        while True:
            low = np.minimum(label[self._child], label[self._parent])
            high = np.maximum(label[self._child], label[self._parent])
            if np.array_equal(low, high):
                return label
            np.minimum.at(label, high, low)
            while not np.array_equal(label, label[label]):
                label = label[label]

    def parts(self) -> Iterator[tuple[NDArray[np.int64], Part]]:
        """The parts left to decide, those of fewest edges first: their tables and their programs."""
        if not self._child.size:
            return
        label = self._labels()
        of_edge = label[self._child]
        by_edge = np.argsort(of_edge, kind="stable")
        by_table = np.argsort(label, kind="stable")
        names, sizes = np.unique(of_edge, return_counts=True)
        ends = np.cumsum(sizes)
        first = np.searchsorted(label[by_table], names)
        last = np.searchsorted(label[by_table], names, side="right")
        number = np.empty(label.size, dtype=np.int64)
        for i in np.argsort(sizes, kind="stable"):
            tables = by_table[first[i] : last[i]]
            edges = by_edge[ends[i] - sizes[i] : ends[i]]
            number[tables] = np.arange(tables.size)
            child, parent = number[self._child[edges]], number[self._parent[edges]]
            yield tables, Part(self._keep[tables], self._external[tables], child, parent, self._cost[edges])
