"""A first look at codes of several bits: by their leading bits alone, which lie closer together.

Rows of a long list that a condition leaves lie scattered, and reading their records is what a search waits for: a
record of 40 bytes is a cache line and a half. Of each record its two leading words (a bit of each of 128 dimensions,
or two of 64) and the numbers that go with them are kept apart, 20 bytes; few rows' estimates by these are so low that
the whole record must be looked at. All is derived: the leading bits of a code are the code of fewer bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled
from .bitmaps import population
from .code_simd import pass_four
from .simd import float_at, prefetch, uint_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HEAD_BYTES", "LEADING_BYTES", "LOOK_WORDS", "leading", "look", "sieved"]

LOST_ONE_BIT, LOST_TWO_BITS = np.float32(1.0243), np.float32(1.0024)
"""What rounding lost of a row does not lie quite anyhow; so much, for the bits that lead."""
LEADING_BYTES: Final = 20
"""Two words of code, then A and F as uint16, in steps from the least;"""
HEAD_BYTES: Final = 64
"""and before the rows as float32 the least A and its step, and the same of F."""
STEPS: Final = 65_535
AHEAD_ROWS: Final = 64
"""Leading words are fetched so many rows ahead."""
LOOK_WORDS: Final = 19
"""Of a query beside leading words: uint64, eight of planes and eight of shifts, then float32 as the constants below."""
LEAST_A, OFFSET, FACTOR = 32, 36, 37


@compiled
def leading(words: NDArray[np.uint64], numbers: NDArray[np.float32], bits: int, out: NDArray[np.uint32]) -> None:
    """Write the leading words and numbers of records of one block.

    ``words`` uint64 (n, 5), ``numbers`` float32 (n, 10) are the records; ``out`` uint32, of HEAD_BYTES and then
    LEADING_BYTES a row.

    The row r is along its code c but for what rounding lost, and so <c', r> for the leading bits c' is
    <c', c> <c, r> / |c|², which turns F = |r|² / <c, r> into that of c'.
    """
    each = 4 // bits  # words of a bit
    dims, some = 64 * each, 2 // each  # leading bits
    lost = LOST_ONE_BIT if some == 1 else LOST_TWO_BITS
    rows, factor = words.shape[0], np.empty(words.shape[0], np.float32)
    least_a, most_a = np.float32(np.inf), np.float32(-np.inf)
    least_f, most_f = np.float32(np.inf), np.float32(-np.inf)
    for row in range(rows):
        square, product = 0, 0
        for i in range(bits):
            for j in range(bits):
                apart = 0
                for word in range(each):
                    apart += population(words[row, i * each + word] ^ words[row, j * each + word])
                both = (dims - 2 * apart) << (i + j)
                square += both
                if i >= bits - some:
                    product += both >> (bits - some)
        factor[row] = numbers[row, 9] * np.float32(square / product) * lost
        least_a, most_a = min(least_a, numbers[row, 8]), max(most_a, numbers[row, 8])
        least_f, most_f = min(least_f, factor[row]), max(most_f, factor[row])
    step_a, step_f = (most_a - least_a) / np.float32(STEPS), (most_f - least_f) / np.float32(STEPS)
    a_by = np.float32(1) / step_a if step_a > 0 else np.float32(0)
    f_by = np.float32(1) / step_f if step_f > 0 else np.float32(0)
    head, record, size = out.view(np.float32), words.view(np.uint32), LEADING_BYTES // 4
    head[0], head[1], head[2], head[3] = least_a, step_a, least_f, step_f
    for row in range(rows):
        at = HEAD_BYTES // 4 + size * row
        for i in range(4):
            out[at + i] = record[row, 4 + i]
        a, f = np.int64((numbers[row, 8] - least_a) * a_by), np.int64((factor[row] - least_f) * f_by + np.float32(0.5))
        out[at + 4] = min(a, np.int64(STEPS)) | (min(f, np.int64(STEPS)) << 16)


@compiled
def look(planes: NDArray[np.uint64], bits: int, c2: float, below: float, leading: int, out: NDArray[np.uint64]) -> None:
    """What a query is beside leading words at an address: uint64 (LOOK_WORDS,), for estimates less ``below`` times F.

    ``planes`` and c2 from :func:`.codes.quantise`.
    """
    some = bits // 2
    for plane in range(4):
        for word in range(2):
            out[2 * plane + word] = planes[4 * plane + 2 + word]
            out[8 + 2 * plane + word] = plane + (word if some == 2 else 0)
    numbers = out.view(np.float32)
    for i in range(4):
        numbers[LEAST_A + i] = float_at(leading + 4 * i)
    numbers[OFFSET] = -0.5 * c2 * 15.0 * float((1 << some) - 1) * (256 // bits) - below
    numbers[FACTOR] = c2


@compiled
def sieved(
    leading: int,
    slots: NDArray[np.uint32],
    query: NDArray[np.uint64],
    limit: np.float32,
    out: NDArray[np.uint32],
) -> int:
    """Put those of the rows ``slots`` to ``out`` whose estimate by leading words at an address is below ``limit``.

    How many they are. ``query`` is what :func:`look` made; ``out`` is four longer than ``slots``. The last three rows
    may be let through.
    """
    last, at, count, query_at = slots.shape[0], slots.ctypes.data, 0, query.ctypes.data
    first = leading + HEAD_BYTES
    for i in range(min(AHEAD_ROWS, last)):
        prefetch(first + uint_at(at + 4 * i) * LEADING_BYTES)
    for i in range(0, last - 3, 4):
        here = at + 4 * i
        if i + AHEAD_ROWS + 4 <= last:
            for j in range(AHEAD_ROWS, AHEAD_ROWS + 4):
                ahead = first + uint_at(here + 4 * j) * LEADING_BYTES
                prefetch(ahead)
                prefetch(ahead + LEADING_BYTES - 1)
        passed = pass_four(
            first + uint_at(here) * LEADING_BYTES,
            first + uint_at(here + 4) * LEADING_BYTES,
            first + uint_at(here + 8) * LEADING_BYTES,
            first + uint_at(here + 12) * LEADING_BYTES,
            query_at,
            limit,
        )
        if passed == 0:
            continue
        for j in range(4):
            out[count] = slots[i + j]
            count += (passed >> j) & 1
    for i in range(last - last % 4, last):
        out[count] = slots[i]
        count += 1
    return count
