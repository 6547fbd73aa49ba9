"""How fast this machine reads and writes this lake's files: measured on a table of it, not assumed."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from ..lake.conversion import conform, stored_type
from ..lake.errors import InvalidInput, LakeletError
from ..lake.layout import ParquetLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..lake.fragment import Fragment
    from ..lake.table import Table

__all__ = ["Throughput", "measured"]

_SAMPLE_BYTES: Final = 8 * 2**20
"""Stored bytes that are read to measure."""
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Throughput:
    """Stored bytes that are read (decoded) and written (encoded) in a second, and seconds that opening a file takes."""

    read_bytes_per_second: float
    write_bytes_per_second: float
    open_seconds: float

    def __post_init__(self) -> None:
        if not (self.read_bytes_per_second > 0 and self.write_bytes_per_second > 0 and self.open_seconds >= 0):
            raise InvalidInput(f"found the throughput {self}, expected more than 0 bytes a second and no negative time")

    def read_seconds(self, num_bytes: float, files: float) -> float:
        """Seconds to read so many stored bytes of so many files."""
        return num_bytes / self.read_bytes_per_second + files * self.open_seconds

    def write_seconds(self, num_bytes: float) -> float:
        """Seconds to write files of so many bytes."""
        return num_bytes / self.write_bytes_per_second


ASSUMED: Final = Throughput(100e6, 30e6, 0.01)
"""Where there is no file to measure with."""


def measured(tables: Sequence[Table]) -> Throughput:
    """Read a few row groups of the largest file there is, the best of some tries, and write them to memory."""
    fragments = [f for table in tables for f in table.fragments() if f.num_rows and table.kind != "retired"]
    if not fragments:
        return ASSUMED
    largest = max(fragments, key=lambda fragment: fragment.num_bytes)
    try:
        return _measured(largest)
    except LakeletError:
        return ASSUMED


def _measured(fragment: Fragment) -> Throughput:
    group_rows = fragment.row_group_rows
    group_bytes = fragment.num_bytes / len(group_rows)
    groups = list(range(min(len(group_rows), max(1, int(_SAMPLE_BYTES / max(1.0, group_bytes))))))
    started = time.perf_counter()
    fragment.read([], groups[:1])
    fragment.read(fragment.schema.names[:1], groups[:1])
    opening = time.perf_counter() - started
    rows, reading = fragment.read(None, groups), float("inf")
    for _ in range(_TRIES):
        started = time.perf_counter()
        fragment.read(None, groups)
        reading = min(reading, time.perf_counter() - started)
    num_bytes = max(1.0, group_bytes * len(groups))
    return Throughput(num_bytes / max(reading, 1e-6), num_bytes / max(_writing_seconds(rows), 1e-6), opening)


def _writing_seconds(rows: pa.Table) -> float:
    schema = pa.schema([field.with_type(stored_type(field.type)) for field in rows.schema])
    stored = conform(rows, schema)
    started = time.perf_counter()
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema, **ParquetLayout().plan(stored).arguments) as writer:
        writer.write_table(stored)
    return time.perf_counter() - started
