"""A tree of folders and files becomes tables: which there are, what they are called, and what cannot be one, and why.

The rules, in this order:

- names that start with ``_`` or ``.`` are passed over, and so is everything that is not named as Parquet;
- a folder that holds the log of another table format is rejected: the log, not the files, says which rows there are;
- a folder with ``key=value`` folders in it is one Hive-partitioned table;
- a folder whose Parquet files share one schema is one table, called after the folder;
- files of different schemas in one folder, and files in the tree's own folder, are one table each, called after the
  file: exports that lie side by side are tables; parts (``part-0001.parquet``) are one table wherever they lie;
- a file that cannot be read is rejected; among parts it takes the whole folder with it, since a table with a hole
  would give wrong answers.

Names are the path below the tree with everything but letters, digits and ``_`` made ``_``. A name that is taken, also
by one that differs in case only (SQL folds case), gets a number. The same tree gives the same names.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .attached import united
from .errors import LakeletError
from .footers import FileState, Footer
from .limits import NAME_BYTES
from .listing import Listing, Place, partition_of
from .tree import Folder, Rejected, descend, walk

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from .footers import FooterCache
    from .progress import Progress

__all__ = ["Discovery", "Found", "Rejected", "discover"]

_PART = re.compile(r"part[-_.]?[0-9]", re.IGNORECASE)
_UNNAMEABLE = re.compile(r"\W+")


@dataclass(frozen=True, slots=True)
class Found:
    """A table of the tree: its name, the location to attach, whether it is Hive-partitioned, and its files."""

    name: str
    location: str
    hive: bool
    listing: Listing


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a tree holds: tables sorted by location, and what was passed over, sorted, with the reason."""

    tables: tuple[Found, ...]
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True, slots=True)
class _Unnamed:
    """A table before it has a name; ``words`` are the folder and file names that the name is made of."""

    words: tuple[str, ...]
    listing: Listing


def discover(
    place: Place, footers: FooterCache, taken: Collection[str] = (), progress: Progress | None = None
) -> Discovery:
    """The tables below a folder. Nothing is attached.

    The footers of all files are read into ``footers``; ``progress`` hears of it. ``taken`` are names in use. Raises
    NotFound when there is no such folder, Unavailable when it cannot be read; what cannot be read below it is in
    ``rejected``.
    """
    rejected: list[Rejected] = []
    root = walk(place, rejected)
    states = [state for folder in descend(root) for state in folder.files]
    good: dict[FileState, Footer] = {}
    for state, footer in zip(states, footers.read_many(states, place.filesystem, progress), strict=True):
        reason = _unusable(footer)
        if reason:
            rejected.append(Rejected(state.path, reason))
        elif isinstance(footer, Footer):
            good[state] = footer
    unnamed = sorted(_tables(root, place, good, rejected), key=lambda table: table.listing.place.path)
    rejected.sort(key=lambda one: one.location)
    return Discovery(tuple(_named(unnamed, taken)), tuple(rejected))


def _unusable(footer: Footer | LakeletError) -> str:
    """Why a file cannot be a table, or ""."""
    if isinstance(footer, LakeletError):
        return str(footer)
    try:
        names = footer.schema.names
    except LakeletError as e:
        return str(e)
    if not names:
        return "has no columns"
    if len(set(names)) < len(names):
        return "has two columns of one name"
    return ""


# --- which tables ------------------------------------------------------------------------------------------------


def _tables(
    root: Folder, place: Place, good: Mapping[FileState, Footer], rejected: list[Rejected]
) -> Iterator[_Unnamed]:
    pending = [root]
    while pending:
        folder = pending.pop()
        if folder.other_format:
            reason = f"is a {folder.other_format} table: its files alone would bring deleted rows back"
            rejected.append(Rejected(folder.path, reason))
            continue
        partitions = folder.partitions
        inside = {id(partition) for partition in partitions}
        pending.extend(below for below in folder.below if id(below) not in inside)
        if partitions:
            yield from _hive_table(folder, partitions, place, good, rejected)
        if folder.files:
            yield from _flat_tables(folder, place, good, rejected, whole=folder is not root, hive=bool(partitions))


def _hive_table(
    folder: Folder,
    partitions: Sequence[Folder],
    place: Place,
    good: Mapping[FileState, Footer],
    rejected: list[Rejected],
) -> Iterator[_Unnamed]:
    inside = [below for partition in partitions for below in descend(partition)]
    files = [state for below in inside for state in below.files]
    keys = {tuple((partition_of(name) or ("", ""))[0] for name in _below(folder, f)) for f in inside if f.files}
    reason = ""
    if folder.files:
        reason = "has Parquet files beside its partition folders, whose rows have no value for the partition columns"
    elif len(keys) > 1:
        some, other = sorted(keys)[:2]
        reason = f"has partition folders of different keys: {'/'.join(some)} and {'/'.join(other)}"
    elif any(state not in good for state in files):
        bad = next(state.path for state in files if state not in good)
        reason = f"would be a table with a hole: {bad} cannot be read"
    stamps = {below.path: below.stamp for below in (folder, *inside)}
    listing = _listing(folder, place, files, stamps, hive=True)
    if not reason:
        try:
            united(listing, [good[state] for state in listing.files])
        except LakeletError as e:
            reason = str(e)
    if reason:
        rejected.append(Rejected(folder.path, reason))
        return
    yield _Unnamed(_words(folder, place), listing)


def _below(folder: Folder, inside: Folder) -> tuple[str, ...]:
    return inside.relative[len(folder.relative) :]


def _flat_tables(
    folder: Folder,
    place: Place,
    good: Mapping[FileState, Footer],
    rejected: list[Rejected],
    *,
    whole: bool,
    hive: bool,
) -> Iterator[_Unnamed]:
    """The files directly in a folder: one table, or one each. ``whole`` says that files of one schema are one."""
    files = [state for state in folder.files if state in good]
    parts = all(_PART.match(os.path.basename(state.path)) for state in folder.files)
    if parts and files and len(files) < len(folder.files) and not hive:
        bad = next(state.path for state in folder.files if state not in good)
        rejected.append(Rejected(folder.path, f"would be a table with a hole: {bad} cannot be read"))
        return
    together = (whole or parts) and not hive and len(files) == len(folder.files) and _one_schema(files, good)
    if together:
        yield _Unnamed(_words(folder, place), _listing(folder, place, files, {folder.path: folder.stamp}))
        return
    for state in files:
        stem = os.path.basename(state.path).rsplit(".", 1)[0]
        at = Place(state.path, place.inner(state.path), place.filesystem)
        yield _Unnamed((*folder.relative, stem), Listing(at, False, folder.path, (state,), {}))


def _one_schema(files: Sequence[FileState], good: Mapping[FileState, Footer]) -> bool:
    if not files:
        return False
    first = good[files[0]].schema
    return all(good[state].schema.equals(first) for state in files[1:])


def _listing(
    folder: Folder, place: Place, files: Sequence[FileState], stamps: Mapping[str, str], hive: bool = False
) -> Listing:
    at = Place(folder.path, place.inner(folder.path), place.filesystem)
    ordered = tuple(sorted(files, key=lambda state: state.path))
    return Listing(at, hive, folder.path, ordered, stamps if place.filesystem is None else {})


# --- names -------------------------------------------------------------------------------------------------------


def _words(folder: Folder, place: Place) -> tuple[str, ...]:
    return folder.relative or (os.path.basename(place.path.rstrip("/")),)


def _named(tables: Sequence[_Unnamed], taken: Collection[str]) -> Iterator[Found]:
    used = {name.casefold() for name in taken}
    for table in tables:
        wanted = _clean("_".join(table.words))
        name, number = wanted, 1
        while name.casefold() in used:
            number += 1
            name = f"{_cut(wanted, NAME_BYTES - len(str(number)) - 1)}_{number}"
        used.add(name.casefold())
        listing = table.listing
        yield Found(name, listing.place.location, listing.hive, listing)


def _clean(text: str) -> str:
    return _cut(_UNNAMEABLE.sub("_", text.encode(errors="replace").decode()), NAME_BYTES) or "table"


def _cut(name: str, num_bytes: int) -> str:
    return name.encode()[:num_bytes].decode(errors="ignore")
