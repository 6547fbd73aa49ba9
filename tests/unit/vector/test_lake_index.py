"""An index over a table of the lake: what it finds, at every version, whatever happens to the rows."""

from __future__ import annotations

from typing import Any

import lakelet
import numpy as np
import pyarrow as pa
import pytest
from lake_docs import DIM, check, distances, docs, nearest, vectors
from lakelet.lake.errors import InvalidInput, InvalidSQL

METRICS = ["l2", "cosine", "ip"]


@pytest.mark.parametrize("metric", METRICS)
def test_search_returns_the_rows_of_the_table(db: Any, metric: str) -> None:
    db.write("docs", docs(0, 300))
    db.create_index("docs", "embedding", metric=metric)
    table = db.table("docs").to_arrow()
    q = vectors(1, 5)[0]
    found = db.search("docs", q, 5)
    assert found.schema.names == [*table.schema.names, "_distance"]
    assert found.select(table.schema.names).schema.equals(table.schema)
    assert found["id"].to_pylist() == nearest(table, q, 5, metric)
    by_id = {row["id"]: row for row in table.to_pylist()}
    for row in found.to_pylist():
        distance = row.pop("_distance")
        assert row == by_id[row["id"]]
        assert distance == pytest.approx(
            distances(metric, q, np.array([row["embedding"]], np.float32))[0], rel=1e-4, abs=1e-5
        )


def test_several_queries_come_with_their_number(db: Any) -> None:
    db.write("docs", docs(0, 50))
    db.create_index("docs", "embedding")
    q = vectors(3, 5)
    found = db.search("docs", q, 4, columns=["id"])
    assert found.schema.names == ["_query", "id", "_distance"]
    assert found["_query"].to_pylist() == [0] * 4 + [1] * 4 + [2] * 4
    for number in range(3):
        alone = db.search("docs", q[number], 4, columns=["id"])
        assert found.filter(pa.array(np.asarray(found["_query"]) == number))["id"].equals(alone["id"])


def test_rows_that_come_and_go_are_seen_so_at_once(db: Any) -> None:
    db.write("docs", docs(0, 200))
    db.create_index("docs", "embedding", attributes=["year"])
    check(db)
    db.write("docs", docs(200, 50), mode="append")
    check(db)
    db.delete("docs", "id % 3 = 0")
    check(db)
    again = docs(100, 120, seed=7)  # 20 of them new, 100 replaced
    db.merge("docs", again, on=["id"])
    check(db, where="year > 2010")
    check(db)
    db.rename("docs", "papers")
    db.rename("papers", "docs")
    db.update_index("docs")
    check(db)
    db.write("docs", docs(1_000, 30), mode="overwrite")
    check(db, k=40)
    db.update_index("docs")
    check(db, k=40)
    assert db.indexes()["segments"].to_pylist() == [1]


def test_each_version_is_searched_as_it_was(db: Any) -> None:
    versions = [db.write("docs", docs(0, 60))]
    versions.append(db.write("docs", docs(60, 60), mode="append"))
    db.create_index("docs", "embedding")
    versions.append(db.delete("docs", "id < 30"))
    versions.append(db.merge("docs", docs(20, 60, seed=3), on=["id"]))
    db.update_index("docs")
    versions.append(db.write("docs", docs(500, 20), mode="overwrite"))
    versions.append(db.update_index("docs"))
    for version in (*versions, *reversed(versions)):
        check(db.at(version), k=11)
    with lakelet.connect(db.uri, read_only=True) as other:
        for version in versions:
            check(other.at(version), k=11)


def test_codes_of_so_many_bits_rank_in_place_of_vectors(db: Any) -> None:
    db.write("docs", docs(0, 3_000))
    db.create_index("docs", "embedding", attributes=["year"], bits=6)
    db.write("docs", docs(3_000, 100), mode="append")
    assert db.indexes()["bits"].to_pylist() == [6]
    check(db, where="year > 2010")
    db.update_index("docs", rebuild=True)
    check(db, where="year > 2010")
    table, hits = db.table("docs").to_arrow(), {True: 0, False: 0}
    for q in vectors(20, 3):
        for rerank in hits:
            found = db.search("docs", q, 10, rerank=rerank)["id"].to_pylist()
            hits[rerank] += len(set(found) & set(nearest(table, q, 10)))
    assert hits[True] >= 190
    assert 150 <= hits[False] <= hits[True]


def test_tenants_see_their_rows_and_public_ones(db: Any) -> None:
    db.write("docs", docs(0, 80))
    db.create_index("docs", "embedding", tenant="team", public="everyone", attributes=["year"])
    db.write("docs", docs(80, 40), mode="append")
    q = vectors(1, 5)[0]
    rows = db.table("docs").to_arrow()
    for team in ("acme", "bolt", "nobody"):
        mine = rows.filter(pa.array([each in (team, "everyone") for each in rows["team"].to_pylist()]))
        assert db.search("docs", q, 200, team)["id"].to_pylist() == nearest(mine, q, 200)
        late = mine.filter(pa.array(np.asarray(mine["year"]) >= 2015))
        found = db.search("docs", q, 200, tenant=team, where="year >= $y", params={"y": 2015})
        assert found["id"].to_pylist() == nearest(late, q, 200)
    assert db.search("docs", q, 200, tenant=lakelet.ALL_TENANTS).num_rows == 120
    with pytest.raises(InvalidInput, match="tenant"):
        db.search("docs", q)
    db.update_index("docs")
    mine = rows.filter(pa.array([each in ("acme", "everyone") for each in rows["team"].to_pylist()]))
    assert db.search("docs", q, 200, "acme")["id"].to_pylist() == nearest(mine, q, 200)


def test_a_row_may_have_several_tenants(db: Any) -> None:
    table = docs(0, 6).drop(["team"])
    teams = [[1, 2], [2], [], None, [3, None], [1, 1]]
    db.write("docs", table.append_column("team", pa.array(teams, pa.list_(pa.int64()))))
    db.create_index("docs", "embedding", tenant="team")
    q = vectors(1, 5)[0]
    for team, ids in ((1, {0, 5}), (2, {0, 1}), (3, {4}), (9, set())):
        assert set(db.search("docs", q, tenant=team)["id"].to_pylist()) == ids


def test_any_column_may_stand_in_a_condition(db: Any) -> None:
    db.write("docs", docs(0, 150))
    db.create_index("docs", "embedding", attributes=["year", "tags"])
    db.write("docs", docs(150, 60), mode="append")
    for where in (
        "year BETWEEN 2004 AND 2010",
        "list_contains(tags, 'prime') AND year > 2010",
        "title LIKE '%7'",
        "year > 2010 AND title LIKE '%7'",
        "team IS NULL OR team = 'acme'",
        "embedding[1] > 0.5",
        "id % 7 = 3",
    ):
        check(db, where=where)
    with pytest.raises(InvalidSQL, match="colour"):
        db.search("docs", vectors(1, 0)[0], where="colour = 'red'")


@pytest.mark.parametrize("include", [[], ["title"]])
def test_columns_that_are_not_included_come_from_the_data_files(db: Any, include: list[str]) -> None:
    db.write("docs", docs(0, 100))
    db.write("docs", docs(100, 20), mode="append")
    db.create_index("docs", "embedding", metric="cosine", include=include)
    db.write("docs", docs(120, 10), mode="append")
    rows = {row["id"]: row for row in db.table("docs").to_arrow().to_pylist()}
    for row in db.search("docs", vectors(1, 1)[0], 50).drop(["_distance"]).to_pylist():
        assert row == rows[row["id"]]
    check(db, where="title LIKE '%3' OR year = 2004", metric="cosine")


def test_columns_that_come_later_are_null_in_rows_of_before(db: Any) -> None:
    db.write("docs", docs(0, 40))
    db.create_index("docs", "embedding", attributes=["year"])
    more = docs(40, 40).append_column("lang", pa.array(["en", "de"] * 20))
    db.write("docs", more, mode="append")
    check(db, where="lang = 'en'", k=40)
    check(db, where="lang IS NULL", k=100)
    found = db.search("docs", vectors(1, 1)[0], 80)
    langs = dict(zip(found["id"].to_pylist(), found["lang"].to_pylist(), strict=True))
    assert {number for number, lang in langs.items() if lang is None} == set(range(40))
    db.update_index("docs")
    check(db, where="lang = 'en' AND year > 2003", k=40)


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64()])
def test_an_attribute_of_a_wider_type_is_taken_anew(db: Any, kind: pa.DataType) -> None:
    db.write("docs", docs(0, 40))
    db.create_index("docs", "embedding", attributes=["year"])
    db.write("docs", docs(80, 40), mode="append")
    check(db, where="year > 2010", k=100)
    wide = docs(40, 40)
    wide = wide.set_column(3, "year", pa.array([2**40] * 40, kind))
    db.write("docs", wide, mode="append")
    check(db, where="year > 2010", k=100)
    db.update_index("docs")
    assert db.indexes()["indexed_rows"].to_pylist() == [120]
    check(db, where="year > 2010", k=100)


def test_double_and_half_vectors_come_back_as_they_are(db: Any) -> None:
    for kind in (pa.float64(), pa.float16()):
        table = docs(0, 30)
        values = pa.array(np.array(table["embedding"].to_pylist()).reshape(-1), pa.float64())
        flat = pa.array(np.asarray(values).astype(kind.to_pandas_dtype()))
        table = table.set_column(5, "embedding", pa.FixedSizeListArray.from_arrays(flat, DIM))
        db.write("docs", table, mode="overwrite")
        if db.indexes().num_rows:
            db.drop_index("docs")
        db.create_index("docs", "embedding")
        found = db.search("docs", vectors(1, 1)[0], 30).drop(["_distance"])
        assert found.sort_by("id").equals(db.table("docs").to_arrow())
