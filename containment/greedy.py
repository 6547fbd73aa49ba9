"""A good set of tables to keep, soon: the start and the fallback of the exact program in :mod:`.program`.

Every table starts at its own cheapest way out. Tables are then kept for others, the most saved per dollar of keeping
first, and at last single tables are added and dropped while that helps.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .parts import Part

__all__ = ["greedy"]

_PASSES: Final = 4
"""How often every table is looked at for adding or dropping, at most: it bounds the time, and is not tuned."""


def greedy(part: Part) -> tuple[NDArray[np.bool_], float]:
    """Return which tables of the part to keep, bool of shape (n,), and what that costs.

    Takes some tenths of a second for 100,000 edges, and is the same every time.
    """
    search = _Search(part)
    found = [part.complete(search.picked(by_ratio)) for by_ratio in (True, False)]
    kept, cost = min(found, key=lambda one: one[1])
    improved = part.complete(search.improved(kept))
    return improved if improved[1] < cost else (kept, cost)


class _Search:
    """The part as lists, which Python walks faster than arrays."""

    def __init__(self, part: Part) -> None:
        n = part.keep_cost.size
        self._keep: list[float] = part.keep_cost.tolist()
        self._external: list[float] = part.external.tolist()
        self._ways: list[list[tuple[float, int]]] = [[] for _ in range(n)]  # by child: edge cost and parent
        self._served: list[list[tuple[float, int]]] = [[] for _ in range(n)]  # by parent: edge cost and child
        for child, parent, cost in zip(part.child.tolist(), part.parent.tolist(), part.edge_cost.tolist(), strict=True):
            self._ways[child].append((cost, parent))
            self._served[parent].append((cost, child))
        for ways in self._ways:
            ways.sort()
        self._kept: list[bool] = []
        self._flipped: list[int] = []

    def picked(self, by_ratio: bool) -> NDArray[np.bool_]:
        """Keep, time and again, the table that saves most: per dollar of keeping it, or in all.

        What a table would save only shrinks as others are picked, so a stale value on the heap is never too small.
        """
        price = [min(pair) for pair in zip(self._keep, self._external, strict=True)]
        picked = [False] * len(price)

        def saving(table: int) -> float:
            total = price[table] - self._keep[table]
            for cost, child in self._served[table]:
                if cost < price[child] and not picked[child]:
                    total += price[child] - cost
            return total / (self._keep[table] or 1e-300) if by_ratio else total

        heap = [(-saving(table), table) for table, served in enumerate(self._served) if served]
        heapq.heapify(heap)
        while heap:
            _, table = heapq.heappop(heap)
            now = saving(table)
            if now <= 0:
                continue
            if heap and (-now, table) > heap[0]:
                heapq.heappush(heap, (-now, table))
                continue
            picked[table] = True
            price[table] = self._keep[table]
            for cost, child in self._served[table]:
                if cost < price[child] and not picked[child]:
                    price[child] = cost
        return np.array(picked, dtype=bool)

    def improved(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Drop a kept table, or keep one more and drop those it makes needless, wherever the cost goes down."""
        self._kept = kept.tolist()
        for _ in range(_PASSES):
            better = False
            for table, served in enumerate(self._served):
                if served or self._kept[table]:
                    better |= self._try(table)
            if not better:
                break
        return np.array(self._kept, dtype=bool)

    def _try(self, table: int) -> bool:
        self._flipped = []
        before = self._keep[table]
        change = self._flip(table)
        if self._kept[table]:
            for cost, child in self._served[table]:
                if self._kept[child] and cost < self._keep[child]:
                    mark = len(self._flipped)
                    dropped = self._flip(child)
                    if dropped < 0:
                        change += dropped
                    else:
                        self._undo(mark)
        if change < -1e-12 * before:  # less is rounding, and might go round in circles
            return True
        self._undo(0)
        return False

    def _flip(self, table: int) -> float:
        """Keep or drop the table, keep the children that nothing else serves, and return what that costs at most."""
        touched = [table, *(child for _, child in self._served[table] if not self._kept[child])]
        before = sum(self._price(one) for one in touched)
        self._turn(table)
        after = 0.0
        for one in touched:
            price = self._price(one)
            if price > self._keep[one] and not self._kept[one]:
                self._turn(one)
                price = self._keep[one]
            after += price
        return after - before

    def _turn(self, table: int) -> None:
        self._kept[table] = not self._kept[table]
        self._flipped.append(table)

    def _undo(self, mark: int) -> None:
        while len(self._flipped) > mark:
            table = self._flipped.pop()
            self._kept[table] = not self._kept[table]

    def _price(self, table: int) -> float:
        if self._kept[table]:
            return self._keep[table]
        for cost, parent in self._ways[table]:
            if self._kept[parent]:
                return min(cost, self._external[table])
        return self._external[table]
