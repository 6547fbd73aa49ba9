"""The hashing of :mod:`.mixing` in Numba: one pass a column, the same hashes bit for bit.

Importing this module takes most of a second; kernels compile at their first use and are cached on disk where that can
be written. All kernels release the GIL. Arrays from Arrow are read-only, so signatures are left to be inferred.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from . import mixing
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
from .mixing import STRING_BYTES_MAX, Lanes, NumpyKernels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CompiledKernels", "compiled"]

Array: TypeAlias = "NDArray[Any]"
"""In kernels: C-contiguous, shape (n,) where nothing else is said, written only if named out_… or total_…."""

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """The function compiled by Numba at its first call; cached on disk if there is a place for that."""
    try:
        return cast("_F", numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # neither the source's folder nor the user's cache can be written
        return cast("_F", numba.njit(nogil=True)(function))


def _u64(*numbers: int) -> tuple[np.uint64, ...]:
    return tuple(np.uint64(n) for n in numbers)


L1, L2, L3, LM1, LM2 = _u64(*mixing.LO_SHIFTS, *mixing.LO_FACTORS)
H1, H2, H3, HM1, HM2 = _u64(*mixing.HI_SHIFTS, *mixing.HI_FACTORS)
ZERO, ONE, LOW_BITS, SIGN = _u64(0, 1, 0x7FF, 2**63)
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
def lo(x: np.uint64) -> np.uint64:
    """The finaliser of the first lane."""
    x ^= x >> L1
    x *= LM1
    x ^= x >> L2
    x *= LM2
    return x ^ (x >> L3)


@compiled
def hi(x: np.uint64) -> np.uint64:
    """The finaliser of the second lane."""
    x ^= x >> H1
    x *= HM1
    x ^= x >> H2
    x *= HM2
    return x ^ (x >> H3)


def _load_word(typing: Any, address: Any, offset: Any) -> Any:
    """The eight bytes at address + offset as a uint64, aligned or not."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.load(builder.inttoptr(builder.add(*arguments), ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(types.intp, types.intp), generate


def _load_byte(typing: Any, address: Any, offset: Any) -> Any:
    """The byte at address + offset as a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = builder.load(builder.inttoptr(builder.add(*arguments), ir.IntType(8).as_pointer()))
        return builder.zext(byte, ir.IntType(64))

    return types.uint64(types.intp, types.intp), generate


def _float_bits(typing: Any, value: Any) -> Any:
    """The bits of a float64 as a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.uint64(types.float64), generate


_load: Any = intrinsic(_load_word)
_byte: Any = intrinsic(_load_byte)
_bits_of: Any = intrinsic(_float_bits)


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
                word, form = _bits_of(np.float64(word)), FLOAT
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
            word, form = NAN if value != value else _bits_of(value), FLOAT  # noqa: PLR0124
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
    for i in range(len(words)):
        value = words[i, 0]
        fits = width == 1 or words[i, 1] == value >> 63
        for j in range(2, width):
            fits &= words[i, j] == value >> 63
        if not fits:
            large[i] = True
            count += 1
            continue
        fifth = np.int64(np.uint64(value) * inverse)  # unsigned: Numba leaves signed overflow undefined
        form = DECIMAL + scale
        word = np.uint64(value)
        if value == 0:
            form = INTEGER
        elif lowest <= fifth <= bound:
            whole = fifth >> min(scale, 63)
            if whole << min(scale, 63) == fifth:
                word, form = np.uint64(whole), INTEGER
            elif np.int64(np.float64(fifth)) == fifth:
                word, form = _bits_of(np.float64(fifth) * factor), FLOAT
        if form >= DECIMAL:
            tenth = np.int64(np.uint64(value) * TENTH_INVERSE)
            while tenth & 1 == 0 and -TENTH_BOUND <= tenth <= TENTH_BOUND:
                value = tenth >> 1
                form -= 1
                tenth = np.int64(np.uint64(value) * TENTH_INVERSE)
            word = np.uint64(value)
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


@compiled
def strings(
    address: int, offsets: Array, form: int, places: Array, word_key: Array, keys: Array, out_lo: Array, out_hi: Array
) -> None:
    """As NumpyKernels.strings. ``address``: of the first byte; only bytes within the offsets are read."""
    key_lo, key_hi = word_key[0], word_key[1]
    form_lo, form_hi = keys[0, form], keys[1, form]
    for i in range(len(offsets) - 1):
        start, stop = np.int64(offsets[i]), np.int64(offsets[i + 1])
        size = stop - start
        state_lo, state_hi = lo(form_lo ^ np.uint64(size)), hi(form_hi ^ np.uint64(size))
        if size <= LONGEST:
            full = size >> 3
            for j in range(full):
                word = _load(address, start + 8 * j)
                state_lo += lo(key_lo ^ word) * places[0, j]
                state_hi += hi(key_hi ^ word) * places[1, j]
            rest = size & 7
            if rest:
                if size >= 8:
                    word = _load(address, stop - 8) >> np.uint64(64 - 8 * rest)
                else:
                    word = ZERO
                    for j in range(rest):
                        word |= _byte(address, start + j) << np.uint64(8 * j)
                state_lo += lo(key_lo ^ word) * places[0, full]
                state_hi += hi(key_hi ^ word) * places[1, full]
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


class CompiledKernels(NumpyKernels):
    """The methods of NumpyKernels, compiled where that pays."""

    def integers(self, values: NDArray[np.integer[Any]], form: int) -> Lanes:
        """As the NumPy one."""
        out = _empty(len(values))
        integers(values, form, self.keys.forms, out.lo, out.hi)
        return out

    def unsigned(self, values: NDArray[np.uint64]) -> Lanes:
        """As the NumPy one."""
        out = _empty(len(values))
        unsigned(values, self.keys.forms, out.lo, out.hi)
        return out

    def floats(self, values: NDArray[np.floating[Any]]) -> Lanes:
        """As the NumPy one."""
        if values.dtype == np.float16:
            values = values.astype(np.float32)  # exact; Numba has no arithmetic on halves
        out = _empty(len(values))
        floats(values, self.keys.forms, out.lo, out.hi)
        return out

    def decimals(self, words: NDArray[np.int64], scale: int) -> tuple[Lanes, NDArray[np.intp]]:
        """As the NumPy one."""
        if not 0 <= scale <= DECIMAL_SCALE_MAX:
            return super().decimals(words, scale)
        out, large = _empty(len(words)), np.zeros(len(words), np.bool_)
        inverse, bound = np.uint64(fifth_inverse(scale) % 2**64), np.int64(fifth_bound(scale))
        count = decimals(words, scale, inverse, bound, 2.0**-scale, self.keys.forms, large, out.lo, out.hi)
        return out, np.flatnonzero(large) if count else np.empty(0, np.intp)

    def temporal(self, values: NDArray[np.int64], unit: str, base: int) -> Lanes:
        """As the NumPy one."""
        if unit == "us":
            return self.integers(values, base + MICROSECONDS)
        if unit != "ns":
            return super().temporal(values, unit, base)
        out = _empty(len(values))
        nanoseconds(values, base, self.keys.forms, out.lo, out.hi)
        return out

    def strings(self, data: NDArray[np.uint8], offsets: NDArray[np.integer[Any]], form: int) -> Lanes:
        """As the NumPy one."""
        out, keys = _empty(len(offsets) - 1), self.keys
        strings(data.ctypes.data, offsets, form, keys.positions, keys.word, keys.forms, out.lo, out.hi)
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
        gather(values.lo, values.hi, indices, out.lo, out.hi)
        return out
