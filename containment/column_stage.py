"""Refuting by the values of single columns, before whole rows are read.

One column of sixteen refutes most decoys at a small part of their bytes. The column is chosen once for each class of
tables, cheap and with many distinct values; a second one follows for pairs that survive. Small tables are in memory
after the first look, so they are probed by their most telling column only.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import numpy as np

from .sketch import missing_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ..lake.progress import Progress
    from ..lake.statistics import Bounds
    from .content import Content
    from .copies import Copies
    from .nodes import Nodes, Pair
    from .schema_graph import SchemaGraph
    from .sketch import ValueSet

__all__ = ["ColumnStage"]

ROUNDS: Final = 2
_CHEAP: Final = 0.5
"""Columns are probed while together they cost at most this share of all columns that the pair needs."""
_TELLING: Final = 0.1
"""A column is worth probing when it may have this share of the distinct values of the most telling one."""
_QUICK: Final = frozenset({"number", "bool", "date", "time", "timestamp", "timestamp with zone", "duration"})
_TEXT_COST: Final = 4.0
"""A byte of text costs this many times a byte of a fixed width: it is hashed letter by letter."""
_LEADING: Final = 16
"""Smallest hashes compared in one vectorised step before any pair is looked at by itself."""


class ColumnStage:
    """Drops pairs whose child has a value that the parent lacks. ``bounds(table)`` as in :mod:`.min_max`."""

    def __init__(
        self,
        graph: SchemaGraph,
        nodes: Nodes,
        content: Content,
        copies: Copies,
        bounds: Callable[[int], Mapping[str, Bounds]],
        num_rows: Sequence[int],
        min_fraction: float,
    ) -> None:
        self._graph = graph
        self._nodes = nodes
        self._content = content
        self._copies = copies
        self._bounds = bounds
        self._num_rows = num_rows
        self._min_fraction = min_fraction
        self._order: dict[int, list[int]] = {}
        self._spelled = [dict(zip(own.tables.tolist(), own.columns, strict=True)) for own in graph.classes]

    def columns(self, table: int, schema_class: int) -> tuple[str, ...]:
        """The table's own names of its class's columns, in the class's order."""
        names: tuple[str, ...] = self._spelled[schema_class][table]
        return names

    def needed(self, pairs: Sequence[Pair]) -> dict[int, set[str]]:
        """Columns of each table that comparing whole rows of these pairs reads."""
        nodes = self._nodes
        needed: defaultdict[int, set[str]] = defaultdict(set)
        for node in {n for pair in pairs for n in pair}:
            for table in nodes.tables[node]:
                needed[table].update(self.columns(table, nodes.class_of[node]))
        return needed

    def run(self, pairs: Sequence[Pair], progress: Progress) -> list[Pair]:
        """The pairs that survive; nodes are split by what was read."""
        settled: list[Pair] = []
        open_pairs: list[Pair] = []
        for at, pair in enumerate(pairs):
            (settled if self._are_copies(pair) else open_pairs).append(pair)
            progress("copies", at + 1, len(pairs))
        pairs = open_pairs
        for turn in range(ROUNDS):
            wanted, asked = self._wanted(pairs, turn)
            if not wanted:
                continue
            needed = self.needed(pairs + settled)
            sets = self._content.value_sets(
                wanted,
                lambda table, n=needed: sorted(n[table]),  # type: ignore[misc]
                lambda done, total: progress("columns", done, total),
            )
            labels = {
                table: tuple((name, _label(sets[table, name])) for name in sorted(names))
                for table, names in wanted.items()
            }
            # ``asked`` speaks of the nodes before the split.
            parts = self._nodes.split(labels)
            survivors: list[Pair] = []
            for pair in pairs:
                if pair not in asked:
                    survivors.extend(self._nodes.refined([pair], parts))
                else:
                    survivors.extend(self._product(pair, parts, asked[pair], sets))
            pairs = survivors
            settled = self._nodes.refined(settled, parts)
            self._content.keep_only({t for pair in pairs + settled for n in pair for t in self._nodes.tables[n]})
        return pairs + settled

    def _are_copies(self, pair: Pair) -> bool:
        """Whether all tables of the pair are copies of each other in the child's columns, so that probing is idle."""
        (child, parent), nodes = pair, self._nodes
        child_class, parent_class = nodes.class_of[child], nodes.class_of[parent]
        at = self._graph.maps[child_class, parent_class].tolist()
        members = {(table, self.columns(table, child_class)) for table in nodes.tables[child]}
        for table in nodes.tables[parent]:
            names = self.columns(table, parent_class)
            members.add((table, tuple(names[i] for i in at)))
        return self._copies.are_copies(sorted(members))

    def _wanted(self, pairs: Sequence[Pair], turn: int) -> tuple[dict[int, set[str]], dict[Pair, tuple[int, int]]]:
        """Columns to read by table, and for each pair to be probed the (child, parent) column positions."""
        nodes = self._nodes
        wanted: defaultdict[int, set[str]] = defaultdict(set)
        asked: dict[Pair, tuple[int, int]] = {}
        for child, parent in pairs:
            child_class, parent_class = nodes.class_of[child], nodes.class_of[parent]
            order = self._probe_order(child_class, nodes.tables[child][0])
            if turn >= len(order):
                continue
            at = order[turn]
            theirs = int(self._graph.maps[child_class, parent_class][at])
            asked[child, parent] = at, theirs
            for node, column in ((child, at), (parent, theirs)):
                for table in nodes.tables[node]:
                    wanted[table].add(self.columns(table, nodes.class_of[node])[column])
        return wanted, asked

    def _probe_order(self, schema_class: int, table: int) -> list[int]:
        """Columns of the class worth probing, in order, judged by one of its tables."""
        if schema_class not in self._order:
            names = self.columns(table, schema_class)
            rows = self._num_rows[table]
            size = np.array([self._content.column_bytes(table, [name]) for name in names], dtype=np.float64)
            text = np.array([f.kind not in _QUICK for f in self._graph.classes[schema_class].families])
            known = self._bounds(table)
            distinct = np.array([_most_distinct(known.get(n), b, rows) for n, b in zip(names, size, strict=True)])
            distinct[[_numbers_rows(known.get(name), rows) for name in names]] = 0.0
            telling = np.flatnonzero((distinct >= _TELLING * distinct.max()) & (distinct > 0.0))
            if self._content.is_small(table, names):
                # All columns are read anyway, so cheapness is no argument.
                order = telling[np.lexsort((-size[telling], text[telling]))].tolist() if len(names) > 1 else []
            else:
                cheapest = telling[np.argsort(size[telling] * np.where(text[telling], _TEXT_COST, 1.0), kind="stable")]
                order = cheapest[np.cumsum(size[cheapest]) <= _CHEAP * size.sum()].tolist()
            self._order[schema_class] = order[:ROUNDS]
        return self._order[schema_class]

    def _product(
        self,
        pair: Pair,
        parts: Mapping[int, list[int]],
        columns: tuple[int, int],
        sets: Mapping[tuple[int, str], ValueSet],
    ) -> list[Pair]:
        """The surviving pairs among the parts of a pair's nodes."""
        nodes = self._nodes
        children = parts.get(pair[0], [pair[0]])
        parents = parts.get(pair[1], [pair[1]])
        own = [sets[nodes.tables[n][0], self._name(n, columns[0])] for n in children]
        theirs = [sets[nodes.tables[n][0], self._name(n, columns[1])] for n in parents]
        rows = np.array([max(self._num_rows[t] for t in nodes.tables[n]) for n in children], dtype=np.float64)
        strict = (rows - 1) / np.maximum(rows, 1) < self._min_fraction
        low, high = _leading(own, np.uint64(2**64 - 1)), _leading(theirs, np.uint64(0))
        survivors: list[Pair] = []
        for i, child in enumerate(children):
            # A subset's j-th smallest hash is never below the whole's.
            possible = (low[i] >= high).all(axis=1) if strict[i] else np.ones(len(parents), dtype=np.bool_)
            for j in np.flatnonzero(possible).tolist():
                parent = parents[j]
                if child == parent:
                    if len(nodes.tables[child]) > 1:
                        survivors.append((child, parent))
                    continue
                missing = missing_values(own[i], theirs[j])
                if missing == 0 or (rows[i] - missing) / rows[i] >= self._min_fraction:
                    survivors.append((child, parent))
        return survivors

    def _name(self, node: int, column: int) -> str:
        return self.columns(self._nodes.tables[node][0], self._nodes.class_of[node])[column]


def _label(values: ValueSet) -> tuple[int, bytes]:
    return int(values.threshold), values.hashes.tobytes()


def _leading(sets: Sequence[ValueSet], unknown: np.uint64) -> NDArray[np.uint64]:
    """The smallest hashes of each set, uint64 (n, 16); where a set has no more, the greatest or ``unknown``."""
    table = np.full((len(sets), _LEADING), np.uint64(2**64 - 1), dtype=np.uint64)
    for row, values in zip(table, sets, strict=True):
        head = values.hashes[:_LEADING]
        row[: len(head)] = head
        if not values.whole:
            row[len(head) :] = unknown
    return table


def _numbers_rows(bounds: Bounds | None, rows: int) -> bool:
    """Whether a column seems to number the rows: such a column is within any longer one, which tells nothing."""
    if bounds is None or type(bounds.min) is not int or type(bounds.max) is not int:
        return False
    return bounds.max - bounds.min + 1 == rows


def _most_distinct(bounds: Bounds | None, num_bytes: float, rows: int) -> float:
    """A guess at the distinct values of a column: no more than rows, or than its integers, or than its bits tell."""
    guess = float(rows)
    if rows > 0:
        guess = min(guess, 2.0 ** min(62.0, 8.0 * num_bytes / rows + 4.0))
    if bounds is not None and isinstance(bounds.min, int) and isinstance(bounds.max, int):
        guess = min(guess, float(bounds.max) - float(bounds.min) + 1.0)
    return guess
