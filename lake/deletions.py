"""Deletion files: which rows of one data file are gone.

A Parquet file with one column ``pos``, int64, ascending, delta-packed: rows deleted side by side cost next to nothing.
Each holds all deleted positions of its data file, so that one of them suffices to read; none is ever changed.
"""

from __future__ import annotations

import io
import uuid
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from .changes import DataFile, DeletionFile
from .errors import Corrupt
from .store import DATA

if TYPE_CHECKING:
    from .store import Store

__all__ = ["deleted_positions", "read_deletions", "write_deletions"]

Positions = npt.NDArray[np.int64]

_SCHEMA = pa.schema([pa.field("pos", pa.int64(), nullable=False)])


def write_deletions(store: Store, table_id: str, file: DataFile, positions: Positions) -> DeletionFile:
    """Write the deleted positions of ``file``: ascending int64, each once, all of them. Durable on return."""
    assert positions.size, "a file without deleted rows has no deletion file"
    assert bool((positions[1:] > positions[:-1]).all()), "positions ascend"
    assert positions[0] >= 0, "positions count from 0"
    assert positions[-1] < file.num_rows, "positions lie within the file"
    sink = io.BytesIO()
    pq.write_table(
        pa.table([pa.array(positions)], schema=_SCHEMA),
        sink,
        compression="zstd",
        use_dictionary=False,
        column_encoding={"pos": "DELTA_BINARY_PACKED"},
        write_page_checksum=True,
    )
    path = f"{DATA}{table_id}/{file.file_id}.{uuid.uuid4().hex}.deleted.parquet"
    data = sink.getvalue()
    store.put(path, data)
    return DeletionFile(path, int(positions.size), len(data))


def read_deletions(store: Store, file: DataFile) -> Positions:
    """The deleted positions of ``file``, ascending int64; empty when there are none. Corrupt when not sound."""
    deletion = file.deletion
    if deletion is None:
        return np.empty(0, np.int64)
    positions = deleted_positions(store, deletion)
    if positions.size and positions[-1] >= file.num_rows:
        raise Corrupt(
            f"the deletion file {deletion.path} holds position {positions[-1]:,}; expected ones below "
            f"{file.num_rows:,}: restore it",
            path=deletion.path,
        )
    return positions


def deleted_positions(store: Store, deletion: DeletionFile) -> Positions:
    """The positions that a deletion file holds, ascending int64; whose they are is not looked at.

    Raises NotFound when it is gone, Corrupt when it is not sound.
    """
    data = store.get(deletion.path)
    try:
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
        positions = np.ascontiguousarray(table.column("pos").to_numpy(), dtype=np.int64)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise Corrupt(f"the deletion file {deletion.path} cannot be read: {error}", path=deletion.path) from error
    sound = positions.size == deletion.rows and bool((positions[1:] > positions[:-1]).all())
    if not sound or (positions.size and positions[0] < 0):
        raise Corrupt(
            f"the deletion file {deletion.path} holds {positions.size:,} positions; expected {deletion.rows:,} "
            "ascending ones from 0 on: restore it",
            path=deletion.path,
        )
    return positions
