"""Codes against the textbook's formula, computed from the decoded bits."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from lakelet.vector import code_simd
from lakelet.vector.codes import BLOCK_BYTES, CodeLayout, encode, layout, quantise
from lakelet.vector.rotation import rotate

DIMS = (1, 2, 7, 16, 31, 63, 64, 65, 100, 127, 128, 129, 256, 257, 384, 768, 1000)


@numba.njit
def _estimates(records: Any, planes: int, blocks: int, shifts: int, offset: Any, factor: Any, out: Any) -> None:
    for i in range(records.shape[0]):
        row = records.ctypes.data + i * records.shape[1]
        out[i] = code_simd.estimate(row, planes, blocks, shifts, offset, factor)


def coded(rows: np.ndarray, mean: np.ndarray, lay: CodeLayout, with_norms: bool = True) -> np.ndarray:
    records = np.empty((len(rows), lay.record_bytes), np.uint8)
    encode(rows, mean, lay.signs, lay.bits, with_norms, 0, len(rows), records)
    return records


def quantised(query: np.ndarray, mean: np.ndarray, lay: CodeLayout, centred: bool) -> tuple[np.ndarray, float, float]:
    planes = np.empty(lay.blocks * 16, np.uint64)
    return planes, *quantise(query, mean, lay.signs, lay.bits, centred, planes)


def of_records(
    records: np.ndarray, query: np.ndarray, mean: np.ndarray, lay: CodeLayout, centred: bool = True
) -> np.ndarray:
    planes, c1, c2 = quantised(query, mean, lay, centred)
    constants, out = (np.float32(c1), np.float32(c2)), np.empty(len(records), np.float32)
    _estimates(records, planes.ctypes.data, lay.blocks, lay.shifts.ctypes.data, *constants, out)
    return out


def estimates(
    rows: np.ndarray, query: np.ndarray, mean: np.ndarray, lay: CodeLayout, centred: bool = True
) -> np.ndarray:
    return of_records(coded(rows, mean, lay, centred), query, mean, lay, centred)


def turned(row: np.ndarray, lay: CodeLayout) -> np.ndarray:
    """A difference as it is coded: filled up with zeros, and rotated."""
    values = np.zeros(lay.dims, np.float32)
    values[: len(row)] = row
    rotate(values, lay.signs, np.empty(lay.dims, np.float32))
    return values.astype(np.float64)


def bits_of(words: np.ndarray) -> np.ndarray:
    """The bits of uint64 words, the lowest first: (words, 64)."""
    return (words[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)


def code_of(record: np.ndarray, lay: CodeLayout) -> np.ndarray:
    """The odd numbers that a row's coordinates were rounded to."""
    words = record[: 32 * lay.blocks].copy().view(np.uint64)
    planes = bits_of(words).reshape(lay.bits, lay.dims).astype(int)  # a bit of all coordinates after the other
    return 2 * (planes << np.arange(lay.bits)[:, None]).sum(axis=0) - ((1 << lay.bits) - 1)


def tail_of(record: np.ndarray) -> tuple[float, float]:
    norm, factor = record[-8:].copy().view(np.float32).astype(float)
    return norm, factor


def levels_of(planes: np.ndarray, lay: CodeLayout) -> np.ndarray:
    """The odd numbers that a query's coordinates were rounded to."""
    words = 4 // lay.bits
    bits = bits_of(planes).reshape(lay.blocks, 4, lay.bits, words * 64)
    assert (bits == bits[:, :, :1]).all()  # a plane stands beside each bit of the code
    places = bits[:, :, 0].transpose(1, 0, 2).reshape(4, lay.dims).astype(int)
    return 2 * (places << np.arange(4)[:, None]).sum(axis=0) - 15


def cloud(seed: int, n: int, dim: int) -> np.ndarray:
    """Rows about some centres that lie in few directions, as embeddings do."""
    random = np.random.default_rng(seed)
    within = random.normal(size=(min(dim, 24), dim))
    centres = random.normal(size=(40, len(within))) * 1.5
    hidden = centres[random.integers(0, 40, n)] + random.normal(size=(n, len(within)))
    return (hidden @ within + random.normal(size=(n, dim)) * 0.3 + 2).astype(np.float32)


def test_layouts_hold_every_dimension() -> None:
    for dim in range(1, 1700):
        lay = layout(dim, 7)
        assert dim <= lay.dims < dim + 256
        assert lay.dims % 64 == 0
        assert lay.bits in (1, 2, 4)
        assert lay.dims * lay.bits == 256 * lay.blocks == 8 * BLOCK_BYTES * lay.blocks
        assert lay.record_bytes == 32 * lay.blocks + 8
        assert lay.signs.shape[1] == lay.dims
        assert lay.shifts.dtype == np.int64
        top, words = (1 << lay.bits) - 1, 4 // lay.bits
        assert (1 << lay.shifts).sum() == 15 * top * words
    np.testing.assert_array_equal(layout(100, 3).signs, layout(100, 3).signs)
    assert (layout(100, 3).signs != layout(100, 4).signs).any()


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("dim", DIMS)
def test_an_estimate_is_the_textbooks(dim: int, centred: bool) -> None:
    rows, lay = cloud(dim, 30, dim), layout(dim, dim)
    mean, query = rows.mean(axis=0), cloud(dim, 31, dim)[30]
    planes, c1, c2 = quantised(query, mean, lay, centred)
    odd, step = levels_of(planes, lay), c2 / 4
    assert c1 == pytest.approx(-2 * step * 15 * ((1 << lay.bits) - 1) * lay.dims)
    aim = turned(query - mean if centred else query, lay)
    seen = np.abs(odd) < 15
    assert np.abs(odd * step - aim)[seen].max(initial=0) <= step * 1.001  # a cell is two steps wide
    assert (np.abs(aim)[~seen] >= 14 * step * 0.999).all()
    records, out = coded(rows, mean, lay, centred), estimates(rows, query, mean, lay, centred)
    for i, record in enumerate(records):
        code, residual = code_of(record, lay), turned(rows[i] - mean, lay)
        norm, factor = tail_of(record)
        squares = residual @ residual
        assert norm == (pytest.approx(squares, rel=1e-5) if centred else 0)
        assert factor == pytest.approx(squares / (code @ residual), rel=1e-4)
        textbook = norm - 2 * factor * step * (code @ odd)
        assert out[i] == pytest.approx(textbook, rel=1e-5, abs=1e-4 * (norm + abs(textbook) + abs(factor * c1)))


@pytest.mark.parametrize("dim", [16, 64, 100, 128, 129, 256, 768])
def test_a_code_turns_away_from_its_row_as_little_as_its_bits_allow(dim: int) -> None:
    rows, lay = np.random.default_rng(dim).normal(size=(50, dim)).astype(np.float32), layout(dim, 2)
    mean = np.zeros(dim, np.float32)
    cosines = []
    for row, record in zip(rows, coded(rows, mean, lay), strict=True):
        code, residual = code_of(record, lay), turned(row, lay)
        cosines.append(code @ residual / np.linalg.norm(code) / np.linalg.norm(residual))
    assert np.mean(cosines) > {1: 0.78, 2: 0.92, 4: 0.99}[lay.bits]


@pytest.mark.parametrize("dim", [8, 64, 100, 200, 700])
def test_estimates_are_without_bias(dim: int) -> None:
    rows = cloud(dim, 40, dim)
    mean, query = rows.mean(axis=0), rows[7] + np.random.default_rng(1).normal(size=dim).astype(np.float32)
    apart = query.astype(np.float64) - mean
    wanted = ((rows - query.astype(np.float64)) ** 2).sum(axis=1)
    found = np.array([estimates(rows, query, mean, layout(dim, seed)) + apart @ apart for seed in range(150)])
    size = np.linalg.norm(rows - mean, axis=1) * np.linalg.norm(apart)
    error = found.mean(axis=0) - wanted
    spread = found.std(axis=0) / np.sqrt(len(found))
    assert (np.abs(error) <= 4.5 * spread + 0.01 * size).all()
    assert abs((error / size).mean()) < 0.01


@pytest.mark.parametrize("dim", [16, 32, 64, 100, 128, 200, 384, 768])
def test_the_true_nearest_are_among_the_best_by_estimate(dim: int) -> None:
    rows = cloud(dim, 4040, dim)
    rows, queries = rows[:4000], rows[4000:]
    mean, lay = rows.mean(axis=0), layout(dim, 1)
    records, kept = coded(rows, mean, lay), []
    for query in queries:
        nearest = np.argsort(((rows - query) ** 2).sum(axis=1))[:10]
        best = np.argpartition(of_records(records, query, mean, lay), 150)[:150]
        kept.append(np.isin(nearest, best).mean())
    assert np.mean(kept) >= 0.95


@pytest.mark.parametrize(("dim", "least"), [(32, 0.95), (96, 0.93), (300, 0.85)])
def test_inner_products_are_ranked_by_estimate(dim: int, least: float) -> None:
    rows = cloud(4, 3000, dim)
    mean, lay = rows.mean(axis=0), layout(dim, 1)
    records, kept = coded(rows, mean, lay, with_norms=False), []
    for query in cloud(5, 40, dim):
        greatest = np.argsort(rows @ query)[-10:]
        best = np.argpartition(of_records(records, query, mean, lay, centred=False), 150)[:150]
        kept.append(np.isin(greatest, best).mean())
    assert np.mean(kept) >= least


@pytest.mark.parametrize("dim", [7, 100, 300])
def test_only_the_rows_asked_for_are_written(dim: int) -> None:
    rows, lay = cloud(3, 20, dim), layout(dim, 1)
    mean, before = rows.mean(axis=0), np.full((20, lay.record_bytes), 0xA5, np.uint8)
    records, everything = before.copy(), coded(rows, mean, lay)
    kept = rows.copy()
    encode(rows, mean, lay.signs, lay.bits, True, 5, 5, records)
    np.testing.assert_array_equal(records, before)
    encode(rows, mean, lay.signs, lay.bits, True, 5, 12, records)
    np.testing.assert_array_equal(records[5:12], everything[5:12])
    np.testing.assert_array_equal(np.delete(records, range(5, 12), 0), np.delete(before, range(5, 12), 0))
    np.testing.assert_array_equal(rows, kept)


@pytest.mark.parametrize("dim", DIMS)
def test_a_row_that_is_the_mean_has_an_estimate_of_nothing(dim: int) -> None:
    lay, mean = layout(dim, 1), cloud(1, 1, dim)[0]
    rows = np.stack([mean, mean + 1, mean])
    records = coded(rows, mean, lay)
    assert tail_of(records[0]) == tail_of(records[2]) == (0, 0)
    assert estimates(rows, mean + 3, mean, lay)[0] == 0
    assert np.isfinite(estimates(rows, mean, mean, lay)).all()
    assert (estimates(rows, mean, mean, lay)[[0, 2]] == 0).all()


@pytest.mark.parametrize("dim", DIMS)
def test_equal_rows_have_equal_records(dim: int) -> None:
    rows, lay = np.repeat(cloud(2, 3, dim), 4, axis=0), layout(dim, 1)
    records = coded(rows, rows.mean(axis=0), lay).reshape(3, 4, -1)
    assert (records == records[:, :1]).all()


@pytest.mark.parametrize("scale", [1e-20, 1e-10, 1e15])
@pytest.mark.parametrize("dim", [7, 64, 100, 300, 768])
def test_magnitudes_do_not_change_the_order(dim: int, scale: float) -> None:
    rows, query, lay = cloud(6, 200, dim), cloud(7, 1, dim)[0], layout(dim, 1)
    mean = rows.mean(axis=0)
    plain = estimates(rows, query, mean, lay)
    small = np.float32(scale)
    scaled = estimates(rows * small, query * small, mean * small, lay).astype(float) / scale**2
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(scaled, plain, rtol=0.05, atol=0.02 * np.abs(plain).max())
