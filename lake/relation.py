"""A table as the text of a SELECT that DuckDB runs over its files.

Files follow each other as they do in the table, and DuckDB keeps that order. Files that were written under the same
schema are one ``read_parquet``, so that DuckDB prunes files and row groups and pushes filters into the scan; where a
file's schema differs from the table's, columns are cast or NULL in the SELECT around it.

Deleted rows leave by a bit string made from the deletion file and asked by ``file_row_number``. Why not an anti-join:
it loses the order of the rows (DuckDB 2.0: ANTI JOIN, NOT IN and LEFT JOIN all do), and is no quicker.

Column names: DuckDB folds ASCII case, so of two columns that differ in case only the second is called ``A_1``, as
DuckDB itself does; a column without a name is called ``C`` and its place. All others keep theirs.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from .derived import DerivedFragment
from .derived_relation import derived_text
from .errors import InvalidSQL
from .schema import decode_schema
from .sql_text import cast_to, column_names, null_of, path_literal, quote, sql_type, text_literal
from .table import owned_fragment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import fsspec

    from .attached import Attachment, Constant
    from .snapshot import OwnedTable
    from .store import Store

__all__ = [
    "Relation",
    "SourceFile",
    "attached_relation",
    "owned_relation",
    "select_text",
]

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN_PARTITION = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Relation:
    """What DuckDB needs to read a table: the SELECT, and the fsspec file system of its paths, None for local ones.

    ``tables`` are Arrow tables that the SELECT names: positions of rows that are rebuilt from other tables.
    """

    text: str
    filesystem: fsspec.AbstractFileSystem | None = None
    tables: Mapping[str, pa.Table] = field(default_factory=dict)

    @property
    def held_bytes(self) -> int:
        """Memory of the tables."""
        return sum(table.nbytes for table in self.tables.values())


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A Parquet file as DuckDB finds it: the schema it was written under, what its folders say, what is deleted.

    ``deletions`` is the path of the Parquet file whose column ``pos`` holds the deleted positions, "" when none are.
    """

    path: str
    schema: pa.Schema
    num_rows: int
    constants: Mapping[str, Constant] = field(default_factory=dict)
    deletions: str = ""


def owned_relation(store: Store, table: OwnedTable) -> Relation:
    """The relation of a table whose files are in the lake's store."""
    schemas = [decode_schema(text) for text in table.schemas]
    stored: list[SourceFile | str] = []
    tables: dict[str, pa.Table] = {}
    for file in table.files.values():
        if file.recipe is not None:
            fragment = owned_fragment(store, file, schemas[file.schema_id], schemas[-1], table.name)
            assert isinstance(fragment, DerivedFragment), "a recipe makes a derived fragment"
            made = derived_text(fragment, column_names(schemas[-1]))
            stored.append(made.text)
            tables |= made.tables
            continue
        stored.append(
            SourceFile(
                store.full_path(file.path),
                schemas[file.schema_id],
                file.num_rows,
                deletions=store.full_path(file.deletion.path) if file.deletion and file.deletion.rows else "",
            )
        )
    return Relation(select_text(schemas[-1], stored), store.fsspec, tables)


def attached_relation(attachment: Attachment) -> Relation:
    """The relation of an attached location."""
    filesystem = attachment.listing.place.filesystem
    text = _hive_text(attachment)
    if not text:
        files = [
            SourceFile(footer.state.path, footer.schema, footer.num_rows, constants)
            for footer, constants in zip(attachment.footers, attachment.constants, strict=True)
        ]
        text = select_text(attachment.schema, files)
    return Relation(text, filesystem)


def select_text(schema: pa.Schema, files: Sequence[SourceFile | str]) -> str:
    """The SELECT of a table of that schema over these files; typed and without rows when there are none.

    A text among the files is a SELECT of its own that stands for one.

    Raises InvalidSQL for a table without columns, which SQL has not.
    """
    if not len(schema):
        raise InvalidSQL("the table has no columns, and SQL has no such tables. Read it with to_arrow().")
    names = column_names(schema)
    if not files:
        columns = ", ".join(f"{null_of(f.type)} AS {quote(n)}" for f, n in zip(schema, names, strict=True))
        return f"SELECT {columns} WHERE false"
    whole: dict[int, bool] = {}
    runs: list[list[SourceFile] | str] = []
    for file in files:
        if isinstance(file, str):
            runs.append(f"({file})")
            continue
        if id(file.schema) not in whole:
            whole[id(file.schema)] = file.schema.equals(schema)
        last = runs[-1] if runs else ""
        if not isinstance(last, str) and _one_scan(last[-1], file):
            last.append(file)
        else:
            runs.append([file])
    return " UNION ALL ".join(
        run if isinstance(run, str) else _scan(run, schema, names, whole[id(run[0].schema)]) for run in runs
    )


def _one_scan(a: SourceFile, b: SourceFile) -> bool:
    if a.deletions or b.deletions or a.constants != b.constants:
        return False
    return a.schema is b.schema or bool(a.schema.equals(b.schema))


def _scan(run: Sequence[SourceFile], schema: pa.Schema, names: Sequence[str], same: bool) -> str:
    """The SELECT over files of one schema. ``same`` tells that it is the table's own."""
    first = run[0]
    source = f"read_parquet([{', '.join(path_literal(file.path) for file in run)}], hive_partitioning=false)"
    if same and not first.deletions and list(names) == schema.names:
        return f"SELECT * FROM {source}"
    if same and not first.deletions:
        return f"SELECT * FROM {source} AS t({', '.join(map(quote, names))})"
    places = {name: i for i, name in enumerate(first.schema.names)}
    columns = []
    for one, name in zip(schema, names, strict=True):
        place = places.get(one.name)
        if place is not None:
            value = f"c{place}" if first.schema.field(place).type.equals(one.type) else cast_to(f"c{place}", one.type)
        elif one.name in first.constants:
            value = _constant(first.constants[one.name], one.type)
        else:
            value = null_of(one.type)
        columns.append(f"{value} AS {quote(name)}")
    # By place, not by name: a column may be called file_row_number, or differ from another in case only.
    aliases = ", ".join(f"c{i}" for i in range(len(first.schema)))
    text = f"SELECT {', '.join(columns)} FROM {source}" + (f" AS t({aliases})" if aliases else "")
    if first.deletions:
        text += f" WHERE {_alive(first)}"
    return text


def _alive(file: SourceFile) -> str:
    deleted = f"read_parquet([{path_literal(file.deletions)}], hive_partitioning=false)"
    bits = f"(SELECT bitstring_agg(pos::BIGINT, 0::BIGINT, {file.num_rows - 1}::BIGINT) FROM {deleted})"
    return f"get_bit({bits}, file_row_number::INTEGER) = 0"


def _hive_text(attachment: Attachment) -> str:
    """A Hive-partitioned folder as one scan whose partitions DuckDB prunes itself, "" when it would read it otherwise.

    DuckDB takes every ``key=value`` of the whole path, decodes no escapes and folds case: only plain names will do.
    """
    listing, schema = attachment.listing, attachment.schema
    keys = list(attachment.constants[0]) if attachment.constants else []
    own = attachment.footers[0].schema
    names = column_names(schema)
    if (
        not keys
        or "=" in listing.root
        or names != schema.names
        or not all(_PLAIN_KEY.fullmatch(key) for key in keys)
        or not all(footer.schema.equals(own) for footer in attachment.footers)
        or not schema.equals(pa.schema([*own, *(schema.field(key) for key in keys)]))
    ):
        return ""
    for state in listing.files:
        folders = state.path[len(listing.root) :].strip("/").split("/")[:-1]
        if len(folders) != len(keys) or not all(_PLAIN_PARTITION.fullmatch(folder) for folder in folders):
            return ""
    types = ", ".join(f"{text_literal(key)}: {sql_type(schema.field(key).type)}" for key in keys)
    paths = ", ".join(path_literal(state.path) for state in listing.files)
    columns = ", ".join(map(quote, names))
    return f"SELECT {columns} FROM read_parquet([{paths}], hive_partitioning=true, hive_types={{{types}}})"


def _constant(value: Constant, kind: pa.DataType) -> str:
    if value is None:
        return null_of(kind)
    text = value.isoformat() if isinstance(value, dt.date) else str(value)
    return cast_to(text_literal(text), kind)
