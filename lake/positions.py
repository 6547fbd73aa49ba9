"""Sequences of row positions in the smallest of four forms: a run, runs, a bitmap, or the numbers themselves.

All numbers count from ``base``. ``run``: base, base + 1, …; nothing else is stored. ``runs``: where each run starts and
its length, in any order. ``bitmap``: ascending positions as bits, the first in the highest bit of the first byte, so
that DuckDB's ``get_bit`` reads them as they are. ``numbers``: in any order. Parquet keeps starts, lengths and numbers
as DELTA_BINARY_PACKED: the differences, in as many bits as the largest of 32 of them needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMS", "Sequence", "encode_positions"]

FORMS: Final = ("run", "runs", "bitmap", "numbers")
_MINIBLOCK: Final = 32
_BLOCK: Final = 128
_NONE: Final = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Sequence:
    """``count`` positions of int64. ``numbers`` and ``lengths`` are int64, ``bits`` bytes, as ``form`` needs them."""

    form: str
    count: int
    base: int
    numbers: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    lengths: NDArray[np.int64] = field(default_factory=lambda: _NONE)
    bits: bytes = b""

    @property
    def is_ascending(self) -> bool:
        """Whether each position is greater than the one before, as far as the form tells without decoding."""
        return self.form in ("run", "bitmap")

    def decode(self) -> NDArray[np.int64]:
        """The positions, in order. Raises ValueError when the stored parts do not make ``count`` of them."""
        if self.form == "run":
            return np.arange(self.base, self.base + self.count, dtype=np.int64)
        if self.form == "bitmap":
            found = np.flatnonzero(np.unpackbits(np.frombuffer(self.bits, np.uint8))).astype(np.int64)
        elif self.form == "runs":
            if len(self.numbers) != len(self.lengths) or (len(self.lengths) and self.lengths.min() < 1):
                raise ValueError("starts and lengths of runs do not match")
            found = _spread(self.numbers, self.lengths)
        else:
            found = self.numbers
        if len(found) != self.count or (self.count and found.min() < 0):
            raise ValueError(f"{len(found)} positions where {self.count} are expected")
        return found + self.base


def encode_positions(values: NDArray[np.int64]) -> Sequence:
    """The positions, none negative, in the form that takes least before compression."""
    count = len(values)
    if count == 0:
        return Sequence("run", 0, 0)
    base = int(values.min())
    steps = np.diff(values)
    breaks = np.flatnonzero(steps != 1)
    if not breaks.size:
        return Sequence("run", count, base)
    starts = values[np.concatenate([[0], breaks + 1])] - base
    lengths = np.diff(np.concatenate([[0], breaks + 1, [count]]))
    sizes = {
        "numbers": packed_bytes(values),
        "runs": packed_bytes(starts) + packed_bytes(lengths),
    }
    span = int(values.max()) - base + 1
    if (steps > 0).all():
        sizes["bitmap"] = -(-span // 8)
    form = min(sizes, key=lambda name: (sizes[name], FORMS.index(name)))
    if form == "bitmap":
        bits = np.zeros(span, np.bool_)
        bits[values - base] = True
        return Sequence(form, count, base, bits=np.packbits(bits).tobytes())
    if form == "runs":
        return Sequence(form, count, base, starts, lengths)
    return Sequence(form, count, base, values - base)


def packed_bytes(values: NDArray[np.int64]) -> int:
    """Bytes of the values as DELTA_BINARY_PACKED, page headers apart: what Parquet's encoder makes of them."""
    steps = np.diff(values)
    if not steps.size:
        return 10
    padded = np.concatenate([steps, np.repeat(steps[-1:], -len(steps) % _BLOCK)]).reshape(-1, _BLOCK)
    above = (padded - padded.min(axis=1, keepdims=True)).reshape(-1, _MINIBLOCK)
    widths = np.ceil(np.log2(above.max(axis=1).astype(np.float64) + 1))
    used = -(-len(steps) // _MINIBLOCK)
    return 10 + int(widths[:used].sum()) * _MINIBLOCK // 8 + 8 * len(padded)


def _spread(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """All positions of the runs, run by run."""
    ends = np.cumsum(lengths)
    shift: NDArray[np.int64] = np.repeat(starts - (ends - lengths), lengths)
    return shift + np.arange(len(shift), dtype=np.int64)
