"""Columns of many values: the rows of ranges against boolean arrays, whatever they are reached from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.vector import index as index_module
from lakelet.vector import rank_column as rank_column_module
from lakelet.vector.bitmaps import no_rows, of_mask
from lakelet.vector.columns import CellColumn, frozen_column
from lakelet.vector.index import VectorIndex
from lakelet.vector.prefixes import DIRECT, TOGETHER, chosen, places_of, reached, toggle
from lakelet.vector.rank_column import BLOCK_ROWS, MARKS, RankColumn, ranked, shapes
from lakelet.vector.segment import Segment
from lakelet.vector.stored_columns import column_arrays, columns_of

LEAST, GREATEST = -(2**63), 2**63 - 1
KINDS = ["apart", "heavy", "extreme", "three", "one"]


def keys_of(kind: str, rows: int, random: np.random.Generator) -> np.ndarray:
    keys = random.integers(-1_000_000, 1_000_000, rows)
    if kind == "heavy":  # two keys of a quarter of the rows and half of them
        keys[random.random(rows) < 0.75] = 77
        keys[random.random(rows) < 0.25] = -5_000
    elif kind == "extreme":
        keys = random.integers(LEAST, GREATEST, rows, endpoint=True)
        keys[: rows // 10], keys[rows // 10 : rows // 5] = LEAST, GREATEST
        random.shuffle(keys)
    elif kind == "three":
        keys = random.choice(np.array([-7, 0, 9]), rows)
    elif kind == "one":
        keys[:] = 12
    return keys


def column_of(keys: np.ndarray, valid: np.ndarray) -> RankColumn:
    keys = np.where(valid, keys, 0)
    rows = np.flatnonzero(valid)
    return ranked(pa.int64(), keys, rows[np.argsort(keys[rows], kind="stable")], None)


def intervals_of(keys: np.ndarray, random: np.random.Generator) -> list[list[tuple[int, int]]]:
    """Lists of intervals, both ends inside, ascending and apart: at keys, beside them, and at the ends of all."""
    ends = np.unique(random.choice(keys, 8)).tolist() if len(keys) else [0]
    ends = sorted({min(max(end + by, LEAST), GREATEST) for end in ends for by in (-1, 0, 1)})
    pairs = [tuple(sorted(random.choice(len(ends), 2))) for _ in range(4)]
    many = np.unique(random.choice(keys, 3 * TOGETHER)).tolist() if len(keys) else []
    return [
        [],
        [(LEAST, GREATEST)],
        [(LEAST, LEAST), (GREATEST, GREATEST)],
        [(LEAST, GREATEST - 1)],
        [(LEAST, ends[len(ends) // 2])],
        [(ends[len(ends) // 2], GREATEST)],
        *([(ends[low], ends[high])] for low, high in pairs),
        [(key, key) for key in ends[::2]],
        [(key, key) for key in many],
        list(zip(ends[::4], ends[2::4], strict=False)),
    ]


def mask_of(keys: np.ndarray, valid: np.ndarray, intervals: list[tuple[int, int]]) -> np.ndarray:
    mask = np.zeros(len(keys), bool)
    for least, greatest in intervals:
        mask |= (keys >= least) & (keys <= greatest)
    return mask & valid


def cuts(intervals: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple((least, greatest + 1) for least, greatest in intervals)


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 1_000, BLOCK_ROWS, BLOCK_ROWS + 1, 140_000])
@pytest.mark.parametrize("nulls", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_ranges_are_right_from_wherever_they_are_reached(rows: int, nulls: float, kind: str) -> None:
    random = np.random.default_rng([rows, int(10 * nulls), KINDS.index(kind)])
    keys, valid = keys_of(kind, rows, random), random.random(rows) >= nulls
    column = column_of(keys, valid)
    some = np.sort(random.choice(rows, rows // 3, replace=False)).astype(np.uint32)
    order, offsets, edges, marks = column.order, column.offsets, column.edges, column.marks
    reach = reached(offsets, edges)
    assert reach[-1] == valid.sum()
    for intervals in intervals_of(keys, random):
        mask = mask_of(keys, valid, intervals)
        wanted = of_mask(mask)
        assert (column.within(cuts(intervals), None) == wanted).all(), intervals
        assert (column.within(cuts(intervals), some) == of_mask(mask[some])).all(), intervals
        bounds = np.array(intervals, np.int64).reshape(-1, 2)
        places = places_of(column.keys, order, column.bottoms, offsets, bounds, BLOCK_ROWS)
        ends = len(places)
        for through in (
            np.full(ends, DIRECT),
            np.zeros(ends, np.int64),
            np.full(ends, MARKS + 1),
            random.integers(0, MARKS + 2, ends),
            np.where(np.repeat(random.random(ends // 2) < 0.5, 2), DIRECT, random.integers(0, MARKS + 2, ends)),
            chosen(places, reach, len(wanted)),
        ):
            words = no_rows(rows)
            toggle(order, offsets, edges, marks, places, through, BLOCK_ROWS, words)
            assert (words == wanted).all(), (intervals, through)


@pytest.mark.parametrize("nulls", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("rows", [0, 65, BLOCK_ROWS + 900])
def test_nulls_and_values_come_back(rows: int, nulls: float) -> None:
    random = np.random.default_rng(rows)
    keys, valid = keys_of("extreme", rows, random), random.random(rows) >= nulls
    column = column_of(keys, valid)
    some = random.permutation(rows)[: rows // 3].astype(np.uint32)
    for wanted in (True, False):
        mask = valid != wanted
        assert (column.null(wanted, None) == of_mask(mask)).all()
        assert (column.null(wanted, some) == of_mask(mask[some])).all()
    assert column.taken(some.astype(np.int64)).equals(pa.array(keys[some], mask=~valid[some]))
    with pytest.raises(TypeError, match="holds no texts"):
        column.holds(("a",), True, False, None)


def test_what_is_kept_is_as_it_says() -> None:
    random = np.random.default_rng(5)
    rows = 140_000
    keys, valid = keys_of("heavy", rows, random), random.random(rows) >= 0.1
    column = column_of(keys, valid)
    for name, shape in shapes(rows, len(column.bottoms)).items():
        assert getattr(column, name).shape == shape, name
    assert (np.diff(column.bottoms) > 0).all()
    held = np.where(valid, np.searchsorted(column.bottoms, column.keys, "right"), len(column.bottoms) + 1)
    for block in range(3):
        first = block * BLOCK_ROWS
        inside = column.order[first : first + BLOCK_ROWS].astype(np.int64) + first
        assert sorted(inside.tolist()) == list(range(first, min(first + BLOCK_ROWS, rows)))
        present = inside[valid[inside]]
        assert valid[inside[: len(present)]].all()
        assert (np.diff(column.keys[present]) >= 0).all()
        for cell in range(len(column.bottoms) + 1):
            assert column.offsets[cell, block] == (held[inside] <= cell).sum()
    bottoms = np.append(column.bottoms, GREATEST)
    for mark, edge in enumerate(column.edges):
        assert (column.marks[mark] == of_mask(valid & (column.keys < bottoms[edge]))).all()
    shares = reached(column.offsets, column.edges)[1:-1] / valid.sum() - np.arange(1, MARKS + 1) / (MARKS + 1)
    outside = (column.keys[valid] < -5_000).mean()
    assert np.abs(shares)[: int(outside * (MARKS + 1))].max() < 0.01, (
        "where no key is heavy, marks lie where they should"
    )


def test_the_way_is_the_one_that_toggles_least() -> None:
    rows = 140_000
    keys = np.random.default_rng(3).permutation(rows)
    column, words = column_of(keys, np.ones(rows, bool)), len(no_rows(rows))
    reach = reached(column.offsets, column.edges)
    between = rows / (MARKS + 1)
    assert np.abs(reach[:-1] - between * np.arange(MARKS + 1)).max() <= 0.51 * np.diff(column.bottoms).max(), "nearest"

    def way(least: int, greatest: int) -> list[int]:
        bounds = np.array([[least, greatest]])
        places = places_of(column.keys, column.order, column.bottoms, column.offsets, bounds, BLOCK_ROWS)
        assert places.sum(axis=1).tolist() == [max(least, 0), min(greatest + 1, rows)]
        return list(chosen(places, reach, words).tolist())

    assert way(500, 900) == [DIRECT, DIRECT]
    assert way(LEAST, GREATEST) == [0, MARKS + 1]
    assert way(int(2.1 * between), int(8.9 * between)) == [2, 9]
    assert way(int(1.9 * between), GREATEST) == [2, MARKS + 1]
    assert way(5, int(13.6 * between)) == [0, 14]
    few = int(words / 4)
    assert way(int(3.5 * between), int(3.5 * between) + few) == [DIRECT, DIRECT]


@given(
    st.lists(st.one_of(st.none(), st.integers(-4, 4), st.sampled_from([LEAST, GREATEST])), max_size=400),
    st.sets(st.one_of(st.integers(-6, 6), st.sampled_from([LEAST, GREATEST])), max_size=6),
    st.integers(1, 40),
)
@settings(max_examples=100, deadline=None)
def test_small_blocks_and_cells_change_nothing(values: list[int | None], ends: set[int], cell_rows: int) -> None:
    valid = np.array([value is not None for value in values], bool)
    keys = np.array([value or 0 for value in values], np.int64)
    ordered = sorted(ends)
    intervals = list(zip(ordered[::2], ordered[1::2], strict=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rank_column_module, "BLOCK_ROWS", 64)
        patch.setattr(rank_column_module, "CELL_ROWS", cell_rows)
        column = column_of(keys, valid)
        assert column.offsets.shape[1] == -(-len(keys) // 64)
        assert (column.within(cuts(intervals), None) == of_mask(mask_of(keys, valid, intervals))).all()


def test_many_values_are_ranked_and_few_have_cells() -> None:
    many = frozen_column(pa.array(np.random.default_rng(0).random(200_000)), pa.float64())
    assert isinstance(many, RankColumn)
    assert many.index_bytes <= 4 * 200_000
    assert many.value_bytes == 8 * 200_000
    assert isinstance(frozen_column(pa.array(np.arange(3_000) % 200), pa.int64()), CellColumn)
    assert isinstance(frozen_column(pa.array([None] * 3_000, pa.int64()), pa.int64()), CellColumn)
    assert len(frozen_column(pa.array(np.arange(2_000_000)), pa.int64()).bottoms) == 1_024, "cells do not outgrow rows"


def test_texts_are_ranked() -> None:
    texts = pa.array([f"t{i * 7_919 % 5_000:05}" if i % 9 else None for i in range(5_000)], pa.large_string())
    column = frozen_column(texts, pa.large_string())
    assert isinstance(column, RankColumn)
    held = texts.to_pylist()
    below, above = (0, "", 0), (1, "", 0)
    for low, high, fulfils in (
        (below, (0, "t01234", 0), lambda text: text < "t01234"),
        ((0, "t01234", 1), above, lambda text: text > "t01234"),
        ((0, "t01234", 0), (0, "t04", 1), lambda text: "t01234" <= text <= "t04"),
        ((0, "u", 0), above, lambda text: False),
        (below, (0, "t04999", 0), lambda text: text < "t04999"),
        (below, above, lambda text: True),
    ):
        mask = np.array([text is not None and fulfils(text) for text in held])
        assert (column.within(((low, high),), None) == of_mask(mask)).all(), (low, high)
        some = np.arange(0, 5_000, 3, dtype=np.uint32)
        assert (column.within(((low, high),), some) == of_mask(mask[::3])).all(), (low, high)
    assert column.taken(np.arange(5_000)).equals(texts)
    assert column.value_bytes > 8 * 5_000


def test_columns_are_stored_and_read() -> None:
    table = {
        "price": pa.array(np.random.default_rng(1).random(3_000)),
        "name": pa.array([f"n{i}" for i in range(3_000)], pa.large_string()),
        "year": pa.array(np.arange(3_000) % 10),
    }
    columns = {name: frozen_column(array, array.type) for name, array in table.items()}
    schema, arrays = pa.schema([(name, array.type) for name, array in table.items()]), column_arrays(columns)
    again = columns_of(arrays, schema, 3_000)
    for name, column in columns.items():
        assert type(again[name]) is type(column)
        assert again[name].taken(np.arange(3_000)).equals(table[name])
        assert again[name].index_bytes == column.index_bytes
    for name in ("order", "offsets", "edges", "marks", "keys"):
        with pytest.raises(ValueError, match="attribute of"):
            columns_of({**arrays, f"attribute0_{name}": arrays[f"attribute0_{name}"][1:]}, schema, 3_000)
    with pytest.raises(ValueError, match="attribute of"):
        columns_of({**arrays, "attribute2_cells": arrays["attribute2_cells"][1:]}, schema, 3_000)
    with pytest.raises(KeyError):
        columns_of({name: array for name, array in arrays.items() if name != "attribute0_keys"}, schema, 3_000)
    with pytest.raises(ValueError, match="attribute of"):
        columns_of(arrays, schema, 2_999)


@pytest.mark.parametrize("mmap", [True, False])
def test_a_saved_index_ranks_as_it_did(tmp_path: Path, mmap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 400)
    random = np.random.default_rng(4)
    price, vectors = random.random(3_000), random.standard_normal((3_000, 8), dtype=np.float32)
    index = VectorIndex(8, attributes={"price": float}, threads=1)
    index.add(vectors, attributes={"price": [float(x) if i % 10 else None for i, x in enumerate(price)]})
    index.save(tmp_path / "one.lakelet")
    index = VectorIndex.load(tmp_path / "one.lakelet", mmap=mmap, threads=1)
    kinds: list[Any] = [type(unit.columns["price"]) for unit in index._units.now if isinstance(unit, Segment)]
    assert kinds == [RankColumn]
    found, _ = index.search(vectors[:1], 3_000, where="price >= 0.25 AND price < 0.8", exact=True)
    wanted = np.flatnonzero((price >= 0.25) & (price < 0.8) & (np.arange(3_000) % 10 > 0))
    assert sorted(found[found >= 0].tolist()) == wanted.tolist()
