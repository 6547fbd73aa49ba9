"""Refuting by bounds: one vectorised pass over every column of every candidate pair.

A child value that a parent cannot hold refutes the pair. The parent's bounds enclose its values whether exact or not,
so they may always refute; a child's bound refutes alone only when it is a value of the child, that is, exact. Bounds
that lie apart refute even when inexact, if the child has a value at all. NULLs refute a child that has some in a
parent that has none.

Bounds of different types are never compared through floating point: all values of one family are sorted by Python,
which compares integers, floats and decimals exactly, and only their ranks meet in NumPy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ..lake.statistics import Bounds
    from .canonical import Family
    from .schema_graph import SchemaClass

__all__ = ["Profiles", "profiles", "surviving"]

_LEAST: Final = np.int64(-1)
_MOST: Final = np.int64(2**62)
_PAIR_CELLS: Final = 2_000_000
"""Column comparisons in one step: bounds the memory of a pass over a million pairs."""
# One int64 row of these a column; ranks unless said otherwise.
_CHILD_LOW, _CHILD_HIGH, _LOW, _HIGH, _APART_LOW, _APART_HIGH, _FLAGS = range(7)
_HAS_NULL, _NO_NULL, _HAS_VALUE, _ALL_NULL, _NO_NAN = 1, 2, 4, 8, 16
_UNIT_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_TEMPORAL: Final = frozenset({"date", "time", "timestamp", "timestamp with zone", "duration"})
_DAY_NS: Final = 86_400 * 10**9


@dataclass(frozen=True, slots=True)
class Profiles:
    """Tables of one schema class with the same bounds everywhere, told apart no more until content is read.

    ``members[i]``: positions of profile i's tables in the class. ``cells``: int64 (profiles, columns, 7). ``strict``:
    bool a profile; True where a single missing row keeps a child below ``min_fraction``.
    """

    members: tuple[tuple[int, ...], ...]
    cells: NDArray[np.int64]
    strict: NDArray[np.bool_]


def profiles(
    classes: Sequence[SchemaClass],
    bounds: Callable[[int], Mapping[str, Bounds]],
    num_rows: Sequence[int],
    schemas: Mapping[int, pa.Schema],
    min_fraction: float = 1.0,
    apart: Container[int] = (),
) -> list[Profiles]:
    """The profiles of each class. ``bounds(table)`` gives the bounds by the table's own column names.

    Tables in ``apart`` have a profile of their own each.
    """
    starts = np.cumsum([0] + [len(c.tables) * len(c.tokens) for c in classes])
    flat = np.empty((int(starts[-1]), 7), dtype=np.int64)
    flat[:, [_CHILD_LOW, _HIGH, _APART_HIGH]] = _MOST
    flat[:, [_CHILD_HIGH, _LOW, _APART_LOW]] = _LEAST
    flat[:, _FLAGS] = 0
    waiting: dict[Family, _Waiting] = {}
    for start, own in zip(starts[:-1].tolist(), classes, strict=True):
        columns = [(waiting.setdefault(f, _Waiting()), f.kind in _TEMPORAL) for f in own.families]
        row = start
        for names, table in zip(own.columns, own.tables.tolist(), strict=True):
            known, rows = bounds(table), num_rows[table]
            for name, (values, temporal) in zip(names, columns, strict=True):
                found = known.get(name)
                if found is not None:
                    values.take(row, found, rows, _scale(schemas[table].field(name).type) if temporal else 1)
                row += 1
    for values in waiting.values():
        values.fill(flat)
    cells = [
        flat[start:stop].reshape(len(own.tables), len(own.tokens), 7)
        for start, stop, own in zip(starts[:-1].tolist(), starts[1:].tolist(), classes, strict=True)
    ]
    result = []
    for class_cells, own in zip(cells, classes, strict=True):
        rows_of = np.array([num_rows[t] for t in own.tables.tolist()], dtype=np.float64)
        strict = (rows_of - 1) / np.maximum(rows_of, 1) < min_fraction
        groups: dict[tuple[bytes, bool, int], list[int]] = {}
        for at, table in enumerate(own.tables.tolist()):
            alone = table if table in apart else -1
            groups.setdefault((class_cells[at].tobytes(), bool(strict[at]), alone), []).append(at)
        firsts = [members[0] for members in groups.values()]
        result.append(Profiles(tuple(tuple(m) for m in groups.values()), class_cells[firsts], strict[firsts]))
    return result


class _Waiting:
    """Bounds of one family, by row of the cells, until their ranks among each other are known."""

    __slots__ = ("exact", "flags", "rows", "values")

    def __init__(self) -> None:
        # Two entries a column, its minimum and its maximum; a value of None is unknown.
        self.values: list[Any] = []
        self.exact: list[bool] = []
        self.rows: list[int] = []
        self.flags: list[int] = []

    def take(self, row: int, found: Bounds, num_rows: int, scale: int) -> None:
        """Note what is known of one column; temporal values count ``scale`` nanoseconds each."""
        low, high, nulls = _ordered(found.min), _ordered(found.max), found.null_count
        floating = low is None or high is None or type(low) is float or type(high) is float
        low_exact = found.min_exact and low is not None
        high_exact = found.max_exact and high is not None
        flags = _HAS_VALUE if low_exact or high_exact else 0
        if nulls is not None:
            flags |= _HAS_NULL if nulls > 0 else _NO_NULL
            if nulls >= num_rows:
                flags |= _ALL_NULL
            elif not floating:
                flags |= _HAS_VALUE
        if not floating or found.nan_count == 0:
            flags |= _NO_NAN
        if scale != 1:
            low, high = (None if value is None else value * scale for value in (low, high))
        self.values += (low, high)
        self.exact += (low_exact, high_exact)
        self.rows.append(row)
        self.flags.append(flags)

    def fill(self, flat: NDArray[np.int64]) -> None:
        """Write flags and ranks into the cells, int64 (rows, 7)."""
        values = [value.encode() if type(value) is str else value for value in self.values]
        ranks: dict[Any, int] = {
            value: rank for rank, value in enumerate(sorted({value for value in values if value is not None}))
        }
        rank = np.array([-1 if value is None else ranks[value] for value in values], dtype=np.int64).reshape(-1, 2)
        exact = np.array(self.exact, dtype=np.bool_).reshape(-1, 2)
        rows, flags = np.array(self.rows, dtype=np.int64), np.array(self.flags, dtype=np.int64)
        flat[rows, _FLAGS] = flags
        has_value = (flags & _HAS_VALUE) > 0
        for side, own_slot, slot, apart in (
            (0, _CHILD_LOW, _LOW, _APART_LOW),
            (1, _CHILD_HIGH, _HIGH, _APART_HIGH),
        ):
            known = rank[:, side] >= 0
            for where, at in ((known, slot), (known & exact[:, side], own_slot), (known & has_value, apart)):
                flat[rows[where], at] = rank[where, side]


def _ordered(value: Any) -> Any:
    """The bound, or None for NaN, which bounds nothing."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _scale(kind: pa.DataType) -> int:
    """Nanoseconds in one unit of a temporal type, so that units compare as integers."""
    if pa.types.is_date32(kind):
        return _DAY_NS
    if pa.types.is_date64(kind):
        return _UNIT_NS["ms"]
    return _UNIT_NS.get(getattr(kind, "unit", "ns"), 1)


def surviving(
    classes: Sequence[Profiles], maps: Mapping[tuple[int, int], NDArray[np.int64]]
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of profiles that bounds do not refute, as (child class, parent class, child profiles, parent profiles).

    A profile is paired with itself only when it has two tables or more, and that pair always survives.
    """
    small: list[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]] = []
    cells = 0
    for (child, parent), at in maps.items():
        for block in _blocks(classes[child], classes[parent], child == parent):
            size = len(block[0]) * len(at)
            if size > _PAIR_CELLS // 8:
                yield from _narrowed(classes, child, parent, at, block)
                continue
            small.append((child, parent, *block))
            cells += size
            if cells > _PAIR_CELLS:
                yield from _flat(classes, maps, small)
                small, cells = [], 0
    yield from _flat(classes, maps, small)


def _blocks(child: Profiles, parent: Profiles, same: bool) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    count = len(parent.members)
    step = max(1, _PAIR_CELLS // max(1, count))
    for start in range(0, len(child.members), step):
        stop = min(start + step, len(child.members))
        a = np.repeat(np.arange(start, stop, dtype=np.int64), count)
        b = np.tile(np.arange(count, dtype=np.int64), stop - start)
        if same:
            several = np.array([len(m) > 1 for m in child.members])
            keep = (a != b) | several[a]
            a, b = a[keep], b[keep]
        if len(a):
            yield a, b


def _refuted(child: NDArray[np.int64], parent: NDArray[np.int64], strict: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether one column refutes: ``child`` and ``parent`` int64 (n, 7), ``strict`` bool (n,)."""
    flags, theirs = child[:, _FLAGS], parent[:, _FLAGS]
    apart = (child[:, _APART_LOW] > parent[:, _HIGH]) | (child[:, _APART_HIGH] < parent[:, _LOW])
    apart |= ((flags & _HAS_VALUE) > 0) & ((theirs & _ALL_NULL) > 0)
    one_missing = (child[:, _CHILD_LOW] < parent[:, _LOW]) | (child[:, _CHILD_HIGH] > parent[:, _HIGH]) | apart
    one_missing |= ((flags & _HAS_NULL) > 0) & ((theirs & _NO_NULL) > 0)
    all_missing = apart & ((flags & (_NO_NULL | _NO_NAN)) == (_NO_NULL | _NO_NAN))
    refuted: NDArray[np.bool_] = all_missing | (one_missing & strict)
    return refuted


def _narrowed(
    classes: Sequence[Profiles],
    child: int,
    parent: int,
    at: NDArray[np.int64],
    block: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
    """A large block column by column, so that most pairs are looked at once."""
    a, b = block
    for column, theirs in enumerate(at.tolist()):
        refuted = _refuted(classes[child].cells[a, column], classes[parent].cells[b, theirs], classes[child].strict[a])
        a, b = a[~refuted], b[~refuted]
        if not len(a):
            return
    yield child, parent, a, b


def _flat(
    classes: Sequence[Profiles],
    maps: Mapping[tuple[int, int], NDArray[np.int64]],
    blocks: list[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]],
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
    """Many small blocks in one pass: the columns of all pairs side by side."""
    if not blocks:
        return
    starts = np.cumsum([0] + [c.cells.shape[0] * c.cells.shape[1] for c in classes])
    flat = np.concatenate([c.cells.reshape(-1, 7) for c in classes])
    child_at, parent_at, sizes, strict = [], [], [], []
    for child, parent, a, b in blocks:
        at = maps[child, parent]
        width, parent_width = len(at), classes[parent].cells.shape[1]
        first = starts[child] + a * width
        child_at.append((first[:, None] + np.arange(width)).ravel())
        parent_at.append(((starts[parent] + b * parent_width)[:, None] + at).ravel())
        sizes.append(np.full(len(a), width, dtype=np.int64))
        strict.append(np.repeat(classes[child].strict[a], width))
    refuted = _refuted(flat[np.concatenate(child_at)], flat[np.concatenate(parent_at)], np.concatenate(strict))
    ends = np.cumsum(np.concatenate(sizes))
    pair_refuted = np.logical_or.reduceat(refuted, np.concatenate(([0], ends[:-1])))
    done = 0
    for child, parent, a, b in blocks:
        keep = ~pair_refuted[done : done + len(a)]
        done += len(a)
        if keep.any():
            yield child, parent, a[keep], b[keep]
