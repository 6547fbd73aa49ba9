"""A rebuilt file as the text of a SELECT over its sources, with the positions as tables beside it.

Rows that keep the order of their sources are picked by ``file_row_number``, by range or by a bit string, so that DuckDB
streams, prunes row groups and pushes filters down as in any other scan. All others are joined to their positions and
put in order. Where a column changes into a type that DuckDB may round otherwise than Arrow, the rows themselves are
handed over.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from .conversion import convert, map_children, stored_type
from .recipe import Origins

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from .derived import DerivedFragment
    from .fragment import Fragment

__all__ = ["DerivedText", "Words", "derived_text"]

_KNOWN_EXTENSIONS: Final = ("arrow.uuid", "arrow.json")


@dataclass(frozen=True)
class Words:
    """How SQL is written: of paths, names, casts and NULLs (:mod:`.relation`)."""

    path: Callable[[str], str]
    quote: Callable[[str], str]
    cast: Callable[[str, pa.DataType], str]
    null: Callable[[pa.DataType], str]


@dataclass
class DerivedText:
    """The SELECT of one rebuilt file; ``tables`` are the Arrow tables that it names."""

    text: str
    tables: dict[str, pa.Table] = field(default_factory=dict)


def derived_text(fragment: DerivedFragment, names: Sequence[str], words: Words) -> DerivedText:
    """The SELECT of a rebuilt file under these column names, in the types of ``fragment.schema``.

    Reads the recipe and the footers of its sources. Raises what that raises, naming the table.
    """
    with fragment.naming():
        return _text(fragment, names, words)


def _text(fragment: DerivedFragment, names: Sequence[str], words: Words) -> DerivedText:
    files, origins = _alive(fragment)
    stem = "lakelet " + hashlib.sha256(fragment.identity.encode() + fragment.path.encode()).hexdigest()[:24]
    if not all(_same_cast(file, fragment, number, len(files)) for number, file in enumerate(files)):
        values = [words.cast(f"c{i}", one.type) for i, one in enumerate(fragment.schema)]
        aliases = ", ".join(f"c{i}" for i in range(len(fragment.schema)))
        text = f"SELECT {_named(values, names, words)} FROM {words.quote(stem)} AS t({aliases})"
        return DerivedText(text, {stem: _handed_over(fragment.read())})
    if not len(origins):
        nulls = [words.null(one.type) for one in fragment.schema]
        return DerivedText(f"SELECT {_named(nulls, names, words)} WHERE false")
    made = DerivedText("")
    step = np.diff(origins.source.astype(np.int64))
    in_order = bool(((step > 0) | ((step == 0) & (np.diff(origins.row) > 0))).all())
    branches = []
    order = np.arange(len(origins)) if in_order else np.argsort(origins.source, kind="stable")
    sources = origins.source[order]
    edges = np.flatnonzero(np.diff(sources)) + 1
    for at, place in enumerate(np.split(order, edges)):
        number = int(sources[np.r_[0, edges][at]])
        residual = number == len(files) - 1 and bool(fragment.residual)
        values = _values(files[number], fragment, residual, words)
        scan = _scan(files[number], words)
        rows = origins.row[place]
        if in_order:
            picked = _picked(rows, made, stem, at, words)
            branches.append(f"SELECT {_named(values, names, words)} FROM {scan} WHERE {picked}")
        else:
            positions = f"{stem} {at}"
            made.tables[positions] = pa.table({"row": rows, "place": place})
            branches.append(
                f"SELECT p.place, {', '.join(values)} FROM {scan} JOIN {words.quote(positions)} AS p "
                "ON t.file_row_number = p.row"
            )
    if in_order:
        made.text = " UNION ALL ".join(branches)
    else:
        aliases = [f"v{i}" for i in range(len(names))]  # a column may be called place
        inner = f"({' UNION ALL '.join(branches)}) AS t(place, {', '.join(aliases)})"
        made.text = f"SELECT {_named(aliases, names, words)} FROM {inner} ORDER BY t.place"
    return made


def _alive(fragment: DerivedFragment) -> tuple[list[Fragment], Origins]:
    """The files that rows come from, the residual one last, and the origins of the live rows among them."""
    files = list(fragment.sources())
    parts = [fragment.origins(part) for part in range(len(fragment.row_group_rows))]
    source = np.concatenate([part.source for part in parts] or [np.empty(0, np.int32)])
    row = np.concatenate([part.row for part in parts] or [np.empty(0, np.int64)])
    if fragment.residual is not None:
        source = np.where(source < 0, len(files), source).astype(np.int32)
        files.append(fragment.residual)
    if fragment.num_deleted_rows:
        alive = np.ones(len(row), np.bool_)
        alive[fragment.deleted()] = False
        source, row = source[alive], row[alive]
    return files, Origins(source, row)


def _scan(file: Fragment, words: Words) -> str:
    aliases = ", ".join(f"c{i}" for i in range(len(file.file_schema)))
    return f"read_parquet([{words.path(file.path)}], hive_partitioning=false) AS t({aliases})"


def _named(values: Sequence[str], names: Sequence[str], words: Words) -> str:
    return ", ".join(f"{value} AS {words.quote(name)}" for value, name in zip(values, names, strict=True))


def _values(file: Fragment, fragment: DerivedFragment, residual: bool, words: Words) -> list[str]:
    """The values of our columns as expressions over one file, by place: names may differ in case only."""
    values = []
    of_source: Mapping[str, str] = fragment.directions.columns
    for one in fragment.schema:
        own = one.name if residual else of_source.get(one.name)
        place = -1 if own is None else file.file_schema.get_field_index(own)
        if place < 0:
            value = words.null(one.type)
        elif file.file_schema.field(place).type.equals(one.type):
            value = f"c{place}"
        else:
            value = words.cast(f"c{place}", one.type)
        values.append(value)
    return values


def _picked(rows: NDArray[np.int64], made: DerivedText, stem: str, at: int, words: Words) -> str:
    low, high = int(rows[0]), int(rows[-1])
    between = f"file_row_number BETWEEN {low} AND {high}"
    if high - low + 1 == len(rows):
        return between
    bits = np.zeros(high - low + 1, np.bool_)
    bits[rows - low] = True
    name = f"{stem} {at}"
    made.tables[name] = pa.table({"bits": pa.array([np.packbits(bits).tobytes()], pa.large_binary())})
    string = f"(SELECT bits::BIT FROM {words.quote(name)})"
    return f"{between} AND get_bit({string}, (file_row_number - {low})::INTEGER) = 1"


def _same_cast(file: Fragment, fragment: DerivedFragment, number: int, count: int) -> bool:
    """Whether DuckDB's casts of this file's columns give what Arrow's do."""
    residual = fragment.residual is not None and number == count - 1
    for one in fragment.schema:
        own = one.name if residual else fragment.directions.columns.get(one.name)
        place = -1 if own is None else file.file_schema.get_field_index(own)
        if place >= 0 and not _exact(file.file_schema.field(place).type, one.type):
            return False
    return True


def _exact(a: pa.DataType, b: pa.DataType) -> bool:
    types = pa.types
    if a.equals(b):
        return True
    if types.is_dictionary(a) or types.is_dictionary(b):
        return _exact(*(kind.value_type if types.is_dictionary(kind) else kind for kind in (a, b)))
    if types.is_duration(a) or types.is_duration(b):
        return False  # DuckDB reads their numbers, whatever the unit
    for family in (_is_text, types.is_temporal, lambda kind: types.is_integer(kind) or types.is_floating(kind)):
        if family(a) and family(b):
            return True
    return False


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


# --- rows handed over ----------------------------------------------------------------------------------------------


def _handed_over(table: pa.Table) -> pa.Table:
    """The rows in types that DuckDB takes from Arrow as it takes those of the table from Parquet, a cast apart."""
    kinds = [_plain(kind) for kind in table.schema.types]
    columns = [convert(column, kind) for column, kind in zip(table.columns, kinds, strict=True)]
    return pa.Table.from_arrays(columns, names=[f"c{i}" for i in range(len(columns))])


def _plain(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return kind if kind.extension_name in _KNOWN_EXTENSIONS else _plain(kind.storage_type)
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if types.is_duration(kind):
        return pa.int64()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale) if kind.precision <= 38 else pa.float64()
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        return pa.large_list(kind.value_field.with_type(_plain(kind.value_type)))
    return map_children(stored_type(kind), _plain)
