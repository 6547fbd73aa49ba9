"""The containment relation over groups of duplicates: what was proven, what follows, and its expansion to tables.

Tables with the same columns and the same rows form a group, and everything is known between groups. A thousand
copies of a table are one group; their million edges exist only while somebody iterates over them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Edge", "Relation", "relation"]


@dataclass(frozen=True, slots=True)
class Edge:
    """Of ``distinct`` distinct rows of the child, ``found`` are rows of the parent. ``compared``: else it follows."""

    found: int
    distinct: int
    compared: bool

    @property
    def whole(self) -> bool:
        """Whether the child is contained in the parent."""
        return self.found == self.distinct

    @property
    def fraction(self) -> float:
        """Share of the child's distinct rows that the parent has."""
        return self.found / self.distinct


@dataclass(frozen=True)
class Relation:
    """Groups of tables and the edges between groups.

    ``groups``: positions of tables, the representative first; only groups that have several tables or an edge.
    ``distinct``: distinct rows of each group's tables. ``edges``: by (child group, parent group), complete: what
    transitivity implies is there. ``opaque``: groups whose columns match by exact spelling; nothing is inferred
    through them.
    """

    groups: tuple[tuple[int, ...], ...]
    distinct: tuple[int, ...]
    edges: Mapping[tuple[int, int], Edge]
    opaque: frozenset[int] = frozenset()
    _parents: dict[int, list[int]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the edges by child."""
        for child, parent in self.edges:
            self._parents.setdefault(child, []).append(parent)

    def mutual(self, child: int, parent: int) -> bool:
        """Whether the two groups contain each other: the same rows, though not one group."""
        both = self.edges.get((child, parent)), self.edges.get((parent, child))
        return all(edge is not None and edge.whole for edge in both)

    @property
    def num_edges(self) -> int:
        """Ordered pairs of tables in the expanded relation."""
        size = [len(group) for group in self.groups]
        return sum(n * (n - 1) for n in size) + sum(size[c] * size[p] for c, p in self.edges)

    def rows(self) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
        """The expanded relation by child table, ascending.

        Yields (child table, its group, parent tables ascending as int64, their groups as int64).
        """
        by_table = sorted((table, number) for number, group in enumerate(self.groups) for table in group)
        members = [np.array(group, dtype=np.int64) for group in self.groups]
        of_group: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        for table, number in by_table:
            if number not in of_group:
                near = [number, *self._parents.get(number, ())]
                tables = np.concatenate([members[n] for n in near])
                groups = np.repeat(np.array(near, dtype=np.int64), [len(members[n]) for n in near])
                order = np.argsort(tables)
                of_group[number] = tables[order], groups[order]
            tables, groups = of_group[number]
            others = tables != table
            if others.any():
                yield table, number, tables[others], groups[others]

    def reduced(self) -> list[tuple[int, int]]:
        """The edges between groups that no other edges imply: the transitive reduction, and every partial edge."""
        parents: defaultdict[int, int] = defaultdict(int)
        children: defaultdict[int, int] = defaultdict(int)
        for (child, parent), edge in self.edges.items():
            if edge.whole:
                if parent not in self.opaque:
                    parents[child] |= 1 << parent
                if child not in self.opaque:
                    children[parent] |= 1 << child
        return sorted(
            (child, parent)
            for (child, parent), edge in self.edges.items()
            if not edge.whole
            or child in self.opaque
            or parent in self.opaque
            or not parents.get(child, 0) & children.get(parent, 0)
        )


def relation(
    groups: Sequence[Sequence[int]],
    distinct: Sequence[int],
    edges: Mapping[tuple[int, int], Edge],
    opaque: Iterable[int] = (),
) -> Relation:
    """The relation over ``groups`` with ``edges``; groups that contain each other become one, opaque ones apart.

    ``distinct`` and ``opaque`` speak of positions in ``groups``. Groups without an edge and of one table are left out.
    """
    head = list(range(len(groups)))

    def root(n: int) -> int:
        while head[n] != n:
            head[n] = head[head[n]]
            n = head[n]
        return n

    exact = frozenset(opaque)
    for (child, parent), edge in edges.items():
        back = edges.get((parent, child))
        if edge.whole and back is not None and back.whole and child not in exact and parent not in exact:
            a, b = sorted((root(child), root(parent)))
            head[b] = a
    merged: defaultdict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        merged[root(number)].extend(group)
    inner: dict[tuple[int, int], Edge] = {}
    for (child, parent), edge in edges.items():
        pair = root(child), root(parent)
        if pair[0] != pair[1] and (pair not in inner or (edge.compared and not inner[pair].compared)):
            inner[pair] = edge
    used = {n for pair in inner for n in pair} | {n for n, tables in merged.items() if len(tables) > 1}
    order = sorted(used, key=lambda n: merged[n][0])
    number_of = {n: i for i, n in enumerate(order)}
    return Relation(
        groups=tuple(tuple(merged[n]) for n in order),
        distinct=tuple(distinct[n] for n in order),
        edges={(number_of[c], number_of[p]): edge for (c, p), edge in sorted(inner.items())},
        opaque=frozenset(number_of[root(n)] for n in exact if root(n) in number_of),
    )
