"""Segments of the lake as local files, so that they can be mapped: where they lie, or in a bounded cache of copies."""

from __future__ import annotations

import hashlib
import os
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..lake.errors import Corrupt, NotFound, Unavailable
from ..lake.limits import VECTOR_SEGMENT_CACHE_BYTES
from ..lake.local_store import remove_quietly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..lake.store import Store
    from ..lake.table_index import IndexSegment

__all__ = ["local_segment", "scratch_folder", "uploaded"]

CHUNK_BYTES: Final = 8 * 2**20
SUFFIX: Final = ".segment"


def cache_folder() -> Path:
    """Where copies lie: LAKELET_CACHE_DIR, else below XDG_CACHE_HOME or ~/.cache, else below the folder for temporary
    files.
    """
    told = os.environ.get("LAKELET_CACHE_DIR")
    if told:
        return Path(told)
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = (Path(base) if base else Path.home() / ".cache") / "lakelet"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.gettempdir()) / "lakelet"


def scratch_folder() -> Path:
    """A folder for files that become segments."""
    folder = cache_folder() / "building"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be made: {error}; set LAKELET_CACHE_DIR to a folder with room") from error
    return folder


def local_segment(store: Store, lake_id: str, segment: IndexSegment) -> str:
    """The path of a segment as a local file, fetched and checked if the store is not local.

    NotFound when it is gone from the store, Corrupt when its bytes are not those that were committed.
    """
    if store.fsspec is None:
        path = store.full_path(segment.path)
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            raise _gone(segment) from None
        if size != segment.num_bytes:
            raise Corrupt(
                f"the index segment {segment.path} has {size:,} bytes, expected {segment.num_bytes:,}: restore it, or "
                "build the index anew by update_index(…, rebuild=True)",
                path=segment.path,
            )
        return path
    folder = cache_folder() / "segments" / lake_id
    copy = folder / segment.path.rpartition("/")[2]
    try:
        if copy.stat().st_size == segment.num_bytes:
            os.utime(copy)  # as of use: the longest unused go first
            return str(copy)
    except OSError:
        pass
    _fetch(store, segment, copy)
    _make_room(copy)
    return str(copy)


def uploaded(store: Store, local: str | os.PathLike[str], path: str) -> tuple[int, str]:
    """Put a local file into the store, durably; its bytes and their SHA-256 in hex."""
    checksum, size = hashlib.sha256(), 0
    try:
        if store.fsspec is None:
            os.makedirs(os.path.dirname(store.full_path(path)), exist_ok=True)
        with open(local, "rb") as source, store.arrow.open_output_stream(path) as sink:
            for chunk in _chunks(source):
                checksum.update(chunk)
                sink.write(chunk)
                size += len(chunk)
    except OSError as error:
        raise Unavailable(f"the index segment {path} cannot be written: {error}") from error
    store.sync(path)
    return size, checksum.hexdigest()


def _fetch(store: Store, segment: IndexSegment, copy: Path) -> None:
    checksum = hashlib.sha256()
    temporary = copy.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with store.arrow.open_input_file(segment.path) as source, open(temporary, "wb") as sink:
            for chunk in _chunks(source):
                checksum.update(chunk)
                sink.write(chunk)
        if checksum.hexdigest() != segment.checksum:
            raise Corrupt(
                f"the index segment {segment.path} is not what was committed: restore it, or build the index anew by "
                "update_index(…, rebuild=True)",
                path=segment.path,
            )
        os.replace(temporary, copy)
    except FileNotFoundError as error:
        raise _gone(segment) from error
    except OSError as error:
        raise Unavailable(f"the index segment {segment.path} cannot be fetched to {copy.parent}: {error}") from error
    finally:
        remove_quietly(str(temporary))


def _chunks(source: object) -> Iterator[bytes]:
    while chunk := source.read(CHUNK_BYTES):  # type: ignore[attr-defined]
        yield chunk


def _gone(segment: IndexSegment) -> NotFound:
    return NotFound(
        f"the index segment {segment.path} is gone from the lake: restore it, or build the index anew by "
        "update_index(…, rebuild=True)"
    )


def _make_room(newest: Path) -> None:
    """Remove the copies that were not used for longest, until VECTOR_SEGMENT_CACHE_BYTES suffice."""
    found = []
    for path in newest.parents[1].glob(f"*/*{SUFFIX}"):
        try:
            found.append((path.stat(), path))
        except OSError:
            continue  # another process removed it
    total = sum(told.st_size for told, _ in found)
    for told, path in sorted(found, key=lambda pair: pair[0].st_mtime):
        if total <= VECTOR_SEGMENT_CACHE_BYTES or path == newest:
            continue
        path.unlink(missing_ok=True)  # whoever has it mapped goes on with it
        total -= told.st_size
