"""Access events that were recorded elsewhere, from a file: CSV, JSON lines or Parquet, read by DuckDB."""

from __future__ import annotations

import os
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from .errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["read_events"]

_COLUMNS: Final = ("table", "time", "day", "reads")
_FORMS: Final = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet"} | dict.fromkeys(
    (".json", ".jsonl", ".ndjson"), "json"
)
_SOURCES: Final = {
    # Of the dialect only the delimiter is guessed: guessing more, DuckDB passes over lines that do not fit.
    "csv": """read_csv($1, all_varchar = true, header = true, quote = '"', escape = '"', comment = '', skip = 0,
        hive_partitioning = false)""",
    "parquet": "read_parquet($1, hive_partitioning = false)",
    "json": "read_json_objects($1, hive_partitioning = false)",
}
_EVENTS: Final = """
    WITH texts AS (SELECT {columns} FROM {source}),
    told AS (
        SELECT "table" AS name, coalesce("time", "day") AS moment, coalesce("reads", '1') AS said,
            TRY_CAST(TRY_CAST(moment AS TIMESTAMPTZ) AS DATE) AS utc_day, TRY_CAST(said AS BIGINT) AS number
        FROM texts
    ),
    events AS (
        SELECT *, coalesce(name <> '' AND utc_day BETWEEN DATE '0001-01-01' AND DATE '9999-12-30'
            AND number >= 0 AND number = TRY_CAST(said AS DOUBLE), false) AS sound
        FROM told
    )
"""


def read_events(
    path: str | os.PathLike[str], names: Mapping[str, str] | None = None
) -> Mapping[str, Mapping[date, int]]:
    """Reads by table name and UTC day from a file of events: CSV, JSON lines or Parquet, told by its ending.

    Columns: ``table``, a name; ``time``, an ISO timestamp, UTC unless it says otherwise, or ``day``; and, if there,
    ``reads``, 1 where it is missing or NULL. ``names`` gives, for names in the file, those to use instead; tables that
    come to one name are added up. Raises NotFound when there is no such file, InvalidInput, naming it and what was
    found, when it cannot be read, lacks a column, or has an event without a table, a day or a whole number of reads.
    """
    import duckdb

    text = os.path.abspath(os.fspath(path))
    if not os.path.isfile(text):
        raise NotFound(f"found no file {text}; expected a file of access events")
    plain = text.lower().removesuffix(".gz").removesuffix(".zst")
    form = _FORMS.get(os.path.splitext(plain)[1])
    if form is None:
        raise InvalidInput(f"found {text}; expected a file of access events that ends in {', '.join(_FORMS)}")
    literal = "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)  # one file, never a pattern
    try:
        with duckdb.connect(":memory:", config={"python_enable_replacements": False}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            rows = _event_rows(connection, text, literal, form)
    except duckdb.Error as error:
        line = str(error).strip().partition("\n")[0]
        raise InvalidInput(f"{text} cannot be read as {form}: {line}; write it anew") from error
    events: dict[str, dict[date, int]] = {}
    for name, day, reads in rows:
        counted = events.setdefault((names or {}).get(name, name), {})
        counted[day] = counted.get(day, 0) + int(reads)
    return events


def _event_rows(connection: Any, path: str, literal: str, form: str) -> list[tuple[str, date, int]]:
    """(table, day, reads), one for each table and day. Raises InvalidInput for what :func:`read_events` says."""
    source = _SOURCES[form]
    if form == "json":
        # as text: a type that is guessed would lose the offset of a time
        columns = [f"json->>'{column}' AS \"{column}\"" for column in _COLUMNS]
    else:
        found = [column[0] for column in connection.execute(f"SELECT * FROM {source} LIMIT 0", [literal]).description]
        held = {column.lower() for column in found}
        if "table" not in held or not held & {"time", "day"}:
            shown = ", ".join(map(repr, found[:20]))
            raise InvalidInput(f"{path} has the columns {shown}; expected table, time or day, and perhaps reads")
        columns = [f'CAST("{column}" AS VARCHAR) AS "{column}"' for column in _COLUMNS if column in held]
        columns += [f'CAST(NULL AS VARCHAR) AS "{column}"' for column in _COLUMNS if column not in held]
    query = _EVENTS.format(columns=", ".join(columns), source=source)
    bad = connection.execute(f"{query} SELECT name, moment, said FROM events WHERE NOT sound LIMIT 1", [literal])
    for name, moment, said in bad.fetchall():
        raise InvalidInput(
            f"{path} has an event of table {name!r} at {moment!r} with {said!r} reads; expected the name of a table, "
            "an ISO time or day, and a whole number from 0 up: mend or leave out such events"
        )
    query += " SELECT name, utc_day, sum(number) FROM events WHERE number > 0 GROUP BY ALL ORDER BY ALL"
    rows: list[tuple[str, date, int]] = connection.execute(query, [literal]).fetchall()
    return rows
