"""Attribute values as int64 keys of the same order, so that one kernel compares numbers, dates, times and booleans.

The order is DuckDB's: NaN above all numbers and equal to itself. -0.0 has a key of its own below that of 0.0, so that
values come back as they were; conditions take both for zero.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["array_of", "float_key", "is_list", "is_text", "keys_of"]

_INT64: Final = struct.Struct("<q")
_FLOAT64: Final = struct.Struct("<d")
SIGN: Final = 2**63 - 1
"""Flips all bits of a negative float but its sign, which turns their order round."""
NAN: Final = np.array([np.nan]).view(np.int64)[0] & SIGN


def is_text(kind: pa.DataType) -> bool:
    """Whether an attribute's values are texts."""
    return bool(pa.types.is_large_string(kind))


def is_list(kind: pa.DataType) -> bool:
    """Whether an attribute's values are lists of texts."""
    return bool(pa.types.is_large_list(kind))


def float_key(value: float) -> int:
    """The key of a float64."""
    if math.isnan(value):
        return int(NAN)
    (bits,) = _INT64.unpack(_FLOAT64.pack(value))
    return int(bits ^ SIGN if bits < 0 else bits)


def _turned(values: NDArray[np.float64]) -> NDArray[np.int64]:
    bits = values.view(np.int64)
    keys: NDArray[np.int64] = np.where(np.isnan(values), NAN, np.where(bits < 0, bits ^ SIGN, bits))
    return keys


def keys_of(array: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The keys of an array that is neither of texts nor of lists, int64 (n,), and which rows are not NULL, bool (n,).

    The key of a NULL is 0.
    """
    kind = array.type
    valid = np.asarray(array.is_valid())
    if array.null_count:
        array = array.fill_null(False if pa.types.is_boolean(kind) else pa.scalar(0, pa.int64()).cast(_whole(kind)))
    if pa.types.is_floating(kind):
        keys = _turned(np.asarray(array).astype(np.float64))
        return np.where(valid, keys, np.int64(0)), valid
    if pa.types.is_uint64(kind):
        return np.where(valid, np.asarray(array).view(np.int64) ^ np.iinfo(np.int64).min, np.int64(0)), valid
    if pa.types.is_date32(kind):
        array = array.view(pa.int32())
    elif pa.types.is_timestamp(kind):
        array = array.view(pa.int64())
    return np.asarray(array).astype(np.int64), valid


def _whole(kind: pa.DataType) -> pa.DataType:
    return pa.int32() if pa.types.is_date32(kind) else kind


def array_of(keys: NDArray[np.int64], valid: NDArray[np.bool_], kind: pa.DataType) -> pa.Array:
    """The array of this type that has these keys; NULL where ``valid`` is false."""
    if pa.types.is_floating(kind):
        values = np.where(keys < 0, keys ^ SIGN, keys).view(np.float64)
        return pa.array(values.astype(kind.to_pandas_dtype()), kind, mask=~valid)
    if pa.types.is_uint64(kind):
        return pa.array((keys ^ np.iinfo(np.int64).min).view(np.uint64), kind, mask=~valid)
    if pa.types.is_boolean(kind):
        return pa.array(keys.astype(bool), kind, mask=~valid)
    if pa.types.is_date32(kind):
        return pa.array(keys.astype(np.int32), pa.int32(), mask=~valid).view(kind)
    if pa.types.is_timestamp(kind):
        return pa.array(keys, pa.int64(), mask=~valid).view(kind)
    return pa.array(keys.astype(kind.to_pandas_dtype()), kind, mask=~valid)
