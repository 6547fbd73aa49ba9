"""Edges equal brute force over Python sets of exact values, whatever the types, and however the answer was reached."""

import math
import tempfile
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lakelet.containment.finder import find
from lakelet.containment.verdicts import VerdictStore
from lakelet.lake.fragment import Fragment
from lakelet.lake.table import Table

SEED = b"a secret of the lake, 32 bytes.."
BIG = 2**53
SETTINGS = settings(
    deadline=None, derandomize=True, max_examples=120, suppress_health_check=list(HealthCheck), print_blob=True
)

NUMBERS = {
    pa.int64(): st.sampled_from([0, 1, 2, BIG, BIG + 1, -3]),
    pa.int32(): st.sampled_from([0, 1, 2, -3]),
    pa.uint64(): st.sampled_from([0, 1, 2, BIG, BIG + 1, 2**64 - 1]),
    pa.float64(): st.sampled_from([0.0, -0.0, 1.0, 0.1, float(BIG), math.nan, math.inf, -3.0]),
    pa.float32(): st.sampled_from([0.0, 1.0, 0.5, math.nan]),
    pa.decimal128(12, 2): st.sampled_from([Decimal("0.10"), Decimal("1.00"), Decimal("0.50"), Decimal("-3.00")]),
}
TEXTS = {
    pa.string(): st.sampled_from(["", "a", "b", "é", "a" * 40, "a" * 39 + "b"]),
    pa.large_string(): st.sampled_from(["", "a", "b", "a" * 40]),
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["a", "b", "c"]),
}
TIMES = {
    pa.timestamp("us"): st.sampled_from([0, 1_000_000, 1_500_000]),
    pa.timestamp("ns"): st.sampled_from([0, 1_000_000_000, 1_500_000_000, 1]),
    pa.timestamp("ms", tz="UTC"): st.sampled_from([0, 1_000, 1_500]),
    pa.date32(): st.sampled_from([0, 1, 2]),
}
OTHERS = {
    pa.bool_(): st.booleans(),
    pa.list_(pa.int64()): st.lists(st.integers(0, 1), max_size=2),
    pa.null(): st.none(),
}
KINDS = [NUMBERS, TEXTS, TIMES, OTHERS]


@st.composite
def column(draw, rows):
    kinds = draw(st.sampled_from(KINDS))
    kind = draw(st.sampled_from(sorted(kinds, key=str)))
    values = draw(st.lists(kinds[kind] | st.none(), min_size=rows, max_size=rows))
    if pa.types.is_temporal(kind):
        return pa.array(values, pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind)
    return pa.array(values, kind)


@st.composite
def lakes(draw):
    """A few tables with columns a, b, c; half of them derived from others, so that there are edges to find."""
    tables = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(0, 6))
        names = draw(st.lists(st.sampled_from(["a", "b", "c", " A "]), min_size=1, max_size=3, unique=True))
        tables.append(pa.table([draw(column(rows)) for _ in names], names=names))
    for _ in range(draw(st.integers(0, 4))):
        source = draw(st.sampled_from(tables))
        picked = draw(st.lists(st.integers(0, max(0, source.num_rows - 1)), max_size=8)) if source.num_rows else []
        names = draw(st.lists(st.sampled_from(source.column_names), min_size=1, unique=True))
        tables.append(source.select(names).take(pa.array(picked, pa.int64())))
    return tables


def exact(value, kind):
    """The mathematical value, as something that Python compares exactly."""
    if value is None:
        return None
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_list(kind):
        return "list", tuple(exact(v, kind.value_type) for v in value)
    if pa.types.is_boolean(kind):
        return "bool", value
    if pa.types.is_floating(kind) and not math.isfinite(value):
        return "number", str(value)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number", Fraction(value)
    if pa.types.is_timestamp(kind):
        return ("zoned" if kind.tz else "naive"), value
    return str(type(value)), value


def columns_of(table):
    names = table.column_names
    plain = [name.strip().casefold() for name in names]
    found = {}
    for name, key in zip(names, plain, strict=True):
        kind = table.schema.field(name).type
        values = table.column(name)
        if pa.types.is_timestamp(kind):
            scale = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}[kind.unit]
            cells = [None if v is None else v * scale for v in values.cast(pa.int64()).to_pylist()]
        else:
            cells = values.to_pylist()
        found[("exact", name) if plain.count(key) > 1 else ("plain", key)] = (
            name,
            kind,
            [exact(c, kind) for c in cells],
        )
    return found


def family(kind):
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    if pa.types.is_timestamp(kind):
        return "zoned" if kind.tz else "naive"
    return str(kind)


def brute_force(tables, min_fraction):
    """(child, parent): (fraction, child rows, parent rows), by sets of tuples."""
    parsed = [columns_of(table) for table in tables]
    edges = {}
    for c, child in enumerate(parsed):
        rows = set(zip(*(cells for _, _, cells in child.values()), strict=True))
        for p, parent in enumerate(parsed):
            if c == p or not rows or not tables[p].num_rows:
                continue
            match = []
            for key, (name, kind, _) in child.items():
                other = parent.get(key) or (parent.get(("exact", name)) if key[0] == "plain" else None)
                kinds = None if other is None else {family(kind), family(other[1])}
                if other is None or (len(kinds) > 1 and "null" not in kinds):
                    break
                match.append(other)
            else:
                if len({name for name, _, _ in match}) < len(match):
                    continue
                theirs = set(zip(*(cells for _, _, cells in match), strict=True))
                fraction = len(rows & theirs) / len(rows)
                if fraction >= min_fraction:
                    whole = set(zip(*(cells for _, _, cells in parent.values()), strict=True))
                    edges[c, p] = fraction, len(rows), len(whole)
    return edges


def opened(folder, tables, prefix="t"):
    found = []
    for number, data in enumerate(tables):
        path = Path(folder) / f"{prefix}{number}.parquet"
        pq.write_table(data, path, row_group_size=3)
        schema = pq.read_schema(path)
        fragment = Fragment(str(path), schema, identity=str(path), num_bytes=path.stat().st_size)
        found.append(Table(f"{prefix}{number}", schema, [fragment], 1))
    return found


def found_edges(graph, prefix="t"):
    number = {name: int(name[len(prefix) :]) for name in graph.names}
    return {
        (number[e["child"]], number[e["parent"]]): (e["fraction"], e["child_rows"], e["parent_rows"])
        for e in graph.edges.to_pylist()
    }


@SETTINGS
@given(lakes())
def test_edges_are_those_of_brute_force(tables):
    with tempfile.TemporaryDirectory() as folder:
        graph = find(opened(folder, tables), seed=SEED)
        assert found_edges(graph) == brute_force(tables, 1.0)


@SETTINGS
@given(lakes(), st.sampled_from([0.9, 0.5, 1 / 3, 0.01]))
def test_partial_edges_are_those_of_brute_force(tables, min_fraction):
    with tempfile.TemporaryDirectory() as folder:
        graph = find(opened(folder, tables), seed=SEED, min_fraction=min_fraction)
        assert found_edges(graph) == brute_force(tables, min_fraction)


@SETTINGS
@given(lakes(), st.data())
def test_an_incremental_run_equals_a_fresh_one(tables, data):
    with tempfile.TemporaryDirectory() as folder:
        everything = opened(folder, tables)
        verdicts = VerdictStore(None, SEED)
        for _ in range(3):
            some = data.draw(st.lists(st.sampled_from(everything), unique_by=lambda t: t.name))
            fraction = data.draw(st.sampled_from([1.0, 0.5]))
            graph = find(some, seed=SEED, min_fraction=fraction, verdicts=verdicts)
            assert graph.edges.drop_columns("proof").equals(
                find(some, seed=SEED, min_fraction=fraction).edges.drop_columns("proof")
            )


@SETTINGS
@given(lakes(), st.data())
def test_a_budget_never_lies_and_resuming_ends_with_everything(tables, data):
    with tempfile.TemporaryDirectory() as folder:
        everything = opened(folder, tables)
        truth = brute_force(tables, 1.0)
        verdicts = VerdictStore(None, SEED)
        most = sum(table.num_bytes for table in everything)
        budget = data.draw(st.integers(0, 2 * most))
        part = find(everything, seed=SEED, budget_bytes=budget, verdicts=verdicts)
        assert found_edges(part).items() <= truth.items()
        assert sum(part.stages["bytes_read"].to_pylist()) <= budget
        missing = {child for child, _ in truth.keys() - found_edges(part).keys()}
        assert missing <= part.undecided
        assert found_edges(find(everything, seed=SEED, verdicts=verdicts)) == truth


@SETTINGS
@given(lakes())
def test_the_reduced_relation_implies_the_whole(tables):
    with tempfile.TemporaryDirectory() as folder:
        graph = find(opened(folder, tables), seed=SEED)
        near = {}
        for edge in graph.reduced.to_pylist():
            near.setdefault(edge["child"], set()).add(edge["parent"])
            if edge["kind"] == "duplicate":
                near.setdefault(edge["parent"], set()).add(edge["child"])
        reach = {name: set(parents) for name, parents in near.items()}
        changed = True
        while changed:
            changed = False
            for parents in reach.values():
                more = set().union(*(reach.get(p, set()) for p in parents)) - parents
                changed |= bool(more)
                parents.update(more)
        implied = {(c, p) for c, parents in reach.items() for p in parents if c != p}
        edges = {(e["child"], e["parent"]) for e in graph.edges.to_pylist()}
        assert edges <= implied
        # Columns that match by exact spelling alone map differently along a path: there nothing is inferred.
        if not any({"a", " A "} <= set(table.column_names) for table in tables):
            assert edges == implied
