"""Operations as bytes of a journal, and back: a JSON head, then arrays, then the ids::

    bytes of the head u32, the head, for rows added: offsets i64 (rows + 1) and codes i32 of their labels, vectors
    f32 (rows, dim), attributes as an Arrow IPC record batch; ids i64

Everything but the ids is made before an operation is run, so that what cannot be kept is refused before it is done.
"""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from ..lake.errors import Corrupt, InvalidInput
from ..lake.limits import VECTOR_REPLAY_BYTES
from .journal import Record
from .labels import PUBLIC, Label, LabelTable, checked, coded
from .operations import Added, Deleted, Dropped, Operation, Revised

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from .building import Settings
    from .journal import Buffer

__all__ = ["Encoded", "decoded", "joined"]

ADD, GRANT, REVOKE, DELETE, DROP = range(1, 6)
_HEAD: Final = struct.Struct("<I")


class Encoded:
    """An operation on its way into a journal; InvalidInput if something about it cannot be kept."""

    __slots__ = ("_kind", "_operation", "_pieces")

    def __init__(self, operation: Operation) -> None:
        head: dict[str, Any] = {}
        arrays: list[Buffer] = []
        try:
            if isinstance(operation, Added):
                self._kind = ADD
                head, arrays = _added(operation)
            elif isinstance(operation, Revised):
                self._kind = GRANT if operation.granting else REVOKE
                head = {"ids": len(operation.ids), "label": _plain(operation.label)}
            elif isinstance(operation, Deleted):
                self._kind, head = DELETE, {"ids": len(operation.ids)}
            else:
                self._kind = DROP
                head = {"ids": 0, "label": _plain(operation.label), "keep_rows": operation.keep_rows}
            data = json.dumps(head, separators=(",", ":")).encode("ascii")
        except ValueError as error:  # whole numbers of thousands of digits
            raise InvalidInput(f"a label that cannot be kept in a file: {error}") from None
        self._operation = operation
        self._pieces: list[Buffer] = [_HEAD.pack(len(data)) + data, *arrays]

    def record(self) -> Record:
        """What the journal gets, once rows that are added have ids."""
        operation = self._operation
        ids = None if isinstance(operation, Dropped) else operation.ids
        return Record(self._kind, self._pieces if ids is None else [*self._pieces, _bytes(ids, "<i8")])


def decoded(kind: int, payload: memoryview, settings: Settings, path: str) -> Operation:
    """The operation of a record; Corrupt if it is none that this index can have had."""
    try:
        (size,) = _HEAD.unpack_from(payload)
        head = json.loads(bytes(payload[_HEAD.size : _HEAD.size + size]))
        reader = _Reader(payload, _HEAD.size + size)
        operation: Operation
        if kind == ADD:
            operation = _read_added(head, reader, settings)
        elif kind in (GRANT, REVOKE):
            operation = Revised(reader.array("<i8", head["ids"]), _label(head["label"]), granting=kind == GRANT)
        elif kind == DELETE:
            operation = Deleted(reader.array("<i8", head["ids"]))
        elif kind == DROP:
            operation = Dropped(_label(head["label"]), keep_rows=bool(head["keep_rows"]))
        else:
            raise ValueError(f"there is no operation of kind {kind}")
        if reader.at != len(payload):
            raise ValueError(f"{len(payload) - reader.at:,} bytes are left over")
    except (ValueError, KeyError, TypeError, IndexError, struct.error, pa.ArrowException) as error:
        raise Corrupt(
            f"{path} holds an operation that cannot be: {error!r}; restore it from a copy", path=path
        ) from error
    return operation


def joined(operations: Iterable[Operation]) -> Iterator[Operation]:
    """The same operations with rows that were added one call after another in one, up to VECTOR_REPLAY_BYTES."""
    some: list[Added] = []
    nbytes = 0
    for operation in operations:
        if not isinstance(operation, Added):
            if some:
                yield _one(some)
                some, nbytes = [], 0
            yield operation
            continue
        if some and nbytes + operation.rows.nbytes > VECTOR_REPLAY_BYTES:
            yield _one(some)
            some, nbytes = [], 0
        some.append(operation)
        nbytes += operation.rows.nbytes
    if some:
        yield _one(some)


def _one(some: list[Added]) -> Added:
    if len(some) == 1:
        return some[0]
    tables = [each.attributes for each in some if each.attributes is not None]
    return Added(
        np.concatenate([each.rows for each in some]),
        np.concatenate([each.ids for each in some if each.ids is not None]),
        [label for each in some for label in each.labels],
        pa.concat_tables(tables).combine_chunks() if tables else None,
    )


def _added(operation: Added) -> tuple[dict[str, Any], list[Buffer]]:
    own = LabelTable()
    offsets, codes = coded(operation.labels, own)
    rows, dim = operation.rows.shape
    arrays: list[Buffer] = [_bytes(offsets, "<i8"), _bytes(codes, "<i4"), _bytes(operation.rows, "<f4")]
    head = {"ids": rows, "dim": dim, "labels": [_plain(label) for label in own.labels[1:]], "grants": len(codes)}
    if operation.attributes is not None:
        (batch,) = operation.attributes.combine_chunks().to_batches() or [None]
        data = memoryview(b"" if batch is None else batch.serialize())
        head["attributes"] = len(data)
        arrays.append(data)
    return head, arrays


def _read_added(head: dict[str, Any], reader: _Reader, settings: Settings) -> Added:
    rows, schema = head["ids"], settings.schema
    if head["dim"] != settings.dim:
        raise ValueError(f"rows of {head['dim']} dimensions, the index has {settings.dim}")
    if (head.get("attributes") is None) != (schema is None):
        raise ValueError("attributes where the index has none, or none where it has some")
    offsets, codes = reader.array("<i8", rows + 1), reader.array("<i4", head["grants"])
    vectors = reader.array("<f4", rows * settings.dim).reshape(rows, settings.dim)
    table = None
    if schema is not None:
        batch = pa.ipc.read_record_batch(pa.py_buffer(reader.bytes(head["attributes"])), schema)
        batch.validate(full=True)
        if batch.num_rows != rows:
            raise ValueError(f"attributes of {batch.num_rows:,} rows beside {rows:,} vectors")
        table = pa.Table.from_batches([batch])
    known: list[Label] = [PUBLIC, *(_label(label) for label in head["labels"])]
    cuts = offsets.tolist()
    if cuts[0] or cuts[-1] != len(codes) or np.diff(offsets).min(initial=0) < 0 or codes.min(initial=0) < 0:
        raise ValueError("lists of labels that do not follow one another")
    flat = [known[code] for code in codes.tolist()]
    labels = [flat[start:stop] for start, stop in pairwise(cuts)]
    return Added(vectors, reader.array("<i8", rows), labels, table)


class _Reader:
    """Takes arrays off a payload, one after another; ValueError where it ends."""

    def __init__(self, payload: memoryview, at: int) -> None:
        self._payload, self.at = payload, at

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        if not 0 <= count <= len(self._payload) - self.at:
            raise ValueError(f"{count} bytes are wanted at byte {self.at:,} of {len(self._payload):,}")
        self.at += count
        return bytes(self._payload[self.at - count : self.at])

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        """The next numbers, in an array of their own."""
        found = np.frombuffer(self.bytes(count * np.dtype(dtype).itemsize), dtype)
        return found.astype(found.dtype.newbyteorder("="))


def _bytes(array: NDArray[Any], dtype: str) -> memoryview:
    return np.ascontiguousarray(array, dtype).reshape(-1).view(np.uint8).data


def _plain(label: Label) -> str | int | None:
    """A label as JSON keeps it: every text comes back as it was, lone surrogates too."""
    if isinstance(label, str):
        return label.encode("utf-8", "surrogatepass").decode("latin-1")
    return label if isinstance(label, int) else None


def _label(plain: Any) -> Label:
    if plain is None:
        return PUBLIC
    return checked(plain.encode("latin-1").decode("utf-8", "surrogatepass") if isinstance(plain, str) else plain)
