"""A delta: new rows in the order they came, until they become a segment.

Rows are written behind the last one and become visible by their posting lists, so readers see whole rows and need no
lock. A delta that is full takes no more rows; deletes and grants still reach it until a segment has taken its place.
"""

from __future__ import annotations

import sys
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .budget import whole
from .codes import encode
from .loose_columns import loose
from .matching import matched
from .metrics import Metric
from .planner import NO_FAN
from .postings import NONE, GrowingPostings, Posting
from .predicates import selected
from .segment import ALL_CODE, NOT_PACKED, Rows
from .subtree import NO_SUBTREE

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from .bound import Bound
    from .codes import CodeLayout
    from .labels import Grants, LabelTable
    from .matching import Columns, Matches
    from .nodes import Nodes
    from .planner import Way
    from .predicates import Predicate
    from .subtree import SubTree

__all__ = ["Delta"]


class Delta:
    """Up to ``capacity`` rows, coded about ``mean``; see :class:`.segment.Segment` for what it shares with one."""

    __slots__ = ("budget", "capacity", "columns", "count", "everything", "fan", "of_id", "others", "postings", "rows")

    def __init__(
        self,
        capacity: int,
        mean: NDArray[np.float32],
        layout: CodeLayout,
        metric: Metric,
        nodes: Nodes,
        schema: pa.Schema | None = None,
    ) -> None:
        dim = len(mean)
        vectors, records = np.empty((capacity, dim), np.float32), np.empty((capacity, layout.record_bytes), np.uint8)
        ids, live = np.empty(capacity, np.int64), np.zeros(capacity, np.uint8)
        self.fan = NO_FAN
        self.rows = Rows(vectors, records, ids, live, mean, layout, metric, nodes)
        self.capacity, self.count, self.budget = capacity, 0, whole(layout.bits)
        self.postings = GrowingPostings()
        self.columns = {} if schema is None else {field.name: loose(field.type, capacity) for field in schema}
        self.others: Columns = {}
        self.everything = np.arange(capacity, dtype=np.uint32)
        self.of_id: dict[int, int] = {}

    def __len__(self) -> int:
        return self.count

    def append(
        self, vectors: NDArray[np.float32], ids: NDArray[np.int64], grants: Grants, attributes: pa.Table | None = None
    ) -> None:
        """Add rows, no more than fit; visible once this returns, some a little before."""
        if attributes is not None:
            for name, values in zip(attributes.column_names, attributes.columns, strict=True):
                self.columns[name].append(values.combine_chunks())
        first, count = self.count, len(ids)
        last = first + count
        rows = self.rows
        rows.vectors[first:last] = vectors
        rows.ids[first:last] = ids
        with_norms = rows.metric is not Metric.IP
        encode(rows.vectors, rows.mean, rows.layout.signs, rows.layout.bits, with_norms, first, last, rows.records)
        rows.live[first:last] = 1
        offsets, codes = grants
        if count == 1:
            self.of_id[int(ids[0])] = first
            for code in codes.tolist():
                self.postings.append(code, first)
        else:
            self.of_id.update(zip(ids.tolist(), range(first, last), strict=True))
            positions = np.repeat(np.arange(first, last, dtype=np.uint32), np.diff(offsets))
            order = np.argsort(codes, kind="stable")
            bounds = np.flatnonzero(np.diff(codes[order], prepend=-2, append=-2))
            for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
                self.postings.extend(int(codes[order[start]]), positions[order[start:stop]])
        self.count = last

    def find(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of live rows by id, -1 where there is none."""
        if len(wanted) == 1:
            at = self.of_id.get(int(wanted[0]), -1)
            return np.array([at if at >= 0 and self.rows.live[at] else -1], np.int64)
        found = [self.of_id.get(each, -1) for each in wanted.tolist()]
        live = self.rows.live
        return np.array([at if at >= 0 and live[at] else -1 for at in found], np.int64)

    @property
    def live_share(self) -> float:
        """1: which rows of a delta are live is not counted."""
        return 1.0

    def delete(self, positions: NDArray[np.uint32]) -> None:
        """Clear live rows."""
        self.rows.live[positions] = 0

    def seen(self, live: NDArray[np.uint8], others: Columns) -> Delta:
        """The same rows where others are live, uint8 (n,), and conditions may name ``others`` too.

        For a delta that takes no more rows.
        """
        other = copy(self)
        other.rows = replace(self.rows, live=live)
        other.others = others
        return other

    def posting(self, code: int) -> Posting:
        """The rows of a tenant, or all."""
        return Posting(self.everything[: self.count], NONE, NONE) if code == ALL_CODE else self.postings.get(code)

    def selected(self, predicate: Predicate, table: LabelTable) -> Posting:
        """The rows that a predicate names."""
        return Posting(selected(predicate, table, self.postings.get, self.everything[: self.count]))

    def matches(self, selector: int | Predicate, posting: Posting, bound: Bound) -> Matches:
        """The rows of a posting list that fulfil a condition."""
        return matched(bound, {**self.columns, **self.others}, self.rows.live, posting)

    def match_records(self, matches: Matches) -> NDArray[np.uint8]:
        """None."""
        return NOT_PACKED

    def subtree(self, selector: int | Predicate, posting: Posting, cap_rows: int, one_in: int = 1) -> SubTree:
        """None: a delta has no tree."""
        return NO_SUBTREE

    def is_copied(self, selector: int | Predicate, posting: Posting) -> bool:
        """False: a delta's rows come and go too soon."""
        return False

    def copies(self, selector: int | Predicate, posting: Posting, way: Way) -> NDArray[np.uint8]:
        """None."""
        return NOT_PACKED

    def pool_rows(self, rows: int) -> float:
        """0: a delta has no graph."""
        return 0.0

    def search_graph(self, queries: NDArray[np.float32], *_: object) -> NDArray[np.uint8]:
        """A delta has no graph: all queries are left."""
        return np.ones(len(queries), np.uint8)

    def drop_views(self, code: int) -> None:
        """Nothing is derived from a delta's lists."""

    def nbytes(self) -> dict[str, int]:
        """Bytes by what they are for, of the rows that stand here."""
        share = self.count / self.capacity
        rows = self.rows
        return {
            "vectors": int(rows.vectors.nbytes * share),
            "codes": int(rows.records.nbytes * share),
            "ids": int((rows.ids.nbytes + self.everything.nbytes) * share) + sys.getsizeof(self.of_id),
            "live": rows.live.nbytes,
            "postings": self.postings.nbytes,
            "attributes": sum(column.index_bytes for column in self.columns.values()),
            "values": sum(column.value_bytes for column in self.columns.values()),
        }
