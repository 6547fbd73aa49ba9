"""Columns that are stored alike stand for each other, and nothing that reads differently is taken for a copy."""

import datetime as dt
from decimal import Decimal
from itertools import pairwise

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lakelet.containment.content import Content
from lakelet.containment.copies import Copies
from lakelet.containment.finder import find
from lakelet.containment.rowsets import RowSets
from lakelet.lake.attached import Attachments, attached_table
from lakelet.lake.errors import Conflict, Corrupt, NotFound
from lakelet.lake.fragment import Fragment
from lakelet.lake.table import Table

SEED = b"a secret of the lake, 32 bytes.."


def table(folder, name, *parts, **options):
    """A table of one file a part, each part written with ``options``."""
    fragments = []
    for number, data in enumerate(parts):
        path = folder / f"{name}-{number}.parquet"
        pq.write_table(data, path, **options)
        size = path.stat().st_size
        fragments.append(Fragment(str(path), pq.read_schema(path), identity=str(path), num_bytes=size))
    return Table(name, fragments[0].schema, fragments, 1)


def copies(*tables, **options):
    return Copies(tables, SEED, Content(tables, SEED, RowSets(2**20)).column_bytes, **options)


def are_copies(one, two, columns, theirs=None):
    return copies(one, two).are_copies([(0, columns), (1, theirs or columns)])


DATA = pa.table({"n": list(range(500)), "t": [f"word {i % 7}" for i in range(500)], "f": [i / 3 for i in range(500)]})


def test_the_same_columns_in_another_order_under_other_names_are_copies(tmp_path):
    other = DATA.select(["t", "n"]).rename_columns(["T", "N"])
    one, two = table(tmp_path, "a", DATA), table(tmp_path, "b", other)
    assert are_copies(one, two, ["n", "t"], ["N", "T"])
    assert not are_copies(one, two, ["n", "t"], ["T", "N"])


def test_how_arrow_holds_text_in_memory_does_not_count(tmp_path):
    large = DATA.set_column(1, "t", DATA["t"].cast(pa.large_string()))
    encoded = DATA.set_column(1, "t", DATA["t"].dictionary_encode())
    one = table(tmp_path, "a", DATA)
    assert are_copies(one, table(tmp_path, "b", large), ["n", "t", "f"])
    assert are_copies(one, table(tmp_path, "c", encoded), ["t"])


@pytest.mark.parametrize("row", [0, 250, 499])
def test_one_other_value_is_no_copy(tmp_path, row):
    values = DATA["n"].to_pylist()
    values[row] = values[row - 1]
    one, two = table(tmp_path, "a", DATA), table(tmp_path, "b", DATA.set_column(0, "n", pa.array(values)))
    assert not are_copies(one, two, ["n"])
    assert are_copies(one, two, ["t", "f"])


def at(values, kind):
    return pa.array(values, pa.int64()).cast(kind)


@pytest.mark.parametrize(
    "columns",
    [
        (at([1, 2], pa.int64()), at([1, 2], pa.timestamp("us"))),
        (at([1, 2], pa.timestamp("us")), at([1, 2], pa.timestamp("us", "UTC"))),
        (at([1, 2], pa.timestamp("us")), at([1, 2], pa.timestamp("ms"))),
        (at([1, 2], pa.int64()), at([1, 2], pa.duration("us"))),
        (at([1, 2], pa.int64()), at([1, 2], pa.uint64())),
        (pa.array([1, 2], pa.int32()), pa.array([1, 2], pa.int32()).cast(pa.date32())),
        (pa.array(["a", "b"]), pa.array([b"a", b"b"])),
        (pa.array([Decimal("1.1")], pa.decimal128(9, 1)), pa.array([Decimal("0.11")], pa.decimal128(9, 2))),
        (pa.array([[1], [2]]), pa.array([1, 2])),
        (pa.array([[1], [2]]), pa.array([[1], [2]], pa.list_(pa.int32()))),
        (pa.array([dt.time(0, 0, 1)], pa.time64("us")), pa.array([1_000_000])),
    ],
    ids=lambda pair: " ".join(str(one.type) for one in pair),
)
def test_equal_bytes_of_other_types_are_no_copies(tmp_path, columns):
    tables = [table(tmp_path, f"t{i}", pa.table({"x": one}), store_schema=True) for i, one in enumerate(columns)]
    assert not are_copies(*tables, ["x"])


def test_columns_that_a_table_reads_as_another_type_are_no_copies(tmp_path):
    one, two = table(tmp_path, "a", DATA), table(tmp_path, "b", DATA)
    (fragment,) = two.fragments()
    wide = pa.schema([("n", pa.float64()), ("t", pa.string()), ("f", pa.float64())])
    wider = Fragment(fragment.path, wide, identity="w", num_bytes=fragment.num_bytes)
    assert not are_copies(one, Table("b", wide, [wider], 1), ["n"])
    assert are_copies(one, Table("b", wide, [wider], 1), ["f"])


def test_rows_in_other_groups_files_or_codecs_are_no_copies(tmp_path):
    one = table(tmp_path, "a", DATA)
    for number, other in enumerate(
        (
            table(tmp_path, "b", DATA, row_group_size=100),
            table(tmp_path, "c", DATA.slice(0, 250), DATA.slice(250)),
            table(tmp_path, "d", DATA, compression="zstd"),
            table(tmp_path, "e", DATA.slice(0, 499)),
        )
    ):
        assert not are_copies(one, other, ["n"]), number
    halves = [DATA.slice(0, 250), DATA.slice(250)]
    assert are_copies(table(tmp_path, "f", *halves), table(tmp_path, "g", *halves), ["n", "t"])
    assert not are_copies(table(tmp_path, "h", *halves), table(tmp_path, "i", *reversed(halves)), ["n"])


def test_tables_with_deleted_rows_are_not_looked_at(tmp_path):
    one, two = table(tmp_path, "a", DATA), table(tmp_path, "b", DATA)
    (whole,) = two.fragments()
    cut = Fragment(
        whole.path,
        whole.schema,
        identity="cut",
        num_bytes=whole.num_bytes,
        deletions=lambda: pa.array([3]).to_numpy(),
        num_deleted_rows=1,
    )
    assert not are_copies(one, Table("b", whole.schema, [cut], 1), ["n"])


def test_a_table_above_the_limit_is_not_looked_at(tmp_path):
    found = copies(table(tmp_path, "a", DATA), table(tmp_path, "b", DATA), most_bytes=100)
    assert not found.are_copies([(0, ["n"]), (1, ["n"])])
    assert found.bytes_read == 0
    assert found.known(0, ["n"]) is None


def test_different_footers_spare_reading(tmp_path):
    found = copies(table(tmp_path, "a", DATA), table(tmp_path, "b", DATA.slice(1)))
    assert not found.are_copies([(0, ["n"]), (1, ["n"])])
    assert found.bytes_read == 0


@pytest.mark.parametrize(("damage", "error"), [("cut", Corrupt), ("gone", NotFound)])
def test_a_damaged_file_is_a_typed_error(tmp_path, damage, error):
    one, two = table(tmp_path, "a", DATA), table(tmp_path, "b", DATA)
    (fragment,) = two.fragments()
    assert fragment.metadata.num_rows == 500
    path = tmp_path / "b-0.parquet"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.unlink()
    with pytest.raises(error, match=r"b-0\.parquet"):
        are_copies(one, two, ["n", "t"])


def test_writers_that_counted_columns_wrong_are_not_believed(tmp_path):
    """PARQUET-816: what lies behind the counted bytes is part of the column too."""
    for name in ("a", "b"):
        table(tmp_path, name, DATA)
        path = tmp_path / f"{name}-0.parquet"
        writer = pq.read_metadata(path).created_by.encode()
        path.write_bytes(path.read_bytes().replace(writer, b"parquet-cpp version 1.2.8".ljust(len(writer))))
    old = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}-0.parquet"
        fragment = Fragment(str(path), DATA.schema, identity=name, num_bytes=path.stat().st_size)
        assert fragment.metadata.created_by.startswith("parquet-cpp version 1.2.8")
        old.append(Table(name, DATA.schema, [fragment], 1))
    assert not are_copies(*old, ["n"])
    assert find(old, seed=SEED).edges.num_rows == 2


def test_row_groups_without_rows_are_compared_too(tmp_path):
    found = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.parquet"
        with pq.ParquetWriter(path, DATA.schema) as writer:
            for part in (DATA.slice(0, 0), DATA, DATA.slice(0, 0)):
                writer.write_table(part)
        fragment = Fragment(str(path), DATA.schema, identity=name, num_bytes=path.stat().st_size)
        assert fragment.row_group_rows == [0, 500, 0]
        found.append(Table(name, DATA.schema, [fragment], 1))
    assert are_copies(*found, ["n", "t", "f"])


def test_files_of_an_object_store_are_not_read_twice(tmp_path):
    uri = f"memory://{tmp_path.name}"
    for name in ("a", "b"):
        with fsspec.open(f"{uri}/{name}.parquet", "wb") as file:
            pq.write_table(DATA, file)
    attachments = Attachments()
    remote = [attached_table(n, attachments.open(f"{uri}/{n}.parquet"), 1) for n in ("a", "b")]
    found = copies(*remote)
    assert not found.are_copies([(0, ["n"]), (1, ["n"])])
    assert found.bytes_read == 0


def test_an_attached_file_that_changed_is_a_conflict(tmp_path):
    attachments = Attachments()
    for name in ("a", "b"):
        pq.write_table(DATA, tmp_path / f"{name}.parquet")
    tables = [attached_table(n, attachments.open(str(tmp_path / f"{n}.parquet")), 1) for n in ("a", "b")]
    pq.write_table(DATA.slice(1), tmp_path / "b.parquet")
    with pytest.raises(Conflict, match="changed"):
        are_copies(*tables, ["n", "t"])


def test_one_of_two_copies_is_read(tmp_path, monkeypatch):
    wide = DATA.append_column("extra", pa.array([i % 3 for i in range(500)]))
    tables = [table(tmp_path, "child", DATA), table(tmp_path, "parent", wide), table(tmp_path, "twin", DATA)]
    read = []
    original = Fragment.read

    def counting(self, columns=None, row_groups=None):
        read.append((self.path.rpartition("/")[2].partition("-")[0], sorted(columns)))
        return original(self, columns, row_groups)

    monkeypatch.setattr(Fragment, "read", counting)
    graph = find(tables, seed=SEED)
    assert {(e["child"], e["parent"], e["kind"]) for e in graph.edges.to_pylist()} == {
        ("child", "parent", "contained"),
        ("twin", "parent", "contained"),
        ("child", "twin", "duplicate"),
        ("twin", "child", "duplicate"),
    }
    assert [columns for _, columns in read].count(["f", "n", "t"]) == 1


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_copies_hold_equal_rows(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("lake")
    cells = {
        "i": st.lists(st.integers(0, 2) | st.none(), min_size=4, max_size=4).map(lambda v: pa.array(v, pa.int64())),
        "s": st.lists(st.sampled_from(["a", "b", None]), min_size=4, max_size=4).map(
            lambda v: pa.array(v, pa.string())
        ),
    }
    base = {name: data.draw(values) for name, values in cells.items()}
    tables = [table(folder, "t0", pa.table(base))]
    for number in range(1, 4):
        own = {n: (base[n] if data.draw(st.booleans()) else data.draw(cells[n])) for n in base}
        tables.append(table(folder, f"t{number}", pa.table(own), row_group_size=data.draw(st.sampled_from([2, 4]))))
    found = copies(*tables)
    for (a, one), (b, two) in pairwise(enumerate(tables)):
        same = one.to_arrow().equals(two.to_arrow())
        groups = [[f.row_group_rows for f in t.fragments()] for t in (one, two)]
        assert found.are_copies([(a, ["i", "s"]), (b, ["i", "s"])]) == (same and groups[0] == groups[1])
