"""A table of documents, and what a search of it should find."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

DIM = 8
TEAMS = ["acme", "bolt", None, "everyone"]


def vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def docs(first: int, count: int, seed: int = 0) -> pa.Table:
    """Rows with ids from ``first`` on."""
    number = np.arange(first, first + count)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors(count, seed + first).reshape(-1)), DIM)
    return pa.table(
        {
            "id": pa.array(number, pa.int64()),
            "title": pa.array([f"title {n}" for n in number.tolist()]),
            "team": pa.array([TEAMS[n % 4] for n in number.tolist()]),
            "year": pa.array(2000 + number % 25, pa.int32()),
            "tags": pa.array([["even"] if n % 2 == 0 else ["odd", "prime"] for n in number.tolist()]),
            "embedding": embedding,
        }
    )


def distances(metric: str, q: np.ndarray, rows: np.ndarray) -> np.ndarray:
    rows, q = rows.astype(np.float64), q.astype(np.float64)
    if metric == "l2":
        return ((rows - q) ** 2).sum(1)
    if metric == "ip":
        return -rows @ q
    return 1 - rows @ q / np.linalg.norm(rows, axis=1) / np.linalg.norm(q)


def nearest(table: pa.Table, q: np.ndarray, k: int, metric: str = "l2") -> list[int]:
    """The ids of the nearest rows, by NumPy."""
    if not table.num_rows:
        return []
    rows = np.array(table["embedding"].to_pylist(), np.float32)
    order = np.argsort(distances(metric, q, rows), kind="stable")[:k]
    return [table["id"][int(place)].as_py() for place in order]


def check(db: Any, where: str | None = None, metric: str = "l2", k: int = 7, **how: Any) -> None:
    """A search of the table finds what a scan of it does."""
    rows = db.table("docs").to_arrow(where=where)
    for q in vectors(3, 99):
        found = db.search("docs", q, k, where=where, exact=True, **how)
        assert found["id"].to_pylist() == nearest(rows, q, k, metric)
