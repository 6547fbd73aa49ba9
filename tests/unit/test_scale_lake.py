"""The scale lake's truth, against sets of Python values: ints, decimals and floats there compare exactly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scale_lake() -> Any:
    spec = importlib.util.spec_from_file_location("scale_lake", BENCHMARKS / "scale_lake.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale_lake"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def small(scale_lake: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return scale_lake.build(tmp_path_factory.mktemp("scale") / "lake", scale=0.001)


def brute_force(lake: Any) -> dict[tuple[str, str], tuple[int, int]]:
    """Every schema candidate by sets of tuples: distinct child rows, and how many of them the parent has."""
    columns = {name: {} for name in lake.roles}
    for name in lake.roles:
        for file in lake.files(name):
            table = pq.read_table(file)
            for column in table.column_names:
                columns[name].setdefault(column, []).extend(table[column].to_pylist())
    shapes = {frozenset(found) for found in columns.values()}
    result = {}
    for shape in shapes:
        order = sorted(shape)
        holders = [name for name in columns if shape <= columns[name].keys()]
        rows = {name: set(zip(*(columns[name][column] for column in order), strict=True)) for name in holders}
        for child in holders:
            if columns[child].keys() == shape and rows[child]:
                result |= {
                    (child, parent): (len(rows[child]), len(rows[child] & rows[parent]))
                    for parent in holders
                    if parent != child
                }
    return result


def check(lake: Any) -> None:
    truth = {(r["child"], r["parent"]): (r["child_rows"], r["common_rows"]) for r in lake.truth().to_pylist()}
    assert truth == brute_force(lake)
    assert {pair for pair, (rows, common) in truth.items() if rows == common} == lake.edges()


def test_truth_equals_sets_of_python_values(small: Any) -> None:
    check(small)


@pytest.mark.slow
def test_truth_equals_sets_of_python_values_at_ten_times_the_size(scale_lake: Any, tmp_path: Path) -> None:
    check(scale_lake.build(tmp_path / "lake", scale=0.01))


def test_it_holds_what_it_says(small: Any) -> None:
    assert len(small.roles) >= 200
    assert set(small.roles.values()) == {
        *("base", "chain", "range", "sample", "duplicate", "permutation", "renamed", "widened", "lossy"),
        *("projection", "near miss", "decoy"),
    }
    edges = small.edges()
    for chain in ("lineitem_range", "lineitem_sample", "orders_range"):
        assert all((f"{chain}_{depth + 1}", f"{chain}_{depth}") in edges for depth in range(9))
    assert ("lineitem", "lineitem_by_part") in edges
    assert ("lineitem_by_part", "lineitem") in edges
    assert ("lineitem_minus_one", "lineitem") in edges
    assert ("lineitem", "lineitem_minus_one") not in edges
    assert ("lineitem_changed", "lineitem") not in edges
    assert ("orders_swapped", "orders") not in edges
    assert ("lineitem_1994_float", "lineitem") in edges
    assert ("lineitem_1997_price_double", "lineitem") not in edges
    assert ("lineitem_1997_quarters_double", "lineitem") in edges


def test_no_decoy_of_size_is_contained_in_anything(small: Any) -> None:
    large = {name for name, role in small.roles.items() if role == "decoy" and name.startswith(("lineitem", "orders"))}
    assert large
    assert not [pair for pair in small.edges() if pair[0] in large]


def test_a_complete_lake_is_left_as_it_is_and_another_scale_refused(scale_lake: Any, small: Any) -> None:
    before = {file: file.stat().st_mtime_ns for file in small.home.rglob("*") if file.is_file()}
    assert scale_lake.build(small.home, scale=0.001) == small
    assert {file: file.stat().st_mtime_ns for file in small.home.rglob("*") if file.is_file()} == before
    with pytest.raises(ValueError, match=r"holds scale 0\.001, seed 7; scale 1, seed 7 was asked for"):
        scale_lake.build(small.home)
    with pytest.raises(ValueError, match="Name another folder or remove it"):
        scale_lake.build(small.home, scale=0.001, seed=8)


def test_the_same_seed_gives_the_same_truth(scale_lake: Any, small: Any, tmp_path: Path) -> None:
    again = scale_lake.build(tmp_path / "lake", scale=0.001, tpch=small.home / "tpch")
    assert again.truth() == small.truth()
    other = scale_lake.build(tmp_path / "other", scale=0.001, seed=8, tpch=small.home / "tpch")
    assert other.truth() != small.truth()
