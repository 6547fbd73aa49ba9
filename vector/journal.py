"""One file of operations, added to at its end: what happened to an index since its snapshot::

    0    magic LAKELETJ, format u32, generation u64, number of its first operation u64, salt u32, crc32 of these u32
    36   groups: magic LKJG, operations u32, number of the first u64, bytes of them u64, crc32 of them u32,
         crc32 of these 28 bytes u32, then the operations: kind u32, bytes u64, and these bytes

All numbers are little-endian; the checksum of a group's head starts from the salt, so that no bytes inside an operation
pass for a group. Operations of callers that wait at the same time make one group, written and synced once, and a group
is written only after the one before it was synced. So a bad group that is the last was never acknowledged, and is cut
off; a bad group before a good one is damage.
"""

from __future__ import annotations

import io
import logging
import os
import struct
import uuid
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ..lake.errors import CommitUnknown, Corrupt, InvalidInput, NotFound, Unavailable
from ..lake.local_store import remove_quietly, sync_folder
from .container import refused

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["FORMAT", "START_BYTES", "TEMPORARY", "Buffer", "Journal", "Record", "Scan", "write_durably"]

Buffer: TypeAlias = "bytes | memoryview"


class Record(NamedTuple):
    """One operation as it stands in the file."""

    kind: int
    pieces: Sequence[Buffer]


FORMAT: Final = 1
"""Version of the file. A reader refuses anything newer."""
TEMPORARY: Final = (".lakelet-", ".tmp")
"""How names of files begin and end that are being written."""
JOIN_BYTES: Final = 1 * 2**20
"""Pieces are joined up to so many bytes before they are written."""
SEARCH_BYTES: Final = 16 * 2**20
"""Read at a time in search of a group behind damage."""

_MAGIC: Final = b"LAKELETJ"
_START: Final = struct.Struct("<8sIQQI")
_GROUP_MAGIC: Final = b"LKJG"
_GROUP: Final = struct.Struct("<4sIQQI")
_RECORD: Final = struct.Struct("<IQ")
_CRC: Final = struct.Struct("<I")
START_BYTES: Final = _START.size + _CRC.size
_GROUP_BYTES: Final = _GROUP.size + _CRC.size
_MEND: Final = "restore the folder from a copy"


class Journal:
    """A journal that is written to, by one caller at a time.

    ``end`` is where the next group goes, ``sequence`` the number of the next operation, ``first`` of the first.
    """

    def __init__(self, path: str, file: io.FileIO, generation: int, first: int, salt: int) -> None:
        self.path, self.generation, self.first = path, generation, first
        self.end, self.sequence = START_BYTES, first
        self._file, self._salt = file, salt
        self._refusal = ""

    @classmethod
    def create(cls, path: str, generation: int, first: int) -> Journal:
        """An empty journal whose first operation will have this number; in its folder, durably, or not at all."""
        salt = int.from_bytes(os.urandom(4), "little")
        start = _START.pack(_MAGIC, FORMAT, generation, first, salt)
        write_durably(path, start + _CRC.pack(zlib.crc32(start)))
        return cls(path, _open(path, "r+b"), generation, first, salt)

    @classmethod
    def resumed(cls, scan: Scan) -> Journal:
        """The journal that was read to its end, to go on with; what is torn off is cut off."""
        file = _open(scan.path, "r+b")
        try:
            if scan.torn_bytes:
                os.ftruncate(file.fileno(), scan.end)
                os.fsync(file.fileno())
                told = "%s: cut off at byte %d; the %d bytes behind it are of operations that were never acknowledged"
                logging.getLogger("lakelet").warning(told, scan.path, scan.end, scan.torn_bytes)
        except OSError as error:
            file.close()
            raise refused(error, scan.path, "write") from error
        journal = cls(scan.path, file, scan.generation, scan.first, scan.salt)
        journal.end, journal.sequence = scan.end, scan.sequence
        return journal

    def append(self, records: Sequence[Record]) -> None:
        """Add the operations, all of them or none; they are on the disk when this returns.

        Unavailable when the disk refuses: the file is as it was then. CommitUnknown if it could not be made so: the
        operations may be found when the file is read, and nothing is added any more.
        """
        self.refuse_if_unusable()
        parts: list[Buffer] = []
        nbytes = crc = 0
        for record in records:
            size = sum(len(piece) for piece in record.pieces)
            parts += [_RECORD.pack(record.kind, size), *record.pieces]
            nbytes += _RECORD.size + size
        for part in parts:
            crc = zlib.crc32(part, crc)
        head = _GROUP.pack(_GROUP_MAGIC, len(records), self.sequence, nbytes, crc)
        try:
            end = self._write([head + _CRC.pack(zlib.crc32(head, self._salt)), *parts])
            os.fsync(self._file.fileno())
        except BaseException as error:
            self._take_back(error)
            raise
        self.end, self.sequence = end, self.sequence + len(records)

    def refuse(self, why: str) -> None:
        """Take no more operations."""
        self._refusal = self._refusal or why

    def refuse_if_unusable(self) -> None:
        """Unavailable if it takes no more operations."""
        if self._refusal:
            raise Unavailable(self._refusal)

    def close(self) -> None:
        """Let go of the file."""
        self.refuse(f"{self.path} is closed: open the index again")
        self._file.close()

    def _write(self, parts: Sequence[Buffer]) -> int:
        """Write behind the end; where that ends then."""
        position, small = self.end, bytearray()
        for part in parts:
            if len(small) + len(part) <= JOIN_BYTES:
                small += part
                continue
            position = _write_all(self._file.fileno(), small, position)
            small = bytearray()
            if len(part) <= JOIN_BYTES:
                small += part
            else:
                position = _write_all(self._file.fileno(), part, position)
        return _write_all(self._file.fileno(), small, position)

    def _take_back(self, error: BaseException) -> None:
        """Make the file as it was before the group that could not be written."""
        try:
            os.ftruncate(self._file.fileno(), self.end)
            os.fsync(self._file.fileno())
        except BaseException as second:
            self.refuse(f"{self.path} takes no more operations since it failed ({error!r}): open the index again")
            raise CommitUnknown(
                f"could not write {self.path} ({error!r}), nor cut off what was written ({second!r}): the operation "
                "was not applied, but may be when the index is opened again, which is needed before the next one"
            ) from error
        if isinstance(error, OSError):
            raise refused(error, self.path, "write") from error


class Scan:
    """Reads a journal from its start. ``end`` and ``sequence`` are of what was read; ``torn_bytes`` are behind the end.

    NotFound; InvalidInput for another kind of file or a newer format; Corrupt, with path and offset, for damage.
    """

    def __init__(self, path: str, generation: int) -> None:
        self.path, self.torn_bytes = path, 0
        self._file = _open(path, "rb")
        self.size = self._file.seek(0, os.SEEK_END)
        start = self._read(0, START_BYTES)
        if not start.startswith(_MAGIC[: len(start)]):
            raise self._corrupt("does not start as a journal does", 0)
        if len(start) < START_BYTES:
            raise self._corrupt(f"is cut short at byte {len(start)}", len(start))
        _, found, self.generation, self.first, self.salt = _START.unpack_from(start)
        if start[-_CRC.size :] != _CRC.pack(zlib.crc32(start[: -_CRC.size])):
            raise self._corrupt(f"is damaged in its first {START_BYTES} bytes", 8)
        if found > FORMAT:
            raise InvalidInput(
                f"{path}: format {found}, this lakelet reads up to {FORMAT}: pip install --upgrade lakelet"
            )
        if self.generation != generation:
            raise self._corrupt(f"is of generation {self.generation:,}, its name says {generation:,}", 12)
        self.end, self.sequence = START_BYTES, self.first

    @property
    def empty(self) -> bool:
        """Whether the file has nothing behind its start."""
        return self.size <= START_BYTES

    def records(self) -> Iterator[tuple[int, memoryview]]:
        """Kind and bytes of each operation, a group at a time; ``sequence`` counts on once a group was read."""
        with self._file:
            while self.end < self.size:
                group = self._group(self.end)
                if group is None:
                    later = self._later(self.end + 1)
                    if later is not None:
                        told = f"is damaged at byte {self.end:,}: what follows at byte {later:,} is whole"
                        raise self._corrupt(told, self.end)
                    self.torn_bytes = self.size - self.end
                    return
                count, sequence, payload = group
                if sequence != self.sequence:
                    told = f"goes on with operation {sequence:,} at byte {self.end:,}, expected {self.sequence:,}"
                    raise self._corrupt(told, self.end)
                records = list(self._parted(payload, count))
                self.end += _GROUP_BYTES + len(payload)
                self.sequence += count
                yield from records

    def _group(self, position: int) -> tuple[int, int, bytes] | None:
        """Operations, number of the first, and their bytes; None unless a whole group stands here."""
        head = self._read(position, _GROUP_BYTES)
        if len(head) < _GROUP_BYTES or not head.startswith(_GROUP_MAGIC):
            return None
        if head[-_CRC.size :] != _CRC.pack(zlib.crc32(head[: -_CRC.size], self.salt)):
            return None
        _, count, sequence, nbytes, crc = _GROUP.unpack_from(head)
        if nbytes > self.size - position - _GROUP_BYTES:
            return None
        payload = self._read(position + _GROUP_BYTES, nbytes)
        return (count, sequence, payload) if len(payload) == nbytes and zlib.crc32(payload) == crc else None

    def _parted(self, payload: bytes, count: int) -> Iterator[tuple[int, memoryview]]:
        at = 0
        for _ in range(count):
            if at + _RECORD.size > len(payload):
                raise self._corrupt(f"has a group at byte {self.end:,} that ends before its operations", self.end)
            kind, nbytes = _RECORD.unpack_from(payload, at)
            at += _RECORD.size
            yield kind, memoryview(payload)[at : at + nbytes]
            at += nbytes
        if at != len(payload):
            raise self._corrupt(f"has a group at byte {self.end:,} whose operations do not fill it", self.end)

    def _later(self, position: int) -> int | None:
        """Where the next whole group stands from here on, None if there is none."""
        while position < self.size:
            some = self._read(position, SEARCH_BYTES)
            at = some.find(_GROUP_MAGIC)
            while at >= 0:
                if self._group(position + at) is not None:
                    return position + at
                at = some.find(_GROUP_MAGIC, at + 1)
            position += max(1, len(some) - len(_GROUP_MAGIC) + 1)
        return None

    def _read(self, position: int, count: int) -> bytes:
        """So many bytes, or those that there are."""
        found = bytearray()
        try:
            while len(found) < count:
                some = os.pread(self._file.fileno(), min(count - len(found), 2**30), position + len(found))
                if not some:
                    break
                if len(some) == count:
                    return some
                found += some
        except OSError as error:
            raise refused(error, self.path, "read") from error
        return bytes(found)

    def _corrupt(self, found: str, offset: int) -> Corrupt:
        self._file.close()
        return Corrupt(f"{self.path} {found}; {_MEND}", path=self.path, offset=offset)


def write_durably(path: str, data: bytes) -> None:
    """Make or replace a small file, whole and on the disk, or not at all; Unavailable when the disk refuses.

    When the folder cannot be synced at the end, the new file is there, but may not be after a power loss.
    """
    temporary = os.path.join(os.path.dirname(path), uuid.uuid4().hex.join(TEMPORARY))
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            _write_all(descriptor, data, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        sync_folder(os.path.dirname(path))
    except OSError as error:
        raise refused(error, path, "write") from error
    finally:
        remove_quietly(temporary)


def _open(path: str, mode: str) -> io.FileIO:
    """The file; it is closed when nobody has it any more."""
    try:
        return io.FileIO(os.open(path, (os.O_RDONLY if mode == "rb" else os.O_RDWR) | os.O_CLOEXEC), mode)
    except FileNotFoundError as error:
        raise NotFound(f"found no journal at {path}; {_MEND}") from error
    except OSError as error:
        raise refused(error, path, "open") from error


def _write_all(descriptor: int, data: bytes | bytearray | memoryview, position: int) -> int:
    """Write all of it; where it ends."""
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, position)
        view, position = view[written:], position + written
    return position
