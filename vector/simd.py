"""What Numba does not emit by itself, as LLVM vector code: distances, weighted popcounts, prefetching.

The code is written for vectors of 512 bits and names no instruction set: LLVM splits them on a processor that has
shorter ones, so one text serves AVX-512, AVX2, NEON and plain x86-64, with the same integer results; Numba compiles for
the processor it finds and keys its cache by it. Sums of floats have one fixed order, whatever kernel they stand in, so
a row has the same distance wherever it is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llvmlite import ir  # type: ignore[import-untyped]
from numba import config, types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic

from ..lake.kernels import compiled
from .emission import declared, loaded, loop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "call_ranker",
    "dot",
    "features",
    "float_at",
    "packed_bits",
    "panel_products",
    "pointer",
    "prefetch",
    "put_float",
    "put_word",
    "small_dot",
    "squared",
    "uint_at",
]

LANES: Final = 16
UNROLLED: Final = 4
I32, I64, F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
F16X32, I64X8, I64X4 = ir.VectorType(F32, LANES), ir.VectorType(I64, 8), ir.VectorType(I64, 4)
F32X4, I32X4 = ir.VectorType(F32, 4), ir.VectorType(I32, 4)


def features() -> set[str]:
    """What the processor that Numba compiles for can do, as LLVM names it."""
    asked = getattr(config, "CPU_FEATURES", None)  # set for a processor other than this one
    told: str = get_host_cpu_features() if asked is None else asked  # type: ignore[no-untyped-call]
    return {name[1:] for name in told.split(",") if name.startswith("+")}


def _sum_over_lanes(term: Any) -> Any:
    """An intrinsic(a, b, groups): the sum of ``term`` over 16 * groups floats at the addresses a and b."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, groups = arguments
        fma = declared(builder, "llvm.fmuladd.v16f32", F16X32, [F16X32] * 3)

        def add_group(group: Any, running: Any) -> Any:
            offset = builder.mul(group, ir.Constant(I64, 4 * LANES))
            left, right = (loaded(builder, builder.add(base, offset), F16X32) for base in (a, b))
            return builder.call(fma, [*term(builder, left, right), running])

        def unrolled(at: Any, sums: list[Any]) -> list[Any]:
            first = builder.mul(at, ir.Constant(I64, UNROLLED))
            return [add_group(builder.add(first, ir.Constant(I64, i)), total) for i, total in enumerate(sums)]

        fours = builder.lshr(groups, ir.Constant(I64, 2))
        zero = ir.Constant(F16X32, [0.0] * LANES)
        sums = loop(builder, ir.Constant(I64, 0), fours, [zero] * UNROLLED, unrolled)
        whole = builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))
        done = builder.shl(fours, ir.Constant(I64, 2))
        whole = loop(builder, done, groups, [whole], lambda at, sums: [add_group(at, sums[0])])[0]
        add = declared(builder, "llvm.vector.reduce.fadd.v16f32", F32, [F32, F16X32])
        # reassoc: a tree over the lanes instead of a chain; the same tree everywhere
        return builder.call(add, [ir.Constant(F32, -0.0), whole], fastmath=("reassoc",))

    def typed(typing: Any, a: Any, b: Any, groups: Any) -> Any:
        return types.float32(types.intp, types.intp, types.intp), generate

    return intrinsic(typed)


def _product(_builder: Any, left: Any, right: Any) -> tuple[Any, Any]:
    return left, right


def _square(builder: Any, left: Any, right: Any) -> tuple[Any, Any]:
    difference = builder.fsub(left, right)
    return difference, difference


_dot_groups: Any = _sum_over_lanes(_product)
_squared_groups: Any = _sum_over_lanes(_square)


def _float_at(typing: Any, address: Any) -> Any:
    """The float32 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return loaded(builder, arguments[0], F32)

    return types.float32(types.intp), generate


def _uint_at(typing: Any, address: Any) -> Any:
    """The uint32 at an address, as an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.zext(loaded(builder, arguments[0], I32), I64)

    return types.int64(types.intp), generate


def _pointer(typing: Any, address: Any) -> Any:
    """An address as a pointer, for numba.carray."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.intp), generate


def _prefetch(typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address, into the second cache: of these more may be on their way at once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        ask = declared(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, I32, I32, I32])
        hints = [ir.Constant(I32, hint) for hint in (0, 2, 1)]  # to read, the second cache, data
        builder.call(ask, [builder.inttoptr(arguments[0], pointer), *hints])
        return context.get_dummy_value()

    return types.void(types.intp), generate


def _small_dot(typing: Any, small: Any, query: Any, groups: Any) -> Any:
    """The int32 inner product of 32 * groups int8 at one address with int16 at another, all from -127 to 127."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        small, query, groups = arguments
        byte32, word32 = ir.VectorType(ir.IntType(8), 32), ir.VectorType(ir.IntType(16), 32)
        int32, int16 = ir.VectorType(I32, 32), ir.VectorType(I32, 16)

        def add_group(at: Any, sums: list[Any]) -> list[Any]:
            left = loaded(builder, builder.add(small, builder.mul(at, ir.Constant(I64, 32))), byte32)
            right = loaded(builder, builder.add(query, builder.mul(at, ir.Constant(I64, 64))), word32)
            product = builder.mul(builder.sext(left, int32), builder.sext(right, int32))
            halves = []
            for first in range(2):  # neighbours added up: LLVM knows this shape as one multiply-add of 16-bit words
                lanes = ir.Constant(ir.VectorType(I32, 16), list(range(first, 32, 2)))
                halves.append(builder.shuffle_vector(product, ir.Constant(int32, ir.Undefined), lanes))
            return [builder.add(sums[0], builder.add(*halves))]

        zero = ir.Constant(int16, [0] * 16)
        total = loop(builder, ir.Constant(I64, 0), groups, [zero], add_group)[0]
        add = declared(builder, "llvm.vector.reduce.add.v16i32", I32, [int16])
        return builder.call(add, [total])

    return types.int32(types.intp, types.intp, types.intp), generate


def _panel_products(typing: Any, a: Any, b: Any, c: Any, d: Any, panel: Any, dim: Any, out: Any) -> Any:
    """Write the products of four vectors of ``dim`` floats with the 32 of a panel, (dim, 32), as float32 (4, 32)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, (panel, dim, out) = list(arguments[:4]), arguments[4:]
        fma = declared(builder, "llvm.fmuladd.v16f32", F16X32, [F16X32] * 3)
        everywhere = ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)

        def add_coordinate(at: Any, sums: list[Any]) -> list[Any]:
            here = builder.add(panel, builder.mul(at, ir.Constant(I64, 128)))
            halves = [loaded(builder, builder.add(here, ir.Constant(I64, half)), F16X32) for half in (0, 64)]
            after = []
            for i, row in enumerate(rows):
                value = loaded(builder, builder.add(row, builder.mul(at, ir.Constant(I64, 4))), F32)
                alone = builder.insert_element(ir.Constant(F16X32, ir.Undefined), value, ir.Constant(I32, 0))
                same = builder.shuffle_vector(alone, ir.Constant(F16X32, ir.Undefined), everywhere)
                after += [builder.call(fma, [same, half, sums[2 * i + j]]) for j, half in enumerate(halves)]
            return after

        zeros = [ir.Constant(F16X32, [0.0] * LANES)] * (2 * len(rows))
        for i, total in enumerate(loop(builder, ir.Constant(I64, 0), dim, zeros, add_coordinate)):
            place = builder.add(out, ir.Constant(I64, 64 * i))
            store = builder.store(total, builder.inttoptr(place, F16X32.as_pointer()))
            store.align = 4
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 7), generate


def _packed_bits(typing: Any, address: Any, mask: Any) -> Any:
    """64 bits: bit i is set where byte i at the address has a bit of ``mask``, a byte, set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, many = ir.IntType(8), ir.VectorType(ir.IntType(8), 64)
        first = ir.Constant(I32, 0)
        alone = builder.insert_element(ir.Constant(many, ir.Undefined), builder.trunc(arguments[1], byte), first)
        everywhere = builder.shuffle_vector(
            alone, ir.Constant(many, ir.Undefined), ir.Constant(ir.VectorType(I32, 64), [0] * 64)
        )
        masked = builder.and_(loaded(builder, arguments[0], many), everywhere)
        return builder.bitcast(builder.icmp_unsigned("!=", masked, ir.Constant(many, [0] * 64)), I64)

    return types.uint64(types.intp, types.int64), generate


def _put(kind: Any, lanes: Any) -> Any:
    """An intrinsic(address, value) that writes a value of this kind."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        store = builder.store(arguments[1], builder.inttoptr(arguments[0], lanes.as_pointer()))
        store.align = 1
        return context.get_dummy_value()

    def typed(typing: Any, address: Any, value: Any) -> Any:
        return types.void(types.intp, kind), generate

    return intrinsic(typed)


def _call_at(  # the names are those that Numba checks calls against
    typing: Any, function: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any
) -> Any:
    """Call the C function of seven int64 at an address, which a kernel need not know when it is compiled."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(I64, [I64] * 7)
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(*(types.intp,) * 8), generate


_call: Any = intrinsic(_call_at)
float_at: Any = intrinsic(_float_at)
packed_bits: Any = intrinsic(_packed_bits)
panel_products: Any = intrinsic(_panel_products)
put_float: Any = _put(types.float32, F32)
put_word: Any = _put(types.uint64, I64)
small_dot: Any = intrinsic(_small_dot)
uint_at: Any = intrinsic(_uint_at)
pointer: Any = intrinsic(_pointer)
prefetch: Any = intrinsic(_prefetch)


@compiled
def dot(a: int, b: int, dim: int) -> np.float32:
    """The inner product of ``dim`` float32 at the addresses a and b."""
    groups = dim >> 4
    total: np.float32 = _dot_groups(a, b, groups)
    for i in range(groups << 4, dim):
        total += float_at(a + 4 * i) * float_at(b + 4 * i)
    return total


@compiled
def squared(a: int, b: int, dim: int) -> np.float32:
    """The squared Euclidean distance of ``dim`` float32 at the addresses a and b."""
    groups = dim >> 4
    total: np.float32 = _squared_groups(a, b, groups)
    for i in range(groups << 4, dim):
        difference = float_at(a + 4 * i) - float_at(b + 4 * i)
        total += difference * difference
    return total


@compiled
def call_ranker(
    function: int,
    table: NDArray[np.int64],
    query: int,
    places: NDArray[np.uint32],
    count: int,
    best_ids: NDArray[np.int64],
    best_distances: NDArray[np.float32],
) -> None:
    """Call what ranks in place of :func:`.scoring.rank`; apart from it, for its sake."""
    best, apart, k = best_ids.ctypes.data, best_distances.ctypes.data, best_ids.shape[0]
    _call(function, table.ctypes.data, query, places.ctypes.data, count, best, apart, k)
