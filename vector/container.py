"""One file that holds named arrays, a kind and some JSON: what a vector index is kept in::

    0        magic LAKELETV, format u32, crc32 of the header u32, bytes of the header u64, crc32 of these 24 bytes u32
    28       header: JSON in ASCII, keys sorted, no blanks
    n·4096   the arrays, sorted by name, each from the next multiple of 4,096 bytes on; the file ends with the last

The header is ``{"arrays": […], "kind", "meta", "writer"}``, an array ``{"crc32", "dtype", "name", "nbytes", "offset",
"shape"}``. Offsets count from the first multiple of 4,096 after the header, so that it does not depend on its own
length; a crc32 is eight hex digits, so that its length is known before the arrays were read. All numbers are
little-endian, arrays in C order, gaps are zero. The first 28 bytes mean the same in every format.
"""

from __future__ import annotations

import errno
import io
import json
import math
import mmap as memory_map
import os
import stat
import struct
import sys
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from ..lake.errors import CommitUnknown, Corrupt, InvalidInput, LakeletError, LimitExceeded, NotFound, Unavailable
from ..lake.local_store import remove_quietly, sync_folder, unavailable

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["FORMAT", "HEADER_BYTES", "JSON", "Pieces", "read", "refused", "write"]

JSON: TypeAlias = "dict[str, Any] | list[Any] | str | int | float | bool | None"
"""What ``json.loads`` makes."""
Pieces: TypeAlias = "npt.NDArray[Any] | Sequence[npt.NDArray[Any]]"
"""An array, or arrays to be put one after another along the first axis."""

FORMAT: Final = 1
"""Version of the file. A reader refuses anything newer."""
HEADER_BYTES: Final = 16 * 2**20
"""A header above this is refused: fewer arrays, or less in ``meta``."""
PAGE_BYTES: Final = 4_096
"""Every array starts at a multiple of this."""
CHUNK_BYTES: Final = 1 * 2**20
"""Bytes of an array that are checked, copied and written at a time."""

_MAGIC: Final = b"LAKELETV"
_START: Final = struct.Struct("<8sIIQ")
_CRC: Final = struct.Struct("<I")
_START_BYTES: Final = _START.size + _CRC.size
_NAMES: Final = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64"
_DTYPES: Final = {name: np.dtype(name).newbyteorder("<") for name in _NAMES.split()}
_FOREIGN: Final = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a zip archive or NumPy .npz",
    b"\x93NUMPY": "a NumPy .npy file",
    b"ARROW1": "an Arrow file",
}
_MEND: Final = "build the index again, or restore the file"
_MENDS: Final = {
    errno.EACCES: "permission denied: grant this user read and write on the file and its folder",
    errno.EPERM: "not permitted: this user must own the file and its folder",
    errno.EROFS: "read-only file system: choose another path, or mount it for writing",
    errno.ENOENT: "its folder is not there: make it first",
    errno.ENOTDIR: "a file stands where its folder is needed: choose another path",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter one",
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """One array as the header has it: ``offset`` counts from the first page after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    crc32: str = "00000000"


def write(path: str | os.PathLike[str], *, kind: str, meta: Mapping[str, JSON], arrays: Mapping[str, Pieces]) -> None:
    """Write the container, or replace the one that stands at ``path``, atomically and durably.

    ``arrays``: of bool, int8 to int64, uint8 to uint64 or float16 to float64, any shape (0-d and empty ones too), any
    byte order and strides; a sequence of arrays of one dtype is joined along axis 0. They are streamed: memory for
    some CHUNK_BYTES is taken. ``meta`` must come back from JSON equal to what it is, so no tuples, no NaN, no keys
    other than str. The same content gives the same bytes, whatever the order of the mappings. A symbolic link is
    followed, and permissions of a file that is replaced are kept.

    Raises InvalidInput for other dtypes or meta, or when something else than a container or an empty file stands at
    ``path``; LimitExceeded for a header above HEADER_BYTES; Unavailable when the disk is full or permission is denied:
    nothing was changed then. CommitUnknown: written, but it may not survive power loss.
    """
    target = os.path.realpath(_checked_path(path))
    if not isinstance(kind, str) or not kind:
        raise InvalidInput(f"found the kind {kind!r}; expected a word for what the file holds, such as 'hnsw'")
    if not all(isinstance(name, str) for name in arrays):
        raise InvalidInput(f"found the array names {list(arrays)!r}; expected a str for each")
    pieces = {name: _pieces(name, arrays[name]) for name in sorted(arrays)}
    entries = _laid_out(pieces)
    meta = _checked_meta(meta)
    start = _page(_START_BYTES + len(_header(kind, meta, entries)))
    end = start + (entries[-1].offset + entries[-1].nbytes if entries else 0)
    temporary = os.path.join(os.path.dirname(target), f".lakelet-{uuid.uuid4().hex}.tmp")
    try:
        mode = _mode_to_replace(target)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            if mode is not None:
                os.fchmod(descriptor, mode)
            os.ftruncate(descriptor, end)  # gaps read as zero
            entries = [_write_array(descriptor, pieces[entry.name], entry, start) for entry in entries]
            header = _header(kind, meta, entries)
            first = _START.pack(_MAGIC, FORMAT, zlib.crc32(header), len(header))
            _write_all(descriptor, memoryview(first + _CRC.pack(zlib.crc32(first)) + header), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, target)
    except OSError as error:
        raise refused(error, target, "write") from error
    finally:
        remove_quietly(temporary)
    try:
        sync_folder(os.path.dirname(target))
    except OSError as error:
        told = f"{target} was written, but may not survive power loss: its folder could not be synced ({error})"
        raise CommitUnknown(f"{told}; see that the disk works and write it again") from error


def read(
    path: str | os.PathLike[str], *, kind: str, mmap: bool = True, verify: bool = True
) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """``meta`` and the arrays by name, sorted, of the container of this kind.

    Arrays have the shape and dtype they were written with, little-endian. With ``mmap`` they are views of one mapping
    of the file, which lives as long as one of them and does not see later writes; without, they are copies. Both may be
    written to, which never reaches the file. With ``verify`` every byte of the file is read and checked; without, the
    header alone is, and that the file has the length that the header says.

    Raises NotFound; InvalidInput for a file that is no container, holds another kind or was written by a newer
    lakelet; Corrupt with ``path`` and ``offset`` when it is cut short or damaged; LimitExceeded for a header above
    HEADER_BYTES; Unavailable when the disk or a permission refuses.
    """
    name = _checked_path(path)
    try:
        with _open(name) as file:
            size = os.fstat(file.fileno()).st_size
            header, header_end = _read_header(file, size, name)
            start = _page(header_end)
            entries = _entries(header, start, size, name)
            if header["kind"] != kind:
                raise InvalidInput(f"{name} holds the kind {header['kind']!r}; expected {kind!r}: name a file of it")
            if verify:
                _check_gaps(file, header_end, start, entries, name)
            mapping = _mapped(file, size) if mmap else None
            arrays = {entry.name: _load(file, entry, start + entry.offset, mapping, verify, name) for entry in entries}
            return header["meta"], arrays
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(f"found no file at {name}; expected a container of kind {kind!r}: write it first") from error
    except OSError as error:
        raise refused(error, name, "read") from error


def _mapped(file: io.FileIO, size: int) -> memory_map.mmap:
    """The file in memory. Rows are met here and there: reading ahead would fill memory with what nobody asks for."""
    mapping = memory_map.mmap(file.fileno(), size, access=memory_map.ACCESS_COPY)
    if hasattr(memory_map, "MADV_RANDOM"):
        mapping.madvise(memory_map.MADV_RANDOM)
    return mapping


def _checked_path(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidInput(f"found the path {text!r}; expected the path of a file")
    return text


def _page(position: int) -> int:
    """The first multiple of PAGE_BYTES that is not before the position."""
    return -(-position // PAGE_BYTES) * PAGE_BYTES


def refused(error: OSError, path: str, doing: str) -> LakeletError:
    """What to raise for an error of the disk that holds an index, with the mend."""
    mend = _MENDS.get(error.errno or 0)
    return Unavailable(f"could not {doing} {path}: {mend}") if mend else unavailable(error, path, doing)


def _open(path: str) -> io.FileIO:
    """The file, open for reading; InvalidInput for what is none. A pipe is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb", buffering=0)
    os.close(descriptor)
    what = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
    raise InvalidInput(f"{what} stands at {path}; expected a lakelet container: name a file")


def _foreign(first: bytes, path: str) -> InvalidInput:
    known = (what for magic, what in _FOREIGN.items() if first.startswith(magic))
    seems = next(known, f"of a format unknown here, it starts with {first[:8]!r}")
    return InvalidInput(f"{path} is {seems}; expected a lakelet container or no file: name another path")


def _pieces(name: str, given: Pieces) -> list[npt.NDArray[Any]]:
    """The arrays that make up one, all of one dtype that is kept, and fitting along axis 0 when there are several."""
    pieces: list[npt.NDArray[Any]] = list(given) if isinstance(given, Sequence) else [given]
    for piece in pieces:
        if not isinstance(piece, np.ndarray) or isinstance(piece, np.ma.MaskedArray):
            raise InvalidInput(f"array {name!r}: found {type(piece).__name__}; expected numpy arrays without a mask")
        if piece.dtype.name not in _DTYPES:
            raise InvalidInput(f"array {name!r}: found the dtype {piece.dtype}; convert it to one of {_NAMES}")
    fits = all(piece.ndim for piece in pieces) and len({(piece.dtype.name, piece.shape[1:]) for piece in pieces}) == 1
    if isinstance(given, Sequence) and not fits:
        found = ", ".join(sorted({f"{piece.dtype} {piece.shape}" for piece in pieces})[:4]) or "none"
        raise InvalidInput(f"array {name!r}: found the pieces {found}; expected one or more that fit along axis 0")
    return [np.asarray(piece) for piece in pieces]


def _laid_out(arrays: Mapping[str, Sequence[npt.NDArray[Any]]]) -> list[_Entry]:
    """Entries without checksums, in the order of the arrays."""
    entries, offset = [], 0
    for name, pieces in arrays.items():
        first = pieces[0]
        shape = (sum(len(piece) for piece in pieces), *first.shape[1:]) if first.ndim else ()
        entries.append(_Entry(name, first.dtype.name, shape, offset, sum(piece.nbytes for piece in pieces)))
        offset = _page(offset + entries[-1].nbytes)
    return entries


def _checked_meta(meta: Mapping[str, JSON]) -> dict[str, Any]:
    """A copy that comes from JSON and equals ``meta``."""
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(meta), allow_nan=False))
        if copy != dict(meta):
            raise ValueError("it comes back changed: tuples as lists, keys as str")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"meta cannot be kept: {error}; expected what JSON holds, with str as keys") from error
    return copy


def _header(kind: str, meta: dict[str, Any], entries: list[_Entry]) -> bytes:
    """The header, of the same length with and without checksums."""
    writer = f"lakelet {sys.modules[__name__.partition('.')[0]].__version__}"
    header = {"arrays": [asdict(entry) for entry in entries], "kind": kind, "meta": meta, "writer": writer}
    data = json.dumps(header, sort_keys=True, separators=(",", ":")).encode("ascii")
    if len(data) > HEADER_BYTES:
        told = f"the header of {len(entries):,} arrays and meta has {len(data):,} bytes"
        raise LimitExceeded(f"{told}, at most {HEADER_BYTES:,} are kept: put what is large into an array")
    return data


def _mode_to_replace(target: str) -> int | None:
    """Permissions of the container at ``target``, None when nothing stands there; InvalidInput for what is foreign."""
    try:
        with _open(target) as file:
            mode, first = os.fstat(file.fileno()).st_mode, file.read(len(_MAGIC))
    except FileNotFoundError:
        return None
    if first not in {b"", _MAGIC}:
        raise _foreign(first, target)
    return mode & 0o777


def _chunks(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> Iterator[memoryview]:
    """The bytes of the array in C order and in this dtype, a part at a time."""
    if array.dtype == dtype and array.flags.c_contiguous:
        flat = array.reshape(-1).view(np.uint8)
        for at in range(0, len(flat), CHUNK_BYTES):
            yield flat[at : at + CHUNK_BYTES].data
        return
    flags: Any = ("external_loop", "buffered", "zerosize_ok")
    size = CHUNK_BYTES // dtype.itemsize
    for part in np.nditer(array, flags, order="C", op_dtypes=[dtype], casting="equiv", buffersize=size):
        yield np.ascontiguousarray(part).view(np.uint8).data


def _write_array(descriptor: int, pieces: Sequence[npt.NDArray[Any]], entry: _Entry, start: int) -> _Entry:
    """Write the array to its place; the entry with its checksum."""
    crc, position = 0, start + entry.offset
    for piece in pieces:
        for chunk in _chunks(piece, _DTYPES[entry.dtype]):
            crc = zlib.crc32(chunk, crc)
            _write_all(descriptor, chunk, position)
            position += len(chunk)
    return replace(entry, crc32=f"{crc:08x}")


def _write_all(descriptor: int, view: memoryview, position: int) -> None:
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written


def _corrupt(path: str, found: str, offset: int) -> Corrupt:
    return Corrupt(f"{path} {found}; {_MEND}", path=path, offset=offset)


def _read_into(file: io.FileIO, position: int, view: memoryview, path: str) -> None:
    """Fill the buffer from this position on; Corrupt where the file ends before."""
    done = 0
    file.seek(position)
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise _corrupt(path, f"is cut short at byte {position + done:,}", position + done)
        done += count


def _read_bytes(file: io.FileIO, position: int, count: int, path: str) -> bytes:
    found = bytearray(count)
    _read_into(file, position, memoryview(found), path)
    return bytes(found)


def _read_header(file: io.FileIO, size: int, path: str) -> tuple[dict[str, Any], int]:
    """The parsed header, and where it ends."""
    first = _read_bytes(file, 0, min(size, _START_BYTES), path)
    crc_fits = first[-4:] == _CRC.pack(zlib.crc32(_MAGIC + first[8:-4]))
    if not first.startswith(_MAGIC[: len(first)]):
        raise _corrupt(path, "is damaged in its first 8 bytes", 0) if crc_fits else _foreign(first, path)
    if len(first) < _START_BYTES:
        raise _corrupt(path, f"is cut short at byte {size}", size)
    _, found, crc, nbytes = _START.unpack_from(first)
    if not crc_fits or not found:
        raise _corrupt(path, f"is damaged in its first {_START_BYTES} bytes", 8)
    if found > FORMAT:
        raise InvalidInput(f"{path}: format {found}, this lakelet reads up to {FORMAT}: pip install --upgrade lakelet")
    if _START_BYTES + nbytes > size:
        raise _corrupt(path, f"is cut short at byte {size:,}, in its header", size)
    if nbytes > HEADER_BYTES:
        raise LimitExceeded(f"{path} has a header of {nbytes:,} bytes; at most {HEADER_BYTES:,} are read: {_MEND}")
    data = _read_bytes(file, _START_BYTES, nbytes, path)
    try:
        if zlib.crc32(data) != crc:
            raise ValueError("its checksum does not match")
        header = json.loads(data)
        if not (isinstance(header["meta"], dict) and isinstance(header["kind"], str)):
            raise TypeError("it has no kind or no meta")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _corrupt(path, f"has a damaged header: {error}", _START_BYTES) from error
    return header, _START_BYTES + nbytes


def _entries(header: dict[str, Any], start: int, size: int, path: str) -> list[_Entry]:
    """What the header says of the arrays; Corrupt unless they lie one after another and fill the file."""
    entries: list[_Entry] = []
    offset, end = 0, start
    try:
        for found in header["arrays"]:
            name, shape, dtype = found["name"], tuple(found["shape"]), found["dtype"]
            if not isinstance(name, str) or (entries and entries[-1].name >= name):
                raise ValueError(f"array {name!r} is there twice, or not in order")
            sane = len(shape) <= 64 and all(type(length) is int and length >= 0 for length in shape)
            if not sane or math.prod(length or 1 for length in shape) >= 2**63 // _DTYPES[dtype].itemsize:
                raise ValueError(f"array {name!r} has the shape {shape[:65]}")
            entry = _Entry(name, dtype, shape, offset, math.prod(shape) * _DTYPES[dtype].itemsize, found["crc32"])
            if (found["offset"], found["nbytes"]) != (offset, entry.nbytes):
                told = f"{found['nbytes']} bytes at {found['offset']}, expected {entry.nbytes} at {offset}"
                raise ValueError(f"array {name!r} of {dtype} {shape} has {told}")
            entries.append(entry)
            end = start + offset + entry.nbytes
            offset = _page(offset + entry.nbytes)
    except (ValueError, KeyError, TypeError) as error:
        raise _corrupt(path, f"has a damaged header: {error!r}", _START_BYTES) from error
    if size != end:
        raise _corrupt(path, f"has {size:,} bytes, its header says {end:,}", min(size, end))
    return entries


def _check_gaps(file: io.FileIO, end: int, start: int, entries: list[_Entry], path: str) -> None:
    """Corrupt unless the bytes between header and arrays, which no checksum covers, are zero."""
    for offset, nbytes in [(entry.offset, entry.nbytes) for entry in entries] or [(0, 0)]:
        gap = _read_bytes(file, end, start + offset - end, path)
        if gap.strip(b"\0"):
            wrong = end + len(gap) - len(gap.lstrip(b"\0"))
            raise _corrupt(path, f"is damaged at byte {wrong:,}", wrong)
        end = start + offset + nbytes


def _load(
    file: io.FileIO, entry: _Entry, position: int, mapping: memory_map.mmap | None, verify: bool, path: str
) -> npt.NDArray[Any]:
    """The array as a view of the mapping, or as a copy when there is none."""
    buffer = mapping if entry.nbytes else None
    values = np.ndarray(entry.shape, _DTYPES[entry.dtype], buffer, position if buffer else 0)
    if mapping is None or verify:
        # Read, not looked at through the mapping: that is quicker, and a disk that fails is an error, not a signal.
        room = np.empty(min(CHUNK_BYTES, entry.nbytes), np.uint8) if mapping else values.reshape(-1).view(np.uint8)
        crc = 0
        for at in range(0, entry.nbytes, CHUNK_BYTES):
            chunk = (room if mapping else room[at:])[: min(CHUNK_BYTES, entry.nbytes - at)].data
            _read_into(file, position + at, chunk, path)
            crc = zlib.crc32(chunk, crc) if verify else 0
        if verify and f"{crc:08x}" != entry.crc32:
            raise _corrupt(path, f"has a damaged array {entry.name!r}: its checksum does not match", position)
    return values
