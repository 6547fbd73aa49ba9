"""The container of named arrays: what goes in comes out, and nothing that is wrong with a file goes unsaid."""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
import tracemalloc
import types
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lakelet.lake.errors import Corrupt, InvalidInput, LakeletError, LimitExceeded, NotFound
from lakelet.vector import container
from lakelet.vector.container import read, write

NAMES = [
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
]
START = struct.Struct("<8sIIQI")


def same(found: np.ndarray, given_: np.ndarray) -> bool:
    """Equal shape, dtype up to byte order, and bits."""
    return (
        found.shape == given_.shape
        and found.dtype == given_.dtype.newbyteorder("<")
        and found.tobytes() == given_.astype(given_.dtype.newbyteorder("<")).tobytes()
    )


def small(path: Path, **more: Any) -> bytes:
    """A small container with two gaps and an empty array at its end."""
    arrays = {"a": np.arange(5, dtype=np.int32), "b": np.ones((3, 2), np.float16), "z": np.empty((0, 4), np.uint8)}
    write(path, **{"kind": "k", "meta": {"m": [1, None, "é"]}, "arrays": arrays, **more})
    return path.read_bytes()


def parts(data: bytes) -> tuple[int, int, dict[str, Any]]:
    """Format, end of the header, and the header."""
    _, version, _, nbytes, _ = START.unpack_from(data)
    return version, START.size + nbytes, json.loads(data[START.size : START.size + nbytes])


def forged(header: bytes | dict[str, Any], version: int = 1, rest: bytes = b"", magic: bytes = b"LAKELETV") -> bytes:
    """A file with this header and with checksums that fit, arrays being ``rest``."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    first = START.pack(magic, version, zlib.crc32(text), len(text), 0)[:-4]
    data = first + struct.pack("<I", zlib.crc32(first)) + text
    return data + bytes(-len(data) % 4096) + rest


# --- round trips -------------------------------------------------------------------------------------------------

DTYPES = st.tuples(st.sampled_from(NAMES), st.sampled_from("<>")).map(
    lambda pair: np.dtype(pair[0]).newbyteorder(pair[1])
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
)
TEXTS = st.text(st.characters(), max_size=5)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150)
@given(
    meta=st.dictionaries(TEXTS, JSONS, max_size=3),
    arrays=st.dictionaries(TEXTS, ARRAYS, max_size=4),
    kind=st.text(min_size=1, max_size=5),
    mmap=st.booleans(),
    verify=st.booleans(),
    transposed=st.booleans(),
)
@example(meta={}, arrays={"\ud800 \0/": np.array(2.5)}, kind="\ud800", mmap=True, verify=True, transposed=False)
def test_what_goes_in_comes_out(
    meta: dict[str, Any],
    arrays: dict[str, np.ndarray],
    kind: str,
    mmap: bool,
    verify: bool,
    transposed: bool,
) -> None:
    if transposed:
        arrays = {name: array.T for name, array in arrays.items()}
    with tempfile.TemporaryDirectory() as folder:
        first, second = f"{folder}/first", f"{folder}/second"
        write(first, kind=kind, meta=meta, arrays=arrays)
        found_meta, found = read(first, kind=kind, mmap=mmap, verify=verify)
        assert found_meta == meta
        assert list(found) == sorted(arrays)
        for name, array in found.items():
            assert same(array, arrays[name])
            assert type(array) is np.ndarray
            assert array.flags.c_contiguous
            assert array.flags.aligned
            assert array.flags.writeable
        # The same content in another order, and as it came back.
        turned = types.MappingProxyType(dict(reversed(meta.items())))
        write(second, kind=kind, meta=turned, arrays=dict(reversed(found.items())))
        assert Path(second).read_bytes() == Path(first).read_bytes()
        assert sorted(os.listdir(folder)) == ["first", "second"]


@settings(max_examples=50)
@given(
    dtype=DTYPES,
    tail=hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3),
    rows=st.lists(st.integers(0, 4), min_size=1, max_size=4),
)
def test_pieces_are_joined(dtype: np.dtype[Any], tail: tuple[int, ...], rows: list[int]) -> None:
    whole = np.arange(sum(rows) * int(np.prod(tail))).reshape(sum(rows), *tail).astype(dtype)
    pieces = np.split(whole, np.cumsum(rows)[:-1])
    with tempfile.TemporaryDirectory() as folder:
        write(f"{folder}/a", kind="k", meta={}, arrays={"x": pieces})
        write(f"{folder}/b", kind="k", meta={}, arrays={"x": whole})
        assert Path(f"{folder}/a").read_bytes() == Path(f"{folder}/b").read_bytes()
        assert same(read(f"{folder}/a", kind="k")[1]["x"], whole)


@pytest.mark.parametrize("shape", [(0, 2**40, 2**10), (2**40, 0), (1,) * 64])
def test_extreme_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write(tmp_path / "f", kind="k", meta={}, arrays={"x": np.empty(shape, np.float64)})
    for mmap in (False, True):
        assert read(tmp_path / "f", kind="k", mmap=mmap)[1]["x"].shape == shape


@pytest.mark.parametrize("chunk", [8, 24, 4096])
def test_chunks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    rng = np.random.default_rng(0)
    base = rng.random((7, 11, 5))
    arrays = {"c": base, "f": np.asfortranarray(base), "s": base[::-2, ::3], "b": base.astype(">f8"), "t": base.T}
    write(tmp_path / "whole", kind="k", meta={}, arrays=arrays)
    monkeypatch.setattr(container, "CHUNK_BYTES", chunk)
    write(tmp_path / "parts", kind="k", meta={}, arrays=arrays)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()
    for mmap in (False, True):
        found = read(tmp_path / "parts", kind="k", mmap=mmap)[1]
        assert all(same(found[name], array) for name, array in arrays.items())


def test_arrays_start_at_pages_and_share_one_mapping(tmp_path: Path) -> None:
    small(tmp_path / "f")
    _, arrays = read(tmp_path / "f", kind="k")
    addresses = [arrays[name].__array_interface__["data"][0] for name in "ab"]
    assert [address % 4096 for address in addresses] == [0, 0]
    assert arrays["a"].base is arrays["b"].base
    before = (tmp_path / "f").read_bytes()
    arrays["a"][0] += 1  # a copy of the page, private to this mapping
    assert (tmp_path / "f").read_bytes() == before


@pytest.mark.parametrize("order", ["C", "F", "big-endian", "pieces"])
def test_nothing_is_held_twice(tmp_path: Path, order: str) -> None:
    base = np.zeros((2**11, 2**11), np.float32)  # 16 MiB
    given_: Any = {"C": base, "F": base.T, "big-endian": base.view(">f4"), "pieces": [base[:5], base[5:]]}[order]
    tracemalloc.start()
    try:
        write(tmp_path / "f", kind="k", meta={}, arrays={"x": given_})
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        _, arrays = read(tmp_path / "f", kind="k")
        mapped = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        read(tmp_path / "f", kind="k", mmap=False)
        copied = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(arrays["x"]) == 2**11
    assert max(written, mapped) < 4 * 2**20
    assert copied < base.nbytes + 4 * 2**20


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.array([object()]),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.zeros(1, [("x", "i4")]),
        np.zeros(1, np.complex64),
        np.zeros(1, np.longdouble),
        np.ma.masked_array([1, 2], [True, False]),
        [],
        [1, 2],
        [np.zeros(2), np.zeros(2, np.float32)],
        [np.zeros((2, 1)), np.zeros((2, 2))],
        [np.zeros(()), np.zeros(())],
        "text",
        None,
        7,
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: Any) -> None:
    with pytest.raises(InvalidInput, match=r"array 'x': found .*(expected|convert)"):
        write(tmp_path / "f", kind="k", meta={}, arrays={"good": np.zeros(3), "x": array})
    assert os.listdir(tmp_path) == []


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "meta",
    [
        {"x": float("nan")},
        {"x": (1,)},
        {1: 2},
        {"x": {1: 2}},
        {"x": b""},
        {"x": np.zeros(2)},
        {"x": LOOP},
        5,
        [1],
        None,
    ],
)
def test_other_meta_is_refused(tmp_path: Path, meta: Any) -> None:
    with pytest.raises(InvalidInput, match=r"meta cannot be kept: .*; expected"):
        write(tmp_path / "f", kind="k", meta=meta, arrays={})
    assert os.listdir(tmp_path) == []


def test_other_names_kinds_and_paths_are_refused(tmp_path: Path) -> None:
    wrong: Any
    for wrong in (1, None, ("a",)):
        with pytest.raises(InvalidInput, match="array names"):
            write(tmp_path / "f", kind="k", meta={}, arrays={"a": np.zeros(1), wrong: np.zeros(1)})
    for wrong in ("", None, 3):
        with pytest.raises(InvalidInput, match="kind"):
            write(tmp_path / "f", kind=wrong, meta={}, arrays={})
    for wrong in ("", "a\0b", b"bytes"):
        with pytest.raises(InvalidInput, match="path"):
            write(wrong, kind="k", meta={}, arrays={})
        with pytest.raises(InvalidInput, match="path"):
            read(wrong, kind="k")
    assert os.listdir(tmp_path) == []


def test_a_large_header_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = small(tmp_path / "f")
    _, end, _ = parts(data)
    monkeypatch.setattr(container, "HEADER_BYTES", end - START.size)
    small(tmp_path / "f")
    monkeypatch.setattr(container, "HEADER_BYTES", end - START.size - 1)
    with pytest.raises(LimitExceeded, match=r"header .* bytes, at most"):
        small(tmp_path / "f")
    with pytest.raises(LimitExceeded, match="header of"):
        read(tmp_path / "f", kind="k")
    assert (tmp_path / "f").read_bytes() == data


def saved(save: Any) -> bytes:
    file = io.BytesIO()
    save(file, np.zeros(3))
    return file.getvalue()


FOREIGN = {
    "Parquet": b"PAR1" + bytes(100) + b"PAR1",
    "npz": saved(np.savez),
    "npy": saved(np.save),
    "Arrow": b"ARROW1\0\0" + bytes(50),
    "unknown": struct.pack("<QQQ", 0, 10_000, 16),  # hnswlib
    "unknown here": b"x",
    "format unknown": b"LAKELETX" + bytes(30),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_foreign_files_are_named_and_left_alone(tmp_path: Path, what: str) -> None:
    path = tmp_path / "f"
    path.write_bytes(FOREIGN[what])
    with pytest.raises(InvalidInput, match=what):
        read(path, kind="k")
    with pytest.raises(InvalidInput, match=what):
        small(path)
    assert path.read_bytes() == FOREIGN[what]
    assert os.listdir(tmp_path) == ["f"]


def test_folders_and_pipes_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(InvalidInput, match=f"a .* stands at .*{name}"):
            read(tmp_path / name, kind="k")
        with pytest.raises(InvalidInput, match=f"a .* stands at .*{name}"):
            small(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]


def test_a_missing_file(tmp_path: Path) -> None:
    small(tmp_path / "f")
    for path in (tmp_path / "none", tmp_path / "none" / "f", tmp_path / "f" / "below"):
        with pytest.raises(NotFound, match="found no file at"):
            read(path, kind="k")


def test_another_kind(tmp_path: Path) -> None:
    small(tmp_path / "f")
    with pytest.raises(InvalidInput, match=r"holds the kind 'k'; expected 'other'"):
        read(tmp_path / "f", kind="other")


def test_a_newer_format(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(forged(b"\x01 not even JSON", version=2))
    with pytest.raises(InvalidInput, match=r"format 2, this lakelet reads up to 1.*--upgrade"):
        read(tmp_path / "f", kind="k")


def test_an_empty_file_is_filled_and_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").touch(mode=0o600)
    (tmp_path / "link").symlink_to("real")
    data = small(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == data
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path)) == ["link", "real"]


# --- damage ------------------------------------------------------------------------------------------------------


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "f"
    data = small(path)
    _, header_end, _ = parts(data)
    assert len(data) < 4 * 4096
    with path.open("r+b") as file:
        for at, byte in enumerate(data):
            for flip in (0x01, 0xFF) if at < header_end else (1 << at % 8,):
                os.pwrite(file.fileno(), bytes([byte ^ flip]), at)
                with pytest.raises(Corrupt) as caught:
                    read(path, kind="k", mmap=at % 2 == 0)
                assert caught.value.path == str(path)
                assert caught.value.offset is not None
                assert caught.value.offset <= at or at < START.size
                if at < header_end:
                    with pytest.raises(Corrupt):
                        read(path, kind="k", verify=False)
            os.pwrite(file.fileno(), bytes([byte]), at)
    assert path.read_bytes() == data
    read(path, kind="k")


def test_truncation_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "f"
    data = small(path)
    for length in reversed(range(len(data))):
        os.truncate(path, length)
        with pytest.raises(Corrupt) as caught:
            read(path, kind="k", mmap=length % 2 == 0, verify=length % 3 == 0)
        assert caught.value.offset == length
    path.write_bytes(data + b"\0")
    with pytest.raises(Corrupt) as caught:
        read(path, kind="k")
    assert caught.value.offset == len(data)


ONE = {"name": "a", "dtype": "int32", "shape": [4], "offset": 0, "nbytes": 16, "crc32": f"{zlib.crc32(bytes(16)):08x}"}
TWO = {**ONE, "name": "b", "offset": 4096}
FORGED: dict[str, Any] = {
    "fits": [ONE],
    "overlap": [ONE, {**TWO, "offset": 0}],
    "unaligned": [ONE, {**TWO, "offset": 16}],
    "beyond": [{**ONE, "offset": 4096}],
    "negative": [{**ONE, "offset": -4096}],
    "huge": [{**ONE, "offset": 2**70}],
    "twice": [ONE, {**TWO, "name": "a"}],
    "short": [{**ONE, "nbytes": 12}],
    "long": [{**ONE, "shape": [2**60], "nbytes": 2**62}],
    "shape": [{**ONE, "shape": [3]}],
    "negative shape": [{**ONE, "shape": [-4]}],
    "two negatives": [{**ONE, "shape": [-2, -2]}],
    "bool shape": [{**ONE, "shape": [4, True]}],
    "float shape": [{**ONE, "shape": [4.0]}],
    "text shape": [{**ONE, "shape": "4"}],
    "number shape": [{**ONE, "shape": 4}],
    "many dimensions": [{**ONE, "shape": [4, *[1] * 64]}],
    "empty and vast": [{**ONE, "shape": [0, 2**62, 2**62], "nbytes": 0}],
    "empty and long": [{**ONE, "shape": [0, 2**70], "nbytes": 0}],
    "object": [{**ONE, "dtype": "object"}],
    "pointer": [{**ONE, "dtype": "O"}],
    "dtype list": [{**ONE, "dtype": ["int32"]}],
    "dtype number": [{**ONE, "dtype": 4}],
    "name": [{**ONE, "name": 5}],
    "crc": [{**ONE, "crc32": "00000000"}],
    "crc number": [{**ONE, "crc32": 5}],
    "missing": [{"name": "a"}],
    "no dict": [5],
    "no list": 5,
    "a dict": {"a": ONE},
    "none": None,
}


@pytest.mark.parametrize("what", FORGED)
@pytest.mark.parametrize("mmap", [False, True])
def test_headers_that_contradict_themselves(tmp_path: Path, what: str, mmap: bool) -> None:
    (tmp_path / "f").write_bytes(forged({"kind": "k", "meta": {}, "arrays": FORGED[what]}, rest=bytes(16)))
    if what == "fits":
        assert read(tmp_path / "f", kind="k", mmap=mmap)[1]["a"].tolist() == [0, 0, 0, 0]
        return
    told = {"long": "its header says", "crc": "checksum", "crc number": "checksum"}.get(what, "damaged header")
    with pytest.raises(Corrupt, match=told):
        read(tmp_path / "f", kind="k", mmap=mmap)


HEADERS: list[Any] = [b"", b"{", b"[]", b"5", b"\xff\xfe", b"[" * 100_000, b"1" * 5_000, {}, {"kind": "k"}]
HEADERS += [{"kind": 5, "meta": {}, "arrays": []}, {"kind": "k", "meta": [], "arrays": []}, {"kind": "k", "meta": {}}]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_headers_that_do_not_parse(tmp_path: Path, header: Any) -> None:
    (tmp_path / "f").write_bytes(forged(header))
    with pytest.raises(Corrupt, match="damaged header"):
        read(tmp_path / "f", kind="k")


@settings(max_examples=200)
@given(data=st.data())
def test_damage_is_always_told_as_ours(data: st.DataObject) -> None:
    """Bytes overwritten, cut out or put in anywhere, with and without a look at the checksums."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        good = small(path)
        at = data.draw(st.integers(0, len(good)))
        wrong = good[:at] + data.draw(st.binary(max_size=40)) + good[at + data.draw(st.integers(0, 60)) :]
        path.write_bytes(wrong)
        for verify in (True, False):
            try:
                read(path, kind="k", verify=verify)
                assert wrong == good or not verify
            except LakeletError:
                assert wrong != good
