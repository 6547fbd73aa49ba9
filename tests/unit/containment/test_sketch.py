"""Value sets: whole while small, samples when large; what they refute is false for sure."""

import numpy as np
import pytest
from lakelet.containment.sketch import ValueSetBuilder, missing_values


def built(values, capacity=64, batch=17):
    builder = ValueSetBuilder(capacity)
    for start in range(0, len(values), batch):
        builder.add(values[start : start + batch])
    return builder.build()


def test_few_values_are_held_whole():
    found = built(np.array([3, 1, 3, 2**64 - 1, 1], dtype=np.uint64))
    assert found.whole
    assert found.hashes.tolist() == [1, 3, 2**64 - 1]
    assert found.distinct == 3


@pytest.mark.parametrize(("child", "parent"), [(10, 20), (10, 5_000), (4_000, 5_000), (5_000, 5_000), (64, 65)])
def test_a_subset_is_never_said_to_miss_values(child, parent):
    rng = np.random.default_rng(child + parent)
    values = rng.integers(0, 2**64, parent, dtype=np.uint64)
    assert missing_values(built(rng.permutation(values)[:child]), built(values)) == 0


def test_other_values_are_found_missing_and_never_too_many():
    rng = np.random.default_rng(1)
    parent = rng.integers(0, 2**64, 3_000, dtype=np.uint64)
    for lacking in (1, 50, 2_000):
        child = np.concatenate([parent[:500], rng.integers(0, 2**64, lacking, dtype=np.uint64)])
        assert 0 <= missing_values(built(child), built(parent)) <= lacking
    assert missing_values(built(child), built(parent)) > 0
    assert missing_values(built(child, 10_000), built(parent, 10_000)) == 2_000


def test_a_sample_counts_about_right():
    values = np.random.default_rng(2).integers(0, 2**64, 100_000, dtype=np.uint64)
    found = built(values, capacity=4_096, batch=9_999)
    assert not found.whole
    assert len(found.hashes) <= 4_096
    assert abs(found.distinct - 100_000) < 10_000
