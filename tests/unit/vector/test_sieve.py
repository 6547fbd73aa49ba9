"""Leading words of codes: what they estimate, and which rows they let through."""

from __future__ import annotations

import numpy as np
import pytest
from lakelet.vector import search as search_module
from lakelet.vector.codes import encode, layout, quantise, query_length
from lakelet.vector.index import VectorIndex
from lakelet.vector.planner import Plan, Way
from lakelet.vector.postings import Posting
from lakelet.vector.rotation import rotate
from lakelet.vector.scoring import LEADING
from lakelet.vector.search import nothing_found
from lakelet.vector.segment import LEADING_ROWS, NOT_PACKED, Segment
from lakelet.vector.sieve import HEAD_BYTES, LEADING_BYTES, LOOK_WORDS, leading, look, sieved
from lakelet.vector.subtree import NO_SUBTREE

ROWS = 2_003


def coded(dim: int, rows: np.ndarray, with_norms: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Leading words of rows about 0, and the rows rotated."""
    made = layout(dim, 3)
    records = np.empty((len(rows), made.record_bytes), np.uint8)
    encode(rows, np.zeros(dim, np.float32), made.signs, made.bits, with_norms, 0, len(rows), records)
    out = leading(records, made.bits)
    turned = np.zeros((len(rows), made.dims), np.float32)
    turned[:, :dim] = rows
    for row in turned:
        rotate(row, made.signs, np.empty(made.dims, np.float32))
    return out, turned


def signs_of(words: np.ndarray, dims: int) -> np.ndarray:
    """The odd numbers that leading words stand for."""
    bits = np.unpackbits(words.view(np.uint8).reshape(-1, LEADING_BYTES)[:, :16], axis=1, bitorder="little")
    odd = 2 * bits.astype(np.int64) - 1
    return odd if dims == 128 else odd[:, :64] + 2 * odd[:, 64:]


@pytest.mark.parametrize("dim", [20, 64, 65, 100, 128])
def test_leading_bits_are_the_code_of_fewer_bits(dim: int) -> None:
    rows = np.random.default_rng(dim).standard_normal((ROWS, dim), dtype=np.float32)
    rows *= np.random.default_rng(1).uniform(0.5, 3, (ROWS, 1)).astype(np.float32)
    out, turned = coded(dim, rows)
    head, words = out[: HEAD_BYTES // 4].view(np.float32), out[HEAD_BYTES // 4 :]
    odd = signs_of(words, turned.shape[1])
    assert ((odd > 0) == (turned >= 0)).all()
    tail = words.reshape(ROWS, -1)[:, 4]
    a, f = head[0] + head[1] * (tail & 0xFFFF), head[2] + head[3] * (tail >> 16)
    squares = (turned.astype(np.float64) ** 2).sum(axis=1)
    assert (a <= squares * (1 + 1e-5)).all()
    assert (a >= squares - 2 * head[1] - 1e-4 * squares).all()
    ratio = f / (squares / (odd * turned).sum(axis=1))
    assert ratio.mean() == pytest.approx(1, abs=0.01)
    assert ratio.std() < 0.05


@pytest.mark.parametrize("dim", [48, 128])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_rows_below_the_limit_pass(dim: int, metric: str) -> None:
    random = np.random.default_rng(7)
    rows, query = (random.standard_normal((n, dim), dtype=np.float32) for n in (ROWS, 1))
    rows[5] *= 40  # far from the others
    made, (out, _) = layout(dim, 3), coded(dim, rows, metric == "l2")
    planes, beside = np.empty(made.blocks * 16, np.uint64), np.empty(LOOK_WORDS, np.uint64)
    _, c2 = quantise(query[0], np.zeros(dim, np.float32), made.signs, made.bits, metric == "l2", planes)
    below = 1.5 * query_length(c2, made.dims)
    look(planes, made.bits, c2, below, out.ctypes.data, beside)
    query_turned = np.zeros(made.dims, np.float32)
    query_turned[:dim] = query[0]
    rotate(query_turned, made.signs, np.empty(made.dims, np.float32))
    step = c2 / 4
    levels = np.clip(np.floor(query_turned / (2 * step) + 8), 0, 15)
    odd = signs_of(out[HEAD_BYTES // 4 :], made.dims)
    head, tail = out[:4].view(np.float32), out[HEAD_BYTES // 4 :].reshape(ROWS, -1)[:, 4]
    a, f = head[0] + head[1] * (tail & 0xFFFF), head[2] + head[3] * (tail >> 16)
    estimates = a + f * (-2 * (odd @ ((2 * levels - 15) * step)) - below)
    slots, room = np.sort(random.choice(ROWS, 1_502, replace=False)).astype(np.uint32), np.empty(1_506, np.uint32)
    for limit in np.quantile(estimates, [0.0, 0.1, 0.5, 1.0]).astype(np.float32):
        passed = room[: sieved(out.ctypes.data, slots, beside, limit, room)]
        clear = np.abs(estimates[slots] - limit) > 1e-3 * (np.abs(a[slots]) + np.abs(limit) + 1)
        inside = np.isin(slots, passed)
        assert (np.diff(passed.astype(np.int64)) > 0).all()
        judged = clear.copy()
        judged[-2:] = False  # they do not fill four
        assert (inside[judged] == (estimates[slots] < limit)[judged]).all()
        assert inside[-2:].all()


def test_rows_very_far_away_leave_no_steps_for_the_others() -> None:
    rows = np.random.default_rng(0).standard_normal((500, 128), dtype=np.float32)
    for factor, there in ((1, True), (300, True), (1e6, False)):
        rows[7] = rows[8] * factor
        out, _ = coded(128, rows)
        assert (len(out) > 0) == there, factor
    assert len(coded(128, np.zeros((3, 128), np.float32))[0]) > 0
    assert len(coded(128, rows[:0])[0]) == HEAD_BYTES // 4


@pytest.mark.parametrize(("scale", "there"), [(1e-21, False), (1e-15, True), (1.0, True), (1e15, True)])
def test_numbers_that_float32_cannot_step_through_are_left(scale: float, there: bool) -> None:
    rows = np.random.default_rng(0).standard_normal((500, 128), dtype=np.float32) * np.float32(scale)
    out, _ = coded(128, rows)
    assert (len(out) > 0) == there
    if there:
        tails = out[HEAD_BYTES // 4 :].reshape(500, -1)[:, 4]
        assert len(np.unique(tails & 0xFFFF)) > 400
        assert len(np.unique(tails >> 16)) > 400


@pytest.mark.parametrize("dim", [32, 96, 128, 130])
@pytest.mark.parametrize("metric", ["l2", "ip", "cosine"])
def test_searches_find_as_much_with_leading_words(dim: int, metric: str) -> None:
    random = np.random.default_rng(dim)
    rows = random.standard_normal((12_000, dim), dtype=np.float32)
    rows[::2] += random.standard_normal(dim, dtype=np.float32)
    index = VectorIndex(dim, metric=metric, seed=1, threads=1)
    index.add(rows)
    index.optimize()
    (segment,) = index._units.now
    assert isinstance(segment, Segment)
    queries, band = random.standard_normal((60, dim), dtype=np.float32), segment.budget.band(10, True)
    if metric == "cosine":
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    some = Posting(np.flatnonzero(random.random(len(rows)) < 0.3).astype(np.uint32))

    def found(plan: Plan) -> np.ndarray:
        ids, apart = nothing_found(len(queries), 10)
        segment.rows.search(queries, some, plan, NO_SUBTREE, NOT_PACKED, ids, apart)
        return ids

    plan = Plan(Way.CODES, 600, len(rows), 0.0, band)
    truth, without = found(Plan(Way.EXACT, 10, 0, 0.0)), found(plan)
    packed = index.memory()["packed"]
    segment.rows.lead()
    assert (segment.rows.table[LEADING] != 0) == (dim <= 128)
    assert index.memory()["packed"] - packed == (HEAD_BYTES + LEADING_BYTES * len(rows) if dim <= 128 else 0)
    lost = [np.mean([len({*a} - {*b}) / 10 for a, b in zip(truth, ids, strict=True)]) for ids in (without, found(plan))]
    assert lost[0] <= 0.05
    assert lost[1] <= lost[0] + 0.01


@pytest.mark.parametrize("scored", [LEADING_ROWS - 1, LEADING_ROWS])
def test_long_scans_make_leading_words_once_for_all_views(scored: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "choose", lambda *_: plan)
    random = np.random.default_rng(2)
    index = VectorIndex(100, seed=1, threads=1)
    index.add(random.standard_normal((200, 100), dtype=np.float32))
    index.optimize()
    segment = index._units.now[0]
    assert isinstance(segment, Segment)
    earlier = segment.seen(segment.rows.live.copy(), {})
    plan = Plan(Way.CODES, 50, scored, 0.0)  # without a band they are of no use
    index.search(random.standard_normal(100, dtype=np.float32))
    assert not segment.rows.leading
    plan = plan._replace(band=2.0)
    index.search(random.standard_normal(100, dtype=np.float32))
    assert (segment.rows.table[LEADING] != 0) == (scored == LEADING_ROWS)
    earlier.rows.lead()
    later = segment.seen(segment.rows.live.copy(), {})
    segment.rows.lead()
    (made,) = segment.rows.leading
    for view in (earlier, segment, later):
        assert view.rows.table[LEADING] == made.ctypes.data
