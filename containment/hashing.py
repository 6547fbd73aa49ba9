"""Arrow columns to 128-bit value hashes, and columns to row hashes: equal values of one family hash alike.

``ValueHasher(seed, compiled=False)`` needs NumPy alone and suits small tables; ``compiled=True`` imports Numba and
gives the same hashes bit for bit. What equality means stands in :mod:`.canonical`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..lake.errors import InvalidInput
from .buffers import ENCODED, bits, fixed, null_mask, plain, repeats, value_offsets
from .canonical import DAY_MS, Form, exact_decimal
from .mixing import BLOCK_ROWS, MIXERS, STRING_BYTES_MAX, Keys, Lanes, NumpyKernels, derive_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Lanes", "ValueHasher"]

COMPILED_BLOCK_ROWS: Final = 1 << 15
"""Rows hashed at a time by compiled kernels: their lanes stay in the second cache."""
SEED_BYTES_MIN: Final = 16

_JOINED: Final = ENCODED | {pa.bool_().id}
"""Types whose arrays may be put behind each other as they are."""

_DIGEST_KIND: Final = {Form.STRING: b"string", Form.BINARY: b"binary"}

_DictionaryCache = dict[tuple[Any, ...], tuple[pa.Array, Lanes]]


class ValueHasher:
    """Hashes values under a secret seed. Holds no state but its keys: safe to use from many threads.

    ``seed``: 16 bytes or more, secret; equal seeds give equal hashes. ``compiled``: Numba kernels instead of NumPy.
    """

    def __init__(self, seed: bytes, *, compiled: bool) -> None:
        """``seed``: 16 bytes or more, secret; equal seeds give equal hashes. ``compiled``: Numba instead of NumPy."""
        if len(seed) < SEED_BYTES_MIN:
            raise InvalidInput(
                f"the hash seed has {len(seed)} bytes, expected {SEED_BYTES_MIN} or more of secret bytes"
            )
        self._keys: Keys = derive_keys(seed)
        self._kernels: NumpyKernels = _compiled_kernels(self._keys) if compiled else NumpyKernels(self._keys)
        self._compiled = compiled

    def column(self, values: pa.ChunkedArray | pa.Array) -> Lanes:
        """The value hashes of a column, not salted by its name: n rows in, Lanes of n out.

        A union, or another type without a family: InvalidInput.
        """
        chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
        dictionaries: _DictionaryCache = {}
        parts = [self._array(chunk, dictionaries) for chunk in chunks if len(chunk)]
        return _concatenate(parts)

    def columns(self, columns: Sequence[pa.ChunkedArray]) -> list[Lanes]:
        """What :meth:`column` gives for each of many short columns, in few passes: those of one type together."""
        hashed: dict[int, Lanes] = {}
        alike: defaultdict[pa.DataType, list[int]] = defaultdict(list)
        for at, column in enumerate(columns):
            if column.type.id in _JOINED:
                alike[column.type].append(at)
            else:
                hashed[at] = self.column(column)
        for group in alike.values():
            chunks = [chunk for at in group for chunk in columns[at].chunks]
            lanes = self._array(pa.concat_arrays(chunks), {}) if chunks else _zeros(0)
            start = 0
            for at in group:
                hashed[at] = lanes.slice(start, start := start + len(columns[at]))
        return [hashed[at] for at in range(len(columns))]

    def value_set(self, values: pa.ChunkedArray) -> NDArray[np.uint64]:
        """The low lanes of :meth:`column` with every value there at least once, but not each as often as it occurs."""
        dictionaries: _DictionaryCache = {}
        parts = []
        for chunk in values.chunks:
            if len(chunk):
                again = pa.types.is_dictionary(chunk.type) or (chunk.type.id in ENCODED and repeats(chunk))
                parts.append(self._array(chunk.unique() if again else chunk, dictionaries))
        return _concatenate(parts).lo

    def rows(self, columns: Mapping[str, Lanes], names: Sequence[str]) -> Lanes:
        """Row hashes over the columns ``names``: their hashes salted by name, summed, and mixed.

        ``columns`` maps normalised names to hashes of :meth:`column`, all of one length; the order of ``names`` does
        not count. A name that is not there: InvalidInput.
        """
        missing = [name for name in names if name not in columns]
        if missing or not columns:
            raise InvalidInput(f"no hashed column {', '.join(missing) or 'at all'}; there are: {', '.join(columns)}")
        total = _zeros(len(next(iter(columns.values()))))
        for name in names:
            self._kernels.add_scaled(total, columns[name], self._keys.name_factors(name))
        return self._kernels.finish(total, self._keys.row)

    def table_rows(self, table: pa.Table, sets: Sequence[Sequence[str]]) -> list[Lanes]:
        """Row hashes of a table over several column sets, each column hashed once: Lanes of num_rows a set.

        The table's columns bear the normalised names, each once. Works block by block: beside the result it holds a few
        blocks of 131,072 rows. The same hashes as :meth:`column` and :meth:`rows` give.
        """
        used = sorted({name for names in sets for name in names})
        times = Counter(table.column_names)
        missing = [name for name in used if times[name] != 1]
        if missing:
            raise InvalidInput(f"columns that the table does not have exactly once: {', '.join(missing)}")
        results = [_zeros(table.num_rows) for _ in sets]
        members = [frozenset(names) for names in sets]
        dictionaries: _DictionaryCache = {}
        start = 0
        # Slices of a chunked table share dictionaries, so that each is hashed once.
        block_rows = COMPILED_BLOCK_ROWS if self._compiled else BLOCK_ROWS
        for batch in table.select(used).to_batches(max_chunksize=block_rows) if used else ():
            totals = [result.slice(start, start + batch.num_rows) for result in results]
            for name, array in zip(used, batch.columns, strict=True):
                part, factors = self._array(array, dictionaries), self._keys.name_factors(name)
                for names, total in zip(members, totals, strict=True):
                    if name in names:
                        self._kernels.add_scaled(total, part, factors)
            start += batch.num_rows
        return [self._kernels.finish(result, self._keys.row) for result in results]

    # --- one array, by type ---------------------------------------------------------------------------------------

    def _array(self, array: pa.Array, dictionaries: _DictionaryCache) -> Lanes:
        """Hashes of a non-chunked array; ``dictionaries`` remembers the dictionaries hashed so far."""
        t = array.type
        if isinstance(t, pa.BaseExtensionType):
            return self._array(array.storage, dictionaries)
        if pa.types.is_run_end_encoded(t):
            return self._array(pc.run_end_decode(array), dictionaries)
        if pa.types.is_null(t) or array.null_count == len(array):
            return self._nulls(len(array))
        if pa.types.is_dictionary(t):
            return self._dictionary(array, dictionaries)
        if not self._compiled and t.id in ENCODED and repeats(array):
            return self._dictionary(array.dictionary_encode(), {})
        lanes = self._nested(array, dictionaries) if pa.types.is_nested(t) else self._scalar(array)
        nulls = null_mask(array)
        if nulls is not None:
            lanes.lo[nulls], lanes.hi[nulls] = self._keys.forms[:, Form.NULL]
        return lanes

    def _nulls(self, n: int) -> Lanes:
        lo, hi = self._keys.forms[:, Form.NULL]
        return Lanes(np.full(n, lo), np.full(n, hi))

    def _dictionary(self, array: pa.DictionaryArray, dictionaries: _DictionaryCache) -> Lanes:
        dictionary = array.dictionary
        key = (len(dictionary), dictionary.offset, *(0 if b is None else b.address for b in dictionary.buffers()))
        if key not in dictionaries:  # the array is kept too, so that no other one comes to lie at its addresses
            values = self._array(dictionary, dictionaries) if len(dictionary) else _zeros(0)
            null = self._nulls(1)  # in the last place, where a NULL index points
            dictionaries[key] = dictionary, _concatenate([values, null])
        indices = plain(array.indices)
        nulls = null_mask(array.indices)
        if nulls is not None:
            indices = np.where(nulls, len(dictionary), indices)
        return self._kernels.gather(dictionaries[key][1], indices)

    def _scalar(self, array: pa.Array) -> Lanes:
        t, kernels = array.type, self._kernels
        if pa.types.is_boolean(t):
            return kernels.integers(bits(array.buffers()[1], array.offset, len(array)), Form.BOOL)
        if pa.types.is_uint64(t):
            return kernels.unsigned(plain(array))
        if pa.types.is_integer(t):
            return kernels.integers(plain(array), Form.INTEGER)
        if pa.types.is_floating(t):
            return kernels.floats(plain(array))
        if pa.types.is_decimal(t):
            return self._decimals(array)
        if pa.types.is_date32(t):
            return kernels.integers(fixed(array, "<i4"), Form.DAYS)
        if pa.types.is_date64(t):
            return _date64(kernels, fixed(array, "<i8"))
        if pa.types.is_timestamp(t):
            return kernels.temporal(fixed(array, "<i8"), t.unit, Form.NAIVE if t.tz is None else Form.ZONED)
        if pa.types.is_time(t):
            values = fixed(array, f"<i{t.bit_width // 8}").astype(np.int64)
            return kernels.temporal(values, t.unit, Form.TIME)
        if pa.types.is_duration(t):
            return kernels.temporal(fixed(array, "<i8"), t.unit, Form.DURATION)
        if pa.types.is_interval(t):
            words = fixed(array, "<u8", 2)
            first = kernels.words(np.ascontiguousarray(words[:, 0]), Form.INTERVAL)
            return Lanes(*(mix(lane ^ words[:, 1]) for mix, lane in zip(MIXERS, (first.lo, first.hi), strict=True)))
        return self._bytes(array)

    def _decimals(self, array: pa.Array) -> Lanes:
        t = array.type
        if t.bit_width == 32:
            return self._kernels.decimals(fixed(array, "<i4").astype(np.int64).reshape(-1, 1), t.scale)[0]
        words = fixed(array, "<i8", t.bit_width // 64).reshape(-1, t.bit_width // 64)
        lanes, large = self._kernels.decimals(words, t.scale)
        if len(large):
            nulls = null_mask(array)
            if nulls is not None:  # the bytes below a NULL are anything
                large = large[~nulls[large]]
        known: dict[bytes, tuple[int, int]] = {}
        for i in large.tolist():
            raw = words[i].tobytes()
            if raw not in known:
                known[raw] = self._decimal(int.from_bytes(raw, "little", signed=True), t.scale)
            lanes.lo[i], lanes.hi[i] = known[raw]
        return lanes

    def _decimal(self, unscaled: int, scale: int) -> tuple[int, int]:
        form, word = exact_decimal(unscaled, scale)
        if isinstance(word, str):
            return self._keys.digest_lanes(b"number", word.encode())
        lanes = NumpyKernels(self._keys).words(np.array([word], np.uint64), int(form))
        return int(lanes.lo[0]), int(lanes.hi[0])

    def _bytes(self, array: pa.Array) -> Lanes:
        t = array.type
        if pa.types.is_string_view(t) or pa.types.is_binary_view(t):
            lanes = self._views(array)
            if lanes is not None:
                return lanes
            array = array.cast(pa.large_string() if pa.types.is_string_view(t) else pa.large_binary())
            t = array.type
        text = pa.types.is_string(t) or pa.types.is_large_string(t)
        if pa.types.is_fixed_size_binary(t):
            offsets = np.arange(array.offset, array.offset + len(array) + 1, dtype=np.int64) * t.byte_width
            data = array.buffers()[1]
        elif text or pa.types.is_binary(t) or pa.types.is_large_binary(t):
            offsets = value_offsets(array)
            data = array.buffers()[2]
        else:
            raise InvalidInput(f"values of type {t} cannot be hashed; cast the column, or leave the table out")
        flat = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        form = Form.STRING if text else Form.BINARY
        lanes = self._kernels.strings(flat, offsets, form)
        for i in np.flatnonzero(offsets[1:] - offsets[:-1] > STRING_BYTES_MAX):
            value = flat[offsets[i] : offsets[i + 1]].tobytes()
            lanes.lo[i], lanes.hi[i] = self._keys.digest_lanes(_DIGEST_KIND[form], value)
        return lanes

    def _views(self, array: pa.Array) -> Lanes | None:
        form = Form.STRING if pa.types.is_string_view(array.type) else Form.BINARY
        views = fixed(array, "<u8", 2)
        lanes = self._kernels.views(views, array.buffers()[2:], form)
        if lanes is not None:
            for i in np.flatnonzero((views[:, 0] & np.uint64(2**32 - 1)) > STRING_BYTES_MAX).tolist():
                if array[i].is_valid:
                    value = array[i].as_buffer().to_pybytes()
                    lanes.lo[i], lanes.hi[i] = self._keys.digest_lanes(_DIGEST_KIND[form], value)
        return lanes

    def _nested(self, array: pa.Array, dictionaries: _DictionaryCache) -> Lanes:
        t = array.type
        if pa.types.is_union(t):
            raise InvalidInput(f"values of type {t} cannot be hashed; cast the column, or leave the table out")
        if pa.types.is_struct(t):
            names = [t.field(i).name for i in range(t.num_fields)]
            fields = (self._array(array.field(i), dictionaries) for i in range(t.num_fields))
            return self._struct(len(array), zip(names, fields, strict=True))
        if pa.types.is_list_view(t) or pa.types.is_large_list_view(t):
            return self._list_view(array, dictionaries)
        if pa.types.is_fixed_size_list(t):
            offsets = np.arange(len(array) + 1, dtype=np.int64) * t.list_size
            first = array.offset * t.list_size
        else:
            offsets = value_offsets(array).astype(np.int64)
            first = int(offsets[0])
            offsets -= first
        size = int(offsets[-1])
        if pa.types.is_map(t):
            pairs = [("key", array.keys), ("value", array.items)]
            parts = ((name, self._array_or_none(part.slice(first, size), dictionaries)) for name, part in pairs)
            return self._kernels.maps(self._struct(size, parts), offsets)
        return self._kernels.lists(self._array_or_none(array.values.slice(first, size), dictionaries), offsets)

    def _list_view(self, array: pa.Array, dictionaries: _DictionaryCache) -> Lanes:
        # By hand: pyarrow 26 casts list views to lists with the offsets of the views.
        nulls = null_mask(array)
        starts, sizes = plain(array.offsets).astype(np.int64), plain(array.sizes).astype(np.int64)
        if nulls is not None:
            sizes[nulls] = 0
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        return self._kernels.lists(self._array_or_none(array.values, dictionaries).take(places), offsets)

    def _array_or_none(self, array: pa.Array, dictionaries: _DictionaryCache) -> Lanes:
        return self._array(array, dictionaries) if len(array) else _zeros(0)

    def _struct(self, n: int, fields: Iterable[tuple[str, Lanes]]) -> Lanes:
        lo, hi = self._keys.forms[:, Form.STRUCT]
        total = Lanes(np.full(n, lo), np.full(n, hi))
        seen: dict[str, int] = {}
        for name, part in fields:
            seen[name] = seen.get(name, 0) + 1  # fields of one name count by their order
            self._kernels.add_scaled(total, part, self._keys.name_factors(f"{seen[name]} {name}"))
        return self._kernels.finish(total, self._keys.row)


def _compiled_kernels(keys: Keys) -> NumpyKernels:
    from .kernels import CompiledKernels  # Numba takes most of a second to import

    return CompiledKernels(keys)


def _zeros(n: int) -> Lanes:
    return Lanes(np.zeros(n, np.uint64), np.zeros(n, np.uint64))


def _concatenate(parts: Sequence[Lanes]) -> Lanes:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return _zeros(0)
    return Lanes(np.concatenate([p.lo for p in parts]), np.concatenate([p.hi for p in parts]))


def _date64(kernels: NumpyKernels, values: NDArray[np.int64]) -> Lanes:
    days = values // DAY_MS
    whole = days * DAY_MS == values
    if whole.all():
        return kernels.integers(days, Form.DAYS)
    forms = np.where(whole, np.uint8(Form.DAYS), np.uint8(Form.DAY_MS))
    return kernels.words(np.where(whole, days, values).view(np.uint64), forms)
