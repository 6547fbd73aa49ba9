"""The store port: what the log and the tables need of a file system or an object store.

Paths are relative to the lake's root, with forward slashes, never starting with one and never with ``..`` in them.
The only lock there is is :meth:`Store.create`: it makes an object if and only if there is none of that name, with all
its bytes or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from .errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import fsspec
    import pyarrow.fs

__all__ = ["DATA", "TMP", "ObjectInfo", "Store", "check_path"]

DATA: Final = "data/"
"""Files of owned tables: ``data/<table_id>/<file>``."""
TMP: Final = "_lakelet/tmp/"
"""Objects on their way to another name; nothing refers to them."""


def check_path(path: str) -> str:
    """The path itself when it stays below the lake's root, else InvalidInput."""
    parts = path.split("/")
    if "\0" in path or any(part in {"", ".", ".."} for part in parts):
        raise InvalidInput(
            f"found the object path {path!r}; expected one below the lake's root, such as data/t/f.parquet"
        )
    return path


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: ``path`` relative to the root, ``num_bytes``, ``modified_us`` since the epoch, ``etag`` or ""."""

    path: str
    num_bytes: int
    modified_us: int
    etag: str = ""


class Store(Protocol):
    """Objects below one root. Implementations are safe to use from many threads.

    Every method raises Unavailable when the store cannot be reached or refuses (permission, disk full), and the
    methods that read raise NotFound when the object is not there.
    """

    uri: str
    """The root as a URI or an absolute local path, without credentials."""

    def create(self, path: str, data: bytes) -> bool:
        """Make the object if absent. True: made, durable and complete. False: one was there already, untouched.

        Unavailable means that nothing was made; CommitUnknown that no answer came, so that it may have been, or may
        still be.
        """
        ...

    def put(self, path: str, data: bytes) -> None:
        """Write or replace the object; a reader sees the old bytes or the new, never a mixture."""
        ...

    def get(self, path: str) -> bytes:
        """All bytes of the object."""
        ...

    def get_many(self, paths: Sequence[str]) -> list[bytes | None]:
        """All bytes of each object, fetched side by side; None where there is none."""
        ...

    def exists(self, path: str) -> bool:
        """Whether the object is there, asked of the store itself and no cache."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose path starts with ``prefix`` (a folder, ending in a slash), at any depth."""
        ...

    def delete(self, paths: Sequence[str]) -> None:
        """Remove the objects; those that are gone already are no error."""
        ...

    def full_path(self, path: str) -> str:
        """The path or URI by which DuckDB and other readers find the object."""
        ...

    def sync(self, path: str) -> None:
        """Make an object that was written through :attr:`arrow` survive power loss; object stores do nothing."""
        ...

    @property
    def arrow(self) -> pyarrow.fs.FileSystem:
        """An Arrow file system rooted at the store's root, for reading and writing Parquet."""
        ...

    @property
    def fsspec(self) -> fsspec.AbstractFileSystem | None:
        """The fsspec file system that DuckDB must be given to read :meth:`full_path`; None when it needs none."""
        ...
