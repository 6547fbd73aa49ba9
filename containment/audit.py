"""Search under a limit of bytes: what may save most comes first, and what is left is said to be open.

A child's bytes are what retiring it would save, so children are taken by size. A round takes as many as the rest of
the budget pays for in the worst case; since most are refuted early, what a round leaves over goes to the next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..lake.table import Table
    from .graph import Graph
    from .nodes import Nodes, Pair

__all__ = ["Budget", "findings"]

_MARGIN: Final = 2.5
"""The most that is read of a table over its bytes: half of them to probe, all to compare, all to count a parent."""


class Budget:
    """Deals out candidate pairs. ``limit_bytes`` None is no limit: everything at once.

    ``left``: the pairs that were not dealt out.
    """

    def __init__(self, limit_bytes: int | None, tables: Sequence[Table], nodes: Nodes) -> None:
        self.left: list[Pair] = []
        self._limit_bytes = limit_bytes
        self._tables = tables
        self._nodes = nodes

    def rounds(self, pairs: list[Pair], bytes_read: Callable[[], int]) -> Iterator[list[Pair]]:
        """Pairs to decide now, round by round; ``bytes_read()`` tells what all rounds so far read."""
        if self._limit_bytes is None:
            if pairs:
                yield pairs
            return
        by_child: dict[int, list[Pair]] = {}
        for pair in pairs:
            by_child.setdefault(pair[0], []).append(pair)
        size = {n: sum(self._tables[t].num_bytes for t in self._nodes.tables[n]) for pair in pairs for n in pair}
        waiting = sorted(by_child, key=lambda node: (-size[node], node))
        self.left = pairs
        while waiting:
            rest = self._limit_bytes - bytes_read()
            taken: set[int] = set()
            chosen: set[int] = set()
            for child in waiting:
                extra = {n for pair in by_child[child] for n in pair} - taken
                cost = int(_MARGIN * sum(size[n] for n in extra))
                if cost <= rest:
                    rest -= cost
                    taken |= extra
                    chosen.add(child)
            if not chosen:
                return
            now = [pair for child in waiting if child in chosen for pair in by_child[child]]
            waiting = [child for child in waiting if child not in chosen]
            self.left = [pair for child in waiting for pair in by_child[child]]
            yield now


def findings(graph: Graph) -> pa.Table:
    """What is known of each table, the largest first: table, num_bytes, status, parent, kind.

    ``status``: "redundant" (all its rows are in ``parent``, which stays), "open" (a budget left pairs undecided) or
    "ruled out". ``kind``: contained or duplicate; it and ``parent`` are NULL unless redundant.
    """
    holder: dict[str, tuple[str, str]] = {}
    redundant = {graph.names[table] for table in graph.redundant}
    for edge in graph.reduced.to_pylist():
        if edge["child"] in redundant and edge["kind"] != "partial":
            holder.setdefault(edge["child"], (edge["parent"], edge["kind"]))
    rows: list[tuple[int, str, str, str | None, str | None]] = []
    for table, (name, num_bytes) in enumerate(zip(graph.names, graph.num_bytes, strict=True)):
        parent, kind = holder.get(name, (None, None))
        status = "redundant" if name in redundant else "open" if table in graph.undecided else "ruled out"
        rows.append((-num_bytes, name, status, parent, kind))
    columns = [[-size for size, *_ in sorted(rows)], *([row[i] for row in sorted(rows)] for i in range(1, 5))]
    return pa.table([columns[1], columns[0], *columns[2:]], schema=FINDINGS)


FINDINGS: Final = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("num_bytes", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("parent", pa.string()),
        pa.field("kind", pa.string()),
    ]
)
