"""What keeping a table costs in a month, and what rebuilding it from a parent would: the numbers of the plan.

Reading a plain table fetches its files. Reading a rebuilt one fetches the recipe, and of the parent all row groups that
may hold rows of the child, in the child's columns: a random hundredth of a parent touches all of it. Before a recipe is
made its size is an estimate: a bit for each row of the parent, or a position for each row of the child, whichever is
less; ``retire`` looks at the real one again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ..lake.statistics import UNKNOWN, Bounds, apart, in_type
from .matching import column_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from ..lake.fragment import Fragment
    from ..lake.table import Table
    from .prices import Prices
    from .throughput import Throughput

__all__ = ["Reading", "Usage", "kept_cost", "reading", "rebuilding", "retired_cost"]

_RECIPE_BYTES: Final = 1_500
_SOURCE_BYTES: Final = 120
_PART_ROWS: Final = 122_880
_PART_BYTES: Final = 40
_PASSES: Final = 3
"""To retire a table it is read to find its rows, to compare them, and perhaps once more; so is its parent."""
_REQUESTS_PER_FILE: Final = 2
"""Footer and data."""
REQUEST_BYTES: Final = 8 * 2**20
"""A request for data fetches about so much."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What happens to tables in a month: ``reads`` of this one, ``rewrites`` of rows of its parent that move positions,
    overwrites of either that undo a retirement (``undone``), and full ``passes`` over every kept table for upkeep
    (checks, erasure requests, statistics).
    """

    reads: float
    rewrites: float = 0.0
    passes: float = 1.0
    undone: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one full read takes: requests, stored bytes, files that are opened; ``recipe_bytes`` are part of them."""

    requests: float
    num_bytes: float
    files: int
    recipe_bytes: float = 0.0


def reading(table: Table) -> Reading:
    """A read of a table's own files."""
    files = sum(1 for fragment in table.fragments() if fragment.num_rows)
    return Reading(_requests(files, table.num_bytes), table.num_bytes, files)


def rebuilding(child: Table, parent: Table, bounds: Mapping[str, Bounds], extra: Sequence[str] = ()) -> Reading:
    """A read of ``child`` through a recipe over ``parent``. ``bounds`` are those of the child's columns, ``extra`` are
    columns that the parent lacks.

    Reads footers of the parent that are not in memory yet.
    """
    columns = column_map(child.schema, parent.schema, partly=bool(extra))
    touched, files = 0.0, 0
    for fragment in parent.fragments():
        share = _share(fragment, columns, bounds, child.schema, parent.schema) if fragment.num_rows else 0.0
        if share:
            sizes = fragment.column_bytes()
            touched += share * sum(sizes.get(name, 0) for name in columns.values())
            files += 1
    rows = child.num_rows
    width = math.ceil(math.log2(max(2, parent.num_rows)))
    parts = len(child.fragments()) + rows / _PART_ROWS
    own_files = sum(1 for fragment in child.fragments() if fragment.num_rows)
    recipe = (
        own_files * (_RECIPE_BYTES + files * _SOURCE_BYTES)
        + parts * _PART_BYTES
        + min(parent.num_rows, rows * width) / 8 * (0 if rows == parent.num_rows else 1)
    )
    side = sum(fragment.column_bytes().get(name, 0) for fragment in child.fragments() for name in extra)
    recipe += side
    requests = _requests(files, touched) + own_files  # a recipe is fetched whole
    requests += _requests(own_files, side) if extra else 0
    return Reading(requests, touched + recipe, files + own_files, recipe)


def kept_cost(own: Reading, usage: Usage, prices: Prices, throughput: Throughput) -> float:
    """Dollars a month for storage, upkeep and reads of a table that is kept."""
    storage = prices.storage(own.num_bytes, max(1, own.files))
    return storage + (usage.reads + usage.passes) * _read_cost(own, prices, throughput)


def retired_cost(
    rebuilt: Reading, own: Reading, usage: Usage, prices: Prices, throughput: Throughput, payback_months: float
) -> float:
    """Dollars a month for the recipe, reads through it, moving it whenever the parent's rows are rewritten, and, spread
    over ``payback_months`` or until it is undone, for making and proving it. ``own``: a read of the child's own files.
    """
    storage = prices.storage(rebuilt.recipe_bytes, 1)
    one_read = _read_cost(rebuilt, prices, throughput)
    write = prices.writes(1) + prices.compute(throughput.write_seconds(rebuilt.recipe_bytes))
    once = _PASSES * (one_read + _read_cost(own, prices, throughput)) + max(1, own.files) * write
    return (
        storage
        + usage.reads * one_read
        + usage.rewrites * (one_read + write)
        + once * max(1 / payback_months, usage.undone)
    )


def _read_cost(one: Reading, prices: Prices, throughput: Throughput) -> float:
    return prices.reads(one.requests, one.num_bytes) + prices.compute(throughput.read_seconds(one.num_bytes, one.files))


def _requests(files: int, num_bytes: float) -> float:
    return files * _REQUESTS_PER_FILE + num_bytes / REQUEST_BYTES


def _share(
    fragment: Fragment, columns: Mapping[str, str], bounds: Mapping[str, Bounds], own: pa.Schema, theirs: pa.Schema
) -> float:
    """Share of the file's rows that stand in row groups which may hold a row of the child."""
    names = list(columns.values())

    def may_hold(known: Mapping[str, Bounds]) -> bool:
        for name, parents in columns.items():
            wanted, there = bounds.get(name, UNKNOWN), known.get(parents, UNKNOWN)
            a, b = own.field(name).type, theirs.field(parents).type
            if not a.equals(b):
                there = in_type(there, b, a)
            if _apart(wanted, there):
                return False
        return True

    if not may_hold(fragment.bounds(names)):
        return 0.0
    if fragment.is_small:
        return 1.0
    rows = fragment.row_group_rows
    if len(rows) == 1:
        return 1.0
    held = sum(count for group, count in enumerate(rows) if may_hold(fragment.row_group_bounds(names, group)))
    return held / max(1, sum(rows))


def _apart(a: Bounds, b: Bounds) -> bool:
    if a.null_count != 0 or a.nan_count not in (0, None):
        return False  # a row with NULL or NaN there may stand anywhere
    return apart(a, b)
