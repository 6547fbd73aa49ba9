"""A tenant's own tree inside the shared one: nodes at which its rows fall into short-lists (Curator, arXiv 2401.07119).

Rows stand in tree order, so a tenant's sorted positions *are* its tree: what it has below a node is a slice of them.
Short-lists split where a slice is longer than the cap and merge where rows go away, because the sub-tree is only a
reading of the positions; it is made at the first search that wants it, and again after the positions were folded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from ..lake.kernels import compiled

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .nodes import Nodes

__all__ = ["CHILD", "CHILDREN", "NODE", "NO_SUBTREE", "START", "STOP", "SubTree", "subtree"]


NODE, CHILD, CHILDREN, START, STOP = range(5)
"""Rows of a sub-tree's array: the shared tree's node; the first child's entry, 0 for a short-list; how many children;
the slice of the positions below. Entry 0 is the root; an entry's children stand side by side behind it."""

FILL_ROWS: Final = 26
"""A list splits only if its parts hold so many rows in the mean: a centroid is scored, and its list sorted in among the
others, in the time of five rows, and for each list that is wanted so are a few that are not."""

SubTree: TypeAlias = "NDArray[np.int32]"
"""int32 (5, entries)."""
NO_SUBTREE: Final = np.empty((5, 0), np.int32)
"""For lists that are scored whole."""


def subtree(positions: NDArray[np.uint32], tree: Nodes, cap_rows: int, one_in: int = 1) -> SubTree:
    """The sub-tree of sorted, distinct ``positions``, uint32 (n,), with short-lists of ``cap_rows`` rows at most
    wherever the shared tree goes deep enough; or one that suits a condition that leaves one row in so many.
    """
    return split(positions, tree.first_child, tree.child_count, tree.hi, cap_rows * one_in, FILL_ROWS * one_in)


@compiled
def split(
    positions: NDArray[np.uint32],
    first_child: NDArray[np.int32],
    child_count: NDArray[np.int32],
    hi: NDArray[np.uint32],
    cap_rows: int,
    fill_rows: int,
) -> NDArray[np.int32]:
    """The array of a sub-tree, breadth first. A node with rows under one child only is passed over."""
    most = min(first_child.shape[0], 2 * positions.shape[0] + 1)
    out = np.zeros((5, most), np.int32)
    out[STOP, 0] = positions.shape[0]
    entries, at = 1, 0
    while at < entries:
        while out[STOP, at] - out[START, at] > cap_rows and first_child[out[NODE, at]] > 0:
            above = out[NODE, at]
            if at > 0 and out[STOP, at] - out[START, at] < fill_rows * child_count[above]:
                break  # lists so short that their centroids cost more than they save
            first, low = entries, out[START, at]
            for below in range(first_child[above], first_child[above] + child_count[above]):
                left, right = low, out[STOP, at]
                while left < right:  # the first position of the next child
                    middle = (left + right) >> 1
                    if positions[middle] < hi[below]:
                        left = middle + 1
                    else:
                        right = middle
                if left > low:
                    if low == out[START, at] and left == out[STOP, at]:
                        break  # all of it below this child
                    out[NODE, entries], out[START, entries], out[STOP, entries] = below, low, left
                    entries += 1
                    low = left
            if entries == first:
                out[NODE, at] = below
                continue
            out[CHILD, at], out[CHILDREN, at] = first, entries - first
            break
        at += 1
    return out[:, :entries].copy()
