"""What people look at: the picture, the suggestions of renamed columns, and the findings of an audit."""

import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.containment.finder import find
from lakelet.containment.plot import Picture, draw, svg
from lakelet.lake.errors import Unavailable
from lakelet.lake.fragment import Fragment
from lakelet.lake.table import Table

SEED = b"a secret of the lake, 32 bytes.."
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def lake(tmp_path):
    made = []

    def put(name, data):
        path = tmp_path / f"{len(made)}.parquet"
        pq.write_table(data, path)
        schema = pq.read_schema(path)
        made.append(
            Table(name, schema, [Fragment(str(path), schema, identity=path.name, num_bytes=path.stat().st_size)], 1)
        )

    put.tables = made
    return put


def test_the_picture_is_well_formed_whatever_the_names(lake, tmp_path):
    lake("a\"<&>'x", pa.table({"x": [1, 2]}))
    lake("b", pa.table({"x": [1, 2, 3]}))
    lake("b again", pa.table({"x": [3, 2, 1]}))
    lake("unrelated", pa.table({"y": [3]}))
    graph = find(lake.tables, seed=SEED)
    graph.plot(tmp_path / "out.svg")
    root = ET.parse(tmp_path / "out.svg").getroot()
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert any(title.startswith("a\"<&>'x: ") for title in titles if title)
    assert any("2 tables alike" in title for title in titles if title)
    assert not any("unrelated" in title for title in titles if title)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".parquet") == ["out.svg"]


def test_an_empty_relation_is_a_picture_too(lake):
    lake("a", pa.table({"x": [1]}))
    assert "0 of 1 tables" in svg(find(lake.tables, seed=SEED).picture())


def test_parents_stand_above_their_children_and_nothing_overlaps_its_cluster():
    count = 40
    edges = tuple((child, parent, 1.0) for child in range(count) for parent in range(child) if child // 2 == parent)
    picture = Picture(tuple(f"t{n}" for n in range(count)), (1,) * count, tuple(range(count)), edges, count, 0)
    root = ET.fromstring(svg(picture))
    at = {}
    for card in root.iter(f"{SVG}g"):
        for group in card.findall(f"{SVG}g"):
            circle = group.find(f"{SVG}circle")
            at[group.find(f"{SVG}title").text.split(":")[0]] = float(circle.get("cx")), float(circle.get("cy"))
    assert len(at) == count
    assert all(at[f"t{parent}"][1] < at[f"t{child}"][1] for child, parent, _ in edges)
    assert len(set(at.values())) == count


def test_a_circle_of_equals_is_drawn():
    edges = ((0, 1, 1.0), (1, 0, 1.0), (1, 2, 1.0), (2, 1, 1.0))
    drawn = ET.fromstring(svg(Picture(("a", "b", "c"), (1, 1, 1), (1, 1, 1), edges, 3, 0)))
    assert {"a", "b", "c"} <= {text.strip() for text in drawn.itertext()}


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(Unavailable, match="folder"):
        draw(Picture((), (), (), (), 0, 0), tmp_path / "no" / "out.svg")


def test_renamed_columns_are_suggested_and_are_no_edges(lake):
    values = np.random.default_rng(0).integers(0, 10_000, 200)
    lake("old", pa.table({"price": values, "n": np.arange(200), "flag": values % 2}))
    lake("new", pa.table({"amount": values[::-1].copy(), "m": np.arange(200), "bit": values % 2}))
    lake("same name", pa.table({"Price": values}))
    lake("other", pa.table({"amount": np.concatenate([values[:-1], [values.min()]])}))
    graph = find(lake.tables, seed=SEED)
    assert {e["child"] for e in graph.edges.to_pylist()} == {"same name", "other"}
    named = {
        frozenset([(r["table"], r["column"]), (r["other_table"], r["other_column"])])
        for r in graph.suggestions.to_pylist()
    }
    assert frozenset([("new", "amount"), ("old", "price")]) in named
    # Row numbers and flags agree by chance; equal names are no renaming.
    assert all(column not in {"n", "m", "flag", "bit"} for pair in named for _, column in pair)
    assert graph.suggestions.column("distinct_values").to_pylist()[0] == len(set(values.tolist()))


def test_findings_sum_up_to_the_lake(lake):
    rng = np.random.default_rng(1)
    data = pa.table({"x": rng.integers(0, 2**60, 5_000), "y": rng.random(5_000)})
    lake("whole", data)
    lake("part", data.slice(0, 3_000))
    lake("twin", data)
    lake("alone", pa.table({"z": [1]}))
    graph = find(lake.tables, seed=SEED)
    rows = {r["table"]: r for r in graph.findings.to_pylist()}
    assert {name: row["status"] for name, row in rows.items()} == {
        "whole": "ruled out" if rows["twin"]["status"] == "redundant" else "redundant",
        "twin": "redundant" if rows["whole"]["status"] == "ruled out" else "ruled out",
        "part": "redundant",
        "alone": "ruled out",
    }
    assert sum(r["num_bytes"] for r in rows.values() if r["status"] == "redundant") == graph.redundant_bytes
    sizes = graph.findings.column("num_bytes").to_pylist()
    assert sizes == sorted(sizes, reverse=True)
    nothing = find(lake.tables, seed=SEED, budget_bytes=0)
    assert {r["status"] for r in nothing.findings.to_pylist()} == {"open", "ruled out"}
    assert nothing.redundant_bytes == 0


def test_a_budget_goes_to_the_largest_first(lake):
    rng = np.random.default_rng(2)
    for name, rows in (("large", 20_000), ("small", 2_000)):
        data = pa.table({f"x_{name}": rng.integers(0, 2**60, rows)})
        lake(name, data)
        lake(f"{name} part", data.slice(0, rows - 10))
    by_name = {table.name: table for table in lake.tables}
    budget = 6 * by_name["large"].num_bytes
    graph = find(lake.tables, seed=SEED, budget_bytes=budget)
    done = {e["child"] for e in graph.edges.to_pylist()}
    assert "large part" in done
    assert sum(graph.stages.column("bytes_read").to_pylist()) <= budget
