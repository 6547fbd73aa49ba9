"""Hashes against exact Python values: equal exactly when the values are, over mixed types; NumPy equals Numba."""

from __future__ import annotations

import datetime as dt
import math
import struct
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.containment.canonical import decimal_words, exact_decimal, float_words, temporal_words, unsigned_words
from lakelet.containment.hashing import ValueHasher

SEED = b"secret of the property tests"
FAST = ValueHasher(SEED, compiled=True)
PLAIN = ValueHasher(SEED, compiled=False)
CHECKED = settings(deadline=None, derandomize=True, max_examples=150)


def hashes(values: pa.Array) -> list[tuple[int, int]]:
    """128-bit hashes by NumPy, after checking that Numba gives the same, on the whole and on a slice."""
    plain, fast = PLAIN.column(values), FAST.column(values)
    assert np.array_equal(plain.lo, fast.lo)
    assert np.array_equal(plain.hi, fast.hi)
    part = FAST.column(values.slice(1))
    assert np.array_equal(part.lo, plain.lo[1:])
    assert np.array_equal(part.hi, plain.hi[1:])
    return list(zip(plain.lo.tolist(), plain.hi.tolist(), strict=True))


def check(arrays: list[pa.Array], exact: list[list[Any]]) -> None:
    """Over all values of all arrays: equal hashes exactly where ``exact`` is equal. Also lane by lane."""
    pairs = [
        (h, v) for array, values in zip(arrays, exact, strict=True) for h, v in zip(hashes(array), values, strict=True)
    ]
    by_value: dict[Any, set[tuple[int, int]]] = {}
    for found, value in pairs:
        by_value.setdefault(value, set()).add(found)
    assert all(len(found) == 1 for found in by_value.values()), by_value
    for lane in (0, 1):
        assert len({next(iter(found))[lane] for found in by_value.values()}) == len(by_value)


INTEGERS = st.one_of(
    st.integers(-20, 20),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**63 + 2048, 2**64 - 1, 2**64 - 2048, -(2**63)]),
    st.builds(lambda m, e: m * 10**e, st.integers(-999, 999), st.integers(0, 15)),
)
FLOATS = st.one_of(
    st.floats(),
    INTEGERS.map(float),
    st.builds(lambda n, d: n / 2**d, st.integers(-(2**20), 2**20), st.integers(0, 30)),
    st.sampled_from([0.1, 0.5, -0.0, 1.1, 2.0**63, -(2.0**63), 2.0**64, 1e300, 5e-324]),
)
DECIMALS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**6), max_value=10**6),
    st.builds(lambda u, s: Decimal(u).scaleb(-s), INTEGERS, st.integers(0, 18)),
    st.builds(lambda n, d: Decimal(n) * Decimal("0.5") ** d, st.integers(-1000, 1000), st.integers(0, 12)),
    st.integers(-(10**37), 10**37).map(Decimal),
)


def number(value: Any) -> Any:
    """A number as an exact, hashable value: NaN and infinities by name."""
    if value is None:
        return "null"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else str(value)
    return Fraction(value)


@CHECKED
@given(
    st.lists(INTEGERS | st.none(), max_size=30),
    st.lists(FLOATS | st.none(), max_size=30),
    st.lists(DECIMALS | st.none(), max_size=30),
)
def test_numbers_are_equal_as_mathematical_values(ints: list[Any], floats: list[Any], decimals: list[Any]) -> None:
    arrays, exact = [], []

    def add(values: list[Any], t: pa.DataType) -> None:
        array = pa.array(values, t)
        arrays.append(array)
        exact.append([number(v) for v in array.to_pylist()])

    for bits in (8, 16, 32, 64):
        add([v for v in ints if v is None or -(2 ** (bits - 1)) <= v < 2 ** (bits - 1)], getattr(pa, f"int{bits}")())
        add([v for v in ints if v is None or 0 <= v < 2**bits], getattr(pa, f"uint{bits}")())
    add(floats, pa.float64())
    arrays.append(arrays[-1].cast(pa.float32(), safe=False))
    exact.append([number(v) for v in arrays[-1].to_pylist()])
    add([np.float16(v) for v in floats if v is not None and abs(v) < 60000], pa.float16())
    for t in (pa.decimal128(38, 0), pa.decimal128(38, 2), pa.decimal128(38, 18), pa.decimal256(76, 30)):
        add([v for v in decimals if v is None or fits(v, t)], t)
    check(arrays, exact)


def fits(value: Decimal, t: pa.DataType) -> bool:
    scaled = Fraction(value) * 10**t.scale
    return scaled.denominator == 1 and abs(scaled) < 10**t.precision


@CHECKED
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | INTEGERS.filter(lambda v: abs(v) < 2**63), min_size=1),
    st.integers(0, 76),
)
def test_vectorised_decimals_are_the_exact_ones(values: list[int], scale: int) -> None:
    words, forms = decimal_words(np.array(values, np.int64), scale)
    forms = np.broadcast_to(np.asarray(forms), len(values))
    assert [(f, w) for f, w in zip(forms.tolist(), words.tolist(), strict=True)] == [
        exact_decimal(v, scale) for v in values
    ]
    lanes = FAST.column(
        pa.array([Decimal(v).scaleb(-scale) if scale <= 38 else None for v in values], pa.decimal256(76, scale))
    )
    plain = PLAIN.column(
        pa.array([Decimal(v).scaleb(-scale) if scale <= 38 else None for v in values], pa.decimal256(76, scale))
    )
    assert np.array_equal(lanes.lo, plain.lo)


@CHECKED
@given(st.lists(INTEGERS.filter(lambda v: v >= 0), min_size=1))
def test_unsigned_words_are_the_exact_ones(values: list[int]) -> None:
    words, forms = unsigned_words(np.array(values, np.uint64))
    forms = np.broadcast_to(np.asarray(forms), len(values))
    assert list(zip(forms.tolist(), words.tolist(), strict=True)) == [exact_decimal(v, 0) for v in values]


@CHECKED
@given(st.lists(FLOATS, min_size=1))
def test_float_words_are_the_exact_ones(values: list[float]) -> None:
    words, forms = float_words(np.array(values))
    forms = np.broadcast_to(np.asarray(forms), len(values))
    for value, form, word in zip(values, forms.tolist(), words.tolist(), strict=True):
        if math.isfinite(value):
            exact = Fraction(value)
            scale = max(0, exact.denominator.bit_length() - 1)
            assert (form, word) == exact_decimal(int(exact * 10**scale), scale)
        else:
            assert (form, word) == (
                3,
                struct.unpack("<Q", struct.pack("<d", math.nan if math.isnan(value) else value))[0],
            )


@CHECKED
@given(st.data())
def test_times_are_equal_across_units(data: st.DataObject) -> None:
    nanoseconds = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
    near = st.builds(lambda m, e, d: m * 10**e + d, st.integers(-9, 9), st.integers(0, 18), st.integers(-1, 1))
    arrays, exact = [], []
    for unit, factor in nanoseconds.items():
        values = data.draw(st.lists(near | st.integers(-(2**63), 2**63 - 1), max_size=15))
        values += [v // factor for v in data.draw(st.lists(st.integers(-(10**18), 10**18), max_size=5))]
        values = [v for v in values if -(2**63) <= v < 2**63]
        arrays.append(pa.array(values, pa.int64()).cast(pa.timestamp(unit)))
        exact.append([("naive", v * factor) for v in values])
        arrays.append(pa.array(values, pa.int64()).cast(pa.timestamp(unit, "Asia/Kathmandu")))
        exact.append([("zoned", v * factor) for v in values])
        arrays.append(pa.array(values, pa.int64()).cast(pa.duration(unit)))
        exact.append([("duration", v * factor) for v in values])
    check(arrays, exact)


def test_bounds_of_every_unit_are_exact() -> None:
    for unit, factor in (("s", 10**6), ("ms", 10**3)):
        edge = (2**63 - 1) // factor
        values = [edge, edge + 1, -edge, -edge - 1, -edge - 2, 2**63 - 1, -(2**63)]
        words, forms = temporal_words(np.array(values, np.int64), unit, 16)
        inside = [-(2**63) <= v * factor < 2**63 for v in values]
        assert [form == 16 for form in np.broadcast_to(forms, len(values)).tolist()] == inside
        assert [w for w, i in zip(words.view(np.int64).tolist(), inside, strict=True) if i] == [
            v * factor for v, i in zip(values, inside, strict=True) if i
        ]


TEXTS = st.lists(
    st.one_of(st.text(max_size=40), st.none(), st.sampled_from(["", "\0", "\0\0", "a" * 4096, "a" * 4097, "a" * 9000]))
)


@CHECKED
@given(TEXTS, st.lists(st.binary(max_size=30) | st.none()))
def test_strings_are_equal_by_bytes(texts: list[str | None], blobs: list[bytes | None]) -> None:
    def tagged(values: list[Any], tag: str) -> list[Any]:
        return [None if v is None else (tag, v) for v in values]

    plain, raw = pa.array(texts, pa.string()), pa.array(blobs, pa.binary())
    as_bytes = pa.array([None if t is None else t.encode() for t in texts], pa.binary())
    arrays = [plain, plain.cast(pa.large_string()), plain.cast(pa.string_view()), plain.dictionary_encode(), raw]
    arrays += [raw.cast(pa.large_binary()), raw.cast(pa.binary_view()), as_bytes]
    exact = [tagged(texts, "s")] * 4 + [tagged(blobs, "b")] * 3 + [tagged(as_bytes.to_pylist(), "b")]
    check(arrays, exact)


def frozen(value: Any) -> Any:
    """A nested Python value in hashable form: maps, which come as lists of tuples, without an order."""
    if isinstance(value, dict):
        return ("struct", frozenset((k, frozen(v)) for k, v in value.items()))
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return ("map", frozenset((frozen(k), frozen(v)) for k, v in value))
    if isinstance(value, list):
        return ("list", tuple(frozen(v) for v in value))
    return "null" if value is None else value


@CHECKED
@given(st.data())
def test_nested_values_are_equal_by_their_parts(data: st.DataObject) -> None:
    numbers = st.integers(-3, 3) | st.none()
    lists = data.draw(st.lists(st.lists(numbers, max_size=4) | st.none(), max_size=12))
    small = pa.array(lists, pa.list_(pa.int8()))
    arrays = [small, small.cast(pa.large_list(pa.float64())), pa.array(lists, pa.list_(pa.decimal128(9, 3)))]
    pairs = [v for v in lists if v is None or len(v) == 2]
    arrays.append(pa.array(pairs, pa.list_(pa.int64(), 2)))
    structs = data.draw(
        st.lists(
            st.fixed_dictionaries({"x": numbers, "y": st.lists(st.text("ab", max_size=2), max_size=2)}) | st.none()
        )
    )
    xy = pa.struct([("x", pa.int16()), ("y", pa.list_(pa.string()))])
    yx = pa.struct([("y", pa.large_list(pa.dictionary(pa.int8(), pa.large_string()))), ("x", pa.float32())])
    arrays += [pa.array(structs, xy), pa.array(structs, yx)]
    check(arrays, [[frozen(v) for v in array.to_pylist()] for array in arrays])


@CHECKED
@given(
    st.lists(st.dictionaries(st.text("ab", max_size=2), st.integers(0, 2) | st.none(), max_size=3) | st.none()),
    st.randoms(),
)
def test_maps_are_equal_whatever_their_order(maps: list[dict[str, int | None] | None], random: Any) -> None:
    def shuffled(value: dict[str, int | None] | None) -> list[Any] | None:
        return None if value is None else random.sample(list(value.items()), len(value))

    t = pa.map_(pa.string(), pa.int32())
    arrays = [pa.array([shuffled(v) for v in maps], t) for _ in range(2)]
    check(arrays, [[None if v is None else frozenset(v.items()) for v in maps]] * 2)


def test_days_and_dates_with_a_time_part() -> None:
    day = 86_400_000
    dates = pa.array([0, 1, -1, 19_000], pa.int32()).cast(pa.date32())
    exact = [0, day, -day, 19_000 * day]
    millis = [0, day, -day, 1, -1, 19_000 * day, 19_000 * day + 5]
    buffer = pa.py_buffer(np.array(millis, np.int64))
    check([dates, pa.Array.from_buffers(pa.date64(), len(millis), [None, buffer])], [exact, millis])
    times = [dt.time(1, 2, 3), dt.time(0), dt.time(23, 59, 59)]
    units = [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")]
    check([pa.array(times, t) for t in units], [times] * 4)


def test_every_nan_and_both_zeros() -> None:
    payloads = np.array([0x7FF8000000000000, 0xFFF8000000000001, 0x7FF0000000000001], np.uint64).view(np.float64)
    found = (
        set(hashes(pa.array(payloads)))
        | set(hashes(pa.array([np.nan], pa.float32())))
        | set(hashes(pa.array([np.float16("nan")])))
    )
    assert len(found) == 1
    assert len(set(hashes(pa.array([0.0, -0.0]))) | set(hashes(pa.array([0])))) == 1


@pytest.mark.parametrize("t", [pa.int64(), pa.string(), pa.list_(pa.int8()), pa.struct([("a", pa.int8())]), pa.null()])
def test_null_is_one_value_in_every_family(t: pa.DataType) -> None:
    assert hashes(pa.nulls(3, t)) == hashes(pa.nulls(3))


@CHECKED
@given(st.data())
def test_many_columns_at_once_and_sets_of_values_are_those_of_each_column(data: st.DataObject) -> None:
    texts = ["", "a", "b" * 20, None]
    makers = {
        "i": lambda: pa.array(data.draw(st.lists(st.integers(-3, 3) | st.none(), max_size=9)), pa.int64()),
        "f": lambda: pa.array(data.draw(st.lists(st.sampled_from([0.0, -0.0, 0.5, math.nan, None]))), pa.float64()),
        "s": lambda: pa.array(data.draw(st.lists(st.sampled_from(texts), max_size=9)), pa.string()),
        "d": lambda: pa.array(data.draw(st.lists(st.sampled_from(texts), max_size=9)), pa.string()).dictionary_encode(),
        "l": lambda: pa.array(data.draw(st.lists(st.lists(st.integers(0, 1), max_size=2))), pa.list_(pa.int64())),
    }
    columns = []
    for kind in data.draw(st.lists(st.sampled_from(sorted(makers)), max_size=8)):
        chunks = [makers[kind]() for _ in range(data.draw(st.integers(1, 3)))]
        columns.append(pa.chunked_array(chunks, chunks[0].type))
    for hasher in (PLAIN, FAST):
        each = [hasher.column(column) for column in columns]
        together = hasher.columns(columns)
        assert [(a.lo.tolist(), a.hi.tolist()) for a in together] == [(b.lo.tolist(), b.hi.tolist()) for b in each]
        assert [set(hasher.value_set(c).tolist()) for c in columns] == [set(b.lo.tolist()) for b in each]


@pytest.mark.parametrize("kind", [pa.int32(), pa.float64(), pa.string(), pa.timestamp("ns"), pa.decimal128(21, 2)])
@pytest.mark.parametrize("repeated", [True, False])
def test_values_that_repeat_hash_as_those_that_do_not(kind: pa.DataType, repeated: bool) -> None:
    n = 9_000  # enough for a look at whether they repeat
    numbers = [None if i % 11 == 5 else i % 17 if repeated else i for i in range(n)]
    values = pa.array(numbers, pa.int64()).cast(kind)
    hashed = hashes(values)
    few = hashes(pa.array(numbers[:17] if repeated else numbers[:100], pa.int64()).cast(kind))
    assert hashed[: len(few)] == few
    assert len(set(hashed)) == (18 if repeated else n - n // 11 + 1)
    for hasher in (PLAIN, FAST):
        found = hasher.value_set(pa.chunked_array([values]))
        assert set(found.tolist()) == {lo for lo, _ in hashed}
        assert (len(found) == 18) == repeated
