"""Names, values and types as SQL that DuckDB reads."""

from __future__ import annotations

import re

import pyarrow as pa

from .errors import InvalidInput

__all__ = ["cast_to", "column_names", "null_of", "path_literal", "quote", "sql_type", "text_literal"]

_GLOB = re.compile(r"[*?\[]")


def quote(name: str) -> str:
    """The name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def text_literal(text: str) -> str:
    """The text as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def path_literal(path: str) -> str:
    """The path as a literal that DuckDB takes for this one file, whatever its name."""
    if _GLOB.search(path):
        if "\\" in path:
            raise InvalidInput(
                f"{path} has a backslash and one of * ? [ in its path, which DuckDB cannot name together. "
                "Rename the file or its folder."
            )
        path = _GLOB.sub(lambda found: f"[{found[0]}]", path)
    return text_literal(path)


def column_names(schema: pa.Schema) -> list[str]:
    """The names under which SQL sees the columns; all different when ASCII case is folded, none empty."""
    seen: dict[bytes, int] = {}
    names = []
    for i, wanted in enumerate(schema.names):
        name = wanted or f"C{i}"
        while (folded := name.encode().lower()) in seen:
            seen[folded] += 1
            name = f"{name}_{seen[folded]}"
        seen[folded] = 0
        names.append(name)
    return names


def null_of(kind: pa.DataType) -> str:
    """NULL of the DuckDB type of ``kind``."""
    return "NULL" if pa.types.is_null(kind) else f"CAST(NULL AS {sql_type(kind)})"


def cast_to(value: str, kind: pa.DataType) -> str:
    """The SQL value cast to the DuckDB type of ``kind``."""
    return f"CAST({value} AS {sql_type(kind)})"


_FIXED_TYPES = {
    pa.null(): '"NULL"',
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INTEGER",
    pa.int64(): "BIGINT",
    pa.uint8(): "UTINYINT",
    pa.uint16(): "USMALLINT",
    pa.uint32(): "UINTEGER",
    pa.uint64(): "UBIGINT",
    pa.float16(): "FLOAT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.string(): "VARCHAR",
    pa.large_string(): "VARCHAR",
    pa.string_view(): "VARCHAR",
    pa.date32(): "DATE",
    pa.date64(): "DATE",
}
_EXTENSION_TYPES = {"arrow.uuid": "UUID", "arrow.json": "JSON"}


def sql_type(kind: pa.DataType) -> str:
    """The DuckDB type under which ``read_parquet`` gives a column that was written as this Arrow type."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _EXTENSION_TYPES.get(kind.extension_name) or sql_type(kind.storage_type)
    if types.is_dictionary(kind):
        return sql_type(kind.value_type)
    fixed = _FIXED_TYPES.get(kind)
    if fixed:
        return fixed
    if types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})" if kind.precision <= 38 else "DOUBLE"
    if types.is_timestamp(kind):
        zoned = kind.tz is not None
        if kind.unit == "ns":
            return "TIMESTAMPTZ_NS" if zoned else "TIMESTAMP_NS"
        return "TIMESTAMPTZ" if zoned else "TIMESTAMP"
    if types.is_time(kind):
        return "TIME_NS" if kind.unit == "ns" else "TIME"
    if types.is_duration(kind):
        return "BIGINT"
    if types.is_struct(kind):
        return "STRUCT(" + ", ".join(f"{quote(f.name)} {sql_type(f.type)}" for f in kind) + ")"
    if types.is_map(kind):
        return f"MAP({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    if types.is_nested(kind):
        return f"{sql_type(kind.value_type)}[]"
    return "BLOB"
