"""Which tables may be rebuilt from which, and what is known of each: what a plan is made of, whatever the prices."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Final

from ..lake.errors import InvalidInput, LakeletError
from .costs import Reading, Usage, reading, rebuilding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from ..lake.table import Table
    from .graph import Graph
    from .plan import Limits
    from .throughput import Throughput

__all__ = ["Candidates", "Pair", "find_candidates"]

PAIRS_MOST: Final = 200_000
"""Above so many pairs, of each set of duplicates only the cheapest few may be parents."""
_PARENTS_A_GROUP: Final = 3


@dataclass(frozen=True, slots=True)
class Pair:
    """A child and a table that has all its rows, by position; ``reading``: a read through a recipe; ``own``: a read of
    the child's own files. ``extra``: columns that the parent does not have.
    """

    child: int
    parent: int
    reading: Reading
    own: Reading
    extra: tuple[str, ...] = ()

    @property
    def amplification(self) -> float:
        """Stored bytes that a read takes over those of the child's own files."""
        return self.reading.num_bytes / max(1.0, self.own.num_bytes)

    def restore_seconds(self, throughput: Throughput) -> float:
        """Seconds to rebuild the child and write it out."""
        return throughput.read_seconds(self.reading.num_bytes, self.reading.files) + throughput.write_seconds(
            self.own.num_bytes
        )

    def within(self, limits: Limits, throughput: Throughput) -> bool:
        """Whether both limits hold."""
        return (
            self.amplification <= limits.max_read_amplification
            and self.restore_seconds(throughput) <= limits.max_restore_seconds
        )


@dataclass(frozen=True)
class Candidates:
    """Tables by position, in the graph's order. ``reads`` a month by table, absent where unknown; ``rewrites``
    and ``overwrites`` a month.

    ``kept_because`` tells why a table may not be retired. ``refused``: parents that came into question but may not be
    relied on, with the reason, by child. ``age_order`` numbers the tables from the oldest on.
    """

    names: tuple[str, ...]
    num_bytes: tuple[int, ...]
    identities: tuple[tuple[str, ...], ...]
    readings: tuple[Reading, ...]
    reads: Mapping[int, float]
    rewrites: Mapping[int, float]
    overwrites: Mapping[int, float]
    passes: float
    pairs: tuple[Pair, ...]
    kept_because: Mapping[int, str]
    refused: Mapping[int, str] = field(default_factory=dict)
    age_order: tuple[int, ...] = ()

    @cached_property
    def position(self) -> dict[str, int]:
        """Positions by name."""
        return {name: at for at, name in enumerate(self.names)}

    @cached_property
    def number(self) -> dict[tuple[int, int], int]:
        """The number of each pair, by child and parent."""
        return {(pair.child, pair.parent): n for n, pair in enumerate(self.pairs)}

    @cached_property
    def of_child(self) -> dict[int, list[int]]:
        """The numbers of each child's pairs."""
        found: dict[int, list[int]] = {}
        for number, pair in enumerate(self.pairs):
            found.setdefault(pair.child, []).append(number)
        return found

    def usage(self, table: int) -> Usage:
        """What happens to a table that is kept. Unknown reads count as none: they are on both sides of its choice."""
        return Usage(self.reads.get(table, 0.0), 0.0, self.passes)

    def pair_usage(self, pair: Pair) -> Usage:
        """What happens to the child of a pair when it is retired."""
        undone = self.overwrites.get(pair.child, 0.0) + self.overwrites.get(pair.parent, 0.0)
        return Usage(self.reads.get(pair.child, 0.0), self.rewrites.get(pair.parent, 0.0), self.passes, undone)


def find_candidates(
    graph: Graph,
    *,
    reads: Mapping[str, float],
    rewrites: Mapping[str, float],
    overwrites: Mapping[str, float],
    unknown_reads_per_month: float | None,
    passes_per_month: float,
    keep: Mapping[str, str],
    created: Mapping[str, int],
    assume_owned: bool,
) -> Candidates:
    """Look at all pairs of the graph once.

    ``reads``, ``rewrites`` and ``overwrites`` a month by name; a name without reads is unknown. ``keep`` names tables
    that must stay, with the reason. With ``assume_owned`` attached tables may be parents: what a lake would come to
    once they are imported. Raises InvalidInput for a rate that is negative or a name unknown.
    """
    tables, names = graph.tables, graph.names
    _check_rates({**reads, **({} if unknown_reads_per_month is None else {"": unknown_reads_per_month})})
    _check_rates({"": passes_per_month})
    unknown = sorted(keep.keys() - set(names))
    if unknown:
        raise InvalidInput(f"tables to keep that the graph does not have: {', '.join(unknown[:20])}")
    because: dict[int, str] = {}
    known_reads: dict[int, float] = {}
    for at, (name, table) in enumerate(zip(names, tables, strict=True)):
        rate = reads.get(name, unknown_reads_per_month)
        if rate is not None:
            known_reads[at] = rate
        if name in keep:
            because[at] = keep[name]
        elif table.kind == "retired":
            because[at] = "it is rebuilt from another table already"
        elif rate is None:
            because[at] = "how often it is read is unknown"
    refused: dict[int, str] = {}
    ways = tuple(reading(table) for table in tables)
    bounds = {}
    pairs: list[Pair] = []
    wider = ((one.child, one.parent, one.extra) for one in graph.wider_pairs if one.child not in because)
    for child, parent, extra in itertools.chain(_whole_pairs(graph, because), wider):
        reason = _unreliable(tables[parent], assume_owned)
        if reason:
            refused.setdefault(child, f"{names[parent]} {reason}")
            continue
        if child not in bounds:
            bounds[child] = tables[child].bounds()
        try:
            way = rebuilding(tables[child], tables[parent], bounds[child], extra)
        except LakeletError as error:
            refused.setdefault(child, f"{names[parent]}: {error}")
            continue
        pairs.append(Pair(child, parent, way, ways[child], extra))
    return Candidates(
        names,
        graph.num_bytes,
        tuple(tuple(str(fragment.identity) for fragment in table.fragments()) for table in tables),
        ways,
        known_reads,
        {at: rewrites[name] for at, name in enumerate(names) if name in rewrites},
        {at: overwrites[name] for at, name in enumerate(names) if name in overwrites},
        passes_per_month,
        tuple(pairs),
        because,
        refused,
        _age_order(names, created),
    )


def _age_order(names: Sequence[str], created: Mapping[str, int]) -> tuple[int, ...]:
    order = sorted(range(len(names)), key=lambda at: (created.get(names[at], 0), at))
    place = dict(zip(order, range(len(order)), strict=True))
    return tuple(place[at] for at in range(len(names)))


def _unreliable(parent: Table, assume_owned: bool) -> str:
    """Why nothing may be rebuilt from this table, or ""."""
    if parent.kind == "attached" and not assume_owned:
        return f"is attached, so its files may change: import_table({parent.name!r}) makes it a parent"
    return "is itself rebuilt from another table" if parent.kind == "retired" else ""


def _check_rates(rates: Mapping[str, float]) -> None:
    for name, rate in rates.items():
        if not isinstance(rate, int | float) or not 0 <= rate < float("inf"):
            raise InvalidInput(
                f"found the rate {rate!r} a month{f' for table {name!r}' if name else ''}, expected >= 0"
            )


def _whole_pairs(graph: Graph, kept: Collection[int]) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Every child that may go with every table that has all its rows; thinned out where there are too many."""
    relation = graph.relation
    total = sum(len(g) * (len(g) - 1) for g in relation.groups)
    total += sum(
        len(relation.groups[c]) * len(relation.groups[p]) for (c, p), edge in relation.edges.items() if edge.whole
    )
    parents = relation.groups
    if total > PAIRS_MOST:
        parents = tuple(_few(group, graph, kept) for group in relation.groups)
    for number, group in enumerate(relation.groups):
        for child in group:
            if child not in kept:
                yield from ((child, parent, ()) for parent in parents[number] if parent != child)
    for (c, p), edge in relation.edges.items():
        if edge.whole:
            for child in relation.groups[c]:
                if child not in kept:
                    yield from ((child, parent, ()) for parent in parents[p])


def _few(group: Sequence[int], graph: Graph, kept: Collection[int]) -> tuple[int, ...]:
    """Of duplicates those that stay anyway, then the smallest."""
    usable = [t for t in group if graph.tables[t].kind == "owned"] or list(group)
    return tuple(sorted(usable, key=lambda t: (t not in kept, graph.num_bytes[t], t))[:_PARENTS_A_GROUP])
