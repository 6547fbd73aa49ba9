"""The lake at one version, as a value. ``apply`` is pure: snapshot and changes in, next snapshot out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .changes import DataFile

__all__ = ["AttachedTable", "OwnedTable", "Snapshot", "TableEntry", "View"]


@dataclass(frozen=True, slots=True)
class OwnedTable:
    """A table whose files belong to the lake.

    ``schemas`` holds every schema it ever had, as text, by schema id; the last one is in force. ``files`` keeps the
    order of the rows. ``name_version``, ``schema_version`` and ``rows_version`` are the versions that last changed
    each aspect: requirements compare them.
    """

    table_id: str
    name: str
    schemas: tuple[str, ...]
    files: Mapping[str, DataFile] = field(default_factory=dict)
    created_version: int = 0
    name_version: int = 0
    schema_version: int = 0
    rows_version: int = 0

    @property
    def schema(self) -> str:
        """The schema in force, as text."""
        return self.schemas[-1]

    @property
    def num_rows(self) -> int:
        """Rows that a scan returns: stored rows less deleted ones."""
        return sum(f.num_rows - (f.deletion.rows if f.deletion else 0) for f in self.files.values())

    @property
    def num_bytes(self) -> int:
        """Bytes of the data files in the store."""
        return sum(f.num_bytes for f in self.files.values())


@dataclass(frozen=True, slots=True)
class AttachedTable:
    """A table whose files belong to somebody else and may change under us."""

    table_id: str
    name: str
    location: str
    format: str
    hive: bool
    created_version: int = 0
    name_version: int = 0


@dataclass(frozen=True, slots=True)
class View:
    """A named SELECT over tables of the lake."""

    name: str
    sql: str
    created_version: int = 0


TableEntry = OwnedTable | AttachedTable


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The lake at one version.

    ``tables`` is keyed by table id, ``names`` maps each table's name to its id, ``views`` is keyed by name. Version 0
    is the empty lake. ``timestamp_us`` is the commit's time in microseconds since the epoch, in UTC, monotonic over
    versions. ``hash_seed`` is the lake's secret for row hashes, 32 bytes in hex, fixed by the first commit.
    """

    version: int = 0
    timestamp_us: int = 0
    lake_id: str = ""
    hash_seed: str = ""
    tables: Mapping[str, TableEntry] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)

    def table(self, name: str) -> TableEntry | None:
        """The table of that name, or None."""
        table_id = self.names.get(name)
        return None if table_id is None else self.tables[table_id]
