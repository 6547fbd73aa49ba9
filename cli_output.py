"""What the command line prints: tables for people, JSON and CSV for machines, progress for those who wait.

Names and values come out of other people's files: nothing in them is read as markup, and control characters are
shown, not sent to the terminal.
"""

from __future__ import annotations

import base64
import csv
import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

__all__ = [
    "byte_text",
    "counted",
    "json_value",
    "print_csv",
    "print_json",
    "print_json_rows",
    "print_lines",
    "print_table",
    "usd_text",
]

PLAIN_WIDTH = 1_000_000
"""Characters of a line when the output is no terminal: a name that is folded cannot be searched for."""


def byte_text(num_bytes: float) -> str:
    """Bytes for a person, in powers of 1,000 with three digits: ``1.24 MB``."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or abs(size) >= 99.95 else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.0f} PB"


def usd_text(dollars: float) -> str:
    """Dollars for a person: cents where there are some, three digits where there are none."""
    return f"{dollars:,.2f} USD" if abs(dollars) >= 1 or dollars == 0 else f"{dollars:.3g} USD"


def counted(number: int, noun: str) -> str:
    """``1 table``, ``2 tables``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def json_value(value: object) -> Any:
    """The value as JSON can hold it without loss: decimals and times as text, bytes as base64, no NaN literal."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta | Decimal):
        return str(value)
    if isinstance(value, dict):
        return {str(key): json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    return str(value)


def print_json(value: object) -> None:
    """One JSON document on standard output, indented."""
    print(json.dumps(json_value(value), indent=2, ensure_ascii=False))


def print_json_rows(batches: Iterable[pa.RecordBatch]) -> None:
    """A JSON array of one object a row and line, written as the rows arrive."""
    separator = "[\n"
    for batch in batches:
        for row in batch.to_pylist():
            sys.stdout.write(separator + json.dumps(json_value(row), ensure_ascii=False))
            separator = ",\n"
    sys.stdout.write("[]\n" if separator == "[\n" else "\n]\n")


def print_csv(names: Sequence[str], batches: Iterable[pa.RecordBatch]) -> None:
    """RFC 4180 with a header, written as the rows arrive. NULL is an empty field, nested values are JSON."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    for batch in batches:
        columns = [column.to_pylist() for column in batch.columns]
        writer.writerows([_field(value) for value in row] for row in zip(*columns, strict=True))


def _field(value: object) -> object:
    plain = json_value(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, list | dict | bool) else plain


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    text = value if isinstance(value, str) else str(_field(value))
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Aligned columns under their headers; the columns named in ``right`` are right-aligned.

    Nothing is cut off: what a terminal is too narrow for is folded inside its column.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    console = _console()
    with console.capture() as text:
        console.print(table)
    sys.stdout.write(re.sub(r" +$", "", text.get(), flags=re.MULTILINE))


def print_lines(*lines: str) -> None:
    """Lines of text on standard output, with nothing in them taken as markup."""
    for line in lines:
        print("\n".join(_cell(part) for part in line.split("\n")))


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(markup=False, highlight=False, emoji=False, width=width)
