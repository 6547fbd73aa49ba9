"""Columns of a table that conditions may name though they are no attributes: DuckDB judges them, row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["KeptColumn"]


class KeptColumn:
    """A column of a unit's rows, read when a condition names it; nothing of it is held."""

    __slots__ = ("_read", "kind")

    index_bytes = 0
    value_bytes = 0

    def __init__(self, kind: pa.DataType, read: Callable[[NDArray[np.int64]], pa.Array | pa.ChunkedArray]) -> None:
        """``read`` gives the values of rows by their positions, in the type ``kind``."""
        self.kind, self._read = kind, read

    def taken(self, rows: NDArray[np.int64]) -> pa.Array | pa.ChunkedArray:
        """The values of rows, in the column's type."""
        return self._read(rows)

    def within(self, *_: object) -> NoReturn:
        """Only attributes are found by their values."""
        raise TypeError("a column that is no attribute is left to DuckDB")

    null = holds = within
