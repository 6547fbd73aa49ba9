"""Copies that carry a few columns more than the table they came from: a load time, a batch number.

Such a table is contained in no other, since no other has all its columns. Without those few it may be. So every table
that is not redundant is looked at once more under the columns that it shares with a candidate, by the same search and
the same law; what is found are no edges, but the plan may rebuild from them, with the extra columns kept apart. More
than half of the columns must be shared: numbered rows alone are in every longer table.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from ..lake.errors import InvalidInput
from ..lake.table import Table
from .schema_graph import normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ..lake.fragment import Fragment
    from .graph import Graph

__all__ = ["Wider", "find_wider"]

_MOST_SHARE: Final = 0.5
"""Extra columns above this share of a table's bytes leave too little to save."""


@dataclass(frozen=True, slots=True)
class Wider:
    """A table, by position, whose rows are all in ``parent`` but for the columns ``extra``."""

    child: int
    parent: int
    extra: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _View:
    """A table under the columns that it shares with candidates."""

    child: int
    extra: tuple[str, ...]
    parents: tuple[int, ...]


def find_wider(graph: Graph, most: int, search: Callable[[Sequence[Table]], Graph]) -> tuple[Wider, ...]:
    """Tables that are contained but for up to ``most`` columns, with the tables that have the rest.

    ``search`` finds containment among tables. Raises InvalidInput for a ``most`` that is negative.
    """
    if most < 0:
        raise InvalidInput(f"extra_columns is {most}, expected 0 or more")
    views = _views(graph, most) if most else []
    if not views:
        return ()
    names = {f"{graph.names[view.child]}\0{number}": view for number, view in enumerate(views)}
    parents = sorted({parent for view in views for parent in view.parents})
    tables = [graph.tables[at] for at in parents]
    tables += [_projected(graph.tables[view.child], name, view.extra) for name, view in names.items()]
    found = search(tables)
    position = {name: at for at, name in enumerate(graph.names)}
    wider = []
    for batch in found.iter_edges():
        for child, parent, fraction in zip(
            *(batch.column(name).to_pylist() for name in ("child", "parent", "fraction")), strict=True
        ):
            if child in names and parent in position and fraction == 1.0:
                view = names[child]
                if position[parent] in view.parents:
                    wider.append(Wider(view.child, position[parent], view.extra))
    return tuple(sorted(wider, key=lambda one: (one.child, one.parent)))


def _views(graph: Graph, most: int) -> list[_View]:
    """Every table that stands alone, under each set of its columns that some others share."""
    tokens = [_tokens(table) for table in graph.tables]
    holders: defaultdict[str, list[int]] = defaultdict(list)
    for at, own in enumerate(tokens):
        for token in own:
            holders[token].append(at)
    arrays = {token: np.array(tables, np.int64) for token, tables in holders.items()}
    contained = _contained(graph)
    views = []
    for child, own in enumerate(tokens):
        if child in contained or len(own) < 2 or not graph.tables[child].num_rows:
            continue
        near = _near(own, arrays, child, most, len(graph.tables))
        by_extra: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        for parent in near.tolist():
            if graph.tables[parent].num_rows:
                by_extra[tuple(name for token, name in own.items() if token not in tokens[parent])].append(parent)
        for extra, parents in sorted(by_extra.items()):
            if extra and _is_worth_it(graph.tables[child], extra):
                views.append(_View(child, extra, tuple(parents)))
    return views


def _tokens(table: Table) -> dict[str, str]:
    """The columns by normalised name; none when two of them collide."""
    found = {normalised(name): name for name in table.schema.names}
    return found if len(found) == len(table.schema.names) else {}


def _near(
    own: dict[str, str], holders: dict[str, NDArray[np.int64]], child: int, most: int, count: int
) -> NDArray[np.int64]:
    """Tables that have all but one to ``most`` of these columns, and most of them."""
    shared = np.bincount(np.concatenate([holders[token] for token in own]), minlength=count)
    near = np.flatnonzero((shared >= max(len(own) // 2 + 1, len(own) - most)) & (shared < len(own)))
    found: NDArray[np.int64] = near[near != child]
    return found


def _contained(graph: Graph) -> set[int]:
    relation = graph.relation
    found = {table for group in relation.groups if len(group) > 1 for table in group}
    found |= {table for (child, _), edge in relation.edges.items() if edge.whole for table in relation.groups[child]}
    return found


def _is_worth_it(table: Table, extra: Sequence[str]) -> bool:
    sizes: defaultdict[str, int] = defaultdict(int)
    for fragment in table.fragments():
        for name, num_bytes in fragment.column_bytes().items():
            sizes[name] += num_bytes
    return sum(sizes[name] for name in extra) <= _MOST_SHARE * sum(sizes.values())


def _projected(table: Table, name: str, without: Sequence[str]) -> Table:
    """The table without some columns, under another name."""
    schema = pa.schema([field for field in table.schema if field.name not in without])

    def projected(fragment: Fragment) -> Fragment:
        other = copy.copy(fragment)
        other.schema = schema
        return other

    return Table(name, schema, [projected(fragment) for fragment in table.fragments()], table.version, table.kind)
