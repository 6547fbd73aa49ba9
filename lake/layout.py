"""How the lake writes Parquet: one settings object, and the encodings it chooses for the data at hand.

The choices are measured, not guessed: ``benchmarks/parquet_layout.py`` compares them with pyarrow's defaults, and
``benchmarks/results/parquet_layout.md`` holds the figures.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .statistics import leaf_columns

__all__ = ["ParquetLayout", "Plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the layout chose for one file. ``arguments`` go to ``pyarrow.parquet.ParquetWriter``.

    ``sorted_column`` is the position of a column that the file promises to hold in ascending order, or -1.
    """

    arguments: dict[str, Any]
    sorted_column: int = -1


@dataclass(frozen=True, slots=True)
class ParquetLayout:
    """Settings of the files that the lake writes. Frozen; the defaults are those the benchmark justifies.

    A dictionary is used where a sample of ``sample_rows`` rows has at most ``dictionary_ratio`` distinct values a row.
    A row group ends at ``row_group_rows`` rows or ``row_group_bytes`` bytes in memory; a file once it has
    ``file_bytes`` bytes on disk.
    """

    compression: str = "zstd"
    compression_level: int = 3
    row_group_rows: int = 122_880
    row_group_bytes: int = 128 * 2**20
    file_bytes: int = 256 * 2**20
    sample_rows: int = 16_384
    dictionary_ratio: float = 0.5

    def plan(self, group: pa.Table) -> Plan:
        """Encodings for a file that begins with the rows of ``group``, which has stored types.

        Sorted integers and times get DELTA_BINARY_PACKED, columns of few values a dictionary, other floats
        BYTE_STREAM_SPLIT, all else PLAIN. Decimals of up to 18 digits are integers in the file, which are read a third
        faster than fixed-size bytes. A column whose dotted path is not its own is left to the writer.
        """
        leaves = _leaf_paths(group.schema)
        spans = leaf_columns(group.schema, len(leaves))
        often = Counter(path for path, _ in leaves)
        dictionaries, encodings, promised = [], {}, -1
        sample = self._sample(group)
        for index, field in enumerate(group.schema):
            first, count = spans[field.name]
            for path, physical in leaves[first : first + count]:
                if often[path] > 1:
                    continue
                flat = count == 1 and not pa.types.is_nested(field.type)
                ascending = flat and _is_ascending(group.column(index))
                if ascending and promised < 0 and group.num_rows > 1 and group.column(index).null_count == 0:
                    promised = index
                if ascending:
                    encodings[path] = "DELTA_BINARY_PACKED"
                elif flat and not pa.types.is_dictionary(field.type) and not self._few_values(sample.column(index)):
                    encodings[path] = "BYTE_STREAM_SPLIT" if physical in ("FLOAT", "DOUBLE") else "PLAIN"
                elif not flat and physical in ("FLOAT", "DOUBLE"):
                    encodings[path] = "BYTE_STREAM_SPLIT"
                elif physical != "BOOLEAN":
                    dictionaries.append(path)
        encodings = {path: encoding for path, encoding in encodings.items() if encoding != "PLAIN"}
        sorting = [pq.SortingColumn(spans[group.schema.names[promised]][0])] if promised >= 0 else None
        return Plan(
            {
                "compression": self.compression,
                "compression_level": self.compression_level,
                "use_dictionary": dictionaries or False,
                "column_encoding": encodings or None,
                "sorting_columns": sorting,
                "write_page_index": True,
                "write_page_checksum": True,
                "store_schema": True,
                "store_decimal_as_integer": True,
                "version": "2.6",
            },
            promised,
        )

    def _sample(self, group: pa.Table) -> pa.Table:
        """Four runs of rows from all over the group: one run alone flatters sorted data."""
        if group.num_rows <= self.sample_rows:
            return group
        run = self.sample_rows // 4
        starts = [i * (group.num_rows - run) // 3 for i in range(4)]
        return pa.concat_tables([group.slice(start, run) for start in starts])

    def _few_values(self, column: pa.ChunkedArray) -> bool:
        if pa.types.is_boolean(column.type) or len(column) == 0:
            return False
        kind = column.type.storage_type if isinstance(column.type, pa.BaseExtensionType) else column.type
        try:
            distinct = pc.count_distinct(column.cast(kind)).as_py()
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            return True  # no kernel counts this type: the writer's own rule, a dictionary until it grows too big
        return bool(distinct <= self.dictionary_ratio * len(column))


def _leaf_paths(schema: pa.Schema) -> list[tuple[str, str]]:
    """Dotted path and physical type of each leaf that a file of this schema has."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, store_schema=False) as writer:
        pass
    stored = pq.read_metadata(pa.BufferReader(sink.getvalue())).schema
    del writer
    return [(stored.column(i).path, stored.column(i).physical_type) for i in range(len(stored))]


def _is_ascending(column: pa.ChunkedArray) -> bool:
    """Whether an integer or temporal column ascends, NULLs left out."""
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_temporal(kind)) or pa.types.is_interval(kind):
        return False
    previous = None
    for chunk in column.chunks:
        values = chunk.drop_null() if chunk.null_count else chunk
        if len(values) == 0:
            continue
        if previous is not None and pc.greater(previous, values[0]).as_py():
            return False
        if len(values) > 1 and not pc.all(pc.less_equal(values[:-1], values[1:])).as_py():
            return False
        previous = values[-1]
    return previous is not None


def still_ascending(column: pa.ChunkedArray) -> bool:
    """Whether a later row group keeps the promise that :class:`Plan` made for its column."""
    return column.null_count == 0 and _is_ascending(column)
