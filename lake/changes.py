"""What a commit says: changes and requirements as frozen values, and nothing that does I/O.

A commit is a list of changes with the requirements under which it holds. ``snapshot.apply`` turns a snapshot and
changes into the next snapshot; ``snapshot.unmet`` tells which requirements a snapshot breaks. Encoding to JSON stands
in :mod:`.entry`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, overload

if TYPE_CHECKING:
    from .table_index import TableIndex

__all__ = [
    "AddFiles",
    "AttachTable",
    "Change",
    "Commit",
    "CreateLake",
    "CreateTable",
    "DataFile",
    "DeleteRows",
    "DeletionFile",
    "DropIndex",
    "DropTable",
    "DropView",
    "FilesPresent",
    "FilesUnchanged",
    "NameFree",
    "Recipe",
    "RemoveFiles",
    "RenameTable",
    "Requirement",
    "SetIndex",
    "SetPin",
    "SetSchema",
    "SetView",
    "SourceFile",
    "StatsSource",
    "TableUnchanged",
]


class StatsSource(Protocol):
    """Where the statistics of a file lie until somebody prunes with them."""

    def load(self) -> str:
        """The JSON text, or "" when it is gone."""
        ...


class _Stats:
    """The field ``DataFile.stats``: given as text or as a source, read as text, loaded at most once."""

    @overload
    def __get__(self, instance: None, owner: type) -> str: ...
    @overload
    def __get__(self, instance: DataFile, owner: type) -> str: ...
    def __get__(self, instance: DataFile | None, owner: type) -> str:
        if instance is None:
            return ""
        value = instance.__dict__["_stats"]
        if isinstance(value, str):
            return value
        text: str = value.load()
        instance.__dict__["_stats"] = text
        return text

    def __set__(self, instance: DataFile, value: str | StatsSource) -> None:
        instance.__dict__["_stats"] = value


@dataclass(frozen=True, slots=True)
class DeletionFile:
    """Rows of one data file that are deleted: all of them, so that one file suffices to read.

    ``path`` is relative to the lake; ``rows`` counts the deleted positions.
    """

    path: str
    rows: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A data file of another table from which rows are rebuilt. ``path`` is relative to the lake.

    Whoever mentions it keeps it from vacuum, whatever becomes of its table.
    """

    table_id: str
    file_id: str
    path: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the rows of a data file are rebuilt from those of others, bit for bit (:mod:`.recipe`).

    The object at the data file's ``path`` holds the positions; ``checksum`` is its SHA-256 in hex. ``residual`` is the
    path of a Parquet file with the rows that no source has, "" when there are none, of ``residual_bytes``; ``side`` is
    that of one with the columns that no source has, for every row in order, of ``side_bytes``.
    """

    checksum: str
    sources: tuple[SourceFile, ...]
    residual: str = ""
    residual_bytes: int = 0
    side: str = ""
    side_bytes: int = 0


@dataclass(frozen=True)
class DataFile:
    """One immutable file of an owned table: Parquet with its rows, or a recipe that rebuilds them.

    ``file_id`` is unique for ever and stands for the rows: a file that becomes a recipe keeps it. ``path`` is relative
    to the lake's root. ``num_rows`` counts the rows stored, before deletes; ``num_bytes`` what it takes in the store,
    residual rows and side columns included. ``schema_id`` names the table schema under which it was written. ``stats``
    is the JSON text that :mod:`.statistics` reads; empty means unknown. Files that come from a checkpoint load it when
    it is first read.
    """

    file_id: str
    path: str
    num_rows: int
    num_bytes: int
    schema_id: int
    stats: _Stats = _Stats()
    deletion: DeletionFile | None = None
    recipe: Recipe | None = None

    @property
    def state(self) -> str:
        """What changes whenever the bytes or the deletions behind the file do."""
        return f"{self.path} {self.deletion.path}" if self.deletion else self.path

    def own_paths(self) -> tuple[str, ...]:
        """The objects that were written for the file alone."""
        found = (self.path, self.deletion.path) if self.deletion else (self.path,)
        beside = (self.recipe.residual, self.recipe.side) if self.recipe else ()
        return (*found, *(path for path in beside if path))

    def paths(self) -> tuple[str, ...]:
        """Every object that reading the file may need."""
        sources = self.recipe.sources if self.recipe else ()
        return (*self.own_paths(), *(source.path for source in sources))

    def with_deletion(self, deletion: DeletionFile | None) -> DataFile:
        """The same file under other deletions, without loading its statistics."""
        other = copy.copy(self)
        object.__setattr__(other, "deletion", deletion)
        return other

    def stats_in_hand(self) -> str | StatsSource:
        """The statistics as they are held now: text, or the source that would be asked."""
        value: Any = self.__dict__["_stats"]
        return value  # type: ignore[no-any-return]


# --- changes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateLake:
    """The first change of the first commit, and of no other: the lake's id and its secret for row hashes, in hex."""

    lake_id: str
    hash_seed: str


@dataclass(frozen=True, slots=True)
class CreateTable:
    """An owned table without files. ``schema`` is an Arrow schema as base64 of its IPC message (:mod:`.schema`)."""

    table_id: str
    name: str
    schema: str


@dataclass(frozen=True, slots=True)
class SetSchema:
    """The table's schema becomes the next schema id. Old files keep the id they were written under."""

    table_id: str
    schema: str


@dataclass(frozen=True, slots=True)
class AddFiles:
    """Rows arrive, in the order of the files."""

    table_id: str
    files: tuple[DataFile, ...]


@dataclass(frozen=True, slots=True)
class RemoveFiles:
    """Rows leave with their files. ``rewritten`` is True when the same commit adds the same rows in other files."""

    table_id: str
    file_ids: tuple[str, ...]
    rewritten: bool = False


@dataclass(frozen=True, slots=True)
class DeleteRows:
    """The file's deletions become ``deletion``, made on top of ``base`` (a path, or None for no deletions).

    Two of them on one file merge when their new positions are disjoint: the loser writes the union and commits again.
    """

    table_id: str
    file_id: str
    deletion: DeletionFile
    base: str | None


@dataclass(frozen=True, slots=True)
class DropTable:
    """The table's name is free again; its files stay until vacuum may take them."""

    table_id: str


@dataclass(frozen=True, slots=True)
class RenameTable:
    """The table keeps its id, files and history under another name."""

    table_id: str
    name: str


@dataclass(frozen=True, slots=True)
class AttachTable:
    """Parquet in place: nothing is copied, files are listed and their footers read when the table is used.

    ``location`` is a path or URI of a file, folder or glob; ``format`` is "parquet"; ``hive`` tells whether folder
    names ``key=value`` below ``location`` are columns.
    """

    table_id: str
    name: str
    location: str
    format: str = "parquet"
    hive: bool = False


@dataclass(frozen=True, slots=True)
class SetView:
    """A named SELECT, replaced if there is one of that name."""

    name: str
    sql: str


@dataclass(frozen=True, slots=True)
class DropView:
    """The view's name is free again."""

    name: str


@dataclass(frozen=True, slots=True)
class SetPin:
    """Somebody's word that a table must stay: ``pin`` "keep" (never retired), "legal-hold" (no row leaves), or "" for
    neither any more. ``owner`` and ``reason`` are for people.
    """

    table_id: str
    pin: str
    owner: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SetIndex:
    """An index over a column of an owned table, in the place of the one with its ``index_id`` if there is one.

    Segments that were added, merged or dropped are told by the whole of the new index.
    """

    table_id: str
    index: TableIndex


@dataclass(frozen=True, slots=True)
class DropIndex:
    """The column may have another index; the segments stay until vacuum may take them."""

    table_id: str
    index_id: str


Change = (
    CreateLake
    | CreateTable
    | SetSchema
    | AddFiles
    | RemoveFiles
    | DeleteRows
    | DropTable
    | RenameTable
    | AttachTable
    | SetView
    | DropView
    | SetPin
    | SetIndex
    | DropIndex
)


# --- requirements ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NameFree:
    """No table or view has this name."""

    name: str


@dataclass(frozen=True, slots=True)
class TableUnchanged:
    """The table exists and these aspects are as they were at ``version``.

    ``schema``: its schema; ``rows``: its files and deletions; ``name``: its name; ``dependants``: no recipe over its
    files was added, and no pin set; ``index``: its indexes and their segments. An append needs only the schema; an
    overwrite, a merge, or a transaction that read the table needs its rows too; whatever takes rows away needs to know
    who is rebuilt from them.
    """

    table_id: str
    version: int
    schema: bool = True
    rows: bool = False
    name: bool = False
    dependants: bool = False
    index: bool = False


@dataclass(frozen=True, slots=True)
class FilesPresent:
    """These files are still part of the table, with whatever deletions they have by now."""

    table_id: str
    file_ids: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class FilesUnchanged:
    """Files of these states (``DataFile.state``) are part of the table: neither bytes nor deletions changed."""

    table_id: str
    states: tuple[str, ...] = field(default=())


Requirement = NameFree | TableUnchanged | FilesPresent | FilesUnchanged


# --- history -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Commit:
    """One line of history. Commits that were grouped share ``version`` and ``timestamp_us`` (microseconds, UTC).

    ``tables`` are the names, at that version, of the tables and views that it changed.
    """

    version: int
    timestamp_us: int
    operation: str
    commit_id: str
    tables: tuple[str, ...] = ()
