"""Which rows of two columns differ in their bits: the equality that retiring a table is judged by.

Equal are validity, and the bytes of values where valid: so -0.0 is not 0.0, and NaN equals only the NaN of the same
bits. How a column is cut into chunks, what lies under a NULL, and which dictionary codes stand for a value are no part
of it; the values of a dictionary themselves are compared apart (:func:`same_dictionary`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .conversion import map_children

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["dictionary_of", "differing_rows", "same_dictionary"]


def differing_rows(a: pa.ChunkedArray, b: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Rows, ascending int64, in which two columns of one type and length differ in their bits."""
    assert a.type.equals(b.type), f"{a.type} is compared with {b.type}"
    assert len(a) == len(b), f"{len(a)} rows are compared with {len(b)}"
    one, two = _whole(a), _whole(b)
    if one.equals(two) and not _has_float(one.type):
        return np.empty(0, np.int64)
    return np.flatnonzero(_differ(one, two)).astype(np.int64)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    column = _plain(column)
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without extension, dictionary and view at the top."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    if pa.types.is_dictionary(kind):
        return _plain(pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], kind.value_type))
    if pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        return column.cast(pa.large_binary() if pa.types.is_binary_view(kind) else pa.large_string())
    return column


def _differ(a: pa.Array, b: pa.Array) -> npt.NDArray[np.bool_]:
    valid_a, valid_b = _valid(a), _valid(b)
    different: npt.NDArray[np.bool_] = valid_a != valid_b
    both = valid_a & valid_b
    kind = a.type
    if pa.types.is_null(kind) or not both.any():
        return different
    if pa.types.is_nested(kind):
        return different | (both & _nested_differ(a, b))
    if pa.types.is_boolean(kind) or _is_variable(kind):
        unequal: npt.NDArray[np.bool_] = np.asarray(pc.not_equal(a, b).fill_null(pa.scalar(value=False)))
    else:
        unequal = (_bytes(a) != _bytes(b)).any(axis=1)
    return different | (both & unequal)


def _valid(array: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(array.is_valid())


def _is_variable(kind: pa.DataType) -> bool:
    types = pa.types
    return (
        types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    ) and not types.is_fixed_size_binary(kind)


def _bytes(array: pa.Array) -> npt.NDArray[np.uint8]:
    """The bytes of fixed-width values, a row each."""
    width = array.type.bit_width // 8
    data = np.frombuffer(array.buffers()[1], np.uint8, len(array) * width, array.offset * width)
    found: npt.NDArray[np.uint8] = data.reshape(len(array), width)
    return found


def _nested_differ(a: pa.Array, b: pa.Array) -> npt.NDArray[np.bool_]:
    """By halves: Arrow compares whole arrays of nested values, and mostly they are equal."""
    different = np.zeros(len(a), np.bool_)
    one, two = _without_floats(a), _without_floats(b)
    waiting = [(0, len(a))]
    while waiting:
        start, stop = waiting.pop()
        if one.slice(start, stop - start).equals(two.slice(start, stop - start)):
            continue
        if stop - start == 1:
            different[start] = True
            continue
        middle = (start + stop) // 2
        waiting += [(start, middle), (middle, stop)]
    return different


def _has_float(kind: pa.DataType) -> bool:
    found = False

    def look(child: pa.DataType) -> pa.DataType:
        nonlocal found
        found = found or pa.types.is_floating(child)
        if isinstance(child, pa.BaseExtensionType):
            look(child.storage_type)
        elif pa.types.is_dictionary(child):
            look(child.value_type)
        return map_children(child, look)

    look(kind)
    return found


def _without_floats(array: pa.Array) -> pa.Array:
    """Nested values with floats at any depth seen as integers of their bits, and plain values for dictionaries."""
    kind = array.type
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _without_floats(array.storage)
    if types.is_dictionary(kind):
        return _without_floats(array.dictionary_decode())
    if types.is_floating(kind):
        return array.view(pa.int64() if kind.bit_width == 64 else pa.int32() if kind.bit_width == 32 else pa.int16())
    if not types.is_nested(kind):
        return array
    if types.is_struct(kind):
        children = [_without_floats(array.field(i)) for i in range(kind.num_fields)]
        fields = [kind.field(i).with_type(child.type) for i, child in enumerate(children)]
        return pa.StructArray.from_arrays(children, fields=fields, mask=array.is_null())
    if types.is_map(kind):
        entries = pa.StructArray.from_arrays([_without_floats(array.keys), _without_floats(array.items)], ["k", "v"])
        return pa.Array.from_buffers(
            pa.list_(entries.type), len(array), array.buffers()[:2], -1, array.offset, [entries]
        )
    values = _without_floats(array.values)
    if types.is_fixed_size_list(kind):
        own, other = 1, pa.list_(values.type, kind.list_size)
    elif types.is_list_view(kind) or types.is_large_list_view(kind):
        own, other = 3, pa.list_view(values.type) if types.is_list_view(kind) else pa.large_list_view(values.type)
    else:
        own, other = 2, pa.list_(values.type) if types.is_list(kind) else pa.large_list(values.type)
    return pa.Array.from_buffers(other, len(array), array.buffers()[:own], -1, array.offset, [values])


# --- dictionaries --------------------------------------------------------------------------------------------------


def dictionary_of(column: pa.ChunkedArray) -> pa.Array:
    """All values of the dictionaries of a dictionary column, each once, in the order in which they come."""
    if column.num_chunks == 0:
        return pa.nulls(0, column.type.value_type)
    if column.num_chunks == 1:
        return column.chunk(0).dictionary
    return column.unify_dictionaries().chunk(0).dictionary


def same_dictionary(a: pa.ChunkedArray, b: pa.ChunkedArray) -> bool:
    """Whether two dictionary columns have the same values in the same order."""
    one, two = (pa.chunked_array([dictionary_of(column)]) for column in (a, b))
    return len(one) == len(two) and not differing_rows(one, two).size
