"""What all commands share: the application, its options, errors as exit codes, and an opened lake."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from . import __version__
from .lake.errors import LakeletError, NotFound

if TYPE_CHECKING:
    from .engine import Engine

__all__ = [
    "DEFAULT_LAKE",
    "EXIT_INTERRUPTED",
    "ROWS_SHOWN",
    "BudgetOption",
    "FractionOption",
    "JsonOption",
    "LakeOption",
    "RowsOption",
    "app",
    "command",
    "opened",
]

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


def command(function: Callable[..., None], *, panel: str | None = None) -> Callable[..., None]:
    """Register a command whose errors become one line on standard error and an exit code.

    ``panel`` is the heading under which the help lists it; None is that of most.
    """

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

    app.command(rich_help_panel=panel)(run)
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
def opened(lake: str, *, read_only: bool = True, may_be_new: bool = False) -> Iterator[Engine]:
    """The lake at a path or URI, closed afterwards. Raises NotFound when there is none and it ``may_be_new`` not be."""
    from .engine import connect

    with connect(lake, read_only=read_only) as db:
        if not may_be_new and db.version == 0:
            raise NotFound(f"there is no lake at {db.uri}; attach something to it first, or name another by --lake")
        yield db
