"""Attributes of a unit as named arrays, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from .columns import CellColumn
from .keys import is_list, is_text
from .list_columns import ListColumn
from .rank_column import RankColumn, shapes
from .texts import Texts

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from .matching import Column, Columns

__all__ = ["column_arrays", "columns_of"]

Names: TypeAlias = tuple[str, ...]
CELL_ARRAYS: Names = ("cells", "order", "population", "values")
RANK_ARRAYS: Names = ("keys", "order", "bottoms", "offsets", "edges", "marks")
LIST_ARRAYS: Names = ("starts", "rows", "ends", "codes", "valid")


def column_arrays(columns: Columns) -> dict[str, NDArray[Any]]:
    """The arrays of a segment's columns, numbered as the attributes are."""
    out: dict[str, NDArray[Any]] = {}
    for number, column in enumerate(columns.values()):
        assert isinstance(column, CellColumn | RankColumn | ListColumn), "columns of deltas are frozen before"
        names = LIST_ARRAYS
        if not isinstance(column, ListColumn):
            names = CELL_ARRAYS if isinstance(column, CellColumn) else RANK_ARRAYS
        out.update({f"attribute{number}_{name}": getattr(column, name) for name in names})
        if column.texts is not None:
            out[f"attribute{number}_text_bounds"] = column.texts.bounds
            out[f"attribute{number}_text"] = column.texts.utf8
    return out


def columns_of(arrays: dict[str, NDArray[Any]], schema: pa.Schema | None, rows: int) -> dict[str, Column]:
    """The columns that such arrays hold. KeyError or ValueError if they do not fit the schema or the rows."""
    return {
        field.name: _column(arrays, number, field.type, rows)
        for number, field in enumerate(schema if schema is not None else ())
    }


def _column(arrays: dict[str, NDArray[Any]], number: int, kind: pa.DataType, rows: int) -> Column:
    names = CELL_ARRAYS if f"attribute{number}_cells" in arrays else RANK_ARRAYS
    if is_list(kind):
        names = LIST_ARRAYS
    held = {name: arrays[f"attribute{number}_{name}"] for name in names}
    texts = None
    if is_list(kind) or is_text(kind):
        texts = Texts(arrays[f"attribute{number}_text_bounds"], arrays[f"attribute{number}_text"])
    count = len(held["ends"]) - 1 if is_list(kind) else len(held[names[0]])
    if count != rows:
        raise ValueError(f"{rows} ids beside an attribute of {count} rows")
    if texts is not None and is_list(kind):
        return ListColumn(kind, texts, **held)
    if names is CELL_ARRAYS:
        return CellColumn(kind, **held, texts=texts)
    for name, shape in shapes(rows, len(held["bottoms"])).items():
        if held[name].shape != shape:
            raise ValueError(f"{name} of an attribute of {rows} rows: {held[name].shape} and not {shape}")
    return RankColumn(kind, **held, texts=texts)
