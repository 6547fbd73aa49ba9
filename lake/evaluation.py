"""DuckDB as the judge of conditions: one private in-memory database a process, closed to files and the network.

Each thread has a cursor of its own. The session's zone is UTC, so that a time without zone means the same everywhere.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .conversion import conform, map_children
from .errors import InvalidInput, InvalidSQL
from .schema import common_type

if TYPE_CHECKING:
    import duckdb

__all__ = ["first_repeated", "matching_rows", "one_row", "rows_with_keys"]

_lock = threading.Lock()
_local = threading.local()
_database: tuple[int, duckdb.DuckDBPyConnection] | None = None

_ROW = "row"
"""The column that numbers the rows; a condition's own columns are all called "column …"."""


def _cursor() -> duckdb.DuckDBPyConnection:
    """This thread's cursor. Made anew after a fork, which leaves DuckDB's threads behind."""
    import duckdb

    global _database  # noqa: PLW0603 -- one database a process, opened when first needed
    process = os.getpid()
    held = getattr(_local, "held", None)
    if held is not None and held[0] == process:
        cursor: duckdb.DuckDBPyConnection = held[1]
        return cursor
    with _lock:
        if _database is None or _database[0] != process:
            connection = duckdb.connect()
            connection.execute("SET GLOBAL TimeZone = 'UTC'")  # cursors inherit only what is global
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            _database = process, connection
        cursor = _database[1].cursor()
    _local.held = process, cursor
    return cursor


def one_row(sql: str, parameters: Sequence[Any] = ()) -> tuple[Any, ...]:
    """The first row of a query that has one. Raises duckdb.Error."""
    try:
        rows = _cursor().execute(sql, list(parameters)).fetchall()  # to the end: the cursor is then free again
    except BaseException:
        _local.held = None  # a result that could not be fetched would keep it busy for ever
        raise
    return tuple(rows[0])


def matching_rows(
    table: pa.Table, columns: Mapping[str, str], condition: str, params: Mapping[str, Any] | Sequence[Any]
) -> npt.NDArray[np.int64]:
    """Positions of the rows for which ``condition`` is true, ascending int64.

    ``columns`` gives for each column of ``table`` that the condition concerns the name it has in the condition, which
    is SQL that :meth:`Where.resolve` wrote. Raises InvalidSQL when DuckDB cannot bind or run it.
    """
    import duckdb

    rows = pa.array(np.arange(table.num_rows, dtype=np.int64))
    arrays = [_readable(table, name) for name in columns]
    numbered = pa.table([rows, *arrays], names=[_ROW, *columns.values()])
    cursor = _cursor()
    cursor.register("rows of one file", numbered)
    try:
        sql = f'SELECT "{_ROW}" FROM "rows of one file" WHERE {condition}'
        cursor.execute(sql, params)
        found = cursor.fetchnumpy()[_ROW]
    except (duckdb.Error, OverflowError, TypeError, ValueError, RuntimeError) as error:
        message = str(error).partition("\n")[0]
        for name, ours in columns.items():
            message = message.replace(f'"{ours}"', f'"{name}"').replace(ours, name)
        raise InvalidSQL(f"where cannot be run: {message}: {condition_for_people(condition, columns)}") from error
    finally:
        cursor.unregister("rows of one file")
    positions = np.ascontiguousarray(np.ma.getdata(found), dtype=np.int64)
    return positions if bool((positions[1:] > positions[:-1]).all()) else np.sort(positions)


def first_repeated(keys: pa.Table) -> tuple[Any, ...] | None:
    """The first values that more than one row of ``keys`` has, or None when all rows differ."""
    import duckdb

    cursor = _cursor()
    names = _registered(cursor, "keys", keys)
    try:
        found = cursor.execute(
            f"SELECT {names} FROM keys GROUP BY {names} HAVING count(*) > 1 ORDER BY {names} LIMIT 1"
        ).fetchall()
    except duckdb.Error as error:
        raise InvalidInput(f"these columns cannot be compared as keys: {error}") from error
    finally:
        cursor.unregister("keys")
    return found[0] if found else None


def rows_with_keys(table: pa.Table, keys: pa.Table) -> npt.NDArray[np.int64]:
    """Positions of the rows of ``table`` that equal a row of ``keys`` in all of its columns, ascending int64.

    ``table`` has the columns of ``keys``. Equal as DuckDB's ``=`` has it; NULL equals nothing.
    """
    import duckdb

    wide = pa.schema([_wider(table.schema.field(name), keys.schema.field(name)) for name in keys.schema.names])
    cursor = _cursor()
    _registered(cursor, "keys", conform(keys, wide))
    _registered(cursor, "there", conform(table.select(keys.schema.names), wide), numbered=True)
    match = " AND ".join(f'there."column {i}" = keys."column {i}"' for i in range(len(wide)))
    try:
        found = cursor.execute(f'SELECT "{_ROW}" FROM there SEMI JOIN keys ON {match}').fetchnumpy()[_ROW]
    except duckdb.Error as error:
        raise InvalidInput(f"these columns cannot be compared as keys: {error}") from error
    finally:
        cursor.unregister("keys")
        cursor.unregister("there")
    return np.sort(np.ma.getdata(found).astype(np.int64, copy=False))


def _wider(a: pa.Field, b: pa.Field) -> pa.Field:
    kind = common_type(a.type, b.type)
    if kind is None:
        raise InvalidInput(f"column {a.name!r} has types {a.type} and {b.type}, which are not compared: cast one")
    return pa.field(a.name, kind)


def _registered(cursor: duckdb.DuckDBPyConnection, view: str, table: pa.Table, *, numbered: bool = False) -> str:
    """Register the table with its columns called "column 0" …; returns their list as SQL."""
    arrays = [_readable(table, name) for name in table.schema.names]
    names = [f"column {i}" for i in range(len(arrays))]
    if numbered:
        arrays.append(pa.chunked_array([pa.array(np.arange(table.num_rows, dtype=np.int64))]))
        names.append(_ROW)
    cursor.register(view, pa.table(arrays, names=names))
    return ", ".join(f'"column {i}"' for i in range(table.num_columns))


def condition_for_people(condition: str, columns: Mapping[str, str]) -> str:
    """The condition with the table's own column names in it, for messages."""
    for name, ours in columns.items():
        condition = condition.replace(f'"{ours}"', '"' + name.replace('"', '""') + '"')
    return condition


def _readable(table: pa.Table, name: str) -> pa.ChunkedArray:
    """The column in a type that DuckDB reads, of equal values."""
    field = table.schema.field(name)
    kind = _readable_type(field.type)
    if kind.equals(field.type):
        return table.column(name)
    try:
        return conform(table.select([name]), pa.schema([field.with_type(kind)])).column(0)
    except ValueError as error:
        raise InvalidSQL(f"where cannot look at column {name!r} of type {field.type}: {error}") from error


def _readable_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal256(kind):
        return pa.decimal128(min(kind.precision, 38), kind.scale) if kind.scale <= 38 else kind
    return map_children(kind, _readable_type)
