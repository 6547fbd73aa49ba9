"""How Numba kernels are compiled, for every room that has some: the lock released, the result kept on disk.

Numba's disk cache looks at the file of a kernel alone: after a change of something that a kernel takes from another
file, touch the kernel's file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

__all__ = ["called_back", "compiled", "inlined"]

_F = TypeVar("_F", bound=Callable[..., Any])


def compiled(function: _F) -> _F:
    """The function compiled by Numba at its first call; cached on disk if there is a place for that."""
    try:
        return cast("_F", numba.njit(nogil=True, cache=True)(function))
    except RuntimeError:  # neither the source's folder nor the user's cache can be written
        return cast("_F", numba.njit(nogil=True)(function))


def called_back(function: Callable[..., Any], signature: Any) -> Any:
    """The function compiled at once, for callers that know its address alone; cached as by :func:`compiled`."""
    try:
        return numba.cfunc(signature, cache=True)(function)
    except RuntimeError:
        return numba.cfunc(signature)(function)


def inlined(function: _F) -> _F:
    """A part of kernels, written into each: a call would count references to every array it hands over."""
    return cast("_F", numba.njit(inline="always")(function))
