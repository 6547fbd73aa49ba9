"""Cells of single dimensions: where to cut a column of numbers, and what a cell's numbers are taken for.

Lloyd's iteration in one dimension: a boundary lies midway between the means of the cells beside it. On a sorted column
a cell is a run, so prefix sums give its mean and its error, and an iteration costs the cells and not the numbers.

SQUASH (arXiv 2502.01528) starts from cells of equal numbers of rows and stops at a change of 0.5 %. With 256 cells that
ends far from the best, since rows at the ends share a few wide cells and boundaries move slowly. Here the start is
where boundaries belong when cells are many, and the change that stops is a tenth of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["cells_of", "first_cells"]

ITERATIONS: Final = 250
CHANGE: Final = 0.0005
"""An iteration that lowers the error by a smaller share than this is the last."""


def first_cells(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where each column's cells start among those of all, int64 (columns + 1,): 2**bits a column."""
    starts = np.zeros(len(bits) + 1, np.int64)
    np.cumsum(1 << bits.astype(np.int64), out=starts[1:])
    return starts


def cells_of(
    columns: NDArray[np.float32], bits: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The cells of each column: lower boundaries, means, and mean squared distances to the mean, each float32 (cells,).

    columns: float32 (columns, n), n > 0, each sorted upward; bits: uint8 (columns,). Column j's cells are those from
    ``first_cells(bits)[j]`` on. A number is in the last cell whose boundary is not above it; a column's first boundary
    is minus infinity. Boundaries never fall; a cell that holds nothing is taken for the middle of its boundaries.
    """
    starts = first_cells(bits)
    found = np.empty((3, int(starts[-1])), np.float32)
    _cells(np.ascontiguousarray(columns), starts, found[0], found[1], found[2])
    return found[0], found[1], found[2]


@compiled
def _cells(
    columns: NDArray[np.float32],
    starts: NDArray[np.int64],
    out_edges: NDArray[np.float32],
    out_values: NDArray[np.float32],
    out_spreads: NDArray[np.float32],
) -> None:
    rows = columns.shape[1]
    sums, squares = np.zeros(rows + 1), np.zeros(rows + 1)
    ends = np.empty(257, np.int64)
    for column in range(columns.shape[0]):
        values = columns[column]
        for i in range(rows):
            value = np.float64(values[i])
            sums[i + 1] = sums[i] + value
            squares[i + 1] = squares[i] + value * value
        first, cells = starts[column], starts[column + 1] - starts[column]
        edges = out_edges[first : first + cells]
        means = out_values[first : first + cells]
        edges[0] = -np.inf
        _start(values, edges)
        before = np.inf
        for turn in range(ITERATIONS + 1):
            error = _measured(values, sums, squares, edges, ends, means)
            if turn == ITERATIONS or (turn > 0 and before - error <= CHANGE * before):
                break
            before = error
            for cell in range(1, cells):
                edges[cell] = np.float32(0.5) * (means[cell - 1] + means[cell])
        for cell in range(cells):
            held = ends[cell + 1] - ends[cell]
            spread = 0.0
            if held > 0:
                mean = (sums[ends[cell + 1]] - sums[ends[cell]]) / held
                spread = (squares[ends[cell + 1]] - squares[ends[cell]]) / held - mean * mean
            out_spreads[first + cell] = max(spread, 0.0)


@compiled
def _start(values: NDArray[np.float32], edges: NDArray[np.float32]) -> None:
    """Boundaries to start from: cells as wide as the power -1/3 of the density, which is best where cells are many.

    Runs of equal numbers of rows stand for the density; a run of width w takes a share of w**(2/3) of the cells.
    """
    rows, cells = values.shape[0], edges.shape[0]
    runs = min(4 * cells, rows)
    total = 0.0
    for run in range(runs):
        total += _share(values, run, runs)
    passed, run, share = 0.0, 0, _share(values, 0, runs)
    for cell in range(1, cells):
        wanted = total * cell / cells
        while run + 1 < runs and passed + share < wanted:
            passed += share
            run += 1
            share = _share(values, run, runs)
        low, high = values[run * (rows - 1) // runs], values[(run + 1) * (rows - 1) // runs]
        part = (wanted - passed) / share if share > 0 else 0.0
        edges[cell] = low + np.float32(min(part, 1.0)) * (high - low)


@compiled
def _share(values: NDArray[np.float32], run: int, runs: int) -> float:
    last = values.shape[0] - 1
    return np.float64(values[(run + 1) * last // runs] - values[run * last // runs]) ** (2.0 / 3.0)


@compiled
def _measured(
    values: NDArray[np.float32],
    sums: NDArray[np.float64],
    squares: NDArray[np.float64],
    edges: NDArray[np.float32],
    ends: NDArray[np.int64],
    means: NDArray[np.float32],
) -> float:
    """Overwrite ``ends``, where each cell's run starts, and ``means``; the sum of squared distances to the means."""
    rows, cells = values.shape[0], edges.shape[0]
    error = 0.0
    ends[0] = 0
    for cell in range(cells):
        start, stop = ends[cell], rows
        if cell + 1 < cells:
            low, high, edge = start, rows, edges[cell + 1]
            while low < high:
                middle = (low + high) >> 1
                if values[middle] < edge:
                    low = middle + 1
                else:
                    high = middle
            stop = low
        ends[cell + 1] = stop
        if stop > start:
            total = sums[stop] - sums[start]
            means[cell] = total / (stop - start)
            error += squares[stop] - squares[start] - total * total / (stop - start)
        else:
            lower = edges[cell] if cell > 0 else values[0]
            upper = edges[cell + 1] if cell + 1 < cells else values[rows - 1]
            means[cell] = np.float32(0.5) * (lower + max(upper, lower))
    return max(error, 0.0)
