"""Index files that earlier code wrote: they open for good, and hold what they held.

``golden/index_format_1.lakelet`` was written by :func:`sample` when that format was made, and the .json beside it tells
what it must answer. A new format gets a file of its own; these are never written again.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lakelet.vector.container import FORMAT
from lakelet.vector.index import VectorIndex
from lakelet.vector.labels import PUBLIC
from lakelet.vector.predicates import Tenant

GOLDEN = Path(__file__).parent / "golden"
DIM, ROWS = 12, 260
SEES = {"ann": "ann", "bob": "bob", "7": 7, "stranger": "stranger", "ann, not bob": Tenant("ann") & ~Tenant("bob")}


def corners(rows: int, seed: int) -> np.ndarray:
    """Coordinates of -1 and 1: whatever the order of a sum, distances are the same."""
    return np.random.default_rng(seed).choice(np.array([-1, 1], np.float32), (rows, DIM))


def sample() -> VectorIndex:
    """A segment and a delta, with rows granted, revoked, deleted, public and seen by nobody."""
    index = VectorIndex(DIM, seed=1, threads=1)
    labels = ["ann", "bob", 7, PUBLIC]
    index.add(corners(ROWS, 0), tenants=[[labels[i % 4]] if i % 5 else [] for i in range(ROWS)])
    index.optimize()
    index.grant(range(0, 80, 2), "bob")
    index.revoke(range(6, 120, 20), 7)
    index.delete([11, 12, 13])
    index.add(corners(20, 1), np.arange(1_000, 1_020), "ann")
    return index


def answers(index: VectorIndex) -> dict[str, object]:
    """Who has how many rows, and what everyone finds, all by exact search."""
    usage = {str(tenant.label): tenant.rows for tenant in index.tenants()}
    found = {name: index.search(corners(4, 2), 30, label, exact=True) for name, label in SEES.items()}
    return {"rows": usage} | {
        name: {"ids": ids.tolist(), "distances": np.where(ids < 0, -1, apart).tolist()}
        for name, (ids, apart) in found.items()
    }


@pytest.mark.parametrize("number", range(1, FORMAT + 1))
@pytest.mark.parametrize("mmap", [True, False])
def test_a_file_of_every_format_opens_and_answers(number: int, mmap: bool, tmp_path: Path) -> None:
    wanted = json.loads((GOLDEN / f"index_format_{number}.json").read_text())
    index = VectorIndex.load(GOLDEN / f"index_format_{number}.lakelet", mmap)
    assert answers(index) == wanted
    ids, _ = index.search(corners(4, 2), 5, "ann")
    assert (np.array(wanted["ann"]["ids"])[:, :5] == ids).mean() >= 0.9
    index.add(corners(1, 3)[0], 5_000, "bob")  # it goes on as an index does
    index.delete([5_000])
    index.save(tmp_path / "again")
    assert answers(VectorIndex.load(tmp_path / "again")) == wanted
