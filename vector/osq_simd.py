"""Sums of table entries for eight coded rows at once, with the byte shuffles of AVX-512 VBMI; and where that may run.

Eight rows are transposed so that a vector register holds the same bytes of all eight. A group of eight dimensions then
is 64 lanes: one multishift cuts its codes out, whatever their widths, one permutation looks 128 table entries up, and
one sum of absolute differences adds up each row's eight. All of it is integers, so :mod:`.osq_kernels` gets the very
same sums from a plain loop where a processor lacks this.
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from .emission import declared, everywhere, loaded, loop, mixed
from .simd import features

__all__ = ["PLANES", "ROWS", "sum_rows", "weigh", "wide", "word_at"]

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
BYTES, WORDS, BITS = ir.VectorType(I8, 64), ir.VectorType(I64, 8), ir.VectorType(ir.IntType(1), 64)
LANE_BYTES, PLACE_BYTES, CHUNK_BYTES = 40, 16, 256
SETS: Final = 2
"""Sets of eight rows that tables and plans are loaded for at once."""
ROWS: Final = 8 * SETS
PLANES: Final = 4
"""Bits of the weight of a bit."""


def wide() -> bool:
    """Whether the processor that Numba compiles for has what :data:`sum_rows` needs."""
    return {"avx512bw", "avx512vl", "avx512vbmi"} <= features()


def _number(value: int) -> Any:
    return ir.Constant(I64, value)


def _eight_bytes(builder: Any, address: Any) -> Any:
    """The eight bytes at an address, eight times over."""
    return builder.bitcast(everywhere(builder, loaded(builder, address, I64), WORDS), BYTES)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer())).align = 1


def _transpose(builder: Any, rows: list[Any], size: Any, to: Any) -> None:
    """Write word k of all eight rows to ``to + 64 * k``; nothing beyond their ``size`` bytes is read."""
    load = declared(builder, "llvm.masked.load.v64i8.p0", BYTES, [BYTES.as_pointer(), I32, BITS, BYTES])
    zero = ir.Constant(BYTES, [0] * 64)

    def one(at: Any, _: list[Any]) -> list[Any]:
        done = builder.mul(at, _number(64))
        left = builder.sub(size, done)
        some = builder.sub(builder.shl(_number(1), left), _number(1))
        held = builder.select(builder.icmp_signed(">=", left, _number(64)), _number(-1), some)
        mask, words = builder.bitcast(held, BITS), []
        for row in rows:
            pointer = builder.inttoptr(builder.add(row, done), BYTES.as_pointer())
            words.append(builder.bitcast(builder.call(load, [pointer, ir.Constant(I32, 1), mask, zero]), WORDS))
        for span in (1, 2, 4):  # exchange halves of pairs of rows, then of pairs of pairs
            low = [lane if not lane & span else lane - span + 8 for lane in range(8)]
            high = [lane + span if not lane & span else lane + 8 for lane in range(8)]
            after = list(words)
            for i in (i for i in range(8) if not i & span):
                after[i] = mixed(builder, words[i], words[i + span], low)
                after[i + span] = mixed(builder, words[i], words[i + span], high)
            words = after
        for k, word in enumerate(words):
            _store(builder, word, builder.add(to, builder.add(builder.mul(done, _number(8)), _number(64 * k))))
        return []

    chunks = builder.lshr(builder.add(size, _number(63)), _number(6))
    loop(builder, _number(0), chunks, [], one)


def _sum_group(
    builder: Any, lanes: Any, place: Any, words: list[Any], tops: list[Any], tables: Any, sums: list[Any]
) -> list[Any]:
    """Add eight dimensions of the rows of each set to its sums, of low and of high bytes of their entries.

    words: of each set, the bits below the top ones of its rows; tops: of each set a bit a lane, the top ones.
    """
    shift = declared(builder, "llvm.x86.avx512.pmultishift.qb.512", BYTES, [BYTES, BYTES])
    look = declared(builder, "llvm.x86.avx512.vpermi2var.qi.512", BYTES, [BYTES] * 3)
    add = declared(builder, "llvm.x86.avx512.psad.bw.512", WORDS, [BYTES, BYTES])
    shifts, masks, top, base, chunk = (
        _eight_bytes(builder, builder.add(lanes, _number(8 * part))) for part in range(5)
    )
    first, last = (loaded(builder, builder.add(place, _number(offset)), I64) for offset in (8, PLACE_BYTES + 8))
    indices = []
    for word, bits in zip(words, tops, strict=True):
        low = builder.and_(builder.call(shift, [shifts, builder.bitcast(word, BYTES)]), masks)
        whole = builder.select(builder.bitcast(bits, BITS), builder.add(low, top), low)
        indices.append(builder.add(whole, base))

    def looked_up(at: Any) -> list[Any]:
        here, found = builder.add(tables, builder.mul(at, _number(CHUNK_BYTES))), []
        left, right, above, far = (loaded(builder, builder.add(here, _number(64 * i)), BYTES) for i in range(4))
        for index in indices:
            found += [builder.call(look, [left, index, right]), builder.call(look, [above, index, far])]
        return found

    def further(at: Any, found: list[Any]) -> list[Any]:
        number = everywhere(builder, builder.trunc(builder.sub(at, first), I8), BYTES)
        mine = []
        for index in indices:  # only a dimension of eight bits has entries in two chunks
            of = builder.add(chunk, builder.lshr(index, ir.Constant(BYTES, [7] * 64)))
            mine += [builder.icmp_unsigned("==", of, number)] * 2
        pairs = zip(mine, looked_up(at), found, strict=True)
        return [builder.select(here, value, before) for here, value, before in pairs]

    entries = loop(builder, builder.add(first, _number(1)), last, looked_up(first), further)
    zero = ir.Constant(BYTES, [0] * 64)
    return [builder.add(total, builder.call(add, [each, zero])) for total, each in zip(sums, entries, strict=True)]


def _sum_rows(
    typing: Any, rows: Any, size: Any, lanes: Any, places: Any, groups: Any, tables: Any, scratch: Any, out: Any
) -> Any:
    """Write the sums of the table entries of ROWS records, int64 (ROWS,), to ``out``; see :mod:`.osq_kernels`.

    rows: where the addresses of the records are, int64 (ROWS,); size: their bytes; scratch: overwritten, for each eight
    rows 1,024 bytes for each 64 of a record or part of them, and 64.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, size, lanes, places, groups, tables, scratch, out = arguments
        chunks = builder.lshr(builder.add(size, _number(63)), _number(6))
        spaces, masks = [], []
        for each in range(SETS):
            of = [loaded(builder, builder.add(rows, _number(64 * each + 8 * i)), I64) for i in range(8)]
            room = builder.add(builder.mul(chunks, _number(1024)), _number(64))
            spaces.append(builder.add(scratch, builder.mul(room, _number(each))))
            masks.append(builder.add(spaces[-1], builder.add(builder.mul(chunks, _number(512)), _number(64))))
            _transpose(builder, of, size, spaces[-1])

        def top_bits(at: Any, _: list[Any]) -> list[Any]:
            offset = builder.mul(at, _number(64))
            for space, mask in zip(spaces, masks, strict=True):
                held = loaded(builder, builder.add(space, offset), BYTES)
                across = mixed(builder, held, held, [8 * row + byte for byte in range(8) for row in range(8)])
                _store(builder, across, builder.add(mask, offset))
            return []

        loop(builder, _number(0), builder.lshr(builder.add(groups, _number(7)), _number(3)), [], top_bits)
        cut = declared(builder, "llvm.fshr.v8i64", WORDS, [WORDS] * 3)

        def one(at: Any, sums: list[Any]) -> list[Any]:
            place = builder.add(places, builder.mul(at, _number(PLACE_BYTES)))
            bit = loaded(builder, place, I64)
            offset = builder.mul(builder.lshr(bit, _number(6)), _number(64))
            within = everywhere(builder, builder.and_(bit, _number(63)), WORDS)
            words, tops = [], []
            for space, mask in zip(spaces, masks, strict=True):
                here = builder.add(space, offset)
                low, high = (loaded(builder, builder.add(here, _number(half)), WORDS) for half in (0, 64))
                words.append(builder.call(cut, [high, low, within]))
                tops.append(loaded(builder, builder.add(mask, builder.mul(at, _number(8))), I64))
            mine = builder.add(lanes, builder.mul(at, _number(LANE_BYTES)))
            return _sum_group(builder, mine, place, words, tops, tables, sums)

        sums = loop(builder, _number(0), groups, [ir.Constant(WORDS, [0] * 8)] * (2 * SETS), one)
        eight = ir.Constant(WORDS, [8] * 8)
        for each in range(SETS):
            whole = builder.add(sums[2 * each], builder.shl(sums[2 * each + 1], eight))
            _store(builder, whole, builder.add(out, _number(64 * each)))
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 8), generate


def _weigh(typing: Any, record: Any, signs: Any, planes: Any, blocks: Any) -> Any:
    """The weight of the bits in which a record differs from ``signs``: 32 * blocks bytes each, in any vector length.

    planes: for each block PLANES times 32 bytes, bit p of each bit's weight.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        record, signs, planes, blocks = arguments
        four, eight = ir.VectorType(I64, 4), ir.VectorType(I64, 8)
        count = declared(builder, "llvm.ctpop.v8i64", eight, [eight])
        shifts = [ir.Constant(eight, [first] * 4 + [first + 1] * 4) for first in (0, 2)]

        def one(at: Any, sums: list[Any]) -> list[Any]:
            offset = builder.mul(at, _number(32))
            pair = [loaded(builder, builder.add(base, offset), four) for base in (record, signs)]
            differing = builder.xor(*pair)
            twice = mixed(builder, differing, differing, [0, 1, 2, 3] * 2)
            after = []
            for half, total in enumerate(sums):
                here = builder.add(planes, builder.add(builder.mul(offset, _number(PLANES)), _number(64 * half)))
                after.append(
                    builder.add(total, builder.call(count, [builder.and_(twice, loaded(builder, here, eight))]))
                )
            return after

        zero = ir.Constant(eight, [0] * 8)
        parts = loop(builder, _number(0), blocks, [zero, zero], one)
        low, high = (builder.shl(part, shift) for part, shift in zip(parts, shifts, strict=True))
        add = declared(builder, "llvm.vector.reduce.add.v8i64", I64, [eight])
        return builder.call(add, [builder.add(low, high)])

    return types.int64(*(types.intp,) * 4), generate


def _word_at(typing: Any, address: Any) -> Any:
    """The uint64 at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return loaded(builder, arguments[0], I64)

    return types.uint64(types.intp), generate


sum_rows: Any = intrinsic(_sum_rows)
weigh: Any = intrinsic(_weigh)
word_at: Any = intrinsic(_word_at)
