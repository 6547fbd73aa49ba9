"""The pipeline: tables in, the containment relation out.

Filters only refute and only comparison confirms. Schema, then bounds, then single columns, then whole rows; each
stage sees what the one before it left. What earlier runs proved is taken from the verdicts: tables that are as they
were are known among each other, one of each group stands for the rest, and only pairs with a new table are searched.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ..lake.errors import InvalidInput
from ..lake.limits import CONTAINMENT_MEMORY_BYTES
from .audit import Budget
from .column_stage import ColumnStage
from .content import Content
from .copies import COMPARED_BYTES, Copies
from .graph import Graph, Stage
from .min_max import profiles, surviving
from .nodes import Nodes
from .recall import Known, recall
from .relation import Edge, relation
from .row_stage import Groups, RowStage
from .rowsets import RowSets
from .schema_graph import SchemaClass, SchemaGraph, schema_graph
from .verdicts import Answer, VerdictStore, table_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..lake.progress import Progress
    from ..lake.statistics import Bounds
    from ..lake.table import Table
    from .nodes import Pair

__all__ = ["find"]


def find(
    tables: Sequence[Table],
    *,
    seed: bytes,
    min_fraction: float = 1.0,
    memory_bytes: int = CONTAINMENT_MEMORY_BYTES,
    budget_bytes: int | None = None,
    verdicts: VerdictStore | None = None,
    progress: Progress | None = None,
) -> Graph:
    """Which tables are contained in which others.

    ``seed``: the lake's secret hash seed. ``min_fraction``: in (0, 1]; below 1, pairs of which the parent has that
    share of the child's distinct rows are reported too. ``memory_bytes`` bounds the row hashes in memory; beyond it
    they go to disk. ``budget_bytes`` bounds the compressed bytes read from columns: the largest tables come first and
    the rest stays open. ``verdicts`` holds what earlier runs proved and is written when this one ends, also when it is
    interrupted.

    Raises InvalidInput for a fraction, a limit or names that make no sense; errors of reading tables pass through.
    """
    if not 0.0 < min_fraction <= 1.0:
        raise InvalidInput(f"min_fraction is {min_fraction}, expected more than 0 and at most 1")
    if budget_bytes is not None and budget_bytes < 0:
        raise InvalidInput(f"budget_bytes is {budget_bytes}, expected 0 or more, or None for no budget")
    if memory_bytes <= 0:
        raise InvalidInput(f"memory_bytes is {memory_bytes}, expected more than 0")
    ordered = sorted(tables, key=lambda table: table.name)
    for one, two in pairwise(ordered):
        if one.name == two.name:
            raise InvalidInput(f"table {one.name!r} is given twice, expected each table once")
    search = _Search(ordered, seed, min_fraction, budget_bytes, verdicts or VerdictStore(None, seed), progress)
    try:
        return search.run(memory_bytes)
    finally:
        search.verdicts.save()


class _Search:
    """One run. Tables are numbered by name order."""

    def __init__(
        self,
        tables: Sequence[Table],
        seed: bytes,
        min_fraction: float,
        budget_bytes: int | None,
        verdicts: VerdictStore,
        progress: Progress | None,
    ) -> None:
        self.tables = tables
        self.verdicts = verdicts
        self._seed = seed
        self._min_fraction = min_fraction
        self._budget_bytes = budget_bytes
        self._progress = progress or (lambda stage, done, total: None)
        self._num_rows = [table.num_rows for table in tables]
        self._stages: list[Stage] = []
        self._bounds: dict[int, dict[str, Bounds]] = {}
        self._keys: dict[int, bytes] = {}
        self._open: list[Pair] = []
        self._opaque: set[int] = set()
        self._groups = Groups()
        self._nodes = Nodes()
        self._active: list[int] = []

    def run(self, memory_bytes: int) -> Graph:
        """All stages; see the module."""
        filled = [t for t, table in enumerate(self.tables) if self._num_rows[t] and len(table.schema)]
        known = recall(self.verdicts, filled, self._key_of, self._min_fraction)
        # Tables known before are searched as one of each group; the others are hidden behind it.
        self._active = [t for t in filled if t not in known.of_table or t in known.heads]
        fresh = {t for t in filled if t not in known.of_table}
        if fresh:
            graph = self._schema(fresh)
            pairs = self._min_max(graph, known)
            with RowSets(memory_bytes) as rowsets:
                self._read(graph, pairs, rowsets)
        return self._answer(filled, known)

    # --- what is known ---------------------------------------------------------------------------------------------

    def _key_of(self, table: int) -> bytes:
        if table not in self._keys:
            one = self.tables[table]
            self._keys[table] = table_key([fragment.identity for fragment in one.fragments()], one.schema)
        return self._keys[table]

    # --- stages without content ------------------------------------------------------------------------------------

    def _schema(self, fresh: set[int]) -> SchemaGraph:
        started = time.perf_counter()
        count, new = len(self._active), len(fresh)
        positions = {table: at for at, table in enumerate(self._active)}
        touching = None if new == count else {positions[t] for t in fresh}
        found = schema_graph([self.tables[t].schema for t in self._active], touching)
        graph = _renumbered(found, self._active)
        self._opaque = {int(t) for own in graph.classes if own.exact for t in own.tables}
        considered = count * (count - 1) - (count - new) * (count - new - 1)
        self._stage("schema", considered, graph.num_pairs, started, 0)
        return graph

    def _bounds_of(self, table: int) -> Mapping[str, Bounds]:
        if table not in self._bounds:
            self._bounds[table] = self.tables[table].bounds()
        return self._bounds[table]

    def _min_max(self, graph: SchemaGraph, known: Known) -> list[Pair]:
        started = time.perf_counter()
        schemas = {t: self.tables[t].schema for own in graph.classes for t in own.tables.tolist()}
        found = profiles(graph.classes, self._bounds_of, self._num_rows, schemas, self._min_fraction, known.heads)
        numbers = [
            [
                self._nodes.add(
                    number,
                    tables := [int(own.tables[at]) for at in members],
                    settled=tables[0] in known.heads,
                )
                for members in profile.members
            ]
            for number, (own, profile) in enumerate(zip(graph.classes, found, strict=True))
        ]
        pairs: list[Pair] = []
        for child, parent, a, b in surviving(found, graph.maps):
            of_child, of_parent = numbers[child], numbers[parent]
            for i, j in zip(a.tolist(), b.tolist(), strict=True):
                pair = of_child[i], of_parent[j]
                if self._nodes.is_open(pair):
                    pairs.append(pair)
        self._stage("min-max", graph.num_pairs, self._nodes.count(pairs), started, 0)
        return pairs

    # --- stages that read ------------------------------------------------------------------------------------------

    def _read(self, graph: SchemaGraph, pairs: list[Pair], rowsets: RowSets) -> None:
        """Columns, then rows; under a budget in rounds, the largest children first."""
        content = Content(self.tables, self._seed, rowsets)
        # Where bytes are what is scarce, none are read twice.
        most_bytes = COMPARED_BYTES if self._budget_bytes is None else 0
        copies = Copies(self.tables, self._seed, content.column_bytes, most_bytes)
        columns = ColumnStage(graph, self._nodes, content, copies, self._bounds_of, self._num_rows, self._min_fraction)
        rows = RowStage(
            graph,
            self._nodes,
            columns,
            content,
            copies,
            rowsets,
            self._groups,
            self._min_fraction,
            self.verdicts,
            self._key_of,
        )
        started = time.perf_counter()
        undecided = self._undecided(pairs)
        counts = [self._nodes.count(pairs), 0, 0, 0]
        seconds = [time.perf_counter() - started, 0.0]
        bytes_read = [0, 0]
        budget = Budget(self._budget_bytes, self.tables, self._nodes)

        def read() -> int:
            return content.bytes_read + copies.bytes_read

        for chosen in budget.rounds(undecided, read):
            begun, before = time.perf_counter(), read()
            left = columns.run(chosen, self._progress)
            self._keep_refuted(chosen, left)
            counts[1] += self._nodes.count(left)
            seconds[0] += time.perf_counter() - begun
            bytes_read[0] += read() - before
            begun, before = time.perf_counter(), read()
            counts[2] += self._nodes.count(left)
            counts[3] += rows.run(left, lambda done, total: self._progress("rows", done, total))
            seconds[1] += time.perf_counter() - begun
            bytes_read[1] += read() - before
        self._open = budget.left
        self._stages.append(Stage("columns", counts[0], counts[1], seconds[0], bytes_read[0]))
        self._stages.append(Stage("rows", counts[2], counts[3], seconds[1], bytes_read[1]))

    def _undecided(self, pairs: list[Pair]) -> list[Pair]:
        """The pairs that no kept comparison decides. Nodes are split by the content that earlier runs saw."""
        contents = {}
        for node in {n for pair in pairs for n in pair}:
            for table in self._nodes.tables[node]:
                content = self.verdicts.content(self._key_of(table))
                if content is not None:
                    contents[table] = content
        parts = self._nodes.split({t: (c.distinct, c.signature) for t, c in contents.items()})
        for node, tables in enumerate(self._nodes.tables):
            if node not in parts and all(t in contents for t in tables):
                for table in tables:
                    content = contents[table]
                    group = self._groups.place(table, self._nodes.class_of[node], content.distinct, content.signature)
                    self._groups.join(table, group)
        refined = self._nodes.refined(pairs, parts)
        return [pair for pair in refined if self._nodes.is_open(pair) and not self._decided(pair)]

    def _decided(self, pair: Pair) -> bool:
        """Whether kept verdicts decide the pair; an edge they prove is noted."""
        tables, of_table = self._nodes.tables, self._groups.of_table
        child, parent = (tables[node][0] for node in pair)
        placed = child in of_table and parent in of_table
        if placed and of_table[child] == of_table[parent]:
            return True
        if not placed and any(len(tables[node]) > 1 for node in pair):
            return False
        verdict = self.verdicts.pair(self._key_of(child), self._key_of(parent))
        if verdict is None:
            return False
        found, distinct, exact = verdict
        if found / distinct < self._min_fraction:
            return True
        if not exact or not placed:
            return False
        self._groups.edges[of_table[child], of_table[parent]] = Edge(found, distinct, compared=True)
        return True

    def _keep_refuted(self, chosen: Sequence[Pair], left: Sequence[Pair]) -> None:
        """Remember which single tables the column stage told apart."""
        tables, survivors = self._nodes.tables, set(left)
        for pair in chosen:
            if pair not in survivors and all(len(tables[node]) == 1 for node in pair):
                child, parent = (tables[node][0] for node in pair)
                rows = self._num_rows[child]
                if self._min_fraction == 1.0:
                    self.verdicts.keep_pair(self._key_of(child), self._key_of(parent), rows - 1, rows, exact=False)

    # --- the answer ------------------------------------------------------------------------------------------------

    def _answer(self, filled: Sequence[int], known: Known) -> Graph:
        """Old and new groups and edges together; kept for the next run when nothing is open."""
        groups, distinct, opaque, edges = known.with_new(self._groups, filled, self._opaque, self._min_fraction)
        if not self._open:
            group_of = {self._key_of(t): number for number, group in enumerate(groups) for t in group}
            if known.answer is None or len(known.of_table) < len(filled):
                answer = Answer(self._min_fraction, group_of, tuple(distinct), tuple(opaque), edges)
                self.verdicts.keep_answer(answer)
        found = relation(groups, distinct, edges, [n for n, flag in enumerate(opaque) if flag])
        in_use = set(filled)
        return Graph(
            names=tuple(table.name for table in self.tables),
            num_bytes=tuple(table.num_bytes for table in self.tables),
            relation=found,
            stage_list=tuple(self._stages),
            empty=tuple(table.name for t, table in enumerate(self.tables) if t not in in_use),
            undecided=frozenset(t for child, _ in self._open for t in self._nodes.tables[child]),
            tables=tuple(self.tables),
            seed=self._seed,
        )

    def _stage(self, name: str, pairs_in: int, pairs_out: int, started: float, bytes_read: int) -> None:
        self._stages.append(Stage(name, pairs_in, pairs_out, time.perf_counter() - started, bytes_read))
        self._progress(name, pairs_in, pairs_in)


def _renumbered(graph: SchemaGraph, tables: Sequence[int]) -> SchemaGraph:
    """The graph with positions in the list of active tables replaced by table numbers, without unused classes."""
    used = sorted({number for pair in graph.maps for number in pair})
    at = {number: i for i, number in enumerate(used)}
    all_tables = np.array(tables, dtype=np.int64)
    classes = []
    for number in used:
        own = graph.classes[number]
        classes.append(SchemaClass(all_tables[own.tables], own.columns, own.tokens, own.families, own.exact))
    return SchemaGraph(tuple(classes), {(at[c], at[p]): m for (c, p), m in graph.maps.items()})
