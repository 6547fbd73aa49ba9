"""OSQ records bit by bit, estimates against decoded cells, bounds against true distances, and one scan by the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from lakelet.vector import osq as osq_module
from lakelet.vector.klt import turned
from lakelet.vector.osq import Osq, Part, cells, decoded, encoded, part, rebuilt, tables, trained
from lakelet.vector.osq_kernels import scan, scan_wide
from lakelet.vector.osq_simd import wide
from numba.core import config

Array = np.ndarray[Any, Any]
SHAPES = [(1, 8.0), (3, 1.0), (8, 3.5), (24, 4.0), (33, 6.1), (64, 8.0), (100, 1.3), (100, 4.0), (130, 2.0), (256, 4.0)]
ROWS, HALF = 1_200, 500
BOUNDS = np.array([0, HALF, ROWS])


def data(dim: int, seed: int = 0, rows: int = ROWS) -> Array:
    """Rows that spread unevenly, about different means in the two partitions."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    found = (rng.standard_normal((rows, dim)) * np.arange(1, dim + 1) ** -0.6) @ turn
    found[:HALF] += 0.5 * rng.standard_normal(dim)
    return np.asarray(found.astype(np.float32))


@pytest.fixture(scope="module")
def made() -> dict[tuple[int, float], tuple[Array, Osq, Array, Array]]:
    found = {}
    for dim, bits in SHAPES:
        rows = data(dim)
        osq = trained(rows, BOUNDS, bits=bits, seed=0, threads=1)
        found[dim, bits] = rows, osq, *encoded(osq, rows, BOUNDS, threads=1)
    return found


Made = dict[tuple[int, float], tuple[Array, Osq, Array, Array]]


def query_of(rows: Array, seed: int = 1) -> Array:
    rng = np.random.default_rng(seed)
    noise = 0.05 * rng.standard_normal(rows.shape[1])
    return np.asarray((rows[rng.integers(len(rows))] + noise).astype(np.float32))


def all_cells(of: Part, records: Array) -> Array:
    return np.stack([cells(of, records, j) for j in range(len(of.bits))], axis=1)


def unpacked(of: Part, record: Array) -> list[int]:
    """A record's cells, by walking its bits as the format is described."""
    bits = np.unpackbits(record, bitorder="little").tolist()
    at, found = of.coded, []
    for j, width in enumerate(of.bits.tolist()):
        if width == 0:
            found.append(0)
            continue
        low = sum(bits[at + i] << i for i in range(width - 1))
        found.append(bits[j] << width - 1 | low)
        at += width - 1
    assert not any(bits[at:])
    assert len(record) == -(-at // 8)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_records_hold_the_cells_of_the_coordinates_and_no_gaps(made: Made, shape: tuple[int, float]) -> None:
    rows, osq, records, _ = made[shape]
    dim, bits = shape
    assert records.shape == (ROWS, -(-round(dim * bits) // 8))
    for number, of in enumerate(osq.parts):
        some = slice(BOUNDS[number], BOUNDS[number + 1])
        found = all_cells(of, records[some])
        coordinates = turned(rows[some], of.mean, of.axes)
        for j in range(dim):
            edges = of.cells[0, of.first[j] + 1 : of.first[j + 1]]
            assert np.array_equal(found[:, j], np.searchsorted(edges, coordinates[:, j], side="right"))
        assert int(of.bits.sum()) == round(dim * bits)
        for row in (0, 17):
            assert unpacked(of, records[some][row]) == found[row].tolist()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("inner", [False, True])
def test_estimates_are_those_of_the_cells(made: Made, shape: tuple[int, float], inner: bool) -> None:
    rows, osq, records, _ = made[shape]
    query, of = query_of(rows), osq.parts[1]
    found = tables(of, query, inner=inner).scores(records, np.arange(HALF, ROWS, dtype=np.uint32))
    at = of.first[:-1] + all_cells(of, records[HALF:])
    double = of.axes.astype(np.float64)
    values, spreads = of.cells[1].astype(np.float64)[at], of.cells[2].astype(np.float64)[at]
    if inner:
        expected = -(values @ (double @ query)) - query.astype(np.float64) @ of.mean
    else:
        expected = ((double @ (query - of.mean) - values) ** 2 + spreads).sum(axis=1)
    # entries are rounded to a 65,535th of the greatest
    np.testing.assert_allclose(found, expected, atol=0.5 * shape[0] * tables(of, query, inner=inner).step + 1e-4)


def test_an_estimate_has_no_bias() -> None:
    rows = data(64, rows=20_000)
    bounds = np.array([0, HALF, 20_000])
    osq = trained(rows, bounds, bits=2, seed=0, threads=1)
    records, _ = encoded(osq, rows, bounds, threads=1)
    query, positions = query_of(rows), np.arange(HALF, 20_000, dtype=np.uint32)
    true = np.square(rows[HALF:].astype(np.float64) - query).sum(axis=1)
    off = tables(osq.parts[1], query).scores(records, positions) - true
    bare = np.square(decoded(osq.parts[1], records[HALF:]).astype(np.float64) - query).sum(axis=1) - true
    assert abs(off.mean()) < 0.002 * true.mean()
    assert bare.mean() < -0.02 * true.mean()  # what the distance to the decoded row would be off


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("inner", [False, True])
def test_bounds_never_exceed_the_truth(made: Made, shape: tuple[int, float], inner: bool) -> None:
    rows, osq, records, reach = made[shape]
    for seed in range(3):
        query = query_of(rows, seed) * np.float32((1, 1, 5)[seed])
        for number, of in enumerate(osq.parts):
            some = np.arange(BOUNDS[number], BOUNDS[number + 1], dtype=np.uint32)
            found = tables(of, query, inner=inner, reach=reach[number]).scores(records, some)
            double, wide_query = rows[some].astype(np.float64), query.astype(np.float64)
            mean = of.mean.astype(np.float64)
            if inner:
                true = -double @ wide_query
                away = np.linalg.norm(double - mean, axis=1)
                slack = np.linalg.norm(wide_query) * (np.linalg.norm(mean) + away)
            else:
                true = np.square(double - wide_query).sum(axis=1)
                slack = np.square(wide_query - mean).sum() + np.square(double - mean).sum(axis=1)
            assert (found <= true + 1e-5 * slack).all()


def test_bounds_are_near_the_truth_where_there_are_bits(made: Made) -> None:
    rows, osq, records, reach = made[64, 8.0]
    query = query_of(rows)
    some = np.arange(HALF, ROWS, dtype=np.uint32)
    true = np.square(rows[HALF:].astype(np.float64) - query).sum(axis=1)
    found = tables(osq.parts[1], query, reach=reach[1]).scores(records, some)
    assert (found / true).mean() > 0.97
    coarse, codes, ends = made[100, 1.3][1:]
    query = query_of(made[100, 1.3][0])
    true = np.square(made[100, 1.3][0][HALF:].astype(np.float64) - query).sum(axis=1)
    assert 0.2 < (tables(coarse.parts[1], query, reach=ends[1]).scores(codes, some) / true).mean() < 0.9


def test_rows_beyond_those_that_cells_were_learnt_from_are_bounded_too() -> None:
    rows = data(16)
    osq = trained(rows, BOUNDS, bits=3, seed=0, threads=1)
    far = rows * np.float32(20)
    records, reach = encoded(osq, far, BOUNDS, threads=1)
    for query in (far[3], -far[3], rows[700]):
        for inner in (False, True):
            positions = np.arange(HALF, ROWS, dtype=np.uint32)
            found = tables(osq.parts[1], query, inner=inner, reach=reach[1]).scores(records, positions)
            double = far[HALF:].astype(np.float64)
            true = -double @ query if inner else np.square(double - query).sum(axis=1)
            assert (found <= true + 1e-5 * (np.square(double).sum(axis=1) + np.square(query).sum())).all()


@pytest.mark.skipif(not wide(), reason="this processor lacks AVX-512 VBMI")
@pytest.mark.parametrize("shape", SHAPES)
def test_both_scans_give_the_same_bits(made: Made, shape: tuple[int, float]) -> None:
    rows, osq, records, reach = made[shape]
    query = query_of(rows)
    for found in (tables(osq.parts[1], query), tables(osq.parts[1], query, inner=True, reach=reach[1])):
        for positions in (range(HALF, ROWS), (ROWS - 1,), (), range(600, 617), (900, 501, 501, 1_100)):
            some = np.array(positions, np.uint32)
            one, other = np.empty((2, len(some)), np.float32)
            given = (records, some, found.part.lanes, found.part.places, found.entries, found.base, found.step)
            scan(*given, one)
            scan_wide(*given, other)
            assert np.array_equal(one, other)


def test_a_processor_that_lacks_the_instructions_gets_the_portable_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "CPU_FEATURES", "+sse,+sse2,+avx2")
    osq_module._scan.cache_clear()
    try:
        assert not wide()
        assert osq_module._scan() is scan
        monkeypatch.setattr(config, "CPU_FEATURES", "+avx512bw,+avx512vl,+avx512vbmi")
        osq_module._scan.cache_clear()
        assert osq_module._scan() is scan_wide
    finally:
        osq_module._scan.cache_clear()


def top_bits(of: Part, records: Array) -> Array:
    return np.unpackbits(records, axis=1, bitorder="little")[:, : of.coded]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("inner", [False, True])
def test_top_bits_are_compared_as_they_stand_in_the_records(made: Made, shape: tuple[int, float], inner: bool) -> None:
    rows, osq, records, _ = made[shape]
    of, query = osq.parts[1], query_of(rows)
    some = np.arange(HALF, ROWS, dtype=np.uint32)  # the last row is at the end of the array
    found, tops = tables(of, query, inner=inner), top_bits(of, records[HALF:])
    middle = of.cells[0, of.first[: of.coded] + (1 << of.bits[: of.coded].astype(np.int64) - 1)]
    turn = of.axes.astype(np.float64)[: of.coded]
    away = turn @ query if inner else turn @ (query - of.mean) - middle
    sure = np.abs(away) > 1e-5
    signs, weights, base, step = found._first_look()
    assert np.array_equal(signs[sure], away[sure] >= 0)
    assert weights.max() == 15
    assert np.array_equal(found.differences(records, some), (tops != signs).sum(axis=1))
    expected = base + step * ((tops != signs) * weights).sum(axis=1)
    np.testing.assert_allclose(found.first_look(records, some), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("inner", [False, True])
def test_first_looks_rank_better_than_counts_and_across_partitions(inner: bool) -> None:
    rows = data(96, rows=6_000)
    bounds = np.array([0, HALF, 6_000])
    osq = trained(rows, bounds, bits=4, seed=0, threads=1)
    records, _ = encoded(osq, rows, bounds, threads=1)
    parts = [np.arange(lo, hi, dtype=np.uint32) for lo, hi in ((0, HALF), (HALF, 6_000))]
    kept, slopes = np.zeros(2), []
    for seed in range(20):
        query = query_of(rows, seed)
        both = [tables(of, query, inner=inner) for of in osq.parts]
        rough = np.concatenate([each.first_look(records, some) for each, some in zip(both, parts, strict=True)])
        counts = np.concatenate([each.differences(records, some) for each, some in zip(both, parts, strict=True)])
        true = -rows.astype(np.float64) @ query if inner else np.square(rows.astype(np.float64) - query).sum(axis=1)
        near = np.argsort(true)[:10]
        slopes += [rough[some].mean() - true[some].mean() for some in parts]
        for i, scores in enumerate((rough, counts)):
            kept[i] += np.isin(near, np.argsort(scores, kind="stable")[:300]).sum()
    assert kept[0] > 1.5 * kept[1]
    assert kept[0] > 0.5 * 200
    assert np.abs(slopes).mean() < 0.1 * np.abs(true - true.mean()).max()


def test_the_same_seed_gives_the_same_code_whatever_the_threads() -> None:
    rows = data(20)
    osq = [trained(rows, BOUNDS, bits=4, seed=3, threads=threads) for threads in (1, 1, 2)]
    records = [encoded(each, rows, BOUNDS, threads=threads) for each, threads in zip(osq, (1, 1, 2), strict=True)]
    for each, (codes, reach) in zip(osq[1:], records[1:], strict=True):
        assert np.array_equal(codes, records[0][0])
        assert np.array_equal(reach, records[0][1])
        for one, other in zip(each.parts, osq[0].parts, strict=True):
            assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Part.__slots__)


@pytest.mark.parametrize("kind", ["constant", "few values", "no rows", "one row"])
def test_degenerate_partitions_are_coded(kind: str) -> None:
    rng = np.random.default_rng(0)
    rows = {
        "constant": np.full((50, 12), 3.0),
        "few values": rng.integers(0, 2, (50, 12)),
        "no rows": np.empty((0, 12)),
        "one row": rng.standard_normal((1, 12)),
    }[kind].astype(np.float32)
    bounds = np.array([0, 0, len(rows)])  # the first partition is empty in any case
    osq = trained(rows, bounds, bits=8, seed=0, threads=1)
    records, reach = encoded(osq, rows, bounds, threads=1)
    query, some = rng.standard_normal(12).astype(np.float32), np.arange(len(rows), dtype=np.uint32)
    true = np.square(rows.astype(np.float64) - query).sum(axis=1)
    estimates = tables(osq.parts[1], query).scores(records, some)
    np.testing.assert_allclose(estimates, true, rtol=2e-3, atol=1e-3)
    assert (tables(osq.parts[1], query, reach=reach[1]).scores(records, some) <= true * (1 + 1e-4) + 1e-4).all()
    assert not tables(osq.parts[0], query).first_look(records, some[:0]).size


def test_codes_rank_neighbours_and_more_bits_rank_better() -> None:
    rows = data(64, rows=5_000)
    bounds, recalls = np.array([0, HALF, 5_000]), []
    for bits in (1, 2, 4, 8):
        osq = trained(rows, bounds, bits=bits, seed=0, threads=1)
        records, _ = encoded(osq, rows, bounds, threads=1)
        hits = 0
        for seed in range(20):
            query = query_of(rows, seed)
            some = [np.arange(*BOUNDS_OF, dtype=np.uint32) for BOUNDS_OF in ((0, HALF), (HALF, 5_000))]
            parts = [tables(of, query).scores(records, each) for of, each in zip(osq.parts, some, strict=True)]
            near = np.argsort(np.concatenate(parts), kind="stable")[:10]
            hits += int(np.isin(near, np.argsort(np.square(rows - query).sum(axis=1))[:10]).sum())
        recalls.append(hits / 200)
    assert recalls == sorted(recalls)
    assert recalls[2] > 0.85
    assert recalls[3] > 0.97


def test_axes_and_bits_may_be_given() -> None:
    rows = data(10)
    of = part(rows, np.zeros(10, np.float32), np.eye(10, dtype=np.float32), np.full(10, 5, np.uint8))
    osq = Osq((of,), -(-50 // 8))
    records, _ = encoded(osq, rows, np.array([0, ROWS]), threads=1)
    assert np.square(decoded(of, records) - rows).mean() < 0.004 * rows.var()
    assert osq.nbytes == of.nbytes > 0
    again = rebuilt(of.mean, of.axes, of.bits, of.cells, of.gaps, of.energy)
    assert all(np.array_equal(getattr(of, name), getattr(again, name)) for name in Part.__slots__)
