"""What is printed can be read by machines, and nothing in the data reaches the terminal as a command."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lakelet.cli_output import byte_text, json_value, print_csv, print_json_rows, print_lines, print_table


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (99_949, "99.9 kB"),
        (99_999, "100 kB"),
        (999_400, "999 kB"),
        (999_999, "1 MB"),
        (1_240_000, "1.24 MB"),
        (5 * 10**12, "5 TB"),
        (12 * 10**18, "12,000 PB"),
        (-1500, "-1.5 kB"),
    ],
)
def test_bytes_have_three_digits(num_bytes: int, text: str) -> None:
    assert byte_text(num_bytes) == text


def test_values_without_a_json_form_become_text() -> None:
    row = {
        "decimal": Decimal("1.50"),
        "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "day": date(2026, 1, 2),
        "clock": time(3, 4, 5),
        "span": timedelta(seconds=90),
        "bytes": b"\x00\xff",
        "nan": float("nan"),
        "list": [1, None, {"deep": float("inf")}],
    }
    assert json_value(row) == {
        "decimal": "1.50",
        "when": "2026-01-02T03:04:05+00:00",
        "day": "2026-01-02",
        "clock": "03:04:05",
        "span": "0:01:30",
        "bytes": "AP8=",
        "nan": "nan",
        "list": [1, None, {"deep": "inf"}],
    }


VALUES = st.one_of(st.none(), st.text(), st.integers(-(2**63), 2**63 - 1).map(str))


@settings(max_examples=50)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=20))
def test_rows_survive_json_and_csv(rows: list[tuple[str | None, str | None]]) -> None:
    schema = pa.schema({"a": pa.string(), "b": pa.string()})
    encodable = [tuple(None if v is None else v.encode("utf-8", "replace").decode() for v in row) for row in rows]
    batches = [pa.RecordBatch.from_pylist([dict(zip("ab", row, strict=True))], schema=schema) for row in encodable]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out := io.StringIO())
        print_json_rows(batches)
        assert [(r["a"], r["b"]) for r in json.loads(out.getvalue())] == encodable
        patch.setattr("sys.stdout", out := io.StringIO(newline=""))
        print_csv(["a", "b"], batches)
    read = list(csv.reader(io.StringIO(out.getvalue(), newline="")))
    assert read == [["a", "b"], *([v or "" for v in row] for row in encodable)]


def test_names_are_neither_markup_nor_escape_sequences(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["[bold]name[/]"], [["[red]x[/red] :smile:"], ["\x1b[31mred"], [None]])
    print_lines("[red]x \x1b[0m")
    out = capsys.readouterr().out
    assert "[bold]name[/]" in out
    assert "[red]x[/red] :smile:" in out
    assert "\\x1b[31mred" in out
    assert "NULL" in out
    assert "\x1b" not in out


def test_long_names_stay_whole_and_lines_end_with_their_last_letter(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["name", "rows", "text"], [["n" * 1000, 1, "a"], ["m", 2, "abc"]], right=["rows"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "n" * 1000 + "     1  a"
    assert [line.rstrip() for line in lines] == lines
    assert len(lines) == 3
