"""What `make demo` shows: a lake of some 3,230 real tables, which of them are contained in which others, what retiring
the largest saves, and a question in words to the texts of one of them.

    python benchmarks/demo.py [FOLDER]

Builds FOLDER (demo-lake): the tables, a lake that has them attached in place, and containment.svg. The tables are kept
for the next time; the lake and the plot are made anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import lakelet
import real_lake
from demo_output import say, show_rows, size
from demo_retirement import show_retirement
from demo_search import TextModel, show_search
from machine import Stopwatch
from rich.console import Console

WIDTH = 100
_SHOWN = 6
_LARGE_ROWS = 5_000
_FLIGHTS = """
SELECT a.name AS airline, count(*) AS flights, avg(dep_delay) AS late
FROM nycflights13_flights f JOIN nycflights13_airlines a USING (carrier)
WHERE f.month = $month GROUP BY ALL ORDER BY late DESC
""".strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", default="demo-lake")
    folder = Path(parser.parse_args().folder)
    console = Console(highlight=False)
    console.width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    run(folder, console)


def run(home: Path, console: Console) -> None:
    """Build what is missing under ``home`` and print the demo."""
    tables = _build(home, console)
    lake = home / "lake"
    shutil.rmtree(lake, ignore_errors=True)
    with lakelet.connect(lake) as db:
        graph = _find(db, tables, console)
        _show_redundancies(graph, console)
        _show_duplicates(graph, console)
        _show_renames(db, graph, console)
        _show_queries(db, console)
        plot = home / "containment.svg"
        graph.plot(plot)
        say(console, f'graph.plot("{plot}")', f"The graph, drawn: {plot}")
        show_retirement(db, graph, console)
        _search(db, console)


def _build(home: Path, console: Console) -> Path:
    console.rule("[bold]lakelet: which tables are contained in which others?", align="left")
    built = real_lake.build(home)
    console.print(
        f"{built.num_tables:,} real tables with {built.num_rows:,} rows, {size(built.num_bytes)} of Parquet, "
        f"out of the PyPI packages {', '.join(built.packages)}."
    )
    return built.folder


def _find(db: Any, tables: Path, console: Console) -> Any:
    with Stopwatch() as attach:
        names = db.attach_all(tables)
    say(
        console,
        f'names = db.attach_all("{tables}")',
        f"{len(names):,} tables attached in {attach.seconds:.1f} s where they lie, {len(names.rejected)} rejected.",
    )
    with Stopwatch() as search:
        graph = db.containment()
        edges = graph.edges
    say(
        console,
        "graph = db.containment()",
        f"{edges.num_rows:,} pairs, exactly, in {search.seconds:.1f} s: every row of the child is a row of the parent.",
    )
    rows = [
        (
            row["stage"],
            f"{row['pairs_in']:,}",
            f"{row['pairs_out']:,}",
            f"{row['seconds']:.2f}",
            size(row["bytes_read"]),
        )
        for row in graph.stages.to_pylist()
    ]
    show_rows(console, ("stage", "pairs in", "pairs out", "seconds", "bytes read"), rows, text_columns=1)
    return graph


def _show_redundancies(graph: Any, console: Console) -> None:
    sizes = dict(zip(graph.names, graph.num_bytes, strict=True))
    contained = [row for row in graph.reduced.to_pylist() if row["kind"] == "contained"]
    contained.sort(key=lambda row: (-sizes[row["child"]], row["child"], row["parent"]))
    rows = [
        (row["child"], row["parent"], f"{row['child_rows']:,}", f"{row['parent_rows']:,}", size(sizes[row["child"]]))
        for row in contained[:_SHOWN]
    ]
    say(
        console,
        "graph.reduced",
        f"{size(graph.redundant_bytes)} of {size(sum(graph.num_bytes))} are redundant. "
        f"The largest tables contained in another, of {len(contained):,}:",
    )
    show_rows(console, ("child", "parent", "rows", "parent's rows", "bytes"), rows, text_columns=2)


def _show_duplicates(graph: Any, console: Console) -> None:
    sizes = dict(zip(graph.names, graph.num_bytes, strict=True))
    groups: dict[str, list[str]] = {}
    for row in graph.groups.to_pylist():
        groups.setdefault(row["representative"], []).append(row["table"])
    largest = sorted(groups.values(), key=lambda members: (-sum(map(sizes.__getitem__, members[1:])), members))
    rows = [(", ".join(members), size(sum(sizes[name] for name in members[1:]))) for members in largest[:_SHOWN]]
    say(console, "graph.groups", f"{len(groups):,} groups of tables hold the same rows. Those that waste most:")
    show_rows(console, ("same rows, whatever their order", "too much"), rows, text_columns=1)


def _show_renames(db: Any, graph: Any, console: Console) -> None:
    """Of the large tables alone: looking into the columns of all takes longer than finding what contains what."""
    large = [table.name for table in graph.tables if table.num_rows >= _LARGE_ROWS]
    with Stopwatch() as watch:
        pairs = db.containment(large).suggestions.to_pylist()
    pairs.sort(key=lambda row: (-row["distinct_values"], *map(str, row.values())))
    rows = [
        (f"{table}.{column}", f"{other_table}.{other_column}", f"{values:,}")
        for table, column, other_table, other_column, values in map(dict.values, pairs[:_SHOWN])
    ]
    say(
        console,
        "db.containment(large).suggestions",
        f"In the {len(large)} tables of {_LARGE_ROWS:,} rows and more, {len(pairs)} pairs of columns hold the same "
        f"values under another name ({watch.seconds:.1f} s); suggestions, never edges:",
    )
    show_rows(console, ("column", "perhaps the same as", "distinct values"), rows, text_columns=2)


def _show_queries(db: Any, console: Console) -> None:
    late = db.sql(_FLIGHTS, {"month": 7}).to_arrow_table()
    say(console, 'late = db.sql("""' + _FLIGHTS + '""", {"month": 7})', "Any of the tables, in DuckDB SQL:")
    rows = [
        (airline, f"{flights:,}", f"{late_by:.1f}") for airline, flights, late_by in map(dict.values, late.to_pylist())
    ]
    show_rows(console, late.column_names, rows[:5], text_columns=1)
    version = db.write("late_in_july", late)
    back = db.table("late_in_july").to_arrow(where="flights > $n", params={"n": 4000}, columns=["airline"])
    say(console, 'db.write("late_in_july", late)', f"Version {version} of the lake.")
    say(
        console,
        'db.table("late_in_july").to_arrow(where="flights > $n", params={"n": 4000}, columns=["airline"])',
        ", ".join(back["airline"].to_pylist()),
    )


def _search(db: Any, console: Console) -> None:
    missing = [name for name in TextModel.NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        say(console, "TextModel()", f"A question to texts needs more packages. Run: pip install {' '.join(missing)}")
    else:
        show_search(db, TextModel(), console)


if __name__ == "__main__":
    main()
