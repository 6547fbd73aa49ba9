"""Best-first through a sub-tree: which short-lists of a posting list a search scores.

It goes on until ``budget_rows`` of the list's rows were met. A budget in rows, fitted when the segment was made, finds
as much for the rows scored as rules that watch the results do, and its slowest query takes hardly longer than its mean
one; it cannot stop early on a run of tiny lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled, inlined
from .bitmaps import STEP, count_between, list_word
from .nodes import rounded_query
from .simd import float_at, prefetch, put_float, small_dot, uint_at
from .subtree import CHILD, CHILDREN, NODE, START, STOP

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["chosen_lists", "chosen_rows", "walk_ranks"]

BINS: Final = 1024
"""Of the histogram of keys."""
AROUND_ROWS, AROUND_PART = 512, 100
"""Rows around a query among which those wanted are counted: so many, or one in so many of all."""
LOST_SHARE: Final = 0.5
"""Of what their share of all promises, if so few of these are wanted, the condition keeps away from the query."""
AHEAD_CELLS: Final = 8
"""The part of a bitmap is fetched so many cells ahead."""
FIRST_ROWS: Final = 512
"""Rows of the nearest lists that are scored before all others: few of these are better than the best of them."""


@compiled
def _score_nodes(
    node: NDArray[np.int32],
    codes: NDArray[np.int8],
    words: NDArray[np.int16],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    unit: np.float32,
    out: NDArray[np.float32],
) -> None:
    """Write the scores of nodes for a query in ``words``; ``unit`` is what one of these stands for, twice.

    A loop of its own over addresses: inside that of best-first, the bounds of all arrays would not fit the registers.
    """
    groups, code_at, word_at = codes.shape[1] >> 5, codes.ctypes.data, words.ctypes.data
    node_at, scale_at, bias_at, out_at = node.ctypes.data, scale.ctypes.data, bias.ctypes.data, out.ctypes.data
    for i in range(node.shape[0]):
        place = uint_at(node_at + 4 * i)
        product = np.float32(small_dot(code_at + place * (groups << 5), word_at, groups))
        put_float(out_at + 4 * i, float_at(bias_at + 4 * place) - unit * float_at(scale_at + 4 * place) * product)


@inlined
def _bin(score: np.float32, least: np.float32, narrow: np.float32) -> int:
    place = (score - least) * narrow
    return int(max(place, np.float32(0))) if place < np.float32(BINS - 1) else BINS - 1


@compiled
def chosen_rows(
    query: NDArray[np.float32],
    codes: NDArray[np.int8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    split: NDArray[np.int32],
    positions: NDArray[np.uint32],
    copied: bool,
    wanted: NDArray[np.uint64],
    share: float,
    budget_rows: int,
) -> NDArray[np.uint32]:
    """Positions in the short-lists that best-first comes to until it has ``budget_rows``; if ``copied``, their indexes.

    ``wanted``, if it is not empty, is a bitmap over ``positions``: these rows alone, a ``share`` of all, are taken, and
    counted.
    """
    if positions.shape[0] > 0 and positions[-1] == positions.shape[0] - 1:
        copied = True  # every row has its own number for a position: they need not be read
    lists, rows = chosen_lists(query, codes, scale, bias, split, wanted, share, budget_rows)
    out, size, begin, end = np.empty(rows + STEP, np.uint32), 0, 0, 0  # neighbouring lists are copied together
    for entry in lists:
        if split[START, entry] != end:
            size += _copy(positions, copied, wanted, begin, end, out, size)
            begin = split[START, entry]
        end = split[STOP, entry]
    size += _copy(positions, copied, wanted, begin, end, out, size)
    return out[:size]


@compiled
def chosen_lists(
    query: NDArray[np.float32],
    codes: NDArray[np.int8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    split: NDArray[np.int32],
    wanted: NDArray[np.uint64],
    share: float,
    budget_rows: int,
) -> tuple[NDArray[np.int32], int]:
    """The entries of the short-lists that best-first comes to until it has ``budget_rows``, and their rows, at most.

    Where far fewer of the rows around the query are wanted than a ``share``, the nearest wanted ones lie anywhere, and
    the budget is not for such: then it is the root's entry, all rows.

    No heap: cells below the root are opened in the order of their scores, until a histogram of the lists' own scores
    says that the rows that lie before the next cell suffice; then the best lists are taken.
    """
    node, child, children, start, stop = split[NODE], split[CHILD], split[CHILDREN], split[START], split[STOP]
    if child[0] == 0:
        return np.zeros(1, np.int32), stop[0]
    size = codes.shape[1]
    words = np.empty(size, np.int16)
    unit = np.float32(2) * rounded_query(query, words)
    cells, first = children[0], child[0]
    scores, own = np.empty(cells, np.float32), np.empty(split.shape[1], np.float32)
    _score_nodes(node[first : first + cells], codes, words, scale, bias, unit, scores)
    least, greatest = np.float32(np.inf), np.float32(-np.inf)
    for score in scores:
        least, greatest = min(least, score), max(greatest, score)
    narrow = np.float32((BINS - 1) / 2.0) / max(greatest - least, np.float32(1e-30))
    least -= np.float32(0.5) * (greatest - least)  # lists may lie nearer than the cell that they are in
    order = _by_bin(scores, least, narrow)
    rows_of, spots = np.zeros(BINS, np.int64), np.full(split.shape[1], -1, np.int16)
    stack, before, frontier = np.empty(split.shape[1], np.int32), 0, 0
    around, wanted_around = max(AROUND_ROWS, stop[0] // AROUND_PART) if share > 0 else 0, 0
    seen_around = 0
    for turn in range(cells):
        cell = order[turn]
        reached = _bin(scores[cell], least, narrow)
        while frontier < reached:
            before += rows_of[frontier]
            frontier += 1
        if before >= budget_rows:
            break
        if wanted.shape[0] > 0 and turn + AHEAD_CELLS < cells:
            later = first + order[turn + AHEAD_CELLS]
            prefetch(wanted.ctypes.data + np.int64(start[later] >> 6) * 8)
            prefetch(wanted.ctypes.data + np.int64(stop[later] >> 6) * 8)
        if seen_around < around:
            seen_around += stop[first + cell] - start[first + cell]
            wanted_around += _held(wanted, start[first + cell], stop[first + cell])
            if seen_around >= around and wanted_around < LOST_SHARE * share * seen_around:
                return np.zeros(1, np.int32), stop[0]
        stack[0], depth = first + cell, 1
        if child[first + cell] == 0:
            spots[first + cell], depth = reached, 0
            rows_of[reached] += _held(wanted, start[first + cell], stop[first + cell])
        after = first + order[min(turn + 1, cells - 1)]  # is fetched meanwhile
        ahead = codes.ctypes.data + np.int64(node[child[after]]) * size
        for line in range(0, children[after] * size, 64):
            prefetch(ahead + line)
        while depth > 0:
            depth -= 1
            entry = stack[depth]
            top, end = child[entry], child[entry] + children[entry]
            _score_nodes(node[top:end], codes, words, scale, bias, unit, own)
            for i in range(end - top):
                below = top + i
                if child[below] > 0:
                    stack[depth] = below
                    depth += 1
                    continue
                spot, held = _bin(own[i], least, narrow), _held(wanted, start[below], stop[below])
                spots[below] = spot
                rows_of[spot] += held
                before += held if spot < frontier else 0
    return _taken(rows_of, spots, start, stop, wanted, budget_rows)


@compiled
def _taken(
    rows_of: NDArray[np.int64],
    spots: NDArray[np.int16],
    start: NDArray[np.int32],
    stop: NDArray[np.int32],
    wanted: NDArray[np.uint64],
    budget_rows: int,
) -> tuple[NDArray[np.int32], int]:
    """The lists in the least bins that hold ``budget_rows``, and their rows; ``spots`` is each list's bin, -1 if
    unopened.

    The nearest come first: the best of these are a limit that few of the others pass. Those go by place and not by
    nearness, so that memory is read forwards.
    """
    last, total, near, soon = 0, rows_of[0], 0, rows_of[0]
    while total < budget_rows and last < BINS - 1:
        last += 1
        total += rows_of[last]
        if soon < FIRST_ROWS:
            near, soon = last, total
    if near == last:  # of that bin some lists may stay out
        near = -1
    # The last bin goes in whole unless it is most of what was chosen, as where many lists lie equally near
    short = rows_of[last] if total <= 2 * budget_rows else budget_rows - (total - rows_of[last])
    early, late = 0, 0
    for spot in spots:
        early += 0 <= spot <= near
        late += near < spot <= last
    out = np.empty(early + late, np.int32)
    early, late = 0, early
    for entry in range(spots.shape[0]):
        spot = spots[entry]
        if spot < 0 or spot > last or (spot == last and short <= 0):
            continue
        if spot == last:
            short -= _held(wanted, start[entry], stop[entry])
        if spot <= near:
            out[early] = entry
            early += 1
        else:
            out[late] = entry
            late += 1
    return out[:late], total


@inlined
def _held(wanted: NDArray[np.uint64], start: int, stop: int) -> int:
    """Rows of a list, or those of them in a bitmap if there is one."""
    return count_between(wanted, start, stop) if wanted.shape[0] > 0 else stop - start


@compiled
def _copy(
    positions: NDArray[np.uint32],
    copied: bool,
    wanted: NDArray[np.uint64],
    begin: int,
    end: int,
    out: NDArray[np.uint32],
    at: int,
) -> int:
    """Write the positions from ``begin`` to ``end``, or if ``copied`` the numbers themselves, to ``out`` at ``at``;
    of a bitmap's rows alone, if there is one. How many.
    """
    if wanted.shape[0] > 0:
        return _copy_some(positions, copied, wanted, begin, end, out, at)
    part = out[at : at + end - begin]
    if copied:
        for i in range(part.shape[0]):
            part[i] = begin + i
    else:
        named = positions[begin:end]
        for i in range(part.shape[0]):
            part[i] = named[i]
    return end - begin


@compiled
def _copy_some(
    positions: NDArray[np.uint32],
    copied: bool,
    wanted: NDArray[np.uint64],
    begin: int,
    end: int,
    out: NDArray[np.uint32],
    at: int,
) -> int:
    """:func:`_copy` of a bitmap's rows; beyond them up to STEP more places are written over."""
    size = np.uint64(at)
    for number in range(begin >> 6, (end + 63) >> 6):
        word = wanted[number]
        if number == begin >> 6:
            word &= ~np.uint64(0) << np.uint64(begin & 63)
        if number == end >> 6:
            word &= (np.uint64(1) << np.uint64(end & 63)) - np.uint64(1)
        size = list_word(word, number, positions, copied, out, size)
    return int(size) - at


@compiled
def _by_bin(scores: NDArray[np.float32], least: np.float32, narrow: np.float32) -> NDArray[np.int32]:
    """The indexes of scores, by their bin: a counting sort."""
    starts = np.zeros(BINS + 1, np.int32)
    for score in scores:
        starts[_bin(score, least, narrow) + 1] += 1
    for i in range(BINS):
        starts[i + 1] += starts[i]
    order = np.empty(scores.shape[0], np.int32)
    for i in range(scores.shape[0]):
        spot = _bin(scores[i], least, narrow)
        order[starts[spot]] = i
        starts[spot] += 1
    return order


@compiled
def walk_ranks(
    query: NDArray[np.float32],
    codes: NDArray[np.int8],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32],
    split: NDArray[np.int32],
    targets: NDArray[np.int64],
    out_rows: NDArray[np.int64],
) -> None:
    """For each target, an index into the list, how many rows best-first has scored once it has seen that one."""
    node, child, children, start, stop = split[NODE], split[CHILD], split[CHILDREN], split[START], split[STOP]
    words = np.empty(codes.shape[1], np.int16)
    unit = np.float32(2) * rounded_query(query, words)
    keys, own = np.zeros(node.shape[0], np.float64), np.empty(node.shape[0], np.float32)
    _score_nodes(node, codes, words, scale, bias, unit, own)
    keys[0] = -np.inf
    for entry in range(node.shape[0]):  # parents stand before their children
        for below in range(child[entry], child[entry] + children[entry]):
            keys[below] = max(keys[entry], own[below])
    # Best-first takes a list once its own score and those of all nodes above are reached; of several, the nearer first
    for entry in range(node.shape[0]):
        keys[entry] += 1e-6 * own[entry]
    for i in range(targets.shape[0]):
        holder, scored = 0, 0
        for entry in range(node.shape[0]):
            if child[entry] == 0 and start[entry] <= targets[i] < stop[entry]:
                holder = entry
        for entry in range(node.shape[0]):
            if child[entry] == 0 and keys[entry] <= keys[holder]:
                scored += stop[entry] - start[entry]
        out_rows[i] = scored
