"""Parquet in place as a table: a location's files, what they have in common, and whether they are still the same.

Files of one location form one table when :func:`.schema.evolve` can unite their schemas: columns by name, numbers
widened, columns that a file lacks read as NULL. In a Hive-partitioned folder each ``key=value`` folder name is a
column after those of the files, typed by what DuckDB does: int64 when all values are whole numbers without leading
zeros, date32 when all are ISO dates, else string; ``__HIVE_DEFAULT_PARTITION__`` is NULL; URL escapes are decoded. A
column that the files hold themselves is read from them.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from .errors import Corrupt, InvalidInput, LakeletError
from .footers import FileState, Footer, FooterCache, changed
from .fragment import Fragment
from .limits import FOOTER_CACHE_BYTES
from .listing import Listing, is_current, list_files, partition_of, place_of, state_now
from .schema import evolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .progress import Progress
    from .table import Table

__all__ = ["Attachment", "Attachments", "Constant", "attached_table", "united"]

REMOTE_LISTINGS = 16
"""Locations on object stores that are listed side by side."""

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

_T = TypeVar("_T")

Constant = int | dt.date | str | None
"""A partition column's value in one file."""


@dataclass(frozen=True, eq=False)
class Attachment:
    """An attached location as it was when last looked at: one immutable value, the same object while nothing changes.

    ``schema`` is the table's; ``footers`` are in the order of the rows; ``constants`` holds, for each file, its
    partition columns' values.
    """

    listing: Listing
    schema: pa.Schema
    footers: tuple[Footer, ...]
    constants: tuple[Mapping[str, Constant], ...]

    @property
    def num_rows(self) -> int:
        """Rows of all files."""
        return sum(footer.num_rows for footer in self.footers)

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(footer.state.num_bytes for footer in self.footers)

    @cached_property
    def fragments(self) -> tuple[Fragment, ...]:
        """The files as fragments of the table, in the order of the rows."""
        shape = zlib.crc32(str(self.schema).encode())
        return tuple(
            AttachedFragment(self, footer, constants, "" if footer.schema is self.schema else f"|{shape:08x}")
            for footer, constants in zip(self.footers, self.constants, strict=True)
        )


class AttachedFragment(Fragment):
    """A file that belongs to somebody else: reading it raises Conflict when it changed since its footer was read."""

    __slots__ = ("_footer", "_place")

    def __init__(self, attachment: Attachment, footer: Footer, constants: Mapping[str, Constant], shape: str) -> None:
        """``shape`` becomes part of the identity: what else than the file's bytes decides on its rows."""
        place, schema, state = attachment.listing.place, attachment.schema, footer.state
        self._footer = footer
        self._place = place
        super().__init__(
            state.path,
            schema,
            identity=f"{state.path}|{state.num_bytes}|{state.stamp}{shape}",
            num_bytes=state.num_bytes,
            num_stored_rows=footer.num_rows,
            filesystem=None if place.filesystem is None else place.arrow(),
            file="" if place.filesystem is None else place.inner(state.path),
            metadata=lambda: footer.metadata,
            constants={key: pa.scalar(value, schema.field(key).type) for key, value in constants.items()},
        )

    @property
    def file_schema(self) -> pa.Schema:
        """The Arrow schema of the file itself."""
        return self._footer.schema

    def stored_bytes(self, columns: Sequence[str]) -> list[list[bytes]]:
        """As of every fragment; Conflict when the file changed."""
        return self._unchanged(lambda: super(AttachedFragment, self).stored_bytes(columns))

    def _read_stored(self, names: list[str], row_groups: Sequence[int] | None) -> pa.Table:
        return self._unchanged(lambda: super(AttachedFragment, self)._read_stored(names, row_groups))

    def _unchanged(self, read: Callable[[], _T]) -> _T:
        try:
            found = read()
        except Corrupt:
            self._check()  # bytes that fit no footer are no news when the file is another by now
            raise
        self._check()
        return found

    def _check(self) -> None:
        if state_now(self._place, self._footer.state) != self._footer.state:
            raise changed(self.path)


def attached_table(name: str, attachment: Attachment, version: int) -> Table:
    """The attached location as a table called ``name``, in ``version`` of the lake. Reads nothing."""
    from .table import Table  # brings DuckDB, which attaching does not need

    return Table(name, attachment.schema, attachment.fragments, version, "attached")


class Attachments:
    """The attached locations of one engine. Safe to use from many threads.

    Each :meth:`open` looks at the files again: by ``stat`` alone on a local disk, by listing on an object store. Only
    what changed is read again. The least recently used are dropped once their footers pass ``max_bytes``.
    """

    def __init__(
        self,
        storage_options: Mapping[str, Any] | None = None,
        footers: FooterCache | None = None,
        max_bytes: int = FOOTER_CACHE_BYTES,
    ) -> None:
        """``storage_options`` go to the fsspec file system of every location that is a URI."""
        self.footers = FooterCache() if footers is None else footers
        self._storage_options = dict(storage_options or {})
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._open: OrderedDict[tuple[str, bool], Attachment] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, location: str, hive: bool = False) -> Attachment:
        """The location as it is now.

        Raises NotFound when it holds no files any more, InvalidInput when they are no table (not Parquet, schemas that
        do not unite, no columns, a column twice), Corrupt, Unavailable, and Conflict for a file that is being written.
        """
        (found,) = self.open_many([(location, hive)])
        if isinstance(found, LakeletError):
            raise found
        return found

    def open_many(
        self, locations: Sequence[tuple[str, bool]], progress: Progress | None = None
    ) -> list[Attachment | LakeletError]:
        """Each location as it is now, or what :meth:`open` would raise: thousands cost one ``stat`` a file.

        ``progress`` hears of the locations that have to be listed and read.
        """
        with self._lock:
            known = [self._open.get(key) for key in locations]
        opened: list[Attachment | LakeletError | None] = [
            before if before is not None and is_current(before.listing) else None for before in known
        ]
        stale = [i for i, found in enumerate(opened) if found is None]
        listings = self._list([locations[i] for i in stale])
        self._fetch([listing for listing in listings if isinstance(listing, Listing)])
        fresh: list[tuple[tuple[str, bool], Attachment]] = []
        for done, (i, listing) in enumerate(zip(stale, listings, strict=True), start=1):
            opened[i] = found = self._now(listing, known[i])
            if isinstance(found, Attachment):
                fresh.append((locations[i], found))
            if progress is not None:
                progress("attached tables", done, len(stale))
        self._keep(fresh)
        return [found for found in opened if found is not None]

    def _list(self, locations: Sequence[tuple[str, bool]]) -> list[Listing | LakeletError]:
        def one(key: tuple[str, bool]) -> Listing | LakeletError:
            try:
                return list_files(place_of(key[0], self._storage_options), key[1])
            except LakeletError as e:
                return e

        if len(locations) > 1 and any("://" in location for location, _ in locations):
            with ThreadPoolExecutor(REMOTE_LISTINGS) as pool:
                return list(pool.map(one, locations))
        return [one(key) for key in locations]

    def _fetch(self, listings: Sequence[Listing]) -> None:
        """Read the footers of all remote files together, so that opening each finds them in the cache."""
        by_filesystem: dict[int, list[Listing]] = {}
        for listing in listings:
            if listing.place.filesystem is not None:
                by_filesystem.setdefault(id(listing.place.filesystem), []).append(listing)
        for alike in by_filesystem.values():
            states = [state for listing in alike for state in listing.files]
            self.footers.read_many(states, alike[0].place.filesystem)

    def _now(self, listing: Listing | LakeletError, before: Attachment | None) -> Attachment | LakeletError:
        if isinstance(listing, LakeletError):
            return listing
        if before is not None and before.listing.files == listing.files:
            if before.listing.folders != listing.folders:
                before = replace(before, listing=listing)
            return before
        try:
            return self._read(listing)
        except LakeletError as e:
            return e

    def adopt(self, listings: Iterable[Listing]) -> None:
        """Take over listings that were just made (by discovery), so that the first use does not list again.

        A listing whose files are no table is left out: opening it says why.
        """
        fresh = []
        for listing in listings:
            try:
                fresh.append(((listing.place.location, listing.hive), self._read(listing)))
            except LakeletError:
                continue
        self._keep(fresh)

    def looks_partitioned(self, location: str) -> bool:
        """Whether a location is a folder without Parquet files of its own, but with ``key=value`` folders that do."""
        place = place_of(location, self._storage_options)
        try:
            listing = list_files(place, hive=True)
        except LakeletError:
            return False
        return listing.hive and all(_folders(listing, state) for state in listing.files)

    def _read(self, listing: Listing) -> Attachment:
        return united(listing, self.footers.read_many(listing.files, listing.place.filesystem))

    def _keep(self, fresh: Iterable[tuple[tuple[str, bool], Attachment]]) -> None:
        with self._lock:
            for key, attachment in fresh:
                before = self._open.pop(key, None)
                self._held_bytes += _held(attachment) - (_held(before) if before else 0)
                self._open[key] = attachment
            while self._held_bytes > self._max_bytes and len(self._open) > 1:
                _, gone = self._open.popitem(last=False)
                self._held_bytes -= _held(gone)


def _held(attachment: Attachment) -> int:
    return sum(footer.held_bytes for footer in attachment.footers)


# --- one schema for all files ------------------------------------------------------------------------------------


def united(listing: Listing, found: Sequence[Footer | LakeletError]) -> Attachment:
    """The files of a listing as one table, given their footers in its order; raises as :meth:`Attachments.open`."""
    footers = []
    for footer in found:
        if isinstance(footer, LakeletError):
            raise footer
        footers.append(footer)
    schema = _united(footers)
    constants: tuple[Mapping[str, Constant], ...] = ({},) * len(footers)
    if listing.hive:
        fields, constants = _partition_columns(listing, schema)
        for field in fields:
            schema = schema.append(field)
    if not len(schema):
        raise InvalidInput(f"{listing.place.location} has no columns. A table needs at least one.")
    return Attachment(listing, schema, tuple(footers), constants)


def _united(footers: Sequence[Footer]) -> pa.Schema:
    first = footers[0]
    _check_names(first)
    if len(footers) == 1:
        return first.schema
    schemas: list[tuple[pa.Schema, Footer]] = [(first.schema, first)]
    for footer in footers[1:]:
        if not any(footer.schema.equals(schema) for schema, _ in schemas):
            _check_names(footer)
            schemas.append((footer.schema, footer))
    if len(schemas) == 1:
        united = first.schema
    else:
        united = _nullable(first.schema)
        for schema, footer in schemas[1:]:
            try:
                united = evolve(united, _nullable(schema))
            except InvalidInput as e:
                raise InvalidInput(
                    f"{first.state.path} and {footer.state.path} are no files of one table: {e} "
                    "Attach them one by one, or name fewer files by a glob."
                ) from e
    alike = all(footer.schema.metadata == first.schema.metadata for footer in footers)
    return _for_many_files(united, first.schema.metadata if alike else None)


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in schema], metadata=schema.metadata)


def _for_many_files(schema: pa.Schema, metadata: Mapping[bytes, bytes] | None) -> pa.Schema:
    """The schema without what pandas notes of one file's index."""
    kept = {key: value for key, value in (metadata or {}).items() if key != b"pandas"}
    return schema.with_metadata(kept) if kept else schema.remove_metadata()


def _check_names(footer: Footer) -> None:
    names = footer.schema.names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"{footer.state.path} has two columns named {twice!r}. Write it again with different names.")


# --- Hive partitions ---------------------------------------------------------------------------------------------


def _folders(listing: Listing, state: FileState) -> list[str]:
    """The names of the folders between a listing's root and one of its files."""
    return state.path[len(listing.root) :].strip("/").split("/")[:-1]


def _partition_columns(
    listing: Listing, schema: pa.Schema
) -> tuple[list[pa.Field], tuple[Mapping[str, Constant], ...]]:
    """The columns that the folder names give, and each file's values, without those that the files hold themselves."""
    texts: list[dict[str, str | None]] = []
    for state in listing.files:
        values: dict[str, str | None] = {}
        for name in _folders(listing, state):
            key, value = partition_of(name) or ("", "")
            if key in values:
                raise InvalidInput(f"{state.path} has two folders named {key!r}=. Rename one.")
            values[key] = None if value == _NULL_PARTITION else value
        texts.append(values)
    for state, values in zip(listing.files, texts, strict=True):
        if list(values) != list(texts[0]):
            raise InvalidInput(
                f"{listing.files[0].path} and {state.path} are no files of one table: their folders have the keys "
                f"{_keys(texts[0])} and {_keys(values)}. Attach the folders one by one."
            )
    fields = []
    typed: list[dict[str, Constant]] = [{} for _ in texts]
    for key in texts[0]:
        if key in schema.names:
            continue
        column = [values[key] for values in texts]
        kind, constants = _typed(column)
        fields.append(pa.field(key, kind))
        for values_of_file, constant in zip(typed, constants, strict=True):
            values_of_file[key] = constant
    return fields, tuple(typed)


def _keys(values: Mapping[str, str | None]) -> str:
    return "/".join(values) or "none"


def _typed(column: Sequence[str | None]) -> tuple[pa.DataType, Sequence[Constant]]:
    """The type of all values of one key, and the values in it."""
    known = [text for text in column if text is not None]
    if known and all(_WHOLE.fullmatch(text) for text in known):
        numbers = [None if text is None else int(text) for text in column]
        if all(-(2**63) <= number < 2**63 for number in numbers if number is not None):
            return pa.int64(), numbers
    if known and all(_ISO_DATE.fullmatch(text) for text in known):
        try:
            return pa.date32(), [None if text is None else dt.date.fromisoformat(text) for text in column]
        except ValueError:
            pass
    return pa.string(), column
