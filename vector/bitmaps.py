"""Sets of rows as bitmaps: 64 rows a word, row 0 the lowest bit, bits behind the last row clear.

All take and give words uint64 (ceil(n / 64),). A million rows are 125 kB, so that conditions combine in a cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from ..lake.kernels import compiled, inlined

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "STEP",
    "add_rows",
    "all_rows",
    "at",
    "count",
    "count_between",
    "list_word",
    "no_rows",
    "of_mask",
    "population",
    "rows_of",
    "trailing_zeros",
]

I64 = ir.IntType(64)
STEP: Final = 8
"""Rows of a word that are listed at once: a branch that a processor cannot foresee costs as much as all of them."""


def _unary(name: str) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        extra = [ir.Constant(ir.IntType(1), 0)] if name == "cttz" else []
        parameters = [I64] + [ir.IntType(1)] * len(extra)
        full = f"llvm.{name}.i64"
        found = builder.module.globals.get(full)
        function = found or ir.Function(builder.module, ir.FunctionType(I64, parameters), full)
        return builder.call(function, [arguments[0], *extra])

    def typed(typing: Any, word: Any) -> Any:
        return types.int64(types.uint64), generate

    return intrinsic(typed)


population: Any = _unary("ctpop")
"""How many bits of a word are set."""
trailing_zeros: Any = _unary("cttz")
"""The place of the lowest bit of a word; 64 if it has none."""


def no_rows(n: int) -> NDArray[np.uint64]:
    """None of ``n`` rows."""
    return np.zeros((n + 63) // 64, np.uint64)


def all_rows(n: int) -> NDArray[np.uint64]:
    """All of ``n`` rows."""
    words = np.full((n + 63) // 64, np.iinfo(np.uint64).max, np.uint64)
    if n % 64:
        words[-1] = (1 << n % 64) - 1
    return words


def of_mask(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """The rows where ``mask``, bool (n,), is true."""
    out = np.zeros((len(mask) + 63) // 64 * 8, np.uint8)
    packed = np.packbits(mask, bitorder="little")
    out[: len(packed)] = packed
    return out.view(np.uint64)


@compiled
def add_rows(rows: NDArray[np.uint32], words: NDArray[np.uint64]) -> None:
    """Add rows by their numbers."""
    for row in rows:
        words[row >> 6] |= np.uint64(1) << np.uint64(row & 63)


@compiled
def count_between(words: NDArray[np.uint64], start: int, stop: int) -> int:
    """How many of the rows from ``start`` to before ``stop`` are in."""
    if start >= stop:
        return 0
    first, last = start >> 6, (stop - 1) >> 6
    lowest = ~np.uint64(0) << np.uint64(start & 63)
    highest = ~np.uint64(0) >> np.uint64(63 - ((stop - 1) & 63))
    if first == last:
        return int(population(words[first] & lowest & highest))
    total = population(words[first] & lowest) + population(words[last] & highest)
    for i in range(first + 1, last):
        total += population(words[i])
    return int(total)


@compiled
def count(words: NDArray[np.uint64]) -> int:
    """How many rows are in."""
    total = 0
    for word in words:
        total += population(word)
    return total


@inlined
def list_word(
    word: np.uint64, number: int, of: NDArray[np.uint32], own: bool, out: NDArray[np.uint32], size: np.uint64
) -> np.uint64:
    """Write ``of[i]``, or i if ``own``, for each row i of a bitmap's word to ``out`` from place ``size`` on; how far.

    By whole steps: up to STEP places behind are written over too, which the next word then has.
    """
    last, behind = np.uint64(max(of.shape[0], 1) - 1), size + np.uint64(population(word))
    while size < behind:
        for step in range(STEP):
            row = np.uint64(number << 6) + np.uint64(trailing_zeros(word))
            out[size + np.uint64(step)] = row if own else of[min(row, last)]
            word &= word - np.uint64(1)
        size += np.uint64(STEP)
    return behind


@compiled
def rows_of(words: NDArray[np.uint64], of: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """``of[i]`` for each row i that is in, ascending as ``of`` is; the rows' own numbers where that is empty."""
    total, size = count(words), np.uint64(0)
    out = np.empty(total + STEP, np.uint32)
    for i in range(words.shape[0]):
        size = list_word(words[i], i, of, of.shape[0] == 0, out, size)
    return out[:total]


@compiled
def at(words: NDArray[np.uint64], rows: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """A bitmap over ``rows``: bit i says whether rows[i] is in."""
    out = np.zeros((rows.shape[0] + 63) >> 6, np.uint64)
    for i in range(rows.shape[0]):
        row = np.int64(rows[i])
        bit = (words[row >> 6] >> np.uint64(row & 63)) & np.uint64(1)
        out[i >> 6] |= bit << np.uint64(i & 63)
    return out
