"""A pseudo-random rotation in O(d log d): signs and Hadamard transforms, so that no coordinate is special.

Quantising to a bit a dimension needs coordinates that all carry alike (RaBitQ, arXiv 2405.12497, section 3.1). A dense
random matrix would cost d² a query and d² floats of memory; sign flips and fast Hadamard transforms over the leading
and the trailing power of two, alternating, come close to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ROUNDS", "random_signs", "rotate"]

ROUNDS: Final = 4


def random_signs(dims: int, seed: int) -> NDArray[np.float32]:
    """The signs that make a rotation of ``dims`` dimensions: float32 (ROUNDS, dims), each 1 or -1."""
    return np.random.default_rng(seed).choice(np.array([-1.0, 1.0], np.float32), (ROUNDS, dims))


@compiled
def rotate(values: NDArray[np.float32], signs: NDArray[np.float32], scratch: NDArray[np.float32]) -> None:
    """Rotate ``values``, float32 (dims,), in place; ``signs`` from :func:`random_signs`; ``scratch`` is overwritten.

    dims is 64 or more. The coordinates of a block come out in another order than the textbook's, which a random
    rotation does not mind, so that every inner loop runs over neighbours.
    """
    dims = values.shape[0]
    block = 64
    while 2 * block <= dims:
        block *= 2
    columns = block // 16
    scale = np.float32(1.0 / np.sqrt(block))
    for turn in range(signs.shape[0]):
        start = (dims - block) * (turn % 2)
        for i in range(dims):
            values[i] *= signs[turn, i]
        _butterflies(values, start, block, 16)
        for column in range(16):
            turned = scratch[column * columns : (column + 1) * columns]
            part = values[start + column : start + block]
            for row in range(columns):
                turned[row] = part[16 * row] * scale
        _butterflies(scratch, 0, block, columns)
        part = values[start : start + block]
        for i in range(block):
            part[i] = scratch[i]


@compiled
def _butterflies(values: NDArray[np.float32], start: int, block: int, smallest: int) -> None:
    half = smallest
    while half < block:
        for first in range(start, start + block, 2 * half):
            left, right = values[first : first + half], values[first + half : first + 2 * half]
            for i in range(half):  # from 0, on slices: Numba need not think of negative places, so it vectorises
                a, b = left[i], right[i]
                left[i] = a + b
                right[i] = a - b
        half *= 2
