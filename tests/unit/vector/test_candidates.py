"""The small ordered sets of the kernels against sorting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector.ascending import holds
from lakelet.vector.candidates import keep_least, offer

EMPTY = np.empty(0, np.uint32)


@given(st.sets(st.integers(0, 2**32 - 1)), st.integers(0, 2**32 - 1))
def test_a_list_holds_what_stands_in_it(values: set[int], other: int) -> None:
    ascending = np.array(sorted(values), np.uint32)
    for value in [*values, other, *(v + 1 for v in values if v < 2**32 - 1), *(v - 1 for v in values if v)]:
        assert holds(ascending, np.uint32(value)) == (value in values)
    assert not holds(EMPTY, np.uint32(other))


@settings(max_examples=200)
@given(st.data(), st.integers(2, 300), st.integers(0, 10**6), st.sampled_from([1, 2, 5, 1000]))
def test_the_least_are_kept_with_their_places(data: st.DataObject, count: int, seed: int, kinds: int) -> None:
    random = np.random.default_rng(seed)
    keep = data.draw(st.integers(1, count - 1))
    room = count + 7
    estimates = random.integers(-kinds, kinds, room).astype(np.float32)
    places = random.permutation(room).astype(np.uint32)
    of, before = dict(zip(places.tolist(), estimates.tolist(), strict=True)), (estimates.copy(), places.copy())
    greatest = keep_least(estimates, places, count, keep)
    wanted = np.sort(before[0][:count])[:keep]
    np.testing.assert_array_equal(np.sort(estimates[:keep]), wanted)
    assert greatest == wanted[-1] == np.partition(before[0][:count], keep - 1)[keep - 1]
    assert [of[place] for place in places[:count].tolist()] == estimates[:count].tolist()
    assert sorted(places[:count].tolist()) == sorted(before[1][:count].tolist())
    np.testing.assert_array_equal(estimates[count:], before[0][count:])
    np.testing.assert_array_equal(places[count:], before[1][count:])


@pytest.mark.parametrize("kind", ["ascending", "descending", "equal", "organ pipe", "infinite"])
def test_the_least_of_awkward_orders(kind: str) -> None:
    for count in (2, 3, 10, 500):
        up = np.arange(count, dtype=np.float32)
        values = {
            "ascending": up,
            "descending": up[::-1],
            "equal": np.zeros(count, np.float32),
            "organ pipe": np.minimum(up, up[::-1]),
            "infinite": np.where(up % 2 == 0, np.float32(np.inf), -up),
        }[kind]
        for keep in {1, count // 2, count - 1}:
            estimates, places = values.copy(), np.arange(count, dtype=np.uint32)
            greatest = keep_least(estimates, places, count, keep)
            assert sorted(estimates[:keep].tolist()) == sorted(values.tolist())[:keep]
            assert greatest == sorted(values.tolist())[keep - 1]


def offered(k: int, stream: list[tuple[int, float]]) -> list[tuple[float, int]]:
    ids, distances = np.full(k, -1, np.int64), np.full(k, np.inf, np.float32)
    for row, distance in stream:
        offer(ids, distances, row, np.float32(distance))
    return list(zip(distances.tolist(), ids.tolist(), strict=True))


@settings(max_examples=300)
@given(
    st.integers(1, 12),
    st.dictionaries(st.integers(0, 40), st.integers(-4, 4) | st.just(np.inf), max_size=40),
    st.randoms(use_true_random=False),
)
def test_the_nearest_are_those_of_sorting(k: int, distances: dict[int, float], random: object) -> None:
    stream = [(row, float(distance)) for row, distance in distances.items()] * 2  # each row twice
    random.shuffle(stream)  # type: ignore[attr-defined]
    wanted = sorted((distance, row) for row, distance in set(stream))[:k]
    wanted += [(np.inf, -1)] * (k - len(wanted))
    assert offered(k, stream) == wanted


def test_order_does_not_matter() -> None:
    random = np.random.default_rng(1)
    stream = [(int(row), float(row % 7)) for row in random.integers(0, 10**12, 400)]
    once = offered(50, stream)
    for _ in range(5):
        random.shuffle(stream)
        assert offered(50, stream) == once
