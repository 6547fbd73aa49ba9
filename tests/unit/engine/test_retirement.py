"""Retiring and restoring by the face: what changes, what stays, what is refused."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import lakelet
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet import Conflict, Engine, InvalidInput, NotFound
from lakelet.lake.accesses import AccessCounter
from lakelet.lake.bitwise import differing_rows
from lakelet.lake.derived import DerivedFragment
from lakelet.lake.fragment import Fragment

ROWS = 60_000


def orders() -> pa.Table:
    rng = np.random.default_rng(7)
    columns = {
        "id": pa.array(np.arange(ROWS)),
        "price": pa.array(rng.choice([0.0, -0.0, 1.5, np.nan], ROWS)),
        "weight": pa.array(rng.random(ROWS)),
        "kind": pa.array(rng.choice(["a", "b", "c"], ROWS)).dictionary_encode(),
    }
    return pa.table(columns, metadata={"owner": "finance"})


def kept(part: float = 0.6) -> pa.Table:
    return orders().filter(pa.array(np.random.default_rng(8).random(ROWS) < part)).select(["kind", "id", "weight"])


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Engine]:
    with lakelet.connect(tmp_path / "lake") as db:
        db.write("orders", orders())
        db.write("some", kept())
        yield db


def retire(db: Engine, **options: Any) -> Any:
    return db.retire(db.containment().plan(), **options)


def check(db: Engine, name: str, expected: pa.Table) -> None:
    """The table is that, to the bit, by scan and by SQL."""
    found = db.table(name).to_arrow()
    assert found.schema.equals(expected.schema, check_metadata=True)
    assert found.num_rows == expected.num_rows
    by_sql = db.sql(f'SELECT * FROM "{name}"').to_arrow_table()
    for field in expected.schema:
        assert differing_rows(found[field.name], expected[field.name]).size == 0
        assert differing_rows(by_sql[field.name].cast(field.type), expected[field.name]).size == 0


def test_a_retired_table_reads_as_before_and_takes_a_fraction(db: Engine) -> None:
    before = db.table("some").num_bytes
    done = retire(db)
    (one,) = done.retired
    assert (one.table, one.parent, one.num_bytes, one.residual_rows) == ("some", "orders", before, 0)
    assert not done.skipped
    assert done.version == db.version
    assert done.saved_bytes == before - one.recipe_bytes > 0.8 * before
    assert db.tables()["some"].kind == db.table("some").kind == "retired"
    assert db.tables()["some"].parents == ("orders",)
    assert db.tables()["orders"].parents == ()
    assert db.table("some").num_bytes == one.recipe_bytes < 0.13 * ROWS + 3_000
    check(db, "some", kept())
    few = db.table("some").to_arrow(columns=["weight"], where="id BETWEEN $a AND $b", params={"a": 100, "b": 200})
    assert few.equals(
        kept().filter((pa.compute.field("id") >= 100) & (pa.compute.field("id") <= 200)).select(["weight"])
    )
    assert db.history()[0].operation == "retire"
    assert db.history()[0].tables == ("some",)


def test_earlier_versions_are_what_they_were(db: Engine) -> None:
    version = db.version
    retire(db)
    assert db.table("some", version=version).kind == "owned"
    check(db.at(version=version), "some", kept())


def test_containment_knows_a_retired_table_without_reading_it(db: Engine) -> None:
    before = db.containment().edges
    retire(db)
    graph = db.containment()
    assert graph.edges.equals(before)
    assert graph.stages.num_rows == 0
    assert graph.plan().pairs == []
    assert "rebuilt from another table already" in graph.plan().explain("some")


def test_restore_gives_files_of_its_own(db: Engine) -> None:
    size = db.table("some").num_bytes
    retire(db)
    version = db.restore("some")
    assert version == db.version
    assert db.tables()["some"].kind == "owned"
    assert abs(db.table("some").num_bytes - size) < 0.1 * size
    check(db, "some", kept())
    db.drop("orders")
    check(db, "some", kept())
    assert db.restore("some") == db.version, "nothing to restore, nothing changed"
    with pytest.raises(NotFound, match="nobody"):
        db.restore("nobody")


def test_a_retired_table_is_written_to_like_any_other(db: Engine) -> None:
    retire(db)
    db.write("some", kept().slice(0, 10), mode="append")
    db.delete("some", where="id < 1000")
    db.merge("some", kept().slice(30_000, 5), on=["id"])
    expected = pa.concat_tables([kept(), kept().slice(0, 10)])
    expected = expected.filter(pa.compute.field("id") >= 1000)
    replaced = kept().slice(30_000, 5)
    expected = expected.filter(pa.compute.invert(pa.compute.is_in(expected["id"], replaced["id"])))
    check(db, "some", pa.concat_tables([expected, replaced]))
    assert db.tables()["some"].kind == "retired"


def test_rows_deleted_in_the_parent_stay_in_the_child_alone(db: Engine) -> None:
    retire(db)
    db.delete("orders", where="id < 500")
    check(db, "some", kept())
    with pytest.raises(InvalidInput, match="'some'"):
        db.delete("orders", where="id < 900", dependants="refuse")
    db.delete("orders", where="id > 30000")
    db.optimize("orders")
    check(db, "some", kept())
    assert db.table("orders").num_rows == 30_001 - 500


def test_drop_and_overwrite_of_a_parent_refuse_or_restore(db: Engine) -> None:
    retire(db)
    version = db.version
    for refused in (
        lambda: db.drop("orders"),
        lambda: db.write("orders", orders(), mode="overwrite"),
        lambda: _dropped_in_transaction(db),
    ):
        with pytest.raises(InvalidInput, match=r"'some'.*dependants='restore'"):
            refused()
    assert db.version == version
    with pytest.raises(InvalidInput, match="perhaps"):
        db.drop("orders", dependants="perhaps")  # type: ignore[arg-type]
    db.write("orders", orders().slice(0, 5), mode="overwrite", dependants="restore")
    assert db.tables()["some"].kind == "owned"
    check(db, "some", kept())


def _dropped_in_transaction(db: Engine) -> None:
    with db.transaction() as tx:
        tx.drop("orders")


def test_parent_and_child_may_go_together(db: Engine) -> None:
    retire(db)
    with db.transaction() as tx:
        tx.drop("some")
        tx.drop("orders")
    assert db.tables() == {}


def test_retiring_a_parent_moves_its_dependants_to_its_own_parent(db: Engine) -> None:
    retire(db)
    db.write("archive", pa.concat_tables([orders(), orders().slice(0, 10)]))
    db.pin("archive")
    done = retire(db)
    assert [(one.table, one.parent) for one in done.retired] == [("orders", "archive")]
    check(db, "orders", orders())
    check(db, "some", kept())
    with pytest.raises(InvalidInput, match="'orders', 'some'"):
        db.drop("archive")
    db.unpin("archive")
    db.drop("archive", dependants="restore")
    check(db, "orders", orders())
    check(db, "some", kept())


def test_a_plan_of_yesterday_is_refused(db: Engine) -> None:
    plan = db.containment().plan()
    db.delete("some", where="id = 5")
    with pytest.raises(Conflict, match=r"'some' changed since the containment graph was made"):
        db.retire(plan)
    plan = db.containment().plan()
    db.write("orders", orders().slice(0, 1), mode="append")
    with pytest.raises(Conflict, match="'orders' changed"):
        db.retire(plan)
    plan = db.containment().plan()
    db.drop("some")
    with pytest.raises(NotFound, match="some"):
        db.retire(plan)


def test_pins_hold(db: Engine) -> None:
    plan = db.containment().plan()
    db.pin("some", owner="Ann", reason="audit")
    with pytest.raises(InvalidInput, match="pinned by Ann: audit"):
        db.retire(plan)
    assert db.tables()["some"].kind == "owned"
    db.delete("some", where="id = 0")
    db.pin("some", "legal-hold", reason="case 7")
    for refused in (
        lambda: db.delete("some", where="id < 100"),
        lambda: db.merge("some", kept().slice(9, 1), on=["id"]),
        lambda: db.write("some", kept(), mode="overwrite"),
        lambda: db.drop("some"),
    ):
        with pytest.raises(InvalidInput, match="legal hold: case 7"):
            refused()
    db.write("some", kept().slice(0, 1), mode="append")
    db.optimize("some")
    db.unpin("some")
    db.drop("some")
    for bad in ("", "maybe"):
        with pytest.raises(InvalidInput, match="pin"):
            db.pin("orders", bad)  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="nobody"):
        db.pin("nobody")


def test_a_hold_on_an_attached_table_holds_and_pins_survive_an_import(tmp_path: Path, db: Engine) -> None:
    pq.write_table(kept(0.3), tmp_path / "part.parquet")
    db.attach("part", tmp_path / "part.parquet")
    db.pin("part", "legal-hold", reason="case 7")
    for refused in (lambda: db.drop("part"), lambda: db.import_table("part")):
        with pytest.raises(InvalidInput, match="legal hold: case 7"):
            refused()
    assert db.tables()["part"].kind == "attached"
    db.pin("part", owner="Ann", reason="audit")
    db.import_table("part")
    assert db.tables()["part"].kind == "owned"
    assert "It is pinned by Ann: audit." in db.containment().plan().explain("part")


def test_a_pin_may_be_part_of_a_transaction(db: Engine) -> None:
    with db.transaction() as tx:
        tx.write("new", kept().slice(0, 5))
        tx.pin("new", "legal-hold", reason="case 8")
    with pytest.raises(InvalidInput, match="case 8"):
        db.drop("new")


def test_what_is_no_table_of_the_lake_is_named(tmp_path: Path, db: Engine) -> None:
    pq.write_table(kept(0.3), tmp_path / "part.parquet")
    db.attach("part", tmp_path / "part.parquet")
    with pytest.raises(InvalidInput, match="nothing to restore"):
        db.restore("part")
    with pytest.raises(InvalidInput, match="import_table"):
        db.export_view("part", tmp_path)
    with pytest.raises(NotFound, match="did you mean 'some'"):
        db.restore("sone")


def test_a_condition_reads_only_the_row_groups_that_may_hold_a_match(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 1_000_000
    parent = pa.table({"id": np.arange(rows), "value": np.random.default_rng(1).random(rows)})
    with lakelet.connect(tmp_path / "lake") as db:
        db.write("parent", parent)
        db.write("child", parent.filter(pa.array(np.random.default_rng(2).random(rows) < 0.5)))
        retire(db)
        assert db.tables()["child"].kind == "retired"
        read: list[int] = []
        real = Fragment.read

        def counted(self: Fragment, columns: Any = None, row_groups: Any = None) -> pa.Table:
            if not isinstance(self, DerivedFragment):
                read.extend(row_groups or range(len(self.row_group_rows)))
            return real(self, columns, row_groups)

        monkeypatch.setattr(Fragment, "read", counted)
        found = db.table("child").to_arrow(columns=["value"], where="id BETWEEN 700000 AND 700010")
        groups = len(db.table("parent").fragments()[0].row_group_rows)
    assert 0 < found.num_rows <= 11
    assert groups >= 8
    assert 0 < len(set(read)) <= 4


def test_reads_are_counted_but_by_readers_that_write_nothing(db: Engine) -> None:
    entry = db._catalog.log.latest().table("some")
    assert entry is not None
    db.table("some").to_arrow()
    list(db.table("some").scan())
    db.sql('SELECT count(*) FROM "some"').fetchall()
    db.containment()
    with lakelet.connect(db.uri, read_only=True) as reader:
        reader.table("some").to_arrow()
    today = dt.datetime.now(dt.UTC).date()
    assert db._catalog.read_counts(today - dt.timedelta(days=1)).reads(entry.table_id, today, 2) == 3


def test_vacuum_sums_up_old_read_counts(db: Engine) -> None:
    entry = db._catalog.log.latest().table("some")
    assert entry is not None
    store, clock = db._catalog.store, time.time() - 5 * 86_400
    for _ in range(3):
        counter = AccessCounter(store, clock=lambda: clock)
        counter.count(entry.table_id)
        counter.close()
    assert len(list(store.list("_lakelet/accesses/"))) == 3
    db.vacuum(dry_run=True)
    assert len(list(store.list("_lakelet/accesses/"))) == 3
    db.vacuum()
    assert len(list(store.list("_lakelet/accesses/"))) == 1
    today = dt.datetime.now(dt.UTC).date()
    assert db._catalog.read_counts(today - dt.timedelta(days=9)).reads(entry.table_id, today, 9) == 3


def test_pins_survive_a_checkpoint(tmp_path: Path, db: Engine) -> None:
    retire(db)
    db.pin("some", "legal-hold", owner="Ann", reason="audit")
    for i in range(101):
        db.create_view("v", f"SELECT {i} AS i")
    db.close()
    with lakelet.connect(tmp_path / "lake") as again:
        check(again, "some", kept())
        with pytest.raises(InvalidInput, match="legal hold by Ann: audit"):
            again.drop("some")
        with pytest.raises(InvalidInput, match="'some'"):
            again.drop("orders")


def test_approvals_are_needed_when_they_are_asked_for(db: Engine, tmp_path: Path) -> None:
    plan = db.containment().plan()
    file = tmp_path / "approvals.toml"
    with pytest.raises(NotFound, match="approvals"):
        db.retire(plan, approvals=file)
    for text, words in (
        ("x =", "TOML"),
        ('[other]\nowner = "a"\nreason = "b"', "'some'"),
        ('[some]\nowner = "a"', "'some'"),
    ):
        file.write_text(text)
        with pytest.raises(InvalidInput, match=words):
            db.retire(plan, approvals=file)
    assert db.tables()["some"].kind == "owned"
    file.write_text('[some]\nowner = "Ann"\nreason = "all of it is in orders"\n')
    assert len(db.retire(plan, approvals=file).retired) == 1


def test_an_attached_table_is_rebuilt_and_its_files_go_after_a_second_proof(tmp_path: Path, db: Engine) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    pq.write_table(kept(0.3), folder / "part.parquet")
    db.attach("part", folder)
    expected = db.table("part").to_arrow()
    plan = db.containment().plan(unknown_reads_per_month=0)
    assert ("part", "orders") in plan.pairs or ("part", "some") in plan.pairs
    db.retire(plan)
    assert db.tables()["part"].kind == "retired"
    check(db, "part", expected)
    assert (folder / "part.parquet").exists()
    with pytest.raises(NotFound, match="not attached"):
        db.delete_retired("orders")
    assert db.delete_retired("part", dry_run=True) == (str(folder / "part.parquet"),)
    data = (folder / "part.parquet").read_bytes()
    pq.write_table(kept(0.3).slice(1), folder / "part.parquet")
    with pytest.raises(Conflict, match="changed since"):
        db.delete_retired("part")
    (folder / "part.parquet").write_bytes(data)
    with pytest.raises(Conflict, match="changed since"):
        db.delete_retired("part")
    assert (folder / "part.parquet").exists()
    check(db, "part", expected)


def test_former_files_are_deleted_once_compared(tmp_path: Path, db: Engine) -> None:
    file = tmp_path / "part.parquet"
    pq.write_table(kept(0.3), file)
    db.attach("part", file)
    expected = db.table("part").to_arrow()
    db.retire(db.containment().plan(unknown_reads_per_month=0))
    db.delete("part", where="id < 10000")
    with pytest.raises(InvalidInput, match="was changed since"):
        db.delete_retired("part")
    assert file.exists()
    db.write("part", expected.schema.empty_table(), mode="append")
    db.drop("part")
    db.attach("part", file)
    db.retire(db.containment().plan(unknown_reads_per_month=0))
    db.attach("again", file)
    with pytest.raises(InvalidInput, match="also those of the attached table 'again'"):
        db.delete_retired("part")
    assert file.exists()
    db.drop("again")
    assert db.delete_retired("part") == (str(file),)
    assert not file.exists()
    check(db, "part", expected)
    with pytest.raises(NotFound, match="no files wait"):
        db.delete_retired("part")


def test_attached_parents_are_refused(tmp_path: Path) -> None:
    with lakelet.connect(tmp_path / "lake") as db:
        pq.write_table(orders(), tmp_path / "orders.parquet")
        db.attach("orders", tmp_path / "orders.parquet")
        db.write("some", kept())
        plan = db.containment().plan(unknown_reads_per_month=0)
        assert plan.pairs == []
        assert "import_table('orders')" in plan.explain("some")
        assumed = db.containment().plan(unknown_reads_per_month=0, assume_owned=True)
        with pytest.raises(InvalidInput, match=r"import_table\('orders'\)"):
            db.retire(assumed)
        db.import_table("orders")
        assert len(retire(db).retired) == 1


def test_an_exported_view_needs_no_lakelet(tmp_path: Path, db: Engine) -> None:
    db.write("shuffled", orders().take(pa.array(np.random.default_rng(1).permutation(ROWS)[: ROWS // 2])))
    retire(db)
    for name in ("some", "shuffled", "orders"):
        path = db.export_view(name, tmp_path / "views")
        with duckdb.connect() as con:
            con.execute(Path(path).read_text())
            found = con.sql(f'SELECT * FROM "{name}"').to_arrow_table()
        expected = db.table(name).to_arrow()
        assert found.column_names == expected.column_names
        assert found["id"].equals(expected["id"])
    with pytest.raises(NotFound, match="nobody"):
        db.export_view("nobody", tmp_path)
    db.write("../up", orders().slice(0, 3))
    with pytest.raises(InvalidInput, match="cannot name a file"):
        db.export_view("../up", tmp_path)


def test_a_pinned_engine_only_reads(db: Engine) -> None:
    then, plan = db.at(version=db.version), db.containment().plan()
    for refused in (lambda: then.retire(plan), lambda: then.restore("some"), lambda: then.pin("some")):
        with pytest.raises(InvalidInput, match="only reads"):
            refused()
    with lakelet.connect(db.uri, read_only=True) as reader, pytest.raises(InvalidInput, match="read"):
        reader.retire(plan)


def test_a_table_without_columns_in_common_with_its_old_self_keeps_working(db: Engine) -> None:
    retire(db)
    db.write("some", pa.table({"id": [1], "new": ["x"]}), mode="append")
    found = db.table("some").to_arrow()
    assert found.column_names == ["kind", "id", "weight", "new"]
    assert found["new"].null_count == kept().num_rows
