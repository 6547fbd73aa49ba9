"""Rows of a Parquet file by their position: only the row groups that hold wanted rows, and those in portions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from .conversion import conform, keep_rows
from .errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from .fragment import Fragment

__all__ = ["Held", "gathered", "groups_of"]

_PORTION_BYTES: Final = 64 * 2**20
"""Row groups of a file are read together up to this many stored bytes."""
_HELD_FILES: Final = 3
"""A source, the residual file and the side file: of each the last row group is held during a scan."""


def gathered(
    fragment: Fragment, own: Sequence[str], rows: npt.NDArray[np.int64], schema: pa.Schema, held: Held
) -> Iterator[pa.Table]:
    """Rows of a file, ascending, its columns ``own`` as ``schema``."""
    for first, groups, within in _chunks(fragment, rows):
        table = held.read(fragment, own, groups)
        local = rows[within] - first
        gaps = np.flatnonzero(np.diff(np.asarray(groups)) > 1)
        if gaps.size:  # row groups between them were not read
            counts, starts = np.asarray(fragment.row_group_rows), _group_starts(fragment)
            place = np.concatenate([[0], np.cumsum(counts[groups])[:-1]])
            at = np.searchsorted(np.asarray(groups), groups_of(fragment, rows[within]))
            local = rows[within] - starts[np.asarray(groups)[at]] + place[at]
        if len(local) and local[-1] >= table.num_rows:
            raise Corrupt(f"{fragment.path} has too few rows", path=fragment.path)
        if local[-1] - local[0] + 1 == len(local) and bool((local[1:] > local[:-1]).all()):
            picked = table.slice(int(local[0]), len(local))
        else:
            picked = keep_rows(table, pa.array(local))
        yield conform(picked.rename_columns(schema.names), schema)


class Held:
    """The last row group that was read of each file, for the next part that begins in it."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, pa.Table]] = {}

    def read(self, fragment: Fragment, columns: Sequence[str], groups: list[int]) -> pa.Table:
        """The columns of these row groups, ascending; the first may be the one that is held."""
        group, kept = self._last.get(id(fragment), (-1, None))
        rest = groups[1:] if group == groups[0] else groups
        tables = [kept] if group == groups[0] else []
        if rest:
            tables.append(fragment.read(list(dict.fromkeys(columns)), rest))
        table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
        last = fragment.row_group_rows[groups[-1]]
        self._last.pop(id(fragment), None)
        self._last[id(fragment)] = (groups[-1], table.slice(table.num_rows - last))
        while len(self._last) > _HELD_FILES:
            del self._last[next(iter(self._last))]
        return table.select(list(columns))


def _chunks(fragment: Fragment, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, list[int], slice]]:
    """Row groups to read together for ascending rows: the first one's first row, the groups, and which rows those
    are.
    """
    if not len(rows):
        return
    starts = _group_starts(fragment)
    _check_rows(fragment, int(rows[-1]), int(starts[-1]))
    group_bytes = fragment.num_bytes / max(1, len(starts) - 1)
    most = max(1, int(_PORTION_BYTES / max(1.0, group_bytes)))
    bounds = np.searchsorted(rows, starts)  # a few questions to many rows, not one for each of them
    groups = np.flatnonzero(bounds[1:] > bounds[:-1])
    for at in range(0, len(groups), most):
        chosen = groups[at : at + most].tolist()
        yield int(starts[chosen[0]]), chosen, slice(int(bounds[chosen[0]]), int(bounds[chosen[-1] + 1]))


def _group_starts(fragment: Fragment) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(fragment.row_group_rows)]).astype(np.int64)


def groups_of(fragment: Fragment, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The row group of each row. Raises Corrupt for a row that the file does not have."""
    starts = _group_starts(fragment)
    if len(rows):
        _check_rows(fragment, int(rows.max()), int(starts[-1]))
    return np.searchsorted(starts, rows, side="right") - 1


def _check_rows(fragment: Fragment, last: int, count: int) -> None:
    if last >= count:
        raise Corrupt(f"{fragment.path} has {count:,} rows, too few for the recipe", path=fragment.path)
