"""The rotation under which a set of rows is least redundant: the Karhunen-Loeve transform, along principal axes.

Coordinates along the axes are uncorrelated, and the first carry most of the variance, so that codes may spend their
bits where they tell most. A rotation keeps distances: what the coordinates say holds for the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled
from .products import paneled, products
from .simd import dot

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Klt", "klt", "turn_query", "turned"]

BLOCK_ROWS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Klt:
    """A rotation about the mean of some rows.

    mean: float32 (dim,); axes: float32 (dim, dim), C-contiguous, a unit vector a row, the direction of most variance
    first; variances: float64 (dim,), those along the axes, never rising. x has the coordinates ``axes @ (x - mean)``.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    variances: NDArray[np.float64]


def klt(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> Klt:
    """The transform of ``vectors[rows]``; the identity about the mean where those are none or all alike.

    vectors: float32 (n, dim). Sums are double, block by block, and the largest number of an axis is positive, so the
    same rows give the same transform.
    """
    dim = vectors.shape[1]
    total, products_of = np.zeros(dim), np.zeros((dim, dim))
    for start in range(0, len(rows), BLOCK_ROWS):
        total += vectors[rows[start : start + BLOCK_ROWS]].sum(axis=0, dtype=np.float64)
    mean = (total / max(1, len(rows))).astype(np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = vectors[rows[start : start + BLOCK_ROWS]].astype(np.float64) - mean
        products_of += block.T @ block
    if not products_of.any():
        return Klt(mean, np.eye(dim, dtype=np.float32), np.zeros(dim))
    variances, vectors_of = np.linalg.eigh(products_of / len(rows))
    axes = vectors_of.T[::-1]
    largest = np.abs(axes).argmax(axis=1)
    axes = axes * np.where(axes[np.arange(dim), largest] < 0, -1.0, 1.0)[:, None]
    falling = np.maximum.accumulate(np.maximum(variances, 0))[::-1]  # what should be 0 may come out a little below
    return Klt(mean, np.ascontiguousarray(axes, np.float32), np.ascontiguousarray(falling))


def turned(vectors: NDArray[np.float32], mean: NDArray[np.float32], axes: NDArray[np.float32]) -> NDArray[np.float32]:
    """The coordinates of some rows: float32 (n, dim). vectors: float32 (n, dim), copied once; take them in blocks."""
    out = np.empty(vectors.shape, np.float32)
    products(vectors - mean, np.arange(len(vectors)), paneled(axes), out)
    out *= np.float32(-0.5)  # panels hold -2 times the axes
    return out


@compiled
def turn_query(
    query: NDArray[np.float32], mean: NDArray[np.float32], axes: NDArray[np.float32], centred: bool
) -> NDArray[np.float32]:
    """The coordinates of one vector, float32 (dim,); not ``centred``: of the vector itself, not of what it is off."""
    dim = query.shape[0]
    apart, out = np.empty(dim, np.float32), np.empty(dim, np.float32)
    for i in range(dim):
        apart[i] = query[i] - mean[i] if centred else query[i]
    _turn(apart, axes, out)
    return out


@compiled
def _turn(values: NDArray[np.float32], axes: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    dim = values.shape[0]  # arrays handed over live until the end, those made here would until their address is taken
    for i in range(dim):
        out[i] = dot(axes.ctypes.data + 4 * dim * i, values.ctypes.data, dim)
