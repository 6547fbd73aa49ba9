"""Keyed mixing of 64-bit words into 128-bit hashes, in NumPy: the definition that :mod:`.kernels` follows bit for bit.

A hash is two 64-bit lanes with independent keys and different mixing functions, moremur (Pelle Evensen, 2019) and
variant 13 of David Stafford's finalisers (2011, splitmix64's). One word of form f hashes to ``mix(key[f] ^ word)``,
which no two words of one form share in either lane. Sequences hash to ``mix(mix(key[f] ^ length) + sum(q_i * term_i))``
with secret odd ``q_i``: multilinear, so whatever the data, two sequences collide in one lane with chance about 2**-64
over the choice of the seed, and every word can be mixed without waiting for the one before it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .canonical import DECIMAL_SCALE_MAX, Form, decimal_words, float_words, temporal_words, unsigned_words

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["BLOCK_ROWS", "STRING_BYTES_MAX", "Keys", "Lanes", "NumpyKernels", "derive_keys"]

STRING_BYTES_MAX: Final = 4096
"""Longer strings are hashed by keyed blake2b: beyond, it is quicker than mixing word by word."""
BLOCK_ROWS: Final = 1 << 17
"""Rows mixed at a time: few enough for the last cache, and so many that threads hardly wait for each other's turns."""

LO_SHIFTS: Final = (27, 33, 27)
LO_FACTORS: Final = (0x3C79AC492BA7B653, 0x1C69B3F74AC4AE35)
HI_SHIFTS: Final = (30, 27, 31)
HI_FACTORS: Final = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


@dataclass(frozen=True, slots=True)
class Lanes:
    """128-bit hashes of n rows: ``lo`` and ``hi``, uint64 arrays of shape (n,), C-contiguous."""

    lo: NDArray[np.uint64]
    hi: NDArray[np.uint64]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.lo)

    def take(self, rows: NDArray[np.integer[Any]]) -> Lanes:
        """The hashes of these rows, by position."""
        return Lanes(self.lo.take(rows), self.hi.take(rows))

    def slice(self, start: int, stop: int) -> Lanes:
        """Rows start to stop, sharing memory."""
        return Lanes(self.lo[start:stop], self.hi[start:stop])


@dataclass(frozen=True, slots=True)
class Keys:
    """Secret keys, the first axis being the lane.

    ``forms`` (2, Form.COUNT): one a form; ``positions`` (2, words of the longest string): odd, the factors q_i;
    ``position_key`` (2,): makes them, and those beyond; ``word`` and ``row`` (2,); ``digest``: key of blake2b.
    """

    forms: NDArray[np.uint64]
    positions: NDArray[np.uint64]
    position_key: NDArray[np.uint64]
    word: NDArray[np.uint64]
    row: NDArray[np.uint64]
    digest: bytes

    def name_factors(self, name: str) -> tuple[np.uint64, np.uint64]:
        """The two secret odd factors of a column or field name."""
        return _name_factors(self.digest, name)

    def digest_lanes(self, kind: bytes, data: bytes) -> tuple[int, int]:
        """Both lanes of a long byte string; ``kind`` keeps families apart."""
        raw = hashlib.blake2b(data, digest_size=16, key=self.digest, person=kind).digest()
        return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")


@lru_cache(maxsize=65_536)
def _name_factors(key: bytes, name: str) -> tuple[np.uint64, np.uint64]:
    raw = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16, key=key, person=b"name").digest()
    words = np.frombuffer(raw, "<u8") | np.uint64(1)
    return words[0], words[1]


def mix_lo(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The first lane's finaliser, in place; returns ``x``."""
    return _mix(x, LO_SHIFTS, LO_FACTORS)


def mix_hi(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The second lane's finaliser, in place; returns ``x``."""
    return _mix(x, HI_SHIFTS, HI_FACTORS)


def _mix(x: NDArray[np.uint64], shifts: tuple[int, int, int], factors: tuple[int, int]) -> NDArray[np.uint64]:
    tmp = x >> np.uint64(shifts[0])
    x ^= tmp
    x *= np.uint64(factors[0])
    np.right_shift(x, np.uint64(shifts[1]), out=tmp)
    x ^= tmp
    x *= np.uint64(factors[1])
    np.right_shift(x, np.uint64(shifts[2]), out=tmp)
    x ^= tmp
    return x


MIXERS: Final = (mix_lo, mix_hi)


@lru_cache(maxsize=16)
def derive_keys(seed: bytes) -> Keys:
    """All keys of a seed. The seed is the lake's secret: whoever knows it can make rows that collide."""
    forms = 2 * int(Form.COUNT)
    raw = hashlib.shake_256(b"lakelet row hash 1" + seed).digest(8 * (forms + 6) + 32)
    words = np.frombuffer(raw[:-32], "<u8").astype(np.uint64)
    position_key = words[forms : forms + 2]
    steps = np.arange(STRING_BYTES_MAX // 8, dtype=np.uint64)
    return Keys(
        forms=words[:forms].reshape(2, -1),
        positions=np.stack([position_factors(position_key[lane], steps, lane) for lane in (0, 1)]),
        position_key=position_key,
        word=words[forms + 2 : forms + 4],
        row=words[forms + 4 : forms + 6],
        digest=raw[-32:],
    )


def position_factors(key: np.uint64, positions: NDArray[np.uint64], lane: int) -> NDArray[np.uint64]:
    """The secret odd factors of places in a sequence, shape (n,)."""
    return MIXERS[lane](positions ^ key) | np.uint64(1)


class NumpyKernels:
    """The hashing of plain arrays, without nulls. All take arrays of shape (n,) and return fresh Lanes of n."""

    def __init__(self, keys: Keys) -> None:
        """``keys`` decide every hash."""
        self.keys = keys

    def words(self, words: NDArray[np.uint64], forms: NDArray[np.uint8] | int) -> Lanes:
        """Mix canonical words, each under the key of its form."""
        lanes = []
        for lane, mix in enumerate(MIXERS):
            key = self.keys.forms[lane]
            lanes.append(mix(words ^ (key[forms] if isinstance(forms, int) else key.take(forms))))
        return Lanes(*lanes)

    def integers(self, values: NDArray[np.integer[Any]], form: int) -> Lanes:
        """Integers within int64, of any width."""
        return self._blocks(values, lambda part: (part.astype(np.int64).view(np.uint64), form))

    def unsigned(self, values: NDArray[np.uint64]) -> Lanes:
        """uint64 numbers."""
        return self._blocks(values, unsigned_words)

    def floats(self, values: NDArray[np.floating[Any]]) -> Lanes:
        """Floats of any width."""
        return self._blocks(values, float_words)

    def decimals(self, words: NDArray[np.int64], scale: int) -> tuple[Lanes, NDArray[np.intp]]:
        """Decimals of ``scale``, the unscaled values as little-endian words of shape (n, width).

        Beside the hashes, the rows that need exact arithmetic, whose hashes are undefined.
        """
        low = np.ascontiguousarray(words[:, 0])
        small = np.full(len(low), 0 <= scale <= DECIMAL_SCALE_MAX)
        for i in range(1, words.shape[1]):
            small &= words[:, i] == low >> 63
        lanes = self._blocks(low, lambda part: decimal_words(part, max(0, min(scale, DECIMAL_SCALE_MAX))))
        return lanes, np.flatnonzero(~small)

    def temporal(self, values: NDArray[np.int64], unit: str, base: int) -> Lanes:
        """Timestamps, times and durations."""
        return self._blocks(values, lambda part: temporal_words(part, unit, base))

    def _blocks(self, values: NDArray[Any], canonical: Callable[[NDArray[Any]], Any]) -> Lanes:
        if len(values) <= BLOCK_ROWS:
            return self.words(*canonical(values))
        lo, hi = np.empty(len(values), np.uint64), np.empty(len(values), np.uint64)
        for start in range(0, len(values), BLOCK_ROWS):
            part = self.words(*canonical(values[start : start + BLOCK_ROWS]))
            lo[start : start + BLOCK_ROWS], hi[start : start + BLOCK_ROWS] = part.lo, part.hi
        return Lanes(lo, hi)

    def strings(self, data: NDArray[np.uint8], offsets: NDArray[np.integer[Any]], form: int) -> Lanes:
        """Byte strings ``data[offsets[i]:offsets[i+1]]``; those over STRING_BYTES_MAX come out undefined."""
        n = len(offsets) - 1
        lo, hi = np.empty(n, np.uint64), np.empty(n, np.uint64)
        start = 0
        while start < n:  # blocks of bounded rows and, as far as single strings allow, of bounded bytes
            stop = int(np.searchsorted(offsets, offsets[start] + 16 * BLOCK_ROWS, side="right")) - 1
            stop = min(max(stop, start + 1), start + BLOCK_ROWS, n)
            part = self._string_block(data, offsets[start : stop + 1].astype(np.int64), form)
            lo[start:stop], hi[start:stop] = part.lo, part.hi
            start = stop
        return Lanes(lo, hi)

    def views(self, words: NDArray[np.uint64], buffers: list[pa.Buffer], form: int) -> Lanes | None:
        """None: NumPy does not read string views, cast them to strings first."""
        return None

    def _string_block(self, data: NDArray[np.uint8], offsets: NDArray[np.int64], form: int) -> Lanes:
        data, offsets = data[offsets[0] : offsets[-1]], offsets - offsets[0]
        lengths = np.diff(offsets)
        hashed = np.where(lengths <= STRING_BYTES_MAX, lengths, 0)
        counts = (hashed + 7) >> 3
        ends = np.cumsum(counts)
        total = int(ends[-1])
        places = np.arange(total) - np.repeat(ends - counts, counts)
        padded = np.zeros(len(data) + 8, np.uint8)
        padded[: len(data)] = data
        unaligned = np.lib.stride_tricks.as_strided(padded.view()[:8].view("<u8"), (len(data) + 1,), (1,))
        words = unaligned[np.repeat(offsets[:-1], counts) + (places << 3)]
        tails = np.flatnonzero(hashed & 7)
        words[ends[tails] - 1] &= (np.uint64(1) << ((hashed[tails] & 7) << 3).astype(np.uint64)) - np.uint64(1)
        lanes = []
        for lane, mix in enumerate(MIXERS):
            terms = mix(words ^ self.keys.word[lane])
            terms *= self.keys.positions[lane].take(places)
            state = mix(lengths.astype(np.uint64) ^ self.keys.forms[lane][form])
            state += segment_sums(terms, ends, counts)
            lanes.append(mix(state))
        return Lanes(*lanes)

    def lists(self, elements: Lanes, offsets: NDArray[np.int64]) -> Lanes:
        """Lists of ``elements[offsets[i]:offsets[i+1]]``, order counting; offsets start at 0 and cover elements."""
        counts = np.diff(offsets)
        places = (np.arange(len(elements)) - np.repeat(offsets[:-1], counts)).astype(np.uint64)
        lanes = []
        for lane, mix in enumerate(MIXERS):
            terms = position_factors(self.keys.position_key[lane], places, lane)
            terms *= (elements.lo, elements.hi)[lane]
            state = mix(counts.astype(np.uint64) ^ self.keys.forms[lane][Form.LIST])
            state += segment_sums(terms, offsets[1:], counts)
            lanes.append(mix(state))
        return Lanes(*lanes)

    def maps(self, entries: Lanes, offsets: NDArray[np.int64]) -> Lanes:
        """Maps of entries[offsets[i]:offsets[i+1]] as sets with multiplicity: their order does not count."""
        counts = np.diff(offsets)
        lanes = []
        for lane, mix in enumerate(MIXERS):
            state = mix(counts.astype(np.uint64) ^ self.keys.forms[lane][Form.MAP])
            state += segment_sums((entries.lo, entries.hi)[lane], offsets[1:], counts)
            lanes.append(mix(state))
        return Lanes(*lanes)

    def add_scaled(self, total: Lanes, part: Lanes, factors: tuple[np.uint64, np.uint64]) -> None:
        """total += part * factors, lane by lane; writes ``total``."""
        np.add(total.lo, part.lo * factors[0], out=total.lo)
        np.add(total.hi, part.hi * factors[1], out=total.hi)

    def finish(self, total: Lanes, key: NDArray[np.uint64]) -> Lanes:
        """The non-linear end of a sum of columns: both lanes mixed together, invertibly; writes ``total``."""
        lo = mix_lo((total.lo + total.hi) ^ key[0])
        return Lanes(lo, mix_hi((total.hi + lo) ^ key[1]))

    def gather(self, values: Lanes, indices: NDArray[np.integer[Any]]) -> Lanes:
        """``values[indices]``; every index within bounds."""
        return values.take(indices)


def segment_sums(terms: NDArray[np.uint64], ends: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Sums mod 2**64 of the ``counts[i]`` terms that end before ``ends[i]``."""
    sums = np.zeros(len(terms) + 1, np.uint64)
    np.cumsum(terms, out=sums[1:])
    result: NDArray[np.uint64] = sums[ends] - sums[ends - counts]
    return result
