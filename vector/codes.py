"""Codes of one to four bits a dimension that rank rows by an estimate of their distance: RaBitQ (arXiv 2405.12497).

A row x is coded as the rotated residual r = P(x - m) from the mean m, each coordinate rounded to an odd number v of b
bits; with f = |r|² / <v, r> the product f <v, P(q - m)> estimates <x - m, q - m> without bias. The query's coordinates
are rounded to odd numbers of four bits, so the product is a sum of popcounts of code words xor query planes
(section 3.3 of the paper, with signs in place of offsets: no popcount of the code itself is needed).

A record holds a row's code and its two numbers side by side, so that reading it touches one cache line or two:
``32 * blocks`` bytes of code, then float32 A and F, with estimate(row) = A + F * (c1 + c2 * popcounts).

How far an estimate errs is about normal, the same number of times |P(q - m)| * F for every row and query: F is what a
code's cell is wide. So c1 less z * |P(q - m)| in place of c1 gives a bound that the truth is seldom below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled, inlined
from .rotation import random_signs, rotate
from .simd import dot, packed_bits, put_float, put_word

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BLOCK_BYTES", "CodeLayout", "encode", "layout", "quantise", "query_length"]

BLOCK_BYTES: Final = 32
QUERY_BITS: Final = 4
CLIP_DEVIATIONS: Final = 3.0
"""A query's coordinates beyond so many standard deviations are rounded to the outermost cell."""
PLANE_WORDS: Final = 16
"""int64 words of query planes beside a block: four planes of four words."""


@dataclass(frozen=True, slots=True)
class CodeLayout:
    """How rows of one dimension are coded.

    ``dims`` coordinates after rotation (zeros fill up), ``bits`` a coordinate, ``blocks`` of 256 bits a row;
    ``signs`` float32 (rounds, dims); ``shifts`` int64 (16,): the weight of each plane word's popcount, as a shift.
    """

    dims: int
    bits: int
    blocks: int
    signs: NDArray[np.float32]
    shifts: NDArray[np.int64]

    @property
    def record_bytes(self) -> int:
        """Bytes of a row's record."""
        return self.blocks * BLOCK_BYTES + 8


def layout(dim: int, seed: int) -> CodeLayout:
    """The layout for vectors of ``dim`` dimensions: 256 bits a row at least, so short vectors get more bits each."""
    if dim <= 64:
        dims, bits = 64, 4
    elif dim <= 128:
        dims, bits = 128, 2
    else:
        dims, bits = -(-dim // 256) * 256, 1
    words = 4 // bits  # words of one code bit in a block
    shifts = [plane + word // words for plane in range(QUERY_BITS) for word in range(4)]
    return CodeLayout(dims, bits, dims * bits // 256, random_signs(dims, seed), np.array(shifts, np.int64))


@compiled
def encode(
    vectors: NDArray[np.float32],
    mean: NDArray[np.float32],
    signs: NDArray[np.float32],
    bits: int,
    with_norms: bool,
    start: int,
    stop: int,
    out_records: NDArray[np.uint8],
) -> None:
    """Write the records of the rows ``start`` to ``stop`` of ``vectors``, float32 (n, dim), to ``out_records``.

    ``with_norms``: A = |r|² for squared Euclid (and cosine, over normalised rows), else 0 for inner products.
    """
    dim, dims = vectors.shape[1], signs.shape[1]
    blocks = dims * bits // 256
    values, best, trial = np.empty(dims, np.float32), np.empty(dims, np.uint8), np.empty(dims, np.uint8)
    scratch = np.empty(dims, np.float32)
    top = (1 << bits) - 1
    for row in range(start, stop):
        for i in range(dim):
            values[i] = vectors[row, i] - mean[i]
        for i in range(dim, dims):
            values[i] = 0
        rotate(values, signs, scratch)
        squares = 0.0
        for i in range(dims):
            squares += np.float64(values[i]) * np.float64(values[i])
        deviation = np.sqrt(squares / dims)
        best_cosine = -1.0
        best_product = 0.0
        steps = 1 if bits == 1 else 8
        for step in range(steps):  # the width of a cell that turns the code least away from the row
            width = deviation * (1.0 if bits == 1 else (0.6 + 0.1 * step) * (4.0 / (1 << bits)))
            product, norm = 0.0, 0.0
            for i in range(dims):
                level = 0 if values[i] < 0 else 1
                if bits > 1 and width > 0:
                    cell = np.floor(values[i] / width) + (1 << (bits - 1))
                    level = int(min(max(cell, 0.0), float(top)))
                odd = 2 * level - top
                trial[i] = level
                product += odd * values[i]
                norm += odd * odd
            cosine = product / np.sqrt(norm)
            if cosine > best_cosine:
                best_cosine, best_product = cosine, product
                best, trial = trial, best
        record = out_records.ctypes.data + np.int64(row) * (blocks * BLOCK_BYTES + 8)
        for word in range(blocks * 4):
            bit, place = word // (dims // 64), word % (dims // 64)
            put_word(record + 8 * word, packed_bits(best.ctypes.data + 64 * place, 1 << bit))
        put_float(record + blocks * BLOCK_BYTES, np.float32(squares if with_norms else 0.0))
        factor = squares / best_product if best_product > 0 else 0.0
        put_float(record + blocks * BLOCK_BYTES + 4, np.float32(factor))


@compiled
def quantise(
    query: NDArray[np.float32],
    mean: NDArray[np.float32],
    signs: NDArray[np.float32],
    bits: int,
    centred: bool,
    out_planes: NDArray[np.uint64],
) -> tuple[float, float]:
    """The planes of a query, uint64 (blocks * 16,), and the constants (c1, c2) of an estimate.

    ``centred``: subtract the mean (squared Euclid), else not (inner product).
    """
    dim, dims = query.shape[0], signs.shape[1]
    values = np.zeros(dims, np.float32)
    for i in range(dim):
        values[i] = query[i] - mean[i] if centred else query[i]
    rotate(values, signs, np.empty(dims, np.float32))
    deviation = np.sqrt(dot(values.ctypes.data, values.ctypes.data, dims) / np.float32(dims))
    step = deviation * np.float32(CLIP_DEVIATIONS / 15.0)
    inverse = np.float32(0.5) / step if step > 0 else np.float32(0)
    levels = np.empty(dims, np.uint8)
    for i in range(dims):
        level = np.int32(values[i] * inverse + np.float32(8))
        levels[i] = np.uint8(min(max(level, np.int32(0)), np.int32(15)))
    words = 4 // bits  # words of one plane of one code bit in a block
    for block in range(out_planes.shape[0] // PLANE_WORDS):
        for plane in range(QUERY_BITS):
            for word in range(4):
                place = (block * words + word % words) * 64
                out_planes[block * PLANE_WORDS + plane * 4 + word] = packed_bits(levels.ctypes.data + place, 1 << plane)
    top = float((1 << bits) - 1)
    return -2.0 * step * 15.0 * top * dims, 4.0 * step


@inlined
def query_length(c2: float, dims: int) -> float:
    """The length of a query as :func:`quantise` coded it, read off its second constant."""
    length: float = c2 / 4.0 * (15.0 / CLIP_DEVIATIONS) * np.sqrt(dims)
    return length
