"""A lake in which tables are retired tells the same as one in which none ever is, whatever happens to them.

Both go through the same edits; after each, every table is compared in types, metadata and bits, by scan and by SQL, and
at the end so is every version.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import lakelet
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from lakelet import Engine
from lakelet.lake.bitwise import differing_rows, same_dictionary
from lakelet.lake.compaction import plan_optimize
from lakelet.lake.conversion import convert, keep_rows
from lakelet.lake.edit import Edit, plan_write
from lakelet.lake.layout import ParquetLayout
from lakelet.lake.merge import plan_merge

LAYOUTS = [ParquetLayout(row_group_rows=4), ParquetLayout(row_group_rows=3, file_bytes=1), ParquetLayout()]
POINT = pa.struct([("x", pa.float64()), ("words", pa.list_(pa.string()))])
METADATA = [None, {"owner": "é"}]


def doubles(rng: np.random.Generator, rows: int) -> pa.Array:
    """Numbers among them -0.0 and NaN of two payloads; as bits, since a NaN loses its payload on many ways."""
    bits = rng.choice(np.array([0, 1 << 63, 0x3FF8 << 48, 0x7FF8 << 48, (0x7FF8 << 48) + 7], np.uint64), rows)
    return pa.array(bits.view(np.float64), mask=rng.random(rows) < 0.1)


def parent_rows(rng: np.random.Generator, rows: int, first: int = 0) -> pa.Table:
    words = pa.array(["a", "b", "", None, "a long word that is kept apart"])
    text = words.take(pa.array(rng.integers(0, len(words), rows)))
    numbers = rng.integers(-9, 9, rows)
    points = [
        None
        if rng.random() < 0.2
        else {"x": float(rng.choice([0.0, -0.0, 2.5])), "words": ["w"] * int(rng.integers(3))}
        for _ in range(rows)
    ]
    return pa.table(
        {
            "id": np.arange(first, first + rows),
            "k": pa.array(numbers, mask=rng.random(rows) < 0.1),
            "f": doubles(rng, rows),
            "place": text,
            "d": text.dictionary_encode(),
            "dec": pa.array([Decimal(int(n)) for n in numbers], pa.decimal128(12, 2)),
            "t": pa.array(numbers, pa.timestamp("ms", "UTC")),
            "span": pa.array(numbers, pa.duration("s")),
            "p": pa.array(points, POINT),
        }
    )


CASTS: dict[str, list[pa.DataType]] = {
    "id": [pa.int16(), pa.float64(), pa.decimal128(9, 0)],
    "k": [pa.int8(), pa.float32(), pa.decimal64(7, 1)],
    "f": [pa.float32(), pa.float16()],
    "place": [pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.string_view()],
    "d": [pa.string(), pa.dictionary(pa.int16(), pa.large_string(), ordered=True)],
    "dec": [pa.int32(), pa.decimal256(50, 4), pa.float64()],
    "t": [pa.timestamp("us", "UTC")],
    "span": [pa.duration("ms")],
    "p": [],
}


@st.composite
def children(draw: st.DrawFn, parent: pa.Table) -> pa.Table:
    """Rows and columns of the parent in some order, in other types, with other bits here and there."""
    rng, rows = np.random.default_rng(draw(st.integers(0, 99))), parent.num_rows
    picked = {
        "all": np.arange(rows),
        "range": np.arange(rows // 3, rows // 3 * 2),
        "subset": np.flatnonzero(rng.random(rows) < 0.6),
        "shuffled": rng.permutation(rows)[: rows - rows // 4],
        "often": rng.integers(0, rows, 2 * rows) if rows else np.arange(0),
        "blocks": np.concatenate([np.arange(rows // 2, rows), np.arange(rows // 3)]),
        "none": np.arange(0),
    }[draw(st.sampled_from(["subset", "shuffled", "often", "blocks", "range", "all"] * 3 + ["none"]))]
    names = draw(st.permutations(parent.schema.names))[: draw(st.integers(1, len(parent.schema)))]
    found = keep_rows(parent.select(names), pa.array(picked))
    fields, columns = [], []
    for field, stored in zip(found.schema, found.columns, strict=True):
        kind = draw(st.sampled_from([field.type, *CASTS[field.name]]))
        column = convert(stored, kind).combine_chunks()
        if field.name == "f" and draw(st.booleans()):
            column = other_bits(column, rng)
        if pa.types.is_dictionary(kind) and draw(st.booleans()):
            column = other_order(column, rng)
        fields.append(pa.field(field.name, kind, metadata=draw(st.sampled_from(METADATA))))
        columns.append(column)
    if draw(st.integers(0, 3)) == 0:
        fields.insert(0, pa.field("own", pa.float64()))  # a column that the parent lacks
        columns.insert(0, doubles(rng, found.num_rows))
    return pa.table(columns, schema=pa.schema(fields, draw(st.sampled_from(METADATA))))


def other_bits(column: pa.Array, rng: np.random.Generator) -> pa.Array:
    """Zeros of the other sign and NaNs of another payload in a few rows: equal values, other bits."""
    kind = np.dtype(f"u{column.type.bit_width // 8}")
    bits = np.frombuffer(column.buffers()[1], kind, len(column), column.offset * kind.itemsize).copy()
    values = bits.view(f"f{kind.itemsize}")
    chosen = (rng.random(len(bits)) < 0.3) & ((values == 0) | np.isnan(values))
    bits[chosen] ^= np.where(values[chosen] == 0, kind.type(1) << kind.type(column.type.bit_width - 1), kind.type(1))
    return pa.array(bits.view(f"f{kind.itemsize}"), column.type, mask=np.asarray(column.is_null()))


def other_order(column: pa.Array, rng: np.random.Generator) -> pa.Array:
    """The same values behind a dictionary in another order, with categories that nobody uses."""
    values = [*column.dictionary.to_pylist(), "unused", "never"]
    order = rng.permutation(len(values))
    place = np.argsort(order)
    codes = [None if code is None else int(place[code]) for code in column.indices.to_pylist()]
    kind = column.type
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, kind.index_type), pa.array([values[i] for i in order], kind.value_type), ordered=kind.ordered
    )


# --- two lakes -----------------------------------------------------------------------------------------------------


class Lakes:
    """``retired`` and ``plain`` hold the same tables; in ``plain`` nothing is ever retired."""

    def __init__(self, folder: str) -> None:
        self.retired, self.plain = lakelet.connect(f"{folder}/retired"), lakelet.connect(f"{folder}/plain")
        self.versions: list[tuple[int, int]] = []

    def both(self, edit: Callable[[Engine], Any]) -> None:
        for db in (self.retired, self.plain):
            edit(db)

    def close(self) -> None:
        self.both(Engine.close)

    def check(self, name: str, where: str) -> None:
        """The table reads the same in both."""
        one, two = self.retired.table(name), self.plain.table(name)
        assert one.num_rows == two.num_rows
        same(one.to_arrow(), two.to_arrow())
        columns = two.schema.names[::-2]
        same(one.scan(columns, where).read_all(), two.scan(columns, where).read_all())
        same(one.to_arrow(columns[:1]), two.to_arrow(columns[:1]))
        if one.kind == two.kind and name.startswith("p"):
            return
        queries = [f"SELECT * FROM {name}", f"SELECT {', '.join(columns)} FROM {name} WHERE {where}"]
        # An ORDER knows no difference between -0.0 and 0.0.
        exact = [column for column in two.schema.names if column not in ("f", "p", "own")]
        if exact:
            queries.append(f"SELECT {', '.join(exact)} FROM {name} ORDER BY ALL DESC NULLS FIRST LIMIT 7")
            queries.append(f"SELECT {exact[-1]}, count(*) AS n FROM {name} WHERE {where} GROUP BY ALL ORDER BY ALL")
        for query in queries:
            same(self.retired.sql(query).to_arrow_table(), self.plain.sql(query).to_arrow_table())

    def check_all(self) -> None:
        assert sorted(self.retired.tables()) == sorted(self.plain.tables())
        for name in self.plain.tables():
            schema = self.plain.table(name).schema
            self.check(name, "id % 3 = 1" if "id" in schema.names else f"{schema.names[0]} IS NOT NULL")
        self.versions.append((self.retired.version, self.plain.version))

    def check_versions(self) -> None:
        for one, two in self.versions:
            for name in self.plain.at(two).tables():
                same(self.retired.table(name, one).to_arrow(), self.plain.table(name, two).to_arrow())


def same(found: pa.Table, expected: pa.Table) -> None:
    assert found.schema.equals(expected.schema, check_metadata=True), (found.schema, expected.schema)
    assert found.num_rows == expected.num_rows
    found.validate(full=True)
    for name, one, two in zip(expected.schema.names, found.columns, expected.columns, strict=True):
        assert not differing_rows(one, two).size, (name, one.to_pylist(), two.to_pylist())


def committed(db: Engine, plan: Callable[..., Edit], operation: str, *arguments: Any) -> None:
    """What the engine does, with files as small as ``arguments`` ask for."""
    base = db._catalog.log.latest()
    db._commit(plan(base, db._catalog.store, *arguments), operation, base)


def act(lakes: Lakes, retire: Callable[..., Any], kind: str, name: str, what: int, layout: ParquetLayout) -> None:
    if name not in lakes.plain.tables():
        return
    table = lakes.plain.table(name).to_arrow()
    rng = np.random.default_rng(what)
    some = keep_rows(table, pa.array(rng.random(table.num_rows) < 0.4))
    key = "id" if "id" in table.schema.names else table.schema.names[0]
    carried: Any = {"dependants": "restore"}
    match kind:
        case "append":
            lakes.both(lambda db: committed(db, plan_write, kind, name, some, "append", layout))
        case "grow" if name == "p":
            more = parent_rows(rng, 3, 1000 * what).append_column(f"new{what}", pa.array([1, None, 3]))
            lakes.both(lambda db: committed(db, plan_write, kind, name, more, "append", layout))
        case "delete" if key == "id":
            lakes.both(lambda db: db.delete(name, "id % 5 = $1", [what % 5], **carried))
        case "delete":
            lakes.both(lambda db: db.delete(name, f"{key} IS NULL", **carried))
        case "merge" if key == "id" and table.num_rows:
            new = keep_rows(table, pa.array([what % table.num_rows]))
            lakes.both(lambda db: committed(db, plan_merge, kind, name, new, [key], layout))
        case "overwrite":
            lakes.both(lambda db: db.write(name, some.select(table.schema.names[::-1]), "overwrite", **carried))
        case "optimize":
            lakes.both(lambda db: committed(db, plan_optimize, kind, name, layout))
        case "drop":
            lakes.both(lambda db: db.drop(name, **carried))
        case "rename":
            lakes.both(lambda db: db.rename(name, f"{name}x"))
        case "restore" if lakes.retired.table(name).kind == "retired":
            lakes.retired.restore(name)
            assert lakes.retired.table(name).kind == "owned"
        case "retire" if name != "p" and "p" in lakes.plain.tables():
            if set(table.schema.names) & set(lakes.plain.table("p").schema.names):
                retire(lakes.retired, (name, "p"))


ACTIONS = st.tuples(
    st.sampled_from(
        [
            "append",
            "grow",
            "delete",
            "delete",
            "merge",
            "overwrite",
            "optimize",
            "optimize",
            "drop",
            "rename",
            "restore",
        ]
        + ["retire"] * 2
    ),
    st.sampled_from(["p", "p", "c0", "c1"]),
    st.integers(0, 20),
    st.sampled_from(LAYOUTS),
)


@pytest.mark.filterwarnings("ignore:overflow")
@settings(max_examples=25, suppress_health_check=list(HealthCheck), phases=set(Phase) - {Phase.explain})
@given(
    data=st.data(),
    rows=st.sampled_from([25, 40, 12, 25, 40, 12, 5, 0]),
    seed=st.integers(0, 99),
    layout=st.sampled_from(LAYOUTS),
)
def test_retired_tables_tell_what_they_told(
    retire: Callable[..., Any], data: st.DataObject, rows: int, seed: int, layout: ParquetLayout
) -> None:
    parent = parent_rows(np.random.default_rng(seed), rows)
    with tempfile.TemporaryDirectory() as folder:
        lakes = Lakes(folder)
        cut = data.draw(st.integers(0, rows))
        lakes.both(lambda db: committed(db, plan_write, "create", "p", parent.slice(0, cut), "create", layout))
        lakes.both(lambda db: committed(db, plan_write, "append", "p", parent.slice(cut), "append", layout))
        if data.draw(st.booleans()):
            lakes.both(lambda db: db.delete("p", "id % 7 = 2"))
        drawn = data.draw(st.lists(children(parent), min_size=1, max_size=2))
        for at, child in enumerate(drawn):
            lakes.both(lambda db: committed(db, plan_write, "create", f"c{at}", child, "create", layout))  # noqa: B023
            if "id" in child.schema.names and data.draw(st.booleans()):
                lakes.both(lambda db: db.delete(f"c{at}", "id % 4 = 1"))  # noqa: B023
        lakes.check_all()
        found = retire(lakes.retired, *((f"c{at}", "p") for at in range(len(drawn))))
        assert not found.skipped
        for at in range(len(drawn)):
            event(f"{lakes.retired.table(f'c{at}').kind}, residual {found.retired[at].residual_rows > 0}")
            dictionaries_stayed(lakes.retired.table(f"c{at}").to_arrow(), lakes.plain.table(f"c{at}").to_arrow())
        lakes.check_all()
        for action in data.draw(st.lists(ACTIONS, min_size=1, max_size=6)):
            event(action[0])
            act(lakes, retire, *action)
            lakes.check_all()
        lakes.check_versions()
        lakes.close()


def dictionaries_stayed(found: pa.Table, expected: pa.Table) -> None:
    for one, two in zip(found.columns, expected.columns, strict=True):
        assert not pa.types.is_dictionary(two.type) or same_dictionary(one, two)
