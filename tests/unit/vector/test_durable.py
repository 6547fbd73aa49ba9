"""A vector index in a folder: what it is opened with, what is refused, and what becomes of damaged files."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake.errors import Corrupt, InvalidInput, LakeletError, NotFound, Unavailable
from lakelet.vector import folder as folder_module
from lakelet.vector import index as index_module
from lakelet.vector import journal as journal_module
from lakelet.vector.index import VectorIndex
from lakelet.vector.journal import START_BYTES, Journal, Record, Scan
from lakelet.vector.labels import ALL_TENANTS, PUBLIC

DIM = 4
LABELS: list[Any] = ["a", 7, "7", PUBLIC, "\ud83c\udf0a", "\U0001f30a", -(10**30), ""]


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def seen(index: VectorIndex, where: str | None = None) -> list[Any]:
    """All that is certain of an index."""
    found: list[Any] = [index.dim, index.metric, index._state.next_id, [use[:2] for use in index.tenants()]]
    for who in (*LABELS, "stranger", ALL_TENANTS):
        found += [part.tolist() for part in index.search(rows(2, 99), 500, who, exact=True, where=where)]
    return found


def changes(index: VectorIndex) -> list[Callable[[], Any]]:
    """One of each kind and more; what they do is the same each time."""
    return [
        lambda: index.add(rows(9), tenants=[[label] for label in LABELS] + [None]),
        lambda: index.grant([0, 8], LABELS[5]),
        lambda: index.add(rows(1, 1), [77], [["a", 7]]),
        lambda: index.add(rows(1, 2)[0]),
        lambda: index.revoke([77], 7),
        lambda: index.delete([1, 3]),
        lambda: index.add(rows(3, 3), [1, 3, 200], LABELS[6]),
        lambda: index.drop_tenant("7"),
        lambda: index.drop_tenant(LABELS[6], keep_rows=True),
        lambda: index.add(rows(40, 4), tenants="a"),
        lambda: index.grant([], "nobody yet"),
        lambda: index.delete([77]),
    ]


# --- there and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["l2", "cosine", "ip"])
@pytest.mark.parametrize("saved", [False, True])
def test_what_was_done_is_there_when_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, saved: bool
) -> None:
    """Also as an index in memory has it."""
    monkeypatch.setattr(index_module, "VECTOR_BULK_ROWS", 30)
    index, other = VectorIndex.open(tmp_path / "f", DIM, metric, seed=3), VectorIndex(DIM, metric, seed=3)
    for number, (act, beside) in enumerate(zip(changes(index), changes(other), strict=True)):
        made, expected = act(), beside()
        assert np.array_equal(made, expected) if isinstance(made, np.ndarray) else made == expected
        if saved and number % 4 == 1:
            index.save()
    assert seen(index) == seen(other)
    index.close()
    for mmap in (True, False):
        with VectorIndex.open(str(tmp_path / "f"), mmap=mmap) as again:
            assert seen(again) == seen(other)
            assert again.add(rows(1)).tolist() == other.add(rows(1)).tolist()
            again.delete([again._state.next_id - 1])
            other.delete([other._state.next_id - 1])
    with VectorIndex.open(tmp_path / "f") as again:
        again.save()
        assert sorted(os.listdir(tmp_path / "f"))[0] == "current"
        assert len(os.listdir(tmp_path / "f")) == 4
    with VectorIndex.open(tmp_path / "f") as again:
        assert seen(again) == seen(other)


def test_attributes_are_kept(tmp_path: Path) -> None:
    kinds = {"year": "int64", "word": "string", "tags": "list<string>", "moment": "timestamp[us, tz=UTC]", "ok": bool}
    values = {
        "year": [1, None, 2**62],
        "word": ["x", "", None],
        "tags": [["a", "b"], [], None],
        "ok": [True, None, False],
    }
    index = VectorIndex.open(tmp_path / "f", DIM, attributes=kinds)
    for _ in range(3):
        index.add(rows(3), attributes=values)
    index.add(rows(2))
    wheres = ["year > 1", "word = ''", "'a' IN tags", "year IS NULL", "ok", "moment IS NULL AND NOT ok"]
    expected = [seen(index, where) for where in wheres]
    index.close()
    for _ in range(2):
        with VectorIndex.open(tmp_path / "f", attributes=kinds) as again:
            assert [seen(again, where) for where in wheres] == expected
            again.save()


def test_many_small_additions_are_read_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with VectorIndex.open(tmp_path / "f", DIM) as index:
        for turn in range(200):
            index.add(rows(1, turn), tenants="a")
        expected = seen(index)
    runs: list[Any] = []
    real = VectorIndex._run
    monkeypatch.setattr(VectorIndex, "_run", lambda self, operation: (runs.append(operation), real(self, operation))[1])
    with VectorIndex.open(tmp_path / "f") as again:
        assert seen(again) == expected
    assert [len(each.rows) for each in runs] == [200]


def test_what_is_refused_writes_nothing(tmp_path: Path) -> None:
    index = VectorIndex.open(tmp_path / "f", DIM)
    index.add(rows(3), tenants="a")
    path = tmp_path / "f" / "journal-00000001"
    size = path.stat().st_size
    wrong: list[Callable[[], Any]] = [
        lambda: index.add(rows(2), [2, 3]),
        lambda: index.add(np.full((1, DIM), np.nan, np.float32)),
        lambda: index.add(rows(1), tenants=[1.5]),
        lambda: index.add(rows(1), tenants=10**5_000),
        lambda: index.add(rows(1), attributes={"x": 1}),
        lambda: index.delete([0, 9]),
        lambda: index.grant([9], "b"),
        lambda: index.revoke([0], "b"),
        lambda: index.drop_tenant("b"),
        lambda: index.add(rows(0)),
    ]
    for act in wrong[:-1]:
        with pytest.raises(LakeletError):
            act()
    wrong[-1]()
    assert path.stat().st_size == size
    assert [use.label for use in index.tenants()] == ["a"]
    index.close()


# --- opening -------------------------------------------------------------------------------------------------------


def test_what_is_there_must_be_what_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="say dim="):
        VectorIndex.open(tmp_path / "f")
    with pytest.raises(InvalidInput, match="no metric 'l3'"):
        VectorIndex.open(tmp_path / "f", DIM, "l3")
    assert os.listdir(tmp_path) == []
    VectorIndex.open(tmp_path / "f", DIM, "ip", attributes={"year": int}).close()
    for wanted, told in (
        ({"dim": 5}, "dim 4; expected 5"),
        ({"metric": "l2"}, "metric 'ip'; expected 'l2'"),
        ({"attributes": {"year": str}}, "attributes {'year': 'int64'}; expected {'year': 'string'}"),
    ):
        with pytest.raises(InvalidInput, match=told):
            VectorIndex.open(tmp_path / "f", **wanted)  # type: ignore[arg-type]
    VectorIndex.open(tmp_path / "f", DIM, "ip", attributes={"year": "int64"}).close()
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="a file stands at"):
        VectorIndex.open(tmp_path / "file", DIM)
    with pytest.raises(InvalidInput, match="holds file and no index"):
        VectorIndex.open(tmp_path, DIM)
    with pytest.raises(Unavailable, match="make it first"):
        VectorIndex.open(tmp_path / "none" / "f", DIM)
    with pytest.raises(InvalidInput, match="expected the path"):
        VectorIndex.open("", DIM)
    assert (tmp_path / "file").read_bytes() == b"x"


def test_one_at_a_time(tmp_path: Path) -> None:
    index = VectorIndex.open(tmp_path / "f", DIM)
    index.add(rows(2))
    program = """
import sys
from lakelet.lake.errors import Unavailable
from lakelet.vector.index import VectorIndex
try:
    VectorIndex.open(sys.argv[1])
except Unavailable as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "f"], capture_output=True, text=True, check=True)
    assert f"is open for writing by process {os.getpid()} on " in done.stdout
    with pytest.raises(Unavailable, match="close it there first"):
        VectorIndex.open(tmp_path / "f")
    child = os.fork()
    if not child:  # a process that was forked holds no lock, and writes nothing
        try:
            index.add(rows(1))
        except Unavailable:
            os._exit(3)
        os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    index.close()
    index.close()
    for act in (lambda: index.add(rows(1)), lambda: index.delete([0]), index.save):
        with pytest.raises(InvalidInput, match="the index is closed"):
            act()
    assert len(index) == 2
    assert index.search(rows(1), 1)[0].tolist() == [[0]]
    index.save(tmp_path / "copy")
    assert len(VectorIndex.load(tmp_path / "copy")) == 2
    with VectorIndex.open(tmp_path / "f") as again:
        assert len(again) == 2


def test_an_index_in_memory_is_as_before() -> None:
    with VectorIndex(DIM) as index:
        index.add(rows(2))
        with pytest.raises(InvalidInput, match="say where to save"):
            index.save()
    index.add(rows(2))
    assert len(index) == 4


# --- the journal by itself -----------------------------------------------------------------------------------------


def read(path: Path, generation: int = 5) -> tuple[list[tuple[int, bytes]], Scan]:
    scan = Scan(str(path), generation)
    return [(kind, bytes(payload)) for kind, payload in scan.records()], scan


def test_a_journal_holds_what_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "JOIN_BYTES", 100)
    journal = Journal.create(str(tmp_path / "j"), 5, 40)
    expected: list[tuple[int, bytes]] = []
    for number in range(10):
        some = [(kind, os.urandom(kind * 37 * number)) for kind in range(number)]
        journal.append([Record(kind, [data[:5], memoryview(data[5:])]) for kind, data in some])
        expected += some
    assert journal.end == (tmp_path / "j").stat().st_size
    found, scan = read(tmp_path / "j")
    assert found == expected
    assert (scan.first, scan.sequence, scan.end, scan.torn_bytes) == (40, 40 + len(expected), journal.end, 0)
    journal.close()
    with pytest.raises(Unavailable, match="closed"):
        journal.append([Record(1, [b"x"])])


@pytest.fixture
def journal(tmp_path: Path) -> tuple[Path, list[int]]:
    """Four groups, and where each ends."""
    made = Journal.create(str(tmp_path / "j"), 5, 0)
    ends = [made.end]
    for number in range(4):
        made.append([Record(1, [bytes([number]) * (50 + number)])])
        ends.append(made.end)
    made.close()
    return tmp_path / "j", ends


def test_a_torn_tail_is_cut_off_and_told(
    journal: tuple[Path, list[int]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(journal_module, "SEARCH_BYTES", 7)
    path, ends = journal
    whole = path.read_bytes()
    tails = [
        whole[: ends[3]] + tail for tail in (b"x", b"\0" * 300, whole[ends[3] : -1], whole[ends[3] : -4] + b"xxxx")
    ]
    for data in [*tails, *(whole[:size] for size in range(ends[0], len(whole)))]:
        path.write_bytes(data)
        found, scan = read(path)
        count = sum(end <= len(data) for end in ends[1:]) if data not in tails else 3
        assert len(found) == count
        caplog.clear()
        with caplog.at_level(logging.WARNING, "lakelet"):
            again = Journal.resumed(scan)
        assert path.stat().st_size == ends[count]
        assert (f"cut off at byte {ends[count]}" in caplog.text) == (len(data) != ends[count])
        again.append([Record(9, [b"more"])])
        again.close()
        assert read(path)[0] == [*found, (9, b"more")]


def test_damage_before_a_whole_group_is_corrupt(journal: tuple[Path, list[int]]) -> None:
    path, ends = journal
    whole = path.read_bytes()
    for place in range(ends[3]):
        data = bytearray(whole)
        data[place] ^= 16
        path.write_bytes(data)
        with pytest.raises((Corrupt, InvalidInput)) as caught:
            read(path)
        if place >= START_BYTES:
            assert isinstance(caught.value, Corrupt)
            assert caught.value.path == str(path)
            assert caught.value.offset == max(end for end in ends if end <= place)
        assert path.read_bytes() == data
    for left_out in range(3):  # a group is missing
        path.write_bytes(whole[: ends[left_out]] + whole[ends[left_out + 1] :])
        with pytest.raises(Corrupt, match="goes on with operation"):
            read(path)


def test_journals_of_others_are_told(journal: tuple[Path, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = journal
    with pytest.raises(Corrupt, match="is of generation 5, its name says 6"):
        read(path, 6)
    with pytest.raises(NotFound, match="found no journal"):
        read(path.with_name("none"))
    for size in (0, 7, START_BYTES - 1):
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(Corrupt, match="is cut short"):
            read(path)
    monkeypatch.setattr(journal_module, "FORMAT", 2)
    Journal.create(str(path), 5, 0)
    monkeypatch.setattr(journal_module, "FORMAT", 1)
    with pytest.raises(InvalidInput, match="format 2, this lakelet reads up to 1: pip install"):
        read(path)


# --- damaged folders -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A folder with a snapshot and two journals, and what it held after each change."""
    folder = tmp_path_factory.mktemp("damaged") / "f"
    index = VectorIndex.open(folder, DIM)
    states = [seen(index)]
    for number, act in enumerate(changes(index)):
        act()
        states.append(seen(index))
        if number == 3:
            index.save()
        if number == 7:  # a snapshot that could not be written: the journal before it stays
            with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="no"):
                patch.setattr(folder_module.Folder, "fingerprint", lambda *_: (_ for _ in ()).throw(OSError("no")))
                index.save()
    index.close()
    assert sorted(name for name in os.listdir(folder) if name[0] == "j") == ["journal-00000002", "journal-00000003"]
    return folder, states


def opened(folder: Path) -> list[Any] | LakeletError:
    try:
        with VectorIndex.open(folder) as index:
            return seen(index)
    except (Corrupt, InvalidInput) as error:
        found = error
    assert str(folder) in str(found)
    return found


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_bytes_are_told_or_are_of_the_last_change(damaged: tuple[Path, list[Any]], data: st.DataObject) -> None:
    """Never a crash, never a wrong row."""
    folder, states = damaged
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    name = data.draw(st.sampled_from(sorted(set(os.listdir(folder)) - {"lock"})))
    whole = (copy / name).read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "zero", "insert"]))
    broken = {
        "flip": whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :],
        "cut": whole[:place],
        "zero": whole[:place] + bytes(min(40, len(whole) - place)) + whole[place + 40 :],
        "insert": whole[:place] + b"\xff" + whole[place:],
    }[how]
    (copy / name).write_bytes(broken)
    found = opened(copy)
    shutil.rmtree(copy)
    if isinstance(found, LakeletError):
        return
    assert found in states
    assert found == states[-1] or (name == "journal-00000003" and found in states[8:])
    if how != "cut" and found != states[-1]:
        assert found == states[-2]


def test_files_that_are_missing_or_of_another_index_are_told(damaged: tuple[Path, list[Any]], tmp_path: Path) -> None:
    folder, states = damaged
    assert opened(shutil.copytree(folder, tmp_path / "whole")) == states[-1]
    for number, name in enumerate(["current", "snapshot-00000002.lakelet", "journal-00000002"]):
        copy = shutil.copytree(folder, tmp_path / f"without{number}")
        (copy / name).unlink()
        assert isinstance(opened(copy), Corrupt)
    copy = shutil.copytree(folder, tmp_path / "swapped")
    VectorIndex(DIM).save(copy / "snapshot-00000002.lakelet")
    assert "is not the file that current names" in str(opened(copy))
    copy = shutil.copytree(folder, tmp_path / "newer")
    said = json.loads((copy / "current").read_text())
    del said["crc32"]
    said["format"] = 2
    (copy / "current").write_text(json.dumps(said | {"crc32": folder_module._crc(said)}))
    assert "pip install --upgrade" in str(opened(copy))
    copy = shutil.copytree(folder, tmp_path / "another")
    (copy / "journal-00000002").write_bytes((folder / "journal-00000003").read_bytes())
    assert "is of generation 3, its name says 2" in str(opened(copy))
    copy = shutil.copytree(folder, tmp_path / "tail")
    whole = (copy / "journal-00000002").read_bytes()
    (copy / "journal-00000002").write_bytes(whole[:-1])
    found = opened(copy)
    assert isinstance(found, Corrupt)
    assert found.path.endswith(("journal-00000002", "journal-00000003"))
    assert (copy / "journal-00000002").read_bytes() == whole[:-1]


def test_what_an_interrupted_opening_left_is_begun_anew(tmp_path: Path) -> None:
    VectorIndex.open(tmp_path / "f", DIM).close()
    (tmp_path / "f" / "current").unlink()
    (tmp_path / "f" / ".lakelet-half.tmp").write_bytes(b"x")
    with VectorIndex.open(tmp_path / "f", DIM + 1) as index:
        index.add(np.ones((1, DIM + 1), np.float32))
    with VectorIndex.open(tmp_path / "f") as index:
        assert (index.dim, len(index)) == (DIM + 1, 1)
    assert len(os.listdir(tmp_path / "f")) == 4
