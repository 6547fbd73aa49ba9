"""Retirement, restore, and edits of parents and children that meet: one is planned, another is committed, and then it.

What comes out is what one after the other would have made: every edit that was acknowledged is there, once; a table
that could not be retired any more is left alone, and named.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import lakelet
import numpy as np
import pyarrow as pa
import pytest
from lakelet.lake import catalog as catalog_module
from lakelet.lake.bitwise import differing_rows
from lakelet.lake.errors import Conflict, InvalidInput, LakeletError
from lakelet.lake.log import Log
from lakelet.lake.snapshot import OwnedTable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lakelet.engine import Engine

Tables = dict[str, pa.Table]
DAY = 86_400.0

ROWS = 300
WHOLE = pa.table(
    {
        "id": np.arange(ROWS + 20),
        "s": [np.random.default_rng(number).bytes(20).hex() for number in range(ROWS + 20)],
    }
)
PARENT = WHOLE.slice(0, ROWS)
CHILD = PARENT.slice(40, 200)
OTHER = PARENT.take(np.random.default_rng(1).permutation(ROWS)[:120])
GRANDCHILD = CHILD.slice(30, 100)
MORE = pa.table({"id": [1_000, 1_001], "s": ["m", "n"]})
START: Tables = {"p": PARENT, "child": CHILD, "other": OTHER, "grandchild": GRANDCHILD, "whole": WHOLE}


def without(table: pa.Table, where: Callable[[np.ndarray], np.ndarray]) -> pa.Table:
    return table.filter(pa.array(~where(table["id"].to_numpy())))


# --- what meets ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One operation, and what it makes of the tables."""

    run: Callable[[Engine, dict[str, Any]], Any]
    effect: Callable[[Tables], Tables] = lambda tables: tables


def retire(plan: str) -> Step:
    return Step(lambda db, plans: db.retire(plans[plan]))


def delete_third(tables: Tables) -> Tables:
    return {**tables, "p": without(tables["p"], lambda ids: ids % 3 == 0)}


def delete_tail(tables: Tables) -> Tables:
    return {**tables, "p": without(tables["p"], lambda ids: ids >= 130)}


def dropped(tables: Tables) -> Tables:
    return {name: table for name, table in tables.items() if name != "p"}


def append(tables: Tables) -> Tables:
    return {**tables, "child": pa.concat_tables([tables["child"], MORE])}


def delete_child(tables: Tables) -> Tables:
    return {**tables, "child": without(tables["child"], lambda ids: ids % 7 == 0)}


STEPS = {
    "retire": retire("both"),
    "retire the child": retire("child"),
    "retire elsewhere": retire("elsewhere"),
    "retire the grandchild": retire("grandchild"),
    "retire the parent": retire("parent"),
    "delete": Step(lambda db, _: db.delete("p", "id % 3 = 0"), delete_third),
    "delete or refuse": Step(lambda db, _: db.delete("p", "id % 3 = 0", dependants="refuse"), delete_third),
    "delete the tail": Step(lambda db, _: db.delete("p", "id >= 130"), delete_tail),
    "append": Step(lambda db, _: db.write("child", MORE, "append"), append),
    "overwrite": Step(lambda db, _: db.write("child", MORE, "overwrite"), lambda tables: {**tables, "child": MORE}),
    "delete from the child": Step(lambda db, _: db.delete("child", "id % 7 = 0"), delete_child),
    "optimize": Step(lambda db, _: db.optimize("p")),
    "overwrite the parent": Step(lambda db, _: db.write("p", MORE, "overwrite"), lambda tables: {**tables, "p": MORE}),
    "drop": Step(lambda db, _: db.drop("p"), dropped),
    "drop and restore": Step(lambda db, _: db.drop("p", dependants="restore"), dropped),
    "restore": Step(lambda db, _: db.restore("child")),
    "pin": Step(lambda db, _: db.pin("child", owner="me", reason="mine")),
    "hold": Step(lambda db, _: db.pin("p", "legal-hold")),
}


def planned(db: Engine, **parents: str) -> Any:
    plan = db.containment().plan(prices=lakelet.Prices.s3_standard(), accesses=None, max_restore_seconds=1e9)
    known = plan.candidates
    chosen = [known.position[parents[name]] if name in parents else -1 for name in known.names]
    return replace(plan, _parents=tuple(chosen))


def make_lake(root: Path, first: str) -> dict[str, Any]:
    """The tables, ``first`` done to them, and every plan that can be made then."""
    with lakelet.connect(root) as db:
        db.write("p", PARENT.slice(0, 110))
        db.write("p", PARENT.slice(110, 100), "append")
        db.write("p", PARENT.slice(210), "append")
        for name in ("child", "other", "grandchild", "whole"):
            db.write(name, START[name])
        plans = {}
        if first:
            STEPS[first].run(
                db, {"both": planned(db, child="p", other="p"), "grandchild": planned(db, grandchild="child")}
            )
        plans["parent"] = planned(db, p="whole")
        if first != "retire":
            plans["both"] = planned(db, child="p", other="p")
            plans["child"] = planned(db, child="p")
            plans["elsewhere"] = planned(db, child="whole")
            if not first:
                plans["grandchild"] = planned(db, grandchild="child")
        return plans


@pytest.fixture(autouse=True)
def long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is committed ten days ago, so that it can be expired now."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(
        catalog_module, "Log", lambda store, read_only: Log(store, read_only, clock=lambda: time.time() - 10 * DAY)
    )


# --- the meeting ---------------------------------------------------------------------------------------------------


def meet(
    root: Path, plans: dict[str, Any], one: str, other: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, Any]:
    """``one`` is planned, ``other`` is committed, then ``one``. What became of each: what it returned, or its error.

    ``moment``: "planned", before the tables that are rebuilt were looked for; "carried", after.
    """
    told: list[Any] = []
    where, name = (catalog_module.Catalog, "commit") if moment == "planned" else (catalog_module, "commit_edit")
    real = getattr(where, name)

    def commit(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(where, name, real)
        with lakelet.connect(root) as db:
            told.append(outcome(db, other, plans))
        return real(*args, **kwargs)

    monkeypatch.setattr(where, name, commit)
    with lakelet.connect(root) as db:
        mine = outcome(db, one, plans)
    assert told, "the other one had its turn"
    return mine, told[0]


def outcome(db: Engine, name: str, plans: dict[str, Any]) -> Any:
    try:
        return STEPS[name].run(db, plans)
    except (Conflict, InvalidInput) as error:
        return error


def check(root: Path, steps: list[tuple[str, Any]]) -> dict[str, str]:
    """The lake is what the acknowledged steps make of it, also once what is old was swept. Returns kinds by table."""
    expected = START
    for name, told in steps:
        if not isinstance(told, LakeletError):
            expected = STEPS[name].effect(expected)
    check_tables(root, expected)
    then = time.time() - 10 * DAY
    for folder, _, names in os.walk(root):
        for name in names:
            os.utime(os.path.join(folder, name), (then, then))
    with lakelet.connect(root) as db:
        db._catalog.log = Log(db._catalog.store)
        db.expire(2 * DAY)
        db.vacuum()
        needed = {path for table in owned(db) for file in table.files.values() for path in file.paths()}
        assert {info.path for info in db._catalog.store.list("data/")} == needed
    check_tables(root, expected)
    with lakelet.connect(root) as db:
        there = {file.path for table in owned(db) for file in table.files.values()}
        recipes = [file.recipe for table in owned(db) for file in table.files.values() if file.recipe]
        assert {source.path for recipe in recipes for source in recipe.sources} <= there
        return {name: info.kind for name, info in db.tables().items()}


def owned(db: Engine) -> list[OwnedTable]:
    return [table for table in db._snapshot().tables.values() if isinstance(table, OwnedTable)]


def check_tables(root: Path, expected: Tables) -> None:
    with lakelet.connect(root) as db:
        assert set(db.tables()) == set(expected)
        for name, table in expected.items():
            found = db.table(name).to_arrow()
            assert found.schema.equals(table.schema)
            assert found.num_rows == table.num_rows, name
            assert not any(differing_rows(a, b).size for a, b in zip(found.columns, table.columns, strict=True)), name


DONE, CONFLICT, REFUSED = "", "Conflict", "InvalidInput"
BOTH = "child other"

MEETINGS = [
    # what was done before; what is planned; what is committed then; what is told of the first, or the tables that it
    # skips; which tables are retired in the end
    ("", "retire", "delete", CONFLICT, ""),
    ("", "delete", "retire", DONE, BOTH),
    ("", "delete or refuse", "retire", REFUSED, BOTH),
    ("", "retire", "append", DONE, BOTH),
    ("", "append", "retire", DONE, BOTH),
    ("", "retire", "overwrite", "child", "other"),
    ("", "overwrite", "retire", DONE, "other"),
    ("", "retire", "delete from the child", "child", "other"),
    ("", "delete from the child", "retire", DONE, BOTH),
    ("", "retire", "optimize", CONFLICT, ""),
    ("", "optimize", "retire", DONE, BOTH),
    ("", "retire", "overwrite the parent", CONFLICT, ""),
    ("", "overwrite the parent", "retire", REFUSED, BOTH),
    ("", "retire", "drop", CONFLICT, ""),
    ("", "drop", "retire", CONFLICT, BOTH),
    ("", "drop and restore", "retire", CONFLICT, BOTH),
    ("", "retire", "retire the child", "child", BOTH),
    ("", "retire the child", "retire", CONFLICT, BOTH),
    ("", "retire", "retire elsewhere", "child", BOTH),
    ("", "retire elsewhere", "retire", CONFLICT, BOTH),
    ("", "retire", "retire the grandchild", DONE, BOTH),
    ("", "retire the grandchild", "retire", CONFLICT, BOTH),
    ("", "retire", "retire the parent", CONFLICT, "p"),
    ("", "retire the parent", "retire", DONE, "p"),
    ("", "retire", "pin", "child", "other"),
    ("", "pin", "retire", DONE, BOTH),
    ("", "retire", "hold", DONE, BOTH),
    ("retire", "restore", "delete", DONE, "other"),
    ("retire", "delete", "restore", DONE, "other"),
    ("retire", "restore", "optimize", DONE, "other"),
    ("retire", "optimize", "restore", DONE, "other"),
    ("retire", "restore", "drop and restore", DONE, ""),
    ("retire", "drop and restore", "restore", CONFLICT, "other"),
    ("retire", "delete the tail", "delete", DONE, BOTH),
    ("retire", "delete", "delete the tail", DONE, BOTH),
    ("retire", "delete", "optimize", DONE, BOTH),
    ("retire", "optimize", "delete", CONFLICT, BOTH),
    ("retire", "delete", "append", DONE, BOTH),
    ("retire", "append", "delete", DONE, BOTH),
    ("retire", "delete", "delete from the child", DONE, BOTH),
    ("retire", "delete from the child", "delete", DONE, BOTH),
    ("retire", "delete", "hold", REFUSED, BOTH),
    ("retire", "retire the parent", "delete", CONFLICT, BOTH),
    ("retire", "delete", "retire the parent", DONE, "child other p"),
    ("retire", "retire the parent", "restore", "child", "other p"),
    ("retire", "restore", "retire the parent", DONE, "other p"),
    ("retire", "retire the parent", "append", DONE, "child other p"),
    ("retire", "append", "retire the parent", DONE, "child other p"),
    ("retire the grandchild", "retire the child", "delete from the child", CONFLICT, "grandchild"),
    ("retire the grandchild", "delete from the child", "retire the child", DONE, "child grandchild"),
]


@pytest.mark.parametrize("moment", ["planned", "carried"])
@pytest.mark.parametrize(("first", "one", "other", "expected", "retired"), MEETINGS)
def test_what_meets_is_as_one_after_the_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    one: str,
    other: str,
    expected: str,
    retired: str,
    moment: str,
) -> None:
    root = tmp_path / "lake"
    plans = make_lake(root, first)
    mine, theirs = meet(root, plans, one, other, moment, monkeypatch)
    assert not isinstance(theirs, LakeletError), "nobody was before it"
    if isinstance(mine, LakeletError):
        assert type(mine).__name__ == expected
        if one == "retire":
            assert all(name in str(mine) for name in BOTH.split())
    else:
        assert " ".join(name for name, _ in getattr(mine, "skipped", ())) == expected
    kinds = check(root, [(other, theirs), (one, mine)])
    assert " ".join(name for name, kind in kinds.items() if kind == "retired") == retired
