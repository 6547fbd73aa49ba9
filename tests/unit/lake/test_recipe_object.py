"""The recipe object: what goes in comes out, it is small, and nothing of a damaged one is believed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake import recipe
from lakelet.lake.errors import Corrupt, Unavailable
from lakelet.lake.local_store import LocalStore
from lakelet.lake.positions import encode_positions
from lakelet.lake.recipe import Directions, Origins, Part, Source, decode_recipe, encode_recipe, make_part
from lakelet.lake.recipe_writer import write_residual

SCHEMA = pa.schema(
    [pa.field("a", pa.int64(), metadata={"unit": "m"}), pa.field("ß.b", pa.dictionary(pa.int8(), "str"))]
)
MILLION = 1_000_000


def directions(*parts: Part, sources: int = 2) -> Directions:
    found = tuple(Source(MILLION, 10**7 + i, "ab" * 32) for i in range(sources))
    return Directions(SCHEMA, {"x": "a", "y": "ß.b"}, found, parts)


def part(rows: Any, residual: Any = (), **dictionaries: pa.Array) -> Part:
    both = (encode_positions(np.asarray(values, np.int64)) for values in (rows, residual))
    return Part(*both, dictionaries)


def same(found: Directions, expected: Directions) -> None:
    assert found.source_schema.equals(expected.source_schema, check_metadata=True)
    assert dict(found.columns) == dict(expected.columns)
    assert list(found.columns) == list(expected.columns)
    assert found.sources == expected.sources
    assert len(found.parts) == len(expected.parts)
    for one, two in zip(found.parts, expected.parts, strict=True):
        for mine, theirs in ((one.rows, two.rows), (one.residual, two.residual)):
            assert (mine.form, mine.count, mine.base) == (theirs.form, theirs.count, theirs.base)
            assert np.array_equal(mine.decode(), theirs.decode())
        assert {name: (str(values.type), values.to_pylist()) for name, values in one.dictionaries.items()} == {
            name: (str(values.type), values.to_pylist()) for name, values in two.dictionaries.items()
        }


def test_every_form_and_dictionaries_come_back() -> None:
    rng = np.random.default_rng(0)
    parts = (
        part(range(10, 20)),
        part(np.flatnonzero(rng.random(5_000) < 0.4), range(3)),
        part(rng.permutation(3_000), [0, 9, 4]),
        part(np.concatenate([np.arange(1_000), np.arange(5_000, 7_000)]), np.flatnonzero(rng.random(900) < 0.4)),
        part([], range(7), y=pa.array(["b", "unused", "a"]), z=pa.array([1, None], pa.decimal128(5, 2))),
        part([]),
        part([3], e=pa.array([], pa.large_string()), v=pa.array([b"a\0"], pa.binary_view())),
    )
    assert {one.rows.form for one in parts} == {"run", "bitmap", "numbers", "runs"}
    data, checksum = encode_recipe(directions(*parts))
    same(decode_recipe(data, "r", checksum), directions(*parts))


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 200])
def test_any_number_of_parts(count: int) -> None:
    expected = directions(*(part(range(i, 2 * i)) for i in range(count)))
    data, checksum = encode_recipe(expected)
    same(decode_recipe(data, "r", checksum), expected)


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 10**6), max_size=60),
            st.sets(st.integers(0, 100), max_size=20).map(sorted),
        ),
        max_size=4,
    )
)
def test_whatever_is_encoded_is_decoded(drawn: list[tuple[list[int], list[int]]]) -> None:
    expected = directions(*(part(rows, residual) for rows, residual in drawn))
    data, checksum = encode_recipe(expected)
    same(decode_recipe(data, "r", checksum), expected)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9])
def test_a_subset_in_order_takes_at_most_1_2_bits_for_each_row_of_the_parent(share: float) -> None:
    rows = np.flatnonzero(np.random.default_rng(0).random(MILLION) < share)
    data, _ = encode_recipe(directions(part(rows)))
    assert len(data) * 8 <= 1.2 * MILLION


def test_an_arbitrary_order_takes_at_most_4_bytes_for_each_row_of_the_child() -> None:
    rows = np.random.default_rng(0).permutation(MILLION)
    data, _ = encode_recipe(directions(part(rows)))
    assert len(data) <= 4 * MILLION
    rows = np.random.default_rng(0).integers(0, MILLION, MILLION // 5)
    data, _ = encode_recipe(directions(part(rows)))
    assert len(data) <= 4 * len(rows)


def test_a_whole_table_takes_next_to_nothing() -> None:
    data, _ = encode_recipe(directions(*(part(range(i, i + 122_880)) for i in range(0, MILLION, 122_880))))
    assert len(data) < 5_000


def test_origins_name_source_and_row_and_the_residual_file() -> None:
    sources = (Source(10, 1, ""), Source(0, 1, ""), Source(5, 1, ""))
    origins = Origins(np.array([2, 0, -1, 0, -1], np.int32), np.array([4, 9, 0, 0, 0]))
    made = make_part(origins, recipe.source_starts(sources), {})
    assert made.num_rows == 5
    found = Directions(SCHEMA, {}, sources, (made,)).origins(made, 100)
    assert found.source.tolist() == [2, 0, -1, 0, -1]
    assert found.row.tolist() == [4, 9, 100, 0, 101]


def test_any_flipped_byte_is_noticed_and_the_object_named() -> None:
    data, checksum = encode_recipe(directions(part([5, 3, 9]), part(range(4), [1])))
    for at in range(0, len(data), 7):
        broken = bytearray(data)
        broken[at] ^= 1
        with pytest.raises(Corrupt, match=r"data/t/x\.recipe\.parquet") as raised:
            decode_recipe(bytes(broken), "data/t/x.recipe.parquet", checksum)
        assert raised.value.path == "data/t/x.recipe.parquet"
    for broken in (b"", data[:-1], data + b"\0"):
        with pytest.raises(Corrupt, match="x"):
            decode_recipe(broken, "x", checksum)


def with_header(data: bytes, **changes: Any) -> tuple[bytes, str]:
    """The object with another header, and its checksum: as a writer that is wrong or newer would leave it."""
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        header = json.loads(file.metadata.metadata[b"lakelet.recipe"])
        table = file.read()
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema.remove_metadata(), store_schema=False) as writer:
        writer.write_table(table.replace_schema_metadata(None))
        writer.add_key_value_metadata({"lakelet.recipe": json.dumps(header | changes)})
    made = sink.getvalue().to_pybytes()
    return made, hashlib.sha256(made).hexdigest()


def test_a_newer_format_says_that_it_is_newer() -> None:
    data, _ = encode_recipe(directions(part(range(4))))
    made, checksum = with_header(data, format=10**6)
    with pytest.raises(Unavailable, match=r"some/path has format 1000000.*upgrade"):
        decode_recipe(made, "some/path", checksum)


@pytest.mark.parametrize("changes", [{"sources": 3}, {"sources": [[1]]}, {"source_schema": "?"}, {"format": "one"}])
def test_an_object_that_no_writer_makes_is_corrupt(changes: dict[str, Any]) -> None:
    data, _ = encode_recipe(directions(part(range(4))))
    made, checksum = with_header(data, **changes)
    with pytest.raises(Corrupt, match="some/path"):
        decode_recipe(made, "some/path", checksum)


def test_residual_rows_stand_in_one_file_whatever_their_order(tmp_path: Any) -> None:
    up, down = pa.table({"a": range(130_000)}), pa.table({"a": range(130_000, 0, -1)})
    origins = [Origins(np.full(130_000, -1, np.int32), np.zeros(130_000, np.int64))] * 2
    store = LocalStore(tmp_path)
    file = write_residual(store, "t", up.schema, 0, origins, [up, down])
    assert file is not None
    assert file.num_rows == 260_000
    found = pq.read_table(store.full_path(file.path))
    assert found.equals(pa.concat_tables([up, down]))
    assert not pq.read_metadata(store.full_path(file.path)).row_group(0).sorting_columns
