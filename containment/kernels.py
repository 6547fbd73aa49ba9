"""The hashing of :mod:`.mixing` in Numba: one pass a column, the same hashes bit for bit.

Importing this module takes most of a second; kernels compile at their first use and are cached on disk where that can
be written. All kernels release the GIL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from ..lake.kernels import compiled, inlined
from .canonical import (
    DECIMAL_SCALE_MAX,
    MICROSECONDS,
    MILLISECONDS,
    NAN_BITS,
    NANOSECONDS,
    SECONDS,
    Form,
    fifth_bound,
    fifth_inverse,
)
from .compiled import bits_of, hi, lo, load, load_byte, u64
from .mixing import STRING_BYTES_MAX, Lanes, NumpyKernels

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["CompiledKernels"]

Array: TypeAlias = "NDArray[Any]"
"""In kernels: C-contiguous, shape (n,) where nothing else is said, written only if named out_… or total_…."""

ZERO, ONE, LOW_BITS, SIGN, HALF, LOW_HALF = u64(0, 1, 0x7FF, 2**63, 32, 2**32 - 1)
INLINE_BYTES: Final = 12
NAN: Final = np.uint64(NAN_BITS)
TWO_63: Final = 2.0**63
INTEGER, FLOAT, UNSIGNED, DECIMAL, LIST = (
    int(f) for f in (Form.INTEGER, Form.FLOAT, Form.UNSIGNED, Form.DECIMAL, Form.LIST)
)
US, NS, S, MS = MICROSECONDS, NANOSECONDS, SECONDS, MILLISECONDS
LONGEST: Final = STRING_BYTES_MAX
TENTH_INVERSE: Final = np.uint64(fifth_inverse(1) % 2**64)
TENTH_BOUND: Final = np.int64(fifth_bound(1))


@compiled
def integers(values: Array, form: int, keys: Array, out_lo: Array, out_hi: Array) -> None:
    """int64 words of one form."""
    key_lo, key_hi = keys[0, form], keys[1, form]
    for i in range(len(values)):
        word = np.uint64(np.int64(values[i]))
        out_lo[i] = lo(key_lo ^ word)
        out_hi[i] = hi(key_hi ^ word)


@compiled
def unsigned(values: Array, keys: Array, out_lo: Array, out_hi: Array) -> None:
    """As canonical.unsigned_words, mixed."""
    for i in range(len(values)):
        word, form = values[i], INTEGER
        if word >= SIGN:
            form = UNSIGNED
            if word & LOW_BITS == ZERO:
                word, form = bits_of(np.float64(word)), FLOAT
        out_lo[i] = lo(keys[0, form] ^ word)
        out_hi[i] = hi(keys[1, form] ^ word)


@compiled
def floats(values: Array, keys: Array, out_lo: Array, out_hi: Array) -> None:
    """As canonical.float_words, mixed."""
    for i in range(len(values)):
        value = np.float64(values[i])
        if -TWO_63 <= value < TWO_63 and np.float64(np.int64(value)) == value:
            word, form = np.uint64(np.int64(value)), INTEGER
        else:
            word, form = NAN if value != value else bits_of(value), FLOAT  # noqa: PLR0124
        out_lo[i] = lo(keys[0, form] ^ word)
        out_hi[i] = hi(keys[1, form] ^ word)


@compiled
def decimals(
    words: Array,
    scale: int,
    inverse: np.uint64,
    bound: np.int64,
    factor: float,
    keys: Array,
    large: Array,
    out_lo: Array,
    out_hi: Array,
) -> int:
    """As canonical.decimal_words, mixed; rows whose unscaled value exceeds int64 are marked in ``large``, counted."""
    count, width = 0, words.shape[1]
    lowest = -bound - 1 if scale == 0 else -bound
    shift = min(scale, 63)
    fraction = (np.int64(1) << shift) - np.int64(1)
    for i in range(len(words)):
        value = words[i, 0]
        fits = width == 1 or words[i, 1] == value >> 63
        for j in range(2, width):
            fits &= words[i, j] == value >> 63
        if not fits:
            large[i] = True
            count += 1
            continue
        # Choices, not branches: digits are random, and a branch guessed wrong costs more than all of this.
        fifth = np.int64(np.uint64(value) * inverse)  # unsigned: Numba leaves signed overflow undefined
        tenth = np.int64(np.uint64(value) * TENTH_INVERSE)
        as_float = np.float64(fifth)
        divides = (fifth >= lowest) & (fifth <= bound)
        integral = divides & (fifth & fraction == 0)
        exact = divides & (np.int64(as_float) == fifth)
        strip = (tenth & 1 == 0) & (tenth >= -TENTH_BOUND) & (tenth <= TENTH_BOUND) & (not integral) & (not exact)
        value = tenth >> 1 if strip else value
        form = INTEGER if integral else (FLOAT if exact else DECIMAL + scale - np.int64(strip))
        if scale > 2 and strip:
            tenth = np.int64(np.uint64(value) * TENTH_INVERSE)
            while tenth & 1 == 0 and -TENTH_BOUND <= tenth <= TENTH_BOUND:
                value = tenth >> 1
                form -= 1
                tenth = np.int64(np.uint64(value) * TENTH_INVERSE)
        word = np.uint64(fifth >> shift) if integral else (bits_of(as_float * factor) if exact else np.uint64(value))
        out_lo[i] = lo(keys[0, form] ^ word)
        out_hi[i] = hi(keys[1, form] ^ word)
    return count


@compiled
def nanoseconds(values: Array, base: int, keys: Array, out_lo: Array, out_hi: Array) -> None:
    """As canonical.temporal_words for nanoseconds, mixed."""
    for i in range(len(values)):
        value = values[i]
        whole = value // 1000
        exact = whole * 1000 == value
        word = np.uint64(whole if exact else value)
        form = base + (US if exact else NS)
        out_lo[i] = lo(keys[0, form] ^ word)
        out_hi[i] = hi(keys[1, form] ^ word)


@inlined
def _sum_words(
    address: int, start: int | np.int64, stop: int | np.int64, places: Array, word_key: Array
) -> tuple[np.uint64, np.uint64]:
    """The sums, in both lanes, of the mixed words of one byte string, each times the factor of its place."""
    size = stop - start
    state_lo, state_hi = ZERO, ZERO
    if size > LONGEST:
        return state_lo, state_hi
    full, rest = size >> 3, size & 7
    for j in range(full):
        word = load(address, start + 8 * j)
        state_lo += lo(word_key[0] ^ word) * places[0, j]
        state_hi += hi(word_key[1] ^ word) * places[1, j]
    if rest:
        if size >= 8:
            word = load(address, stop - 8) >> np.uint64(64 - 8 * rest)
        else:
            word = ZERO
            for j in range(rest):
                word |= load_byte(address, start + j) << np.uint64(8 * j)
        state_lo += lo(word_key[0] ^ word) * places[0, full]
        state_hi += hi(word_key[1] ^ word) * places[1, full]
    return state_lo, state_hi


@compiled
def strings(
    address: int, offsets: Array, form: int, places: Array, word_key: Array, keys: Array, out_lo: Array, out_hi: Array
) -> None:
    """As NumpyKernels.strings. ``address``: of the first byte; only bytes within the offsets are read."""
    form_lo, form_hi = keys[0, form], keys[1, form]
    for i in range(len(offsets) - 1):
        start, stop = np.int64(offsets[i]), np.int64(offsets[i + 1])
        size = np.uint64(stop - start)
        more = _sum_words(address, start, stop, places, word_key)
        out_lo[i] = lo(lo(form_lo ^ size) + more[0])
        out_hi[i] = hi(hi(form_hi ^ size) + more[1])


@compiled
def views(
    words: Array, addresses: Array, form: int, places: Array, word_key: Array, keys: Array, out_lo: Array, out_hi: Array
) -> None:
    """As strings, of Arrow's string views: ``words`` (n, 2), and the addresses of the buffers they point into."""
    form_lo, form_hi = keys[0, form], keys[1, form]
    for i in range(len(words)):
        head, tail = words[i, 0], words[i, 1]
        size = np.int64(head & LOW_HALF)
        state_lo, state_hi = lo(form_lo ^ np.uint64(size)), hi(form_hi ^ np.uint64(size))
        if size > INLINE_BYTES:
            start = np.int64(tail >> HALF)
            more = _sum_words(addresses[np.int64(tail & LOW_HALF)], start, start + size, places, word_key)
            state_lo, state_hi = state_lo + more[0], state_hi + more[1]
        else:  # the bytes lie in the view itself, behind the length
            if size > 0:
                word = (head >> HALF) | (tail << HALF)
                if size < 8:
                    word &= (ONE << np.uint64(8 * size)) - ONE
                state_lo += lo(word_key[0] ^ word) * places[0, 0]
                state_hi += hi(word_key[1] ^ word) * places[1, 0]
            if size > 8:
                word = (tail >> HALF) & ((ONE << np.uint64(8 * size - 64)) - ONE)
                state_lo += lo(word_key[0] ^ word) * places[0, 1]
                state_hi += hi(word_key[1] ^ word) * places[1, 1]
        out_lo[i] = lo(state_lo)
        out_hi[i] = hi(state_hi)


@compiled
def lists(
    part_lo: Array, part_hi: Array, offsets: Array, position_key: Array, keys: Array, out_lo: Array, out_hi: Array
) -> None:
    """As NumpyKernels.lists."""
    for i in range(len(offsets) - 1):
        size = np.uint64(offsets[i + 1] - offsets[i])
        state_lo, state_hi = lo(keys[0, LIST] ^ size), hi(keys[1, LIST] ^ size)
        for j in range(offsets[i], offsets[i + 1]):
            place = np.uint64(j - offsets[i])
            state_lo += part_lo[j] * (lo(place ^ position_key[0]) | ONE)
            state_hi += part_hi[j] * (hi(place ^ position_key[1]) | ONE)
        out_lo[i], out_hi[i] = lo(state_lo), hi(state_hi)


@compiled
def add_scaled(
    total_lo: Array, total_hi: Array, part_lo: Array, part_hi: Array, factor_lo: np.uint64, factor_hi: np.uint64
) -> None:
    """As NumpyKernels.add_scaled."""
    for i in range(len(total_lo)):
        total_lo[i] += part_lo[i] * factor_lo
        total_hi[i] += part_hi[i] * factor_hi


@compiled
def finish(total_lo: Array, total_hi: Array, key: Array, out_lo: Array, out_hi: Array) -> None:
    """As NumpyKernels.finish."""
    for i in range(len(total_lo)):
        first = lo((total_lo[i] + total_hi[i]) ^ key[0])
        out_lo[i] = first
        out_hi[i] = hi((total_hi[i] + first) ^ key[1])


@compiled
def gather(values_lo: Array, values_hi: Array, indices: Array, out_lo: Array, out_hi: Array) -> None:
    """As NumpyKernels.gather."""
    for i in range(len(indices)):
        out_lo[i] = values_lo[indices[i]]
        out_hi[i] = values_hi[indices[i]]


def _empty(n: int) -> Lanes:
    return Lanes(np.empty(n, np.uint64), np.empty(n, np.uint64))


class _Opened:
    """An array's memory without its read-only flag."""

    def __init__(self, values: NDArray[Any]) -> None:
        interface = dict(values.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.__array_interface__ = interface
        self.owner = values


def _opened(values: NDArray[Any]) -> NDArray[Any]:
    """The values for a kernel that only reads them, sharing memory; narrow integers are widened.

    Arrays from Arrow are read-only, which takes Numba's dispatch off its fast path, tens of microseconds a call; and
    each kernel now compiles for few types.
    """
    if values.dtype.kind in "iu" and values.dtype.itemsize < 4:
        return values.astype(np.int32)
    if values.dtype == np.uint32:
        return values.astype(np.int64)
    return values if values.flags.writeable else np.asarray(_Opened(values))


class CompiledKernels(NumpyKernels):
    """The methods of NumpyKernels, compiled where that pays. Forms go on as plain ints: enums dispatch slowly."""

    def integers(self, values: NDArray[np.integer[Any]], form: int) -> Lanes:
        """As the NumPy one."""
        out = _empty(len(values))
        integers(_opened(values), int(form), self.keys.forms, out.lo, out.hi)
        return out

    def unsigned(self, values: NDArray[np.uint64]) -> Lanes:
        """As the NumPy one."""
        out = _empty(len(values))
        unsigned(_opened(values), self.keys.forms, out.lo, out.hi)
        return out

    def floats(self, values: NDArray[np.floating[Any]]) -> Lanes:
        """As the NumPy one."""
        if values.dtype == np.float16:
            values = values.astype(np.float32)  # exact; Numba has no arithmetic on halves
        out = _empty(len(values))
        floats(_opened(values), self.keys.forms, out.lo, out.hi)
        return out

    def decimals(self, words: NDArray[np.int64], scale: int) -> tuple[Lanes, NDArray[np.intp]]:
        """As the NumPy one."""
        if not 0 <= scale <= DECIMAL_SCALE_MAX:
            return super().decimals(words, scale)
        out, large = _empty(len(words)), np.zeros(len(words), np.bool_)
        inverse, bound = np.uint64(fifth_inverse(scale) % 2**64), np.int64(fifth_bound(scale))
        count = decimals(_opened(words), scale, inverse, bound, 2.0**-scale, self.keys.forms, large, out.lo, out.hi)
        return out, np.flatnonzero(large) if count else np.empty(0, np.intp)

    def temporal(self, values: NDArray[np.int64], unit: str, base: int) -> Lanes:
        """As the NumPy one."""
        if unit == "us":
            return self.integers(values, base + MICROSECONDS)
        if unit != "ns":
            return super().temporal(values, unit, base)
        out = _empty(len(values))
        nanoseconds(_opened(values), int(base), self.keys.forms, out.lo, out.hi)
        return out

    def strings(self, data: NDArray[np.uint8], offsets: NDArray[np.integer[Any]], form: int) -> Lanes:
        """As the NumPy one."""
        out, keys = _empty(len(offsets) - 1), self.keys
        strings(data.ctypes.data, _opened(offsets), int(form), keys.positions, keys.word, keys.forms, out.lo, out.hi)
        return out

    def views(self, words: NDArray[np.uint64], buffers: list[pa.Buffer], form: int) -> Lanes | None:
        """Arrow's string views, shape (n, 2), into ``buffers``; those over STRING_BYTES_MAX come out undefined."""
        out, keys = _empty(len(words)), self.keys
        addresses = np.array([buffer.address for buffer in buffers], np.int64)
        views(_opened(words), addresses, int(form), keys.positions, keys.word, keys.forms, out.lo, out.hi)
        return out

    def lists(self, elements: Lanes, offsets: NDArray[np.int64]) -> Lanes:
        """As the NumPy one."""
        out = _empty(len(offsets) - 1)
        lists(elements.lo, elements.hi, offsets, self.keys.position_key, self.keys.forms, out.lo, out.hi)
        return out

    def add_scaled(self, total: Lanes, part: Lanes, factors: tuple[np.uint64, np.uint64]) -> None:
        """As the NumPy one."""
        add_scaled(total.lo, total.hi, part.lo, part.hi, *factors)

    def finish(self, total: Lanes, key: NDArray[np.uint64]) -> Lanes:
        """As the NumPy one."""
        out = _empty(len(total))
        finish(total.lo, total.hi, key, out.lo, out.hi)
        return out

    def gather(self, values: Lanes, indices: NDArray[np.integer[Any]]) -> Lanes:
        """As the NumPy one."""
        out = _empty(len(indices))
        gather(values.lo, values.hi, _opened(indices), out.lo, out.hi)
        return out
