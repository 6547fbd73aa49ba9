"""The objects of a checkpoint as Parquet with checksums, and the statistics among them, read only when asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.parquet as pq

from .entry import FORMAT
from .errors import Corrupt, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .changes import DataFile
    from .store import Store

__all__ = ["StatsObject", "StatsOfRow", "damaged", "encode_stats", "has_stats", "read_part", "stamped"]

_STATS_GROUP_ROWS: Final = 4_096
_STATS_GROUPS_HELD: Final = 8
_STATS: Final = pa.schema([("stats", pa.large_string())])


def stamped(schema: pa.Schema, metadata: dict[str, str] | None = None) -> pa.Schema:
    """The schema with the format version, and ``metadata``, in its metadata."""
    return schema.with_metadata({"lakelet.format": str(FORMAT), **(metadata or {})})


def read_part(data: bytes, path: str, schema: pa.Schema, optional: Sequence[str] = ()) -> pa.Table:
    """The table in an object of a checkpoint. Corrupt when damaged, Unavailable when a newer lakelet wrote it.

    ``optional`` are the last columns of ``schema``, which an older lakelet did not write: NULL then.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
            table = file.read()  # pq.read_table would do, but imports pyarrow.dataset and with it pandas
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, f"it cannot be read: {error}") from error
    found = (table.schema.metadata or {}).get(b"lakelet.format", b"")
    if found.isdigit() and int(found) > FORMAT:
        raise Unavailable(
            f"{path} has format {int(found)}, this lakelet reads up to {FORMAT}: pip install --upgrade lakelet"
        )
    names = table.schema.names
    if not found.isdigit() or names not in (schema.names, schema.names[: len(schema) - len(optional)]):
        raise damaged(path, f"found the columns {names}, expected {schema.names}")
    for field in schema:
        if field.name not in names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def damaged(path: str, what: str) -> Corrupt:
    """The error for an object of a checkpoint that says ``what`` it should not."""
    folder = path.rpartition("/")[0]
    return Corrupt(
        f"{path} is not a checkpoint: {what}; restore it from a copy of the lake, or, if nothing was ever expired, "
        f"delete {folder} and _lakelet/hint: the log holds everything",
        path=path,
    )


class StatsObject:
    """The ``stats`` object of a checkpoint, read a row group at a time; a few groups are held."""

    def __init__(self, store: Store, path: str) -> None:
        """Nothing is read yet."""
        self._store = store
        self._path = path
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, pa.Array] = OrderedDict()

    def text(self, row: int) -> str:
        """The statistics in ``row``. NotFound when the object is gone, Corrupt when it is damaged."""
        number, position = divmod(row, _STATS_GROUP_ROWS)
        with self._lock:
            group = self._groups.get(number)
            if group is None:
                group = self._groups[number] = self._read_group(number)
            self._groups.move_to_end(number)
            while len(self._groups) > _STATS_GROUPS_HELD:
                self._groups.popitem(last=False)
            if position >= len(group):
                raise damaged(self._path, f"it has no row {row}")
            text: str = group[position].as_py() or ""
            return text

    def _read_group(self, number: int) -> pa.Array:
        try:
            with (
                self._store.arrow.open_input_file(self._path) as source,
                pq.ParquetFile(source, page_checksum_verification=True) as file,
            ):
                return file.read_row_group(number, columns=["stats"]).column(0).combine_chunks()
        except FileNotFoundError as error:
            raise NotFound(f"{self._path} is gone: its version was expired") from error
        except (pa.ArrowException, IndexError) as error:
            raise damaged(self._path, str(error)) from error
        except OSError as error:
            raise Unavailable(f"could not read {self._path}: {error}") from error


class StatsOfRow:
    """The statistics of one file, where they lie: what :class:`.changes.DataFile` asks when they are first read."""

    __slots__ = ("_row", "_source")

    def __init__(self, source: StatsObject, row: int) -> None:
        """Nothing is read yet."""
        self._source = source
        self._row = row

    def load(self) -> str:
        """The text; "" when the checkpoint was expired, since unknown statistics only prune less."""
        try:
            return self.require()
        except NotFound:
            return ""

    def require(self) -> str:
        """The text; NotFound when the checkpoint was expired."""
        return self._source.text(self._row)


def has_stats(file: DataFile) -> bool:
    """Whether statistics are known, without loading them."""
    return file.stats_in_hand() != ""


def encode_stats(files: list[DataFile]) -> bytes:
    """The ``stats`` object: one row a file. NotFound when some that it would carry over are gone."""
    schema = stamped(_STATS)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True, use_dictionary=False) as writer:
        for start in range(0, len(files), _STATS_GROUP_ROWS):
            texts = [_text(file) for file in files[start : start + _STATS_GROUP_ROWS]]
            writer.write_table(pa.Table.from_arrays([pa.array(texts, pa.large_string())], schema=schema))
    return bytes(sink.getvalue())


def _text(file: DataFile) -> str:
    held = file.stats_in_hand()
    return held.require() if isinstance(held, StatsOfRow) else file.stats
