"""Whatever happens to a table, a search of it finds what a scan of the same version does."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import lakelet
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lakelet.vector import table_upkeep

DIM = 4
QUERY = np.random.default_rng(1).standard_normal(DIM).astype(np.float32)
CONDITIONS: list[str | None] = [None, "year > 3", "year IS NULL", "note LIKE '%1%' AND year < 6"]
STEPS = ["append", "merge", "delete", "overwrite", "update", "rebuild", "compact", "reopen", "columns", "drop"]


def rows(ids: list[int], seed: int, extra: bool) -> pa.Table:
    """Rows with these ids; some vectors are missing."""
    random = np.random.default_rng(seed)
    vectors: list[Any] = random.standard_normal((len(ids), DIM)).astype(np.float32).tolist()
    for place in np.flatnonzero(random.random(len(ids)) < 0.1).tolist():
        vectors[place] = None if place % 2 else [1.0]
    table = pa.table(
        {
            "id": pa.array(ids, pa.int64()),
            "note": [f"note {number} of {seed}" for number in ids],
            "team": pa.array([["a", "b", None, "all"][number % 4] for number in ids]),
            "year": pa.array([None if number % 5 == 0 else number % 9 for number in ids], pa.int16()),
            "embedding": pa.array(vectors, pa.list_(pa.float32())),
        }
    )
    return table.append_column("more", pa.array(random.random(len(ids)))) if extra else table


def scanned(db: Any, where: str | None, team: Any, query: np.ndarray) -> list[tuple[int, float]]:
    """What a search should find, by a scan of the table: ids and distances, by id."""
    found = []
    for row in db.table("docs").to_arrow(where=where).to_pylist():
        if row["embedding"] is None or len(row["embedding"]) != DIM:
            continue
        if team is not lakelet.ALL_TENANTS and row["team"] not in (team, "all"):
            continue
        found.append((row["id"], float(((np.float32(row["embedding"]) - query) ** 2).sum())))
    return sorted(found)


def check(db: Any) -> None:
    for where in CONDITIONS:
        for team in ("a", "b", lakelet.ALL_TENANTS):
            found = db.search("docs", QUERY, 500, team, where, exact=True, columns=["id", "note"])
            wanted = scanned(db, where, team, QUERY)
            distances = found["_distance"].to_pylist()
            assert distances == sorted(distances)
            assert sorted(found["id"].to_pylist()) == [number for number, _ in wanted]
            by_id = sorted(zip(found["id"].to_pylist(), distances, strict=True))
            np.testing.assert_allclose([each for _, each in by_id], [each for _, each in wanted], rtol=1e-5)


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from(STEPS), st.lists(st.integers(0, 60), unique=True, max_size=25), st.integers(0, 9)),
        min_size=2,
        max_size=9,
    ),
    st.sampled_from([None, ["id", "team"]]),
)
def test_searches_find_what_scans_do(steps: list[tuple[str, list[int], int]], include: list[str] | None) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAKELET_CACHE_DIR", str(Path(folder) / "cache"))
        patch.setattr(table_upkeep, "VECTOR_SEGMENT_BYTES", 2_000)  # some histories make several segments
        db: Any = lakelet.connect(Path(folder) / "lake")
        db.write("docs", rows(list(range(20)), 100, extra=False))
        how = {"tenant": "team", "public": "all", "attributes": ["year"], "include": include, "skip_invalid": True}
        db.create_index("docs", "embedding", **how)
        versions, extra = [db.version], False
        for step, ids, seed in steps:
            if step == "append":
                db.write("docs", rows(ids, seed, extra), mode="append")
            elif step == "merge":
                db.merge("docs", rows(ids, seed, extra), on=["id"])
            elif step == "delete":
                db.delete("docs", f"id % 7 = {seed % 7}")
            elif step == "overwrite":
                db.write("docs", rows(ids, seed, extra), mode="overwrite")
            elif step in ("update", "rebuild"):
                db.update_index("docs", rebuild=step == "rebuild")
            elif step == "compact":
                db.optimize("docs")
            elif step == "columns":
                extra = True
            elif step == "drop":
                db.drop_index("docs")
                db.create_index("docs", "embedding", **how)
            else:
                db.close()
                db = lakelet.connect(Path(folder) / "lake")
            check(db)
            versions.append(db.version)
        for version in sorted(set(versions)):
            check(db.at(version))
        db.close()
