"""The indexes over tables of a lake, as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from ..lake.snapshot import OwnedTable
from .table_definition import Definition

if TYPE_CHECKING:
    from ..lake.snapshot import Snapshot
    from ..lake.table_index import TableIndex

__all__ = ["listed"]

SCHEMA: Final = pa.schema(
    {
        "table": pa.string(),
        "column": pa.string(),
        "metric": pa.string(),
        "dim": pa.int64(),
        "tenant": pa.string(),
        "attributes": pa.list_(pa.string()),
        "graph": pa.bool_(),
        "bits": pa.int64(),
        "segments": pa.int64(),
        "num_bytes": pa.int64(),
        "rows": pa.int64(),
        "indexed_rows": pa.int64(),
        "unsearchable_rows": pa.int64(),
    }
)


def listed(snapshot: Snapshot) -> pa.Table:
    """One row an index, by table and column; nothing is read but the snapshot."""
    tables = [snapshot.tables[table_id] for _, table_id in sorted(snapshot.names.items())]
    rows = [
        _row(table, index)
        for table in tables
        if isinstance(table, OwnedTable)
        for index in sorted(table.indexes.values(), key=lambda index: index.column)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def _row(table: OwnedTable, index: TableIndex) -> dict[str, Any]:
    definition = Definition.decoded(index.definition)
    indexed: dict[str, int] = {}
    for segment in index.segments:
        indexed |= dict(zip(segment.files, segment.rows, strict=True))
    indexed = {file_id: rows for file_id, rows in indexed.items() if file_id in table.files}
    stored = sum(table.files[file_id].num_rows for file_id in indexed)
    return {
        "table": table.name,
        "column": index.column,
        "metric": definition.metric.name.lower(),
        "dim": definition.dim,
        "tenant": definition.tenant,
        "attributes": list(definition.attributes),
        "graph": definition.graph,
        "bits": definition.bits,
        "segments": len(index.segments),
        "num_bytes": sum(segment.num_bytes for segment in index.segments),
        "rows": sum(file.num_rows for file in table.files.values()),
        "indexed_rows": sum(indexed.values()),
        "unsearchable_rows": stored - sum(indexed.values()),
    }
