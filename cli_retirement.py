"""The commands that save money: plan, explain, retire, restore, pin, unpin, export-view."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from . import cli_app
from .cli_app import DEFAULT_LAKE, ROWS_SHOWN, JsonOption, LakeOption, RowsOption, opened
from .cli_output import byte_text, counted, print_json, print_lines, print_table, usd_text

if TYPE_CHECKING:
    from .containment.plan import Plan
    from .containment.prices import Prices
    from .containment.retirement import Retirement
    from .engine import Engine

__all__ = ["DEFAULT_PRICES", "PricesOption", "plan_document", "prices_of", "print_plan", "print_savings"]

PricesOption = Annotated[
    str,
    typer.Option(metavar="NAME|FILE", help="A price list, such as s3_standard or gcs_standard, or a JSON file of one."),
]
AccessesOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Reads: CSV, JSON lines or Parquet with columns table and time; else as counted."
    ),
]
RestoreOption = Annotated[float, typer.Option(help="A table is retired only if it can be restored in so many seconds.")]
AmplificationOption = Annotated[
    float, typer.Option(help="A table is retired only if reading it takes at most so many times its own bytes.")
]
UnknownOption = Annotated[
    float | None,
    typer.Option(help="Reads a month to assume of tables whose reads are unknown; without it they are kept."),
]
PaybackOption = Annotated[float, typer.Option(help="What retiring costs once must come back in so many months.")]
ExtraOption = Annotated[
    int, typer.Option(min=0, help="Also rebuild tables that have up to so many columns that their parent lacks.")
]
KeepOption = Annotated[list[str] | None, typer.Option(help="A table that must stay; may be given many times.")]
DEFAULT_PRICES = "s3_standard"

command = functools.partial(cli_app.command, panel="Storing less")


def prices_of(text: str) -> Prices:
    """The price list of that name, or in that file."""
    from .containment.prices import Prices

    return Prices.named(text) if text in Prices.names() else Prices.from_file(text)


def _plan(
    db: Engine,
    prices: str,
    accesses: str | None,
    max_restore_seconds: float,
    max_read_amplification: float,
    unknown_reads: float | None,
    keep: list[str] | None,
    extra_columns: int,
    payback_months: float,
) -> Plan:
    return db.containment(extra_columns=extra_columns).plan(
        prices_of(prices),
        accesses,
        max_restore_seconds,
        max_read_amplification,
        unknown_reads_per_month=unknown_reads,
        keep=keep or (),
        payback_months=payback_months,
    )


@command
def plan(
    lake: LakeOption = DEFAULT_LAKE,
    prices: PricesOption = DEFAULT_PRICES,
    accesses: AccessesOption = None,
    max_restore_seconds: RestoreOption = 60.0,
    max_read_amplification: AmplificationOption = 10.0,
    unknown_reads: UnknownOption = None,
    keep: KeepOption = None,
    extra_columns: ExtraOption = 0,
    payback_months: PaybackOption = 12.0,
    plot: Annotated[
        str | None, typer.Option(metavar="FILE.svg", help="Draw savings against the restore-time limit into this file.")
    ] = None,
    rows: RowsOption = ROWS_SHOWN,
    as_json: JsonOption = False,
) -> None:
    """Plan which tables to rebuild from which others, and what that saves. Changes nothing."""
    with opened(lake, read_only=False) as db:
        found = _plan(
            db,
            prices,
            accesses,
            max_restore_seconds,
            max_read_amplification,
            unknown_reads,
            keep,
            extra_columns,
            payback_months,
        )
        if plot is not None:
            found.plot(plot)
    if as_json:
        print_json(plan_document(found))
        return
    print_plan(found, rows)
    if plot is not None:
        print_lines("", f"drawn in {plot}")


@command
def explain(
    table: Annotated[str, typer.Argument(help="Name of the table.")],
    lake: LakeOption = DEFAULT_LAKE,
    prices: PricesOption = DEFAULT_PRICES,
    accesses: AccessesOption = None,
    max_restore_seconds: RestoreOption = 60.0,
    max_read_amplification: AmplificationOption = 10.0,
    unknown_reads: UnknownOption = None,
    keep: KeepOption = None,
    extra_columns: ExtraOption = 0,
    payback_months: PaybackOption = 12.0,
) -> None:
    """Say why the plan keeps a table or retires it, with what each way costs."""
    with opened(lake, read_only=False) as db:
        found = _plan(
            db,
            prices,
            accesses,
            max_restore_seconds,
            max_read_amplification,
            unknown_reads,
            keep,
            extra_columns,
            payback_months,
        )
    print_lines(*found.explain(table).split("\n"))


@command
def retire(
    lake: LakeOption = DEFAULT_LAKE,
    prices: PricesOption = DEFAULT_PRICES,
    accesses: AccessesOption = None,
    max_restore_seconds: RestoreOption = 60.0,
    max_read_amplification: AmplificationOption = 10.0,
    unknown_reads: UnknownOption = None,
    keep: KeepOption = None,
    extra_columns: ExtraOption = 0,
    payback_months: PaybackOption = 12.0,
    approvals: Annotated[
        str | None, typer.Option(metavar="FILE.toml", help="Owner and reason for each table; without both none goes.")
    ] = None,
    delete: Annotated[
        str | None,
        typer.Option(
            metavar="TABLE", help="Delete the former files of this table, attached before it was retired; nothing else."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    rows: RowsOption = ROWS_SHOWN,
    as_json: JsonOption = False,
) -> None:
    """Rebuild the plan's tables from their parents from now on. They read as before; vacuum frees their files."""
    with opened(lake, read_only=False) as db:
        if delete is not None:
            _delete(db, delete, dry_run, as_json)
            return
        found = _plan(
            db,
            prices,
            accesses,
            max_restore_seconds,
            max_read_amplification,
            unknown_reads,
            keep,
            extra_columns,
            payback_months,
        )
        if dry_run:
            print_json(plan_document(found)) if as_json else print_plan(found, rows)
            return
        done = db.retire(found, approvals=approvals)
    if as_json:
        print_json(_retirement_document(done))
    else:
        _print_retirement(done, rows)


def _delete(db: Engine, table: str, dry_run: bool, as_json: bool) -> None:
    paths = db.delete_retired(table, dry_run=dry_run)
    if as_json:
        print_json({"table": table, "deleted": not dry_run, "files": paths})
        return
    print_lines(f"{'would delete' if dry_run else 'deleted'} {counted(len(paths), 'file')} of {table}", *paths)


@command
def restore(
    table: Annotated[str, typer.Argument(help="Name of the retired table.")], lake: LakeOption = DEFAULT_LAKE
) -> None:
    """Write a retired table's rows out again as files of its own."""
    with opened(lake, read_only=False) as db:
        version = db.restore(table)
        size = db.table(table).num_bytes
    print_lines(f"{table} has files of its own again, {byte_text(size)}, at version {version} of the lake")


@command
def pin(
    table: Annotated[str, typer.Argument(help="Name of the table.")],
    lake: LakeOption = DEFAULT_LAKE,
    kind: Annotated[
        Literal["keep", "legal-hold"], typer.Option(help="Never retire it, or let no row of it go.")
    ] = "keep",
    owner: Annotated[str, typer.Option(help="Who says so.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Say that a table must stay."""
    with opened(lake, read_only=False) as db:
        db.pin(table, kind, owner=owner, reason=reason)
    print_lines(f"{table} is pinned: {kind}")


@command
def unpin(table: Annotated[str, typer.Argument(help="Name of the table.")], lake: LakeOption = DEFAULT_LAKE) -> None:
    """Lift the pin of a table."""
    with opened(lake, read_only=False) as db:
        db.unpin(table)
    print_lines(f"{table} is not pinned")


@command
def export_view(
    table: Annotated[str, typer.Argument(help="Name of the table.")],
    folder: Annotated[str, typer.Argument(help="Where to write TABLE.sql and what it reads beside the lake's files.")],
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Write a table as plain DuckDB SQL over its files, usable without lakelet."""
    with opened(lake) as db:
        path = db.export_view(table, folder)
    print_lines(f"written to {path}")


# --- what is printed -------------------------------------------------------------------------------------------------


def plan_document(found: Plan) -> dict[str, Any]:
    """A plan as JSON values."""
    return {
        "prices": {"name": found.prices.name, "as_of": found.prices.as_of, "source": found.prices.source},
        "cost_per_month_before": found.cost_per_month_before,
        "saves_per_month": found.saves_per_month,
        "retired_bytes": found.retired_bytes,
        "recipe_bytes": found.recipe_bytes,
        "gap": found.gap,
        "actions": found.actions.to_pylist(),
    }


def print_plan(found: Plan, rows: int) -> None:
    """What would be saved, and the tables to retire, those that save most first."""
    actions = [row for row in found.actions.to_pylist() if row["action"] == "retire"]
    before, saves = found.cost_per_month_before, found.saves_per_month
    print_lines(
        f"{counted(len(actions), 'table')} of {len(found.candidates.names):,} can go: "
        f"{byte_text(found.retired_bytes)}, for recipes of about {byte_text(found.recipe_bytes)}",
        f"{usd_text(saves)} of {usd_text(before)} a month ({saves / before:.1%})" if before else "nothing is stored",
        f"prices: {found.prices.source}, {found.prices.as_of}; "
        + ("proven to be the cheapest plan" if found.gap == 0 else f"at most {found.gap:.2%} above the cheapest plan"),
        "",
    )
    print_table(
        ["table", "rebuilt from", "size", "recipe", "saves a month", "restore"],
        [
            [
                row["table"],
                row["parent"],
                byte_text(row["num_bytes"]),
                byte_text(row["recipe_bytes"]),
                usd_text(row["saves_per_month"]),
                f"{row['restore_seconds']:.2f} s",
            ]
            for row in actions[:rows]
        ],
        right=["size", "recipe", "saves a month", "restore"],
    )
    if len(actions) > rows:
        print_lines(f"and {len(actions) - rows:,} more: --rows or --json prints them")
    unknown = sum(1 for row in found.actions.to_pylist() if row["reason"] == "how often it is read is unknown")
    if unknown:
        print_lines(
            "", f"kept since nobody knows how often they are read: {counted(unknown, 'table')}; see --unknown-reads"
        )


def print_savings(found: Plan, reads_per_month: float) -> None:
    """What an audit comes to in money."""
    print_lines(
        "",
        f"{usd_text(found.saves_per_month)} of {usd_text(found.cost_per_month_before)} a month could be saved by "
        f"rebuilding {counted(len(found.pairs), 'table')} from others, at {reads_per_month:g} "
        f"read{'' if reads_per_month == 1 else 's'} of each a month",
        f"prices: {found.prices.source}, {found.prices.as_of}",
    )


def _retirement_document(done: Retirement) -> dict[str, Any]:
    return {
        "version": done.version,
        "saved_bytes": done.saved_bytes,
        "retired": [
            {
                "table": one.table,
                "parent": one.parent,
                "num_bytes": one.num_bytes,
                "recipe_bytes": one.recipe_bytes,
                "residual_rows": one.residual_rows,
            }
            for one in done.retired
        ],
        "skipped": [{"table": name, "reason": reason} for name, reason in done.skipped],
    }


def _print_retirement(done: Retirement, rows: int) -> None:
    print_lines(
        f"{counted(len(done.retired), 'table')} rebuilt from others from now on, at version {done.version}: "
        f"{byte_text(done.saved_bytes)} less once vacuum has run",
        "",
    )
    print_table(
        ["table", "rebuilt from", "size", "recipe", "rows kept apart"],
        [
            [o.table, o.parent, byte_text(o.num_bytes), byte_text(o.recipe_bytes), f"{o.residual_rows:,}"]
            for o in done.retired[:rows]
        ],
        right=["size", "recipe", "rows kept apart"],
    )
    if len(done.retired) > rows:
        print_lines(f"and {len(done.retired) - rows:,} more: --rows or --json prints them")
    if done.skipped:
        print_lines("", f"{counted(len(done.skipped), 'table')} left as they are")
        print_lines(*(f"{name}: {reason}" for name, reason in done.skipped[:rows]))
