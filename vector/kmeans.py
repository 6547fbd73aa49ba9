"""k-means in the two shapes that a tree needs: one with many centroids, and many small ones of bounded cells.

Everything here is squared Euclidean and deterministic: random choices come from a seed alone, ties go to the lower
number, and threads share out work whose parts do not depend on who does them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled
from .background import shared_out
from .products import nearest, paneled, products
from .simd import squared

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["balance", "better", "cluster", "groups", "means", "move"]

ITERATIONS: Final = 8
"""Rounds of Lloyd, for a small k-means before it is balanced."""
BALANCED: Final = 3
"""Assignments under the bound on rows, each but the last followed by new means."""
SAMPLE_ROWS: Final = 64
"""Rows a centroid that the large k-means learns from."""
TARGETS: Final = 6
"""Better leaves that are remembered for a row: the best may be full."""
SWEEPS: Final = 3
"""Times that rows are offered better leaves: each move makes room where it came from."""


def cluster(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], count: int, *, seed: int, threads: int
) -> NDArray[np.float32]:
    """Centroids of Lloyd's k-means over a sample of ``rows``: float32 (count, dim).

    vectors: float32 (n, dim), C-contiguous; rows: int64, at least ``count`` of them. A centroid that loses all its rows
    starts again from a random one, so centroids may coincide where rows do.
    """
    random = np.random.default_rng(seed)
    sample = rows if len(rows) <= SAMPLE_ROWS * count else random.choice(rows, SAMPLE_ROWS * count, replace=False)
    points = vectors[sample]
    centroids = points[random.choice(len(points), count, replace=False)]
    for _ in range(ITERATIONS):
        order, starts = groups(nearest(points, centroids, 1, threads=threads)[0][:, 0], count)
        means(points, order, starts, centroids, threads=threads)
        empty = np.flatnonzero(np.diff(starts) == 0)
        centroids[empty] = points[random.integers(0, len(points), len(empty))]
    return centroids


def groups(labels: NDArray[np.int32] | NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows by label: the order, int64 (n,), and where each label starts in it, int64 (count + 1,)."""
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(labels, minlength=count), out=starts[1:])
    return np.argsort(labels, kind="stable").astype(np.int64, copy=False), starts


def means(
    vectors: NDArray[np.float32],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    centroids: NDArray[np.float32],
    *,
    threads: int,
) -> NDArray[np.float32]:
    """Overwrite ``centroids`` with the mean of each group; what an empty group has stays.

    order, starts: as :func:`groups` gives them; centroids: float32 (groups, dim), C-contiguous. Returned is the mean
    squared distance of each group's rows to its centroid, float32 (groups,), 0 where it is empty.
    """
    count = len(starts) - 1
    variance = np.zeros(count, np.float32)
    step = max(1, -(-count // (8 * threads)))

    def one(start: int) -> None:
        total = np.empty(vectors.shape[1])
        _means(vectors, order, starts, start, min(start + step, count), total, centroids, variance)

    shared_out(one, range(0, count, step), threads)
    return variance


def balance(
    vectors: NDArray[np.float32],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    room: int,
    *,
    seed: int,
    threads: int,
) -> NDArray[np.int32]:
    """Each group cut into ``counts`` cells of at most ``room`` rows by k-means: int32 (len(order),), the cell of each.

    order, starts: as :func:`groups` gives them, the order of any rows of vectors; counts: int64 (groups,), with room
    for the rows of each group, and not above them. Cells are numbered through, group by group. The result is by place
    in ``order``. Rows that lose most by the second choice have the first one.
    """
    cells = np.empty(len(order), np.int32)
    first = np.cumsum(counts) - counts
    seeds = np.random.default_rng(seed).integers(0, 2**62, len(counts)).tolist()

    def one(group: int) -> None:
        part = slice(starts[group], starts[group + 1])
        cells[part] = first[group]
        if counts[group] > 1:
            cells[part] += _cells(vectors[order[part]], int(counts[group]), room, seeds[group])

    shared_out(one, range(len(counts)), threads)
    return cells


def better(
    vectors: NDArray[np.float32],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    near: NDArray[np.int32],
    first: NDArray[np.int64],
    leaf: NDArray[np.int32],
    sizes: NDArray[np.int64],
    centroids: NDArray[np.float32],
    *,
    threads: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Better leaves than their own for rows, nearest first, and what the best gains: int32 (rows, TARGETS), float32.

    Better is what lowers the sum of squared distances to the means, the row's own pull on its mean reckoned in
    (Hartigan and Wong, 1979, algorithm AS 136): to a row, the mean that it is part of looks nearer than it is.

    order, starts: rows by group, as :func:`groups` gives them; near: int32 (groups, any), the groups whose leaves its
    rows may go to, itself among them; first: int64 (groups + 1,), each one's first leaf; leaf: int32 (n,), each row's
    own leaf, or -1; sizes: int64 (leaves,), the rows of each; centroids: float32 (leaves, dim). The results are by
    place in ``order``; where there is none, -1, and a gain of 0. A row without a leaf gains infinitely.
    """
    targets, gains = np.full((len(order), TARGETS), -1, np.int32), np.zeros(len(order), np.float32)

    def one(group: int) -> None:
        part = slice(starts[group], starts[group + 1])
        rows = order[part]
        leaves = np.concatenate([np.arange(first[other], first[other + 1]) for other in near[group]])
        if not len(rows) or not len(leaves):
            return
        points, around = vectors[rows], centroids[leaves]
        found, best = nearest(points, around, min(TARGETS, len(leaves)), threads=1)
        chosen, own = leaves[found].astype(np.int32), leaf[rows]
        square = np.einsum("ij,ij->i", points, points)
        away = points - centroids[own]
        # Hartigan's rule: what leaving takes off the sum of squares, less what joining puts on it
        leaving = np.einsum("ij,ij->i", away, away) * (sizes[own] / np.maximum(1, sizes[own] - 1))
        joining = np.maximum(0, best + square[:, None]) * (sizes[chosen] / (sizes[chosen] + 1))
        leaving[own < 0] = np.inf
        gain = np.where(chosen == own[:, None], 0, leaving[:, None] - joining)
        targets[part, : chosen.shape[1]] = np.where(gain > 0, chosen, -1)
        gains[part] = np.maximum(0, gain.max(axis=1))

    shared_out(one, range(len(starts) - 1), threads)
    return targets, gains


def move(
    rows: NDArray[np.int64],
    targets: NDArray[np.int32],
    gains: NDArray[np.float32],
    leaf: NDArray[np.int32],
    sizes: NDArray[np.int64],
    room: int,
) -> None:
    """Move rows to the leaves of :func:`better` that have room, greatest gain first; ``leaf`` and ``sizes`` change.

    rows: int64, which all have a leaf; sizes: int64 (leaves,), never above ``room`` by a move.
    """
    gaining = np.flatnonzero(gains > 0)
    _move(gaining[np.argsort(-gains[gaining], kind="stable")], rows, targets, leaf, sizes, room)


@compiled
def _select(
    scores: NDArray[np.float32], bias: NDArray[np.float32], best: NDArray[np.float32], found: NDArray[np.int32]
) -> None:
    """The lowest ``scores + bias`` of each row and their columns, lowest first: as many as ``best`` is wide."""
    near = found.shape[1]
    for i in range(scores.shape[0]):
        held = 0
        for j in range(scores.shape[1]):
            score = scores[i, j] + bias[j]
            if held == near and not score < best[i, near - 1]:
                continue
            at = held if held < near else near - 1
            held = at + 1
            while at > 0 and score < best[i, at - 1]:
                best[i, at] = best[i, at - 1]
                found[i, at] = found[i, at - 1]
                at -= 1
            best[i, at] = score
            found[i, at] = j


@compiled
def _means(
    vectors: NDArray[np.float32],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    begin: int,
    end: int,
    total: NDArray[np.float64],
    centroids: NDArray[np.float32],
    variance: NDArray[np.float32],
) -> None:
    dim = vectors.shape[1]
    base, to = vectors.ctypes.data, centroids.ctypes.data
    for group in range(begin, end):
        rows = starts[group + 1] - starts[group]
        if rows == 0:
            continue
        for d in range(dim):
            total[d] = 0
        for place in range(starts[group], starts[group + 1]):
            row = order[place]
            for d in range(dim):
                total[d] += vectors[row, d]
        for d in range(dim):
            centroids[group, d] = total[d] / rows
        spread = np.float64(0)
        for place in range(starts[group], starts[group + 1]):
            spread += squared(base + order[place] * dim * 4, to + group * dim * 4, dim)
        variance[group] = spread / rows


def _cells(points: NDArray[np.float32], count: int, room: int, seed: int) -> NDArray[np.int32]:
    """``points`` in ``count`` cells of at most ``room``: int32 (points,). Lloyd, then assignments under the bound."""
    start = np.random.default_rng(seed).choice(len(points), count, replace=False)
    centroids, scores = points[start], np.empty((len(points), count), np.float32)
    best, found = np.empty((len(points), 2), np.float32), np.empty((len(points), 2), np.int32)
    label, places = np.empty(len(points), np.int32), np.empty(len(points), np.int64)
    sizes, every = np.empty(count, np.int64), np.arange(len(points))
    for turn in range(ITERATIONS + BALANCED):
        bias = np.einsum("ij,ij->i", centroids, centroids)
        products(points, every, paneled(centroids), scores)
        _select(scores, bias, best, found)
        label[:] = found[:, 0]
        if turn >= ITERATIONS:
            _fit(scores, bias, best[:, 0] - best[:, 1], label, places, sizes, room)
        _recentre(points, label, sizes, centroids)
    return label


@compiled
def _recentre(
    points: NDArray[np.float32], label: NDArray[np.int32], sizes: NDArray[np.int64], centroids: NDArray[np.float32]
) -> None:
    """The means of the labels; a centroid without points stays where it is. ``sizes`` is overwritten."""
    dim = points.shape[1]
    for j in range(centroids.shape[0]):
        sizes[j] = 0
    for i in range(points.shape[0]):
        at = label[i]
        for d in range(dim):
            centroids[at, d] = points[i, d] if sizes[at] == 0 else centroids[at, d] + points[i, d]
        sizes[at] += 1
    for j in range(centroids.shape[0]):
        share = np.float32(1) / np.float32(max(1, sizes[j]))
        for d in range(dim):
            centroids[j, d] *= share


@compiled
def _fit(
    scores: NDArray[np.float32],
    bias: NDArray[np.float32],
    regret: NDArray[np.float32],
    label: NDArray[np.int32],
    places: NDArray[np.int64],
    sizes: NDArray[np.int64],
    room: int,
) -> None:
    """Label points with at most ``room`` of one label, first those that lose most by their second choice.

    ``places`` and ``sizes`` are overwritten. Sorted by Shell's sort: Numba takes a second to compile its own.
    """
    count, gap = len(places), 1
    for i in range(count):
        places[i] = i
    for j in range(len(sizes)):
        sizes[j] = 0
    while 3 * gap < count:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, count):
            held, at = places[i], i
            while at >= gap:
                other = places[at - gap]
                if regret[other] < regret[held] or (regret[other] == regret[held] and other < held):
                    break
                places[at] = other
                at -= gap
            places[at] = held
        gap //= 3
    for place in range(count):
        i, at = places[place], -1
        best = scores[0, 0]
        for j in range(len(sizes)):
            score = scores[i, j] + bias[j]
            if sizes[j] < room and (at < 0 or score < best):
                at, best = j, score
        label[i] = at
        sizes[at] += 1


@compiled
def _move(
    order: NDArray[np.int64],
    rows: NDArray[np.int64],
    targets: NDArray[np.int32],
    leaf: NDArray[np.int32],
    sizes: NDArray[np.int64],
    room: int,
) -> None:
    for _ in range(SWEEPS):
        for i in order:
            row = rows[i]
            for slot in range(targets.shape[1]):
                other = targets[i, slot]
                if other == leaf[row]:
                    break
                if other >= 0 and sizes[other] < room:
                    sizes[leaf[row]] -= 1
                    sizes[other] += 1
                    leaf[row] = other
                    break
