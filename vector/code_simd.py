"""Estimates by codes, as LLVM vector code: weighted popcounts of code words xor planes, four rows at a time.

As in :mod:`.simd` no instruction set is named.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from .emission import declared, everywhere, loaded, loop, mixed

__all__ = ["estimate", "estimate_four", "pass_four"]

I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
I64X8, I64X4, I64X2 = (ir.VectorType(I64, lanes) for lanes in (8, 4, 2))
F32X4, I32X4 = ir.VectorType(F32, 4), ir.VectorType(I32, 4)


def _popcounts(builder: Any, rows: list[Any], planes: Any, blocks: Any, shifts: Any) -> list[Any]:
    """For each row address: eight partial sums of popcount(code word xor plane word) << shift."""
    ones = declared(builder, "llvm.ctpop.v8i64", I64X8, [I64X8])
    twice = ir.Constant(ir.VectorType(I32, 8), [0, 1, 2, 3] * 2)

    def add_block(at: Any, sums: list[Any]) -> list[Any]:
        here = builder.add(planes, builder.mul(at, ir.Constant(I64, 128)))
        low, high = (loaded(builder, builder.add(here, ir.Constant(I64, half)), I64X8) for half in (0, 64))
        after = []
        for i, row in enumerate(rows):
            words = loaded(builder, builder.add(row, builder.mul(at, ir.Constant(I64, 32))), I64X4)
            both = builder.shuffle_vector(words, ir.Constant(I64X4, ir.Undefined), twice)
            for half, plane in enumerate((low, high)):
                after.append(builder.add(sums[2 * i + half], builder.call(ones, [builder.xor(both, plane)])))
        return after

    zeros = [ir.Constant(I64X8, [0] * 8)] * (2 * len(rows))
    sums = loop(builder, ir.Constant(I64, 0), blocks, zeros, add_block)
    by = [loaded(builder, builder.add(shifts, ir.Constant(I64, half)), I64X8) for half in (0, 64)]
    return [builder.add(builder.shl(sums[2 * i], by[0]), builder.shl(sums[2 * i + 1], by[1])) for i in range(len(rows))]


def _float_pair(builder: Any, address: Any) -> tuple[Any, Any]:
    return loaded(builder, address, F32), loaded(builder, builder.add(address, ir.Constant(I64, 4)), F32)


def _estimate(typing: Any, row: Any, planes: Any, blocks: Any, shifts: Any, offset: Any, factor: Any) -> Any:
    """A + F * (offset + factor * popcounts) of the record at an address; see :mod:`.codes`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, planes, blocks, shifts, offset, factor = arguments
        add = declared(builder, "llvm.vector.reduce.add.v8i64", I64, [I64X8])
        fma = declared(builder, "llvm.fmuladd.f32", F32, [F32] * 3)
        total = builder.sitofp(builder.call(add, _popcounts(builder, [row], planes, blocks, shifts)), F32)
        norm, scale = _float_pair(builder, builder.add(row, builder.mul(blocks, ir.Constant(I64, 32))))
        return builder.call(fma, [scale, builder.call(fma, [factor, total, offset]), norm])

    parts = (types.intp, types.intp, types.intp, types.intp, types.float32, types.float32)
    return types.float32(*parts), generate


def _four_sums(builder: Any, sums: list[Any]) -> Any:
    """The sums over the eight lanes of each of four vectors."""

    def folded(left: Any, right: Any, first: list[int], second: list[int]) -> Any:
        return builder.add(mixed(builder, left, right, first), mixed(builder, left, right, second))

    halves, others = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]
    left, right = folded(sums[0], sums[1], halves, others), folded(sums[2], sums[3], halves, others)
    pairs = folded(left, right, [0, 1, 4, 5, 8, 9, 12, 13], [2, 3, 6, 7, 10, 11, 14, 15])
    return folded(pairs, pairs, [0, 2, 4, 6], [1, 3, 5, 7])


def _estimate_four(  # the names are those that Numba checks calls against
    typing: Any,
    row0: Any,
    row1: Any,
    row2: Any,
    row3: Any,
    planes: Any,
    blocks: Any,
    shifts: Any,
    offset: Any,
    factor: Any,
    limit: Any,
    out: Any,
) -> Any:
    """Four estimates at once, written as float32 to ``out``; whether one is below ``limit``.

    (row0, row1, row2, row3, planes, blocks, shifts, offset, factor, limit, out).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, (planes, blocks, shifts, offset, factor, limit, out) = list(arguments[:4]), arguments[4:]
        totals = builder.sitofp(_four_sums(builder, _popcounts(builder, rows, planes, blocks, shifts)), F32X4)
        tail = builder.mul(blocks, ir.Constant(I64, 32))
        norms, scales = ir.Constant(F32X4, ir.Undefined), ir.Constant(F32X4, ir.Undefined)
        for i, row in enumerate(rows):
            norm, scale = _float_pair(builder, builder.add(row, tail))
            norms = builder.insert_element(norms, norm, ir.Constant(I32, i))
            scales = builder.insert_element(scales, scale, ir.Constant(I32, i))
        fma = declared(builder, "llvm.fmuladd.v4f32", F32X4, [F32X4] * 3)
        inner = builder.call(fma, [everywhere(builder, factor, F32X4), totals, everywhere(builder, offset, F32X4)])
        estimates = builder.call(fma, [scales, inner, norms])
        store = builder.store(estimates, builder.inttoptr(out, F32X4.as_pointer()))
        store.align = 4
        any_of = declared(builder, "llvm.vector.reduce.or.v4i1", ir.IntType(1), [ir.VectorType(ir.IntType(1), 4)])
        return builder.call(any_of, [builder.fcmp_ordered("<", estimates, everywhere(builder, limit, F32X4))])

    parts = (*(types.intp,) * 7, types.float32, types.float32, types.float32, types.intp)
    return types.boolean(*parts), generate


def _pass_four(typing: Any, row0: Any, row1: Any, row2: Any, row3: Any, query: Any, limit: Any) -> Any:
    """Which of four estimates by leading words are below ``limit``: bit i for row i; see :mod:`.sieve`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, (query, limit) = list(arguments[:4]), arguments[4:]
        ones = declared(builder, "llvm.ctpop.v8i64", I64X8, [I64X8])
        fma = declared(builder, "llvm.fmuladd.v4f32", F32X4, [F32X4] * 3)
        against, by = (loaded(builder, builder.add(query, ir.Constant(I64, at)), I64X8) for at in (0, 64))
        least_a, step_a, least_f, step_f, offset, factor = (
            everywhere(builder, loaded(builder, builder.add(query, ir.Constant(I64, at)), F32), F32X4)
            for at in range(128, 152, 4)
        )
        pair, unknown = ir.VectorType(I64, 2), ir.Constant(I32X4, ir.Undefined)
        sums, both = [], unknown
        for i, row in enumerate(rows):
            words = mixed(builder, loaded(builder, row, pair), ir.Constant(pair, ir.Undefined), [0, 1] * 4)
            sums.append(builder.shl(builder.call(ones, [builder.xor(words, against)]), by))
            tail = loaded(builder, builder.add(row, ir.Constant(I64, 16)), I32)
            both = builder.insert_element(both, tail, ir.Constant(I32, i))
        low = builder.and_(both, ir.Constant(I32X4, [0xFFFF] * 4))
        high = builder.lshr(both, ir.Constant(I32X4, [16] * 4))
        a = builder.call(fma, [builder.sitofp(low, F32X4), step_a, least_a])
        f = builder.call(fma, [builder.sitofp(high, F32X4), step_f, least_f])
        inner = builder.call(fma, [factor, builder.sitofp(_four_sums(builder, sums), F32X4), offset])
        passed = builder.fcmp_ordered("<", builder.call(fma, [f, inner, a]), everywhere(builder, limit, F32X4))
        return builder.zext(builder.bitcast(passed, ir.IntType(4)), I64)

    return types.int64(*(types.intp,) * 5, types.float32), generate


estimate: Any = intrinsic(_estimate)
estimate_four: Any = intrinsic(_estimate_four)
pass_four: Any = intrinsic(_pass_four)
