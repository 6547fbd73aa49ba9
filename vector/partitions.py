"""Neighbouring cells of a tree in partitions of about equal size, each to have a rotation and codes of its own.

A k-means of the cells' centroids, each weighing what it holds, whose last assignments mind the sizes: a cell that a
full partition refuses goes where it costs least, cells that have most to lose choose first (SQUASH does the like with
rows). Whole cells move, so rows stay in the tree's order and a partition is one run of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SLACK", "partition_count", "partitioned"]

SLACK: Final = 0.1
"""The share by which a partition's rows may differ from the mean, as far as whole cells allow."""
ROWS_LEAST: Final = 20_000
"""Rows of a partition at least: below, its statistics are noise and its rotation costs a query too much."""
MEMORY_SHARE: Final = 0.04
"""What all rotations may take, of the memory of the vectors."""
ITERATIONS: Final = 20
BALANCED: Final = 10
"""Assignments that mind the sizes, at the end."""


def partition_count(rows: int, dim: int) -> int:
    """How many partitions serve so many rows: rotations are dim² floats each, and few rows tell little; 1 at least."""
    return max(1, min(rows // ROWS_LEAST, int(MEMORY_SHARE * rows / dim)))


def partitioned(
    centroids: NDArray[np.float32], sizes: NDArray[np.int64], count: int, *, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cells by partition: their order, int64 (cells,), and where each partition starts in it, int64 (count + 1,).

    centroids: float32 (cells, dim); sizes: int64 (cells,), the rows of each. Within a partition cells keep their
    order. A partition differs by more than :data:`SLACK` from the mean only where cells are too large for that; with
    fewer cells than partitions some are empty.
    """
    points, weights = centroids.astype(np.float64), sizes.astype(np.float64)
    label = np.zeros(len(sizes), np.int64)
    if count > 1 and len(sizes):
        centres = _spread_out(points, weights, count, np.random.default_rng(seed))
        for turn in range(ITERATIONS + BALANCED):
            distances = _squared(points, centres)
            before = label
            label = distances.argmin(axis=1)
            if turn >= ITERATIONS:
                label = _bounded(distances * weights[:, None], sizes, count)
                if turn > ITERATIONS and np.array_equal(label, before):
                    break
            centres = _means(points, weights, label, centres)
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(label, minlength=count), out=starts[1:])
    return np.argsort(label, kind="stable").astype(np.int64), starts


def _squared(points: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    own, theirs = (np.einsum("ij,ij->i", each, each) for each in (points, centres))
    squares: NDArray[np.float64] = np.maximum(own[:, None] - 2 * points @ centres.T + theirs, 0)
    return squares


def _spread_out(
    points: NDArray[np.float64], weights: NDArray[np.float64], count: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Centres to start from, k-means++: each drawn by what the ones before it cost."""
    chosen: list[int] = []
    cost = np.ones(len(points))
    for _ in range(count):
        odds = cost * weights
        share = odds / odds.sum() if odds.sum() > 0 else None
        chosen.append(int(random.choice(len(points), p=share)))
        away = _squared(points, points[chosen[-1:]])[:, 0]
        cost = away if len(chosen) == 1 else np.minimum(cost, away)
    return points[chosen]


def _means(
    points: NDArray[np.float64], weights: NDArray[np.float64], label: NDArray[np.int64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The weighted mean of each label; a centre of no weight stays."""
    order = np.argsort(label, kind="stable")
    held = np.bincount(label, weights, len(centres))
    sums = np.zeros_like(centres)
    here, firsts = np.unique(label[order], return_index=True)
    sums[here] = np.add.reduceat(points[order] * weights[order, None], firsts)
    return np.where(held[:, None] > 0, sums / np.maximum(held, 1e-300)[:, None], centres)


def _bounded(costs: NDArray[np.float64], sizes: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The partition of each cell, of low total cost, with the bounds on rows kept where that is possible.

    costs: (cells, count). First no partition is filled above the bound; then those below theirs are filled from others.
    """
    mean = int(sizes.sum()) / count
    most, least = mean * (1 + SLACK), mean * (1 - SLACK)
    room, weight = np.full(count, most), sizes.tolist()
    ranked = np.sort(costs, axis=1)
    label = np.zeros(len(sizes), np.int64)
    # who loses most by the second choice goes first; a big cell that comes late finds no place at all
    for cell in np.lexsort((-(ranked[:, 1] - ranked[:, 0]), -(sizes > SLACK * mean).astype(np.int64))).tolist():
        fits = room >= weight[cell]
        at = int(np.where(fits, costs[cell], np.inf).argmin()) if fits.any() else int(room.argmax())
        label[cell] = at
        room[at] -= weight[cell]
    held = most - room
    for _ in range(2 * len(sizes)):
        poor = int(held.argmin())
        if held[poor] >= least:
            break
        spare = held[label] - sizes
        movable = (label != poor) & (spare >= least) & (held[poor] + sizes <= most) & (sizes > 0)
        if not movable.any():  # at least from the fullest, as long as that evens things out
            movable = (label != poor) & (spare >= held[poor] + sizes) & (sizes > 0)
            movable &= held[label] == held[label[movable]].max() if movable.any() else False
        if not movable.any():
            break
        price = (costs[:, poor] - costs[np.arange(len(sizes)), label]) / np.maximum(sizes, 1)
        cell = int(np.where(movable, price, np.inf).argmin())
        held[label[cell]] -= sizes[cell]
        held[poor] += sizes[cell]
        label[cell] = poor
    return label
