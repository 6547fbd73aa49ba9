"""The folder of a durable index: the names in it, which snapshot counts, and the lock; see :mod:`.durable`."""

from __future__ import annotations

import json
import os
import re
import stat
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..lake.errors import Corrupt, InvalidInput
from ..lake.local_store import remove_quietly, sync_folder
from .attributes import declared, name_of, nothing_given
from .container import refused
from .journal import START_BYTES, TEMPORARY, write_durably
from .lock import LOCK, FolderLock
from .metrics import metric_named

if TYPE_CHECKING:
    import pyarrow as pa

    from .building import Settings

__all__ = ["FIRST", "MEND", "Current", "Folder", "refuse_other"]

FORMAT: Final = 1
"""Version of the folder. A reader refuses anything newer."""
FIRST: Final = 1
"""The first generation."""
MEND: Final = "restore the folder from a copy"
CURRENT: Final = "current"
CURRENT_BYTES: Final = 65_536
FINGERPRINT_BYTES: Final = 28
"""The first bytes of a snapshot hold the checksum of its header, which holds those of all arrays."""
_SNAPSHOT: Final = re.compile(r"snapshot-(\d{8,})\.lakelet")
_JOURNAL: Final = re.compile(r"journal-(\d{8,})")


class Current(NamedTuple):
    """Which snapshot counts, how many operations are in it, and its first bytes in hex."""

    generation: int
    sequence: int
    fingerprint: str


class Folder:
    """A folder held locked, made if there is none. ``current`` is None in one that holds no index yet.

    A context manager: when what it is opened for fails, the lock is let go, and a folder that was made for it is gone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        text = os.fspath(path)
        if not isinstance(text, str) or not text or "\0" in text:
            raise InvalidInput(f"found the path {text!r}; expected the path of a folder")
        self.path = os.path.abspath(text)
        self._made = _make(self.path)
        self._lock = FolderLock(self.path)
        try:
            self.current = self._read_current()
            if self.current is None:
                self._refuse_foreign()
            elif self.fingerprint(self.current.generation) != self.current.fingerprint:
                path = self.snapshot(self.current.generation)
                raise Corrupt(f"{path} is not the file that {CURRENT} names; {MEND}", path=path, offset=0)
        except BaseException:
            self.release()
            raise

    def __str__(self) -> str:
        return self.path

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        if self._made and self.current is None:
            for name in self._names():
                remove_quietly(os.path.join(self.path, name))
            try:
                os.rmdir(self.path)
            except OSError:
                self._made = False  # something else came into it
        self.release()

    def release(self) -> None:
        """Let other processes have it."""
        self._lock.release()

    def snapshot(self, generation: int) -> str:
        """The path of a snapshot."""
        return os.path.join(self.path, f"snapshot-{generation:08}.lakelet")

    def journal(self, generation: int) -> str:
        """The path of a journal."""
        return os.path.join(self.path, f"journal-{generation:08}")

    def journals(self) -> list[int]:
        """Generations of the journals since the snapshot that counts; Corrupt unless its own is among them."""
        assert self.current is not None
        first = self.current.generation
        found = sorted(number for name in self._names() if (number := _number(_JOURNAL, name)) >= first)
        if not found or found[0] != first:
            path = self.journal(first)
            raise Corrupt(f"{path} is not there, but {CURRENT} names it; {MEND}", path=path)
        return found

    def fingerprint(self, generation: int) -> str:
        """The first bytes of a snapshot; Corrupt if it is not there."""
        path = self.snapshot(generation)
        return _start_of(path, FINGERPRINT_BYTES, f"it is not there; {MEND}").hex()

    def name(self, current: Current) -> None:
        """Let this snapshot count."""
        said: dict[str, Any] = {"format": FORMAT, **current._asdict()}
        text = json.dumps(said | {"crc32": _crc(said)}) + "\n"
        write_durably(os.path.join(self.path, CURRENT), text.encode("ascii"))
        self.current = current

    def clean(self, journals: set[int]) -> None:
        """Remove all snapshots but the one that counts, all other journals than these, and files half written."""
        assert self.current is not None
        for name in self._names():
            snapshot, journal = _number(_SNAPSHOT, name), _number(_JOURNAL, name)
            old = snapshot not in (-1, self.current.generation) or (journal >= 0 and journal not in journals)
            if old or (name.startswith(TEMPORARY[0]) and name.endswith(TEMPORARY[1])):
                remove_quietly(os.path.join(self.path, name))

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.path)
        except OSError as error:
            raise refused(error, self.path, "list") from error

    def _read_current(self) -> Current | None:
        path = os.path.join(self.path, CURRENT)
        if not os.path.lexists(path):
            return None
        data = _start_of(path, CURRENT_BYTES, MEND)
        try:
            said = json.loads(data)
            crc, found = said.pop("crc32"), said["format"]
            if crc != _crc(said):
                raise ValueError("its checksum does not match")
            if found > FORMAT:
                raise InvalidInput(
                    f"{path}: format {found}, this lakelet reads up to {FORMAT}: pip install --upgrade lakelet"
                )
            return Current(*(said[name] for name in Current._fields))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise Corrupt(f"{path} is damaged: {error}; {MEND}", path=path, offset=0) from error

    def _refuse_foreign(self) -> None:
        """InvalidInput or Corrupt unless nothing stands here but what a first opening left that was cut short."""
        for name in self._names():
            path = os.path.join(self.path, name)
            snapshot, journal = _number(_SNAPSHOT, name), _number(_JOURNAL, name)
            if snapshot > FIRST or journal > FIRST or (journal == FIRST and os.stat(path).st_size > START_BYTES):
                raise Corrupt(f"{self.path} holds {name}, but {CURRENT} is missing; {MEND}", path=path)
            ours = name == LOCK or FIRST in (snapshot, journal) or name.startswith(TEMPORARY[0])
            if not ours:
                raise InvalidInput(f"{self.path} holds {name} and no index; name an empty folder, or a new one")


def refuse_other(
    settings: Settings, path: str, dim: Any, metric: Any, attributes: Any, bits: Any, keep_vectors: Any
) -> None:
    """InvalidInput if an index that was found is another than the one that was asked for; None asks for nothing."""
    wanted: list[tuple[str, Any, Any]] = []
    if dim is not None:
        wanted.append(("dim", settings.dim, dim))
    if metric is not None:
        wanted.append(("metric", settings.metric.name.lower(), metric_named(metric).name.lower()))
    if not nothing_given(attributes):
        wanted.append(("attributes", _shown(settings.schema), _shown(declared(attributes))))
    if bits is not None:
        wanted.append(("bits", settings.bits, bits))
    if keep_vectors is not None:
        wanted.append(("keep_vectors", settings.keep_vectors, keep_vectors))
    for what, found, expected in wanted:
        if found != expected:
            raise InvalidInput(f"{path} holds an index with {what} {found!r}; expected {expected!r}")


def _shown(schema: pa.Schema | None) -> dict[str, str]:
    return {} if schema is None else {field.name: name_of(field.type) for field in schema}


def _make(path: str) -> bool:
    """Whether the folder had to be made."""
    try:
        os.mkdir(path)
        sync_folder(os.path.dirname(path))
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise InvalidInput(f"a file stands at {path}; expected a folder, or nothing: load() reads a file") from None
        return False
    except OSError as error:
        raise refused(error, path, "make") from error
    return True


def _start_of(path: str, count: int, mend: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(count)
    except FileNotFoundError as error:
        raise Corrupt(f"{path} cannot be read: {mend}", path=path) from error
    except OSError as error:
        raise refused(error, path, "read") from error


def _number(pattern: re.Pattern[str], name: str) -> int:
    """The generation in a name, -1 if it has none."""
    found = pattern.fullmatch(name)
    return int(found[1]) if found else -1


def _crc(said: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(said, sort_keys=True).encode('ascii')):08x}"
