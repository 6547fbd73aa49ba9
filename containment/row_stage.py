"""The exact end: rows of what survived, compared as sets.

Every table is read once. Its own rows and, when it is a parent, its rows projected to each child's columns are hashed
from the same columns. Equal signatures make groups, verified against one representative; between groups the pairs
that transitivity may decide wait until it cannot.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from .relation import Edge
from .transitivity import Transitivity
from .verdicts import Content as KnownContent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .column_stage import ColumnStage
    from .content import Content
    from .copies import Copies
    from .nodes import Nodes, Pair
    from .rowsets import Overlap, RowSets
    from .schema_graph import SchemaGraph
    from .verdicts import VerdictStore

__all__ = ["Groups", "RowStage"]


class Groups:
    """Tables of one class with the same rows, numbered. ``edges`` between groups as they are proven."""

    def __init__(self) -> None:
        self.tables: list[list[int]] = []
        self.distinct: list[int] = []
        self.class_of: list[int] = []
        self.of_table: dict[int, int] = {}
        self.edges: dict[tuple[int, int], Edge] = {}
        self._by_content: dict[tuple[int, int, bytes], int] = {}

    def place(self, table: int, schema_class: int, distinct: int, signature: bytes) -> int:
        """The group of a table with this content, new if need be. The table is not added."""
        key = schema_class, distinct, signature
        if key not in self._by_content:
            self._by_content[key] = len(self.tables)
            self.tables.append([])
            self.distinct.append(distinct)
            self.class_of.append(schema_class)
        return self._by_content[key]

    def join(self, table: int, group: int) -> None:
        """Note that the table's rows are the group's."""
        if table not in self.of_table:
            self.of_table[table] = group
            self.tables[group].append(table)


class RowStage:
    """Compares rows of candidate pairs and fills ``groups``. ``key_of(table)`` is the table's key for the verdicts."""

    def __init__(
        self,
        graph: SchemaGraph,
        nodes: Nodes,
        columns: ColumnStage,
        content: Content,
        copies: Copies,
        rowsets: RowSets,
        groups: Groups,
        min_fraction: float,
        verdicts: VerdictStore,
        key_of: Callable[[int], bytes],
    ) -> None:
        self._graph = graph
        self._nodes = nodes
        self._columns = columns
        self._content = content
        self._copies = copies
        self._rowsets = rowsets
        self._groups = groups
        self._min_fraction = min_fraction
        self._verdicts = verdicts
        self._key_of = key_of
        self._row_keys: dict[tuple[int, int], int] = {}
        self._key_of_copies: dict[tuple[int, tuple[bytes, ...]], int] = {}
        self._refuted: set[tuple[int, int]] = set()

    def run(self, pairs: Sequence[Pair], done: Callable[[int, int], None]) -> int:
        """Decide all pairs. Returns how many ordered pairs of tables hold."""
        nodes = self._nodes
        wanted: defaultdict[int, dict[int, tuple[Sequence[str], Sequence[str]]]] = defaultdict(dict)
        children = {child for child, _ in pairs}
        for node in sorted({n for pair in pairs for n in pair}):
            if node in children or len(nodes.tables[node]) > 1:
                for table in nodes.tables[node]:
                    self._want(wanted, table, nodes.class_of[node], nodes.class_of[node])
        for child, parent in pairs:
            self._want(wanted, nodes.tables[parent][0], nodes.class_of[parent], nodes.class_of[child])
        self._content.row_sets(wanted, done)
        self._group(sorted({n for pair in pairs for n in pair}))
        candidates = self._candidates(pairs)
        self._project(candidates)
        self._decide(candidates)
        self._count()
        return self._holding(pairs)

    def _want(
        self,
        wanted: defaultdict[int, dict[int, tuple[Sequence[str], Sequence[str]]]],
        table: int,
        own_class: int,
        child_class: int,
    ) -> None:
        """Ask for the table's rows under the columns of a child class, unless they are there already."""
        if (table, child_class) in self._row_keys:
            return
        names = self._columns.columns(table, own_class)
        if own_class != child_class:
            names = tuple(names[i] for i in self._graph.maps[child_class, own_class].tolist())
        key = len(self._row_keys)
        stored = self._copies.known(table, names)
        if stored is not None:  # a copy has the rows of the first
            key = self._key_of_copies.setdefault((child_class, stored), key)
        if key == len(self._row_keys):
            wanted[table][key] = names, self._graph.classes[child_class].tokens
        self._row_keys[table, child_class] = key

    def _group(self, involved: Iterable[int]) -> None:
        """Put every table into the group of its rows, each compared once with the group's first table."""
        checks: list[tuple[int, int]] = []
        joining: list[tuple[int, int, int]] = []
        for node in involved:
            schema_class = self._nodes.class_of[node]
            for table in self._nodes.tables[node]:
                key = self._row_keys.get((table, schema_class))
                if table in self._groups.of_table:
                    group = self._groups.of_table[table]
                    if key is not None and not self._groups.distinct[group]:
                        self._groups.distinct[group] = self._rowsets.distinct(key)
                    continue
                if key is None:
                    # Only a parent: what all its columns hold together matters when an edge is found.
                    self._groups.join(table, self._groups.place(table, schema_class, 0, b"%d" % table))
                    continue
                distinct, total = self._rowsets.signature(key)
                signature = total.to_bytes(16, "little")
                self._verdicts.keep_content(self._key_of(table), KnownContent(distinct, signature))
                group = self._groups.place(table, schema_class, distinct, signature)
                first = self._with_rows(group, schema_class)
                if first is None:
                    self._groups.join(table, group)
                else:
                    checks.append((key, self._row_keys[first, schema_class]))
                    joining.append((table, group, distinct))
        for (table, group, distinct), overlap in zip(joining, self._compare(checks), strict=True):
            if overlap.found != distinct:
                # Equal signatures, other rows: a collision of 128 bits. The table stands alone.
                node_class = self._groups.class_of[group]
                group = self._groups.place(table, node_class, distinct, b"alone %d" % table)  # noqa: PLW2901
            self._groups.join(table, group)

    def _with_rows(self, group: int, schema_class: int) -> int | None:
        """A table of the group whose rows under the class's columns are hashed."""
        return next((t for t in self._groups.tables[group] if (t, schema_class) in self._row_keys), None)

    def _candidates(self, pairs: Sequence[Pair]) -> set[tuple[int, int]]:
        """Undecided pairs of groups."""
        groups, nodes = self._groups, self._nodes
        found: set[tuple[int, int]] = set()
        for child, parent in pairs:
            theirs = {groups.of_table[t] for t in nodes.tables[parent]}
            for c in {groups.of_table[t] for t in nodes.tables[child]}:
                found.update((c, p) for p in theirs if c != p)
        return {pair for pair in found if pair not in groups.edges and pair not in self._refuted}

    def _project(self, candidates: Iterable[tuple[int, int]]) -> None:
        """Read again the few parents whose projection nobody asked for: groups that only their rows told apart."""
        wanted: defaultdict[int, dict[int, tuple[Sequence[str], Sequence[str]]]] = defaultdict(dict)
        for child, parent in sorted(candidates):
            child_class = self._groups.class_of[child]
            if self._with_rows(parent, child_class) is None:
                self._want(wanted, self._groups.tables[parent][0], self._groups.class_of[parent], child_class)
            if self._with_rows(child, child_class) is None:
                self._want(wanted, self._groups.tables[child][0], child_class, child_class)
        if wanted:
            self._content.row_sets(wanted, lambda *_: None)

    def _keys(self, pair: tuple[int, int]) -> tuple[int, int]:
        child_class = self._groups.class_of[pair[0]]
        tables = [self._with_rows(group, child_class) for group in pair]
        child, parent = (self._row_keys[t, child_class] for t in tables if t is not None)
        return child, parent

    def _decide(self, candidates: set[tuple[int, int]]) -> None:
        """Compare the pairs in rounds; a pair that others may imply waits for them."""
        keys = {pair: self._keys(pair) for pair in candidates}
        transitive = Transitivity(lambda group: self._graph.classes[self._groups.class_of[group]].exact)
        may_be_whole = set()
        for pair in sorted(candidates):
            own, theirs = (self._rowsets.distinct(key) for key in keys[pair])
            same_class = self._groups.class_of[pair[0]] == self._groups.class_of[pair[1]]
            if own < theirs or (own == theirs and not same_class):
                may_be_whole.add(pair)
            if pair not in may_be_whole and (self._min_fraction == 1.0 or min(own, theirs) / own < self._min_fraction):
                self._refute(pair, min(own - 1, theirs), own)
        open_pairs = {pair for pair in candidates if pair not in self._refuted}
        whole = [pair for pair, edge in self._groups.edges.items() if edge.whole]
        transitive.start(open_pairs & may_be_whole, whole, self._refuted)
        while open_pairs:
            for pair in sorted(open_pairs):
                distinct = self._groups.distinct[pair[0]]
                if transitive.implied(pair):
                    self._hold(pair, Edge(distinct, distinct, compared=False), transitive)
                elif self._min_fraction == 1.0 and transitive.excluded(pair):
                    self._refute(pair, distinct - 1, distinct)
                    transitive.refuted(pair)
            before = len(open_pairs)
            open_pairs = {p for p in open_pairs if p not in self._groups.edges and p not in self._refuted}
            if len(open_pairs) < before:
                continue
            ready = sorted(pair for pair in open_pairs if not transitive.waits(pair)) or sorted(open_pairs)
            for pair, overlap in zip(ready, self._compare([keys[p] for p in ready]), strict=True):
                if overlap.found == overlap.distinct or (
                    overlap.complete and overlap.found / overlap.distinct >= self._min_fraction
                ):
                    self._hold(pair, Edge(overlap.found, overlap.distinct, compared=True), transitive)
                else:
                    bound = overlap.found if overlap.complete else overlap.distinct - 1
                    self._refute(pair, bound, overlap.distinct, overlap.complete)
                    transitive.refuted(pair)
            open_pairs.difference_update(ready)

    def _count(self) -> None:
        """Count the distinct rows of parents in edges whose own rows nobody needed so far."""
        groups = self._groups
        unknown = sorted({p for _, p in groups.edges if not groups.distinct[p]})
        wanted: defaultdict[int, dict[int, tuple[Sequence[str], Sequence[str]]]] = defaultdict(dict)
        for group in unknown:
            table, own = groups.tables[group][0], groups.class_of[group]
            if self._content.has_unique_column(table):
                groups.distinct[group] = self._content.num_rows(table)
            else:
                self._want(wanted, table, own, own)
        if wanted:
            self._content.row_sets(wanted, lambda *_: None)
        for group in unknown:
            if not groups.distinct[group]:
                key = self._row_keys[groups.tables[group][0], groups.class_of[group]]
                groups.distinct[group] = self._rowsets.distinct(key)

    def _hold(self, pair: tuple[int, int], edge: Edge, transitive: Transitivity) -> None:
        self._groups.edges[pair] = edge
        if edge.whole:
            transitive.holds(pair)
        else:
            transitive.refuted(pair)
        self._keep(pair, edge.found, edge.distinct, exact=True)

    def _refute(self, pair: tuple[int, int], most: int, distinct: int, exact: bool = False) -> None:
        self._refuted.add(pair)
        self._keep(pair, most, distinct, exact)

    def _keep(self, pair: tuple[int, int], found: int, distinct: int, exact: bool) -> None:
        child, parent = (self._key_of(self._groups.tables[group][0]) for group in pair)
        self._verdicts.keep_pair(child, parent, found, distinct, exact)

    def _compare(self, keys: Sequence[tuple[int, int]]) -> Sequence[Overlap]:
        return self._rowsets.compare(keys, min_fraction=self._min_fraction) if keys else []

    def _holding(self, pairs: Sequence[Pair]) -> int:
        groups, nodes = self._groups, self._nodes
        total = 0
        for child, parent in pairs:
            for c in nodes.tables[child]:
                for p in nodes.tables[parent]:
                    a, b = groups.of_table[c], groups.of_table[p]
                    total += c != p and (a == b or (a, b) in groups.edges)
        return total
