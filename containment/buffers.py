"""The buffers of Arrow arrays as NumPy arrays, nothing copied where it can be helped, and what they look like.

``Array.to_numpy`` would do for most, but imports pandas where it is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ENCODED", "bits", "fixed", "null_mask", "plain", "repeats", "value_offsets"]

SAMPLE_ROWS: Final = 512
REPEATS_FROM_ROWS: Final = 4096
"""Below, a look at whether values repeat costs what it may save."""
ENCODED: Final = frozenset(
    kind.id
    for kind in (
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float32(), pa.float64(), pa.decimal128(1), pa.string(), pa.large_string(), pa.binary(), pa.large_binary()),
        *(pa.date32(), pa.date64(), pa.time32("s"), pa.time64("us"), pa.timestamp("s"), pa.duration("s")),
    )
)
"""Types that are looked at for repeats: a dictionary costs a fraction of hashing each value."""


def fixed(array: pa.Array, dtype: str, width: int = 1) -> NDArray[Any]:
    """The values buffer as shape (n,), or (n, width) for values of several words; read-only."""
    size = np.dtype(dtype).itemsize * width
    flat = np.frombuffer(array.buffers()[1], dtype, len(array) * width, array.offset * size)
    return flat if width == 1 else flat.reshape(-1, width)


def plain(array: pa.Array) -> NDArray[Any]:
    """The values buffer of numbers in their own type, shape (n,); what lies below a NULL is anything."""
    return fixed(array, np.dtype(array.type.to_pandas_dtype()).str)


def value_offsets(array: pa.Array) -> NDArray[Any]:
    """Where each string or list of n begins in the data, and where the last ends: shape (n + 1,), int32 or int64."""
    t = array.type
    large = pa.types.is_large_list(t) or pa.types.is_large_string(t) or pa.types.is_large_binary(t)
    dtype = np.dtype("<i8" if large else "<i4")
    return np.frombuffer(array.buffers()[1], dtype, len(array) + 1, array.offset * dtype.itemsize)


def bits(buffer: pa.Buffer, offset: int, n: int) -> NDArray[np.uint8]:
    """A bitmap as bytes of 0 and 1, shape (n,)."""
    first = offset >> 3
    raw = np.frombuffer(buffer, np.uint8, ((offset + n + 7) >> 3) - first, first)
    return np.unpackbits(raw, bitorder="little")[offset - 8 * first :][:n]


def null_mask(array: pa.Array) -> NDArray[np.bool_] | None:
    """True where a value is NULL, shape (n,); None when none is."""
    if not array.null_count:
        return None
    return np.equal(bits(array.buffers()[0], array.offset, len(array)), 0)


def repeats(array: pa.Array) -> bool:
    """Whether values repeat so often that hashing each distinct one once pays; judged by rows from all over."""
    if len(array) < REPEATS_FROM_ROWS:
        return False
    places = np.linspace(0, len(array) - 1, SAMPLE_ROWS).astype(np.int64)
    sample = array.take(pa.Array.from_buffers(pa.int64(), SAMPLE_ROWS, [None, pa.py_buffer(places)]))
    return 2 * int(pc.count_distinct(sample, mode="all").as_py()) < SAMPLE_ROWS
