"""The files of a location: a file, a folder, a Hive-partitioned folder or a glob, on a local disk or any fsspec store.

Only names that end as Parquet files do are taken from folders, and none that starts with ``_`` or ``.`` (markers,
checksums, logs). Files come sorted by path. A listing remembers its folders' times of change, so that a later check
costs one ``stat`` a file and a folder instead of reading the folders again.
"""

from __future__ import annotations

import datetime as dt
import glob
import os
import stat as stat_module
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from .errors import InvalidInput, LakeletError, NotFound, Unavailable
from .footers import FileState, file_state, read_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    import fsspec
    import pyarrow.fs

__all__ = [
    "Listing",
    "Place",
    "folder_stamp",
    "is_current",
    "is_hidden",
    "is_parquet_name",
    "list_files",
    "partition_of",
    "place_of",
    "remote_stamp",
    "state_now",
]

PARQUET_SUFFIXES = (".parquet", ".parq", ".pq")
_GLOB_CHARACTERS = frozenset("*?[")
_RACY_NS = 50_000_000
"""A folder that changed this shortly before it was listed may change again within one tick of its clock."""
_STAMP_KEYS = ("ETag", "etag", "last_modified", "LastModified", "updated", "mtime", "modified", "created")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a location is. ``path`` is absolute; ``filesystem`` is the fsspec file system, None for local paths."""

    location: str
    path: str
    filesystem: fsspec.AbstractFileSystem | None

    def uri(self, path: str) -> str:
        """The path or URI by which DuckDB finds ``path``, a path as the file system names it."""
        return path if self.filesystem is None else str(self.filesystem.unstrip_protocol(path))

    def inner(self, uri: str) -> str:
        """The path as the file system names it, from what :meth:`uri` gave."""
        return uri if self.filesystem is None else str(self.filesystem._strip_protocol(uri))

    def arrow(self) -> pyarrow.fs.FileSystem:
        """The Arrow file system in which :meth:`inner` paths are opened."""
        from pyarrow.fs import FSSpecHandler, LocalFileSystem, PyFileSystem

        return LocalFileSystem() if self.filesystem is None else PyFileSystem(FSSpecHandler(self.filesystem))


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a location and what tells that there are no others: ``folders`` maps a path to its stamp.

    ``root`` is the folder below which ``key=value`` folder names are columns, as the files' paths start with it.
    ``folders`` is empty when only listing again can tell (globs, object stores).
    """

    place: Place
    hive: bool
    root: str
    files: tuple[FileState, ...]
    folders: Mapping[str, str]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name holds no rows by convention."""
    return name.startswith(("_", "."))


def is_parquet_name(name: str) -> bool:
    """Whether a file of this name is taken as Parquet when a folder is listed."""
    return name.lower().endswith(PARQUET_SUFFIXES) and not is_hidden(name)


def partition_of(segment: str) -> tuple[str, str] | None:
    """Key and value of a folder name ``key=value``, both URL-decoded; None for any other name."""
    key, equals, value = segment.partition("=")
    return (unquote(key), unquote(value)) if equals and key else None


def place_of(location: str, storage_options: Mapping[str, Any] | None = None) -> Place:
    """Where ``location`` (a local path, ``file://`` or any fsspec URI) is. Nothing is asked of it yet.

    Raises InvalidInput for an empty location or an unknown protocol, Unavailable when its package is missing.
    """
    if not location or "\0" in location:
        raise InvalidInput(f"{location!r} is no location. Name a file, a folder, a glob or a URI.")
    if "://" not in location:
        return Place(location, os.path.abspath(location), None)
    if location.startswith("file://"):
        return Place(location, os.path.abspath(location.removeprefix("file://")), None)
    from fsspec.core import url_to_fs

    protocol = location.partition("://")[0]
    try:
        filesystem, path = url_to_fs(location, **dict(storage_options or {}))
    except ImportError as e:
        raise Unavailable(f"{location} needs a package that is not installed: {e}.") from e
    except ValueError as e:
        raise InvalidInput(
            f"{location} has the unknown protocol {protocol!r}. Name a local path or s3, abfs, gs."
        ) from e
    except Exception as e:
        raise read_error(location, e) from e
    return Place(location, path, filesystem)


def list_files(place: Place, hive: bool = False) -> Listing:
    """Every Parquet file of the place now, sorted by path; ``hive`` looks below its ``key=value`` folders too.

    Raises NotFound when there is nothing of that name, Unavailable when it cannot be read.
    """
    try:
        listing = _list_local(place, hive) if place.filesystem is None else _list_remote(place, hive)
    except LakeletError:
        raise
    except Exception as e:  # fsspec stores raise what they please
        raise read_error(place.location, e) from e
    if not listing.files:
        raise NotFound(
            f"{place.location} holds no Parquet file (names ending in {', '.join(PARQUET_SUFFIXES)}, "
            "not starting with _ or .). Name a folder that does, a file, or a glob."
        )
    return listing


def is_current(listing: Listing) -> bool:
    """Whether the local files and folders of a listing are as they were. False where only listing again can tell."""
    files = listing.files
    if not listing.folders and (len(files) != 1 or files[0].path != listing.place.path):
        return False  # a glob: any folder may have gained a file that fits
    try:
        for path, stamp in listing.folders.items():
            if folder_stamp(os.stat(path)) != stamp:
                return False
        return all(file_state(state.path, os.stat(state.path)) == state for state in files)
    except OSError:
        return False


def state_now(place: Place, state: FileState) -> FileState | None:
    """The state of one file of a listing by now; None when it is gone or cannot be asked."""
    try:
        if place.filesystem is None:
            return file_state(state.path, os.stat(state.path))
        info = place.filesystem.info(place.inner(state.path))
        return FileState(state.path, int(info["size"]), remote_stamp(info))
    except Exception:  # fsspec stores raise what they please; whatever it is, the file cannot be vouched for
        return None


# --- local disk --------------------------------------------------------------------------------------------------


def _list_local(place: Place, hive: bool) -> Listing:
    path = place.path
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if _GLOB_CHARACTERS.isdisjoint(path):
            raise
        return _list_local_glob(place)
    if not stat_module.S_ISDIR(found.st_mode):
        return Listing(place, False, os.path.dirname(path), (_regular(path, found),), {})
    files: list[FileState] = []
    folders: dict[str, str] = {}
    _scan(path, hive, files, folders)
    files.sort(key=lambda state: state.path)
    return Listing(place, hive, path, tuple(files), folders)


def _scan(folder: str, hive: bool, files: list[FileState], folders: dict[str, str]) -> None:
    """Add the folder's Parquet files to ``files`` and its stamp to ``folders``; with ``hive``, all below it too."""
    folders[folder] = folder_stamp(os.stat(folder))
    below: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                if hive and partition_of(entry.name):
                    below.append(entry.path)
            elif is_parquet_name(entry.name):
                files.append(_regular(entry.path, os.stat(entry.path)))
    for path in below:
        _scan(path, hive, files, folders)


def folder_stamp(found: os.stat_result) -> str:
    """The folder's time of change; one that just changed gets a stamp that no later one equals."""
    if time.time_ns() - found.st_mtime_ns < _RACY_NS:
        return f"racy.{time.monotonic_ns()}"
    return f"{found.st_mtime_ns}.{found.st_ino}"


def _regular(path: str, found: os.stat_result) -> FileState:
    if not stat_module.S_ISREG(found.st_mode):
        raise InvalidInput(f"{path} is no regular file (a pipe, socket or device). Name a Parquet file.")
    return file_state(path, found)


def _list_local_glob(place: Place) -> Listing:
    files = [
        _regular(path, found)
        for path in glob.glob(place.path, recursive=True)
        if not is_hidden(os.path.basename(path)) and not stat_module.S_ISDIR((found := os.stat(path)).st_mode)
    ]
    files.sort(key=lambda state: state.path)
    return Listing(place, False, os.path.dirname(place.path), tuple(files), {})


# --- fsspec stores -----------------------------------------------------------------------------------------------


def _list_remote(place: Place, hive: bool) -> Listing:
    filesystem, path = place.filesystem, place.path.rstrip("/")
    assert filesystem is not None
    filesystem.invalidate_cache()
    found: dict[str, Any]
    root = path
    try:
        one = filesystem.info(path)
    except FileNotFoundError:
        if _GLOB_CHARACTERS.isdisjoint(path):
            raise
        found = filesystem.glob(path, detail=True)
        root, hive = path.rpartition("/")[0], False
    else:
        if one["type"] == "file":
            found, root, hive = {path: one}, path.rpartition("/")[0], False
        else:
            every = filesystem.find(path, maxdepth=None if hive else 1, detail=True)
            found = {name: info for name, info in every.items() if _belongs(name[len(root) :].strip("/"), hive)}
    files = [
        FileState(place.uri(name), int(info["size"]), remote_stamp(info))
        for name, info in found.items()
        if info["type"] == "file" and (len(found) == 1 or not is_hidden(name.rpartition("/")[2]))
    ]
    files.sort(key=lambda state: state.path)
    return Listing(place, hive, place.uri(root), tuple(files), {})


def _belongs(relative: str, hive: bool) -> bool:
    *folders, name = relative.split("/")
    return is_parquet_name(name) and (not folders or (hive and all(partition_of(f) for f in folders)))


def remote_stamp(info: Mapping[str, Any]) -> str:
    """The stamp of a file from what its fsspec file system tells of it; "" when it tells no ETag and no time.

    File systems tell the same time as a number in listings and as a datetime for one file: both give one stamp.
    """
    known = next((info[key] for key in _STAMP_KEYS if info.get(key) is not None), "")
    if isinstance(known, dt.datetime):
        known = known.timestamp()
    return f"{known:.6f}" if isinstance(known, float) else str(known).strip('"')
