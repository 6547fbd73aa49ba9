"""Lower bounds of OSQ codes hold for any rows, queries and bits; and every row's codes are those of its cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector.klt import turned
from lakelet.vector.osq import cells, encoded, tables, trained

Array = np.ndarray[Any, Any]
KINDS = ("normal", "heavy tails", "few values", "flat", "far from 0", "alike")


def rows_of(kind: str, rows: int, dim: int, rng: np.random.Generator) -> Array:
    found = rng.standard_normal((rows, dim))
    if kind == "heavy tails":
        found = rng.standard_cauchy((rows, dim)).clip(-1e4, 1e4)
    elif kind == "few values":
        found = rng.integers(-1, 2, (rows, dim)).astype(np.float64)
    elif kind == "flat":
        found[:, 1:] = 0
    elif kind == "far from 0":
        found += 1_000 * rng.standard_normal(dim)
    elif kind == "alike":
        found[:] = found[0]
    return np.asarray(found.astype(np.float32))


@settings(max_examples=120)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 40),
    st.integers(1, 60),
    st.floats(1, 8),
    st.integers(0, 2**20),
    st.sampled_from([0.0, 1.0, 30.0]),
    st.booleans(),
)
def test_no_bound_exceeds_the_truth(
    kind: str, dim: int, rows: int, bits: float, seed: int, scale: float, inner: bool
) -> None:
    rng = np.random.default_rng(seed)
    learnt, later = rows_of(kind, rows, dim, rng), rows_of(kind, 30, dim, rng)
    osq = trained(learnt, np.array([0, rows]), bits=bits, seed=seed, threads=1)
    every, bounds = np.concatenate([learnt, later]), np.array([0, rows + 30])
    records, reach = encoded(osq, every, bounds, threads=1)
    of = osq.parts[0]
    coordinates = turned(every, of.mean, of.axes)
    for j in range(dim):
        edges = of.cells[0, of.first[j] + 1 : of.first[j + 1]]
        assert np.array_equal(cells(of, records, j), np.searchsorted(edges, coordinates[:, j], side="right"))
    query = (every[rng.integers(len(every))] + scale * rng.standard_normal(dim)).astype(np.float32)
    found = tables(of, query, inner=inner, reach=reach[0]).scores(records, np.arange(len(every), dtype=np.uint32))
    double, mean, wanted = every.astype(np.float64), of.mean.astype(np.float64), query.astype(np.float64)
    away = np.linalg.norm(double - mean, axis=1)
    if inner:
        true, slack = -double @ wanted, np.linalg.norm(wanted) * (np.linalg.norm(mean) + away)
    else:
        true, slack = np.square(double - wanted).sum(axis=1), np.square(wanted - mean).sum() + away**2
    assert (found <= true + 1e-5 * slack + 1e-30).all()
