"""Row hashes and families: what must differ, what must not, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from lakelet.containment.canonical import compatible, family
from lakelet.containment.hashing import Lanes, ValueHasher
from lakelet.lake.errors import InvalidInput

SEED = b"sixteen bytes or more"


@pytest.fixture(params=[False, True], ids=["numpy", "numba"])
def hasher(request: pytest.FixtureRequest) -> ValueHasher:
    return ValueHasher(SEED, compiled=request.param)


def rows(hasher: ValueHasher, **columns: list[object]) -> list[tuple[int, int]]:
    lanes = hasher.rows({name: hasher.column(pa.array(v)) for name, v in columns.items()}, list(columns))
    return list(zip(lanes.lo.tolist(), lanes.hi.tolist(), strict=True))


def total(found: list[tuple[int, int]]) -> int:
    return sum(lo + (hi << 64) for lo, hi in found) % 2**128


def test_swapped_values_change_rows_and_sums(hasher: ValueHasher) -> None:
    straight, crossed = rows(hasher, a=[1, 2], b=[1, 2]), rows(hasher, a=[1, 2], b=[2, 1])
    assert not set(straight) & set(crossed)
    assert total(straight) != total(crossed)


def test_same_values_under_other_names_are_other_rows(hasher: ValueHasher) -> None:
    assert rows(hasher, a=[1], b=[2]) != rows(hasher, a=[2], b=[1])
    assert rows(hasher, a=[1], b=[2]) == rows(hasher, b=[2], a=[1])
    assert rows(hasher, a=[1]) != rows(hasher, b=[1])
    assert rows(hasher, a=[1]) != rows(hasher, a=[1], b=[None])


def test_no_two_of_a_million_rows_collide_in_either_lane(hasher: ValueHasher) -> None:
    grid = np.arange(1000)
    lanes = {"x": hasher.column(pa.array(np.repeat(grid, 1000))), "y": hasher.column(pa.array(np.tile(grid, 1000)))}
    found = hasher.rows(lanes, ["x", "y"])
    for lane in (found.lo, found.hi):
        ordered = np.sort(lane)
        assert (ordered[1:] != ordered[:-1]).all()
        ones = np.unpackbits(lane.view(np.uint8)).reshape(-1, 64).mean(axis=0)
        assert np.abs(ones - 0.5).max() < 0.004  # eight standard deviations


def test_tables_hash_as_their_columns_do(hasher: ValueHasher) -> None:
    n = 70_000  # several blocks
    random = np.random.default_rng(0)
    words = pa.array([f"word {i % 97}" for i in range(n)])
    table = pa.table(
        {
            "i": pa.chunked_array([pa.array(random.integers(0, 9, n - 10)), pa.array(range(10))]),
            "s": words.dictionary_encode(),
            "d": pa.array([None if i % 5 == 0 else Decimal(i) / 8 for i in range(n)], pa.decimal128(12, 3)),
        }
    )
    sets = [["i", "s", "d"], ["d"], [], ["s", "i"]]
    lanes = {name: hasher.column(table[name]) for name in table.column_names}
    plain = {**lanes, "s": hasher.column(words)}
    for names, found in zip(sets, hasher.table_rows(table, sets), strict=True):
        expected = hasher.rows(plain, names)
        assert np.array_equal(found.lo, expected.lo)
        assert np.array_equal(found.hi, expected.hi)
    assert [len(found) for found in hasher.table_rows(table.select([]).slice(0, 3), [[]])] == [3]


def test_seed_decides_every_hash() -> None:
    values = pa.array([1, 2, 3])
    one, same, other = (ValueHasher(s, compiled=False).column(values) for s in (SEED, SEED, SEED + b"!"))
    assert np.array_equal(one.lo, same.lo)
    assert not set(one.lo.tolist()) & set(other.lo.tolist())
    assert not set(one.lo.tolist()) & set(one.hi.tolist())


def test_dictionaries_with_nulls_and_many_chunks(hasher: ValueHasher) -> None:
    values = ["a", None, "b", "a"]
    inside = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 0], pa.int32()), pa.array(["a", None, "b"]))
    chunks = pa.chunked_array(
        [pa.array(values).dictionary_encode(), inside.slice(1), pa.array([], pa.string()).dictionary_encode()]
    )
    expected = hasher.column(pa.array(values + values[1:]))
    assert np.array_equal(hasher.column(chunks).lo, expected.lo)
    assert len(hasher.column(pa.chunked_array([], pa.string()))) == 0


def test_garbage_below_nulls_does_not_count(hasher: ValueHasher) -> None:
    for raw, t in ((np.arange(4, dtype=np.int64), pa.int64()), (np.full(8, 2**62, np.int64), pa.decimal128(38, 2))):
        garbage = pa.Array.from_buffers(t, 4, [pa.py_buffer(b"\x05"), pa.py_buffer(raw)])
        assert hasher.column(garbage).lo[[1, 3]].tolist() == hasher.column(pa.nulls(2)).lo.tolist()


def test_extension_types_count_as_their_storage(hasher: ValueHasher) -> None:
    raw = pa.array([b"0123456789abcdef", None], pa.binary(16))
    uuid = pa.ExtensionArray.from_storage(pa.uuid(), raw)
    assert hasher.column(uuid).lo.tolist() == hasher.column(raw.cast(pa.binary())).lo.tolist()
    assert family(pa.uuid()) == family(pa.binary())


def test_families() -> None:
    def same(a: pa.DataType, b: pa.DataType) -> bool:
        assert compatible(family(a), family(b)) == compatible(family(b), family(a))
        return compatible(family(a), family(b))

    assert same(pa.int8(), pa.decimal256(50, 3))
    assert same(pa.dictionary(pa.int8(), pa.string()), pa.large_string())
    assert same(pa.timestamp("s", "UTC"), pa.timestamp("ns", "Asia/Tokyo"))
    assert same(pa.struct([("a", pa.int8()), ("b", pa.null())]), pa.struct([("b", pa.string()), ("a", pa.float32())]))
    assert same(pa.list_(pa.null()), pa.list_view(pa.map_(pa.string(), pa.int8())))
    assert not same(pa.timestamp("s"), pa.timestamp("s", "UTC"))
    assert not same(pa.bool_(), pa.int8())
    assert not same(pa.string(), pa.binary())
    assert not same(pa.date32(), pa.timestamp("s"))
    assert not same(pa.list_(pa.int8()), pa.list_(pa.string()))
    assert not same(pa.struct([("a", pa.int8())]), pa.struct([("A", pa.int8())]))


def test_what_cannot_be_hashed_is_refused(hasher: ValueHasher) -> None:
    union = pa.UnionArray.from_dense(pa.array([0], pa.int8()), pa.array([0], pa.int32()), [pa.array([1])])
    with pytest.raises(InvalidInput, match="dense_union"):
        family(union.type)
    with pytest.raises(InvalidInput, match="dense_union"):
        hasher.column(union)
    with pytest.raises(InvalidInput, match="no hashed column b"):
        hasher.rows({"a": Lanes(np.zeros(1, np.uint64), np.zeros(1, np.uint64))}, ["b"])
    with pytest.raises(InvalidInput, match="exactly once: b"):
        hasher.table_rows(pa.table({"a": [1]}), [["a", "b"]])
    with pytest.raises(InvalidInput, match="seed has 5 bytes"):
        ValueHasher(b"short", compiled=False)


def test_numpy_hashing_and_row_sets_do_not_import_numba() -> None:
    code = (
        "import sys, pyarrow as pa\n"
        "from lakelet.containment.hashing import ValueHasher\n"
        "from lakelet.containment.rowsets import RowSets\n"
        "h = ValueHasher(b'0' * 32, compiled=False)\n"
        "with RowSets(1 << 20) as sets:\n"
        "    sets.add(1, h.column(pa.array([1, 2])))\n"
        "    assert sets.distinct(1) == 2\n"
        "assert 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
