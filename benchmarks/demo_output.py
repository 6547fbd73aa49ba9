"""How the demo prints: the code that was run, words about what came of it, tables of figures."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console


def say(console: Console, code: str, words: str) -> None:
    console.print()
    for prompt, line in zip(itertools.chain((">>> ",), itertools.repeat("... ")), code.splitlines(), strict=False):
        console.print(Text(prompt + line, style="cyan"))
    console.print(Text(words))


def show_rows(console: Console, columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int) -> None:
    """Print rows of text; all but the first ``text_columns`` are figures and stand to the right."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < text_columns else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if num_bytes < 999.5:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.3g} GB"
