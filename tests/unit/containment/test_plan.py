"""The plan: what it weighs, what rules pairs out, what it says, and what it refuses."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import lakelet
import numpy as np
import pyarrow as pa
import pytest
from lakelet import Engine, InvalidInput, NotFound, Prices
from lakelet.containment.plan import Limits
from lakelet.containment.throughput import Throughput
from lakelet.containment.usage import MONTH_DAYS, overwrites_of, rewrites_of
from lakelet.lake.changes import Commit

ROWS = 40_000
FAST = Throughput(1e9, 1e9, 0.0)


def orders() -> pa.Table:
    rng = np.random.default_rng(3)
    return pa.table({"id": np.arange(ROWS), "a": rng.random(ROWS), "b": rng.random(ROWS), "day": np.arange(ROWS) // 40})


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Engine]:
    """orders, a copy, three quarters of it in order, and a hundredth at random; and one that is in no other."""
    rng = np.random.default_rng(4)
    with lakelet.connect(tmp_path / "lake") as db:
        whole = orders()
        db.write("orders", whole)
        db.write("copy", whole)
        db.write("most", whole.filter(pa.array(rng.random(ROWS) < 0.75)))
        db.write("few", whole.take(pa.array(np.sort(rng.permutation(ROWS)[: ROWS // 100]))))
        db.write("alone", pa.table({"id": [-1, -2]}))
        yield db


def planned(db: Engine, **options: Any) -> Any:
    return db.containment().plan(**{"throughput": FAST, **options})


def retired(plan: Any) -> dict[str, str]:
    return dict(plan.pairs)


def test_the_cheapest_plan_keeps_one_of_two_copies_and_what_is_spread_too_thin(db: Engine) -> None:
    plan = planned(db)
    assert retired(plan) == {"copy": "orders", "most": "orders"}
    assert plan.gap == 0
    row = {row["table"]: row for row in plan.actions.to_pylist()}
    retiring = {name for name in row if row[name]["action"] == "retire"}
    assert retiring == {"copy", "most"}
    assert row["copy"]["saves_per_month"] > row["most"]["saves_per_month"] > 0 == row["few"]["saves_per_month"]
    assert row["few"]["parent"] is None
    reasons = {name: row[name]["reason"] for name in ("alone", "few", "orders", "copy")}
    assert reasons == {
        "alone": "no other table contains all its rows",
        "few": "every table that contains it is beyond a limit",
        "orders": "others are rebuilt from it",
        "copy": "all its rows are in orders",
    }
    assert plan.saves_per_month == pytest.approx(sum(one["saves_per_month"] for one in row.values()))
    assert plan.cost_per_month_before > plan.saves_per_month
    assert plan.retired_bytes == row["copy"]["num_bytes"] + row["most"]["num_bytes"]
    assert plan.actions.column("saves_per_month").to_pylist() == sorted(
        plan.actions.column("saves_per_month").to_pylist(), reverse=True
    )


def test_the_plan_equals_brute_force_over_all_choices(db: Engine) -> None:
    plan = planned(db, max_read_amplification=1_000)
    known = plan.candidates
    best = np.inf
    count = len(known.names)
    for kept in itertools.product([False, True], repeat=count):
        cost = 0.0
        for table in range(count):
            ways = [
                plan.pair_cost(n)
                for n in known.of_child.get(table, ())
                if kept[known.pairs[n].parent] and known.pairs[n].within(plan.limits, FAST)
            ]
            cost += plan.kept_cost(table) if kept[table] else min(ways, default=np.inf)
        best = min(best, cost)
    assert plan.cost_per_month_before - plan.saves_per_month == pytest.approx(best, rel=1e-9)


def test_limits_rule_pairs_out(db: Engine) -> None:
    assert "few" in retired(planned(db, max_read_amplification=1_000, payback_months=1e9))
    slow = Throughput(1e6, 1e6, 0.0)
    plan = planned(db, throughput=slow, max_restore_seconds=1e-3)
    assert retired(plan) == {}
    assert "beyond max_restore_seconds" in plan.explain("copy")
    assert retired(plan.what_if(max_restore_seconds=60)) == retired(planned(db))
    for name, value in [("max_restore_seconds", 0), ("max_read_amplification", -1), ("payback_months", 0)]:
        with pytest.raises(InvalidInput, match=name):
            planned(db, **{name: value})
    with pytest.raises(InvalidInput, match="max_restore_seconds"):
        Limits("60")  # type: ignore[arg-type]


def test_unknown_reads_are_not_none(tmp_path: Path, db: Engine) -> None:
    with lakelet.connect(tmp_path / "other") as other:
        other.attach_all(tmp_path / "lake" / "data")
        graph = other.containment()
        plan = graph.plan(throughput=FAST, assume_owned=True)
        assert plan.pairs == []
        assert set(plan.actions.column("reason").to_pylist()) == {"how often it is read is unknown"}
        assert len(graph.plan(throughput=FAST, assume_owned=True, unknown_reads_per_month=1).pairs) == 2
        alone = graph.plan(throughput=FAST, unknown_reads_per_month=1)
        assert alone.pairs == []
        assert any("import_table" in alone.explain(name) for name in graph.names)
        assert sum("import_table" in reason for reason in alone.actions.column("reason").to_pylist()) > 1


def test_reads_are_what_the_caller_says(tmp_path: Path, db: Engine) -> None:
    busy = dict.fromkeys(["orders", "copy", "most", "few"], 0.0) | {"most": 1e6}
    assert "most" not in retired(planned(db, accesses=busy))
    assert "most" in retired(planned(db, accesses=busy | {"most": 0.0}))
    assert "alone" not in planned(db, accesses=busy).explain("orders")
    with pytest.raises(InvalidInput, match="nobody"):
        planned(db, accesses={"nobody": 1.0})
    with pytest.raises(InvalidInput, match="-1"):
        planned(db, accesses={"orders": -1.0})
    with pytest.raises(InvalidInput, match="int, expected reads"):
        planned(db, accesses=3)
    events = tmp_path / "events.csv"
    days = [f"2026-01-{1 + i % 30:02}T0{i % 10}:00" for i in range(3_000)]
    events.write_text("table,time\n" + "\n".join(f"most,{day}" for day in days) + "\n")
    plan = planned(db, accesses=events)
    assert plan.candidates.reads[plan.candidates.position["most"]] == pytest.approx(3_001)
    assert plan.candidates.reads[plan.candidates.position["few"]] == pytest.approx(1)


def test_the_catalog_counts_reads(db: Engine) -> None:
    for _ in range(5):
        db.table("most").to_arrow(columns=["id"])
    db.sql("SELECT count(*) FROM most").fetchall()
    plan = planned(db)
    assert plan.candidates.reads[plan.candidates.position["most"]] == pytest.approx(7)
    assert plan.candidates.reads[plan.candidates.position["few"]] == pytest.approx(1)


def test_rewrites_of_parents_cost(db: Engine) -> None:
    db.write("few", orders().slice(9_000, 400), mode="overwrite")  # of rows that stay in both
    for day in range(3):
        db.delete("copy", where="day = $day", params={"day": day})
    plan = planned(db)
    known = plan.candidates
    assert known.overwrites == {known.position["few"]: 1}
    assert known.rewrites[known.position["copy"]] == 3
    moving, still = (known.number[known.position["few"], known.position[name]] for name in ("copy", "orders"))
    assert plan.pair_cost(moving) > plan.pair_cost(still)


def test_rewrites_are_counted_over_a_month() -> None:
    day, now = 86_400_000_000, 400 * 86_400_000_000

    def commit(days_ago: float, operation: str) -> Commit:
        return Commit(1, int(now - days_ago * day), operation, "id", ("t",))

    assert rewrites_of([], now) == {}
    assert rewrites_of([commit(1, "append t"), commit(2, "create t")], now) == {}
    history = [commit(1, "delete t"), commit(29, "optimize t"), commit(40, "merge t"), commit(5, "overwrite t")]
    assert rewrites_of(history, now) == {"t": 2}
    assert overwrites_of(history, now) == {"t": 1}
    assert MONTH_DAYS == 30
    assert dt.timedelta(days=MONTH_DAYS)


def test_prices_decide_and_need_no_new_search(db: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(db, passes_per_month=0)
    monkeypatch.setattr("lakelet.lake.fragment.Fragment._open", _unread)
    costs = {name: plan.what_if(prices=Prices.named(name)).saves_per_month for name in Prices.names()}
    assert len(set(costs.values())) > 3
    dear = plan.prices.replace(storage_per_gb_month=plan.prices.storage_per_gb_month * 10)
    assert plan.what_if(prices=dear).saves_per_month > 5 * plan.saves_per_month
    free = plan.prices.replace(storage_per_gb_month=0.0, read_per_1000_requests=100.0)
    assert not plan.what_if(prices=free).pairs
    with pytest.raises(InvalidInput, match="price, expected"):
        plan.what_if(price=dear)


def _unread(*_: object) -> None:
    raise AssertionError("a file was opened")


def test_tables_that_must_stay_stay_and_serve_others(db: Engine) -> None:
    plan = planned(db, keep={"copy": "finance wants it"})
    assert retired(plan) == {"orders": "copy", "most": "copy"}
    assert "Finance wants it." in plan.explain("copy")
    assert retired(planned(db, keep=["orders", "copy", "most", "few"])) == {}
    with pytest.raises(InvalidInput, match="nobody"):
        planned(db, keep=["nobody"])
    db.pin("copy", owner="Ann", reason="audit")
    plan = planned(db)
    assert retired(plan) == {"orders": "copy", "most": "copy"}
    assert "It is pinned by Ann: audit." in plan.explain("copy")


def test_explain_tells_both_ways(db: Engine) -> None:
    plan = planned(db)
    assert plan.explain("copy").startswith("copy: retire, and rebuild it from orders.\nIt saves ")
    assert "2 other tables are to be rebuilt from it." in plan.explain("orders")
    assert "that table is retired itself" in plan.explain("most")
    assert "beyond max_read_amplification=10" in plan.explain("few")
    assert "No other table contains all its rows." in plan.explain("alone")
    with pytest.raises(NotFound, match="nobody"):
        plan.explain("nobody")


def test_the_frontier_rises_and_is_drawn(db: Engine, tmp_path: Path) -> None:
    plan = planned(db, throughput=Throughput(1e7, 1e7, 0.0))
    frontier = plan.frontier()
    seconds, saved = (frontier.column(name).to_pylist() for name in ("max_restore_seconds", "saves_per_month"))
    assert seconds == sorted(seconds)
    assert saved == sorted(saved)
    assert saved[-1] == pytest.approx(plan.saves_per_month)
    plan.plot(tmp_path / "frontier.svg")
    drawn = ET.parse(tmp_path / "frontier.svg").getroot()
    assert drawn.tag.endswith("svg")
    assert drawn.find("{http://www.w3.org/2000/svg}polyline") is not None
    with pytest.raises(lakelet.Unavailable, match="cannot be written"):
        plan.plot(tmp_path / "no" / "frontier.svg")
    assert planned(db, keep=list(db.tables())).frontier().num_rows >= 0


def test_the_speed_is_measured_or_given(db: Engine) -> None:
    plan = db.containment().plan()
    assert plan.throughput.read_bytes_per_second > 0
    with pytest.raises(InvalidInput, match="throughput"):
        Throughput(0, 1, 1)


def test_an_empty_lake_and_a_lake_without_redundancy_have_plans(tmp_path: Path) -> None:
    with lakelet.connect(tmp_path / "lake") as db:
        assert db.containment().plan().actions.num_rows == 0
        db.write("t", pa.table({"a": [1]}))
        plan = db.containment().plan()
        assert plan.actions.column("action").to_pylist() == ["keep"]
        assert db.retire(plan).version == db.version


def test_estimated_recipes_are_not_below_the_real_ones_by_much(db: Engine) -> None:
    plan = planned(db)
    estimated = dict(zip(*(plan.actions.column(name).to_pylist() for name in ("table", "recipe_bytes")), strict=True))
    for one in db.retire(plan).retired:
        assert one.recipe_bytes <= 1.5 * estimated[one.table]
