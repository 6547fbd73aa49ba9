"""A table's schema: which Arrow schemas a table may have, how they are kept as text, and how they may grow.

Column names are matched exactly, byte by byte, everywhere in the lake; only ``where`` and SQL, which are DuckDB's,
fold case. A table keeps every schema it ever had; files keep the one they were written under and are read in the one
in force (:mod:`.conversion`).
"""

from __future__ import annotations

import base64
import binascii
from collections import Counter

import pyarrow as pa

from .conversion import list_like
from .errors import Corrupt, InvalidInput
from .limits import COLUMNS, NAME_BYTES

__all__ = ["check_schema", "check_table_name", "common_type", "decode_schema", "encode_schema", "evolve", "same_schema"]


def encode_schema(schema: pa.Schema) -> str:
    """The schema as text for the log: base64 of its Arrow IPC message, metadata included."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def decode_schema(text: str) -> pa.Schema:
    """The schema that :func:`encode_schema` wrote; Corrupt when the text is not one."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text, validate=True)))
    except (binascii.Error, pa.ArrowException, ValueError, OSError) as error:
        raise Corrupt(f"a table's schema in the log is not an Arrow schema: {error}") from error


def same_schema(a: pa.Schema, b: pa.Schema) -> bool:
    """Whether two schemas are equal to the last bit of metadata."""
    return bool(a.equals(b, check_metadata=True))


def check_table_name(name: str) -> None:
    """Refuse with InvalidInput what cannot name a table or a view: no text, too long, control characters."""
    if not isinstance(name, str):
        raise InvalidInput(f"a table's name must be a str, found {type(name).__name__}")
    if not name or name != name.strip():
        raise InvalidInput(f"a table's name must not be empty nor begin or end with white space, found {name!r}")
    if any(ord(char) < 32 or ord(char) == 127 for char in name):
        raise InvalidInput(f"a table's name must not hold control characters, found {name!r}")
    try:
        num_bytes = len(name.encode())
    except UnicodeEncodeError as error:
        raise InvalidInput(f"a table's name must be valid Unicode, found {name!r}") from error
    if num_bytes > NAME_BYTES:
        raise InvalidInput(f"a table's name has at most {NAME_BYTES} bytes in UTF-8, {name[:40]!r}… has {num_bytes}")


def check_schema(schema: pa.Schema) -> None:
    """Refuse with InvalidInput a schema that a table cannot have.

    That is: two columns of one name, more than ``limits.COLUMNS`` columns, or a type that Parquet cannot give back.
    """
    if len(schema) > COLUMNS:
        raise InvalidInput(f"a table has at most {COLUMNS:,} columns, found {len(schema):,}: split the table")
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise InvalidInput(f"columns must have different names, found more than one {twice[0]!r}: rename them")
    for field in schema:
        found = _unstorable(field.type)
        if found:
            raise InvalidInput(f"column {field.name!r} has type {field.type}: {found}")


def _unstorable(kind: pa.DataType) -> str:
    """Why Parquet cannot hold the type, with the mend; "" when it can."""
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _unstorable(kind.storage_type)
    if types.is_union(kind) or types.is_run_end_encoded(kind) or kind.id == pa.lib.Type_INTERVAL_MONTH_DAY_NANO:
        return "Parquet has no such type; cast it (union to a struct, run-end to plain, interval to a duration)"
    if types.is_decimal(kind) and not 0 <= kind.scale <= kind.precision:
        return "Parquet needs a decimal's scale between 0 and its precision; cast it"
    if types.is_fixed_size_binary(kind) and kind.byte_width == 0:
        return "Parquet has no fixed-size binary of zero bytes; cast it to binary"
    if types.is_fixed_size_list(kind) and kind.list_size == 0:
        return "Parquet has no list of fixed size zero; cast it to a list"
    if types.is_struct(kind):
        if kind.num_fields == 0:
            return "Parquet has no struct without fields; add a field or drop the column"
        twice = [name for name, count in Counter(field.name for field in kind).items() if count > 1]
        if twice:
            return f"its struct has more than one field {twice[0]!r}; rename them"
    if types.is_dictionary(kind):
        if types.is_nested(kind.value_type):
            return "Parquet has no dictionary of nested values; decode it"
        return _unstorable(kind.value_type)
    if types.is_nested(kind):
        return next(filter(None, (_unstorable(kind.field(i).type) for i in range(kind.num_fields))), "")
    return ""


# --- growth --------------------------------------------------------------------------------------------------------


def evolve(old: pa.Schema, new: pa.Schema) -> pa.Schema:
    """The schema of a table of schema ``old`` after rows of schema ``new`` were appended.

    Columns of ``old`` keep their place, nullability and metadata, and widen where ``new`` holds wider numbers;
    columns that only ``new`` has follow, and must be nullable. Columns that ``new`` lacks must be nullable, and read
    as NULL. Returns ``old`` itself when nothing changes; raises InvalidInput that names column, found and expected.
    """
    check_schema(new)
    fields = []
    for field in old:
        index = new.get_field_index(field.name)
        if index < 0:
            if not field.nullable:
                raise InvalidInput(
                    f"the data lacks column {field.name!r}, which is declared not null as {field.type}: "
                    f"add the column; the data has {_listed(new.names)}"
                )
            fields.append(field)
            continue
        kind = common_type(field.type, new.field(index).type)
        if kind is None:
            raise InvalidInput(
                f"column {field.name!r} of the data has type {new.field(index).type}, expected {field.type} "
                "or a number that widens to or from it without loss: cast the column"
            )
        fields.append(field if kind.equals(field.type, check_metadata=True) else field.with_type(kind))
    for field in new:
        if old.get_field_index(field.name) >= 0:
            continue
        if not field.nullable:
            raise InvalidInput(
                f"new column {field.name!r} is declared not null, but the rows that are there have no value for it: "
                "declare it nullable"
            )
        fields.append(field)
    grown = pa.schema(fields, metadata=old.metadata)
    if same_schema(grown, old):
        return old
    check_schema(grown)
    return grown


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:20])
    return shown + (f" and {len(names) - 20:,} more" if len(names) > 20 else "") if names else "no columns"


def common_type(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    """The type that holds every value of both without loss, or None when there is none.

    The other physical form of one and the same value (string, large_string, string_view, dictionary; the kinds of
    list) keeps the form of ``old``. Numbers widen: integers to wider integers, floats to wider floats, integers to
    floats only where each integer has a float of its own (int8 to float16, int16 to float32, int32 to float64),
    decimals to more digits. Times, zones and everything else must be equal. Null takes any type.
    """
    types = pa.types
    if old.equals(new) or types.is_null(new):
        return old
    if types.is_null(old):
        return new
    if types.is_dictionary(old) or types.is_dictionary(new):
        return _common_dictionary(old, new)
    for family in (_is_text, _is_bytes):
        if family(old) and family(new):
            return old
    if _is_list(old) and _is_list(new):
        value = common_type(old.value_type, new.value_type)
        return None if value is None else list_like(old, old.value_field.with_type(value))
    if types.is_struct(old) and types.is_struct(new):
        return _common_struct(old, new)
    if types.is_map(old) and types.is_map(new):
        key, item = common_type(old.key_type, new.key_type), common_type(old.item_type, new.item_type)
        if key is None or item is None:
            return None
        return pa.map_(old.key_field.with_type(key), old.item_field.with_type(item), keys_sorted=old.keys_sorted)
    if types.is_decimal(old) and types.is_decimal(new):
        return _common_decimal(old, new)
    return _common_number(old, new)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    return bool(types.is_list(kind) or types.is_large_list(kind) or views)


def _common_dictionary(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    old_value = old.value_type if pa.types.is_dictionary(old) else old
    new_value = new.value_type if pa.types.is_dictionary(new) else new
    value = common_type(old_value, new_value)
    if value is None or not pa.types.is_dictionary(old):
        return value
    if not pa.types.is_dictionary(new):
        return pa.dictionary(old.index_type, value, old.ordered)
    index = common_type(old.index_type, new.index_type)
    return None if index is None or old.ordered != new.ordered else pa.dictionary(index, value, old.ordered)


def _common_struct(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    if sorted(field.name for field in old) != sorted(field.name for field in new):
        return None
    fields = []
    for field in old:
        kind = common_type(field.type, new.field(field.name).type)
        if kind is None:
            return None
        fields.append(field.with_type(kind))
    return pa.struct(fields)


def _common_decimal(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    scale = max(old.scale, new.scale)
    precision = scale + max(old.precision - old.scale, new.precision - new.scale)
    if precision > 76:
        return None
    width = max(old.bit_width, new.bit_width)
    make = {32: (9, pa.decimal32), 64: (18, pa.decimal64), 128: (38, pa.decimal128), 256: (76, pa.decimal256)}
    for bits in (32, 64, 128, 256):
        digits, of = make[bits]
        if bits >= width and precision <= digits:
            return of(precision, scale)
    return None


_SIGNED = {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}
_FLOATS = {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}
_FLOAT_HOLDS_BITS = {16: 11, 32: 24, 64: 53}


def _common_number(old: pa.DataType, new: pa.DataType) -> pa.DataType | None:
    types = pa.types
    if types.is_floating(old) and types.is_floating(new):
        return old if old.bit_width >= new.bit_width else new
    if types.is_integer(old) and types.is_integer(new):
        if types.is_signed_integer(old) == types.is_signed_integer(new):
            return old if old.bit_width >= new.bit_width else new
        signed, unsigned = (old, new) if types.is_signed_integer(old) else (new, old)
        bits = max(signed.bit_width, 2 * unsigned.bit_width)
        return _SIGNED.get(bits)
    whole, real = (old, new) if types.is_integer(old) else (new, old)
    if types.is_integer(whole) and types.is_floating(real):
        for bits in (16, 32, 64):
            if bits >= real.bit_width and whole.bit_width <= _FLOAT_HOLDS_BITS[bits]:
                return _FLOATS[bits]
    return None
