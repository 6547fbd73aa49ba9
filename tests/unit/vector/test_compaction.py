"""Compaction: which units it takes, what it carries over, and that a tree that was grown finds as much as a new one."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lakelet.vector import index as index_module
from lakelet.vector import units as units_module
from lakelet.vector.building import Settings, built
from lakelet.vector.codes import layout
from lakelet.vector.compaction import DEAD_SHARE, RATIO, chosen, merged, published, started
from lakelet.vector.delta import Delta
from lakelet.vector.index import VectorIndex
from lakelet.vector.metrics import Metric
from lakelet.vector.nodes import no_nodes
from lakelet.vector.postings import folded
from lakelet.vector.segment import Segment

DIM = 8
SETTINGS = Settings(DIM, Metric.L2, layout(DIM, 0), 0, 1)


def vectors(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)


# --- which units ---------------------------------------------------------------------------------------------------


def segment_of(rows: int, dead: int = 0) -> Segment:
    """As much of a segment as the choice looks at."""
    made = object.__new__(Segment)
    live = np.repeat(np.array([0, 1], np.uint8), [dead, rows - dead])
    made.rows = SimpleNamespace(ids=np.arange(rows), live=live)  # type: ignore[assignment]
    made.deleted = dead
    return made


def delta_of(rows: int) -> Delta:
    made = object.__new__(Delta)
    made.count, made.capacity, made.rows = rows, rows, SimpleNamespace(live=np.ones(rows, np.uint8))  # type: ignore[assignment]
    return made


def sizes(units: list[Any]) -> list[tuple[str, int]]:
    return sorted((type(unit).__name__.lower(), len(unit)) for unit in units)


@pytest.mark.parametrize(
    ("units", "wanted"),
    [
        ([], []),
        ([segment_of(100)], []),
        ([segment_of(1_000), segment_of(100)], []),
        ([segment_of(1_000), segment_of(301), segment_of(100)], []),
        # full deltas go, all together, with segments of up to so many times their rows, and so on upward
        ([delta_of(10)], [("delta", 10)]),
        ([delta_of(10), delta_of(10)], [("delta", 10), ("delta", 10)]),
        ([segment_of(31), delta_of(10)], [("delta", 10)]),
        ([segment_of(30), delta_of(10)], [("delta", 10), ("segment", 30)]),
        ([segment_of(120), segment_of(30), delta_of(10)], [("delta", 10), ("segment", 30), ("segment", 120)]),
        ([segment_of(121), segment_of(30), delta_of(10)], [("delta", 10), ("segment", 30)]),
        # segments of like size become one
        ([segment_of(100), segment_of(100)], [("segment", 100), ("segment", 100)]),
        ([segment_of(300), segment_of(100)], [("segment", 100), ("segment", 300)]),
        ([segment_of(301), segment_of(100)], []),
        # so do those with many deleted rows
        ([segment_of(100, 25)], []),
        ([segment_of(100, 26)], [("segment", 100)]),
        ([segment_of(100, 100)], [("segment", 100)]),
        ([segment_of(1_000), segment_of(100, 26)], [("segment", 100)]),
        ([segment_of(1_000, 251), segment_of(100)], [("segment", 100), ("segment", 1_000)]),
    ],
)
def test_what_is_merged_next(units: list[Any], wanted: list[tuple[str, int]]) -> None:
    before = sizes(units)
    picked = chosen(units)
    assert sizes(picked) == wanted
    assert len({id(unit) for unit in picked}) == len(picked)
    assert sizes(chosen(units[::-1])) == wanted
    assert sizes(units) == before


def test_merging_comes_to_an_end_and_leaves_few_units() -> None:
    """Each row is written some times at most: the sizes of segments that stay lie apart."""
    random = np.random.default_rng(2)
    units: list[Any] = []
    rows = written = 0
    for _ in range(3_000):
        units.append(delta_of(10))
        rows += 10
        if random.random() < 0.02 and len(units) > 1:
            victim = units[int(random.integers(0, len(units)))]
            victim.rows.live[: int(random.integers(0, len(victim) + 1))] = 0
            if isinstance(victim, Segment):
                victim.deleted = len(victim) - int(np.count_nonzero(victim.rows.live))
        for _ in range(50):
            picked = chosen(units)
            if not picked:
                break
            live = sum(int(np.count_nonzero(unit.rows.live)) for unit in picked)
            units = [unit for unit in units if not any(unit is old for old in picked)]
            units += [segment_of(live)] if live else []
            written += live
        assert not chosen(units)
        sizes_now = sorted(len(unit) for unit in units)
        assert all(later > RATIO * sooner for sooner, later in itertools.pairwise(sizes_now))
        assert all(np.count_nonzero(unit.rows.live) >= (1 - DEAD_SHARE) * len(unit) for unit in units)
    assert len(units) <= 8
    assert written < 30 * rows


# --- what is carried over ------------------------------------------------------------------------------------------


def delta_with(ids: np.ndarray, codes: list[list[int]], seed: int, capacity: int = 200) -> Delta:
    made = Delta(capacity, np.zeros(DIM, np.float32), SETTINGS.layout, Metric.L2, no_nodes(DIM))
    offsets = np.cumsum([0, *map(len, codes)])
    made.append(vectors(len(ids), seed), ids, (offsets, np.array(list(itertools.chain(*codes)), np.int32)))
    return made


def segment_with(ids: np.ndarray, codes: list[list[int]], seed: int) -> Segment:
    pairs = [(code, row) for row, some in enumerate(codes) for code in some]
    flat = np.array(pairs, np.int64).reshape(-1, 2)
    return built(vectors(len(ids), seed), ids, (flat[:, 0].astype(np.int32), flat[:, 1]), SETTINGS)[0]


def listed(units: list[Any], code: int) -> set[int]:
    """The ids of live rows in a list."""
    found: list[int] = []
    for unit in units:
        positions = folded(unit.postings.get(code))
        assert (np.diff(positions.astype(np.int64)) > 0).all()
        found += unit.rows.ids[positions[unit.rows.live[positions] > 0]].tolist()
    assert len(found) == len(set(found))
    return set(found)


def three_units() -> list[Any]:
    """Ids 0 to 299, a hundred a unit; row r has the codes 1 + r % 3 and, every fifth, 0. Some are changed or dead."""
    codes = [[1 + row % 3, *([0] if row % 5 == 0 else [])] for row in range(300)]
    ids = np.random.default_rng(3).permutation(300).astype(np.int64)
    by = [codes[row] for row in ids.tolist()]
    units: list[Any] = [
        segment_with(ids[:100], by[:100], 1),
        delta_with(ids[100:200], by[100:200], 2),
        delta_with(ids[200:], by[200:], 3),
    ]
    for unit in units:
        some = np.arange(0, 100, 9, dtype=np.uint32)
        unit.postings.grant(4, some)
        unit.postings.revoke(1, some)
        unit.rows.live[[5, 50, 95]] = 0
    return units


def test_a_merge_keeps_rows_and_lists_and_leaves_out_the_dead() -> None:
    units = three_units()
    before = {code: listed(units, code) for code in range(6)}
    of = {int(row): unit.rows.vectors[at].copy() for unit in units for at, row in enumerate(unit.rows.ids[:100])}
    work = started(units)
    made = merged(work, SETTINGS)
    assert made is not None
    segment, places = made
    assert len(segment) == 300 - 9
    assert segment.rows.live.all()
    assert {code: listed([segment], code) for code in range(6)} == before
    assert all((segment.rows.vectors[at] == of[int(row)]).all() for at, row in enumerate(segment.rows.ids))
    for unit, place in zip(units, places, strict=True):
        assert (place[[5, 50, 95]] == -1).all()
        kept = place >= 0
        assert kept.sum() == 97
        assert (segment.rows.ids[place[kept]] == unit.rows.ids[:100][kept]).all()
    published(work, segment, places)
    assert {code: listed([segment], code) for code in range(6)} == before
    wanted = np.array([0, 150, 299, 300, 2**62])
    assert (segment.find(wanted)[:3] >= 0).sum() == sum(
        row in of and row in set(segment.rows.ids.tolist()) for row in (0, 150, 299)
    )
    assert (segment.find(wanted)[3:] == -1).all()


def test_what_happens_during_a_merge_is_carried_over() -> None:
    units = three_units()
    work = started(units)
    made = merged(work, SETTINGS)
    assert made is not None
    random = np.random.default_rng(7)
    for unit in units:
        for code, granting in ((1, True), (2, False), (4, False), (9, True), (0, False), (3, True)):
            some = np.sort(random.choice(100, 30, replace=False)).astype(np.uint32)
            (unit.postings.grant if granting else unit.postings.revoke)(code, some)
        unit.postings.revoke(2, np.arange(100, dtype=np.uint32)[::2].copy())
        unit.rows.live[random.choice(100, 20, replace=False)] = 0
    expected = {code: listed(units, code) for code in range(11)}
    live = {int(row) for unit in units for row in unit.rows.ids[:100][unit.rows.live[:100] > 0]}
    published(work, *made)
    assert {code: listed([made[0]], code) for code in range(11)} == expected
    assert set(made[0].rows.ids[made[0].rows.live > 0].tolist()) == live


def test_nothing_comes_of_rows_that_are_all_dead() -> None:
    units = three_units()
    for unit in units:
        unit.rows.live[:] = 0
    assert merged(started(units), SETTINGS) is None
    assert merged(started([]), SETTINGS) is None


def test_the_same_merge_gives_the_same_segment_whatever_the_threads() -> None:
    segments = []
    for threads in (1, 3):
        made = merged(started(three_units()), SETTINGS._replace(threads=threads))
        assert made is not None
        segments.append(made[0])
    left, right = segments
    assert (left.rows.ids == right.rows.ids).all()
    assert (left.rows.records == right.rows.records).all()
    assert (left.postings.positions == right.postings.positions).all()


# --- recall after growth -------------------------------------------------------------------------------------------


def recall(index: VectorIndex, queries: np.ndarray, who: Any) -> float:
    true, found = index.search(queries, 10, who, exact=True)[0], index.search(queries, 10, who)[0]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(true.tolist(), found.tolist(), strict=True)]))


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("moved", [False, True])
def test_an_index_that_changed_finds_as_much_as_a_new_one(
    monkeypatch: pytest.MonkeyPatch, metric: str, moved: bool
) -> None:
    """30 % of the rows are replaced, by some of the same clusters, or by some of new ones."""
    monkeypatch.setattr(units_module, "VECTOR_DELTA_ROWS", 400)
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 3_000)
    random = np.random.default_rng(4)
    centres = random.standard_normal((120, 32)).astype(np.float32)

    def drawn(rows: int, first: int, last: int) -> np.ndarray:
        return centres[random.integers(first, last, rows)] + 0.35 * random.standard_normal((rows, 32)).astype(
            np.float32
        )

    rows, churn = 8_000, 2_400
    held = drawn(rows, 0, 80)
    index = VectorIndex(32, metric, threads=2)
    index.add(held, tenants=np.arange(rows) % 4)
    gone = random.choice(rows, churn, replace=False)
    fresh = drawn(churn, *((80, 120) if moved else (0, 80)))
    for first in range(0, churn, 100):
        index.delete(gone[first : first + 100])
        index.add(fresh[first : first + 100], gone[first : first + 100], (gone[first : first + 100] % 4).tolist())
    index.wait()
    held[gone] = fresh
    new = VectorIndex(32, metric, threads=2)
    new.add(held, tenants=np.arange(rows) % 4)
    assert len(index) == len(new) == rows
    queries = drawn(200, 0, 120 if moved else 80)
    for who in (0, 3):
        true = [each.search(queries, 10, who, exact=True)[0] for each in (index, new)]
        assert (true[0] == true[1]).mean() > 0.999
        changed, built_anew = recall(index, queries, who), recall(new, queries, who)
        assert changed >= 0.9, (changed, built_anew)
        assert changed >= built_anew - 0.03, (changed, built_anew)
    index.optimize()
    assert min(recall(index, queries, who) - recall(new, queries, who) for who in (0, 3)) >= -0.03
