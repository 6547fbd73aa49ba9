"""Rows of a table's data files as an index takes them: ids, vectors, labels, attributes, and columns to keep beside.

An id is the number of a data file in the index, in the upper 32 bits, and the row's position in that file. All stored
rows are taken, deleted ones too, so that what is made of them serves every version of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .attributes import given
from .labels import PUBLIC, coded, parsed
from .metrics import SQUARES_MOST, Metric, checked_vectors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ..lake.fragment import Fragment
    from .labels import Grants, Label, LabelTable
    from .table_definition import Definition

__all__ = [
    "LOOSE_NUMBER",
    "POSITIONS",
    "POSITION_BITS",
    "LeftOut",
    "TableRows",
    "joined",
    "labels_of",
    "rows_of_file",
    "vectors_of",
]

POSITION_BITS: Final = 32
"""Of an id, the lowest are the row's position in its file."""
POSITIONS: Final = (1 << POSITION_BITS) - 1
LOOSE_NUMBER: Final = 1 << 30
"""Files that no segment covers get numbers from here on, in this process alone."""


@dataclass(frozen=True)
class LeftOut:
    """Rows that no search finds, by what is wrong with their vector; ``first`` is where the first of each kind is."""

    null: int = 0
    other_length: int = 0
    not_finite: int = 0
    zero: int = 0
    too_long: int = 0
    first: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All of them."""
        return self.null + self.other_length + self.not_finite + self.zero + self.too_long

    def plus(self, other: LeftOut) -> LeftOut:
        """Both together."""
        kinds = {name: getattr(self, name) + getattr(other, name) for name in WRONG}
        return LeftOut(**kinds, first={**other.first, **self.first})

    def __str__(self) -> str:
        told = [
            f"{getattr(self, name):,} {words} (first: {self.first[name]})"
            for name, words in WRONG.items()
            if getattr(self, name)
        ]
        return ", ".join(told)


WRONG: Final = {
    "null": "are NULL or hold a NULL",
    "other_length": "have another length",
    "not_finite": "hold NaN or inf",
    "zero": "are zero, which has no cosine",
    "too_long": "are so long that distances would overflow",
}


class TableRows(NamedTuple):
    """Rows for an index, in one order: ids int64 (n,), vectors float32 (n, dim) as the metric wants them, labels,
    attributes if the index has some, and the columns to keep.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    grants: Grants
    attributes: pa.Table | None
    kept: pa.Table

    @property
    def nbytes(self) -> int:
        """Bytes of it all, about."""
        return int(self.vectors.nbytes + self.ids.nbytes) + int(self.kept.nbytes)


def rows_of_file(
    fragment: Fragment,
    number: int,
    definition: Definition,
    coded_labels: Callable[[pa.ChunkedArray], Grants],
    *,
    name: str,
) -> tuple[TableRows, LeftOut]:
    """All rows of a file that have a vector, and which have none. ``number`` of the file, ``name`` for messages;
    ``coded_labels`` turns the tenant column into codes. ``fragment`` must know no deletions. What reading raises.
    """
    column = definition.column
    kept = definition.kept(fragment.schema)
    types = definition.attribute_types(fragment.schema)
    used = [column, *types.names, *([definition.tenant] if definition.tenant else [])]
    table = fragment.read(list(dict.fromkeys([*used, *kept])))
    raw, rows, wrong = vectors_of(table.column(column), definition.dim, definition.metric, name)
    if len(rows) < table.num_rows:
        table = table.take(pa.array(rows))
    vectors = checked_vectors(raw, definition.dim, definition.metric, column)
    attributes = None
    if definition.attributes:
        attributes = given(table.select(types.names), types, len(rows))
    grants = coded_labels(table.column(definition.tenant)) if definition.tenant else None
    ids = (np.int64(number) << POSITION_BITS) | rows
    nobody = np.zeros(len(rows) + 1, np.int64), np.empty(0, np.int32)
    return TableRows(ids, vectors, grants or nobody, attributes, table.select(kept)), wrong


def vectors_of(
    column: pa.ChunkedArray, dim: int, metric: Metric, name: str = ""
) -> tuple[NDArray[np.float32], NDArray[np.int64], LeftOut]:
    """The vectors of a column of lists, float32 (m, dim); the row that each is, int64 (m,); and rows without one."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    count = len(array)
    valid = np.asarray(array.is_valid())
    lengths = np.where(valid, np.asarray(pc.fill_null(pc.list_value_length(array), -1)), -1)
    wrong: dict[str, NDArray[np.bool_]] = {"null": ~valid, "other_length": valid & (lengths != dim)}
    fine = valid & (lengths == dim)
    rows = np.flatnonzero(fine)
    some = array if fine.all() else array.take(pa.array(rows))
    values = some.flatten()
    with np.errstate(over="ignore"):  # what becomes inf is left out below
        flat = np.asarray(values.cast(pa.float32(), safe=False) if values.type != pa.float32() else values)
    vectors = np.ascontiguousarray(flat.reshape(len(rows), dim), np.float32)
    holes = np.zeros(len(rows), bool)
    if values.null_count:
        sound = np.asarray(values.is_valid()).reshape(len(rows), dim)
        holes = np.count_nonzero(sound, axis=1) < dim
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    finite = np.isfinite(squares)
    if not finite.all():  # of finite numbers, squares may be not
        finite[~finite] = np.isfinite(vectors[~finite]).all(axis=1)
    bad = {"null": holes, "not_finite": ~holes & ~finite}
    if metric is Metric.COSINE:
        bad["zero"] = ~holes & (squares == 0)
    else:
        bad["too_long"] = ~holes & finite & ~(squares <= SQUARES_MOST)
    out = np.zeros(len(rows), bool)
    for kind, mask in bad.items():
        out |= mask
        whole = wrong.setdefault(kind, np.zeros(count, bool))
        whole[rows[mask]] = True
    left_out = LeftOut(
        **{kind: int(np.count_nonzero(mask)) for kind, mask in wrong.items()},
        first={kind: _first(mask, lengths, kind, name) for kind, mask in wrong.items() if mask.any()},
    )
    return (vectors[~out], rows[~out], left_out) if out.any() else (vectors, rows, left_out)


def _first(mask: NDArray[np.bool_], lengths: NDArray[Any], kind: str, name: str) -> str:
    row = int(np.argmax(mask))
    more = f", of length {lengths[row]}" if kind == "other_length" else ""
    return f"row {row:,}{f' of {name}' if name else ''}{more}"


def labels_of(column: pa.ChunkedArray, public: Label | None, table: LabelTable) -> Grants:
    """The labels in a tenant column, as codes; NULL is no label, ``public`` everybody's."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        listed = [
            None if row is None else [PUBLIC if each == public else each for each in row if each is not None]
            for row in array.to_pylist()
        ]
        return coded(parsed(listed, len(listed)), table)
    encoded = array.dictionary_encode()
    codes = [table.code(PUBLIC if each == public else each) for each in encoded.dictionary.to_pylist()]
    seen = np.asarray(encoded.is_valid())
    indices = np.asarray(encoded.indices.fill_null(0), np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(seen, dtype=np.int64)])
    return offsets, np.array([*codes, 0], np.int32)[indices[seen]]


def joined(parts: Sequence[TableRows]) -> TableRows:
    """Several rows as one."""
    if len(parts) == 1:
        return parts[0]
    offsets, last = [np.zeros(1, np.int64)], 0
    for part in parts:
        offsets.append(part.grants[0][1:] + last)
        last += int(part.grants[0][-1])
    attributes = [part.attributes for part in parts if part.attributes is not None]
    return TableRows(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.vectors for part in parts]),
        (np.concatenate(offsets), np.concatenate([part.grants[1] for part in parts])),
        pa.concat_tables(attributes) if attributes else None,
        pa.concat_tables([part.kept for part in parts]),
    )


def first_dimensions(fragments: Sequence[Fragment], column: str) -> int | None:
    """The length of the first vector in a column; None if there is none."""
    for fragment in fragments:
        for table in fragment.batches([column]):
            lengths = pc.list_value_length(table.column(column)).drop_null()
            if len(lengths):
                return int(lengths[0].as_py())
    return None
