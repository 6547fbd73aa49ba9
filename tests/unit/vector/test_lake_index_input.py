"""An index over a table: what it refuses, and what it leaves out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_docs import docs, vectors
from lakelet.lake.errors import InvalidInput, NotFound


def table_with(values: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"id": range(len(values)), "embedding": pa.array(values, kind or pa.list_(pa.float32()))})


BAD = [[1.0, 2.0], None, [3.0], [float("nan"), 1.0], [0.0, 0.0], [1.0, None], [2.0, 2.0, 2.0], [5.0, 5.0], None]


def test_vectors_that_cannot_be_are_told(db: Any) -> None:
    db.write("docs", table_with(BAD))
    with pytest.raises(InvalidInput) as told:
        db.create_index("docs", "embedding", metric="cosine")
    words = str(told.value)
    assert "3 are NULL or hold a NULL (first: row 1 of " in words
    assert "2 have another length (first: row 2 of " in words
    assert "of length 1)" in words
    assert "1 hold NaN or inf (first: row 3 of " in words
    assert "1 are zero, which has no cosine (first: row 4 of " in words
    assert "skip_invalid=True" in words
    assert db.indexes().num_rows == 0
    db.create_index("docs", "embedding", metric="cosine", skip_invalid=True)
    assert db.search("docs", np.float32([1, 1]))["id"].to_pylist() == [7, 0]
    assert db.indexes()["unsearchable_rows"].to_pylist() == [7]
    db.drop_index("docs")
    db.delete("docs", "id NOT IN (0, 7)")
    db.create_index("docs", "embedding", metric="cosine")
    assert db.search("docs", np.float32([1, 1]))["id"].to_pylist() == [7, 0]


def test_later_rows_without_a_sound_vector_are_left_out_and_counted(db: Any) -> None:
    db.write("docs", table_with([[1.0, 2.0], [3.0, 4.0]]))
    db.create_index("docs", "embedding")
    db.write("docs", table_with(BAD), mode="append")
    assert db.search("docs", np.float32([1, 1]), 20).num_rows == 5
    db.update_index("docs")
    assert db.search("docs", np.float32([1, 1]), 20).num_rows == 5
    assert db.indexes()["unsearchable_rows"].to_pylist() == [6]
    db.write("docs", table_with([None, None]), mode="append")
    version = db.version
    assert db.update_index("docs") == version, "of a file without a vector there is nothing to index"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"column": "colour"}, "'colour' is not in table 'docs'"),
        ({"column": "title"}, "lists of numbers"),
        ({"column": "tags"}, "lists of numbers"),
        ({"column": "embedding", "metric": "manhattan"}, "manhattan"),
        ({"column": "embedding", "tenant": "nobody"}, "'nobody'"),
        ({"column": "embedding", "tenant": "embedding"}, "texts or whole numbers"),
        ({"column": "embedding", "public": "everyone"}, "tenant"),
        ({"column": "embedding", "attributes": "year"}, "lists of column names"),
        ({"column": "embedding", "attributes": 5}, "lists of column names"),
        ({"column": "embedding", "attributes": ["yeer"]}, "'yeer'"),
        ({"column": "embedding", "attributes": ["embedding"]}, "'embedding'"),
        ({"column": "embedding", "include": ["yeer"]}, "'yeer'"),
        ({"column": "embedding", "seed": -1}, "seed"),
        ({"column": "embedding", "bits": 9}, "bits 9"),
        ({"column": "embedding", "threads": 0}, "threads"),
    ],
)
def test_an_index_that_cannot_be(db: Any, how: dict[str, Any], words: str) -> None:
    db.write("docs", docs(0, 10))
    version = db.version
    with pytest.raises(InvalidInput, match=words):
        db.create_index("docs", **how)
    assert db.version == version


def test_tables_that_can_have_no_index(db: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="docs"):
        db.create_index("docs", "embedding")
    pq.write_table(docs(0, 10), tmp_path / "raw.parquet")
    db.attach("raw", tmp_path / "raw.parquet")
    with pytest.raises(InvalidInput, match="import_table"):
        db.create_index("raw", "embedding")
    db.write("docs", table_with([]))
    with pytest.raises(InvalidInput, match="dimensions"):
        db.create_index("docs", "embedding")
    with pytest.raises(NotFound, match="create_index"):
        db.search("docs", np.float32([1]))
    db.write("empty", docs(0, 0))
    db.create_index("empty", "embedding", attributes=["year"])
    assert db.search("empty", vectors(1, 0)[0], where="year > 3").num_rows == 0
    db.write("empty", docs(0, 5), mode="append")
    assert db.search("empty", vectors(1, 0)[0]).num_rows == 5


def test_questions_that_cannot_be(db: Any) -> None:
    db.write("docs", docs(0, 10))
    db.create_index("docs", "embedding")
    q = vectors(1, 0)[0]
    with pytest.raises(InvalidInput, match="shape"):
        db.search("docs", q[:3])
    with pytest.raises(InvalidInput, match="float32"):
        db.search("docs", q.astype(np.float64))
    with pytest.raises(InvalidInput, match="'colour'"):
        db.search("docs", q, columns=["colour"])
    for columns, words in (("title", "list of names"), (5, "list of names"), (["id", "id"], "once each")):
        with pytest.raises(InvalidInput, match=words):
            db.search("docs", q, columns=columns)
    with pytest.raises(InvalidInput, match="table name 3"):
        db.search(3, q)
    with pytest.raises(InvalidInput, match="knows no tenants"):
        db.search("docs", q, tenant="acme")
    with pytest.raises(InvalidInput, match="k 0"):
        db.search("docs", q, 0)
    with pytest.raises(InvalidInput, match="pinned"):
        db.at(db.version).create_index("docs", "embedding")


def test_explained(db: Any) -> None:
    db.write("docs", docs(0, 100))
    db.create_index("docs", "embedding", attributes=["year"])
    db.write("docs", docs(100, 20), mode="append")
    steps = db.explain_search("docs", where="year = 2003")
    assert [(step.unit, step.rows) for step in steps] == [("segment", 100), ("delta", 20)]
    rows = db.table("docs").to_arrow(where="year = 2003")
    assert sum(step.matches for step in steps) == rows.num_rows
