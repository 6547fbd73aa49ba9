"""Metrics, and the check of vectors that come in: dtype, dimension, finite numbers, no zero vector under cosine."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..lake.errors import InvalidInput
from ..lake.kernels import compiled
from .scoring import COSINE, INNER, L2
from .simd import dot

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Metric", "checked_vectors", "metric_named"]


class Metric(IntEnum):
    """How near two vectors are; smaller is nearer."""

    L2 = L2
    """Squared Euclidean distance."""
    IP = INNER
    """Minus the inner product."""
    COSINE = COSINE
    """One minus the cosine."""


def metric_named(name: str) -> Metric:
    """The metric of a name, as the face spells it; InvalidInput for another word."""
    try:
        return Metric[name.upper()] if name == name.lower() else Metric[name]
    except (KeyError, AttributeError):
        raise InvalidInput(f"no metric {name!r}; there are 'l2', 'cosine' and 'ip'") from None


FINE, NOT_FINITE, ZERO, TOO_LONG = range(4)
SQUARES_MOST: Final = 1e36
"""Of a vector's squares: above it, distances would leave float32."""


@compiled
def _prepare(vectors: NDArray[np.float32], normalise: bool, out: NDArray[np.float32]) -> tuple[int, int]:
    """Copy ``vectors``, float32 (n, dim), to ``out``, normalised if asked; what is wrong, and with which row."""
    dim = vectors.shape[1]
    for row in range(vectors.shape[0]):
        address = vectors[row].ctypes.data
        squares = dot(address, address, dim)
        if not squares <= SQUARES_MOST:
            for i in range(dim):
                if not np.isfinite(vectors[row, i]):
                    return NOT_FINITE, row
            if not normalise:
                return TOO_LONG, row
        if normalise:
            double = 0.0
            for i in range(dim):
                double += np.float64(vectors[row, i]) * np.float64(vectors[row, i])  # float() would stay float32
            if double == 0.0:
                return ZERO, row
            factor = 1.0 / np.sqrt(double)
            for i in range(dim):
                out[row, i] = np.float32(np.float64(vectors[row, i]) * factor)
        else:
            for i in range(dim):
                out[row, i] = vectors[row, i]
    return FINE, 0


def checked_vectors(vectors: Any, dim: int, metric: Metric, what: str) -> NDArray[np.float32]:
    """A fresh C-contiguous float32 (n, dim) array of ``vectors``, normalised under cosine. One vector gives (1, dim).

    ``what`` they are, for messages. InvalidInput for another dtype or dimension, NaN, inf, or a zero vector under
    cosine. Lists of numbers are taken; an array must be float32, so that no precision is lost unnoticed.
    """
    if isinstance(vectors, list | tuple):
        try:
            numbers = np.asarray(vectors)
            if numbers.dtype.kind not in "fiu" and numbers.size:
                raise TypeError(f"they make dtype {numbers.dtype}")
            with np.errstate(over="ignore"):  # what becomes inf is refused below
                vectors = numbers.astype(np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"{what}: not numbers in rows of one length ({error})") from None
    if not isinstance(vectors, np.ndarray):
        vectors = np.asarray(vectors)
    if vectors.dtype != np.float32:
        raise InvalidInput(f"{what}: dtype {vectors.dtype}, expected float32; convert with .astype(np.float32)")
    if vectors.ndim == 1:
        vectors = vectors[None]
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise InvalidInput(f"{what}: shape {vectors.shape}, expected (n, {dim}), the dimension of this index")
    source = np.ascontiguousarray(vectors)
    if not source.flags.writeable:  # another type to Numba, which would compile every kernel once more
        source = source.copy()
    out = np.empty(source.shape, np.float32)
    wrong, row = _prepare(source, metric == COSINE, out)
    if wrong == NOT_FINITE:
        raise InvalidInput(f"{what}: row {row} holds NaN or inf; every number must be finite")
    if wrong == TOO_LONG:
        raise InvalidInput(
            f"{what}: row {row} is longer than {SQUARES_MOST**0.5:.0e}; distances would overflow: scale down"
        )
    if wrong == ZERO:
        raise InvalidInput(f"{what}: row {row} is a zero vector, which has no cosine; leave it out or use metric 'l2'")
    return out
