"""``lakelet …``: the engine on the command line.

Exit codes: 0 done, 1 lakelet refused (standard error says why and what to do), 2 wrong usage, 130 interrupted. With
``--json`` standard output holds one JSON document and nothing else.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__
from .cli_audit import byte_count, run_audit
from .cli_output import byte_text, counted, print_csv, print_json, print_json_rows, print_lines, print_table
from .cli_report import audit_document, graph_document, print_audit, print_graph
from .lake.errors import LakeletError, NotFound

if TYPE_CHECKING:
    from .engine import Engine, TableInfo
    from .lake.table import Table

__all__ = ["app", "main"]

EXIT_REFUSED = 1
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141
ROWS_SHOWN = 100

app = typer.Typer(
    name="lakelet",
    help="A data lake of Parquet files: what in it is redundant, what it holds, and SQL over it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

LakeOption = Annotated[
    str, typer.Option("--lake", "-l", envvar="LAKELET_LAKE", help="Folder or URI of the lake.", metavar="LAKE")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
FractionOption = Annotated[
    float, typer.Option(help="Also report pairs where this share of the child's distinct rows is in the parent.")
]
BudgetOption = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Read at most this much, such as 10GB; the largest possible savings come first."),
]
RowsOption = Annotated[int, typer.Option(min=0, help="Rows that a table for people shows.")]
DEFAULT_LAKE = "./lake"


def main() -> None:
    """Run the command line; what the ``lakelet`` script calls."""
    try:
        app()
    except KeyboardInterrupt:  # between commands; inside one, _command says so
        sys.exit(EXIT_INTERRUPTED)


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Register a command whose errors become one line on standard error and an exit code."""

    @functools.wraps(function)
    def run(*args: object, **kwargs: object) -> None:
        try:
            function(*args, **kwargs)
            sys.stdout.flush()
        except LakeletError as error:
            typer.echo(f"lakelet: {error}", err=True)
            raise typer.Exit(EXIT_REFUSED) from None
        except KeyboardInterrupt:
            typer.echo("lakelet: interrupted", err=True)
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except BrokenPipeError:
            # The reader has what it wanted (`| head`). Python would complain again when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(EXIT_PIPE_CLOSED) from None

    app.command()(run)
    return run


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lakelet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def _opened(lake: str, *, read_only: bool = True, may_be_new: bool = False) -> Iterator[Engine]:
    from .engine import connect

    with connect(lake, read_only=read_only) as db:
        if not may_be_new and db.version == 0:
            raise NotFound(f"there is no lake at {db.uri}; attach something to it first, or name another by --lake")
        yield db


@_command
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
    with _opened(lake, read_only=False, may_be_new=True) as db:
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


@_command
def ls(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """List the tables and views of the lake, with their rows and bytes."""
    with _opened(lake) as db:
        opened = db.open_tables()
        listed = [_listed(info, opened.get(info.name)) for info in db.tables().values()]
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


@_command
def describe(
    table: Annotated[str, typer.Argument(help="Name of the table.")],
    lake: LakeOption = DEFAULT_LAKE,
    version: Annotated[int | None, typer.Option(help="As it was at this version of the lake.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the columns, rows, bytes and files of a table."""
    with _opened(lake) as db:
        found = db.table(table, version=version)
        summary: dict[str, Any] = {
            "name": found.name,
            "version": found.version,
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
        "",
    )
    rows = [[c["name"], c["type"], "yes" if c["nullable"] else "no"] for c in summary["columns"]]
    print_table(["column", "type", "null"], rows)


@_command
def history(
    table: Annotated[str | None, typer.Argument(help="Only the commits that changed this table.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """List the commits of the lake, the newest first."""
    with _opened(lake) as db:
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


@_command
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
    with _opened(lake) as db, _sql_errors():
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


@_command
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
    with _opened(lake, read_only=False) as db:
        graph = db.containment(tables or None, min_fraction=min_fraction, budget_bytes=budget)
        if plot is not None:
            graph.plot(plot)
        if as_json:
            print_json(graph_document(graph))
        else:
            print_graph(graph, rows)
            if plot is not None:
                print_lines("", f"drawn in {plot}")


@_command
def audit(
    path: Annotated[str, typer.Argument(help="Folder or URI; every Parquet file below it is looked at.")],
    budget_bytes: BudgetOption = None,
    min_fraction: FractionOption = 1.0,
    state: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Where to keep what was proven; else in the user's cache folder."),
    ] = None,
    rows: RowsOption = 20,
    as_json: JsonOption = False,
) -> None:
    """Find what is redundant below PATH. Reads only; needs no lake; a later run goes on where this one stopped."""
    budget = None if budget_bytes is None else byte_count(budget_bytes)
    found = run_audit(path, state=state, budget_bytes=budget, min_fraction=min_fraction)
    if as_json:
        print_json(audit_document(found))
    else:
        print_audit(found, rows)
        _print_rejected([{"location": location, "reason": reason} for location, reason in found.rejected])
