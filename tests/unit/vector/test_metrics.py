"""Vectors and ids that come in: what is taken, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake.errors import InvalidInput
from lakelet.vector.ids import checked_ids
from lakelet.vector.metrics import Metric, checked_vectors, metric_named

DIMS = (1, 2, 7, 16, 31, 64, 65, 100, 129, 384, 1000)


def rows_of(n: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


@pytest.mark.parametrize("name", ["l2", "L2", "cosine", "COSINE", "ip", "IP"])
def test_metrics_have_names(name: str) -> None:
    assert metric_named(name).name == name.upper()


@pytest.mark.parametrize("name", ["dot", "", "Cosine", "l2 ", None, 0, b"l2", Metric])
def test_other_names_are_refused(name: Any) -> None:
    with pytest.raises(InvalidInput, match="there are 'l2', 'cosine' and 'ip'"):
        metric_named(name)


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("dim", DIMS)
def test_vectors_come_out_fresh_and_normalised_under_cosine(dim: int, metric: Metric) -> None:
    given_, kept = rows_of(9, dim), rows_of(9, dim)
    out = checked_vectors(given_, dim, metric, "vectors")
    np.testing.assert_array_equal(given_, kept)
    assert not np.shares_memory(out, given_)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert out.flags.writeable
    wide = kept.astype(np.float64)
    if metric is Metric.COSINE:
        wide /= np.linalg.norm(wide, axis=1)[:, None]
        np.testing.assert_allclose(out, wide, rtol=1.3e-7)
    else:
        np.testing.assert_array_equal(out, kept)


def test_arrays_in_every_layout_are_taken() -> None:
    wide = rows_of(12, 21)
    frozen = wide.copy()
    frozen.flags.writeable = False
    buffer = np.empty(wide.nbytes + 3, np.uint8)
    unaligned = buffer[3:].view(np.float32).reshape(wide.shape)
    unaligned[:] = wide
    for rows, same in (
        (frozen, wide),
        (np.asfortranarray(wide), wide),
        (unaligned, wide),
        (wide[::-2, ::3], wide[::-2, ::3].copy()),
        (np.broadcast_to(wide[0], (5, 21)), np.repeat(wide[:1], 5, 0)),
        (frozen[:0], wide[:0]),
    ):
        for metric in Metric:
            out = checked_vectors(rows, same.shape[1], metric, "vectors")
            np.testing.assert_array_equal(out, checked_vectors(same, same.shape[1], metric, "vectors"))
            assert not np.shares_memory(out, rows)
            assert out.flags.c_contiguous
    np.testing.assert_array_equal(frozen, wide)


def test_one_vector_and_lists_of_numbers_are_taken() -> None:
    for one in (np.array([3, 4], np.float32), [3, 4], (3.0, 4.0), [[3, 4]], [np.array([3.0, 4.0])]):
        np.testing.assert_array_equal(checked_vectors(one, 2, Metric.L2, "query"), [[3, 4]])
        np.testing.assert_allclose(checked_vectors(one, 2, Metric.COSINE, "query"), [[0.6, 0.8]], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["f8", "f2", "i4", "u1", ">f4", "c8", "O", "?", "U3"])
def test_another_dtype_is_named(dtype: str) -> None:
    with pytest.raises(InvalidInput, match=r"^my rows: dtype .*, expected float32; convert with"):
        checked_vectors(np.ones((2, 3)).astype(dtype), 3, Metric.L2, "my rows")


@pytest.mark.parametrize("shape", [(3, 4), (4,), (0,), (2, 1, 3), (1, 3, 1), (0, 4), (), (3, 0)])
def test_another_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match=r"^queries: shape \(.*, expected \(n, 3\), the dimension of this index"):
        checked_vectors(np.ones(shape, np.float32), 3, Metric.L2, "queries")


@pytest.mark.parametrize("rows", [[[1, 2], [3]], ["a", "b"], [[1, "x"]], [{}], [1j, 2]])
def test_what_is_no_list_of_numbers_is_refused(rows: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^vectors: not numbers in rows of one length"):
        checked_vectors(rows, 2, Metric.L2, "vectors")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", Metric)
def test_the_row_with_a_number_that_is_not_finite_is_named(metric: Metric, bad: float) -> None:
    for dim in DIMS:
        for row in (0, 57, 99):
            rows = rows_of(100, dim)
            rows[row, (row * 7) % dim] = bad
            with pytest.raises(InvalidInput, match=rf"^vectors: row {row} holds NaN or inf"):
                checked_vectors(rows, dim, metric, "vectors")


@pytest.mark.parametrize("rows", [[1, 1e39], [[np.nan, 1]], [[1, 2], [np.inf, 0]]])
def test_lists_must_be_finite_too(rows: Any) -> None:
    with pytest.raises(InvalidInput, match="holds NaN or inf"):
        checked_vectors(rows, 2, Metric.L2, "vectors")


def test_words_that_look_like_numbers_are_no_numbers() -> None:
    with pytest.raises(InvalidInput):
        checked_vectors(["1", "2"], 2, Metric.L2, "vectors")


def test_a_zero_vector_has_no_cosine() -> None:
    rows = rows_of(70, 33)
    rows[64] = 0
    with pytest.raises(InvalidInput, match=r"row 64 is a zero vector, which has no cosine; leave it out or use"):
        checked_vectors(rows, 33, Metric.COSINE, "vectors")
    for metric in (Metric.L2, Metric.IP):
        assert not checked_vectors(rows, 33, metric, "vectors")[64].any()
    with pytest.raises(InvalidInput, match="zero vector"):
        checked_vectors([0, -0.0], 2, Metric.COSINE, "query")


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1e-23, 1e-20, 1e-15, 1.0, 1e17, 3e19, 3e38])
def test_directions_are_kept_at_every_magnitude(scale: float) -> None:
    for dim in DIMS:
        rows = (np.random.default_rng(dim).uniform(0.9, 1, (3, dim)) * scale).astype(np.float32)
        out = checked_vectors(rows, dim, Metric.COSINE, "vectors")
        wide = rows.astype(np.float64)
        np.testing.assert_allclose(out, wide / np.linalg.norm(wide, axis=1)[:, None], rtol=1.3e-7)


@pytest.mark.parametrize("metric", [Metric.L2, Metric.IP])
@pytest.mark.parametrize("dim", DIMS)
def test_vectors_too_long_for_distances_are_refused(dim: int, metric: Metric) -> None:
    rows = rows_of(4, dim)
    rows /= np.linalg.norm(rows, axis=1)[:, None]
    long = rows * np.float32(9e17)
    np.testing.assert_array_equal(checked_vectors(long, dim, metric, "vectors"), long)
    for size in (1.1e18, 1e20, 3e38):
        long[3] = rows[3] * np.float32(size)
        with pytest.raises(InvalidInput, match=r"^vectors: row 3 is longer than 1e\+18"):
            checked_vectors(long, dim, metric, "vectors")


@settings(max_examples=60)
@given(st.lists(st.integers(0, 2**63 - 1), unique=True, max_size=20), st.sampled_from(["list", "i8", "u8"]))
def test_ids_are_distinct_whole_numbers(ids: list[int], kind: str) -> None:
    given_ = ids if kind == "list" else np.array(ids, kind)
    for count in (None, len(ids)):
        out = checked_ids(given_, count)
        assert out.dtype == np.int64
        assert out.tolist() == ids


def test_ids_of_smaller_types_and_one_alone() -> None:
    for dtype in ("u1", "i2", ">i4", "u4"):
        assert checked_ids(np.array([3, 1, 2], dtype), 3).tolist() == [3, 1, 2]
    assert checked_ids(5, 1).tolist() == checked_ids(np.int32(5), None).tolist() == [5]
    assert checked_ids(range(3), 3).tolist() == [0, 1, 2]
    assert checked_ids([], 0).dtype == np.int64
    assert checked_ids(np.arange(6)[::2], None).flags.c_contiguous


@pytest.mark.parametrize(
    ("ids", "count", "message"),
    [
        ([1.5], None, "dtype float64"),
        (["a"], None, "expected whole numbers"),
        ([True, False], None, "dtype bool"),
        ([[1, 2]], None, r"shape \(1, 2\)"),
        (None, None, "expected whole numbers"),
        ([2**64], None, "expected whole numbers"),
        ([1, 2], 3, "2 ids for 3 vectors"),
        ([], 1, "0 ids for 1 vectors"),
        ([-1], None, "id -1 is negative"),
        ([4, 0, -7], 3, "id -7 is negative"),
        (np.array([2**63], np.uint64), None, f"id {2**63} is above"),
        ([3, 9, 4, 9], None, "id 9 is given twice"),
        ([0, 0], 2, "id 0 is given twice"),
    ],
)
def test_ids_that_are_refused(ids: Any, count: int | None, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        checked_ids(ids, count)
