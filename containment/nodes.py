"""Candidate pairs over nodes: sets of tables that nothing read so far tells apart.

Every stage of the search splits nodes by what it learnt and drops pairs, so a thousand copies of a table stay one
node with one pair (the node with itself) until their rows are known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

__all__ = ["Nodes", "Pair"]

Pair = tuple[int, int]
"""Child node and parent node; a node with itself stands for all pairs of its tables."""


@dataclass
class Nodes:
    """``class_of[n]``: schema class of node n; ``tables[n]``: its tables, ascending; ``settled``: nodes whose pairs
    with each other are known already, each of one table."""

    class_of: list[int] = field(default_factory=list)
    tables: list[list[int]] = field(default_factory=list)
    settled: set[int] = field(default_factory=set)

    def add(self, schema_class: int, tables: Iterable[int], settled: bool = False) -> int:
        """A new node; returns its number."""
        self.class_of.append(schema_class)
        self.tables.append(sorted(tables))
        if settled:
            self.settled.add(len(self.tables) - 1)
        return len(self.tables) - 1

    def is_open(self, pair: Pair) -> bool:
        """Whether the pair says anything that is not settled."""
        child, parent = pair
        if child == parent:
            return len(self.tables[child]) > 1
        return not (child in self.settled and parent in self.settled)

    def count(self, pairs: Iterable[Pair]) -> int:
        """Ordered pairs of tables behind these pairs of nodes."""
        size = [len(tables) for tables in self.tables]
        return sum(size[c] * size[p] if c != p else size[c] * (size[c] - 1) for c, p in pairs)

    def split(self, labels: Mapping[int, Hashable]) -> dict[int, list[int]]:
        """Split every node by the labels of its tables, where they have one; returns the parts of each split node.

        Tables without a label stay together. A node all of one label is not split and not in the result.
        """
        parts: dict[int, list[int]] = {}
        for number in range(len(self.tables)):
            by_label: dict[Hashable, list[int]] = {}
            for table in self.tables[number]:
                by_label.setdefault(labels.get(table), []).append(table)
            if len(by_label) > 1:
                parts[number] = [self.add(self.class_of[number], tables) for tables in by_label.values()]
        return parts

    def refined(self, pairs: Sequence[Pair], parts: Mapping[int, list[int]]) -> list[Pair]:
        """The pairs after a split: every part of the child with every part of the parent."""
        return [
            (c, p)
            for child, parent in pairs
            for c in parts.get(child, (child,))
            for p in parts.get(parent, (parent,))
            if c != p or len(self.tables[c]) > 1
        ]
