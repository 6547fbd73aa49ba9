"""What follows from proven containments: A in B and B in C give A in C; A in B and A not in C give B not in C.

Sets of groups are Python integers used as bit sets. Groups whose columns match by exact spelling take no part, since
their columns may map differently along a path than directly.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Transitivity"]

Pair = tuple[int, int]


class Transitivity:
    """Knows which pairs (child group, parent group) hold, may hold, and do not. ``opaque(group)``: takes no part."""

    def __init__(self, opaque: Callable[[int], bool]) -> None:
        self._opaque = opaque
        self._yes_up: defaultdict[int, int] = defaultdict(int)
        self._yes_down: defaultdict[int, int] = defaultdict(int)
        self._no_up: defaultdict[int, int] = defaultdict(int)
        self._no_down: defaultdict[int, int] = defaultdict(int)
        self._may_up: defaultdict[int, int] = defaultdict(int)
        self._may_down: defaultdict[int, int] = defaultdict(int)

    def _takes_part(self, pair: Pair) -> bool:
        return not (self._opaque(pair[0]) or self._opaque(pair[1]))

    def start(self, possible: Iterable[Pair], holding: Iterable[Pair], refuted: Iterable[Pair]) -> None:
        """Take in what is known before the first comparison."""
        for pair in possible:
            self._set(self._may_up, self._may_down, pair)
        for pair in holding:
            self.holds(pair)
        for pair in refuted:
            self.refuted(pair)

    def _set(self, up: defaultdict[int, int], down: defaultdict[int, int], pair: Pair) -> None:
        if self._takes_part(pair):
            child, parent = pair
            up[child] |= 1 << parent
            down[parent] |= 1 << child

    def holds(self, pair: Pair) -> None:
        """The child is contained in the parent."""
        self._set(self._yes_up, self._yes_down, pair)
        self._set(self._may_up, self._may_down, pair)

    def refuted(self, pair: Pair) -> None:
        """The child has a row that the parent lacks."""
        self._set(self._no_up, self._no_down, pair)
        child, parent = pair
        self._may_up[child] &= ~(1 << parent)
        self._may_down[parent] &= ~(1 << child)

    def implied(self, pair: Pair) -> bool:
        """Whether some group lies between child and parent."""
        return self._takes_part(pair) and bool(self._yes_up[pair[0]] & self._yes_down[pair[1]])

    def excluded(self, pair: Pair) -> bool:
        """Whether the pair cannot hold: the parent lacks a child of the child, or its own parent lacks the child."""
        child, parent = pair
        return self._takes_part(pair) and bool(
            (self._yes_down[child] & self._no_down[parent]) | (self._yes_up[parent] & self._no_up[child])
        )

    def waits(self, pair: Pair) -> bool:
        """Whether other pairs may yet imply this one."""
        return self._takes_part(pair) and bool(self._may_up[pair[0]] & self._may_down[pair[1]])
