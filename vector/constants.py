"""Constants of a condition as Python values, as DuckDB reads them beside an attribute of some type."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from ..lake import evaluation
from ..lake.limits import WHERE_CACHE_ENTRIES
from .comparison import LeftToDuckDB
from .keys import is_list, is_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..lake.where import Tree

__all__ = ["beside", "plain", "value_of"]

DECIMAL_DIGITS: Final = 38
MOMENTS: Final = {"DATE", "TIMESTAMP", "DATETIME", "TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"}
SQL_TYPES: Final = {
    "int8": "TINYINT",
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint8": "UTINYINT",
    "uint16": "USMALLINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "date32[day]": "DATE",
    "timestamp[s]": "TIMESTAMP_S",
    "timestamp[ms]": "TIMESTAMP_MS",
    "timestamp[us]": "TIMESTAMP",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}
"""Of attributes; of others DuckDB reads texts itself."""


def value_of(tree: Tree, params: Mapping[str, Any]) -> Any:
    """The value of a constant or a parameter."""
    if tree["class"] == "PARAMETER":
        return params[tree["identifier"]]
    if tree["class"] == "CAST":
        return _cast_constant(tree)
    if tree["class"] == "CONSTANT":
        return _constant(tree["literal"])
    raise LeftToDuckDB


def beside(values: Sequence[Any], kind: pa.DataType) -> list[Any]:
    """Values that stand side by side in one comparison with an attribute, as DuckDB reads them there."""
    found = {type(value) for value in values if value is not None}
    if len(found) > 1 and not (pa.types.is_float64(kind) and found <= {int, float, Decimal}):
        raise LeftToDuckDB  # it would take all for one type, which may not be theirs
    return [_fitted(value, kind) for value in values]


def _fitted(value: Any, kind: pa.DataType) -> Any:
    if is_text(kind) or is_list(kind):
        return value
    if isinstance(value, str):  # DuckDB reads it as the type beside it
        return _cast(value, "VARCHAR", _sql_type(kind))
    if isinstance(value, Decimal) and pa.types.is_floating(kind):
        return _cast(format(value, "f"), "", _sql_type(kind))
    return value


def plain(value: Any) -> Any:
    """A parameter as Python has it, where it came from NumPy."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _constant(literal: Mapping[str, Any]) -> Any:
    text = literal["text"]
    match literal["kind"]:
        case "NULL_LITERAL":
            return None
        case "BOOLEAN":
            return bool(text == "true")
        case "INTEGER" if len(text) <= DECIMAL_DIGITS:
            return int(text)
        case "NUMERIC" if "e" not in text.lower() and len(text) <= DECIMAL_DIGITS:
            return Decimal(text)
        case "NUMERIC" if "e" in text.lower():
            return float(text)
        case "STRING":
            return str(text)
    raise LeftToDuckDB


def _cast_constant(tree: Tree) -> Any:
    """The value of DATE '…', TIMESTAMP '…' and their like."""
    name, child = str(tree["type_expr"].get("type_name", "")).upper(), tree["child"]
    plain = child["class"] == "CONSTANT" and child["literal"]["kind"] == "STRING"
    if not plain or tree["try_cast"] or tree["type_expr"].get("children") or name not in MOMENTS:
        raise LeftToDuckDB
    return _cast(str(child["literal"]["text"]), "VARCHAR", name)


@lru_cache(WHERE_CACHE_ENTRIES)
def _cast(text: str, source: str, target: str) -> Any:
    """What DuckDB makes of a text, or of a number if no ``source`` type is named, as the ``target`` type."""
    import duckdb

    try:
        if source:
            sql = f"CAST(?::{source} AS {target})"
            if target in ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"):  # as a datetime it would need pytz
                sql = f"CAST({sql} AS TIMESTAMP)"  # in UTC, the session's zone
            (value,) = evaluation.one_row(f"SELECT {sql}", [text])
        else:
            (value,) = evaluation.one_row(f"SELECT CAST({text} AS {target})")
    except duckdb.Error:
        raise LeftToDuckDB from None  # which will say what is wrong with it
    return value


def _sql_type(kind: pa.DataType) -> str:
    name = SQL_TYPES.get(str(kind))
    if name is None:
        raise LeftToDuckDB
    return name
