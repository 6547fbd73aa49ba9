"""Data as callers hand it in, as one stream of record batches."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from .errors import InvalidInput
from .schema import check_schema

__all__ = ["open_reader"]


def open_reader(data: Any) -> pa.RecordBatchReader:
    """A reader over ``data``: an Arrow table, batch or reader, a pandas or polars frame, a DuckDB relation, anything
    with the Arrow C stream or array, or a dict of columns. A reader is used up. Raises InvalidInput for anything else
    and for a schema that a table cannot have, before a row is read.
    """
    try:
        reader = _reader(data)
    except (pa.ArrowException, TypeError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"the data of type {type(data).__name__} cannot be read as Arrow: {error}") from error
    check_schema(reader.schema)
    return reader


def _reader(data: Any) -> pa.RecordBatchReader:
    if isinstance(data, pa.RecordBatchReader):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.RecordBatchReader.from_batches(data.schema, [data])
    if isinstance(data, pa.Table):
        return data.to_reader()
    if isinstance(data, dict):
        return pa.table(data).to_reader()
    module = type(data).__module__.partition(".")[0]
    if module == "pandas" and hasattr(data, "columns"):
        return pa.Table.from_pandas(data).to_reader()
    if hasattr(data, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(data)
    if hasattr(data, "__arrow_c_array__"):
        batch = pa.record_batch(data)
        return pa.RecordBatchReader.from_batches(batch.schema, [batch])
    if hasattr(data, "to_reader"):
        return data.to_reader()
    mend = "call collect() on it first" if hasattr(data, "collect") else "make it an Arrow table first"
    raise InvalidInput(
        f"data has type {module}.{type(data).__name__}, expected an Arrow table or reader, a pandas or polars frame, "
        f"a DuckDB relation, or anything with the Arrow C stream: {mend}"
    )
