"""What an earlier answer says of the tables at hand, and how it joins with what this run finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from .relation import Edge
    from .row_stage import Groups
    from .verdicts import Answer, VerdictStore

__all__ = ["Known", "recall"]

Parts = tuple[list[list[int]], list[int], list[bool], dict[tuple[int, int], "Edge"]]
"""Groups of tables, distinct rows and opaqueness by group, and edges between groups."""


@dataclass(frozen=True)
class Known:
    """Tables whose relation among each other is known.

    ``groups``: by the answer's group number, those of its tables that are here; ``of_table`` the other way. ``heads``
    holds one table of each group, which stands for the others when new tables come.
    """

    answer: Answer | None
    groups: dict[int, list[int]]
    of_table: dict[int, int]
    heads: frozenset[int]

    def with_new(self, new: Groups, filled: Sequence[int], opaque: Container[int], min_fraction: float) -> Parts:
        """Old and new groups and edges as one. ``filled``: all tables with rows; ``opaque``: as found in this run."""
        groups: list[list[int]] = []
        distinct: list[int] = []
        flags: list[bool] = []
        number_of: dict[int, int] = {}

        def place(tables: list[int], rows: int, exact: bool) -> int:
            groups.append(tables)
            distinct.append(rows)
            flags.append(exact)
            number_of.update(dict.fromkeys(tables, len(groups) - 1))
            return len(groups) - 1

        numbers = [
            place(sorted({t for m in members for t in self._behind(m)}), rows, any(m in opaque for m in members))
            if members
            else -1
            for members, rows in zip(new.tables, new.distinct, strict=True)
        ]
        for table in filled:
            if table not in number_of:
                old = self.of_table.get(table)
                if old is not None and self.answer is not None:
                    place(self.groups[old], self.answer.distinct[old], self.answer.opaque[old] or table in opaque)
                else:
                    place([table], 0, table in opaque)
        edges = {(numbers[c], numbers[p]): edge for (c, p), edge in new.edges.items()}
        if self.answer is not None:
            for (c, p), edge in self.answer.edges.items():
                if c in self.groups and p in self.groups and edge.fraction >= min_fraction:
                    pair = number_of[self.groups[c][0]], number_of[self.groups[p][0]]
                    edges.setdefault(pair, edge)
                    for old, number in zip((c, p), pair, strict=True):
                        distinct[number] = distinct[number] or self.answer.distinct[old]
        return groups, distinct, flags, {pair: edge for pair, edge in edges.items() if pair[0] != pair[1]}

    def _behind(self, table: int) -> list[int]:
        return self.groups[self.of_table[table]] if table in self.heads else [table]


def recall(verdicts: VerdictStore, filled: Sequence[int], key_of: Callable[[int], bytes], min_fraction: float) -> Known:
    """What the verdicts know of these tables at this fraction."""
    keys = [key_of(t) for t in filled]
    answer = verdicts.answer(keys, min_fraction)
    groups: dict[int, list[int]] = {}
    of_table: dict[int, int] = {}
    if answer is not None:
        for table, key in zip(filled, keys, strict=True):
            group = answer.group_of.get(key)
            if group is not None:
                groups.setdefault(group, []).append(table)
                of_table[table] = group
    return Known(answer, groups, of_table, frozenset(members[0] for members in groups.values()))
