"""Bounds of a column in a file: what may be trusted in a Parquet footer, and how bounds are kept in the log.

Bounds only ever refute. So whatever a writer may have got wrong is read as unknown: NaN as a bound (old writers),
INT96, byte strings whose order or truncation is in doubt, and statistics of nested leaves. A zero of a float is widened
to both zeros. Parquet's rules: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
(struct Statistics, ColumnOrder).
"""

from __future__ import annotations

import json
import math
import struct
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa

from .errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow.parquet as pq

__all__ = [
    "UNKNOWN",
    "Bounds",
    "Value",
    "apart",
    "constant_bounds",
    "decode_bounds",
    "encode_bounds",
    "footer_bounds",
    "in_type",
    "leaf_columns",
    "make_bounds",
    "merged",
    "outer",
]

Value = bool | int | float | Decimal | str | bytes
"""A bound. Dates, times, timestamps and durations are ints in the unit of their Arrow type (date32: days)."""

_TEXT_LENGTH = 64
"""Characters or bytes of a bound that the log keeps; a longer one is cut outwards and no longer exact."""


class Bounds(NamedTuple):
    """What is known of one column's values in some rows. None means unknown.

    ``min`` and ``max`` bound all values that are neither NULL nor NaN; they occur among the rows when ``min_exact``
    and ``max_exact`` say so, otherwise they may lie outside. ``nan_count`` matters for floats only.
    """

    null_count: int | None = None
    min: Value | None = None
    max: Value | None = None
    min_exact: bool = False
    max_exact: bool = False
    nan_count: int | None = None


UNKNOWN = Bounds()


def outer(bounds: Bounds) -> Bounds:
    """The bounds of any subset of the rows: still around all values, no longer exact; a null count of 0 stays."""
    return bounds._replace(
        null_count=0 if bounds.null_count == 0 else None,
        min_exact=False,
        max_exact=False,
        nan_count=0 if bounds.nan_count == 0 else None,
    )


def apart(a: Bounds, b: Bounds) -> bool:
    """Whether no value that is neither NULL nor NaN can lie within both; False for values that are not compared."""
    try:
        return any(
            low is not None and high is not None and low > high  # type: ignore[operator]
            for low, high in ((a.min, b.max), (b.min, a.max))
        )
    except TypeError:
        return False


def merged(parts: Iterable[tuple[Bounds, int]]) -> Bounds:
    """The bounds of several sets of rows together, each given with its number of rows.

    A part whose rows are all NULL has no bounds and does not hide those of the others.
    """
    nulls: int | None = 0
    nans: int | None = 0
    low = high = None
    low_exact = high_exact = True
    open_low = open_high = False
    for part, rows in parts:
        nulls = None if nulls is None or part.null_count is None else nulls + part.null_count
        nans = None if nans is None or part.nan_count is None else nans + part.nan_count
        if part.null_count == rows:
            continue
        if part.min is None:
            open_low = True
        elif low is None or part.min < low:  # type: ignore[operator]  # one column has one type
            low, low_exact = part.min, part.min_exact
        elif part.min == low:
            low_exact = low_exact or part.min_exact
        if part.max is None:
            open_high = True
        elif high is None or part.max > high:  # type: ignore[operator]
            high, high_exact = part.max, part.max_exact
        elif part.max == high:
            high_exact = high_exact or part.max_exact
    low, high = None if open_low else low, None if open_high else high
    return Bounds(nulls, low, high, low_exact and low is not None, high_exact and high is not None, nans)


# --- Parquet footers -----------------------------------------------------------------------------------------------


def leaf_columns(schema: pa.Schema, num_leaves: int) -> dict[str, tuple[int, int]]:
    """First leaf and number of leaves in the Parquet file for each top-level column of its Arrow schema.

    By counting, since dotted paths are ambiguous: a column "a.b" and a struct "a" with a field "b" have one path.
    Empty when the count does not come to ``num_leaves``.
    """
    spans, position = {}, 0
    for name, kind in zip(schema.names, schema.types, strict=True):
        count = 1 if kind.id in _FLAT else _leaves(kind)
        spans[name] = (position, count)
        position += count
    return spans if position == num_leaves else {}


def _leaves(kind: pa.DataType) -> int:
    if isinstance(kind, pa.BaseExtensionType):
        return _leaves(kind.storage_type)
    if pa.types.is_map(kind):
        return _leaves(kind.key_type) + _leaves(kind.item_type)
    if pa.types.is_nested(kind):
        return sum(_leaves(kind.field(i).type) for i in range(kind.num_fields))
    return 1


def footer_bounds(
    metadata: pq.FileMetaData,
    columns: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
    arrow_schema: pa.Schema | None = None,
) -> dict[str, Bounds]:
    """Bounds of the file's flat columns over the given row groups (all when None), in the *file's* Arrow types.

    ``columns`` None means all. Columns of which nothing is known are absent. ``arrow_schema`` saves deriving it.
    """
    schema = metadata.schema.to_arrow_schema() if arrow_schema is None else arrow_schema
    spans = leaf_columns(schema, metadata.num_columns)
    kinds = dict(zip(schema.names, schema.types, strict=True))
    wanted = []
    for name in schema.names if columns is None else columns:
        if name in spans:
            kind = kinds[name]
            if kind.id not in _FLAT:
                kind = _value_type(kind)
                if pa.types.is_nested(kind):
                    continue
            wanted.append((name, spans[name][0], kind))
    exact = str(metadata.created_by).startswith("parquet-cpp")  # never cuts a bound: too long ones it leaves out
    chosen = range(metadata.num_row_groups) if groups is None else groups
    parts: list[tuple[list[Bounds], int]] = []
    for index in chosen:
        group = metadata.row_group(index)  # fetched once: in the inner loop this is quadratic
        parts.append(([_chunk_bounds(group.column(leaf), kind, exact) for _, leaf, kind in wanted], group.num_rows))
    names = [name for name, _, _ in wanted]
    if len(parts) == 1 and not any(bounds.null_count == parts[0][1] for bounds in parts[0][0]):
        found = dict(zip(names, parts[0][0], strict=True))
    else:
        found = {name: merged((bounds[at], rows) for bounds, rows in parts) for at, name in enumerate(names)}
    return {name: bounds for name, bounds in found.items() if bounds != UNKNOWN}


def _value_type(kind: pa.DataType) -> pa.DataType:
    while isinstance(kind, pa.BaseExtensionType) or pa.types.is_dictionary(kind):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    return kind


def _chunk_bounds(chunk: pq.ColumnChunkMetaData, kind: pa.DataType, exact: bool) -> Bounds:
    number = kind.id
    try:
        stats = chunk.statistics
        if stats is None:
            return UNKNOWN
        nulls = stats.null_count if stats.has_null_count else None
        nans = None if number in _FLOATING else 0
        if not stats.has_min_max or (number == _TIMESTAMP and chunk.physical_type == "INT96"):
            return Bounds(nulls, nan_count=nans)
        low, high = stats.min_raw, stats.max_raw
        if number not in _AS_STORED:
            low, high = _typed(low, stats, True, kind), _typed(high, stats, False, kind)
    except (UnicodeDecodeError, OverflowError, ValueError, ArithmeticError, pa.ArrowException):
        return UNKNOWN
    return make_bounds(nulls, low, high, exact, nans)


def make_bounds(nulls: int | None, low: Value | None, high: Value | None, exact: bool, nans: int | None) -> Bounds:
    """Bounds from what a writer says, with what must not be trusted left out.

    ``exact`` tells that the writer is known not to cut strings; otherwise one of 16 bytes or more is inexact.
    """
    if isinstance(low, float) or isinstance(high, float):
        if low is None or high is None or math.isnan(float(low)) or math.isnan(float(high)):
            return Bounds(nulls, nan_count=nans)
        low, high = (-0.0 if low == 0 else low), (0.0 if high == 0 else high)
    if low is not None and high is not None and low > high:  # type: ignore[operator]
        return Bounds(nulls, nan_count=nans)
    return Bounds(nulls, low, high, exact or _short(low), exact or _short(high), nans)


def constant_bounds(value: pa.Scalar, num_rows: int) -> Bounds:
    """The bounds of a column that holds ``value`` in every row; UNKNOWN when its type has no order that is ours."""
    if not value.is_valid:
        return Bounds(num_rows, nan_count=0)
    held = value.value if pa.types.is_temporal(value.type) else value.as_py()
    if isinstance(held, float) and math.isnan(held):
        return Bounds(0, nan_count=num_rows)
    return make_bounds(0, held, held, True, 0) if isinstance(held, Value) else UNKNOWN


def _short(value: Value | None) -> bool:
    if isinstance(value, str):
        value = value.encode()
    return value is not None and not (isinstance(value, bytes) and len(value) >= 16)


_TIMESTAMP: Final = pa.timestamp("us").id
_FLOATING: Final = frozenset(kind.id for kind in (pa.float16(), pa.float32(), pa.float64()))
_AS_STORED: Final = frozenset(
    kind.id
    for kind in (
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
        *(pa.date32(), pa.date64(), pa.time32("ms"), pa.time64("us"), pa.timestamp("us"), pa.duration("us")),
    )
)
"""Types whose bound is what the footer holds, an int or a float."""
_FLAT: Final = _AS_STORED | {kind.id for kind in (pa.bool_(), pa.string(), pa.large_string(), pa.binary())}
"""Types of one leaf whose values are of that type, told by their number: a schema asks this of every column."""


def _typed(raw: Any, stats: pq.Statistics, least: bool, kind: pa.DataType) -> Value | None:
    """A footer's bound as a Value of Arrow type ``kind``; None for types without an order that is ours."""
    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return raw.decode() if isinstance(raw, bytes) else str(raw)
    if types.is_boolean(kind):
        return bool(raw)
    if types.is_unsigned_integer(kind):
        return int(raw) % (1 << int(kind.bit_width))
    if types.is_float16(kind):
        return float(struct.unpack("<e", raw)[0])
    if types.is_decimal(kind):
        cooked = stats.min if least else stats.max
        return cooked if isinstance(cooked, Decimal) else None
    return bytes(raw) if _is_bytes(kind) else None


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    sized = types.is_binary(kind) or types.is_fixed_size_binary(kind)
    return bool(sized or types.is_large_binary(kind) or types.is_binary_view(kind))


# --- from a file's type to a table's -------------------------------------------------------------------------------

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def in_type(bounds: Bounds, found: pa.DataType, wanted: pa.DataType) -> Bounds:
    """Bounds of a file's column of type ``found`` as those of a table's column of type ``wanted``.

    Where the values change their meaning on the way (a number read as text) only the null count remains.
    """
    found, wanted = _value_type(found), _value_type(wanted)
    if found.equals(wanted):
        return bounds
    types = pa.types
    for a, b in ((types.is_integer, types.is_integer), (types.is_floating, types.is_floating)):
        if a(found) and b(wanted):
            return bounds
    if types.is_decimal(found) and types.is_decimal(wanted) and wanted.scale >= found.scale:
        return bounds
    if types.is_integer(found) and types.is_floating(wanted):
        low = None if bounds.min is None else float(bounds.min)
        high = None if bounds.max is None else float(bounds.max)
        return bounds._replace(min=-0.0 if low == 0 else low, max=high, nan_count=0)
    text = (types.is_string, types.is_large_string, types.is_string_view)
    if any(is_kind(found) for is_kind in text) and any(is_kind(wanted) for is_kind in text):
        return bounds
    if _is_bytes(found) and _is_bytes(wanted):
        return bounds
    return _in_unit(bounds, _ticks_per_day(found), _ticks_per_day(wanted))


def _ticks_per_day(kind: pa.DataType) -> tuple[str, int] | None:
    """Family and ticks a day of a temporal type; None for other types."""
    types = pa.types
    if types.is_date(kind):
        return "date", 1 if types.is_date32(kind) else 86_400_000
    if types.is_timestamp(kind):
        return "naive" if kind.tz is None else "zoned", 86_400 * _PER_SECOND[kind.unit]
    if types.is_time(kind) or types.is_duration(kind):
        return "time" if types.is_time(kind) else "duration", 86_400 * _PER_SECOND[kind.unit]
    return None


def _in_unit(bounds: Bounds, found: tuple[str, int] | None, wanted: tuple[str, int] | None) -> Bounds:
    if found is None or wanted is None or found[0] != wanted[0]:
        return Bounds(bounds.null_count)
    low, high = bounds.min, bounds.max
    new_low = None if low is None else int(low) * wanted[1] // found[1]
    new_high = None if high is None else -(-int(high) * wanted[1] // found[1])
    whole = wanted[1] % found[1] == 0
    return bounds._replace(
        min=new_low,
        max=new_high,
        min_exact=bounds.min_exact and (whole or (low is not None and int(low) * wanted[1] % found[1] == 0)),
        max_exact=bounds.max_exact and (whole or (high is not None and int(high) * wanted[1] % found[1] == 0)),
    )


# --- text for the log ----------------------------------------------------------------------------------------------


def encode_bounds(bounds: Mapping[str, Bounds]) -> str:
    """Bounds of the columns of one file as JSON text, for ``DataFile.stats``; "" when nothing is known."""
    if not bounds:
        return ""
    columns = {name: _encode_one(_cut(known)) for name, known in bounds.items()}
    return json.dumps(columns, ensure_ascii=False, separators=(",", ":"))


def _encode_one(bounds: Bounds) -> list[Any]:
    exact = int(bounds.min_exact) + 2 * int(bounds.max_exact)
    return [bounds.null_count, _to_json(bounds.min), _to_json(bounds.max), exact, bounds.nan_count]


def _to_json(value: Value | None) -> Any:
    if isinstance(value, float):
        return {"f": value.hex()}
    if isinstance(value, Decimal):
        return {"d": str(value)}
    return {"b": value.hex()} if isinstance(value, bytes) else value


def _cut(bounds: Bounds) -> Bounds:
    """Long strings cut outwards: a prefix as the minimum, the next prefix after it as the maximum."""
    low, high = bounds.min, bounds.max
    if isinstance(low, str | bytes) and len(low) > _TEXT_LENGTH:
        bounds = bounds._replace(min=low[:_TEXT_LENGTH], min_exact=False)
    if isinstance(high, str | bytes) and len(high) > _TEXT_LENGTH:
        bounds = bounds._replace(max=_after(high[:_TEXT_LENGTH]), max_exact=False)
    return bounds


def _after(prefix: str | bytes) -> str | bytes | None:
    """A value above everything that begins with ``prefix``; None when there is none."""
    if isinstance(prefix, bytes):
        kept = prefix.rstrip(b"\xff")
        return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
    kept_text = prefix.rstrip("\U0010ffff")
    if not kept_text:
        return None
    code = ord(kept_text[-1]) + 1
    return kept_text[:-1] + chr(0xE000 if 0xD800 <= code <= 0xDFFF else code)


def decode_bounds(text: str) -> dict[str, Bounds]:
    """What :func:`encode_bounds` wrote, by column; Corrupt when the text is something else."""
    if not text:
        return {}
    try:
        return {
            name: Bounds(nulls, _from_json(low), _from_json(high), bool(exact & 1), bool(exact & 2), nans)
            for name, (nulls, low, high, exact, nans) in json.loads(text).items()
        }
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise Corrupt(f"the statistics of a data file in the log cannot be read: {error}") from error


def _from_json(value: Any) -> Value | None:
    if not isinstance(value, dict):
        return value  # type: ignore[no-any-return]  # JSON's own None, bool, int and str
    ((kind, text),) = value.items()
    if kind == "f":
        return float.fromhex(text)
    return Decimal(text) if kind == "d" else bytes.fromhex(text)
