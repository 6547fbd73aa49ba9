"""The demo's second half: the largest redundant tables are retired, read all the same, and one is restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lakelet
from demo_output import say, show_rows, size
from machine import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

TABLES = 150
_SHOWN = 6
_COLUMNS_MOST = 500
"""Wider tables are left out: not to keep anybody waiting."""
_IMPORT = """
with db.transaction() as tx:
    for name in names:
        rows = tx.table(name).scan()
        tx.drop(name)
        tx.write(name, rows)
""".strip()


def show_retirement(db: Any, graph: Any, console: Console) -> None:
    """Go on from the graph of attached tables: import some, plan, retire, read, restore."""
    console.print()
    console.rule("[bold]What need not be stored", align="left")
    names = _redundant(db, graph)
    if not names:
        return
    _import(db, names, console)
    before = _bytes(db, names)
    plan = _plan(db, names, console)
    with Stopwatch() as watch:
        done = db.retire(plan)
    words = f"{len(done.retired):,} tables retired in {watch.seconds:.1f} s, each once its recipe made the same bits. "
    if done.skipped:
        words += f"{len(done.skipped)} left alone: their recipes would take as much. "
    say(console, "done = db.retire(plan)", words + f"{size(before)} became {size(_bytes(db, names))}.")
    if not done.retired:
        return
    one = max(done.retired, key=lambda retired: (retired.num_bytes, retired.table))
    _read(db, one, console)
    say(console, f'print(plan.explain("{one.table}"))', plan.explain(one.table))
    with Stopwatch() as watch:
        version = db.restore(one.table)
    say(
        console,
        f'db.restore("{one.table}")',
        f"Version {version}, in {watch.seconds:.1f} s: {one.table} has files of its own again. The lake's other "
        f"{len(done.retired) - 1} retired tables save {size(before - _bytes(db, names))} of {size(before)}.",
    )


def _redundant(db: Any, graph: Any) -> list[str]:
    """The largest redundant tables and the tables that have their rows."""
    found = [row for row in graph.findings.to_pylist() if row["status"] == "redundant"]
    narrow = [row for row in found if len(db.table(row["table"]).schema) <= _COLUMNS_MOST]
    return sorted({name for row in narrow[:TABLES] for name in (row["table"], row["parent"]) if name})


def _import(db: Any, names: Sequence[str], console: Console) -> None:
    with Stopwatch() as watch, db.transaction() as tx:
        for name in names:
            rows = tx.table(name).scan()
            tx.drop(name)
            tx.write(name, rows)
    say(
        console,
        _IMPORT,
        f"{len(names)} tables, the largest redundant ones and those that contain them, copied into the lake in "
        f"{watch.seconds:.1f} s: {size(_bytes(db, names))}.",
    )


def _plan(db: Any, names: Sequence[str], console: Console) -> Any:
    with Stopwatch() as watch:
        plan = db.containment(names).plan(prices=lakelet.Prices.s3_standard(), payback_months=120)
    before = plan.cost_per_month_before
    say(
        console,
        "plan = db.containment(names).plan(prices=lakelet.Prices.s3_standard(), payback_months=120)",
        f"In {watch.seconds:.1f} s: {len(plan.pairs)} of {len(names)} tables, {size(plan.retired_bytes)}, need not be "
        f"stored. ${before:.6f} a month become ${before - plan.saves_per_month:.6f}. What saves most:",
    )
    rows = [
        (
            row["table"],
            row["parent"],
            size(row["num_bytes"]),
            size(row["recipe_bytes"]),
            f"{row['saves_per_month']:.6f}",
        )
        for row in plan.actions.to_pylist()[:_SHOWN]
        if row["action"] == "retire"
    ]
    show_rows(console, ("table", "rebuilt from", "bytes", "recipe, about", "$ a month"), rows, text_columns=2)
    return plan


def _read(db: Any, one: Any, console: Console) -> None:
    """A query of a retired table, and a filtered read of it."""
    table = db.table(one.table)
    column = next((f.name for f in table.schema if "string" in str(f.type)), table.schema.names[0])
    quoted = column.replace('"', '""')
    query = (
        f'SELECT "{quoted}" AS value, count(*) AS rows\nFROM {one.table} GROUP BY ALL ORDER BY rows DESC, value LIMIT 3'
    )
    found = db.sql(query).to_arrow_table().to_pylist()
    words = f"{one.table} takes {size(one.recipe_bytes)} in the place of {size(one.num_bytes)}, and reads as before:"
    say(console, f'db.sql("""{query}""")', words)
    show_rows(console, (column, "rows"), [(str(row["value"]), f"{row['rows']:,}") for row in found], text_columns=1)
    values = [row["value"] for row in found if row["value"] is not None]
    if values:
        where = f'"{quoted}" = $value'
        rows = table.to_arrow(where=where, params={"value": values[-1]})
        code = f'db.table("{one.table}").to_arrow(where=\'{where}\', params={{"value": {values[-1]!r}}})'
        say(console, code, f"{rows.num_rows:,} rows, {rows.num_columns} columns.")


def _bytes(db: Any, names: Sequence[str]) -> int:
    return sum(db.table(name).num_bytes for name in names)
