"""A table as plain DuckDB SQL over its files, usable without lakelet: the text, and the positions that it names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from .errors import InvalidInput, Unavailable
from .relation import owned_relation
from .sql_text import quote, text_literal

if TYPE_CHECKING:
    from .snapshot import OwnedTable
    from .store import Store

__all__ = ["export_view"]


def export_view(store: Store, table: OwnedTable, folder: str | os.PathLike[str]) -> str:
    """Write ``<table>.sql``, a CREATE VIEW over the lake's files, into ``folder``; returns its path.

    Positions of rebuilt rows become Parquet files in the same folder. The view is right as long as the lake keeps this
    version. Raises InvalidInput when the table's name cannot name a file, Unavailable when it cannot be written.
    """
    if "/" in table.name or "\\" in table.name or table.name.startswith("."):
        raise InvalidInput(f"table {table.name!r} cannot name a file: rename it, or export it under a view's name")
    where = os.path.abspath(os.fspath(folder))
    relation = owned_relation(store, table)
    text = relation.text
    try:
        os.makedirs(where, exist_ok=True)
        for number, (name, rows) in enumerate(relation.tables.items()):
            path = os.path.join(where, f"{table.name}.positions-{number}.parquet")
            pq.write_table(rows, path, compression="zstd")
            text = text.replace(quote(name), f"read_parquet([{text_literal(path)}])")
        path = os.path.join(where, f"{table.name}.sql")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"CREATE OR REPLACE VIEW {quote(table.name)} AS\n{text};\n")
    except OSError as error:
        raise Unavailable(f"{where} cannot be written: {error}. Name another folder.") from error
    return path
