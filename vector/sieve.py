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
STEP_SHARE: Final = 0.01
"""Of the usual F that a step may be: less than codes err by."""
AHEAD_ROWS: Final = 64
"""Leading words are fetched so many rows ahead."""
LOOK_WORDS: Final = 19
"""Of a query beside leading words: uint64, eight of planes and eight of shifts, then float32 as the constants below."""
LEAST_A, OFFSET, FACTOR = 32, 36, 37


def leading(records: NDArray[np.uint8], bits: int) -> NDArray[np.uint32]:
    """The leading words and numbers of records of one block, uint8 (n, 40): HEAD_BYTES, then LEADING_BYTES a row.

    Empty where steps of F would be too long for most rows, for some lie very far away, or float32 has no such steps.
    """
    words, numbers = records.view(np.uint64), records.view(np.float32)
    factors = np.empty(len(records), np.float32)
    _factors(words, numbers[:, 9], bits, factors)
    head = np.zeros(4, np.float64)
    for place, each in ((0, numbers[:, 8]), (2, factors)):
        if len(each):
            head[place] = each.min()
            head[place + 1] = (np.float64(each.max()) - head[place]) / STEPS
    steps, tiny = head[1::2], np.finfo(np.float32).tiny
    usable = np.isfinite(steps) & ((steps == 0) | (steps > tiny))
    if not usable.all() or (len(factors) and steps[1] > STEP_SHARE * np.median(factors)):
        return np.empty(0, np.uint32)
    out = np.zeros((HEAD_BYTES + LEADING_BYTES * len(records)) // 4, np.uint32)
    out[:4] = head.astype(np.float32).view(np.uint32)
    _write(words.view(np.uint32), numbers[:, 8], factors, out)
    return out


@compiled
def _factors(
    words: NDArray[np.uint64], whole: NDArray[np.float32], bits: int, out_factors: NDArray[np.float32]
) -> None:
    """The number F for the leading bits of each row, from that of its ``whole`` code.

    The row r is along its code c but for what rounding lost, and so <c', r> for the leading bits c' is
    <c', c> <c, r> / |c|², which turns F = |r|² / <c, r> into that of c'.
    """
    each = 4 // bits  # words of a bit
    dims, some = 64 * each, 2 // each  # leading bits
    lost = LOST_ONE_BIT if some == 1 else LOST_TWO_BITS
    for row in range(words.shape[0]):
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
        out_factors[row] = whole[row] * np.float32(square / product) * lost


@compiled
def _write(
    words: NDArray[np.uint32], norms: NDArray[np.float32], factors: NDArray[np.float32], out: NDArray[np.uint32]
) -> None:
    head, size = out.view(np.float32), LEADING_BYTES // 4
    a_by = np.float32(1) / head[1] if head[1] > 0 else np.float32(0)
    f_by = np.float32(1) / head[3] if head[3] > 0 else np.float32(0)
    for row in range(words.shape[0]):
        at = HEAD_BYTES // 4 + size * row
        for i in range(4):
            out[at + i] = words[row, 4 + i]
        a, f = np.int64((norms[row] - head[0]) * a_by), np.int64((factors[row] - head[2]) * f_by + np.float32(0.5))
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
