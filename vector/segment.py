"""A segment: rows that no longer move, in the order of their tree, with codes and posting lists.

Vectors, codes, ids and tree are immutable. What changes are posting lists, replaced as values, and ``live``, a byte a
row that a delete clears.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..lake.kernels import compiled
from ..lake.limits import VECTOR_PREDICATE_BYTES, VECTOR_PREDICATES, VECTOR_ROW_BYTES
from .copies import copied, copy_bytes, nearest_copied
from .graph_walk import nearest_by_graph
from .labels import PUBLIC_CODE
from .matching import NOT_PACKED, Kept
from .metrics import Metric
from .planner import Fan, Way
from .postings import NONE, FrozenPostings, Posting
from .predicates import selected
from .scoring import LEADING, exact, nearest
from .sieve import LEADING_BYTES, leading
from .subtree import NO_SUBTREE, SubTree, subtree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bound import Bound
    from .budget import Budget
    from .codes import CodeLayout
    from .fine import Fine, Look
    from .graph import Graph
    from .labels import LabelTable
    from .matching import Columns, Matches
    from .nodes import Nodes
    from .planner import Plan
    from .predicates import Predicate

__all__ = ["ALL_CODE", "NOT_PACKED", "Rows", "Segment", "find_ids"]

EVERY: NDArray[np.uint64] = np.empty(0, np.uint64)
"""In place of a bitmap where every row is wanted."""
PACKED_ROWS = 2_048
"""Of lists that are not shorter, records are copied; of shorter ones the vectors, as bytes."""
PACKED_SHARE = 0.5
"""Lists of more than this share of a segment's rows are not copied: they hardly lie scattered."""
LEADING_ROWS, LEADING_PART = 4_096, 64
"""To score so many rows by their own records, and one in so many of all, leading words of all are worth making: such a
search comes to most pages of the records anyway."""
ENTRY_BYTES = 20
"""Of a short-list in a sub-tree."""
NOT_COUNTED = ("vectors", "quantised", "graph", "attributes", "values")
"""Of what a segment takes, these are not bound by VECTOR_ROW_BYTES."""
ALL_CODE = -1
"""Stands for every row, in place of a tenant's code."""


@compiled
def find_ids(
    ids: NDArray[np.int64], order: NDArray[np.uint32], live: NDArray[np.uint8], wanted: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The position of each wanted id, int64 (m,), -1 where no live row has it; ``order`` sorts ``ids``."""
    out = np.empty(wanted.shape[0], np.int64)
    for i in range(wanted.shape[0]):
        left, right = 0, order.shape[0]
        while left < right:
            middle = (left + right) >> 1
            if ids[order[middle]] < wanted[i]:
                left = middle + 1
            else:
                right = middle
        found = left < order.shape[0] and ids[order[left]] == wanted[i]
        out[i] = np.int64(order[left]) if found and live[order[left]] else -1
    return out


@dataclass(slots=True, eq=False)
class Rows:
    """The arrays of rows that kernels read: of a segment, or of a delta up to its capacity.

    vectors float32 (n, dim); records uint8 (n, record_bytes), see :mod:`.codes`; ids int64 (n,); live uint8 (n,);
    mean float32 (dim,), which the records were made about; nodes of the tree, or none; fine codes, where the index has
    bits, and then vectors may be none: (0, dim). ``leading`` holds uint32, see :mod:`.sieve`, once a search wanted
    it. ``table`` is what kernels are given.
    """

    vectors: NDArray[np.float32]
    records: NDArray[np.uint8]
    ids: NDArray[np.int64]
    live: NDArray[np.uint8]
    mean: NDArray[np.float32]
    layout: CodeLayout
    metric: Metric

    nodes: Nodes
    fine: Fine | None = None
    leading: list[NDArray[np.uint32]] = field(default_factory=list)
    table: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        nodes, layout = self.nodes, self.layout
        arrays = (self.vectors, self.records, self.ids, self.live, self.mean, layout.signs, layout.shifts)
        addresses = [array.ctypes.data for array in (*arrays, nodes.codes, nodes.scale, nodes.bias)]
        rows, dim = len(self.ids), self.vectors.shape[1]
        sizes = [
            rows,
            dim,
            layout.dims,
            layout.bits,
            layout.blocks,
            len(layout.signs),
            len(nodes.scale),
            int(self.metric),
        ]
        leading = self.leading[0].ctypes.data if self.leading else 0
        self.table = np.array([*addresses, *sizes, 0, 0, leading], np.int64)

    @property
    def whole(self) -> bool:
        """Whether there are vectors, not codes alone."""
        return self.fine is None or len(self.vectors) > 0

    def lead(self) -> None:
        """Keep leading words of the records beside them, where a coordinate has several bits.

        For rows that no longer move. What is made is shared with other views of them.
        """
        if self.layout.bits == 1 or self.table[LEADING]:
            return
        if not self.leading:
            self.leading.append(leading(self.records, self.layout.bits))
            del self.leading[1:]  # another thread made them too
        if len(self.leading[0]):
            self.table[LEADING] = self.leading[0].ctypes.data

    def vectors_at(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The vectors at some positions, or what codes tell of them if there are none."""
        if self.fine is None or self.whole:
            return self.vectors[positions]
        found = self.fine.decoded(positions)
        if self.metric is Metric.COSINE:
            found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return found

    def search(
        self,
        queries: NDArray[np.float32],
        posting: Posting,
        plan: Plan,
        split: SubTree,
        packed: NDArray[np.uint8],
        best_ids: NDArray[np.int64],
        best_distances: NDArray[np.float32],
        wanted: NDArray[np.uint64] = EVERY,
        look: Look | None = None,
    ) -> None:
        """Offer the rows of a posting list to the k nearest of each query; ``split`` is its base's sub-tree and
        ``packed`` what is copied of its base, if anything. ``wanted``: a bitmap over its base of
        those that alone count, where the tree is walked. ``look``: what ranks in place of vectors.
        """
        table = self.table if look is None else look.table
        (base, added, removed), (way, candidates, budget_rows, _, band) = posting, plan
        best = best_ids, best_distances
        if way is Way.COPIES:
            nearest_copied(queries, table, base, removed, packed, candidates, *best)
        elif way is Way.EXACT:
            exact(queries, table, base, removed, *best)
        else:
            nearest(queries, table, base, removed, split, packed, wanted, candidates, band, budget_rows, *best)
        if len(added) and way in (Way.COPIES, Way.EXACT):
            exact(queries, table, added, NONE, *best)
        elif len(added):
            nearest(queries, table, added, NONE, NO_SUBTREE, NOT_PACKED, EVERY, candidates, band, budget_rows, *best)


@dataclass(slots=True, eq=False)
class Segment:
    """Rows in tree order. ``id_order`` uint32 (n,) sorts the ids; ``budget`` says how many rows a search must score."""

    rows: Rows
    id_order: NDArray[np.uint32]
    postings: FrozenPostings
    budget: Budget
    graph: Graph | None = None
    columns: Columns = field(default_factory=dict)
    subtrees: dict[int | Predicate, tuple[NDArray[np.uint32], dict[int, SubTree]]] = field(default_factory=dict)
    predicates: dict[Predicate, tuple[tuple[Posting, ...], Posting]] = field(default_factory=dict)
    everything: Posting | None = None
    deleted: int = 0
    kept: Kept = field(init=False)
    packed: dict[int, tuple[NDArray[np.uint32], NDArray[np.uint8]]] = field(init=False)
    packable: set[int] = field(init=False)
    copied_rows: int = field(init=False)
    leads: bool = field(init=False)
    fan: Fan = field(init=False)

    def __post_init__(self) -> None:
        below = self.rows.nodes.child_count
        self.kept = Kept(self.columns)
        self.fan = Fan(int(below[0]), int(np.count_nonzero(below == 0)))
        self._pack()

    def __len__(self) -> int:
        return len(self.rows.ids)

    @property
    def live_share(self) -> float:
        """Of the rows, those that are live; above 0."""
        return max(1.0 - self.deleted / max(len(self), 1), 1e-6)

    def delete(self, positions: NDArray[np.uint32]) -> None:
        """Clear live rows."""
        self.rows.live[positions] = 0
        self.deleted += len(positions)

    def recode(self, codes: list[int]) -> None:
        """Give each list the code that stands at its own in ``codes``; for a segment that nobody reads yet."""
        if codes != list(range(len(codes))):
            self.postings = self.postings.recoded(codes)
            self._pack()

    def find(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of live rows by id, -1 where there is none."""
        return find_ids(self.rows.ids, self.id_order, self.rows.live, wanted)

    def posting(self, code: int) -> Posting:
        """The rows of a tenant, or all."""
        if code != ALL_CODE:
            return self.postings.get(code)
        if self.everything is None:
            self.everything = Posting(np.arange(len(self), dtype=np.uint32))
        return self.everything

    def matches(self, selector: int | Predicate, posting: Posting, bound: Bound) -> Matches:
        """The rows of a posting list that fulfil a condition."""
        return self.kept.matches(selector, posting, bound, self.rows.live, self.deleted)

    def selected(self, predicate: Predicate, table: LabelTable) -> Posting:
        """The rows that a predicate names; the same object until a list that it was made of changes."""
        codes = [table.find(label) for label in predicate.labels()]
        made_of = tuple(self.postings.get(code) for code in (PUBLIC_CODE, *codes) if code is not None)
        kept = self.predicates.get(predicate)
        if (
            kept is None
            or len(kept[0]) != len(made_of)
            or any(a is not b for a, b in zip(kept[0], made_of, strict=True))
        ):
            positions = selected(predicate, table, self.postings.get, self.posting(ALL_CODE).base)
            size = sum(posting.base.nbytes for _, posting in list(self.predicates.values()))
            if size + positions.nbytes > VECTOR_PREDICATE_BYTES or len(self.predicates) >= VECTOR_PREDICATES:
                for old in list(self.predicates):
                    self.predicates.pop(old, None)
                    self.subtrees.pop(old, None)
            kept = self.predicates[predicate] = (made_of, Posting(positions))
        return kept[1]

    def match_records(self, matches: Matches) -> NDArray[np.uint8]:
        """Records of matches that are copied; none where nothing is."""
        return self.kept.records_of(matches, self.rows.records)

    def subtree(self, selector: int | Predicate, posting: Posting, cap_rows: int, one_in: int = 1) -> SubTree:
        """The sub-tree of a posting list's base, of which one row in so many is wanted; made when it is first asked
        for.
        """
        kept = self.subtrees.get(selector)
        if kept is None or kept[0] is not posting.base:
            kept = self.subtrees[selector] = (posting.base, {})
        made = kept[1].get(one_in)
        if made is None:
            made = kept[1][one_in] = subtree(posting.base, self.rows.nodes, cap_rows, one_in)
        return made

    def _pack(self) -> None:
        """Decide what may be copied, as far as VECTOR_ROW_BYTES leaves room: records of the longest lists, in the order
        of the list, and vectors of the shortest, as bytes; each once it is searched. And leading words, if that leaves
        room for them.

        Rows of a list lie scattered and cost a cache miss each, copies stand in a row.
        """
        self.packed = {}
        lists, rows = self.postings, len(self)
        taken = sum(nbytes for what, nbytes in self.nbytes().items() if what not in NOT_COUNTED)
        lengths = np.diff(lists.offsets)
        short_lists = sum(self.fan.lists(length) for length in lengths.tolist() if length >= PACKED_ROWS)
        left = VECTOR_ROW_BYTES * rows - taken - ENTRY_BYTES * short_lists  # sub-trees come with the searches
        self.packable = set()
        for code in np.argsort(-lengths, kind="stable").tolist():
            need = int(lengths[code]) * self.rows.layout.record_bytes
            if lengths[code] < PACKED_ROWS:
                break
            if lengths[code] <= PACKED_SHARE * rows and need <= left:
                self.packable.add(code)
                left -= need
        shortest = np.sort(lengths[lengths > 0])
        needed = np.cumsum(shortest) * copy_bytes(self.rows.vectors.shape[1])
        fit = int(np.searchsorted(needed, left, side="right"))
        self.copied_rows = min(int(shortest[fit]) if fit < len(shortest) else rows, PACKED_ROWS) - 1
        copied_lists = int(np.searchsorted(shortest, self.copied_rows, side="right"))
        left -= int(needed[copied_lists - 1]) if copied_lists else 0
        self.leads = left >= LEADING_BYTES * rows

    def lead(self, scored_rows: int) -> None:
        """Have leading words for a search that scores so many rows by their own records, if they are worth it."""
        if self.leads and scored_rows >= max(LEADING_ROWS, len(self) / LEADING_PART):
            self.rows.lead()

    def seen(self, live: NDArray[np.uint8], others: Columns) -> Segment:
        """The same rows where others are live, uint8 (n,), and conditions may name ``others`` too.

        What is kept for searches is shared, but for what conditions found.
        """
        other = copy(self)
        other.rows, other.deleted = replace(self.rows, live=live), int(len(live) - np.count_nonzero(live))
        other.columns = {**self.columns, **others}
        other.kept = Kept(other.columns)
        return other

    def is_copied(self, selector: int | Predicate, posting: Posting) -> bool:
        """Whether vectors of a list's base are copied once it is searched; not where fine codes stand in for them."""
        return (
            self.rows.fine is None
            and isinstance(selector, int)
            and selector != ALL_CODE
            and len(posting.base) <= self.copied_rows
        )

    def copies(self, selector: int | Predicate, posting: Posting, way: Way) -> NDArray[np.uint8]:
        """What this way reads that is copied of a list's base, made now if it is bytes; none where nothing is."""
        if not isinstance(selector, int) or (way is Way.COPIES) != (len(posting.base) < PACKED_ROWS):
            return NOT_PACKED
        kept = self.packed.get(selector)
        if kept is not None and kept[0] is posting.base:
            return kept[1]
        if way is Way.COPIES:
            made = copied(self.rows.table, posting.base)
        elif selector in self.packable and len(posting.base) == self.postings.length(selector):
            made = self.rows.records[posting.base]
        else:
            return NOT_PACKED
        self.packed[selector] = (posting.base, made)
        return made

    def pool_rows(self, rows: int) -> float:
        """Rows in the pool of a walk through the graph if ``rows`` of them are wanted; 0 if a walk is not the way."""
        return 0.0 if self.graph is None else self.graph.pool(min(rows, len(self) - self.deleted))

    def search_graph(
        self,
        queries: NDArray[np.float32],
        plan: Plan,
        wanted: NDArray[np.uint64],
        share: float,
        best_ids: NDArray[np.int64],
        best_distances: NDArray[np.float32],
        look: Look | None = None,
    ) -> NDArray[np.uint8]:
        """Offer the rows that walks meet, of those in a bitmap if there is one, a ``share`` of all; uint8 (m,): 1 for
        queries whose walk went astray, for which nothing was offered.
        """
        assert self.graph is not None, "planned only where there is one"
        links, starts, pool = self.graph.links, self.graph.starts, plan.budget_rows
        table, best = self.rows.table if look is None else look.table, (best_ids, best_distances)
        return nearest_by_graph(queries, table, links, starts, wanted, share, pool, plan.candidates, plan.band, *best)

    def drop_views(self, code: int) -> None:
        """Free what was derived from a list."""
        self.subtrees.pop(code, None)
        self.packed.pop(code, None)

    def nbytes(self) -> dict[str, int]:
        """Bytes by what they are for."""
        named = sum(posting.base.nbytes for _, posting in list(self.predicates.values()))
        splits = sum(split.nbytes for _, made in list(self.subtrees.values()) for split in list(made.values()))
        packed = sum(copies.nbytes for _, copies in list(self.packed.values()))
        everything = 0 if self.everything is None else self.everything.base.nbytes
        return {
            "vectors": self.rows.vectors.nbytes,
            "codes": self.rows.records.nbytes + self.rows.layout.signs.nbytes,
            "quantised": 0 if self.rows.fine is None else self.rows.fine.nbytes,
            "ids": self.rows.ids.nbytes + self.id_order.nbytes,
            "live": self.rows.live.nbytes,
            "graph": 0 if self.graph is None else self.graph.nbytes,
            "tree": self.rows.nodes.nbytes,
            "postings": self.postings.nbytes,
            "packed": packed + sum(made.nbytes for made in self.rows.leading),
            "subtrees": splits + named + everything,
            "attributes": sum(column.index_bytes for column in self.columns.values()) + self.kept.nbytes,
            "values": sum(column.value_bytes for column in self.columns.values()),
        }
