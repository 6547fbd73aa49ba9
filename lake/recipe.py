"""The recipe object: where each row of a file is found again, kept as one small Parquet file.

Two rows of that Parquet file are a *part*: as many rows as the original had in one row group, so that a rebuilt file is
skipped and streamed as the original was. A part tells which of its rows stand in the residual file, and the positions
of all others in the sources, which are numbered through in order. Positions are those of rows *stored* in a source:
they hold whatever is deleted there later.

The whole object is checked against the checksum in the log before anything of it is believed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .entry import FORMAT
from .errors import Corrupt, Unavailable
from .positions import FORMS, Sequence, encode_positions
from .schema import decode_schema, encode_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Directions", "Origins", "Part", "Source", "decode_recipe", "encode_recipe", "make_part"]

_HEADER: Final = b"lakelet.recipe"
_COLUMNS: Final = pa.schema(
    [
        ("form", pa.int8()),
        ("count", pa.int64()),
        ("base", pa.int64()),
        ("numbers", pa.list_(pa.int64())),
        ("lengths", pa.list_(pa.int64())),
        ("bits", pa.binary()),
        ("dictionaries", pa.binary()),
    ]
)
_GROUP_PARTS: Final = 64
"""Parts of one row group of the object: few enough to hold at a time, and many enough that footers stay small."""
_NO_ROWS: Final = np.empty(0, np.int64)
_PACKED: Final = ("numbers.list.element", "lengths.list.element")


@dataclass(frozen=True, slots=True)
class Source:
    """A source as it was when the recipe was made: rows and bytes of the file, and the SHA-256 of its footer in hex."""

    num_rows: int
    num_bytes: int
    footer: str


@dataclass(frozen=True, slots=True)
class Origins:
    """Where the rows of a part come from: int32 number of the source, -1 the residual file; int64 row in that file."""

    source: NDArray[np.int32]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def in_order(self) -> bool:
        """Whether the rows ascend from source to source, and in each."""
        source, row = self.source, self.row
        ascending: NDArray[np.bool_] = row[1:] > row[:-1]
        if len(source) and source[0] == source[-1] and bool((source == source[0]).all()):
            return bool(ascending.all())
        return bool(((source[1:] > source[:-1]) | ((source[1:] == source[:-1]) & ascending)).all())


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of the rebuilt file. ``rows``: positions in the sources, numbered through; ``residual``: which
    rows of the part are taken from the residual file, in its order.

    ``dictionaries``: values of dictionary columns that must be given back as they were, by column; else they are made
    from the values that occur.
    """

    rows: Sequence
    residual: Sequence
    dictionaries: Mapping[str, pa.Array] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """Rows of the part."""
        return self.rows.count + self.residual.count


@dataclass(frozen=True, slots=True)
class Directions:
    """A recipe's content. ``sources`` are numbered as in the log. ``columns`` maps the file's columns to those of
    the sources, ``source_schema`` is how those are read before they are converted to the types of the file.
    """

    source_schema: pa.Schema
    columns: Mapping[str, str]
    sources: tuple[Source, ...]
    parts: tuple[Part, ...]

    def origins(self, part: Part, residual_start: int) -> Origins:
        """Where the part's rows come from; ``residual_start`` counts the residual rows of all parts before it."""
        starts = source_starts(self.sources)
        found = row = part.rows.decode()
        source = np.zeros(len(found), np.int32)
        if len(self.sources) > 1:
            source = (np.searchsorted(starts, found, side="right") - 1).astype(np.int32)
            row = found - starts[source]
        if not part.residual.count:
            return Origins(source, row)
        whole_source = np.full(part.num_rows, -1, np.int32)
        whole_row = np.empty(part.num_rows, np.int64)
        at = part.residual.decode()
        own = np.ones(part.num_rows, np.bool_)
        own[at] = False
        whole_source[own], whole_row[own] = source, row
        whole_row[at] = np.arange(residual_start, residual_start + len(at))
        return Origins(whole_source, whole_row)


def source_starts(sources: tuple[Source, ...]) -> NDArray[np.int64]:
    """The number of the first row of each source, and behind them that of all rows: int64 of len(sources) + 1."""
    return np.concatenate([[0], np.cumsum([source.num_rows for source in sources])]).astype(np.int64)


def make_part(origins: Origins, starts: NDArray[np.int64], dictionaries: Mapping[str, pa.Array]) -> Part:
    """The part for rows of these origins; rows of the residual file are taken in order. ``starts`` as
    :func:`source_starts`.
    """
    found = origins.source >= 0
    rows = starts[origins.source[found]] + origins.row[found]
    return Part(encode_positions(rows), encode_positions(np.flatnonzero(~found)), dictionaries)


# --- bytes ---------------------------------------------------------------------------------------------------------


def encode_recipe(directions: Directions) -> tuple[bytes, str]:
    """The object's bytes and their SHA-256 in hex."""
    header = {
        "format": FORMAT,
        "source_schema": encode_schema(directions.source_schema),
        "columns": dict(directions.columns),
        "sources": [[source.num_rows, source.num_bytes, source.footer] for source in directions.sources],
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        _COLUMNS,
        compression="zstd",
        use_dictionary=False,
        column_encoding=dict.fromkeys(_PACKED, "DELTA_BINARY_PACKED"),
        write_statistics=False,
        store_schema=False,
        write_page_checksum=True,
    ) as writer:
        writer.add_key_value_metadata({_HEADER: json.dumps(header, separators=(",", ":")).encode()})
        for start in range(0, len(directions.parts), _GROUP_PARTS):
            rows = [_row(part) for part in directions.parts[start : start + _GROUP_PARTS]]
            writer.write_table(pa.Table.from_batches(rows).combine_chunks(), row_group_size=2 * _GROUP_PARTS)
    data = sink.getvalue().to_pybytes()
    return data, hashlib.sha256(data).hexdigest()


def _row(part: Part) -> pa.RecordBatch:
    both = (part.rows, part.residual)
    columns = [
        pa.array([FORMS.index(sequence.form) for sequence in both], pa.int8()),
        pa.array([sequence.count for sequence in both], pa.int64()),
        pa.array([sequence.base for sequence in both], pa.int64()),
        _lists([sequence.numbers for sequence in both]),
        _lists([sequence.lengths for sequence in both]),
        pa.array([sequence.bits for sequence in both], pa.binary()),
        pa.array([_dictionary_bytes(part.dictionaries), b""], pa.binary()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_COLUMNS)


def _lists(values: list[NDArray[np.int64]]) -> pa.Array:
    flat = np.concatenate(values)
    offsets = np.cumsum([0, *(len(one) for one in values)]).astype(np.int32)
    numbers = pa.Array.from_buffers(pa.int64(), len(flat), [None, pa.py_buffer(flat)])
    return pa.Array.from_buffers(pa.list_(pa.int64()), len(values), [None, pa.py_buffer(offsets)], children=[numbers])


def _dictionary_bytes(dictionaries: Mapping[str, pa.Array]) -> bytes:
    sink = pa.BufferOutputStream()
    for name, values in dictionaries.items():
        with pa.ipc.new_stream(sink, pa.schema([pa.field(name, values.type)])) as stream:
            stream.write_batch(pa.RecordBatch.from_arrays([values], names=[name]))
    return bytes(sink.getvalue().to_pybytes())


def decode_recipe(data: bytes, path: str, checksum: str) -> Directions:
    """What the object at ``path`` says. Raises Corrupt when it is not what was written, Unavailable for a newer one."""
    if hashlib.sha256(data).hexdigest() != checksum:
        raise Corrupt(f"the recipe {path} is damaged: its checksum is not the one in the log; {_MEND}", path=path)
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            header = json.loads(file.metadata.metadata[_HEADER])
            if header["format"] > FORMAT:
                raise Unavailable(
                    f"{path} has format {header['format']}, this lakelet reads up to {FORMAT}: "
                    "pip install --upgrade lakelet"
                )
            groups = [file.read_row_group(group) for group in range(file.metadata.num_row_groups)]
        return Directions(
            decode_schema(header["source_schema"]),
            header["columns"],
            tuple(Source(*source) for source in header["sources"]),
            tuple(_part(group, row) for group in groups for row in range(0, group.num_rows, 2)),
        )
    except (Corrupt, pa.ArrowException, OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise Corrupt(f"the recipe {path} says what no recipe can say: {error}; {_MEND}", path=path) from error


_MEND: Final = "restore it from a copy of the lake"


def _part(group: pa.Table, row: int) -> Part:
    rows, residual = (_sequence(group, at) for at in (row, row + 1))
    return Part(rows, residual, _dictionaries(group.column("dictionaries")[row].as_py()))


def _sequence(group: pa.Table, row: int) -> Sequence:
    form, count, base, bits = (group.column(name)[row].as_py() for name in ("form", "count", "base", "bits"))
    numbers, lengths = (_numbers(group.column(name)[row]) for name in ("numbers", "lengths"))
    return Sequence(FORMS[form], count, base, numbers, lengths, bits)


def _numbers(found: pa.ListScalar) -> NDArray[np.int64]:
    values = found.values
    return np.frombuffer(values.buffers()[1], np.int64, len(values), values.offset * 8) if len(values) else _NO_ROWS


def _dictionaries(data: bytes) -> dict[str, pa.Array]:
    found: dict[str, Any] = {}
    source = pa.BufferReader(data)
    while source.tell() < source.size():
        with pa.ipc.open_stream(source) as stream:
            table = stream.read_all()
        found[table.schema.names[0]] = table.column(0).combine_chunks()
    return found
