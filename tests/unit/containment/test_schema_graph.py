"""Candidate pairs by names and types equal those of a double loop, and a very wide table costs little."""

import random

import pyarrow as pa
from lakelet.containment.canonical import compatible, family
from lakelet.containment.schema_graph import normalised, schema_graph


def pairs(graph):
    found = set()
    for child, parent in graph.maps:
        for c in graph.classes[child].tables.tolist():
            found |= {(c, p) for p in graph.classes[parent].tables.tolist() if c != p}
    return found


def test_names_match_without_case_and_space_around_them():
    assert normalised("  Straße ") == normalised("STRASSE")
    assert normalised("a b") != normalised("ab")
    # A name with a control character never passes for one that keeps its spelling.
    assert normalised("\0eA") != "\0eA"


def test_candidates_equal_a_double_loop():
    rng = random.Random(5)
    kinds = [pa.int64(), pa.float64(), pa.string(), pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.null()]
    schemas = []
    for _ in range(120):
        names = rng.sample(["a", "b", "c", "d", "E", " e", "f\x1f", "\0g"], rng.randint(1, 4))
        if {"E", " e"} <= set(names):
            names.remove(" e")
        schemas.append(pa.schema([(name, rng.choice(kinds)) for name in names]))
    expected = set()
    for c, child in enumerate(schemas):
        for p, parent in enumerate(schemas):
            kind = {normalised(f.name): family(f.type) for f in parent}
            if c != p and all(
                normalised(f.name) in kind and compatible(family(f.type), kind[normalised(f.name)]) for f in child
            ):
                expected.add((c, p))
    graph = schema_graph(schemas)
    assert pairs(graph) == expected
    assert graph.num_pairs == len(expected)
    some = {3, 17, 44}
    near = schema_graph(schemas, some)
    assert {pair for pair in expected if some & set(pair)} <= pairs(near) <= expected


def test_maps_lead_to_the_parents_column():
    schemas = [
        pa.schema([("b", pa.int32()), ("A", pa.string())]),
        pa.schema([("x", pa.int8()), ("a", pa.string()), ("B", pa.int64())]),
    ]
    graph = schema_graph(schemas)
    ((child, parent),) = graph.maps
    own, theirs = graph.classes[child].columns[0], graph.classes[parent].columns[0]
    matched = {own[i]: theirs[at] for i, at in enumerate(graph.maps[child, parent].tolist())}
    assert matched == {"b": "B", "A": "a"}


def test_a_thousand_copies_are_one_class_and_a_wide_table_is_no_pair():
    wide = pa.schema([(f"gene{i}", pa.float64()) for i in range(7_000)])
    schemas = [pa.schema([("a", pa.int64())])] * 1_000 + [wide]
    graph = schema_graph(schemas)
    assert len(graph.maps) == 1
    assert graph.num_pairs == 1_000 * 999


def test_colliding_names_keep_their_spelling_pair_by_pair():
    text = pa.string()
    schemas = [
        pa.schema([("A", text), ("a", text)]),
        pa.schema([("a", text)]),
        pa.schema([("A", text), ("b", text)]),
        pa.schema([(" a", text)]),
        pa.schema([("A", text), ("a", text), ("b", text)]),
    ]
    graph = schema_graph(schemas)
    assert pairs(graph) == {(1, 0), (1, 4), (0, 4), (2, 4), (1, 2), (1, 3), (3, 1), (3, 2)}
    assert all(own.exact for own in graph.classes)
