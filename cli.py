"""``lakelet …``: the engine on the command line.

Exit codes: 0 done, 1 lakelet refused (standard error says why and what to do), 2 wrong usage, 130 interrupted. With
``--json`` standard output holds one JSON document and nothing else.
"""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__
from .cli_output import byte_text, print_csv, print_json, print_json_rows, print_lines, print_table
from .lake.errors import LakeletError

if TYPE_CHECKING:
    from .engine import Engine

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
    float, typer.Option(min=0.0, max=1.0, help="Also report pairs where this share of the child's rows is found.")
]
DEFAULT_LAKE = "./lake"


def main() -> None:
    """Run the command line; what the ``lakelet`` script calls."""
    app()


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
def _opened(lake: str, *, read_only: bool = True) -> Iterator[Engine]:
    """The lake of that place; a lake without any commit is NotFound when it is only to be read."""
    from .engine import connect

    with connect(lake, read_only=read_only) as db:
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
    with _opened(lake, read_only=False) as db:
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
    print_lines(f"{len(names):,} table{'' if len(names) == 1 else 's'} attached")
    _print_rejected(rejected)


def _print_rejected(rejected: list[dict[str, str]]) -> None:
    if rejected:
        print_lines("", f"{len(rejected):,} left out")
        print_table(["location", "reason"], [[r["location"], r["reason"]] for r in rejected])


@_command
def ls(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """List the tables and views of the lake."""
    with _opened(lake) as db:
        rows = db.tables().to_pylist()
    if as_json:
        print_json(rows)
        return
    print_table(["name", "kind"], [[row["name"], row["kind"]] for row in rows])


@_command
def describe(table: str, lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Show the columns, rows, bytes and files of a table."""
    with _opened(lake) as db:
        found = db.table(table)
        columns = [{"name": f.name, "type": str(f.type), "nullable": f.nullable} for f in found.schema]
        summary = {
            "name": found.name,
            "version": found.version,
            "rows": found.num_rows,
            "bytes": found.num_bytes,
            "files": found.files.num_rows,
            "columns": columns,
        }
    if as_json:
        print_json(summary)
        return
    print_lines(
        f"{summary['rows']:,} rows, {byte_text(summary['bytes'])} in {summary['files']:,} files, "
        f"version {summary['version']}",
        "",
    )
    print_table(["column", "type", "null"], [[c["name"], c["type"], "yes" if c["nullable"] else "no"] for c in columns])


@_command
def history(
    table: Annotated[str | None, typer.Argument(help="Only the commits that changed this table.")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """List the commits of the lake, the newest first."""
    with _opened(lake) as db:
        rows = db.history().to_pylist()
    if table is not None:
        rows = [row for row in rows if table in row["tables"]]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["version", "time", "operation", "tables"],
        [[r["version"], r["timestamp"], r["operation"], ", ".join(r["tables"])] for r in rows],
        right=["version"],
    )


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
    rows: Annotated[int, typer.Option(min=0, help="Rows that the table for people shows.")] = ROWS_SHOWN,
) -> None:
    """Run DuckDB SQL over the tables of the lake."""
    if as_json and as_csv:
        raise typer.BadParameter("choose --json or --csv", param_hint="--csv")
    params = _params(param or [])
    with _opened(lake) as db:
        relation = db.sql(sys.stdin.read() if query == "-" else query, params)
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
