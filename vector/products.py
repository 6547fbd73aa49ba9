"""Products of many vectors with many others, and whom each of the first is nearest to: what k-means spends its time on.

A product of matrices, made and looked through a panel at a time while it is in the cache. A kernel of our own runs on
the threads that it is given, at their priority; BLAS has threads of its own, which a build could neither count nor make
step back, and lets them wait for each other in every product. It is about as fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled
from .background import shared_out
from .simd import float_at, panel_products

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["nearest", "paneled", "products"]

PANEL: Final = 32
"""Vectors of a panel, which lie side by side coordinate by coordinate. Four rows are multiplied with one at a time."""
BLOCK_ROWS: Final = 256
"""Rows that go through all panels before the next do: they stay in the second cache, a panel in the first."""


def nearest(
    vectors: NDArray[np.float32],
    centroids: NDArray[np.float32],
    near: int,
    *,
    rows: NDArray[np.int64] | None = None,
    bias: NDArray[np.float32] | None = None,
    threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The ``near`` nearest centroids of each vector, or of ``vectors[rows]``, and their scores: both (rows, near).

    vectors: float32 (n, dim), centroids: float32 (count, dim), both C-contiguous; near <= count. The score of a
    centroid c is ``bias - 2 <vector, c>``, by default |c|² for a bias; the lowest comes first, of equal ones the first.
    The same for any number of threads.
    """
    named = np.arange(len(vectors)) if rows is None else rows
    size = len(named)
    found, best = np.zeros((size, near), np.int32), np.full((size, near), np.inf, np.float32)
    panels = paneled(centroids)
    bias = np.einsum("ij,ij->i", centroids, centroids) if bias is None else bias
    step = -(-size // (8 * threads * BLOCK_ROWS)) * BLOCK_ROWS

    def one(start: int) -> None:
        _nearest(vectors, named, start, min(start + step, size), panels, bias, best, found)

    shared_out(one, range(0, size, max(step, 1)), threads)
    return found, best


def paneled(centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    """-2 times the centroids, float32 (count, dim), in panels: float32 (panels, dim, PANEL), filled up with zeros."""
    count, dim = centroids.shape
    filled = np.zeros((-(-count // PANEL) * PANEL, dim), np.float32)
    np.multiply(centroids, np.float32(-2), out=filled[:count])
    return np.ascontiguousarray(filled.reshape(-1, PANEL, dim).transpose(0, 2, 1))


@compiled
def _nearest(
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    begin: int,
    end: int,
    panels: NDArray[np.float32],
    bias: NDArray[np.float32],
    best: NDArray[np.float32],
    found: NDArray[np.int32],
) -> None:
    dim, count, near = vectors.shape[1], bias.shape[0], best.shape[1]
    four = np.empty((4, PANEL), np.float32)
    for first in range(begin, end, BLOCK_ROWS):
        last = min(first + BLOCK_ROWS, end) - 1
        for panel in range(panels.shape[0]):
            left = panel * PANEL
            held = min(PANEL, count - left)
            for i in range(first, last + 1, 4):
                _multiply(vectors, rows, i, last, panels, panel, dim, four)
                for j in range(min(4, last + 1 - i)):
                    _offer(four[j], bias[left : left + held], left, best[i + j], found[i + j], near)


@compiled
def _multiply(
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    at: int,
    last: int,
    panels: NDArray[np.float32],
    panel: int,
    dim: int,
    out: NDArray[np.float32],
) -> None:
    """Overwrite ``out``, (4, PANEL), with the products of a panel with four rows from ``at`` on, the last one again."""
    base, row_bytes = vectors.ctypes.data, 4 * dim
    panel_products(
        base + rows[at] * row_bytes,
        base + rows[min(at + 1, last)] * row_bytes,
        base + rows[min(at + 2, last)] * row_bytes,
        base + rows[min(at + 3, last)] * row_bytes,
        panels.ctypes.data + panel * PANEL * row_bytes,
        dim,
        out.ctypes.data,
    )


@compiled
def _offer(
    products: NDArray[np.float32],
    bias: NDArray[np.float32],
    left: int,
    best: NDArray[np.float32],
    found: NDArray[np.int32],
    near: int,
) -> None:
    """Take those of a panel that are among the ``near`` lowest so far; ``best`` and ``found`` are mutated."""
    worst = best[near - 1]
    product_at, bias_at = products.ctypes.data, bias.ctypes.data
    for lane in range(bias.shape[0]):
        score = float_at(product_at + 4 * lane) + float_at(bias_at + 4 * lane)
        place = left + lane
        if place >= near and not score < worst:
            continue
        at = min(place, near - 1)
        while at > 0 and score < best[at - 1]:
            best[at] = best[at - 1]
            found[at] = found[at - 1]
            at -= 1
        best[at] = score
        found[at] = place
        worst = best[near - 1]


@compiled
def products(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], panels: NDArray[np.float32], scores: NDArray[np.float32]
) -> None:
    """Overwrite ``scores``, float32 (rows, count), with the products of ``vectors[rows]`` and what is in the panels."""
    dim, count, last = vectors.shape[1], scores.shape[1], rows.shape[0] - 1
    four = np.empty((4, PANEL), np.float32)
    for i in range(0, last + 1, 4):
        for panel in range(panels.shape[0]):
            _multiply(vectors, rows, i, last, panels, panel, dim, four)
            left = panel * PANEL
            for j in range(min(4, last + 1 - i)):
                for lane in range(min(PANEL, count - left)):
                    scores[i + j, left + lane] = four[j, lane]
