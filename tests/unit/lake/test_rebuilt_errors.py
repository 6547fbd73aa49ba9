"""What a retired table is rebuilt from, missing or damaged: errors that name table and file, and never wrong rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lakelet
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet import Engine
from lakelet.lake.errors import Corrupt, InvalidInput, LakeletError, NotFound, Unavailable
from lakelet.lake.moving import moved_file

if TYPE_CHECKING:
    from lakelet.lake.changes import DataFile

ROWS = 3_000
RNG = np.random.default_rng(0)
PARENT = pa.table({"id": range(ROWS), "v": RNG.random(ROWS), "s": [f"word {i % 97}" for i in range(ROWS)]})
CHILD = pa.concat_tables([PARENT.slice(100, 1_900), pa.table({"id": [-1], "v": [-0.0], "s": ["nowhere"]})])


@pytest.fixture
def db(tmp_path: Path, retire: Callable[..., Any]) -> Iterator[Engine]:
    """A lake in which ``c`` is rebuilt from ``p``, but for one row."""
    with lakelet.connect(tmp_path / "lake") as engine:
        engine.write("p", PARENT)
        engine.write("c", CHILD)
        retire(engine, ("c", "p"))
        assert engine.table("c").to_arrow().equals(CHILD)
    with lakelet.connect(tmp_path / "lake") as engine:  # nothing is remembered of what was read
        yield engine


def only_file(db: Engine, name: str) -> DataFile:
    (file,) = db._catalog.log.latest().table(name).files.values()  # type: ignore[union-attr]
    return file


def path_of(db: Engine, what: str) -> str:
    """Relative to the lake: the ``source``, the ``recipe`` or the ``residual`` file."""
    file = only_file(db, "p" if what == "source" else "c")
    return file.recipe.residual if what == "residual" and file.recipe else file.path


def damage(db: Engine, what: str, how: str) -> str:
    relative = path_of(db, what)
    path = Path(db._catalog.store.full_path(relative))
    data = bytearray(path.read_bytes())
    match how:
        case "missing":
            path.unlink()
        case "truncated":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "longer":
            path.write_bytes(data + b"PAR1")
        case "other rows":  # a valid file of the same schema and rows, but others
            table = pq.read_table(path)
            pq.write_table(table.take(pa.array(range(table.num_rows))[::-1]), path)
        case "page":
            data[pq.read_metadata(path).row_group(0).column(1).data_page_offset + 60] ^= 1
            path.write_bytes(data)
        case "footer":
            data[-30] ^= 1
            path.write_bytes(data)
    return relative


def answers(db: Engine) -> dict[str, Callable[[], pa.Table]]:
    return {
        "to_arrow": lambda: db.table("c").to_arrow(),
        "batches": lambda: db.table("c").scan().read_all(),
        "where": lambda: db.table("c").to_arrow(where="id BETWEEN 200 AND 1_000 OR v < 0 OR id < 0"),
        "sql": lambda: db.sql("SELECT * FROM c").to_arrow_table(),
        "restore": lambda: db.restore("c") and pa.table({}),
    }


@pytest.mark.parametrize("asked", ["to_arrow", "batches", "where", "sql", "restore"])
@pytest.mark.parametrize(
    ("what", "how", "kind"),
    [
        ("source", "missing", NotFound),
        ("source", "truncated", Corrupt),
        ("source", "empty", Corrupt),
        ("source", "longer", Corrupt),
        ("source", "other rows", Corrupt),
        ("source", "footer", Corrupt),
        ("recipe", "missing", NotFound),
        ("recipe", "truncated", Corrupt),
        ("recipe", "page", Corrupt),
        ("residual", "missing", NotFound),
        ("residual", "truncated", Corrupt),
    ],
)
def test_a_damaged_part_is_an_error_that_names_table_and_file(
    db: Engine, what: str, how: str, kind: type[LakeletError], asked: str
) -> None:
    path, version = damage(db, what, how), db.version
    with pytest.raises(kind, match="'c' cannot be rebuilt") as raised:
        answers(db)[asked]()
    assert path in str(raised.value)
    assert db.version == version


@pytest.mark.parametrize("asked", ["to_arrow", "batches", "where", "restore"])
@pytest.mark.parametrize("what", ["source", "residual"])
def test_a_flipped_byte_in_a_page_is_noticed(db: Engine, what: str, asked: str) -> None:
    path = damage(db, what, "page")
    with pytest.raises(Corrupt, match="'c' cannot be rebuilt") as raised:
        answers(db)[asked]()
    assert path in str(raised.value)


def test_columns_that_are_not_damaged_can_be_read(db: Engine) -> None:
    damage(db, "source", "page")
    assert db.table("c").to_arrow(["id", "s"]).equals(CHILD.select(["id", "s"]))


def test_a_residual_file_of_other_rows_is_noticed(db: Engine) -> None:
    path = Path(db._catalog.store.full_path(path_of(db, "residual")))
    pq.write_table(CHILD.slice(0, 0), path)
    for asked in ("to_arrow", "batches", "where"):
        with pytest.raises(Corrupt, match="'c' cannot be rebuilt"):
            answers(db)[asked]()


def test_other_tables_and_earlier_versions_do_not_care(db: Engine) -> None:
    damage(db, "recipe", "missing")
    assert db.table("p").to_arrow().equals(PARENT)
    assert db.table("c", version=db.version - 1).to_arrow().equals(CHILD)
    assert db.table("c").num_rows == CHILD.num_rows
    with pytest.raises(NotFound, match="'c' cannot be rebuilt"):
        db.delete("p", "id = 150")
    db.drop("c")
    db.delete("p", "id = 150")
    assert db.table("p").num_rows == ROWS - 1


@pytest.mark.parametrize("name", ["drop", "overwrite", "delete", "merge", "transaction"])
def test_an_edit_that_would_take_rows_refuses_with_names_and_changes_nothing(
    db: Engine, name: str, retire: Callable[..., Any]
) -> None:
    db.write("b", PARENT.slice(5, 2_000))
    retire(db, ("b", "p"))
    version = db.version
    with pytest.raises(InvalidInput, match=r"'b', 'c'.*dependants='restore'"):
        match name:
            case "drop":
                db.drop("p")
            case "overwrite":
                db.write("p", PARENT.slice(0, 3), "overwrite")
            case "delete":
                db.delete("p", "id = 150", dependants="refuse")
            case "merge":
                db.merge("p", PARENT.slice(150, 2), ["id"], dependants="refuse")
            case "transaction":
                with db.transaction() as tx:
                    tx.write("new", PARENT.slice(0, 1))
                    tx.drop("p")
    assert db.version == version
    assert db.table("p").to_arrow().equals(PARENT)
    assert db.table("c").to_arrow().equals(CHILD)
    assert "new" not in db.tables()


def test_what_takes_no_rows_away_is_not_refused(db: Engine) -> None:
    db.write("p", PARENT.slice(0, 10), "append")
    db.optimize("p")
    db.rename("p", "q")
    assert db.table("c").kind == "retired"
    assert db.table("c").to_arrow().equals(CHILD)
    assert db.sql("FROM c").to_arrow_table().equals(CHILD)


def test_an_edit_that_cannot_carry_all_dependants_along_changes_nothing_and_leaves_nothing(
    db: Engine, tmp_path: Path, retire: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    db.write("b", PARENT.slice(5, 2_000))
    retire(db, ("b", "p"))
    for name in ("b", "c"):
        db.delete(name, "id = 170")
    rows, version = {name: db.table(name).to_arrow() for name in db.tables()}, db.version
    moved: list[str] = []

    def fails_at_the_second(*arguments: Any) -> Any:
        moved.append(arguments[1].name)
        if len(moved) == 2:
            raise Unavailable("the disk is full")
        return moved_file(*arguments)

    monkeypatch.setattr("lakelet.lake.dependants.moved_file", fails_at_the_second)
    before = sorted((tmp_path / "lake" / "data").rglob("*.parquet"))
    with pytest.raises(Unavailable, match="full"):
        db.delete("p", "id BETWEEN 150 AND 160")
    assert sorted(moved) == ["b", "c"]
    left = sorted((tmp_path / "lake" / "data").rglob("*.parquet"))
    assert set(before) <= set(left), "what is in use stays, deletions that were there before too"
    assert not [path for path in set(left) - set(before) if ".recipe." in path.name]
    assert db.version == version
    assert {name: db.table(name).to_arrow() for name in db.tables()} == rows
