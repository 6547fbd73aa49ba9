"""A tree as search reads it: its shape, and centroids rounded to bytes.

A centroid is kept as its difference from the rows' mean, one int8 a coordinate with a scale of its own; the query is
rounded to int16 words of the same range. Both together move a score by less than lists differ, for a quarter of the
memory and of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.kernels import compiled
from .tree import Tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LANES", "Nodes", "no_nodes", "rounded", "rounded_query"]

LANES: Final = 32
"""Coordinates are filled up with zeros to a multiple of so many."""
GREATEST: Final = 127


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of a :class:`.tree.Tree`, which says what shape, bias and variance are.

    codes int8 (nodes, padded); scale float32 (nodes,). A query q scores a node bias - 2 * scale * <codes, q>, less a
    constant of the query.
    """

    codes: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    first_child: NDArray[np.int32]
    child_count: NDArray[np.int32]
    lo: NDArray[np.uint32]
    hi: NDArray[np.uint32]
    variance: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(getattr(self, name).nbytes for name in self.__slots__)

    def tree(self, mean: NDArray[np.float32]) -> Tree:
        """The tree, its centroids as near as bytes tell them."""
        centroids = self.codes[:, : len(mean)].astype(np.float32) * self.scale[:, None] + mean
        return Tree(centroids, self.bias, self.first_child, self.child_count, self.lo, self.hi, self.variance)


def rounded(tree: Tree, mean: NDArray[np.float32]) -> Nodes:
    """The nodes of a tree over rows of this mean, float32 (dim,)."""
    apart = tree.centroids - mean
    scale = np.abs(apart).max(axis=1, initial=0.0) / np.float32(GREATEST)
    codes = np.zeros((len(apart), -(-len(mean) // LANES) * LANES), np.int8)
    codes[:, : len(mean)] = np.rint(apart / np.where(scale > 0, scale, 1)[:, None])
    shape = tree.first_child, tree.child_count, tree.lo, tree.hi, tree.variance
    return Nodes(codes, scale.astype(np.float32), tree.bias, *shape)


def no_nodes(dim: int) -> Nodes:
    """What stands in for the nodes of rows that have no tree."""
    reals, words = np.zeros(1, np.float32), np.zeros(1, np.int32)
    codes = np.zeros((1, -(-dim // LANES) * LANES), np.int8)
    return Nodes(codes, reals, reals, words, words, np.zeros(1, np.uint32), np.zeros(1, np.uint32), reals)


@compiled
def rounded_query(query: NDArray[np.float32], out_words: NDArray[np.int16]) -> np.float32:
    """Write a query, float32 (dim,), as int16 (padded,) from -127 to 127; what one of these stands for."""
    greatest = np.float32(0)
    for i in range(query.shape[0]):
        greatest = max(greatest, abs(query[i]))
    scale = greatest / np.float32(GREATEST)
    inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
    for i in range(query.shape[0]):
        value = query[i] * inverse
        out_words[i] = np.int16(value + np.float32(0.5) if value > 0 else value - np.float32(0.5))
    out_words[query.shape[0] :] = 0
    return scale
