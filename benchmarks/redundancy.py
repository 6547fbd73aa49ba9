"""How many bytes a set of proven containments makes redundant, and the least reading that could prove as many.

A table is redundant when another that stays holds its rows: when it is contained in a table that it does not contain,
or when it is one of several equal tables and not the first of them by name.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import matplotlib as mpl
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from scale_lake import ScaleLake

Pair = tuple[str, str]
Curve = list[tuple[int, int]]


def keepers(edges: Collection[Pair]) -> dict[str, list[str]]:
    """Map every redundant table to the tables any of which makes it so."""
    known = set(edges)
    found: defaultdict[str, list[str]] = defaultdict(list)
    for child, parent in sorted(known):
        if (parent, child) not in known or parent < child:
            found[child].append(parent)
    return dict(found)


def redundant_bytes(lake: ScaleLake, edges: Collection[Pair]) -> int:
    """Return the bytes of the files of all tables that these containments make redundant."""
    return sum(lake.bytes_of(name) for name in keepers(edges))


def oracle(lake: ScaleLake) -> Curve:
    """Return (bytes read, bytes proven redundant) of one who knows the edges and only has to show them.

    To show one, the child and the child's columns of one parent have to be read, each column once at most. Greedy: next
    is always the table that brings most bytes for a byte read.
    """
    sizes = {name: _column_bytes(lake, name) for name in lake.roles}
    total = {name: lake.bytes_of(name) for name in lake.roles}
    open_tables = keepers(lake.edges())
    seen: set[tuple[str, str]] = set()
    read = proven = 0
    points = [(0, 0)]
    while open_tables:
        choices = (
            (sum(sizes[table][column] for table, column in _unread(child, parent, sizes, seen)), child, parent)
            for child, parents in open_tables.items()
            for parent in parents
        )
        cost, child, parent = min(choices, key=lambda choice: (choice[0] / total[choice[1]], choice[1:]))
        seen.update(_unread(child, parent, sizes, seen))
        del open_tables[child]
        read += cost
        proven += total[child]
        points.append((read, proven))
    return points


def at(curve: Sequence[tuple[int, int]], read: int) -> int:
    """Return the most that the curve has proven by the time ``read`` bytes were read."""
    return max(proven for bytes_read, proven in curve if bytes_read <= read)


def draw(measured: Sequence[tuple[int, int]], ideal: Sequence[tuple[int, int]], path: Path) -> None:
    """Write both curves as an SVG whose bytes depend on the figures alone."""
    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "lakelet"
    figure, axes = plt.subplots(figsize=(7, 4.2))
    for curve, label in ((ideal, "an oracle that knows the edges"), (measured, "lakelet, one run a budget")):
        reads, proofs = zip(*((read / 1e9, proven / 1e9) for read, proven in curve), strict=True)
        axes.step(reads, proofs, where="post", label=label, marker="o" if curve is measured else None)
    axes.set_xlabel("GB read")
    axes.set_ylabel("GB proven redundant")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


def _unread(
    child: str, parent: str, sizes: dict[str, dict[str, int]], seen: Collection[tuple[str, str]]
) -> list[tuple[str, str]]:
    return [pair for name in sizes[child] for pair in ((child, name), (parent, name)) if pair not in seen]


def _column_bytes(lake: ScaleLake, table: str) -> dict[str, int]:
    sizes: defaultdict[str, int] = defaultdict(int)
    for file in lake.files(table):
        footer = pq.read_metadata(file)
        for group in (footer.row_group(number) for number in range(footer.num_row_groups)):
            for column in (group.column(number) for number in range(group.num_columns)):
                sizes[column.path_in_schema] += column.total_compressed_size
    return dict(sizes)
