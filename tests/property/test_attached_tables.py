"""SQL over attached folders gives what reading their files gives: evolved schemas, Hive folders, hostile names."""

from __future__ import annotations

import math
import os
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.lake.attached import Attachments, attached_table
from lakelet.lake.conversion import convert
from lakelet.lake.errors import InvalidInput
from lakelet.lake.footers import FooterCache, file_state
from lakelet.lake.local_store import LocalStore
from lakelet.lake.session import Session
from lakelet.lake.statistics import footer_bounds

COLUMNS = {
    "n": [pa.int8(), pa.int32(), pa.int64()],
    "f": [pa.float32(), pa.float64()],
    "s": [pa.string(), pa.large_string()],
    "file_row_number": [pa.int16(), pa.int64()],
    'we"ird': [pa.string()],
    "N": [pa.int32()],
}
VALUES = {"n": 7, "f": 1.5, "s": "it's", "file_row_number": 3, 'we"ird': "", "N": None}
KEYS = ["k", "year", "K", "n", "é", "a b"]
PARTITIONS = ["1", "2", "-7", "01", "2024-02-29", "x", "a/b c", "%", "it's", "__HIVE_DEFAULT_PARTITION__", "null", "="]


@st.composite
def folders(draw: st.DrawFn) -> tuple[bool, str, list[tuple[str, pa.Table]]]:
    """Whether Hive, a name for the folder, and files by their path below it."""
    hive = draw(st.booleans())
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True)) if hive else []
    alike = draw(st.booleans())
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), min_size=1, unique=True))
    files = []
    for number in range(draw(st.integers(1, 5))):
        here = names if alike else draw(st.permutations(names).map(lambda p: p[: max(1, len(p) - 1)]))
        count = draw(st.integers(0, 3))
        columns = {}
        for name in here:
            kind = COLUMNS[name][-1] if alike else draw(st.sampled_from(COLUMNS[name]))
            cells = [draw(st.sampled_from([None, VALUES[name]])) for _ in range(count)]
            columns[name] = pa.array(cells, kind)
        path = "/".join(
            f"{quote(key, safe='')}={quote(draw(st.sampled_from(PARTITIONS)), safe='')}"
            if draw(st.booleans())
            else f"{key}={draw(st.sampled_from(PARTITIONS[:6]))}"
            for key in keys
        )
        files.append((f"{path}/{number}.parquet".lstrip("/"), pa.table(columns)))
    return hive, draw(st.sampled_from(["d", "x=5", "[ab]*", "it's", "d d"])), files


@settings(deadline=None, derandomize=True, max_examples=100)
@given(case=folders())
def test_sql_reads_what_to_arrow_reads(case, tmp_path_factory):
    hive, name, files = case
    root = tmp_path_factory.mktemp("attached") / name
    for path, rows in files:
        os.makedirs(os.path.dirname(root / path), exist_ok=True)
        pq.write_table(rows, root / path)
    try:
        attachment = Attachments().open(str(root), hive)
    except InvalidInput:
        return  # schemas that do not unite: judged elsewhere
    expected = attached_table("t", attachment, 1).to_arrow()
    assert expected.num_rows == sum(rows.num_rows for _, rows in files)
    session = Session(LocalStore(root))
    found = session.sql("SELECT * FROM t", None, ["t"], lambda _: attachment).to_arrow_table()
    session.close()
    assert found.num_rows == expected.num_rows
    for column, field in zip(found.columns, expected.schema, strict=True):
        assert convert(column, field.type).to_pylist() == expected[field.name].to_pylist(), field


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    values=st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20),
    floats=st.lists(st.none() | st.floats(), max_size=20),
    texts=st.lists(st.none() | st.text(max_size=30), max_size=20),
    group=st.integers(1, 7),
)
def test_bounds_of_a_fragment_hold_all_its_values(values, floats, texts, group, tmp_path_factory):
    size = max(map(len, (values, floats, texts)))
    columns = {
        name: pa.array(cells + [None] * (size - len(cells)), kind)
        for name, cells, kind in (
            ("i", values, pa.int64()),
            ("f", floats, pa.float64()),
            ("s", texts, pa.string()),
        )
    }
    path = str(tmp_path_factory.mktemp("bounds") / "f.parquet")
    pq.write_table(pa.table(columns), path, row_group_size=group)
    (fragment,) = Attachments().open(path).fragments
    footer = FooterCache().read(file_state(path, os.stat(path)))
    assert fragment.bounds() == footer_bounds(footer.metadata)
    for name, known in fragment.bounds().items():
        cells = [
            cell
            for cell in columns[name].to_pylist()
            if cell is not None and not (isinstance(cell, float) and math.isnan(cell))
        ]
        assert known.null_count in (None, columns[name].null_count)
        if known.min is not None and cells:
            assert known.min <= min(cells) <= max(cells) <= known.max
            assert min(cells) == known.min or not known.min_exact
            assert max(cells) == known.max or not known.max_exact
