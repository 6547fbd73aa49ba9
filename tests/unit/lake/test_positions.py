"""Positions: every form comes back as it went in, the smallest is taken, and it is as small as promised."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lakelet.lake.positions import FORMS, Sequence, encode_positions

MILLION = 1_000_000


def scattered(share: float, seed: int = 0) -> np.ndarray:
    """Ascending positions below a million, each of them with this probability."""
    return np.flatnonzero(np.random.default_rng(seed).random(MILLION) < share)


def blocks(length: int, gap: int, count: int) -> np.ndarray:
    starts = np.arange(count) * (length + gap) + 17
    return (starts[:, None] + np.arange(length)).ravel()


def stored_bytes(found: Sequence) -> int:
    """As numbers of 8 bytes: what is held, not what Parquet makes of it."""
    return found.numbers.nbytes + found.lengths.nbytes + len(found.bits)


@pytest.mark.parametrize(
    ("form", "values"),
    [
        ("run", np.arange(5, 9)),
        ("run", np.arange(0)),
        ("run", np.array([MILLION])),
        ("runs", blocks(1_000, 3_000, 20)),
        ("runs", blocks(1_000, 3_000, 20).reshape(20, -1)[::-1].ravel()),
        ("bitmap", scattered(0.5)),
        ("bitmap", scattered(0.2) + 2**40),
        ("numbers", np.random.default_rng(1).permutation(10_000)),
        ("numbers", np.full(1_000, 7)),
        ("numbers", np.array([0, 2**60, 1, 2**61])),
    ],
)
def test_each_form_is_taken_where_it_is_smallest_and_comes_back(form: str, values: np.ndarray) -> None:
    found = encode_positions(values.astype(np.int64))
    assert found.form == form
    assert found.count == len(values)
    decoded = found.decode()
    assert decoded.dtype == np.int64
    assert np.array_equal(decoded, values)


def test_a_run_stores_nothing() -> None:
    assert stored_bytes(encode_positions(np.arange(123, 123 + MILLION))) == 0


def test_only_forms_that_ascend_say_so() -> None:
    values = [np.arange(9), scattered(0.3), blocks(100, 900, 50), np.random.default_rng(0).permutation(5_000)]
    found = [encode_positions(one.astype(np.int64)) for one in values]
    assert [one.form for one in found] == [*list(FORMS[:1]), "bitmap", "runs", "numbers"]
    assert [one.is_ascending for one in found] == [True, True, False, False]


@pytest.mark.parametrize("share", [0.001, 0.03, 0.3, 0.5, 0.9, 0.999])
def test_a_subset_in_order_takes_little_more_than_a_bit_for_each_row_of_the_parent(share: float) -> None:
    found = encode_positions(scattered(share))
    if found.form == "bitmap":
        assert len(found.bits) * 8 <= 1.0001 * MILLION
    else:
        assert found.form in ("runs", "numbers")  # taken only where they come to less than the bitmap


def test_base_and_span_and_not_the_height_of_positions_decide() -> None:
    low, high = encode_positions(scattered(0.5)), encode_positions(scattered(0.5) + 2**50)
    assert (low.form, low.numbers.size, low.bits) == (high.form, high.numbers.size, high.bits)


@pytest.mark.parametrize(
    "broken",
    [
        replace(encode_positions(scattered(0.5)), count=3),
        replace(encode_positions(blocks(1_000, 3_000, 20)), lengths=np.array([1])),
        replace(encode_positions(blocks(1_000, 3_000, 20)), lengths=np.zeros(20, np.int64)),
        Sequence("numbers", 2, 0, np.array([0, 1, 2])),
        Sequence("numbers", 2, 0, np.array([0, -1])),
        Sequence("bitmap", 9, 0, bits=b"\xff"),
    ],
)
def test_parts_that_do_not_make_the_count_are_refused(broken: Sequence) -> None:
    with pytest.raises(ValueError, match=r"positions|runs"):
        broken.decode()


@given(
    st.one_of(
        st.lists(st.integers(0, 2**62), max_size=40),
        st.lists(st.integers(0, 300), max_size=200),
        st.sets(st.integers(0, 300)).map(sorted),
        st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 200)), max_size=20).map(
            lambda runs: [start + i for start, length in runs for i in range(length)]
        ),
    )
)
def test_whatever_is_encoded_is_decoded(values: list[int]) -> None:
    found = encode_positions(np.array(values, np.int64))
    assert found.decode().tolist() == values
    if found.is_ascending:
        assert values == sorted(set(values))
