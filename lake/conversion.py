"""One column from one Arrow type to another that holds the same values, and tables to a schema.

Why not ``pyarrow.cast`` alone: it does not encode dictionaries, does not reach dictionaries, extensions and views
inside nested types, and knows no list views of other values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from .errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "conform",
    "convert",
    "keep_rows",
    "list_like",
    "map_children",
    "no_rows",
    "rows_without_columns",
    "stored_type",
]


def stored_type(kind: pa.DataType) -> pa.DataType:
    """The type under which Parquet keeps a column of type ``kind``; :func:`convert` leads there and back.

    Seconds become milliseconds, date64 becomes date32, dictionaries of anything but strings become their values, and
    views become large strings and binaries, since pyarrow does not write views inside lists and structs.
    """
    types = pa.types
    if types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    if types.is_time32(kind):
        return pa.time32("ms")
    if types.is_date64(kind):
        return pa.date32()
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return _without_view(kind)
    if types.is_dictionary(kind):
        plain = types.is_string(kind.value_type) or types.is_large_string(kind.value_type)
        return kind if plain else stored_type(kind.value_type)
    return map_children(kind, stored_type)


def map_children(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """A nested type with each child type changed; any other type as it is."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType) or not types.is_nested(kind):
        return kind
    if types.is_struct(kind):
        return pa.struct([field.with_type(change(field.type)) for field in kind])
    if types.is_map(kind):
        key, item = (field.with_type(change(field.type)) for field in (kind.key_field, kind.item_field))
        return pa.map_(key, item, keys_sorted=kind.keys_sorted)
    value = kind.value_field.with_type(change(kind.value_type))
    return pa.list_(value, kind.list_size) if types.is_fixed_size_list(kind) else list_like(kind, value)


def list_like(kind: pa.DataType, value: pa.Field) -> pa.DataType:
    """The kind of list that ``kind`` is (list, large_list or a view of either), of other values."""
    types = pa.types
    if types.is_list(kind):
        return pa.list_(value)
    if types.is_large_list(kind):
        return pa.large_list(value)
    return pa.list_view(value) if types.is_list_view(kind) else pa.large_list_view(value)


def rows_without_columns(num_rows: int, schema: pa.Schema) -> pa.Table:
    """A table of that many rows and no columns; only the metadata of ``schema`` is used."""
    # In this order: replacing the metadata of a table without columns loses its rows.
    return pa.table({"": pa.nulls(num_rows)}).replace_schema_metadata(schema.metadata).select([])


def keep_rows(table: pa.Table, rows: pa.Array) -> pa.Table:
    """The rows that ``rows`` picks, in order: a boolean array as long as the table, or ascending int64 positions.

    Also of types that pyarrow has no kernel for (views, also inside nested types): those go through their plain form.
    """
    pick = table.filter if pa.types.is_boolean(rows.type) else table.take
    if not any(_has_view(kind) for kind in table.schema.types):
        return pick(rows)
    plain = pa.schema([field.with_type(_without_view(field.type)) for field in table.schema], table.schema.metadata)
    return conform(keep_rows(conform(table, plain), rows), table.schema)


def _has_view(kind: pa.DataType) -> bool:
    return not _without_view(kind).equals(kind)


def _without_view(kind: pa.DataType) -> pa.DataType:
    """The type with large strings and large binaries for views at any depth; extensions are left as they are."""
    types = pa.types
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _without_view(kind.value_type), kind.ordered)
    return map_children(kind, _without_view)


def no_rows(schema: pa.Schema) -> pa.Table:
    """A table without rows. Unlike ``Schema.empty_table`` it knows every type, such as dictionaries of times."""
    if len(schema) == 0:
        return rows_without_columns(0, schema)
    return pa.Table.from_arrays([pa.chunked_array([], field.type) for field in schema], schema=schema)


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows of ``table`` in exactly ``schema``: columns by name, values converted, absent columns NULL.

    Columns of the table that the schema lacks are left out. Raises InvalidInput, naming the column, when a value does
    not fit or a column that is declared not null has or lacks values. The table is not changed.
    """
    if table.schema.equals(schema, check_metadata=True):
        columns = None
    elif len(schema) == 0:
        return rows_without_columns(table.num_rows, schema)
    else:
        columns = []
        for field in schema:
            index = table.schema.get_field_index(field.name)
            if index < 0:
                columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)], field.type))
                continue
            try:
                columns.append(convert(table.column(index), field.type))
            except (pa.ArrowException, ValueError) as error:
                raise InvalidInput(
                    f"column {field.name!r}: a value of type {table.schema.field(index).type} does not fit "
                    f"{field.type}: {error}"
                ) from error
    result = table if columns is None else pa.Table.from_arrays(columns, schema=schema)
    for field, column in zip(schema, result.columns, strict=True):
        if not field.nullable and column.null_count:
            raise InvalidInput(f"column {field.name!r} is declared not null, found {column.null_count:,} NULLs")
    return result


def convert(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """The same values as type ``kind``; ArrowException when one has no equal there. Equal types are not copied."""
    if column.type.equals(kind, check_metadata=True):
        return column
    return pa.chunked_array([_convert(chunk, kind) for chunk in column.chunks], kind)


def _convert(array: pa.Array, kind: pa.DataType) -> pa.Array:
    types = pa.types
    if array.type.equals(kind, check_metadata=True):
        return array
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _convert(array, kind.storage_type))
    if types.is_dictionary(kind):
        return _encode(array, kind)
    if types.is_dictionary(array.type):
        return _convert(array.dictionary_decode(), kind)
    if types.is_nested(kind) and types.is_nested(array.type):
        return _rebuild(array, kind)
    if types.is_decimal(kind) and types.is_integer(array.type) and 0 <= kind.scale <= 56:
        array = array.cast(pa.decimal256(20 + kind.scale, kind.scale))  # Arrow asks for room for any integer
    return array.cast(kind)


def _encode(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_dictionary(array.type):
        array = _convert(array, kind.value_type).dictionary_encode()
    indices, values = array.indices.cast(kind.index_type), _convert(array.dictionary, kind.value_type)
    return pa.DictionaryArray.from_arrays(indices, values, ordered=kind.ordered)


def _rebuild(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Nested values child by child; the parents' validity and offsets stay."""
    types = pa.types
    if types.is_struct(kind):
        children = [_convert(array.field(field.name), field.type) for field in kind]
        return pa.StructArray.from_arrays(children, fields=list(kind), mask=array.is_null())
    if types.is_map(kind):
        keys, items = _convert(array.keys, kind.key_type), _convert(array.items, kind.item_type)
        entries = pa.StructArray.from_arrays([keys, items], fields=[kind.key_field, kind.item_field])
        return pa.Array.from_buffers(kind, len(array), array.buffers()[:2], -1, array.offset, [entries])
    if array.type.id != kind.id:
        # First the other kind of list around the same values.
        array = array.cast(list_like(kind, array.type.value_field))
    values = _convert(array.values, kind.value_type)
    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    own = 1 if types.is_fixed_size_list(kind) else 3 if views else 2
    return pa.Array.from_buffers(kind, len(array), array.buffers()[:own], -1, array.offset, [values])
