"""Retiring pairs of tables: what is taken, refused or left alone, and who changes the lake meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lakelet
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet import Engine
from lakelet.containment.retirement import plan_retirement
from lakelet.lake.edit import commit_edit, plan_delete, plan_write
from lakelet.lake.errors import Conflict, InvalidInput

ROWS = 4_000
PARENT = pa.table({"id": range(ROWS), "v": np.random.default_rng(0).random(ROWS)})
CHILD = PARENT.slice(500, 2_500)

Retire = Callable[..., Any]


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Engine]:
    with lakelet.connect(tmp_path / "lake") as engine:
        engine.write("p", PARENT)
        engine.write("c", CHILD)
        yield engine


def sources(db: Engine, name: str) -> set[str]:
    """Names of the tables from whose files this one is rebuilt."""
    snapshot = db._catalog.log.latest()
    files = snapshot.table(name).files.values()  # type: ignore[union-attr]
    ids = {source.table_id for file in files if file.recipe for source in file.recipe.sources}
    return {snapshot.tables[table_id].name for table_id in ids}


def whole(db: Engine, name: str, expected: pa.Table) -> None:
    assert db.table(name).to_arrow().equals(expected)
    assert db.sql(f'SELECT * FROM "{name}"').to_arrow_table().equals(expected)


def test_a_retired_table_takes_little_and_reads_as_before(db: Engine, retire: Retire) -> None:
    before = db.table("c").num_bytes
    (one,) = retire(db, ("c", "p"), must_pay=True).retired
    assert (one.table, one.parent, one.num_bytes, one.residual_rows) == ("c", "p", before, 0)
    assert db.table("c").num_bytes == one.recipe_bytes < before / 5
    assert db.table("c").kind == db.tables()["c"].kind == "retired"
    assert db.table("p").kind == "owned"
    whole(db, "c", CHILD)


def test_a_table_whose_recipe_costs_more_is_left_alone(db: Engine, tmp_path: Path, retire: Retire) -> None:
    db.write("tiny", PARENT.slice(0, 3))
    version, files = db.version, sorted((tmp_path / "lake" / "data").rglob("*"))
    found = retire(db, ("tiny", "p"), must_pay=True)
    assert not found.retired
    ((name, reason),) = found.skipped
    assert name == "tiny"
    assert "recipe takes" in reason
    assert db.version == version
    assert sorted((tmp_path / "lake" / "data").rglob("*")) == files


def test_a_table_that_is_retired_already_is_left_alone(db: Engine, retire: Retire) -> None:
    retire(db, ("c", "p"))
    assert [name for name, _ in retire(db, ("c", "p"), must_pay=True).skipped] == ["c"]
    db.write("c", PARENT.slice(0, 1_000), "append")
    retire(db, ("c", "p"))
    whole(db, "c", pa.concat_tables([CHILD, PARENT.slice(0, 1_000)]))


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([("c", "p"), ("c", "q")], "'c' is to be retired twice"),
        ([("c", "p"), ("p", "q")], "'p' is to be retired itself"),
        ([("c", "c")], "'c' is to be retired itself"),
        ([("c", "old")], r"'old' is itself rebuilt.*restore\('old'\)"),
        ([("c", "apart")], r"'apart' is attached.*import_table"),
        ([("c", "foreign")], "columns id, v"),
    ],
)
def test_what_cannot_be_is_refused(
    db: Engine, tmp_path: Path, retire: Retire, pairs: list[tuple[str, str]], words: str
) -> None:
    db.write("q", PARENT)
    db.write("old", PARENT)
    db.write("foreign", PARENT.rename_columns(["a", "b"]))
    pq.write_table(PARENT, tmp_path / "apart.parquet")
    db.attach("apart", tmp_path / "apart.parquet")
    retire(db, ("old", "q"))
    version, files = db.version, sorted((tmp_path / "lake" / "data").rglob("*"))
    with pytest.raises(InvalidInput, match=words):
        retire(db, *pairs)
    assert db.version == version
    assert sorted((tmp_path / "lake" / "data").rglob("*")) == files


def test_an_attached_child_becomes_a_retired_table_and_its_files_stay(
    db: Engine, tmp_path: Path, retire: Retire
) -> None:
    folder = tmp_path / "apart"
    folder.mkdir()
    for at in range(3):
        pq.write_table(CHILD.slice(800 * at, 800), folder / f"{at}.parquet", row_group_size=300)
    pq.write_table(CHILD.slice(0, 0), folder / "none.parquet")
    db.attach("apart", folder)
    assert retire(db, ("apart", "p")).retired[0].residual_rows == 0
    assert db.table("apart").kind == "retired"
    whole(db, "apart", CHILD.slice(0, 2_400))
    assert len(list(folder.iterdir())) == 4


def test_tables_rebuilt_from_one_that_retires_are_rebuilt_from_its_parent(db: Engine, retire: Retire) -> None:
    db.write("grandchild", CHILD.slice(10, 900))
    retire(db, ("grandchild", "c"))
    db.delete("grandchild", "id = 600")
    rows = db.table("grandchild").to_arrow()
    retire(db, ("c", "p"))
    assert sources(db, "grandchild") == {"p"}
    whole(db, "grandchild", rows)
    whole(db, "c", CHILD)


def test_a_table_rebuilt_from_two_that_retire_together(db: Engine, retire: Retire) -> None:
    """Its files stand in another order than the tables that they come from are named."""
    db.write("d", PARENT.slice(3_000, 900))
    db.write("both", PARENT.slice(3_100, 500))
    retire(db, ("both", "d"))
    db.write("both", CHILD.slice(100, 500), "append")
    retire(db, ("both", "c"))
    assert sources(db, "both") == {"c", "d"}
    db.delete("both", "id % 100 = 50")
    rows = db.table("both").to_arrow()
    retire(db, ("c", "p"), ("d", "p"))
    whole(db, "both", rows)
    whole(db, "c", CHILD)
    whole(db, "d", PARENT.slice(3_000, 900))
    assert sources(db, "both") == {"p"}


# --- others, meanwhile ---------------------------------------------------------------------------------------------


def planned(db: Engine, *pairs: tuple[str, str]) -> tuple[Any, Any]:
    base = db._catalog.log.latest()
    return base, plan_retirement(base, db._catalog.store, db.table, pairs, memory_bytes=2**28)


def test_rows_deleted_from_the_parent_meanwhile_make_it_a_conflict(db: Engine) -> None:
    base, found = planned(db, ("c", "p"))
    db.delete("p", "id = 700")
    with pytest.raises(Conflict, match="c"):
        db._commit(found.edit, "retire", base)
    assert db.table("c").kind == "owned"
    whole(db, "c", CHILD)


@pytest.mark.parametrize("edit", ["delete", "append", "drop", "overwrite", "optimize"])
def test_only_pairs_whose_tables_changed_are_left_out(db: Engine, edit: str) -> None:
    other = PARENT.slice(100, 1_500)
    for name in ("e", "q"):
        db.write(name, other)
    db.write("q", PARENT, "append")
    base, found = planned(db, ("c", "p"), ("e", "q"))
    match edit:
        case "delete":
            db.delete("q", "id < 200")
        case "append":
            db.write("e", other, "append")
            other = pa.concat_tables([other, other])
        case "drop":
            db.drop("q")
        case "overwrite":
            db.write("q", PARENT.slice(0, 1), "overwrite")
        case "optimize":
            db.optimize("q")
    db._commit(found.edit, "retire", base)
    assert db.table("c").kind == "retired"
    assert db.table("e").kind == ("retired" if edit == "append" else "owned")
    whole(db, "c", CHILD)
    whole(db, "e", other)


@pytest.mark.parametrize("kind", ["delete", "overwrite"])
def test_rows_that_go_from_the_parent_after_it_became_one_are_kept(db: Engine, retire: Retire, kind: str) -> None:
    """The edit was planned before anything was rebuilt from the rows that it takes away."""
    base, store = db._catalog.log.latest(), db._catalog.store
    if kind == "delete":
        edit = plan_delete(base, store, "p", "id BETWEEN 600 AND 1_700")
    else:
        edit = plan_write(base, store, "p", PARENT.slice(0, 5), "overwrite")
    retire(db, ("c", "p"))
    db._commit(edit, kind, base)
    assert db.table("p").num_rows == (ROWS - 1_101 if kind == "delete" else 5)
    whole(db, "c", CHILD)


def test_a_plain_commit_of_a_retirement_holds_too(db: Engine) -> None:
    base, found = planned(db, ("c", "p"))
    commit_edit(db._catalog.log, base, found.edit, "retire")
    whole(db, "c", CHILD)
