"""Which rows are ranked by their true distance where nobody says how many: those that estimates leave in doubt."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lakelet.vector import container, stored
from lakelet.vector.budget import DEVIATIONS, usual_bands
from lakelet.vector.building import Settings, built
from lakelet.vector.codes import layout, quantise
from lakelet.vector.estimates import estimate_ranks, rows_within
from lakelet.vector.index import VectorIndex
from lakelet.vector.metrics import Metric, checked_vectors
from lakelet.vector.scoring import FIRST_RANKED, RANKED_LEAST, first_scored, nearest
from lakelet.vector.segment import EVERY, NOT_PACKED, Rows
from lakelet.vector.subtree import NO_SUBTREE

if TYPE_CHECKING:
    from pathlib import Path

    from lakelet.vector.segment import Segment

ROWS = 900
KINDS = [(Metric.L2, 19), (Metric.IP, 64), (Metric.COSINE, 130), (Metric.L2, 100), (Metric.IP, 200)]
NOTHING = np.empty(0, np.uint32)
EVERYTHING = np.arange(ROWS, dtype=np.uint32)
SLACK = 1e-4
"""Of the greatest number at hand: what float32 may lose, and the rule may add for that."""


def vectors_of(seed: int, n: int, dim: int, metric: Metric) -> np.ndarray:
    """Rows about some centres that do not lie about 0."""
    random, same = np.random.default_rng(seed), np.random.default_rng(dim)
    centres = same.normal(size=(9, dim)) + 0.7
    rows = centres[random.integers(0, 9, n)] + random.normal(size=(n, dim))
    return checked_vectors(rows.astype(np.float32), dim, metric, "rows")


@cache
def unit(metric: Metric, dim: int) -> Segment:
    """A segment whose rows are known by their positions."""
    nobody = np.empty(0, np.int32), np.empty(0, np.int64)
    settings_ = Settings(dim, metric, layout(dim, 3), 3, 1)
    segment, _ = built(vectors_of(1, ROWS, dim, metric), np.arange(ROWS), nobody, settings_)
    segment.rows = with_vectors(segment.rows, segment.rows.vectors)
    return segment


def with_vectors(rows: Rows, vectors: np.ndarray) -> Rows:
    """The same codes beside other vectors."""
    return Rows(vectors, rows.records, np.arange(ROWS), rows.live, rows.mean, rows.layout, rows.metric, rows.nodes)


def truths(rows: Rows, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """What an estimate of each row would be if it did not err, in double precision: the definition."""
    near, mean, asked = (array.astype(float) for array in (vectors, rows.mean, query))
    if rows.metric is Metric.IP:
        return -2 * (near - mean) @ asked
    return np.square(near - mean).sum(axis=1) - 2 * (near - mean) @ (asked - mean)


def codes_of(rows: Rows, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The estimate of each row, and of what it errs by a share."""
    lay, count = rows.layout, len(rows.ids)
    words = rows.records[:, : 32 * lay.blocks].copy().view(np.uint64).reshape(count, lay.blocks, 4)
    tails = rows.records[:, 32 * lay.blocks :].copy().view(np.float32).astype(float)
    planes = np.empty(lay.blocks * 16, np.uint64)
    c1, c2 = quantise(query, rows.mean, lay.signs, lay.bits, rows.metric is not Metric.IP, planes)
    differ = np.tile(words, 4) ^ planes.reshape(1, lay.blocks, 16)
    counts = (np.bitwise_count(differ).astype(int) << lay.shifts).sum(axis=(1, 2))
    length = np.linalg.norm(query if rows.metric is Metric.IP else query - rows.mean)
    return tails[:, 0] + tails[:, 1] * (c1 + c2 * counts), length * tails[:, 1]


def distances(rows: Rows, query: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    if rows.metric is Metric.L2:
        return np.square(vectors - query).sum(axis=1)
    return (1.0 if rows.metric is Metric.COSINE else 0.0) - vectors @ query


def found(
    rows: Rows, query: np.ndarray, positions: np.ndarray, k: int, ef: int, band: float
) -> tuple[np.ndarray, np.ndarray]:
    ids, apart = np.full((1, k), -1, np.int64), np.full((1, k), np.inf, np.float32)
    asked = query[None], rows.table, positions, NOTHING, NO_SUBTREE, NOT_PACKED, EVERY
    nearest(*asked, ef, band, 0, ids, apart)
    return ids[0], apart[0]


@pytest.mark.parametrize(("metric", "dim"), KINDS)
def test_distances_are_compared_with_estimates_as_the_metric_has_it(metric: Metric, dim: int) -> None:
    rows, errors = unit(metric, dim).rows, []
    for query in vectors_of(2, 20, dim, metric):
        ranks, terms = np.empty(ROWS, np.int64), np.empty((ROWS, 3))
        estimate_ranks(query, rows.table, EVERYTHING, np.arange(ROWS), ranks, terms)
        slow, (own, share) = truths(rows, query, rows.vectors), codes_of(rows, query)
        for made, wanted in zip(terms.T, (own, slow, share), strict=True):
            np.testing.assert_allclose(made, wanted, rtol=1e-3, atol=SLACK * np.abs(wanted).max())
        errors.append((own - slow) / share)
    deviation = DEVIATIONS[rows.layout.bits]
    assert abs(np.mean(errors)) < 0.2 * deviation
    assert np.std(errors) == pytest.approx(deviation, rel=0.2), "much the same for all rows, queries and metrics"


@settings(max_examples=60)
@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(1, 40), st.floats(0.3, 4), st.integers(1, ROWS))
def test_the_rows_in_the_band_are_ranked_and_those_far_out_of_it_are_not(
    kind: tuple[Metric, int], seed: int, k: int, deviations: float, size: int
) -> None:
    rows, band = unit(*kind).rows, deviations * DEVIATIONS[unit(*kind).rows.layout.bits]
    positions = np.sort(np.random.default_rng(seed).choice(ROWS, size, replace=False)).astype(np.uint32)
    (query,) = vectors_of(seed + 9, 1, kind[1], kind[0])
    estimates, share = codes_of(rows, query)
    bounds, slow = estimates - band * share, truths(rows, query, rows.vectors)
    slack = SLACK * (np.abs(estimates).max() + np.abs(slow).max())

    ids, apart = found(rows, query, positions, k, ROWS, band)
    last = np.sort(slow[ids[ids >= 0]])[-1] if (ids >= 0).all() else np.inf
    must = positions[bounds[positions] <= last - slack]
    nearer = must[slow[must] < last - slack]
    assert np.isin(nearer, ids).all(), "of rows in the band, all that are nearer than the k-th are found"
    np.testing.assert_allclose(apart[ids >= 0], distances(rows, query, rows.vectors[ids[ids >= 0]]), atol=1e-2)

    # Rows that look too far once the first are ranked are made to lie where the query does: nobody finds out
    begin = first_scored(k)
    most = k if size > begin else max(FIRST_RANKED * k, RANKED_LEAST)
    order = positions[:begin][np.argsort(bounds[positions[:begin]], kind="stable")]
    assume(len(order) <= most or bounds[order[most]] - bounds[order[most - 1]] > slack)
    first = order[:most]
    known = np.sort(slow[first])[k - 1] if len(first) >= k else np.inf
    never = np.setdiff1d(positions[bounds[positions] > known + slack], first)
    moved = rows.vectors.copy()
    moved[never] = query
    again, _ = found(with_vectors(rows, moved), query, positions, k, ROWS, band)
    assert not np.isin(never, again).any()
    np.testing.assert_array_equal(again, ids)


@pytest.mark.parametrize(("metric", "dim"), KINDS)
def test_what_other_lists_found_narrows_the_band(metric: Metric, dim: int) -> None:
    rows, band, k = unit(metric, dim).rows, 1.5 * DEVIATIONS[unit(metric, dim).rows.layout.bits], 5
    (query,) = vectors_of(4, 1, dim, metric)
    estimates, share = codes_of(rows, query)
    bounds, slow, true = (
        estimates - band * share,
        truths(rows, query, rows.vectors),
        distances(rows, query, rows.vectors),
    )
    best = np.argsort(true)[:k]
    slack = SLACK * (np.abs(estimates).max() + np.abs(slow).max())
    doubtful = bounds <= slow[best].max() + slack
    moved = rows.vectors.copy()
    moved[~doubtful] = query
    lied = with_vectors(rows, moved)
    ids, apart = best[None] + ROWS, true[best][None].astype(np.float32)
    given_ = ids.copy()
    nearest(query[None], lied.table, EVERYTHING, NOTHING, NO_SUBTREE, NOT_PACKED, EVERY, ROWS, band, 0, ids, apart)
    assert not np.isin(np.flatnonzero(~doubtful), ids).any(), "not even the first are ranked"
    assert np.isin(ids, np.concatenate([given_[0], np.flatnonzero(doubtful)])).all()


@pytest.mark.parametrize(("metric", "dim"), KINDS)
@pytest.mark.parametrize("ef", [10, 37, 300])
def test_a_number_that_is_asked_for_is_ranked_whatever_the_distances(metric: Metric, dim: int, ef: int) -> None:
    rows = unit(metric, dim).rows
    for query in vectors_of(5, 10, dim, metric):
        estimates, _ = codes_of(rows, query)
        order, apart = np.argsort(estimates), distances(rows, query, rows.vectors)
        slack = 1e-5 * np.abs(estimates).max()
        if estimates[order[ef]] - estimates[order[ef - 1]] < slack:
            continue
        moved = rows.vectors.copy()
        moved[order[ef:]] = query
        lied = with_vectors(rows, moved)
        wanted = order[:ef][np.argsort(apart[order[:ef]], kind="stable")][:10]
        ids, _ = found(lied, query, EVERYTHING, 10, ef, 0.0)
        assert set(ids.tolist()) == set(wanted.tolist())


def test_no_more_are_ranked_than_there_may_be() -> None:
    rows = unit(Metric.L2, 100).rows
    (query,) = vectors_of(6, 1, 100, Metric.L2)
    ids, _ = found(rows, query, EVERYTHING[:100], 10, 30, 100.0)
    estimates, share = codes_of(rows, query)
    least = np.argsort((estimates - 100.0 * share)[:100])[:31]
    assert np.isin(ids, least).all()


@pytest.mark.parametrize(("metric", "dim"), KINDS)
def test_rows_within_a_band_are_counted(metric: Metric, dim: int) -> None:
    rows = unit(metric, dim).rows
    bands, out = np.array([0.0, 1.0, 5.0]), np.empty(3, np.int64)
    for query in vectors_of(7, 5, dim, metric):
        (estimates, share), slow = codes_of(rows, query), truths(rows, query, rows.vectors)
        truth, slack = float(np.sort(slow)[9]), SLACK * np.abs(estimates).max()
        rows_within(query, rows.table, EVERYTHING, truth, bands, out)
        for band, counted in zip(bands, out, strict=True):
            low, high = ((estimates - band * share <= truth + side).sum() for side in (-slack, slack))
            assert low <= counted <= high


def clustered(rows: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows about centres of few directions, as embeddings lie, and the centre of each."""
    random = np.random.default_rng(5)
    within, centres = random.normal(size=(24, dim)), 1.2 * random.normal(size=(60, 24))
    of = random.integers(0, 60, rows)
    hidden = centres[of] + random.normal(size=(rows, 24))
    vectors = hidden @ within + 0.4 * random.normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1)[:, None]).astype(np.float32), of


@pytest.mark.parametrize(("metric", "dim"), [("l2", 64), ("cosine", 128), ("ip", 256), ("l2", 256)])
def test_rows_that_match_far_from_the_query_are_found_as_well(metric: str, dim: int) -> None:
    """Their estimates err by more, and a number of candidates that does for near ones leaves some of them out."""
    vectors, of = clustered(12_000, dim)
    index = VectorIndex(dim, metric, attributes={"rank": "int64"}, threads=1)
    queries = vectors[of == 0][:80]
    far = np.empty(len(vectors), np.int64)
    far[np.argsort(vectors @ queries.mean(axis=0), kind="stable")] = np.arange(len(vectors))
    index.add(vectors, attributes={"rank": far})
    for share in (0.02, 0.1, 0.3):
        asked = {"where": "rank < $most", "params": {"most": int(share * len(vectors))}}
        some, true = (index.search(queries, 10, exact=exact, **asked)[0] for exact in (False, True))
        recall = np.mean([np.isin(one, two).mean() for one, two in zip(some, true, strict=True)])
        assert recall >= 0.95, (share, index.explain(**asked)[0].way)


def test_a_file_of_before_takes_the_usual_bands(tmp_path: Path) -> None:
    index = VectorIndex(40, threads=1)
    vectors, _ = clustered(9_000, 40)
    index.add(vectors)
    index.save(tmp_path / "new")
    meta, arrays = container.read(tmp_path / "new", kind=stored.KIND, mmap=False, verify=True)
    for name in ("0.budget_bands", "0.budget_expected"):
        del arrays[name]
    stored.written(tmp_path / "old", meta, arrays)
    old = VectorIndex.load(tmp_path / "old")
    budget = old._units.now[0].budget
    np.testing.assert_array_equal(budget.bands, usual_bands(4))
    np.testing.assert_array_equal(budget.expected, budget.ranked)
    some, true = (old.search(vectors[:100], 10, exact=exact)[0] for exact in (False, True))
    assert np.mean([np.isin(one, two).mean() for one, two in zip(some, true, strict=True)]) >= 0.95
    new = VectorIndex.load(tmp_path / "new")._units.now[0].budget
    for name in new.__slots__:
        np.testing.assert_array_equal(getattr(new, name), getattr(index._units.now[0].budget, name))
