"""A lake in any object store that fsspec knows, memory:// included.

Create-if-absent is the provider's conditional put, reached by ``pipe_file(mode="create")``. Listings caches are off:
a cached "not there" would be a wrong answer.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import UTC, datetime
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from .errors import CommitUnknown, InvalidInput, LakeletError, NotFound, Unavailable
from .store import ObjectInfo, check_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import fsspec
    import pyarrow.fs

__all__ = ["FsspecStore"]

_EXTRAS: Final = {"s3": "s3", "s3a": "s3", "abfs": "azure", "abfss": "azure", "az": "azure", "gs": "gcs", "gcs": "gcs"}
_MODIFIED_KEYS: Final = ("LastModified", "last_modified", "updated", "mtime", "modified", "created")
# memory:// is one dict for the whole process, so one lock for the whole process makes its create atomic
_MEMORY_LOCK: Final = RLock()


class FsspecStore:
    """Objects below ``uri``, e.g. ``s3://bucket/lake``. ``storage_options`` go to fsspec unchanged.

    Raises Unavailable, naming the ``pip install`` line, when the protocol's package is missing.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, Any] | None = None) -> None:
        """Nothing is asked of the store yet."""
        protocol, separator, rest = uri.partition("://")
        if not separator or not protocol:
            raise InvalidInput(f"found {uri!r}; expected a URI such as s3://bucket/lake")
        self._fs = _file_system(protocol, storage_options or {})
        self._protocol = protocol
        self._lock: AbstractContextManager[object] = _MEMORY_LOCK if protocol == "memory" else nullcontext()
        # credentials in a URI (user:secret@host) must not show up in messages
        self.uri = f"{protocol}://{rest.rpartition('@')[2] if '@' in rest.partition('/')[0] else rest}".rstrip("/")
        self._root = str(self._fs._strip_protocol(uri)).rstrip("/")
        self._arrow: pyarrow.fs.FileSystem | None = None

    # --- the port ------------------------------------------------------------------------------------------------

    def create(self, path: str, data: bytes) -> bool:
        """Make the object if absent, by the provider's conditional put.

        Raises Unavailable when the store refused, CommitUnknown when no answer came and the put may have happened.
        """
        key = self._key(path)
        try:
            with self._lock:
                self._fs.pipe_file(key, data, mode="create")
        except FileExistsError:
            return False
        except (PermissionError, FileNotFoundError, NotImplementedError, ValueError, TypeError) as error:
            raise self._unavailable(error, path, "create") from error
        except Exception as error:
            raise CommitUnknown(f"no answer to creating {path!r} in {self.uri} ({_told(error)})") from error
        return True

    def put(self, path: str, data: bytes) -> None:
        """Write or replace the object."""
        key = self._key(path)
        try:
            with self._lock:
                self._fs.pipe_file(key, data)
        except Exception as error:
            raise self._unavailable(error, path, "write") from error

    def get(self, path: str) -> bytes:
        """All bytes of the object; NotFound when there is none."""
        key = self._key(path)
        try:
            return bytes(self._fs.cat_file(key))
        except FileNotFoundError as error:
            raise NotFound(f"found no object {path!r} in the lake at {self.uri}") from error
        except Exception as error:
            raise self._unavailable(error, path, "read") from error

    def get_many(self, paths: Sequence[str]) -> list[bytes | None]:
        """All bytes of each object, side by side where the file system is asynchronous; None where there is none."""
        keys = [self._key(path) for path in paths]
        if not getattr(self._fs, "async_impl", False):
            return [self._get_or_none(path) for path in paths]
        if not keys:
            return []
        try:
            found = self._fs.cat(keys, on_error="return")
        except Exception as error:
            raise self._unavailable(error, paths[0], "read") from error
        answers: list[bytes | None] = []
        for path, key in zip(paths, keys, strict=True):
            value = found.get(key)
            if value is None:  # the file system gave the key back in its own spelling
                value = self._get_or_none(path)
            if isinstance(value, FileNotFoundError):
                value = None
            if isinstance(value, BaseException):
                raise self._unavailable(value, path, "read") from value
            answers.append(None if value is None else bytes(value))
        return answers

    def exists(self, path: str) -> bool:
        """Whether the object is there; no cache is asked."""
        key = self._key(path)
        try:
            return bool(self._fs.isfile(key))
        except Exception as error:
            raise self._unavailable(error, path, "look at") from error

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below the folder ``prefix``. An object whose age the store does not tell counts as new."""
        if prefix and not prefix.endswith("/"):
            raise InvalidInput(f"found the prefix {prefix!r}; expected a folder that ends in a slash")
        folder = self._key(prefix.rstrip("/")) if prefix else self._root
        try:
            self._fs.invalidate_cache(folder)
            with self._lock:
                found = self._found(folder)
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._unavailable(error, prefix, "list") from error
        for key, info in found.items():
            if info.get("type") == "directory" or not key.startswith(folder + "/"):
                continue
            path = key[len(self._root) + 1 :]
            yield ObjectInfo(path, int(info.get("size") or 0), _modified_us(info), str(info.get("ETag") or ""))

    def _found(self, folder: str) -> dict[str, Any]:
        while True:
            try:
                found: dict[str, Any] = self._fs.find(folder, detail=True)
                return found
            except RuntimeError:
                if self._protocol != "memory":
                    raise
                # a stream that was closed meanwhile put its object into the dict: look again

    def delete(self, paths: Sequence[str]) -> None:
        """Remove the objects; those that are gone already are no error."""
        for path in paths:
            key = self._key(path)
            try:
                with self._lock:
                    self._fs.rm_file(key)
            except FileNotFoundError:
                continue
            except Exception as error:
                raise self._unavailable(error, path, "delete") from error

    def full_path(self, path: str) -> str:
        """The URI of the object."""
        return f"{self._protocol}://{self._key(path).lstrip('/')}"

    def sync(self, path: str) -> None:
        """Nothing to do: an object store acknowledges what is durable."""
        check_path(path)

    @property
    def arrow(self) -> pyarrow.fs.FileSystem:
        """The fsspec file system behind Arrow's handler, rooted at the lake."""
        if self._arrow is None:
            import pyarrow.fs

            handler = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(self._fs))
            self._arrow = pyarrow.fs.SubTreeFileSystem(self._root, handler)
        return self._arrow

    @property
    def fsspec(self) -> fsspec.AbstractFileSystem | None:
        """The file system to register with DuckDB."""
        return self._fs

    # --- inside --------------------------------------------------------------------------------------------------

    def _key(self, path: str) -> str:
        return f"{self._root}/{check_path(path)}"

    def _get_or_none(self, path: str) -> bytes | None:
        try:
            return self.get(path)
        except NotFound:
            return None

    def _unavailable(self, error: BaseException, path: str, doing: str) -> LakeletError:
        return Unavailable(
            f"could not {doing} {path!r} in {self.uri}: {_told(error)}; "
            "see that the store can be reached and that the credentials allow it"
        )


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _file_system(protocol: str, options: Mapping[str, Any]) -> Any:
    import fsspec

    if protocol == "memory":
        return _memory_file_system()
    try:
        return fsspec.filesystem(protocol, use_listings_cache=False, **options)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        line = f"pip install 'lakelet[{extra}]'" if extra else str(error)
        raise Unavailable(f"{protocol}:// needs a package that is not installed: {line}") from error
    except ValueError as error:
        if protocol not in fsspec.available_protocols():
            raise InvalidInput(
                f"found the protocol {protocol!r}; expected one that fsspec knows, such as s3"
            ) from error
        raise InvalidInput(f"{protocol}:// refused the storage options: {error}") from error
    except Exception as error:
        raise Unavailable(f"could not reach {protocol}://: {_told(error)}") from error


def _memory_file_system() -> Any:
    """fsspec's memory file system, with a file object of its own for each reader.

    fsspec hands the same object, with one position, to all readers of a file; threads would read each other's bytes.
    """
    from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

    class PrivateReads(MemoryFileSystem):  # type: ignore[misc]
        def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
            if mode != "rb":
                return super()._open(path, mode=mode, **kwargs)
            return MemoryFile(None, path, self.cat_file(path))

    return PrivateReads()


def _modified_us(info: Mapping[str, Any]) -> int:
    for key in _MODIFIED_KEYS:
        value = info.get(key)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, datetime):
            return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1_000_000)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return int(value * 1_000_000)
    return time.time_ns() // 1000
