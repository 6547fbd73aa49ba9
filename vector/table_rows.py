"""Rows of a table's data files as an index takes them: ids, vectors, labels, attributes, and columns to keep beside.

An id is the number of a data file in the index, in the upper 32 bits, and the row's position in that file. All stored
rows are taken, deleted ones too, so that what is made of them serves every version of the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

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
    "Vectors",
    "joined",
    "labels_of",
    "left_out",
    "rows_of_file",
    "vectors_of",
]

POSITION_BITS: Final = 32
"""Of an id, the lowest are the row's position in its file."""
POSITIONS: Final = (1 << POSITION_BITS) - 1
LOOSE_NUMBER: Final = 1 << 30
"""Files that no segment covers get numbers from here on, in this process alone."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows that no search finds: how many, and where the first is, by what is wrong with their vector (WRONG)."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)

    def plus(self, other: LeftOut) -> LeftOut:
        """Both together, the others after these."""
        kinds = {*self.counts, *other.counts}
        counts = {kind: self.counts.get(kind, 0) + other.counts.get(kind, 0) for kind in kinds}
        return LeftOut(counts, {**other.first, **self.first})

    def __str__(self) -> str:
        return ", ".join(
            f"{self.counts[kind]:,} {words} (first: {self.first[kind]})"
            for kind, words in WRONG.items()
            if kind in self.counts
        )


class Vectors(NamedTuple):
    """The vectors of a column of lists: ``sound`` float32 (m, dim), the row that each is, int64 (m,), and for the
    others a mask over all rows by what is wrong with them.
    """

    sound: NDArray[np.float32]
    rows: NDArray[np.int64]
    wrong: dict[str, NDArray[np.bool_]]


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
    fragment: Fragment, number: int, definition: Definition, coded_labels: Callable[[pa.ChunkedArray], Grants]
) -> TableRows:
    """All rows of a file that have a sound vector.

    ``number`` of the file; ``coded_labels`` turns the tenant column into codes. ``fragment`` must know no deletions.
    Raises what reading does.
    """
    column = definition.column
    kept, types = definition.kept(fragment.schema), definition.attribute_types(fragment.schema)
    used = [column, *types.names, *([definition.tenant] if definition.tenant else [])]
    table = fragment.read(list(dict.fromkeys([*used, *kept])))
    raw, rows, _ = vectors_of(table.column(column), definition.dim, definition.metric)
    if len(rows) < table.num_rows:
        table = table.take(pa.array(rows))
    vectors = checked_vectors(raw, definition.dim, definition.metric, column)
    attributes = None
    if definition.attributes:
        attributes = given(table.select(types.names), types, len(rows))
    grants = coded_labels(table.column(definition.tenant)) if definition.tenant else None
    ids = (np.int64(number) << POSITION_BITS) | rows
    nobody = np.zeros(len(rows) + 1, np.int64), np.empty(0, np.int32)
    return TableRows(ids, vectors, grants or nobody, attributes, table.select(kept))


def left_out(fragment: Fragment, definition: Definition) -> LeftOut:
    """The live rows of a file that have no sound vector."""
    column = fragment.read([definition.column]).column(0)
    found = vectors_of(column, definition.dim, definition.metric)
    positions, counts, first = fragment.positions(), {}, {}
    for kind, mask in found.wrong.items():
        counts[kind], row = int(np.count_nonzero(mask)), int(np.argmax(mask))
        length = f", of length {len(column[row]):,}" if kind == "other_length" else ""
        first[kind] = f"row {positions[row]:,} of {fragment.path}{length}"
    return LeftOut(counts, first)


def vectors_of(column: pa.ChunkedArray, dim: int, metric: Metric) -> Vectors:
    """Which rows of a column of lists hold vectors that can be searched for, and these."""
    array = column.combine_chunks()
    valid = np.asarray(array.is_valid())
    lengths = np.where(valid, np.asarray(pc.fill_null(pc.list_value_length(array), -1)), -1)
    fine = valid & (lengths == dim)
    rows = np.flatnonzero(fine)
    values = (array if fine.all() else array.take(pa.array(rows))).flatten()
    with np.errstate(over="ignore"):  # what becomes inf is not finite
        flat = np.asarray(values if values.type == pa.float32() else values.cast(pa.float32(), safe=False))
    vectors = np.ascontiguousarray(flat.reshape(len(rows), dim), np.float32)
    holes = np.zeros(len(rows), bool)
    if values.null_count:
        holes = np.count_nonzero(np.asarray(values.is_valid()).reshape(len(rows), dim), axis=1) < dim
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
    wrong = {"null": ~valid, "other_length": valid & ~fine}
    sound = np.ones(len(rows), bool)
    for kind, mask in bad.items():
        sound &= ~mask
        whole = wrong.setdefault(kind, np.zeros(len(array), bool))
        whole[rows[mask]] = True
    wrong = {kind: mask for kind, mask in wrong.items() if mask.any()}
    return Vectors(vectors, rows, wrong) if sound.all() else Vectors(vectors[sound], rows[sound], wrong)


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
