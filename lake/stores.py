"""Which store a lake's address means, and whether that store can keep a lake at all."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any

from .errors import InvalidInput, Unavailable
from .fsspec_store import FsspecStore
from .local_store import LocalStore
from .store import TMP, Store

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["open_store", "probe", "store_time_us"]


def open_store(uri: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Store:
    """The store for a local path, ``file://`` or any fsspec URI. Nothing is read or made yet.

    Raises InvalidInput for an address that cannot be one, Unavailable when the protocol's package is missing.
    """
    text = os.fspath(uri)
    if not isinstance(text, str) or not text:
        raise InvalidInput(f"found the lake address {text!r}; expected a path or a URI such as s3://bucket/lake")
    protocol, separator, rest = text.partition("://")
    if not separator or protocol in {"file", "local"}:
        if storage_options:
            raise InvalidInput(f"{text} is a local folder, which takes no storage_options; leave them out")
        return LocalStore(rest if separator else text)
    return FsspecStore(text, storage_options)


def probe(store: Store) -> None:
    """See that a second create of one name loses, before the first commit of a lake. Writes and removes one object.

    Raises Unavailable, with the reason, for a store on which two writers would both believe that they had committed.
    """
    path = f"{TMP}probe-{uuid.uuid4().hex}"
    first, second = b"first", b"second"
    try:
        if not store.create(path, first):
            raise Unavailable(f"the store at {store.uri} says that {path}, a name never used, is taken; {_MEND}")
        if store.create(path, second):
            raise Unavailable(f"the store at {store.uri} let a second writer create an object that existed; {_MEND}")
        if store.get(path) != first:
            raise Unavailable(f"the store at {store.uri} lost the bytes of the first of two writers; {_MEND}")
    finally:
        store.delete([path])


def store_time_us(store: Store) -> int:
    """The time by the store's own clock, which dates its objects, in microseconds since the epoch.

    Ages of objects are judged by it: a clock of ours that runs ahead would make young ones look old. Writes and
    removes one object.
    """
    path = f"{TMP}clock-{uuid.uuid4().hex}"
    store.put(path, b"clock")
    try:
        for info in store.list(TMP):
            if info.path == path:
                return info.modified_us
    finally:
        store.delete([path])
    raise Unavailable(f"the store at {store.uri} does not list {path}, which was just written; retry")


_MEND = "commits need create-if-absent, so keep the lake on a store that honours conditional puts"
