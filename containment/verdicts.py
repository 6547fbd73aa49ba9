"""What earlier runs proved, kept beside the catalog, so that a change costs only its own reading.

Everything is keyed by the identity of the rows concerned, so nothing has to be forgotten when tables change: a table
with other rows, or other columns, has another key. Three things are kept: *answers*, the whole relation over a set of
tables, from which a later run drops what is gone and adds what is new; the *content* of single tables (distinct rows
and row signature), by which duplicates are known again; and *pairs*, single comparisons, which let a run under a
budget continue where the last one stopped.

The file is a cache: it carries a checksum under the lake's secret seed, and one that is damaged, of another lake or
of another format is ignored and written anew.
"""

from __future__ import annotations

import hashlib
import json
import struct
import threading
from dataclasses import dataclass
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import numpy as np

from ..lake.errors import LakeletError, NotFound
from .relation import Edge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from ..lake.store import Store

__all__ = ["Answer", "Content", "VerdictStore", "table_key"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

PATH: Final = "_lakelet/containment/verdicts-1.bin"
KEY_BYTES: Final = 16
_MAGIC: Final = b"LKVERD1\n"
_SUM_BYTES: Final = 32
_ANSWERS: Final = 4
_CONTENTS: Final = 200_000
_PAIRS: Final = 500_000
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Content:
    """Distinct rows of a table over all its columns, and the signature of that set of rows."""

    distinct: int
    signature: bytes


@dataclass(frozen=True)
class Answer:
    """The complete relation over the tables with these keys, for every fraction from ``min_fraction`` up.

    ``group_of``: group number by table key. ``distinct`` and ``opaque``: by group, distinct 0 where nobody counted.
    ``edges``: by (child group, parent group).
    """

    min_fraction: float
    group_of: Mapping[bytes, int]
    distinct: tuple[int, ...]
    opaque: tuple[bool, ...]
    edges: Mapping[tuple[int, int], Edge]


def table_key(identities: Sequence[str], schema: pa.Schema) -> bytes:
    """16 bytes that change whenever the rows or the columns of a table do. ``identities``: of its fragments."""
    text = schema.to_string(show_field_metadata=False, show_schema_metadata=False)
    digest = hashlib.blake2b(text.encode(), digest_size=KEY_BYTES)
    for identity in identities:
        encoded = identity.encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(encoded) + encoded)
    return digest.digest()


def _locked(method: Callable[Concatenate[VerdictStore, _P], _T]) -> Callable[Concatenate[VerdictStore, _P], _T]:
    def inner(self: VerdictStore, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with self._lock:
            return method(self, *args, **kwargs)

    update_wrapper(inner, method)
    return inner


class VerdictStore:
    """The cache of one lake. ``store`` None keeps it in memory. Safe to use from many threads.

    ``seed`` is the lake's hash seed: signatures mean nothing under another one.
    """

    def __init__(self, store: Store | None, seed: bytes) -> None:
        self._store = store
        self._key = hashlib.blake2b(seed, digest_size=_SUM_BYTES, person=b"lakelet verdict").digest()
        self._answers: list[Answer] = []
        self._contents: dict[bytes, Content] = {}
        self._pairs: dict[bytes, tuple[int, int, bool]] = {}
        self._changed = False
        self._loaded = store is None
        self._lock = threading.Lock()

    @_locked
    def answer(self, keys: Sequence[bytes], min_fraction: float) -> Answer | None:
        """The answer that knows most of these tables at that fraction; None when none knows any."""
        self._load()
        best, best_known = None, 0
        for answer in self._answers:
            if answer.min_fraction <= min_fraction:
                known = sum(key in answer.group_of for key in keys)
                if known > best_known:
                    best, best_known = answer, known
        return best

    @_locked
    def keep_answer(self, answer: Answer) -> None:
        """Keep a complete answer; the oldest goes when there are too many."""
        self._load()
        same = [a for a in self._answers if a.group_of.keys() <= answer.group_of.keys()]
        kept = [a for a in self._answers if a not in same or a.min_fraction < answer.min_fraction]
        self._answers = [answer, *kept][:_ANSWERS]
        self._changed = True

    @_locked
    def content(self, key: bytes) -> Content | None:
        """What is known of the table with this key."""
        self._load()
        return self._contents.get(key)

    @_locked
    def keep_content(self, key: bytes, content: Content) -> None:
        """Keep a table's distinct count and signature."""
        self._load()
        self._contents[key] = content
        self._changed = True

    @_locked
    def pair(self, child: bytes, parent: bytes) -> tuple[int, int, bool] | None:
        """(found, distinct, exact) of a comparison; when not exact, ``found`` is the most that is possible."""
        self._load()
        return self._pairs.get(child + parent)

    @_locked
    def keep_pair(self, child: bytes, parent: bytes, found: int, distinct: int, exact: bool) -> None:
        """Keep the outcome of a comparison; an exact one is never replaced by a bound."""
        self._load()
        old = self._pairs.get(child + parent)
        if old is None or (exact and not old[2]):
            self._pairs[child + parent] = (found, distinct, exact)
            self._changed = True

    @_locked
    def save(self) -> None:
        """Write what is new, in one atomic put. A store that refuses leaves the cache in memory: it is only a cache."""
        if self._store is None or not self._changed:
            return
        body = self._encode()
        checksum = hashlib.blake2b(body, digest_size=_SUM_BYTES, key=self._key).digest()
        try:
            self._store.put(PATH, _MAGIC + checksum + body)
        except LakeletError:
            return
        self._changed = False

    def _load(self) -> None:
        if self._loaded or self._store is None:
            return
        self._loaded = True
        try:
            data = self._store.get(PATH)
        except NotFound:
            return
        body = data[len(_MAGIC) + _SUM_BYTES :]
        checksum = hashlib.blake2b(body, digest_size=_SUM_BYTES, key=self._key).digest()
        if data[: len(_MAGIC)] != _MAGIC or data[len(_MAGIC) : len(_MAGIC) + _SUM_BYTES] != checksum:
            return
        self._decode(body)

    def _encode(self) -> bytes:
        contents = list(self._contents.items())[-_CONTENTS:]
        pairs = list(self._pairs.items())[-_PAIRS:]
        arrays: list[NDArray[Any]] = [
            _bytes_array([key for key, _ in contents], KEY_BYTES),
            np.array([content.distinct for _, content in contents], dtype="<i8"),
            _bytes_array(
                [content.signature.ljust(_SIGNATURE_BYTES, b"\0") for _, content in contents], _SIGNATURE_BYTES
            ),
            np.array([len(content.signature) for _, content in contents], dtype="<i8"),
            _bytes_array([key for key, _ in pairs], 2 * KEY_BYTES),
            np.array([verdict for _, verdict in pairs], dtype="<i8").reshape(-1, 3),
        ]
        for answer in self._answers:
            edges = [(c, p, e.found, e.distinct, e.compared) for (c, p), e in answer.edges.items()]
            arrays += [
                np.array([answer.min_fraction], dtype="<f8"),
                _bytes_array(list(answer.group_of), KEY_BYTES),
                np.array(list(answer.group_of.values()), dtype="<i8"),
                np.array(answer.distinct, dtype="<i8"),
                np.array(answer.opaque, dtype="|u1"),
                np.array(edges, dtype="<i8").reshape(-1, 5),
            ]
        header = json.dumps([[array.dtype.str, list(array.shape)] for array in arrays]).encode()
        return b"".join([struct.pack("<Q", len(header)), header, *(array.tobytes() for array in arrays)])

    def _decode(self, body: bytes) -> None:
        """Fill from bytes whose checksum held, so they are what :meth:`_encode` wrote."""
        (size,) = struct.unpack_from("<Q", body)
        at = 8 + size
        arrays: list[NDArray[Any]] = []
        for dtype, shape in json.loads(body[8:at]):
            count = int(np.prod(shape, dtype=np.int64))
            arrays.append(np.frombuffer(body, dtype=dtype, count=count, offset=at).reshape(shape))
            at += arrays[-1].nbytes
        keys, distinct, signatures, lengths, pair_keys, verdicts = arrays[:6]
        self._contents = {
            key: Content(rows, signature[:length])
            for key, rows, signature, length in zip(
                _split(keys), distinct.tolist(), _split(signatures), lengths.tolist(), strict=True
            )
        }
        self._pairs = {
            key: (found, rows, bool(exact))
            for key, (found, rows, exact) in zip(_split(pair_keys), verdicts.tolist(), strict=True)
        }
        for start in range(6, len(arrays), 6):
            fraction, keys, groups, distinct, opaque, edges = arrays[start : start + 6]
            self._answers.append(
                Answer(
                    float(fraction[0]),
                    dict(zip(_split(keys), groups.tolist(), strict=True)),
                    tuple(distinct.tolist()),
                    tuple(bool(flag) for flag in opaque.tolist()),
                    {(c, p): Edge(found, rows, bool(compared)) for c, p, found, rows, compared in edges.tolist()},
                )
            )


def _bytes_array(values: Sequence[bytes], width: int) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(values), dtype=np.uint8).reshape(-1, width)


def _split(array: NDArray[np.uint8]) -> list[bytes]:
    data, width = array.tobytes(), array.shape[1]
    return [data[i : i + width] for i in range(0, len(data), width)]
