"""Attributes of rows: their declared types, and what a caller gives for them, checked.

Inside the index texts are large strings and lists are large lists of these, whatever width they came in.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ..lake.errors import InvalidInput, LimitExceeded
from ..lake.limits import VECTOR_ATTRIBUTES

__all__ = ["declared", "given", "name_of", "nothing_given"]

_UNITS: Final = ("s", "ms", "us", "ns")
_NAMES: Final[dict[str, pa.DataType]] = {
    **{f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **dict.fromkeys(("float32", "float"), pa.float32()),
    **dict.fromkeys(("float64", "double"), pa.float64()),
    **dict.fromkeys(("bool", "boolean"), pa.bool_()),
    **dict.fromkeys(("string", "str", "large_string", "utf8"), pa.large_string()),
    **dict.fromkeys(("date", "date32"), pa.date32()),
    **{f"timestamp[{unit}]": pa.timestamp(unit) for unit in _UNITS},
    **{f"timestamp[{unit}, tz=UTC]": pa.timestamp(unit, "UTC") for unit in _UNITS},
    "timestamp": pa.timestamp("us"),
    **dict.fromkeys(("list<string>", "list[string]", "list[str]"), pa.large_list(pa.large_string())),
}
_PYTHON: Final[dict[Any, pa.DataType]] = {
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    str: pa.large_string(),
    dt.date: pa.date32(),
    dt.datetime: pa.timestamp("us"),
    list: pa.large_list(pa.large_string()),
}
_SHOWN: Final = (
    "int8 to int64, uint8 to uint64, float32, float64, bool, string, date, timestamp (also timestamp[s], [ms], [us], "
    "[ns], with ', tz=UTC' inside the brackets) or list<string>"
)


def declared(attributes: Any) -> pa.Schema:
    """The schema that ``attributes`` declares: a dict from name to type, or an Arrow schema.

    A type is its name, as ``"int64"``, a Python type, or an Arrow type. InvalidInput says which are known.
    """
    if isinstance(attributes, pa.Schema):
        twice = sorted(name for name in set(attributes.names) if attributes.names.count(name) > 1)
        if twice:
            raise InvalidInput(f"attribute {twice[0]!r} is declared more than once")
        attributes = dict(zip(attributes.names, attributes.types, strict=True))
    if not isinstance(attributes, Mapping):
        raise InvalidInput(f"attributes {attributes!r}: expected a dict from name to type, as in {{'year': 'int64'}}")
    if len(attributes) > VECTOR_ATTRIBUTES:
        raise LimitExceeded(f"{len(attributes):,} attributes, at most {VECTOR_ATTRIBUTES:,} are possible")
    fields = []
    for name, kind in attributes.items():
        if not isinstance(name, str) or not name:
            raise InvalidInput(f"attribute name {name!r}: expected a text that is not empty")
        fields.append(pa.field(name, _type(name, kind)))
    return pa.schema(fields)


def _type(name: str, kind: Any) -> pa.DataType:
    if isinstance(kind, pa.DataType):
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            return pa.timestamp(kind.unit, "UTC")  # the same moments, whatever zone they are shown in
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            return pa.large_string()
        if pa.types.is_dictionary(kind):
            return _type(name, kind.value_type)
        if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
            inner = _type(name, kind.value_type)
            found = pa.large_list(inner) if pa.types.is_large_string(inner) else None
        else:
            found = kind if kind in _NAMES.values() else None
    elif isinstance(kind, str):
        found = _NAMES.get(kind)
    else:
        found = _PYTHON.get(kind) if isinstance(kind, type) else None
    if found is None:
        raise InvalidInput(f"attribute {name!r} of type {kind!r}: expected {_SHOWN}")
    return found


def name_of(kind: pa.DataType) -> str:
    """The name of a type, as :func:`declared` takes it."""
    return next(name for name, known in _NAMES.items() if known == kind)


def nothing_given(attributes: Any) -> bool:
    """Whether a caller gave no attributes at all."""
    return attributes is None or (isinstance(attributes, Mapping) and not attributes)


def given(attributes: Any, schema: pa.Schema, rows: int) -> pa.Table:
    """The attributes of ``rows`` new rows as a table of the schema: from a dict of columns, or an Arrow table.

    A column may be any sequence, or one text, number or None for all rows. Attributes that are left out are NULL.
    InvalidInput names the attribute that is unknown, of another length, or of other values.
    """
    if attributes is None:
        attributes = {}
    if not isinstance(attributes, Mapping):
        attributes = _columns(attributes)
    unknown = [name for name in attributes if name not in schema.names]
    if unknown:
        known = ", ".join(map(repr, schema.names)) or "none"
        raise InvalidInput(f"unknown attribute {unknown[0]!r}: this index has {known}")
    arrays = []
    for field in schema:
        values = attributes.get(field.name)
        array = pa.nulls(rows, field.type) if values is None else _array(field, values, rows)
        if len(array) != rows:
            raise InvalidInput(f"attribute {field.name!r} has {len(array):,} values for {rows:,} vectors")
        arrays.append(array)
    return pa.table(arrays, schema=schema)


def _columns(attributes: Any) -> dict[str, Any]:
    if hasattr(attributes, "__arrow_c_stream__"):
        table = pa.table(attributes)
    elif isinstance(attributes, pa.RecordBatch):
        table = pa.Table.from_batches([attributes])
    else:
        raise InvalidInput(
            f"attributes of type {type(attributes).__name__}: expected a dict from name to values, or an Arrow table"
        )
    return dict(zip(table.column_names, table.columns, strict=True))


def _array(field: pa.Field, values: Any, rows: int) -> pa.Array:
    if isinstance(values, str | int | float | np.generic | dt.date) or (
        isinstance(values, np.ndarray) and values.ndim == 0
    ):
        values = [values] * rows
    try:
        array = values if isinstance(values, pa.Array | pa.ChunkedArray) else _converted(values, field.type)
        if isinstance(array, pa.ChunkedArray):
            array = array.combine_chunks()
        if array.type != field.type:
            _refuse_other_kinds(array.type, field.type)
            array = array.cast(field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        shown = str(error).partition("\n")[0]
        raise InvalidInput(f"attribute {field.name!r} of type {field.type}: {shown}") from None
    return array


def _converted(values: Any, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """The array of any other sequence, in a type of its own."""
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        if values.ndim != 1:
            raise ValueError(f"array of shape {values.shape}, expected one value a row")
        return pa.array(values)
    if hasattr(values, "__arrow_c_stream__"):
        return pa.chunked_array(values)
    if hasattr(values, "__arrow_c_array__"):
        return pa.array(values)
    if isinstance(values, bytes | bytearray | Mapping | set | frozenset):
        raise TypeError(f"{type(values).__name__} is no sequence of values")
    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    try:
        return pa.array(listed)  # as what they are: told the type, Arrow would cut 1.5 to 1
    except (pa.ArrowInvalid, OverflowError):
        if not pa.types.is_uint64(kind):
            raise
    return pa.array(listed, kind)


def _refuse_other_kinds(found: pa.DataType, wanted: pa.DataType) -> None:
    """Arrow would turn texts into numbers and booleans into both; whoever gives these has mixed up columns."""
    if not _alike(found, wanted):
        raise TypeError(f"values of type {found} were given")


def _alike(found: pa.DataType, wanted: pa.DataType) -> bool:
    types = pa.types
    if types.is_null(found):
        return True
    if types.is_dictionary(found):
        return _alike(found.value_type, wanted)
    if types.is_large_list(wanted):
        return hasattr(found, "value_type") and _alike(found.value_type, wanted.value_type)
    return _sort(found) == _sort(wanted)


def _sort(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    return "moment" if types.is_temporal(kind) else str(kind)
