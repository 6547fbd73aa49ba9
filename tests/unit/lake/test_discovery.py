"""Which tables a tree holds, what they are called, and what is rejected."""

from __future__ import annotations

import os
import subprocess
import sys

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.lake.discovery import discover
from lakelet.lake.errors import InvalidInput, NotFound, Unavailable
from lakelet.lake.footers import FooterCache
from lakelet.lake.listing import place_of

A = pa.table({"a": [1, 2]})
B = pa.table({"b": ["x"]})


def put(root, relative, table=A):
    path = root / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def found(root, taken=()):
    return discover(place_of(str(root)), FooterCache(), taken)


def tables(root, taken=()):
    """Name -> (location below the root, hive, number of files)."""
    return {
        t.name: (os.path.relpath(t.location, root), t.hive, len(t.listing.files)) for t in found(root, taken).tables
    }


def rejected(root):
    return {os.path.relpath(one.location, root): one.reason for one in found(root).rejected}


def test_folders_and_files_become_tables(tmp_path):
    put(tmp_path, "orders/part-0.parquet")
    put(tmp_path, "orders/part-1.parquet")
    put(tmp_path, "deep/down/x.parquet")
    put(tmp_path, "mixed/one.parquet", A)
    put(tmp_path, "mixed/two.PARQUET", B)
    put(tmp_path, "alone.parquet")
    put(tmp_path, "beside.parquet")
    (tmp_path / "notes.csv").write_text("a,b")
    put(tmp_path, "orders/_SUCCESS.parquet")
    put(tmp_path, ".hidden/x.parquet")
    assert tables(tmp_path) == {
        "alone": ("alone.parquet", False, 1),
        "beside": ("beside.parquet", False, 1),
        "deep_down": ("deep/down", False, 1),
        "mixed_one": ("mixed/one.parquet", False, 1),
        "mixed_two": ("mixed/two.PARQUET", False, 1),
        "orders": ("orders", False, 2),
    }
    assert rejected(tmp_path) == {}


def test_parts_in_the_tree_itself_are_one_table(tmp_path):
    put(tmp_path, "sales/part-0.parquet")
    put(tmp_path, "sales/part-1.parquet")
    assert tables(tmp_path / "sales") == {"sales": (".", False, 2)}


def test_a_hive_folder_is_one_table(tmp_path):
    for year in (2020, 2021):
        for month in (1, 2):
            put(tmp_path, f"raw/events/year={year}/month={month}/f.parquet")
    put(tmp_path, "raw/other/f.parquet")
    assert tables(tmp_path) == {"raw_events": ("raw/events", True, 4), "raw_other": ("raw/other", False, 1)}


def test_hive_folders_that_do_not_agree_are_rejected(tmp_path):
    put(tmp_path, "keys/a=1/f.parquet")
    put(tmp_path, "keys/b=1/f.parquet")
    put(tmp_path, "beside/a=1/f.parquet")
    put(tmp_path, "beside/f.parquet")
    put(tmp_path, "hole/a=1/f.parquet")
    (tmp_path / "hole/a=2").mkdir()
    (tmp_path / "hole/a=2/f.parquet").write_bytes(b"")
    put(tmp_path, "types/a=1/f.parquet", A)
    put(tmp_path, "types/a=2/f.parquet", pa.table({"a2": [1], "a": ["x"]}))
    put(tmp_path, "types/a=2/g.parquet", pa.table({"a": ["x"]}))
    reasons = rejected(tmp_path)
    assert "different keys" in reasons["keys"]
    assert "no files of one table" in reasons["types"]
    assert "beside" in reasons["beside"]
    assert "hole" in reasons["hole"]
    assert list(tables(tmp_path)) == ["beside_f"]


def test_what_is_no_table_is_rejected_with_its_reason(tmp_path):
    good = put(tmp_path, "good/x.parquet").read_bytes()
    for name, data in {"zero": b"", "text": b"a,b\n1,2\n3,4\n", "cut": good[:-9]}.items():
        (tmp_path / f"{name}.parquet").write_bytes(data)
    put(tmp_path, "nocolumns.parquet", pa.table({}))
    put(tmp_path, "twice.parquet", pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]))
    os.mkfifo(tmp_path / "pipe.parquet")
    os.symlink("nowhere", tmp_path / "dangling.parquet")
    reasons = rejected(tmp_path)
    assert list(tables(tmp_path)) == ["good"]
    assert "0 bytes" in reasons["zero.parquet"]
    assert "not a Parquet file" in reasons["text.parquet"]
    assert "truncated" in reasons["cut.parquet"]
    assert "no columns" in reasons["nocolumns.parquet"]
    assert "two columns" in reasons["twice.parquet"]
    assert "pipe" in reasons["pipe.parquet"]
    assert "no such file" in reasons["dangling.parquet"]


def test_a_part_that_cannot_be_read_takes_the_folder_with_it_but_exports_stand_alone(tmp_path):
    for folder, names in {"parts": ("part-0", "part-1"), "exports": ("jan", "feb")}.items():
        put(tmp_path, f"{folder}/{names[0]}.parquet")
        (tmp_path / folder / f"{names[1]}.parquet").write_bytes(b"")
    assert tables(tmp_path) == {"exports_jan": ("exports/jan.parquet", False, 1)}
    assert "hole" in rejected(tmp_path)["parts"]


def test_other_formats_are_rejected_with_everything_in_them(tmp_path):
    put(tmp_path, "delta/part-0.parquet")
    (tmp_path / "delta/_delta_log").mkdir()
    put(tmp_path, "iceberg/data/f.parquet")
    (tmp_path / "iceberg/metadata").mkdir()
    (tmp_path / "iceberg/metadata/v1.metadata.json").write_text("{}")
    put(tmp_path, "hudi/a=1/f.parquet")
    (tmp_path / "hudi/.hoodie").mkdir()
    assert tables(tmp_path) == {}
    assert {name: reason.split()[2] for name, reason in rejected(tmp_path).items()} == {
        "delta": "Delta",
        "iceberg": "Iceberg",
        "hudi": "Hudi",
    }


def test_a_lake_in_the_tree_keeps_its_own_files(tmp_path):
    (tmp_path / "lake/_lakelet/log").mkdir(parents=True)
    put(tmp_path, "lake/data/0a1b/f.parquet")
    put(tmp_path, "lake/exports/f.parquet")
    put(tmp_path, "data/f.parquet")
    assert sorted(tables(tmp_path)) == ["data", "lake_exports"]


def test_symbolic_links_are_followed_once(tmp_path):
    put(tmp_path, "tree/a/f.parquet")
    put(tmp_path, "elsewhere/f.parquet", B)
    os.symlink(tmp_path / "tree", tmp_path / "tree/a/loop")
    os.symlink(tmp_path / "elsewhere", tmp_path / "tree/link")
    os.symlink(tmp_path / "tree/a", tmp_path / "tree/second")
    os.symlink(tmp_path / "elsewhere/f.parquet", tmp_path / "tree/file.parquet")
    assert sorted(tables(tmp_path / "tree")) == ["a", "file", "link"]
    assert {"a/loop", "second"} == set(rejected(tmp_path / "tree"))


def test_an_unreadable_folder_is_rejected_and_the_rest_attached(tmp_path, monkeypatch):
    put(tmp_path, "shut/f.parquet")
    put(tmp_path, "good/f.parquet")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert list(tables(tmp_path)) == ["good"]
    assert "permission denied" in rejected(tmp_path)["shut"]
    with pytest.raises(Unavailable, match="ermission denied"):
        found(tmp_path / "shut")


def test_nothing_there_and_a_file(tmp_path):
    with pytest.raises(NotFound, match="not there"):
        found(tmp_path / "no")
    with pytest.raises(InvalidInput, match="is a file"):
        found(put(tmp_path, "f.parquet"))
    (tmp_path / "empty").mkdir()
    assert found(tmp_path / "empty").tables == ()


def test_names_are_clean_unique_and_the_same_each_time(tmp_path):
    put(tmp_path, "a b/f.parquet")
    put(tmp_path, "a-b/f.parquet")
    put(tmp_path, "A_B/f.parquet")
    put(tmp_path, "été/f.parquet")
    put(tmp_path, 'we"ird; DROP TABLE x/f.parquet')
    put(tmp_path, "x" * 250 + "/f.parquet")
    put(tmp_path, "x" * 250 + "/sub/" + "y" * 250 + "/f.parquet")
    first = tables(tmp_path, taken=["été"])
    assert first == tables(tmp_path, taken=["été"])
    assert {name: where for name, (where, _, _) in first.items() if "x" * 9 not in name} == {
        "A_B": "A_B",
        "a_b_2": "a b",
        "a_b_3": "a-b",
        "été_2": "été",
        "we_ird_DROP_TABLE_x": 'we"ird; DROP TABLE x',
    }
    assert all(len(name.encode()) <= 255 for name in first)


def test_a_tree_in_an_object_store(tmp_path):
    filesystem = fsspec.filesystem("memory")
    for relative in (
        "a/part-0.parquet",
        "a/part-1.parquet",
        "h/k=1/f.parquet",
        "h/k=2/f.parquet",
        "top.parquet",
        "d/_delta_log/x.parquet",
        "d/f.parquet",
        "lake/_lakelet/log/1.json",
        "lake/data/t/f.parquet",
    ):
        with filesystem.open(f"/discovery/{relative}", "wb") as file:
            pq.write_table(A, file)
    filesystem.pipe("/discovery/bad.parquet", b"PAR1 but nothing else")
    result = discover(place_of("memory://discovery"), FooterCache())
    assert [(t.name, t.location, t.hive, len(t.listing.files)) for t in result.tables] == [
        ("a", "memory:///discovery/a", False, 2),
        ("h", "memory:///discovery/h", True, 2),
        ("top", "memory:///discovery/top.parquet", False, 1),
    ]
    assert [one.location.rsplit("/", 1)[1] for one in result.rejected] == ["bad.parquet", "d"]
    with pytest.raises(NotFound):
        discover(place_of("memory://nothing-here"), FooterCache())


def test_discovery_does_not_load_duckdb(tmp_path):
    put(tmp_path, "a/f.parquet")
    code = (
        "import sys\n"
        "from lakelet.lake.attached import Attachments\n"
        "from lakelet.lake.discovery import discover\n"
        "from lakelet.lake.listing import place_of\n"
        f"assert len(discover(place_of({str(tmp_path)!r}), Attachments().footers).tables) == 1\n"
        "assert 'duckdb' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_progress_counts_the_footers_that_are_read(tmp_path):
    for number in range(3):
        pq.write_table(pa.table({"x": [number]}), tmp_path / f"t{number}.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"no parquet at all")
    footers, told = FooterCache(), []
    for _ in range(2):
        discover(place_of(str(tmp_path)), footers, progress=lambda *call: told.append(call))
    again = [("footers", 1, 1)]  # only what is broken is not kept
    assert told == [("footers", done, 4) for done in range(1, 5)] + again
