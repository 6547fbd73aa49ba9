"""How many bits each dimension of a code gets: more where the data spreads more.

A bit halves the cells of a dimension and so quarters what rounding costs there. Giving each bit to whichever dimension
has the most left is therefore the best that whole bits can do (reverse water-filling). SQUASH (arXiv 2502.01528) shares
bits out like this, but goes on giving to dimensions that are full; here those hand their bits on.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final

import numpy as np

from ..lake.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BITS_MOST", "allocated"]

BITS_MOST: Final = 8
"""Bits of a dimension at most: a cell's number is a byte."""


def allocated(variances: NDArray[np.float64], budget: int) -> NDArray[np.uint8]:
    """The bits of each dimension, uint8 (dim,), ``budget`` in all, that make the sum of ``variance / 4**bits`` least.

    variances: (dim,), finite, not negative; budget: 0 to 8 * dim, or InvalidInput. Of equal dimensions the first is
    served first, so falling variances get falling bits.
    """
    if not 0 <= budget <= BITS_MOST * len(variances):
        raise InvalidInput(f"{budget} bits for {len(variances)} dimensions; each takes 0 to {BITS_MOST}")
    bits = np.zeros(len(variances), np.uint8)
    waiting = [(-variance, dimension) for dimension, variance in enumerate(variances.tolist())]
    heapq.heapify(waiting)
    for _ in range(budget):
        energy, dimension = waiting[0]
        bits[dimension] += 1
        if bits[dimension] < BITS_MOST:
            heapq.heapreplace(waiting, (energy / 4, dimension))
        else:
            heapq.heappop(waiting)
    return bits
