"""What the Numba kernels are made of: the two finalisers, and loads from Arrow buffers.

After a change here, or of a constant in :mod:`.mixing` or :mod:`.canonical`, touch kernels.py: see
:mod:`lakelet.lake.kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from ..lake.kernels import compiled
from .mixing import HI_FACTORS, HI_SHIFTS, LO_FACTORS, LO_SHIFTS

__all__ = ["bits_of", "hi", "lo", "load", "load_byte", "u64"]


def u64(*numbers: int) -> tuple[np.uint64, ...]:
    """Constants for kernels: a plain int beside a uint64 would make Numba compute in floats."""
    return tuple(np.uint64(n) for n in numbers)


L1, L2, L3, LM1, LM2 = u64(*LO_SHIFTS, *LO_FACTORS)
H1, H2, H3, HM1, HM2 = u64(*HI_SHIFTS, *HI_FACTORS)


@compiled
def lo(x: np.uint64) -> np.uint64:
    """The finaliser of the first lane."""
    x ^= x >> L1
    x *= LM1
    x ^= x >> L2
    x *= LM2
    return x ^ (x >> L3)


@compiled
def hi(x: np.uint64) -> np.uint64:
    """The finaliser of the second lane."""
    x ^= x >> H1
    x *= HM1
    x ^= x >> H2
    x *= HM2
    return x ^ (x >> H3)


def _load_word(typing: Any, address: Any, offset: Any) -> Any:
    """The eight bytes at address + offset as a uint64, aligned or not."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.load(builder.inttoptr(builder.add(*arguments), ir.IntType(64).as_pointer()))
        word.align = 1
        return word

    return types.uint64(types.intp, types.intp), generate


def _load_byte(typing: Any, address: Any, offset: Any) -> Any:
    """The byte at address + offset as a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = builder.load(builder.inttoptr(builder.add(*arguments), ir.IntType(8).as_pointer()))
        return builder.zext(byte, ir.IntType(64))

    return types.uint64(types.intp, types.intp), generate


def _float_bits(typing: Any, value: Any) -> Any:
    """The bits of a float64 as a uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.uint64(types.float64), generate


load: Any = intrinsic(_load_word)
load_byte: Any = intrinsic(_load_byte)
bits_of: Any = intrinsic(_float_bits)
