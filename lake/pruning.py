"""Which files and row groups a condition may find rows in, from bounds alone.

A condition is read as a small tree over the possible outcomes of each part: TRUE, FALSE, NULL, as a set of three bits.
Bounds say which outcomes can occur; AND, OR and NOT combine the sets by three-valued logic. What the tree does not
express has every outcome. A file is left out only when TRUE cannot occur. The rows themselves are DuckDB's to judge, so
the order here is DuckDB's: NaN above all numbers and equal to itself, -0.0 equal to 0.0, strings by bytes. Where DuckDB
may round a value before it compares (a decimal literal against a float, nanoseconds against microseconds), the value is
widened to an interval that holds every such rounding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa

from .statistics import Bounds, Value

__all__ = ["Outcomes", "may_be_true"]

Outcomes = int
"""A set of outcomes as bits."""
TRUE, FALSE, NULL, ANY = 1, 2, 4, 7

Tree = Mapping[str, Any]

_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "<>": "<>"}
_COMPARISONS = {
    "COMPARE_EQUAL": "=",
    "COMPARE_NOTEQUAL": "<>",
    "COMPARE_LESSTHAN": "<",
    "COMPARE_LESSTHANOREQUALTO": "<=",
    "COMPARE_GREATERTHAN": ">",
    "COMPARE_GREATERTHANOREQUALTO": ">=",
}


class _NotExpressibleError(Exception):
    """This part of the tree is left to DuckDB."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows that bounds are of: their number, bounds by column, types by column, and the parameters."""

    count: int
    bounds: Mapping[str, Bounds]
    types: Mapping[str, pa.DataType]
    params: Mapping[str, Any]


def may_be_true(
    tree: Tree,
    bounds: Mapping[str, Bounds],
    num_rows: int,
    types: Mapping[str, pa.DataType],
    params: Mapping[str, Any],
) -> bool:
    """Whether the condition can hold for one of ``num_rows`` rows with these bounds.

    ``tree`` is :meth:`Where.resolve`'s, ``bounds`` and ``types`` are by exact column name, ``params`` by name. False is
    a proof; True is not.
    """
    return num_rows > 0 and bool(_outcomes(tree, _Rows(num_rows, bounds, types, params)) & TRUE)


def _outcomes(tree: Tree, rows: _Rows) -> Outcomes:
    reader = _READERS.get(tree["class"])
    if reader is None:
        return ANY
    try:
        return reader(tree, rows)
    except _NotExpressibleError:
        return ANY


# --- three-valued logic over sets ----------------------------------------------------------------------------------


def _not(a: Outcomes) -> Outcomes:
    return (FALSE if a & TRUE else 0) | (TRUE if a & FALSE else 0) | (a & NULL)


def _and(a: Outcomes, b: Outcomes) -> Outcomes:
    true = TRUE if a & TRUE and b & TRUE else 0
    false = FALSE if (a | b) & FALSE else 0
    null = NULL if (a & NULL and b & (NULL | TRUE)) or (b & NULL and a & (NULL | TRUE)) else 0
    return true | false | null


def _or(a: Outcomes, b: Outcomes) -> Outcomes:
    return _not(_and(_not(a), _not(b)))


def _conjunction(tree: Tree, rows: _Rows) -> Outcomes:
    combine, result = (_and, TRUE) if tree["type"] == "CONJUNCTION_AND" else (_or, FALSE)
    for child in tree["children"]:
        result = combine(result, _outcomes(child, rows))
    return result


# --- the parts that bounds can answer ------------------------------------------------------------------------------


def _constant(tree: Tree, rows: _Rows) -> Outcomes:
    value = _value(tree, rows)
    if value is None:
        return NULL
    if not isinstance(value, bool):
        raise _NotExpressibleError
    return TRUE if value else FALSE


def _column_alone(tree: Tree, rows: _Rows) -> Outcomes:
    name = _column(tree, rows)
    if not pa.types.is_boolean(rows.types[name]):
        raise _NotExpressibleError
    return _compare(name, "=", True, rows)


def _comparison(tree: Tree, rows: _Rows) -> Outcomes:
    operator = _COMPARISONS.get(tree["type"])
    if operator is None:
        raise _NotExpressibleError
    left, right = tree["left"], tree["right"]
    if left["class"] != "COLUMN_REF":
        left, right, operator = right, left, _FLIPPED[operator]
    return _compare(_column(left, rows), operator, _value(right, rows), rows)


def _between(tree: Tree, rows: _Rows) -> Outcomes:
    name = _column(tree["input"], rows)
    low = _compare(name, ">=", _value(tree["lower"], rows), rows)
    return _and(low, _compare(name, "<=", _value(tree["upper"], rows), rows))


def _operator(tree: Tree, rows: _Rows) -> Outcomes:
    kind, children = tree["type"], tree["children"]
    if kind == "OPERATOR_NOT":
        return _not(_outcomes(children[0], rows))
    if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
        nulls = rows.bounds.get(_column(children[0], rows), Bounds()).null_count
        is_null = (TRUE if nulls != 0 else 0) | (FALSE if nulls is None or nulls < rows.count else 0)
        return is_null if kind == "OPERATOR_IS_NULL" else _not(is_null)
    if kind in ("COMPARE_IN", "COMPARE_NOT_IN"):
        name, result = _column(children[0], rows), FALSE
        for child in children[1:]:
            result = _or(result, _compare(name, "=", _value(child, rows), rows))
        return result if kind == "COMPARE_IN" else _not(result)
    raise _NotExpressibleError


def _function(tree: Tree, rows: _Rows) -> Outcomes:
    arguments = [argument["expression"] for argument in tree["arguments"]]
    if len(arguments) != 2:
        raise _NotExpressibleError
    if tree["function_name"] == "contains":  # column IN $list
        wanted, name = _value(arguments[0], rows), _column(arguments[1], rows)
        if not isinstance(wanted, list | tuple):
            raise _NotExpressibleError
        found = 0
        for value in wanted:
            found |= _compare(name, "=", value, rows) & TRUE
        return found | FALSE | NULL
    if tree["function_name"] in ("~~", "prefix", "starts_with", "^@"):
        name, pattern = _column(arguments[0], rows), _value(arguments[1], rows)
        if not isinstance(pattern, str) or not _is_text(rows.types[name]):
            raise _NotExpressibleError
        prefix = re.split("[%_]", pattern)[0] if tree["function_name"] == "~~" else pattern
        return _starts_with(name, prefix, rows)
    raise _NotExpressibleError


_READERS: dict[str, Callable[[Tree, _Rows], Outcomes]] = {
    "CONJUNCTION": _conjunction,
    "CONSTANT": _constant,
    "PARAMETER": _constant,
    "COLUMN_REF": _column_alone,
    "COMPARISON": _comparison,
    "BETWEEN": _between,
    "OPERATOR": _operator,
    "FUNCTION": _function,
}


def _column(tree: Tree, rows: _Rows) -> str:
    if tree["class"] != "COLUMN_REF" or len(tree["column_names"]) != 1 or tree["column_names"][0] not in rows.types:
        raise _NotExpressibleError
    return str(tree["column_names"][0])


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _starts_with(name: str, prefix: str, rows: _Rows) -> Outcomes:
    known = rows.bounds.get(name)
    if known is None:
        return ANY
    if known.null_count == rows.count:
        return NULL
    low, high = known.min, known.max
    below = isinstance(high, str) and _above(prefix, high, known.max_exact)
    above = isinstance(low, str) and low[: len(prefix)] > prefix
    return (0 if below or above else TRUE) | FALSE | (0 if known.null_count == 0 else NULL)


def _above(value: Any, high: Value, exact: bool) -> bool:
    """Whether ``value`` is above every value that ``high`` bounds; a cut string may stand for any continuation."""
    if exact or not isinstance(high, str | bytes):
        return bool(value > high)
    return bool(value[: len(high)] > high)


def _compare(name: str, operator: str, value: Any, rows: _Rows) -> Outcomes:
    """Outcomes of ``column operator value``."""
    known = rows.bounds.get(name)
    if value is None or (known is not None and known.null_count == rows.count):
        return NULL
    if known is None:
        return ANY
    kind = rows.types[name]
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    from_value, to_value = _interval(value, kind)
    low, high = known.min, known.max
    all_below = high is not None and _above(from_value, high, known.max_exact)
    all_above = low is not None and low > to_value
    reaches = high is None or not all_below  # some value may be >= the value sought
    starts = not all_above  # some value may be <= the value sought
    one = low is not None and low == high == from_value == to_value
    true = {
        "=": reaches and starts,
        "<>": not one,
        "<": low is None or low < to_value,
        "<=": starts,
        ">": high is None or high > from_value or not (known.max_exact or all_below),
        ">=": reaches,
    }
    opposite = {"=": "<>", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}[operator]
    outcomes = (TRUE if true[operator] else 0) | (FALSE if true[opposite] else 0)
    if pa.types.is_floating(kind) and known.nan_count != 0:
        outcomes |= TRUE if operator in ("<>", ">", ">=") else FALSE
    return outcomes | (0 if known.null_count == 0 else NULL)


# --- values --------------------------------------------------------------------------------------------------------


class _Literal(str):
    """Text from the condition itself: unlike a parameter's, DuckDB reads it as the type of the column beside it."""

    __slots__ = ()


def _value(tree: Tree, rows: _Rows) -> Any:
    """The Python value of a constant or parameter; literals of dates and times as date or datetime."""
    kind = tree["class"]
    if kind == "PARAMETER":
        value = rows.params[tree["identifier"]]
        return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value
    if kind == "CAST" and tree["child"]["class"] == "CONSTANT" and not tree["try_cast"]:
        name, value = str(tree["type_expr"].get("type_name", "")).upper(), _value(tree["child"], rows)
        if isinstance(value, str) and not tree["type_expr"].get("children"):
            if name == "DATE" and re.fullmatch(_DATE, value):
                return _instant(value)
            if name in ("TIMESTAMP", "DATETIME", "TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"):
                return _instant(value)
    if kind != "CONSTANT":
        raise _NotExpressibleError
    literal = tree["literal"]
    text = literal["text"]
    match literal["kind"]:
        case "NULL_LITERAL":
            return None
        case "BOOLEAN":
            return bool(text == "true")
        case "INTEGER":
            return int(text)
        case "NUMERIC":
            try:
                return Decimal(text)
            except InvalidOperation:
                raise _NotExpressibleError from None
        case "STRING":
            return _Literal(text)
    raise _NotExpressibleError


_DATE = r"\d{4}-\d\d-\d\d"
_MOMENT = re.compile(_DATE + r"([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?")


def _instant(text: str) -> date | datetime:
    if not _MOMENT.fullmatch(text):
        raise _NotExpressibleError
    try:
        return date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text)
    except ValueError:
        raise _NotExpressibleError from None


def _interval(value: Any, kind: pa.DataType) -> tuple[Any, Any]:
    """Least and greatest value, in the terms of the column's bounds, that DuckDB may compare the column with."""
    types = pa.types
    if types.is_boolean(kind) and isinstance(value, bool):
        return value, value
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return _number_interval(value, kind)
    if _is_text(kind) and isinstance(value, str):
        return value, value
    if (types.is_binary(kind) or types.is_large_binary(kind)) and isinstance(value, bytes | bytearray):
        return bytes(value), bytes(value)
    if types.is_timestamp(kind) or types.is_date(kind):
        return _moment_interval(_instant(value) if isinstance(value, _Literal) else value, kind)
    raise _NotExpressibleError


def _number_interval(value: Any, kind: pa.DataType) -> tuple[Any, Any]:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise _NotExpressibleError
    if isinstance(value, int) and pa.types.is_integer(kind) and abs(value) < 1 << 126:
        return value, value
    if not math.isfinite(value):
        if isinstance(value, float) and not math.isnan(value):
            return value, value
        raise _NotExpressibleError
    if pa.types.is_float64(kind) and (isinstance(value, float) or (isinstance(value, int) and abs(value) <= 1 << 53)):
        return value, value
    exact = Decimal(value)
    wide = pa.types.is_floating(kind) and kind.bit_width < 64
    slack = abs(exact) * Decimal("1e-6" if wide else "1e-14") + Decimal("1e-44" if wide else "1e-323")
    return exact - slack, exact + slack


_EPOCH = datetime(1970, 1, 1)
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def _moment_interval(value: Any, kind: pa.DataType) -> tuple[int, int]:
    """A date or time in ticks of the column, one tick and at least a microsecond wider on either side."""
    if value in (date.min, date.max, datetime.min, datetime.max):
        raise _NotExpressibleError  # DuckDB takes some of these for infinity
    if isinstance(value, datetime):
        moment = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    elif isinstance(value, date):
        moment = datetime(value.year, value.month, value.day)
    else:
        raise _NotExpressibleError
    nanoseconds = (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    if pa.types.is_date(kind):
        tick = 86_400 * 10**9 if pa.types.is_date32(kind) else 10**6
        slack = 1 if pa.types.is_date32(kind) else 86_400_000
    else:
        tick = _NANOSECONDS[kind.unit]
        slack = max(1, 1000 // tick)
    return nanoseconds // tick - slack, -(-nanoseconds // tick) + slack
