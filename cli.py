"""``lakelet …``: the engine on the command line.

Exit codes: 0 done, 1 lakelet refused (standard error says why and what to do), 2 wrong usage, 130 interrupted. With
``--json`` standard output holds one JSON document and nothing else.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .cli_app import (
    DEFAULT_LAKE,
    EXIT_INTERRUPTED,
    ROWS_SHOWN,
    BudgetOption,
    FractionOption,
    JsonOption,
    LakeOption,
    RowsOption,
    app,
    command,
    opened,
)
from .cli_audit import byte_count, run_audit
from .cli_output import byte_text, counted, print_csv, print_json, print_json_rows, print_lines, print_table
from .cli_report import audit_document, graph_document, print_audit, print_graph
from .cli_retirement import DEFAULT_PRICES, PricesOption, plan_document, prices_of, print_savings
from .lake.errors import LakeletError

if TYPE_CHECKING:
    from .engine import TableInfo
    from .lake.table import Table

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; what the ``lakelet`` script calls."""
    try:
        app()
    except KeyboardInterrupt:  # between commands; inside one, _command says so
        sys.exit(EXIT_INTERRUPTED)


@command
def attach(
    location: Annotated[
        str, typer.Argument(help="Path or URI of a Parquet file, a folder, a glob, or a tree of them.")
    ],
    lake: LakeOption = DEFAULT_LAKE,
    name: Annotated[
        str | None, typer.Option(help="Attach the location as one table of this name, instead of every table below it.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put Parquet files into the lake where they lie: nothing is copied or changed."""
    with opened(lake, read_only=False, may_be_new=True) as db:
        if name is not None:
            db.attach(name, location)
            names, rejected = [name], []
        else:
            attached = db.attach_all(location)
            names = list(attached)
            rejected = [{"location": r.location, "reason": r.reason} for r in attached.rejected]
    if as_json:
        print_json({"attached": names, "rejected": rejected})
        return
    print_lines(f"{counted(len(names), 'table')} attached")
    _print_rejected(rejected)


def _print_rejected(rejected: list[dict[str, str]]) -> None:
    if rejected:
        print_lines("", f"{len(rejected):,} left out")
        print_lines(*(f"{r['location']}: {r['reason']}" for r in rejected))


@command
def ls(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """List the tables and views of the lake, with their rows and bytes."""
    with opened(lake) as db:
        found = db.open_tables()
        listed = [_listed(info, found.get(info.name)) for info in db.tables().values()]
    if as_json:
        print_json(listed)
        return
    rows = [
        [
            *(one["name"], one["kind"], one["version"]),
            "" if one["rows"] is None else f"{one['rows']:,}",
            "" if one["bytes"] is None else byte_text(one["bytes"]),
        ]
        for one in listed
    ]
    print_table(["name", "kind", "version", "rows", "bytes"], rows, right=["version", "rows", "bytes"])
    broken = [f"{one['name']}: {one['error']}" for one in listed if one["error"]]
    if broken:
        print_lines("", f"{counted(len(broken), 'table')} cannot be read", *broken)


def _listed(info: TableInfo, found: Table | LakeletError | None) -> dict[str, Any]:
    """A name of the lake for ``ls``; ``found`` is None for a view."""
    one: dict[str, Any] = {"name": info.name, "kind": info.kind, "version": info.version}
    one |= {"rows": None, "bytes": None, "error": None}
    if isinstance(found, LakeletError):
        one["error"] = str(found)
    elif found is not None:
        one |= {"rows": found.num_rows, "bytes": found.num_bytes}
    return one


@command
def describe(
    table: Annotated[str, typer.Argument(help="Name of the table.")],
    lake: LakeOption = DEFAULT_LAKE,
    version: Annotated[int | None, typer.Option(help="As it was at this version of the lake.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the columns, rows, bytes and files of a table."""
    with opened(lake) as db:
        found = db.table(table, version=version)
        now = db if version is None else db.at(version=version)
        summary: dict[str, Any] = {
            "name": found.name,
            "version": found.version,
            "rebuilt_from": list(now.tables()[found.name].parents),
            "rows": found.num_rows,
            "bytes": found.num_bytes,
            "files": found.files.to_pylist(),
            "columns": [{"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in found.schema],
        }
    if as_json:
        print_json(summary)
        return
    print_lines(
        f"{summary['rows']:,} rows, {byte_text(summary['bytes'])} in {counted(len(summary['files']), 'file')}, "
        f"at version {summary['version']} of the lake",
        *([f"rebuilt from {', '.join(summary['rebuilt_from'])}"] if summary["rebuilt_from"] else []),
        "",
    )
    rows = [[c["name"], c["type"], "yes" if c["nullable"] else "no"] for c in summary["columns"]]
    print_table(["column", "type", "null"], rows)


@command
def history(
    table: Annotated[str | None, typer.Argument(help="Only the commits that changed this table.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """List the commits of the lake, the newest first."""
    with opened(lake) as db:
        commits = [c for c in db.history() if table is None or table in c.tables]
    rows = [(c.version, _time_text(c.timestamp_us), c.operation, c.tables) for c in commits]
    if as_json:
        print_json([dict(zip(("version", "time", "operation", "tables"), row, strict=True)) for row in rows])
        return
    print_table(
        ["version", "time", "operation", "tables"],
        [[version, time, operation, _names_text(tables)] for version, time, operation, tables in rows],
        right=["version"],
    )


def _time_text(timestamp_us: int) -> str:
    return dt.datetime.fromtimestamp(timestamp_us / 1e6, dt.UTC).isoformat(timespec="milliseconds")


def _names_text(names: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown:,} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


_PARAM = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


def _params(texts: list[str]) -> dict[str, Any]:
    """``name=value`` texts as parameters. A value that is JSON is taken as such, any other as a string."""
    found = {}
    for text in texts:
        match = _PARAM.fullmatch(text)
        if match is None:
            raise typer.BadParameter(f"{text!r} is not name=value", param_hint="--param")
        try:
            found[match[1]] = json.loads(match[2])
        except ValueError:
            found[match[1]] = match[2]
    return found


@command
def sql(
    query: Annotated[str, typer.Argument(help="SQL, or - to read it from standard input.")],
    lake: LakeOption = DEFAULT_LAKE,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", "-p", metavar="NAME=VALUE", help="A value for $NAME; may be given many times."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all rows as one JSON array of objects.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all rows as CSV with a header.")] = False,
    rows: RowsOption = ROWS_SHOWN,
) -> None:
    """Run DuckDB SQL over the tables of the lake."""
    if as_json and as_csv:
        raise typer.BadParameter("choose --json or --csv", param_hint="--csv")
    params = _params(param or [])
    text = sys.stdin.read() if query == "-" else query
    with opened(lake) as db, _sql_errors():
        relation = db.sql(text, params)
        if relation is None:
            return
        if as_json:
            print_json_rows(relation.to_arrow_reader())
        elif as_csv:
            print_csv(relation.columns, relation.to_arrow_reader())
        else:
            shown = relation.limit(rows + 1).fetchall()
            print_table(relation.columns, shown[:rows])
            if len(shown) > rows:
                typer.echo(f"only the first {rows:,} rows are shown: --rows, --json or --csv print more", err=True)


@contextmanager
def _sql_errors() -> Iterator[None]:
    """What DuckDB raises while rows are fetched, as errors of ours.

    Ctrl-C ends the process by the signal itself meanwhile, which a shell shows as 130: DuckDB does not always look for
    Python's interrupt while it computes, and reading leaves nothing to tidy.
    """
    import duckdb

    from .lake.session import sql_error

    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    except duckdb.Error as error:
        raise sql_error(error) from error
    finally:
        signal.signal(signal.SIGINT, handler)


@command
def containment(
    tables: Annotated[list[str] | None, typer.Argument(help="Only among these tables.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    min_fraction: FractionOption = 1.0,
    budget_bytes: BudgetOption = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE.svg", help="Draw the graph into this file.")] = None,
    rows: RowsOption = ROWS_SHOWN,
    as_json: JsonOption = False,
) -> None:
    """Find which tables of the lake are contained in which others, exactly."""
    budget = None if budget_bytes is None else byte_count(budget_bytes)
    with opened(lake, read_only=False) as db:
        graph = db.containment(tables or None, min_fraction=min_fraction, budget_bytes=budget)
        if plot is not None:
            graph.plot(plot)
        if as_json:
            print_json(graph_document(graph))
        else:
            print_graph(graph, rows)
            if plot is not None:
                print_lines("", f"drawn in {plot}")


@command
def audit(
    path: Annotated[str, typer.Argument(help="Folder or URI; every Parquet file below it is looked at.")],
    budget_bytes: BudgetOption = None,
    min_fraction: FractionOption = 1.0,
    state: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where to keep what was proven; else in the user's cache folder."),
    ] = None,
    prices: PricesOption = DEFAULT_PRICES,
    reads_per_month: Annotated[
        float, typer.Option(min=0.0, help="How often each table is taken to be read, which decides what pays.")
    ] = 1.0,
    rows: RowsOption = 20,
    as_json: JsonOption = False,
) -> None:
    """Find what is redundant below PATH, and what it costs. Reads only; needs no lake; goes on where it stopped."""
    budget = None if budget_bytes is None else byte_count(budget_bytes)
    price_list = prices_of(prices)
    found = run_audit(path, state=state, budget_bytes=budget, min_fraction=min_fraction)
    plan = found.graph.plan(price_list, unknown_reads_per_month=reads_per_month, assume_owned=True)
    if as_json:
        print_json(audit_document(found) | {"reads_per_month": reads_per_month, "plan": plan_document(plan)})
    else:
        print_audit(found, rows)
        print_savings(plan, reads_per_month)
        _print_rejected([{"location": location, "reason": reason} for location, reason in found.rejected])
