"""Files of access events, of every form, sound and not."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakelet.lake.accesses import read_events
from lakelet.lake.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pathlib import Path

DAY = date(2026, 3, 1)

EVENTS = [
    {"table": "orders", "time": "2026-03-01T23:30:00Z", "reads": 2},
    {"table": "orders", "time": "2026-03-01T23:30:00-02:00", "reads": 3},
    {"table": "orders", "time": "2026-03-01 00:00:00.123456", "reads": 5},
    {"table": "Größe, 'x'", "time": "2026-03-01", "reads": 7},
    {"table": "idle", "time": "2026-03-01", "reads": 0},
]
EXPECTED = {"orders": {DAY: 7, DAY + timedelta(1): 3}, "Größe, 'x'": {DAY: 7}}


def write_events(path: Path, events: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        names = list(events[0])
        quoted = [[f'"{event[name]}"' if event.get(name) is not None else "" for name in names] for event in events]
        path.write_text("\n".join(",".join(row) for row in [names, *quoted]) + "\n", encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(events), path)
    else:
        path.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    return path


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_events_of_every_form(tmp_path: Path, form: str) -> None:
    (tmp_path / "table=a").mkdir()
    path = write_events(tmp_path / "table=a" / f"e'[1]*.{form}", EVENTS)
    write_events(tmp_path / "table=a" / f"e'1x.{form}", EVENTS)  # a pattern would find this one
    assert read_events(path) == EXPECTED
    assert read_events(str(path), {"orders": "o", "Größe, 'x'": "o"}) == {"o": {DAY: 14, DAY + timedelta(1): 3}}
    days = write_events(tmp_path / f"days.{form}", [{"table": "a", "day": "2026-03-01"}] * 3)
    assert read_events(days) == {"a": {DAY: 3}}
    both = [{"table": "a", "time": None, "day": "2026-03-01", "reads": None}, {"table": "a", "time": "2026-03-02"}]
    assert read_events(write_events(tmp_path / f"both.{form}", both)) == {"a": {DAY: 1, DAY + timedelta(1): 1}}


def test_events_with_types_of_their_own(tmp_path: Path) -> None:
    moment = datetime(2026, 3, 1, 23, 30)
    for kind in (pa.timestamp("ns"), pa.timestamp("us"), pa.timestamp("ms", tz="+05:00"), pa.timestamp("s", "UTC")):
        table = pa.table({"Table": ["a"], "TIME": pa.array([moment], kind), "other": [1.5]})
        pq.write_table(table, tmp_path / "e.parquet")
        assert read_events(tmp_path / "e.parquet") == {"a": {DAY: 1}}
    pq.write_table(pa.table({"table": ["a"], "day": [DAY], "reads": pa.array([2], pa.uint8())}), tmp_path / "d.parquet")
    assert read_events(tmp_path / "d.parquet") == {"a": {DAY: 2}}
    (tmp_path / "e.json").write_text(json.dumps(EVENTS), encoding="utf-8")
    assert read_events(tmp_path / "e.json") == EXPECTED


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("bad", "found"),
    [
        ({"reads": -1}, "-1"),
        ({"reads": 1.5}, "1.5"),
        ({"time": "yesterday"}, "yesterday"),
        ({"time": "infinity"}, "infinity"),
        ({"time": "12026-01-01"}, "12026"),
        ({"time": None}, "None"),
        ({"table": None}, "None"),
    ],
)
def test_an_event_that_is_wrong_is_shown(tmp_path: Path, form: str, bad: dict[str, Any], found: str) -> None:
    good = {"table": "a", "time": "2026-03-01", "reads": "1" if form == "parquet" else 1}
    path = write_events(tmp_path / f"e.{form}", [good, good | {k: v and str(v) for k, v in bad.items()}])
    with pytest.raises(InvalidInput, match=found) as caught:
        read_events(path)
    assert str(path) in str(caught.value)


def test_event_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="found no file"):
        read_events(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(NotFound, match="found no file"):
        read_events(tmp_path / "folder.csv")
    for name, data in {
        "e.xlsx": b"",
        "empty.csv": b"",
        "no_time.csv": b"table,reads\na,1\n",
        "no_table.csv": b"time,reads\n2026-03-01,1\n",
        "bad.csv": b'table,day\n"a,2026-03-01\n',
        "short.csv": b"table,day\na,2026-03-01\nb\n",
        "long.csv": b"table,day\na,2026-03-01\na,2026-03-01,1\n",
        "torn.csv": b"table,day\n" + b"a,2026-03-01\n" * 50_000 + b"a\n",
        "title.csv": b"some title\ntable,day\na,2026-03-01\n",
        "bytes.csv": b"table,day\n\xff\xfe,2026-03-01\n",
        "bad.jsonl": b'{"table": "a", "day"',
        "list.jsonl": b"[1, 2]",
        "no_table.jsonl": b'{"day": "2026-03-01"}\n',
        "bad.parquet": b"PAR1 and nothing more",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InvalidInput, match=name):
            read_events(tmp_path / name)
    pq.write_table(pa.table({"table": ["a"], "when": ["2026-03-01"]}), tmp_path / "e.parquet")
    with pytest.raises(InvalidInput, match="'table', 'when'"):
        read_events(tmp_path / "e.parquet")
