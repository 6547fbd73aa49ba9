"""What find() answers on small lakes of real Parquet files, and what it must not do on the way."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.containment.finder import find
from lakelet.containment.rowsets import RowSets
from lakelet.containment.verdicts import PATH, VerdictStore
from lakelet.lake.errors import InvalidInput, LimitExceeded, NotFound, Unavailable
from lakelet.lake.fragment import Fragment
from lakelet.lake.table import Table

SEED = b"a secret of the lake, 32 bytes.."


@pytest.fixture
def lake(tmp_path):
    made = {}

    def put(name, data, row_group_size=None):
        path = tmp_path / f"{name}-{len(list(tmp_path.iterdir()))}.parquet"
        pq.write_table(data, path, row_group_size=row_group_size)
        schema = pq.read_schema(path)
        fragments = [Fragment(str(path), schema, identity=path.name, num_bytes=path.stat().st_size)]
        made[name] = Table(name, schema, fragments, 1)
        return made[name]

    put.tables = made
    return put


def edges(graph):
    return {(e["child"], e["parent"], e["kind"], e["proof"]) for e in graph.edges.to_pylist()}


class MemoryStore:
    def __init__(self):
        self.objects, self.puts = {}, 0

    def get(self, path):
        if path not in self.objects:
            raise NotFound(path)
        return self.objects[path]

    def put(self, path, data):
        self.puts += 1
        self.objects[path] = data


def test_a_chain_is_compared_link_by_link_and_the_rest_follows(lake, monkeypatch):
    compared = []
    original = RowSets.compare

    def counting(self, pairs, **options):
        compared.extend(pairs)
        return original(self, pairs, **options)

    monkeypatch.setattr(RowSets, "compare", counting)
    rng = np.random.default_rng(0)
    order = rng.permutation(50)
    values = rng.integers(0, 2**60, 50)
    # The extremes stay in every link and sizes differ by rows in the middle, so bounds cannot tell.
    whole = pa.table({"a": values, "b": order})
    for link in range(10):
        keep = np.concatenate([np.argsort(order)[[0, 49]], np.argsort(order)[1 : 40 - 3 * link]])
        lake(f"t{link}", whole.take(pa.array(keep)))
    graph = find(list(lake.tables.values()), seed=SEED)
    assert graph.edges.num_rows == 45
    assert graph.reduced.num_rows == 9
    assert len(compared) == 9
    proofs = graph.edges.column("proof").to_pylist()
    assert proofs.count("compared") == 9
    assert proofs.count("transitive") == 36


def test_copies_cost_one_comparison_each(lake, monkeypatch):
    compared = []
    original = RowSets.compare

    def counting(self, pairs, **options):
        compared.extend(pairs)
        return original(self, pairs, **options)

    monkeypatch.setattr(RowSets, "compare", counting)
    data = pa.table({"a": [3, 1, 2], "b": ["x", "y", None]})
    for number in range(60):
        lake(f"copy{number:02}", data.take(pa.array([2, 0, 1] if number % 2 else [0, 1, 2])))
    graph = find(list(lake.tables.values()), seed=SEED)
    assert graph.edges.num_rows == 60 * 59
    assert len(compared) == 59
    assert graph.groups.column("representative").unique().to_pylist() == ["copy00"]
    assert graph.reduced.num_rows == 59
    assert graph.redundant_bytes == sum(t.num_bytes for t in lake.tables.values()) - lake.tables["copy00"].num_bytes
    kinds = graph.edges.to_pylist()
    assert {e["proof"] for e in kinds if "copy00" in (e["child"], e["parent"])} == {"compared"}
    assert {e["proof"] for e in kinds if "copy00" not in (e["child"], e["parent"])} == {"transitive"}


def test_edges_past_the_limit_are_refused_but_still_stream(lake, monkeypatch):
    monkeypatch.setattr("lakelet.containment.graph.CONTAINMENT_EDGES", 5)
    for number in range(3):
        lake(f"t{number}", pa.table({"a": [1]}))
    graph = find(list(lake.tables.values()), seed=SEED)
    assert graph.edges.num_rows == 6 if graph.relation.num_edges <= 5 else True
    with pytest.raises(LimitExceeded, match="iter_edges"):
        _ = find(list(lake.tables.values()), seed=SEED).edges
    assert sum(batch.num_rows for batch in graph.iter_edges()) == 6


def test_projection_needs_rows_not_columns_one_by_one(lake):
    lake("child", pa.table({"a": [1, 2], "b": ["x", "y"]}))
    lake("holds", pa.table({"B ": ["y", "x", "z"], "A": [2, 1, 3], "c": [0, 0, 0]}))
    lake("swapped", pa.table({"a": [1, 2, 3], "b": ["y", "x", "z"], "d": [0, 0, 0]}))
    graph = find(list(lake.tables.values()), seed=SEED)
    assert edges(graph) == {("child", "holds", "contained", "compared")}
    row = graph.edges.to_pylist()[0]
    assert (row["child_rows"], row["parent_rows"], row["fraction"]) == (2, 3, 1.0)


def test_tables_without_rows_are_named_and_take_no_part(lake):
    lake("none", pa.table({"a": pa.array([], pa.int64())}))
    lake("some", pa.table({"a": [1]}))
    graph = find(list(lake.tables.values()), seed=SEED)
    assert graph.empty == ("none",)
    assert graph.edges.num_rows == 0
    assert graph.edges.column_names == ["child", "parent", "fraction", "child_rows", "parent_rows", "kind", "proof"]


def test_the_funnel_only_narrows(lake):
    lake("a", pa.table({"x": [1, 2, 3]}))
    lake("b", pa.table({"x": [1, 2, 3, 4]}))
    lake("c", pa.table({"x": [9, 8]}))
    lake("d", pa.table({"y": [9, 8]}))
    stages = find(list(lake.tables.values()), seed=SEED).stages.to_pylist()
    assert [s["stage"] for s in stages] == ["schema", "min-max", "columns", "rows"]
    assert stages[0]["pairs_in"] == 12
    assert stages[0]["pairs_out"] == 6
    assert stages[-1]["pairs_out"] == 1
    for one, two in pairwise(stages):
        assert one["pairs_out"] == two["pairs_in"]
        assert two["pairs_out"] <= two["pairs_in"]


@pytest.mark.parametrize(
    "wrong", [{"min_fraction": 0.0}, {"min_fraction": 1.5}, {"budget_bytes": -1}, {"memory_bytes": 0}]
)
def test_senseless_arguments_are_refused(lake, wrong):
    lake("a", pa.table({"x": [1]}))
    with pytest.raises(InvalidInput, match="expected"):
        find(list(lake.tables.values()), seed=SEED, **wrong)


def test_a_table_given_twice_is_refused(lake):
    one = lake("a", pa.table({"x": [1]}))
    with pytest.raises(InvalidInput, match="'a'"):
        find([one, one], seed=SEED)


def test_a_second_run_reads_nothing_and_a_new_table_only_what_concerns_it(lake, monkeypatch):
    read = []
    original = Fragment.read
    monkeypatch.setattr(Fragment, "read", lambda self, *a, **k: read.append(self.path) or original(self, *a, **k))
    lake("a", pa.table({"x": [1, 2, 3]}))
    lake("b", pa.table({"x": [1, 2, 3, 4]}))
    lake("p", pa.table({"y": ["a", "b"]}))
    lake("q", pa.table({"y": ["b", "a"]}))
    store = MemoryStore()
    first = find(list(lake.tables.values()), seed=SEED, verdicts=VerdictStore(store, SEED))
    read.clear()
    again = find(list(lake.tables.values()), seed=SEED, verdicts=VerdictStore(store, SEED))
    assert not read
    assert again.edges.equals(first.edges)
    assert store.puts == 1
    lake("z", pa.table({"y": ["a", "b", "c"]}))
    more = find(list(lake.tables.values()), seed=SEED, verdicts=VerdictStore(store, SEED))
    assert not any("/a-" in path or "/b-" in path for path in read)
    assert edges(more) == edges(find(list(lake.tables.values()), seed=SEED))


def test_changed_rows_are_never_answered_from_the_cache(lake):
    verdicts = VerdictStore(None, SEED)
    lake("a", pa.table({"x": [1, 2, 3]}))
    lake("b", pa.table({"x": [1, 2, 3]}))
    assert find(list(lake.tables.values()), seed=SEED, verdicts=verdicts).edges.num_rows == 2
    lake("b", pa.table({"x": [1, 4, 3]}))
    assert find(list(lake.tables.values()), seed=SEED, verdicts=verdicts).edges.num_rows == 0


def test_an_interrupted_run_leaves_a_cache_that_is_right(lake):
    for number in range(4):
        lake(f"a{number}", pa.table({"x": [1, 2, 3 + number], "y": [0, 0, 0]}))
        lake(f"b{number}", pa.table({"x": [1, 2, 2, 3 + number], "y": [0, 0, 0, 0]}))
    truth = edges(find(list(lake.tables.values()), seed=SEED))
    calls = []
    find(list(lake.tables.values()), seed=SEED, progress=lambda stage, done, total: calls.append(stage))
    assert calls[:2] == ["schema", "min-max"]
    assert calls[-1] == "rows"
    for stop_at in range(1, len(calls) + 1):
        store, seen = MemoryStore(), []

        def stop(stage, done, total, seen=seen, stop_at=stop_at):
            seen.append(stage)
            if len(seen) == stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            find(list(lake.tables.values()), seed=SEED, verdicts=VerdictStore(store, SEED), progress=stop)
        assert edges(find(list(lake.tables.values()), seed=SEED, verdicts=VerdictStore(store, SEED))) == truth


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_or_foreign_cache_is_ignored(lake, harm):
    store = MemoryStore()
    lake("a", pa.table({"x": [1, 2, 3]}))
    lake("b", pa.table({"x": [1, 2, 3, 4]}))
    tables = list(lake.tables.values())
    truth = find(tables, seed=SEED, verdicts=VerdictStore(store, SEED)).edges
    data = store.objects[PATH]
    if harm == "flip":
        middle = len(data) // 2
        store.objects[PATH] = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    elif harm == "cut":
        store.objects[PATH] = data[:-3]
    elif harm == "empty":
        store.objects[PATH] = b""
    seed = b"another lake's secret of length" if harm == "foreign" else SEED
    verdicts = VerdictStore(store, seed)
    graph = find(tables, seed=seed, verdicts=verdicts)
    assert graph.edges.equals(truth)
    assert graph.stages.column("bytes_read").to_pylist() != []
    assert store.puts == 2
    assert find(tables, seed=seed, verdicts=VerdictStore(store, seed)).stages.num_rows == 0


def test_a_store_that_refuses_to_write_does_not_fail_the_run(lake):
    class Full(MemoryStore):
        def put(self, path, data):
            raise Unavailable("disk full")

    lake("a", pa.table({"x": [1]}))
    lake("b", pa.table({"x": [1]}))
    assert find(list(lake.tables.values()), seed=SEED, verdicts=VerdictStore(Full(), SEED)).edges.num_rows == 2


def test_names_that_collide_keep_their_case(lake):
    lake("both", pa.table([[1, 2], [3, 4]], names=["A", "a"]))
    lake("upper", pa.table({"A": [1]}))
    lake("lower", pa.table({"a": [3]}))
    lake("other", pa.table({" a": [3]}))
    assert edges(find(list(lake.tables.values()), seed=SEED)) == {
        ("upper", "both", "contained", "compared"),
        ("lower", "both", "contained", "compared"),
        ("lower", "other", "duplicate", "compared"),
        ("other", "lower", "duplicate", "compared"),
    }


def test_partial_fractions_are_exact(lake):
    lake("child", pa.table({"a": [1, 1, 2, 3, None]}))
    lake("most", pa.table({"a": [1, 2, 3, 9]}))
    lake("half", pa.table({"a": [1, None, 7, 8]}))
    found = {
        (e["child"], e["parent"]): (e["fraction"], e["kind"])
        for e in find(list(lake.tables.values()), seed=SEED, min_fraction=0.5).edges.to_pylist()
    }
    assert found == {
        ("child", "most"): (0.75, "partial"),
        ("child", "half"): (0.5, "partial"),
        ("most", "child"): (0.75, "partial"),
        ("half", "child"): (0.5, "partial"),
    }


def test_large_decoys_are_refuted_at_a_part_of_their_bytes(lake):
    rng = np.random.default_rng(1)
    rows = 60_000

    def decoy(seed):
        r = np.random.default_rng(seed)
        keys = r.choice(4 * rows, rows, replace=False)
        keys[:2] = 0, 4 * rows
        return pa.table(
            {
                "key": keys,
                **{f"c{i}": np.concatenate([[0.0, 1.0], r.random(rows - 2)]) for i in range(6)},
                "note": [f"{x:x}" for x in [0, 2**40, *r.integers(0, 2**40, rows - 2).tolist()]],
            }
        )

    whole = decoy(0)
    lake("whole", whole)
    keep = np.sort(np.concatenate([[0, 1], rng.choice(np.arange(2, rows), rows // 2, replace=False)]))
    lake("part", whole.take(pa.array(keep)))
    for number in range(1, 5):
        lake(f"decoy{number}", decoy(number))
    tables = list(lake.tables.values())
    graph = find(tables, seed=SEED)
    assert edges(graph) == {("part", "whole", "contained", "compared")}
    true_bytes = lake.tables["whole"].num_bytes + lake.tables["part"].num_bytes
    assert sum(graph.stages.column("bytes_read").to_pylist()) <= 1.5 * true_bytes


def test_row_hashes_spill_when_memory_is_short(lake):
    rng = np.random.default_rng(2)
    data = pa.table({"a": rng.integers(0, 2**60, 60_000), "b": rng.random(60_000)})
    lake("whole", data, row_group_size=10_000)
    lake("part", data.slice(0, 40_000), row_group_size=7_000)
    graph = find(list(lake.tables.values()), seed=SEED, memory_bytes=2**18)
    assert {e[:2] for e in edges(graph)} == {("part", "whole")}


def test_progress_is_told_in_order(lake):
    seen = []
    lake("a", pa.table({"x": [1, 2]}))
    lake("b", pa.table({"x": [2, 1]}))
    find(list(lake.tables.values()), seed=SEED, progress=lambda *told: seen.append(told))
    assert [stage for stage, _, _ in seen][:2] == ["schema", "min-max"]
    assert all(done <= total for _, done, total in seen)
