"""The tree over a segment's vectors: k-means cells of k-means cells, whose rows lie next to each other.

Two levels below the root. Cells of the first one are many (:data:`FAN_OUT` times the square root of the leaves): they
are the short-lists of most tenants, and a search that picks among good centroids early scores fewer in all. Leaves are
balanced: a search pays for every centroid it scores, so half-empty leaves cost more than rows that sit in their
second-best leaf. Afterwards rows move to nearer leaves anywhere under the cells around them, which takes back most of
what cutting in two levels costs.

Inner product is searched as Euclidean distance: with one more coordinate, sqrt(M² - |x|²), all vectors have the
greatest norm M, and a query has 0 there (Bachrach et al., RecSys 2014, "Speeding up the Xbox recommender system").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from .kmeans import balance, better, cluster, groups, means, move
from .products import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CROWDED",
    "FILL",
    "Cells",
    "Tree",
    "around",
    "assemble",
    "centres",
    "cut",
    "fan_out",
    "lifted",
    "polish",
    "train",
]

FAN_OUT: Final = 16.0
"""Cells below the root, in square roots of the number of leaves."""
FILL: Final = 0.875
"""What a leaf is trained to hold, of the rows it may hold: room for rows to move, and to be appended."""
FEW_LEAVES: Final = 8
"""Up to so many leaves hang under the root itself."""
LEAVES_OF_CELL: Final = 4
"""A cell has at least so many leaves in the mean: below that its centroid costs more than it tells."""
NEAR: Final = 24
"""Cells around a cell, itself among them, whose leaves its rows may move to."""
POLISHES: Final = 2
"""Rounds of moving rows to nearer leaves."""
CROWDED: Final = 4
"""A cell of more than so many times the mean is clustered again, and cut evenly if that does not help."""
ATTEMPTS: Final = 3
"""Rounds of clustering crowded cells again."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A hierarchy of cells over positions, root first: what a search walks down, nearest cell first.

    centroids: float32 (nodes, dim), C-contiguous; bias: float32 (nodes,). A query q scores a node ``bias - 2 <q, c>``,
    the lower the better: the squared distance less |q|². For inner product bias is the squared norm of the centroid
    with its extra coordinate, which is not kept.
    first_child, child_count: int32 (nodes,), 0 at leaves; children have neighbouring numbers above their parent's.
    lo, hi: uint32 (nodes,), the positions below a node; those of children follow each other and fill the parent's.
    variance: float32 (nodes,), mean squared distance of a node's rows to its centroid, extra coordinate included.
    A tree over no rows is one leaf.
    """

    centroids: NDArray[np.float32]
    bias: NDArray[np.float32]
    first_child: NDArray[np.int32]
    child_count: NDArray[np.int32]
    lo: NDArray[np.uint32]
    hi: NDArray[np.uint32]
    variance: NDArray[np.float32]


@dataclass(slots=True)
class Cells:
    """Rows in leaves in cells, before they become a tree.

    leaf: int32 (n,), each row's leaf, -1 while it has none; first: int64 (cells + 1,), the first leaf of each cell.
    """

    leaf: NDArray[np.int32]
    first: NDArray[np.int64]

    @property
    def top(self) -> NDArray[np.int64]:
        """The cell of each leaf: int64 (leaves,)."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))


def train(
    vectors: NDArray[np.float32], *, metric: str, leaf_rows: int, seed: int, threads: int
) -> tuple[Tree, NDArray[np.int64]]:
    """A tree over ``vectors``, and the row at each of its positions: int64 (n,).

    vectors: float32 (n, dim), C-contiguous, finite, n of 0 upward, unit vectors for ``cosine``; metric: ``l2``,
    ``cosine`` or ``ip``; leaf_rows: the most rows of a leaf. The same for one seed whatever ``threads`` is. Takes
    memory for about half of the vectors, and for ``ip`` for all of them once more.
    """
    space = lifted(vectors, metric)
    rows = np.arange(len(space), dtype=np.int64)
    cells = cut(space, rows, leaf_rows, fan_out(len(rows), leaf_rows), seed=seed, threads=threads)
    for _ in range(POLISHES if len(rows) else 0):
        polish(space, rows, cells, leaf_rows, threads=threads)
    return assemble(space, cells, vectors.shape[1], threads=threads)


def lifted(vectors: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """The vectors as a tree is trained on them: themselves, or for inner product a copy with one coordinate more."""
    if metric != "ip":
        return vectors
    squares = np.einsum("ij,ij->i", vectors, vectors).astype(np.float64)
    space = np.empty((len(vectors), vectors.shape[1] + 1), np.float32)
    space[:, :-1] = vectors
    space[:, -1] = np.sqrt(squares.max(initial=0.0) - squares)
    return space


def fan_out(rows: int, leaf_rows: int) -> int:
    """How many cells so many rows are cut into; 1 where the leaves are few."""
    leaves = -(-rows // max(1, int(leaf_rows * FILL)))
    if leaves <= FEW_LEAVES:
        return 1
    return max(2, min(round(FAN_OUT * math.sqrt(leaves)), leaves // LEAVES_OF_CELL))


def cut(
    space: NDArray[np.float32], rows: NDArray[np.int64], leaf_rows: int, count: int, *, seed: int, threads: int
) -> Cells:
    """``rows`` in leaves in about ``count`` cells; the leaves of other rows are -1."""
    fill = max(1, int(leaf_rows * FILL))
    order, starts = groups(*_tops(space, rows, leaf_rows, count, seed, threads))
    sizes = np.diff(starts)
    # A cell that fits one leaf is not cut, though it be fuller than leaves are meant to be
    counts = np.where(sizes <= leaf_rows, 1, -(-sizes // fill))
    order = rows[order]
    leaf = np.full(len(space), -1, np.int32)
    leaf[order] = balance(space, order, starts, counts, leaf_rows, seed=seed, threads=threads)
    return Cells(leaf, np.append(0, np.cumsum(counts)))


def _tops(
    space: NDArray[np.float32], rows: NDArray[np.int64], leaf_rows: int, count: int, seed: int, threads: int
) -> tuple[NDArray[np.int32], int]:
    """Cells of the first level: the one of each row, int32 (rows,), and how many there are.

    None has less than half a leaf or much more than :data:`CROWDED` times the mean, whatever the data.
    """
    if count <= 1:
        return np.zeros(len(rows), np.int32), 1
    mean, least = len(rows) / count, max(1, leaf_rows // 2)
    centroids = cluster(space, rows, count, seed=seed, threads=threads)
    top = nearest(space, centroids, 1, rows=rows, threads=threads)[0][:, 0]
    attempt = 0
    while True:
        sizes = np.bincount(top, minlength=len(centroids))
        # After some attempts cells only disappear, so this ends
        small, crowded = sizes < least, (sizes > CROWDED * mean) & (attempt < ATTEMPTS)
        changed = small | crowded
        if not changed.any():
            return _cut_crowded(top, sizes, mean)
        parts = [centroids[~changed]]
        for cell in np.flatnonzero(crowded):
            inside = rows[top == cell]
            parts.append(cluster(space, inside, math.ceil(sizes[cell] / mean), seed=seed + attempt, threads=threads))
        centroids = np.concatenate(parts)
        homeless = np.flatnonzero(changed[top])
        top = (np.cumsum(~changed) - 1).astype(np.int32)[top]
        top[homeless] = nearest(space, centroids, 1, rows=rows[homeless], threads=threads)[0][:, 0]
        attempt += 1


def _cut_crowded(top: NDArray[np.int32], sizes: NDArray[np.int64], mean: float) -> tuple[NDArray[np.int32], int]:
    """What k-means cannot part, many equal rows, is cut evenly. ``top`` changes."""
    count = len(sizes)
    for cell in np.flatnonzero(sizes > CROWDED * mean):
        inside, pieces = np.flatnonzero(top == cell), int(sizes[cell] / mean)
        piece = np.arange(len(inside)) * pieces // len(inside)
        top[inside] = np.where(piece == 0, cell, count + piece - 1)
        count += pieces - 1
    return top, count


def polish(space: NDArray[np.float32], rows: NDArray[np.int64], cells: Cells, leaf_rows: int, *, threads: int) -> None:
    """Move ``rows`` to nearer leaves in and around their cells, as far as those have room; ``cells.leaf`` changes.

    Every row of ``space`` is in a leaf.
    """
    top = cells.top
    order, starts = groups(cells.leaf, len(top))
    centroids = np.zeros((len(top), space.shape[1]), np.float32)
    means(space, order, starts, centroids, threads=threads)
    sizes = np.diff(starts)
    near = around(centroids, sizes, cells.first, threads=threads)
    within, begins = groups(top[cells.leaf[rows]], len(near))
    rows = rows[within]
    targets, gains = better(space, rows, begins, near, cells.first, cells.leaf, sizes, centroids, threads=threads)
    move(rows, targets, gains, cells.leaf, sizes, leaf_rows)


def around(
    centroids: NDArray[np.float32], sizes: NDArray[np.int64], first: NDArray[np.int64], *, threads: int
) -> NDArray[np.int32]:
    """The cells around each cell, nearest first: int32 (cells, up to NEAR). ``sizes`` are the rows of each leaf."""
    tops = centres(centroids, sizes, first)
    return nearest(tops, tops, min(NEAR, len(tops)), threads=threads)[0]


def centres(centroids: NDArray[np.float32], sizes: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.float32]:
    """The centroid of each cell by those of its leaves: float32 (cells, dim). A cell has a leaf, maybe without rows."""
    weight = np.maximum(sizes, np.float32(1e-6)).astype(np.float32)
    total = np.add.reduceat(centroids * weight[:, None], first[:-1])
    return np.asarray(total / np.add.reduceat(weight, first[:-1])[:, None], np.float32)


def assemble(space: NDArray[np.float32], cells: Cells, dim: int, *, threads: int) -> tuple[Tree, NDArray[np.int64]]:
    """The tree of these cells, and the row at each position: empty ones are left out, and so are levels of one child.

    Every row of ``space`` is in a leaf; ``dim`` is how many of its coordinates a query has.
    """
    order, starts = groups(cells.leaf, int(cells.first[-1]))
    held = np.diff(starts) > 0
    cell = cells.top[held]
    starts = np.append(starts[:-1][held], len(space))
    if not len(cell):
        return _numbered([_Level.empty(space.shape[1])], np.zeros(1, np.int32), dim), order
    centroids = np.zeros((len(cell), space.shape[1]), np.float32)
    variance = means(space, order, starts, centroids, threads=threads)
    leaves = _Level(centroids.astype(np.float64), variance.astype(np.float64), starts[:-1], starts[1:])
    # Cells as intervals of leaves; then the root as one of cells
    edges = np.append(np.flatnonzero(np.diff(cell, prepend=-1)), len(cell))
    tops = leaves.joined(edges)
    root = tops.joined(np.array([0, len(edges) - 1]))
    levels, children = [root], [np.array([0])]
    if len(edges) == 2 and len(cell) > 1:
        levels, children = [root, leaves], [np.array([len(cell)]), np.zeros(len(cell), np.int64)]
    elif len(edges) > 2:
        below = np.diff(edges)
        apart = below > 1  # a cell of one leaf is that leaf
        levels = [root, tops, leaves.only(np.repeat(apart, below))]
        children = [np.array([len(below)]), np.where(apart, below, 0), np.zeros(below[apart].sum(), np.int64)]
    return _numbered(levels, np.concatenate(children).astype(np.int32), dim), order


@dataclass(frozen=True, slots=True)
class _Level:
    """Nodes of one depth: centroids float64 (nodes, dim), variance float64 (nodes,), the positions lo and hi."""

    centroids: NDArray[np.float64]
    variance: NDArray[np.float64]
    lo: NDArray[np.int64]
    hi: NDArray[np.int64]

    @classmethod
    def empty(cls, dim: int) -> _Level:
        """The root over no rows."""
        nothing = np.zeros(1, np.int64)
        return cls(np.zeros((1, dim)), np.zeros(1), nothing, nothing)

    def only(self, kept: NDArray[np.bool_]) -> _Level:
        """Some of these nodes."""
        return _Level(self.centroids[kept], self.variance[kept], self.lo[kept], self.hi[kept])

    def joined(self, edges: NDArray[np.int64]) -> _Level:
        """The parents: node i is of the nodes edges[i] to edges[i + 1], which are some."""
        begin = edges[:-1]
        rows = (self.hi - self.lo).astype(np.float64)
        total = np.add.reduceat(rows, begin)
        centroids = np.add.reduceat(self.centroids * rows[:, None], begin) / total[:, None]
        apart = self.centroids - np.repeat(centroids, np.diff(edges), axis=0)
        spread = rows * (self.variance + np.einsum("ij,ij->i", apart, apart))
        return _Level(centroids, np.add.reduceat(spread, begin) / total, self.lo[begin], self.hi[edges[1:] - 1])


def _numbered(levels: list[_Level], child_count: NDArray[np.int32], dim: int) -> Tree:
    """Nodes level by level, root first: so children follow each other in the order of their parents."""
    first = np.where(child_count > 0, 1 + np.cumsum(child_count) - child_count, 0)
    centroids = np.concatenate([level.centroids for level in levels]).astype(np.float32)
    return Tree(
        centroids=np.ascontiguousarray(centroids[:, :dim]),
        bias=np.einsum("ij,ij->i", centroids, centroids),
        first_child=first.astype(np.int32),
        child_count=child_count,
        lo=np.concatenate([level.lo for level in levels]).astype(np.uint32),
        hi=np.concatenate([level.hi for level in levels]).astype(np.uint32),
        variance=np.concatenate([level.variance for level in levels]).astype(np.float32),
    )
