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
from .sql_text import cast_to, null_of, path_literal, quote

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .derived import DerivedFragment
    from .fragment import Fragment

__all__ = ["DerivedText", "derived_text"]

_KNOWN_EXTENSIONS: Final = ("arrow.uuid", "arrow.json")


_SPARSE: Final = 16


@dataclass
class DerivedText:
    """The SELECT of one rebuilt file; ``tables`` are the Arrow tables that it names."""

    text: str
    tables: dict[str, pa.Table] = field(default_factory=dict)


def derived_text(fragment: DerivedFragment, names: Sequence[str]) -> DerivedText:
    """The SELECT of a rebuilt file under these column names, in the types of ``fragment.schema``.

    Reads the recipe and the footers of its sources. Raises what that raises, naming the table.
    """
    with fragment.naming():
        return _text(fragment, names)


def _text(fragment: DerivedFragment, names: Sequence[str]) -> DerivedText:
    stem = "lakelet " + hashlib.sha256(fragment.identity.encode() + fragment.path.encode()).hexdigest()[:24]
    files = [*fragment.sources(), *([fragment.residual] if fragment.residual else [])]
    every = [*files, *([fragment.side] if fragment.side else [])]
    if not all(_same_cast(file, fragment) for file in every):
        values = [cast_to(f"c{i}", one.type) for i, one in enumerate(fragment.schema)]
        aliases = ", ".join(f"c{i}" for i in range(len(fragment.schema)))
        text = f"SELECT {_named(values, names)} FROM {quote(stem)} AS t({aliases})"
        return DerivedText(text, {stem: _handed_over(fragment.read())})
    origins, stored = _alive(fragment, len(files) - 1)
    if not len(origins):
        nulls = [null_of(one.type) for one in fragment.schema]
        return DerivedText(f"SELECT {_named(nulls, names)} WHERE false")
    in_order = origins.in_order
    order = np.arange(len(origins)) if in_order else np.argsort(origins.source, kind="stable")
    sources = origins.source[order]
    cuts = np.flatnonzero(np.diff(sources)) + 1
    runs = [
        _Run(files[int(sources[start])], origins.row[places], stored[places])
        for start, places in zip(np.r_[0, cuts].tolist(), np.split(order, cuts), strict=True)
    ]
    if in_order and fragment.side is None and not _is_sparse(runs):
        return _streamed(runs, fragment, stem, names)
    return _put_in_order(runs, fragment, stem, names)


@dataclass(frozen=True, slots=True)
class _Run:
    """Rows of one file, and which stored rows of the rebuilt file they are."""

    file: Fragment
    rows: NDArray[np.int64]
    stored: NDArray[np.int64]


def _is_sparse(runs: Sequence[_Run]) -> bool:
    """Whether so few rows are picked that joining and sorting them is quicker than asking a bit of every row."""
    rows = sum(len(run.rows) for run in runs)
    return rows * _SPARSE < sum(int(run.rows[-1] - run.rows[0]) + 1 for run in runs)


def _streamed(runs: Sequence[_Run], fragment: DerivedFragment, stem: str, names: Sequence[str]) -> DerivedText:
    """Runs that follow each other as their rows do in the files."""
    made = DerivedText("")
    branches = []
    for at, run in enumerate(runs):
        values = _named(_values(run.file, fragment), names)
        branches.append(f"SELECT {values} FROM {_scan(run.file)} WHERE {_picked(run.rows, made, stem, at)}")
    made.text = " UNION ALL ".join(branches)
    return made


def _put_in_order(runs: Sequence[_Run], fragment: DerivedFragment, stem: str, names: Sequence[str]) -> DerivedText:
    """Rows joined to their places, columns of the side file joined by place, and all sorted by it."""
    made = DerivedText("")
    branches = []
    for at, run in enumerate(runs):
        positions = f"{stem} {at}"
        made.tables[positions] = pa.table({"row": run.rows, "place": run.stored})
        listed = ", ".join(_values(run.file, fragment))
        branches.append(
            f"SELECT p.place, {listed} FROM {_scan(run.file)} JOIN {quote(positions)} AS p ON t.file_row_number = p.row"
        )
    aliases = [f"v{i}" for i in range(len(names))]  # a column may be called place
    source = f"({' UNION ALL '.join(branches)}) AS t(place, {', '.join(aliases)})"
    values = [f"t.{alias}" for alias in aliases]
    side = fragment.side
    if side is not None:
        source += f" JOIN {_scan(side, 's')} ON s.file_row_number = t.place"
        for at, own in enumerate(_values(side, fragment, "s.")):
            if side.file_schema.get_field_index(fragment.schema.names[at]) >= 0:
                values[at] = own
    made.text = f"SELECT {_named(values, names)} FROM {source} ORDER BY t.place"
    return made


def _alive(fragment: DerivedFragment, residual: int) -> tuple[Origins, NDArray[np.int64]]:
    """The origins of the live rows, those of the residual file under its number, and which stored rows they are."""
    parts = [fragment.origins(part) for part in range(len(fragment.row_group_rows))]
    source = np.concatenate([part.source for part in parts] or [np.empty(0, np.int32)])
    row = np.concatenate([part.row for part in parts] or [np.empty(0, np.int64)])
    stored = np.arange(len(row), dtype=np.int64)
    source = np.where(source < 0, residual, source).astype(np.int32)
    if fragment.num_deleted_rows:
        stored = np.delete(stored, fragment.deleted())
    return Origins(source[stored], row[stored]), stored


def _scan(file: Fragment, alias: str = "t") -> str:
    columns = ", ".join(f"c{i}" for i in range(len(file.file_schema)))
    return f"read_parquet([{path_literal(file.path)}], hive_partitioning=false) AS {alias}({columns})"


def _named(values: Sequence[str], names: Sequence[str]) -> str:
    return ", ".join(f"{value} AS {quote(name)}" for value, name in zip(values, names, strict=True))


def _values(file: Fragment, fragment: DerivedFragment, prefix: str = "") -> list[str]:
    """The values of our columns as expressions over one file, by place: names may differ in case only."""
    values = []
    for one in fragment.schema:
        place = _place(file, fragment, one.name)
        if place < 0:
            value = null_of(one.type)
        elif _is_stored_as(file.file_schema.field(place).type, one.type):
            value = f"{prefix}c{place}"
        else:
            value = cast_to(f"{prefix}c{place}", one.type)
        values.append(value)
    return values


def _place(file: Fragment, fragment: DerivedFragment, name: str) -> int:
    """Where a file has a column of ours, -1 for nowhere. Rows and columns that are kept apart have our own names."""
    own = name if file is fragment.residual or file is fragment.side else fragment.directions.columns.get(name)
    return -1 if own is None else int(file.file_schema.get_field_index(own))


def _picked(rows: NDArray[np.int64], made: DerivedText, stem: str, at: int) -> str:
    low, high = int(rows[0]), int(rows[-1])
    between = f"file_row_number BETWEEN {low} AND {high}"
    if high - low + 1 == len(rows):
        return between
    bits = np.zeros(high - low + 1, np.bool_)
    bits[rows - low] = True
    name = f"{stem} {at}"
    made.tables[name] = pa.table({"bits": pa.array([np.packbits(bits).tobytes()], pa.large_binary())})
    string = f"(SELECT bits::BIT FROM {quote(name)})"
    return f"{between} AND get_bit({string}, (file_row_number - {low})::INTEGER) = 1"


def _same_cast(file: Fragment, fragment: DerivedFragment) -> bool:
    """Whether DuckDB's casts of this file's columns give what Arrow's do."""
    places = [(_place(file, fragment, one.name), one.type) for one in fragment.schema]
    return all(place < 0 or _exact(file.file_schema.field(place).type, kind) for place, kind in places)


def _is_stored_as(a: pa.DataType, b: pa.DataType) -> bool:
    """Whether DuckDB finds in a file's column of type ``a`` what it would find in one of type ``b``."""
    return bool(a.equals(b) or _plain(a, exact=True).equals(_plain(b, exact=True)))


def _exact(a: pa.DataType, b: pa.DataType) -> bool:
    types = pa.types
    if _is_stored_as(a, b):
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


def _plain(kind: pa.DataType, *, exact: bool = False) -> pa.DataType:
    """The type without what DuckDB does not see. With ``exact`` types stay of which it sees less than their values:
    durations, which are numbers to it, and decimals of more than 38 digits, which it rounds.
    """
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return kind if kind.extension_name in _KNOWN_EXTENSIONS else _plain(kind.storage_type, exact=exact)
    if types.is_dictionary(kind):
        return _plain(kind.value_type, exact=exact)
    if types.is_duration(kind):
        return kind if exact else pa.int64()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_decimal(kind) and kind.precision <= 38:
        return pa.decimal128(kind.precision, kind.scale)
    if types.is_decimal(kind):
        return kind if exact else pa.float64()
    if _is_text(kind):
        return pa.large_string()
    return map_children(stored_type(kind), lambda child: _plain(child, exact=exact))
