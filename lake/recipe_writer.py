"""Recipes and residual rows into the store."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from .changes import DataFile, Recipe
from .conversion import keep_rows
from .layout import ParquetLayout, Plan
from .recipe import encode_recipe
from .store import DATA
from .writer import write_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .changes import SourceFile
    from .recipe import Directions, Origins
    from .store import Store

__all__ = ["Beside", "put_recipe", "write_residual", "write_side"]


class _OneFileLayout(ParquetLayout):
    """One file however large, and whatever its order: it promises none."""

    def plan(self, group: pa.Table) -> Plan:
        """As of any file, without the promise."""
        plan = ParquetLayout.plan(self, group)
        return Plan({**plan.arguments, "sorting_columns": None})


_ONE_FILE: Final = _OneFileLayout(file_bytes=2**62)


@dataclass(frozen=True, slots=True)
class Beside:
    """What is kept of a file as it is: path and bytes of its residual rows and of its side columns, "" for none."""

    residual: str = ""
    residual_bytes: int = 0
    side: str = ""
    side_bytes: int = 0


def put_recipe(
    store: Store,
    table_id: str,
    file: DataFile,
    directions: Directions,
    sources: Sequence[SourceFile],
    beside: Beside,
) -> DataFile:
    """Write the recipe that stands for ``file``'s rows: that file with another path, durable, without deletions."""
    data, checksum = encode_recipe(directions)
    path = f"{DATA}{table_id}/{file.file_id}.{uuid.uuid4().hex}.recipe.parquet"
    store.put(path, data)
    recipe = Recipe(checksum, tuple(sources), beside.residual, beside.residual_bytes, beside.side, beside.side_bytes)
    num_bytes = len(data) + beside.residual_bytes + beside.side_bytes
    return DataFile(file.file_id, path, file.num_rows, num_bytes, file.schema_id, file.stats, None, recipe)


def write_residual(
    store: Store,
    table_id: str,
    schema: pa.Schema,
    schema_id: int,
    origins: Sequence[Origins],
    originals: Iterable[pa.Table],
) -> DataFile | None:
    """Write the rows without a source, as they are in ``originals``, the rows of each part; None when all have one."""
    if all((part.source >= 0).all() for part in origins):
        return None

    def batches() -> Iterator[pa.RecordBatch]:
        for part, table in zip(origins, originals, strict=True):
            rows = np.flatnonzero(part.source < 0)
            if rows.size:
                yield from keep_rows(table, pa.array(rows)).to_batches()

    reader = pa.RecordBatchReader.from_batches(schema, batches())
    (file,) = write_files(store, table_id, reader, schema, schema_id, _ONE_FILE)
    return file


def write_side(
    store: Store, table_id: str, schema: pa.Schema, schema_id: int, originals: Iterable[pa.Table]
) -> DataFile | None:
    """Write the columns of ``schema`` of all rows, in order; None when there are none."""
    if not len(schema):
        return None
    batches = (batch for table in originals for batch in table.select(schema.names).to_batches())
    reader = pa.RecordBatchReader.from_batches(schema, batches)
    (file,) = write_files(store, table_id, reader, schema, schema_id, _ONE_FILE)
    return file
