"""Ids of rows: whole numbers from 0 on, given by the caller or counted up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..lake.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["checked_ids"]


def checked_ids(ids: Any, count: int | None) -> NDArray[np.int64]:
    """Distinct ids as int64 (n,); InvalidInput if they are none, or not ``count`` of them."""
    try:
        given = np.asarray(ids)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"ids that are no list of whole numbers ({error})") from None
    if given.ndim == 0:
        given = given.reshape(1)
    if given.size == 0:
        given = given.astype(np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise InvalidInput(f"ids of dtype {given.dtype} and shape {given.shape}; expected whole numbers, one a row")
    if count is not None and len(given) != count:
        raise InvalidInput(f"{len(given):,} ids for {count:,} vectors; expected one each")
    if given.dtype == np.uint64 and len(given) and given.max() > np.iinfo(np.int64).max:
        raise InvalidInput(f"id {given.max()} is above {np.iinfo(np.int64).max}, the greatest that fits int64")
    given = given.astype(np.int64)
    if len(given) and given.min() < 0:
        raise InvalidInput(f"id {given.min()} is negative; -1 pads results, so ids start at 0")
    if len(given) > 1:
        ascending = np.sort(given)
        twice = np.flatnonzero(ascending[1:] == ascending[:-1])
        if len(twice):
            raise InvalidInput(f"id {ascending[twice[0]]} is given twice; ids of one call are distinct")
    return given
