"""The answer: which tables are contained in which, as Arrow tables that a person or a program reads.

Everything is derived from the relation between groups when it is asked for; nothing here reads a table's rows but
``suggestions``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from ..lake.errors import LimitExceeded
from ..lake.limits import CONTAINMENT_EDGES
from .audit import findings
from .plot import Picture, draw
from .renames import suggestions
from .usage import reads_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from ..lake.table import Table
    from .plan import Plan
    from .prices import Prices
    from .relation import Relation
    from .throughput import Throughput
    from .usage import Observed
    from .wider import Wider

__all__ = ["Graph", "Stage"]

EDGE_SCHEMA: Final = pa.schema(
    [
        pa.field("child", pa.string(), nullable=False),
        pa.field("parent", pa.string(), nullable=False),
        pa.field("fraction", pa.float64(), nullable=False),
        pa.field("child_rows", pa.int64(), nullable=False),
        pa.field("parent_rows", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("proof", pa.string(), nullable=False),
    ]
)
"""``child_rows`` and ``parent_rows``: distinct rows of the whole tables. ``kind``: contained, duplicate or partial.
``proof``: compared or transitive."""
KINDS: Final = ("contained", "duplicate", "partial")
PROOFS: Final = ("transitive", "compared")
_BATCH_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the search: ordered pairs of tables in and out, seconds, compressed bytes of columns read."""

    stage: str
    pairs_in: int
    pairs_out: int
    seconds: float
    bytes_read: int


@dataclass(frozen=True)
class Graph:
    """The containment graph of a set of tables.

    ``names`` and ``num_bytes`` are by table, in name order; ``relation`` speaks of their positions. ``empty`` names
    the tables without rows, which take no part. ``undecided`` holds the tables for which a budget left pairs open.
    ``observe`` tells how often the catalog saw the tables read and rewritten; None where nobody counts.
    ``wider_pairs`` are what :attr:`wider` shows.
    """

    names: tuple[str, ...]
    num_bytes: tuple[int, ...]
    relation: Relation
    stage_list: tuple[Stage, ...]
    empty: tuple[str, ...]
    undecided: frozenset[int]
    tables: tuple[Table, ...]
    seed: bytes
    observe: Callable[[], Observed] | None = field(default=None, repr=False, compare=False)
    wider_pairs: tuple[Wider, ...] = ()

    def __repr__(self) -> str:
        """For people."""
        return f"Graph({len(self.names)} tables, {self.relation.num_edges} edges, {len(self.relation.groups)} groups)"

    @cached_property
    def edges(self) -> pa.Table:
        """The complete relation, both directions of duplicates included, sorted by child and parent.

        Columns: child, parent, fraction, child_rows, parent_rows, kind, proof. Raises LimitExceeded above
        CONTAINMENT_EDGES rows; :meth:`iter_edges` has no limit.
        """
        count = self.relation.num_edges
        if count > CONTAINMENT_EDGES:
            raise LimitExceeded(
                f"the relation has {count:,} edges, the limit CONTAINMENT_EDGES is {CONTAINMENT_EDGES:,}: "
                "use reduced and groups, or stream it by iter_edges()"
            )
        return pa.Table.from_batches(list(self.iter_edges()), EDGE_SCHEMA)

    def iter_edges(self) -> Iterator[pa.RecordBatch]:
        """The rows of :attr:`edges` in batches of about 65,536, made as they are asked for."""
        waiting: list[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]] = []
        rows = 0
        for found in self.relation.rows():
            waiting.append(found)
            rows += len(found[2])
            if rows >= _BATCH_ROWS:
                yield self._batch(waiting)
                waiting, rows = [], 0
        if waiting:
            yield self._batch(waiting)

    def _batch(self, found: list[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]) -> pa.RecordBatch:
        relation = self.relation
        counts = [len(parents) for _, _, parents, _ in found]
        children = np.repeat(np.array([child for child, _, _, _ in found], dtype=np.int64), counts)
        child_groups = np.repeat(np.array([group for _, group, _, _ in found], dtype=np.int64), counts)
        parents = np.concatenate([p for _, _, p, _ in found])
        parent_groups = np.concatenate([g for _, _, _, g in found])
        heads = np.array([group[0] for group in relation.groups], dtype=np.int64)
        distinct = np.array(relation.distinct, dtype=np.int64)
        fraction = np.ones(len(children))
        compared = (children == heads[child_groups]) | (child_groups == parent_groups)
        compared &= parents == heads[parent_groups]
        compared |= (children == heads[child_groups]) & (child_groups == parent_groups)
        pairs, inverse = np.unique(np.stack([child_groups, parent_groups]), axis=1, return_inverse=True)
        inverse = inverse.reshape(-1)
        same = child_groups == parent_groups
        for at, (child, parent) in enumerate(pairs.T.tolist()):
            edge = relation.edges.get((child, parent))
            if child in relation.opaque and relation.mutual(child, parent):
                same |= inverse == at
            if edge is not None and not (edge.whole and edge.compared):
                here = inverse == at
                fraction[here] = edge.fraction
                if not edge.compared:
                    compared[here] = False
        kind = np.where(same, 1, np.where(fraction == 1.0, 0, 2))
        columns = [
            _texts(self.names).take(_numbers(children)),
            _texts(self.names).take(_numbers(parents)),
            _numbers(fraction),
            _numbers(distinct[child_groups]),
            _numbers(distinct[parent_groups]),
            _texts(KINDS).take(_numbers(kind)),
            _texts(PROOFS).take(_numbers(compared.astype(np.int64))),
        ]
        return pa.RecordBatch.from_arrays(columns, schema=EDGE_SCHEMA)

    @cached_property
    def reduced(self) -> pa.Table:
        """What is left without that which duplicates and transitivity imply; columns as :attr:`edges`.

        A duplicate has one row, to the representative of its group; containments stand between representatives.
        """
        relation = self.relation
        rows = []
        for number, group in enumerate(relation.groups):
            distinct = relation.distinct[number]
            rows += [(member, group[0], 1.0, distinct, distinct, "duplicate", "compared") for member in group[1:]]
        for child, parent in relation.reduced():
            edge = relation.edges[child, parent]
            rows.append(
                (
                    relation.groups[child][0],
                    relation.groups[parent][0],
                    edge.fraction,
                    relation.distinct[child],
                    relation.distinct[parent],
                    "duplicate" if relation.mutual(child, parent) else "contained" if edge.whole else "partial",
                    "compared" if edge.compared else "transitive",
                )
            )
        named = [(self.names[child], self.names[parent], *rest) for child, parent, *rest in sorted(rows)]
        return pa.Table.from_pylist([dict(zip(EDGE_SCHEMA.names, row, strict=True)) for row in named], EDGE_SCHEMA)

    @cached_property
    def groups(self) -> pa.Table:
        """Tables with the same columns and the same distinct rows: group (number), table, representative."""
        rows = [(group, group[0]) for group in self.relation.groups if len(group) > 1]
        return pa.table(
            {
                "group": pa.array([n for n, (group, _) in enumerate(rows) for _ in group], pa.int64()),
                "table": pa.array([self.names[t] for group, _ in rows for t in group], pa.string()),
                "representative": pa.array([self.names[h] for group, h in rows for _ in group], pa.string()),
            }
        )

    @cached_property
    def wider(self) -> pa.Table:
        """Tables that are contained but for a few columns of their own, as ``extra_columns`` asked: child, parent,
        extra_columns. No edges, but the plan may rebuild from them.
        """
        return pa.table(
            {
                "child": pa.array([self.names[w.child] for w in self.wider_pairs], pa.string()),
                "parent": pa.array([self.names[w.parent] for w in self.wider_pairs], pa.string()),
                "extra_columns": pa.array([list(w.extra) for w in self.wider_pairs], pa.list_(pa.string())),
            }
        )

    @cached_property
    def stages(self) -> pa.Table:
        """The funnel: stage, pairs_in, pairs_out, seconds, bytes_read (compressed bytes of columns; footers apart)."""
        return pa.table(
            {
                "stage": pa.array([s.stage for s in self.stage_list], pa.string()),
                "pairs_in": pa.array([s.pairs_in for s in self.stage_list], pa.int64()),
                "pairs_out": pa.array([s.pairs_out for s in self.stage_list], pa.int64()),
                "seconds": pa.array([s.seconds for s in self.stage_list], pa.float64()),
                "bytes_read": pa.array([s.bytes_read for s in self.stage_list], pa.int64()),
            }
        )

    @cached_property
    def redundant(self) -> frozenset[int]:
        """Positions of the tables whose rows all stand in another table that is kept: of each group all but one, and
        all tables that are contained in a table of another group."""
        inside = {
            child
            for (child, parent), edge in self.relation.edges.items()
            if edge.whole and not (child < parent and self.relation.mutual(child, parent))
        }
        return frozenset(
            table
            for number, group in enumerate(self.relation.groups)
            for table in (group if number in inside else group[1:])
        )

    @property
    def redundant_bytes(self) -> int:
        """Bytes of the files of the :attr:`redundant` tables."""
        return sum(self.num_bytes[table] for table in self.redundant)

    @cached_property
    def findings(self) -> pa.Table:
        """What is known of each table, the largest first: table, num_bytes, status, parent, kind.

        ``status``: "redundant" (all its rows are in ``parent``), "open" (the budget left it undecided) or "ruled out".
        """
        return findings(self)

    @cached_property
    def suggestions(self) -> pa.Table:
        """Columns with the same values under another name: table, column, other_table, other_column, distinct_values.

        Never edges: what a column means is for a person to say. Reads the columns whose bounds agree.
        """
        return suggestions(self.tables, self.seed)

    def plan(
        self,
        prices: Prices | None = None,
        accesses: Mapping[str, float] | str | PathLike[str] | None = None,
        max_restore_seconds: float = 60.0,
        max_read_amplification: float = 10.0,
        *,
        unknown_reads_per_month: float | None = None,
        keep: Mapping[str, str] | Sequence[str] = (),
        passes_per_month: float = 1.0,
        payback_months: float = 12.0,
        throughput: Throughput | None = None,
        assume_owned: bool = False,
    ) -> Plan:
        """The cheapest choice of tables to keep and to rebuild; see docs/retirement.md. Changes nothing.

        ``prices``: None is S3 Standard. ``accesses``: reads a month by table name, or the path of a file of events
        (CSV, JSON lines or Parquet with columns table and time or day); None takes the catalog's own counts. A table
        whose reads are unknown, as those of attached ones are, is kept unless ``unknown_reads_per_month`` says what to
        assume. ``max_restore_seconds`` and ``max_read_amplification`` (stored bytes read over the table's own) rule
        pairs out. ``keep`` names tables that must stay, perhaps with reasons. ``passes_per_month``: full reads of every
        kept table for upkeep. ``payback_months``: in so many months what retiring costs once must have come back.
        ``throughput``: None measures this machine. ``assume_owned`` lets attached tables be
        parents, as if they were imported first: for estimates. Raises InvalidInput for what makes no sense.
        """
        from .candidates import find_candidates
        from .plan import Limits, make_plan
        from .prices import Prices
        from .throughput import measured

        limits = Limits(max_restore_seconds, max_read_amplification, payback_months)
        observed = None if self.observe is None else self.observe()
        reasons = keep if isinstance(keep, Mapping) else dict.fromkeys(keep, "it is on the list of tables to keep")
        candidates = find_candidates(
            self,
            reads=reads_of(accesses, self.names, observed),
            rewrites={} if observed is None else observed.rewrites,
            overwrites={} if observed is None else observed.overwrites,
            unknown_reads_per_month=unknown_reads_per_month,
            passes_per_month=passes_per_month,
            keep={**({} if observed is None else observed.pinned), **reasons},
            created={} if observed is None else observed.created,
            assume_owned=assume_owned,
        )
        return make_plan(candidates, prices or Prices.s3_standard(), limits, throughput or measured(self.tables))

    def plot(self, path: str | PathLike[str]) -> None:
        """Write the reduced graph as an SVG file: clusters of contained tables, sizes by bytes."""
        draw(self.picture(), path)

    def picture(self) -> Picture:
        """What :meth:`plot` draws: groups as boxes, the reduced edges between them."""
        relation = self.relation
        return Picture(
            labels=tuple(self.names[group[0]] for group in relation.groups),
            copies=tuple(len(group) for group in relation.groups),
            num_bytes=tuple(self.num_bytes[group[0]] for group in relation.groups),
            edges=tuple((c, p, relation.edges[c, p].fraction) for c, p in relation.reduced()),
            tables=len(self.names),
            redundant_bytes=self.redundant_bytes,
        )


def _numbers(values: NDArray[Any]) -> pa.Array:
    """The values, not copied. ``pa.array`` would import pandas where it is installed, for 0.3 s."""
    kind = pa.float64() if values.dtype.kind == "f" else pa.int64()
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])


def _texts(values: Sequence[str]) -> pa.Array:
    data = [value.encode() for value in values]
    offsets = np.zeros(len(data) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in data], out=offsets[1:])
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(data))]
    return pa.Array.from_buffers(pa.large_string(), len(data), buffers).cast(pa.string())
