"""Bitmaps of rows against boolean arrays."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from lakelet.vector.bitmaps import add_rows, all_rows, at, count, count_between, no_rows, of_mask, rows_of
from lakelet.vector.matching import Matches

OWN = np.empty(0, np.uint32)
SIZES = [0, 1, 63, 64, 65, 127, 128, 1_000]


def mask_of(words: np.ndarray, rows: int) -> np.ndarray:
    return np.unpackbits(words.view(np.uint8), count=rows, bitorder="little").astype(bool)


@given(st.sampled_from(SIZES), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_counting_listing_and_choosing(rows: int, seed: int, share: float) -> None:
    random = np.random.default_rng(seed)
    mask = random.random(rows) < share
    words = of_mask(mask)
    assert len(words) == -(-rows // 64)
    assert (mask_of(words, rows) == mask).all()
    assert count(words) == mask.sum()
    assert (rows_of(words, OWN) == np.flatnonzero(mask)).all()
    names = np.sort(random.choice(10 * rows + 1, rows, replace=False)).astype(np.uint32)
    assert (rows_of(words, names) == names[mask]).all()
    for start, stop in random.integers(0, rows + 1, (20, 2)).tolist():
        assert count_between(words, start, stop) == mask[start:stop].sum()
    some = np.sort(random.choice(rows, rows // 3, replace=False)).astype(np.uint32)
    assert (at(words, some) == of_mask(mask[some])).all()
    made = no_rows(rows)
    add_rows(np.flatnonzero(mask).astype(np.uint32), made)
    assert (made == words).all()
    assert (all_rows(rows) == of_mask(np.ones(rows, bool))).all()


@given(st.sampled_from(SIZES), st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_matches_are_listed_by_position(rows: int, seed: int, share: float, every: bool) -> None:
    random = np.random.default_rng(seed)
    mask = random.random(rows) < share
    base = np.arange(rows) if every else np.sort(random.choice(rows + 2, rows, replace=False))
    matches = Matches(base.astype(np.uint32), of_mask(mask), OWN)
    assert matches.listed.tolist() == base[mask].tolist()
    assert matches.rows == mask.sum()
