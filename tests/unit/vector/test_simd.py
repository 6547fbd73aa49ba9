"""What stands in LLVM code, against NumPy: on this processor, and on one with next to no vector instructions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector import code_simd, simd
from numba import carray

DIMS = (1, 2, 7, 15, 16, 17, 31, 63, 64, 65, 100, 127, 128, 129, 256, 257, 384, 768, 1000)
EPS = 2.0**-24


# Without Numba's cache on disk: it looks at this file alone, and would keep what simd.py was.
@numba.njit
def estimated(row: int, planes: int, blocks: int, shifts: int, offset: np.float32, factor: np.float32) -> Any:
    return code_simd.estimate(row, planes, blocks, shifts, offset, factor)


@numba.njit
def four_estimated(
    rows: Any, planes: int, blocks: int, shifts: int, offset: Any, factor: Any, limit: Any, out: int
) -> Any:
    return code_simd.estimate_four(
        rows[0], rows[1], rows[2], rows[3], planes, blocks, shifts, offset, factor, limit, out
    )  # fmt: skip


@numba.njit
def small_product(small: int, query: int, groups: int) -> Any:
    return simd.small_dot(small, query, groups)


@numba.njit
def bits_of(address: int, mask: int) -> Any:
    return simd.packed_bits(address, mask)


@numba.njit
def words_at(address: int) -> Any:
    simd.prefetch(address)
    return simd.uint_at(address), simd.float_at(address)


@numba.njit
def written(address: int, word: np.uint64, value: np.float32) -> None:
    simd.put_word(address, word)
    simd.put_float(address + 8, value)


@numba.njit
def total_at(address: int, count: int) -> Any:
    return carray(simd.pointer(address), count, np.int64).sum()


def moved(values: np.ndarray, offset: int) -> tuple[int, np.ndarray]:
    """A copy that starts ``offset`` bytes behind a multiple of 64: its address, and what keeps it alive."""
    raw = values.tobytes()
    buffer = np.full(len(raw) + offset + 128, 0x7F, np.uint8)
    start = -buffer.ctypes.data % 64 + offset
    buffer[start : start + len(raw)] = np.frombuffer(raw, np.uint8)
    return buffer.ctypes.data + start, buffer


def pair(seed: int, dim: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    a, b = (random.normal(size=(2, dim)) * scale).astype(np.float32)
    return a, b


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e15])
@pytest.mark.parametrize("dim", DIMS)
def test_distances_are_those_of_double_precision(dim: int, scale: float) -> None:
    a, b = pair(dim, dim, scale)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    room = (dim / 64 + 40) * EPS  # as many roundings as lie on the longest way through the sum
    least = dim * 2.0**-149  # what falls below the smallest float32
    product = simd.dot(a.ctypes.data, b.ctypes.data, dim)
    assert abs(float(product) - wide_a @ wide_b) <= room * (np.abs(wide_a) @ np.abs(wide_b)) + least
    square = simd.squared(a.ctypes.data, b.ctypes.data, dim)
    apart = wide_a - wide_b
    assert abs(float(square) - apart @ apart) <= room * (apart @ apart) + least


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(DIMS), st.integers(0, 70), st.integers(0, 70))
def test_a_row_has_one_distance_wherever_it_lies(seed: int, dim: int, here: int, there: int) -> None:
    a, b = pair(seed, dim, 1.0)
    (a_at, a_kept), (b_at, b_kept) = moved(a, here), moved(b, there)
    for kernel in (simd.dot, simd.squared):
        wanted = np.float32(kernel(a.ctypes.data, b.ctypes.data, dim))
        assert np.float32(kernel(a_at, b_at, dim)).tobytes() == wanted.tobytes()
        assert np.float32(kernel(b_at, a_at, dim)).tobytes() == wanted.tobytes()
    assert len(a_kept) > 0 < len(b_kept)


def test_the_distance_to_itself_is_nothing_and_to_nothing_its_norm() -> None:
    for dim in DIMS:
        a, zero = pair(dim, dim, 1.0)[0], np.zeros(dim, np.float32)
        assert simd.squared(a.ctypes.data, a.ctypes.data, dim) == 0
        assert simd.dot(a.ctypes.data, zero.ctypes.data, dim) == 0
        itself = simd.dot(a.ctypes.data, a.ctypes.data, dim)
        assert np.float32(simd.squared(a.ctypes.data, zero.ctypes.data, dim)) == np.float32(itself)


def test_whole_numbers_come_out_exactly() -> None:
    random = np.random.default_rng(3)
    for dim in DIMS:
        a, b = random.integers(-50, 51, (2, dim)).astype(np.float32)
        assert simd.dot(a.ctypes.data, b.ctypes.data, dim) == int((a.astype(int) * b.astype(int)).sum())
        assert simd.squared(a.ctypes.data, b.ctypes.data, dim) == int(((a - b).astype(int) ** 2).sum())


def test_not_a_number_and_infinity_go_through() -> None:
    for dim in (1, 7, 16, 65, 100):
        for place in {0, dim // 2, dim - 1}:
            a, b = np.ones((2, dim), np.float32)
            a[place] = np.nan
            assert np.isnan(simd.dot(a.ctypes.data, b.ctypes.data, dim))
            a[place] = np.inf
            assert simd.dot(a.ctypes.data, b.ctypes.data, dim) == np.inf
            assert simd.squared(a.ctypes.data, b.ctypes.data, dim) == np.inf


def records(random: np.random.Generator, blocks: int, count: int) -> np.ndarray:
    """uint8 (count, 32 * blocks + 8): random codes, and a norm and a factor each."""
    tails = random.normal(size=(count, 2)).astype(np.float32).view(np.uint8)
    return np.concatenate([random.integers(0, 256, (count, 32 * blocks), np.uint8), tails], axis=1)


def counted(record: np.ndarray, planes: np.ndarray, shifts: np.ndarray) -> int:
    """The weighted popcounts of one record, bit by bit."""
    total = 0
    for block in range(len(planes) // 16):
        for word in range(16):
            at = 32 * block + 8 * (word % 4)
            code = np.unpackbits(record[at : at + 8])
            plane = np.unpackbits(planes[16 * block + word : 16 * block + word + 1].view(np.uint8))
            total += int((code != plane).sum()) << int(shifts[word])
    return total


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 5, 8])
def test_estimates_are_counted_bit_by_bit(blocks: int) -> None:
    random = np.random.default_rng(blocks)
    four, limitless = np.empty(4, np.float32), np.float32(np.inf)
    for turn in range(12):
        made = records(random, blocks, 4)
        planes, shifts = random.integers(0, 2**64, 16 * blocks, np.uint64), random.integers(0, 7, 16)
        if turn == 0:
            made[:, : 32 * blocks], planes[:] = 0, 2**64 - 1  # the greatest count there is
        offset, factor = (random.normal(size=2) * (100, 0.1)).astype(np.float32)
        rows = made.ctypes.data + np.arange(4) * made.shape[1]
        parts = (planes.ctypes.data, blocks, shifts.ctypes.data, offset, factor)
        assert four_estimated(rows, *parts, limitless, four.ctypes.data)
        for i in range(4):
            norm, scale = made[i, 32 * blocks :].view(np.float32).astype(float)
            inner = float(offset) + float(factor) * counted(made[i], planes, shifts)
            size = abs(norm) + abs(scale) * (abs(float(offset)) + abs(inner - float(offset)))
            alone = np.float32(estimated(rows[i], *parts))
            assert abs(float(alone) - (norm + scale * inner)) <= 4 * EPS * size
            assert alone.tobytes() == four[i].tobytes()
        for limit in (four.min(), np.nextafter(four.min(), limitless), four.max(), np.float32(-np.inf)):
            below = four_estimated(rows, *parts, np.float32(limit), np.empty(4, np.float32).ctypes.data)
            assert bool(below) == bool((four < limit).any())


def test_estimates_of_any_four_rows_are_those_of_each_alone() -> None:
    random = np.random.default_rng(9)
    made, planes = records(random, 3, 50), random.integers(0, 2**64, 48, np.uint64)
    shifts, four = np.repeat(np.arange(4), 4), np.empty(4, np.float32)
    parts = (planes.ctypes.data, 3, shifts.ctypes.data, np.float32(-3), np.float32(0.01))
    for _ in range(50):
        rows = made.ctypes.data + random.integers(0, 50, 4) * made.shape[1]
        four_estimated(rows, *parts, np.float32(0), four.ctypes.data)
        assert [np.float32(estimated(row, *parts)).tobytes() for row in rows] == [each.tobytes() for each in four]


@settings(max_examples=80)
@given(st.binary(min_size=64, max_size=64), st.integers(1, 255), st.integers(0, 9))
def test_packed_bits_are_the_bytes_that_share_a_bit_with_the_mask(raw: bytes, mask: int, offset: int) -> None:
    address, kept = moved(np.frombuffer(raw, np.uint8), offset)
    assert int(bits_of(address, mask)) == sum(1 << i for i, byte in enumerate(raw) if byte & mask)
    assert len(kept) > 64


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 40), st.booleans())
def test_the_product_of_bytes_and_words_is_exact(seed: int, groups: int, extreme: bool) -> None:
    random = np.random.default_rng(seed)
    draw = (lambda n: random.choice([-127, 127], n)) if extreme else (lambda n: random.integers(-127, 128, n))
    small, query = draw(32 * groups).astype(np.int8), draw(32 * groups).astype(np.int16)
    (small_at, kept), (query_at, also) = moved(small, seed % 32), moved(query, seed % 7)
    wanted = int((small.astype(np.int64) * query).sum())
    assert small_product(small_at, query_at, groups) == wanted
    assert len(kept) > 0 < len(also)


def test_the_greatest_product_of_bytes_and_words() -> None:
    small, query = np.full(4096, -127, np.int8), np.full(4096, 127, np.int16)
    assert small_product(small.ctypes.data, query.ctypes.data, 128) == -4096 * 127 * 127


@given(st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_words_and_floats_at_any_address(word: int, offset: int) -> None:
    address, kept = moved(np.array([word], np.uint32), offset)
    as_word, as_float = words_at(address)
    assert as_word == word
    wanted = np.array([word], np.uint32).view(np.float32)[0]
    assert np.isnan(as_float) if np.isnan(wanted) else np.float32(as_float).tobytes() == wanted.tobytes()
    assert len(kept) > 4


@given(st.integers(0, 2**64 - 1), st.floats(width=32), st.integers(0, 9))
def test_words_and_floats_are_written_at_any_address(word: int, value: float, offset: int) -> None:
    address, kept = moved(np.zeros(12, np.uint8), offset)
    before, at = kept.copy(), address - kept.ctypes.data
    written(address, np.uint64(word), np.float32(value))
    assert kept[at : at + 8].tobytes() == np.uint64(word).tobytes()
    as_float = kept[at + 8 : at + 12].copy().view(np.float32)[0]
    assert as_float == np.float32(value) or (np.isnan(as_float) and np.isnan(value))
    np.testing.assert_array_equal(np.delete(kept, range(at, at + 12)), np.delete(before, range(at, at + 12)))


def test_a_pointer_makes_an_array_again() -> None:
    values = np.arange(100, dtype=np.int64) ** 2
    assert total_at(values.ctypes.data, 100) == values.sum()


def results() -> dict[str, np.ndarray]:
    """What the kernels say of some rows: whole numbers under names in capitals, the rest floats."""
    random = np.random.default_rng(17)
    made, planes = records(random, 2, 4), random.integers(0, 2**64, 32, np.uint64)
    made[:, 64:].view(np.float32)[:] = [0, 1]  # so that an estimate is the count itself
    shifts, four = np.repeat(np.arange(4), 4), np.empty(4, np.float32)
    rows, whole = made.ctypes.data + np.arange(4) * made.shape[1], (np.float32(0), np.float32(1))
    four_estimated(rows, planes.ctypes.data, 2, shifts.ctypes.data, *whole, np.float32(0), four.ctypes.data)
    small, query = random.integers(-127, 128, 1024).astype(np.int8), random.integers(-127, 128, 1024).astype(np.int16)
    raw = random.integers(0, 256, 64, np.uint8)
    a, b = random.normal(size=(2, 1000)).astype(np.float32)
    at, other = a.ctypes.data, b.ctypes.data
    return {
        "ALONE": np.array([estimated(r, planes.ctypes.data, 2, shifts.ctypes.data, *whole) for r in rows]),
        "FOUR": four,
        "SMALL": np.array([small_product(small.ctypes.data, query.ctypes.data, n) for n in range(33)]),
        "PACKED": np.array([bits_of(raw.ctypes.data, 1 << bit) for bit in range(8)], np.uint64),
        "dot": np.array([simd.dot(at, other, dim) for dim in DIMS], np.float32),
        "squared": np.array([simd.squared(at, other, dim) for dim in DIMS], np.float32),
    }


def test_a_plain_processor_comes_to_the_same(tmp_path: Path) -> None:
    code = f"import runpy, numpy; here = runpy.run_path({__file__!r}); numpy.savez('out.npz', **here['results']())"
    code += "; text = ''.join(here['small_product'].inspect_asm().values()); assert 'ymm' not in text"
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONSAFEPATH": "1",
    }
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120)
    with np.load(tmp_path / "out.npz") as there:
        for name, here in results().items():
            if name.isupper():
                np.testing.assert_array_equal(there[name], here)
            else:
                np.testing.assert_allclose(there[name], here, rtol=1e-5, atol=1e-4)
