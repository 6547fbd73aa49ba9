"""The walk over a tree of folders, local or in an fsspec store: every Parquet file in it, with what could not be read.

Symbolic links are followed, each folder once: a loop, or a second way into a folder, is reported and not entered.
"""

from __future__ import annotations

import os
import stat as stat_module
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import InvalidInput, LakeletError, NotFound, Unavailable
from .footers import FileState, file_state, read_error
from .listing import Place, folder_stamp, is_hidden, is_parquet_name, partition_of, remote_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Folder", "Rejected", "descend", "walk"]

_OTHER_FORMATS = {"_delta_log": "Delta", ".hoodie": "Hudi"}
_ICEBERG_METADATA = ".metadata.json"
_LAKE = "_lakelet"
_LAKE_DATA = "data"
"""In the root of a lakelet lake: the files of its own tables, which its log speaks for."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something in a tree that is no table, and why."""

    location: str
    reason: str


@dataclass(slots=True)
class Folder:
    """One folder of a walk: its Parquet files, and the folders below it that are to be looked at.

    ``relative`` are the folder names below the tree's root. ``other_format`` names the table format whose log lies
    here; such a folder's files are not listed.
    """

    path: str
    relative: tuple[str, ...] = ()
    stamp: str = ""
    files: list[FileState] = field(default_factory=list)
    below: list[Folder] = field(default_factory=list)
    other_format: str = ""

    @property
    def partitions(self) -> list[Folder]:
        """The folders directly below that are named ``key=value`` and hold files."""
        return [f for f in self.below if partition_of(f.relative[-1]) and any(d.files for d in descend(f))]


def descend(folder: Folder) -> Iterator[Folder]:
    """The folder and every one below it, parents first."""
    pending = [folder]
    while pending:
        one = pending.pop()
        yield one
        pending.extend(reversed(one.below))


def walk(place: Place, rejected: list[Rejected]) -> Folder:
    """The tree at a place, files and folders sorted by name; what cannot be read is added to ``rejected``.

    Raises NotFound when there is no such folder and Unavailable when it cannot be read itself.
    """
    if place.filesystem is not None:
        return _walk_remote(place)
    root = Folder(place.path)
    try:
        found = os.stat(place.path)
        if not stat_module.S_ISDIR(found.st_mode):
            raise InvalidInput(f"{place.location} is a file. Name a folder, or attach the file by itself.")
        seen = {(found.st_dev, found.st_ino): place.path}
        _list(root, found, rejected)
    except OSError as e:
        raise _no_tree(place, e) from e
    pending = list(reversed(root.below))
    while pending:
        folder = pending.pop()
        try:
            found = os.stat(folder.path)
            before = seen.setdefault((found.st_dev, found.st_ino), folder.path)
            if before != folder.path:
                rejected.append(Rejected(folder.path, f"the same folder as {before}, reached by a symbolic link"))
                continue
            _list(folder, found, rejected)
        except OSError as e:
            rejected.append(Rejected(folder.path, f"cannot be read: {_reason(e)}"))
        pending.extend(reversed(folder.below))
    return root


def _list(folder: Folder, found: os.stat_result, rejected: list[Rejected]) -> None:
    """Fill in a local folder's files and the folders below it; those are not entered."""
    folder.stamp = folder_stamp(found)
    with os.scandir(folder.path) as listed:
        entries = sorted(listed, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name in _OTHER_FORMATS:
            folder.other_format = _OTHER_FORMATS[entry.name]
        elif entry.name == "metadata" and _is_iceberg(entry):
            folder.other_format = "Iceberg"
    if folder.other_format:
        return
    is_lake = any(entry.name == _LAKE for entry in entries)
    for entry in entries:
        if is_hidden(entry.name) or (is_lake and entry.name == _LAKE_DATA):
            continue
        if entry.is_dir():
            folder.below.append(Folder(entry.path, (*folder.relative, entry.name)))
        elif is_parquet_name(entry.name):
            try:
                status = os.stat(entry.path)
            except OSError as e:
                rejected.append(Rejected(entry.path, f"cannot be read: {_reason(e)}"))
                continue
            if stat_module.S_ISREG(status.st_mode):
                folder.files.append(file_state(entry.path, status))
            else:
                rejected.append(Rejected(entry.path, "is no regular file but a pipe, socket or device"))


def _is_iceberg(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and any(name.endswith(_ICEBERG_METADATA) for name in os.listdir(entry.path))
    except OSError:
        return False


def _walk_remote(place: Place) -> Folder:
    filesystem = place.filesystem
    assert filesystem is not None
    root_path = place.path.rstrip("/")
    try:
        filesystem.invalidate_cache()
        every: dict[str, Any] = filesystem.find(root_path, detail=True)
        if not every and not filesystem.exists(place.path):
            raise FileNotFoundError(place.location)
    except Exception as e:  # fsspec stores raise what they please
        raise _no_tree(place, e) from e
    if root_path in every:
        raise InvalidInput(f"{place.location} is a file. Name a folder, or attach the file by itself.")
    root = Folder(place.uri(root_path))
    folders: dict[tuple[str, ...], Folder] = {(): root}
    names = {name: name[len(root_path) :].lstrip("/").split("/") for name in sorted(every)}
    lakes = {tuple(words[: words.index(_LAKE)]) for words in names.values() if _LAKE in words}
    for name, (*parents, leaf) in names.items():
        if any(parents[depth] == _LAKE_DATA and tuple(parents[:depth]) in lakes for depth in range(len(parents))):
            continue
        folder = _remote_folder(tuple(parents), folders, root)
        if folder is not None and is_parquet_name(leaf):
            info = every[name]
            folder.files.append(FileState(place.uri(name), int(info["size"]), remote_stamp(info)))
        elif parents and parents[-1] == "metadata" and leaf.endswith(_ICEBERG_METADATA):
            folders[tuple(parents[:-1])].other_format = "Iceberg"
    for folder in folders.values():
        if folder.other_format:
            folder.files, folder.below = [], []
    return root


def _remote_folder(relative: tuple[str, ...], folders: dict[tuple[str, ...], Folder], root: Folder) -> Folder | None:
    """The folder of that relative path, made with its parents when new; None below a hidden one."""
    for depth, name in enumerate(relative, start=1):
        parent = folders[relative[: depth - 1]]
        if name in _OTHER_FORMATS:
            parent.other_format = _OTHER_FORMATS[name]
        if is_hidden(name):
            return None
        if relative[:depth] not in folders:
            folder = Folder("/".join((root.path, *relative[:depth])), relative[:depth])
            folders[relative[:depth]] = folder
            parent.below.append(folder)
    return folders[relative]


def _no_tree(place: Place, error: BaseException) -> LakeletError:
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{place.location} is not there. Name a folder that is.")
    found = read_error(place.location, error)
    return found if isinstance(found, Unavailable) else Unavailable(str(found))


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
