"""Plans and the budgets that they are made of."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector.bitmaps import of_mask
from lakelet.vector.budget import DEVIATIONS, LEAST_BAND, LEAST_ROWS, Budget, fitted, whole
from lakelet.vector.building import Settings, built
from lakelet.vector.codes import layout
from lakelet.vector.metrics import Metric, checked_vectors
from lakelet.vector.planner import MOST_CANDIDATES, NO_FAN, SHORT_LIST_ROWS, Fan, Plan, Way, choose, one_in, ways
from lakelet.vector.postings import Posting
from lakelet.vector.segment import ALL_CODE, EVERY, NOT_PACKED
from lakelet.vector.subtree import NO_SUBTREE, subtree

if TYPE_CHECKING:
    from lakelet.vector.segment import Segment

BANDS = np.array([[2.5, 2.2, 2.0], [2.0, 1.8, 1.5]])
POINTS = Budget(np.array([300.0, 30_000.0]), np.array([200.0, 2_000.0]), *[np.array([40.0, 80.0])] * 3, BANDS)
FAN = Fan(600, 12_000)
LENGTHS = (1, 5, 30, 100, 300, 1000, 30_000, 10**6, 10**8)
ROWS = 5000


def plan(rows: int, **other: Any) -> Plan:
    usual = {"k": 10, "ef": None, "exact": False, "fan": FAN, "walk": 0.0, "dim": 128, "blocks": 1, "copied": False}
    return choose(rows=rows, budget=POINTS, **(usual | other))


CASES = st.fixed_dictionaries(
    {
        "rows": st.sampled_from(LENGTHS) | st.integers(1, 10**7),
        "k": st.sampled_from([1, 10, 11, 100, 5000]),
        "ef": st.none() | st.integers(1, 3000),
        "dim": st.sampled_from([1, 64, 128, 768, 4096]),
    }
)


@given(CASES)
def test_the_way_is_the_cheapest_that_there_is(case: dict[str, Any]) -> None:
    case["blocks"] = layout(case["dim"], 0).blocks
    every = plan(**case)
    flat = plan(**case, fan=NO_FAN)
    true = plan(**case, exact=True)
    assert true.way is Way.EXACT
    assert flat.way in (Way.EXACT, Way.CODES)
    assert every.cost_microseconds <= flat.cost_microseconds <= true.cost_microseconds
    assert every.way is Way.TREE or every == flat
    assert flat.way is Way.CODES or flat == true
    graph = plan(**case, walk=120.0)
    assert graph.cost_microseconds <= every.cost_microseconds
    assert graph.way is Way.GRAPH or graph == every
    for made in (every, flat, true):
        assert made.candidates >= max(case["k"], case["ef"] or 0)
        assert 0 < made.budget_rows <= case["rows"]
        assert made.cost_microseconds > 0
        assert made.way is Way.TREE or made.budget_rows == case["rows"]


@given(CASES)
def test_copies_are_read_where_that_is_cheaper(case: dict[str, Any]) -> None:
    without, made = plan(**case), plan(**case, copied=True)
    assert made.cost_microseconds <= without.cost_microseconds
    assert made == without or made.way is Way.COPIES
    assert made.candidates >= max(case["k"], case["ef"] or 0)
    assert plan(**case, copied=True, exact=True) == plan(**case, exact=True)


def test_of_copied_lists_only_those_of_a_few_rows_are_read_whole() -> None:
    assert [plan(rows, copied=True).way for rows in (1, 10, 40, 200, 2000)] == [Way.EXACT] * 2 + [Way.COPIES] * 3
    assert plan(200, copied=True).candidates == 14
    assert plan(200, copied=True, ef=50).candidates == 50


@given(CASES)
def test_plans_are_the_same_every_time(case: dict[str, Any]) -> None:
    blocks = layout(case["dim"], 0).blocks
    first = plan(**case, blocks=blocks)
    choose.cache_clear()
    assert plan(**case, blocks=blocks) == first


@given(CASES, st.integers(1, 2000), st.integers(1, 2000))
def test_a_greater_ef_never_looks_at_less(case: dict[str, Any], one: int, two: int) -> None:
    low, high = (plan(**(case | {"ef": ef, "copied": one % 2 > 0})) for ef in sorted((one, two)))
    assert low.candidates <= high.candidates
    assert low.cost_microseconds <= high.cost_microseconds
    if low.way is high.way:
        assert low.budget_rows <= high.budget_rows


def test_more_neighbours_take_more() -> None:
    made = [plan(10**6, k=k) for k in (1, 10, 20, 100, 1000)]
    assert all(a.candidates <= b.candidates for a, b in pairwise(made))
    assert all(a.budget_rows <= b.budget_rows for a, b in pairwise(made))
    assert made[0][1:3] == made[1][1:3]


def test_short_lists_are_read_whole_and_long_ones_are_walked() -> None:
    assert plan(1).way is plan(12).way is Way.EXACT
    assert plan(10**6).way is Way.TREE
    assert plan(10**6, fan=NO_FAN).way is Way.CODES
    assert plan(10**6, exact=True).way is Way.EXACT
    assert plan(10**6).budget_rows == round(POINTS.rows(10**6)) + 1
    assert plan(10**6).candidates == round(MOST_CANDIDATES * POINTS.candidates(10**6))
    assert plan(10**6, ef=320).candidates == 320


@given(CASES)
def test_without_a_number_of_candidates_a_band_says_which(case: dict[str, Any]) -> None:
    case["blocks"] = layout(case["dim"], 0).blocks
    place = min(case["k"], 3) - 1
    for made in ways(**(case | {"ef": None, "budget": POINTS, "fan": FAN, "walk": 120.0, "copied": True})):
        after_all = made.way is Way.CODES
        assert made.band == (0.0 if made.way in (Way.EXACT, Way.COPIES) else BANDS[int(after_all), place])
    for made in ways(**(case | {"ef": 70, "budget": POINTS, "fan": FAN, "walk": 120.0, "copied": True})):
        assert made.band == 0
        assert made.candidates == max(70, case["k"])


def test_a_number_of_candidates_that_is_the_usual_one_scores_the_usual_rows() -> None:
    usual, asked = (plan(30_000, ef=ef) for ef in (None, 80))
    assert usual.way is asked.way is Way.TREE
    assert usual.budget_rows == asked.budget_rows
    assert plan(30_000, ef=100).budget_rows > usual.budget_rows


def test_lists_are_the_cells_that_hold_rows_and_for_many_rows_the_leaves() -> None:
    assert FAN.lists(1) == pytest.approx(1, rel=1e-2)
    assert FAN.lists(60) == pytest.approx(57, rel=1e-2)
    assert FAN.lists(60_000) == pytest.approx(600)
    assert FAN.lists(10**6) == pytest.approx(12_600)


def test_between_its_points_a_budget_is_a_power_of_the_length() -> None:
    assert POINTS.rows(300) == pytest.approx(200)
    assert POINTS.rows(30_000) == pytest.approx(2_000)
    assert POINTS.rows(3_000) == pytest.approx((200 * 2_000) ** 0.5)
    assert POINTS.candidates(3_000) == pytest.approx((40 * 80) ** 0.5)
    for length in (1, 10, 299):
        assert POINTS.rows(length) == pytest.approx(200)
        assert POINTS.candidates(length) == pytest.approx(40)
    for length in (30_001, 10**9):
        assert POINTS.rows(length) == pytest.approx(2_000)
        assert POINTS.candidates(length) == pytest.approx(80)
    assert all(POINTS.rows(a) <= POINTS.rows(b) for a, b in pairwise(LENGTHS))


def test_of_rows_not_known_all_are_scored() -> None:
    for length in (1, 77, 4000, 10**7):
        assert whole(1).rows(length) == pytest.approx(length)
        assert whole(1).candidates(length) == pytest.approx(100)
    for k in (1, 10, 1000):
        for after_all in (False, True):
            assert 0 < whole(1).band(k, after_all) < whole(4).band(k, after_all)


def vectors_of(seed: int, n: int, dim: int, metric: Metric) -> np.ndarray:
    """Points about many centres of few directions, as embeddings lie."""
    random, same = np.random.default_rng(seed), np.random.default_rng(dim)
    within, centres = same.normal(size=(16, dim)), same.normal(size=(60, 16)) * 1.5
    hidden = centres[random.integers(0, 60, n)] + random.normal(size=(n, 16))
    return checked_vectors((hidden @ within + random.normal(size=(n, dim)) * 0.3).astype("f4"), dim, metric, "rows")


@cache
def unit(metric: Metric, dim: int, rows: int = ROWS) -> Segment:
    nobody = np.empty(0, np.int32), np.empty(0, np.int64)
    settings_ = Settings(dim, metric, layout(dim, 5), 5, 2)
    return built(vectors_of(1, rows, dim, metric), np.arange(rows), nobody, settings_)[0]


def recall(segment: Segment, positions: np.ndarray, made: Plan, queries: np.ndarray) -> float:
    answers = []
    for each in (made, made._replace(way=Way.EXACT)):
        ids, apart = np.full((len(queries), 10), -1, np.int64), np.full((len(queries), 10), np.inf, np.float32)
        split = subtree(positions, segment.rows.nodes, SHORT_LIST_ROWS)
        segment.rows.search(queries, Posting(positions), each, split, NOT_PACKED, ids, apart)
        answers.append(ids)
    return float(np.mean([np.isin(one, two).mean() for one, two in zip(*answers, strict=True)]))


@pytest.mark.parametrize(("metric", "dim"), [(Metric.L2, 40), (Metric.COSINE, 96), (Metric.L2, 200), (Metric.IP, 64)])
def test_a_fitted_budget_finds_what_queries_of_its_kind_look_for(metric: Metric, dim: int) -> None:
    segment, queries = unit(metric, dim), vectors_of(2, 200, dim, metric)
    budget, random = segment.budget, np.random.default_rng(4)
    assert budget.lengths[-1] == ROWS
    assert budget.lengths[0] >= LEAST_ROWS
    assert (np.diff(budget.lengths) > 0).all()
    assert (np.diff(budget.scored[:-1]) >= 0).all()  # all rows have shorter lists, of which fewer may do
    for rising in (budget.ranked, budget.expected, budget.whole):
        assert (np.diff(rising) >= 0).all()
    assert (budget.whole <= budget.expected).all()
    assert (budget.bands[1] <= budget.bands[0]).all()
    deviation = DEVIATIONS[segment.rows.layout.bits]
    assert (budget.bands >= LEAST_BAND * deviation).all()
    assert (budget.bands <= 3 * deviation).all()
    assert (budget.scored <= budget.lengths).all()
    assert budget.rows(ROWS) < 0.8 * ROWS
    for size in (ROWS, 2500, 1000):
        positions = np.sort(random.choice(ROWS, size, replace=False)).astype(np.uint32)
        band, every = budget.band(10, False), budget.band(10, True)
        for ranked in ((round(budget.candidates(size)), 0.0), (ROWS, band)):
            made = Plan(Way.TREE, ranked[0], round(budget.rows(size)), 0.0, ranked[1])
            assert recall(segment, positions, made, queries) >= 0.94
        assert recall(segment, positions, Plan(Way.CODES, ROWS, 0, 0.0, every), queries) >= 0.96


def test_budgets_are_the_same_for_one_seed() -> None:
    segment = unit(Metric.L2, 40)
    once, again = (fitted(segment.rows, segment.postings, SHORT_LIST_ROWS, 5, threads=2) for _ in range(2))
    for name in Budget.__slots__:
        np.testing.assert_array_equal(getattr(once, name), getattr(again, name))
        np.testing.assert_array_equal(getattr(once, name), getattr(segment.budget, name))


@settings(max_examples=12)
@given(st.sampled_from([1, 2, 11, LEAST_ROWS - 1, LEAST_ROWS, LEAST_ROWS + 1, 700]), st.booleans())
def test_budgets_of_few_rows_and_of_equal_ones(rows: int, equal: bool) -> None:
    nobody = np.empty(0, np.int32), np.empty(0, np.int64)
    vectors = vectors_of(3, rows, 12, Metric.L2)
    if equal:
        vectors[:] = vectors[0]
    segment, _ = built(vectors, np.arange(rows), nobody, Settings(12, Metric.L2, layout(12, 5), 5, 1))
    budget = segment.budget
    assert all(np.isfinite(getattr(budget, name)).all() for name in Budget.__slots__)
    assert budget.candidates(rows) >= 10
    if rows < LEAST_ROWS:
        assert budget.rows(rows) == pytest.approx(rows)


@given(CASES, st.floats(1, 1000), st.floats(1, 1000))
def test_rows_that_are_passed_over_cost_and_change_nothing_else(case: dict[str, Any], one: float, two: float) -> None:
    few, many = (plan(**case, passed=passed) for passed in sorted((one, two)))
    assert few.cost_microseconds <= many.cost_microseconds
    assert few[1:3] == many[1:3] or few.way is not many.way
    assert many.way is not Way.TREE or few.way is Way.TREE, "the tree alone minds"


def test_conditions_share_sub_trees_by_powers_of_two() -> None:
    assert [one_in(rows) for rows in (0.0, 1.0, 1.4, 1.42, 2.8, 2.9, 100.0)] == [1, 1, 1, 2, 2, 4, 128]


@pytest.mark.parametrize("share", [0.95, 0.7, 0.5, 0.2, 0.05])
def test_a_fitted_budget_does_for_conditions_that_leave_a_share(share: float) -> None:
    segment, queries = unit(Metric.L2, 40), vectors_of(3, 200, 40, Metric.L2)
    mask, every = np.random.default_rng(6).random(ROWS) < share, np.arange(ROWS, dtype=np.uint32)
    passing = np.flatnonzero(mask).astype(np.uint32)
    split = segment.subtree(ALL_CODE, Posting(every), SHORT_LIST_ROWS, one_in(ROWS / len(passing)))
    budget = segment.budget
    made = Plan(Way.TREE, ROWS, round(budget.rows(len(passing))), 0.0, budget.band(10, False))
    found = []
    for plan, listed, sub, wanted in (
        (made, Posting(every), split, of_mask(mask)),
        (made._replace(way=Way.EXACT), Posting(passing), NO_SUBTREE, EVERY),
    ):
        ids, apart = np.full((len(queries), 10), -1, np.int64), np.full((len(queries), 10), np.inf, np.float32)
        segment.rows.search(queries, listed, plan, sub, NOT_PACKED, ids, apart, wanted)
        found.append(ids)
    assert np.mean([np.isin(one, two).mean() for one, two in zip(*found, strict=True)]) >= 0.93
    assert np.isin(found[0], segment.rows.ids[passing]).all()
