"""The program of which tables to keep: what it refuses, small answers known by hand, its time, and its greedy start."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from lakelet.containment import program
from lakelet.containment.greedy import greedy
from lakelet.containment.parts import Part
from lakelet.containment.program import solve
from lakelet.lake.errors import InvalidInput


def answer(keep, edges, **options):
    """Solve from a list of (child, parent, cost)."""
    child, parent, cost = zip(*edges, strict=True) if edges else ((), (), ())
    ends = np.array(child, dtype=np.int64), np.array(parent, dtype=np.int64)
    return solve(np.array(keep, dtype=float), *ends, np.array(cost, dtype=float), **options)


def hard(n=2000, m=10_000, seed=3):
    """A minimum dominating set of a random graph, which takes far longer than any test has."""
    ends = np.sort(np.random.default_rng(seed).integers(0, n, (2, m)), axis=0)
    return np.ones(n), ends[1], ends[0], np.full(m, 0.1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"keep_cost": [[1.0, 2.0]]}, r"keep_cost is float64 of shape \(1, 2\)"),
        ({"keep_cost": ["a", "b"]}, "keep_cost is <U1"),
        ({"keep_cost": [1.0, -2.0]}, r"keep_cost\[1\] is -2.0"),
        ({"keep_cost": [np.nan, 2.0]}, r"keep_cost\[0\] is nan"),
        ({"keep_cost": [1e308, 1e308]}, "add up to more"),
        ({"edge_cost": [np.inf]}, r"edge_cost\[0\] is inf"),
        ({"edge_cost": [-1e-9]}, r"edge_cost\[0\] is -1e-09"),
        ({"edge_cost": [1.0, 1.0]}, "1 children, 1 parents and 2 edge costs"),
        ({"child": [0.0]}, "child is float64"),
        ({"child": [2]}, r"child\[0\] is 2, but there are 2 tables"),
        ({"parent": [-1]}, r"parent\[0\] is -1"),
        ({"parent": [[0]]}, "parent is int64 of shape"),
        ({"must_keep": [0, 1]}, r"must_keep is int64 of shape \(2,\)"),
        ({"must_keep": [True]}, r"must_keep is bool of shape \(1,\)"),
        ({"time_limit_seconds": -1.0}, "time_limit_seconds is -1.0"),
        ({"time_limit_seconds": float("nan")}, "time_limit_seconds is nan"),
        ({"max_gap": -0.1}, "max_gap is -0.1"),
        ({"max_gap": float("nan")}, "max_gap is nan"),
    ],
)
def test_what_cannot_be_meant_is_refused(wrong, message):
    given = {"keep_cost": [1.0, 2.0], "child": [1], "parent": [0], "edge_cost": [0.5]} | wrong
    arrays = {k: np.array(v) if isinstance(v, list) else v for k, v in given.items()}
    with pytest.raises(InvalidInput, match=message):
        solve(**arrays)


def test_no_tables_and_no_edges():
    nothing = answer([], [])
    assert (nothing.parent.tolist(), nothing.cost, nothing.bound, nothing.gap, nothing.components) == ([], 0, 0, 0, 0)
    alone = answer([1.5, 2.5], [])
    assert (alone.parent.tolist(), alone.cost, alone.gap, alone.components) == ([-1, -1], 4.0, 0.0, 0)
    assert alone.parent.dtype == np.int64


def test_one_child():
    found = answer([3, 5], [(0, 1, 1)])
    assert (found.parent.tolist(), found.cost, found.bound, found.components) == ([1, -1], 6, 6, 1)
    costly = answer([3, 5], [(0, 1, 3)])
    assert (costly.parent.tolist(), costly.cost, costly.components) == ([-1, -1], 8, 0)


def test_loops_do_not_count_and_of_parallel_edges_the_cheapest_does():
    found = answer([3, 5], [(0, 0, 0), (0, 1, 2), (0, 1, 1), (0, 1, 1), (1, 1, 0)])
    assert (found.parent.tolist(), found.cost) == ([1, -1], 6)


def test_of_duplicates_in_a_circle_one_stays():
    n = 6
    circle = answer([4] * n, [(i, (i + 1) % n, 1) for i in range(n)])
    assert circle.cost == 3 * 4 + 3 * 1  # every other one: a chain of rebuilding is not allowed
    clique = answer([4] * n, [(i, j, 1) for i in range(n) for j in range(n) if i != j])
    assert clique.cost == 4 + 5 * 1
    assert (clique.parent == -1).sum() == 1


def test_a_parent_is_never_retired_itself():
    found = answer([1, 10, 10], [(0, 1, 0), (1, 2, 0)])
    assert found.parent.tolist() == [-1, 2, -1]


def test_what_must_be_kept_is_and_serves():
    edges = [(0, 1, 0.1), (1, 2, 0.1), (2, 0, 0.1)]
    found = answer([9, 1, 1], edges, must_keep=np.array([True, False, False]))
    assert found.parent.tolist() == [-1, -1, 0]
    assert found.cost == pytest.approx(10.1)
    every = answer([9, 1, 1], edges, must_keep=np.ones(3, dtype=bool))
    assert every.parent.tolist() == [-1, -1, -1]


def test_tables_that_cost_nothing_stay():
    found = answer([0, 0, 5], [(0, 1, 0), (1, 0, 0), (2, 0, 0)])
    assert found.cost == 0
    assert found.gap == 0
    assert found.parent.tolist() == [-1, -1, 0]


@pytest.mark.parametrize("unit", [1e-300, 1e-12, 1.0, 1e12, 1e290])
def test_the_unit_of_money_does_not_matter(unit, monkeypatch):
    monkeypatch.setattr(program, "_ENUMERATED", 0)
    rng = np.random.default_rng(5)
    ends = rng.integers(0, 30, (2, 90))
    keep, edge = rng.lognormal(0, 1, 30), rng.lognormal(-1, 1, 90)
    usual = solve(keep, *ends, edge)
    found = solve(unit * keep, *ends, unit * edge)
    assert found.parent.tolist() == usual.parent.tolist()
    assert found.gap == 0


def test_the_same_call_returns_the_same_choice_from_any_thread():
    rng = np.random.default_rng(0)
    given = (
        rng.integers(1, 4, 300).astype(float),
        *rng.integers(0, 300, (2, 1200)),
        rng.integers(0, 3, 1200).astype(float),
    )
    found = [solve(*given).parent.tolist()]
    threads = [threading.Thread(target=lambda: found.append(solve(*given).parent.tolist())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == found[2]


def test_without_time_the_greedy_choice_comes_with_an_honest_gap():
    given = hard(300, 1200)
    none, some = solve(*given, time_limit_seconds=0), solve(*given, time_limit_seconds=20)
    assert none.gap > 0
    assert none.bound <= some.bound
    assert some.cost < none.cost
    assert none.bound <= some.cost
    assert none.gap == pytest.approx((none.cost - none.bound) / none.cost)


def test_the_time_limit_is_for_all_parts_together_and_what_was_proven_counts():
    made = [hard(seed=seed) for seed in range(2)]
    keep, edge = np.concatenate([one[0] for one in made]), np.concatenate([one[3] for one in made])
    child, parent = (np.concatenate([one[end] + 2000 * i for i, one in enumerate(made)]) for end in (1, 2))
    start = time.monotonic()
    found = solve(keep, child, parent, edge, time_limit_seconds=1.5)
    assert time.monotonic() - start < 10  # far from what it would take to the end, even where much else runs
    assert found.seconds == pytest.approx(time.monotonic() - start, abs=0.5)
    without = solve(keep, child, parent, edge, time_limit_seconds=0)
    assert found.bound > without.bound
    assert found.cost <= without.cost
    assert found.components == 2
    assert found.gap > 0


def test_a_wider_gap_is_kept_to():
    given = hard(600, 3000)
    found = solve(*given, max_gap=0.2, time_limit_seconds=math.inf)
    assert 0 < found.gap <= 0.2


def test_whatever_the_solver_returns_the_choice_can_be_made_and_is_no_worse_than_greedy(monkeypatch):
    given = hard(200, 800)
    without = solve(*given, time_limit_seconds=0)
    for nonsense in (np.zeros_like, np.ones_like, lambda _: None):
        monkeypatch.setattr(program, "_integer_program", lambda *given, make=nonsense: (make(given[2]), -np.inf))
        found = solve(*given)
        assert found.cost <= without.cost
        assert found.bound <= found.cost
        assert (found.parent[found.parent[found.parent >= 0]] == -1).all()


def test_the_greedy_choice_is_near_the_least():
    rng = np.random.default_rng(2)
    ends = np.sort(rng.integers(0, 400, (2, 2000)), axis=0)
    keep, edge = rng.lognormal(0, 1, 400), rng.lognormal(-1, 1, 2000)
    usable = edge < keep[ends[1]]
    part = Part(keep, np.full(400, np.inf), ends[1][usable], ends[0][usable], edge[usable])
    kept, cost = greedy(part)
    least = solve(keep, ends[1], ends[0], edge).cost
    assert least * (1 - 1e-9) <= cost <= 1.02 * least
    assert part.complete(kept)[1] == cost


def test_an_interrupt_ends_the_solver():
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    start = time.monotonic()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            solve(*hard(), time_limit_seconds=40)
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 20


def test_the_solver_is_silent_and_loaded_only_when_needed():
    lines = [
        "import sys, numpy as np",
        "from lakelet.containment.program import solve",
        "solve(np.ones(2), np.array([0]), np.array([1]), np.array([0.5]))",
        "assert 'highspy' not in sys.modules",
        "rng = np.random.default_rng(0)",
        "found = solve(np.ones(90), *rng.integers(0, 90, (2, 300)), rng.random(300))",
        "assert 'highspy' in sys.modules and found.gap == 0",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
