"""Texts of a segment: distinct, ascending, in two arrays; a text's key is its rank among them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .intervals import Intervals

__all__ = ["Texts", "bounds_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """Distinct ascending texts, as they stand in a file: UTF-8 one after another, and int64 (n + 1,) bounds."""

    bounds: NDArray[np.int64]
    utf8: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, number: int) -> str:
        return self.utf8[self.bounds[number] : self.bounds[number + 1]].tobytes().decode()

    @property
    def array(self) -> pa.Array:
        """The texts as an Arrow array over the same bytes."""
        buffers = [None, pa.py_buffer(self.bounds), pa.py_buffer(self.utf8)]
        return pa.Array.from_buffers(pa.large_string(), len(self), buffers)

    @property
    def nbytes(self) -> int:
        """Bytes of both arrays."""
        return self.bounds.nbytes + self.utf8.nbytes

    @classmethod
    def of(cls, array: pa.Array) -> tuple[Texts, NDArray[np.int64]]:
        """The distinct texts of an array without NULLs, and the rank of each row's text, int64 (n,)."""
        coded = array.dictionary_encode()
        order = np.asarray(pc.sort_indices(coded.dictionary))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        ascending = coded.dictionary.take(pa.array(order))
        _, bounds, utf8 = pa.concat_arrays([pa.array([""], pa.large_string()), ascending]).slice(1).buffers()
        ends = np.frombuffer(bounds, np.int64)[1 : len(order) + 2].copy()
        held = np.frombuffer(utf8, np.uint8) if utf8 is not None else np.empty(0, np.uint8)
        return cls(ends, held[: ends[-1]].copy()), rank[np.asarray(coded.indices)]


def _ranks(intervals: Intervals, texts: Texts) -> Intervals:
    """Intervals of texts as intervals of their ranks among ascending ones."""

    def rank(cut: tuple[int, str, int]) -> int:
        beyond, text, side = cut
        if beyond:
            return len(texts)
        return bisect_right(texts, text) if side else bisect_left(texts, text)

    return tuple((low, high) for low, high in ((rank(low), rank(high)) for low, high in intervals) if low < high)


def bounds_of(intervals: Intervals, texts: Texts | None) -> NDArray[np.int64]:
    """Intervals of keys, or of ``texts``, as kernels take them: int64 (r, 2), both ends inside."""
    keys = intervals if texts is None else _ranks(intervals, texts)
    return np.array([(low, high - 1) for low, high in keys], np.int64).reshape(-1, 2)
