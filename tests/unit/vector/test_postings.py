"""Posting lists against sets of positions."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector.postings import (
    FOLD_ROWS,
    FOLD_SHARE,
    NONE,
    FrozenPostings,
    GrowingPostings,
    Posting,
    by_code,
    count_live,
    folded,
)

SPAN = 60
CODES = 4

Step = tuple[str, int, set[int]]
SOME = st.sets(st.integers(0, SPAN - 1))
STEPS = st.lists(st.tuples(st.sampled_from(["grant", "revoke"]), st.integers(0, CODES), SOME), max_size=25)


def ascending(values: set[int] | range) -> np.ndarray:
    return np.array(sorted(values), np.uint32)


def lists_of(model: dict[int, set[int]]) -> FrozenPostings:
    pairs = [(code, position) for code, positions in model.items() for position in sorted(positions)]
    codes, places = np.array([c for c, _ in pairs], np.int32), np.array([p for _, p in pairs], np.int64)
    return FrozenPostings(*by_code(codes, places))


def check(posting: Posting, wanted: set[int]) -> None:
    for part in posting:
        assert part.dtype == np.uint32
        assert (np.diff(part.astype(np.int64)) > 0).all()
    base, added, removed = (set(part.tolist()) for part in posting)
    assert not added & base
    assert removed <= base
    assert posting.rows == len(wanted)
    together = folded(posting)
    assert together.dtype == np.uint32
    assert together.tolist() == sorted(wanted)


def copied(posting: Posting) -> tuple[Posting, list[list[int]]]:
    return posting, [part.tolist() for part in posting]


def check_codes(postings: FrozenPostings | GrowingPostings, model: dict[int, set[int]]) -> None:
    codes = list(postings.codes())
    assert len(codes) == len(set(codes))
    assert set(codes) >= {code for code, rows in model.items() if rows}


def change(postings: Any, model: dict[int, set[int]], step: Step) -> None:
    kind, code, positions = step
    getattr(postings, kind)(code, ascending(positions))
    rows = model.setdefault(code, set())
    model[code] = {"grant": rows | positions, "revoke": rows - positions, "replace": positions}[kind]


@settings(max_examples=150)
@given(
    st.dictionaries(st.integers(0, CODES - 1), SOME, max_size=CODES),
    st.lists(st.tuples(st.sampled_from(["grant", "revoke", "replace"]), st.integers(0, CODES), SOME), max_size=25),
)
def test_lists_of_a_segment_are_sets(model: dict[int, set[int]], steps: list[Step]) -> None:
    postings = lists_of(model)
    for code in range(CODES + 2):
        check(postings.get(code), model.get(code, set()))
    for step in steps:
        before = [copied(postings.get(code)) for code in range(CODES + 2)]
        change(postings, model, step)
        for code, (posting, parts) in enumerate(before):
            check(postings.get(code), model.get(code, set()))
            assert [part.tolist() for part in posting] == parts
            assert postings.get(code) is postings.get(code)
            if code != step[1]:
                assert postings.get(code) is posting
        check_codes(postings, model)
    assert postings.nbytes >= postings.offsets.nbytes + postings.positions.nbytes


@settings(max_examples=150)
@given(st.lists(st.one_of(st.sets(st.integers(0, CODES)), st.tuples(st.booleans(), STEPS)), max_size=12))
def test_lists_of_a_delta_are_sets(script: list[Any]) -> None:
    postings, model, rows = GrowingPostings(), {code: set() for code in range(CODES + 1)}, 0
    views = []
    for entry in script:
        views += [copied(postings.get(code)) for code in range(CODES + 2)]
        if isinstance(entry, set):  # a row comes, with these labels
            for code in entry:
                postings.append(code, rows)
                model[code].add(rows)
            rows += 1
            continue
        many, steps = entry
        if many:
            new = range(rows, rows + 20)
            postings.extend(2, ascending(new))
            model[2] |= set(new)
            rows += 20
        for kind, code, positions in steps:
            change(postings, model, (kind, code, {position for position in positions if position < rows}))
        for code in range(CODES + 1):
            check(postings.get(code), model[code])
        check_codes(postings, model)
    for posting, parts in views:
        assert [part.tolist() for part in posting] == parts
    check(postings.get(CODES + 1), set())
    assert postings.nbytes >= 0


def test_a_view_of_a_growing_list_stays_true() -> None:
    postings = GrowingPostings()
    views = []
    for position in range(1000):
        views.append(postings.get(3).base)
        postings.append(3, 2 * position)
    postings.extend(3, np.arange(5000, 9000, dtype=np.uint32))
    assert all(view.tolist() == list(range(0, 2 * i, 2)) for i, view in enumerate(views))
    assert postings.get(3).rows == 5000
    assert postings.nbytes >= 4 * 5000


def test_many_changes_are_folded_in() -> None:
    size = 40 * FOLD_ROWS
    model = {0: set(range(0, 2 * size, 2)), 1: {5}}
    postings = lists_of(model)
    taken, parts = copied(postings.get(0))
    limit = FOLD_ROWS + size // FOLD_SHARE
    change(postings, model, ("grant", 0, set(range(1, 2 * limit, 2))))
    assert len(postings.get(0).added) == limit
    check(postings.get(0), model[0])
    change(postings, model, ("revoke", 0, {2}))
    assert len(postings.get(0).added) == len(postings.get(0).removed) == 0
    check(postings.get(0), model[0])
    assert [part.tolist() for part in taken] == parts
    change(postings, model, ("revoke", 0, set(range(2 * size))))
    check(postings.get(0), set())
    assert postings.positions.tolist()[:size] == list(range(0, 2 * size, 2))


def test_what_is_granted_back_leaves_nothing_behind() -> None:
    postings = lists_of({0: set(range(50))})
    postings.revoke(0, ascending({3, 4, 5, 99}))
    assert postings.get(0).removed.tolist() == [3, 4, 5]
    postings.grant(0, ascending({4, 70}))
    assert [part.tolist() for part in postings.get(0)[1:]] == [[70], [3, 5]]
    postings.revoke(0, ascending({70}))
    postings.grant(0, ascending({3, 5}))
    assert [part.tolist() for part in postings.get(0)[1:]] == [[], []]


@settings(max_examples=100)
@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 2**32 - 1))), st.randoms(use_true_random=False))
def test_pairs_become_lists(pairs: set[tuple[int, int]], random: Any) -> None:
    listed = sorted(pairs)
    random.shuffle(listed)
    codes, places = np.array([c for c, _ in listed], np.int32), np.array([p for _, p in listed], np.int64)
    offsets, positions = by_code(codes, places)
    model: dict[int, list[int]] = {}
    for code, place in sorted(pairs):
        model.setdefault(code, []).append(place)
    assert offsets.dtype == np.int64
    assert positions.dtype == np.uint32
    assert len(offsets) == max(model, default=-1) + 2
    for code in range(len(offsets) - 1):
        assert positions[offsets[code] : offsets[code + 1]].tolist() == model.get(code, [])


def test_lists_of_nobody() -> None:
    offsets, positions = by_code(np.empty(0, np.int32), np.empty(0, np.int64))
    postings = FrozenPostings(offsets, positions)
    assert list(postings.codes()) == []
    assert postings.get(7) == Posting(NONE)
    postings.grant(7, ascending({1}))
    check(postings.get(7), {1})
    assert list(postings.codes()) == [7]


@given(st.sets(st.integers(0, 99)), st.sets(st.integers(0, 99)))
def test_live_rows_are_counted(positions: set[int], alive: set[int]) -> None:
    live = np.zeros(100, np.uint8)
    live[list(alive)] = 1
    assert count_live(ascending(positions), live) == len(positions & alive)
