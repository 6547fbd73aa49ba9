"""Where each row of a child stands in its parent: row hashes tell, and rows keep their order where that can be.

The child is taken in blocks that memory holds; for each the parent is read once. Of equal parent rows the first behind
the last one used is taken, which finds the child's order again whenever it is a selection of the parent's rows in
their order; else the first of all.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from ..lake.errors import InvalidInput
from ..lake.recipe import Origins
from .hashing import ValueHasher
from .schema_graph import normalised, schema_graph
from .sorted_rows import concatenate, stable_order

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ..lake.fragment import Fragment
    from ..lake.table import Table
    from .mixing import Lanes
    from .schema_graph import SchemaGraph

__all__ = ["column_map", "match_rows"]

_ROW_BYTES: Final = 96
"""Memory that one row of the child, and one of the parent that may be it, take while they are matched."""
_COMPILED_VALUES: Final = 60_000_000
_COMPILED_ROWS: Final = 1 << 16
_FILTER_BITS_MOST: Final = 28
"""The filter takes a byte for each of so many bits' values: 256 MiB."""


def column_map(child: pa.Schema, parent: pa.Schema, *, partly: bool = False) -> dict[str, str]:
    """The parent's column for each column of the child; with ``partly`` for those that the parent has.

    Raises InvalidInput when the parent lacks one, or, with ``partly``, all.
    """
    graph = schema_graph([child, parent])
    whole = _mapped(graph, _places(graph), 0, 1)
    if whole is not None:
        return whole
    if partly:
        graph = schema_graph([*(pa.schema([field]) for field in child), parent])
        places, last = _places(graph), len(child)
        pairs = [(name, _mapped(graph, places, at, last)) for at, name in enumerate(child.names)]
        found = {name: names[name] for name, names in pairs if names is not None}
        if found:
            return found
    raise InvalidInput(
        f"the parent has not {'any' if partly else 'all'} of the child's columns {', '.join(child.names)}: it has "
        f"{', '.join(parent.names)}"
    )


_Places = dict[int, tuple[int, int]]


def _places(graph: SchemaGraph) -> _Places:
    """The class of each table, and its place there."""
    return {t: (number, at) for number, own in enumerate(graph.classes) for at, t in enumerate(own.tables.tolist())}


def _mapped(graph: SchemaGraph, places: _Places, child: int, parent: int) -> dict[str, str] | None:
    """Columns of one table of the graph as columns of another that has them all; None when it has not."""
    if child not in places or parent not in places:
        return None
    (own, at), (theirs, other) = places[child], places[parent]
    positions = graph.maps.get((own, theirs))
    if positions is None:
        return None
    mine, names = graph.classes[own].columns[at], graph.classes[theirs].columns[other]
    return {name: names[p] for name, p in zip(mine, positions.tolist(), strict=True)}


def match_rows(
    child: Sequence[Fragment], parent: Table, columns: Mapping[str, str], *, seed: bytes, memory_bytes: int
) -> Iterator[list[Origins]]:
    """For each child file, the origins of the live rows of each of its row groups among the files of ``parent``.

    ``Origins.source`` numbers ``parent.fragments()``, ``row`` is the stored row there; -1 where no row is equal.
    ``columns`` as :func:`column_map`. Row groups without live rows have empty origins.
    """
    rows = sum(fragment.num_rows for fragment in child) + parent.num_rows
    hasher = ValueHasher(seed, compiled=rows * len(columns) >= _COMPILED_VALUES)
    block_rows = max(1 << 16, memory_bytes // _ROW_BYTES)
    waiting: list[tuple[int, Lanes]] = []
    found: dict[int, list[Origins]] = {}
    held = 0
    for number, fragment in enumerate(child):
        found[number] = []
        for lanes in _hashed(fragment, list(columns), list(columns), hasher):
            waiting.append((number, lanes))
            held += len(lanes)
            if held >= block_rows:
                _settle(waiting, parent, columns, hasher, found)
                waiting, held = [], 0
        unsettled = {n for n, _ in waiting}
        for ready in [n for n in sorted(found) if n not in unsettled]:
            yield found.pop(ready)
    _settle(waiting, parent, columns, hasher, found)
    for number in sorted(found):
        yield found[number]


def _hashed(fragment: Fragment, columns: Sequence[str], names: Sequence[str], hasher: ValueHasher) -> Iterator[Lanes]:
    """Row hashes of each row group's live rows; ``names`` are the child's names of the columns."""
    salts = [f"{normalised(name)}\0{name}" for name in names]
    for table in fragment.batches(list(columns)):
        yield hasher.table_rows(table.rename_columns(salts), [salts])[0]


def _settle(
    waiting: Sequence[tuple[int, Lanes]],
    parent: Table,
    columns: Mapping[str, str],
    hasher: ValueHasher,
    found: dict[int, list[Origins]],
) -> None:
    """Find the rows of the waiting row groups in one pass over the parent."""
    if not waiting:
        return
    child = concatenate([lanes for _, lanes in waiting])
    origins = _found(child, parent, columns, hasher) if len(child) else Origins(_NO_SOURCE, _NO_ROW)
    start = 0
    for number, lanes in waiting:
        stop = start + len(lanes)
        found[number].append(Origins(origins.source[start:stop], origins.row[start:stop]))
        start = stop


_NO_SOURCE: Final = np.empty(0, np.int32)
_NO_ROW: Final = np.empty(0, np.int64)


def _found(child: Lanes, parent: Table, columns: Mapping[str, str], hasher: ValueHasher) -> Origins:
    wanted = _Filter(child.lo)
    names = list(columns)
    lanes: list[Lanes] = []
    places: list[NDArray[np.int64]] = []
    starts = [0]
    for fragment in parent.fragments():
        for group, hashed in enumerate(_hashed(fragment, [columns[name] for name in names], names, hasher)):
            hits = wanted.rows(hashed.lo)
            if hits.size:
                lanes.append(hashed.take(hits))
                places.append(fragment.positions([group])[hits] + starts[-1])
        starts.append(starts[-1] + fragment.num_stored_rows)
    if not lanes:
        return Origins(np.full(len(child), -1, np.int32), np.zeros(len(child), np.int64))
    theirs, place = concatenate(lanes), np.concatenate(places)
    chosen = _chosen(child, theirs)
    missing = chosen < 0
    position = place[np.where(missing, 0, chosen)]
    bounds = np.asarray(starts)
    source = np.searchsorted(bounds, position, side="right") - 1
    row = position - bounds[source]
    source[missing], row[missing] = -1, 0
    return Origins(source.astype(np.int32), row)


class _Filter:
    """A table of bytes, indexed by the highest bits of a hash: which rows of the parent are worth keeping at all."""

    def __init__(self, lo: NDArray[np.uint64]) -> None:
        bits = min(_FILTER_BITS_MOST, max(8, len(lo).bit_length() + 4))
        self._shift = np.uint64(64 - bits)
        self._marked = np.zeros(1 << bits, np.bool_)
        self._marked[lo >> self._shift] = True

    def rows(self, lo: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Positions of the hashes that may be among those that were marked."""
        return np.flatnonzero(self._marked[lo >> self._shift])


def _chosen(child: Lanes, parent: Lanes) -> NDArray[np.int64]:
    """For each child row the parent row to take, by its place in ``parent``, whose rows are in order; -1 for none."""
    order = stable_order(parent.lo)
    first, after = _ranges(child.lo, parent.lo[order])
    if bool((after - first <= 1).all()):
        taken = np.where(after > first, first, -1)
    elif len(child) >= _COMPILED_ROWS:
        from .selection import in_order

        taken = in_order(first, after, order)
    else:
        taken = _in_order(first.tolist(), after.tolist(), order)
    chosen = np.where(taken < 0, -1, order[np.where(taken < 0, 0, taken)])
    other = (chosen >= 0) & (parent.hi[np.where(chosen < 0, 0, chosen)] != child.hi)
    chosen[other] = -1  # equal in one lane only: another row
    return chosen


def _ranges(sought: NDArray[np.uint64], words: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each sought word stands among ascending ``words``: from, to. Sought in order, so that the cache helps."""
    order = stable_order(sought)
    ascending = sought[order]
    found = []
    for side in ("left", "right"):
        at = np.empty(len(sought), np.int64)
        at[order] = np.searchsorted(words, ascending, side=side)
        found.append(at)
    return found[0], found[1]


def _in_order(first: list[int], after: list[int], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """As ``selection.in_order``, for few rows."""
    places = order.tolist()
    taken, last = [], -1
    for start, stop in zip(first, after, strict=True):
        at = -1
        if stop > start:
            at = bisect_right(places, last, start, stop)
            if at == stop:
                at = start
            last = places[at]
        taken.append(at)
    return np.array(taken, np.int64)
