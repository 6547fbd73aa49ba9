"""Short lists searched by copies of their vectors, against true distances of every row."""

from __future__ import annotations

from functools import cache

import lakelet
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lakelet.lake.limits import VECTOR_ROW_BYTES
from lakelet.vector.building import Settings, built
from lakelet.vector.codes import layout
from lakelet.vector.copies import HEAD_BYTES, copied, copy_bytes, nearest_copied
from lakelet.vector.metrics import Metric, checked_vectors
from lakelet.vector.nodes import no_nodes
from lakelet.vector.planner import Plan, Way
from lakelet.vector.postings import Posting
from lakelet.vector.scoring import exact
from lakelet.vector.segment import ALL_CODE, NOT_PACKED, PACKED_ROWS, Rows, Segment
from lakelet.vector.subtree import NO_SUBTREE

ROWS = 600
NOTHING = np.empty(0, np.uint32)
METRICS = [Metric.L2, Metric.COSINE, Metric.IP]


def vectors_of(seed: int, n: int, dim: int, metric: Metric, offset: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    within = np.random.default_rng(dim).normal(size=(12, dim))
    rows = random.normal(size=(n, 12)) @ within + random.normal(size=(n, dim)) * 0.3 + offset
    return checked_vectors(rows.astype(np.float32), dim, metric, "rows")


@cache
def unit(metric: Metric, dim: int, offset: float = 0.0) -> Segment:
    nobody = np.empty(0, np.int32), np.empty(0, np.int64)
    settings = Settings(dim, metric, layout(dim, 3), 3, 1)
    ids = np.random.default_rng(2).permutation(ROWS)
    return built(vectors_of(1, ROWS, dim, metric, offset), ids, nobody, settings)[0]


def both(
    segment: Segment, queries: np.ndarray, positions: np.ndarray, removed: np.ndarray, k: int, candidates: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids and distances by copies, and by true distances of all."""
    rows, out = segment.rows, []
    copies = copied(rows.table, positions)
    for by_copies in (True, False):
        ids, apart = np.full((len(queries), k), -1, np.int64), np.full((len(queries), k), np.inf, np.float32)
        if by_copies:
            nearest_copied(queries, rows.table, positions, removed, copies, candidates, ids, apart)
        else:
            exact(queries, rows.table, positions, removed, ids, apart)
        out += [ids, apart]
    return out[0], out[1], out[2], out[3]


@given(
    st.sampled_from(METRICS),
    st.sampled_from([1, 19, 32, 100]),
    st.integers(1, 60),
    st.integers(1, 12),
    st.integers(0, 2**32 - 1),
)
def test_where_all_are_candidates_copies_find_what_is_nearest(
    metric: Metric, dim: int, count: int, k: int, seed: int
) -> None:
    segment, random = unit(metric, dim), np.random.default_rng(seed)
    positions = np.sort(random.choice(ROWS, count, replace=False)).astype(np.uint32)
    removed = positions[random.random(count) < 0.2]
    dead = random.random(ROWS) < 0.2
    segment.rows.live[dead] = 0
    try:
        ids, apart, true, distances = both(segment, vectors_of(seed, 3, dim, metric), positions, removed, k, 60 + k)
    finally:
        segment.rows.live[:] = 1
    np.testing.assert_array_equal(ids, true)
    np.testing.assert_array_equal(apart, distances)
    left = np.setdiff1d(positions[~dead[positions]], removed)
    assert set(ids[ids >= 0].tolist()) <= set(segment.rows.ids[left].tolist())
    assert ((ids >= 0).sum(axis=1) == min(k, len(left))).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("dim", "offset"), [(40, 0.0), (256, 0.0), (40, 30.0)])
def test_a_few_more_candidates_than_neighbours_are_enough(metric: Metric, dim: int, offset: float) -> None:
    segment, queries = unit(metric, dim, offset), vectors_of(9, 200, dim, metric, offset)
    positions = np.sort(np.random.default_rng(5).choice(ROWS, 300, replace=False)).astype(np.uint32)
    ids, _, true, _ = both(segment, queries, positions, NOTHING, 10, 14)
    assert np.mean([np.isin(one, two).mean() for one, two in zip(ids, true, strict=True)]) >= 0.99


@pytest.mark.parametrize("metric", METRICS)
def test_a_copy_is_its_vector_to_half_a_step(metric: Metric) -> None:
    vectors, mean = vectors_of(3, 50, 45, metric, 2.0), np.linspace(-1, 1, 45, dtype=np.float32)
    vectors[7] = 0 if metric is Metric.IP else mean  # every coordinate zero
    records, ids, live = np.zeros((50, layout(45, 3).record_bytes), np.uint8), np.arange(50), np.ones(50, np.uint8)
    rows = Rows(vectors, records, ids, live, mean, layout(45, 3), metric, no_nodes(45))
    positions = np.arange(0, 50, 7, dtype=np.uint32)
    copies = copied(rows.table, positions)
    assert copies.shape == (8, copy_bytes(45)) == (8, HEAD_BYTES + 64)
    step, own = copies[:, :HEAD_BYTES].copy().view(np.float32).T[:, :, None]
    back = copies[:, HEAD_BYTES : HEAD_BYTES + 45].view(np.int8) * step
    apart = (vectors if metric is Metric.IP else vectors - mean)[positions]
    assert (np.abs(back - apart) <= 0.501 * step).all()
    assert step[1] == 0
    assert not copies[:, HEAD_BYTES + 45 :].any()
    part = {Metric.L2: (apart**2).sum(axis=1), Metric.COSINE: -2 * apart @ mean, Metric.IP: np.zeros(8)}[metric]
    np.testing.assert_allclose(own[:, 0], part, rtol=1e-5, atol=1e-4)


def tenanted(dim: int, lengths: list[int]) -> tuple[Segment, np.ndarray]:
    """A segment of which tenant i sees lengths[i] rows."""
    random, rows = np.random.default_rng(1), 6000
    codes = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
    places = np.concatenate([random.choice(rows, length, replace=False) for length in lengths])
    vectors = vectors_of(4, rows, dim, Metric.L2)
    settings = Settings(dim, Metric.L2, layout(dim, 3), 3, 2)
    return built(vectors, np.arange(rows), (codes, places.astype(np.int64)), settings)[0], vectors


@pytest.mark.parametrize(("dim", "lengths"), [(16, [30] * 40 + [800, 2500]), (256, [40] * 10 + [90] * 400 + [5000])])
def test_the_shortest_lists_are_copied_as_far_as_there_is_room(dim: int, lengths: list[int]) -> None:
    segment, _ = tenanted(dim, lengths)
    assert 0 < segment.copied_rows < PACKED_ROWS
    of = [segment.posting(code) for code in range(1, len(lengths) + 1)]
    for code, posting in enumerate(of, 1):
        assert segment.is_copied(code, posting) == (len(posting.base) <= segment.copied_rows)
        if segment.is_copied(code, posting):
            segment.copies(code, posting, Way.COPIES)
    used = {what: nbytes for what, nbytes in segment.nbytes().items() if what != "vectors"}
    assert used["packed"] > 0
    assert sum(used.values()) <= VECTOR_ROW_BYTES * len(segment)
    if dim == 256:
        assert segment.copied_rows < 90, "there is no room for all of them"
    assert not segment.is_copied(ALL_CODE, segment.posting(ALL_CODE))


def test_copies_follow_their_list_and_each_way_has_its_own() -> None:
    segment, vectors = tenanted(16, [50, 300])
    posting = segment.posting(1)
    made = segment.copies(1, posting, Way.COPIES)
    np.testing.assert_array_equal(made, copied(segment.rows.table, posting.base))
    assert segment.copies(1, posting, Way.COPIES) is made
    assert segment.copies(1, posting, Way.TREE) is NOT_PACKED, "these are not records"
    other = Posting(posting.base[5:])
    assert len(segment.copies(1, other, Way.COPIES)) == 45
    segment.drop_views(1)
    assert segment.nbytes()["packed"] == 0
    revised = Posting(posting.base, np.setdiff1d(segment.posting(2).base, posting.base)[:7], posting.base[:3])
    ids, apart = np.full((1, 9), -1, np.int64), np.full((1, 9), np.inf, np.float32)
    true, distances = ids.copy(), apart.copy()
    for way, best in ((Way.COPIES, (ids, apart)), (Way.EXACT, (true, distances))):
        packed = segment.copies(1, revised, way)
        segment.rows.search(vectors[:1], revised, Plan(way, 60, 54, 0.0), NO_SUBTREE, packed, *best)
    np.testing.assert_array_equal(ids, true)
    np.testing.assert_array_equal(apart, distances)


def test_an_index_searches_small_tenants_by_copies() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(20_000, 64)).astype(np.float32)
    owners = random.integers(0, 200, len(rows))
    index = lakelet.VectorIndex(64)
    ids = index.add(rows, tenants=owners.tolist())
    (step,) = index.explain(tenant=7)
    assert (step.way, step.candidates, step.budget_rows) == ("copies", 14, step.rows)
    assert index.explain(tenant=7, exact=True)[0].way == "exact"
    before = index.memory()["packed"]
    found, _ = index.search(rows[:50], 10, tenant=7)
    true, _ = index.search(rows[:50], 10, tenant=7, exact=True)
    assert np.mean([np.isin(one, two).mean() for one, two in zip(found, true, strict=True)]) >= 0.99
    assert index.memory()["packed"] > before
    mine = ids[owners == 7]
    index.revoke(mine[:20], 7)
    index.delete(mine[20:40])
    index.grant(ids[owners == 8][:15], 7)
    sees = np.concatenate([mine[40:], ids[owners == 8][:15]])
    found, _ = index.search(rows[:50], 200, tenant=7)
    assert all(set(each[each >= 0].tolist()) == set(sees.tolist()) for each in found)
