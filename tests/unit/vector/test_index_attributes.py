"""Searches with a condition over attributes: never a row too many, never one too few, whatever was done to the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector import index as index_module
from lakelet.vector import matching as matching_module
from lakelet.vector import planner
from lakelet.vector import units as units_module
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import ALL_TENANTS, PUBLIC
from lakelet.vector.predicates import Tenant

DIM = 16
TYPES = {"year": "int64", "lang": "string", "price": "float64", "tags": "list<string>"}
LANGS = ["de", "en", "fr", None]
CONDITIONS: list[tuple[str, Any]] = [
    ("year >= 2000", lambda row: row["year"] is not None and row["year"] >= 2000),
    ("year = 1995", lambda row: row["year"] == 1995),
    ("lang = 'en'", lambda row: row["lang"] == "en"),
    ("lang <> 'en'", lambda row: row["lang"] not in (None, "en")),
    ("lang IS NULL", lambda row: row["lang"] is None),
    ("price < 0.05 AND lang IN ('en', 'de')", lambda row: row["price"] < 0.05 and row["lang"] in ("en", "de")),
    ("price > 0.9 OR year = 1990", lambda row: row["price"] > 0.9 or row["year"] == 1990),
    ("'a' IN tags", lambda row: row["tags"] is not None and "a" in row["tags"]),
    ("NOT list_has_any(tags, ['a', 'b'])", lambda row: row["tags"] is not None and not {"a", "b"} & set(row["tags"])),
    ("lang LIKE 'e%'", lambda row: row["lang"] == "en"),
    ("year > 5000", lambda row: False),
    ("true", lambda row: True),
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few hundred rows make segments, full deltas and merges."""
    monkeypatch.setattr(units_module, "VECTOR_DELTA_ROWS", 128)
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 400)


def vectors(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, DIM)).astype(np.float32)


def attributes(rows: int, seed: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    tags = [None, [], ["a"], ["b", "a"], ["c"], ["c", "d"]]
    return [
        {
            "year": None if random.random() < 0.1 else int(random.integers(1990, 2010)),
            "lang": LANGS[random.integers(4)],
            "price": float(random.random()),
            "tags": tags[random.integers(6)],
        }
        for _ in range(rows)
    ]


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in TYPES}


class Model:
    """An index beside what it should hold."""

    def __init__(self, metric: str = "l2") -> None:
        self.index = VectorIndex(DIM, metric, attributes=TYPES, threads=1)
        self.rows: dict[int, tuple[np.ndarray, dict[str, Any], set[str]]] = {}

    def add(self, count: int, seed: int, tenants: list[list[str]] | None = None) -> None:
        made, values = vectors(count, seed), attributes(count, seed)
        who = tenants if tenants is not None else [[] for _ in range(count)]
        given_tenants = None if tenants is None else tenants
        ids = self.index.add(made, tenants=given_tenants, attributes=columns(values))
        self.rows.update({int(row): (made[i], values[i], set(who[i])) for i, row in enumerate(ids)})

    def check(self, text: str, fulfils: Any, tenant: Any = None, sees: Any = None, k: int = 10) -> None:
        queries = vectors(3, 77)
        wanted = [row for row, (_, values, who) in self.rows.items() if fulfils(values) and (sees is None or sees(who))]
        apart = np.array([[np.square(query - self.rows[row][0]).sum() for row in wanted] for query in queries])
        found, distances = self.index.search(queries, k, tenant, where=text, exact=True)
        some, _ = self.index.search(queries, k, tenant, where=text)
        if sees is None:  # else a row may stand in several of the lists
            assert sum(step.matches for step in self.index.explain(k, tenant, where=text)) == len(wanted)
        for turn in range(len(queries)):
            expected = [wanted[i] for i in np.argsort(apart[turn], kind="stable")[:k]] if wanted else []
            assert found[turn][: len(expected)].tolist() == expected, text
            assert (found[turn][len(expected) :] == -1).all()
            assert np.isinf(distances[turn][len(expected) :]).all()
            held = some[turn][some[turn] >= 0].tolist()
            assert len(held) == len(set(held)) == min(k, len(wanted)), text
            assert set(held) <= set(wanted), text


@pytest.mark.parametrize("form", ["delta", "deltas", "segment", "mixed"])
@pytest.mark.parametrize(("text", "fulfils"), CONDITIONS)
def test_a_search_finds_the_rows_that_fulfil_the_condition(form: str, text: str, fulfils: Any) -> None:
    model = Model()
    for seed, count in enumerate({"delta": [90], "deltas": [100, 100], "segment": [600], "mixed": [600, 150]}[form]):
        model.add(count, seed)
    model.check(text, fulfils)
    model.check(text, fulfils, k=700)


@pytest.mark.parametrize("way", ["exact", "codes", "tree"])
def test_every_way_keeps_to_the_condition(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def only(*arguments: Any) -> planner.Plan:
        return next(plan for plan in planner.ways(*arguments) if plan.way.value == way)

    model = Model()
    model.add(3_000, 1)
    real = planner.choose
    monkeypatch.setattr(
        "lakelet.vector.search.choose",
        lambda rows, k, ef, exact, *rest: real(rows, k, ef, exact, *rest) if exact else only(rows, k, ef, *rest),
    )
    for text, fulfils in CONDITIONS:
        model.check(text, fulfils)
    assert {step.way for step in model.index.explain(where="year >= 2000")} == {way}


def test_tenants_and_conditions_combine(monkeypatch: pytest.MonkeyPatch) -> None:
    for few in (0.0, 1.0):  # the whole segment's bitmap, or the list looked at by itself
        monkeypatch.setattr(matching_module, "FEW_SHARE", few)
        model = Model()
        random = np.random.default_rng(5)
        for seed, count in enumerate((900, 60)):
            some = [[str(who) for who in random.choice(["x", "y", "z"], random.integers(0, 3))] for _ in range(count)]
            model.add(count, seed, some)
        model.index.grant([1, 2, 3, 950], PUBLIC)
        for row in (1, 2, 3, 950):
            model.rows[row][2].add("all")
        model.index.revoke(several := [row for row, (_, _, who) in model.rows.items() if "x" in who][::7], "x")
        for row in several:
            model.rows[row][2].discard("x")
        model.index.grant([5, 6, 7], "x")
        for row in (5, 6, 7):
            model.rows[row][2].add("x")
        for text, fulfils in CONDITIONS:
            model.check(text, fulfils, "x", lambda who: bool({"x", "all"} & who))
            model.check(text, fulfils, "nobody", lambda who: "all" in who)
            model.check(text, fulfils, ALL_TENANTS)
            model.check(
                text, fulfils, Tenant("x") & ~Tenant("y"), lambda who: ("x" in who and not {"y", "all"} & who) or False
            )


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["few", "many", "delete", "optimize", "wait", "file", "ask"]), min_size=3, max_size=10),
    st.integers(0, 1000),
)
def test_conditions_hold_whatever_is_done_to_the_rows(steps: list[str], seed: int) -> None:
    import tempfile

    units_module.VECTOR_DELTA_ROWS, index_module.VECTOR_BULK_ROWS = 128, 400  # type: ignore[attr-defined]
    model, random = Model(), np.random.default_rng(seed)
    for turn, step in enumerate(steps):
        if step in ("few", "many"):
            model.add(70 if step == "few" else 500, seed + turn)
        elif step == "delete" and model.rows:
            gone = random.choice(list(model.rows), max(1, len(model.rows) // 4), replace=False).tolist()
            model.index.delete(gone)
            for row in gone:
                del model.rows[row]
        elif step == "optimize":
            model.index.optimize()
        elif step == "wait":
            model.index.wait()
        elif step == "file":
            with tempfile.TemporaryDirectory() as folder:
                model.index.save(Path(folder) / "one.lakelet")
                model.index = VectorIndex.load(Path(folder) / "one.lakelet", mmap=False, threads=1)
        for text, fulfils in (CONDITIONS[random.integers(len(CONDITIONS))], CONDITIONS[0]):
            model.check(text, fulfils)
    model.index.wait()


def test_a_saved_index_answers_as_it_did(tmp_path: Path) -> None:
    model = Model()
    model.add(700, 1)
    model.add(90, 2)
    model.index.save(tmp_path / "one.lakelet")
    for mmap in (True, False):
        model.index = VectorIndex.load(tmp_path / "one.lakelet", mmap=mmap, threads=1)
        for text, fulfils in CONDITIONS:
            model.check(text, fulfils)
    model.add(500, 3)
    model.index.delete([0, 5])
    del model.rows[0], model.rows[5]
    model.index.optimize()
    for text, fulfils in CONDITIONS:
        model.check(text, fulfils)


def test_attributes_come_in_many_forms() -> None:
    ways: list[Any] = [
        {"year": [1, 2, None], "lang": ["a", "b", None], "price": [0.5, 1, 2], "tags": [["x"], None, []]},
        {
            "year": pa.array([1, 2, None]),
            "lang": pa.array(["a", "b", None]).dictionary_encode(),
            "price": np.array([0.5, 1, 2]),
            "tags": pa.array([["x"], None, []], pa.list_(pa.string())),
        },
        pa.table({"year": [1, 2, None], "lang": ["a", "b", None], "price": [0.5, 1.0, 2.0], "tags": [["x"], None, []]}),
    ]
    for values in ways:
        index = VectorIndex(2, attributes=TYPES)
        index.add(np.eye(3, 2, dtype=np.float32), ids=[10, 11, 12], attributes=values)
        for text, wanted in (
            ("year = 1", [10]),
            ("lang >= 'b'", [11]),
            ("price >= 1", [11, 12]),
            ("len(tags) = 0", [12]),
        ):
            found, _ = index.search([1.0, 0.0], 3, where=text)
            assert sorted(found[found >= 0].tolist()) == wanted, (values, text)
    index = VectorIndex(2, attributes={"year": int, "lang": str})
    index.add([[0.0, 1.0], [1.0, 0.0]], attributes={"year": 2020})  # one for all, and lang left out
    assert (np.sort(index.search([0.0, 0.0], 2, where="year = 2020 AND lang IS NULL")[0]) == [[0, 1]]).all()


def test_memory_tells_attributes_apart() -> None:
    index = VectorIndex(4, attributes={"a": "int64", "b": "string", "c": "float64"})
    rows = 40_000
    random = np.random.default_rng(0)
    values = {"a": random.integers(0, 50, rows), "b": [f"t{i % 7}" for i in range(rows)], "c": random.random(rows)}
    index.add(random.standard_normal((rows, 4), dtype=np.float32), attributes=values)
    memory = index.memory()
    assert 3 * 3.8 * rows <= memory["attributes"] <= 3 * 4.2 * rows
    assert memory["values"] <= 8 * rows + 1_000, "values that few rows differ in are kept once"
    index.search(random.standard_normal(4, dtype=np.float32), where="a < 7")
    assert index.memory()["attributes"] > memory["attributes"], "what a condition found is kept, and counted"


def test_what_conditions_found_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching_module, "VECTOR_MATCH_BYTES", 20_000)
    model = Model()
    model.add(3_000, 1)
    (segment,) = model.index._units.now
    for year in range(1990, 2010):
        model.check(f"year = {year}", lambda row, year=year: row["year"] == year)
        assert segment.kept.nbytes <= 20_000


def test_a_condition_that_keeps_away_from_the_query_finds_as_much() -> None:
    """The budget of rows is for conditions that hold anywhere; here the cells around the query have no matching row."""
    random = np.random.default_rng(4)
    centres = random.standard_normal((40, 24))
    cell = random.integers(0, 40, 9_000)
    rows = (centres[cell] + 0.7 * random.standard_normal((9_000, 24))).astype(np.float32)
    index = VectorIndex(24, attributes={"cell": "int64"}, threads=1)
    index.add(rows, attributes={"cell": cell})
    queries, of = rows[:60], cell[:60]
    shares = []
    for query, own in zip(queries, of.tolist(), strict=True):
        apart = np.square(centres - centres[own]).sum(axis=1)
        away = [int(each) for each in np.argsort(apart)[12:]]
        asked = {"where": "cell IN $away", "params": {"away": away}}
        assert index.explain(**asked)[0].way == "tree"
        found, true = (index.search(query, 10, exact=exact, **asked)[0] for exact in (False, True))
        assert np.isin(cell[found], away).all()
        shares.append(np.isin(found, true).mean())
    assert np.mean(shares) >= 0.9
