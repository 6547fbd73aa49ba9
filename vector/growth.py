"""The tree for a changed set of rows, from the tree before: most leaves keep their rows, so that this is cheap.

New rows go to the nearest leaf, leaves that became too full are cut, and those that became too empty share out their
rows. Where that would make a worse tree than training, it is trained: a part of it, or all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from .kmeans import balance, better, groups, means, move
from .products import nearest
from .tree import CROWDED, FILL, Cells, Tree, around, assemble, centres, cut, fan_out, lifted, polish, train

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["grow"]

NEW_SHARE: Final = 0.5
"""With more than this share of rows to place, or to cut anew, the whole tree is trained."""
THIN_SHARE: Final = 0.25
"""A leaf with less than this share of what it may hold is given up, and its rows go elsewhere."""
FULL_SHARE: Final = 0.5
"""If leaves hold less than this in the mean, the whole tree is trained."""
DRIFT: Final = 2.0
"""Rows lie far off where their mean squared distance to their leaf's centroid is so many times that of the rows that
made it. Other rows from where these came reach 1.1."""
OUTGROWN: Final = 2
"""The whole tree is trained if it would have so many times as many cells, or as few."""


def grow(
    tree: Tree,
    vectors: NDArray[np.float32],
    leaf: NDArray[np.int32],
    *,
    metric: str,
    leaf_rows: int,
    seed: int,
    threads: int,
) -> tuple[Tree, NDArray[np.int64]]:
    """The tree over ``vectors`` made from ``tree``, and the row at each position, int64 (n,), as from ``train``.

    vectors: float32 (n, dim), C-contiguous, all the rows there are now; leaf: int32 (n,), the node of ``tree`` that a
    row was in, a leaf, or -1 for a row that is new. What was deleted is simply not there.
    """
    space = lifted(vectors, metric)
    cells = _inherited(tree, leaf, leaf_rows)
    homeless = np.flatnonzero(cells.leaf < 0)
    grown = len(homeless) <= NEW_SHARE * len(space) and _grown(
        space, leaf < 0, homeless, cells, leaf_rows, seed, threads
    )
    if not grown:
        del space
        return train(vectors, metric=metric, leaf_rows=leaf_rows, seed=seed, threads=threads)
    return assemble(space, cells, vectors.shape[1], threads=threads)


def _inherited(tree: Tree, leaf: NDArray[np.int32], leaf_rows: int) -> Cells:
    """The cells of a tree, without leaves that are thin or empty now; their rows, and new ones, are at -1."""
    nodes = len(tree.first_child)
    inner = np.flatnonzero(tree.child_count)
    parent = np.zeros(nodes, np.int64)
    for node in inner:
        parent[tree.first_child[node] : tree.first_child[node] + tree.child_count[node]] = node
    cell = np.arange(nodes)
    while (deeper := parent[cell] > 0).any():
        cell[deeper] = parent[cell[deeper]]
    if len(inner) <= 1:  # leaves under the root itself are one cell
        cell[:] = 0
    rows = np.bincount(leaf[leaf >= 0], minlength=nodes)
    kept = np.flatnonzero((tree.child_count == 0) & (rows > 0) & (rows >= THIN_SHARE * leaf_rows))
    kept = kept[np.argsort(cell[kept], kind="stable")]
    number = np.full(nodes + 1, -1, np.int32)  # the last is for new rows
    number[kept] = np.arange(len(kept))
    first = np.append(np.flatnonzero(np.diff(cell[kept], prepend=-1)), len(kept))
    return Cells(number[leaf], first)


def _grown(
    space: NDArray[np.float32],
    new: NDArray[np.bool_],
    homeless: NDArray[np.int64],
    cells: Cells,
    leaf_rows: int,
    seed: int,
    threads: int,
) -> bool:
    """Place the homeless, and mend what is too full or far off; False if the tree had better be trained."""
    if cells.first[-1] == 0:
        return False
    wanted = fan_out(len(space), leaf_rows)
    if not wanted / OUTGROWN <= len(cells.first) - 1 <= wanted * OUTGROWN:
        return False
    far = _placed(space, new, homeless, cells, leaf_rows, threads)
    if far is None:
        return False
    top = cells.top[cells.leaf]
    sizes = np.bincount(top, minlength=len(cells.first) - 1)
    anew = np.flatnonzero((far | (sizes > CROWDED * sizes.mean()))[top])
    if len(anew) > NEW_SHARE * len(space):
        return False
    touched = np.zeros(len(space), np.bool_)
    touched[homeless] = True
    touched[anew] = True
    if len(anew):
        part = cut(space, anew, leaf_rows, math.ceil(len(anew) / sizes.mean()), seed=seed, threads=threads)
        cells.leaf[anew] = part.leaf[anew] + cells.first[-1]
        cells.first = np.concatenate([cells.first, cells.first[-1] + part.first[1:]])
    _split(space, cells, touched, leaf_rows, seed, threads)
    held = np.count_nonzero(np.bincount(cells.leaf))
    if held > 1 and len(space) < FULL_SHARE * leaf_rows * held:
        return False
    if touched.any():
        polish(space, np.flatnonzero(touched), cells, leaf_rows, threads=threads)
    return True


def _placed(
    space: NDArray[np.float32],
    new: NDArray[np.bool_],
    homeless: NDArray[np.int64],
    cells: Cells,
    leaf_rows: int,
    threads: int,
) -> NDArray[np.bool_] | None:
    """Put the homeless into the nearest leaves; the cells whose new rows lie far off, or None if all in all they do."""
    count = int(cells.first[-1])
    housed = np.flatnonzero(cells.leaf >= 0)
    order, starts = groups(cells.leaf[housed], count)
    centroids = np.zeros((count, space.shape[1]), np.float32)
    variance = means(space, housed[order], starts, centroids, threads=threads)
    sizes = np.diff(starts)
    tops = centres(centroids, sizes, cells.first)
    within, begins = groups(nearest(space, tops, 1, rows=homeless, threads=threads)[0][:, 0], len(tops))
    near = around(centroids, sizes, cells.first, threads=threads)
    rows = homeless[within]
    targets, _ = better(space, rows, begins, near, cells.first, cells.leaf, sizes, centroids, threads=threads)
    cells.leaf[rows] = targets[:, 0]
    far = _far(space, rows[new[rows]], cells, centroids, sizes, variance, leaf_rows)
    # What a leaf cannot hold goes to the next one that can, as in training; what none can hold makes leaves of its own
    sizes = np.bincount(cells.leaf, minlength=count)
    order, starts = groups(targets[:, 0], count)
    excess = sizes - leaf_rows
    rank = np.arange(len(rows)) - np.repeat(starts[:-1], np.diff(starts))
    over = order[rank < np.repeat(excess, np.diff(starts))]
    others = np.ascontiguousarray(targets[over, 1:])
    move(rows[over], others, np.ones(len(over), np.float32), cells.leaf, sizes, leaf_rows)
    return far


def _far(
    space: NDArray[np.float32],
    rows: NDArray[np.int64],
    cells: Cells,
    centroids: NDArray[np.float32],
    sizes: NDArray[np.int64],
    variance: NDArray[np.float32],
    leaf_rows: int,
) -> NDArray[np.bool_] | None:
    """The cells where ``rows``, which are new, lie far off: bool (cells,); None if they do all over the tree."""
    apart = space[rows] - centroids[cells.leaf[rows]]
    top = cells.top
    came = np.bincount(top[cells.leaf[rows]], minlength=len(cells.first) - 1)
    off = np.bincount(top[cells.leaf[rows]], np.einsum("ij,ij->i", apart, apart), minlength=len(came))
    held, spread = np.add.reduceat(sizes, cells.first[:-1]), np.add.reduceat(variance * sizes, cells.first[:-1])
    # A few rows tell nothing about their cell; what such rows tell about the tree is what they tell together
    far = (came >= leaf_rows / 2) & (off * held > DRIFT * spread * came)
    rest = came[~far].sum()
    if rest >= leaf_rows / 2 and off[~far].sum() * held.sum() > DRIFT * spread.sum() * rest:
        return None
    return np.asarray(far)


def _split(
    space: NDArray[np.float32], cells: Cells, touched: NDArray[np.bool_], leaf_rows: int, seed: int, threads: int
) -> None:
    """Cut the leaves that are too full; ``cells`` changes, and ``touched`` becomes true for their rows."""
    order, starts = groups(cells.leaf, int(cells.first[-1]))
    sizes = np.diff(starts)
    full = sizes > leaf_rows
    if not full.any():
        return
    touched[full[cells.leaf]] = True
    counts = np.where(full, -(-sizes // max(1, int(leaf_rows * FILL))), 1)
    cells.leaf[order] = balance(space, order, starts, counts, leaf_rows, seed=seed, threads=threads)
    cells.first = np.append(0, np.cumsum(counts))[cells.first]
