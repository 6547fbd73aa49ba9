"""The rotation keeps lengths and angles, whatever the size, and leaves no coordinate special."""

from __future__ import annotations

import numpy as np
import pytest
from lakelet.vector.codes import layout
from lakelet.vector.rotation import ROUNDS, random_signs, rotate

SIZES = sorted({layout(dim, 0).dims for dim in range(1, 1600)})


def rotated(rows: np.ndarray, signs: np.ndarray) -> np.ndarray:
    out = np.array(rows, np.float32)
    scratch = np.full(out.shape[1], np.nan, np.float32)  # nothing of it may count
    for row in out:
        rotate(row, signs, scratch)
    return out


def test_the_sizes_that_codes_have() -> None:
    assert SIZES == [64, 128, 256, 512, 768, 1024, 1280, 1536, 1792]


@pytest.mark.parametrize("dims", [*SIZES, 192, 320, 960, 2048])
def test_lengths_and_inner_products_are_kept(dims: int) -> None:
    rows = np.random.default_rng(dims).normal(size=(12, dims)).astype(np.float32)
    turned = rotated(rows, random_signs(dims, 5)).astype(np.float64)
    wanted = rows.astype(np.float64) @ rows.T.astype(np.float64)
    np.testing.assert_allclose(turned @ turned.T, wanted, rtol=1e-5, atol=1e-5 * dims)


@pytest.mark.parametrize("dims", [64, 128, 256, 320, 768])
def test_the_matrix_is_orthonormal_and_spreads_every_axis(dims: int) -> None:
    matrix = rotated(np.eye(dims), random_signs(dims, 8)).astype(np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(dims), atol=1e-5)
    assert np.abs(matrix).max() < 8 / np.sqrt(dims)


@pytest.mark.parametrize("dims", [64, 256, 768])
def test_a_seed_is_a_rotation(dims: int) -> None:
    signs = random_signs(dims, 3)
    assert signs.shape == (ROUNDS, dims)
    assert signs.dtype == np.float32
    assert set(np.unique(signs).tolist()) == {-1.0, 1.0}
    np.testing.assert_array_equal(signs, random_signs(dims, 3))
    rows = np.random.default_rng(1).normal(size=(3, dims)).astype(np.float32)
    np.testing.assert_array_equal(rotated(rows, signs), rotated(rows, random_signs(dims, 3)))
    assert np.abs(rotated(rows, signs) - rotated(rows, random_signs(dims, 4))).max() > 0.1


@pytest.mark.parametrize("power", [-66, -10, 50])
def test_magnitudes_change_nothing_else(power: int) -> None:
    rows = np.random.default_rng(2).normal(size=(3, 256)).astype(np.float32)
    signs, scale = random_signs(256, 1), np.float32(2.0**power)
    np.testing.assert_array_equal(rotated(rows * scale, signs), rotated(rows, signs) * scale)
    assert not rotated(np.zeros((1, 256)), signs).any()
